// What the page uses of packages that bring no types.

declare module '@novnc/novnc' {
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: WebSocket, options?: { shared?: boolean });
    viewOnly: boolean;
    scaleViewport: boolean;
    resizeSession: boolean;
    clipViewport: boolean;
    background: string;
    focus(options?: FocusOptions): void;
    blur(): void;
    disconnect(): void;
    approveServer(): void;
    clipboardPasteFrom(text: string): void;
    sendCredentials(credentials: { username: string; password: string }): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
  }
}

/** Physical keys to XT scan codes; extended ones are 0xe0XX. */
declare module 'novnc-scancodes' {
  const codes: Record<string, number>;
  export default codes;
}

declare module '@spice-project/spice-html5' {
  export class SpiceConn {
    ws?: WebSocket;
    state: string;
    cleanup(): void;
    send_msg(message: unknown): void;
    send_ticket(ticket: number[]): void;
  }
  export class SpiceMainConn extends SpiceConn {
    constructor(options: {
      uri: string;
      screen_id: string;
      password: string;
      onerror(error: Error | Event): void;
      onsuccess(): void;
      onagent(): void;
    });
    display?: SpiceConn;
    inputs?: SpiceConn;
    cursor?: SpiceConn;
    ports: SpiceConn[];
    agent_connected?: boolean;
    resize_window(flags: number, width: number, height: number, depth: number, x: number, y: number): void;
    stop(): void;
  }
}

declare module '@spice-project/spice-html5/src/playback.js' {
  import type { SpiceConn } from '@spice-project/spice-html5';
  export class SpicePlaybackConn extends SpiceConn {}
}

declare module '@spice-project/spice-html5/src/spicemsg.js' {
  export class SpiceMiniData {
    build_msg(type: number, message: unknown): void;
  }
  export class SpiceMsgcKeyDown {
    code: number;
  }
  export class SpiceMsgcKeyUp {
    code: number;
  }
}

declare module '@spice-project/spice-html5/src/enums.js' {
  export const Constants: Record<string, number>;
}
