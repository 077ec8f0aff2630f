// What a viewer is to the page: it shows one console in an element, and offers tools. One file per protocol follows
// this; each is loaded when its first tab is opened.

import type { Closing } from '../rules/closing';
import type { KeyName } from '../rules/keys';

export interface ViewerHost {
  console: string;
  /** The guest's name, as it was told: text. */
  guest: string;
  viewOnly: boolean;
  /** The number of a serial port on which nothing runs yet: the viewer says how to start a getty. */
  silentPort: number | null;
  /** The console shows itself. */
  ready(): void;
  closed(closing: Closing): void;
  /** A person is asked for something: no deadline meanwhile. */
  person(asked: boolean): void;
  /** Asks for a password, once the console is in front; null: the person would not, or `over`: nobody needs it. */
  password(wanted: { user: boolean; again: boolean }, over: AbortSignal): Promise<Password | null>;
  /** A line above the console; null takes it away. */
  notice(id: string, notice: Notice | null): void;
  /** The title that a program in the guest gave its terminal; cleaned. */
  title(words: string): void;
  /** Tools changed: labels, what is pressed, what there is. */
  changed(): void;
  /** Held extra keys (Control, Alt) were let go by the viewer. */
  released(): void;
}

export interface Password {
  user: string;
  password: string;
}

export interface Notice {
  text: string;
  actions?: { label: string; run(): void }[];
  /** Progress and the like goes by itself; without it there is a button to close. */
  passing?: boolean;
  /** Goes away after a while. */
  brief?: boolean;
  /** A person closed it. */
  closed?(): void;
}

export interface Tool {
  id: string;
  label: string;
  /** Shown beside the icon, or in its place. */
  text?: string;
  icon?: string;
  pressed?: boolean;
  disabled?: boolean;
  run?(): void;
  menu?: { label: string; run(): void }[];
  /** A panel that opens below the button. */
  panel?(): HTMLElement;
}

export interface Viewer {
  readonly element: HTMLElement;
  /** Starts another attempt; the one before has ended. */
  connect(client: string): void;
  disconnect(): void;
  focus(): void;
  /** The tab came into sight or left it: then Control and Alt of the extra keys are let go. */
  shown(visible: boolean): void;
  tools(): Tool[];
  /** A key of the extra bar. */
  press(name: KeyName): void;
  hold(name: 'Control' | 'Alt', held: boolean): void;
}

export type OpenViewer = (host: ViewerHost) => Viewer;

/** Loads the viewer for a console. */
export async function load(console: string): Promise<OpenViewer> {
  switch (console) {
    case 'vnc':
      return (await import('./vnc')).open;
    case 'spice':
      return (await import('./spice')).open;
    default:
      return (await import('./terminal')).open;
  }
}
