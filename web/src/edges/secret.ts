// A session's second secret. Its cookie goes to every port of this host's name, also to another service's; this one is
// kept where the pages of one origin, port included, can read it, and is sent by our code alone. All tabs share it.
// Where the browser refuses its storage, as in a frame of another site, it is kept in the state of this tab's history
// entry: no other origin reads that either, and it outlives F5.

import { isSecret } from '../rules/login';
import { base } from './base';
import { forget, recall, remember } from './store';

const HEADER = 'console-proxy-secret';
const PROTOCOL = 'console-proxy.secret.';

/** What storage refused to keep. */
let refused: string | null = fromHistory();

function fromHistory(): string | null {
  const state = history.state as { secret?: unknown } | null;
  return isSecret(state?.secret) ? state.secret : null;
}

/** Behind a front server several guests share an origin, each below a path of its own. */
function key(): string {
  return `secret:${base().pathname}`;
}

function secret(): string | null {
  const kept = recall(key()) ?? refused;
  return isSecret(kept) ? kept : null;
}

/** Keeps the secret of a new session; null: it has none. */
export function keepSecret(secret: string | null): void {
  forget(key());
  const had = refused !== null;
  refused = secret !== null && !remember(key(), secret) ? secret : null;
  if (had || refused !== null) history.replaceState({ ...(history.state as object | null), secret: refused }, '');
}

/** What a request shows. */
export function secretHeaders(): Record<string, string> {
  const shown = secret();
  return shown === null ? {} : { [HEADER]: shown };
}

/** What a websocket offers, for which no header can be set: never the protocol that is chosen. */
export function secretProtocols(): string[] {
  const shown = secret();
  return shown === null ? [] : [PROTOCOL + shown];
}
