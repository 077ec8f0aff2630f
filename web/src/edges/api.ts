// The proxy's requests. Addresses are relative to the page, which may live below any path of a front server.

import { clean } from '../rules/clean';
import { readGuest, type Guest } from '../rules/guest';
import { readSecret, type Bought } from '../rules/login';
import { OWN } from '../rules/state';
import { base } from './base';
import { keepSecret, secretHeaders } from './secret';

const PATIENCE = 8_000;
/** Whoever checks passwords may have to ask further away, and is slow with wrong ones on purpose. */
const PASSWORD_PATIENCE = 60_000;

export type Got =
  | { kind: 'ok'; guest: Guest }
  | { kind: 'status'; status: number; reason: string; login: boolean }
  | { kind: 'whose'; link: string; here: string }
  | { kind: 'silent' };

/** The address of a console's websocket. */
export function consoleUrl(console: string, parameters: Record<string, string>): URL {
  const url = new URL(console, base());
  url.protocol = url.protocol === 'http:' ? 'ws:' : 'wss:';
  url.search = new URLSearchParams(parameters).toString();
  return url;
}

export async function askGuest(): Promise<Got> {
  const answer = await request('api/guest', {});
  if (!answer) return { kind: 'silent' };
  const login = takesPasswords(answer);
  if (!answer.ok) return { kind: 'status', status: answer.status, reason: await words(answer), login };
  const guest = readGuest(await answer.json().catch(() => null));
  return guest ? { kind: 'ok', guest } : { kind: 'status', status: answer.status, reason: OWN.foreign, login };
}

/** Buys a session with a ticket; null: the proxy could not be asked. */
export function buySession(ticket: string): Promise<Bought | null> {
  return buy(`Bearer ${ticket}`, PATIENCE);
}

/** Likewise with a password; `credentials` are those of HTTP's basic authentication. */
export function logIn(credentials: string): Promise<Bought | null> {
  return buy(`Basic ${credentials}`, PASSWORD_PATIENCE);
}

async function buy(authorization: string, patience: number): Promise<Bought | null> {
  const headers = { Authorization: authorization };
  const answer = await request('api/session', { method: 'POST', headers, signal: AbortSignal.timeout(patience) });
  if (!answer) return null;
  const { ok, status } = answer;
  if (ok) keepSecret(readSecret(await answer.json().catch(() => null)));
  const retryAfter = answer.headers.get('retry-after');
  return { ok, status, reason: ok ? '' : await words(answer), login: takesPasswords(answer), retryAfter };
}

function takesPasswords(answer: Response): boolean {
  return answer.headers.get('console-proxy-login') === 'password';
}

/** Whether the session is over: one that the proxy does not know (any more) is. */
export async function logOut(): Promise<boolean> {
  const answer = await request('api/logout', { method: 'POST' });
  const isOver = answer !== null && (answer.ok || answer.status === 401);
  if (isOver) keepSecret(null);
  return isOver;
}

async function request(path: string, options: RequestInit & { headers?: Record<string, string> }): Promise<Response | null> {
  try {
    return await fetch(new URL(path, base()), {
      cache: 'no-store',
      credentials: 'same-origin',
      redirect: 'error',
      signal: AbortSignal.timeout(PATIENCE),
      ...options,
      headers: { ...secretHeaders(), ...options.headers },
    });
  } catch {
    return null;
  }
}

/** A refusal's words. A front server's error page is markup, which explains nothing here. */
async function words(answer: Response): Promise<string> {
  const type = answer.headers.get('content-type') ?? '';
  return type.startsWith('text/plain') ? clean(await answer.text().catch(() => '')) : '';
}
