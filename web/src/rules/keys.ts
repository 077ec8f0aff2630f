// Keys as displays want them: X keysym and physical key. What text becomes when it is typed, on a US keyboard, which is
// what guests without a desktop have.

export interface Key {
  keysym: number;
  /** `KeyboardEvent.code`; null: no such key on a US keyboard. */
  code: string | null;
}

export interface Stroke extends Key {
  shift: boolean;
}

const named = {
  Control: [0xffe3, 'ControlLeft'],
  Alt: [0xffe9, 'AltLeft'],
  Shift: [0xffe1, 'ShiftLeft'],
  Super: [0xffeb, 'MetaLeft'],
  Delete: [0xffff, 'Delete'],
  Backspace: [0xff08, 'Backspace'],
  Tab: [0xff09, 'Tab'],
  Enter: [0xff0d, 'Enter'],
  Escape: [0xff1b, 'Escape'],
  PrintScreen: [0xff61, 'PrintScreen'],
  ArrowLeft: [0xff51, 'ArrowLeft'],
  ArrowUp: [0xff52, 'ArrowUp'],
  ArrowRight: [0xff53, 'ArrowRight'],
  ArrowDown: [0xff54, 'ArrowDown'],
} as const;

export type KeyName = keyof typeof named | `F${number}`;

export function key(name: KeyName): Key {
  if (/^F\d+$/.test(name)) return { keysym: 0xffbd + Number(name.slice(1)), code: name };
  const [keysym, code] = named[name as keyof typeof named];
  return { keysym, code };
}

/** Chords that a browser or the person's own desktop keeps for itself. */
export const CHORDS: readonly (readonly KeyName[])[] = [
  ['Control', 'Alt', 'Delete'],
  ['Control', 'Alt', 'Backspace'],
  ['Alt', 'Tab'],
  ['Super'],
  ['PrintScreen'],
  ...Array.from({ length: 8 }, (_, n) => ['Control', 'Alt', `F${n + 1}`] as const),
];

/** `words`: what the language calls the keys; one that it does not list keeps its name. */
export function chordName(chord: readonly KeyName[], words: Partial<Record<string, string>>): string {
  return chord.map((name) => words[name] ?? name).join('+');
}

/** The letters of each key of a US keyboard: plain, with Shift. */
const US: Record<string, string> = {
  Backquote: '`~',
  Minus: '-_',
  Equal: '=+',
  BracketLeft: '[{',
  BracketRight: ']}',
  Backslash: '\\|',
  Semicolon: ';:',
  Quote: '\'"',
  Comma: ',<',
  Period: '.>',
  Slash: '/?',
  Space: '  ',
  Digit1: '1!',
  Digit2: '2@',
  Digit3: '3#',
  Digit4: '4$',
  Digit5: '5%',
  Digit6: '6^',
  Digit7: '7&',
  Digit8: '8*',
  Digit9: '9(',
  Digit0: '0)',
};
for (const letter of 'abcdefghijklmnopqrstuvwxyz') US[`Key${letter.toUpperCase()}`] = letter + letter.toUpperCase();

const BY_LETTER = new Map<string, { code: string; shift: boolean }>();
for (const [code, letters] of Object.entries(US)) {
  [...letters].forEach((letter, n) => {
    if (!BY_LETTER.has(letter)) BY_LETTER.set(letter, { code, shift: n === 1 });
  });
}

/** The strokes that type a text. Control characters but line ends and tabs are left out. */
export function strokes(text: string): Stroke[] {
  const all: Stroke[] = [];
  for (const letter of text.replace(/\r\n?/g, '\n')) {
    const point = letter.codePointAt(0) ?? 0;
    const place = BY_LETTER.get(letter);
    if (letter === '\n') all.push({ ...key('Enter'), shift: false });
    else if (letter === '\t') all.push({ ...key('Tab'), shift: false });
    else if (place) all.push({ keysym: point, ...place });
    else if (point >= 0xa0) all.push({ keysym: point <= 0xff ? point : 0x1000000 | point, code: null, shift: false });
  }
  return all;
}

/** What a terminal sends for the keys that a phone's keyboard lacks. `application`: cursor keys in application mode. */
export function terminalKey(name: KeyName, application: boolean): string {
  switch (name) {
    case 'Escape':
      return '\x1b';
    case 'Tab':
      return '\t';
    case 'Enter':
      return '\r';
    case 'Backspace':
      return '\x7f';
    case 'ArrowUp':
    case 'ArrowDown':
    case 'ArrowRight':
    case 'ArrowLeft':
      return `\x1b${application ? 'O' : '['}${{ ArrowUp: 'A', ArrowDown: 'B', ArrowRight: 'C', ArrowLeft: 'D' }[name]}`;
    default:
      return '';
  }
}

/** What was typed, with Control and Alt of the extra keys held. */
export function withModifiers(typed: string, held: { control: boolean; alt: boolean }): string {
  let out = typed;
  if (held.control && /^[@-_a-z ?]$/i.test(typed)) {
    out = typed === '?' ? '\x7f' : String.fromCharCode(typed.toUpperCase().charCodeAt(0) & 0x1f);
  }
  return held.alt ? `\x1b${out}` : out;
}
