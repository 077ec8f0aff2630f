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
}

export interface Guest {
  uuid: string;
  name: string;
  person: string;
  mode: 'control' | 'view';
  /** When the session ends, in seconds since 1970. */
  ends?: number;
  consoles: Console[];
  unreachable: { console: string; reason: string }[];
}

export function readGuest(json: unknown): Guest | null {
  if (!isObject(json) || typeof json.uuid !== 'string') return null;
  const session = isObject(json.session) ? json.session : {};
  return {
    uuid: json.uuid,
    name: text(json.name),
    person: text(json.person),
    mode: json.mode === 'control' ? 'control' : 'view',
    ends: typeof session.ends === 'number' ? session.ends : undefined,
    consoles: list(json.consoles).flatMap(readConsole),
    unreachable: list(json.unreachable).flatMap((one) =>
      isObject(one) && isConsole(one.console) ? [{ console: one.console, reason: text(one.reason) }] : [],
    ),
  };
}

function readConsole(json: unknown): Console[] {
  if (!isObject(json) || !isConsole(json.console)) return [];
  return [
    {
      console: json.console,
      path: json.console,
      reached: text(json.reached),
      added: json.added === true,
      spoke: typeof json.spoke === 'number' ? json.spoke : undefined,
      refused: typeof json.refused === 'string' ? json.refused : undefined,
    },
  ];
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
