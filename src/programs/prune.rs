//! `console-proxy prune`: frees what the host keeps for guests that are neither defined nor running.

use std::io::Write;

use anyhow::{Context, Result};

use super::wire;
use crate::edges::libvirt::Libvirt;
use crate::edges::paths::Paths;
use crate::rules::guest::Uuid;

/// Frees slots, drop-ins and folders of guests that have gone, and slots outside the configured port
/// ranges, whose guests get others; returns whose.
pub fn prune(paths: &Paths) -> Result<Vec<Uuid>> {
    let mut freed = wire::free_gone(paths, &Libvirt::open()?)?;
    freed.extend(wire::free_out_of_range(paths)?);
    Ok(freed)
}

/// The verb.
pub fn run(paths: &Paths, out: &mut dyn Write) -> Result<()> {
    let freed = prune(paths)?;
    for uuid in &freed {
        writeln!(out, "{uuid}: its slot is free").context("cannot print")?;
    }
    if freed.is_empty() {
        writeln!(out, "nothing to free: every slot's guest is defined or runs").context("cannot print")?;
    }
    Ok(())
}
