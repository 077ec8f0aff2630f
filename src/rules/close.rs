//! How a session ends: a value, with its websocket close code and words (RFC 6455, 7.4, and the
//! codes of DESIGN).

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed; the code to answer with.
    Client(u16),
    /// The client's connection broke.
    ClientGone,
    /// The client sent what RFC 6455 forbids; the code and the reason.
    Protocol(u16, &'static str),
    /// The guest has stopped.
    GuestStopped,
    /// The proxy is stopping.
    ProxyStops,
    /// The session's time is over, or it was ended; why, in words.
    SessionEnded(&'static str),
    /// What the client does is not within its rights; why, in words.
    Denied(String),
    /// Somebody took the console over; who, in words.
    TakenOver(String),
    /// All seats of the console were taken, and somebody goes before this one; who, in words.
    MadeRoom(String),
    /// No answer to two pings, or no byte taken for as long.
    ClientLost,
    /// The backend closed, or broke.
    BackendGone(String),
    /// It was refused before it began: the HTTP status, and the words.
    Refused(u16, String),
}

impl End {
    /// A session's time is over.
    pub const TIME_OUT: Self = Self::SessionEnded("the session has ended: its time is over");
    /// Somebody logged out of it.
    pub const LOGGED_OUT: Self = Self::SessionEnded("the session has ended: somebody logged out of it");

    /// The close frame's code and reason; the reason is at most 123 bytes (RFC 6455, 5.5).
    #[must_use]
    pub fn frame(&self) -> (u16, String) {
        let (code, mut reason) = match self {
            Self::Client(code) => (*code, String::new()),
            Self::ClientGone => (1000, String::new()),
            Self::Protocol(code, why) => (*code, (*why).to_owned()),
            Self::GuestStopped => (1001, "the guest has stopped".to_owned()),
            Self::ProxyStops => (1001, "the console proxy is stopping".to_owned()),
            Self::SessionEnded(why) => (4401, (*why).to_owned()),
            Self::Denied(why) => (4403, why.clone()),
            Self::ClientLost => (4408, "two pings were not answered".to_owned()),
            Self::TakenOver(by) => (4409, format!("{by} took this console over")),
            Self::MadeRoom(by) => (4429, format!("all places here were taken, and {by} goes before you")),
            Self::BackendGone(why) => (4502, why.clone()),
            Self::Refused(status, words) => (refusal_code(*status), words.clone()),
        };
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        (code, reason)
    }

    /// For the journal: the close frame's code, and what browsers tell where a connection broke (RFC 6455, 7.1.5).
    #[must_use]
    pub fn code(&self) -> u16 {
        if *self == Self::ClientGone { 1006 } else { self.frame().0 }
    }

    /// For the journal.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Client(_) => "the client closed".to_owned(),
            Self::ClientGone => "the client's connection broke".to_owned(),
            other => other.frame().1,
        }
    }
}

/// The close code that says what an HTTP status would: browsers tell a page nothing of a refused upgrade. What is no
/// refusal's status is a fault of ours.
#[must_use]
pub fn refusal_code(status: u16) -> u16 {
    4000 + if (400..600).contains(&status) { status } else { 500 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_close_frame_and_stays_text() {
        let (code, reason) = End::BackendGone("é".repeat(100)).frame();
        assert_eq!((code, reason.len()), (4502, 122));
        assert_eq!(End::GuestStopped.frame().0, 1001);
    }

    #[test]
    fn a_refusals_code_is_its_status_in_the_range_for_applications() {
        for (status, code) in
            [(400, 4400), (401, 4401), (409, 4409), (429, 4429), (504, 4504), (599, 4599), (101, 4500)]
        {
            assert_eq!(End::Refused(status, "why".into()).frame(), (code, "why".to_owned()));
        }
    }
}
