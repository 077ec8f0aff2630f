// A text console: xterm.js on a websocket of bytes, with the proxy's word of what was, what is missing, and where.

import '@xterm/xterm/css/xterm.css';
import { ClipboardAddon } from '@xterm/addon-clipboard';
import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon } from '@xterm/addon-search';
import { Unicode11Addon } from '@xterm/addon-unicode11';
import { Terminal } from '@xterm/xterm';
import { consoleUrl } from '../edges/api';
import { copyText, readText } from '../edges/clipboard';
import { hasFastGl, isTouched } from '../edges/device';
import { openSocket, PROTOCOL } from '../edges/socket';
import { recall, remember } from '../edges/store';
import { amount, clean, fileName } from '../rules/clean';
import { isClipboardQuestion } from '../rules/osc52';
import { terminalKey, withModifiers, type KeyName } from '../rules/keys';
import { Brackets, Pacer, PASTE, pastePieces, TYPED } from '../rules/pacing';
import { Position, readTold } from '../rules/position';
import { consoleName, texts } from '../texts';
import { h } from '../view/dom';
import { SearchBar } from '../view/searchbar';
import { Output } from './output';
import { documentWithoutStyles, withoutStyles } from './sheet';
import type { OpenViewer, Tool, Viewer, ViewerHost } from './viewer';

const SCROLLBACK = 10_000;
/** A server without the subprotocol says nothing of its own: it is connected when it stays so. */
const SETTLED = 400;
/** So few pieces are sent before anybody could read of it. */
const FEW = 8;
/** How much of a text a person is shown before it goes into their clipboard. */
const START = 60;

const colours = {
  background: '#101418',
  foreground: '#d8dee4',
  cursor: '#d8dee4',
  selectionBackground: '#3b5170',
  black: '#1c2229',
  red: '#f0716b',
  green: '#7cc47f',
  yellow: '#d9b55b',
  blue: '#6ea8f0',
  magenta: '#c792ea',
  cyan: '#5fc4c9',
  white: '#d8dee4',
  brightBlack: '#7d8894',
  brightRed: '#ff938c',
  brightGreen: '#9ce29f',
  brightYellow: '#f0d27f',
  brightBlue: '#93c2ff',
  brightMagenta: '#dfb2ff',
  brightCyan: '#88e2e6',
  brightWhite: '#ffffff',
};

const size = (bytes: number) => amount(bytes, texts.amount);

export const open: OpenViewer = (host) => new TerminalViewer(host);

