// The search field of a terminal.

import type { SearchAddon } from '@xterm/addon-search';
import { texts } from '../texts';
import { h, icon } from './dom';

/** What is marked must be told from a selection; the add-on counts only with marks. */
const decorations = {
  matchBackground: '#5a4a10',
  matchOverviewRuler: '#d9b55b',
  activeMatchBackground: '#8a6d12',
  activeMatchColorOverviewRuler: '#ffffff',
};

export class SearchBar {
  readonly element: HTMLElement;
  private readonly field = h('input', {
    type: 'search',
    'aria-label': texts.search.label,
    placeholder: texts.search.label,
    spellcheck: 'false',
    'data-testid': 'search',
  });
  private readonly count = h('span', { class: 'faint', role: 'status' });

  constructor(
    private readonly addon: SearchAddon,
    private readonly left: () => void,
  ) {
    const t = texts.search;
    this.element = h(
      'div',
      { class: 'search', role: 'search', hidden: true },
      this.field,
      this.count,
      h('button', { type: 'button', click: () => this.find(false) }, t.previous),
      h('button', { type: 'button', click: () => this.find(true) }, t.next),
      h(
        'button',
        { type: 'button', class: 'plain', 'aria-label': texts.close, click: () => this.toggle() },
        icon('close'),
      ),
    );
    this.field.addEventListener('input', () => this.find(true, true));
    this.field.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.find(event.shiftKey);
      else if (event.key === 'Escape') this.toggle();
    });
    addon.onDidChangeResults(({ resultIndex, resultCount }) => {
      if (this.field.value === '') this.count.textContent = '';
      else this.count.textContent = resultCount === 0 ? t.none : t.found(resultIndex + 1, resultCount);
    });
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  toggle(): void {
    this.element.hidden = !this.element.hidden;
    if (this.open) return this.field.focus();
    this.addon.clearDecorations();
    this.left();
  }

  /** Enter goes back in time, as the newest is at the bottom. */
  private find(on: boolean, incremental = false): void {
    const options = { decorations, incremental };
    if (on) this.addon.findNext(this.field.value, options);
    else this.addon.findPrevious(this.field.value, options);
  }
}
