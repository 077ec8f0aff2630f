// Keys that a phone's keyboard lacks, below the console. Control and Alt stay held until the next key.

import type { KeyName } from '../rules/keys';
import { texts } from '../texts';
import { h } from './dom';

const ROW = ['Escape', 'Tab', 'Control', 'Alt', 'ArrowLeft', 'ArrowUp', 'ArrowDown', 'ArrowRight'] as const;
const ARROWS: Record<string, string> = { ArrowLeft: '←', ArrowUp: '↑', ArrowDown: '↓', ArrowRight: '→' };

export class ExtraKeys {
  readonly element = h('div', {
    class: 'extra-keys',
    role: 'toolbar',
    'aria-label': texts.tool.extraKeys,
    hidden: true,
  });
  private held = new Map<'Control' | 'Alt', HTMLButtonElement>();

  constructor(
    private readonly press: (name: KeyName) => void,
    private readonly hold: (name: 'Control' | 'Alt', held: boolean) => void,
  ) {
    for (const name of ROW) this.element.append(this.make(name));
    // A tap must not take the focus away from the console: its keyboard would go.
    this.element.addEventListener('pointerdown', (event) => event.preventDefault());
  }

  /** Control and Alt were let go. */
  released(): void {
    for (const button of this.held.values()) button.setAttribute('aria-pressed', 'false');
  }

  private make(name: (typeof ROW)[number]): HTMLElement {
    const label = texts.keys[name];
    const button = h(
      'button',
      { type: 'button', 'aria-label': label, 'data-testid': `key-${name}` },
      ARROWS[name] ?? label,
    );
    if (name === 'Control' || name === 'Alt') {
      this.held.set(name, button);
      button.setAttribute('aria-pressed', 'false');
      button.addEventListener('click', () => {
        const held = button.getAttribute('aria-pressed') !== 'true';
        button.setAttribute('aria-pressed', String(held));
        this.hold(name, held);
      });
    } else button.addEventListener('click', () => this.press(name));
    return button;
  }
}
