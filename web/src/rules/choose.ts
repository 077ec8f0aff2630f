// Which console comes first. Knows what the proxy tells of a guest, and nothing of where wishes are kept.

import { isDisplay, type Console } from './guest';

export interface Wish {
  /** The console that the address names. */
  linked: string | null;
  /** The one that was used last for this guest. */
  last: string | null;
}

/** The console to open; null: there is none. A link counts even where it is refused: the page then says why. */
export function choose(consoles: readonly Console[], wish: Wish): Console | null {
  const named = (name: string | null) => consoles.find((one) => one.console === name);
  const linked = named(wish.linked);
  if (linked) return linked;
  const open = consoles.filter((one) => one.refused === undefined);
  const last = named(wish.last);
  if (last && last.refused === undefined) return last;
  return [...open].sort((a, b) => rank(a) - rank(b) || spoke(a) - spoke(b))[0] ?? consoles[0] ?? null;
}

/** The tabs' order: displays, VNC before SPICE, then text consoles as the proxy told them, added serial ports last. */
export function tabOrder(consoles: readonly Console[]): Console[] {
  const place = (one: Console) => (isDisplay(one.console) ? rank(one) : one.added ? 3 : 2);
  return [...consoles].sort((a, b) => place(a) - place(b));
}

/** Displays first; an added port that never spoke last, since nothing answers there until somebody starts a getty. */
function rank(one: Console): number {
  if (isDisplay(one.console)) return one.console === 'vnc' ? 0 : 1;
  return one.added && one.spoke === undefined ? 3 : 2;
}

function spoke(one: Console): number {
  return one.spoke ?? Number.MAX_SAFE_INTEGER;
}
