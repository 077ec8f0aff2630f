// Every word that the page says, in English. Another language is another file with this shape.

export const en = {
  language: 'en',
  product: 'console-proxy',
  title: (guest: string, console: string) => `${guest} – ${console}`,
  untitled: 'Guest console',
  skip: 'Go to the console',
  consoles: 'Consoles',
  tools: 'Tools',
  menu: 'Menu',
  close: 'Close',
  cancel: 'Cancel',

  console: {
    vnc: 'Display',
    spice: 'Display (SPICE)',
    serial: (n: number) => `Serial ${n}`,
    other: (n: number) => `Console ${n}`,
    cannot: (name: string) => `${name}: cannot be opened`,
    screen: (guest: string) => `Screen of ${guest}: keyboard and mouse go to the guest`,
    terminal: (guest: string, name: string) => `${name} of ${guest}: keys go to the guest`,
  },

  badge: { view: 'View only', viewTitle: 'You may look on; what you type or click is not sent.' },

  account: {
    button: (person: string) => person || 'Account',
    label: (person: string) => `Account: ${person}`,
    signedIn: (person: string) => `Signed in as ${person}`,
    nobody: 'Nobody is named in this session.',
    ends: (time: string) => `The session ends at ${time}.`,
    noSession: 'There is no session: this guest needs none.',
    logOut: 'Log out',
  },

  tool: {
    fullScreen: 'Full screen',
    leaveFullScreen: 'Leave full screen',
    theme: { auto: 'Theme: as the system', light: 'Theme: light', dark: 'Theme: dark' },
    help: 'Help',
    ctrlAltDel: 'Ctrl-Alt-Del',
    keys: 'Keys',
    clipboard: 'Clipboard',
    typeClipboard: 'Type clipboard as keys',
    scale: 'Scale to fit',
    resize: 'Match the guest’s screen to the window',
    keyboard: 'On-screen keyboard',
    extraKeys: 'Extra keys',
    search: 'Search',
    copy: 'Copy the selection',
    paste: 'Paste',
    smaller: 'Smaller text',
    larger: 'Larger text',
    setSize: (rows: number, cols: number) => `Set terminal size (types: stty rows ${rows} cols ${cols})`,
    download: 'Download the scrollback',
    extra: {
      Escape: 'Esc',
      Tab: 'Tab',
      Control: 'Ctrl',
      Alt: 'Alt',
      ArrowUp: 'Up',
      ArrowDown: 'Down',
      ArrowLeft: 'Left',
      ArrowRight: 'Right',
    },
  },

  search: {
    label: 'Search the terminal',
    next: 'Next',
    previous: 'Previous',
    none: 'Not found',
    found: (n: number, all: number) => `${n} of ${all}`,
  },

  clipboard: {
    title: 'Clipboard',
    label: 'Text for the guest, and from it',
    send: 'Send to the guest',
    copy: 'Copy to this computer',
    type: 'Type as keys',
    fetch: 'Read this computer’s clipboard',
    sync: 'Keep both clipboards the same where the browser allows it',
    noText: 'This display cannot exchange clipboard text: type it as keys.',
    fromGuest: 'The guest set its clipboard.',
    denied: 'The browser does not let this page read the clipboard: paste the text into the field.',
    copied: 'Copied.',
    notCopied: 'The browser does not let this page write to the clipboard.',
    nothing: 'Nothing is selected.',
    empty: 'There is no text to type.',
    pasteTitle: 'Paste text',
    pasteLabel: 'Text to paste',
    osc52: (bytes: string) => `A program in the guest wants to put ${bytes} into your clipboard.`,
    osc52Accept: 'Copy it',
  },

  typing: {
    progress: (done: number, all: number) => `Typing: ${done} of ${all}`,
    pasting: (done: string, all: string) => `Pasting: ${done} of ${all}`,
    unknown: (n: number) => `${n} characters have no key on a US keyboard and were left out.`,
  },

  terminal: {
    title: (words: string) => `Guest’s title: ${words}`,
    dropped: (bytes: string) => `${bytes} of output came faster than they could be shown and were left out`,
    droppedNotice: (bytes: string) => `Not shown: ${bytes} of output that came too fast.`,
    gap: (bytes: string | null) => (bytes === null ? 'output is missing here' : `${bytes} are missing here`),
    again: 'connected again',
    link: (address: string) => `Link from the guest: ${address}`,
    copyLink: 'Copy the address',
    getty: {
      title: 'Nothing is running on this port yet',
      body: 'console-proxy added this serial port. To get a login prompt here, run in the guest:',
      command: (n: number) => `systemctl enable --now serial-getty@ttyS${n}.service`,
      copy: 'Copy the command',
    },
  },

  spice: {
    errors: {
      '3': 'the display did not understand the request',
      '4': 'the display speaks another version of SPICE',
      '5': 'the display wants TLS',
      '6': 'the display wants a connection without TLS',
      '8': 'the display does not know this connection any more',
      '9': 'the display lacks this channel',
    } as Record<string, string>,
    other: (words: string) => `the display refused: ${words}`,
  },

  password: {
    title: 'The display asks for a password',
    label: 'Password',
    user: 'User name',
    again: 'That was not right. Try again.',
    ok: 'Connect',
    cancelled: 'No password was given.',
  },

  state: {
    connecting: { title: 'Connecting…', body: (name: string) => `Opening ${name}.` },
    off: {
      title: 'The guest is off',
      body: 'The page connects again by itself as soon as the guest runs.',
    },
    notAllowed: {
      title: 'Not allowed',
      body: 'Your session does not give you this. Ask whoever gave you the link for one that does.',
    },
    ended: {
      title: 'The session has ended',
      out: 'You are logged out',
      none: 'A link or a session is needed',
      body: 'To get in again, open a new link: from your panel, or as printed on the host by',
      command: (guest: string) => `console-proxy url ${guest || 'GUEST'}`,
    },
    taken: {
      title: 'Someone else took this console',
      body: 'Nothing is lost: you can take it back, which ends their connection.',
      action: 'Take it back',
    },
    busy: {
      title: 'This console is in use',
      body: 'It becomes free when the others leave it.',
      action: 'Try again',
    },
    unreachable: {
      title: 'The console cannot be reached',
      body: 'The proxy answers, but the guest’s side of this console does not.',
      action: 'Try now',
    },
    lost: {
      title: 'The connection is lost',
      body: 'The proxy cannot be reached: the network may be gone, or the guest is off. The page keeps trying.',
      action: 'Try now',
    },
    refused: {
      title: 'The browser’s websocket was refused',
      body: 'The page itself loads, so the proxy runs. Most often the browser does not trust the certificate for websockets: open this address in a tab of its own, accept the certificate or install its authority, and reload. A reverse proxy in between may also not pass websockets on.',
      action: 'Try again',
    },
    cannot: { title: 'This console cannot be opened' },
    none: {
      title: 'This guest has no console that can be opened',
      body: 'Its definition has neither a display nor a serial port that can be reached, or your link names none of them.',
    },
    failed: {
      title: 'A part of the page could not be loaded',
      body: 'The proxy may have been updated meanwhile. Reload the page.',
      action: 'Reload',
    },
    retryIn: (seconds: number) => `Next attempt in ${seconds} s.`,
    trying: 'Trying…',
    reason: (words: string) => `Reason given: ${words}`,
    own: {
      '#deadline': 'there was no answer in time',
      '#gone': 'the guest no longer has this console',
      '#logged-out': '',
      '#silent': '',
    } as Record<string, string>,
    connected: 'Connected',
  },

  session: { soon: (minutes: number) => `The session ends in ${minutes} min.` },

  help: {
    title: 'Help',
    leave: 'Leave the console by keyboard',
    leaveBody:
      'Hold Ctrl, Alt and Shift together and let go: the focus moves to the bar at the top. Arrow keys walk along the tabs, Enter goes back into the console.',
    display: 'Displays',
    displayBody: 'Keys that the browser keeps for itself are under “Keys”. Text is typed as on a US keyboard.',
    terminal: 'Text consoles',
    terminalBody:
      'Paste with Ctrl+Shift+V, copy with Ctrl+Shift+C or the buttons. A serial line does not know the window’s size: “Set terminal size” types the command that tells it. What programs in the guest copy (OSC 52) reaches your clipboard only after you agree; they can never read it.',
    licences: 'Licences of the software in this page',
  },
};

export type Texts = typeof en;
