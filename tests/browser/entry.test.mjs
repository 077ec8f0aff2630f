// Ways in, and who is kept out: links, sessions, pages of other sites and of other guests, frames.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Person, closeBrowser } from './browser.mjs';
import { Configured, Guest, sh, sleep, until } from './host.mjs';
import { site } from './site.mjs';

let guest, other;

before(async () => {
    guest = new Guest('entry', '--vnc --pty').start();
    other = new Guest('entry-other', '--vnc --pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest.remove();
    other.remove();
    await closeBrowser();
});

/** Opens a websocket from a page; how that ended. */
const websocket = (page, url, protocols = []) => page.evaluate(
    ([url, protocols]) => new Promise((done) => {
        const socket = new WebSocket(url, protocols);
        socket.onopen = () => { if (!protocols.length) done({ opened: true }); };
        socket.onclose = ({ code, reason }) => done({ opened: false, code, reason });
    }),
    [url, protocols],
);

test('a link on another site works, leaves no ticket behind, and works again after F5', async () => {
    const person = await Person.with();
    const elsewhere = await site('evil.example', { '/': `<a href="${await guest.url('', '#serial/0')}">console</a>` });
    await person.open(`${elsewhere.origin}/`);
    await person.page.click('text=console');
    await person.sees('connected', 'serial/0');
    assert.equal(new URL(person.page.url()).search, '');
    assert.equal(await person.page.evaluate(() => document.cookie), '', 'no script reads the session');
    assert.equal(await person.page.evaluate(() => document.referrer), `${elsewhere.origin}/`);
    await person.page.reload();
    await person.sees('connected', 'serial/0');
    // Back and forth: the history has no ticket, and what it has still works.
    await person.page.goBack();
    await person.page.goForward();
    await person.sees('connected', 'serial/0');
    assert.ok(!person.page.url().includes('token'), person.page.url());
    await elsewhere.close();
    await person.close();
});

test('who has no ticket, or one that has ended or was used, is told how to get one', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/`);
    await person.sees('login');
    assert.match(await person.text(), /console-proxy url/);
    const late = await guest.url('--ttl 1s');
    const used = await guest.url();
    await sleep(7500);
    await person.open(late);
    await person.sees('login');
    assert.match(await person.text(), /console-proxy url/);
    await person.shot('state-ended');

    const first = await Person.with();
    await first.open(used);
    await first.sees('connected');
    await person.open(used);
    await person.sees('login');
    await first.close();
    await person.close();
});

test('logging out ends every tab, and its cookie opens nothing any more', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    const second = await person.newPage();
    await second.goto(`${await guest.origin()}/#vnc`);
    await until('the second tab is connected', () => second.evaluate(() => document.documentElement.dataset.state === 'connected'));
    const [cookies, secret] = [await person.context.cookies(), await person.secret()];
    await person.logOut();
    await person.sees('login');
    await until('the second tab has ended', () => second.evaluate(() => document.documentElement.dataset.state === 'login'));
    await person.context.addCookies(cookies);
    await person.keepSecret(secret);
    await person.page.reload();
    await person.sees('login');
    await person.close();
});

