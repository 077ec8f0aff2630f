// Where in a text console's history this page is: `ID:OFFSET` of the next byte, as the proxy counts.

export type Told =
  | { kind: 'position'; position: string | null }
  | { kind: 'gap'; bytes: number | null }
  | { kind: 'notice'; words: string };

/** A text message of the proxy; null: nothing that this page knows. */
export function readTold(message: string): Told | null {
  let json: unknown;
  try {
    json = JSON.parse(message);
  } catch {
    return null;
  }
  if (typeof json !== 'object' || json === null) return null;
  const told = json as Record<string, unknown>;
  if (typeof told.position === 'string' || told.position === null) return { kind: 'position', position: told.position };
  if (typeof told.gap === 'number' || told.gap === null) return { kind: 'gap', bytes: told.gap };
  if (typeof told.notice === 'string') return { kind: 'notice', words: told.notice };
  return null;
}

export class Position {
  private id: string | null = null;
  private offset = 0n;

  /** The proxy told the position of the next byte. */
  told(position: string | null): void {
    const [, id, offset] = /^(.{1,200}):(\d{1,20})$/.exec(position ?? '') ?? [];
    this.id = id ?? null;
    this.offset = BigInt(offset ?? 0);
  }

  received(bytes: number): void {
    this.offset += BigInt(bytes);
  }

  /** What to come back with; null: there is no history, or nothing is known of it. */
  get from(): string | null {
    return this.id === null ? null : `${this.id}:${this.offset}`;
  }
}
