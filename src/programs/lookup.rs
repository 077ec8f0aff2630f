//! GUEST on a command line: an id, a name or a UUID, in virsh's order.

use anyhow::{Context, Result};

use crate::edges::paths::Paths;
use crate::edges::publish;
use crate::rules::guest::{Uuid, printable};

/// Finds a guest. libvirt knows best; where it does not answer, the published guests do.
pub fn guest(paths: &Paths, text: &str) -> Result<Uuid> {
    let published = publish::all_guests(paths)?;
    if let Ok(uuid) = text.parse::<Uuid>()
        && published.contains(&uuid)
    {
        return Ok(uuid);
    }
    let routes = published.iter().filter_map(|uuid| publish::read_route(paths, uuid).ok().flatten());
    let named: Vec<_> = routes.filter(|route| route.name == text).collect();
    let first = named.into_iter().next().map(|route| route.uuid);
    first.with_context(|| format!("there is no guest {:?} that runs and is published", printable(text)))
}
