//! The note in a guest's `<metadata>`: what in its definition is ours, and what taking it back needs.

use std::fmt::Write as _;
use std::ops::Range;

use crate::rules::domain::WIRING_NAMESPACE;
use crate::rules::ports::Slot;
use crate::rules::xml::{Document, Node};

/// The name under which libvirt's metadata calls keep the note; also its prefix.
pub const NOTE_KEY: &str = "console-proxy";

/// What the note says. Every part is optional: an owner may have edited it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The serial port that is ours.
    pub(super) serial: Option<NotedSerial>,
    /// The websocket attribute of the VNC display is ours.
    pub(super) websocket: bool,
    /// What became of `<metadata>` for the note.
    pub(super) metadata: Before,
    /// What became of `<devices>` for the serial port.
    pub(super) devices: Before,
    /// Serial ports that are being exchanged, as they were, the text of each: libvirt has no call that
    /// changes one in its place. Never in a definition that is settled.
    pub(super) exchanged: Vec<String>,
}

/// The noted serial port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NotedSerial {
    /// The guest's slot on the host that wired it.
    pub(super) slot: Option<Slot>,
    /// The loopback port that follows from it.
    pub(super) port: Option<u16>,
    /// `target@port`, where it was known.
    pub(super) index: Option<u16>,
    /// The text of the pty that it took the place of; `None` where it was added.
    pub(super) was: Option<String>,
}

/// What an element was before something was put into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Before {
    /// An element with a start and an end tag.
    #[default]
    There,
    /// `<x/>`.
    SelfClosed,
    /// Not there.
    Absent,
}

impl Before {
    fn to_word(self) -> Option<&'static str> {
        match self {
            Self::There => None,
            Self::SelfClosed => Some("self-closed"),
            Self::Absent => Some("absent"),
        }
    }

    fn from_word(word: Option<&str>) -> Self {
        match word {
            Some("self-closed") => Self::SelfClosed,
            Some("absent") => Self::Absent,
            _ => Self::There,
        }
    }
}

impl Note {
    /// The guest's note, and where each element of that kind is (an owner may have copied it).
    pub(super) fn of(document: &Document<'_>) -> (Option<Self>, Vec<Range<usize>>) {
        let metadata = document.root().first("metadata");
        let notes: Vec<_> = metadata.into_iter().flat_map(Node::children).filter(|node| is_note(*node)).collect();
        (notes.first().map(|node| Self::read(*node)), notes.iter().map(|node| node.element().span.clone()).collect())
    }

    fn read(node: Node<'_>) -> Self {
        let number = |name| node.attribute(name).and_then(|digits| digits.parse().ok());
        let serial = matches!(node.attribute("serial"), Some("added" | "was-pty")).then(|| NotedSerial {
            slot: number("slot"),
            port: number("port"),
            index: number("index"),
            was: node.attribute("was").filter(|text| is_a_serial_port(text)).map(str::to_owned),
        });
        Self {
            serial,
            websocket: node.attribute("websocket") == Some("added"),
            metadata: Before::from_word(node.attribute("metadata")),
            devices: Before::from_word(node.attribute("devices")),
            exchanged: node.attribute("exchanged").and_then(serial_ports).unwrap_or_default(),
        }
    }

    /// Nothing is ours: no note is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.serial.is_none() && !self.websocket && self.exchanged.is_empty()
    }

    /// The note as it stands in a definition.
    pub(super) fn to_element(&self) -> String {
        format!("<{NOTE_KEY}:wired xmlns:{NOTE_KEY}='{WIRING_NAMESPACE}'{}/>", self.attributes())
    }

    /// The note as libvirt's metadata call wants it: the call adds prefix and namespace.
    pub(super) fn to_metadata(&self) -> String {
        format!("<wired{}/>", self.attributes())
    }

    fn attributes(&self) -> String {
        let mut out = String::new();
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(out, " {name}='{value}'");
        };
        if let Some(serial) = &self.serial {
            add("serial", &if serial.was.is_some() { "was-pty" } else { "added" });
            for (name, number) in [("slot", serial.slot), ("port", serial.port), ("index", serial.index)] {
                if let Some(number) = number {
                    add(name, &number);
                }
            }
            if let Some(was) = &serial.was {
                add("was", &escaped(was));
            }
        }
        if self.websocket {
            add("websocket", &"added");
        }
        for (name, before) in [("metadata", self.metadata), ("devices", self.devices)] {
            if let Some(word) = before.to_word() {
                add(name, &word);
            }
        }
        if !self.exchanged.is_empty() {
            add("exchanged", &escaped(&self.exchanged.concat()));
        }
        out
    }
}

