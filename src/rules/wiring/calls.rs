//! What must be asked of libvirt so that a stored definition becomes a text that wiring made of it:
//! single-device calls alone, so that edits of others in between are kept.

use super::note::Note;
use crate::rules::domain::{ALIAS, BadDomain};
use crate::rules::xml::Document;

/// One call on a stored definition (`VIR_DOMAIN_AFFECT_CONFIG`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Set the element of our metadata namespace, or with `None` remove it.
    Note(Option<String>),
    /// Detach the device of our alias; a `<console>` twin goes with it.
    DetachOurs,
    /// Detach the device of this XML.
    Detach(String),
    /// Attach the device of this XML.
    Attach(String),
    /// Update the device of this XML, read with passwords.
    Update(String),
}

/// A call, and what takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to ask for.
    pub call: Call,
    /// What to ask for when a later step fails.
    pub undo: Call,
}

/// The calls in their order. Broken off at any place, wiring or unwiring once more completes them: the
/// note is there before the first change that it tells how to take back, and goes after the last.
pub fn calls(before: &str, after: &str) -> Result<Vec<Step>, BadDomain> {
    let (old, new) = (Document::parse(before)?, Document::parse(after)?);
    let mut steps = Vec::new();
    let (old_serials, new_serials) = (devices(&old, "serial"), devices(&new, "serial"));
    for serial in gone(&old_serials, &new_serials) {
        steps.push(Step { call: serial.detach(), undo: serial.attach() });
    }
    for serial in gone(&new_serials, &old_serials) {
        steps.push(Step { call: serial.attach(), undo: serial.detach() });
    }
    for (display, was) in devices(&new, "graphics").iter().zip(devices(&old, "graphics")) {
        if display.text != was.text {
            let update = |device: &Device<'_>| Call::Update(device.text.to_owned());
            steps.push(Step { call: update(display), undo: update(&was) });
        }
    }
    let ((old_note, old_places), (new_note, _)) = (Note::of(&old), Note::of(&new));
    if old_note == new_note && old_places.len() < 2 {
        return Ok(steps);
    }
    let keeps_a_pty = |note: &Option<Note>| {
        note.as_ref().and_then(|note| note.serial.as_ref()).is_some_and(|serial| serial.was.is_some())
    };
    let last = new_note.is_none() || (keeps_a_pty(&old_note) && !keeps_a_pty(&new_note));
    let set = |note: Option<Note>| Call::Note(note.map(|note| note.to_metadata()));
    let place = if last { steps.len() } else { 0 };
    steps.insert(place, Step { call: set(new_note), undo: set(old_note) });
    Ok(steps)
}

struct Device<'d> {
    text: &'d str,
    ours: bool,
}

impl Device<'_> {
    fn attach(&self) -> Call {
        Call::Attach(self.text.to_owned())
    }

    fn detach(&self) -> Call {
        if self.ours { Call::DetachOurs } else { Call::Detach(self.text.to_owned()) }
    }
}

fn devices<'d>(document: &'d Document<'d>, kind: &'d str) -> Vec<Device<'d>> {
    let devices = document.root().first("devices");
    let nodes = devices.into_iter().flat_map(|devices| devices.all(kind));
    nodes
        .map(|node| Device {
            text: &document.text[node.element().span.clone()],
            ours: node.first("alias").and_then(|alias| alias.attribute("name")) == Some(ALIAS),
        })
        .collect()
}

/// The devices of `these` that `others` lack.
fn gone<'a, 'd>(these: &'a [Device<'d>], others: &'a [Device<'d>]) -> impl Iterator<Item = &'a Device<'d>> {
    these.iter().filter(|device| others.iter().all(|known| known.text != device.text))
}
