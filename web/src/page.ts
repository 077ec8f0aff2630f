// The page: one bar with the guest's name, its consoles as tabs and the tools of the one in sight; below it that
// console, or the panel that says why it is not to be seen.

import { askGuest, buySession, logIn, logOut, type Got } from './edges/api';
import { recall, remember } from './edges/store';
import { choose, tabOrder } from './rules/choose';
import { clean } from './rules/clean';
import { commandName, isAnother, type Guest } from './rules/guest';
import { Leave } from './rules/leave';
import { isSettled, linkedConsole, takeTicket } from './rules/links';
import { explains, refusal, type Refusal } from './rules/login';
import { isOut, OWN, type State } from './rules/state';
import { whose } from './rules/whose';
import { Session, type SessionPage } from './flow/session';
import { consoleName, texts } from './texts';
import { load, type ViewerHost } from './viewers/viewer';
import { Chrome } from './view/chrome';
import { LoginForm } from './view/login';
import { cannotPanel, outWords, personName, statePanel } from './view/panel';
import { askPassword } from './view/popover';

export class Page {
  private guest: Guest | null = null;
  private readonly entry: Session;
  private readonly sessions = new Map<string, Session>();
  private readonly titles = new Map<string, string>();
  private chosen: string | null = null;
  private asking: Promise<Got> | null = null;
  /** Why the ticket of the address bought nothing. */
  private refusal = '';
  private loggedOut = false;
  /** The ticket that somebody wants to use though they are here as another person. */
  private meant: string | null = null;
  /** A session was made, and nothing has been heard of it yet. */
  private made = false;
  private tellsWhose = false;
  /** Somebody who is in wants to be somebody else. */
  private changing = false;
  private readonly login = new LoginForm({ logIn: (sent) => this.logIn(sent), now: () => Date.now() });
  /** What waits for its console to come to the front. */
  private readonly front = new Map<string, Set<() => void>>();
  private readonly chrome: Chrome;
  private readonly client = [...crypto.getRandomValues(new Uint8Array(12))]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('');

  constructor(private readonly document: Document) {
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
    window.addEventListener('hashchange', () => this.linked());
    // By the back button the browser shows a page as it was left, also after a log-out.
    window.addEventListener('pageshow', (event) => event.persisted && location.reload());
    window.addEventListener('online', () => this.nudge());
    window.addEventListener('focus', () => this.nudge());
    this.document.addEventListener('visibilitychange', () => !this.document.hidden && this.nudge());
    setInterval(() => this.tick(), 1_000);
  }

  /** Another address for this page. */
  private linked(): void {
    // A link with a ticket is a way in of its own, perhaps as somebody else.
    if (takeTicket(location.href).ticket !== null) return location.reload();
    const linked = linkedConsole(location.hash);
    if (!linked || !this.guest) return;
    this.choose(linked, false);
    this.mendAddress();
  }

  /** The address names the console in sight, or none. */
  private mendAddress(): void {
    const linked = linkedConsole(location.hash);
    if (linked && this.chosen && linked !== this.chosen) history.replaceState(history.state, '', `#${this.chosen}`);
  }

  private nudge(): void {
    for (const session of [this.entry, ...this.sessions.values()]) session.tell({ type: 'nudge' });
    if (!this.session() && this.entry.state.name === 'connected') void this.again(false);
  }

  /** Whether what cannot be opened can be opened by now; `byHand`: somebody wants to see what comes of it. */
  private async again(byHand: boolean): Promise<void> {
    const got = await this.ask();
    if (got.kind === 'status' || (got.kind === 'silent' && byHand)) this.entry.tell({ type: 'enter' });
  }

  /** The proxy told of the guest, for the first time or after it would not. */
  private entered(): void {
    this.loggedOut = false;
    if (this.chosen === null) this.chooseFirst();
    else this.choose(this.chosen, false);
    this.entry.tell({ type: 'ready' });
    this.mendAddress();
    if (this.refusal) this.notice('ticket', texts.session.kept(this.refusal));
    this.refusal = '';
  }

  private chooseFirst(): void {
    const guest = this.guest;
    if (!guest) return;
    const wish = { linked: linkedConsole(location.hash), last: recall(`last:${guest.uuid}`) };
    const unreachable = guest.unreachable.find((one) => one.console === wish.linked);
    const first = unreachable?.console ?? choose(guest.consoles, wish)?.console ?? guest.unreachable[0]?.console;
    if (first) this.choose(first, false);
  }

  /** A line of the page's own above the console in sight. */
  private notice(id: string, words: string): void {
    this.chrome.notice(this.chosen ?? '', id, { text: words });
  }

  private choose(console: string, byHand: boolean): void {
    const guest = this.guest;
    if (!guest || ![...guest.consoles, ...guest.unreachable].some((one) => one.console === console)) return;
    if (this.chosen !== console) {
      this.session()?.viewer?.shown(false);
      this.chrome.extraKeys.released();
    }
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
    for (const run of [...(this.front.get(console) ?? [])]) run();
  }

