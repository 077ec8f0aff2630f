//! asciicast v2, the form of recordings: a line of JSON about the whole, then a line for each event,
//! `[SECONDS, CODE, TEXT]`. <https://docs.asciinema.org/manual/asciicast/v2/>
//!
//! Its strings are UTF-8 and a console's bytes need not be. A character that two reads cut in two stands whole in the
//! event of the second; each longest run of bytes that begins no character becomes one U+FFFD, as everywhere in Unicode.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a recording says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// 2.
    pub version: u32,
    /// Columns. A serial line has no size: what most guests take it for.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Seconds since 1970 at which it began.
    #[serde(default)]
    pub timestamp: u64,
    /// The guest and the console, for people.
    #[serde(default)]
    pub title: String,
}

impl Header {
    /// For a recording that begins now.
    #[must_use]
    pub fn new(title: String, timestamp: u64) -> Self {
        Self { version: 2, width: 80, height: 24, timestamp, title }
    }

    /// Its line.
    #[must_use]
    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_else(|why| format!("{{\"version\":2,\"title\":\"{why}\"}}"));
        json + "\n"
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the guest.
    Output,
    /// To the guest.
    Input,
}

/// Makes lines of events. What a character cut in two leaves over waits for its rest.
#[derive(Debug, Default)]
pub struct Writer {
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Writer {
    /// Adds to `lines` the event of these bytes at that time; nothing where they complete no character.
    pub fn event(&mut self, at: Duration, way: Way, bytes: &[u8], lines: &mut String) {
        let (code, rest) = match way {
            Way::Output => ("o", &mut self.output),
            Way::Input => ("i", &mut self.input),
        };
        rest.extend_from_slice(bytes);
        let whole = rest.len() - begun(rest);
        write(at, code, &String::from_utf8_lossy(&rest[..whole]), lines);
        rest.drain(..whole);
    }

    /// Adds a gap: a marker for programs, and a notice in the output for who looks on.
    pub fn gap(&mut self, at: Duration, missing: u64, lines: &mut String) {
        self.end(at, lines);
        write(at, "m", &format!("console-proxy: {missing} bytes are missing"), lines);
        // CAN ends an escape sequence that was cut in two.
        let notice = format!("\x18\r\n[console-proxy: {missing} bytes are missing in this recording]\r\n");
        write(at, "o", &notice, lines);
    }

    /// Adds what is left over of characters that never became whole.
    pub fn end(&mut self, at: Duration, lines: &mut String) {
        for (code, rest) in [("o", &mut self.output), ("i", &mut self.input)] {
            write(at, code, &String::from_utf8_lossy(rest), lines);
            rest.clear();
        }
    }
}

/// How many bytes at the end begin a character and do not end it.
fn begun(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - back..];
        if tail[0] & 0xc0 == 0x80 {
            continue;
        }
        // Nothing valid, and nothing that is wrong already: it may go on.
        let goes_on = std::str::from_utf8(tail).is_err_and(|why| why.valid_up_to() == 0 && why.error_len().is_none());
        return if goes_on { back } else { 0 };
    }
    0
}

fn write(at: Duration, code: &str, text: &str, lines: &mut String) {
    if text.is_empty() {
        return;
    }
    let json = serde_json::to_string(text).unwrap_or_default();
    // Microseconds, as its own recorder writes them.
    let _ = writeln!(lines, "[{}.{:06}, \"{code}\", {json}]", at.as_secs(), at.subsec_micros());
}

/// An event of a recording that is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the recording's begin.
    pub at: Duration,
    /// What the guest said; `None` for what is not shown: input, markers, sizes, and codes of later times.
    pub output: Option<String>,
}

/// Reads the first line.
pub fn read_header(line: &str) -> Result<Header, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version = serde_json::from_str(line)
        .map_err(|_| "it is no recording: the first line of one is JSON and says its version".to_owned())?;
    if version.version != 2 {
        return Err(format!("it is asciicast version {}, and version 2 is what is played here", version.version));
    }
    serde_json::from_str(line).map_err(|why| format!("its first line is not that of a recording: {}", words(&why)))
}

