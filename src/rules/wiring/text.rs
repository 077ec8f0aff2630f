//! The plan carried out on a domain's text.

use std::ops::Range;

use super::log::{self, LogStep};
use super::note::{Before, Note, NotedSerial};
use super::plan::{Plan, SerialStep, WebsocketStep, plan};
use super::splice::{Splices, deeper};
use super::{CannotWire, Change, Settings};
use crate::rules::domain::{ALIAS, Domain};
use crate::rules::ports::Slot;
use crate::rules::xml::{Document, Node};

/// One round: the text after the plan was carried out, what changed, and what was left as it is and why.
pub(super) struct Round {
    pub(super) text: String,
    pub(super) changes: Vec<Change>,
    pub(super) left: Vec<String>,
}

/// Plans and carries out one round. Without settings everything of ours is taken back.
pub(super) fn round(
    text: &str,
    settings: Option<&Settings<'_>>,
    slot: Option<Slot>,
) -> Result<Option<Round>, CannotWire> {
    let document = Document::parse(text).map_err(|why| CannotWire::Domain(why.into()))?;
    let domain = Domain::of(&document)?;
    let (note, places) = Note::of(&document);
    if device_nodes(&document, "serial").filter(|node| has_our_alias(*node)).count() > 1 {
        return Err(CannotWire::TwoOfOurs);
    }
    let Plan { serial, websocket, logs, left } = plan(&domain, note.as_ref(), settings);
    let mut hand = Hand {
        document: &document,
        splices: Splices::new(text),
        changes: Vec::new(),
        noted: note.clone().unwrap_or_default(),
    };
    if hand.noted.exchanged.is_empty() {
        hand.serial(&domain, &serial, settings, slot)?;
        hand.websocket(websocket);
        // Where a serial port comes or goes, the next round sees to what is left.
        if matches!(serial, SerialStep::None | SerialStep::Keep) {
            hand.logs(&domain, logs, settings);
        }
    } else {
        hand.put_back_exchanged(&domain)?;
    }
    hand.note(note.as_ref(), &places)?;
    let Hand { splices, changes, .. } = hand;
    if splices.is_empty() {
        return Ok(Some(Round { text: text.to_owned(), changes, left }));
    }
    Ok(splices.finish().map(|text| Round { text, changes, left }))
}

/// Ports of our own devices become those of `slot`; nothing is added or removed. `None`: nothing to do.
pub(super) fn filter(document: &Document<'_>, slot: Slot, port: u16) -> Option<String> {
    let (note, places) = Note::of(document);
    let mut splices = Splices::new(document.text);
    let mut ours = false;
    for node in device_nodes(document, "serial").chain(device_nodes(document, "console")) {
        ours |= is_our_port(node);
        correct_port(&mut splices, node, port);
    }
    let Some(note) = note else { return splices.finish_if_any() };
    if let Some(attribute) = vnc(document).and_then(|node| node.attribute_at("websocket")).filter(|_| note.websocket)
        && &document.text[attribute.raw.clone()] != "-1"
    {
        splices.replace(attribute.raw.clone(), "-1");
    }
    let mut noted = note.clone();
    if let Some(serial) = noted.serial.as_mut().filter(|_| ours) {
        (serial.slot, serial.port) = (Some(slot), Some(port));
    }
    if let Some(place) = places.first().filter(|_| noted != note) {
        splices.replace(place.clone(), noted.to_element());
    }
    splices.finish_if_any()
}

impl Splices<'_> {
    fn finish_if_any(self) -> Option<String> {
        if self.is_empty() { None } else { self.finish() }
    }
}

struct Hand<'d> {
    document: &'d Document<'d>,
    splices: Splices<'d>,
    changes: Vec<Change>,
    noted: Note,
}

