// Users of the host log in with their passwords; who is kept out, and how; whose session it is.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { PHONE, Person, closeBrowser } from './browser.mjs';
import { Configured, Guest, sh, until } from './host.mjs';
import { site } from './site.mjs';

const PASSWORD = 'correct: hörse €';
let guest, other, configured;

before(async () => {
    for (const [user, groups] of [['ann', '-G libvirt'], ['dora', '-G libvirt'], ['carl', '']]) {
        sh(`id ${user} >/dev/null 2>&1 || useradd --create-home ${groups} ${user}; chpasswd`, `${user}:${PASSWORD}\n`);
    }
    configured = new Configured('[proxy]\nidle-timeout = "2s"\n');
    guest = new Guest('login', '--vnc --pty').start();
    other = new Guest('login-other', '--pty').start();
    await guest.waitForShell();
    await other.waitForShell();
});

after(async () => {
    guest?.remove();
    other?.remove();
    configured?.remove();
    for (const user of ['ann', 'dora', 'carl']) sh(`userdel --remove ${user} 2>/dev/null || true`);
    await closeBrowser();
});

/** Somebody who has logged in with a password, at a console. */
async function loggedIn(user = 'ann', options = undefined) {
    const person = await Person.with(options);
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    await person.logIn(user, PASSWORD);
    return person.sees('connected', 'serial/0');
}

/** A page with a button that sends a form to an address. */
const form = (action) => `<form method="post" action="${action}"><input name="user" value="ann"><button>send</button></form>`;

test('a user of the host logs in, and a command that they type in the serial console runs', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    await person.isAccessible('the login form');
    await person.shot('login');
    await person.logIn('ann', PASSWORD);
    await person.sees('connected', 'serial/0');
    await person.runs('logged-in');
    const { person: name, mode, session } = await person.whoami();
    assert.deepEqual([name, mode, session.by], ['ann', 'control', 'password']);
    await person.page.getByTestId('account').click();
    assert.match(await person.page.getByTestId('person').innerText(), /Signed in as ann/);
    assert.doesNotMatch(await person.text(), /by a link/);
    const kept = await person.page.evaluate(() => JSON.stringify([location.href, document.cookie, { ...localStorage }, { ...sessionStorage }]));
    assert.doesNotMatch(decodeURIComponent(kept), /hörse/);
    assert.equal(sh('journalctl --no-pager -o json --all | grep -c "correct: h" || true'), '0', 'no journal has the password');
    await person.close();
});

test('on a phone the login form fits, and works', async () => {
    const person = await Person.with(PHONE);
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    await person.shot('login-phone');
    await person.isAccessible('the login form on a phone');
    const wide = await person.page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    assert.equal(wide, false, 'nothing sticks out');
    await person.page.getByTestId('login-user').fill('ann');
    await person.page.getByTestId('login-password').fill(PASSWORD);
    await person.page.getByTestId('login-send').tap();
    await person.sees('connected', 'serial/0');
    await person.close();
});

test('a wrong password is explained as a user who does not exist is, and the right one still gets in', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    const error = person.page.getByTestId('login-error');
    for (const user of ['ann', 'nobody-of-this-name']) {
        await person.logIn(user, 'wrong');
        await error.getByText('User name or password is wrong.').waitFor();
        assert.equal(await person.page.getByTestId('login-password').inputValue(), '', 'the field is empty again');
    }
    await person.shot('login-wrong');
    await person.isAccessible('a wrong password');
    assert.deepEqual(await person.context.cookies(), []);
    await person.logIn('ann', PASSWORD);
    await person.sees('connected', 'serial/0');
    await person.close();
});

test('a login form whose connection has had all its requests still logs in', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    // A connection without a right takes 20.
    const answers = await person.page.evaluate(async () => {
        const statuses = [];
        for (let n = 0; n < 50; n++) statuses.push((await fetch('api/guest', { cache: 'no-store' })).status);
        return statuses;
    });
    assert.deepEqual([...new Set(answers)], [401]);
    await person.logIn('ann', PASSWORD);
    await person.sees('connected', 'serial/0');
    await person.close();
});

test('a user without a right to this guest is told so, and gets in nowhere', async () => {
    const person = await Person.with();
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('login');
    await person.logIn('carl', PASSWORD);
    await person.page.getByTestId('login-error').getByText('carl has no right to this guest').waitFor();
    assert.deepEqual(await person.context.cookies(), []);
    await person.close();
});

test('a session outlives the proxy, which ends while nobody is connected', async () => {
    const person = await loggedIn();
    await person.page.goto('about:blank');
    const state = () => sh(`systemctl is-active console-proxy@${guest.uuid}.service || true`);
    await until('the proxy to end', () => state() === 'inactive');
    assert.equal(sh(`systemctl show -P MainPID console-proxy@${guest.uuid}.service`), '0');
    await person.open(`${await guest.origin()}/#serial/0`);
    await person.sees('connected', 'serial/0');
    assert.equal((await person.whoami()).person, 'ann');
    await person.close();
});

test('logging out ends the other tab, too, and the way back leads to the login form', async () => {
    const person = await loggedIn();
    const second = await person.newPage();
    await second.goto(`${await guest.origin()}/#vnc`);
    await second.waitForSelector('html[data-state=connected]');
    const [cookies, secret] = [await person.context.cookies(), await person.secret()];
    await person.logOut();
    await person.sees('login');
    assert.match(await person.text(), /You are logged out/);
    assert.equal(await person.secret(), null);
    await second.waitForSelector('html[data-state=login]');
    assert.match(await second.evaluate(() => document.body.innerText), /somebody logged out of it/);
    await person.open('about:blank');
    await person.page.goBack();
    await person.sees('login');
    await person.context.addCookies(cookies);
    await person.keepSecret(secret);
    await person.page.reload();
    await person.sees('login');
    await person.close();
});

