// The licence texts of the packages that are built into the page. spice-html5 is under the LGPL: it stays a file of its
// own in the page, unchanged from its package, whose source is what npm has under that name and version.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = new URL('../', import.meta.url).pathname;

/** All texts in one. */
export function licences() {
  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const names = withTheirs(Object.keys(own.dependencies));
  return ['This page contains the following software, each under its own licence.\n', ...names.map(section)].join('\n');
}

/** The packages, and those that they need. */
function withTheirs(names) {
  const all = new Set(names);
  for (const name of all) {
    for (const theirs of Object.keys(manifest(name).dependencies ?? {})) all.add(theirs);
  }
  return [...all].sort();
}

function section(name) {
  const { version, license, repository } = manifest(name);
  const folder = join(root, 'node_modules', name);
  const texts = files(folder).map((file) => readFileSync(file, 'utf8').trim());
  if (texts.length === 0) throw new Error(`${name}: the package has no licence text`);
  const source = (repository?.url ?? repository ?? '').replace(/^git\+/, '');
  return `${'='.repeat(78)}\n${name} ${version}\nLicence: ${license}\nSource: ${source}\n${'-'.repeat(78)}\n\n${[...texts, ...notices(folder)].join('\n\n')}\n`;
}

/** Copyright notices of single files, which the minifier removes: each once, also those of code taken from elsewhere. */
function notices(folder) {
  const all = new Set();
  for (const file of readdirSync(folder, { recursive: true })) {
    if (!/^(src|core|vendor)\//.test(file) || !file.endsWith('.js') || file.includes('browser-es-module-loader'))
      continue;
    for (const [comment] of readFileSync(join(folder, file), 'utf8').matchAll(/\/\*[^]*?\*\//g)) {
      if (/copyright/i.test(comment)) all.add(comment.replace(/^[/ *]*\*+[/ ]?/gm, '').trim());
    }
  }
  return [...all];
}

function files(folder) {
  const places = [folder, join(folder, 'docs'), ...['vendor/pako'].map((one) => join(folder, one))];
  return places
    .filter((place) => existsSync(place))
    .flatMap((place) =>
      readdirSync(place)
        .filter((name) => /^(licen[cs]e|copying)/i.test(name))
        .map((name) => join(place, name)),
    );
}

function manifest(name) {
  return JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8'));
}