test('a page of another guest, on another port of this host, reaches nothing of this one', async () => {
    const person = await Person.with();
    await person.open(await guest.url());
    await person.sees('connected');
    const theirs = await person.newPage();
    await theirs.goto(await other.url());
    await until('their page is connected', () => theirs.evaluate(() => document.documentElement.dataset.state === 'connected'));
    const target = `${(await guest.origin()).replace('https', 'wss')}/serial/0`;
    // Its own policy forbids it, before the proxy does: that one is asked from a page without a policy, on one more port
    // of this host. Cookies ignore ports: the session's goes along.
    const bare = await site('localhost', { '/': '' });
    await theirs.goto(`${bare.origin}/`);
    assert.deepEqual(await websocket(theirs, target), { opened: false, code: 1006, reason: '' });
    const refused = await websocket(theirs, target, ['console-proxy.v1']);
    assert.equal(refused.code, 4403, JSON.stringify(refused));
    assert.match(refused.reason, /pages of https:\/\/localhost:\d+ may not connect here/);
    const fetched = await theirs.evaluate((url) => fetch(url, { credentials: 'include' }).then(() => 'read', () => 'kept out'), `${await guest.origin()}/api/guest`);
    assert.equal(fetched, 'kept out');
    // It is sent, whatever the page gets to see of the answer, and ends nothing.
    await theirs.evaluate((url) => fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' }).catch(() => {}), `${await guest.origin()}/api/logout`);
    await person.page.reload();
    await person.sees('connected');
    await bare.close();
    await person.close();
});

/** The frame of a page, and its state as soon as it has one. */
async function framed(person, panel, url) {
    panel.pages['/'] = `<title>panel</title><iframe src="${url}" style="width:1000px;height:600px" allow="clipboard-read; clipboard-write; fullscreen"></iframe>`;
    await person.open(`${panel.origin}/`);
    const frame = await until('the frame', () => person.page.frames()[1]);
    return { frame, state: () => frame.evaluate(() => document.documentElement.dataset.state).catch(() => undefined) };
}

test('a frame on a site that is not listed stays empty, one on a listed site works', async () => {
    const panel = await site('panel.example', {});
    let person = await Person.with();
    const kept = await framed(person, panel, await guest.url('', '#serial/0'));
    await until('the browser refuses it', () => kept.frame.url().startsWith('chrome-error:'));
    assert.equal(await kept.state(), undefined);
    await person.context.close();

    const configured = new Configured(`[access]\nembed-origins = ["${panel.origin}"]\n`);
    try {
        person = await Person.with();
        const { frame, state } = await framed(person, panel, await guest.url('', '#serial/0'));
        await until('the frame is connected', async () => (await state()) === 'connected');
        const [cookie] = (await person.context.cookies()).filter(({ name }) => name.startsWith('__Host-console-proxy-'));
        assert.deepEqual([cookie.sameSite, cookie.secure, cookie.httpOnly], ['None', true, true]);
        assert.ok(cookie.partitionKey?.includes('panel.example'), JSON.stringify(cookie));
        await person.shot('frame-in-a-panel');
        // A reload has no ticket any more: the session in its partition counts.
        await frame.evaluate(() => location.reload());
        await sleep(500);
        await until('the frame is connected again', async () => (await state()) === 'connected');
        // Another site still may not.
        const evil = await site('evil.example', {});
        const theirs = await framed(person, evil, await guest.url());
        await until('the browser refuses it', () => theirs.frame.url().startsWith('chrome-error:'));
        await evil.close();
        await person.context.close();
    } finally {
        configured.remove();
        await panel.close();
    }
    assert.match(sh(`curl -ski ${await guest.origin()}/`), /frame-ancestors 'none'/);
});

test('below a path of one public name, behind nginx as docs/reverse-proxy.md sets it up, the page is the same', async () => {
    const configured = new Configured('[listen]\nfront = true\nurl = "https://consoles.example/console/{uuid}/"\n');
    const person = await Person.with();
    try {
        sh(`cd /etc/nginx && cp /etc/console-proxy/tls/certificate.pem consoles.pem && cp /etc/console-proxy/tls/key.pem consoles.key
            cp ${new URL('../../docs/reverse-proxy/nginx.conf', import.meta.url).pathname} conf.d/consoles.conf
            usermod -aG console-proxy-front www-data && systemctl restart nginx`);
        const url = sh(`console-proxy url ${guest.uuid} 2>/dev/null`);
        assert.match(url, /^https:\/\/consoles\.example\/console\/[0-9a-f-]{36}\/\?token=/);
        await person.open(`${url}#serial/0`);
        await person.sees('connected', 'serial/0');
        await person.page.getByTestId('tab-vnc').click();
        await person.sees('connected', 'vnc');
        await person.page.reload();
        await person.sees('connected', 'vnc');
        guest.destroy();
        await person.sees('guest-off', 'vnc');
        guest.start();
        await person.sees('connected', 'vnc', 60_000);
    } finally {
        sh('systemctl stop nginx');
        configured.remove();
        await person.close();
    }
});
