//! `console-proxy sync`: makes sockets, drop-ins and the guard equal to the routes. What notes say is
//! only that something changed; what is to be done follows from how things are, so their order and
//! number do not matter, and a sync that was killed is made up for by the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::edges::paths::Paths;
use crate::edges::processes::{NotHeld, Process};
use crate::edges::{files, nft, ports, publish, units};
use crate::rules::config::Config;
use crate::rules::guard::{self, Guard};
use crate::rules::guest::{Uuid, printable};
use crate::rules::plan::{self, Active, Plan, Wanted};
use crate::rules::route::Route;

/// The unit that starts sync again while something has failed.
const RETRY: &str = "console-proxy-sync.timer";
/// Looks once at every definition.
const WIRE_AGAIN: &str = "console-proxy-wire-again.service";
/// While it is stopped, all consoles of the host stay shut.
const TARGET: &str = "console-proxy.target";

/// Runs until no note is left.
pub fn run(paths: &Paths) -> Result<()> {
    let mut failed = 0;
    loop {
        let notes = take_notes(&paths.queue())?;
        failed = pass(paths).inspect_err(|_| retry_later()).or_else(|why| {
            // The notes are gone, but what they were about is still to be done.
            tracing::error!("{why:#}");
            if notes == 0 { Err(why) } else { Ok(failed + 1) }
        })?;
        if !has_notes(&paths.queue()) {
            break;
        }
    }
    if failed > 0 {
        retry_later();
    }
    Ok(())
}

fn retry_later() {
    if let Err(why) = units::start_later(RETRY) {
        tracing::error!("cannot arrange for another try: {why:#}");
    }
}

/// Removes all notes before anything is looked at: one that comes later is seen later.
fn take_notes(folder: &Path) -> Result<usize> {
    files::make_folder(folder, 0o700)?;
    let mut taken = 0;
    for note in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten() {
        match fs::remove_file(note.path()) {
            Ok(()) => taken += 1,
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            // Whatever is not a note would wake us for ever.
            Err(why) => fs::remove_dir_all(note.path())
                .with_context(|| format!("{} is in the way: {why}", note.path().display()))?,
        }
    }
    Ok(taken)
}

