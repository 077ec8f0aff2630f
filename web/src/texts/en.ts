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
  amount: (n: string, unit: number) =>
    `${n} ${unit === 0 && n === '1' ? 'byte' : ['bytes', 'kB', 'MB', 'GB'][unit]}`,
  /** What is printed on keys; others keep the browser's name. */
  keys: {
    Escape: 'Esc',
    Tab: 'Tab',
    Control: 'Ctrl',
    Alt: 'Alt',
    Super: 'Super',
    Delete: 'Del',
    Backspace: 'Backspace',
    PrintScreen: 'Print',
    ArrowUp: 'Up',
    ArrowDown: 'Down',
    ArrowLeft: 'Left',
    ArrowRight: 'Right',
  },

  console: {
    vnc: 'Display',
    spice: 'Display (SPICE)',
    serial: (n: number) => `Serial ${n}`,
    other: (n: number) => `Console ${n}`,
    cannot: (name: string) => `${name}: cannot be opened`,
    screen: (guest: string) => `Screen of ${guest}: keyboard and mouse go to the guest`,
    terminal: (guest: string, name: string) => `${name} of ${guest}: keys go to the guest`,
  },

  badge: { view: 'View only', viewTitle: 'You can watch; what you type or click is not sent.' },

  account: {
    button: (person: string) => person || 'Account',
    label: (person: string) => `Account: ${person}`,
    signedIn: (person: string) => `Signed in as ${person}`,
    by: { password: 'With a password.', ticket: 'By a link.' },
    nobody: 'Nobody is named in this session.',
    out: 'Nobody is logged in.',
    ends: (time: string) => `The session ends at ${time}.`,
    noSession: 'No login is needed for this guest.',
    logOut: 'Log out',
    notLoggedOut: 'You are still logged in: the proxy could not be told. Try again.',
  },

  tool: {
    fullScreen: 'Full screen',
    leaveFullScreen: 'Leave full screen',
    theme: { auto: 'Theme: same as the system', light: 'Theme: light', dark: 'Theme: dark' },
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
    screenReader: 'Screen reader',
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
    deniedDisplay: 'The browser does not let this page read the clipboard. Open Clipboard and paste the text there.',
    deniedTerminal: 'The browser does not let this page read the clipboard.',
    copied: 'Copied.',
    notCopied: 'The browser does not let this page write to the clipboard.',
    nothing: 'Nothing is selected.',
    empty: 'There is no text to type.',
    pasteTitle: 'Paste text',
    pasteLabel: 'Text to paste',
    osc52: (bytes: string, start: string) =>
      `A program in the guest wants to put ${bytes} into your clipboard: “${start}”`,
    osc52Accept: 'Copy it',
  },

  typing: {
    progress: (done: number, all: number) => `Typing: ${done} of ${all}`,
    pasting: (done: string, all: string) => `Pasting: ${done} of ${all}`,
    unknown: (n: number) =>
      n === 1
        ? '1 character has no key on a US keyboard and was left out.'
        : `${n} characters have no key on a US keyboard and were left out.`,
  },

  terminal: {
    title: (words: string) => `Guest’s title: ${words}`,
    dropped: (bytes: string) => `${bytes} of output came faster than it could be shown and was left out`,
    droppedNotice: (bytes: string) => `Not shown: ${bytes} of output. A line among the output says where.`,
    gap: (bytes: string | null) =>
      bytes === null ? 'output is missing here' : `${bytes} ${bytes.endsWith('bytes') ? 'are' : 'is'} missing here`,
    again: 'connected again',
    link: (address: string) => `Link from the guest: ${address}`,
    copyLink: 'Copy the address',
    getty: {
      title: 'This port has said nothing yet',
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

  vnc: { foreign: 'the display’s server speaks something that this page does not understand' },

  password: {
    title: 'The display asks for a password',
    label: 'Password',
    user: 'User name',
    again: 'That was not right. Try again.',
    ok: 'Connect',
  },

  login: {
    title: 'Log in',
    user: 'User name',
    password: 'Password',
    send: 'Log in',
    checking: 'Checking…',
    again: (seconds: number) => `Next attempt in ${seconds} s.`,
    link: 'Or open a link to this guest: from your panel, or as printed on the host by',
    other: 'Log in as somebody else',
    problem: {
      'no-user': 'Enter your user name on the host.',
      'no-password': 'Enter your password.',
      colon: 'A user name with a colon (:) cannot be sent from a browser. Open a link instead.',
    },
    refused: {
      wrong: 'User name or password is wrong.',
      silent: 'The proxy does not answer. Check the network, and try again.',
      limited: 'Too many attempts. Try again in a moment.',
      limitedFor: (seconds: number) => `Too many attempts. Try again in ${seconds} s.`,
      noRight: (reason: string) => `You may not enter here${reason ? `: ${reason}` : ''}.`,
      unavailable: (reason: string) =>
        `The password cannot be checked now; it may be right. Try again later.${reason ? ` (${reason})` : ''}`,
      other: (reason: string) => `The proxy did not take it${reason ? `: ${reason}` : ''}.`,
    },
  },

  whose: {
    title: 'Whose session is it to be?',
    body: (link: string, here: string) =>
      `This link opens the consoles as ${link}. You are here as ${here}. Whatever you do is noted under the name that you choose.`,
    nobody: 'nobody (no name)',
    goOn: (link: string) => `Go on as ${link}`,
    stay: (here: string) => `Stay as ${here}`,
    byLink: (person: string) => `You are here as ${person}, by a link.`,
  },

  state: {
    connecting: { title: 'Connecting…', body: (name: string) => `Opening ${name}.` },
    off: {
      title: 'The guest is off',
      body: 'The page connects again by itself as soon as the guest runs.',
    },
    notAllowed: {
      title: 'Not allowed',
      body: 'Your session does not allow this. Ask whoever gave you the link, or looks after the host, for one that does.',
    },
    noPassword: {
      title: 'No password was given',
      body: 'The display asks for one before it shows itself.',
      action: 'Try again',
    },
    ended: {
      title: 'The session has ended',
      out: 'You are logged out',
      none: 'A link or a session is needed',
      body: 'To get in again, open a new link: from your panel, or as printed on the host by',
      command: (guest: string) => `console-proxy url ${guest || 'GUEST'}`,
      action: 'Try again',
    },
    taken: {
      title: 'Someone else took this console',
      body: 'Nothing is lost: you can take it back, which ends their connection.',
      action: 'Take it back',
    },
    busy: {
      title: 'This console is in use',
      body: 'Try again when others have left it.',
      action: 'Try again',
    },
    unreachable: {
      title: 'The console cannot be reached',
      body: 'The proxy answers, but the guest’s side of this console does not.',
      action: 'Try now',
    },
    lost: {
      title: 'The connection is lost',
      body: 'The connection broke off. The page keeps trying.',
      action: 'Try now',
    },
    refused: {
      title: 'The browser’s websocket was refused',
      body: 'The page itself loads, so the proxy runs. Most often the browser does not trust the certificate for websockets: open this address in a tab of its own, accept the certificate or install its authority, and reload. A reverse proxy in between may also not pass websockets on.',
      action: 'Try again',
    },
    cannot: { title: 'This console cannot be opened', action: 'Try again' },
    none: {
      title: 'This guest has no console that can be opened',
      body: 'Its definition has neither a display nor a serial port that can be reached, or your link names none of them.',
      action: 'Try again',
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
      '#no-password': '',
      '#no-cookie': 'the browser does not keep the session: it refuses this page’s cookie',
      '#foreign': 'something else than the proxy answered, perhaps a page of a server in between',
    } as Record<string, string>,
    connected: 'Connected',
  },

  session: {
    soon: (minutes: number) => `The session ends in ${minutes} min.`,
    kept: (reason: string) =>
      `The link was not accepted${reason ? ` (${reason})` : ''}. The session that you had before goes on.`,
  },

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
