// All that stands around a console: the bar, the stage, the notices, the extra keys. Knows no state and no protocol.

import { isTouched } from '../edges/device';
import { recall, remember } from '../edges/store';
import { clean } from '../rules/clean';
import { modeOf, type Guest } from '../rules/guest';
import type { State } from '../rules/state';
import { texts } from '../texts';
import type { Notice, Tool, Viewer } from '../viewers/viewer';
import { h, icon } from './dom';
import { ExtraKeys } from './extrakeys';
import { helpPanel } from './help';
import { Notices } from './notices';
import { opensPanel } from './popover';
import { Tabs } from './tabs';
import { Tools } from './tools';

const THEMES = ['auto', 'light', 'dark'] as const;

export interface ChromeOwner {
  choose(console: string): void;
  logOut(): void;
  viewer(): Viewer | null;
}

export class Chrome {
  readonly element = h('div', { class: 'page' });
  readonly tabs: Tabs;
  readonly extraKeys: ExtraKeys;
  private readonly name = h('h1', { class: 'guest', 'data-testid': 'guest-name' }, texts.untitled);
  private readonly badge = h(
    'span',
    { class: 'badge', hidden: true, title: texts.badge.viewTitle, 'data-testid': 'view-only' },
    texts.badge.view,
  );
  private readonly title = h('span', { class: 'subtitle faint', 'data-testid': 'terminal-title' });
  private readonly toolRow = h('div', { class: 'tools', role: 'toolbar', 'aria-label': texts.tools });
  private readonly tools: Tools;
  private readonly more = h(
    'button',
    { type: 'button', class: 'tool more', 'aria-expanded': 'false', 'aria-label': texts.menu, title: texts.menu },
    icon('menu'),
  );
  private readonly account = h(
    'button',
    { type: 'button', class: 'tool account', 'data-testid': 'account', 'aria-label': texts.account.button('') },
    icon('account'),
    h('span', { class: 'label' }, texts.account.button('')),
  );
  private readonly stage = h('div', { id: 'stage', class: 'stage', tabindex: -1, role: 'tabpanel' });
  private readonly over = h('div', { class: 'over', role: 'status', 'data-testid': 'state', hidden: true });
  private readonly notices = new Map<string, Notices>();
  private readonly noticeArea = h('div', { class: 'notice-area' });
  private panelKey = '';
  /** The person chose the console by hand: it gets the focus as soon as it is there. */
  wanted = false;
  private extraShown = matchMedia('(pointer: coarse)').matches;
  private lastTools: Tool[] = [];
  private guestShown: Guest | null = null;
  private out = false;
  /** The end of the session that was told of. */
  private warned: number | undefined;

  constructor(private readonly owner: ChromeOwner) {
    this.tabs = new Tabs((console) => owner.choose(console));
    this.extraKeys = new ExtraKeys(
      (name) => owner.viewer()?.press(name),
      (name, held) => owner.viewer()?.hold(name, held),
    );
    this.tools = new Tools(this.toolRow, () => this.toggleMore(false));
    this.build();
    this.theme((recall('theme') as (typeof THEMES)[number]) ?? 'auto');
    document.documentElement.lang = texts.language;
  }

  /** Shows what is known of the guest: as text, whatever its name is. */
  guest(guest: Guest): void {
    this.guestShown = guest;
    this.out = false;
    this.name.textContent = clean(guest.name, 80) || texts.untitled;
    this.name.title = clean(guest.name);
    this.person(guest.person);
  }

  /** Nobody is logged in any more. */
  nobody(): void {
    if (this.guestShown) this.guestShown = { ...this.guestShown, person: '', ends: undefined, by: undefined };
    this.out = true;
    this.person('');
  }

  private person(name: string): void {
    const label = this.account.querySelector('.label');
    const person = texts.account.button(clean(name, 40));
    if (label) label.textContent = person;
    this.account.setAttribute('aria-label', texts.account.label(person));
  }

  /** What a program in the guest calls its terminal: marked as the guest's word. */
  subtitle(words: string): void {
    this.title.textContent = words === '' ? '' : texts.terminal.title(words);
    this.title.title = this.title.textContent;
  }

