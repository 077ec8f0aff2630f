// The states of one console's connection, as a person can tell them apart, and what leads from one to the next. Pure:
// whoever drives it does the effects and reports what came of them. `doubt` and `wait: null` mean that the proxy has
// been asked (`GET api/guest`) and the answer decides.

import { backoff } from './backoff';
import { verdict, type Closing } from './closing';

/** What a question to the proxy brought. */
export type Answer =
  | { kind: 'ok'; known: boolean; refused?: string; unreachable?: string }
  /** `login`: the proxy takes passwords. */
  | { kind: 'status'; status: number; reason: string; login?: boolean }
  /** The address has a ticket of one person, and the browser a session of another. */
  | { kind: 'whose'; link: string; here: string }
  | { kind: 'silent' };

export type Doubt = 'entry' | 'deadline' | Closing;

export type State =
  | { name: 'connecting'; attempt: number; doubt: Doubt | null }
  | { name: 'connected'; attempt: number }
  | { name: 'guest-off' | 'unreachable' | 'lost'; reason: string; attempt: number; wait: number | null }
  /** `asked`: whether a password would do has been asked. */
  | { name: 'ended'; reason: string; asked?: boolean }
  | { name: 'not-allowed'; reason: string; login?: boolean }
  | { name: 'login' | 'taken-over' | 'busy' | 'websocket-refused'; reason: string }
  | { name: 'whose'; link: string; here: string };

export type StateName = State['name'];

export type Event =
  /** The page was opened: nothing is known yet. */
  | { type: 'enter' }
  /** A tab is opened, or a person wants another attempt. */
  | { type: 'start' }
  /** The console shows itself. */
  | { type: 'ready' }
  /** The socket ended; `lasted`: milliseconds since `ready`. */
  | { type: 'closed'; closing: Closing; lasted: number }
  | { type: 'deadline' }
  | { type: 'answer'; answer: Answer }
  /** The wait is over. */
  | { type: 'due' }
  /** The network came back, or the page came into sight: worth an attempt before its time. */
  | { type: 'nudge' }
  | { type: 'logged-out' };

export type Effect = { do: 'connect' } | { do: 'ask' } | { do: 'drop' } | { do: 'wait'; ms: number };

export interface Step {
  state: State;
  effects: Effect[];
}

type Told = Exclude<Answer, { kind: 'whose' }>;
type Waiting = Extract<State, { wait: number | null }>;
type Out = Extract<State, { name: 'ended' | 'login' }>;
type Final = Exclude<State, { attempt: number }>;

/** A connection that lasted this long was a good one: the next attempt comes soon again. */
const GOOD = 10_000;
/** Marks reasons that are ours: the page puts them in words. */
export const OWN = {
  deadline: '#deadline',
  gone: '#gone',
  loggedOut: '#logged-out',
  silent: '#silent',
  /** A question for a password was closed. */
  noPassword: '#no-password',
  /** Something answered that is not the proxy. */
  foreign: '#foreign',
  /** A session was made, and its cookie did not come back. */
  noCookie: '#no-cookie',
} as const;

export const start: State = { name: 'connecting', attempt: 0, doubt: null };

/** The next state and what is to be done. `chance` is in [0, 1). */
export function step(state: State, event: Event, chance: number): Step {
  switch (event.type) {
    case 'enter':
      return go({ name: 'connecting', attempt: 0, doubt: 'entry' }, { do: 'ask' });
    case 'start':
      return go({ name: 'connecting', attempt: 0, doubt: null }, { do: 'drop' }, { do: 'connect' });
    case 'logged-out':
      return go({ name: 'ended', reason: OWN.loggedOut, asked: true }, { do: 'drop' }, { do: 'ask' });
    case 'ready':
      return state.name === 'connecting' ? go({ name: 'connected', attempt: state.attempt }) : go(state);
    case 'deadline':
      if (state.name !== 'connecting' || state.doubt) return go(state);
      return go({ ...state, doubt: 'deadline' }, { do: 'drop' }, { do: 'ask' });
    case 'closed':
      return closed(state, event.closing, event.lasted, chance);
    case 'answer':
      return answered(state, event.answer, chance);
    case 'due':
      return waits(state) && state.wait !== null ? go({ ...state, wait: null }, { do: 'ask' }) : go(state);
    case 'nudge':
      if (isOut(state) && state.reason !== OWN.loggedOut) return go(state, { do: 'ask' });
      return waits(state) && state.wait !== null ? go({ ...state, wait: null }, { do: 'ask' }) : go(state);
  }
}

