//! The broker's protocol and its rules: one request line, one answer line, and who may ask.
//!
//! A line is JSON and at most [`LONGEST_LINE`] bytes. The answer to a granted request carries one
//! descriptor (`SCM_RIGHTS`). For a pty the connection stays open for as long as the terminal is in
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
}

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The guest that the caller takes itself for; refused unless its cgroup says the same.
    pub guest: Uuid,
    /// The console.
    pub console: Console,
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

/// The guest whose proxy runs in a cgroup, from the text of `/proc/PID/cgroup`.
///
/// The whole path counts: a user's own systemd can run a unit of the same name, in a path of its own.
/// `home` is the path of the proxies' slice as the system manager says it.
#[must_use]
pub fn guest_of_cgroup(cgroup: &str, home: &str) -> Option<Uuid> {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    // On a host with both hierarchies systemd's own is the one that it keeps.
    let named = cgroup.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    let unit = named.or(path)?.strip_prefix(home)?.strip_prefix('/')?;
    let uuid = unit.strip_prefix("console-proxy@")?.strip_suffix(".service")?;
    // Only the canonical spelling: another one would be another unit.
    uuid.parse().ok().filter(|parsed: &Uuid| parsed.as_str() == uuid)
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

    const HOME: &str = "/system.slice/system-console\\x2dproxy.slice";
    const UUID: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

    #[test]
    fn only_the_system_managers_own_unit_is_a_guests_proxy() {
        let unit = format!("{HOME}/console-proxy@{UUID}.service");
        let of = |path: &str| guest_of_cgroup(&format!("0::{path}\n"), HOME).map(|uuid| uuid.to_string());
        assert_eq!(of(&unit).as_deref(), Some(UUID));
        for path in [
            format!("/user.slice/user-1000.slice/user@1000.service/app.slice/console-proxy@{UUID}.service"),
            format!("/user.slice/user-1000.slice/user@1000.service{unit}"),
            format!("{unit}/sub"),
            format!("{HOME}/x/console-proxy@{UUID}.service"),
            format!("{HOME}/console-proxy@{}.service", UUID.to_uppercase()),
            format!("{HOME}/console-proxy@{UUID}.socket"),
            format!("{HOME}x/console-proxy@{UUID}.service"),
            "/".to_owned(),
            String::new(),
        ] {
            assert_eq!(of(&path), None, "{path}");
        }
        let hybrid = format!("9:name=systemd:{unit}\n4:memory:/\n0::/\n");
        assert_eq!(guest_of_cgroup(&hybrid, HOME).unwrap().as_str(), UUID);
        let lying = format!("9:name=systemd:/user.slice\n0::{unit}\n");
        assert_eq!(guest_of_cgroup(&lying, HOME), None);
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
