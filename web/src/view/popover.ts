// Panels and menus below a button, and questions in the middle: the browser's own popover and dialog, which bring
// light dismissal, Escape and the focus' way back.

import { texts } from '../texts';
import type { Password } from '../viewers/viewer';
import { h } from './dom';

let count = 0;

/** Makes a button open a panel below itself. `content` is made anew each time. */
export function opensPanel(button: HTMLButtonElement, label: string, content: () => HTMLElement): HTMLElement {
  const id = `panel-${(count += 1)}`;
  const panel = h('div', { id, popover: 'auto', class: 'panel', role: 'dialog', 'aria-label': label });
  button.setAttribute('aria-haspopup', 'dialog');
  button.setAttribute('aria-expanded', 'false');
  button.popoverTargetElement = panel;
  panel.addEventListener('beforetoggle', (event) => {
    if ((event as ToggleEvent).newState === 'open') panel.replaceChildren(content());
  });
  panel.addEventListener('toggle', (event) => {
    const open = (event as ToggleEvent).newState === 'open';
    button.setAttribute('aria-expanded', String(open));
    if (!open) return;
    place(panel, button);
    panel.querySelector<HTMLElement>('button, textarea, input, a[href], [tabindex="0"]')?.focus();
  });
  return panel;
}

/** Makes a button open a menu. */
export function opensMenu(
  button: HTMLButtonElement,
  label: string,
  items: () => { label: string; run(): void }[],
): HTMLElement {
  const menu = opensPanel(button, label, () => {
    const list = h('div', { class: 'menu' });
    for (const item of items()) {
      const run = () => {
        menu.hidePopover();
        item.run();
      };
      list.append(h('button', { type: 'button', role: 'menuitem', tabindex: -1, click: run }, item.label));
    }
    list.firstElementChild?.setAttribute('tabindex', '0');
    return list;
  });
  menu.setAttribute('role', 'menu');
  button.setAttribute('aria-haspopup', 'menu');
  menu.addEventListener('keydown', (event) => walk(event, [...menu.querySelectorAll('button')], true));
  return menu;
}

/** Arrow keys, Home and End along a row or column of elements. */
export function walk(event: KeyboardEvent, all: HTMLElement[], column: boolean): HTMLElement | null {
  const at = all.indexOf(document.activeElement as HTMLElement);
  const [back, on] = column ? ['ArrowUp', 'ArrowDown'] : ['ArrowLeft', 'ArrowRight'];
  const to = { [back]: at - 1, [on]: at + 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || all.length === 0) return null;
  event.preventDefault();
  const target = all[(to + all.length) % all.length] ?? null;
  target?.focus();
  return target;
}

function place(panel: HTMLElement, button: HTMLElement): void {
  const { left, bottom } = button.getBoundingClientRect();
  const { offsetWidth, scrollHeight } = panel;
  const top = Math.max(6, Math.min(bottom + 4, innerHeight - scrollHeight - 8));
  panel.style.left = `${Math.max(6, Math.min(left, innerWidth - offsetWidth - 6))}px`;
  panel.style.top = `${top}px`;
  panel.style.maxHeight = `${innerHeight - top - 6}px`;
}

/** Asks for a password; null: the person closed the question, or `over` did. */
export function askPassword(
  wanted: { user: boolean; again: boolean },
  over: AbortSignal,
): Promise<Password | null> {
  if (over.aborted) return Promise.resolve(null);
  return new Promise((resolve) => {
    const t = texts.password;
    const user = h('input', { name: 'user', autocomplete: 'off', spellcheck: 'false' });
    const password = h('input', { name: 'password', type: 'password', autocomplete: 'off', 'data-testid': 'password' });
    const submit = (event: Event) => {
      event.preventDefault();
      done({ user: user.value, password: password.value });
    };
    const dialog = h(
      'dialog',
      { 'aria-label': t.title, close: () => done(null) },
      h(
        'form',
        { submit },
        h('h2', {}, t.title),
        wanted.again && h('p', { role: 'alert' }, t.again),
        wanted.user && h('label', {}, t.user, user),
        h('label', {}, t.label, password),
        h(
          'div',
          { class: 'row' },
          h('button', { type: 'submit', class: 'primary' }, t.ok),
          h('button', { type: 'button', click: () => done(null) }, texts.cancel),
        ),
      ),
    );
    const done = (answer: Password | null) => {
      resolve(answer);
      dialog.remove();
    };
    over.addEventListener('abort', () => done(null));
    document.body.append(dialog);
    dialog.showModal();
    (wanted.user ? user : password).focus();
  });
}
