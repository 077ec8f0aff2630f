//! A guest's identity and the names of its consoles. Knows nothing of where they are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A libvirt domain's UUID in its canonical form: 36 characters, lower case, with dashes.
///
/// Safe in paths and in unit names. libvirt accepts it with or without dashes, and prints this form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(String);

/// A text that is no UUID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a UUID")]
pub struct BadUuid(String);

impl Uuid {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight hex digits, as used in the session cookie's name.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for Uuid {
    type Err = BadUuid;

    fn from_str(text: &str) -> Result<Self, BadUuid> {
        let bad = || BadUuid(text.chars().take(64).collect());
        let dashes_right = match text.len() {
            32 => !text.contains('-'),
            36 => text.char_indices().all(|(i, c)| (c == '-') == matches!(i, 8 | 13 | 18 | 23)),
            _ => false,
        };
        let hex: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        if !dashes_right || hex.len() != 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        Ok(Self(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])))
    }
}

impl TryFrom<String> for Uuid {
    type Error = BadUuid;
    fn try_from(text: String) -> Result<Self, BadUuid> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way into a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Console {
    /// The VNC display.
    Vnc,
    /// The SPICE display.
    Spice,
    /// A serial port, by its target index.
    Serial(u16),
    /// A virtio or other console that is no serial port, by its target index.
    Console(u16),
}

/// A text that names no console.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} names no console: vnc, spice, serial/N or console/N")]
pub struct BadConsole(String);

impl Console {
    /// Whether the bytes are a text console's, which must always be read (see `flow::serial`).
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Serial(_) | Self::Console(_))
    }
}

impl FromStr for Console {
    type Err = BadConsole;

    fn from_str(text: &str) -> Result<Self, BadConsole> {
        let bad = || BadConsole(text.chars().take(64).collect());
        // One spelling for one console: `serial/01` would be a second name for the same port.
        let index = |digits: &str| match digits.as_bytes() {
            [b'0'] => Ok(0),
            [b'1'..=b'9', rest @ ..] if rest.len() < 5 && rest.iter().all(u8::is_ascii_digit) => {
                digits.parse().map_err(|_| bad())
            }
            _ => Err(bad()),
        };
        match text.split_once('/') {
            None if text == "vnc" => Ok(Self::Vnc),
            None if text == "spice" => Ok(Self::Spice),
            Some(("serial", digits)) => index(digits).map(Self::Serial),
            Some(("console", digits)) => index(digits).map(Self::Console),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Console {
    type Error = BadConsole;
    fn try_from(text: String) -> Result<Self, BadConsole> {
        text.parse()
    }
}

impl From<Console> for String {
    fn from(console: Console) -> Self {
        console.to_string()
    }
}

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vnc => f.write_str("vnc"),
            Self::Spice => f.write_str("spice"),
            Self::Serial(n) => write!(f, "serial/{n}"),
            Self::Console(n) => write!(f, "console/{n}"),
        }
    }
}

/// A name from outside (a guest's, a person's) made fit for a terminal, a log line or a unit's
/// description: control characters, line separators and what a terminal acts on become U+FFFD.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            let acts = c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
            if acts { '\u{FFFD}' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uuid_is_read_in_every_form_libvirt_accepts_and_written_in_one() {
        let canonical = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
        for text in [canonical, "B50BDC9F-490B-4B9B-8641-7573C0EBA77C", "b50bdc9f490b4b9b86417573c0eba77c"] {
            assert_eq!(text.parse::<Uuid>().unwrap().as_str(), canonical);
        }
    }

    #[test]
    fn what_could_leave_a_folder_or_a_unit_name_is_no_uuid() {
        for text in [
            "",
            "../../../../../../../../../../etc/passwd",
            "b50bdc9f-490b-4b9b-8641-7573c0eba77",
            "b50bdc9f-490b-4b9b-8641-7573c0eba77c\n",
            "b50bdc9f/490b-4b9b-8641-7573c0eba77c",
            "b50bdc9f4-90b-4b9b-8641-7573c0eba77c",
            "b50bdc9f-490b-4b9b-8641-7573c0eba7é",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_console_has_exactly_one_spelling() {
        for text in ["vnc", "spice", "serial/0", "serial/12", "console/3", "serial/65535"] {
            assert_eq!(text.parse::<Console>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "VNC",
            "vnc/",
            "vnc/0",
            "serial",
            "serial/",
            "serial/01",
            "serial/-1",
            "serial/+1",
            "serial/65536",
            "serial/100000",
            "serial/1/2",
            "serial/../vnc",
            "websockify",
        ] {
            assert!(text.parse::<Console>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printable_text_never_moves_a_cursor_or_starts_a_line(text in ".*") {
            prop_assert!(printable(&text).chars().all(|c| !c.is_control()));
        }
    }
}
