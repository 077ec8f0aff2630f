//! Wiring: rewriting a guest's definition so that its consoles can be reached, and taking exactly
//! that back. Pure, over XML text; knows the elements of libvirt's XML that are written (those that
//! are only read are in [`super::domain`]), and nothing of libvirt's calls but their order ([`calls`]).
//!
//! What is not understood comes out byte for byte as it went in. What is ours says so: the serial port
//! by its alias, a log by its path, all else by a note in `<metadata>`.

mod calls;
mod log;
mod note;
mod plan;
mod splice;
mod text;

use std::fmt;

pub use self::calls::{Call, Step, calls};
pub use self::note::NOTE_KEY;
use super::config::Config;
use super::domain::BadDomain;
use super::ports::Slot;
use super::xml::{BadXml, Document};

/// What decides how a guest is wired on this host.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Where VNC displays listen that name no address (`vnc_listen` in qemu.conf).
    pub vnc_listen: &'a str,
}

/// A text after wiring or unwiring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wired {
    /// The whole text; the very one that was given where nothing changed.
    pub text: String,
    /// What changed, for people.
    pub changes: Vec<Change>,
    /// What stays unreached or unchanged, and why, for people.
    pub left: Vec<String>,
}

/// Something that wiring changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the texts of Display say it")]
pub enum Change {
    SerialAdded { index: Option<u16>, port: u16 },
    SerialTurned { index: Option<u16>, port: u16 },
    SerialTakenBack { index: Option<u16> },
    SerialRestored,
    LogAdded { index: Option<u16> },
    LogCorrected { index: Option<u16> },
    LogTakenBack { index: Option<u16> },
    PortCorrected { index: Option<u16>, from: String, to: u16 },
    WebsocketAdded,
    WebsocketFreed,
    WebsocketTakenBack,
    NoteCorrected,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serial = |index: &Option<u16>| index.map_or_else(|| "serial".to_owned(), |index| format!("serial/{index}"));
        match self {
            Self::SerialAdded { index, port } => write!(f, "{} added on 127.0.0.1:{port}", serial(index)),
            Self::SerialTurned { index, port } => {
                write!(f, "{} turned from a pty into 127.0.0.1:{port}", serial(index))
            }
            Self::SerialTakenBack { index } => write!(f, "{} taken back", serial(index)),
            Self::SerialRestored => f.write_str("serial put back as it was"),
            Self::LogAdded { index } => write!(f, "{}: what it says will be kept", serial(index)),
            Self::LogCorrected { index } => write!(f, "{}: its log becomes this guest's own", serial(index)),
            Self::LogTakenBack { index } => write!(f, "{}: its log taken back", serial(index)),
            Self::PortCorrected { index, from, to } => {
                write!(f, "{} moved from port {from} to {to}, this guest's own", serial(index))
            }
            Self::WebsocketAdded => f.write_str("QEMU's websocket asked for on the VNC display"),
            Self::WebsocketFreed => f.write_str("the websocket's fixed port taken out"),
            Self::WebsocketTakenBack => f.write_str("QEMU's websocket taken back"),
            Self::NoteCorrected => f.write_str("the note corrected"),
        }
    }
}

/// Why a text cannot be wired. It stays as it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CannotWire {
    /// Not a domain's XML.
    #[error(transparent)]
    Domain(#[from] BadDomain),
    /// The guest is to have a port of this host, and no slot was given: take one and try again.
    #[error("the guest needs a slot")]
    SlotNeeded,
    /// The slot has no ports.
    #[error("slot {0} is outside the configured port ranges")]
    OutOfRange(Slot),
    /// Nowhere to put a device.
    #[error("the domain has no <devices>")]
    NoDevices,
    /// libvirt refuses that as well.
    #[error("two serial ports have the alias {}", super::domain::ALIAS)]
    TwoOfOurs,
    /// The result could not be shown to be right.
    #[error("the text is written in a way that cannot be changed and restored safely")]
    Unsafe,
}

/// The text as it should be on this host. Wiring twice changes nothing.
///
/// A slot is needed only where the guest is to have a port of ours: then its absence is
/// [`CannotWire::SlotNeeded`].
pub fn wire(text: &str, settings: Settings<'_>, slot: Option<Slot>) -> Result<Wired, CannotWire> {
    let wired = settle(text, Some(&settings), slot)?;
    // Whatever was done can be undone, or it is not done.
    if wired.text != text && unwire(&wired.text)?.text != unwire(text)?.text {
        return Err(CannotWire::Unsafe);
    }
    Ok(wired)
}

/// The text without anything of ours: the very bytes that it had before it was wired.
pub fn unwire(text: &str) -> Result<Wired, CannotWire> {
    settle(text, None, None)
}

/// Rounds until nothing changes: after something was taken back, something else may have its place.
fn settle(text: &str, settings: Option<&Settings<'_>>, slot: Option<Slot>) -> Result<Wired, CannotWire> {
    const MOST: usize = 5;
    let mut wired = Wired { text: text.to_owned(), changes: Vec::new(), left: Vec::new() };
    for _ in 0..MOST {
        let round = text::round(&wired.text, settings, slot)?.ok_or(CannotWire::Unsafe)?;
        wired.left = round.left;
        if round.text == wired.text {
            return Ok(wired);
        }
        wired.text = round.text;
        wired.changes.extend(round.changes);
    }
    Err(CannotWire::Unsafe)
}

/// For an incoming migration or a restored guest: the ports of our own devices become those of this
/// host's slot. Nothing is added or removed, since libvirt refuses a change of hardware. `None`: unchanged.
pub fn filter(text: &str, config: &Config, slot: Slot) -> Result<Option<String>, BadXml> {
    let document = Document::parse(text)?;
    Ok(config.ports(slot).and_then(|(_, port)| text::filter(&document, slot, port)))
}

#[cfg(test)]
mod tests;
