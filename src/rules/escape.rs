//! The key that leaves a console in a terminal. Knows no terminal: bytes come in.

use std::fmt;
use std::str::FromStr;

/// One byte, or none at all. The default is `^]`, as with `virsh console` and telnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escape(Option<u8>);

/// A text that names no key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no key: ^] or another of ^A to ^_, a single ASCII character, or none")]
pub struct BadEscape(String);

impl Default for Escape {
    fn default() -> Self {
        Self(Some(0x1d))
    }
}

impl Escape {
    /// No key leaves.
    pub const NONE: Self = Self(None);

    /// How many bytes of what was typed come before the key; all of them where it is not among them.
    #[must_use]
    pub fn find(self, typed: &[u8]) -> Option<usize> {
        let key = self.0?;
        typed.iter().position(|byte| *byte == key)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0.is_some()
    }
}

impl FromStr for Escape {
    type Err = BadEscape;

    fn from_str(text: &str) -> Result<Self, BadEscape> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            // `^@` is not among them: a lone NUL is what some terminals send for a break.
            [b'^', key] if matches!(key.to_ascii_uppercase(), b'A'..=b'_') => {
                Ok(Self(Some(key.to_ascii_uppercase() & 0x1f)))
            }
            [key] if key.is_ascii() && *key != b'^' => Ok(Self(Some(*key))),
            _ => Err(BadEscape(text.chars().take(16).collect())),
        }
    }
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(key @ 0..0x20) => write!(f, "^{}", char::from(key | 0x40)),
            Some(0x7f) => f.write_str("^?"),
            Some(key) => write!(f, "{}", char::from(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_virsh_reads_them_and_written_back() {
        assert_eq!("^]".parse(), Ok(Escape::default()));
        for (text, key, shown) in
            [("^a", 1, "^A"), ("^_", 31, "^_"), ("^[", 27, "^["), ("~", b'~', "~"), ("q", b'q', "q")]
        {
            let escape: Escape = text.parse().unwrap();
            assert_eq!(escape, Escape(Some(key)));
            assert_eq!(escape.to_string(), shown);
        }
        assert_eq!("none".parse(), Ok(Escape::NONE));
        for text in ["", "^", "^^^", "^1", "^@", "ab", "é", "^é", "None"] {
            assert!(text.parse::<Escape>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_was_typed_before_the_key_is_told_from_what_came_after() {
        let escape = Escape::default();
        assert_eq!(escape.find(b"exit\r\x1dmore\x1d"), Some(5));
        assert_eq!(escape.find(b"\x1d"), Some(0));
        assert_eq!(escape.find(b"\x1b\x1c\x1e"), None);
        assert_eq!(Escape::NONE.find(b"\x1d"), None);
    }
}