function closed(state: State, closing: Closing, lasted: number, chance: number): Step {
  if (state.name !== 'connected' && !(state.name === 'connecting' && !state.doubt)) return go(state);
  const was = state.name === 'connected';
  const attempt = was && lasted >= GOOD ? 0 : state.attempt + 1;
  const { reason } = closing;
  switch (verdict(closing)) {
    case 'ended':
      return go({ name: 'ended', reason, asked: true }, { do: 'ask' });
    case 'not-allowed':
      return go({ name: 'not-allowed', reason });
    case 'occupied':
      return go({ name: was ? 'taken-over' : 'busy', reason });
    case 'limit':
      return go({ name: 'busy', reason });
    case 'guest-off':
      return wait({ name: 'guest-off', reason, attempt }, chance);
    case 'unreachable':
      return wait({ name: 'unreachable', reason, attempt }, chance);
    case 'proxy-stops':
    case 'client-lost':
      return wait({ name: 'lost', reason, attempt }, chance);
    case 'unclear':
      if (was) return wait({ name: 'lost', reason, attempt }, chance);
      return go({ ...state, doubt: closing } as State, { do: 'ask' });
  }
}

function answered(state: State, answer: Answer, chance: number): Step {
  const asked = isOut(state) || (state.name === 'connecting' && state.doubt) || (waits(state) && state.wait === null);
  if (answer.kind === 'whose') return go(asked ? { name: 'whose', link: answer.link, here: answer.here } : state);
  if (isOut(state)) return stillOut(state, answer);
  if (state.name === 'connecting' && state.doubt) return whyNot(state.attempt, state.doubt, answer, chance);
  if (waits(state) && state.wait === null) {
    if (answer.kind === 'ok') return usable(answer, state.attempt, chance) ?? connect(state.attempt);
    return unusable(answer, state, chance);
  }
  return go(state);
}

/** Whoever is out is in again by another tab; or can get in with a password. */
function stillOut(state: Out, answer: Told): Step {
  const asked = state.name === 'ended' && state.asked;
  if (answer.kind === 'status' && answer.status === 401 && answer.login && state.name === 'ended') {
    return go({ name: 'login', reason: state.reason || answer.reason });
  }
  // A console that ends sessions which the proxy takes for good would be tried for ever.
  if (asked) return go({ name: 'ended', reason: state.reason });
  return answer.kind === 'ok' ? connect(0) : go(state);
}

/** The proxy was asked because an attempt failed without a reason. */
function whyNot(attempt: number, doubt: Doubt, answer: Told, chance: number): Step {
  if (answer.kind !== 'ok') return unusable(answer, { name: 'lost', attempt }, chance);
  if (doubt === 'entry') return connect(0);
  const no = usable(answer, attempt, chance);
  if (no) return no;
  if (doubt === 'deadline') return wait({ name: 'unreachable', reason: OWN.deadline, attempt: attempt + 1 }, chance);
  // The proxy answers requests, but the websocket came to nothing: once may be a restart between the two.
  if (!doubt.opened) return attempt === 0 ? connect(1) : go({ name: 'websocket-refused', reason: doubt.reason });
  return wait({ name: 'lost', reason: doubt.reason, attempt: attempt + 1 }, chance);
}

/** What speaks against connecting though the proxy answers. */
function usable(answer: Extract<Answer, { kind: 'ok' }>, attempt: number, chance: number): Step | null {
  if (!answer.known) return wait({ name: 'unreachable', reason: OWN.gone, attempt: attempt + 1 }, chance);
  if (answer.unreachable !== undefined) {
    return wait({ name: 'unreachable', reason: answer.unreachable, attempt: attempt + 1 }, chance);
  }
  if (answer.refused !== undefined) return go({ name: 'not-allowed', reason: answer.refused });
  return null;
}

function unusable(
  answer: Exclude<Told, { kind: 'ok' }>,
  was: Pick<Waiting, 'name' | 'attempt'> & { reason?: string },
  chance: number,
): Step {
  const attempt = was.attempt + 1;
  // A port that is closed tells no difference between a guest that is off and a network that is gone: what was known
  // before stays true.
  if (answer.kind === 'silent') {
    return wait({ name: was.name, reason: was.reason ?? OWN.silent, attempt }, chance);
  }
  const { status, reason } = answer;
  if (status === 401) return go({ name: answer.login ? 'login' : 'ended', reason });
  if (status === 403) return go({ name: 'not-allowed', reason, login: answer.login });
  // A front server has no socket to reach for a guest that is off, and says one of these in the proxy's place.
  if ([404, 502, 503, 504].includes(status)) return wait({ name: 'guest-off', reason, attempt }, chance);
  return wait({ name: 'lost', reason, attempt }, chance);
}

/** The proxy lets nobody in as things are. */
export function isOut(state: State): state is Out {
  return state.name === 'ended' || state.name === 'login';
}

function waits(state: State): state is Waiting {
  return 'wait' in state;
}

function wait(state: Omit<Waiting, 'wait'>, chance: number): Step {
  const ms = backoff(state.attempt, chance);
  return go({ ...state, wait: ms }, { do: 'wait', ms });
}

function connect(attempt: number): Step {
  return go({ name: 'connecting', attempt, doubt: null }, { do: 'connect' });
}

function go(state: State, ...effects: Effect[]): Step {
  return { state, effects };
}

/** Whether a person has to act before anything goes on. */
export function isFinal(state: State): state is Final {
  return !('attempt' in state);
}
