//! What the broker says over a connection to `console-proxy-auth` before a guest's proxy gets it: whose proxy that is.
//! Along with it goes the end of a pipe, which tells the broker when the question's process has ended: the connection
//! itself cannot, for the proxy has it as well and may shut it down.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::caller::wait;
use crate::rules::auth::{INTRODUCTION, introduced, introduction};
use crate::rules::guest::Uuid;

/// The process at the other end, for as long as it runs.
#[derive(Debug)]
pub struct Asked(OwnedFd);

impl Asked {
    /// Waits until it has ended, for `patience` at most.
    pub fn wait(&self, patience: Duration) {
        // A pipe hangs up when nobody has its other end.
        let _ = wait(self.0.as_fd(), rustix::event::PollFlags::empty(), patience);
    }
}

/// Says over a new connection whose proxy will have it.
pub fn introduce(connection: impl AsFd, guest: &Uuid) -> io::Result<Asked> {
    let (ended, held) = io::pipe()?;
    let held = [held.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&held));
    let said = introduction(guest);
    let sent = sendmsg(connection, &[IoSlice::new(said.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == INTRODUCTION { Ok(Asked(ended.into())) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Whose proxy the broker has given the other end of this connection to. The descriptor is to be held until the
/// question is answered. Nobody but root connects here.
pub fn hear(stream: &UnixStream, patience: Duration) -> Result<(Uuid, OwnedFd), String> {
    let peer =
        rustix::net::sockopt::socket_peercred(stream).map_err(|why| format!("the caller is not known: {why}"))?;
    if !peer.uid.is_root() {
        return Err(format!("a process of uid {} is not the broker", peer.uid.as_raw()));
    }
    let unheard = |why: io::Error| format!("the broker has not said for whom this is: {why}");
    stream.set_read_timeout(Some(patience)).map_err(unheard)?;
    let mut said = [0; INTRODUCTION];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // It was sent at once, and what has a descriptor with it is not read together with what follows (unix(7)).
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut said)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let received = received.map_err(|why| unheard(why.into()))?;
    let held = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let guest = introduced(&said).filter(|_| received.bytes == INTRODUCTION);
    guest.zip(held).ok_or_else(|| "that is not how the broker says for whom this is".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn guest() -> Uuid {
        "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap()
    }

    #[test]
    fn the_end_of_a_question_is_its_process_end_whatever_the_proxy_does_with_the_connection() {
        let (broker, stream) = UnixStream::pair().unwrap();
        let asked = introduce(&broker, &guest()).unwrap();
        let mut proxy = broker.try_clone().unwrap();
        proxy.write_all(b"a question").unwrap();
        let (heard, held) = hear(&stream, PATIENCE).unwrap();
        assert_eq!(heard, guest());
        let mut question = [0; 10];
        (&stream).read_exact(&mut question).unwrap();
        assert_eq!(&question, b"a question", "what came behind it is still there");
        proxy.shutdown(Shutdown::Both).unwrap();
        drop((proxy, broker));
        let began = Instant::now();
        asked.wait(Duration::from_millis(50));
        assert!(began.elapsed() >= Duration::from_millis(50), "it goes on");
        drop(held);
        asked.wait(PATIENCE);
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn who_says_it_otherwise_or_nothing_is_not_the_broker() {
        let other = format!("{}\n", guest().as_str().to_uppercase());
        for said in [introduction(&guest()).as_str(), &other, "b50bdc9f\n", "{\"version\":1}\n"] {
            let (mut connection, stream) = UnixStream::pair().unwrap();
            connection.write_all(said.as_bytes()).unwrap();
            hear(&stream, PATIENCE).unwrap_err();
        }
        let (_silent, stream) = UnixStream::pair().unwrap();
        assert!(hear(&stream, Duration::from_millis(20)).unwrap_err().contains("has not said"));
    }
}
