//! What should become of a guest's consoles: the decision, before any text is touched.

use std::net::IpAddr;

use super::Settings;
use super::log::{self, LogStep};
use super::note::Note;
use crate::rules::config::{SerialAdd, SerialExisting, VncWebsocket};
use crate::rules::domain::{ALIAS, Chardev, Display, DisplayKind, Domain, Listen, Source};

/// What to do, and for what is not done the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) serial: SerialStep,
    pub(super) websocket: WebsocketStep,
    /// For each serial port, in their order.
    pub(super) logs: Vec<LogStep>,
    pub(super) left: Vec<String>,
}

/// What happens to the serial port that is, or could be, ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SerialStep {
    /// There is none of ours and there will be none.
    None,
    /// Ours stays, with the ports of this host's slot.
    Keep,
    /// One more, with this index (libvirt's choice where others are not numbered yet) and model.
    Add { index: Option<u16>, model: Option<&'static str> },
    /// The guest's only serial port, a pty, becomes ours.
    Turn,
    /// Ours goes, or becomes the pty again that it was.
    TakeBack,
    /// Turning was broken off after the pty was gone: put it back.
    Restore,
}

/// What happens to the VNC display's websocket attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WebsocketStep {
    None,
    Keep,
    Add,
    TakeBack,
}

/// The decision for a guest. Without settings, everything of ours is taken back.
pub(super) fn plan(domain: &Domain, note: Option<&Note>, settings: Option<&Settings<'_>>) -> Plan {
    let mut left = Vec::new();
    let settings = settings.filter(|settings| {
        let why = if domain.notes.no_wiring {
            "its metadata says wire='no'"
        } else if settings.config.guests.skips(&domain.name) {
            "the configuration's guests.skip names it"
        } else {
            return true;
        };
        left.push(format!("left alone: {why}"));
        false
    });
    let serial = serial(domain, note, settings, &mut left);
    let websocket = websocket(domain, note, settings, &mut left);
    let logs = log::plan(domain, settings, &mut left);
    Plan { serial, websocket, logs, left }
}

fn serial(domain: &Domain, note: Option<&Note>, settings: Option<&Settings<'_>>, left: &mut Vec<String>) -> SerialStep {
    let was_pty = note.and_then(|note| note.serial.as_ref()).is_some_and(|serial| serial.was.is_some());
    if domain.serials.iter().any(Chardev::is_ours) {
        let wanted = settings.is_some_and(|Settings { config, .. }| {
            if was_pty { config.serial.existing == SerialExisting::Tcp } else { config.serial.add != SerialAdd::Never }
        });
        return if wanted { SerialStep::Keep } else { SerialStep::TakeBack };
    }
    if was_pty && domain.serials.is_empty() {
        return SerialStep::Restore;
    }
    if domain.serials.iter().any(|serial| serial.alias.as_deref() == Some(ALIAS)) {
        left.push(format!("serial: the device {ALIAS} is no port that QEMU listens on: somebody changed it"));
        return SerialStep::None;
    }
    let Some(Settings { config, .. }) = settings else { return SerialStep::None };
    let unnumbered = domain.serials.is_empty() && domain.consoles.iter().any(Chardev::is_serial_twin);
    let wants_to_turn = config.serial.existing == SerialExisting::Tcp;
    if unnumbered && (wants_to_turn || config.serial.add == SerialAdd::Always) {
        left.push(
            "serial: its serial port is written as a <console> alone: `virsh define` first makes it a <serial>"
                .to_owned(),
        );
        return SerialStep::None;
    }
    if wants_to_turn {
        match domain.serials.as_slice() {
            [only] if matches!(only.source, Source::Pty(_)) => return SerialStep::Turn,
            several if several.iter().any(|serial| matches!(serial.source, Source::Pty(_))) => {
                left.push(
                    "serial: of several serial ports none becomes tcp: libvirt would move its console".to_owned(),
                );
            }
            _ => {}
        }
    }
    if config.serial.add == SerialAdd::Always && domain.serials.is_empty() && !domain.consoles.is_empty() {
        left.push("serial: it has a virtio console alone, and a serial port would become its first console".to_owned());
        return SerialStep::None;
    }
    match config.serial.add {
        SerialAdd::Never => SerialStep::None,
        SerialAdd::Missing if !domain.serials.is_empty() || !domain.consoles.is_empty() => SerialStep::None,
        SerialAdd::Missing | SerialAdd::Always => one_more(domain).unwrap_or_else(|why| {
            left.push(format!("serial: {why}"));
            SerialStep::None
        }),
    }
}

