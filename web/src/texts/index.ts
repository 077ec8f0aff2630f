// The language: one file each, chosen by what the browser asks for.

import { en, type Texts } from './en';

const languages: Record<string, Texts> = { en };

export const texts: Texts =
  navigator.languages.map((wanted) => languages[wanted.slice(0, 2)]).find((known) => known !== undefined) ?? en;

export type { Texts };

/** A console's name for people. */
export function consoleName(console: string): string {
  const n = Number(console.split('/')[1] ?? 0);
  if (console === 'vnc') return texts.console.vnc;
  if (console === 'spice') return texts.console.spice;
  return console.startsWith('serial/') ? texts.console.serial(n) : texts.console.other(n);
}
