// Every state of the page in a real browser, with a proxy that is played: the state is the right one, its words are
// there, axe has nothing serious to say, and nothing breaks the policy. Leaves a picture of each.
//   node tests/browser/states.mjs [FOLDER]     (default ../target/shots; CHROMIUM=path of another browser)

import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { serve } from './serve.mjs';

const folder = process.argv[2] ?? new URL('../../../target/shots', import.meta.url).pathname;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
mkdirSync(folder, { recursive: true });

const EVIL = '<img src=x onerror="document.title=1">';
const consoles = [
  {
    console: 'vnc',
    path: '/vnc',
    reached: 'native',
    added: false,
    refused: 'its stream is encrypted and cannot be filtered',
  },
  { console: 'serial/0', path: '/serial/0', reached: 'pty', added: false, spoke: 3 },
  { console: 'serial/1', path: '/serial/1', reached: 'bridged', added: true },
];
const guest = {
  uuid: '48e17e85-1ca1-4573-ba34-f18aba8934e6',
  name: 'web-1',
  person: 'ann',
  mode: 'control',
  session: { ends: guestEnds(), by: 'password' },
  consoles,
  unreachable: [{ console: 'console/0', reason: 'a file is no console' }],
};
const both = [{ console: 'vnc', path: '/vnc', reached: 'native', added: false }, consoles[1]];
const refuse = (status, body) => (route) => route.fulfill({ status, contentType: 'text/plain', body });
/** Nobody is in, and a password would do. */
const asksLogin =
  (body = 'a ticket is needed: `console-proxy url GUEST` on the host prints one') =>
  (route) =>
    route.fulfill({ status: 401, contentType: 'text/plain', headers: { 'console-proxy-login': 'password' }, body });
/** What must not be asked. */
const never = (what) => (route) => {
  route.request().frame().page().trouble.push(what);
  return route.abort();
};
/** What a new session tells the page, and no other. */
const SECRET = 'S'.repeat(43);
const sold = (route) => route.fulfill({ json: { secret: SECRET } });
/** A proxy that knows the session by its second secret. */
const needsSecret = (route) =>
  (route.request().headers()['console-proxy-secret'] === SECRET ? tell() : asksLogin('its second secret alone'))(route);
const ticketOf = (sub) => `h.${Buffer.from(JSON.stringify({ sub })).toString('base64url')}.s`;
const byLink = { ends: guestEnds(), by: 'ticket' };
const tell =
  (more = {}) =>
  (route) =>
    route.fulfill({ json: { ...guest, ...more } });
/** A websocket that says something, and then perhaps closes. */
const speaks =
  (words, code, reason, after = 300) =>
  (socket) => {
    socket.send(JSON.stringify({ position: 'a:0' }));
    socket.send(Buffer.from(words));
    if (code) setTimeout(() => socket.close({ code, reason }), after);
  };
/** A websocket whose first session ends; the next one lasts. */
const endsOnce = (why = 'the session has ended: its time is over') => {
  const ended = new WeakSet();
  return (socket, page) => {
    if (ended.has(page)) return speaks(prompt)(socket);
    ended.add(page);
    speaks(prompt, 4401, why, 1_500)(socket);
  };
};
const closes = (code, reason) => (socket) => socket.close({ code, reason });
const silent = () => {};
const prompt = '\r\nDebian GNU/Linux 12 web-1 ttyS0\r\n\r\nweb-1 login: ';

const RFB = 'RFB 003.008\n';
/** Security is fine; then the screen: 16 by 16, 32 bits, and no name. */
const INIT = [0, 16, 0, 16, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 0];
const WELCOME = [0, 0, 0, 0];

/** noVNC looks for a websocket's methods where a browser has them, and a played one inherits them from further up. */
function flatSocket() {
  const Played = globalThis.WebSocket;
  globalThis.WebSocket = class WebSocket extends Played {
    constructor(url, protocols) {
      super(url, protocols);
      globalThis.offered = protocols;
    }
  };
  for (let from = Played.prototype; from && from !== EventTarget.prototype; from = Object.getPrototypeOf(from)) {
    for (const [name, found] of Object.entries(Object.getOwnPropertyDescriptors(from)))
      if (name !== 'constructor') Object.defineProperty(globalThis.WebSocket.prototype, name, found);
  }
}

