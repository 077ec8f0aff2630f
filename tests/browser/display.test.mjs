// The guest's screen in the page: VNC and SPICE, compared with what the host itself has of it.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Person, closeBrowser, difference, picture } from './browser.mjs';
import { Configured, Guest, figure, sh, sleep, until } from './host.mjs';

let guest;

before(async () => {
    guest = new Guest('display', '--vnc --spice --pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest.remove();
    await closeBrowser();
});

const shows = (person) => until('the page to show the guest\'s screen', async () => difference(await picture(person.page), guest.screen()) < 0.02);

/** What a command in the guest says, by its serial port. */
const asked = (command) => sh(`timeout 10 console-proxy console ${guest.uuid} serial/0`, `${command}\n`);

for (const console of ['vnc', 'spice']) {
    test(`${console}: the page shows the guest's screen, and what is typed there runs in the guest`, async () => {
        const person = await Person.with();
        await person.open(await guest.url('', `#${console}`));
        await person.sees('connected', console);
        await shows(person);
        // A guest that has just booted may not have found its keyboard yet.
        await until('the guest to run what is typed', async () => {
            await person.focusConsole();
            await person.page.keyboard.type(`touch /tmp/by-${console}-`, { delay: 20 });
            await person.page.keyboard.press('Shift+KeyX', { delay: 20 });
            await person.page.keyboard.type('; clear; seq 20\n', { delay: 20 });
            return asked('ls /tmp').includes(`by-${console}-X`);
        });
        await shows(person);
        await person.shot(`${console}-desktop`);
        await person.isAccessible(`${console}, connected`);
        await person.close();
    });

    test(`${console}: the guest's end and its next start are told and followed`, async () => {
        const person = await Person.with();
        await person.open(await guest.url('', `#${console}`));
        await person.sees('connected', console);
        guest.destroy();
        await person.sees('guest-off', console);
        await person.shot(`state-guest-off-${console}`);
        guest.start();
        await person.sees('connected', console, 60_000);
        await guest.waitForShell();
        await shows(person);
        await person.close();
    });
}

test('vnc: who may only look on sees everything and types nothing', async () => {
    const person = await Person.with();
    await person.open(await guest.url('--view', '#vnc'));
    await person.sees('connected', 'vnc');
    await shows(person);
    assert.match(await person.text(), /View only/);
    await person.focusConsole();
    await person.page.keyboard.type('touch /tmp/looking\n', { delay: 20 });
    await sleep(1500);
    assert.ok(!asked('ls /tmp').includes('looking'), 'nothing of it reached the guest');
    await shows(person);
    await person.shot('view-only-vnc');
    await person.close();
});

test('spice: who may only look on is told that it cannot be shown', async () => {
    const person = await Person.with();
    await person.open(await guest.url('--view', '#spice'));
    await person.sees('refused', 'spice');
    assert.match(await person.text(), /view/i);
    await person.shot('state-refused');
    await person.close();
});

test('spice: a second person takes it over, the first one is told by whom and takes it back', async () => {
    const [first, second] = [await Person.with(), await Person.with()];
    await first.open(await guest.url('--user ann', '#spice'));
    await first.sees('connected', 'spice');
    await second.open(await guest.url('--user bob', '#spice'));
    await second.sees('connected', 'spice');
    await first.sees('taken-over', 'spice');
    assert.match(await first.text(), /bob/);
    await first.shot('state-taken-over');
    await shows(second);
    await first.page.getByRole('button', { name: 'Take it back' }).click();
    await first.sees('connected', 'spice');
    await second.sees('taken-over', 'spice');
    await shows(first);
    await first.close();
    await second.close();
});

test('spice: bridged by configuration it is the same', async () => {
    const configured = new Configured('[spice]\nwebsocket = "bridge"\n');
    try {
        assert.equal(guest.listed().consoles.find(({ console }) => console === 'spice').reached, 'bridged');
        const person = await Person.with();
        await person.open(await guest.url('', '#spice'));
        await person.sees('connected', 'spice');
        await shows(person);
        await person.close();
    } finally {
        configured.remove();
    }
    assert.equal(guest.listed().consoles.find(({ console }) => console === 'spice').reached, 'native');
});

for (const console of ['vnc', 'spice']) {
    test(`${console}: a display with a password asks for it, and again after a wrong one`, async () => {
        const closed = new Guest(`password-${console}`, `--password sesame --${console} --blank`).start();
        const person = await Person.with();
        await person.open(await closed.url());
        for (const word of ['wrong', 'sesame']) {
            await person.page.getByTestId('password').waitFor();
            if (word === 'wrong') await person.shot(`password-${console}`);
            if (word === 'wrong') await person.isAccessible('the question for a password');
            await person.page.getByTestId('password').fill(word);
            await person.page.keyboard.press('Enter');
            if (word === 'wrong') await person.page.getByText('That was not right').waitFor();
        }
        await person.sees('connected', console);
        await person.close();
        closed.remove();
    });
}

test('click to first picture, cold and warm', async () => {
    const times = { cold: [], warm: [] };
    for (let round = 0; round < 5; round++) {
        for (const kind of ['cold', 'warm']) {
            const person = await Person.with();
            const url = await guest.url('', '#vnc');
            if (kind === 'cold') sh(`systemctl stop console-proxy@${guest.uuid}.service console-proxy-broker.service`);
            const begun = performance.now();
            await person.open(url);
            await person.page.waitForFunction(() => {
                const canvas = document.querySelector('canvas');
                if (!canvas?.width || document.documentElement.dataset.state !== 'connected') return false;
                const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, Math.min(canvas.height, 64));
                return data.some((byte, at) => at % 4 !== 3 && byte !== 0);
            }, undefined, { polling: 'raf' });
            times[kind].push(performance.now() - begun);
            await person.close();
        }
    }
    for (const [kind, all] of Object.entries(times)) figure(`first picture ${kind}, ms`, Math.round(all.sort((a, b) => a - b)[2]));
});
