// Typing for somebody, no faster than the other side can read: a queue of pieces, one at a time, which can be cancelled.

/** 16 bytes every 10 ms: a port of 115,200 baud takes seven times as much, a shell without flow control no more. */
export const PASTE = { bytes: 16, every: 10 };
/** About 30 keys a second: what a guest's text screen follows over a display. */
export const KEYS = { every: 33 };
/** What is longer was pasted, not typed. */
export const TYPED = 32;

/** Cuts text into pieces of at most `bytes` bytes of UTF-8, never through a character. */
export function pieces(text: string, bytes = PASTE.bytes): Uint8Array[] {
  const all = new TextEncoder().encode(text);
  const cut: Uint8Array[] = [];
  for (let at = 0; at < all.length;) {
    let end = Math.min(at + bytes, all.length);
    while (end < all.length && end > at + 1 && ((all[end] ?? 0) & 0xc0) === 0x80) end -= 1;
    cut.push(all.subarray(at, end));
    at = end;
  }
  return cut;
}

/** What stands around a paste for a program that wants to tell it from typing. */
export const BRACKET = { open: '\x1b[200~', close: '\x1b[201~' } as const;

/** The pieces of a paste. Its brackets are pieces of their own, so that a cancelled one can be closed. */
export function pastePieces(data: string): Uint8Array[] {
  const { open, close } = BRACKET;
  if (!data.startsWith(open) || !data.endsWith(close)) return pieces(data);
  const body = data.slice(open.length, data.length - close.length);
  return [...pieces(open), ...pieces(body), ...pieces(close)];
}

/** Follows what of a paste was sent. */
export class Brackets {
  private inside = false;

  sent(piece: Uint8Array): void {
    const text = new TextDecoder().decode(piece);
    if (text === BRACKET.open) this.inside = true;
    else if (text === BRACKET.close) this.inside = false;
  }

  /** What is still to be sent where the rest of the paste is not. */
  end(): string {
    const { inside } = this;
    this.inside = false;
    return inside ? BRACKET.close : '';
  }
}

/** Gives out pieces in time. The clock is handed in, so that tests need none. */
export class Pacer<Piece> {
  private queue: Piece[] = [];
  private done = 0;
  private timer: unknown = null;

  constructor(
    private readonly send: (piece: Piece) => void,
    private readonly progress: (done: number, all: number) => void,
    private readonly every: number,
    private readonly clock: { set(run: () => void, ms: number): unknown; clear(timer: never): void } = browserClock,
  ) {}

  get busy(): boolean {
    return this.timer !== null;
  }

  add(pieces: Iterable<Piece>): void {
    for (const piece of pieces) this.queue.push(piece);
    if (!this.busy) this.tick();
  }

  /** Forgets what was not sent yet. */
  cancel(): void {
    if (this.timer !== null) this.clock.clear(this.timer as never);
    this.finish();
  }

  private tick(): void {
    const piece = this.queue[this.done];
    if (piece === undefined) return this.finish();
    this.send(piece);
    this.done += 1;
    this.progress(this.done, this.queue.length);
    this.timer = this.clock.set(() => this.tick(), this.every);
  }

  private finish(): void {
    this.timer = null;
    this.queue = [];
    this.done = 0;
    this.progress(0, 0);
  }
}

const browserClock = {
  set: (run: () => void, ms: number): unknown => setTimeout(run, ms),
  clear: (timer: never): void => clearTimeout(timer),
};
