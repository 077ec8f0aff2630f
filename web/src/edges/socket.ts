// A console's websocket: it offers the proxy's subprotocol, so that a refusal comes with code and words.

import type { Closing } from '../rules/closing';
import { secretProtocols } from './secret';

export const PROTOCOL = 'console-proxy.v1';

export function openSocket(url: URL, closed: (closing: Closing) => void): WebSocket {
  const socket = new WebSocket(url, [PROTOCOL, ...secretProtocols()]);
  socket.binaryType = 'arraybuffer';
  watch(socket, closed);
  return socket;
}

/** Sockets that a library makes, with one subprotocol, show the session's second secret as well from now on. */
export function showSecretInLibrarySockets(): void {
  const Plain = globalThis.WebSocket;
  globalThis.WebSocket = class extends Plain {
    constructor(url: string | URL, protocols: string | string[] = []) {
      super(url, typeof protocols === 'string' ? [protocols, ...secretProtocols()] : protocols);
    }
  };
}

/** Reports how a socket ends. */
export function watch(socket: WebSocket, closed: (closing: Closing) => void): void {
  let opened = socket.readyState === WebSocket.OPEN;
  socket.addEventListener('open', () => (opened = true));
  socket.addEventListener('close', ({ code, reason }) => closed({ code, reason, opened }));
}

/** Why a console refuses: asks with a socket of its own, which it ends at once. null: it does not, or tells nothing. */
export function probe(url: URL, patience = 5_000): Promise<Closing | null> {
  return new Promise((resolve) => {
    let settle: ReturnType<typeof setTimeout>;
    const socket = openSocket(url, (closing) => done(closing));
    const done = (closing: Closing | null) => {
      clearTimeout(settle);
      resolve(closing);
      socket.close();
    };
    settle = setTimeout(() => done(null), patience);
    // A refusal follows the opening at once.
    socket.addEventListener('open', () => {
      clearTimeout(settle);
      settle = setTimeout(() => done(null), 1_000);
    });
  });
}