class TerminalViewer implements Viewer {
  readonly element: HTMLElement;
  private readonly box = h('div', { class: 'terminal-box' });
  private readonly term: Terminal;
  private readonly fit = new FitAddon();
  private readonly search: SearchBar;
  private readonly out: Output;
  private readonly position = new Position();
  private readonly pacer: Pacer<Uint8Array>;
  private readonly brackets = new Brackets();
  private readonly held = { control: false, alt: false };
  private advice: HTMLElement | null;
  private socket: WebSocket | null = null;
  private ready = false;
  private connectedBefore = false;
  private dropped = 0;
  private opened = false;
  private pasting = false;
  private settle: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly host: ViewerHost) {
    this.term = new Terminal({
      allowProposedApi: true,
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      disableStdin: host.viewOnly,
      documentOverride: documentWithoutStyles,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: Number(recall('font-size')) || 14,
      scrollback: SCROLLBACK,
      screenReaderMode: recall('screen-reader') === 'yes',
      theme: colours,
      // A link's address comes from the guest: it is shown as text and never followed from here.
      linkHandler: { activate: (_event, address) => this.showLink(address), allowNonHttpProtocols: true },
    });
    this.out = new Output(
      this.term,
      (bytes) => this.lost(bytes),
      (words) => this.line(words),
    );
    this.pacer = new Pacer(
      (piece) => {
        this.brackets.sent(piece);
        this.send(piece);
      },
      (done, all) => this.showProgress(done, all),
      PASTE.every,
    );
    const search = new SearchAddon();
    this.search = new SearchBar(search, () => {
      this.term.focus();
      host.changed();
    });
    this.advice = host.silentPort === null ? null : gettyAdvice(host.silentPort);
    this.element = h('div', { class: 'terminal' }, this.advice, this.search.element, this.box);
    this.addons(search);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  connect(client: string): void {
    this.leave();
    this.ready = false;
    this.out.begin();
    const from = this.position.from;
    const url = consoleUrl(this.host.console, from === null ? { client } : { client, from });
    const socket = openSocket(url, (closing) => {
      if (this.socket !== socket) return;
      this.leave();
      this.host.closed(closing);
    });
    this.socket = socket;
    socket.addEventListener('open', () => (this.settle = setTimeout(() => this.isReady(), SETTLED)));
    socket.addEventListener('message', ({ data }: MessageEvent<string | ArrayBuffer>) => this.received(socket, data));
  }

  disconnect(): void {
    this.leave();
  }

  focus(): void {
    this.term.focus();
  }

  shown(visible: boolean): void {
    if (visible) return this.resize();
    this.held.control = this.held.alt = false;
  }

  press(name: KeyName): void {
    this.typed(terminalKey(name, this.term.modes.applicationCursorKeysMode));
  }

  hold(name: 'Control' | 'Alt', held: boolean): void {
    this.held[name === 'Control' ? 'control' : 'alt'] = held;
    this.term.focus();
  }

  tools(): Tool[] {
    const t = texts.tool;
    const { rows, cols } = this.term;
    const reading: Tool[] = [
      { id: 'search', label: t.search, icon: 'search', pressed: this.search.open, run: () => this.toggleSearch() },
      { id: 'copy', label: t.copy, icon: 'copy', run: () => void this.copy() },
    ];
    const writing: Tool[] = [
      { id: 'paste', label: t.paste, icon: 'paste', run: () => void this.paste() },
      { id: 'set-size', label: t.setSize(rows, cols), icon: 'setSize', run: () => this.setSize() },
      ...(isTouched() ? [{ id: 'keyboard', label: t.keyboard, icon: 'keyboard', run: () => this.showKeyboard() }] : []),
    ];
    return [
      ...reading,
      ...(this.host.viewOnly ? [] : writing),
      { id: 'smaller', label: t.smaller, icon: 'smaller', run: () => this.fontSize(-1) },
      { id: 'larger', label: t.larger, icon: 'larger', run: () => this.fontSize(1) },
      {
        id: 'screen-reader',
        label: t.screenReader,
        icon: 'screenReader',
        pressed: this.term.options.screenReaderMode === true,
        run: () => this.toggleReader(),
      },
      { id: 'download', label: t.download, icon: 'download', run: () => this.download() },
    ];
  }

  private addons(search: SearchAddon): void {
    this.term.loadAddon(this.fit);
    this.term.loadAddon(search);
    this.term.loadAddon(new Unicode11Addon());
    this.term.unicode.activeVersion = '11';
    // OSC 52: a program may offer text for the clipboard, and a person decides. It is never told what is in there.
    this.term.loadAddon(
      new ClipboardAddon(undefined, {
        readText: () => '',
        writeText: (_selection, text) => this.offered(text),
      }),
    );
    // Without this the add-on answers a question for the clipboard with an empty one, which still is an answer. And
    // what was said before this page came asks nothing of the person who looks now.
    this.term.parser.registerOscHandler(52, (data) => this.out.past || isClipboardQuestion(data));
    this.answerNoHistory();
  }

  /** Questions in what was said before (where is the cursor, which terminal is this) were answered long ago: another
   * answer would be typed into whatever runs now. */
  private answerNoHistory(): void {
    const { parser } = this.term;
    const past = () => this.out.past;
    for (const final of ['n', 'c']) {
      for (const prefix of ['', '?', '>', '='])
        parser.registerCsiHandler(prefix === '' ? { final } : { prefix, final }, past);
    }
    parser.registerCsiHandler({ intermediates: '$', final: 'p' }, past);
    parser.registerCsiHandler({ prefix: '?', intermediates: '$', final: 'p' }, past);
    parser.registerDcsHandler({ intermediates: '$', final: 'q' }, past);
    for (const colour of [4, 10, 11, 12])
      parser.registerOscHandler(colour, (data) => this.out.past && data.includes('?'));
  }

  private listen(): void {
    this.term.onData((data) => (this.pasting ? this.queued(data) : this.typed(data)));
    this.term.onBinary((data) => this.send(Uint8Array.from(data, (letter) => letter.charCodeAt(0))));
    this.term.onTitleChange((title) => this.showTitle(title));
    // Before xterm.js hears of it: what it makes of a paste looks like typing.
    this.box.addEventListener('paste', (event) => this.pasteEvent(event), true);
    this.term.attachCustomKeyEventHandler((event) => this.isForGuest(event));
  }

  /** xterm.js measures letters, so it opens when there is room. */
  private resize(): void {
    if (this.box.clientWidth === 0 || this.box.clientHeight === 0) return;
    if (!this.opened) {
      this.opened = true;
      withoutStyles(() => this.term.open(this.box));
      const label = texts.console.terminal(clean(this.host.guest, 80), consoleName(this.host.console));
      this.term.textarea?.setAttribute('aria-label', label);
      void this.drawFast();
    }
    this.fit.fit();
    if (this.ready) this.host.changed();
  }

  private async drawFast(): Promise<void> {
    if (!hasFastGl()) return;
    try {
      const { WebglAddon } = await import('@xterm/addon-webgl');
      const webgl = new WebglAddon();
      // The DOM renderer takes over.
      webgl.onContextLoss(() => withoutStyles(() => webgl.dispose()));
      withoutStyles(() => this.term.loadAddon(webgl));
    } catch {
      // No WebGL here: slower, and all the same.
    }
  }

  private received(socket: WebSocket, data: string | ArrayBuffer): void {
    if (this.socket !== socket) return;
    if (typeof data === 'string' && socket.protocol === PROTOCOL) this.told(data);
    else {
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data);
      this.position.received(bytes.length);
      if (bytes.length > 0) this.output(bytes);
    }
    this.isReady();
  }

  private told(message: string): void {
    const told = readTold(message);
    if (told?.kind === 'position') this.position.told(told.position);
    else if (told?.kind === 'gap') this.gap(told.bytes);
    else if (told?.kind === 'notice') this.out.mark(clean(told.words));
  }

  private isReady(): void {
    if (this.ready || !this.socket) return;
    clearTimeout(this.settle);
    this.ready = true;
    if (this.connectedBefore && this.position.from === null) this.out.mark(texts.terminal.again);
    this.connectedBefore = true;
    this.out.replay();
    this.host.ready();
  }

  private output(bytes: Uint8Array): void {
    this.advice?.remove();
    this.advice = null;
    this.out.write(bytes);
  }

  /** The proxy left so much out, here. `bytes`: null when nobody knows how many. */
  private gap(bytes: number | null): void {
    this.out.mark(texts.terminal.gap(bytes === null ? null : size(bytes)));
    if (bytes !== null) this.notShown(bytes);
  }

  /** The page left so much out, here. */
  private lost(bytes: number): void {
    this.line(texts.terminal.dropped(size(bytes)));
    this.notShown(bytes);
  }

  /** What stands in the output scrolls away; this stays. */
  private notShown(bytes: number): void {
    this.dropped += bytes;
    this.host.notice('dropped', { text: texts.terminal.droppedNotice(size(this.dropped)) });
  }

  /** A line of the page's own among the guest's. CAN ends an escape sequence that was cut in two. */
  private line(words: string): void {
    this.term.write(`\x18\x1b[0m\r\n\x1b[7m ${words} \x1b[0m\r\n`);
  }

  private typed(data: string): void {
    if (this.host.viewOnly || data === '') return;
    if (data.length > TYPED) return this.queued(data);
    if (this.held.control || this.held.alt) {
      data = withModifiers(data, this.held);
      this.held.control = this.held.alt = false;
      this.host.released();
    }
    this.out.typed();
    this.send(new TextEncoder().encode(data));
  }

  /** Sends what nobody typed key by key, in time and in turn; keys typed meanwhile do not wait for it. */
  private queued(data: string): void {
    if (this.host.viewOnly || data === '') return;
    this.pacer.add(pastePieces(data));
  }

  private cancelPaste(): void {
    this.pacer.cancel();
    this.send(new TextEncoder().encode(this.brackets.end()));
  }

  private send(bytes: Uint8Array): void {
    if (this.host.viewOnly || bytes.length === 0 || this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(bytes as Uint8Array<ArrayBuffer>);
  }

  private showProgress(done: number, all: number): void {
    if (all === 0) return this.host.notice('typing', null);
    if (all <= FEW) return;
    const so = (n: number) => size(n * PASTE.bytes);
    this.host.notice('typing', {
      text: texts.typing.pasting(so(done), so(all)),
      actions: [{ label: texts.cancel, run: () => this.cancelPaste() }],
      passing: true,
    });
  }

  private isForGuest(event: KeyboardEvent): boolean {
    if (!event.ctrlKey || !event.shiftKey || event.altKey) return true;
    if (event.code === 'KeyV') return false; // The browser pastes.
    if (event.code !== 'KeyC' && event.code !== 'KeyF') return true;
    event.preventDefault();
    if (event.type === 'keydown') void (event.code === 'KeyC' ? this.copy() : this.toggleSearch());
    return false;
  }

  private async copy(): Promise<void> {
    const text = this.term.getSelection();
    const t = texts.clipboard;
    const said = text === '' ? t.nothing : (await copyText(text)) ? t.copied : t.notCopied;
    this.host.notice('copied', { text: said, brief: true });
  }

  private async paste(): Promise<void> {
    const text = await readText();
    if (text !== null) this.pasteText(text);
    else
      this.host.notice('paste', {
        text: texts.clipboard.deniedTerminal,
        actions: [{ label: texts.clipboard.pasteTitle, run: () => this.pasteByHand() }],
      });
    this.term.focus();
  }

  private pasteEvent(event: ClipboardEvent): void {
    event.preventDefault();
    event.stopPropagation();
    this.pasteText(event.clipboardData?.getData('text/plain') ?? '');
  }

  /** The terminal knows whether the program in it wants brackets around a paste. */
  private pasteText(text: string): void {
    if (text === '') return;
    this.pasting = true;
    this.term.paste(text);
    this.pasting = false;
  }

  private pasteByHand(): void {
    const field = h('textarea', { rows: 5, 'aria-label': texts.clipboard.pasteLabel });
    const dialog = h('dialog', { 'aria-label': texts.clipboard.pasteTitle, close: () => dialog.remove() }, field);
    const paste = () => {
      this.pasteText(field.value);
      dialog.close();
    };
    dialog.append(
      h(
        'div',
        { class: 'row' },
        h('button', { type: 'button', class: 'primary', click: paste }, texts.tool.paste),
        h('button', { type: 'button', click: () => dialog.close() }, texts.cancel),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    this.host.notice('paste', null);
  }

  private offered(text: string): void {
    if (text === '') return;
    const copy = async () => {
      const failed = { text: texts.clipboard.notCopied, brief: true };
      this.host.notice('osc52', (await copyText(text)) ? null : failed);
    };
    const run = () => void copy();
    this.host.notice('osc52', {
      text: texts.clipboard.osc52(size(new TextEncoder().encode(text).length), clean(text, START)),
      actions: [{ label: texts.clipboard.osc52Accept, run }],
    });
  }

  private showTitle(title: string): void {
    this.host.title(clean(title, 80));
  }

  private showLink(address: string): void {
    const run = () => void copyText(address);
    this.host.notice('link', {
      text: texts.terminal.link(clean(address)),
      actions: [{ label: texts.terminal.copyLink, run }],
    });
  }

  private setSize(): void {
    this.queued(`stty rows ${this.term.rows} cols ${this.term.cols}\r`);
    this.term.focus();
  }

  private fontSize(by: number): void {
    const size = Math.min(32, Math.max(8, (this.term.options.fontSize ?? 14) + by));
    this.term.options.fontSize = size;
    remember('font-size', String(size));
    this.fit.fit();
    this.host.changed();
  }

  /** A phone shows its keyboard when the focus comes, not when it is there. */
  private showKeyboard(): void {
    this.term.blur();
    this.term.focus();
  }

  private toggleSearch(): void {
    this.search.toggle();
    this.host.changed();
  }

  private toggleReader(): void {
    const on = !this.term.options.screenReaderMode;
    this.term.options.screenReaderMode = on;
    remember('screen-reader', on ? 'yes' : 'no');
    this.host.changed();
  }

  private download(): void {
    const buffer = this.term.buffer.normal;
    let text = '';
    for (let n = 0; n < buffer.length; n += 1) {
      const line = buffer.getLine(n);
      text += `${n > 0 && !line?.isWrapped ? '\n' : ''}${line?.translateToString(!buffer.getLine(n + 1)?.isWrapped) ?? ''}`;
    }
    const address = URL.createObjectURL(new Blob([`${text.trimEnd()}\n`], { type: 'text/plain' }));
    h('a', { href: address, download: `${fileName(`${this.host.guest}-${this.host.console}`)}.txt` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  /** Lets the socket go without hearing of it again. */
  private leave(): void {
    clearTimeout(this.settle);
    const { socket } = this;
    this.socket = null;
    this.ready = false;
    this.pacer.cancel();
    this.brackets.end();
    this.held.control = this.held.alt = false;
    this.host.released();
    socket?.close();
  }
}

/** What to do about a port on which nothing runs. */
function gettyAdvice(port: number): HTMLElement {
  const t = texts.terminal.getty;
  const command = t.command(port);
  return h(
    'div',
    { class: 'advice', role: 'note', 'data-testid': 'getty' },
    h('strong', {}, t.title),
    h('span', {}, t.body),
    h('code', {}, command),
    h('button', { type: 'button', click: () => void copyText(command) }, t.copy),
  );
}