  add(viewer: Viewer): void {
    viewer.element.classList.add('viewer');
    viewer.element.inert = true;
    this.stage.append(viewer.element);
  }

  /** Brings one viewer into sight. The others stay connected and out of sight. */
  bring(viewer: Viewer | null): void {
    for (const element of this.stage.querySelectorAll<HTMLElement>(':scope > .viewer')) {
      element.classList.toggle('front', element === viewer?.element);
    }
    this.drawInert();
    viewer?.shown(true);
    for (const [console, notices] of this.notices) notices.element.hidden = isElsewhere(console);
  }

  /** Takes a viewer out, with all that it shows. */
  remove(viewer: Viewer): void {
    viewer.element.remove();
  }

  /** Shows a panel over the console; null: the console itself. `key`: what it says, so that it is not drawn again. */
  panel(panel: HTMLElement | null, key: string): void {
    const chosen = document.documentElement.dataset.console ?? '';
    this.stage.setAttribute('aria-labelledby', chosen ? Tabs.id(chosen) : '');
    for (const [console, notices] of this.notices) notices.element.hidden = isElsewhere(console);
    this.badge.hidden = !this.guestShown || this.out || modeOf(this.guestShown, chosen) === 'control';
    if (key === this.panelKey) return;
    this.panelKey = key;
    const focused = this.over.contains(document.activeElement) || this.wanted;
    this.over.hidden = panel === null;
    this.over.replaceChildren(...(panel ? [panel] : []));
    // A form is not read out as a whole whenever something in it changes.
    this.over.setAttribute('role', panel?.matches('form') ? 'group' : 'status');
    this.drawInert();
    // What is not connected has no use for keys; what is, gets them, unless the person is elsewhere.
    if (panel === null) {
      if (focused || document.activeElement === document.body) this.owner.viewer()?.focus();
      this.wanted = false;
    }
    // A console that was left keeps the focus for a moment more.
    const free = focused || document.activeElement === document.body || document.activeElement?.closest('[inert]');
    if (panel?.matches('form') && free) this.focusForm(panel);
    this.drawExtra();
  }

  /** A form's first empty field; with a finger, that would bring up a keyboard that nobody asked for. */
  private focusForm(form: HTMLElement): void {
    if (isTouched()) return;
    const fields = [...form.querySelectorAll('input')];
    (fields.find((field) => field.value === '') ?? fields[0])?.focus();
  }

  countdown(state: State, due: number): void {
    const line = this.over.querySelector('[data-countdown]');
    if (!line || !('wait' in state)) return;
    const seconds = Math.max(1, Math.ceil((due - Date.now()) / 1000));
    line.textContent = state.wait === null ? texts.state.trying : texts.state.retryIn(seconds);
  }

  notice(console: string, id: string, notice: Notice | null): void {
    let notices = this.notices.get(console);
    if (!notices) {
      notices = new Notices();
      notices.element.hidden = isElsewhere(console);
      this.notices.set(console, notices);
      this.noticeArea.append(notices.element);
    }
    notices.show(id, notice);
  }

  endsIn(minutes: number): void {
    const console = document.documentElement.dataset.console;
    const ends = this.guestShown?.ends;
    if (this.warned === ends || !console) return;
    this.warned = ends;
    this.notice(console, 'ends', { text: texts.session.soon(minutes) });
  }

  /** Shows the tools of the console in sight beside the page's own. */
  showTools(tools: Tool[]): void {
    const t = texts.tool;
    const theme = recall('theme') ?? 'auto';
    this.tools.show([
      ...tools,
      ...(tools.length > 0 ? [this.extraTool()] : []),
      { id: 'theme', label: t.theme[theme as 'auto'] ?? t.theme.auto, icon: 'theme', run: () => this.nextTheme() },
      {
        id: 'full-screen',
        label: document.fullscreenElement ? t.leaveFullScreen : t.fullScreen,
        icon: 'fullScreen',
        disabled: !document.fullscreenEnabled,
        run: () => void this.fullScreen(),
      },
      { id: 'help', label: t.help, icon: 'help', panel: helpPanel },
    ]);
    this.lastTools = tools;
    this.drawExtra();
  }

