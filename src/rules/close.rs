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
    /// The session's time is over, or it was ended.
    SessionEnded,
    /// What the client does is not within its rights; why, in words.
    Denied(String),
    /// Somebody took the console over; who, in words.
    TakenOver(String),
    /// No answer to two pings, or no byte taken for as long.
    ClientLost,
    /// The backend closed, or broke.
    BackendGone(String),
}

impl End {
    /// The close frame's code and reason; the reason is at most 123 bytes (RFC 6455, 5.5).
    #[must_use]
    pub fn frame(&self) -> (u16, String) {
        let (code, mut reason) = match self {
            Self::Client(code) => (*code, String::new()),
            Self::ClientGone => (1000, String::new()),
            Self::Protocol(code, why) => (*code, (*why).to_owned()),
            Self::GuestStopped => (1001, "the guest has stopped".to_owned()),
            Self::ProxyStops => (1001, "the console proxy is stopping".to_owned()),
            Self::SessionEnded => (4401, "the session has ended: get another ticket".to_owned()),
            Self::Denied(why) => (4403, why.clone()),
            Self::ClientLost => (4408, "two pings were not answered".to_owned()),
            Self::TakenOver(by) => (4409, format!("{by} took this console over")),
            Self::BackendGone(why) => (4502, why.clone()),
        };
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        (code, reason)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_close_frame_and_stays_text() {
        let (code, reason) = End::BackendGone("é".repeat(100)).frame();
        assert_eq!((code, reason.len()), (4502, 122));
        assert_eq!(End::GuestStopped.frame().0, 1001);
    }
}