/** A display that says one thing after another: the next one when it was answered. Beside it, a serial port. */
function display(...says) {
  const socket = (socket, page) => {
    if (!socket.url().includes('/vnc')) return speaks(prompt)(socket);
    const all = [...says];
    const next = () => {
      const one = all.shift();
      if (one?.code) return setTimeout(() => socket.close(one), 2_000);
      if (one) socket.send(Buffer.from(one));
      if (all[0]?.code) next();
    };
    socket.onMessage((message) => {
      if (all.length > 0) return next();
      const key = 4;
      if (message[0] === key)
        page.heard.push(`${message[1] ? '+' : '-'}${Buffer.from(message).readUInt32BE(4).toString(16)}`);
    });
    setTimeout(next, 400);
  };
  return { guest: tell({ consoles: both }), hash: '#vnc', socket };
}

/** What is played, and what a person must see. */
const scenes = {
  connected: { socket: speaks(prompt), state: 'connected' },
  'view-only': {
    guest: tell({ mode: 'view' }),
    socket: echoes,
    after: types,
    state: 'connected',
    sees: 'View only',
    not: 'heard',
  },
  typed: { socket: echoes, after: types, state: 'connected', sees: 'heard' },
  'comes-back': { socket: resumes, state: 'connected', sees: 'came back from a:105' },
  search: { socket: speaks(prompt), after: opens('tool-search'), state: 'connected' },
  help: {
    socket: speaks(prompt),
    after: opens('tool-help'),
    state: 'connected',
    sees: 'Leave the console by keyboard',
  },
  'no-login': {
    guest: tell({ session: null, person: '' }),
    socket: speaks(prompt),
    after: opens('account'),
    state: 'connected',
    sees: 'No login is needed for this guest.',
    not: 'Log out',
  },
  account: { socket: speaks(prompt), after: opens('account'), state: 'connected', sees: 'Signed in as ann' },
  'evil-name': {
    guest: tell({ name: EVIL, person: EVIL }),
    socket: speaks(`\x1b]0;${EVIL}\x07${prompt}`),
    state: 'connected',
    sees: EVIL,
  },
  'added-port': {
    hash: '#serial/1',
    socket: (socket) => socket.send('{"position":null}'),
    state: 'connected',
    sees: 'systemctl enable --now serial-getty@ttyS1.service',
  },
  connecting: {
    ...display(),
    after: (page) => page.locator('.viewer.front[inert]').waitFor({ state: 'attached' }),
    state: 'connecting',
    sees: 'Connecting',
  },
  refused: { hash: '#vnc', socket: silent, state: 'refused', sees: 'cannot be filtered' },
  unlisted: { hash: '#console/0', socket: silent, state: 'refused', sees: 'a file is no console' },
  'no-console': {
    guest: tell({ consoles: [], unreachable: [] }),
    socket: silent,
    state: 'no-console',
    sees: 'no console',
  },
  'guest-off': {
    socket: speaks(prompt, 1001, 'the guest has stopped'),
    after: (page) => page.route('**/api/guest', (route) => route.abort()),
    state: 'guest-off',
    sees: 'The guest is off',
  },
  lost: {
    socket: speaks(prompt, 4408, 'two pings unanswered'),
    after: (page) => page.route('**/api/guest', (route) => route.abort()),
    state: 'lost',
    sees: 'The connection is lost',
  },
  'taken-over': {
    socket: speaks(prompt, 4409, 'bob took this console over'),
    state: 'taken-over',
    sees: 'bob took this console over',
  },
  busy: {
    socket: closes(4409, 'virsh console has it open (process 4711)'),
    state: 'busy',
    sees: 'virsh console has it open',
  },
  limit: { socket: closes(4429, 'too many viewers'), state: 'busy', sees: 'too many viewers' },
  unreachable: {
    socket: closes(4502, 'serial/0: connection refused'),
    state: 'unreachable',
    sees: 'connection refused',
  },
  'session-ended': {
    socket: speaks(prompt, 4401, 'the session has ended'),
    state: 'ended',
    sees: 'console-proxy url web-1',
  },
  'no-session': { guest: refuse(401, 'no ticket and no session'), state: 'ended', sees: 'no ticket and no session' },
  'ticket-used': {
    query: '?token=a.b.c',
    session: refuse(401, 'this ticket has bought a session already'),
    guest: refuse(401, 'none'),
    state: 'ended',
    sees: 'bought a session already',
  },
  'ticket-used-session-there': {
    query: '?token=a.b.c',
    session: refuse(401, 'this ticket has bought a session already'),
    socket: speaks(prompt),
    state: 'connected',
    sees: 'The session that you had before goes on.',
  },
  'ticket-unheard': {
    query: '?token=a.b.c',
    session: refuse(429, 'too many requests'),
    guest: refuse(401, 'none'),
    state: 'ended',
    sees: 'too many requests',
    keeps: true,
  },
  'second-link': {
    guest: refuse(401, 'none'),
    session: refuse(401, 'this ticket has bought a session already'),
    after: goes('#token=a.b.c'),
    state: 'ended',
    sees: 'bought a session already',
  },
  foreign: {
    guest: (route) => route.fulfill({ contentType: 'text/html', body: '<title>Log in</title>' }),
    state: 'lost',
    sees: 'something else than the proxy answered',
  },
  'not-allowed': {
    guest: refuse(403, 'this ticket is for another guest'),
    state: 'not-allowed',
    sees: 'for another guest',
  },
  'right-gone': { socket: speaks(prompt, 4403, 'the right was taken away'), state: 'not-allowed', sees: 'taken away' },
  login: { guest: asksLogin(), state: 'login', sees: 'User name', not: 'a ticket is needed' },
  'login-works': { guest: asksLogin(), socket: speaks(prompt), after: getsIn, state: 'connected', at: '#serial/0' },
  'secret-shown': { guest: needsSecret, socket: speaks(prompt), after: showsSecret, state: 'ended' },
  'secret-without-storage': {
    guest: needsSecret,
    socket: speaks(prompt),
    after: showsSecretWithoutStorage,
    state: 'ended',
  },
  'login-again': { socket: endsOnce(), after: comesInAgain, state: 'connected' },
  'login-wrong': {
    guest: asksLogin(),
    session: asksLogin('the user or the password is wrong'),
    after: logsIn('User name or password is wrong.'),
    state: 'login',
  },
  'login-barred': {
    guest: asksLogin(),
    session: refuse(403, 'bob has no right to this guest'),
    after: logsIn('You may not enter here: bob has no right to this guest.', 'bob', 'right'),
    state: 'login',
  },
  'login-limited': {
    guest: asksLogin(),
    session: (route) => route.fulfill({ status: 429, headers: { 'retry-after': '90' }, body: 'too many' }),
    after: async (page) => {
      await logsIn('Too many attempts. Try again in 90 s.')(page);
      await page.getByText(/Next attempt in 8\d s\./).waitFor();
      await page.route('**/api/session', never('sent while it has to wait'));
      await fills(page, 'ann', 'again');
    },
    state: 'login',
  },
  'login-unavailable': {
    guest: asksLogin(),
    session: refuse(503, 'the directory does not answer'),
    after: logsIn('The password cannot be checked now; it may be right.'),
    state: 'login',
    sees: 'the directory does not answer',
  },
  'login-silent': {
    guest: asksLogin(),
    session: (route) => route.abort(),
    after: logsIn('The proxy does not answer.'),
    state: 'login',
  },
  'login-colon': {
    guest: asksLogin(),
    session: never('sent'),
    after: logsIn('A user name with a colon', 'an:n', 'right'),
    state: 'login',
  },
  'login-checking': {
    guest: asksLogin(),
    session: () => undefined,
    after: (page) => fills(page, 'ann', 'right'),
    state: 'login',
    sees: 'Checking…',
  },
  'login-no-cookie': {
    guest: asksLogin(),
    after: (page) => fills(page, 'ann', 'right'),
    state: 'login',
    sees: 'the browser does not keep the session',
  },
  'login-after-end': {
    guest: tell(),
    socket: endsOnce('the session has ended: an administrator ended it'),
    after: async (page) => {
      await page.waitForSelector('html[data-state=connected]');
      await page.route('**/api/guest', asksLogin('the session has ended'));
    },
    state: 'login',
    sees: 'an administrator ended it',
  },
  'login-after-log-out': { socket: speaks(prompt), after: leavesNothing, state: 'login', sees: 'You are logged out' },
  'ask-whose': {
    query: `?token=${ticketOf('bob')}`,
    session: never('bought before the answer'),
    state: 'whose',
    sees: 'This link opens the consoles as bob. You are here as ann.',
    keeps: true,
  },
  'ask-whose-evil': {
    query: `?token=${ticketOf(`${EVIL}${'x'.repeat(300)}`)}`,
    guest: tell({ person: EVIL.repeat(9) }),
    state: 'whose',
    sees: 'Go on as <img src=x',
    keeps: true,
  },
  'whose-go-on': {
    query: `?token=${ticketOf('bob')}`,
    socket: speaks(prompt),
    after: decides('go-on', 1),
    state: 'connected',
    sees: 'You are here as bob, by a link.',
  },
  'whose-stay': {
    query: `?token=${ticketOf('bob')}`,
    socket: speaks(prompt),
    after: decides('stay', 0),
    state: 'connected',
    not: 'by a link',
  },
  'same-person': { query: `?token=${ticketOf('ann')}`, socket: speaks(prompt), state: 'connected' },
  'opened-by-link': {
    query: `?token=${ticketOf('bob')}`,
    guest: tell({ person: 'bob', session: byLink }),
    socket: speaks(prompt),
    state: 'connected',
    sees: 'You are here as bob, by a link.',
  },
  'link-seen': {
    guest: tell({ person: 'bob', session: byLink }),
    socket: speaks(prompt),
    after: hasSeen,
    state: 'connected',
    not: 'by a link',
  },
  'no-right-any-more': {
    guest: (route) =>
      route.fulfill({
        status: 403,
        contentType: 'text/plain',
        headers: { 'console-proxy-login': 'password' },
        body: 'ann has no right to this guest',
      }),
    after: async (page) => {
      await page.getByText('ann has no right to this guest').waitFor();
      await page.getByTestId('log-in').click();
    },
    state: 'not-allowed',
    sees: 'User name',
  },
  'one-view-only': {
    guest: tell({ consoles: [{ ...consoles[1], mode: 'view' }] }),
    socket: echoes,
    after: types,
    state: 'connected',
    sees: 'View only',
    not: 'heard',
  },
  'proxy-silent': { guest: (route) => route.abort(), state: 'lost', sees: 'The connection is lost' },
  'websocket-refused': { state: 'websocket-refused', sees: 'certificate' },
  broken: { socket: silent, files: (route) => route.abort(), state: 'broken', sees: 'could not be loaded' },
  'spice-busy': {
    guest: tell({ consoles: [{ console: 'spice', path: '/spice', reached: 'native', added: false }] }),
    hash: '#spice',
    socket: closes(4409, 'bob has the display'),
    state: 'busy',
    sees: 'bob has the display',
  },
  'not-rfb': { ...display('HTTP/1.1 400 Bad Request\r\n\r\n'), state: 'unreachable', sees: 'does not understand' },
  'unknown-security': { ...display(RFB, [1, 99]), state: 'unreachable', sees: 'does not understand' },
  'no-password': {
    ...display(RFB, [1, 2], Array(16).fill(7)),
    after: async (page) => {
      await page.getByTestId('password').waitFor();
      if (await page.getByText('That was not right').count()) throw new Error('no password was given before');
      await page.getByRole('button', { name: 'Cancel' }).click();
    },
    state: 'not-allowed',
    sees: 'No password was given',
    not: 'Not allowed',
  },
  'password-and-off': {
    ...display(RFB, [1, 2], Array(16).fill(7), { code: 1001, reason: 'the guest has stopped' }),
    after: async (page) => {
      await page.waitForSelector('html[data-console=vnc]');
      await page.route('**/api/guest', (route) => route.abort());
      await page.getByTestId('password').waitFor();
      await page.getByTestId('password').waitFor({ state: 'detached' });
    },
    state: 'guest-off',
    sees: 'The guest is off',
  },
  'password-behind': {
    ...display(RFB, [1, 2], Array(16).fill(7)),
    hash: '#serial/0',
    after: asksInFront,
    state: 'connecting',
    sees: 'The display asks for a password',
  },
  'display-keys': { ...display(RFB, [1, 1], WELCOME, INIT), after: leavesWithShift, state: 'connected' },
  'paste-cancelled': { socket: hears, after: cancelsPaste, state: 'connected' },
  gap: { socket: gaps, after: readsInOrder, state: 'connected', sees: '5 bytes are missing here' },
  'opens-after-all': { hash: '#vnc', socket: speaks(''), after: opensLater, state: 'connected' },
  'consent-of-old': {
    socket: speaks(`\x1b]52;c;b2xk\x07${prompt}`),
    after: (page) => page.getByText('web-1 login:').waitFor(),
    state: 'connected',
    not: 'wants to put',
  },
  consent: { socket: offers, state: 'connected', sees: 'wants to put 5 bytes into your clipboard: “né a”' },
  'no-such-link': { hash: '#serial/7', socket: speaks(prompt), state: 'connected', at: '#serial/0' },
  'screen-reader': { socket: speaks(prompt), after: opens('tool-screen-reader'), state: 'connected' },
  'still-in': {
    socket: speaks(prompt),
    after: async (page) => {
      await page.route('**/api/logout', (route) => route.abort());
      await logOutAt('connected')(page);
    },
    state: 'connected',
    sees: 'You are still logged in',
  },
  'refused-and-out': {
    hash: '#vnc',
    socket: silent,
    after: logOutAt('refused'),
    state: 'ended',
    sees: 'You are logged out',
  },
  'logged-out': { socket: speaks(prompt), after: logOutAt('connected'), state: 'ended', sees: 'You are logged out' },
};