fn has_notes(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Makes everything equal once; returns how many guests lack a socket that listens, or a state folder.
fn pass(paths: &Paths) -> Result<usize> {
    let readable = files::config(paths).inspect_err(|why| tracing::error!("{why:#}")).ok();
    let mut routes = routes(paths);
    withdraw_stale(paths, &mut routes);
    let drop_ins = drop_ins(paths);
    if let Err(why) = keep_guard(readable.as_ref(), &routes) {
        tracing::error!("{why:#}");
    }
    let wanted: BTreeMap<Uuid, Wanted> = routes
        .iter()
        .filter_map(|(uuid, route)| {
            // With a configuration that is refused nothing is to move, or to be opened, least of all on every address.
            let wanted = match &readable {
                Some(config) => want(paths, config, route),
                None => Wanted::as_it_is(route.name.clone(), drop_ins.get(uuid)?)?,
            };
            Some((uuid.clone(), wanted))
        })
        .collect();
    let is_open = units::is_active(TARGET)?;
    let mut sockets = units::sockets()?;
    // Of a route that cannot be read nobody knows what it asks for: what is open goes on. The broker opens nothing by it.
    sockets.retain(|uuid, _| routes.contains_key(uuid) || !paths.route(uuid).exists());
    let plan = plan::plan(&wanted, &sockets, &drop_ins);
    // Of those that listen, too: after an upgrade, or with a file system that is mounted late, they have none.
    let mut failed = 0;
    for uuid in wanted.keys().filter(|_| is_open) {
        if let Err(why) = make_state(paths, uuid) {
            // Its consoles open all the same; who logs in is told, and it is tried again.
            tracing::error!(guest = %uuid, "cannot make the state folder of {uuid}: {why:#}");
            failed += 1;
        }
    }
    carry_out(paths, plan, is_open)?;
    let after = units::sockets()?;
    for (uuid, route) in &routes {
        let active = after.get(uuid).map_or(Active::No, |unit| unit.active);
        let reason = match active {
            Active::Yes => None,
            _ if !is_open => Some(format!("{TARGET} is stopped: `systemctl start {TARGET}` opens the host's consoles")),
            _ => Some(why_not(uuid, route)),
        };
        failed += usize::from(reason.is_some() && is_open);
        note_failure(paths, uuid, route, reason.as_deref())?;
    }
    Ok(failed)
}

/// All routes that can be read, by guest. One that cannot is told.
#[must_use]
pub fn routes(paths: &Paths) -> BTreeMap<Uuid, Route> {
    let guests = publish::all_guests(paths).unwrap_or_else(|why| {
        tracing::error!("{why:#}");
        Vec::new()
    });
    let read = |uuid: Uuid| match publish::read_route(paths, &uuid) {
        Ok(route) => route.map(|route| (uuid, route)),
        Err(why) => {
            tracing::error!(guest = %uuid, "{why:#}");
            None
        }
    };
    guests.into_iter().filter_map(read).collect()
}

/// Takes away routes whose QEMU has ended without a word of the hook's: it is not there, or libvirt's daemon was not.
fn withdraw_stale(paths: &Paths, routes: &mut BTreeMap<Uuid, Route>) {
    routes.retain(|uuid, route| {
        let Some(owner) = &route.owner else { return true };
        let Err(why @ NotHeld::Ended(_)) = Process::hold_owner(owner) else { return true };
        match publish::withdraw_of(paths, uuid, owner) {
            Ok(true) => tracing::warn!(guest = %uuid, "{}: {why}: withdrawn", printable(&route.name)),
            // Published anew; its note is still to be read.
            Ok(false) => return true,
            Err(why) => tracing::error!(guest = %uuid, "{}: cannot be withdrawn: {why:#}", printable(&route.name)),
        }
        false
    });
}

fn want(paths: &Paths, config: &Config, route: &Route) -> Wanted {
    let listen = match config.listen.address.parse() {
        Ok(address) => std::net::SocketAddr::new(address, route.port).to_string(),
        Err(_) => route.port.to_string(),
    };
    let front = config.listen.front.then(|| paths.front(&route.uuid).display().to_string());
    Wanted { name: route.name.clone(), listen, front }
}

/// The drop-ins that are there, by guest.
fn drop_ins(paths: &Paths) -> BTreeMap<Uuid, String> {
    let Ok(entries) = fs::read_dir(paths.units()) else { return BTreeMap::new() };
    let guest = |name: &str| name.strip_prefix("console-proxy@")?.strip_suffix(".socket.d")?.parse::<Uuid>().ok();
    let named = entries.flatten().filter_map(|entry| guest(entry.file_name().to_str()?));
    named.filter_map(|uuid| fs::read_to_string(paths.drop_in(&uuid)).ok().map(|text| (uuid, text))).collect()
}

fn carry_out(paths: &Paths, plan: Plan, is_open: bool) -> Result<()> {
    // What moves to another port must have left the old one; what only ends can wait until last.
    let (moves, ends): (Vec<_>, Vec<_>) = plan.stop.into_iter().partition(|uuid| plan.start.contains(uuid));
    for uuid in &moves {
        tracing::warn!(guest = %uuid, "{uuid} is to listen elsewhere: its open consoles end with code 1001, and can be opened again");
    }
    units::stop(&moves)?;
    for (uuid, text) in &plan.write {
        // The port's drop-in last: where it is, the user's is, too.
        write_drop_in(&paths.user_drop_in(uuid), &plan::user_drop_in(uuid))?;
        write_drop_in(&paths.drop_in(uuid), text)?;
    }
    if plan.reload {
        units::daemon_reload()?;
        // With its unit files systemd's path units begin anew: what they were to see meanwhile is lost.
        if let Err(why) = units::start_later(WIRE_AGAIN) {
            tracing::warn!(
                "a change of a definition may have been missed just now, see `console-proxy wire --all`: {why:#}"
            );
        }
    }
    units::reset_failed(&plan.reset)?;
    if is_open {
        units::start(&plan.start)?;
    }
    units::stop(&ends)
}

fn write_drop_in(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a drop-in has a folder")?;
    files::make_folder(folder, 0o755)?;
    files::replace(path, text.as_bytes(), 0o644).with_context(|| format!("cannot write {}", path.display()))
}

/// The folder that a guest's proxy may write: its group's, whatever user it gets next time.
fn make_state(paths: &Paths, uuid: &Uuid) -> Result<()> {
    let folder = paths.guest_state(uuid);
    // The administrator's `status` passes through to live.json; sessions are in a folder that is closed.
    files::make_folder(&folder, 0o2771)?;
    files::give_to_group(&folder, "console-proxy")?;
    Ok(())
}

fn why_not(uuid: &Uuid, route: &Route) -> String {
    if let Some(holder) = ports::holder("127.0.0.1", route.port) {
        return format!("port {} is held by {holder}; it is tried again every 10 s", route.port);
    }
    let result = units::show(&units::socket_of(uuid), &["Result", "LoadState"]).unwrap_or_default();
    let word = |name| result.get(name).map_or("unknown", String::as_str);
    format!(
        "{} did not start (result {}, {}): `journalctl -u {0}`",
        units::socket_of(uuid),
        word("Result"),
        word("LoadState")
    )
}

fn note_failure(paths: &Paths, uuid: &Uuid, route: &Route, reason: Option<&str>) -> Result<()> {
    let path = paths.failure(uuid);
    let old = files::read(&path, 64 << 10).ok().flatten();
    match reason {
        None => {
            if files::remove(&path)? {
                tracing::info!(guest = %uuid, "{}: port {} listens now", printable(&route.name), route.port);
            }
        }
        Some(reason) if old.as_deref() != Some(reason) => {
            tracing::error!(guest = %uuid, "{}: port {} does not listen: {reason}", printable(&route.name), route.port);
            files::replace(&path, reason.as_bytes(), 0o644)?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// The guard as it should be; without a configuration (it is refused) as it is, for the guests that are there now.
#[must_use]
pub fn wanted_guard(config: Option<&Config>, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let as_it_is = || {
        let there = nft::current().inspect_err(|why| tracing::error!("{why:#}")).ok().flatten();
        guard::guard_as_it_is(there.as_ref(), routes)
    };
    config.map_or_else(as_it_is, |config| guard::guard(config, routes))
}

fn keep_guard(config: Option<&Config>, routes: &BTreeMap<Uuid, Route>) -> Result<()> {
    let guard = wanted_guard(config, routes);
    // Where the table cannot be read it is replaced: that is right whatever it was.
    if !nft::is_current(&guard).unwrap_or(false) {
        nft::load(&guard)?;
        tracing::info!("loaded the guard: table inet console_proxy");
    }
    Ok(())
}

/// `console-proxy guard`: loads the table before libvirt's daemon starts, whatever the configuration
/// says otherwise.
pub fn load_guard(paths: &Paths) -> Result<()> {
    let config = files::config(paths).inspect_err(|why| tracing::error!("{why:#}; the guard stays as it is")).ok();
    nft::load(&wanted_guard(config.as_ref(), &routes(paths)))
}

/// `console-proxy guard --remove-unless-needed`: when the package goes, the table goes with it, unless
/// a guest still runs with a port of ours. Displays are left to others: nobody will say when their guests have gone.
pub fn remove_guard_unless_needed(paths: &Paths, out: &mut dyn std::io::Write) -> Result<()> {
    let mut config = files::config(paths).unwrap_or_default();
    config.guard.displays = false;
    let held = ports::listened_to().into_iter().any(|port| config.serial.ports.contains(port));
    let guard = guard::guard(&config, &routes(paths));
    if !held && guard.places.is_empty() {
        return nft::remove();
    }
    nft::load(&guard)?;
    writeln!(
        out,
        "the guard (nftables table inet console_proxy) stays in the kernel: a running guest still has a port on loopback. \
         When those guests have stopped: nft delete table inet console_proxy"
    )
    .context("cannot print")
}
