//! The broker's protocol and its rules: one request line, one answer line, and who may ask.
//!
//! A line is JSON and at most [`LONGEST_LINE`] bytes. The answer to a granted request carries one
//! descriptor (`SCM_RIGHTS`), that for a log one for each of its files. For a pty the connection stays open for as long as the terminal is in
//! use: closing it gives back libvirt's lock.

use serde::{Deserialize, Serialize};

use super::guest::{Console, Uuid};

/// The protocol's version.
pub const VERSION: u32 = 1;
/// The longest line, its newline included.
pub const LONGEST_LINE: usize = 1024;

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

/// The most descriptors that come with one answer.
pub const MOST_DESCRIPTORS: usize = 16;

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The guest that the caller takes itself for; refused unless its cgroup says the same.
    pub guest: Uuid,
    /// The console, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// Which of its backends.
    pub part: Part,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
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
    /// The guest has no such console, or it is another guest's by now.
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
        let good = format!("{{\"version\":1,\"guest\":\"{UUID}\",\"console\":\"serial/0\",\"part\":\"raw\"}}");
        assert!(serde_json::from_str::<Request>(&good).is_ok());
        for (from, to) in [
            ("serial/0", "serial/../vnc"),
            ("raw", "cooked"),
            ("\"part\"", "\"path\":\"/etc\",\"part\""),
            (UUID, "../x"),
        ] {
            assert!(serde_json::from_str::<Request>(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