/// A free place for one more serial port on this machine type.
fn one_more(domain: &Domain) -> Result<SerialStep, String> {
    let index = next_index(domain);
    if domain.arch == "s390x" {
        let used = |model: &str, console: &str| {
            domain.serials.iter().any(|serial| serial.model == model)
                || domain.consoles.iter().any(|other| other.target == console)
        };
        // A serial port without a model is the machine's first kind.
        let first = used("sclpconsole", "sclp") || domain.serials.iter().any(|serial| serial.model.is_empty());
        return match (first, used("sclplmconsole", "sclplm")) {
            (false, _) => Ok(SerialStep::Add { index, model: None }),
            (true, false) => Ok(SerialStep::Add { index, model: Some("sclplmconsole") }),
            (true, true) => Err("no room: both of the machine's SCLP consoles are in use".to_owned()),
        };
    }
    let room = room(&domain.arch, &domain.machine);
    if domain.serials.len() >= usize::from(room) || index.is_some_and(|index| index >= room) {
        let machine = if domain.machine.is_empty() { "this machine type" } else { &domain.machine };
        return Err(format!("no room: {machine} has {room}, all in use"));
    }
    Ok(SerialStep::Add { index, model: None })
}

/// How many serial ports a machine type has. An unknown one has at least the one that libvirt gives it.
fn room(arch: &str, machine: &str) -> u16 {
    match arch {
        "x86_64" | "i686" if machine == "microvm" => 1,
        "x86_64" | "i686" => 4,
        "aarch64" | "armv7l" | "armv6l" if has_second_uart(machine) => 2,
        "ppc64" | "ppc64le" if machine.starts_with("pseries") => 8,
        _ => 1,
    }
}

/// QEMU's arm `virt` has a second UART since 9.1. A distribution's own name for it says no version.
fn has_second_uart(machine: &str) -> bool {
    let version = machine.strip_prefix("virt-").and_then(|version| version.split_once('.'));
    let number = version.and_then(|(major, minor)| Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?)));
    number.is_some_and(|version| version >= (9, 1))
}

/// The lowest index that no serial port has; `None` while libvirt has not numbered them all, since an
/// explicit one would move the others.
fn next_index(domain: &Domain) -> Option<u16> {
    let used: Option<Vec<u16>> = domain.serials.iter().map(|serial| serial.port).collect();
    used.and_then(|used| (0..u16::MAX).find(|index| !used.contains(index)))
}

fn websocket(
    domain: &Domain,
    note: Option<&Note>,
    settings: Option<&Settings<'_>>,
    left: &mut Vec<String>,
) -> WebsocketStep {
    let Some(display) = domain.displays.iter().find(|display| display.kind == DisplayKind::Vnc) else {
        return WebsocketStep::None;
    };
    let ours = note.is_some_and(|note| note.websocket) && display.websocket.is_some();
    if display.websocket.is_some() && !ours {
        return WebsocketStep::None;
    }
    let wanted = settings.filter(|settings| settings.config.vnc.websocket == VncWebsocket::Add);
    match (wanted.map(|settings| on_loopback(display, settings.vnc_listen)), ours) {
        (Some(Ok(())), true) => WebsocketStep::Keep,
        (Some(Ok(())), false) => WebsocketStep::Add,
        (Some(Err(why)), ours) => {
            left.push(format!("websocket: {why}"));
            if ours { WebsocketStep::TakeBack } else { WebsocketStep::None }
        }
        (None, true) => WebsocketStep::TakeBack,
        (None, false) => WebsocketStep::None,
    }
}

/// A websocket elsewhere than on loopback is a plain-text door to the network.
fn on_loopback(display: &Display, default: &str) -> Result<(), String> {
    let address = match &display.listen {
        Listen::Nowhere => return Err("the VNC display listens nowhere".to_owned()),
        Listen::Socket => return Err("the VNC display listens at a unix socket".to_owned()),
        Listen::Network => {
            return Err("the VNC display listens on a network's address, not on loopback alone".to_owned());
        }
        Listen::Address(address) => address.as_deref().filter(|address| !address.is_empty()).unwrap_or(default),
    };
    if address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        Ok(())
    } else {
        Err(format!("the VNC display listens at {address}, not on loopback alone"))
    }
}
