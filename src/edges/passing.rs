//! Descriptors that come with the broker's answer (`SCM_RIGHTS`), for one who waits for them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::caller::wait;
use crate::rules::broker::{Answer, LONGEST_LINE, MOST_DESCRIPTORS, VERSION};

/// What has come of an answer.
#[derive(Debug, Default)]
pub struct Receiving {
    line: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Receiving {
    /// Takes what is there; `true` when the line is whole.
    pub fn take(&mut self, stream: impl AsFd) -> io::Result<bool> {
        let mut bytes = [0; LONGEST_LINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                self.descriptors.extend(received);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.line.extend(&bytes[..received.bytes]);
        if self.line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(self.line.ends_with(b"\n"))
    }

    /// The answer, once it is whole.
    pub fn answer(self) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let answer: Answer = serde_json::from_slice(&self.line)?;
        if answer.version != VERSION {
            return Err(io::Error::other("it speaks another version: restart console-proxy-broker"));
        }
        Ok((answer, self.descriptors))
    }
}

/// Waits for an answer until then; [`io::ErrorKind::TimedOut`] where none came.
pub fn receive(stream: &UnixStream, until: Instant) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let mut receiving = Receiving::default();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !wait(stream.as_fd(), PollFlags::IN, left)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if receiving.take(stream)? {
            return receiving.answer();
        }
    }
}
