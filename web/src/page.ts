// The page: one bar with the guest's name, its consoles as tabs and the tools of the one in sight; below it that
// console, or the panel that says why it is not to be seen.

import { askGuest, logOut, type Got } from './edges/api';
import { recall, remember } from './edges/store';
import { choose } from './rules/choose';
import { clean } from './rules/clean';
import type { Guest } from './rules/guest';
import { Leave } from './rules/leave';
import { linkedConsole } from './rules/links';
import { Session, type SessionPage } from './flow/session';
import { consoleName, texts } from './texts';
import { load } from './viewers/viewer';
import { Chrome } from './view/chrome';
import { cannotPanel, statePanel } from './view/panel';
import { askPassword } from './view/popover';

export class Page {
  private guest: Guest | null = null;
  private readonly entry: Session;
  private readonly sessions = new Map<string, Session>();
  private readonly titles = new Map<string, string>();
  private chosen: string | null = null;
  private asking: Promise<Got> | null = null;
  private readonly chrome: Chrome;
  private readonly client = [...crypto.getRandomValues(new Uint8Array(12))]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('');

  /** `refusal`: why the ticket of the address bought nothing. */
  constructor(
    private readonly document: Document,
    private refusal: string,
  ) {
    this.chrome = new Chrome({
      choose: (console) => this.choose(console, true),
      logOut: () => void this.logOut(),
      viewer: () => this.session()?.viewer ?? null,
    });
    this.entry = new Session(null, this.client, this.sessionPage(), () => this.entered());
    document.body.append(this.chrome.element);
    this.listen();
  }

  enter(): void {
    // What the address names will be opened: its viewer may come while the proxy is asked.
    const linked = linkedConsole(location.hash);
    if (linked) void load(linked).catch(() => undefined);
    this.entry.tell({ type: 'enter' });
  }

  private listen(): void {
    const leave = new Leave();
    const keys = (event: KeyboardEvent) => {
      const held = { ctrl: event.ctrlKey, alt: event.altKey, shift: event.shiftKey };
      // The viewer hears the key first, so that nothing stays pressed in the guest.
      if (leave.key(event.type === 'keydown', event.key, held)) setTimeout(() => this.chrome.tabs.focus());
    };
    window.addEventListener('keydown', keys, true);
    window.addEventListener('keyup', keys, true);
    window.addEventListener('hashchange', () => {
      const linked = linkedConsole(location.hash);
      if (linked && this.guest) this.choose(linked, false);
    });
    window.addEventListener('online', () => this.nudge());
    this.document.addEventListener('visibilitychange', () => !this.document.hidden && this.nudge());
    setInterval(() => this.tick(), 1_000);
  }

  private nudge(): void {
    for (const session of [this.entry, ...this.sessions.values()]) session.tell({ type: 'nudge' });
  }

  /** The proxy told of the guest for the first time. */
  private entered(): void {
    const guest = this.guest;
    if (!guest) return;
    const wish = { linked: linkedConsole(location.hash), last: recall(`last:${guest.uuid}`) };
    const unreachable = guest.unreachable.find((one) => one.console === wish.linked);
    const first = unreachable?.console ?? choose(guest.consoles, wish)?.console ?? guest.unreachable[0]?.console;
    if (first) this.choose(first, false);
    this.entry.tell({ type: 'ready' });
  }

  private choose(console: string, byHand: boolean): void {
    const guest = this.guest;
    if (!guest || ![...guest.consoles, ...guest.unreachable].some((one) => one.console === console)) return;
    this.chosen = console;
    this.chrome.wanted = byHand;
    if (byHand) history.replaceState(history.state, '', `#${console}`);
    if (this.refusedReason(console) === null) {
      remember(`last:${guest.uuid}`, console);
      this.open(console);
    }
    this.chrome.bring(this.session()?.viewer ?? null);
    this.draw();
    if (byHand && this.session()?.state.name === 'connected') this.session()?.viewer?.focus();
  }

  private open(console: string): void {
    if (this.sessions.has(console)) return;
    const session = new Session(console, this.client, this.sessionPage());
    this.sessions.set(console, session);
    session.tell({ type: 'start' });
  }

  private session(): Session | null {
    return (this.chosen && this.sessions.get(this.chosen)) || null;
  }

