// Lines above a console: progress of what is being typed, what was left out, what a program asks for.

import { texts } from '../texts';
import type { Notice } from '../viewers/viewer';
import { h, icon } from './dom';

const BRIEF = 6_000;

export class Notices {
  readonly element = h('div', { class: 'notices', role: 'status' });
  private lines = new Map<string, { line: HTMLElement; words: HTMLElement; actions: string; timer?: number }>();

  /** Shows, changes or (null) takes away the line `id`. */
  show(id: string, notice: Notice | null): void {
    if (!notice) return this.remove(id);
    const actions = (notice.actions ?? []).map((action) => action.label).join('\n');
    const there = this.lines.get(id);
    // Progress comes often: only its words change, so that its button can be pressed.
    if (there && notice.passing && there.actions === actions) {
      there.words.textContent = notice.text;
      return;
    }
    this.remove(id);
    const words = h('span', {}, notice.text);
    const line = h('div', { class: 'notice', 'data-testid': `notice-${id}` }, words);
    for (const { label, run } of notice.actions ?? []) {
      line.append(h('button', { type: 'button', click: run }, label));
    }
    const close = () => {
      this.remove(id);
      notice.closed?.();
    };
    if (!notice.passing) {
      line.append(
        h(
          'button',
          { type: 'button', class: 'plain', 'aria-label': texts.close, click: close },
          icon('close'),
        ),
      );
    }
    const timer = notice.brief ? window.setTimeout(() => this.remove(id), BRIEF) : undefined;
    this.lines.set(id, { line, words, actions, timer });
    this.element.append(line);
  }

  private remove(id: string): void {
    const there = this.lines.get(id);
    if (!there) return;
    clearTimeout(there.timer);
    there.line.remove();
    this.lines.delete(id);
  }
}
