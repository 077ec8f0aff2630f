//! What `doctor` says of libvirt and its guests: who is published, and what serves their consoles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::Finding::{self, Advice, Fault, Good, Unseen};
use super::displays::{self, Around};
use super::is_root;
use crate::edges::libvirt::{Guest, Libvirt, LibvirtError, Which};
use crate::edges::paths::Paths;
use crate::edges::processes::{NotHeld, Process};
use crate::edges::{ports, publish, sock_diag, terminal};
use crate::rules::config::Config;
use crate::rules::domain::{BadDomain, Domain, Listen, Source};
use crate::rules::guest::{Console, Uuid, printable};
use crate::rules::log::{may_be_shown, why_not_shown};
use crate::rules::route::{Backend, Route};
use crate::rules::serving::Held;

/// How long libvirt's daemon may take for its guests, and for each of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the host itself says, as far as it was looked at before.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) paths: Paths,
    pub(super) config: Config,
    /// Where root alone connects; `None` where that cannot be seen.
    pub(super) guarded: Option<BTreeSet<SocketAddr>>,
    /// `None` where that cannot be seen.
    pub(super) routes: Option<BTreeMap<Uuid, Route>>,
}

/// Asks libvirt. Its library's calls cannot be given up: they are made by a thread, which ends with the program.
pub(super) fn look(host: &Host) -> Vec<Finding> {
    let (sender, found) = mpsc::channel();
    let (asking, mut findings) = (host.clone(), Vec::new());
    std::thread::spawn(move || ask(&asking, &sender));
    loop {
        match found.recv_timeout(PATIENCE) {
            Ok(some) => findings.extend::<Vec<_>>(some),
            Err(RecvTimeoutError::Disconnected) => return findings,
            Err(RecvTimeoutError::Timeout) => {
                let what = format!(
                    "libvirt's daemon has not answered for {} s: guests that it was not asked about are not looked at",
                    PATIENCE.as_secs()
                );
                let remedy = "`systemctl status libvirtd virtqemud`; guests run on while it is restarted".to_owned();
                findings.push(Fault(what, remedy));
                return findings;
            }
        }
    }
}

fn ask(host: &Host, found: &Sender<Vec<Finding>>) {
    // Over a connection for looking alone libvirt does not tell whether a display has a password; as another user than
    // root the other kind may have polkit ask for one.
    let opened = if is_root() { Libvirt::open() } else { Libvirt::open_read_only() };
    let guests = match opened.and_then(|libvirt| libvirt.guests()) {
        Ok(guests) => guests,
        Err(why @ LibvirtError::NotAllowed(_)) if !is_root() => return drop(found.send(vec![Unseen(why.to_string())])),
        Err(why) => {
            let fault = Fault(why.to_string(), "`systemctl status libvirtd virtqemud`".to_owned());
            return drop(found.send(vec![fault]));
        }
    };
    let _ = found.send(vec![Good(format!("libvirt answers: {} guests", guests.len()))]);
    for guest in &guests {
        let mut findings = Vec::new();
        look_at(host, guest, &mut findings);
        let _ = found.send(findings);
    }
    let runs = |uuid: &Uuid| guests.iter().any(|guest| guest.active() && guest.uuid == *uuid);
    let gone = host.routes.iter().flat_map(BTreeMap::values).filter(|route| !runs(&route.uuid));
    let fault = |route: &Route| {
        let what = format!("{} is published and does not run", printable(&route.name));
        Fault(what, "`console-proxy publish --all`".to_owned())
    };
    let _ = found.send(gone.map(fault).collect());
}

/// A guest's route, its backends, and what its definition may run into.
fn look_at(host: &Host, guest: &Guest, findings: &mut Vec<Finding>) {
    let Host { paths, config, guarded, routes } = host;
    let name = guest.shown();
    let secrets = if guest.active() { guest.xml(Which::LiveWithSecrets).ok() } else { None };
    let shows_passwords = secrets.is_some();
    let plain = || guest.xml(if guest.active() { Which::Live } else { Which::Stored });
    let text = match secrets.map_or_else(plain, Ok) {
        Ok(text) => text,
        Err(why) => return findings.push(Advice(format!("{name}: {why}"))),
    };
    let domain = match Domain::parse(&text) {
        Ok(domain) => domain,
        Err(why) => {
            return findings
                .push(Fault(format!("{name}: its XML is not understood: {why}"), remedy_for(&why).to_owned()));
        }
    };
    open_to_others(&name, &domain, findings);
    without_history(&name, &domain, findings);
    if !guest.active() {
        for serial in &domain.serials {
            if let Source::TcpListen { host, port, .. } = &serial.source
                && let Some(holder) = ports::holder(host, *port)
            {
                let remedy = format!("end that program, or `console-proxy unwire {name}` if the port is ours");
                findings
                    .push(Fault(format!("{name} will not start: its serial port {port} is held by {holder}"), remedy));
            }
        }
        return;
    }
    let conf = publish::qemu_conf(paths);
    let around = Around { guarded: guarded.as_ref(), conf: &conf, shows_passwords, asked_for: config.guard.displays };
    findings.extend(displays::open_to_local_users(&name, &domain, &around));
    let left_out = config.guests.skips(&guest.name) || domain.notes.no_publishing;
    let Some(routes) = routes else { return };
    match routes.get(&guest.uuid) {
        None if left_out => findings.push(Good(format!("{name}: left out, as configured"))),
        None => findings.push(Fault(
            format!("{name} runs and is not published"),
            "`console-proxy publish --all`; if new guests are not published either, libvirt's daemon has not seen the hook: \
             `systemctl reload libvirtd` (or virtqemud)"
                .to_owned(),
        )),
        Some(route) => backends(&name, route, findings),
    }
}