function guestEnds() {
  return Math.round(Date.now() / 1000) + 3600;
}

/** Types a user and a password, and sends them by Enter. */
async function fills(page, user, password) {
  await page.getByTestId('login-user').fill(user);
  await page.getByTestId('login-password').fill(password);
  await page.getByTestId('login-password').press('Enter');
}

/** Logs in; what the form must say then, and that it keeps no password. */
function logsIn(says, user = 'ann', password = 'wrong') {
  return async (page) => {
    await fills(page, user, password);
    await page.getByTestId('login-error').getByText(says).waitFor();
    if ((await page.getByTestId('login-password').inputValue()) !== '' && !user.includes(':'))
      throw new Error('the password is still there');
    if ((await page.getByTestId('login-user').inputValue()) !== user) throw new Error('the user is gone');
  };
}

/** A proxy that takes ann's password, in UTF-8, and then knows a session. */
async function getsIn(page) {
  const sent = `Basic ${Buffer.from('ann:pässwörd: €').toString('base64')}`;
  await page.route('**/api/session', async (route) => {
    const right = route.request().headers().authorization === sent && route.request().postData() === null;
    if (right) await page.route('**/api/guest', tell());
    await (right ? sold : asksLogin())(route);
  });
  if (!(await page.evaluate(() => document.activeElement.name === 'username' || matchMedia('(any-pointer: coarse)').matches)))
    throw new Error('the first field has no focus');
  await fills(page, 'ann', 'pässwörd: €');
  await page.waitForSelector('html[data-state=connected]');
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href]));
  if (/pässw/.test(kept)) throw new Error(`the password is kept: ${kept}`);
}

