//! `wire --all --watch`: every definition is seen, whenever it changes.
//!
//! The path unit that starts this loses what changes while it runs. So the folders are watched before
//! the first look, and everything is looked at again after each event, until all has been quiet.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::guest::{Aim, Host, forget_gone, gone, kept};
use crate::edges::libvirt::{Guest, Libvirt, LibvirtError};
use crate::edges::paths::Paths;
use crate::edges::{files, unwired};
use crate::rules::guest::Uuid;

/// Between two looks while something is not settled: a guest that is busy, or that may have gone.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a busy guest is looked at; libvirt waits for its job for 30 s each time.
const TRIES: u32 = 10;
/// How long libvirt may be away before this gives up.
const AWAY: Duration = Duration::from_secs(60);

/// For `RestartPreventExitStatus=`: trying again helps only when a person has done something. The
/// numbers are those of sysexits.h.
const UNAVAILABLE: u8 = 69;
const CONFIG: u8 = 78;

/// Wires what changes until nothing has changed for `quiet`.
pub(super) fn run(paths: &Paths, quiet: Duration) -> Result<ExitCode> {
    let watcher = Watcher::new(paths)?;
    let mut stop = Stop::new()?;
    let mut memory = Memory::default();
    let patience = if quiet.is_zero() { Duration::ZERO } else { AWAY };
    let mut away_since = None;
    while !stop.asked() {
        let notes = take_notes(&paths.wire_queue())?;
        memory.noted.extend(notes);
        let restless = match look(paths, &mut memory) {
            Ok(restless) => {
                away_since = None;
                restless
            }
            Err(Trouble::Configuration(why)) => {
                tracing::error!("nothing is wired: {why:#}");
                return Ok(ExitCode::from(CONFIG));
            }
            Err(Trouble::Libvirt(why)) if away_since.get_or_insert_with(Instant::now).elapsed() >= patience => {
                tracing::error!("nothing is wired: {why}");
                return Ok(ExitCode::from(UNAVAILABLE));
            }
            Err(Trouble::Libvirt(_)) => true,
            Err(Trouble::Other(why)) => return Err(why),
        };
        let event = watcher.wait(if restless { AGAIN } else { quiet })?;
        if !event && !restless {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was seen so far in this run.
#[derive(Default)]
struct Memory {
    /// The definition's file when it was last looked at.
    seen: HashMap<Uuid, Option<Stamp>>,
    /// Guests that somebody left a note about.
    noted: HashSet<Uuid>,
    /// Guests that were busy, and how often.
    busy: HashMap<Uuid, u32>,
    /// Guests that were missing, and since when.
    missing: HashMap<Uuid, Instant>,
}

/// What tells one state of a definition's file from another: libvirt replaces it as a whole.
#[derive(Clone, PartialEq, Eq)]
struct Stamp(u64, i64, i64, u64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self(file.ino(), file.mtime(), file.mtime_nsec(), file.size())
    }
}

enum Trouble {
    Configuration(anyhow::Error),
    Libvirt(LibvirtError),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(why: anyhow::Error) -> Self {
        match why.downcast::<LibvirtError>() {
            Ok(why) => why.into(),
            Err(why) => Self::Other(why),
        }
    }
}

impl From<LibvirtError> for Trouble {
    fn from(why: LibvirtError) -> Self {
        Self::Libvirt(why)
    }
}

/// Looks at every guest whose definition is not as it was; true if something is not settled yet.
fn look(paths: &Paths, memory: &mut Memory) -> Result<bool, Trouble> {
    let libvirt = Libvirt::open()?;
    let host = Host::new(paths).map_err(Trouble::Configuration)?.in_a_hurry();
    let by_hand = unwired::load(paths)?;
    // What is kept first: who takes a slot while libvirt is asked has not gone.
    let kept = kept(paths)?;
    let guests = libvirt.guests()?;
    for guest in guests.iter().filter(|guest| guest.persistent) {
        // Before its XML is read: what changes after that makes another event.
        let file = fs::metadata(paths.definitions().join(format!("{}.xml", guest.name)));
        let stamp = file.ok().map(|file| Stamp::of(&file));
        let noted = memory.noted.remove(&guest.uuid);
        let unchanged = stamp.is_some() && memory.seen.get(&guest.uuid) == Some(&stamp);
        if by_hand.contains(&guest.uuid) || (unchanged && !noted && !memory.busy.contains_key(&guest.uuid)) {
            continue;
        }
        memory.seen.insert(guest.uuid.clone(), stamp);
        bring(&host, guest, memory)?;
    }
    // Notes about guests that libvirt does not know are about those that have gone.
    memory.noted.clear();
    forget_the_gone(paths, gone(kept, &guests), memory)?;
    Ok(!memory.busy.is_empty() || !memory.missing.is_empty())
}

fn bring(host: &Host<'_>, guest: &Guest, memory: &mut Memory) -> Result<(), Trouble> {
    let name = guest.shown();
    let why = match host.bring(guest, Aim::Wired) {
        Ok(outcome) => {
            memory.busy.remove(&guest.uuid);
            for change in &outcome.changes {
                tracing::info!(guest = %guest.uuid, "{name}: {change}");
            }
            for why in &outcome.left {
                tracing::debug!(guest = %guest.uuid, "{name}: {why}");
            }
            return Ok(());
        }
        Err(why) => why,
    };
    match why.downcast_ref::<LibvirtError>() {
        Some(LibvirtError::Lost(_) | LibvirtError::Unreachable(_) | LibvirtError::Silent(_)) => {
            memory.seen.remove(&guest.uuid);
            return Err(why.into());
        }
        Some(LibvirtError::Busy(_)) => {
            let tries = memory.busy.entry(guest.uuid.clone()).or_default();
            *tries += 1;
            if *tries < TRIES {
                return Ok(());
            }
        }
        _ => {}
    }
    memory.busy.remove(&guest.uuid);
    tracing::error!(guest = %guest.uuid, "{name}: its definition stays as it is: {why:#}");
    Ok(())
}

/// Frees what is kept for guests that have been missing for a while: one that just arrives by migration
/// has a slot before libvirt lists it.
fn forget_the_gone(paths: &Paths, gone: Vec<Uuid>, memory: &mut Memory) -> Result<()> {
    memory.missing.retain(|uuid, _| gone.contains(uuid));
    let now = Instant::now();
    let ended: Vec<Uuid> =
        gone.into_iter().filter(|uuid| now - *memory.missing.entry(uuid.clone()).or_insert(now) >= AGAIN).collect();
    forget_gone(paths, &ended)?;
    for uuid in ended {
        tracing::info!(guest = %uuid, "{uuid}: it is neither defined nor running: its slot is free");
        memory.missing.remove(&uuid);
        memory.seen.remove(&uuid);
    }
    Ok(())
}

/// Removes all notes, before anything is looked at: one that comes later is seen later.
fn take_notes(folder: &Path) -> Result<Vec<Uuid>> {
    let mut guests = Vec::new();
    for note in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten() {
        guests.extend(note.file_name().to_str().and_then(|name| name.parse().ok()));
        match fs::remove_file(note.path()) {
            Err(why) if why.kind() != ErrorKind::NotFound => {
                // Whatever is not a note would wake this for ever.
                fs::remove_dir_all(note.path())
                    .with_context(|| format!("{} is in the way: {why}", note.path().display()))?;
            }
            _ => {}
        }
    }
    Ok(guests)
}

/// Whether the service is to end: between two looks, so that no change of a definition is left half done.
struct Stop {
    runtime: tokio::runtime::Runtime,
    signals: [Signal; 2],
}

impl Stop {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        drop(entered);
        Ok(Self { runtime, signals })
    }

    fn asked(&mut self) -> bool {
        let [terminate, interrupt] = &mut self.signals;
        let any = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(1), any).await.is_ok() })
    }
}

