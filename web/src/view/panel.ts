// The panel over a console that is not connected: what is the case, why, and what a person can do about it.

import { clean } from '../rules/clean';
import { OWN, type State } from '../rules/state';
import { consoleName, texts } from '../texts';
import { h } from './dom';

export interface PanelActions {
  retry(): void;
  /** Shows the form for user and password. */
  logIn(): void;
  /** Whose session it is to be. */
  goOn(): void;
  stay(): void;
  reload(): void;
  now(): number;
}

export interface Shown {
  state: State;
  console: string | null;
  /** What a command calls the guest; empty: unknown. */
  guest: string;
  due: number;
  broken: boolean;
}

interface Words {
  title: string;
  body?: string;
  command?: string;
  reason?: string;
  action?: string;
  waits?: boolean;
  busy?: boolean;
}

/** The panel for a state; null: the console itself is to be seen. */
export function statePanel(shown: Shown, actions: PanelActions): HTMLElement | null {
  if (shown.broken) return draw(texts.state.failed, actions.reload);
  const { state } = shown;
  if (state.name === 'connected') return null;
  if (state.name === 'whose') return whosePanel(state, actions);
  const words = wordsFor(shown);
  const panel = draw(words, actions.retry);
  if (state.name === 'not-allowed' && state.login) panel.append(button('log-in', texts.login.other, actions.logIn));
  if (words.waits) panel.append(countdown(shown.state, shown.due, actions.now()));
  return panel;
}

/** The panel for a console that the proxy will not open, or for none at all. */
export function cannotPanel(console: string | null, reason: string, retry: () => void): HTMLElement {
  const t = texts.state;
  if (console === null) return draw({ ...t.none, reason }, retry);
  return draw({ ...t.cannot, body: consoleName(console), reason }, retry);
}

/** Why whoever is out is out: the title, and the reason in words. */
export function outWords(reason: string, guest: string, none: string): { title: string; reason: string } {
  const t = texts.state.ended;
  return { title: reason === OWN.loggedOut ? t.out : guest ? t.title : none, reason: why(reason) };
}

/** Asks whether a link is to make another person of somebody. */
function whosePanel(state: { link: string; here: string }, actions: PanelActions): HTMLElement {
  const t = texts.whose;
  const [link, here] = [personName(state.link), personName(state.here)];
  return h(
    'div',
    { class: 'state' },
    h('h2', {}, t.title),
    h('p', {}, t.body(link, here)),
    h(
      'div',
      { class: 'row' },
      button('stay', t.stay(here), actions.stay),
      button('go-on', t.goOn(link), actions.goOn),
    ),
  );
}

/** A person's name as a bounded piece of text. */
export function personName(name: string): string {
  return clean(name, 40) || texts.whose.nobody;
}

function button(id: string, label: string, click: () => void): HTMLElement {
  return h('button', { type: 'button', 'data-testid': id, click }, label);
}

function wordsFor({ state, console, guest }: Shown): Words {
  const t = texts.state;
  const reason = 'reason' in state ? why(state.reason) : '';
  switch (state.name) {
    case 'connecting':
      return { title: t.connecting.title, body: console ? t.connecting.body(consoleName(console)) : '', busy: true };
    case 'guest-off':
      return { ...t.off, reason, waits: true, action: t.lost.action };
    case 'unreachable':
      return { ...t.unreachable, reason, waits: true };
    case 'lost':
      return { ...t.lost, reason, waits: true };
    case 'not-allowed':
      if (state.reason === OWN.noPassword) return t.noPassword;
      return { ...t.notAllowed, reason, action: t.refused.action };
    case 'ended':
    case 'login': {
      const { title } = outWords(state.reason, guest, t.ended.none);
      return { title, body: t.ended.body, command: t.ended.command(guest), reason, action: t.ended.action };
    }
    case 'taken-over':
      return { ...t.taken, reason };
    case 'busy':
      return { ...t.busy, reason };
    case 'websocket-refused':
      return { ...t.refused, reason };
    case 'whose':
      return { title: texts.whose.title };
    case 'connected':
      return { title: t.connected };
  }
}

/** The reason in words: the server's as text, ours from the language's file. */
function why(reason: string): string {
  return texts.state.own[reason] ?? clean(reason);
}

function draw(words: Words, act?: () => void): HTMLElement {
  return h(
    'div',
    { class: 'state' },
    words.busy && h('div', { class: 'busy', 'aria-hidden': 'true' }),
    h('h2', {}, words.title),
    words.reason && h('p', { class: 'reason', 'data-testid': 'reason' }, texts.state.reason(words.reason)),
    words.body && h('p', {}, words.body),
    words.command && h('pre', { tabindex: 0 }, words.command),
    words.action &&
      act &&
      h('button', { type: 'button', class: 'primary', 'data-testid': 'retry', click: act }, words.action),
  );
}

function countdown(state: State, due: number, now: number): HTMLElement {
  const asking = 'wait' in state && state.wait === null;
  const seconds = Math.max(1, Math.ceil((due - now) / 1000));
  // Not read out each second: the state itself was.
  return h(
    'p',
    { class: 'faint', 'aria-hidden': 'true', 'data-countdown': true },
    asking ? texts.state.trying : texts.state.retryIn(seconds),
  );
}
