// Logging in with a password: what is sent, and what an answer means. Knows nothing of forms, requests and words.

/** What came of buying a session. */
export interface Bought {
  ok: boolean;
  status: number;
  /** The proxy's words. */
  reason: string;
  /** It takes passwords. */
  login: boolean;
  /** The header of that name. */
  retryAfter: string | null;
}

/** The second secret of a session, from what bought it; null: an older proxy's session has none. */
export function readSecret(json: unknown): string | null {
  const secret = (json as { secret?: unknown } | null)?.secret;
  return isSecret(secret) ? secret : null;
}

/** Whether this is such a secret, and so safe in a header and among subprotocols. */
export function isSecret(secret: unknown): secret is string {
  return typeof secret === 'string' && /^[\w-]{43}$/.test(secret);
}

export type Problem = 'no-user' | 'no-password' | 'colon';

export type Refusal =
  | { kind: 'wrong' | 'silent' }
  | { kind: 'no-right' | 'unavailable' | 'other'; reason: string }
  /** `seconds` null: the proxy does not say when. */
  | { kind: 'limited'; seconds: number | null };

const LONGEST_WAIT = 86_400;

/** The credentials of HTTP's basic authentication (RFC 7617), in UTF-8; or why these cannot be sent. */
export function credentials(user: string, password: string): { sent: string } | { problem: Problem } {
  if (user === '') return { problem: 'no-user' };
  // The first colon ends the name, and nothing quotes one.
  if (user.includes(':')) return { problem: 'colon' };
  if (password === '') return { problem: 'no-password' };
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  return { sent: btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')) };
}

/** Why a password bought nothing; `bought` null: the proxy could not be asked. */
export function refusal(bought: Bought | null): Refusal {
  if (!bought) return { kind: 'silent' };
  const { status, reason } = bought;
  switch (status) {
    case 401:
      // Without the header no password would do: the words say so.
      return bought.login ? { kind: 'wrong' } : { kind: 'other', reason };
    case 403:
      return { kind: 'no-right', reason };
    case 429: {
      const seconds = /^\d{1,9}$/.test(bought.retryAfter ?? '') ? Number(bought.retryAfter) : 0;
      return { kind: 'limited', seconds: seconds > 0 ? Math.min(seconds, LONGEST_WAIT) : null };
    }
    case 503:
      return { kind: 'unavailable', reason };
    default:
      return { kind: 'other', reason };
  }
}

/** Whether the proxy's words explain anything to somebody who is asked for a password: that there is none yet does not. */
export function explains(reason: string): boolean {
  return !reason.startsWith('a ticket is needed');
}
