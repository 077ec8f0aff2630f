//! What a guest said, made harmless for a terminal: text, line ends, tabs and colours pass; whatever would
//! move the cursor, set titles, ask the terminal something, or write to its clipboard does not. Input may
//! be cut anywhere.

/// Where in the input it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and a byte that more follow.
    Intermediate,
    /// In a control sequence (`ESC [`), which may still be a colour.
    Sequence,
    /// In one that is none.
    Dropped,
    /// In a string (OSC, DCS, APC, PM, SOS): to its end.
    String,
    /// The same, after ESC.
    StringEscape,
    /// In a character of several bytes: so many are to come.
    Character(u8),
}

/// A filter with its state.
#[derive(Clone, Debug, Default)]
pub struct Tame {
    state: State,
    held: Vec<u8>,
}

/// The longest colour; a longer one is none.
const LONGEST: usize = 64;

impl Tame {
    /// What may be shown of the next bytes.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.step(*byte, out);
        }
    }

    #[allow(clippy::match_same_arms, reason = "the order of the arms counts")]
    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            // CAN and SUB end whatever was begun; ESC begins anew.
            (_, 0x18 | 0x1a) => State::Text,
            (State::String, 0x1b) => State::StringEscape,
            (_, 0x1b) => State::Escape,
            (State::Character(left), 0x80..=0xbf) => return self.character(left, byte, out),
            (State::Text | State::Character(_), _) => self.text(byte, out),
            (State::Escape, b'[') => {
                self.held.clear();
                State::Sequence
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape | State::Intermediate, 0x20..=0x2f) => State::Intermediate,
            (State::Sequence, b'0'..=b'9' | b';' | b':') if self.held.len() < LONGEST => {
                self.held.push(byte);
                State::Sequence
            }
            (State::Sequence, b'm') => {
                out.extend(b"\x1b[");
                out.append(&mut self.held);
                out.push(b'm');
                State::Text
            }
            (State::Sequence | State::Dropped, 0x20..=0x3f) => State::Dropped,
            // A line's end in the middle of one is a line's end all the same.
            (State::Sequence | State::Dropped, b'\n' | b'\r') => self.text(byte, out),
            (State::String | State::StringEscape, 0x07) | (State::StringEscape, b'\\') => State::Text,
            (State::String | State::StringEscape, _) => State::String,
            (State::Escape | State::Intermediate | State::Sequence | State::Dropped, _) => State::Text,
        };
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        let more = match byte {
            b'\n' | b'\r' | b'\t' | 0x08 | 0x20..=0x7e => {
                out.push(byte);
                0
            }
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            // Other controls, DEL, and bytes that are no UTF-8: some terminals take them for controls.
            _ => 0,
        };
        if more == 0 {
            return State::Text;
        }
        self.held.clear();
        self.held.push(byte);
        State::Character(more)
    }

    fn character(&mut self, left: u8, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        if left > 1 {
            self.state = State::Character(left - 1);
            return;
        }
        self.state = State::Text;
        // U+0080 to U+009F are controls, too, and U+202A and the like turn the text around.
        let is_harmless = |c: char| {
            !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        if std::str::from_utf8(&self.held).is_ok_and(|text| text.chars().all(is_harmless)) {
            out.append(&mut self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tame(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Tame::default().pass(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_and_colours_pass_and_nothing_that_commands() {
        for (said, shown) in [
            ("plain \ttext\r\n", "plain \ttext\r\n"),
            ("é 漢 🦀", "é 漢 🦀"),
            ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            ("\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx"),
            ("\x1b[2J\x1b[Hx", "x"),
            ("\x1b[?25lx\x1b[>4mx", "xx"),
            ("\x1b[6nx", "x"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]52;c;AAAA\x1b\\x", "x"),
            ("\x1bP+q\x1b[31m\x1b\\x", "x"),
            ("\x1b(0x\x1bcx", "xx"),
            ("\x1b]0;never ends", ""),
            ("\x1b]0;ended by CAN\x18x", "x"),
            ("\x1b[31\nx", "\nx"),
            ("bell\x07 del\x7f nul\0", "bell del nul"),
            ("\u{9b}31mx", "31mx"),
            ("\u{202e}x", "x"),
        ] {
            assert_eq!(tame(said.as_bytes()), shown, "{said:?}");
        }
        assert_eq!(tame(b"\x9b2J\xffx\xc3(\xe2\x82"), "2Jx(");
        assert_eq!(tame(format!("\x1b[{}mx", "1;".repeat(100)).as_bytes()), "x");
    }

    proptest! {
        #[test]
        fn only_colours_are_left_of_escapes_and_all_is_text(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(b']')], 0..200)) {
            let shown = tame(&bytes);
            let mut rest = shown.as_str();
            while let Some(at) = rest.find('\x1b') {
                let after = rest[at + 1..].strip_prefix('[').expect("a sequence");
                let end = after.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':').expect("its end");
                prop_assert_eq!(&after[end..=end], "m");
                rest = &after[end..];
            }
            prop_assert!(shown.chars().all(|c| !c.is_control() || "\n\r\t\x08\x1b".contains(c)));
        }

        #[test]
        fn where_the_input_is_cut_changes_nothing(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm')], 0..100), cut in 0usize..100) {
            let cut = cut.min(bytes.len());
            let (mut tame_it, mut out) = (Tame::default(), Vec::new());
            tame_it.pass(&bytes[..cut], &mut out);
            tame_it.pass(&bytes[cut..], &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), tame(&bytes));
        }
    }
}
