//! The protocol of `console-proxy-auth`: one request line, one answer line, and the connection ends.
//!
//! A line is JSON. The caller is a guest's proxy. It gets its connection from the broker, which knows whose proxy it is,
//! says so before anything else (the guest's UUID and a newline), and sees nothing of what comes after that.

use serde::{Deserialize, Serialize};

use super::guest::Uuid;

/// The protocol's version.
pub const VERSION: u32 = 1;
/// The longest request, its newline included.
pub const LONGEST_REQUEST: usize = 8 << 10;
/// The longest answer: a person may be in many groups.
pub const LONGEST_ANSWER: usize = 256 << 10;
/// The longest user name, in bytes.
pub const LONGEST_USER: usize = 256;
/// The longest password, in bytes.
pub const LONGEST_PASSWORD: usize = 1024;

/// How many bytes the broker says first.
pub const INTRODUCTION: usize = 37;

/// What the broker says of the proxy that it gives a connection to.
#[must_use]
pub fn introduction(guest: &Uuid) -> String {
    format!("{guest}\n")
}

/// Whose proxy it is, from what the broker said.
#[must_use]
pub fn introduced(said: &[u8; INTRODUCTION]) -> Option<Uuid> {
    let guest = str::from_utf8(said).ok()?.strip_suffix('\n')?.parse().ok()?;
    (introduction(&guest).as_bytes() == said).then_some(guest)
}

/// What a proxy asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The guest that the caller takes itself for; refused unless the broker said the same.
    pub guest: Uuid,
    /// The user, as given.
    pub user: String,
    /// What about them.
    pub question: Question,
}

/// What is asked about a user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Question {
    /// Whether this is their password.
    Password {
        /// The password, as given.
        password: String,
        /// The address that it came from, for counting; empty where there is none.
        from: String,
    },
    /// Whether they still are a user of this host, and in which groups.
    Still {
        /// The address that they logged in from, for PAM's rules about networks; empty where there is none.
        from: String,
        /// Whether they were in the host's own /etc/passwd when they logged in: then they need no directory to be gone.
        local: bool,
    },
}

/// Neither a password nor its length is ever printed.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a question about {:?}", self.user)
    }
}

/// What the proxy is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What was found.
    pub verdict: Verdict,
    /// The user as this host knows them; empty where they are not let in.
    #[serde(default)]
    pub user: String,
    /// The names of their groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether they are in the host's own /etc/passwd.
    #[serde(default)]
    pub local: bool,
    /// For the person and the journal; empty where there is nothing to say.
    #[serde(default)]
    pub words: String,
    /// With [`Verdict::Limited`]: after how many seconds another try is looked at.
    #[serde(default)]
    pub retry_after: u64,
}

impl Answer {
    /// An answer that lets nobody in.
    #[must_use]
    pub fn no(verdict: Verdict, words: impl Into<String>) -> Self {
        let (user, groups) = (String::new(), Vec::new());
        Self { version: VERSION, verdict, user, groups, local: false, words: words.into(), retry_after: 0 }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The password is right and the account in order.
    Right,
    /// User or password is wrong; nobody is told which.
    Wrong,
    /// Root, or the account has expired or is locked; for [`Question::Still`] also: it has gone.
    Barred,
    /// Too many failures: not even looked at.
    Limited,
    /// It cannot be found out now: nothing is known of the password.
    Unknown,
    /// A PAM module asks for more than a password: nobody can log in here like that. The try counts as a failure, since
    /// modules that ask after a right password alone would tell which it was.
    Unanswerable,
    /// The caller is no guest's proxy, or the request is malformed.
    Denied,
}

/// Whether a text can be a user's name at all: what cannot is wrong, and PAM is not bothered with it.
#[must_use]
pub fn is_user(name: &str) -> bool {
    (1..=LONGEST_USER).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Likewise for a password.
#[must_use]
pub fn is_password(password: &str) -> bool {
    (1..=LONGEST_PASSWORD).contains(&password.len()) && !password.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_of_a_request_holds_no_password() {
        let question = Question::Password { password: "hunter2".into(), from: "192.0.2.1".into() };
        let guest = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        let request = Request { version: VERSION, guest, user: "ann".into(), question };
        assert_eq!(format!("{request:?}"), "a question about \"ann\"");
        let line = serde_json::to_string(&request).unwrap();
        assert!(line.len() < LONGEST_REQUEST && serde_json::from_str::<Request>(&line).unwrap() == request);
    }

    #[test]
    fn names_with_control_characters_and_endless_ones_are_nobodys() {
        for name in ["ann", "a b", "a:b", "ünï", &"a".repeat(256)] {
            assert!(is_user(name), "{name}");
        }
        for name in ["", "a\0", "a\nb", "a\u{7f}", "a\u{85}", &"a".repeat(257)] {
            assert!(!is_user(name), "{name:?}");
        }
        assert!(is_password("a\nb") && !is_password("a\0b") && !is_password("") && !is_password(&"a".repeat(1025)));
    }
}
