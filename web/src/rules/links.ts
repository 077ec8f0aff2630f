// What the page's address says, and what it must not keep: the console in the fragment, the ticket in query or fragment.

import { isConsole } from './guest';

/** The console that a fragment names: `#vnc`, `#serial/1`, `#/serial/1`, also beside a ticket (`#token=..&serial/1`). */
export function linkedConsole(hash: string): string | null {
  for (const part of hash.replace(/^#/, '').split('&')) {
    const word = safeDecode(part).replace(/^\//, '');
    if (isConsole(word)) return word;
  }
  return null;
}

/** The ticket in the address, and the address without it. Everything else of the address stays as it is. */
export function takeTicket(address: string): { ticket: string | null; rest: string } {
  const url = new URL(address);
  const query = without(url.search.replace(/^\?/, ''));
  const hash = without(url.hash.replace(/^#/, ''));
  const ticket = query.ticket ?? hash.ticket;
  if (ticket === null) return { ticket, rest: address };
  url.search = query.rest;
  url.hash = hash.rest;
  return { ticket, rest: url.href };
}

/** Whether the proxy's answer to a ticket settles what becomes of it: what else came was no word about the ticket. */
export function isSettled(status: number): boolean {
  return (status >= 200 && status < 300) || status === 401 || status === 403;
}

function without(parameters: string): { ticket: string | null; rest: string } {
  let ticket: string | null = null;
  const rest = parameters.split('&').filter((part) => {
    if (!part.startsWith('token=')) return true;
    ticket ??= safeDecode(part.slice('token='.length)) || null;
    return false;
  });
  return { ticket, rest: rest.join('&') };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}
