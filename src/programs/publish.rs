//! `console-proxy publish`: what the hook does at `started`, from the live XML through libvirt; for
//! guests that ran before the package came, and after a change of the configuration.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::edges::libvirt::{Guest, Libvirt, Which};
use crate::edges::paths::Paths;
use crate::edges::{files, publish};
use crate::rules::domain::Domain;
use crate::rules::guest::printable;

/// Which guests.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Arguments {
    /// The guest: an id, a name or a UUID.
    guest: Option<String>,
    /// All guests of this host.
    #[arg(long)]
    all: bool,
}

/// Publishes guests that run and withdraws those that do not; says what it could not do.
pub fn run(paths: &Paths, arguments: &Arguments, out: &mut dyn Write) -> Result<ExitCode> {
    // With one that is refused nothing is to change.
    files::config(paths)?;
    let libvirt = Libvirt::open()?;
    let Some(name) = &arguments.guest else { return all(paths, &libvirt, out) };
    let guest = libvirt.find(name)?;
    one(paths, &guest, out)?;
    Ok(ExitCode::SUCCESS)
}

fn all(paths: &Paths, libvirt: &Libvirt, out: &mut dyn Write) -> Result<ExitCode> {
    let guests = libvirt.guests()?;
    let mut failed = false;
    for guest in &guests {
        if let Err(why) = one(paths, guest, out) {
            failed = true;
            writeln!(out, "{}: not published: {why:#}", guest.shown())?;
        }
    }
    for uuid in publish::all_guests(paths)? {
        if !guests.iter().any(|guest| guest.uuid == uuid) {
            publish::withdraw(paths, &uuid)?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn one(paths: &Paths, guest: &Guest, out: &mut dyn Write) -> Result<()> {
    if !guest.active() {
        if publish::withdraw(paths, &guest.uuid)? {
            writeln!(out, "{}: withdrawn, it does not run", guest.shown())?;
        }
        return Ok(());
    }
    let text = guest.xml(Which::Live)?;
    let domain = Domain::parse(&text).context("cannot understand its XML")?;
    match publish::publish(paths, &domain)? {
        Some(route) => {
            publish::have_it_look(paths, &route.uuid)?;
            if let Some(why) = &domain.notes.bad_allow {
                writeln!(
                    out,
                    "{}: an <allow> in its metadata allows nothing: {}",
                    printable(&route.name),
                    printable(why)
                )?;
            }
            writeln!(out, "{}: port {}", printable(&route.name), route.port)?;
        }
        None => writeln!(out, "{}: left out, by the configuration or its metadata", guest.shown())?,
    }
    Ok(())
}
