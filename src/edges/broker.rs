//! The broker as its clients see it: a line out, a line and a descriptor back.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::backends::{Lease, send_at_once};
use super::logs::Numbered;
use super::passing::Receiving;
use crate::rules::broker::{Answer, Kind, Part, Refusal, Request, VERSION};
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
    let request = Request { version: VERSION, guest: guest.clone(), console: Some(console), part };
    let (broker, _, descriptors) = ask(socket, &request, patience).await?;
    let descriptor = first(descriptors)?;
    send_at_once(backend, &descriptor).map_err(failed)?;
    let lease = if matches!(backend, Backend::Pty(_)) { Lease::Broker(broker) } else { Lease::None };
    Ok((descriptor, lease))
}

/// Asks the broker for a new file for a recording of a console.
pub async fn recording(socket: &Path, guest: &Uuid, console: Console, patience: Duration) -> Result<File, Refusal> {
    let request = Request { version: VERSION, guest: guest.clone(), console: Some(console), part: Part::Recording };
    let (_, _, descriptors) = ask(socket, &request, patience).await?;
    Ok(first(descriptors)?.into())
}

/// Asks the broker for the files of a console's log.
pub async fn open_log(
    socket: &Path,
    guest: &Uuid,
    console: Console,
    patience: Duration,
) -> Result<Vec<Numbered>, Refusal> {
    let request = Request { version: VERSION, guest: guest.clone(), console: Some(console), part: Part::Log };
    let (_, answer, descriptors) = ask(socket, &request, patience).await?;
    if answer.files.is_empty() || answer.files.len() != descriptors.len() {
        return Err(Refusal::new(Kind::Refused, "the console broker did not send the log's files"));
    }
    Ok(answer.files.into_iter().zip(descriptors).collect())
}

/// Asks the broker for a connection to the program that answers one question about a user.
pub async fn login(socket: &Path, guest: &Uuid, patience: Duration) -> Result<OwnedFd, Refusal> {
    let request = Request { version: VERSION, guest: guest.clone(), console: None, part: Part::Login };
    let (_, _, descriptors) = ask(socket, &request, patience).await?;
    first(descriptors)
}

fn first(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, Refusal> {
    let first = descriptors.into_iter().next();
    first.ok_or_else(|| Refusal::new(Kind::Refused, "the console broker sent no descriptor"))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(why: io::Error) -> Refusal {
    Refusal::new(Kind::Refused, format!("the console broker does not answer: {why}"))
}

async fn ask(
    socket: &Path,
    request: &Request,
    patience: Duration,
) -> Result<(UnixStream, Answer, Vec<OwnedFd>), Refusal> {
    let asking = async {
        let mut broker = connect(socket).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A broker that refuses us may have answered and gone before this arrives.
        let _ = broker.write_all(&line).await;
        let (answer, descriptors) = receive(&broker).await?;
        io::Result::Ok((broker, answer, descriptors))
    };
    let silent = |_| Refusal::new(Kind::Silent, "the console broker did not answer in time".to_owned());
    // The broker itself waits `patience` for the backend; its answer should win.
    let (broker, mut answer, descriptors) =
        tokio::time::timeout(patience + Duration::from_secs(1), asking).await.map_err(silent)?.map_err(failed)?;
    match answer.refusal.take() {
        Some(refusal) => Err(refusal),
        None => Ok((broker, answer, descriptors)),
    }
}

/// Connects, as soon as there is room: what waits to be accepted may be another proxy's flood.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            // unix(7): a socket that may not block gets EAGAIN while the backlog is full.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(Duration::from_millis(2)).await,
            connected => return connected,
        }
    }
}

async fn receive(broker: &UnixStream) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let mut receiving = Receiving::default();
    while !broker.async_io(Interest::READABLE, || receiving.take(broker)).await? {}
    receiving.answer()
}
