//! What must be asked of libvirt so that a stored definition becomes a text that wiring made of it:
//! single-device calls alone, so that edits of others in between are kept.

use super::note::Note;
use crate::rules::domain::{ALIAS, BadDomain};
use crate::rules::xml::{Document, Node};

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

/// The calls in their order. Broken off at any place, wiring or unwiring once more completes them: the
/// note is there before the first change that it tells how to take back, and goes after the last.
pub fn calls(before: &str, after: &str) -> Result<Vec<Call>, BadDomain> {
    let (old, new) = (Document::parse(before)?, Document::parse(after)?);
    let mut calls = Vec::new();
    let (old_serials, new_serials) = (devices(&old, "serial"), devices(&new, "serial"));
    for (node, text) in &old_serials {
        if new_serials.iter().all(|(_, other)| other != text) {
            let ours = node.first("alias").and_then(|alias| alias.attribute("name")) == Some(ALIAS);
            calls.push(if ours { Call::DetachOurs } else { Call::Detach((*text).to_owned()) });
        }
    }
    for (_, text) in &new_serials {
        if old_serials.iter().all(|(_, other)| other != text) {
            calls.push(Call::Attach((*text).to_owned()));
        }
    }
    for ((_, text), (_, other)) in devices(&new, "graphics").iter().zip(devices(&old, "graphics")) {
        if *text != other {
            calls.push(Call::Update((*text).to_owned()));
        }
    }
    let ((old_note, old_places), (new_note, _)) = (Note::of(&old), Note::of(&new));
    if old_note == new_note && old_places.len() < 2 {
        return Ok(calls);
    }
    let keeps_a_pty = |note: &Option<Note>| {
        note.as_ref().and_then(|note| note.serial.as_ref()).is_some_and(|serial| serial.was.is_some())
    };
    let last = new_note.is_none() || (keeps_a_pty(&old_note) && !keeps_a_pty(&new_note));
    let note = Call::Note(new_note.map(|note| note.to_metadata()));
    let place = if last { calls.len() } else { 0 };
    calls.insert(place, note);
    Ok(calls)
}

fn devices<'d>(document: &'d Document<'d>, kind: &'d str) -> Vec<(Node<'d>, &'d str)> {
    let devices = document.root().first("devices");
    let nodes = devices.into_iter().flat_map(|devices| devices.all(kind));
    nodes.map(|node| (node, &document.text[node.element().span.clone()])).collect()
}