const shown = async (page) => {
  const offered = await page.evaluate(() => globalThis.offered);
  if (JSON.stringify(offered) !== JSON.stringify(['console-proxy.v1', `console-proxy.secret.${SECRET}`]))
    throw new Error(`offered: ${offered}`);
};
const kept = (page) => page.evaluate(() => ({ ...localStorage }));

/** A session's second secret is kept for this page's path alone, shown to the proxy, and gone with the session. */
async function showsSecret(page) {
  await page.evaluate(() => localStorage.setItem('console-proxy:secret:/another/', 'theirs'));
  await fills(page, 'ann', 'right');
  await page.waitForSelector('html[data-state=connected]');
  await shown(page);
  const { pathname } = new URL(page.url());
  if ((await kept(page))[`console-proxy:secret:${pathname}`] !== SECRET) throw new Error('it is kept nowhere');
  await page.reload();
  await page.waitForSelector('html[data-state=connected]');
  await shown(page);
  await page.route('**/api/logout', (route) => {
    if (route.request().headers()['console-proxy-secret'] !== SECRET) page.trouble.push('logs out without it');
    return route.fulfill({ status: 204 });
  });
  await page.route('**/api/guest', refuse(401, ''));
  await logOutAt('connected')(page);
  await page.waitForSelector('html[data-state=ended]');
  const left = await kept(page);
  if (`console-proxy:secret:${pathname}` in left) throw new Error('it is still there');
  if (left['console-proxy:secret:/another/'] !== 'theirs') throw new Error('another guest lost theirs');
}

