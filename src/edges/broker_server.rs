//! The broker's side of a proxy's channel: messages in, answers out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{caller, passing};
use crate::rules::broker::{Answer, Kind, LONGEST, Refusal, Said, Told, VERSION};

/// A proxy that takes no answer for so long has no channel any more.
const DEAF: Duration = Duration::from_secs(1);

/// One proxy's channel, for many threads.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, false)?;
        set_socket_timeout(&socket, Timeout::Send, Some(DEAF))?;
        Ok(Self(socket))
    }

    /// The next message; `None` at the end. A message that means nothing is an error in words.
    pub fn hear(&self) -> Result<Option<Said>, Refusal> {
        let denied = |why: String| Refusal::new(Kind::Denied, why);
        let message =
            passing::take_message(&self.0).map_err(|why| denied(format!("the request cannot be read: {why}")))?;
        let Some(message) = message else { return Ok(None) };
        serde_json::from_slice(&message).map(Some).map_err(|_| denied("the request is malformed".to_owned()))
    }

    /// The first message, within `patience`, which says that the other side speaks as we do; `None` where it says nothing.
    pub fn meet(&self, patience: Duration) -> Result<Option<u32>, Refusal> {
        let denied = |why: &str| Refusal::new(Kind::Denied, why.to_owned());
        if !caller::wait(self.0.as_fd(), PollFlags::IN, patience).unwrap_or(false) {
            return Err(denied("the request did not come in time"));
        }
        match self.hear()? {
            None => Ok(None),
            Some(Said::Hello { version: VERSION }) => Ok(Some(VERSION)),
            Some(Said::Hello { version }) => {
                Err(denied(&format!("the proxy speaks version {version}, this broker knows version {VERSION}")))
            }
            Some(_) => Err(denied("the proxy did not say hello")),
        }
    }

    /// Says that the proxy may ask.
    pub fn greet(&self, turn: u32) -> io::Result<()> {
        self.tell(&Told::Greeting { version: VERSION, turn }, &[])
    }

    /// Grants a request: the descriptors go along, for a log with their files' numbers.
    pub fn grant(&self, id: u32, files: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.tell(&Told::Answer(Answer { id, refusal: None, files }), descriptors)
    }

    /// Refuses a request.
    pub fn refuse(&self, id: u32, refusal: Refusal) -> io::Result<()> {
        self.tell(&Told::Answer(Answer { id, refusal: Some(cut(refusal)), files: Vec::new() }), &[])
    }

    /// Says why the channel is closed now.
    pub fn dismiss(&self, refusal: Refusal) {
        let _ = self.tell(&Told::Farewell(cut(refusal)), &[]);
        self.close();
    }

    /// Ends the channel, for whoever has the socket.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Whether nobody has the other side any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(caller::wait(self.0.as_fd(), PollFlags::RDHUP, Duration::ZERO), Ok(false))
    }

    fn tell(&self, told: &Told, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let told = passing::send(&self.0, &serde_json::to_vec(told)?, descriptors);
        if told.is_err() {
            self.close();
        }
        told
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// So that a message has room for it: a character takes six bytes at most as JSON.
fn cut(refusal: Refusal) -> Refusal {
    const ROOM: usize = LONGEST - 200;
    if refusal.words.len() * 6 <= ROOM {
        return refusal;
    }
    Refusal { words: refusal.words.chars().take(ROOM / 6).collect(), ..refusal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn channel() -> (Channel, OwnedFd) {
        let (ours, theirs) = passing::pair().unwrap();
        (Channel::new(ours).unwrap(), theirs)
    }

    #[test]
    fn who_says_nothing_or_no_hello_or_speaks_another_version_is_not_met() {
        const SOON: Duration = Duration::from_millis(20);
        let (silent, _theirs) = channel();
        assert_eq!(silent.meet(SOON).unwrap_err().words, "the request did not come in time");
        let (left, theirs) = channel();
        drop(theirs);
        assert_eq!(left.meet(SOON).unwrap(), None);
        for (said, answer) in [
            ("{\"hello\":{\"version\":1}}", "the proxy speaks version 1, this broker knows version 2"),
            ("{\"hello\":{\"version\":2,\"more\":1}}", "the request is malformed"),
            ("{\"release\":{\"id\":1,\"console\":\"serial/0\"}}", "the proxy did not say hello"),
            ("\n", "the request is malformed"),
        ] {
            let (ours, theirs) = channel();
            passing::send(&theirs, said.as_bytes(), &[]).unwrap();
            assert_eq!(ours.meet(SOON).unwrap_err().words, answer, "{said}");
        }
        let (ours, theirs) = channel();
        passing::send(&theirs, b"{\"hello\":{\"version\":2}}", &[]).unwrap();
        assert_eq!(ours.meet(SOON).unwrap(), Some(VERSION));
    }

    #[test]
    fn a_proxy_that_takes_no_answers_loses_its_channel() {
        let (ours, theirs) = channel();
        let began = Instant::now();
        while ours.refuse(1, Refusal::new(Kind::Busy, "x".repeat(600))).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        while passing::take(&theirs).unwrap().is_some() {}
    }

    #[test]
    fn a_refusal_of_any_length_is_told() {
        for words in ["\u{1}".repeat(9000), "ä".repeat(9000), "short".to_owned()] {
            let (ours, theirs) = channel();
            ours.refuse(9, Refusal::new(Kind::Refused, words.clone())).unwrap();
            let (answer, _) = passing::receive(&theirs, Instant::now() + Duration::from_secs(5)).unwrap();
            assert!(answer.id == 9 && words.starts_with(&answer.refusal.unwrap().words));
        }
    }
}
