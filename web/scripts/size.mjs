// The page's weight over the wire: of each viewer, and of all together, which has a limit.

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const LIMIT = 700_000;

/** Prints the weights, and fails above the limit. */
export function report(dist) {
  const assets = join(dist, 'assets');
  const groups = { page: statSync(join(dist, 'index.html.br')).size };
  for (const name of readdirSync(assets)) {
    if (!/\.(js|css|svg)\.br$/.test(name)) continue;
    const group =
      /^(terminal|addon|vnc|spice)-/.exec(name)?.[1]?.replace('addon', 'terminal') ??
      (/^index-|^favicon-/.test(name) ? 'page' : 'shared');
    groups[group] = (groups[group] ?? 0) + statSync(join(assets, name)).size;
  }
  const all = Object.values(groups).reduce((sum, size) => sum + size, 0);
  for (const [group, size] of [...Object.entries(groups), ['all', all]]) {
    console.log(`${group.padEnd(10)} ${(size / 1000).toFixed(1).padStart(7)} kB over the wire (brotli)`);
  }
  if (all > LIMIT) {
    console.error(`the page weighs more than ${LIMIT / 1000} kB`);
    process.exit(1);
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) report(new URL('../dist/', import.meta.url).pathname);
