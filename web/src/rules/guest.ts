// What `GET api/guest` tells, read strictly: whatever does not fit is left out, so that the page never trusts a shape.

export interface Console {
  console: string;
  path: string;
  reached: string;
  added: boolean;
  /** Seconds since it last said something; undefined: unknown. */
  spoke?: number;
  /** Why it cannot be opened. */
  refused?: string;
  /** What the person may on this one. */
  mode: Mode;
}

export type Mode = 'control' | 'view';

export interface Guest {
  uuid: string;
  name: string;
  person: string;
  /** The most that the person may on any console. */
  mode: Mode;
  /** When the session ends, in seconds since 1970; undefined: there is none. */
  ends?: number;
  /** What bought the session. */
  by?: 'password' | 'ticket';
  consoles: Console[];
  unreachable: { console: string; reason: string }[];
}

export function readGuest(json: unknown): Guest | null {
  if (!isObject(json) || typeof json.uuid !== 'string') return null;
  const session = isObject(json.session) ? json.session : {};
  const mode = readMode(json.mode) ?? 'view';
  return {
    uuid: json.uuid,
    name: text(json.name),
    person: text(json.person),
    mode,
    ends: typeof session.ends === 'number' ? session.ends : undefined,
    by: session.by === 'password' || session.by === 'ticket' ? session.by : undefined,
    consoles: list(json.consoles).flatMap((one) => readConsole(one, mode)),
    unreachable: list(json.unreachable).flatMap((one) =>
      isObject(one) && isConsole(one.console) ? [{ console: one.console, reason: text(one.reason) }] : [],
    ),
  };
}

function readConsole(json: unknown, most: Mode): Console[] {
  if (!isObject(json) || !isConsole(json.console)) return [];
  return [
    {
      console: json.console,
      path: json.console,
      reached: text(json.reached),
      added: json.added === true,
      spoke: typeof json.spoke === 'number' ? json.spoke : undefined,
      refused: typeof json.refused === 'string' ? json.refused : undefined,
      mode: json.mode === undefined ? most : (readMode(json.mode) ?? 'view'),
    },
  ];
}

function readMode(json: unknown): Mode | null {
  return json === 'control' || json === 'view' ? json : null;
}

/** Whether what is open was made for another person or for other rights than there are now. */
export function isAnother(was: Guest, now: Guest): boolean {
  const modes = new Map(now.consoles.map((one) => [one.console, one.mode]));
  const changed = was.consoles.some(({ console, mode }) => (modes.get(console) ?? mode) !== mode);
  return was.person !== now.person || was.mode !== now.mode || changed;
}

/** `vnc`, `spice`, `serial/N`, `console/N`: so it is also safe as a path below the page's. */
export function isConsole(word: unknown): word is string {
  return typeof word === 'string' && /^(vnc|spice|(serial|console)\/\d{1,5})$/.test(word);
}

export function isDisplay(console: string): boolean {
  return console === 'vnc' || console === 'spice';
}

/** The N of `serial/N` and `console/N`. */
export function numberOf(console: string): number {
  return Number(console.split('/')[1] ?? 0);
}

/** What the person may on a console. */
export function modeOf(guest: Guest | null, console: string | null): Mode {
  return guest?.consoles.find((one) => one.console === console)?.mode ?? guest?.mode ?? 'view';
}

/** What to call the guest in a command for a shell: the name only where a shell reads it as one word. */
export function commandName({ name, uuid }: Pick<Guest, 'name' | 'uuid'>): string {
  return [name, uuid].find((one) => /^[A-Za-z0-9][A-Za-z0-9_.+-]*$/.test(one)) ?? '';
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
