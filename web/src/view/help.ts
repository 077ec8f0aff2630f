// The help below the question mark: what a person cannot find by looking.

import { texts } from '../texts';
import { base } from '../edges/base';
import { h } from './dom';

export function helpPanel(): HTMLElement {
  const t = texts.help;
  return h(
    'div',
    { class: 'content help', tabindex: 0 },
    h('h2', {}, t.leave),
    h('p', {}, t.leaveBody),
    h('h2', {}, t.display),
    h('p', {}, t.displayBody),
    h('h2', {}, t.terminal),
    h('p', {}, t.terminalBody),
    h('p', {}, h('a', { href: new URL('licences.txt', base()).href, target: '_blank', rel: 'noopener' }, t.licences)),
  );
}
