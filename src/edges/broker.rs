//! A proxy's one channel to the broker: it asks there for descriptors, many questions at a time. The proxy connects once,
//! at its start, because it forbids itself to connect to anything afterwards (`edges::cage`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use super::backends::{Lease, send_at_once};
use super::logs::Numbered;
use super::passing;
use crate::rules::broker::{Answer, Kind, Part, Refusal, Request, Said, Told, VERSION};
use crate::rules::guest::{Console, Uuid};
use crate::rules::route::Backend;

/// How long a proxy waits at its start for room among those that the broker has not accepted yet.
const ROOM: Duration = Duration::from_secs(5);

/// The channel, for all of a proxy's tasks.
#[derive(Clone, Debug)]
pub struct Channel(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of `SOCK_SEQPACKET`; tokio only waits for it.
    socket: Option<UnixStream>,
    /// What the broker's greeting said; nothing is asked before.
    turn: Cell<Option<u32>>,
    last_id: Cell<u32>,
    waiting: RefCell<BTreeMap<u32, Waiting>>,
    outbox: RefCell<VecDeque<Vec<u8>>>,
    posted: Notify,
    /// Why there is no channel any more.
    lost: RefCell<Option<String>>,
    ended: Notify,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    answer: oneshot::Sender<Result<Granted, Refusal>>,
}

#[derive(Debug)]
struct Granted {
    answer: Answer,
    descriptors: Vec<OwnedFd>,
    lease: Lease,
}

/// A text console that the broker has lent; dropped, it is released.
#[derive(Debug)]
pub struct Lent {
    channel: Weak<Inner>,
    id: u32,
    console: Console,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.say(&Said::Release { id: self.id, console: self.console });
        }
    }
}

impl Channel {
    /// Connects, and has the messages carried from then on. Where that fails, whoever asks for something is told why.
    pub async fn connect(path: &Path) -> Self {
        let connected = connect(path).await.and_then(|socket| UnixStream::from_std(socket.into()));
        let (socket, lost) = match connected {
            Ok(socket) => (Some(socket), None),
            Err(why) => (None, Some(format!("the console broker does not answer: {why}"))),
        };
        let inner = Rc::new(Inner {
            socket,
            turn: Cell::default(),
            last_id: Cell::default(),
            waiting: RefCell::default(),
            outbox: RefCell::default(),
            posted: Notify::new(),
            lost: RefCell::new(lost),
            ended: Notify::new(),
        });
        inner.say(&Said::Hello { version: VERSION });
        tokio::task::spawn_local(carry(inner.clone()));
        Self(inner)
    }

    /// Returns when there is no channel any more, with the reason.
    pub async fn lost(&self) -> String {
        loop {
            let ended = self.0.ended.notified();
            if let Some(why) = &*self.0.lost.borrow() {
                return why.clone();
            }
            ended.await;
        }
    }

    /// Asks for a console's backend.
    pub async fn open(
        &self,
        guest: &Uuid,
        console: Console,
        part: Part,
        backend: &Backend,
        patience: Duration,
    ) -> Result<(OwnedFd, Lease), Refusal> {
        let granted = self.ask(guest, Some(console), part, patience).await?;
        let descriptor = first(granted.descriptors)?;
        send_at_once(backend, &descriptor).map_err(|why| failed(&why))?;
        Ok((descriptor, granted.lease))
    }

    /// Asks for a new file for a recording of a console.
    pub async fn recording(&self, guest: &Uuid, console: Console, patience: Duration) -> Result<File, Refusal> {
        let granted = self.ask(guest, Some(console), Part::Recording, patience).await?;
        Ok(first(granted.descriptors)?.into())
    }

    /// Asks for the files of a console's log.
    pub async fn open_log(&self, guest: &Uuid, console: Console, patience: Duration) -> Result<Vec<Numbered>, Refusal> {
        let Granted { answer, descriptors, .. } = self.ask(guest, Some(console), Part::Log, patience).await?;
        if answer.files.is_empty() || answer.files.len() != descriptors.len() {
            return Err(Refusal::new(Kind::Refused, "the console broker did not send the log's files"));
        }
        Ok(answer.files.into_iter().zip(descriptors).collect())
    }

    /// Asks for a connection to the program that answers one question about a user.
    pub async fn login(&self, guest: &Uuid, patience: Duration) -> Result<OwnedFd, Refusal> {
        first(self.ask(guest, None, Part::Login, patience).await?.descriptors)
    }

    async fn ask(
        &self,
        guest: &Uuid,
        console: Option<Console>,
        part: Part,
        patience: Duration,
    ) -> Result<Granted, Refusal> {
        let channel = &self.0;
        if let Some(why) = &*channel.lost.borrow() {
            return Err(Refusal::new(Kind::Refused, why.clone()));
        }
        let id = channel.last_id.get().wrapping_add(1);
        channel.last_id.set(id);
        let request = Request { id, turn: channel.turn.get().unwrap_or(0), guest: guest.clone(), console, part };
        let (answer, answered) = oneshot::channel();
        if channel.turn.get().is_some() {
            channel.say(&Said::Ask(request.clone()));
        }
        channel.waiting.borrow_mut().insert(id, Waiting { request, answer });
        // The broker itself waits `patience` for the backend; its answer should win.
        let answered = tokio::time::timeout(patience + Duration::from_secs(1), answered).await;
        let silent = |_| Refusal::new(Kind::Silent, "the console broker did not answer in time");
        answered.map_err(silent)?.unwrap_or_else(|_| Err(Refusal::new(Kind::Refused, channel.why_lost())))
    }
}

