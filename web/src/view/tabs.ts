// The consoles as tabs: arrow keys walk, Enter or Space opens. One that cannot be opened can still be chosen, and then
// says why.

import { consoleName, texts } from '../texts';
import { h } from './dom';
import { walk } from './popover';

export interface TabInfo {
  console: string;
  disabled: boolean;
}

export class Tabs {
  readonly element = h('div', { role: 'tablist', class: 'tabs', 'aria-label': texts.consoles });
  private chosen: string | null = null;
  private shown = '';

  constructor(private readonly choose: (console: string) => void) {
    this.element.addEventListener('keydown', (event) => {
      walk(event, this.all(), false)?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    });
  }

  show(infos: TabInfo[]): void {
    const shown = JSON.stringify(infos);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren(...infos.map((info) => this.tab(info)));
    this.mark(this.chosen);
    if (focused) this.focus();
  }

  /** Marks the chosen tab. */
  mark(console: string | null): void {
    this.chosen = console;
    const all = this.all();
    const chosen = all.find((tab) => tab.dataset.console === console) ?? all[0];
    for (const tab of all) {
      tab.setAttribute('aria-selected', String(tab.dataset.console === console));
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
  }

  focus(): void {
    (this.element.querySelector<HTMLElement>('[tabindex="0"]') ?? this.element).focus();
  }

  /** The id of a console's tab, for what it labels. */
  static id(console: string): string {
    return `tab-${console.replace('/', '-')}`;
  }

  private tab({ console, disabled }: TabInfo): HTMLElement {
    const name = consoleName(console);
    return h(
      'button',
      {
        type: 'button',
        role: 'tab',
        id: Tabs.id(console),
        'aria-controls': 'stage',
        'data-console': console,
        'data-testid': `tab-${console}`,
        class: disabled ? 'tab disabled' : 'tab',
        title: disabled ? texts.console.cannot(name) : name,
        click: () => this.choose(console),
      },
      name,
    );
  }

  private all(): HTMLElement[] {
    return [...this.element.querySelectorAll<HTMLElement>('[role=tab]')];
  }
}