impl Hand<'_> {
    fn serial(
        &mut self,
        domain: &Domain,
        step: &SerialStep,
        settings: Option<&Settings<'_>>,
        slot: Option<Slot>,
    ) -> Result<(), CannotWire> {
        let own = || {
            let slot = slot.ok_or(CannotWire::SlotNeeded)?;
            let ports = settings.and_then(|settings| settings.config.ports(slot));
            Ok::<_, CannotWire>((slot, ports.ok_or(CannotWire::OutOfRange(slot))?.1))
        };
        let ours = domain.serials.iter().find(|serial| serial.is_ours());
        let noted = self.noted.serial.take();
        match step {
            SerialStep::None => {}
            SerialStep::Keep => {
                let (slot, port) = own()?;
                let index = ours.and_then(|serial| serial.port);
                let nodes = device_nodes(self.document, "serial").chain(device_nodes(self.document, "console"));
                for from in nodes.filter_map(|node| correct_port(&mut self.splices, node, port)) {
                    let change = Change::PortCorrected { index, from, to: port };
                    if !self.changes.contains(&change) {
                        self.changes.push(change);
                    }
                }
                let was = noted.and_then(|serial| serial.was);
                self.noted.serial = Some(NotedSerial { slot: Some(slot), port: Some(port), index, was });
            }
            SerialStep::Add { index, model } => {
                let (slot, port) = own()?;
                self.put_serial(|space| new_serial(space, *index, *model, port))?;
                self.noted.serial = Some(NotedSerial { slot: Some(slot), port: Some(port), index: *index, was: None });
                self.changes.push(Change::SerialAdded { index: *index, port });
            }
            SerialStep::Turn => {
                let (slot, port) = own()?;
                let Some(node) = device_nodes(self.document, "serial").next() else { return Ok(()) };
                let index = domain.serials.first().and_then(|serial| serial.port);
                let span = node.element().span.clone();
                let was = self.document.text[span.clone()].to_owned();
                let space = self.splices.space_before(span.start);
                self.splices.replace(span, turned_serial(self.document, node, space, port));
                self.noted.serial = Some(NotedSerial { slot: Some(slot), port: Some(port), index, was: Some(was) });
                self.changes.push(Change::SerialTurned { index, port });
            }
            SerialStep::TakeBack => {
                self.take_back_serial(noted.and_then(|serial| serial.was));
                self.changes.push(Change::SerialTakenBack { index: ours.and_then(|serial| serial.port) });
            }
            SerialStep::Restore => {
                let was = noted.and_then(|serial| serial.was).unwrap_or_default();
                self.put_serial(|_| was)?;
                self.changes.push(Change::SerialRestored);
            }
        }
        Ok(())
    }

    /// An exchange of serial ports was broken off: those that are missing come back as they were.
    fn put_back_exchanged(&mut self, domain: &Domain) -> Result<(), CannotWire> {
        let missing = |text: &String| {
            let document = Document::parse(text).ok();
            let index = document.as_ref().and_then(|document| index_of(document.root()));
            domain.serials.iter().all(|serial| serial.port != index)
        };
        let missing: Vec<String> = self.noted.exchanged.drain(..).filter(missing).collect();
        if !missing.is_empty() {
            self.put_serial(|space| missing.join(space))?;
            self.changes.push(Change::SerialRestored);
        }
        Ok(())
    }

    fn logs(&mut self, domain: &Domain, steps: Vec<LogStep>, settings: Option<&Settings<'_>>) {
        for (node, step) in device_nodes(self.document, "serial").zip(steps) {
            self.changes.extend(log::carry_out(&mut self.splices, node, step, index_of(node)));
        }
        for node in device_nodes(self.document, "console") {
            let step = log::twin_step(domain, node, settings);
            // It is said of its serial port.
            let _ = log::carry_out(&mut self.splices, node, step, None);
        }
    }

    fn put_serial(&mut self, make: impl FnOnce(&str) -> String) -> Result<(), CannotWire> {
        let devices = self.document.root().first("devices").ok_or(CannotWire::NoDevices)?;
        if let Some(last) = device_nodes(self.document, "serial").last() {
            self.splices.insert_after(last, make);
        } else if self.splices.insert_first(devices, make) {
            self.noted.devices = Before::SelfClosed;
        }
        Ok(())
    }

    fn take_back_serial(&mut self, was: Option<String>) {
        let mut was = was;
        for node in device_nodes(self.document, "serial").filter(|node| is_our_port(*node)) {
            let span = node.element().span.clone();
            match was.take() {
                Some(was) => self.splices.replace(span, was),
                None => self.splices.remove(span),
            }
        }
        // libvirt made it from our serial port, and would make a serial port from it.
        for node in device_nodes(self.document, "console").filter(|node| has_our_alias(*node)) {
            self.splices.remove(node.element().span.clone());
        }
        if let Some(devices) = self.document.root().first("devices")
            && self.noted.devices == Before::SelfClosed
            && self.splices.leaves_empty(devices)
        {
            self.splices.close(devices);
        }
        self.noted.devices = Before::There;
    }

    fn websocket(&mut self, step: WebsocketStep) {
        let attribute = vnc(self.document).and_then(|node| node.attribute_at("websocket"));
        match step {
            WebsocketStep::None => self.noted.websocket = false,
            WebsocketStep::Keep => {
                let Some(attribute) = attribute else { return };
                if &self.document.text[attribute.raw.clone()] != "-1" {
                    self.splices.replace(attribute.raw.clone(), "-1");
                    self.changes.push(Change::WebsocketFreed);
                }
            }
            // `websocket='0'` means none to libvirt; it is the owner's all the same.
            WebsocketStep::Add if attribute.is_some() => self.noted.websocket = false,
            WebsocketStep::Add => {
                let Some(last) = vnc(self.document).and_then(Node::last_attribute) else { return };
                self.splices.replace(last.span.end..last.span.end, " websocket='-1'");
                self.noted.websocket = true;
                self.changes.push(Change::WebsocketAdded);
            }
            WebsocketStep::TakeBack => {
                let Some(attribute) = attribute else { return };
                let before = &self.document.text[..attribute.span.start];
                self.splices.replace(before.trim_end().len()..attribute.span.end, "");
                self.noted.websocket = false;
                self.changes.push(Change::WebsocketTakenBack);
            }
        }
    }

    /// Makes the note say what is so now. `places`: where notes are.
    fn note(&mut self, before: Option<&Note>, places: &[Range<usize>]) -> Result<(), CannotWire> {
        let metadata = self.document.root().first("metadata");
        for superfluous in places.iter().skip(1) {
            self.splices.remove(superfluous.clone());
        }
        let nothing_is_ours = self.noted.is_empty();
        match (places.first(), nothing_is_ours) {
            (None, true) => return Ok(()),
            (Some(_), false) if before == Some(&self.noted) => return Ok(()),
            (Some(place), false) => self.splices.replace(place.clone(), self.noted.to_element()),
            (Some(place), true) => {
                self.splices.remove(place.clone());
                self.close_metadata(metadata);
            }
            (None, false) => self.put_note(metadata)?,
        }
        if self.changes.is_empty() {
            self.changes.push(Change::NoteCorrected);
        }
        Ok(())
    }

    fn close_metadata(&mut self, metadata: Option<Node<'_>>) {
        let Some(metadata) = metadata.filter(|node| self.splices.leaves_empty(*node)) else { return };
        match self.noted.metadata {
            Before::There => {}
            Before::SelfClosed => self.splices.close(metadata),
            Before::Absent => self.splices.remove_all(metadata),
        }
    }

    fn put_note(&mut self, metadata: Option<Node<'_>>) -> Result<(), CannotWire> {
        if let Some(metadata) = metadata {
            let opened = metadata.element().self_closing;
            self.noted.metadata = if opened { Before::SelfClosed } else { Before::There };
            let note = self.noted.to_element();
            self.splices.insert_first(metadata, |_| note);
            return Ok(());
        }
        self.noted.metadata = Before::Absent;
        let note = self.noted.to_element();
        // Every domain has exactly one: `Domain::of` saw to it.
        let uuid = self.document.root().first("uuid").ok_or(CannotWire::NoDevices)?;
        self.splices.insert_after(uuid, |space| {
            let (inner, outer) = (deeper(space), if space.contains('\n') { space } else { "" });
            format!("<metadata>{inner}{note}{outer}</metadata>")
        });
        Ok(())
    }
}

