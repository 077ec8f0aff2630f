// What is left after Vite: the licences of what is in the page, the compressed files beside each, and its weight.

import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { licences } from './licences.mjs';
import { report } from './size.mjs';

const dist = new URL('../dist/', import.meta.url).pathname;
const assets = join(dist, 'assets');

writeFileSync(join(dist, 'licences.txt'), licences());

for (const file of [
  join(dist, 'index.html'),
  join(dist, 'licences.txt'),
  ...readdirSync(assets).map((name) => join(assets, name)),
]) {
  if (!/\.(js|css|html|svg|txt)$/.test(file)) continue;
  const bytes = readFileSync(file);
  const quality = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  writeFileSync(`${file}.br`, brotliCompressSync(bytes, { params: quality }));
  writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
}

// The proxy serves these names alone, and no folder.
for (const name of readdirSync(assets)) {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]*$/.test(name) || !statSync(join(assets, name)).isFile()) {
    throw new Error(`dist/assets/${name}: the proxy does not serve such a name`);
  }
}
report(dist);
