//! `console-proxy console`: a guest's text console in this terminal, through the guest's own port like any other
//! client's, so that rights, audit and everything else are the proxy's.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::ticket::{self, Order};
use crate::edges::http::{NoWebsocket, upgrade_console};
use crate::edges::paths::Paths;
use crate::edges::{dial, files, tls, tty};
use crate::flow::attach::{self, Left, Person};
use crate::rules::config::parse_span;
use crate::rules::escape::Escape;
use crate::rules::guest::{Console, printable};
use crate::rules::ssh::Granted;
use crate::rules::ticket::{Mode, Pattern};

/// The life of a ticket that is used at once, in seconds.
pub const LIFE: u64 = 30;
/// How long the guest's port may take for all that comes before the first byte.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the last output may take to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// What to open, and how to leave it.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The guest: an id, a name or a UUID.
    guest: String,
    /// serial/N or console/N; by default the first serial port, else the first other text console.
    console: Option<Console>,
    /// Look on, but do not type.
    #[arg(long)]
    view: bool,
    /// The key that leaves: ^] or another of ^A to ^_, a character, or none.
    #[arg(long, value_name = "KEY", default_value = "^]")]
    escape: Escape,
    /// Where the input is no terminal: leave when the guest has said nothing for this long after its end.
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = parse_span)]
    silence: Duration,
    /// The person, for the audit; by default who called sudo, else who logged in.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// The verb.
pub fn run(paths: &Paths, arguments: &Arguments) -> Result<ExitCode> {
    let config = files::config(paths)?;
    let route = ticket::published(paths, &arguments.guest)?;
    let console = route.text_console(arguments.console).map_err(anyhow::Error::msg)?;
    let path = paths.below_root(&config.tls.certificate);
    let certificate = files::read(&path, 1 << 20).with_context(|| format!("cannot read {}", path.display()))?;
    let certificate = certificate
        .with_context(|| format!("{} does not exist: `systemctl start console-proxy-keys`", path.display()))?;
    let person = ticket::person(arguments.user.as_deref())?;
    let mode = if arguments.view { Mode::View } else { Mode::Control };
    let consoles = [Pattern::One(console)];
    let token = ticket::issue(paths, &route, &Order { consoles: &consoles, mode, life: LIFE, person: &person })?;
    let address = config.listen.from_here(route.port);
    let granted = Granted { name: route.name, console, address, token, certificate };
    let manner = Manner { view: arguments.view, escape: arguments.escape, silence: arguments.silence };
    open(&granted, &manner)
}

/// How a console is used.
#[derive(Debug)]
pub struct Manner {
    /// Look on, but do not type.
    pub view: bool,
    /// The key that leaves, in a terminal.
    pub escape: Escape,
    /// From a pipe: how long the guest must be silent after its end.
    pub silence: Duration,
}

/// Connects this terminal, or these pipes, to the console until one of them ends. The exit code: 0 left, 3 ended by the
/// other side, 128 and its number for a signal.
pub fn open(granted: &Granted, manner: &Manner) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let left = tokio::task::LocalSet::new().block_on(&runtime, attach(granted, manner));
    // Its threads wait for input: they end with the process.
    runtime.shutdown_background();
    let (code, words) = match left? {
        Left::Person | Left::InputEnded => (0, "left".to_owned()),
        Left::NobodyReads => return Ok(ExitCode::SUCCESS),
        Left::Signal(number) => return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))),
        Left::Closed(code, words) if words.is_empty() => (3, format!("the proxy closed (code {code})")),
        Left::Closed(_, words) => (3, printable(&words)),
        Left::Broken(why) => (3, format!("the connection broke: {}", printable(&why))),
    };
    say(&format!("{} of {}: {words}", granted.console, printable(&granted.name)));
    Ok(ExitCode::from(code))
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "console-proxy: {line}");
}

async fn attach(granted: &Granted, manner: &Manner) -> Result<Left> {
    let (proxy, early) = tokio::time::timeout(PATIENCE, connect(granted)).await.unwrap_or_else(|_| {
        bail!("{} does not answer: `systemctl status 'console-proxy@*'` shows its proxy", granted.address)
    })?;
    let terminal = tty::is_input_a_terminal();
    let how = match (terminal, manner.view) {
        (true, false) if manner.escape != Escape::NONE => format!("; {} leaves", manner.escape),
        (true, true) if manner.escape != Escape::NONE => format!(", to look on; {} leaves", manner.escape),
        (_, true) => ", to look on".to_owned(),
        _ => String::new(),
    };
    say(&format!("{} of {}{how}", granted.console, printable(&granted.name)));

    let mut signals = tty::Signals::catch().context("cannot wait for signals")?;
    let (shown, is_shown) = tty::write_output().context("cannot start a thread")?;
    let _tidy = (!terminal).then(|| tty::Tidy);
    let raw =
        terminal.then(|| tty::Raw::enter(std::io::stdin())).transpose().context("cannot make the terminal raw")?;
    let escape = if terminal { manner.escape } else { Escape::NONE };
    let reads = terminal || !manner.view;
    let typed = reads.then(|| tty::read_input(escape)).transpose().context("cannot start a thread")?;
    let person = Person { typed, shown, view: manner.view, silence: reads.then_some(manner.silence) };
    let websocket = dial::dialled(proxy, &early).await;
    let left = attach::run(websocket, person, signals.ended(raw.as_ref())).await;
    finish(is_shown, &left).await;
    Ok(left)
}

/// Waits until the output is written, unless nobody wants it.
async fn finish(is_shown: oneshot::Receiver<()>, left: &Left) {
    if !matches!(left, Left::Signal(_) | Left::NobodyReads) {
        let _ = tokio::time::timeout(LAST_OUTPUT, is_shown).await;
    }
}

async fn connect(granted: &Granted) -> Result<(tls::ToProxy, bytes::Bytes)> {
    let Granted { address, token, certificate, .. } = granted;
    // As text: an error of the kind "broken pipe" is to the caller that nobody reads what we print.
    let text = |why: std::io::Error| format!("{:#}", anyhow::Error::from(why));
    let tcp = TcpStream::connect(address).await.map_err(|why| {
        let name = printable(&granted.name);
        anyhow!("{name} does not listen at {address} ({}): `console-proxy doctor` says why", text(why))
    })?;
    let _ = tcp.set_nodelay(true);
    let proxy = tls::connect_pinned(tcp, certificate).await.map_err(|why| {
        anyhow!("cannot trust {address} ({}): `console-proxy doctor` looks at this host's certificate", text(why))
    })?;
    match upgrade_console(proxy, address.port(), &format!("/{}", granted.console), token).await {
        Ok(upgraded) => Ok(upgraded),
        Err(NoWebsocket::Refused { status, words }) if words.is_empty() => bail!("refused: {status}"),
        Err(NoWebsocket::Refused { words, .. }) => bail!("refused: {}", printable(&words)),
        Err(NoWebsocket::Failed(why)) => bail!("{address} does not speak as it should: {}", text(why)),
    }
}
