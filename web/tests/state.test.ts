import { describe, expect, it } from 'vitest';
import { backoff } from '../src/rules/backoff';
import { verdict, type Closing } from '../src/rules/closing';
import { isFinal, OWN, step, type Answer, type Event, type State } from '../src/rules/state';

const connecting: State = { name: 'connecting', attempt: 0, doubt: null };
const connected: State = { name: 'connected', attempt: 0 };
const off: State = { name: 'guest-off', reason: 'the guest has stopped', attempt: 2, wait: 900 };
const asking: State = { ...off, wait: null };
const over: State = { name: 'ended', reason: 'time is over', asked: true };
const out: State = { name: 'login', reason: '' };
const asked: State = { name: 'whose', link: 'bob', here: 'ann' };
const refusedOnce: State = { name: 'connecting', attempt: 1, doubt: { code: 1006, reason: '', opened: false } };

const closed = (code: number, reason = '', opened = true, lasted = 60_000): Event => ({
  type: 'closed',
  closing: { code, reason, opened },
  lasted,
});
const answer = (one: Answer): Event => ({ type: 'answer', answer: one });
const login: Answer = { kind: 'status', status: 401, reason: 'no ticket', login: true };
const whose: Answer = { kind: 'whose', link: 'bob', here: 'ann' };
const fine: Answer = { kind: 'ok', known: true };

