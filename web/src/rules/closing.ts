// What the end of a websocket means. Knows the proxy's close codes, and nothing of sockets, states or words.

/** How a websocket ended. `opened`: the browser had told that it was open. */
export interface Closing {
  code: number;
  reason: string;
  opened: boolean;
}

export type Verdict =
  | 'guest-off'
  | 'proxy-stops'
  | 'ended'
  | 'not-allowed'
  | 'occupied'
  | 'limit'
  | 'unreachable'
  | 'client-lost'
  /** The code says nothing of the cause (1006 above all): whoever hears it has to ask the proxy. */
  | 'unclear';

/** The proxy's codes: 1001 guest or proxy stops; 4000 + HTTP status for everything that it refuses or ends. */
export function verdict(closing: Closing): Verdict {
  switch (closing.code) {
    case 1001:
      return /\bguest\b/i.test(closing.reason) ? 'guest-off' : 'proxy-stops';
    case 4401:
      return 'ended';
    case 4403:
      return 'not-allowed';
    case 4408:
      return 'client-lost';
    case 4409:
      return 'occupied';
    case 4429:
      return 'limit';
    case 4400:
    case 4404:
    case 4500:
    case 4502:
    case 4504:
      return 'unreachable';
    default:
      return 'unclear';
  }
}
