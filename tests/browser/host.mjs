// What an administrator does on the scratch host, in the tests' words.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { inflateSync } from 'node:zlib';

export { sleep };

/** Nothing on this host takes that long, in milliseconds. */
export const PATIENCE = 30_000;

/** Runs a shell command; its output without the last newline. Throws with all it said when it fails. */
export function sh(command, input) {
    try {
        return execFileSync('bash', ['-c', command], { encoding: 'utf8', input, stdio: 'pipe', maxBuffer: 1 << 26 }).trimEnd();
    } catch (why) {
        throw new Error(`\`${command}\` failed: ${why.stderr ?? ''}${why.stdout ?? ''}`);
    }
}

/** A word for the shell. */
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/** Asks until there is an answer that is true. */
export async function until(what, ask, patience = PATIENCE) {
    const end = Date.now() + patience;
    for (;;) {
        const answer = await ask();
        if (answer) return answer;
        if (Date.now() > end) throw new Error(`waited ${patience / 1000} s for this: ${what}`);
        await sleep(100);
    }
}

/** Further configuration for one test, in a file of its own; published guests follow it. */
export class Configured {
    static #path = '/etc/console-proxy/console-proxy.toml.d/50-browser.toml';

    constructor(text) {
        mkdirSync('/etc/console-proxy/console-proxy.toml.d', { recursive: true });
        writeFileSync(Configured.#path, text);
        sh('console-proxy check-config && console-proxy publish --all');
    }

    remove() {
        rmSync(Configured.#path, { force: true });
        sh('console-proxy publish --all');
    }
}

/** A tiny guest; options are those of tests/host/define-guest.sh. */
export class Guest {
    constructor(name, options) {
        this.name = name;
        sh(`virsh --quiet destroy ${quoted(name)} || true; virsh --quiet undefine ${quoted(name)} || true`);
        sh(`define-guest ${quoted(name)} ${options}`);
        this.uuid = sh(`virsh domuuid ${quoted(name)}`).trim();
    }

    start() {
        sh(`virsh --quiet start ${this.uuid}`);
        return this;
    }

    destroy() {
        sh(`virsh --quiet destroy ${this.uuid} || true`);
        return this;
    }

    remove() {
        this.destroy();
        sh(`virsh --quiet undefine ${this.uuid} || true`);
    }

    /** Its entry of `console-proxy list --json`. */
    listed() {
        return JSON.parse(sh('console-proxy list --json')).guests.find((guest) => guest.uuid === this.uuid);
    }

    /** Its port, as soon as that listens. */
    async port() {
        const shown = await until(`${this.name} to listen`, () => {
            const shown = this.listed();
            return shown?.state === 'listening' && shown;
        });
        return shown.port;
    }

    async origin() {
        return `https://localhost:${await this.port()}`;
    }

    /** A URL with a ticket, as `console-proxy url` prints it but by the name localhost. */
    async url(options = '', fragment = '') {
        return `${await this.origin()}/?token=${this.ticket(options)}${fragment}`;
    }

    ticket(options = '') {
        return sh(`console-proxy ticket ${options} ${this.uuid}`);
    }

    /** What the host itself shows of the guest's screen: width, height, RGB bytes. */
    screen() {
        const file = `/tmp/screen-${this.uuid}.png`;
        sh(`virsh --quiet screenshot ${this.uuid} ${file} --screen 0 >/dev/null`);
        return readPng(readFileSync(file));
    }

    /** Waits until a shell answers on one of its serial ports, in the way that the page does not take. */
    async waitForShell(console = 'serial/0') {
        await until(`${this.name} to answer on ${console}`, () => {
            const said = sh(`timeout 5 console-proxy console ${this.uuid} ${console} || true`, 'echo sh$((1))ell\n');
            return said.includes('sh1ell');
        }, 60_000);
    }
}

/** The PNG of QEMU's own: 8 bits, RGB or RGBA, not interlaced (RFC 2083). */
function readPng(bytes) {
    const chunks = {};
    for (let at = 8; at < bytes.length;) {
        const length = bytes.readUInt32BE(at);
        const kind = bytes.toString('latin1', at + 4, at + 8);
        chunks[kind] = Buffer.concat([chunks[kind] ?? Buffer.alloc(0), bytes.subarray(at + 8, at + 8 + length)]);
        at += 12 + length;
    }
    const [width, height] = [chunks.IHDR.readUInt32BE(0), chunks.IHDR.readUInt32BE(4)];
    const size = { '8,2,0': 3, '8,6,0': 4 }[`${chunks.IHDR[8]},${chunks.IHDR[9]},${chunks.IHDR[12]}`];
    if (!size) throw new Error('the screenshot is another kind of PNG');
    const rows = inflateSync(chunks.IDAT);
    const wide = width * size;
    const plain = Buffer.alloc(wide * height);
    const near = (a, b, c) => [a, b, c].sort((x, y) => Math.abs(a + b - c - x) - Math.abs(a + b - c - y))[0];
    for (let row = 0; row < height; row++) {
        const filter = rows[row * (wide + 1)];
        for (let x = 0; x < wide; x++) {
            const to = row * wide + x;
            const a = x >= size ? plain[to - size] : 0;
            const b = row > 0 ? plain[to - wide] : 0;
            const c = x >= size && row > 0 ? plain[to - wide - size] : 0;
            const guess = [0, a, b, (a + b) >> 1, filter === 4 ? near(a, b, c) : 0][filter];
            plain[to] = rows[row * (wide + 1) + 1 + x] + guess;
        }
    }
    const rgb = Buffer.alloc(width * height * 3);
    for (let pixel = 0; pixel < width * height; pixel++) plain.copy(rgb, pixel * 3, pixel * size, pixel * size + 3);
    return { width, height, rgb };
}

/** What the tests measured, for the notes and for whoever compares. */
export function figure(name, value) {
    const file = '/root/browser/figures.json';
    const figures = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
    figures[name] = value;
    mkdirSync('/root/browser', { recursive: true });
    writeFileSync(file, `${JSON.stringify(figures, null, 2)}\n`);
}
