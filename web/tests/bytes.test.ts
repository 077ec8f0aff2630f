import { describe, expect, it } from 'vitest';
import { wholeTicket } from '../src/rules/spiceticket';
import { en } from '../src/texts/en';
import { amount, clean, fileName } from '../src/rules/clean';
import { chordName, CHORDS, key, strokes, terminalKey, withModifiers } from '../src/rules/keys';
import { Leave } from '../src/rules/leave';
import { isClipboardQuestion } from '../src/rules/osc52';
import { Brackets, Pacer, pastePieces, pieces } from '../src/rules/pacing';
import { LIMIT, LIMIT_WHILE_TYPING, Pending, PORTION } from '../src/rules/pending';
import { Position, readTold } from '../src/rules/position';
import { spiceCode } from '../src/rules/scancode';

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (taken: { bytes: Uint8Array } | null) => new TextDecoder().decode(taken?.bytes);

describe('output that waits', () => {
  it('goes through as it came where it fits', () => {
    const pending = new Pending();
    for (const part of ['one ', 'two ', 'three']) pending.push(bytes(part), LIMIT);
    expect(text(pending.take())).toBe('one two three');
    expect(pending.take()).toBeNull();
  });

  it('keeps the newest, tells how much is gone, and goes on behind a line', () => {
    const pending = new Pending();
    pending.push(bytes('old line\nhalf a'), 16);
    pending.push(bytes(' line\nnew line\n'), 16);
    const taken = pending.take();
    expect(text(taken)).toBe('new line\n');
    expect(taken?.lost).toBe('old line\nhalf a line\n'.length);
    expect(pending.size).toBe(0);
  });

  it('tells of a loss once', () => {
    const pending = new Pending();
    pending.push(bytes('x'.repeat(10)), 4);
    expect(pending.take(2)?.lost).toBe(6);
    expect(pending.take(2)?.lost).toBe(0);
  });

  it('holds no more than its limit of 50 MB that come at once, and loses no byte without a word', () => {
    const pending = new Pending();
    const chunk = new Uint8Array(65_536).fill(46);
    let lost = 0;
    let shown = 0;
    for (let n = 0; n < 800; n += 1) {
      pending.push(chunk, LIMIT);
      expect(pending.size).toBeLessThanOrEqual(LIMIT);
      if (n % 50 === 0) {
        const taken = pending.take();
        lost += taken?.lost ?? 0;
        shown += taken?.bytes.length ?? 0;
      }
    }
    for (let taken = pending.take(); taken; taken = pending.take()) {
      lost += taken.lost;
      shown += taken.bytes.length;
      expect(taken.bytes.length).toBeLessThanOrEqual(PORTION);
    }
    expect(lost + shown).toBe(800 * 65_536);
  });

  it('keeps the page\'s own lines where they came, and loses none with what it drops', () => {
    const pending = new Pending();
    pending.push(bytes('one '), LIMIT);
    pending.push(bytes('two '), LIMIT);
    pending.mark('gap');
    pending.push(bytes('three'), LIMIT);
    expect(text(pending.take())).toBe('one two ');
    expect(pending.take()).toMatchObject({ mark: 'gap', lost: 0 });
    expect(text(pending.take())).toBe('three');
    expect(pending.take()).toBeNull();

    pending.push(bytes('old old old\n'), 8);
    pending.mark('notice');
    pending.push(bytes('new new\n'), 8);
    expect(pending.take()).toMatchObject({ mark: 'notice', lost: 12 });
    expect(text(pending.take())).toBe('new new\n');
  });

  it('makes room when somebody types', () => {
    const pending = new Pending();
    pending.push(new Uint8Array(LIMIT), LIMIT);
    pending.trim(LIMIT_WHILE_TYPING);
    expect(pending.size).toBe(LIMIT_WHILE_TYPING);
  });
});

