//! What a session needs around it in tests: both its ends in memory, and a clock that is paused, so that
//! times can be told to the moment.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::control::{Control, Pulse};
use super::live::{Live, Opening, Seat};
use crate::edges::backends::Lease;
use crate::edges::http::Client;
use crate::edges::websocket::{self, Receiver, Sender};
use crate::rules::guest::Console;
use crate::rules::route::Reached;
use crate::rules::ticket::Mode;

/// Between two pings.
pub(super) const INTERVAL: Duration = Duration::from_secs(20);

/// A session's ties to the outside, and its seat.
pub(super) fn control(console: Console) -> (Control, Seat) {
    let live = Rc::new(Live::default());
    let seat = live.enter(Opening {
        console,
        reached: Reached::Bridged,
        mode: Mode::Control,
        person: "ann".into(),
        viewer: "ann".into(),
        from: "192.0.2.1".into(),
        since: 0,
    });
    let deadline = Instant::now() + Duration::from_secs(8 * 3600);
    (Control { entry: seat.entry.clone(), lease: Lease::None, deadline, pulse: Pulse::new(INTERVAL) }, seat)
}

/// A websocket, and its client's end; `room` is how many bytes are under way at most.
pub(super) async fn websocket(room: usize) -> (Sender, Receiver, DuplexStream) {
    let (ours, theirs) = duplex(room);
    let (sender, receiver) = websocket::accept(Client::Memory(ours), &bytes::Bytes::new(), 1 << 20).await;
    (sender, receiver, theirs)
}

/// A client's frame: its payload is masked with zeros.
pub(super) fn from_client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 + u8::try_from(payload.len()).expect("short")];
    assert!(payload.len() < 126);
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The next frame that the client gets, its first byte and its payload; `None` at the end.
pub(super) async fn next(client: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let first = client.read_u8().await.ok()?;
    let length = match client.read_u8().await.ok()? {
        126 => u64::from(client.read_u16().await.ok()?),
        127 => client.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).expect("it fits into memory")];
    client.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}
