//! What a session needs around it in tests: both its ends in memory, and a clock that is paused, so that
//! times can be told to the moment.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::control::{Control, Pulse};
use super::live::{Live, Opening, Pass, Seat};
use crate::edges::http::Client;
use crate::edges::line::Line;
use crate::edges::websocket::{self, Receiver, Sender};
use crate::rules::guest::Console;
use crate::rules::route::Reached;
use crate::rules::ticket::Mode;

/// Between two pings.
pub(super) const INTERVAL: Duration = Duration::from_secs(20);

/// A session's ties to the outside, and its seat.
pub(super) fn control(console: Console) -> (Control, Seat) {
    enter(opening(console))
}

/// The same for somebody who may only look on.
pub(super) fn view_only(console: Console) -> (Control, Seat) {
    enter(Opening { mode: Mode::View, ..opening(console) })
}

fn enter(opening: Opening) -> (Control, Seat) {
    let live = Rc::new(Live::default());
    let seat = live.enter(opening);
    let deadline = Instant::now() + Duration::from_secs(8 * 3600);
    (Control { entry: seat.entry.clone(), deadline, pulse: Pulse::new(INTERVAL) }, seat)
}

/// Ann, who may do everything.
pub(super) fn opening(console: Console) -> Opening {
    Opening {
        console,
        reached: Reached::Bridged,
        mode: Mode::Control,
        person: "ann".into(),
        who: crate::rules::person::Who::User("ann".into()),
        viewer: "ann".into(),
        how: "password".into(),
        pass: Pass::Open,
        client: None,
        from: "192.0.2.1".into(),
        since: 0,
    }
}

/// A websocket, and its client's end; `room` is how many bytes are under way at most.
pub(super) fn websocket(room: usize) -> (Sender, Receiver, DuplexStream) {
    let (ours, theirs) = duplex(room);
    let (sender, receiver) = websocket::accept(Client::Memory(ours), &bytes::Bytes::new(), 1 << 20);
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

/// Runs what needs tasks of its own.
pub(super) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// A serial port in memory.
pub(super) struct MemoryLine(Rc<Cable>);

/// The guest at a port's other end; dropped, it has gone.
pub(super) struct Guest(Rc<Cable>);

struct Cable {
    said: RefCell<VecDeque<u8>>,
    typed: RefCell<Vec<u8>>,
    takes: Cell<usize>,
    gone: Cell<bool>,
    held: Cell<bool>,
    changed: Notify,
}

impl MemoryLine {
    pub(super) fn new() -> (Self, Guest) {
        let cable = Rc::new(Cable {
            said: RefCell::default(),
            typed: RefCell::default(),
            takes: Cell::new(usize::MAX),
            gone: Cell::new(false),
            held: Cell::new(true),
            changed: Notify::new(),
        });
        (Self(cable.clone()), Guest(cable))
    }
}

impl Guest {
    pub(super) fn say(&self, bytes: &[u8]) {
        self.0.said.borrow_mut().extend(bytes);
        self.0.changed.notify_waiters();
    }

    /// What it said and nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.0.said.borrow().len()
    }

    /// From now on it takes that many bytes of input.
    pub(super) fn takes(&self, bytes: usize) {
        self.0.takes.set(bytes);
        self.0.changed.notify_waiters();
    }

    pub(super) fn typed(&self) -> Vec<u8> {
        self.0.typed.borrow().clone()
    }

    pub(super) fn is_held(&self) -> bool {
        self.0.held.get()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.gone.set(true);
        self.0.changed.notify_waiters();
    }
}

impl Drop for MemoryLine {
    fn drop(&mut self) {
        self.0.held.set(false);
    }
}

impl Line for MemoryLine {
    async fn readable(&self) -> io::Result<()> {
        while self.0.said.borrow().is_empty() && !self.0.gone.get() {
            self.0.changed.notified().await;
        }
        Ok(())
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut said = self.0.said.borrow_mut();
        match said.len().min(bytes.len()) {
            0 if self.0.gone.get() => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => {
                bytes.iter_mut().zip(said.drain(..n)).for_each(|(to, from)| *to = from);
                Ok(n)
            }
        }
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.0.gone.get() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let n = rest.len().min(self.0.takes.get());
            if n == 0 {
                self.0.changed.notified().await;
                continue;
            }
            self.0.takes.set(self.0.takes.get() - n);
            self.0.typed.borrow_mut().extend(&rest[..n]);
            rest = &rest[n..];
        }
        Ok(())
    }

    fn room(&self) -> usize {
        64 << 10
    }
}
