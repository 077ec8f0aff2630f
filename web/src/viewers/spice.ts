// A SPICE display: spice-html5, which opens a websocket for each of its channels, all with this page's client id. Its
// own handling of keys and of the focus is passed by: it knows key codes of one layout alone, asks in alerts, and lets
// the keyboard follow the mouse.

import { SpiceMainConn, type SpiceConn } from '@spice-project/spice-html5';
import { SpicePlaybackConn } from '@spice-project/spice-html5/src/playback.js';
import { consoleUrl } from '../edges/api';
import { probe, showSecretInLibrarySockets, watch } from '../edges/socket';
import { recall, remember } from '../edges/store';
import { clean } from '../rules/clean';
import type { Closing } from '../rules/closing';
import type { KeyName } from '../rules/keys';
import { wholeTicket } from '../rules/spiceticket';
import { OWN } from '../rules/state';
import { texts } from '../texts';
import { h } from '../view/dom';
import { DisplayTools } from './display';
import { SpiceKeys } from './spicekeys';
import type { OpenViewer, Tool, Viewer, ViewerHost } from './viewer';

export const open: OpenViewer = (host) => new SpiceViewer(host);

/** spice-html5 finds its element by id. */
const SCREEN = 'spice-screen';
/** After the last change of the window's size. */
const RESIZE_AFTER = 300;
/** A channel's end is the display's, unless the main channel's own end comes meanwhile and says why. */
const MAIN_FIRST = 300;
/** How often, and for how long at most, the channels for pictures and keys are waited for: a guest may have none. */
const [LOOK, LONGEST] = [20, 3000];

// All channels' own: see `wholeTicket`.
const channels = Object.getPrototypeOf(SpiceMainConn.prototype) as SpiceConn;
const sendTicket = channels.send_ticket;
channels.send_ticket = function (ticket) {
  sendTicket.call(this, wholeTicket(ticket));
};

showSecretInLibrarySockets();

