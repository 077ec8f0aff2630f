// What guests and servers may send to hurt the page, and what it gets them.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Person, closeBrowser } from './browser.mjs';
import { Guest, figure, sh, sleep, until } from './host.mjs';
import { backend, proxy, rfbServer } from './made-up.mjs';

after(closeBrowser);

const MARKUP = '<img src=x onerror="window.hit=1">';

/** Whether any of a page's script was not its own. */
const isUnharmed = async (person) => {
    assert.equal(await person.page.evaluate(() => window.hit), undefined);
    assert.equal(await person.page.locator('img[src="x"]').count(), 0);
};

test('a guest\'s name is text, wherever it stands', async () => {
    const guest = new Guest('<img src=x onerror=hit=1>', '--vnc --pty').start();
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    assert.ok((await person.page.title()).includes('<img src=x onerror=hit=1>'), await person.page.title());
    assert.ok((await person.text()).includes('<img src=x onerror=hit=1>'));
    await isUnharmed(person);
    await person.shot('hostile-name');
    await person.close();
    guest.remove();
});

test('the name that a VNC server gives its desktop is text', async () => {
    const screen = await backend(rfbServer({ name: MARKUP }));
    const at = await proxy(MARKUP, { vnc: screen });
    const person = await Person.with();
    await person.open(`${at.origin}/#vnc`);
    await person.sees('connected', 'vnc');
    await isUnharmed(person);
    await person.close();
    await at.close();
    screen.close();
});

test('titles, clipboard requests and escapes of a terminal change nothing but the terminal', async () => {
    let heard = '';
    const serial = await backend((socket) => {
        socket.on('data', (bytes) => { heard += bytes; });
        const clipboard = Buffer.from(MARKUP).toString('base64');
        socket.write(`\x1b]0;${MARKUP}\x07\x1b]2;a\nb\x1b[31m\x07\x1b]52;c;${clipboard}\x07\x1b]52;c;?\x07\x1b]52;c;?;\x07${MARKUP}\r\n`);
        socket.write('\x1b]8;;javascript:window.hit=1\x07link\x1b]8;;\x07 \x1b[21t\x1b]4;1;?\x07 done\r\n');
    });
    const at = await proxy('g1', { 'serial/0': serial });
    const person = await Person.with();
    await person.open(`${at.origin}/#serial/0`);
    await person.sees('connected', 'serial/0');
    await person.page.evaluate(() => navigator.clipboard.writeText('mine'));
    await until('the words to be shown', async () => (await person.terminal()).includes('done'));
    assert.ok((await person.terminal()).includes(MARKUP));
    await sleep(500);
    await isUnharmed(person);
    assert.ok(!(await person.page.title()).includes('\n'));
    assert.equal(await person.page.evaluate(() => navigator.clipboard.readText()), 'mine', 'nothing was put into the clipboard');
    assert.ok(!heard.includes('52;'), 'the clipboard is not told');
    assert.ok(!heard.includes('img'), JSON.stringify(heard));
    await person.shot('hostile-terminal');
    await person.close();
    await at.close();
    serial.close();
});

for (const phase of ['accept', 'version', 'security', 'result', 'init']) {
    test(`a VNC server that closes after its ${phase} leaves no spinner`, async () => {
        const screen = await backend(rfbServer({ closesAfter: phase }));
        const at = await proxy('g1', { vnc: screen });
        const person = await Person.with();
        await person.open(`${at.origin}/#vnc`);
        await person.sees('unreachable', 'vnc');
        const text = await person.text();
        assert.match(text, /closed/);
        assert.doesNotMatch(text, /1006/);
        await person.close();
        await at.close();
        screen.close();
    });
}

test('a backend that is not there, and one that says nothing, are told apart and tried again', async () => {
    const screen = await backend(() => {});
    const at = await proxy('g1', { vnc: screen, 'serial/0': { place: 'tcp:127.0.0.1:9' } });
    const person = await Person.with();
    await person.open(`${at.origin}/#serial/0`);
    await person.sees('unreachable', 'serial/0');
    assert.match(await person.text(), /refused/i);
    await person.page.goto('about:blank');
    await person.open(`${at.origin}/#vnc`);
    await person.sees('unreachable', 'vnc', 60_000);
    await person.close();
    await at.close();
    screen.close();
});

test('50 MB of output in one go: a key is echoed meanwhile, and what was not shown is said', async () => {
    const total = 50e6;
    const line = `${'0123456789'.repeat(7)}\r\n`;
    const flood = Buffer.from(line.repeat(1000));
    let sent = 0;
    const serial = await backend((socket) => {
        let pouring = false;
        const pour = () => {
            while (pouring && sent < total) {
                sent += flood.length;
                if (!socket.write(flood)) return void socket.once('drain', pour);
            }
            pouring = false;
        };
        socket.on('data', (bytes) => {
            if (bytes.includes('!')) { pouring = true; pour(); }
            socket.write(`key:${bytes}:\r\n`);
        });
    });
    const at = await proxy('g1', { 'serial/0': serial });
    const person = await Person.with();
    await person.open(`${at.origin}/#serial/0`);
    await person.sees('connected', 'serial/0');
    const begun = Date.now();
    await person.type('!');
    await until('the flood to come', () => sent > 1e6);
    // What the page and the proxy are too slow for is left out, and an echo may be among it.
    const echo = await until('a key to be echoed meanwhile', () => person.wordsAfter('k', 'key:k:'));
    figure('key to echo during 50 MB, ms', echo);
    await until('all to be sent', () => sent >= total, 60_000);
    figure('until the backend was rid of 50 MB, s', (Date.now() - begun) / 1000);
    // The page may have most of it before it, when the backend is rid of it.
    await until('what was not shown to be said', async () => /Not shown: \d/.test(await person.text()));
    figure('key to echo after 50 MB, worst of 10, ms', (await person.keyToEcho(10))[9]);
    await person.shot('flood');
    await person.sees('connected', 'serial/0');
    await person.close();
    await at.close();
    serial.close();
});

test('150 cookies of other guests are in nobody\'s way', async () => {
    const guest = new Guest('cookies', '--vnc --spice --pty').start();
    await guest.waitForShell();
    const person = await Person.with();
    const others = Array.from({ length: 150 }, (_, n) => ({
        name: `__Host-console-proxy-${n.toString(16).padStart(8, '0')}`,
        value: 'A'.repeat(43), domain: 'localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Strict',
    }));
    await person.context.addCookies(others);
    for (const console of ['vnc', 'spice', 'serial/0']) {
        await person.page.goto('about:blank');
        await person.open(await guest.url('', `#${console}`));
        await person.sees('connected', console);
    }
    assert.ok((await person.context.cookies()).length > 150);
    await person.close();
    guest.remove();
});