  private build(): void {
    this.more.addEventListener('click', () => this.toggleMore(!this.element.classList.contains('more-open')));
    const toConsole = (event: Event) => {
      event.preventDefault();
      (this.owner.viewer() ?? this.stage).focus();
    };
    const skip = h('a', { class: 'skip', href: '#stage', click: toConsole }, texts.skip);
    const bar = h(
      'header',
      { class: 'bar' },
      skip,
      this.name,
      this.badge,
      this.tabs.element,
      this.title,
      this.toolRow,
      this.account,
      this.more,
    );
    this.stage.append(this.over);
    this.stage.addEventListener('pointerdown', () => this.toggleMore(false), true);
    bar.addEventListener('keydown', (event) => event.key === 'Escape' && this.toggleMore(false));
    this.element.append(bar, h('main', {}, this.stage, this.noticeArea), h('footer', {}, this.extraKeys.element));
    document.body.append(opensPanel(this.account, texts.account.button(''), () => this.accountPanel()));
    document.addEventListener('fullscreenchange', () => this.showTools(this.lastTools));
    // On a phone the on-screen keyboard covers part of the page: the console gets what is left.
    const fit = () =>
      document.documentElement.style.setProperty('--height', `${visualViewport?.height ?? innerHeight}px`);
    visualViewport?.addEventListener('resize', fit);
    fit();
    this.showTools([]);
  }

  private accountPanel(): HTMLElement {
    const t = texts.account;
    const guest = this.guestShown;
    const ends = guest?.ends
      ? new Date(guest.ends * 1000).toLocaleTimeString(texts.language, { timeStyle: 'short' })
      : null;
    if (this.out) return h('div', { class: 'content' }, h('p', {}, t.out));
    return h(
      'div',
      { class: 'content' },
      (guest?.person || ends) &&
        h('p', { 'data-testid': 'person' }, guest?.person ? t.signedIn(clean(guest.person, 80)) : t.nobody),
      guest?.by && h('p', { class: 'faint' }, t.by[guest.by]),
      h('p', { class: 'faint' }, ends ? t.ends(ends) : guest && t.noSession),
      ends && h('button', { type: 'button', 'data-testid': 'log-out', click: () => this.owner.logOut() }, t.logOut),
    );
  }

  /** Only the console in sight takes keys, and not while a panel covers it. */
  private drawInert(): void {
    for (const element of this.stage.querySelectorAll<HTMLElement>(':scope > .viewer')) {
      element.inert = !element.classList.contains('front') || !this.over.hidden;
    }
  }

  private toggleMore(open: boolean): void {
    this.element.classList.toggle('more-open', open);
    this.more.setAttribute('aria-expanded', String(open));
  }

  private extraTool(): Tool {
    const run = () => this.toggleExtra();
    return { id: 'extra-keys', label: texts.tool.extraKeys, icon: 'extraKeys', pressed: this.extraShown, run };
  }

  private toggleExtra(): void {
    this.extraShown = !this.extraShown;
    this.showTools(this.lastTools);
  }

  private drawExtra(): void {
    this.extraKeys.element.hidden = !this.extraShown || this.lastTools.length === 0 || !this.over.hidden;
  }

  private async fullScreen(): Promise<void> {
    if (document.fullscreenElement) return document.exitFullscreen();
    await document.documentElement.requestFullscreen().catch(() => undefined);
    this.owner.viewer()?.focus();
  }

  private nextTheme(): void {
    const now = THEMES.indexOf((recall('theme') ?? 'auto') as 'auto');
    this.theme(THEMES[(now + 1) % THEMES.length] ?? 'auto');
    this.showTools(this.lastTools);
  }

  private theme(theme: (typeof THEMES)[number]): void {
    remember('theme', theme);
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }
}

/** Whether notices of a console are out of sight; those of none are of the page. */
function isElsewhere(console: string): boolean {
  return console !== '' && console !== document.documentElement.dataset.console;
}
