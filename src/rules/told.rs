//! What a viewer of a text console is told beside the console's bytes, and what it may ask for. A client
//! that offers the subprotocol [`PROTOCOL`] is told in text messages, of one JSON object each, and its
//! binary messages carry the console's bytes alone; any other reads the words among the bytes.

use serde_json::json;

use super::history::{Break, Place, Position};
use super::request::BadRequest;

/// The subprotocol of clients that tell text messages from binary ones, and hear why they are refused from a close
/// frame. Every console answers it; text messages are of text consoles alone.
pub const PROTOCOL: &str = "console-proxy.v1";

/// What a client asks for in its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `from=ID:OFFSET`: on from where it was.
    pub from: Option<Position>,
    /// `history=N`: at most so many bytes of the past.
    pub history: Option<u64>,
}

impl Wish {
    /// Reads a query string; what else is in it is others' business.
    pub fn of_query(query: &str) -> Result<Self, BadRequest> {
        const MALFORMED: BadRequest =
            BadRequest("from is no position as this server tells it (ID:OFFSET), or history no number of bytes");
        let mut wish = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                // A colon is often encoded, though it need not be.
                "from" => {
                    let position = value.replace("%3A", ":").replace("%3a", ":").parse().map_err(|_| MALFORMED)?;
                    if wish.from.replace(position).is_some() {
                        return Err(BadRequest("the request has two positions in its query"));
                    }
                }
                "history" => {
                    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                    wish.history = Some(value.parse().ok().filter(|_| digits).ok_or(MALFORMED)?);
                }
                _ => {}
            }
        }
        Ok(wish)
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The position of the next byte; `None`: it has none, and cannot be come back to.
    Position(Option<Position>),
    /// So many bytes are missing here; `None`: nobody knows how many.
    Gap(Option<u64>),
    /// Words for the person.
    Notice(String),
}

impl Told {
    /// As a text message.
    #[must_use]
    pub fn to_message(&self) -> String {
        match self {
            Self::Position(position) => json!({ "position": position.map(|position| position.to_string()) }),
            Self::Gap(bytes) => json!({ "gap": bytes }),
            Self::Notice(words) => json!({ "notice": words }),
        }
        .to_string()
    }

    /// As words among the bytes; a position is not for people.
    ///
    /// CAN (0x18) ends an escape sequence that was cut in two: the terminal would swallow the words as
    /// a part of it.
    #[must_use]
    pub fn to_words(&self) -> Option<String> {
        let words = match self {
            Self::Position(_) => return None,
            Self::Gap(Some(bytes)) => format!("{bytes} bytes were dropped here"),
            Self::Gap(None) => "something is missing here".to_owned(),
            Self::Notice(words) => words.clone(),
        };
        Some(format!("\x18\r\n[console-proxy: {words}]\r\n"))
    }
}

/// What to say to a client that comes back, where its position is not at hand.
#[must_use]
pub fn about_place(place: Place) -> Option<&'static str> {
    match place {
        Place::At(_) => None,
        Place::Beyond(_) => Some(
            "history is not complete: you were further than the log is now; it was cut, or you were elsewhere; its end follows",
        ),
        Place::Cut(_) => {
            Some("history is not complete: the log was cut since you were here; all that is in it now follows")
        }
        Place::Gone => {
            Some("history is not complete: more was said since you were here than is kept; all that is kept follows")
        }
    }
}

/// What to say where the stream is not whole.
#[must_use]
pub fn about_break(broken: Break) -> &'static str {
    match broken {
        Break::Lost => "history is not complete: files of the log have gone here",
        Break::Cut => "history is not complete: the log was cut here",
    }
}

/// What to say where the log is given up.
pub const LIVE: &str = "the log does not follow (is virtlogd running, is the disk full?): \
                        what comes now is not kept until the guest's next start";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::history::{FileId, Found, Stream};

    fn position() -> Position {
        let mut stream = Stream::default();
        let id = FileId::new((1, 2), 3, None);
        stream.look(vec![Found { number: 0, id, head: b"abc".to_vec(), size: 3 }], 0);
        stream.position(2).unwrap()
    }

    #[test]
    fn a_query_says_where_from_and_how_much() {
        let text = position().to_string();
        let encoded = text.replace(':', "%3A");
        for (query, from, history) in [
            (String::new(), None, None),
            ("token=x.y.z&other".into(), None, None),
            (format!("from={text}&history=0"), Some(position()), Some(0)),
            (format!("token=a&from={encoded}"), Some(position()), None),
            ("history=65536".into(), None, Some(65536)),
        ] {
            assert_eq!(Wish::of_query(&query), Ok(Wish { from, history }), "{query}");
        }
        for query in [
            "from=".to_owned(),
            "from=1:2".into(),
            format!("from={text}&from={text}"),
            "history=".into(),
            "history=-1".into(),
            "history=+1".into(),
            "history=1e3".into(),
            "history=99999999999999999999".into(),
        ] {
            assert!(Wish::of_query(&query).is_err(), "{query}");
        }
    }

    #[test]
    fn each_thing_is_told_in_a_message_of_its_own_or_in_words() {
        let told = position();
        for (told, message, words) in [
            (Told::Position(Some(told)), format!("{{\"position\":\"{told}\"}}"), None),
            (Told::Position(None), "{\"position\":null}".into(), None),
            (Told::Gap(Some(7)), "{\"gap\":7}".into(), Some("7 bytes were dropped here")),
            (Told::Gap(None), "{\"gap\":null}".into(), Some("something is missing here")),
            (Told::Notice("a \"b\"".into()), "{\"notice\":\"a \\\"b\\\"\"}".into(), Some("a \"b\"")),
        ] {
            assert_eq!(told.to_message(), message);
            assert_eq!(told.to_words(), words.map(|words| format!("\x18\r\n[console-proxy: {words}]\r\n")));
        }
    }
}
