//! `console-proxy wire` and `unwire`: guests' stored definitions, and files with definitions.
//!
//! What is done to a definition is decided by [`crate::rules::wiring`]; how libvirt is asked for it is
//! in [`guest`], the service that follows changes in [`watch`], files in [`file`].

mod file;
mod guest;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::guest::{Aim, Host, Outcome};
pub use self::guest::{free_gone, free_out_of_range};
use crate::edges::libvirt::{Guest, Libvirt, Which};
use crate::edges::paths::Paths;
use crate::edges::unwired;
use crate::rules::diff;
use crate::rules::domain::ALIAS;
use crate::rules::guest::Uuid;
use crate::rules::ports::Slot;

/// What `wire` is called with.
#[derive(clap::Args, Debug)]
pub struct WireArguments {
    #[command(flatten)]
    whom: Whom,
    /// Stay, and wire what changes, until nothing has changed for some seconds; 0: once (by
    /// console-proxy-wire.service). Guests that were unwired by hand stay unwired.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
          requires = "all", conflicts_with = "dry_run")]
    watch: Option<u16>,
    /// With --xml: the guest's slot on its host. Nothing is reserved.
    #[arg(long, requires = "xml")]
    slot: Option<Slot>,
    /// With --xml: leave this out.
    #[arg(long, requires = "xml", value_name = "PART")]
    without: Vec<Part>,
}

/// What `unwire` is called with.
#[derive(clap::Args, Debug)]
pub struct UnwireArguments {
    #[command(flatten)]
    whom: Whom,
    /// Do not remember it: the next change of its definition wires the guest again.
    #[arg(long, conflicts_with = "xml")]
    once: bool,
}

impl WireArguments {
    /// Whether definitions and files of this host are to change, and not a text alone.
    #[must_use]
    pub fn changes_the_host(&self) -> bool {
        self.whom.changes_the_host()
    }
}

impl UnwireArguments {
    /// Likewise.
    #[must_use]
    pub fn changes_the_host(&self) -> bool {
        self.whom.changes_the_host()
    }
}

/// Whose definition.
#[derive(clap::Args, Debug)]
struct Whom {
    /// Guests: ids, UUIDs or names, as virsh takes them.
    #[arg(value_name = "GUEST", required_unless_present_any = ["all", "xml"])]
    guests: Vec<String>,
    /// Every guest that libvirt keeps a definition of.
    #[arg(long, conflicts_with = "guests")]
    all: bool,
    /// Change the definition in this file ("-": standard input) and print the result, without libvirt.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guests", "all"])]
    xml: Option<PathBuf>,
    /// Only show what would change, as a diff.
    #[arg(long)]
    dry_run: bool,
}

/// A part of what wiring does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// QEMU's websocket on VNC displays.
    Websocket,
    /// Serial ports, added or turned.
    Serial,
    /// Logs of serial ports.
    History,
}

/// `console-proxy wire`.
pub fn wire(paths: &Paths, arguments: &WireArguments, out: &mut dyn Write) -> Result<ExitCode> {
    let WireArguments { whom, watch, slot, without } = arguments;
    if let Some(path) = &whom.xml {
        return file::wire(paths, path, *slot, without, whom.dry_run, out).map(|()| ExitCode::SUCCESS);
    }
    if let Some(seconds) = watch {
        return watch::run(paths, std::time::Duration::from_secs((*seconds).into()));
    }
    let libvirt = Libvirt::open()?;
    let host = Host::new(paths)?;
    let guests = whom.guests(&libvirt)?;
    if !whom.dry_run {
        unwired::remove(paths, &uuids(&guests))?;
    }
    let code = each(&host, &guests, whom, Aim::Wired, out)?;
    if whom.all && !whom.dry_run {
        for uuid in free_gone(paths, &libvirt)? {
            writeln!(out, "{uuid}: gone, its slot is free").context("cannot print")?;
        }
    }
    Ok(code)
}

