// Text consoles in the page.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { PHONE, Person, closeBrowser } from './browser.mjs';
import { Configured, Guest, figure, sh, sleep, until } from './host.mjs';

let guest;

before(async () => {
    guest = new Guest('serial', '--pty --pty --vnc').start();
    await guest.waitForShell();
});

after(async () => {
    guest.remove();
    await closeBrowser();
});

const runs = (person, word) => person.runs(word);

test('a command typed in the terminal runs, before and after the guest\'s own reboot', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await runs(person, 'before');
    await person.shot('serial-desktop');
    await person.isAccessible('a terminal, connected');
    const boots = (await person.terminal()).split('console-proxy test guest serial on ttyS0').length;
    await person.type('reboot -f\n');
    await until('the guest to boot again', async () => (await person.terminal()).split('console-proxy test guest serial on ttyS0').length > boots, 60_000);
    await person.sees('connected', 'serial/0');
    await runs(person, 'after');
    await person.close();
});

test('libvirtd\'s restart cuts no console', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    const since = () => guest.listed().sessions.map((session) => session.since);
    const before = since();
    await sleep(1500);
    sh('systemctl restart libvirtd; for i in $(seq 100); do virsh list >/dev/null && break; sleep 0.2; done');
    await runs(person, 'restarted');
    // The page would come back by itself: it had no need to.
    assert.deepEqual([since().length, since()], [1, before]);
    await person.close();
});

test('a guest that is switched off and on again is waited for, and the terminal goes on', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await runs(person, 'first');
    guest.destroy();
    await person.sees('guest-off', 'serial/0');
    assert.match(await person.text(), /guest is off/i);
    guest.start();
    await person.sees('connected', 'serial/0', 60_000);
    await guest.waitForShell();
    await runs(person, 'second');
    assert.match(await person.terminal(), /first-2/, 'what was shown before is still there');
    await person.close();
});

test('who may only look on sees what others type, and types nothing', async () => {
    const [looking, typing] = [await Person.with(), await Person.with()];
    await looking.open(await guest.url('--view', '#serial/0'));
    await looking.sees('connected', 'serial/0');
    await typing.open(await guest.url('', '#serial/0'));
    await typing.sees('connected', 'serial/0');
    await runs(typing, 'shown');
    await until('the other one to see it', async () => (await looking.terminal()).includes('shown-2'));
    await looking.type('echo looking-$((1+1))\n');
    await runs(typing, 'afterwards');
    assert.ok(!(await typing.terminal()).includes('looking'), 'nothing of it reached the guest');
    await looking.shot('view-only-serial');
    await looking.close();
    await typing.close();
});

test('with take-over the one before is told who took the port, and can take it back', async () => {
    const configured = new Configured('[serial]\nviewers = "take-over"\n');
    const [first, second] = [await Person.with(), await Person.with()];
    try {
        await first.open(await guest.url('--user ann', '#serial/0'));
        await first.sees('connected', 'serial/0');
        await second.open(await guest.url('--user bob', '#serial/0'));
        await second.sees('connected', 'serial/0');
        await first.sees('taken-over', 'serial/0');
        assert.match(await first.text(), /bob from/);
        await first.page.getByRole('button', { name: 'Take it back' }).click();
        await first.sees('connected', 'serial/0');
        await second.sees('taken-over', 'serial/0');
        assert.match(await second.text(), /ann from/);
    } finally {
        configured.remove();
        await first.close();
        await second.close();
    }
});

test('with refuse the second one is told who has it', async () => {
    const configured = new Configured('[serial]\nviewers = "refuse"\n');
    const [first, second] = [await Person.with(), await Person.with()];
    try {
        await first.open(await guest.url('--user ann', '#serial/0'));
        await first.sees('connected', 'serial/0');
        await second.open(await guest.url('--user bob', '#serial/0'));
        await second.sees('busy', 'serial/0');
        assert.match(await second.text(), /ann/);
        await second.shot('state-busy');
        await second.isAccessible('a console that is busy');
    } finally {
        configured.remove();
        await first.close();
        await second.close();
    }
});

