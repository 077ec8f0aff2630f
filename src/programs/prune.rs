//! `console-proxy prune`: frees what the host keeps for guests that are neither defined nor running, and removes
//! recordings that are kept no longer.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::wire;
use crate::edges::libvirt::Libvirt;
use crate::edges::paths::Paths;
use crate::edges::{files, recordings};
use crate::rules::guest::Uuid;

/// Frees slots, drop-ins and folders of guests that have gone, and slots outside the configured port
/// ranges, whose guests get others; returns whose.
pub fn prune(paths: &Paths) -> Result<Vec<Uuid>> {
    let mut freed = wire::free_gone(paths, &Libvirt::open()?)?;
    freed.extend(wire::free_out_of_range(paths)?);
    Ok(freed)
}

/// Removes the recordings that are kept no longer; returns which.
pub fn prune_recordings(paths: &Paths) -> Result<Vec<PathBuf>> {
    let record = files::config(paths)?.record;
    recordings::prune(paths, &record, SystemTime::now())
        .with_context(|| format!("cannot remove old recordings in {}", paths.recordings().display()))
}

/// The verb; `recordings`: those alone, without libvirt.
pub fn run(paths: &Paths, recordings: bool, out: &mut dyn Write) -> Result<()> {
    let removed = prune_recordings(paths)?;
    for path in &removed {
        writeln!(out, "{}: kept no longer", path.display()).context("cannot print")?;
    }
    if recordings {
        return Ok(());
    }
    let freed = prune(paths)?;
    for uuid in &freed {
        writeln!(out, "{uuid}: its slot is free").context("cannot print")?;
    }
    if freed.is_empty() && removed.is_empty() {
        writeln!(out, "nothing to free: every slot's guest is defined or runs").context("cannot print")?;
    }
    Ok(())
}
