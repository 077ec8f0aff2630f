//! Sessions: what a ticket buys a browser. The record, and when it ends; the secret itself is known
//! to the browser alone, here only its SHA-256.

use serde::{Deserialize, Serialize};

use super::guest::Console;
use super::ticket::{Claims, Mode, Pattern};

/// The most sessions that are kept for one guest.
pub const MOST: usize = 256;

/// A session's record. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The person.
    pub sub: String,
    /// Who issued the ticket that bought it.
    pub iss: String,
    /// That ticket's name.
    pub jti: String,
    /// What may be opened.
    pub consoles: Vec<Pattern>,
    /// Look on, or type.
    pub mode: Mode,
    /// When it began.
    pub began: u64,
    /// When it ends at the latest.
    pub ends: u64,
    /// When its last websocket closed; 0 while it never had one.
    pub last_used: u64,
}

impl Session {
    /// The session that a ticket buys at `now`.
    #[must_use]
    pub fn bought_with(claims: &Claims, now: u64, life: u64) -> Self {
        Self {
            sub: claims.sub.clone(),
            iss: claims.iss.clone(),
            jti: claims.jti.clone(),
            consoles: claims.consoles.clone(),
            mode: claims.mode,
            began: now,
            ends: now.saturating_add(life),
            last_used: now,
        }
    }

    /// Whether it still counts; `in_use` says that a websocket of it is open.
    #[must_use]
    pub fn is_alive(&self, now: u64, idle: u64, in_use: bool) -> bool {
        now < self.ends && (in_use || now < self.last_used.saturating_add(idle))
    }

    /// Whether the console is among those named.
    #[must_use]
    pub fn allows(&self, console: Console) -> bool {
        self.consoles.iter().any(|pattern| matches!(pattern, Pattern::All) || *pattern == Pattern::One(console))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_its_age_and_by_disuse_and_not_by_disuse_while_in_use() {
        let session = Session {
            sub: "ann".into(),
            iss: "host".into(),
            jti: "j".into(),
            consoles: vec![Pattern::One(Console::Vnc)],
            mode: Mode::Control,
            began: 0,
            ends: 1000,
            last_used: 100,
        };
        assert!(session.is_alive(399, 300, false));
        assert!(!session.is_alive(400, 300, false));
        assert!(session.is_alive(999, 300, true));
        assert!(!session.is_alive(1000, 300, true));
        assert!(session.allows(Console::Vnc) && !session.allows(Console::Spice));
    }
}