fn is_note(node: Node<'_>) -> bool {
    node.is_in(WIRING_NAMESPACE) && node.local_name() == "wired"
}

/// Only a text that is one `<serial>` is ever put back: the note is part of a file that others edit.
fn is_a_serial_port(text: &str) -> bool {
    Document::parse(text).is_ok_and(|document| {
        let root = document.root();
        root.is("serial") && root.element().span == (0..text.len())
    })
}

/// A text of several serial ports and nothing else, as the texts of each.
fn serial_ports(text: &str) -> Option<Vec<String>> {
    let text = format!("<x>{text}</x>");
    let document = Document::parse(&text).ok()?;
    let root = document.root();
    let each: Vec<String> = root.children().map(|node| text[node.element().span.clone()].to_owned()).collect();
    (each.iter().all(|one| is_a_serial_port(one)) && each.concat() == text[root.element().content.clone()])
        .then_some(each)
}

/// Escaped for an attribute in single quotes; line ends as references, or they would be read as spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(metadata: &str) -> Option<Note> {
        let text = format!("<domain><metadata>{metadata}</metadata></domain>");
        Note::of(&Document::parse(&text).unwrap()).0
    }

    #[test]
    fn a_note_says_only_what_is_so() {
        let websocket = Note { websocket: true, ..Note::default() };
        assert_eq!(
            websocket.to_element(),
            "<console-proxy:wired xmlns:console-proxy='urn:console-proxy:wiring:1' websocket='added'/>"
        );
        assert_eq!(websocket.to_metadata(), "<wired websocket='added'/>");
    }

    #[test]
    fn what_is_to_be_put_back_must_be_one_serial_port() {
        let note = |was: &str| {
            read(&format!("<w:wired xmlns:w='{WIRING_NAMESPACE}' serial='was-pty' was='{}'/>", escaped(was)))
                .unwrap()
                .serial
                .unwrap()
                .was
        };
        assert!(note("<serial type='pty'/>").is_some());
        for text in [
            "",
            "<disk/>",
            "<serial/><disk/>",
            "<serial>",
            " <serial/>",
            "<serial xmlns='urn:x'/>",
            "<!--x--><serial/>",
        ] {
            assert_eq!(note(text), None, "{text}");
        }
    }

    #[test]
    fn an_element_of_another_namespace_is_no_note() {
        assert_eq!(read("<wired websocket='added'/>"), None);
        assert_eq!(read("<x:wired xmlns:x='urn:console-proxy:1' websocket='added'/>"), None);
        assert!(read("<wired xmlns='urn:console-proxy:wiring:1' websocket=\"added\"/>").unwrap().websocket);
    }

    proptest! {
        #[test]
        fn a_note_reads_back_whatever_it_keeps(
            words in "[a-z<>&'\"\t\r\n é]{0,40}",
            slot in proptest::option::of(any::<u16>()),
            index in proptest::option::of(any::<u16>()),
            websocket: bool,
            turned: bool,
        ) {
            // Text inside the element must be escaped once for the element itself.
            let was = turned.then(|| format!("<serial type='pty'>{}</serial>", escaped(&words)));
            let serial = NotedSerial { slot, port: slot, index, was };
            let exchanged = if turned { vec![format!("<serial>{}</serial>", escaped(&words)), "<serial/>".to_owned()] } else { Vec::new() };
            let note = Note { serial: Some(serial), websocket, metadata: Before::Absent, devices: Before::SelfClosed, exchanged };
            prop_assert_eq!(read(&note.to_element()), Some(note));
        }
    }
}