describe('the position in the history', () => {
  it('counts what came since it was told', () => {
    const position = new Position();
    expect(position.from).toBeNull();
    position.told('a-b:9007199254740993');
    position.received(7);
    expect(position.from).toBe('a-b:9007199254741000');
    position.told(null);
    position.received(1);
    expect(position.from).toBeNull();
  });

  it.each([
    ['{"position":"x:1"}', { kind: 'position', position: 'x:1' }],
    ['{"position":null}', { kind: 'position', position: null }],
    ['{"gap":12}', { kind: 'gap', bytes: 12 }],
    ['{"gap":null}', { kind: 'gap', bytes: null }],
    ['{"notice":"words"}', { kind: 'notice', words: 'words' }],
    ['{"new":1}', null],
    ['not json', null],
    ['null', null],
    ['7', null],
  ])('%s', (message, told) => expect(readTold(message)).toEqual(told));
});

describe('words from a guest', () => {
  it('become one bounded line of text', () => {
    expect(clean('a\u001b]0;x\u0007\nb')).toBe('a ]0;x b');
    expect(clean('safe\u202egnp.exe')).toBe('safe gnp.exe');
    expect(clean('<b>&amp;')).toBe('<b>&amp;');
    expect(clean('x'.repeat(1e6), 10)).toBe('xxxxxxxxx…');
    expect(clean('😀'.repeat(20), 4)).toBe('😀😀😀…');
  });

  it('become a file name that leads nowhere', () => {
    expect(fileName('../../etc/passwd')).toBe('etc-passwd');
    expect(fileName('<img src=x>-serial/0')).toBe('img-src-x-serial-0');
    expect(fileName('日本')).toBe('console');
  });

  it('amounts are for people', () => {
    const amounts = [0, 1, 999, 1000, 48_100_000, 123_456_789].map((bytes) => amount(bytes, en.amount));
    expect(amounts).toEqual([
      '0 bytes',
      '1 byte',
      '999 bytes',
      '1.0 kB',
      '48.1 MB',
      '123 MB',
    ]);
  });
});

