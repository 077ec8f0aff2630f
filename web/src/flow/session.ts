// One console's connection: drives the states, owns the timers and the viewer. Knows nothing of how it is shown.

import { modeOf, numberOf, type Guest } from '../rules/guest';
import type { Got } from '../edges/api';
import { isFinal, start, step, type Answer, type Event, type State } from '../rules/state';
import { load, type Viewer, type ViewerHost } from '../viewers/viewer';

/** How long a console may take to show itself. */
const DEADLINE = 20_000;

export interface SessionPage {
  /** Asks the proxy what it knows of the guest; several askers share one request. */
  ask(): Promise<Got>;
  guest(): Guest | null;
  changed(): void;
  viewer(viewer: Viewer): void;
  host(console: string): Pick<ViewerHost, 'password' | 'notice' | 'title' | 'changed' | 'released'>;
}

export class Session {
  state: State = start;
  viewer: Viewer | null = null;
  /** The viewer's program could not be loaded. */
  broken = false;
  /** When the next attempt is due, in `Date.now()`. */
  due = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private deadline: ReturnType<typeof setTimeout> | undefined;
  private readyAt = 0;
  private loading: Promise<void> | null = null;
  private taken = 0;

  /** `console` null: the page itself, which has no console yet; `connected` is then called instead of a viewer. */
  constructor(
    readonly console: string | null,
    private readonly client: string,
    private readonly page: SessionPage,
    private readonly entered?: () => void,
  ) {}

  /** Something happened. */
  tell(event: Event): void {
    const before = this.state;
    const { state, effects } = step(before, event, Math.random());
    this.state = state;
    if (state !== before) {
      clearTimeout(this.timer);
      clearTimeout(this.deadline);
    }
    // For a moment the proxy keeps out whoever lost a display; who takes it back on purpose comes as another client.
    if (event.type === 'start' && (before.name === 'taken-over' || before.name === 'busy')) this.taken++;
    if (isFinal(state)) this.viewer?.disconnect();
    for (const effect of effects) {
      if (effect.do === 'wait') this.wait(effect.ms);
      else if (effect.do === 'ask') void this.ask();
      else if (effect.do === 'drop') this.viewer?.disconnect();
      else void this.connect();
    }
    this.page.changed();
  }

  private wait(ms: number): void {
    this.due = Date.now() + ms;
    this.timer = setTimeout(() => this.tell({ type: 'due' }), ms);
  }

  private async ask(): Promise<void> {
    const got = await this.page.ask();
    this.tell({ type: 'answer', answer: got.kind === 'ok' ? this.known(got.guest) : got });
  }

  private known(guest: Guest): Answer {
    if (this.console === null) return { kind: 'ok', known: true };
    const console = guest.consoles.find((one) => one.console === this.console);
    const unreachable = guest.unreachable.find((one) => one.console === this.console)?.reason;
    return { kind: 'ok', known: !!console || unreachable !== undefined, refused: console?.refused, unreachable };
  }

  private async connect(): Promise<void> {
    if (this.console === null) return this.entered?.();
    this.watch();
    this.loading ??= this.open(this.console);
    await this.loading;
    if (this.state.name !== 'connecting' || this.state.doubt) return;
    this.viewer?.connect(this.taken ? `${this.client}-${this.taken}` : this.client);
  }

  private async open(console: string): Promise<void> {
    try {
      const open = await load(console);
      this.viewer = open(this.host(console));
      this.page.viewer(this.viewer);
    } catch (error) {
      // The files of an older page are gone after an update.
      globalThis.console.error(error);
      this.loading = null;
      this.broken = true;
      clearTimeout(this.deadline);
      this.page.changed();
    }
  }

  private watch(): void {
    clearTimeout(this.deadline);
    this.deadline = setTimeout(() => this.tell({ type: 'deadline' }), DEADLINE);
  }

  private host(console: string): ViewerHost {
    const guest = this.page.guest();
    return {
      ...this.page.host(console),
      console,
      guest: guest?.name ?? '',
      viewOnly: modeOf(guest, console) !== 'control',
      silentPort: silentPort(guest, console),
      ready: () => {
        this.readyAt = Date.now();
        this.tell({ type: 'ready' });
      },
      closed: (closing) => this.tell({ type: 'closed', closing, lasted: Date.now() - this.readyAt }),
      person: (asked) => (asked ? clearTimeout(this.deadline) : this.watch()),
    };
  }
}

/** The number of a serial port that wiring added and that never said anything: nothing runs on it yet. */
function silentPort(guest: Guest | null, console: string): number | null {
  const known = guest?.consoles.find((one) => one.console === console);
  return known?.added && known.spoke === undefined && console.startsWith('serial/') ? numberOf(console) : null;
}
