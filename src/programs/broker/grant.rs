//! Opens what a proxy asks the broker for: each backend of its own guest's route, the guest's log, a file for a recording.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use super::served::Served;
use crate::edges::caller::Caller;
use crate::edges::displays::Displays;
use crate::edges::paths::Paths;
pub(super) use crate::edges::unix_sockets::connect as connect_unix;
use crate::edges::{files, logs, nft, publish, recordings, terminal};
use crate::rules::broker::{Kind, Part, Refusal, Request};
use crate::rules::guest::Console;
use crate::rules::route::{Backend, Route};

/// What a proxy gets.
#[derive(Default)]
pub(super) struct Granted {
    pub(super) descriptors: Vec<OwnedFd>,
    /// Which files of a log they are.
    pub(super) files: Vec<u8>,
    pub(super) lock: Option<terminal::Lock>,
    /// The port, where it is one that the guard should guard.
    pub(super) guarded: Option<u16>,
}

/// Opens what was asked for, if the guest's route has it and its QEMU still serves it.
pub(super) fn grant(
    paths: &Paths,
    displays: &Displays,
    caller: &Caller,
    request: &Request,
) -> Result<Granted, Refusal> {
    let unknown = |words: String| Refusal::new(Kind::Unknown, words);
    let route = publish::read_route(paths, &caller.guest).map_err(|why| unknown(format!("{why:#}")))?;
    let route = route.ok_or_else(|| unknown(format!("guest {} is not published", caller.guest)))?;
    let served = Served::by(paths, &route)?;
    let console = request.console.ok_or_else(|| unknown("no console is named".to_owned()))?;
    let way = route.way(console).ok_or_else(|| unknown(format!("guest {} has no {console}", caller.guest)))?;
    let backend = match request.part {
        Part::Raw => way.raw.as_ref(),
        Part::Websocket => way.websocket.as_ref(),
        Part::Recording => {
            let file = recording(paths, caller, &route, console)?;
            return Ok(Granted { descriptors: vec![file.into()], ..Granted::default() });
        }
        Part::Log => {
            let log = way.log.as_ref().ok_or_else(|| unknown(format!("{console} has no log")))?;
            let (files, descriptors) = logs::open(paths, &caller.guest, log)?.into_iter().unzip();
            return Ok(Granted { descriptors, files, ..Granted::default() });
        }
        Part::Login => None,
    };
    let backend = backend.ok_or_else(|| unknown(format!("{console} has no such backend")))?;
    if !caller.is_alive() {
        return Err(Refusal::new(Kind::Denied, "the caller has gone"));
    }
    let config = files::config(paths).unwrap_or_default();
    let guarded = match backend {
        Backend::Tcp(_, port) => Some(*port).filter(|port| config.serial.ports.contains(*port)),
        _ => None,
    };
    let patience = config.proxy.connect_timeout;
    let (descriptor, lock) = match backend {
        // Not of the request: whose display it is says the caller's unit.
        Backend::Display(index) => (displays.open(&caller.guest, *index, patience)?, None),
        _ => served.open(paths, &route, backend, caller, patience)?,
    };
    Ok(Granted { descriptors: vec![descriptor], files: Vec::new(), lock, guarded })
}

/// Makes a file for a recording where the configuration asks for one: nothing of it is the caller's to say. What is kept
/// of that guest's no longer goes first.
fn recording(paths: &Paths, caller: &Caller, route: &Route, console: Console) -> Result<File, Refusal> {
    let refused = |words: String| Refusal::new(Kind::Refused, words);
    let config = files::config(paths).map_err(|why| refused(format!("{why:#}")))?;
    if !config.record.wants(&route.name, console) {
        return Err(Refusal::new(Kind::Denied, format!("the configuration asks for no recording of {console}")));
    }
    match recordings::prune_guest(paths, &caller.guest, &config.record, SystemTime::now()) {
        Ok(removed) => removed.iter().for_each(|path| tracing::info!("{} was kept no longer", path.display())),
        Err(why) => tracing::error!("old recordings of {} cannot be removed: {why}", caller.guest),
    }
    recordings::create(paths, &caller.guest, &route.name, console, publish::now())
        .map_err(|why| refused(format!("cannot make a file for the recording: {why}")))
}

/// A port that wiring made is open to every local user while the guard is away: sync brings it back.
pub(super) fn warn_unguarded(paths: &Paths, port: u16) {
    if matches!(nft::is_loaded(), Ok(false)) {
        tracing::warn!(
            "the guard (table inet console_proxy) is not in the kernel: any local user can reach port {port}; having it loaded"
        );
        if let Err(why) = files::leave_note(&paths.queue(), "guard") {
            tracing::error!("cannot leave a note for sync: {why}");
        }
    }
}
