// A console's output on its way to the terminal: bounded while it waits, and little at once.

import type { Terminal } from '@xterm/xterm';
import { LIMIT, LIMIT_WHILE_TYPING, Pending } from '../rules/pending';

/** What the terminal works on at most: so much stands before a key's echo. */
const IN_FLIGHT = 128 << 10;
/** How long after a key its answer is waited for. */
const TYPING = 1_000;
/** How long what comes is taken for history, at most; and how long it must be quiet to be over. */
const REPLAY = { most: 3_000, quiet: 400 };

export class Output {
  /** What is shown was said before this page came. */
  past = true;
  private readonly pending = new Pending();
  private inFlight = 0;
  private typedAt = -Infinity;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `lost`: so many bytes are left out, here. `line`: writes a line of the page's own, here. */
  constructor(
    private readonly term: Terminal,
    private readonly lost: (bytes: number) => void,
    private readonly line: (words: string) => void,
  ) {}

  write(bytes: Uint8Array): void {
    const typing = performance.now() - this.typedAt < TYPING;
    this.pending.push(bytes, typing ? LIMIT_WHILE_TYPING : LIMIT);
    this.pump();
  }

  /** A line of the page's own, in its place among the output: where one message of the proxy ends. */
  mark(words: string): void {
    this.pending.mark(words);
    this.pump();
  }

  /** Another connection: what comes first is history. */
  begin(): void {
    clearTimeout(this.timer);
    this.past = true;
  }

  /** Somebody typed: the answer must come soon. */
  typed(): void {
    this.typedAt = performance.now();
    this.pending.trim(LIMIT_WHILE_TYPING);
  }

  /** History has been shown when nothing more waits; a port that never pauses is past it anyway. */
  replay(until = performance.now() + REPLAY.most): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const idle = this.pending.size === 0 && this.inFlight === 0;
      if (idle || performance.now() > until) this.past = false;
      else this.replay(until);
    }, REPLAY.quiet);
  }

  /** Hands the terminal what it can take; its callback asks for more. */
  private pump(): void {
    while (this.inFlight < IN_FLIGHT) {
      const next = this.pending.take();
      if (!next) return;
      if (next.lost > 0) this.lost(next.lost);
      if (next.mark !== undefined) {
        this.line(next.mark);
        continue;
      }
      const size = next.bytes.length;
      this.inFlight += size;
      this.term.write(next.bytes, () => {
        this.inFlight -= size;
        this.pump();
      });
    }
  }
}
