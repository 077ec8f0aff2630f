//! The broker as its clients see it: a line out, a line and a descriptor back.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::backends::{Lease, send_at_once};
use crate::rules::broker::{Answer, Kind, LONGEST_LINE, Part, Refusal, Request, VERSION};
use crate::rules::guest::{Console, Uuid};
use crate::rules::route::Backend;

/// Makes this proxy known to the broker, which takes milliseconds, before anything is wanted of it.
pub async fn greet(socket: &Path) {
    // Whatever is wrong is told when something is wanted.
    if let Ok(mut broker) = UnixStream::connect(socket).await {
        let _ = broker.shutdown().await;
        let _ = broker.read(&mut [0]).await;
    }
}

/// Asks the broker for a console's backend.
pub async fn open(
    socket: &Path,
    guest: &Uuid,
    console: Console,
    part: Part,
    backend: &Backend,
    patience: Duration,
) -> Result<(OwnedFd, Lease), Refusal> {
    let request = Request { version: VERSION, guest: guest.clone(), console, part };
    let asking = async {
        let mut broker = UnixStream::connect(socket).await?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        broker.write_all(&line).await?;
        let (answer, descriptor) = receive(&broker).await?;
        io::Result::Ok((broker, answer, descriptor))
    };
    let failed = |why: io::Error| Refusal::new(Kind::Refused, format!("the console broker does not answer: {why}"));
    let silent = |_| Refusal::new(Kind::Silent, "the console broker did not answer in time".to_owned());
    // The broker itself waits `patience` for the backend; its answer should win.
    let (broker, answer, descriptor) =
        tokio::time::timeout(patience + Duration::from_secs(1), asking).await.map_err(silent)?.map_err(failed)?;
    if let Some(refusal) = answer.refusal {
        return Err(refusal);
    }
    let descriptor = descriptor.ok_or_else(|| Refusal::new(Kind::Refused, "the console broker sent no descriptor"))?;
    send_at_once(backend, &descriptor).map_err(failed)?;
    let lease = if matches!(backend, Backend::Pty(_)) { Lease::Broker(broker) } else { Lease::None };
    Ok((descriptor, lease))
}

async fn receive(broker: &UnixStream) -> io::Result<(Answer, Option<OwnedFd>)> {
    let (mut line, mut descriptor) = (Vec::new(), None);
    while !line.ends_with(b"\n") {
        let chunk = broker.async_io(Interest::READABLE, || receive_once(broker, &mut descriptor)).await?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend(chunk);
        if line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let answer: Answer = serde_json::from_slice(&line)?;
    if answer.version != VERSION {
        return Err(io::Error::other("it speaks another version: restart console-proxy-broker"));
    }
    Ok((answer, descriptor))
}

fn receive_once(broker: &UnixStream, descriptor: &mut Option<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut bytes = [0; LONGEST_LINE];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(broker, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            *descriptor = descriptors.into_iter().next();
        }
    }
    Ok(bytes[..received.bytes].to_vec())
}
