// The clipboard of a display: a field for text in both directions, and typing it as keys.

import { copyText, readText } from '../edges/clipboard';
import { texts } from '../texts';
import { h } from './dom';

export interface ClipboardOwner {
  /** The last text, whoever set it. */
  text: string;
  sync: boolean;
  /** undefined: the display exchanges no text. */
  send?(text: string): void;
  type(text: string): void;
}

export function clipboardPanel(owner: ClipboardOwner): HTMLElement {
  const t = texts.clipboard;
  const field = h('textarea', { rows: 6, 'aria-label': t.label, spellcheck: 'false', 'data-testid': 'clipboard-text' });
  field.value = owner.text;
  field.addEventListener('input', () => (owner.text = field.value));
  const said = h('p', { class: 'faint', role: 'status' }, owner.send ? '' : t.noText);
  const copy = async () => void (said.textContent = (await copyText(field.value)) ? t.copied : t.notCopied);
  const fetch = async () => {
    const text = await readText();
    if (text === null) said.textContent = t.denied;
    else field.value = owner.text = text;
  };
  const sync = h('input', { type: 'checkbox', change: () => (owner.sync = sync.checked) });
  sync.checked = owner.sync;
  /** The panel goes first, and with it the focus. */
  const leave = (run: () => void) => {
    field.closest<HTMLElement>('[popover]')?.hidePopover();
    run();
  };
  const button = (id: string, label: string, click: () => void) =>
    h('button', { type: 'button', 'data-testid': `clipboard-${id}`, click }, label);
  return h(
    'div',
    { class: 'content clipboard' },
    h('h2', {}, t.title),
    field,
    h(
      'div',
      { class: 'row' },
      button('fetch', t.fetch, () => void fetch()),
      owner.send && button('send', t.send, () => leave(() => owner.send?.(field.value))),
      button('type', t.type, () => leave(() => owner.type(field.value))),
      owner.send && button('copy', t.copy, () => void copy()),
    ),
    owner.send && h('label', { class: 'check' }, sync, t.sync),
    said,
  );
}
