// How the page looks, on a desktop and a phone, in light and dark: pictures for people, and what axe finds.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { DESKTOP, PHONE, Person, closeBrowser } from './browser.mjs';
import { Guest } from './host.mjs';

let guest;

before(async () => {
    guest = new Guest('look', '--vnc --spice --pty').start();
    await guest.waitForShell();
});

after(async () => {
    guest.remove();
    await closeBrowser();
});

for (const [screen, options] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    for (const colorScheme of ['light', 'dark']) {
        test(`each console and the login, on a ${screen}, ${colorScheme}`, async () => {
            const person = await Person.with({ ...options, colorScheme });
            const url = await guest.url();
            await person.open(`${await guest.origin()}/`);
            await person.sees('login');
            await person.shot(`look-login-${screen}-${colorScheme}`);
            await person.isAccessible('nobody is logged in');
            await person.page.goto('about:blank');
            await person.open(url);
            for (const console of ['vnc', 'spice', 'serial/0']) {
                await person.page.getByTestId(`tab-${console}`).click();
                await person.sees('connected', console);
                await person.shot(`look-${console.replace('/', '-')}-${screen}-${colorScheme}`);
                await person.isAccessible(console);
                const wide = await person.page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
                assert.equal(wide, false, `nothing of ${console} sticks out`);
            }
            await person.close();
        });
    }
}

test('the keyboard alone leads through the page, out of a console and back', async () => {
    const person = await Person.with();
    await person.open(await guest.url('', '#serial/0'));
    await person.sees('connected', 'serial/0');
    await person.focusConsole();
    const focused = () => person.page.evaluate(() => document.activeElement?.dataset.testid ?? document.activeElement?.className);
    assert.match(await focused(), /xterm/);
    for (const key of ['Control', 'Alt', 'Shift']) await person.page.keyboard.down(key);
    for (const key of ['Shift', 'Alt', 'Control']) await person.page.keyboard.up(key);
    await person.page.waitForFunction(() => document.activeElement?.dataset.testid === 'tab-serial/0');
    await person.page.keyboard.press('Home');
    await person.page.keyboard.press('Enter');
    // The deep link follows the tab.
    await person.page.waitForFunction(() => location.hash === '#vnc');
    await person.sees('connected', 'vnc');
    await person.close();
});
