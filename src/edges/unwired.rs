//! The guests that an administrator unwired: the service that watches definitions must not wire them
//! again at once. A file of UUIDs; `wire` takes a guest off it, and so does its end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::files;
use super::paths::Paths;
use crate::rules::guest::Uuid;

const LARGEST: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// The guests that stay unwired. Lines that are no UUID are passed over.
pub fn load(paths: &Paths) -> Result<BTreeSet<Uuid>> {
    let path = paths.unwired();
    let text = files::read(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect())
}

/// Remembers guests that were unwired.
pub fn add(paths: &Paths, guests: &[Uuid]) -> Result<()> {
    change(paths, |all| all.extend(guests.iter().cloned()))
}

/// Forgets guests: they are wired like all others again.
pub fn remove(paths: &Paths, guests: &[Uuid]) -> Result<()> {
    if load(paths)?.is_empty() {
        return Ok(());
    }
    change(paths, |all| all.retain(|uuid| !guests.contains(uuid)))
}

fn change(paths: &Paths, edit: impl FnOnce(&mut BTreeSet<Uuid>)) -> Result<()> {
    let folder = paths.state();
    files::make_folder_of(&folder, files::OPERATORS, paths)?;
    let lock = folder.join("unwired.lock");
    let _lock = files::lock(&lock, PATIENCE).with_context(|| format!("cannot lock {}", lock.display()))?;
    let before = load(paths)?;
    let mut all = before.clone();
    edit(&mut all);
    let path = paths.unwired();
    if all.is_empty() {
        files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    } else if all != before {
        let text: String = all.iter().flat_map(|uuid| [uuid.as_str(), "\n"]).collect();
        files::replace(&path, text.as_bytes(), 0o644).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_remembered_until_it_is_forgotten_and_an_empty_list_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let guests: Vec<Uuid> =
            (0..3).map(|n| format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()).collect();
        remove(&paths, &guests).unwrap();
        assert!(!paths.state().exists(), "nothing is made for nothing");
        add(&paths, &guests).unwrap();
        add(&paths, &guests[..1]).unwrap();
        remove(&paths, &guests[..2]).unwrap();
        assert_eq!(load(&paths).unwrap().into_iter().collect::<Vec<_>>(), guests[2..]);
        remove(&paths, &guests).unwrap();
        assert!(!paths.unwired().exists());
    }
}
