// Keys of a SPICE display: the physical key's scan code, as the guest's keyboard would send it.

import type { SpiceConn } from '@spice-project/spice-html5';
import { Constants } from '@spice-project/spice-html5/src/enums.js';
import { SpiceMiniData, SpiceMsgcKeyDown, SpiceMsgcKeyUp } from '@spice-project/spice-html5/src/spicemsg.js';
import scancodes from 'novnc-scancodes';
import { spiceCode } from '../rules/scancode';

export class SpiceKeys {
  private readonly down = new Set<string>();

  /** `inputs`: the channel for keys, if it is there. */
  constructor(private readonly inputs: () => SpiceConn | undefined) {}

  /** `code`: `KeyboardEvent.code`; keys that have none, or no scan code, are left out. */
  send(code: string | null, down: boolean): void {
    const scan = code === null ? undefined : scancodes[code];
    const inputs = this.inputs();
    if (code === null || scan === undefined || inputs?.state !== 'ready') return;
    if (down) this.down.add(code);
    else this.down.delete(code);
    const key = down ? new SpiceMsgcKeyDown() : new SpiceMsgcKeyUp();
    key.code = spiceCode(code, scan, down);
    const message = new SpiceMiniData();
    const type = down ? Constants.SPICE_MSGC_INPUTS_KEY_DOWN : Constants.SPICE_MSGC_INPUTS_KEY_UP;
    message.build_msg(type ?? 0, key);
    inputs.send_msg(message);
  }

  /** The keyboard goes elsewhere: nothing stays pressed in the guest. */
  releaseAll(): void {
    for (const code of [...this.down]) this.send(code, false);
  }

  forget(): void {
    this.down.clear();
  }
}
