//! The slot file: one owner for the record of who has which slot, under a lock.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};

use super::files;
use super::paths::Paths;
use crate::rules::config::Config;
use crate::rules::guest::Uuid;
use crate::rules::ports::{Slot, SlotTable};

const LARGEST: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// Who has which slot right now. A missing file is an empty table.
pub fn load(paths: &Paths) -> Result<SlotTable> {
    let path = paths.slots();
    let text = files::read(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    SlotTable::parse(&text.unwrap_or_default()).with_context(|| format!("{} is damaged", path.display()))
}

/// The guest's slot; a new one is taken where it has none. Returns the slots passed over because
/// another program held one of their ports, too.
pub fn take(paths: &Paths, config: &Config, uuid: &Uuid) -> Result<(Slot, Vec<Slot>)> {
    // Without the lock first: almost every start finds its slot taken long ago.
    if let Some(slot) = load(paths)?.slot_of(uuid) {
        return Ok((slot, Vec::new()));
    }
    change(paths, |table| Ok(table.take(uuid, config.room(), |slot| is_held(config, slot))?))
}

/// Takes the guest's slot away; true if it had one.
pub fn free(paths: &Paths, uuid: &Uuid) -> Result<bool> {
    change(paths, |table| Ok(table.free(uuid)))
}

fn change<T>(paths: &Paths, edit: impl FnOnce(&mut SlotTable) -> Result<T>) -> Result<T> {
    let folder = paths.state();
    files::make_folder_of(&folder, files::OPERATORS, paths)?;
    let lock = folder.join("slots.lock");
    let _lock = files::lock(&lock, PATIENCE).with_context(|| format!("cannot lock {}", lock.display()))?;
    let mut table = load(paths)?;
    let before = table.clone();
    let result = edit(&mut table)?;
    if table != before {
        let path = paths.slots();
        files::replace(&path, table.to_text().as_bytes(), 0o644)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(result)
}

/// Whether some program holds one of the slot's ports.
fn is_held(config: &Config, slot: Slot) -> bool {
    let Some((public, serial)) = config.ports(slot) else { return true };
    let held =
        |address: SocketAddr| matches!(TcpListener::bind(address), Err(why) if why.kind() == io::ErrorKind::AddrInUse);
    held((Ipv6Addr::UNSPECIFIED, public).into())
        || held((Ipv4Addr::UNSPECIFIED, public).into())
        || held((Ipv4Addr::LOCALHOST, serial).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: u32) -> Uuid {
        format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
    }

    #[test]
    fn many_at_once_get_a_slot_of_their_own_each_and_keep_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let config =
            Config::parse([("t", "[listen]\nports=\"41000-41099\"\n[serial]\nports=\"42000-42099\"")]).unwrap();
        let take_all = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..40)
                    .map(|n| {
                        scope.spawn({
                            let (paths, config) = (&paths, &config);
                            move || take(paths, config, &uuid(n)).unwrap().0
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let first = take_all();
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 40);
        assert_eq!(take_all(), first);
        assert!(free(&paths, &uuid(0)).unwrap() && !free(&paths, &uuid(0)).unwrap());
    }

    #[test]
    fn a_port_held_by_another_program_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let other = if port > 30000 { 20000 } else { 50000 };
        let text = format!("[listen]\nports=\"{other}-{}\"\n[serial]\nports=\"{port}-{}\"", other + 9, port + 9);
        let config = Config::parse([("t", text.as_str())]).unwrap();
        let (slot, held) = take(&Paths::new(root.path()), &config, &uuid(1)).unwrap();
        assert!(slot >= 1 && held.contains(&0), "{slot} {held:?}");
    }

    #[test]
    fn a_damaged_slot_file_is_an_error_and_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        files::make_folder(&paths.state(), 0o755).unwrap();
        std::fs::write(paths.slots(), "nonsense\n").unwrap();
        assert!(take(&paths, &Config::default(), &uuid(1)).is_err());
        assert_eq!(std::fs::read_to_string(paths.slots()).unwrap(), "nonsense\n");
    }
}
