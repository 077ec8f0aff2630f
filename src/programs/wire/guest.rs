//! One guest's stored definition brought to what it should be, and the ends of guests.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::edges::libvirt::{Guest, Libvirt, LibvirtError, Which};
use crate::edges::paths::Paths;
use crate::edges::{files, logs, proxy_files, publish, slots, unwired};
use crate::rules::config::Config;
use crate::rules::guest::Uuid;
use crate::rules::ports::Slot;
use crate::rules::qemu_conf::QemuConf;
use crate::rules::wiring::{self, Call, CannotWire, Change, Settings, Step, Wired};

/// How often a definition is read anew when somebody else changed it in between, or libvirt is busy with
/// the guest (a call waits for 30 s by itself).
const TRIES: usize = 5;
/// How long another wiring may take: it may wait for a busy guest.
const OTHERS: Duration = Duration::from_secs(300);
/// Between two looks at who is there: a guest that is just arriving has a slot before libvirt lists it.
const ARRIVAL: Duration = Duration::from_secs(2);

/// What decides about guests on this host.
pub(super) struct Host<'a> {
    paths: &'a Paths,
    config: Config,
    vnc_listen: String,
    patient: bool,
}

/// What a definition should become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    Wired,
    Unwired,
}

/// What was changed, and what was left as it is and why.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) changes: Vec<Change>,
    pub(super) left: Vec<String>,
}

