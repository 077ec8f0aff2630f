// A VNC display: noVNC on a websocket that the page makes itself, so that the reason of its end is known.

import RFB from '@novnc/novnc';
import { consoleUrl } from '../edges/api';
import { openSocket } from '../edges/socket';
import { recall, remember } from '../edges/store';
import { clean } from '../rules/clean';
import type { KeyName } from '../rules/keys';
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
  private asked = false;

  constructor(private readonly host: ViewerHost) {
    this.display = new DisplayTools(host, {
      anyLetter: true,
      key: (key, down) => this.rfb?.sendKey(key.keysym, key.code, down),
      paste: (text) => this.rfb?.clipboardPasteFrom(text),
      focus: () => this.focus(),
    });
    this.element.append(this.screen, this.display.keyboard.field);
    this.element.addEventListener('focusin', () => void this.display.focused());
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

  shown(): void {}

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
    this.asked = false;
    const canvas = this.screen.querySelector('canvas');
    canvas?.setAttribute('role', 'application');
    canvas?.setAttribute('aria-label', texts.console.screen(clean(this.host.guest, 80)));
    canvas?.setAttribute('tabindex', '0');
    this.host.ready();
  }

  private async credentials(rfb: RFB, types: string[]): Promise<void> {
    this.host.person(true);
    const given = await this.host.password({ user: types.includes('username'), again: this.asked });
    if (this.rfb !== rfb) return;
    this.host.person(false);
    this.asked = true;
    if (given) rfb.sendCredentials({ username: given.user, password: given.password });
    else this.end(4403, texts.password.cancelled);
  }

  /** The display's own refusal: a wrong password is asked for again. */
  private refused(reason: string): void {
    if (this.asked) return this.connect(this.client);
    this.end(4502, reason);
  }

  private end(code: number, reason: string): void {
    this.disconnect();
    this.host.closed({ code, reason, opened: true });
  }

  private gone(): void {
    this.rfb = null;
    this.display.stop();
  }
}