/** A browser that has no storage for the page, as in a frame of another site: the session lasts over F5 all the same. */
async function showsSecretWithoutStorage(page) {
  const denied = () => {
    Object.defineProperty(globalThis, 'localStorage', {
      get: () => {
        throw new DOMException('denied', 'SecurityError');
      },
    });
  };
  await page.addInitScript(denied);
  await page.reload();
  await page.waitForSelector('html[data-state=login]');
  await fills(page, 'ann', 'right');
  for (const reloads of [true, true, false]) {
    await page.waitForSelector('html[data-state=connected]');
    await shown(page);
    if (reloads) await page.reload();
  }
  await page.route('**/api/guest', refuse(401, ''));
  await logOutAt('connected')(page);
  await page.waitForSelector('html[data-state=ended]');
  if (JSON.stringify(await page.evaluate(() => history.state)).includes(SECRET)) throw new Error('it is still there');
}

/** Another session than the link's is there: nothing may be bought before somebody says so. */
function decides(button, bought) {
  return async (page) => {
    let times = 0;
    await page.route('**/api/session', async (route) => {
      times += 1;
      await page.route('**/api/guest', tell({ person: 'bob', session: byLink }));
      await sold(route);
    });
    await page.waitForSelector('html[data-state=whose]');
    await page.waitForTimeout(300);
    if (times > 0) throw new Error('bought before the answer');
    await page.getByTestId(button).click();
    await page.waitForSelector('html[data-state=connected]');
    if (times !== bought) throw new Error(`bought ${times} sessions`);
  };
}

