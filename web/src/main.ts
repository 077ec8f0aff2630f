// The page's start: the ticket first, then what the guest has, then its best console.

import './style.css';
import { buySession } from './edges/api';
import { takeTicket } from './rules/links';
import { Page } from './page';

async function main(): Promise<void> {
  const { ticket, rest } = takeTicket(location.href);
  let refusal = '';
  if (ticket !== null) {
    const bought = await buySession(ticket);
    // A ticket buys one session: refused, it may have bought the one whose cookie is there. Where the proxy was not
    // reached it stays in the address, so that a reload can use it.
    if (bought) history.replaceState(history.state, '', rest);
    if (bought && !bought.ok) refusal = bought.reason;
  }
  new Page(document, refusal).enter();
}

void main();
