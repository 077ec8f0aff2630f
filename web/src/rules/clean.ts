// Words from a guest or a server, made fit to be shown: bounded, one line, nothing that turns or hides other text.

/** Control characters, bidirectional marks and overrides, and other invisible ones. */
const UNFIT = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]/gu;

export function clean(words: string, longest = 200): string {
  const line = [
    ...words
      .slice(0, longest * 4)
      .replace(UNFIT, ' ')
      .replace(/\s+/g, ' ')
      .trim(),
  ];
  return line.length > longest ? `${line.slice(0, longest - 1).join('')}…` : line.join('');
}

/** A file's name made of words: letters, digits, and little else. */
export function fileName(words: string): string {
  return (
    words
      .normalize('NFKD')
      .replace(/[^A-Za-z0-9._]+/g, '-')
      .replace(/^[-.]+|-+$/g, '')
      .slice(0, 80) || 'console'
  );
}

/** "1.4 MB": for people, in decimal units; `words` puts the number and the unit (0: bytes, up to 3: GB) together. */
export function amount(bytes: number, words: (n: string, unit: number) => string): string {
  let unit = 0;
  while (bytes >= 1000 && unit < 3) {
    bytes /= 1000;
    unit += 1;
  }
  return words(unit === 0 || bytes >= 100 ? String(Math.round(bytes)) : bytes.toFixed(1), unit);
}
