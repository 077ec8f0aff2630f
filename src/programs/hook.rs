//! `console-proxy-hook`: reads the domain XML that libvirt gives on stdin, and writes or withdraws a
//! route. Starts nothing, talks to nobody: libvirt holds the guest's lock while it waits for this.

use std::ffi::OsString;
use std::io::{Read, Write};

use anyhow::{Context, Result};

use crate::edges::paths::Paths;
use crate::edges::{files, ports, publish, slots};
use crate::rules::domain::{Domain, Source};
use crate::rules::guest::printable;
use crate::rules::hook::{Operation, Outcome, Task, exit_code};
use crate::rules::wiring::{self, Settings};
use crate::rules::xml;

/// Runs with the arguments `NAME OPERATION SUBOP EXTRA`; returns the exit code.
#[must_use]
pub fn main(arguments: &[OsString]) -> u8 {
    let operation =
        arguments.get(1).and_then(|argument| argument.to_str()).map_or(Operation::Other, Operation::from_argument);
    // A session-mode daemon runs the same hook as an ordinary user, whose guests are not served.
    if operation.task() == Task::Nothing || !rustix::process::geteuid().is_root() {
        return 0;
    }
    crate::edges::journal::init("console-proxy-hook");
    let paths = Paths::from_environment();
    let name = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let result = std::panic::catch_unwind(|| run(&paths, &name, operation));
    let failed = match result {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(format!("{why:#}")),
        Err(_) => Some("an internal error; please report it".to_owned()),
    };
    if let Some(why) = &failed {
        let name = printable(&name);
        tracing::error!(guest_name = %name, "{name}: the guest runs on, but its consoles do not follow ({operation:?}): {why}");
    }
    exit_code(operation, if failed.is_some() { Outcome::Failed } else { Outcome::Done })
}

fn run(paths: &Paths, name: &str, operation: Operation) -> Result<()> {
    let mut text = String::new();
    let read = std::io::stdin().take(xml::LARGEST as u64 + 1).read_to_string(&mut text);
    read.context("cannot read the domain XML")?;
    let domain = || {
        let domain = Domain::parse(&text).context("cannot understand the domain XML");
        // What it had names what may be another guest's by now. A guest that ran all along keeps it.
        if domain.is_err() && (operation == Operation::Started || operation.task() == Task::Withdraw) {
            publish::withdraw_named(paths, name)?;
        }
        domain
    };
    match operation.task() {
        Task::Check => check(paths, &domain()?, &text),
        Task::Publish => publish::publish(paths, &domain()?).map(drop),
        Task::Withdraw => withdraw(paths, &domain()?, operation),
        Task::Filter => filter(paths, &domain()?, &text),
        Task::Nothing => Ok(()),
    }
}

/// Before a start: says who holds a port that the definition carries, since QEMU will only say that
/// it is in use, and has wiring look at the guest again where its ports are not its own.
fn check(paths: &Paths, domain: &Domain, text: &str) -> Result<()> {
    for serial in &domain.serials {
        let Source::TcpListen { host, port, .. } = &serial.source else { continue };
        if let Some(holder) = ports::holder(host, *port) {
            tracing::error!(guest = %domain.uuid, "{}: the guest will not start, its serial port {port} is held by {holder}; \
                `console-proxy unwire` takes a port of ours out of the definition", printable(&domain.name));
        }
    }
    let config = files::config(paths)?;
    let slot = slots::load(paths)?.slot_of(&domain.uuid);
    let vnc_listen = publish::qemu_conf(paths).vnc_listen;
    let wired = wiring::wire(text, Settings { config: &config, vnc_listen: &vnc_listen }, slot);
    // A slot that is needed is wiring's to take; what cannot be wired is its to say.
    if !wired.is_ok_and(|wired| wired.changes.is_empty()) {
        files::leave_note(&paths.wire_queue(), domain.uuid.as_str()).context("cannot leave a note for wiring")?;
    }
    Ok(())
}

/// After a stop. At `release` a transient guest's slot is free: wiring knows, having libvirt.
fn withdraw(paths: &Paths, domain: &Domain, operation: Operation) -> Result<()> {
    publish::withdraw(paths, &domain.uuid)?;
    if operation == Operation::Release {
        files::leave_note(&paths.wire_queue(), domain.uuid.as_str()).context("cannot leave a note for wiring")?;
    }
    Ok(())
}

/// On the receiving host: our own devices get the ports of this host's slot.
fn filter(paths: &Paths, domain: &Domain, text: &str) -> Result<()> {
    let config = files::config(paths)?;
    if !domain.notes.wired {
        return Ok(());
    }
    let (slot, _) = slots::take(paths, &config, &domain.uuid)?;
    if let Some(changed) = wiring::filter(text, &config, slot)? {
        std::io::stdout().lock().write_all(changed.as_bytes()).context("cannot print the domain XML")?;
    }
    Ok(())
}
