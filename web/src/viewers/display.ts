// What both kinds of display have: chords, typing text as keys, the clipboard, a phone's keyboard and extra keys.

import { copyText, readText, readTextQuietly } from '../edges/clipboard';
import { isTouched } from '../edges/device';
import { recall, remember } from '../edges/store';
import { CHORDS, chordName, key, strokes, type Key, type KeyName, type Stroke } from '../rules/keys';
import { KEYS, Pacer } from '../rules/pacing';
import { texts } from '../texts';
import { clipboardPanel, type ClipboardOwner } from '../view/clipboardpanel';
import { SoftKeyboard } from './softkeyboard';
import type { Tool, ViewerHost } from './viewer';

/** The display that is driven. */
export interface Screen {
  key(key: Key, down: boolean): void;
  /** Whether it can type keys that a US keyboard lacks. */
  anyLetter: boolean;
  /** Puts text into the guest's clipboard, where the protocol has one. */
  paste?(text: string): void;
  focus(): void;
}

export class DisplayTools implements ClipboardOwner {
  text = '';
  readonly keyboard: SoftKeyboard;
  readonly send?: (text: string) => void;
  private readonly pacer: Pacer<Stroke>;
  private readonly held = new Set<'Control' | 'Alt'>();
  /** What both clipboards held last, so that a text does not go in circles. */
  private same = '';

  constructor(
    private readonly host: ViewerHost,
    private readonly screen: Screen,
  ) {
    this.pacer = new Pacer(
      (stroke) => this.stroke(stroke),
      (done, all) => this.showProgress(done, all),
      KEYS.every,
    );
    this.keyboard = new SoftKeyboard(
      (stroke) => this.withHeld(() => this.stroke(stroke)),
      (one) => this.withHeld(() => this.tap(one)),
    );
    const { paste } = screen;
    if (paste) {
      this.send = (text) => {
        this.same = text;
        paste(text);
      };
    }
  }

  /** Whether texts go back and forth by themselves. A person asks for it: the guest hears whatever they copy. */
  get sync(): boolean {
    return recall('clipboard-sync') === 'yes';
  }

  set sync(on: boolean) {
    remember('clipboard-sync', on ? 'yes' : 'no');
  }

  tools(): Tool[] {
    if (this.host.viewOnly) return [];
    const t = texts.tool;
    return [
      {
        id: 'ctrl-alt-del',
        label: t.ctrlAltDel,
        text: t.ctrlAltDel,
        run: () => this.chord(['Control', 'Alt', 'Delete']),
      },
      {
        id: 'keys',
        label: t.keys,
        text: t.keys,
        menu: CHORDS.map((chord) => ({ label: chordName(chord, texts.keys), run: () => this.chord(chord) })),
      },
      { id: 'clipboard', label: t.clipboard, icon: 'clipboard', panel: () => clipboardPanel(this) },
      { id: 'type', label: t.typeClipboard, icon: 'type', run: () => void this.typeClipboard() },
      ...(isTouched()
        ? [{ id: 'keyboard', label: t.keyboard, icon: 'keyboard', run: () => this.keyboard.toggle() }]
        : []),
    ];
  }

  press(name: KeyName): void {
    this.withHeld(() => this.tap(key(name)));
  }

  hold(name: 'Control' | 'Alt', held: boolean): void {
    if (held) this.held.add(name);
    else this.held.delete(name);
    this.screen.key(key(name), held);
  }

  /** The guest set its clipboard. */
  fromGuest(text: string): void {
    if (text === this.same) return;
    this.text = this.same = text;
    const tell = () => this.host.notice('clipboard', { text: texts.clipboard.fromGuest, brief: true });
    if (this.sync && document.hasFocus()) void copyText(text).then((done) => !done && tell());
    else tell();
  }

  /** The person comes to the display: what they copied elsewhere comes along, if the browser lets it. */
  async focused(): Promise<void> {
    if (!this.send || !this.sync || this.host.viewOnly) return;
    const text = await readTextQuietly();
    if (text && text !== this.same) this.send((this.text = text));
  }

  /** Types a text, about 30 keys a second. */
  type(text: string): void {
    const all = strokes(text);
    const usable = this.screen.anyLetter ? all : all.filter((stroke) => stroke.code !== null);
    if (usable.length < all.length)
      this.host.notice('unknown', { text: texts.typing.unknown(all.length - usable.length) });
    if (usable.length === 0) return this.host.notice('empty', { text: texts.clipboard.empty, brief: true });
    this.screen.focus();
    this.pacer.add(usable);
  }

  stop(): void {
    this.pacer.cancel();
    this.held.clear();
    this.same = '';
    this.host.released();
  }

  /** Lets go of Control and Alt of the extra keys. */
  letGo(): void {
    this.withHeld(() => undefined);
  }

  /** A key of a real keyboard was used: held extra keys were for it. */
  used(event: KeyboardEvent): void {
    if (!['Control', 'Alt', 'Shift', 'AltGraph', 'Meta'].includes(event.key)) this.letGo();
  }

  private async typeClipboard(): Promise<void> {
    const text = await readText();
    if (text !== null) this.type(text);
    else this.host.notice('denied', { text: texts.clipboard.deniedDisplay, brief: true });
  }

  private chord(chord: readonly KeyName[]): void {
    for (const name of chord) this.screen.key(key(name), true);
    for (const name of [...chord].reverse()) this.screen.key(key(name), false);
    this.screen.focus();
  }

  private tap(one: Key): void {
    this.screen.key(one, true);
    this.screen.key(one, false);
  }

  private stroke(stroke: Stroke): void {
    if (stroke.shift) this.screen.key(key('Shift'), true);
    this.tap(stroke);
    if (stroke.shift) this.screen.key(key('Shift'), false);
  }

  /** Does something with the held keys, and lets them go. */
  private withHeld(run: () => void): void {
    run();
    for (const name of this.held) this.screen.key(key(name), false);
    if (this.held.size > 0) this.host.released();
    this.held.clear();
  }

  private showProgress(done: number, all: number): void {
    if (all === 0) return this.host.notice('typing', null);
    this.host.notice('typing', {
      text: texts.typing.progress(done, all),
      actions: [{ label: texts.cancel, run: () => this.pacer.cancel() }],
      passing: true,
    });
  }
}
