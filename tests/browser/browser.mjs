// Debian's Chromium, and the page in it as a person sees it.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

import { PATIENCE, sleep, until } from './host.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SHOTS = '/root/browser/screenshots';

/** Screens that people have. */
export const DESKTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

/** Where the page keeps a session's second secret, before its own path. */
const SECRET = 'console-proxy:secret:';

let running;

/** One browser for all tests of a file; `hosts` are names that lead to this host. */
export async function browser() {
    running ??= await chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: [
            '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync',
            '--host-resolver-rules=MAP panel.example 127.0.0.1, MAP evil.example 127.0.0.1, MAP consoles.example 127.0.0.1',
        ],
    });
    return running;
}

export async function closeBrowser() {
    await running?.close();
    running = undefined;
}

/** A person with a browser of their own: cookies, clipboard, one page that is open. */
export class Person {
    static async with(options = DESKTOP) {
        const person = new Person();
        person.context = await (await browser()).newContext({ ...options, ignoreHTTPSErrors: true });
        // Who measures echoes hears what comes from the guest.
        await person.context.addInitScript(() => {
            window.WebSocket = new Proxy(WebSocket, {
                construct(plain, of) {
                    const socket = Reflect.construct(plain, of);
                    socket.addEventListener('message', ({ data }) => {
                        window.onEcho?.();
                        window.onEcho = undefined;
                        if (!window.awaited || typeof data === 'string') return;
                        if (new TextDecoder().decode(data).includes(window.awaited)) window.arrived ??= performance.now();
                    });
                    return socket;
                },
            });
        });
        await person.context.grantPermissions(['clipboard-read', 'clipboard-write']);
        person.page = await person.newPage();
        return person;
    }

    /** A further tab. What the page's own script gets wrong, and what its policy forbids, fails the test. */
    async newPage() {
        const page = await this.context.newPage();
        this.errors ??= [];
        page.on('pageerror', (why) => this.errors.push(String(why)));
        page.on('console', (message) => {
            if (message.type() === 'error' && /Content Security Policy|Refused to/.test(message.text())) this.errors.push(message.text());
        });
        return page;
    }

    async open(url) {
        await this.page.goto(url);
        return this;
    }

    /** Waits for a state of the page, and on one of its consoles where that is said. */
    async sees(state, console, patience = PATIENCE) {
        const now = () => this.page.evaluate(() => [document.documentElement.dataset.state, document.documentElement.dataset.console]);
        try {
            await until(`the page is "${state}"`, async () => {
                const [is, at] = await now().catch(() => []);
                return is === state && (console === undefined || at === console);
            }, patience);
        } catch (why) {
            const text = await this.page.evaluate(() => document.body.innerText).catch(() => '(no page)');
            await this.shot(`failed-${state}`).catch(() => {});
            throw new Error(`${why.message}; it is ${JSON.stringify(await now().catch(String))} and says: ${text.slice(0, 600)}`);
        }
        return this;
    }

    /** The page's state now. */
    async state() {
        return this.page.evaluate(() => document.documentElement.dataset.state);
    }

    /** Puts the keyboard into the console, as the link for people without a mouse does. */
    async focusConsole() {
        await this.page.locator('a.skip').evaluate((link) => link.click());
    }

    /** Types into the console. */
    async type(text) {
        await this.focusConsole();
        await this.page.keyboard.type(text);
    }

    /** Types a command whose output holds a word that the command does not, and waits for that word. */
    async runs(word) {
        await until(`${word} to be echoed`, async () => {
            await this.type(`echo ${word}-$((1+1))\n`);
            await sleep(300);
            return (await this.terminal()).includes(`${word}-2`);
        });
    }

    /** Fills the login form in, and sends it. */
    async logIn(user, password) {
        await this.page.getByTestId('login-user').fill(user);
        await this.page.getByTestId('login-password').fill(password);
        await this.page.getByTestId('login-password').press('Enter');
    }

    /** What the proxy takes this browser for. */
    async whoami() {
        const secret = await this.secret();
        return this.page.evaluate(async (secret) => {
            const answer = await fetch('api/guest', { cache: 'no-store', headers: secret ? { 'console-proxy-secret': secret } : {} });
            return answer.ok ? answer.json() : { status: answer.status };
        }, secret);
    }

    /** The session's second secret, as the page keeps it; null: none. */
    async secret() {
        return this.page.evaluate((name) => localStorage.getItem(name + new URL('.', location.href).pathname), SECRET);
    }