test('an image of another page whose address is the log-out logs nobody out', async () => {
    const person = await loggedIn();
    const before = await person.whoami();
    const target = `${await guest.origin()}/api/logout`;
    for (const name of ['localhost', 'evil.example']) {
        const theirs = await site(name, { '/': `<img src="${target}" onerror="document.title = 'failed'">` });
        const page = await person.newPage();
        await page.goto(`${theirs.origin}/`);
        await page.waitForFunction(() => document.title === 'failed');
        await theirs.close();
    }
    assert.deepEqual((await person.whoami()).session, before.session);
    assert.equal(await person.state(), 'connected');
    await person.close();
});

test('a form of another page ends no session, and makes none', async () => {
    const [person, stranger] = [await loggedIn(), await Person.with()];
    const [before, cookies] = [await person.whoami(), await person.context.cookies()];
    for (const name of ['localhost', 'evil.example']) {
        for (const path of ['logout', 'session']) {
            const theirs = await site(name, { '/': form(`${await guest.origin()}/api/${path}`) });
            for (const one of [person, stranger]) {
                const page = await one.newPage();
                await page.goto(`${theirs.origin}/`);
                const [answer] = await Promise.all([page.waitForResponse(/\/api\//), page.click('button')]);
                assert.equal(answer.status(), 403, `${path} by a form of ${name}`);
                // A page that is closed while it loads may never be closed: it goes with its person.
            }
            await theirs.close();
        }
    }
    assert.deepEqual((await person.whoami()).session, before.session);
    assert.deepEqual(await person.context.cookies(), cookies);
    assert.deepEqual(await stranger.context.cookies(), []);
    assert.equal(await person.state(), 'connected');
    await person.close();
    await stranger.close();
});

test('a link of another person asks first, and nobody is somebody else unless they say so', async () => {
    const person = await loggedIn();
    const link = await guest.url('--user bob', '#serial/0');
    await person.open(link);
    await person.sees('whose');
    assert.match(await person.text(), /This link opens the consoles as bob\. You are here as ann\./);
    await person.shot('ask-whose');
    await person.isAccessible('whose session it is to be');
    assert.equal((await person.whoami()).person, 'ann', 'nothing was bought');
    await person.page.getByTestId('stay').click();
    await person.sees('connected', 'serial/0');
    assert.ok(!person.page.url().includes('token'), person.page.url());
    assert.equal((await person.whoami()).person, 'ann');

    await person.open(link);
    await person.sees('whose');
    await person.page.getByTestId('go-on').click();
    await person.sees('connected', 'serial/0');
    const { person: name, session } = await person.whoami();
    assert.deepEqual([name, session.by], ['bob', 'ticket']);
    const notice = person.page.getByTestId('notice-whose');
    assert.match(await notice.innerText(), /You are here as bob, by a link\./);
    await person.shot('by-a-link');
    await notice.getByRole('button', { name: 'Log out' }).click();
    await person.sees('login');
    await person.close();
});

test('who came by a link is told as whom until they close the notice, also in a tab that the link did not open', async () => {
    const person = await Person.with();
    await person.open(await guest.url('--user bob', '#serial/0'));
    await person.sees('connected', 'serial/0');
    const second = await person.newPage();
    await second.goto(`${await guest.origin()}/#serial/0`);
    const notice = second.getByTestId('notice-whose');
    await notice.getByText('You are here as bob, by a link.').waitFor();
    await notice.getByRole('button', { name: 'Close' }).click();
    await second.reload();
    await second.waitForSelector('html[data-state=connected]');
    assert.equal(await second.getByTestId('notice-whose').count(), 0);
    await person.close();
});

test('the cookie of one guest, renamed, is none of another', async () => {
    const person = await loggedIn();
    const [cookie] = (await person.context.cookies()).filter(({ name }) => name.startsWith('__Host-console-proxy-'));
    const thief = await Person.with();
    await thief.context.addCookies([{ ...cookie, name: `__Host-console-proxy-${other.uuid.slice(0, 8)}` }]);
    await thief.open(`${await other.origin()}/#serial/0`);
    await thief.sees('login');
    await thief.keepSecret(await person.secret());
    assert.equal((await thief.whoami()).status, 401);
    await thief.page.reload();
    await thief.sees('login');
    await thief.close();
    await person.close();
});

test('a right that is taken away ends the console at once, with the reason; given again, the page comes back', async () => {
    const person = await loggedIn('dora');
    sh('gpasswd -d dora libvirt && console-proxy publish --all');
    await person.sees('not-allowed', 'serial/0');
    assert.match(await person.text(), /the right to serial\/0 was taken away/);
    await person.shot('right-taken-away');
    await person.page.reload();
    await person.sees('not-allowed');
    assert.match(await person.text(), /dora has no right to this guest/);
    sh('gpasswd -a dora libvirt && console-proxy publish --all');
    // What was found out of a user counts for a while.
    await until('the right to count', async () => {
        if (await person.page.getByTestId('retry').isVisible()) await person.page.getByTestId('retry').click();
        return (await person.state()) === 'connected';
    });
    await person.close();
});

test('who is kicked hears it, above a form that lets them in again', async () => {
    const person = await loggedIn('dora');
    sh(`console-proxy kick ${guest.uuid} --person dora`);
    await person.sees('login', 'serial/0');
    assert.match(await person.page.getByTestId('reason').innerText(), /the administrator ended the session/);
    await person.logIn('dora', PASSWORD);
    await person.sees('connected', 'serial/0');
    await person.runs('again');
    await person.close();
});