/// Where VNC displays listen that name no address.
pub(super) fn vnc_listen(paths: &Paths) -> Result<String> {
    const LARGEST: u64 = 1 << 20;
    let path = paths.qemu_conf();
    let text = files::read(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(QemuConf::parse(&text.unwrap_or_default()).vnc_listen)
}

impl<'a> Host<'a> {
    pub(super) fn new(paths: &'a Paths) -> Result<Self> {
        Ok(Self { paths, config: files::config(paths)?, vnc_listen: vnc_listen(paths)?, patient: true })
    }

    /// A guest that is busy is given up at once: others wait, and it is looked at again.
    pub(super) fn in_a_hurry(self) -> Self {
        Self { patient: false, ..self }
    }

    /// Makes the stored definition what it should be, call by call, and looks whether it is.
    pub(super) fn bring(&self, guest: &Guest, aim: Aim) -> Result<Outcome> {
        let _only = self.lock()?;
        let mut changes = Vec::new();
        let mut last = None;
        for _ in 0..TRIES {
            let before = match guest.xml(Which::StoredWithSecrets) {
                // It was undefined meanwhile: nothing is left to do.
                Err(LibvirtError::NoSuchGuest(_)) => return Ok(Outcome::default()),
                xml => xml?,
            };
            let wired = self.wanted(&guest.uuid, &before, aim)?;
            let steps = wiring::calls(&before, &wired.text)?;
            if steps.is_empty() {
                return Ok(Outcome { changes, left: wired.left });
            }
            if wired.changes.iter().any(|change| matches!(change, Change::LogAdded { .. })) {
                self.make_log_folder()?;
            }
            match carry_out(guest, &steps) {
                Ok(()) => changes.extend(wired.changes),
                Err(why @ LibvirtError::NotAllowed(_)) => return Err(why.into()),
                Err(why) if why.passes() && !self.patient => return Err(why.into()),
                Err(why) => {
                    tracing::debug!(guest = %guest.uuid, "{}: {why}; looking again", guest.shown());
                    last = Some(why);
                }
            }
        }
        match last {
            Some(why) => Err(why.into()),
            None => bail!("libvirt writes the definition differently from what it was asked for, again and again"),
        }
    }

    /// libvirt's packages make it, libvirt itself does not before the first log is opened: a guest with a
    /// log in a folder that is not there would not start.
    fn make_log_folder(&self) -> Result<()> {
        let folder = self.paths.guest_logs();
        match std::fs::create_dir_all(&folder) {
            Err(why) if !folder.is_dir() => Err(why).with_context(|| format!("cannot make {}", folder.display())),
            _ => Ok(()),
        }
    }

    /// One at a time on this host: taking back a call that failed must not take another wiring's note.
    fn lock(&self) -> Result<files::Lock> {
        let folder = self.paths.state();
        files::make_folder_of(&folder, files::OPERATORS, self.paths)?;
        let path = folder.join("wiring.lock");
        files::lock(&path, OTHERS).with_context(|| format!("cannot lock {}", path.display()))
    }

    /// What the text would become; no slot is taken for it.
    pub(super) fn preview(&self, guest: &Guest, before: &str, aim: Aim) -> Result<Wired> {
        let table = slots::load(self.paths)?;
        let own = table.slot_of(&guest.uuid);
        let free = || (0..self.config.room()).find(|slot| table.owner(*slot).is_none());
        self.wanted_with(before, aim, || own.or_else(free).context("all slots are taken"))
    }

    fn wanted(&self, uuid: &Uuid, before: &str, aim: Aim) -> Result<Wired> {
        self.wanted_with(before, aim, || {
            let (slot, held) = slots::take(self.paths, &self.config, uuid)?;
            for (public, serial) in held.iter().filter_map(|slot| self.config.ports(*slot)) {
                tracing::warn!(guest = %uuid, "passed over a slot: another program holds port {public} or {serial}");
            }
            Ok(slot)
        })
    }

    fn wanted_with(&self, before: &str, aim: Aim, slot: impl FnOnce() -> Result<Slot>) -> Result<Wired> {
        if aim == Aim::Unwired {
            return Ok(wiring::unwire(before)?);
        }
        let settings = Settings { config: &self.config, vnc_listen: &self.vnc_listen };
        match wiring::wire(before, settings, None) {
            Err(CannotWire::SlotNeeded) => Ok(wiring::wire(before, settings, Some(slot()?))?),
            wired => Ok(wired?),
        }
    }
}

/// Makes the calls. When one fails, those before it are taken back: no guest may lose its serial port
/// between a detach and an attach.
fn carry_out(guest: &Guest, steps: &[Step]) -> Result<(), LibvirtError> {
    for (done, step) in steps.iter().enumerate() {
        if let Err(why) = guest.call(&step.call) {
            take_back(guest, &steps[..done]);
            return Err(why);
        }
    }
    Ok(())
}

fn take_back(guest: &Guest, done: &[Step]) {
    for step in done.iter().rev() {
        if let Err(why) = insist(guest, &step.undo) {
            // The note comes last on this way, and it says what is missing: the next wiring or unwiring
            // makes it good.
            tracing::error!(guest = %guest.uuid, "{}: half a change of its definition could not be taken back ({why}); \
                `console-proxy wire` or `unwire` completes it", guest.shown());
            return;
        }
    }
}

fn insist(guest: &Guest, call: &Call) -> Result<(), LibvirtError> {
    let mut result = guest.call(call);
    for _ in 1..TRIES {
        if !matches!(result, Err(LibvirtError::Busy(_))) {
            break;
        }
        result = guest.call(call);
    }
    result
}

/// The guests for which the host keeps something.
pub(super) fn kept(paths: &Paths) -> Result<Vec<Uuid>> {
    let mut kept: Vec<Uuid> = slots::load(paths)?.iter().map(|(_, uuid)| uuid.clone()).collect();
    kept.extend(unwired::load(paths)?);
    kept.sort();
    kept.dedup();
    Ok(kept)
}

/// Those of the guests that libvirt does not know, neither defined nor running. Look first at what is
/// kept and then at the guests: who takes a slot in between is not among them.
pub(super) fn gone(kept: Vec<Uuid>, known: &[Guest]) -> Vec<Uuid> {
    let known: HashSet<&Uuid> = known.iter().map(|guest| &guest.uuid).collect();
    kept.into_iter().filter(|uuid| !known.contains(uuid)).collect()
}

/// Frees what the host keeps for guests that are neither defined nor running; returns their UUIDs.
///
/// A guest that just arrives by migration has a slot for a moment before libvirt lists it: only who is
/// missing twice is gone.
pub fn free_gone(paths: &Paths, libvirt: &Libvirt) -> Result<Vec<Uuid>> {
    let look = || Ok::<_, anyhow::Error>(gone(kept(paths)?, &libvirt.guests()?));
    let first = look()?;
    if first.is_empty() {
        return Ok(first);
    }
    std::thread::sleep(ARRIVAL);
    let mut both = look()?;
    both.retain(|uuid| first.contains(uuid));
    forget_gone(paths, &both)?;
    Ok(both)
}

/// Frees slots that the configured port ranges do not reach any more; `publish` and `wire` give their
/// guests others.
pub fn free_out_of_range(paths: &Paths) -> Result<Vec<Uuid>> {
    let room = files::config(paths)?.room();
    let beyond =
        slots::load(paths)?.iter().filter(|(slot, _)| *slot >= room).map(|(_, uuid)| uuid.clone()).collect::<Vec<_>>();
    forget(paths, &beyond)?;
    Ok(beyond)
}

/// Keeps nothing of guests that are no more.
pub(super) fn forget_gone(paths: &Paths, guests: &[Uuid]) -> Result<()> {
    for uuid in guests {
        logs::remove(paths, uuid).with_context(|| format!("cannot remove {uuid}'s logs"))?;
    }
    forget(paths, guests)
}

/// Frees the slots of guests, and removes their drop-ins and folders.
fn forget(paths: &Paths, guests: &[Uuid]) -> Result<()> {
    for uuid in guests {
        // The route first: sync must not start a socket without a slot.
        publish::withdraw(paths, uuid)?;
        remove_folder(&paths.guest(uuid))?;
        proxy_files::remove(paths, uuid)?;
        files::leave_note(&paths.queue(), uuid.as_str()).context("cannot leave a note for sync")?;
        for drop_in in [paths.drop_in(uuid), paths.user_drop_in(uuid)] {
            drop_in.parent().map_or(Ok(()), remove_folder)?;
        }
        slots::free(paths, uuid)?;
    }
    unwired::remove(paths, guests)
}

fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
            Err(why).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