  /** Waits until a console is in front; `over`: whoever waited does so no more. */
  private inFront(console: string, over: AbortSignal): Promise<void> {
    if (this.chosen === console) return Promise.resolve();
    return new Promise((resolve) => {
      const waiting = this.front.get(console) ?? new Set();
      const run = () => {
        waiting.delete(run);
        resolve();
      };
      this.front.set(console, waiting.add(run));
      over.addEventListener('abort', run);
    });
  }

  private open(console: string): void {
    if (isOut(this.entry.state)) return;
    const there = this.sessions.get(console);
    // Another session may have begun since.
    if (there && isOut(there.state) && !this.loggedOut) there.tell({ type: 'enter' });
    if (there) return;
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
    if (!(await logOut())) return this.notice('log-out', texts.account.notLoggedOut);
    this.loggedOut = true;
    // What they show goes, too: somebody else may sit here next.
    for (const session of this.sessions.values()) {
      session.tell({ type: 'logged-out' });
      if (session.viewer) this.chrome.remove(session.viewer);
    }
    this.sessions.clear();
    this.titles.clear();
    this.entry.tell({ type: 'logged-out' });
  }

  /** Buys a session with a password; null: that was right. */
  private async logIn(credentials: string): Promise<Refusal | null> {
    const bought = await logIn(credentials);
    if (!bought?.ok) return refusal(bought);
    // What was asked before knows nothing of it.
    await this.asking;
    this.loggedOut = this.changing = false;
    this.refusal = '';
    this.made = true;
    this.comeIn();
    return null;
  }

  /** There is a session, perhaps another one. */
  private comeIn(): void {
    if (this.entry.state.name !== 'connected') this.entry.tell({ type: 'enter' });
    for (const one of this.sessions.values()) if (waitsForRight(one.state)) one.tell({ type: 'enter' });
  }

