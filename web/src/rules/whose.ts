// Whose session it is. A link lets its bearer in as whoever it was made for, perhaps by somebody who wants others to
// type into consoles in the wrong name: so nobody is made another person without a question.

import type { Guest } from './guest';

/** The person that a ticket names. Nobody has checked it yet: good for a question, and for nothing else. */
export function personOf(ticket: string): string | null {
  const part = ticket.split('.')[1] ?? '';
  try {
    const bytes = Uint8Array.from(atob(part.replace(/-/g, '+').replace(/_/g, '/')), (byte) => byte.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    const person = (claims as { sub?: unknown } | null)?.sub;
    return typeof person === 'string' ? person : null;
  } catch {
    return null;
  }
}

/** What to ask before a ticket is used where there is this session already; null: nothing. */
export function whose(ticket: string, guest: Guest): { link: string; here: string } | null {
  const link = personOf(ticket);
  // What cannot be read is refused by the proxy, too.
  if (guest.ends === undefined || link === null || link === guest.person) return null;
  return { link, here: guest.person };
}
