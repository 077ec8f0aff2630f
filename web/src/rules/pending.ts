// Output that waits for the terminal, bounded: what does not fit is dropped from the front, since the newest is what a
// person looks at. The terminal is given little at a time, so that a key's echo never waits behind megabytes.

/** Waiting bytes at most. */
export const LIMIT = 2 << 20;
/** The same while somebody types: the answer must be near. */
export const LIMIT_WHILE_TYPING = 128 << 10;
/** How much the terminal gets at once. */
export const PORTION = 64 << 10;
/** After a cut it goes on behind a line's end, if one is this near. */
const LINE = 4 << 10;

export class Pending {
  private chunks: Uint8Array[] = [];
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

  /** Drops the oldest beyond `limit`. */
  trim(limit: number): void {
    if (this.length <= limit) return;
    this.skip(this.length - limit);
    // A cut through a line, a character or an escape sequence shows as rubbish.
    let before = 0;
    for (const chunk of this.chunks) {
      const end = chunk.subarray(0, LINE - before).indexOf(10);
      if (end >= 0) return this.skip(before + end + 1);
      before += chunk.length;
      if (before >= LINE) return;
    }
  }

  /** The next portion for the terminal, and how many bytes are missing before it. */
  take(most = PORTION): { bytes: Uint8Array; lost: number } | null {
    const first = this.chunks[0];
    if (!first) return null;
    const lost = this.lost;
    this.lost = 0;
    if (first.length > most) {
      this.chunks[0] = first.subarray(most);
      this.length -= most;
      return { bytes: first.subarray(0, most), lost };
    }
    // Many small messages become one write: each costs the terminal a turn.
    const parts: Uint8Array[] = [];
    let size = 0;
    for (let next = this.chunks[0]; next && size + next.length <= most; next = this.chunks[0]) {
      parts.push(next);
      size += next.length;
      this.chunks.shift();
    }
    this.length -= size;
    return { bytes: parts.length === 1 ? first : join(parts, size), lost };
  }

  clear(): void {
    this.chunks = [];
    this.length = 0;
    this.lost = 0;
  }

  private skip(bytes: number): void {
    this.lost += bytes;
    this.length -= bytes;
    while (bytes > 0) {
      const first = this.chunks[0];
      if (!first) return;
      if (first.length > bytes) {
        this.chunks[0] = first.subarray(bytes);
        return;
      }
      bytes -= first.length;
      this.chunks.shift();
    }
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