    /** Puts another secret there, as if the page had. */
    async keepSecret(secret) {
        await this.page.evaluate(([name, secret]) => localStorage.setItem(name + new URL('.', location.href).pathname, secret), [SECRET, secret]);
    }

    /** Uses a tool of the bar, which on a narrow screen is behind its menu. */
    async tool(id) {
        const button = this.page.getByTestId(`tool-${id}`);
        if (!(await button.isVisible())) await this.page.getByRole('button', { name: 'Menu', exact: true }).click();
        await button.click();
    }

    async logOut() {
        await this.page.getByTestId('account').click();
        await this.page.getByTestId('log-out').click();
    }

    /** What the terminal has, as a person gets it: by downloading the scrollback. */
    async terminal() {
        const [download] = await Promise.all([this.page.waitForEvent('download'), this.tool('download')]);
        return readFileSync(await download.path(), 'utf8');
    }

    /** Milliseconds from a key to the frame in which its echo is drawn, sorted, of so many keys. */
    async keyToEcho(keys) {
        const times = [];
        await this.focusConsole();
        for (let n = 0; n < keys; n++) {
            await this.page.evaluate(() => {
                window.measured = new Promise((done) => {
                    addEventListener('keydown', ({ timeStamp }) => {
                        window.onEcho = () => requestAnimationFrame(() => done(performance.now() - timeStamp));
                    }, { capture: true, once: true });
                });
            });
            await this.page.keyboard.press('a');
            times.push(await this.page.evaluate(() => window.measured));
            await sleep(30);
        }
        return times.sort((a, b) => a - b).map((time) => Math.round(time * 10) / 10);
    }

    /** Milliseconds from a key until those words arrive, and are drawn; undefined where they do not within a second. */
    async wordsAfter(key, words) {
        await this.focusConsole();
        await this.page.evaluate((words) => {
            [window.awaited, window.arrived] = [words, undefined];
            addEventListener('keydown', () => { window.pressed = performance.now(); }, { capture: true, once: true });
        }, words);
        await this.page.keyboard.press(key);
        return this.page.evaluate(() => new Promise((done) => {
            const look = () => {
                if (window.arrived) done(Math.round(performance.now() - window.pressed));
                else if (performance.now() - window.pressed > 1000) done(undefined);
                else requestAnimationFrame(look);
            };
            look();
        }));
    }

    /** All that the page says, as text. */
    async text() {
        return this.page.evaluate(() => document.body.innerText);
    }

    async shot(name) {
        mkdirSync(SHOTS, { recursive: true });
        await this.page.screenshot({ path: `${SHOTS}/${name}.png` });
    }

    /** Serious findings of axe on what is shown. */
    async isAccessible(what) {
        await this.page.evaluate(AXE);
        const { violations } = await this.page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
        const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        const words = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ').slice(0, 300)}`);
        assert.deepEqual(words, [], what);
    }

    async close() {
        await this.context.close();
        assert.deepEqual(this.errors, [], 'what the page itself got wrong');
    }
}

/** The picture of a display's canvas: width, height, RGB bytes. */
export async function picture(page) {
    const { width, height, rgba } = await page.evaluate(() => {
        const canvases = [...document.querySelectorAll('canvas')].filter((canvas) => canvas.offsetParent !== null && canvas.width > 0 && canvas.height > 0);
        const canvas = canvases.sort((a, b) => b.width * b.height - a.width * a.height)[0];
        if (!canvas) return { width: 0, height: 0, rgba: '' };
        const copy = document.createElement('canvas');
        [copy.width, copy.height] = [canvas.width, canvas.height];
        const context = copy.getContext('2d');
        context.drawImage(canvas, 0, 0);
        const bytes = context.getImageData(0, 0, copy.width, copy.height).data;
        let text = '';
        for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
        return { width: copy.width, height: copy.height, rgba: btoa(text) };
    });
    const bytes = Buffer.from(rgba, 'base64');
    const rgb = Buffer.alloc(width * height * 3);
    for (let pixel = 0; pixel < width * height; pixel++) bytes.copy(rgb, pixel * 3, pixel * 4, pixel * 4 + 3);
    return { width, height, rgb };
}

/** The share of pixels in which two pictures differ; 1 where their sizes do. */
export function difference(one, other) {
    if (one.width !== other.width || one.height !== other.height || one.width === 0) return 1;
    let differ = 0;
    for (let at = 0; at < one.rgb.length; at += 3) {
        const far = [0, 1, 2].some((c) => Math.abs(one.rgb[at + c] - other.rgb[at + c]) > 16);
        if (far) differ++;
    }
    return differ / (one.width * one.height);
}