/** The notice of a session by a link goes when it was seen, and does not come again for that session. */
async function hasSeen(page) {
  await page.getByTestId('notice-whose').getByRole('button', { name: 'Close' }).click();
  await page.reload();
  await page.waitForSelector('html[data-state=connected]');
}

/** Logs out, and looks for what the console had shown. */
async function leavesNothing(page) {
  await page.getByText('web-1 login:').waitFor();
  await page.route('**/api/guest', asksLogin());
  await logOutAt('connected')(page);
  await page.waitForSelector('html[data-state=login]');
  if ((await page.locator('.viewer').count()) > 0) throw new Error('the console is still in the page');
  await page.getByTestId('tab-serial/0').click();
  await page.evaluate(() => window.dispatchEvent(new Event('focus')));
  await page.waitForTimeout(300);
  if ((await page.locator('.viewer').count()) > 0) throw new Error('a console came back');
  await page.getByTestId('account').click();
  await page.getByText('Nobody is logged in.').waitFor();
}

/** The session ends in the middle; then a password opens the same console again. */
async function comesInAgain(page) {
  await page.waitForSelector('html[data-state=connected]');
  await page.route('**/api/guest', asksLogin('the session has ended'));
  await page.waitForSelector('html[data-state=login]');
  await page.getByText('its time is over').waitFor();
  await getsIn(page);
}

function echoes(socket) {
  socket.send('{"position":null}');
  socket.onMessage(() => socket.send(Buffer.from('heard')));
}