impl Inner {
    fn say(&self, said: &Said) {
        let Some(socket) = &self.socket else { return };
        let Ok(message) = serde_json::to_vec(said) else { return };
        let mut outbox = self.outbox.borrow_mut();
        // At once where that is possible: most of the time it is.
        if outbox.is_empty() && sent(socket, &message) {
            return;
        }
        outbox.push_back(message);
        self.posted.notify_one();
    }

    /// Sends what could not be sent at once.
    async fn post(&self, socket: &UnixStream) -> io::Result<()> {
        loop {
            self.posted.notified().await;
            while !self.outbox.borrow().is_empty() {
                let sending = || {
                    let mut outbox = self.outbox.borrow_mut();
                    if outbox.front().is_some_and(|message| !sent(socket, message)) {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    outbox.pop_front();
                    Ok(())
                };
                socket.async_io(Interest::WRITABLE, sending).await?;
            }
        }
    }

    /// Takes what the broker says, until the channel ends; returns why it did.
    async fn listen(self: &Rc<Self>, socket: &UnixStream) -> io::Result<String> {
        loop {
            let taken = socket.async_io(Interest::READABLE, || passing::take(socket)).await?;
            let Some((message, descriptors)) = taken else { return Ok(self.why_lost()) };
            match serde_json::from_slice(&message)? {
                Told::Greeting { turn, .. } => self.greeted(turn),
                Told::Answer(answer) => self.answered(answer, descriptors),
                Told::Farewell(refusal) => return Ok(format!("the console broker refuses this proxy: {refusal}")),
            }
        }
    }

    fn greeted(&self, turn: u32) {
        self.turn.set(Some(turn));
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|_, waiting| !waiting.answer.is_closed());
        for Waiting { request, .. } in waiting.values_mut() {
            request.turn = turn;
            self.say(&Said::Ask(request.clone()));
        }
    }

    fn answered(self: &Rc<Self>, answer: Answer, descriptors: Vec<OwnedFd>) {
        let Some(Waiting { request, answer: to }) = self.waiting.borrow_mut().remove(&answer.id) else { return };
        // Nobody may wait any more: then what was lent is released by being dropped.
        let _ = to.send(match (answer.refusal.clone(), request.lends()) {
            (Some(refusal), _) => Err(refusal),
            (None, None) => Ok(Granted { answer, descriptors, lease: Lease::None }),
            (None, Some(console)) => {
                let lent = Lent { channel: Rc::downgrade(self), id: answer.id, console };
                Ok(Granted { answer, descriptors, lease: Lease::Broker(lent) })
            }
        });
    }

    fn why_lost(&self) -> String {
        self.lost.borrow().clone().unwrap_or_else(|| {
            "the console broker has ended, and this proxy cannot reach another: close what is open of this guest, or \
             have an administrator stop its console-proxy@ service, and connect again"
                .to_owned()
        })
    }
}

/// Carries messages until the channel ends; then all who wait are told.
async fn carry(inner: Rc<Inner>) {
    let Some(socket) = &inner.socket else { return };
    let ended = tokio::select! {
        ended = inner.listen(socket) => ended,
        ended = inner.post(socket) => ended.map(|()| inner.why_lost()),
    };
    let why = ended.unwrap_or_else(|why| format!("the console broker does not answer: {why}"));
    inner.lost.replace(Some(why.clone()));
    for (_, waiting) in std::mem::take(&mut *inner.waiting.borrow_mut()) {
        let _ = waiting.answer.send(Err(Refusal::new(Kind::Refused, why.clone())));
    }
    inner.ended.notify_waiters();
}

/// Whether a message went out; one that can go to nobody has.
fn sent(socket: &UnixStream, message: &[u8]) -> bool {
    let sent = rustix::io::retry_on_intr(|| rustix::net::send(socket, message, SendFlags::NOSIGNAL));
    sent != Err(rustix::io::Errno::AGAIN)
}

/// Connects, as soon as there is room: what waits to be accepted may be another proxy's flood.
async fn connect(path: &Path) -> io::Result<OwnedFd> {
    let trying = async {
        loop {
            match passing::connect(path) {
                // unix(7): a socket that may not block gets EAGAIN while the backlog is full.
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                connected => return connected,
            }
        }
    };
    tokio::time::timeout(ROOM, trying).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn first(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, Refusal> {
    let first = descriptors.into_iter().next();
    first.ok_or_else(|| Refusal::new(Kind::Refused, "the console broker sent no descriptor"))
}

fn failed(why: &io::Error) -> Refusal {
    Refusal::new(Kind::Refused, format!("the console broker does not answer: {why}"))
}