describe('the states of a console', () => {
  const table: [what: string, state: State, event: Event, next: string, effects: string][] = [
    ['the page is opened', connecting, { type: 'enter' }, 'connecting', 'ask'],
    ['a tab is opened', connecting, { type: 'start' }, 'connecting', 'drop connect'],
    ['the console shows itself', connecting, { type: 'ready' }, 'connected', ''],
    ['late news of a console that is over', off, { type: 'ready' }, 'guest-off', ''],
    ['no answer in time', connecting, { type: 'deadline' }, 'connecting', 'drop ask'],
    ['a deadline that came too late', connected, { type: 'deadline' }, 'connected', ''],
    ['the guest stops', connected, closed(1001, 'the guest has stopped'), 'guest-off', 'wait'],
    ['the proxy stops', connected, closed(1001, 'the console proxy is stopping'), 'lost', 'wait'],
    ['the session ends', connected, closed(4401, 'logged out'), 'ended', 'ask'],
    ['the right is taken away', connected, closed(4403, 'revoked'), 'not-allowed', ''],
    ['two pings unanswered', connected, closed(4408), 'lost', 'wait'],
    ['somebody takes over', connected, closed(4409, 'ann took this console over'), 'taken-over', ''],
    ['somebody is there already', connecting, closed(4409, 'held by virsh console'), 'busy', ''],
    ['too many viewers', connecting, closed(4429, 'too many viewers'), 'busy', ''],
    ['no ticket', connecting, closed(4401, 'no credentials'), 'ended', 'ask'],
    ['not this console', connecting, closed(4403, 'not this console'), 'not-allowed', ''],
    ['no such console', connecting, closed(4404, 'no such console'), 'unreachable', 'wait'],
    ['a bad request', connecting, closed(4400, 'bad'), 'unreachable', 'wait'],
    ['the proxy fails', connecting, closed(4500, 'bug'), 'unreachable', 'wait'],
    ['the backend refuses', connecting, closed(4502, 'connection refused'), 'unreachable', 'wait'],
    ['the backend goes away', connected, closed(4502, 'backend gone'), 'unreachable', 'wait'],
    ['the backend is silent', connecting, closed(4504, 'silent'), 'unreachable', 'wait'],
    ['the network goes', connected, closed(1006), 'lost', 'wait'],
    ['a clean close without a reason', connected, closed(1000), 'lost', 'wait'],
    ['a websocket that never opened', connecting, closed(1006, '', false), 'connecting', 'ask'],
    ['an end that was heard before', off, closed(1006), 'guest-off', ''],
    ['the wait is over', off, { type: 'due' }, 'guest-off', 'ask'],
    ['a second timer', asking, { type: 'due' }, 'guest-off', ''],
    ['the network is back', off, { type: 'nudge' }, 'guest-off', 'ask'],
    ['the network is back while all is well', connected, { type: 'nudge' }, 'connected', ''],
    ['a look at an ended session', { name: 'ended', reason: '' }, { type: 'nudge' }, 'ended', 'ask'],
    ['a look after a log-out', { name: 'ended', reason: OWN.loggedOut }, { type: 'nudge' }, 'ended', ''],
    ['another tab bought a session', { name: 'ended', reason: '' }, answer(fine), 'connecting', 'connect'],
    [
      'the session is still over',
      { name: 'ended', reason: '' },
      answer({ kind: 'status', status: 401, reason: '' }),
      'ended',
      '',
    ],
    ['the guest is back', asking, answer(fine), 'connecting', 'connect'],
    ['the guest is still off', asking, answer({ kind: 'silent' }), 'guest-off', 'wait'],
    ['the session ended meanwhile', asking, answer({ kind: 'status', status: 401, reason: '' }), 'ended', ''],
    ['the right is gone meanwhile', asking, answer({ kind: 'status', status: 403, reason: '' }), 'not-allowed', ''],
    ['the guest came back without it', asking, answer({ kind: 'ok', known: false }), 'unreachable', 'wait'],
    ['the guest came back, this out of reach', asking, answer({ ...fine, unreachable: 'x' }), 'unreachable', 'wait'],
    ['a page in between answers', asking, answer({ kind: 'status', status: 200, reason: OWN.foreign }), 'lost', 'wait'],
    ['no password', connecting, closed(4403, OWN.noPassword), 'not-allowed', ''],
    ['the guest came back, view-only', asking, answer({ ...fine, refused: 'view' }), 'not-allowed', ''],
    [
      'a front server has no socket',
      { ...asking, name: 'lost' },
      answer({ kind: 'status', status: 502, reason: '' }),
      'guest-off',
      'wait',
    ],
    ['a proxy in trouble', asking, answer({ kind: 'status', status: 500, reason: '' }), 'lost', 'wait'],
    ['the websocket alone fails, once', { ...refusedOnce, attempt: 0 } as State, answer(fine), 'connecting', 'connect'],
    ['the websocket alone fails, twice', refusedOnce, answer(fine), 'websocket-refused', ''],
    ['nothing answers', refusedOnce, answer({ kind: 'silent' }), 'lost', 'wait'],
    [
      'open, and closed without a word',
      { ...refusedOnce, doubt: { code: 1006, reason: '', opened: true } },
      answer(fine),
      'lost',
      'wait',
    ],
    ['silent though the proxy answers', { ...connecting, doubt: 'deadline' }, answer(fine), 'unreachable', 'wait'],
    ['entry', { ...connecting, doubt: 'entry' }, answer(fine), 'connecting', 'connect'],
    [
      'entry without a session',
      { ...connecting, doubt: 'entry' },
      answer({ kind: 'status', status: 401, reason: '' }),
      'ended',
      '',
    ],
    ['an answer nobody waits for', connected, answer(fine), 'connected', ''],
    ['log-out', connected, { type: 'logged-out' }, 'ended', 'drop ask'],
    ['the session ended, and a password would do', over, answer(login), 'login', ''],
    ['the session ended, and none would', over, answer({ ...login, login: false }), 'ended', ''],
    ['the session ended, and nobody answers', over, answer({ kind: 'silent' }), 'ended', ''],
    ['a console ends what the proxy takes for good', over, answer(fine), 'ended', ''],
    ['logged out, and a password would do', { ...over, reason: OWN.loggedOut }, answer(login), 'login', ''],
    ['entry, and a password would do', { ...connecting, doubt: 'entry' }, answer(login), 'login', ''],
    ['the session ended while the guest was off', asking, answer(login), 'login', ''],
    ['a look at the login form', out, { type: 'nudge' }, 'login', 'ask'],
    ['a look at the login form after a log-out', { ...out, reason: OWN.loggedOut }, { type: 'nudge' }, 'login', ''],
    ['still nobody', out, answer(login), 'login', ''],
    ['another tab logged in', out, answer(fine), 'connecting', 'connect'],
    ['logged in', out, { type: 'enter' }, 'connecting', 'ask'],
    ['a link as somebody else', { ...connecting, doubt: 'entry' }, answer(whose), 'whose', ''],
    ['a link as somebody else, after the network came back', asking, answer(whose), 'whose', ''],
    ['a link that nobody asks about', connected, answer(whose), 'connected', ''],
    ['a look before the answer', asked, { type: 'nudge' }, 'whose', ''],
    ['news before the answer', asked, answer(fine), 'whose', ''],
    ['the answer', asked, { type: 'enter' }, 'connecting', 'ask'],
  ];
  it.each(table)('%s', (_what, state, event, next, effects) => {
    const got = step(state, event, 0.5);
    expect(got.state.name).toBe(next);
    expect(got.effects.map((effect) => effect.do).join(' ')).toBe(effects);
  });

  it('keeps the reason that it was given', () => {
    expect(step(connected, closed(4409, 'ann took this console over'), 0).state).toEqual({
      name: 'taken-over',
      reason: 'ann took this console over',
    });
    expect(step(over, answer(login), 0).state).toEqual({ name: 'login', reason: 'time is over' });
    expect(step({ ...connecting, doubt: 'entry' }, answer(login), 0).state).toMatchObject({ reason: 'no ticket' });
    expect(step(asking, answer({ kind: 'silent' }), 0).state).toMatchObject({ reason: 'the guest has stopped' });
    expect(step(asking, answer({ ...fine, unreachable: 'a file' }), 0).state).toMatchObject({ reason: 'a file' });
  });

  it('never waits for ever in silence: each state that no person must act in has something due', () => {
    for (const [, state, event] of table) {
      const next = step(state, event, 0.5);
      if (isFinal(next.state) || next.state.name === 'connected' || next.state === state) continue;
      const promised = next.effects.some((effect) => effect.do !== 'drop');
      expect(promised || next.state.name === state.name).toBe(true);
    }
  });

  it('comes back soon after a good connection, and ever later after bad ones', () => {
    const good = step(connected, closed(1006), 0).state;
    expect(good).toMatchObject({ attempt: 0 });
    let state: State = connected;
    for (let n = 0; n < 5; n += 1) {
      state = step(state, closed(1006, '', true, 50), 0).state;
      state = step(step(state, { type: 'due' }, 0).state, answer(fine), 0).state;
      state = step(state, { type: 'ready' }, 0).state;
    }
    expect(state).toEqual({ name: 'connected', attempt: 5 });
  });
});