fn device_nodes<'d>(document: &'d Document<'d>, kind: &'d str) -> impl Iterator<Item = Node<'d>> {
    document.root().first("devices").into_iter().flat_map(move |devices| devices.all(kind))
}

fn vnc<'d>(document: &'d Document<'d>) -> Option<Node<'d>> {
    device_nodes(document, "graphics").find(|node| node.attribute("type") == Some("vnc"))
}

fn index_of(serial: Node<'_>) -> Option<u16> {
    serial.first("target")?.attribute("port")?.parse().ok()
}

fn has_our_alias(node: Node<'_>) -> bool {
    node.first("alias").and_then(|alias| alias.attribute("name")) == Some(ALIAS)
}

fn is_our_port(node: Node<'_>) -> bool {
    has_our_alias(node)
        && node.attribute("type") == Some("tcp")
        && node.first("source").and_then(|source| source.attribute("mode")) == Some("bind")
}

/// Gives a device of ours its port; returns the one that it had, where that was another.
fn correct_port(splices: &mut Splices<'_>, node: Node<'_>, port: u16) -> Option<String> {
    let service = node.first("source").filter(|_| is_our_port(node))?.attribute_at("service")?;
    let had = node.first("source")?.attribute("service")?.to_owned();
    if had.parse() == Ok(port) {
        return None;
    }
    splices.replace(service.raw.clone(), port.to_string());
    Some(had)
}

