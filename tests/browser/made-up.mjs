// Guests that no QEMU would be: a proxy by hand, whose consoles lead to small servers in this process.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';

import { until } from './host.mjs';

const UUID = 'b50bdc9f-490b-4b9b-8641-7573c0eba77c';

/** A backend on loopback; `serve` gets each connection. */
export async function backend(serve) {
    const sockets = new Set();
    const server = createServer((socket) => {
        sockets.add(socket.unref());
        socket.on('error', () => {}).on('close', () => sockets.delete(socket));
        serve(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    // A test that failed keeps nothing alive.
    server.unref();
    return {
        place: `tcp:127.0.0.1:${server.address().port}`,
        close: () => { server.close(); for (const socket of sockets) socket.destroy(); },
    };
}

/** A proxy by hand for a guest of that name, with these backends by console; `origin` is where its page is. */
export async function proxy(name, consoles) {
    const folder = mkdtempSync('/tmp/made-up-');
    const port = 30000 + Math.floor(Math.random() * 2000);
    const ways = Object.entries(consoles).map(([console, { place }]) => `[[consoles]]\nconsole = "${console}"\nraw = "${place}"\n`);
    const route = `version = 1\nuuid = "${UUID}"\nname = ${JSON.stringify(name)}\nport = ${port}\nauth = "none"\n${ways.join('')}`;
    writeFileSync(`${folder}/route.toml`, route);
    const child = spawn('console-proxyd', ['--listen', `127.0.0.1:${port}`, '--route', `${folder}/route.toml`], { stdio: ['ignore', 'ignore', 'pipe'] });
    const kill = () => child.kill();
    process.once('exit', kill);
    child.unref();
    child.stderr.unref();
    let said = '';
    child.stderr.on('data', (bytes) => { said += bytes; });
    await until('the proxy to listen', async () => {
        if (child.exitCode !== null) throw new Error(`the proxy ended: ${said}`);
        return fetchable(port);
    });
    return {
        origin: `https://127.0.0.1:${port}`,
        port,
        close: async () => {
            process.off('exit', kill);
            child.ref();
            child.kill();
            await once(child, 'exit');
            rmSync(folder, { recursive: true });
        },
    };
}

function fetchable(port) {
    return new Promise((done) => {
        const socket = connect(port, '127.0.0.1', () => { socket.destroy(); done(true); });
        socket.on('error', () => done(false));
    });
}

/** What a VNC server says in each phase, up to `until`: `version`, `security`, `result`, `init`; then it closes, or serves. */
export function rfbServer({ name = 'made up', closesAfter } = {}) {
    return (socket) => {
        const phases = [
            ['version', () => Buffer.from('RFB 003.008\n'), 12],
            ['security', () => Buffer.from([1, 1]), 1],
            ['result', () => Buffer.alloc(4), 1],
            ['init', () => serverInit(name), Infinity],
        ];
        let at = 0;
        let heard = Buffer.alloc(0);
        const say = () => {
            const [phase, words] = phases[at];
            socket.write(words());
            if (phase === closesAfter) socket.end();
        };
        if (closesAfter === 'accept') return socket.end();
        say();
        socket.on('data', (bytes) => {
            heard = Buffer.concat([heard, bytes]);
            while (at < phases.length - 1 && heard.length >= phases[at][2]) {
                heard = heard.subarray(phases[at][2]);
                at++;
                say();
            }
            if (at === phases.length - 1 && heard.includes(3)) {
                heard = Buffer.alloc(0);
                socket.write(picture());
            }
        });
        return undefined;
    };
}

const [WIDTH, HEIGHT] = [64, 48];

function serverInit(name) {
    const text = Buffer.from(name);
    const init = Buffer.alloc(24 + text.length);
    init.writeUInt16BE(WIDTH, 0);
    init.writeUInt16BE(HEIGHT, 2);
    Buffer.from([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]).copy(init, 4);
    init.writeUInt32BE(text.length, 20);
    text.copy(init, 24);
    return init;
}

/** A whole screen in raw encoding (RFC 6143, 7.6.1). */
function picture() {
    const update = Buffer.alloc(16 + WIDTH * HEIGHT * 4, 0x80);
    update.fill(0, 0, 16);
    update.writeUInt16BE(1, 2);
    update.writeUInt16BE(WIDTH, 8);
    update.writeUInt16BE(HEIGHT, 10);
    return update;
}
