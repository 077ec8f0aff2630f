// The form for user and password. It stands for as long as the page does, so that what was typed survives whatever
// happens around it, but for the password: that is taken out as soon as it was sent.

import { clean } from '../rules/clean';
import { credentials, type Refusal } from '../rules/login';
import { texts } from '../texts';
import { h } from './dom';

export interface LoginOwner {
  /** Sends the credentials; null: they were taken. */
  logIn(credentials: string): Promise<Refusal | null>;
  now(): number;
}

export interface LoginWords {
  title: string;
  /** Why there is no session; empty: there never was one. */
  reason: string;
  /** What prints a link, for who has no password. */
  command: string;
}

export class LoginForm {
  private readonly title = h('h2', {});
  private readonly reason = h('p', { class: 'reason', 'data-testid': 'reason' });
  private readonly command = h('pre', { tabindex: 0 });
  private readonly user = h('input', {
    id: 'login-user',
    name: 'username',
    autocomplete: 'username',
    autocapitalize: 'none',
    autocorrect: 'off',
    spellcheck: 'false',
    enterkeyhint: 'next',
    'aria-describedby': 'login-error',
    'data-testid': 'login-user',
  });
  private readonly password = h('input', {
    id: 'login-password',
    name: 'password',
    type: 'password',
    autocomplete: 'current-password',
    enterkeyhint: 'go',
    'aria-describedby': 'login-error',
    'data-testid': 'login-password',
  });
  private readonly error = h('p', { id: 'login-error', class: 'error', role: 'alert', 'data-testid': 'login-error' });
  /** Beside the error: read out once, not each second. */
  private readonly wait = h('p', { class: 'faint', 'aria-hidden': 'true', 'data-testid': 'login-wait' });
  private readonly send = h('button', { type: 'submit', class: 'primary', 'data-testid': 'login-send' });
  private busy = false;
  private waitsUntil = 0;
  /** `post`: whatever sends it without us puts no password into the address. */
  readonly element = h(
    'form',
    { class: 'state login', method: 'post', 'data-testid': 'login', submit: (event: Event) => this.submit(event) },
    this.title,
    this.reason,
    h('label', { for: 'login-user' }, texts.login.user),
    this.user,
    h('label', { for: 'login-password' }, texts.login.password),
    this.password,
    this.error,
    this.wait,
    this.send,
    h('p', { class: 'faint' }, texts.login.link),
    this.command,
  );

  constructor(private readonly owner: LoginOwner) {
    this.draw();
  }

  show(words: LoginWords): void {
    if (this.title.textContent !== words.title) this.title.textContent = words.title;
    const reason = words.reason && texts.state.reason(words.reason);
    if (this.reason.textContent !== reason) this.reason.textContent = reason;
    this.reason.hidden = reason === '';
    this.command.textContent = words.command;
  }

  /** Each second: counts down. */
  tick(): void {
    if (this.waitsUntil > 0) this.draw();
  }

  /** Out of sight there is nothing to remember. */
  clear(): void {
    this.password.value = '';
    this.say('');
  }

  private submit(event: Event): void {
    // The page's policy forbids what a browser would do with it.
    event.preventDefault();
    if (this.busy || this.left() > 0) return;
    const given = credentials(this.user.value, this.password.value);
    if ('problem' in given) {
      this.say(texts.login.problem[given.problem]);
      (given.problem === 'no-password' ? this.password : this.user).focus();
      return;
    }
    void this.ask(given.sent);
  }

  private async ask(sent: string): Promise<void> {
    this.say('');
    this.setBusy(true);
    const refusal = await this.owner.logIn(sent);
    this.setBusy(false);
    this.password.value = '';
    if (!refusal) return;
    this.waitsUntil = refusal.kind === 'limited' && refusal.seconds ? this.owner.now() + refusal.seconds * 1000 : 0;
    this.say(words(refusal));
    this.password.focus();
  }

  private setBusy(busy: boolean): void {
    this.busy = busy;
    this.element.setAttribute('aria-busy', String(busy));
    // Not disabled: that would take the focus away.
    this.user.readOnly = this.password.readOnly = busy;
    this.draw();
  }

  private say(words: string): void {
    this.error.textContent = words;
    this.error.hidden = words === '';
    for (const field of [this.user, this.password]) field.setAttribute('aria-invalid', String(words !== ''));
    this.draw();
  }

  private left(): number {
    return Math.max(0, Math.ceil((this.waitsUntil - this.owner.now()) / 1000));
  }

  private draw(): void {
    const left = this.left();
    if (left === 0) this.waitsUntil = 0;
    this.wait.hidden = left === 0;
    this.wait.textContent = left > 0 ? texts.login.again(left) : '';
    this.send.textContent = this.busy ? texts.login.checking : texts.login.send;
    this.send.setAttribute('aria-disabled', String(this.busy || left > 0));
  }
}

function words(refusal: Refusal): string {
  const t = texts.login.refused;
  switch (refusal.kind) {
    case 'wrong':
      return t.wrong;
    case 'silent':
      return t.silent;
    case 'limited':
      return refusal.seconds === null ? t.limited : t.limitedFor(refusal.seconds);
    case 'no-right':
      return t.noRight(clean(refusal.reason));
    case 'unavailable':
      return t.unavailable(clean(refusal.reason));
    case 'other':
      return t.other(clean(refusal.reason));
  }
}