test('a port that somebody on the host holds is told with who, and is opened when it is free', async () => {
    const person = await Person.with();
    // libvirt's lock, as virsh console would leave it; of a process that lives.
    const lock = `/var/lock/LCK..${sh(`virsh ttyconsole ${guest.uuid} | sed 's:/dev/pts/:_pts_:'`)}`;
    sh(`printf '%10d\\n' 1 >${lock}`);
    try {
        await person.open(await guest.url('', '#serial/0'));
        await person.sees('busy', 'serial/0');
        assert.match(await person.text(), /in use by systemd \(pid 1\)/);
    } finally {
        sh(`rm ${lock}`);
    }
    await person.page.getByRole('button', { name: 'Try again' }).click();
    await person.sees('connected', 'serial/0');
    await person.close();
});

test('of a serial port that console-proxy added, and on which nothing runs yet, the page says how to get a login prompt', async () => {
    const added = new Guest('added', '--vnc');
    await until('it to be wired', () => sh(`virsh dumpxml --inactive ${added.uuid}`).includes('ua-console-proxy'));
    added.start();
    const person = await Person.with();
    await person.open(await added.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    const advice = person.page.getByTestId('getty');
    await advice.waitFor();
    assert.match(await advice.innerText(), /systemctl enable --now serial-getty@ttyS0\.service/);
    await person.shot('serial-added');
    await person.isAccessible('the advice on a silent port');
    // This guest has a shell there after all: as soon as it says something, the advice is out of the way.
    await runs(person, 'spoke');
    assert.equal(await advice.isVisible(), false);
    await person.close();
    added.remove();
});

test('the tools: search, text size, terminal size, download, paste', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await runs(person, 'needle');
    await person.tool('set-size');
    // What a person types meanwhile goes at once, and would stand within it.
    const [, rows, cols] = await until('the command to be typed', async () => /stty rows (\d+) cols (\d+)\n/.exec(await person.terminal()));
    await until('stty to say so', async () => {
        await person.type('stty size\n');
        await sleep(300);
        return (await person.terminal()).includes(`\n${rows} ${cols}\n`);
    });
    await person.page.evaluate(() => navigator.clipboard.writeText('echo pas$((1+1))ted\n'));
    await person.focusConsole();
    await person.page.keyboard.press('Control+Shift+KeyV');
    await until('what was pasted to run', async () => (await person.terminal()).includes('pas2ted'));
    await person.close();
});

test('on a phone', async () => {
    const person = await Person.with(PHONE);
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await person.shot('serial-phone');
    await person.isAccessible('a terminal on a phone');
    const wide = await person.page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    assert.equal(wide, false, 'nothing sticks out');
    await person.close();
});

test('key to echo in the browser', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await runs(person, 'warm');
    const times = await person.keyToEcho(40);
    figure('key to echo p50, ms', times[20]);
    figure('key to echo worst of 40, ms', times[39]);
    await person.close();
});

test('somebody who looks on and makes room for who may type hears why, and does not come back by themselves', async () => {
    const [crowd, person] = [await Person.with(), await Person.with()];
    await crowd.open(await guest.origin());
    const opens = async (user, many) => {
        const paths = Array.from({ length: many }, (_, n) => `serial/0?client=${user}-${n}&token=${guest.ticket(`--user ${user} --view`)}`);
        await crowd.page.evaluate((paths) => Promise.all(paths.map((path) => new Promise((done, failed) => {
            const socket = new WebSocket(new URL(path, location.href.replace('https', 'wss')));
            socket.onopen = done;
            socket.onclose = ({ code, reason }) => failed(new Error(`${code} ${reason}`));
        }))), paths);
    };
    // Of whoever has the most the newest gives way.
    await opens('ann', 4);
    await opens('cas', 4);
    await opens('bob', 7);
    await person.open(await guest.url('--user bob --view', '#serial/0'));
    await person.sees('connected', 'serial/0');
    // What the page says to the proxy from now on.
    const sockets = [];
    person.page.on('websocket', (socket) => sockets.push(socket.url()));
    const root = await Person.with();
    await root.open(await guest.url('', '#serial/0'));
    await root.sees('connected', 'serial/0');
    await person.sees('busy', 'serial/0');
    assert.match(await person.text(), /all places here were taken, and .+ goes before you/);
    await person.isAccessible('a place that was given up');
    await sleep(3000);
    assert.deepEqual([await person.state(), sockets], ['busy', []]);
    await crowd.close();
    // A place is free again, and the button is all that it takes.
    await person.page.getByTestId('retry').click();
    await person.sees('connected', 'serial/0');
    await person.close();
    await root.close();
});