fn source(port: u16) -> String {
    // Without tls='no' a host with chardev_tls=1 would make it speak TLS.
    format!("<source mode='bind' host='127.0.0.1' service='{port}' tls='no'/>")
}

fn serial_of(space: &str, children: &[String]) -> String {
    let (inner, outer) = (deeper(space), if space.contains('\n') { space } else { "" });
    let children: String = children.iter().flat_map(|child| [&inner, child]).map(String::as_str).collect();
    format!("<serial type='tcp'>{children}{outer}</serial>")
}

fn new_serial(space: &str, index: Option<u16>, model: Option<&str>, port: u16) -> String {
    let index = index.map(|index| format!(" port='{index}'"));
    let target = match (index, model) {
        (index, Some(model)) => {
            Some(format!("<target type='sclp-serial'{}><model name='{model}'/></target>", index.unwrap_or_default()))
        }
        (Some(index), None) => Some(format!("<target{index}/>")),
        (None, None) => None,
    };
    let alias = format!("<alias name='{ALIAS}'/>");
    let parts = [Some(source(port)), Some("<protocol type='raw'/>".to_owned()), target, Some(alias)];
    serial_of(space, &parts.into_iter().flatten().collect::<Vec<_>>())
}

/// A pty's own elements (target, log, address) stay; where its bytes are on the host changes.
fn turned_serial(document: &Document<'_>, node: Node<'_>, space: &str, port: u16) -> String {
    let mut children = vec![source(port), "<protocol type='raw'/>".to_owned()];
    let kept = node.children().filter(|child| !["source", "protocol", "alias"].iter().any(|name| child.is(name)));
    children.extend(kept.map(|child| document.text[child.element().span.clone()].to_owned()));
    children.push(format!("<alias name='{ALIAS}'/>"));
    serial_of(space, &children)
}
