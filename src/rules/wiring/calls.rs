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
    let (out, put_in) = exchange(&old_serials, &new_serials);
    let exchanged = if needs_noting(&out, &put_in) { out.clone() } else { Vec::new() };
    steps.extend(out.iter().rev().map(|serial| Step { call: serial.detach(), undo: serial.attach() }));
    steps.extend(put_in.iter().map(|serial| Step { call: serial.attach(), undo: serial.detach() }));
    for (display, was) in devices(&new, "graphics").iter().zip(devices(&old, "graphics")) {
        if display.text != was.text {
            let update = |device: &Device<'_>| Call::Update(device.text.to_owned());
            steps.push(Step { call: update(display), undo: update(&was) });
        }
    }
    let ((old_note, old_places), (new_note, _)) = (Note::of(&old), Note::of(&new));
    let set = |note: Option<Note>| Call::Note(note.map(|note| note.to_metadata()));
    if !exchanged.is_empty() {
        let exchanged = exchanged.iter().map(|serial| serial.text.to_owned()).collect();
        let meanwhile = Some(Note { exchanged, ..new_note.clone().or(old_note.clone()).unwrap_or_default() });
        steps.insert(0, Step { call: set(meanwhile.clone()), undo: set(old_note) });
        steps.push(Step { call: set(new_note), undo: set(meanwhile) });
        return Ok(steps);
    }
    if old_note == new_note && old_places.len() < 2 {
        return Ok(steps);
    }
    let keeps_a_pty = |note: &Option<Note>| {
        note.as_ref().and_then(|note| note.serial.as_ref()).is_some_and(|serial| serial.was.is_some())
    };
    let last = new_note.is_none() || (keeps_a_pty(&old_note) && !keeps_a_pty(&new_note));
    let place = if last { steps.len() } else { 0 };
    steps.insert(place, Step { call: set(new_note), undo: set(old_note) });
    Ok(steps)
}

#[derive(Clone, Copy)]
struct Device<'d> {
    text: &'d str,
    index: Option<&'d str>,
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
            index: node.first("target").and_then(|target| target.attribute("port")),
            ours: node.first("alias").and_then(|alias| alias.attribute("name")) == Some(ALIAS),
        })
        .collect()
}

/// What is detached, in the reverse of this order, and what is attached then.
///
/// libvirt appends what is attached, and its first console is whatever serial port comes first: where
/// one changes, those behind it are detached and attached, too.
fn exchange<'d>(old: &[Device<'d>], new: &[Device<'d>]) -> (Vec<Device<'d>>, Vec<Device<'d>>) {
    let changed = |device: &Device<'_>| {
        old.iter().any(|was| was.index.is_some() && was.index == device.index && was.text != device.text)
    };
    if !new.iter().any(changed) {
        return (gone(old, new), gone(new, old));
    }
    let same = old.iter().zip(new).take_while(|(was, is)| was.text == is.text).count();
    (old[same..].to_vec(), new[same..].to_vec())
}

/// The devices of `these` that `others` lack.
fn gone<'d>(these: &[Device<'d>], others: &[Device<'d>]) -> Vec<Device<'d>> {
    these.iter().filter(|device| others.iter().all(|known| known.text != device.text)).copied().collect()
}

/// Whether an owner's serial port would be lost if this were broken off half way. Ours would be made
/// anew, and a pty that is being turned is noted by itself.
fn needs_noting(out: &[Device<'_>], put_in: &[Device<'_>]) -> bool {
    let turned = matches!((out, put_in), ([out], [put_in]) if !out.ours && put_in.ours);
    let turned_back = matches!((out, put_in), ([out], [put_in]) if out.ours && !put_in.ours);
    !turned && !turned_back && !put_in.is_empty() && out.iter().any(|serial| !serial.ours)
}