/// Reads another line.
pub fn read_event(line: &str) -> Result<Event, String> {
    let (seconds, code, text): (f64, String, serde_json::Value) =
        serde_json::from_str(line).map_err(|why| format!("not [SECONDS, CODE, TEXT]: {}", words(&why)))?;
    let at = Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} s is no time"))?;
    let output = match (code.as_str(), text) {
        ("o", serde_json::Value::String(text)) => Some(text),
        ("o", _) => return Err("output that is no text".to_owned()),
        _ => None,
    };
    Ok(Event { at, output })
}

/// The parser's words, without "at line 1": a line of ours is one line of its.
fn words(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let cut = text.rfind(" at line ").unwrap_or(text.len());
    format!("{} (column {})", &text[..cut], why.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn output_of(lines: &str) -> String {
        lines.lines().filter_map(|line| read_event(line).unwrap().output).collect()
    }

    #[test]
    fn events_have_their_time_in_microseconds_and_text_that_json_can_carry() {
        let mut lines = String::new();
        let mut writer = Writer::default();
        writer.event(Duration::from_micros(1_000_042), Way::Output, b"a\x1b[31m\"\\\r\n\0", &mut lines);
        writer.event(Duration::from_millis(2500), Way::Input, b"\x03", &mut lines);
        assert_eq!(lines, "[1.000042, \"o\", \"a\\u001b[31m\\\"\\\\\\r\\n\\u0000\"]\n[2.500000, \"i\", \"\\u0003\"]\n");
        assert_eq!(output_of(&lines), "a\x1b[31m\"\\\r\n\0");
    }

    #[test]
    fn a_character_cut_in_two_stands_whole_in_the_second_event_and_each_way_waits_for_its_own() {
        let mut lines = String::new();
        let mut writer = Writer::default();
        let second = Duration::from_secs(1);
        writer.event(second, Way::Output, b"x\xe2\x82", &mut lines);
        writer.event(second * 2, Way::Input, b"\xc3", &mut lines);
        writer.event(second * 3, Way::Output, b"\xac!", &mut lines);
        writer.event(second * 4, Way::Input, b"\xa9", &mut lines);
        let expected = "[1.000000, \"o\", \"x\"]\n[3.000000, \"o\", \"€!\"]\n[4.000000, \"i\", \"é\"]\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn bytes_that_are_no_text_become_one_mark_each_run_at_once_and_the_begun_one_at_the_end() {
        for (bytes, at_once, at_the_end) in [
            (&b"a\xffb"[..], "a\u{fffd}b", ""),
            (b"\x80\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}", ""),
            // Too long, a surrogate, beyond Unicode: wrong from their second byte on.
            (b"\xc0\xaf", "\u{fffd}\u{fffd}", ""),
            (b"\xed\xa0", "\u{fffd}\u{fffd}", ""),
            (b"\xf5\x80", "\u{fffd}\u{fffd}", ""),
            (b"a\xf0\x9f\x98", "a", "\u{fffd}"),
            (b"\xe2\x82\xe2\x82", "\u{fffd}", "\u{fffd}"),
        ] {
            let (mut first, mut last) = (String::new(), String::new());
            let mut writer = Writer::default();
            writer.event(Duration::ZERO, Way::Output, bytes, &mut first);
            writer.end(Duration::ZERO, &mut last);
            assert_eq!((output_of(&first).as_str(), output_of(&last).as_str()), (at_once, at_the_end), "{bytes:?}");
        }
    }

    #[test]
    fn a_gap_is_marked_for_programs_and_for_people() {
        let mut lines = String::new();
        let mut writer = Writer::default();
        writer.event(Duration::ZERO, Way::Output, b"\xe2", &mut lines);
        writer.gap(Duration::from_secs(1), 77, &mut lines);
        assert!(lines.contains("[1.000000, \"m\", \"console-proxy: 77 bytes are missing\"]\n"), "{lines}");
        assert_eq!(output_of(&lines), "\u{fffd}\x18\r\n[console-proxy: 77 bytes are missing in this recording]\r\n");
    }

    #[test]
    fn a_header_reads_back_and_other_players_need_no_more() {
        let header = Header::new("g\"1 serial/0".into(), 1_800_000_000);
        let line = header.line();
        assert_eq!(
            line,
            "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1800000000,\"title\":\"g\\\"1 serial/0\"}\n"
        );
        assert_eq!(read_header(&line), Ok(header));
        let theirs = r#"{"version": 2, "width": 100, "height": 50, "env": {"TERM": "xterm"}, "idle_time_limit": 1.5}"#;
        assert_eq!(read_header(theirs).unwrap().width, 100);
    }

    #[test]
    fn what_is_no_recording_is_refused_in_words() {
        for (line, words) in [
            ("", "it is no recording"),
            ("PNG", "it is no recording"),
            ("[1, \"o\", \"x\"]", "it is no recording"),
            (r#"{"version": 3, "term": {}}"#, "asciicast version 3"),
            (r#"{"version": 1, "width": 80}"#, "asciicast version 1"),
            (r#"{"version": 2, "width": 80}"#, "missing field `height`"),
            (r#"{"version": 2, "width": -1, "height": 2}"#, "invalid value"),
        ] {
            assert!(read_header(line).unwrap_err().contains(words), "{line}: {:?}", read_header(line));
        }
        for (line, words) in [
            ("", "EOF while parsing a value (column 0)"),
            ("{}", "not [SECONDS, CODE, TEXT]"),
            ("[1]", "invalid length 1"),
            ("[1, \"o\"]", "invalid length 2"),
            ("[1, \"o\", \"x\", 2]", "trailing"),
            ("[1, \"o\", 5]", "output that is no text"),
            ("[-1, \"o\", \"x\"]", "-1 s is no time"),
            ("[1e300, \"o\", \"x\"]", "s is no time"),
            ("[\"1\", \"o\", \"x\"]", "invalid type"),
            ("[1, \"o\", \"\\ud800\"]", "not [SECONDS"),
        ] {
            assert!(read_event(line).unwrap_err().contains(words), "{line}: {:?}", read_event(line));
        }
        for line in ["[1, \"i\", \"x\"]", "[1, \"r\", \"80x24\"]", "[1, \"m\", \"\"]", "[1, \"future\", {\"a\": 1}]"] {
            assert_eq!(read_event(line).unwrap(), Event { at: Duration::from_secs(1), output: None }, "{line}");
        }
    }

    proptest! {
        #[test]
        fn wherever_reads_cut_a_text_it_is_played_whole(text in ".{0,40}", cuts in prop::collection::vec(1usize..6, 0..60)) {
            let mut writer = Writer::default();
            let (mut lines, mut rest) = (String::new(), text.as_bytes());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                writer.event(Duration::ZERO, Way::Output, now, &mut lines);
                rest = later;
            }
            writer.event(Duration::ZERO, Way::Output, rest, &mut lines);
            writer.end(Duration::ZERO, &mut lines);
            prop_assert_eq!(output_of(&lines), text);
        }

        #[test]
        fn wherever_reads_cut_any_bytes_they_are_played_as_unicode_has_it(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xf0), Just(0x9f)], 0..40),
            cuts in prop::collection::vec(1usize..6, 0..60),
        ) {
            let mut writer = Writer::default();
            let (mut lines, mut rest) = (String::new(), &bytes[..]);
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                writer.event(Duration::ZERO, Way::Output, now, &mut lines);
                prop_assert!(writer.output.len() <= 3);
                rest = later;
            }
            writer.event(Duration::ZERO, Way::Output, rest, &mut lines);
            writer.end(Duration::ZERO, &mut lines);
            prop_assert_eq!(output_of(&lines), String::from_utf8_lossy(&bytes));
        }
    }
}