/// The folders that tell of changes.
struct Watcher(OwnedFd);

impl Watcher {
    fn new(paths: &Paths) -> Result<Self> {
        let watcher = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("no inotify")?;
        let notes = paths.wire_queue();
        files::make_folder(&notes, 0o700).with_context(|| format!("cannot make {}", notes.display()))?;
        let written = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
        let changed = written | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        for (folder, what) in [(notes, written), (paths.definitions(), changed)] {
            inotify::add_watch(&watcher, &folder, what)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        Ok(Self(watcher))
    }

    /// Waits for an event, or for a signal; true if there was one. Which one does not matter.
    fn wait(&self, limit: Duration) -> Result<bool> {
        let limit = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why).context("cannot wait for changes"),
        }
        let mut events = [0; 4096];
        while rustix::io::read(&self.0, &mut events).is_ok_and(|length| length > 0) {}
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.definitions()).unwrap();
        (root, paths)
    }

    #[test]
    fn a_replaced_definition_and_a_note_are_events_and_quiet_is_none() {
        let (_root, paths) = host();
        let watcher = Watcher::new(&paths).unwrap();
        let quiet = || watcher.wait(Duration::from_millis(20)).unwrap();
        assert!(!quiet());
        files::replace(&paths.definitions().join("g1.xml"), b"<domain/>", 0o600).unwrap();
        assert!(quiet() && !quiet());
        fs::remove_file(paths.definitions().join("g1.xml")).unwrap();
        assert!(quiet() && !quiet());
        files::leave_note(&paths.wire_queue(), "b50bdc9f-490b-4b9b-8641-7573c0eba77c").unwrap();
        assert!(quiet() && !quiet());
    }

    #[test]
    fn notes_are_taken_once_and_what_is_no_note_does_not_stay() {
        let (_root, paths) = host();
        let _watcher = Watcher::new(&paths).unwrap();
        let uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
        files::leave_note(&paths.wire_queue(), uuid).unwrap();
        fs::write(paths.wire_queue().join("nonsense"), "").unwrap();
        fs::create_dir_all(paths.wire_queue().join("folder/in/it")).unwrap();
        assert_eq!(take_notes(&paths.wire_queue()).unwrap(), [uuid.parse().unwrap()]);
        assert_eq!(fs::read_dir(paths.wire_queue()).unwrap().count(), 0);
    }
}
