// What an administrator does on the scratch host, in the tests' words.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

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
        this.uuid = sh(`virsh domuuid ${quoted(name)}`);
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
        const file = `/tmp/screen-${this.uuid}.ppm`;
        sh(`virsh --quiet screenshot ${this.uuid} ${file} --screen 0 >/dev/null`);
        return readPpm(readFileSync(file));
    }

    /** Waits until a shell answers on one of its serial ports, in the way that the page does not take. */
    async waitForShell(console = 'serial/0') {
        await until(`${this.name} to answer on ${console}`, () => {
            const said = sh(`timeout 5 console-proxy console ${this.uuid} ${console} || true`, 'echo sh$((1))ell\n');
            return said.includes('sh1ell');
        }, 60_000);
    }
}

function readPpm(bytes) {
    if (bytes.subarray(0, 8).toString('latin1') === '\x89PNG\r\n\x1a\n') throw new Error('libvirt made a PNG of the screen');
    const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString('latin1'));
    if (!header) throw new Error('what libvirt made of the screen is no PPM');
    return { width: +header[1], height: +header[2], rgb: bytes.subarray(header[0].length) };
}

/** What the tests measured, for the notes and for whoever compares. */
export function figure(name, value) {
    const file = '/root/browser/figures.json';
    const figures = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
    figures[name] = value;
    mkdirSync('/root/browser', { recursive: true });
    writeFileSync(file, `${JSON.stringify(figures, null, 2)}\n`);
}
