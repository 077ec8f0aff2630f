// A VNC display: noVNC on a websocket that the page makes itself, so that the reason of its end is known.

import RFB from '@novnc/novnc';
import { consoleUrl } from '../edges/api';
import { openSocket } from '../edges/socket';
import { recall, remember } from '../edges/store';
import { clean } from '../rules/clean';
import type { KeyName } from '../rules/keys';
import { OWN } from '../rules/state';
import { texts } from '../texts';
import { h } from '../view/dom';
import { DisplayTools } from './display';
import type { OpenViewer, Tool, Viewer, ViewerHost } from './viewer';

export const open: OpenViewer = (host) => new VncViewer(host);

class VncViewer implements Viewer {
  readonly element = h('div', { class: 'display vnc' });
  private readonly screen = h('div', { class: 'screen' });
  private readonly display: DisplayTools;
  private rfb: RFB | null = null;
  private client = '';
  /** A password was given, and not refused yet. */
  private tried = false;
  private question = new AbortController();
  private readonly down = new Set<string>();

  constructor(private readonly host: ViewerHost) {
    this.display = new DisplayTools(host, {
      anyLetter: true,
      key: (key, down) => this.rfb?.sendKey(key.keysym, key.code, down),
      paste: (text) => this.rfb?.clipboardPasteFrom(text),
      focus: () => this.focus(),
    });
    this.element.append(this.screen, this.display.keyboard.field);
    this.element.addEventListener('focusin', () => void this.display.focused());
    this.element.addEventListener('focusout', () => this.releaseAll());
    for (const type of ['keydown', 'keyup'] as const) {
      this.element.addEventListener(type, (event) => this.keyEvent(event), true);
    }
  }

  connect(client: string): void {
    this.client = client;
    this.disconnect();
    const socket = openSocket(consoleUrl('vnc', { client }), (closing) => {
      if (this.rfb !== rfb) return;
      this.gone();
      this.host.closed(closing);
    });
    const rfb = new RFB(this.screen, socket, { shared: true });
    this.rfb = rfb;
    rfb.viewOnly = this.host.viewOnly;
    rfb.background = 'transparent';
    this.fit();
    const on = (type: string, run: (detail: Record<string, unknown>) => void) =>
      rfb.addEventListener(type, (event) => this.rfb === rfb && run((event as CustomEvent).detail ?? {}));
    on('connect', () => this.connected());
    on('clipboard', ({ text }) => this.display.fromGuest(String(text)));
    on('credentialsrequired', ({ types }) => void this.credentials(rfb, types as string[]));
    // Its own doing: had the server closed first, the socket would have told.
    on('disconnect', ({ clean }) => !clean && this.end(4502, texts.vnc.foreign));
    on('securityfailure', ({ reason }) => this.refused(clean(String(reason ?? ''))));
    // The proxy vouches for the host, by TLS; the display is on it.
    on('serververification', () => rfb.approveServer());
  }

  disconnect(): void {
    const { rfb } = this;
    this.gone();
    rfb?.disconnect();
  }

  focus(): void {
    this.rfb?.focus();
  }

  shown(visible: boolean): void {
    if (!visible) this.display.letGo();
  }

  press(name: KeyName): void {
    this.display.press(name);
  }

  hold(name: 'Control' | 'Alt', held: boolean): void {
    this.display.hold(name, held);
  }

  tools(): Tool[] {
    const t = texts.tool;
    const toggle = (id: 'scale' | 'resize', label: string): Tool => ({
      id,
      label,
      icon: id,
      pressed: this.wanted(id),
      run: () => {
        remember(`vnc-${id}`, this.wanted(id) ? 'no' : 'yes');
        this.fit();
        this.host.changed();
      },
    });
    return [
      ...this.display.tools(),
      toggle('scale', t.scale),
      ...(this.host.viewOnly ? [] : [toggle('resize', t.resize)]),
    ];
  }

  private wanted(id: 'scale' | 'resize'): boolean {
    return (recall(`vnc-${id}`) ?? (id === 'scale' ? 'yes' : 'no')) === 'yes';
  }

  private fit(): void {
    if (!this.rfb) return;
    this.rfb.scaleViewport = this.wanted('scale');
    this.rfb.clipViewport = false;
    this.rfb.resizeSession = this.wanted('resize') && !this.host.viewOnly;
  }

  private connected(): void {
    this.tried = false;
    const canvas = this.screen.querySelector('canvas');
    canvas?.setAttribute('role', 'application');
    canvas?.setAttribute('aria-label', texts.console.screen(clean(this.host.guest, 80)));
    canvas?.setAttribute('tabindex', '0');
    this.host.ready();
  }

  private async credentials(rfb: RFB, types: string[]): Promise<void> {
    this.host.person(true);
    const wanted = { user: types.includes('username'), again: this.tried };
    const given = await this.host.password(wanted, this.question.signal);
    if (this.rfb !== rfb) return;
    this.host.person(false);
    this.tried = given !== null;
    if (given) rfb.sendCredentials({ username: given.user, password: given.password });
    else this.end(4403, OWN.noPassword);
  }

  /** The display's own refusal: a wrong password is asked for again. */
  private refused(reason: string): void {
    if (this.tried) return this.connect(this.client);
    this.end(4502, reason);
  }

  private end(code: number, reason: string): void {
    this.disconnect();
    this.host.closed({ code, reason, opened: true });
  }

  private keyEvent(event: KeyboardEvent): void {
    if (event.target === this.display.keyboard.field) return;
    // A Mac tells of Caps Lock once for each change, and noVNC makes a stroke of it.
    if (event.code === 'CapsLock') return;
    if (event.type === 'keydown') this.down.add(event.code);
    else {
      this.down.delete(event.code);
      this.display.used(event);
    }
  }

  /** The keyboard goes elsewhere: nothing stays pressed in the guest. noVNC itself heeds only the window's focus. */
  private releaseAll(): void {
    const canvas = this.screen.querySelector('canvas');
    for (const code of [...this.down]) canvas?.dispatchEvent(new KeyboardEvent('keyup', { code }));
    this.down.clear();
  }

  private gone(): void {
    this.rfb = null;
    this.down.clear();
    this.question.abort();
    this.question = new AbortController();
    this.display.stop();
  }
}
