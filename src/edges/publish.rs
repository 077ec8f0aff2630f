//! Writing and withdrawing routes: the one place that changes what is published, for the hook
//! (which knows the live XML by itself) and for `publish` (which asks libvirt).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::files;
use super::paths::Paths;
use super::processes::Process;
use super::{serving, slots};
use crate::rules::domain::Domain;
use crate::rules::guest::{Uuid, printable};
use crate::rules::qemu_conf::{QemuConf, certificates};
use crate::rules::reach::{self, Tls, VncTls};
use crate::rules::route::Route;
use crate::rules::serving::Owner;

const LARGEST_ROUTE: u64 = 1 << 20;

/// Reads a guest's route; `None` where it has none.
pub fn read_route(paths: &Paths, uuid: &Uuid) -> Result<Option<Route>> {
    let path = paths.route(uuid);
    let text = files::read(&path, LARGEST_ROUTE).with_context(|| format!("cannot read {}", path.display()))?;
    text.map(|text| Route::parse(&text).with_context(|| path.display().to_string())).transpose()
}

/// All published guests, in the order of their UUIDs; files that cannot be read are errors of their own.
pub fn all_guests(paths: &Paths) -> Result<Vec<Uuid>> {
    let folder = paths.guests();
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut all: Vec<Uuid> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.sort();
    Ok(all)
}

/// Writes the route of a running guest from its live XML, and a note for sync. `None` where the
/// configuration or the guest's metadata says that it is not published.
pub fn publish(paths: &Paths, domain: &Domain) -> Result<Option<Route>> {
    let result = write_route(paths, domain);
    let outdated = match &result {
        Ok(route) => route.is_none(),
        // The route of a QEMU that still runs is as good as it was. One of an earlier start is not.
        Err(_) => !is_of_this_run(paths, &domain.uuid),
    };
    if outdated {
        withdraw(paths, &domain.uuid)?;
    }
    result
}

/// Whether the QEMU that a guest's route names still runs.
fn is_of_this_run(paths: &Paths, uuid: &Uuid) -> bool {
    let owner = read_route(paths, uuid).ok().flatten().and_then(|route| route.owner);
    owner.is_some_and(|owner| Process::hold_owner(&owner).is_ok())
}

fn write_route(paths: &Paths, domain: &Domain) -> Result<Option<Route>> {
    let config = files::config(paths)?;
    if domain.notes.no_publishing || config.guests.skips(&domain.name) {
        return Ok(None);
    }
    let (slot, held) = slots::take(paths, &config, &domain.uuid)?;
    if !held.is_empty() {
        let held: Vec<_> = held
            .iter()
            .filter_map(|slot| config.ports(*slot))
            .map(|(public, serial)| format!("{public} or {serial}"))
            .collect();
        tracing::warn!(guest = %domain.uuid, "passed over ports that other programs hold: {}", held.join(", "));
    }
    let mut route = reach::route(domain, slot, &config, &tls(paths), now()).with_context(|| {
        format!("slot {slot} is outside the configured port ranges; `console-proxy prune` frees it")
    })?;
    for why in serving::find(paths, &mut route) {
        let name = printable(&route.name);
        tracing::warn!(guest = %route.uuid, "{name}: {}: not opened until `console-proxy publish {name}`", printable(&why));
    }
    files::make_folder_of(&paths.guests(), files::OPERATORS, paths)?;
    files::make_folder(&paths.guest(&domain.uuid), 0o755)?;
    let _lock = lock_routes(paths);
    let path = paths.route(&domain.uuid);
    let unchanged =
        read_route(paths, &domain.uuid).ok().flatten().is_some_and(|old| Route { since: route.since, ..old } == route);
    if !unchanged {
        files::replace(&path, route.to_text().as_bytes(), 0o644)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    leave_note(paths, &domain.uuid)?;
    Ok(Some(route))
}

/// Takes a guest's route away, and leaves a note for sync. True if there was one.
pub fn withdraw(paths: &Paths, uuid: &Uuid) -> Result<bool> {
    let _lock = lock_routes(paths);
    withdraw_now(paths, uuid)
}

/// The same for a guest whose owner has ended, unless it was published anew meanwhile.
pub fn withdraw_of(paths: &Paths, uuid: &Uuid, owner: &Owner) -> Result<bool> {
    let lock = lock_routes(paths);
    let is_still = read_route(paths, uuid)?.is_some_and(|route| route.owner.as_ref() == Some(owner));
    // Without the lock the hook may be writing a new one.
    if is_still && lock.is_some() { withdraw_now(paths, uuid) } else { Ok(false) }
}

/// Keeps others from changing routes. The hook waits no longer than that: a guest's start is worth more.
fn lock_routes(paths: &Paths) -> Option<files::Lock> {
    let path = paths.routes_lock();
    files::lock(&path, Duration::from_millis(500))
        .inspect_err(|why| {
            if why.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!("{}: {why}", path.display());
            }
        })
        .ok()
}

