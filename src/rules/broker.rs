//! The broker's protocol and its rules: messages over one channel for each proxy, and who may have one.
//!
//! A channel is a connection of `SOCK_SEQPACKET`: a message is JSON, at most [`LONGEST`] bytes, and arrives whole, with
//! the descriptors that belong to it (`SCM_RIGHTS`) and no others. The proxy says hello, the broker greets it once it
//! knows whose proxy that is, and from then on the proxy asks and the broker answers, in any order. A granted request
//! comes with one descriptor, that for a log with one for each of its files. A text console is lent until the proxy
//! releases it or the channel ends. A broker that takes over the channels of an earlier one greets again: whatever has
//! no answer yet is then asked again.

use serde::{Deserialize, Serialize};

use super::guest::{Console, Uuid};

/// The protocol's version. A proxy cannot connect again: a later broker has to speak the version that it was greeted with.
pub const VERSION: u32 = 2;
/// The longest message, in bytes.
pub const LONGEST: usize = 4096;
/// The most descriptors that come with one answer.
pub const MOST_DESCRIPTORS: usize = 16;

/// Which of a console's backends is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The raw byte stream.
    Raw,
    /// QEMU's or spice-server's own websocket.
    Websocket,
    /// A new file for a recording of the console, for appending alone.
    Recording,
    /// The files of the console's log, for reading.
    Log,
    /// A connection to `console-proxy-auth`, which answers one question about a user of the host: of no console.
    Login,
}

/// What a proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Said {
    /// Its first message.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// It wants something.
    Ask(Request),
    /// It has closed a text console that it was lent.
    Release {
        /// The request that was granted.
        id: u32,
        /// Its console.
        console: Console,
    },
}

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Names the request in its answer.
    pub id: u32,
    /// The greeting's turn: what was meant for an earlier broker will be asked again, and is passed over.
    pub turn: u32,
    /// The guest that the caller takes itself for; refused unless its cgroup says the same.
    pub guest: Uuid,
    /// The console, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// Which of its backends.
    pub part: Part,
}

impl Request {
    /// The text console that is lent where this is granted.
    #[must_use]
    pub fn lends(&self) -> Option<Console> {
        self.console.filter(|console| self.part == Part::Raw && console.is_text())
    }
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Told {
    /// Who the proxy is is known: it may ask, and asks again what has no answer.
    Greeting {
        /// [`VERSION`].
        version: u32,
        /// What requests name from now on.
        turn: u32,
    },
    /// The answer to a request.
    Answer(Answer),
    /// The broker serves this proxy no longer, or never did; it closes the channel.
    Farewell(Refusal),
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The request's.
    pub id: u32,
    /// Absent where the descriptor comes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// For a log, the number of each file whose descriptor comes along: 0 the current one, 1 the newest
    /// older one, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<u8>,
}

/// Why a request is not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{words}")]
pub struct Refusal {
    /// For programs.
    pub kind: Kind,
    /// For people.
    pub words: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The caller is not this guest's proxy, or the request is malformed.
    Denied,
    /// The guest has no such console, or its QEMU serves it no longer.
    Unknown,
    /// Somebody else has it open.
    Busy,
    /// The backend refuses.
    Refused,
    /// The backend did not answer in time.
    Silent,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }
}

/// The hierarchy of cgroups that the system manager keeps its units in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// cgroup v2, the line `0::/PATH`.
    Unified,
    /// systemd's own of cgroup v1, the line `N:name=systemd:/PATH`.
    Named,
}

/// A process' path in that hierarchy, from the text of `/proc/PID/cgroup`.
#[must_use]
pub fn cgroup_path(cgroup: &str, hierarchy: Hierarchy) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let this = match hierarchy {
            Hierarchy::Unified => number == "0" && controllers.is_empty(),
            Hierarchy::Named => controllers == "name=systemd",
        };
        this.then_some(path)
    })
}

/// The unit that a path's last part names, where that is a guest's proxy.
#[must_use]
pub fn unit_of_path(path: &str) -> Option<(&str, Uuid)> {
    let (_, unit) = path.rsplit_once('/')?;
    let uuid = unit.strip_prefix("console-proxy@")?.strip_suffix(".service")?;
    // Only the canonical spelling: another one would be another unit.
    let parsed = uuid.parse().ok().filter(|parsed: &Uuid| parsed.as_str() == uuid)?;
    Some((unit, parsed))
}

/// The text of a UUCP lock file: the holder's pid in ten columns and a newline.
#[must_use]
pub fn lock_text(pid: u32) -> String {
    format!("{pid:10}\n")
}

/// The pid in a lock file; `None` where there is none to be read.
#[must_use]
pub fn lock_holder(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

    #[test]
    fn the_path_is_read_from_the_hierarchy_that_systemd_uses_and_no_other() {
        let hybrid = "9:name=systemd:/a\n4:memory:/m\n0::/b\n";
        assert_eq!(cgroup_path(hybrid, Hierarchy::Named), Some("/a"));
        assert_eq!(cgroup_path(hybrid, Hierarchy::Unified), Some("/b"));
        assert_eq!(cgroup_path("0::/x:y\n", Hierarchy::Unified), Some("/x:y"));
        assert_eq!(cgroup_path("0::/b\n", Hierarchy::Named), None);
    }

    #[test]
    fn only_a_canonical_uuid_names_a_guests_proxy() {
        let unit = format!("console-proxy@{UUID}.service");
        let path = format!("/system.slice/system-console\\x2dproxy.slice/{unit}");
        assert_eq!(unit_of_path(&path), Some((unit.as_str(), UUID.parse().unwrap())));
        for other in [
            format!("{path}/sub"),
            format!("/x/console-proxy@{}.service", UUID.to_uppercase()),
            format!("/x/console-proxy@{UUID}.socket"),
            format!("/x/console-proxy@{UUID}x.service"),
            unit,
            "/".to_owned(),
        ] {
            assert_eq!(unit_of_path(&other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_file_has_ten_columns() {
        assert_eq!(lock_text(7), "         7\n");
        assert_eq!(lock_holder(&lock_text(123)), Some(123));
        for text in ["", "0", "x", "-1", "99999999999"] {
            assert_eq!(lock_holder(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_field_or_a_bad_console_is_no_request() {
        let good = format!(
            "{{\"ask\":{{\"id\":1,\"turn\":7,\"guest\":\"{UUID}\",\"console\":\"serial/0\",\"part\":\"raw\"}}}}"
        );
        let said = serde_json::from_str::<Said>(&good).unwrap();
        assert_eq!(serde_json::to_string(&said).unwrap(), good);
        for (from, to) in [
            ("serial/0", "serial/../vnc"),
            ("raw", "cooked"),
            ("\"part\"", "\"path\":\"/etc\",\"part\""),
            ("\"ask\"", "\"order\""),
            ("\"id\":1", "\"id\":-1"),
            (UUID, "../x"),
        ] {
            assert!(serde_json::from_str::<Said>(&good.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_text_consoles_own_stream_is_lent_and_nothing_else() {
        let request = |console: &str, part| Request {
            id: 1,
            turn: 7,
            guest: UUID.parse().unwrap(),
            console: Some(console.parse().unwrap()),
            part,
        };
        assert_eq!(request("serial/1", Part::Raw).lends(), Some("serial/1".parse().unwrap()));
        for (console, part) in [("vnc", Part::Raw), ("serial/1", Part::Log), ("serial/1", Part::Recording)] {
            assert_eq!(request(console, part).lends(), None, "{console} {part:?}");
        }
    }
}
