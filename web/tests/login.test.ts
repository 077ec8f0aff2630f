import { describe, expect, it } from 'vitest';
import { isAnother, modeOf, readGuest, type Guest } from '../src/rules/guest';
import { credentials, explains, readSecret, refusal, type Bought } from '../src/rules/login';
import { personOf, whose } from '../src/rules/whose';

const no = (status: number, more: Partial<Bought> = {}): Bought => ({
  ok: false,
  status,
  reason: 'why',
  login: true,
  retryAfter: null,
  ...more,
});
const guest = (more: object = {}): Guest =>
  readGuest({ uuid: 'u', person: 'ann', mode: 'control', session: { ends: 9, by: 'password' }, ...more }) as Guest;
const ticket = (claims: unknown, as = JSON.stringify(claims)) => `h.${Buffer.from(as).toString('base64url')}.s`;

describe('what is sent for a password', () => {
  it.each([
    ['ann', 'x', 'ann:x'],
    ['ann', 'a:b:c', 'ann:a:b:c'],
    [' a b ', ' p ', ' a b : p '],
    ['jürgen', 'pässwörd€😀', 'jürgen:pässwörd€😀'],
    ['ann', 'x'.repeat(100_000), `ann:${'x'.repeat(100_000)}`],
  ])('%j is told as it was typed, in UTF-8', (user, password, plain) =>
    expect(credentials(user, password)).toEqual({ sent: Buffer.from(plain, 'utf8').toString('base64') }),
  );

  it.each([
    ['', 'x', 'no-user'],
    ['ann', '', 'no-password'],
    ['a:b', 'x', 'colon'],
    [':', '', 'colon'],
  ])('%j with %j is not sent: %s', (user, password, problem) =>
    expect(credentials(user, password)).toEqual({ problem }),
  );
});

describe('the second secret of a session', () => {
  const secret = '-_aZ9'.padEnd(43, 'x');
  it('is what the proxy says', () => expect(readSecret({ secret, more: 1 })).toBe(secret));
  it.each([null, 'x', {}, { secret: 1 }, { secret: '' }, { secret: `${secret}x` }, { secret: secret.replace('a', ',') }])(
    'is not %j, which could change a header or a list of subprotocols',
    (json) => expect(readSecret(json)).toBe(null),
  );
});

describe('why a password was not taken', () => {
  it.each([
    ['nobody answered', null, { kind: 'silent' }],
    ['wrong', no(401), { kind: 'wrong' }],
    ['passwords are not taken any more', no(401, { login: false }), { kind: 'other', reason: 'why' }],
    ['no right', no(403), { kind: 'no-right', reason: 'why' }],
    ['too many, and when to come again', no(429, { retryAfter: '7' }), { kind: 'limited', seconds: 7 }],
    ['too many', no(429), { kind: 'limited', seconds: null }],
    ['too many, and no time', no(429, { retryAfter: '0' }), { kind: 'limited', seconds: null }],
    ['too many, and nonsense', no(429, { retryAfter: '-1 day' }), { kind: 'limited', seconds: null }],
    ['too many, for ever', no(429, { retryAfter: '999999999' }), { kind: 'limited', seconds: 86_400 }],
    ['nobody can tell', no(503), { kind: 'unavailable', reason: 'why' }],
    ['something else', no(500), { kind: 'other', reason: 'why' }],
  ] as const)('%s', (_what, bought, found) => expect(refusal(bought)).toEqual(found));

  it('is not that there is no ticket: so it is before everybody’s login', () => {
    expect(explains('a ticket is needed: `console-proxy url GUEST` on the host prints one')).toBe(false);
    expect(explains('the session has ended: its time is over')).toBe(true);
  });
});

describe('whose session it is', () => {
  it.each([
    [ticket({ sub: 'bob' }), 'bob'],
    [ticket({ sub: 'Jürgen 😀 <b>?~' }), 'Jürgen 😀 <b>?~'],
    [ticket({ sub: '' }), ''],
    [ticket({}), null],
    [ticket({ sub: 7 }), null],
    [ticket(null), null],
    [ticket(null, '{'), null],
    ['h.!!!.s', null],
    ['h._w.s', null],
    ['token', null],
    ['', null],
  ])('the ticket %s is for %j', (given, person) => expect(personOf(given)).toBe(person));

  it.each([
    ['another person’s link is asked about', 'bob', {}, { link: 'bob', here: 'ann' }],
    ['so is one of nobody', '', {}, { link: '', here: 'ann' }],
    ['names are compared as they are, not as they look', 'ann\u200b', {}, { link: 'ann\u200b', here: 'ann' }],
    ['the same person’s is not', 'ann', {}, null],
    ['without a session there is nothing to lose', 'bob', { session: null }, null],
  ])('%s', (_what, sub, more, question) => expect(whose(ticket({ sub }), guest(more))).toEqual(question));

  it('is not asked for a ticket that cannot be read: the proxy refuses it', () =>
    expect(whose('nonsense', guest())).toBeNull());

  it.each([
    [{ ends: 5, by: 'ticket' }, 'ticket'],
    [{ ends: 5, by: 'password' }, 'password'],
    [{ ends: 5, by: 'magic' }, undefined],
    [{ ends: 5 }, undefined],
    [null, undefined],
  ])('%j was bought by %s', (session, by) => expect(guest({ session }).by).toBe(by));
});

describe('rights', () => {
  const consoles = [{ console: 'vnc' }, { console: 'serial/0', mode: 'view' }, { console: 'serial/1', mode: 'new' }];

  it('may differ between consoles, and what is unknown is the least', () => {
    const told = guest({ consoles });
    expect(['vnc', 'serial/0', 'serial/1'].map((one) => modeOf(told, one))).toEqual(['control', 'view', 'view']);
    expect([modeOf(told, null), modeOf(null, 'vnc')]).toEqual(['control', 'view']);
  });

  it.each([
    ['the same again', {}, false],
    ['a later end', { session: { ends: 99, by: 'password' } }, false],
    ['one console fewer', { consoles: consoles.slice(1) }, false],
    ['another person', { person: 'bob' }, true],
    ['less than before', { mode: 'view' }, true],
    ['less on one console', { consoles: [{ console: 'vnc', mode: 'view' }] }, true],
  ])('%s: what is open was made for others: %s', (_what, more, another) =>
    expect(isAnother(guest({ consoles }), guest({ consoles, ...more }))).toBe(another),
  );
});
