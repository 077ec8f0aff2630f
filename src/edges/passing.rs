//! Messages over a socket of `SOCK_SEQPACKET`, each whole and with its own descriptors (`SCM_RIGHTS`): how the broker,
//! its proxies and the programs that it starts speak with each other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};

use super::caller::wait;
use crate::rules::broker::{Answer, LONGEST, MOST_DESCRIPTORS, Told};

/// Two connected sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Connects at once, or fails: [`io::ErrorKind::WouldBlock`] while as many as may wait to be accepted. The socket does
/// not block.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Listens there.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// Sends a message with these descriptors.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Takes a message with its descriptors; `None` at the end.
pub fn take(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = take_with(socket, &mut ancillary)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(message.map(|message| (message, descriptors)))
}

/// Takes a message alone: where descriptors come along, the kernel closes them.
pub fn take_message(socket: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    take_with(socket, &mut RecvAncillaryBuffer::default())
}

fn take_with(socket: impl AsFd, ancillary: &mut RecvAncillaryBuffer<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = [0; LONGEST];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    Ok(Some(bytes[..received.bytes].to_vec()).filter(|bytes| !bytes.is_empty()))
}

/// Waits for an answer until then; [`io::ErrorKind::TimedOut`] where none came.
pub fn receive(socket: impl AsFd, until: Instant) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let left = until.saturating_duration_since(Instant::now());
    if !wait(socket.as_fd(), PollFlags::IN, left)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (message, descriptors) = take(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match serde_json::from_slice(&message)? {
        Told::Answer(answer) => Ok((answer, descriptors)),
        Told::Greeting { .. } | Told::Farewell(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_message_has_its_own_descriptors_and_one_that_is_too_long_is_none() {
        let (ours, theirs) = pair().unwrap();
        let (kept, given) = io::pipe().unwrap();
        send(&theirs, b"none", &[]).unwrap();
        send(&theirs, b"two", &[kept.as_fd(), given.as_fd()]).unwrap();
        send(&theirs, &[b'x'; LONGEST + 1], &[]).unwrap();
        assert_eq!(
            take(&ours).unwrap().map(|(bytes, descriptors)| (bytes, descriptors.len())),
            Some((b"none".into(), 0))
        );
        assert_eq!(
            take(&ours).unwrap().map(|(bytes, descriptors)| (bytes, descriptors.len())),
            Some((b"two".into(), 2))
        );
        assert_eq!(take(&ours).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(theirs);
        assert!(take(&ours).unwrap().is_none());
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_closed() {
        let (ours, theirs) = pair().unwrap();
        let (end, held) = io::pipe().unwrap();
        send(&theirs, b"take this", &[held.as_fd()]).unwrap();
        drop(held);
        assert_eq!(take_message(&ours).unwrap().unwrap(), b"take this");
        assert!(wait(end.as_fd(), PollFlags::empty(), Duration::from_secs(20)).unwrap(), "nobody has the other end");
    }
}