class SpiceViewer implements Viewer {
  readonly element: HTMLElement;
  private readonly screen = h('div', { id: SCREEN, class: 'spice-screen' });
  private readonly display: DisplayTools;
  private readonly keys: SpiceKeys;
  private main: SpiceMainConn | null = null;
  private sound: SpiceConn | null = null;
  private password = '';
  /** A password was given, and not refused yet. */
  private tried = false;
  private question = new AbortController();
  private client = '';
  private resizeTimer: ReturnType<typeof setTimeout> | undefined;
  private opening: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly host: ViewerHost) {
    this.keys = new SpiceKeys(() => this.main?.inputs);
    this.display = new DisplayTools(host, {
      anyLetter: false,
      key: (key, down) => this.keys.send(key.code, down),
      focus: () => this.focus(),
    });
    const label = texts.console.screen(clean(host.guest, 80));
    this.element = h(
      'div',
      { class: 'display spice', tabindex: 0, role: 'application', 'aria-label': label },
      this.screen,
    );
    this.element.append(this.display.keyboard.field);
    this.listen();
  }

  connect(client: string): void {
    this.client = client;
    this.disconnect();
    const url = consoleUrl('spice', { client });
    const main = new SpiceMainConn({
      uri: url.href,
      screen_id: SCREEN,
      password: this.password,
      onerror: (error) => this.main === main && this.failed(error),
      onsuccess: () => this.main === main && this.connected(),
      onagent: () => this.main === main && this.resize(),
    });
    this.main = main;
    this.keepChannels(main);
    const end = (closing: Closing) => this.main === main && void this.ended(url, closing);
    if (main.ws) watch(main.ws, end);
    // Without pictures or keys the display is as good as gone.
    const watched = (channel: SpiceConn) =>
      channel.ws && watch(channel.ws, (closing) => setTimeout(() => end(closing), MAIN_FIRST));
    this.watchChannel(main, 'display', watched);
    this.watchChannel(main, 'inputs', watched);
  }

  disconnect(): void {
    const { main, sound } = this;
    this.main = this.sound = null;
    clearTimeout(this.resizeTimer);
    clearTimeout(this.opening);
    this.question.abort();
    this.question = new AbortController();
    this.keys.forget();
    this.display.stop();
    if (!main) return;
    try {
      main.stop();
    } catch {
      // Some channel had not come so far as to be stopped.
    }
    for (const channel of [...main.ports, ...(sound ? [sound] : [])]) channel.cleanup();
    this.screen.replaceChildren();
    this.screen.removeAttribute('style');
  }

  focus(): void {
    this.element.focus();
  }

  shown(visible: boolean): void {
    if (visible) this.fit();
    else this.display.letGo();
  }

  press(name: KeyName): void {
    this.display.press(name);
  }

  hold(name: 'Control' | 'Alt', held: boolean): void {
    this.display.hold(name, held);
  }

  tools(): Tool[] {
    const t = texts.tool;
    const toggle = (id: 'scale' | 'resize', label: string, disabled = false): Tool => ({
      id,
      label,
      icon: id,
      disabled,
      pressed: this.wanted(id),
      run: () => {
        remember(`spice-${id}`, this.wanted(id) ? 'no' : 'yes');
        this.fit();
        this.host.changed();
      },
    });
    return [...this.display.tools(), toggle('scale', t.scale), toggle('resize', t.resize, !this.main?.agent_connected)];
  }

  private wanted(id: 'scale' | 'resize'): boolean {
    return recall(`spice-${id}`) !== 'no';
  }

  private listen(): void {
    const { element } = this;
    // Before the library's own listeners, on the way down.
    for (const type of ['keydown', 'keyup'] as const) {
      element.addEventListener(type, (event) => this.keyEvent(event), true);
    }
    for (const type of ['mouseover', 'mouseout'])
      element.addEventListener(type, (event) => event.stopPropagation(), true);
    this.screen.addEventListener('mousedown', () => this.focus(), true);
    element.addEventListener('focusout', () => this.keys.releaseAll());
    new ResizeObserver(() => this.fit()).observe(element);
    new MutationObserver(() => this.drawn()).observe(this.screen, {
      childList: true,
      subtree: true,
      attributeFilter: ['width', 'height'],
    });
  }

  private keyEvent(event: KeyboardEvent): void {
    if (event.target === this.display.keyboard.field) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.host.viewOnly) return;
    this.keys.send(event.code, event.type === 'keydown');
    if (event.type === 'keyup') this.display.used(event);
  }

  /** Hears of a channel when the library makes it. */
  private watchChannel(main: SpiceMainConn, name: 'display' | 'inputs', made: (channel: SpiceConn) => void): void {
    let there: SpiceConn | undefined;
    Object.defineProperty(main, name, {
      get: () => there,
      set: (channel: SpiceConn | undefined) => {
        there = channel;
        if (channel) made(channel);
      },
    });
  }

  /** The library keeps the sound's channel in the cursor's place, and would then never close the cursor's. */
  private keepChannels(main: SpiceMainConn): void {
    let cursor: SpiceConn | undefined;
    Object.defineProperty(main, 'cursor', {
      get: () => cursor,
      set: (channel: SpiceConn | undefined) => {
        if (channel instanceof SpicePlaybackConn) this.sound = channel;
        else cursor = channel;
      },
    });
  }

  private connected(): void {
    this.tried = false;
    this.whenOpen(Date.now() + LONGEST);
  }

  /** The main channel comes first; what is typed before the others are there would be lost. */
  private whenOpen(latest: number): void {
    const { main } = this;
    if (!main) return;
    const isOpen = [main.display, main.inputs].every((channel) => channel?.state === 'ready');
    if (isOpen || Date.now() > latest) return this.host.ready();
    this.opening = setTimeout(() => this.whenOpen(latest), LOOK);
  }

  /** Something was drawn, or made: videos get their place by a style attribute, which the page's policy forbids. */
  private drawn(): void {
    for (const video of this.screen.querySelectorAll('video')) {
      const place = video.getAttribute('style');
      if (place && video.style.position === '') video.style.cssText = place;
    }
    this.fit();
  }

  /** Scales the picture. A transformation keeps the mouse's coordinates as the library expects them. */
  private fit(): void {
    const canvas = this.screen.querySelector('canvas');
    const { clientWidth, clientHeight } = this.element;
    if (!canvas || clientWidth === 0 || canvas.width === 0) return;
    const room = Math.min(clientWidth / canvas.width, clientHeight / canvas.height);
    const scale = this.wanted('scale') ? room : 1;
    this.screen.style.width = `${canvas.width}px`;
    this.screen.style.height = `${canvas.height}px`;
    this.screen.style.left = `${Math.max(0, (clientWidth - canvas.width * scale) / 2)}px`;
    this.screen.style.top = `${Math.max(0, (clientHeight - canvas.height * scale) / 2)}px`;
    this.screen.style.transform = scale === 1 ? '' : `scale(${scale})`;
    this.resize();
  }

  /** Tells the guest's agent, if there is one, how large the window is. */
  private resize(): void {
    clearTimeout(this.resizeTimer);
    this.resizeTimer = setTimeout(() => {
      const { main } = this;
      if (!main?.agent_connected || !this.wanted('resize') || this.host.viewOnly) return;
      // X wants multiples of 8.
      const [width, height] = [this.element.clientWidth & ~7, this.element.clientHeight & ~7];
      const canvas = this.screen.querySelector('canvas');
      if (width < 320 || height < 200 || (canvas?.width === width && canvas.height === height)) return;
      main.resize_window(0, width, height, 32, 0, 0);
    }, RESIZE_AFTER);
  }

  private failed(error: Error | Event): void {
    // A socket's own trouble: its close tells more.
    if (!(error instanceof Error)) return;
    if (error.message === 'Permission denied.') return void this.askPassword();
    // A link error, a protocol that is not SPICE. What the library guesses when a socket closes is not worth showing.
    const said = /^Error: (.*?(\d*))$/.exec(error.message);
    if (said) this.end(4502, texts.spice.errors[said[2] ?? ''] ?? texts.spice.other(clean(said[1] ?? '')));
  }

  private async askPassword(): Promise<void> {
    this.disconnect();
    this.host.person(true);
    const { signal } = this.question;
    const given = await this.host.password({ user: false, again: this.tried }, signal);
    if (signal.aborted) return;
    this.host.person(false);
    this.tried = given !== null;
    if (!given) return this.end(4403, OWN.noPassword);
    this.password = given.password;
    this.connect(this.client);
  }

  private end(code: number, reason: string): void {
    this.disconnect();
    this.host.closed({ code, reason, opened: true });
  }

  /** The library's sockets do not offer the proxy's subprotocol, so that a refusal has no words: one that does asks. */
  private async ended(url: URL, closing: Closing): Promise<void> {
    this.disconnect();
    const found = closing.opened ? null : await probe(url);
    this.host.closed(found && found.code !== 1005 ? found : closing);
  }
}