  /** Why a console cannot be opened; null: it can. */
  private refusedReason(console: string): string | null {
    const guest = this.guest;
    const known = guest?.consoles.find((one) => one.console === console);
    if (known) return known.refused ?? null;
    return guest?.unreachable.find((one) => one.console === console)?.reason ?? '';
  }

  private async logOut(): Promise<void> {
    for (const session of this.sessions.values()) session.tell({ type: 'logged-out' });
    this.entry.tell({ type: 'logged-out' });
    await logOut();
  }

  private sessionPage(): SessionPage {
    return {
      ask: () => this.ask(),
      guest: () => this.guest,
      changed: () => this.draw(),
      viewer: (viewer) => {
        this.chrome.add(viewer);
        this.chrome.bring(this.session()?.viewer ?? null);
      },
      host: (console) => ({
        password: askPassword,
        notice: (id, notice) => this.chrome.notice(console, id, notice),
        title: (words) => {
          this.titles.set(console, words);
          this.draw();
        },
        changed: () => this.chosen === console && this.drawTools(),
        released: () => this.chrome.extraKeys.released(),
      }),
    };
  }

  private ask(): Promise<Got> {
    this.asking ??= askGuest().then((got) => {
      this.asking = null;
      if (got.kind === 'ok') this.learn(got.guest);
      // The ticket's own refusal explains more than "no credentials".
      else if (got.kind === 'status' && got.status === 401 && this.refusal) got.reason = this.refusal;
      return got;
    });
    return this.asking;
  }

  private learn(guest: Guest): void {
    // Another session with other rights: what is open was made for the old ones.
    if (this.guest && this.guest.mode !== guest.mode) return location.reload();
    this.guest = guest;
    this.refusal = '';
    this.chrome.guest(guest);
    this.chrome.tabs.show([
      ...guest.consoles.map((one) => ({ console: one.console, disabled: one.refused !== undefined })),
      ...guest.unreachable.map((one) => ({ console: one.console, disabled: true })),
    ]);
    // What was refused before may be open now.
    if (this.chosen && !this.session() && this.refusedReason(this.chosen) === null) this.open(this.chosen);
    this.draw();
  }

  private draw(): void {
    // Until the proxy told of the guest, and after a log-out, the page speaks for all consoles.
    const shown = this.chosen === null || this.entry.state.name !== 'connected' ? this.entry : this.session();
    const refused = this.chosen === null ? null : this.refusedReason(this.chosen);
    const { dataset } = this.document.documentElement;
    dataset.console = this.chosen ?? '';
    this.document.title = this.guest
      ? texts.title(clean(this.guest.name, 80), this.chosen ? consoleName(this.chosen) : texts.product)
      : texts.untitled;
    this.chrome.tabs.mark(this.chosen);
    this.chrome.subtitle(this.titles.get(this.chosen ?? '') ?? '');
    if (!shown) {
      dataset.state = 'refused';
      this.chrome.panel(cannotPanel(this.chosen, clean(refused ?? '')), 'refused');
    } else if (shown === this.entry && shown.state.name === 'connected') {
      dataset.state = 'no-console';
      this.chrome.panel(cannotPanel(null, ''), 'no-console');
    } else {
      dataset.state = shown.broken ? 'broken' : shown.state.name;
      this.drawState(shown);
    }
    this.drawTools();
  }

  private drawState(shown: Session): void {
    const { state, console, due, broken } = shown;
    const panel = statePanel(
      { state, console, guest: this.guest?.name ?? '', due, broken },
      {
        retry: () => shown.tell({ type: shown === this.entry ? 'enter' : 'start' }),
        reload: () => location.reload(),
        now: () => Date.now(),
      },
    );
    // The same panel is left alone: what a person is about to press must not move.
    this.chrome.panel(panel, JSON.stringify([broken, state.name, 'reason' in state ? state.reason : '', console]));
  }

  private drawTools(): void {
    const session = this.session();
    this.chrome.showTools(session?.state.name === 'connected' ? (session.viewer?.tools() ?? []) : []);
  }

  private tick(): void {
    const shown = this.chosen === null ? this.entry : this.session();
    if (shown) this.chrome.countdown(shown.state, shown.due);
    const left = (this.guest?.ends ?? Infinity) * 1000 - Date.now();
    if (left > 0 && left < 5 * 60_000) this.chrome.endsIn(Math.ceil(left / 60_000));
  }
}
