//! GUEST on a command line: an id, a name or a UUID, in virsh's order.

use anyhow::{Context, Result};

use crate::edges::libvirt::Libvirt;
use crate::edges::paths::Paths;
use crate::edges::publish;
use crate::rules::guest::{Uuid, printable};

/// Finds a guest. libvirt knows best; where it does not answer, the published guests do.
pub fn guest(paths: &Paths, text: &str) -> Result<Uuid> {
    if !paths.is_this_host() {
        return published(paths, text).with_context(|| format!("no published guest is called {:?}", printable(text)));
    }
    match Libvirt::open_read_only() {
        Ok(libvirt) => Ok(libvirt.find(text)?.uuid),
        Err(why) => published(paths, text)
            .with_context(|| format!("{why}; and no published guest is called {:?}", printable(text))),
    }
}

/// The same among published guests alone: a UUID or a name. libvirt is not asked.
#[must_use]
pub fn published(paths: &Paths, text: &str) -> Option<Uuid> {
    let published = publish::all_guests(paths).ok()?;
    let uuid = text.parse().ok().filter(|uuid| published.contains(uuid));
    let named = || {
        let mut routes = published.iter().filter_map(|uuid| publish::read_route(paths, uuid).ok().flatten());
        routes.find(|route| route.name == text).map(|route| route.uuid)
    };
    uuid.or_else(named)
}
