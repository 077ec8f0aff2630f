// Cookies know no port: what other services on the host's name have and do there.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connect } from 'node:tls';

import { Person, closeBrowser } from './browser.mjs';
import { Guest, sh } from './host.mjs';
import { site } from './site.mjs';

const PASSWORD = 'cookies-4711';
let guest;

before(async () => {
    sh('id cora >/dev/null 2>&1 || useradd --create-home -G libvirt cora; chpasswd', `cora:${PASSWORD}\n`);
    guest = new Guest('cookie-jar', '--pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest?.remove();
    sh('userdel --remove cora 2>/dev/null || true');
    await closeBrowser();
});

/** Somebody who has logged in with a password, at a console. */
async function loggedIn() {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    await person.logIn('cora', PASSWORD);
    return person.sees('connected', 'serial/0');
}

test('a cookie of another application of this host, with letters beyond ASCII, keeps nobody out', async () => {
    const bytes = (encoding) => Buffer.from('lang=français', encoding).toString('latin1');
    for (const encoding of ['latin1', 'utf8']) {
        const person = await Person.with();
        const another = await site('localhost', { '/': 'another application' }, { 'set-cookie': `${bytes(encoding)}; Path=/; Secure` });
        await person.open(`${another.origin}/`);
        await person.page.reload();
        assert.equal(another.asked.at(-1).cookie, bytes(encoding), 'the browser keeps it as it is, and sends it');
        await person.open(await guest.url('', '#serial/0'));
        await person.sees('connected', 'serial/0');
        await person.page.reload();
        await person.sees('connected', 'serial/0');
        await person.logOut();
        await person.sees('login');
        await person.logIn('cora', PASSWORD);
        await person.sees('connected', 'serial/0');
        await another.close();
        await person.close();
    }
});

/** What a program of somebody else's gets with these headers: the status. */
const replays = async (request, headers) => {
    const { host, port } = new URL(await guest.origin());
    const lines = [`${request} HTTP/1.1`, `Host: ${host}`, `Origin: https://${host}`, ...headers, '', ''];
    return new Promise((done, failed) => {
        const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => socket.write(lines.join('\r\n')));
        socket.on('error', failed);
        socket.once('data', (bytes) => {
            done(Number(String(bytes).split(' ')[1]));
            socket.destroy();
        });
    });
};
const UPGRADE = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='];

test('another service on this host name is sent the session\'s cookie, and opens nothing but the page with it', async () => {
    const person = await loggedIn();
    const theirs = await site('localhost', { '/': 'another service' });
    const page = await person.newPage();
    await page.goto(`${theirs.origin}/`);
    const { cookie } = theirs.asked[0];
    assert.ok(cookie.startsWith(`__Host-console-proxy-${guest.uuid.slice(0, 8)}=`), 'the browser sends it there');
    assert.equal(await page.evaluate(() => localStorage.length), 0, 'a page of theirs reads nothing of ours');
    const stolen = [`Cookie: ${cookie}`];
    assert.equal(await replays('GET /', stolen), 200, 'the page is everybody\'s');
    assert.equal(await replays('GET /api/guest', stolen), 401);
    assert.equal(await replays('GET /serial/0', [...stolen, ...UPGRADE]), 401);
    assert.equal(await replays('POST /api/logout', stolen), 401);
    // With what the page alone has the same programs get in.
    const secret = await person.secret();
    assert.equal(await replays('GET /api/guest', [...stolen, `console-proxy-secret: ${secret}`]), 200);
    const offers = `Sec-WebSocket-Protocol: binary, console-proxy.secret.${secret}`;
    assert.equal(await replays('GET /serial/0', [...stolen, ...UPGRADE, offers]), 101);
    await person.page.reload();
    await person.sees('connected', 'serial/0');
    await theirs.close();
    await person.close();
});

test('a cookie that another service on this host name set makes nobody somebody else, and says so', async () => {
    const person = await loggedIn();
    const [mine] = await person.context.cookies();
    const mallory = await Person.with();
    await mallory.open(await guest.url('--user mallory', '#serial/0'));
    await mallory.sees('connected', 'serial/0');
    const [{ name, value }] = await mallory.context.cookies();
    const theirs = await site('localhost', { '/': 'another service' }, { 'set-cookie': `${name}=${value}; Path=/; Secure` });
    const page = await person.newPage();
    await page.goto(`${theirs.origin}/`);
    const [now] = await person.context.cookies();
    assert.deepEqual([now.name, now.value === value, mine.value === value], [name, true, false], 'it is set for our port, too');
    await person.page.reload();
    await person.sees('login');
    assert.match(await person.text(), /another session's second secret/);
    assert.equal((await person.whoami()).status, 401);
    await person.logIn('cora', PASSWORD);
    await person.sees('connected', 'serial/0');
    assert.equal((await person.whoami()).person, 'cora');
    await theirs.close();
    await mallory.close();
    await person.close();
});