/// `console-proxy unwire`.
pub fn unwire(paths: &Paths, arguments: &UnwireArguments, out: &mut dyn Write) -> Result<ExitCode> {
    let UnwireArguments { whom, once } = arguments;
    if let Some(path) = &whom.xml {
        return file::unwire(path, whom.dry_run, out).map(|()| ExitCode::SUCCESS);
    }
    let libvirt = Libvirt::open()?;
    let host = Host::new(paths)?;
    let guests = whom.guests(&libvirt)?;
    if !whom.dry_run && !once {
        // Before the change: the service that watches definitions is quick.
        unwired::add(paths, &uuids(&guests))?;
    }
    each(&host, &guests, whom, Aim::Unwired, out)
}

impl Whom {
    fn changes_the_host(&self) -> bool {
        self.xml.is_none() && !self.dry_run
    }

    /// The guests that are meant, each once.
    fn guests(&self, libvirt: &Libvirt) -> Result<Vec<Guest>> {
        if self.all {
            return Ok(libvirt.guests()?.into_iter().filter(|guest| guest.persistent).collect());
        }
        let mut guests: Vec<Guest> = Vec::new();
        for text in &self.guests {
            let guest = libvirt.find(text)?;
            if !guest.persistent {
                bail!("{} is transient: libvirt keeps no definition of it that could be changed", guest.shown());
            }
            if guests.iter().all(|known| known.uuid != guest.uuid) {
                guests.push(guest);
            }
        }
        Ok(guests)
    }
}

fn uuids(guests: &[Guest]) -> Vec<Uuid> {
    guests.iter().map(|guest| guest.uuid.clone()).collect()
}

/// Brings each guest to its aim; what fails for one does not stop the others.
fn each(host: &Host<'_>, guests: &[Guest], whom: &Whom, aim: Aim, out: &mut dyn Write) -> Result<ExitCode> {
    let mut failed = 0;
    for guest in guests {
        let name = guest.shown();
        let done =
            if whom.dry_run { preview(host, guest, aim, out).map(|()| None) } else { host.bring(guest, aim).map(Some) };
        match done {
            Ok(Some(outcome)) => say(guest, &outcome, !whom.all, out).context("cannot print")?,
            Ok(None) => {}
            Err(why) => {
                failed += 1;
                writeln!(std::io::stderr(), "{name}: {why:#}").context("cannot print")?;
                if aim == Aim::Unwired {
                    // For who removes the package: this program is gone then.
                    writeln!(
                        std::io::stderr(),
                        "{name}: by hand: virsh detach-device-alias {} {ALIAS} --config",
                        guest.uuid
                    )
                    .context("cannot print")?;
                }
            }
        }
    }
    if failed > 0 {
        writeln!(std::io::stderr(), "{failed} of {} guests could not be changed", guests.len())
            .context("cannot print")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A line per change. What is as it should be is said where the guest was named.
fn say(guest: &Guest, outcome: &Outcome, named: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let name = guest.shown();
    let when = if guest.active() { " (from its next start on)" } else { "" };
    for change in &outcome.changes {
        writeln!(out, "{name}: {change}{when}")?;
    }
    if named || !outcome.changes.is_empty() {
        for why in &outcome.left {
            writeln!(out, "{name}: {why}")?;
        }
    }
    if named && outcome.changes.is_empty() && outcome.left.is_empty() {
        writeln!(out, "{name}: nothing to change")?;
    }
    Ok(())
}

/// The diff of a definition, without its passwords.
fn preview(host: &Host<'_>, guest: &Guest, aim: Aim, out: &mut dyn Write) -> Result<()> {
    let before = guest.xml(Which::Stored)?;
    let after = host.preview(guest, &before, aim)?;
    let name = guest.shown();
    let diff = diff::unified(&format!("{name} now"), &before, &format!("{name} then"), &after.text);
    out.write_all(diff.as_bytes()).context("cannot print")
}