/** Breaks off in the middle, and tells what the page comes back with. */
function resumes(socket) {
  const from = new URL(socket.url()).searchParams.get('from');
  if (from !== null) return socket.send(Buffer.from(`came back from ${from}`));
  socket.send('{"position":"a:100"}');
  socket.send(Buffer.from('hello'));
  setTimeout(() => socket.close({ code: 4408, reason: 'two pings unanswered' }), 200);
}

/** Wants to put something into the clipboard, later than what is history. */
function offers(socket) {
  socket.send('{"position":"a:0"}');
  socket.send(Buffer.from(`\x1b]52;c;${Buffer.from('history').toString('base64')}\x07`));
  setTimeout(() => socket.send(Buffer.from(`\x1b]52;c;${Buffer.from('né a').toString('base64')}\x07`)), 2_000);
}

/** Comes back to a display that wants a password meanwhile. */
async function asksInFront(page) {
  await page.waitForSelector('html[data-state=connected]');
  await page.getByTestId('tab-vnc').click();
  await page.getByTestId('tab-serial/0').click();
  await page.waitForTimeout(1_500);
  if (await page.getByTestId('password').count()) throw new Error('asked behind another tab');
  await page.getByTestId('tab-vnc').click();
  await page.getByTestId('password').waitFor();
}

/** Goes to another tab with Shift held. */
async function leavesWithShift(page) {
  await page.waitForSelector('html[data-state=connected]');
  await page.locator('canvas').first().focus();
  await page.keyboard.down('Shift');
  await page.waitForTimeout(200);
  await page.getByTestId('tab-serial/0').focus();
  await page.waitForTimeout(200);
  const keys = page.heard.join(' ');
  await page.keyboard.up('Shift');
  if (keys !== '+ffe1 -ffe1') throw new Error(`the guest heard ${keys}`);
}

/** A program that wants brackets around a paste. */
function hears(socket, page) {
  socket.send('{"position":null}');
  socket.send(Buffer.from('\x1b[?2004h$ '));
  socket.onMessage((message) => page.heard.push(Buffer.from(message)));
}

