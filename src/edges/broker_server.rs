//! The broker's side of its socket: a request in, an answer out.

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::caller;
use crate::rules::broker::{Answer, Kind, LONGEST_LINE, MOST_DESCRIPTORS, Refusal, Request, VERSION};

/// Reads a request, all of it within `patience`. `None` where the caller only wanted to be known before it asks.
pub fn read_request(stream: &mut UnixStream, patience: Duration) -> Result<Option<Request>, Refusal> {
    let denied = |why: String| Refusal::new(Kind::Denied, why);
    let Some(line) = caller::read_line(stream, LONGEST_LINE, patience).map_err(denied)? else { return Ok(None) };
    let request: Request = serde_json::from_slice(&line).map_err(|_| denied("the request is malformed".to_owned()))?;
    if request.version != VERSION {
        let words = format!("the request has version {}, this broker knows version {VERSION}", request.version);
        return Err(denied(words));
    }
    Ok(Some(request))
}

/// Grants a request: the descriptors go along, for a log with their files' numbers.
pub fn grant(stream: &mut UnixStream, files: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(stream, &Answer { version: VERSION, refusal: None, files }, descriptors)
}

/// Refuses a request.
pub fn refuse(stream: &mut UnixStream, refusal: Refusal) -> io::Result<()> {
    send(stream, &Answer { version: VERSION, refusal: Some(refusal), files: Vec::new() }, &[])
}

fn send(stream: &mut UnixStream, answer: &Answer, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    if descriptors.is_empty() {
        return stream.write_all(&line);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // One write: an answer is far below what a unix socket takes at once.
    let sent = sendmsg(&*stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
