// A phone's keyboard for a display: it writes into a field nobody sees, and what changes there becomes strokes.

import { key, strokes, type Key, type KeyName, type Stroke } from '../rules/keys';
import { texts } from '../texts';
import { h } from '../view/dom';

/** Something to delete, so that the field tells of Backspace. */
const FILL = '\u00a0'.repeat(32);
const PASSED: readonly string[] = [
  'Enter',
  'Tab',
  'Escape',
  'ArrowLeft',
  'ArrowUp',
  'ArrowRight',
  'ArrowDown',
  'Delete',
];

export class SoftKeyboard {
  readonly field = h('textarea', {
    class: 'soft-keyboard',
    'aria-label': texts.tool.keyboard,
    autocapitalize: 'off',
    autocomplete: 'off',
    autocorrect: 'off',
    spellcheck: 'false',
    tabindex: -1,
  });

  private before = FILL;

  constructor(
    private readonly stroke: (stroke: Stroke) => void,
    private readonly named: (key: Key) => void,
  ) {
    this.reset();
    this.field.addEventListener('input', () => this.changed());
    this.field.addEventListener('blur', () => this.reset());
    this.field.addEventListener('keydown', (event) => {
      if (!PASSED.includes(event.key)) return;
      event.preventDefault();
      this.named(key(event.key as KeyName));
    });
  }

  /** Shows the keyboard, or hides it. */
  toggle(): void {
    if (document.activeElement === this.field) this.field.blur();
    else this.field.focus();
  }

  private reset(): void {
    this.before = FILL;
    this.field.value = FILL;
    this.field.setSelectionRange(FILL.length, FILL.length);
  }

  /** Compares with what was there: a keyboard that completes words replaces what it wrote before. */
  private changed(): void {
    const { before } = this;
    const now = this.field.value;
    let same = 0;
    while (same < before.length && same < now.length && before[same] === now[same]) same += 1;
    for (let n = same; n < before.length; n += 1) this.named(key('Backspace'));
    for (const stroke of strokes(now.slice(same))) this.stroke(stroke);
    this.before = now;
    if (now.length < 8 || now.length > 400) this.reset();
  }
}