async function cancelsPaste(page) {
  await page.waitForSelector('html[data-state=connected]');
  await page.waitForTimeout(600);
  await page.evaluate(() => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', 'x'.repeat(20_000));
    const field = document.querySelector('.xterm-helper-textarea');
    field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  });
  await page.getByTestId('notice-typing').waitFor();
  await page.keyboard.type('k');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.waitForTimeout(300);
  const all = Buffer.concat(page.heard).toString();
  if (!/^\x1b\[200~x*kx*\x1b\[201~$/.test(all)) throw new Error(`the guest heard ${JSON.stringify(all)}`);
}

function gaps(socket) {
  socket.send('{"position":"a:0"}');
  // More than the terminal takes at once: what follows has to wait for its turn.
  socket.send(Buffer.from('much\r\n'.repeat(60_000)));
  socket.send(Buffer.from('one'));
  socket.send('{"gap":5}');
  socket.send(Buffer.from('two'));
}

async function readsInOrder(page) {
  await page.getByText('5 bytes are missing here').waitFor();
  await page.getByText('two').waitFor();
  const rows = await page.locator('.xterm-rows').innerText();
  if (!/one\s+5 bytes are missing here\s+two/.test(rows)) throw new Error(`the terminal shows ${rows}`);
}

function goes(hash) {
  return async (page) => {
    await page.waitForSelector('html[data-state=ended]');
    await page.evaluate((to) => (location.hash = to), hash);
    await page.waitForURL((url) => !url.hash.includes('token'));
  };
}

/** What was refused is allowed when it is asked for again. */
async function opensLater(page) {
  await page.waitForSelector('html[data-state=refused]');
  const open = { console: 'serial/0', path: '/serial/0', reached: 'pty', added: false };
  await page.route('**/api/guest', tell({ consoles: [consoles[0], open] }));
  await page.getByTestId('tab-serial/1').waitFor();
  await page.getByTestId('retry').click();
  await page.getByTestId('tab-serial/1').waitFor({ state: 'detached' });
  await page.getByTestId('tab-serial/0').click();
}

async function types(page) {
  await page.waitForSelector('html[data-state=connected]');
  await page.waitForTimeout(300);
  await page.keyboard.type('x');
}

function opens(tool) {
  return async (page) => {
    await page.waitForSelector('html[data-state=connected]');
    if (!(await page.getByTestId(tool).isVisible())) await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByTestId(tool).click();
  };
}

function logOutAt(state) {
  return async (page) => {
    await page.waitForSelector(`html[data-state=${state}]`);
    await page.getByTestId('account').click();
    await page.getByTestId('log-out').click();
  };
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
const { url, stop } = await serve();
let failures = 0;

async function play(name, scene, look) {
  const context = await browser.newContext(look.context);
  context.setDefaultTimeout(12_000);
  const page = await context.newPage();
  const trouble = [];
  /** What the played console heard. */
  page.heard = [];
  page.trouble = trouble;
  page.on('pageerror', (error) => trouble.push(`error: ${error.message}`));
  page.on('console', (message) => /Content Security|Refused to/.test(message.text()) && trouble.push(message.text()));
  await page.route('**/api/guest', scene.guest ?? tell());
  await page.route('**/api/session', scene.session ?? sold);
  await page.route('**/api/logout', (route) => route.fulfill({ status: 204 }));
  if (scene.files) await page.route('**/assets/terminal-*.js', scene.files);
  // Without a played socket the server answers 404, as a websocket that something in between refuses.
  if (scene.socket) await page.routeWebSocket(/\/(vnc|spice|serial\/\d+)(\?|$)/, (socket) => scene.socket(socket, page));
  await page.addInitScript(flatSocket);
  await page.goto(`${url}${scene.query ?? ''}${scene.hash ?? (scene.query ? '' : '#serial/0')}`);
  try {
    await scene.after?.(page);
    await page.waitForSelector(`html[data-state="${scene.state}"]`, { timeout: 15_000, state: 'attached' });
    if (scene.sees) await page.getByText(scene.sees).first().waitFor({ timeout: 3_000 });
    if (scene.not && (await page.getByText(scene.not).count()) > 0) trouble.push(`shows "${scene.not}"`);
    if (page.url().includes('token=') !== !!scene.keeps) trouble.push(`the ticket in the address: ${!scene.keeps}`);
    if (scene.at && new URL(page.url()).hash !== scene.at) trouble.push(`is at ${page.url()}`);
    if (/1006/.test(await page.locator('body').innerText())) trouble.push('a bare 1006');
    await page.waitForTimeout(250);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    for (const found of violations) {
      const where = found.nodes.map((node) => node.target.join(' ')).join(', ');
      trouble.push(`axe ${found.impact}: ${found.id} at ${where}`);
    }
  } catch (error) {
    trouble.push(
      `${error.message.split('\n')[0]} (state ${await page.evaluate(() => document.documentElement.dataset.state)})`,
    );
  }
  await page.screenshot({ path: `${folder}/${name}-${look.name}.png` });
  await context.close();
  failures += trouble.length > 0 ? 1 : 0;
  console.log(
    `${trouble.length > 0 ? 'FAIL' : 'ok  '} ${name} (${look.name})${trouble.map((one) => `\n     ${one}`).join('')}`,
  );
}

const desktop = { viewport: { width: 1100, height: 700 } };
const phone = { viewport: { width: 390, height: 760 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
const looks = [
  { name: 'light', context: { ...desktop, colorScheme: 'light' } },
  { name: 'dark', context: { ...desktop, colorScheme: 'dark' } },
  { name: 'phone', context: { ...phone, colorScheme: 'light' } },
  { name: 'phone-dark', context: { ...phone, colorScheme: 'dark' } },
];
let played = 0;
for (const [name, scene] of Object.entries(scenes)) {
  if (process.env.ONLY && !process.env.ONLY.split(',').includes(name)) continue;
  await Promise.all(looks.map((look) => play(name, scene, look)));
  played += looks.length;
}
await browser.close();
stop();
console.log(`${played - failures} passed, ${failures} failed`);
process.exit(failures > 0 ? 1 : 0);
