//! `console-proxy log`: what libvirt kept of a guest's text console, whether the guest runs or not. The
//! files are read here, by root; others see what is kept of a running guest through its port, with
//! `console-proxy console`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ticket;
use crate::edges::libvirt::{Libvirt, LibvirtError, Which};
use crate::edges::logs::{self, Log, Watch};
use crate::edges::paths::Paths;
use crate::edges::tty;
use crate::rules::broker::Kind;
use crate::rules::domain::Domain;
use crate::rules::guest::{Console, Uuid, printable};
use crate::rules::log::{may_be_shown, why_not_shown};
use crate::rules::tame::Tame;
use crate::rules::told::about_break;

/// How often the files are looked for anew while nothing tells of a change.
const TURN: Duration = Duration::from_secs(1);
/// Output is gathered for so long: it is written a few bytes at a time.
const GATHER: Duration = Duration::from_millis(10);

/// What to print, and how.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The guest: an id, a name or a UUID.
    guest: String,
    /// serial/N or console/N; by default the first that has a log.
    console: Option<Console>,
    /// Stay, and print what comes, over renamings of the log and starts of the guest.
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many bytes, from a line's start on.
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// To a terminal, too, every byte as the guest said it. Otherwise a terminal gets text and colours alone.
    #[arg(long)]
    raw: bool,
}

/// The verb.
pub fn run(paths: &Paths, arguments: &Arguments, out: &mut dyn Write) -> Result<ExitCode> {
    let (uuid, path) = find(paths, &arguments.guest, arguments.console)?;
    if !may_be_shown(&path, &uuid) {
        bail!(why_not_shown(&path, &uuid));
    }
    let mut printer =
        Printer { out, tame: (!arguments.raw && tty::is_output_a_terminal()).then(Tame::default), cursor: 0 };
    // Before the first look: what changes after that is told.
    let watch = arguments.follow.then(|| Watch::new(paths, &path)).transpose();
    let watch = watch.with_context(|| format!("cannot watch {}", printable(&path)))?;
    let mut log = match open(paths, &uuid, &path) {
        Ok(log) => log,
        Err(Missing::NotYet) if arguments.follow => Log::new(Vec::new())?,
        Err(Missing::NotYet) => bail!("{} does not exist: the guest has not started with it yet", printable(&path)),
        Err(Missing::Other(why)) => return Err(why),
    };
    printer.cursor = match arguments.bytes {
        Some(bytes) => log.tail(log.stream().end(), bytes)?,
        None => log.stream().start(),
    };
    printer.print(&log)?;
    let Some(watch) = watch else { return Ok(ExitCode::SUCCESS) };
    while watch.wait(TURN)? {
        sleep(GATHER);
        log.grow(printer.cursor)?;
        if printer.cursor == log.stream().end() {
            match logs::open(paths, &uuid, &path) {
                Ok(files) => log.look(files, printer.cursor)?,
                // It is being renamed, or the guest begins a new one.
                Err(why) if why.kind == Kind::Unknown => {}
                Err(why) => bail!(why),
            }
        }
        printer.print(&log)?;
    }
    Ok(ExitCode::SUCCESS)
}

enum Missing {
    NotYet,
    Other(anyhow::Error),
}

fn open(paths: &Paths, uuid: &Uuid, path: &str) -> Result<Log, Missing> {
    let files = logs::open(paths, uuid, path).map_err(|why| {
        let hint = "only root reads logs; `console-proxy console GUEST --view` shows a running guest's to members of group libvirt";
        let is_root = rustix::process::geteuid().is_root();
        match why.kind {
            Kind::Unknown => Missing::NotYet,
            _ if is_root => Missing::Other(why.into()),
            _ => Missing::Other(anyhow::Error::new(why).context(hint)),
        }
    })?;
    Log::new(files).with_context(|| format!("cannot read {}", printable(path))).map_err(Missing::Other)
}

struct Printer<'o> {
    out: &'o mut dyn Write,
    tame: Option<Tame>,
    cursor: u64,
}

impl Printer<'_> {
    fn print(&mut self, log: &Log) -> Result<()> {
        let (mut bytes, mut shown) = (vec![0; 64 << 10], Vec::new());
        let end = log.stream().end();
        while self.cursor < end {
            let part = log.stream().part_at(self.cursor);
            if let Some(broken) = part.filter(|part| part.start == self.cursor).and_then(|part| part.broken) {
                self.out.flush().context("cannot print")?;
                let _ = writeln!(io::stderr(), "console-proxy: {}", about_break(broken));
            }
            let n = log.read(self.cursor, &mut bytes).context("cannot read the log")?;
            if n == 0 {
                // It was cut, or is no longer there: on with the next one.
                self.cursor = log.stream().part_after(self.cursor).map_or(end, |part| part.start);
                continue;
            }
            self.cursor += n as u64;
            match &mut self.tame {
                Some(tame) => {
                    shown.clear();
                    tame.pass(&bytes[..n], &mut shown);
                    self.out.write_all(&shown).context("cannot print")?;
                }
                None => self.out.write_all(&bytes[..n]).context("cannot print")?,
            }
        }
        self.out.flush().context("cannot print")
    }
}

/// The log of a guest's console: by what libvirt says of it, or of a published guest by its route.
fn find(paths: &Paths, guest: &str, wanted: Option<Console>) -> Result<(Uuid, String)> {
    let (uuid, logs) = match stored(paths, guest) {
        Ok(logs) => logs,
        Err(LibvirtError::Unreachable(_) | LibvirtError::Silent(_)) => {
            let route = ticket::published(paths, guest)?;
            let texts = route.consoles.into_iter().filter(|way| way.console.is_text());
            (route.uuid, texts.map(|way| (way.console, way.log)).collect())
        }
        Err(why) => return Err(why.into()),
    };
    let name = printable(guest);
    let log = match wanted {
        Some(wanted) => {
            let found = logs.into_iter().find(|(console, _)| *console == wanted);
            found.with_context(|| format!("{name} has no {wanted}"))?.1
        }
        None if logs.is_empty() => bail!("{name} has no text console"),
        None => {
            let mut logs: Vec<_> = logs.into_iter().filter_map(|(_, log)| log).collect();
            let shown = logs.iter().position(|log| may_be_shown(log, &uuid)).unwrap_or(0);
            (!logs.is_empty()).then(|| logs.swap_remove(shown))
        }
    };
    let log = log.with_context(|| {
        format!(
            "nothing is kept of {}: set serial.history = \"on\" in {}, then `console-proxy wire {name}`; \
             it counts from the guest's next start on",
            wanted.map_or(name.clone(), |console| format!("{console} of {name}")),
            Path::new("/etc/console-proxy/console-proxy.toml").display()
        )
    })?;
    Ok((uuid, log))
}

type Logs = Vec<(Console, Option<String>)>;

fn stored(paths: &Paths, guest: &str) -> Result<(Uuid, Logs), LibvirtError> {
    if !paths.is_this_host() {
        return Err(LibvirtError::Unreachable("there is no libvirt".to_owned()));
    }
    let guest = Libvirt::open_read_only()?.find(guest)?;
    let xml = guest.xml(if guest.active() { Which::Live } else { Which::Stored })?;
    let Ok(domain) = Domain::parse(&xml) else { return Ok((guest.uuid, Vec::new())) };
    let serials = domain.serials.iter().map(|serial| (Console::Serial(serial.port.unwrap_or(0)), serial));
    let others = domain.own_consoles().map(|other| (Console::Console(other.port.unwrap_or(0)), other));
    Ok((guest.uuid, serials.chain(others).map(|(console, device)| (console, device.log.clone())).collect()))
}