fn remedy_for(why: &BadDomain) -> &'static str {
    match why {
        BadDomain::TooMany { .. } => "`virsh edit` it: take the devices out that it does not need",
        BadDomain::Element("metadata", _) => "`virsh edit` it: put its <metadata> right",
        _ => "please report it",
    }
}

fn open_to_others(name: &str, domain: &Domain, findings: &mut Vec<Finding>) {
    let open = |address: &str| {
        !matches!(address, "" | "localhost") && !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    for display in &domain.displays {
        if let Listen::Address(Some(address)) = &display.listen
            && open(address)
        {
            let websocket =
                if display.websocket.is_some() { ", its websocket in plain text and for every Origin" } else { "" };
            findings.push(Advice(format!(
                "{name}: its {:?} display listens at {address}: others reach it past the proxy{websocket}",
                display.kind
            )));
        }
    }
    for serial in domain.serials.iter().chain(domain.own_consoles()) {
        if let Source::TcpListen { host, port, .. } = &serial.source
            && open(host)
        {
            findings.push(Advice(format!(
                "{name}: its serial port listens at {host}:{port}: others reach it past the proxy, without a password"
            )));
        }
    }
}

/// An owner's own `<log>` that is another's, or may be.
fn without_history(name: &str, domain: &Domain, findings: &mut Vec<Finding>) {
    let serials = domain.serials.iter().map(|serial| (Console::Serial(serial.port.unwrap_or(0)), serial));
    let others = domain.own_consoles().map(|other| (Console::Console(other.port.unwrap_or(0)), other));
    for (console, device) in serials.chain(others) {
        if let Some(path) = device.log.as_deref().filter(|path| !may_be_shown(path, &domain.uuid)) {
            let why = why_not_shown(path, &domain.uuid);
            findings.push(Advice(format!("{name}: {console} has no history: {why}")));
        }
    }
}

fn backends(name: &str, route: &Route, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let remedy = || "`console-proxy publish --all`, or look at the guest's log in /var/log/libvirt/qemu".to_owned();
    if let Some(Err(why @ NotHeld::Ended(_))) = route.owner.as_ref().map(Process::hold_owner) {
        findings.push(Fault(format!("{name}: {why}, and another one runs: its consoles are shut"), remedy()));
    }
    for (console, why) in route.closed() {
        findings.push(Fault(format!("{name}: {console} cannot be opened: {}", printable(&why)), remedy()));
    }
    for way in &route.consoles {
        for backend in way.raw.iter().chain(&way.websocket) {
            // The kernel's tables tell: a connection would take a serial port's one place.
            let there = match backend {
                // Other programs may listen at the same number of another address.
                Backend::Tcp(ip, port) => match sock_diag::listener(SocketAddr::new(*ip, *port)) {
                    Ok(listener) => listener.is_some(),
                    Err(why) => {
                        findings.push(Unseen(format!("{name}: {backend}, its {}: {why}", way.console)));
                        continue;
                    }
                },
                Backend::Unix(path) => match Path::new(path).try_exists() {
                    Ok(there) => there,
                    Err(why) => {
                        findings.push(Unseen(format!("{name}: {backend}, its {}: {why}", way.console)));
                        continue;
                    }
                },
                Backend::Pty(number) => Path::new(&format!("/dev/pts/{number}")).exists(),
                // QEMU has it for as long as the guest runs.
                Backend::Display(_) => true,
            };
            if !there {
                findings.push(Fault(
                    format!("{name}: nothing listens at {backend}, which should be its {}", way.console),
                    remedy(),
                ));
            }
            if there && is_anothers(route, backend) {
                findings.push(Fault(
                    format!("{name}: {backend}, its {}, is not what it was when the guest was published", way.console),
                    remedy(),
                ));
            }
        }
    }
    for gone in &route.unreachable {
        findings.push(Advice(format!("{name}: {} cannot be reached: {}", gone.console, printable(&gone.reason))));
    }
    if findings.len() == before {
        let consoles: Vec<_> = route.consoles.iter().map(|way| way.console.to_string()).collect();
        findings.push(Good(format!("{name}: port {}, {}", route.port, consoles.join(", "))));
    }
}

/// Whether something else has a terminal's or a port's number by now.
fn is_anothers(route: &Route, backend: &Backend) -> bool {
    match (backend, route.held(backend)) {
        (Backend::Tcp(ip, port), Ok(Some(Held::Listener { socket }))) => {
            let listener = sock_diag::listener(SocketAddr::new(*ip, *port));
            matches!(listener, Ok(Some(listener)) if listener.cookie != *socket)
        }
        (Backend::Pty(number), Ok(Some(Held::Terminal(expected)))) => {
            terminal::identity(*number).is_ok_and(|now| now != *expected)
        }
        _ => false,
    }
}
