// Other people's clients on a guest's port, as they come: Debian's noVNC and spice-html5, xterm.js' attach add-on, websocat, Python's websockets.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { Person, closeBrowser, difference, picture } from './browser.mjs';
import { Configured, Guest, sh, until } from './host.mjs';
import { site } from './site.mjs';

let guest, configured, panel;

before(async () => {
    const file = (name) => readFileSync(createRequire(import.meta.url).resolve(name), 'utf8');
    panel = await site('panel.example', {
        '/': readFileSync(new URL('attach.html', import.meta.url), 'utf8'),
        '/xterm.css': file('@xterm/xterm/css/xterm.css'),
        '/xterm.mjs': file('@xterm/xterm/lib/xterm.mjs'),
        '/addon-attach.mjs': file('@xterm/addon-attach/lib/addon-attach.mjs'),
    });
    configured = new Configured(`
        [web.clients]
        novnc = "/usr/share/novnc"
        spice-html5 = "/usr/share/spice-html5"
        [access]
        origins = ["${panel.origin}"]
    `);
    guest = new Guest('clients', '--vnc --spice --pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest.remove();
    configured.remove();
    await panel.close();
    await closeBrowser();
});

/** Waits until the page's picture is the one that the host has of the guest's screen. */
const showsTheScreen = (person) => until('the page to show the guest\'s screen', async () => {
    return difference(await picture(person.page), guest.screen()) < 0.02;
});

test('Debian\'s noVNC shows the screen and types, with nothing but a ticket in its path', async () => {
    const person = await Person.with();
    const path = encodeURIComponent(`websockify?token=${guest.ticket()}`);
    await person.open(`${await guest.origin()}/clients/novnc/vnc.html?autoconnect=true&path=${path}`);
    await showsTheScreen(person);
    const before = guest.screen();
    await person.page.locator('canvas').click();
    await person.page.keyboard.type('echo novnc was here; echo novnc was here\n');
    await until('the guest to show what was typed', () => difference(before, guest.screen()) > 0.001);
    await showsTheScreen(person);
    await person.shot('client-novnc-1.3');
    await person.close();
});

test('Debian\'s spice-html5 shows the screen, its sockets sharing one ticket in a cookie', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/clients/spice-html5/spice_auto.html?path=spice&token=${guest.ticket()}`);
    await showsTheScreen(person);
    const sockets = guest.listed().sessions.filter((session) => session.console === 'spice');
    assert.ok(sockets.length >= 4, JSON.stringify(sockets));
    await person.shot('client-spice-html5-0.3');
    await person.close();
});

test('xterm.js with its attach add-on, on a page of a listed site, is a terminal', async () => {
    const person = await Person.with();
    const target = `${(await guest.origin()).replace('https', 'wss')}/serial/0?token=${guest.ticket()}`;
    await person.open(`${panel.origin}/?console=${encodeURIComponent(target)}`);
    await person.page.locator('#terminal').click();
    await until('the terminal to show what a command prints', async () => {
        await person.page.keyboard.type('echo att$((1+1))ch\n');
        const lines = await person.page.evaluate(() => {
            const buffer = terminal.buffer.active;
            return Array.from({ length: buffer.length }, (_, row) => buffer.getLine(row).translateToString(true));
        });
        return lines.includes('att2ch');
    });
    await person.close();
});

test('websocat is a terminal in a shell', async () => {
    const target = `wss://localhost:${await guest.port()}/serial/0?token=${guest.ticket()}`;
    const said = sh(`(sleep 0.5; echo 'echo web$((1+1))cat'; sleep 2) | timeout 10 websocat --insecure --binary '${target}'`);
    assert.match(said, /web2cat/);
});

test('Python\'s websockets library sends text and gets bytes', async () => {
    const script = `
import asyncio, ssl, sys, websockets
async def main(url):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with websockets.connect(url, ssl=context) as console:
        await console.send("echo py$((1+1))thon\\n")
        said = b""
        while b"py2thon" not in said:
            said += await asyncio.wait_for(console.recv(), 10)
        print("seen")
asyncio.run(main(sys.argv[1]))`;
    const target = `wss://localhost:${await guest.port()}/serial/0?token=${guest.ticket()}`;
    assert.equal(sh(`/usr/bin/python3 - '${target}'`, script), 'seen');
});