  /** A person was asked whether a link is to make somebody else of them. */
  private decide(goOn: boolean): void {
    const { ticket, rest } = takeTicket(location.href);
    if (goOn) this.meant = ticket;
    else history.replaceState(history.state, '', rest);
    this.comeIn();
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
      host: (console) => this.host(console),
    };
  }

  private host(console: string): Pick<ViewerHost, 'password' | 'notice' | 'title' | 'changed' | 'released'> {
    return {
      password: async (wanted, over) => {
        await this.inFront(console, over);
        return askPassword(wanted, over);
      },
      notice: (id, notice) => this.chrome.notice(console, id, notice),
      title: (words) => {
        this.titles.set(console, words);
        this.draw();
      },
      changed: () => this.chosen === console && this.drawTools(),
      released: () => this.chosen === console && this.chrome.extraKeys.released(),
    };
  }

  private ask(): Promise<Got> {
    this.asking ??= this.admit().then((got) => {
      this.asking = null;
      if (got.kind === 'ok') this.learn(got.guest);
      // The ticket's own refusal explains more than "no credentials".
      else if (got.kind === 'status' && got.status === 401) {
        got.reason = this.refusal || (this.made ? OWN.noCookie : got.reason);
      }
      if (got.kind !== 'silent') this.made = false;
      return got;
    });
    return this.asking;
  }

  /** Asks for the guest, first with the ticket if the address has one. */
  private async admit(): Promise<Got> {
    const { ticket, rest } = takeTicket(location.href);
    if (ticket === null) return askGuest();
    if (ticket !== this.meant) {
      const got = await askGuest();
      // Where nobody can say whose session there is, nothing is bought in its place.
      if (got.kind === 'status' && got.status !== 401 && got.status !== 403) return got;
      const asked = got.kind === 'ok' ? whose(ticket, got.guest) : null;
      if (got.kind === 'silent' || asked) return asked ? { kind: 'whose', ...asked } : got;
    }
    const bought = await buySession(ticket);
    if (!bought) return { kind: 'silent' };
    // A ticket buys one session: refused, it may have bought the one whose cookie is there. Where nobody judged it, it
    // stays in the address for another attempt.
    if (isSettled(bought.status)) history.replaceState(history.state, '', rest);
    this.refusal = bought.ok ? '' : bought.reason;
    this.made = bought.ok;
    return askGuest();
  }

  private learn(guest: Guest): void {
    // Another session with other rights: what is open was made for the old ones.
    if (this.guest && isAnother(this.guest, guest)) return location.reload();
    this.guest = guest;
    this.chrome.guest(guest);
    this.tellWhose(guest);
    this.chrome.tabs.show([
      ...tabOrder(guest.consoles).map((one) => ({ console: one.console, disabled: one.refused !== undefined })),
      ...guest.unreachable.map((one) => ({ console: one.console, disabled: true })),
    ]);
    // What was refused before may be open now.
    if (this.chosen && !this.session() && this.refusedReason(this.chosen) === null) this.open(this.chosen);
    if (!this.chosen && this.entry.state.name === 'connected') this.chooseFirst();
    this.draw();
  }

  /** Whoever came by a link may be somebody else than they think: said until they have seen it. */
  private tellWhose(guest: Guest): void {
    const key = `seen:${guest.uuid}`;
    const tells = guest.by === 'ticket' && recall(key) !== String(guest.ends);
    if (tells === this.tellsWhose) return;
    this.tellsWhose = tells;
    if (!tells) return this.chrome.notice('', 'whose', null);
    this.chrome.notice('', 'whose', {
      text: texts.whose.byLink(personName(guest.person)),
      actions: [{ label: texts.account.logOut, run: () => void this.logOut() }],
      closed: () => remember(key, String(guest.ends)),
    });
  }

  /** What speaks for the console in sight: until the proxy told of the guest, and after a log-out, the page itself. */
  private shown(): Session | null {
    return this.chosen === null || this.entry.state.name !== 'connected' ? this.entry : this.session();
  }

  private draw(): void {
    const shown = this.shown();
    const reason = clean((this.chosen && this.refusedReason(this.chosen)) ?? '');
    const again = () => void this.again(true);
    const { dataset } = this.document.documentElement;
    dataset.console = this.chosen ?? '';
    this.document.title = this.guest
      ? texts.title(clean(this.guest.name, 80), this.chosen ? consoleName(this.chosen) : texts.product)
      : texts.untitled;
    if (shown && isOut(shown.state)) {
      this.chrome.nobody();
      this.chrome.notice('', 'whose', null);
      this.tellsWhose = false;
    }
    if (!shown || !this.asksPassword(shown)) this.login.clear();
    this.chrome.tabs.mark(this.chosen);
    this.chrome.subtitle(this.titles.get(this.chosen ?? '') ?? '');
    if (!shown) {
      dataset.state = 'refused';
      this.chrome.panel(cannotPanel(this.chosen, reason, again), `refused ${this.chosen} ${reason}`);
    } else if (shown === this.entry && shown.state.name === 'connected') {
      dataset.state = 'no-console';
      this.chrome.panel(cannotPanel(null, '', again), 'no-console');
    } else {
      dataset.state = shown.broken ? 'broken' : shown.state.name;
      this.drawState(shown);
    }
    this.drawTools();
  }

  private drawState(shown: Session): void {
    const { state, console, due, broken } = shown;
    const guest = this.guest ? commandName(this.guest) : '';
    if (this.asksPassword(shown)) {
      this.login.show({ ...this.loginWords(shown, guest), command: texts.state.ended.command(guest) });
      return this.chrome.panel(this.login.element, 'login');
    }
    const panel = statePanel(
      { state, console, guest, due, broken },
      {
        // Rights may be others by now.
        retry: () => shown.tell({ type: asksFirst(shown, this.entry) ? 'enter' : 'start' }),
        logIn: () => {
          this.changing = true;
          this.draw();
        },
        goOn: () => this.decide(true),
        stay: () => this.decide(false),
        reload: () => location.reload(),
        now: () => Date.now(),
      },
    );
    // The same panel is left alone: what a person is about to press must not move.
    this.chrome.panel(panel, panelKey(broken, state, console));
  }

  private asksPassword({ state }: Session): boolean {
    return state.name === 'login' || (this.changing && state.name === 'not-allowed');
  }

  private loginWords({ state }: Session, guest: string): { title: string; reason: string } {
    const reason = 'reason' in state && explains(state.reason) ? state.reason : '';
    return outWords(reason, state.name === 'login' ? guest : '', texts.login.title);
  }

  private drawTools(): void {
    const session = this.session();
    this.chrome.showTools(session?.state.name === 'connected' ? (session.viewer?.tools() ?? []) : []);
  }

  private tick(): void {
    const shown = this.shown();
    if (shown) this.chrome.countdown(shown.state, shown.due);
    this.login.tick();
    const left = (this.guest?.ends ?? Infinity) * 1000 - Date.now();
    if (left > 0 && left < 5 * 60_000) this.chrome.endsIn(Math.ceil(left / 60_000));
  }
}

/** Whether a session, or another one, is all that is missing. */
function waitsForRight(state: State): boolean {
  return isOut(state) || state.name === 'whose' || state.name === 'not-allowed';
}

/** Whether another attempt begins with what the proxy says now. */
function asksFirst(shown: Session, entry: Session): boolean {
  return shown === entry || waitsForRight(shown.state);
}

/** What a panel says; how long it waits and what it asks meanwhile does not count. */
function panelKey(broken: boolean, state: State, console: string | null): string {
  return JSON.stringify([broken, console, { ...state, attempt: 0, wait: 0, doubt: 0, asked: 0 }]);
}
