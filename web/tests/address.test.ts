import { describe, expect, it } from 'vitest';
import { choose, tabOrder } from '../src/rules/choose';
import { commandName, isConsole, readGuest, type Console } from '../src/rules/guest';
import { isSettled, linkedConsole, takeTicket } from '../src/rules/links';

const one = (console: string, more: Partial<Console> = {}): Console => ({
  console,
  path: console,
  reached: 'bridged',
  added: false,
  mode: 'control',
  ...more,
});
const none = { linked: null, last: null };

describe('the console that comes first', () => {
  const vnc = one('vnc');
  const table: [
    what: string,
    consoles: Console[],
    wish: { linked: string | null; last: string | null },
    first: string | undefined,
  ][] = [
    ['the display', [one('serial/0', { spoke: 1 }), vnc], none, 'vnc'],
    ['a SPICE display as well', [one('serial/0'), one('spice')], none, 'spice'],
    [
      'the text console that spoke last',
      [one('serial/0', { spoke: 90 }), one('serial/1', { spoke: 2 })],
      none,
      'serial/1',
    ],
    ['one that spoke before one that did not', [one('serial/0'), one('console/0', { spoke: 900 })], none, 'console/0'],
    ['a silent added port last', [one('serial/1', { added: true }), one('serial/0')], none, 'serial/0'],
    [
      'an added port that spoke last',
      [one('serial/0', { spoke: 9 }), one('serial/1', { added: true, spoke: 1 })],
      none,
      'serial/1',
    ],
    ['VNC before SPICE', [one('spice'), vnc], none, 'vnc'],
    ['the only one, though added and silent', [one('serial/0', { added: true })], none, 'serial/0'],
    ['the one that the address names', [vnc, one('serial/0')], { linked: 'serial/0', last: 'vnc' }, 'serial/0'],
    [
      'also where it is refused',
      [one('vnc', { refused: 'no' }), one('serial/0')],
      { linked: 'vnc', last: null },
      'vnc',
    ],
    ['the one used last', [vnc, one('serial/0')], { linked: null, last: 'serial/0' }, 'serial/0'],
    [
      'not where it is refused now',
      [vnc, one('serial/0', { refused: 'no' })],
      { linked: null, last: 'serial/0' },
      'vnc',
    ],
    ['not where it is gone', [vnc], { linked: 'serial/7', last: 'serial/8' }, 'vnc'],
    ['no refused display', [one('vnc', { refused: 'no' }), one('serial/0')], none, 'serial/0'],
    ['a refused one where there is nothing else', [one('vnc', { refused: 'no' })], none, 'vnc'],
    ['none', [], none, undefined],
  ];
  it.each(table)('%s', (_what, consoles, wish, first) => expect(choose(consoles, wish)?.console).toBe(first));
});

describe('the tabs', () => {
  it('stand best first, and else as the proxy told them', () => {
    const told = [
      one('serial/1', { added: true, spoke: 1 }),
      one('serial/0'),
      one('console/1', { spoke: 3 }),
      one('spice'),
      one('vnc', { refused: 'no' }),
    ];
    const order = tabOrder(told).map(({ console }) => console);
    expect(order).toEqual(['vnc', 'spice', 'serial/0', 'console/1', 'serial/1']);
  });
});

describe('the guest in a command', () => {
  it.each([
    ['web-1', 'web-1'],
    ['a.b_c+d', 'a.b_c+d'],
    ['-rf', 'u-1'],
    ['$(reboot)', 'u-1'],
    ['two words', 'u-1'],
    ['a\nb', 'u-1'],
    ['', 'u-1'],
  ])('%j is %s', (name, called) => expect(commandName({ name, uuid: 'u-1' })).toBe(called));

  it('is nothing where not even the UUID is one', () => expect(commandName({ name: ';', uuid: '`x`' })).toBe(''));
});

describe('deep links', () => {
  it.each([
    ['#vnc', 'vnc'],
    ['#spice', 'spice'],
    ['#serial/1', 'serial/1'],
    ['#/serial/1', 'serial/1'],
    ['#serial%2F1', 'serial/1'],
    ['#console/0', 'console/0'],
    ['#token=a.b.c&serial/1', 'serial/1'],
    ['#', null],
    ['', null],
    ['#serial/', null],
    ['#serial/1/../../x', null],
    ['#javascript:alert(1)', null],
    ['#%E0%A4%A', null],
  ])('%s names %s', (hash, console) => expect(linkedConsole(hash)).toBe(console));

  it('names only consoles that are safe as a path', () => {
    expect(['vnc', 'spice', 'serial/0', 'console/12345'].every(isConsole)).toBe(true);
    expect(['VNC', '//x', 'serial/-1', 'serial/1?x', 'serial/123456', '../vnc', '', 7, null].some(isConsole)).toBe(
      false,
    );
  });
});

describe('the ticket', () => {
  it.each([
    ['https://h:1/?token=a.b-c_d', 'a.b-c_d', 'https://h:1/'],
    ['https://h/x/uuid/?a=1&token=t&b=2#vnc', 't', 'https://h/x/uuid/?a=1&b=2#vnc'],
    ['https://h/#token=t', 't', 'https://h/'],
    ['https://h/#token=t&serial/1', 't', 'https://h/#serial/1'],
    ['https://h/?token=q#token=h', 'q', 'https://h/'],
    ['https://h/?token=one&token=two', 'one', 'https://h/'],
    ['https://h/?token=a%2Bb', 'a+b', 'https://h/'],
    ['https://h/?mytoken=t', null, 'https://h/?mytoken=t'],
    ['https://h/#serial/1', null, 'https://h/#serial/1'],
  ])('%s', (address, ticket, rest) => expect(takeTicket(address)).toEqual({ ticket, rest }));

  it.each([
    [200, true],
    [204, true],
    [401, true],
    [403, true],
    [404, false],
    [429, false],
    [500, false],
    [502, false],
  ])('goes out of the address after %i: %s', (status, gone) => expect(isSettled(status)).toBe(gone));

  it('is taken out of the address also where it is empty or broken', () => {
    expect(takeTicket('https://h/?token=')).toEqual({ ticket: null, rest: 'https://h/?token=' });
    expect(takeTicket('https://h/?token=%E0&token=x')).toMatchObject({ ticket: 'x' });
  });
});

describe('what the proxy tells of the guest', () => {
  it('is read by its shape, and the rest is left out', () => {
    const guest = readGuest({
      uuid: 'u',
      name: '<img src=x onerror=alert(1)>',
      mode: 'something new',
      session: { ends: 5 },
      consoles: [
        { console: 'vnc', path: '//evil' },
        { console: '../../x' },
        7,
        { console: 'serial/0', added: true, spoke: 3, refused: 'no' },
      ],
      unreachable: [{ console: 'spice', reason: 'r' }, { console: 'x' }],
    });
    expect(guest).toMatchObject({ name: '<img src=x onerror=alert(1)>', mode: 'view', ends: 5, person: '' });
    expect(guest?.consoles.map((console) => console.path)).toEqual(['vnc', 'serial/0']);
    expect(guest?.consoles[1]).toMatchObject({ added: true, spoke: 3, refused: 'no' });
    expect(guest?.unreachable).toEqual([{ console: 'spice', reason: 'r' }]);
  });

  it.each([null, 7, 'x', [], {}, { uuid: 7 }])('%j is none', (json) => expect(readGuest(json)).toBeNull());
});