describe('typing for somebody', () => {
  it('cuts no character in two', () => {
    const cut = pieces('aé😀é'.repeat(20), 5);
    expect(cut.every((piece) => piece.length <= 5 && piece.length > 0)).toBe(true);
    for (const piece of cut) expect(new TextDecoder('utf-8', { fatal: true }).decode(piece)).toBeTruthy();
    expect(cut.map((piece) => new TextDecoder().decode(piece)).join('')).toBe('aé😀é'.repeat(20));
  });

  it('sends one piece at a time, and nothing after it is cancelled', () => {
    const sent: string[] = [];
    const progress: string[] = [];
    let due: (() => void) | null = null;
    const clock = { set: (run: () => void) => ((due = run), 1), clear: () => (due = null) };
    const pacer = new Pacer<string>(
      (piece) => sent.push(piece),
      (done, all) => progress.push(`${done}/${all}`),
      10,
      clock,
    );
    pacer.add(['a', 'b', 'c']);
    expect(sent).toEqual(['a']);
    (due as (() => void) | null)?.();
    expect(sent).toEqual(['a', 'b']);
    pacer.cancel();
    expect(due).toBeNull();
    expect(pacer.busy).toBe(false);
    pacer.add(['d']);
    (due as (() => void) | null)?.();
    expect(sent).toEqual(['a', 'b', 'd']);
    expect(progress.at(-1)).toBe('0/0');
  });

  it('takes a text of many pieces at once', () => {
    let sent = 0;
    const clock = { set: () => 1, clear: () => undefined };
    const pacer = new Pacer<number>(() => (sent += 1), () => undefined, 10, clock);
    pacer.add(Array.from({ length: 500_000 }, (_, n) => n));
    expect(sent).toBe(1);
  });

  it('closes the bracket of a paste that was cancelled in the middle, and no other', () => {
    const [open, close] = ['\x1b[200~', '\x1b[201~'];
    const cut = pastePieces(`${open}${'x'.repeat(40)}${close}`);
    const words = cut.map((piece) => new TextDecoder().decode(piece));
    expect([words[0], words.at(-1), words.join('')]).toEqual([open, close, `${open}${'x'.repeat(40)}${close}`]);
    for (const [sent, end] of [
      [0, ''],
      [1, close],
      [3, close],
      [cut.length, ''],
    ] as const) {
      const brackets = new Brackets();
      for (const piece of cut.slice(0, sent)) brackets.sent(piece);
      expect(brackets.end()).toBe(end);
      expect(brackets.end()).toBe('');
    }
    expect(pastePieces('plain').map((piece) => new TextDecoder().decode(piece))).toEqual(['plain']);
  });

  it.each([
    ['c;?', true],
    [';?', true],
    ['c;?;', true],
    ['c;?;x', true],
    ['c;YQ==', false],
    ['c;', false],
    ['?', false],
  ])('OSC 52 "%s" asks for the clipboard: %s', (data, asks) => expect(isClipboardQuestion(data)).toBe(asks));

  it('knows the keys of a US keyboard', () => {
    expect(strokes('aB~ \n')).toEqual([
      { keysym: 0x61, code: 'KeyA', shift: false },
      { keysym: 0x42, code: 'KeyB', shift: true },
      { keysym: 0x7e, code: 'Backquote', shift: true },
      { keysym: 0x20, code: 'Space', shift: false },
      { keysym: 0xff0d, code: 'Enter', shift: false },
    ]);
    const printable = Array.from({ length: 95 }, (_, n) => String.fromCharCode(32 + n)).join('');
    expect(strokes(printable).filter((stroke) => stroke.code !== null)).toHaveLength(95);
    expect(strokes('é€')).toEqual([
      { keysym: 0xe9, code: null, shift: false },
      { keysym: 0x10020ac, code: null, shift: false },
    ]);
    expect(strokes('\u0000\u001b\u007f')).toEqual([]);
    expect(strokes('a\r\nb')).toHaveLength(3);
  });

  it('sends what a phone lacks', () => {
    expect(terminalKey('ArrowUp', false)).toBe('\x1b[A');
    expect(terminalKey('ArrowUp', true)).toBe('\x1bOA');
    expect(withModifiers('c', { control: true, alt: false })).toBe('\x03');
    expect(withModifiers('x', { control: true, alt: true })).toBe('\x1b\x18');
    expect(withModifiers('7', { control: true, alt: false })).toBe('7');
  });

  it('names chords as people do', () => {
    const names = CHORDS.map((chord) => chordName(chord, en.keys));
    expect(names).toContain('Ctrl+Alt+F8');
    expect(names).toContain('Ctrl+Alt+Del');
    expect(key('F1')).toEqual({ keysym: 0xffbe, code: 'F1' });
  });

  it('sends SPICE the bytes of a keyboard', () => {
    expect(spiceCode('KeyA', 0x1e, true)).toBe(0x1e);
    expect(spiceCode('KeyA', 0x1e, false)).toBe(0x9e);
    expect(spiceCode('ArrowUp', 0xe048, true)).toBe(0x48e0);
    expect(spiceCode('ArrowUp', 0xe048, false)).toBe(0xc8e0);
    expect(spiceCode('PrintScreen', 0x54, true)).toBe(0x37e0);
  });
});

describe('leaving by keyboard', () => {
  const held = (keys: string) => ({ ctrl: keys.includes('c'), alt: keys.includes('a'), shift: keys.includes('s') });
  it('is Ctrl, Alt and Shift, let go with nothing else pressed', () => {
    const leave = new Leave();
    leave.key(true, 'Control', held('c'));
    leave.key(true, 'Alt', held('ca'));
    leave.key(true, 'Shift', held('cas'));
    expect(leave.key(false, 'Shift', held('ca'))).toBe(false);
    expect(leave.key(false, 'Alt', held('c'))).toBe(false);
    expect(leave.key(false, 'Control', held(''))).toBe(true);
    expect(leave.key(false, 'Control', held(''))).toBe(false);
  });

  it('is no chord of the guest', () => {
    const leave = new Leave();
    leave.key(true, 'Shift', held('cas'));
    leave.key(true, 'F1', held('cas'));
    expect(leave.key(false, 'F1', held('cas'))).toBe(false);
    expect(leave.key(false, 'Control', held(''))).toBe(false);
  });
});

describe('a ticket of SPICE', () => {
  it('has 128 bytes, whatever zeros it begins with', () => {
    const whole = Array.from({ length: 128 }, (_, n) => n + 1);
    expect(wholeTicket(whole)).toEqual(whole);
    expect(wholeTicket(whole.slice(1))).toEqual([0, ...whole.slice(1)]);
    expect(wholeTicket(whole.slice(2))).toHaveLength(128);
  });
});
