// Output that waits for the terminal, bounded: what does not fit is dropped from the front, since the newest is what a
// person looks at. The terminal is given little at a time, so that a key's echo never waits behind megabytes. The
// page's own lines wait among it, as marks, between what came before them and what came after.

/** Waiting bytes at most. */
export const LIMIT = 2 << 20;
/** The same while somebody types: the answer must be near. */
export const LIMIT_WHILE_TYPING = 128 << 10;
/** How much the terminal gets at once. */
export const PORTION = 64 << 10;
/** After a cut it goes on behind a line's end, if one is this near. */
const LINE = 4 << 10;

export interface Portion {
  bytes: Uint8Array;
  /** So many bytes are missing before it. */
  lost: number;
  /** A line of the page's own, in place of bytes. */
  mark?: string;
}

export class Pending {
  private chunks: (Uint8Array | string)[] = [];
  private length = 0;
  private lost = 0;

  get size(): number {
    return this.length;
  }

  /** Adds output; keeps the newest `limit` bytes. */
  push(bytes: Uint8Array, limit: number): void {
    this.chunks.push(bytes);
    this.length += bytes.length;
    this.trim(limit);
  }

  /** Adds a line of the page's own behind all that came so far. */
  mark(words: string): void {
    this.chunks.push(words);
  }

  /** Drops the oldest beyond `limit`. */
  trim(limit: number): void {
    if (this.length <= limit) return;
    this.skip(this.length - limit);
    // A cut through a line, a character or an escape sequence shows as rubbish.
    let before = 0;
    for (const chunk of this.chunks) {
      if (typeof chunk === 'string') continue;
      const end = chunk.subarray(0, LINE - before).indexOf(10);
      if (end >= 0) return this.skip(before + end + 1);
      before += chunk.length;
      if (before >= LINE) return;
    }
  }

  /** The next portion for the terminal. */
  take(most = PORTION): Portion | null {
    const first = this.chunks[0];
    if (first === undefined) return null;
    const lost = this.lost;
    this.lost = 0;
    if (typeof first === 'string') {
      this.chunks.shift();
      return { bytes: new Uint8Array(), lost, mark: first };
    }
    if (first.length > most) {
      this.chunks[0] = first.subarray(most);
      this.length -= most;
      return { bytes: first.subarray(0, most), lost };
    }
    // Many small messages become one write: each costs the terminal a turn.
    const parts: Uint8Array[] = [];
    let size = 0;
    for (const next of this.chunks) {
      if (typeof next === 'string' || size + next.length > most) break;
      parts.push(next);
      size += next.length;
    }
    this.chunks.splice(0, parts.length);
    this.length -= size;
    return { bytes: parts.length === 1 ? first : join(parts, size), lost };
  }

  clear(): void {
    this.chunks = [];
    this.length = 0;
    this.lost = 0;
  }

  /** Marks stay: what they say is not said again. */
  private skip(bytes: number): void {
    this.lost += bytes;
    this.length -= bytes;
    const marks: string[] = [];
    while (bytes > 0) {
      const first = this.chunks.shift();
      if (first === undefined) break;
      if (typeof first === 'string') marks.push(first);
      else if (first.length > bytes) {
        this.chunks.unshift(first.subarray(bytes));
        break;
      } else bytes -= first.length;
    }
    if (marks.length > 0) this.chunks.unshift(...marks);
  }
}

function join(parts: Uint8Array[], size: number): Uint8Array {
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