describe('back-off', () => {
  it('doubles, within bounds, spread over half of the step', () => {
    expect([0, 1, 2, 3].map((n) => backoff(n, 0))).toEqual([300, 600, 1200, 2400]);
    expect(backoff(0, 0.999)).toBeLessThanOrEqual(600);
    expect(backoff(50, 0)).toBe(5_000);
    expect(backoff(5_000, 1)).toBe(10_000);
    expect(backoff(-3, 0)).toBe(300);
  });
});

describe('close codes', () => {
  const closing = (code: number, reason = ''): Closing => ({ code, reason, opened: true });
  it.each([
    [1001, 'the guest has stopped', 'guest-off'],
    [1001, 'the console proxy is stopping', 'proxy-stops'],
    [1001, '', 'proxy-stops'],
    [4400, '', 'unreachable'],
    [4401, '', 'ended'],
    [4403, '', 'not-allowed'],
    [4404, '', 'unreachable'],
    [4408, '', 'client-lost'],
    [4409, '', 'occupied'],
    [4429, '', 'limit'],
    [4500, '', 'unreachable'],
    [4502, '', 'unreachable'],
    [4504, '', 'unreachable'],
    [1000, '', 'unclear'],
    [1006, '', 'unclear'],
    [1011, '', 'unclear'],
    [4999, '', 'unclear'],
  ])('%i "%s" is %s', (code, reason, meaning) => expect(verdict(closing(code, reason))).toBe(meaning));
});