fn withdraw_now(paths: &Paths, uuid: &Uuid) -> Result<bool> {
    let path = paths.route(uuid);
    let there = files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    if there {
        leave_note(paths, uuid)?;
    }
    Ok(there)
}

/// Takes away what a guest of that name has, where its XML does not say its UUID.
pub fn withdraw_named(paths: &Paths, name: &str) -> Result<()> {
    for uuid in all_guests(paths)? {
        if read_route(paths, &uuid).ok().flatten().is_some_and(|route| route.name == name) {
            withdraw(paths, &uuid)?;
        }
    }
    Ok(())
}

fn leave_note(paths: &Paths, uuid: &Uuid) -> Result<()> {
    files::leave_note(&paths.queue(), uuid.as_str())
        .with_context(|| format!("cannot write into {}", paths.queue().display()))
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// libvirt's qemu.conf; its defaults where it cannot be read.
#[must_use]
pub fn qemu_conf(paths: &Paths) -> QemuConf {
    QemuConf::parse(&files::read(&paths.qemu_conf(), 1 << 20).ok().flatten().unwrap_or_default())
}

/// What libvirt's qemu.conf says of displays and TLS. The proxy cannot read the host's certificates, so an
/// authority's goes into the route.
#[must_use]
pub fn tls(paths: &Paths) -> Tls {
    let conf = qemu_conf(paths);
    Tls { vnc: vnc_tls(paths, &conf), spice: spice_ca(paths, &conf) }
}

/// The authority's certificate, and the server's own: many of those name no host, as SPICE clients are told by other
/// means whom they are to expect.
fn spice_ca(paths: &Paths, conf: &QemuConf) -> Result<String, String> {
    let mut folders = conf.spice_cert_folders.iter().map(|folder| paths.below_root(folder));
    let first = folders.clone().next();
    let Some(folder) = folders.find(|folder| folder.is_dir()).or(first) else { return Err("no folder".to_owned()) };
    let ca = folder.join("ca-cert.pem");
    let own = files::read(&folder.join("server-cert.pem"), 256 << 10).ok().flatten().unwrap_or_default();
    match files::read(&ca, 256 << 10) {
        Ok(Some(pem)) => Ok(certificates(&pem) + &certificates(&own)),
        Ok(None) => Err(format!("{} does not exist", ca.display())),
        Err(why) => Err(format!("{} cannot be read: {why}", ca.display())),
    }
}

fn vnc_tls(paths: &Paths, conf: &QemuConf) -> VncTls {
    if !conf.vnc_tls {
        return VncTls::Off;
    }
    if conf.vnc_tls_verify {
        return VncTls::Unusable(
            "vnc_tls_x509_verify is on in qemu.conf: QEMU asks for a client certificate, which the proxy has not"
                .to_owned(),
        );
    }
    let ca = paths.below_root(&conf.vnc_cert_folder).join("ca-cert.pem");
    match files::read(&ca, 256 << 10) {
        Ok(Some(pem)) => VncTls::Server(pem),
        Ok(None) => VncTls::Unusable(format!("vnc_tls is on in qemu.conf and {} does not exist", ca.display())),
        Err(why) => VncTls::Unusable(format!("vnc_tls is on in qemu.conf and {} cannot be read: {why}", ca.display())),
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Has a guest's proxy look at once at what its open sessions stand on. Where none runs, nobody has to.
pub fn have_it_look(paths: &Paths, uuid: &Uuid) -> Result<()> {
    let file = paths.look(uuid);
    files::replace(&file, b"", 0o644).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = include_str!("../../tests/xml/started-libvirt-9.0.0.xml");

    #[test]
    fn a_broken_configuration_costs_a_guest_that_runs_nothing_and_publishes_none_that_starts() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let domain = Domain::parse(STARTED).unwrap();
        let mut route = publish(&paths, &domain).unwrap().unwrap();
        assert_eq!(read_route(&paths, &domain.uuid).unwrap().as_ref(), Some(&route));
        files::make_folder(paths.config().parent().unwrap(), 0o755).unwrap();
        std::fs::write(paths.config(), "nonsense").unwrap();
        let started = Process::hold(std::process::id()).unwrap().started().unwrap();
        let owner = |started| Some(Owner { pid: std::process::id(), started, holds: [].into() });
        for (owner, is_kept) in [(owner(started), true), (owner(started + 1), false), (None, false)] {
            route.owner = owner;
            std::fs::write(paths.route(&route.uuid), route.to_text()).unwrap();
            assert!(publish(&paths, &domain).is_err());
            let expected = is_kept.then(|| route.clone());
            assert_eq!(read_route(&paths, &domain.uuid).unwrap(), expected, "{:?}", route.owner);
        }
    }

    #[test]
    fn what_is_stale_is_withdrawn_and_what_was_published_anew_meanwhile_is_not() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let domain = Domain::parse(STARTED).unwrap();
        let mut route = publish(&paths, &domain).unwrap().unwrap();
        let owner = |started| Owner { pid: 7, started, holds: [].into() };
        route.owner = Some(owner(2));
        std::fs::write(paths.route(&route.uuid), route.to_text()).unwrap();
        assert!(!withdraw_of(&paths, &route.uuid, &owner(1)).unwrap());
        assert!(read_route(&paths, &route.uuid).unwrap().is_some());
        let held = files::lock(&paths.routes_lock(), Duration::ZERO).unwrap();
        assert!(!withdraw_of(&paths, &route.uuid, &owner(2)).unwrap(), "somebody is writing");
        assert!(publish(&paths, &domain).unwrap().is_some(), "the hook does not wait for long");
        std::fs::write(paths.route(&route.uuid), route.to_text()).unwrap();
        drop(held);
        assert!(withdraw_of(&paths, &route.uuid, &owner(2)).unwrap());
        assert!(read_route(&paths, &route.uuid).unwrap().is_none());
    }

    #[test]
    fn a_guest_whose_owner_wants_no_publishing_is_withdrawn() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut domain = Domain::parse(STARTED).unwrap();
        publish(&paths, &domain).unwrap().unwrap();
        domain.notes.no_publishing = true;
        assert_eq!(publish(&paths, &domain).unwrap(), None);
        assert_eq!(read_route(&paths, &domain.uuid).unwrap(), None);
    }

    #[test]
    fn certificates_for_spice_are_of_the_folder_that_libvirt_takes_and_no_key_is_among_them() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let write = |path: &str, text: &str| {
            let path = paths.below_root(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let block = |what: &str, text: &str| format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n");
        let missing = paths.below_root("/etc/pki/libvirt-spice/ca-cert.pem");
        assert_eq!(tls(&paths).spice, Err(format!("{} does not exist", missing.display())));
        write("/etc/pki/qemu/ca-cert.pem", &block("CERTIFICATE", "general"));
        assert_eq!(tls(&paths).spice, Ok(block("CERTIFICATE", "general")));
        write("/etc/pki/libvirt-spice/ca-cert.pem", &block("CERTIFICATE", "authority"));
        let own = block("PRIVATE KEY", "secret") + &block("CERTIFICATE", "own");
        write("/etc/pki/libvirt-spice/server-cert.pem", &own);
        assert_eq!(tls(&paths).spice, Ok(block("CERTIFICATE", "authority") + &block("CERTIFICATE", "own")));
        write("/etc/libvirt/qemu.conf", "spice_tls_x509_cert_dir = \"/srv/pki\"\n");
        write("/srv/pki/ca-cert.pem", &block("CERTIFICATE", "elsewhere"));
        assert_eq!(tls(&paths).spice, Ok(block("CERTIFICATE", "elsewhere")));
    }
}
