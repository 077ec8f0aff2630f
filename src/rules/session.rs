//! Sessions: what a ticket or a password buys a browser. The record, and when it ends. A browser shows two secrets: a
//! cookie, which it sends to every port of the host's name, and one that only the page of this origin can read. Here
//! are their SHA-256 alone.

use serde::{Deserialize, Serialize};

use super::person::Who;
use super::ticket::{Claims, LEEWAY, LONGEST_LIFE, Mode, Pattern};

/// The most sessions that are kept for one guest.
pub const MOST: usize = 256;

/// A session's record. Times are seconds since 1970 where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The person.
    pub sub: String,
    /// What bought it.
    pub bought: Bought,
    /// When it began, in milliseconds.
    pub began: u64,
    /// When it ends at the latest.
    pub ends: u64,
    /// When its last websocket closed; when it began while it never had one.
    pub last_used: u64,
    /// The SHA-256 of its second secret, in hex. Empty in records of versions that knew none.
    #[serde(default)]
    pub secret: String,
}

/// What bought a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bought {
    /// A ticket.
    Ticket {
        /// Who issued it.
        iss: String,
        /// Its name.
        jti: String,
        /// What may be opened.
        consoles: Vec<Pattern>,
        /// Look on, or type.
        mode: Mode,
    },
    /// A password: what its user may is found out anew again and again.
    Password(Standing),
}

/// What is known of a user of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The groups that they are in.
    pub groups: Vec<String>,
    /// When that was found out.
    pub checked: u64,
    /// The address that they logged in from; empty where there is none.
    #[serde(default)]
    pub from: String,
    /// Whether they are in the host's own /etc/passwd.
    #[serde(default)]
    pub local: bool,
}

impl Session {
    /// The session that a ticket buys at `now` (milliseconds) for `life` seconds.
    #[must_use]
    pub fn by_ticket(claims: &Claims, now: u64, life: u64) -> Self {
        let bought = Bought::Ticket {
            iss: claims.iss.clone(),
            jti: claims.jti.clone(),
            consoles: claims.consoles.clone(),
            mode: claims.mode,
        };
        Self::begun(claims.sub.clone(), bought, now, life)
    }

    /// The session that a user's password buys, likewise.
    #[must_use]
    pub fn by_password(user: String, standing: Standing, now: u64, life: u64) -> Self {
        Self::begun(user, Bought::Password(standing), now, life)
    }

    fn begun(sub: String, bought: Bought, now: u64, life: u64) -> Self {
        let seconds = now / 1000;
        let ends = seconds.saturating_add(life);
        Self { sub, bought, began: now, ends, last_used: seconds, secret: String::new() }
    }

    /// Whether it still counts; `in_use` says that a websocket of it is open.
    #[must_use]
    pub fn is_alive(&self, now: u64, idle: u64, in_use: bool) -> bool {
        now < self.ends && (in_use || now < self.last_used.saturating_add(idle))
    }

    /// Whether this is the SHA-256 of its second secret. Where they differ the answer takes no less time.
    #[must_use]
    pub fn has_secret(&self, sha256: &str) -> bool {
        let differing = self.secret.bytes().zip(sha256.bytes()).fold(0, |found, (a, b)| found | (a ^ b));
        !self.secret.is_empty() && self.secret.len() == sha256.len() && differing == 0
    }

    /// As it is kept after a log-out.
    #[must_use]
    pub fn logged_out(self) -> Self {
        Self { ends: 0, ..self }
    }

    /// Whether somebody logged out of it.
    #[must_use]
    pub fn is_logged_out(&self) -> bool {
        self.ends == 0
    }

    /// Whether the ticket that bought it may still count, at `now` (milliseconds).
    #[must_use]
    pub fn keeps_its_ticket_spent(&self, now: u64) -> bool {
        // A ticket that buys now was made by a clock that may be ahead, and counts a little longer than it says.
        let longest = (LONGEST_LIFE + 2 * LEEWAY) * 1000;
        self.ticket().is_some() && now < self.began.saturating_add(longest)
    }

    /// Who its person is, for their share.
    #[must_use]
    pub fn who(&self) -> Who {
        self.ticket().map_or_else(|| Who::User(self.sub.clone()), |(iss, _)| Who::bearer(iss, &self.sub))
    }

    /// How its person showed who they are, for people.
    #[must_use]
    pub fn how(&self) -> String {
        self.ticket().map_or_else(|| "password".to_owned(), |(issuer, jti)| format!("ticket {issuer}/{jti}"))
    }

    /// The ticket that bought it: issuer and `jti`.
    #[must_use]
    pub fn ticket(&self) -> Option<(&str, &str)> {
        match &self.bought {
            Bought::Ticket { iss, jti, .. } => Some((iss, jti)),
            Bought::Password(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_its_age_and_by_disuse_and_not_by_disuse_while_in_use() {
        let session = Session { last_used: 100, ..Session::by_password("ann".into(), Standing::default(), 0, 1000) };
        assert!(session.is_alive(399, 300, false));
        assert!(!session.is_alive(400, 300, false));
        assert!(session.is_alive(999, 300, true));
        assert!(!session.is_alive(1000, 300, true));
    }

    #[test]
    fn a_session_has_one_second_secret_and_one_without_has_none() {
        let secret = "0a".repeat(32);
        let session =
            Session { secret: secret.clone(), ..Session::by_password("ann".into(), Standing::default(), 0, 1000) };
        assert!(session.has_secret(&secret));
        for wrong in ["", &secret[..62], &format!("{secret}0a"), &secret.replacen('a', "b", 1), &"0A".repeat(32)] {
            assert!(!session.has_secret(wrong), "{wrong}");
        }
        let old = r#"{"sub":"ann","bought":{"password":{"groups":[],"checked":0}},"began":0,"ends":9,"last_used":0}"#;
        let old: Session = serde_json::from_str(old).unwrap();
        assert!(!old.has_secret("") && !old.has_secret(&secret), "it was made by an older version");
    }
}
