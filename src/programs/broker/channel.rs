//! Serves one proxy's channel: finds out whose proxy it is, once, and then answers what it asks, each request in a
//! thread of its own, so that a slow one holds up no other.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Server;
use super::grant::{connect_unix, grant, warn_unguarded};
use super::lent::{Lent, Loan};
use super::watch::Watched;
use crate::edges::broker_server::Channel;
use crate::edges::caller::Caller;
use crate::edges::unread::Port;
use crate::edges::{introduction, publish, systemd, terminal};
use crate::rules::broker::{Kind, Part, Refusal, Request, Said, VERSION};
use crate::rules::bucket::Bucket;
use crate::rules::guest::Console;
use crate::rules::route::Backend;

/// A proxy must have said hello by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests of one proxy under way, and of all.
const MOST_OF_ONE: usize = 64;
const MOST: usize = 512;
/// Of those, one proxy's questions about users: 16 passwords, and looks at who is there.
const MOST_QUESTIONS: usize = 32;
/// So many requests at once, and so many more a second; a proxy that asks faster waits.
const BURST: u32 = 256;
const A_SECOND: u32 = 100;
/// A question takes its place for so long at least: each has the system manager start a process.
const QUESTION: Duration = Duration::from_secs(1);
/// And no longer than that; its unit is ended by then (`RuntimeMaxSec=`).
const LONGEST_QUESTION: Duration = Duration::from_secs(32);
/// A channel's thread does little.
const STACK: usize = 256 << 10;

/// Where a channel comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It has just been accepted.
    New,
    /// An earlier broker had systemd keep it, under this name.
    Kept(String),
}

/// Things of one kind that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

#[derive(Debug)]
pub(super) struct Seat(UnderWay);

impl UnderWay {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(super) fn seat(&self, most: usize) -> Option<Seat> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1));
        taken.ok().map(|_| Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins to serve a channel, which has its seat until it ends.
pub(super) fn start(server: &Server, channel: &Arc<Channel>, origin: Origin, seat: Seat) {
    let (server, own) = (server.clone(), channel.clone());
    let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        serve(&server, &own, origin);
        own.close();
        drop(seat);
    });
    if let Err(why) = spawned {
        tracing::warn!("cannot serve a proxy: {why}");
        channel.close();
    }
}

fn serve(server: &Server, channel: &Arc<Channel>, origin: Origin) {
    let caller = match meet(server, channel, &origin) {
        Ok(Some(caller)) => caller,
        Ok(None) => return,
        Err(refusal) => {
            tracing::warn!("refused a caller: {refusal}");
            if let Origin::Kept(name) = &origin {
                systemd::forget(name);
            }
            return channel.dismiss(refusal);
        }
    };
    let mut turn = [0; 4];
    let _ = rustix::rand::getrandom(&mut turn, rustix::rand::GetRandomFlags::empty());
    // The name says which version the proxy speaks, for the broker after this one.
    let kept = match origin {
        Origin::Kept(name) => Kept(name),
        Origin::New => Kept::keep(format!("{VERSION}-{}-{}", caller.pid, u32::from_ne_bytes(turn)), channel),
    };
    let conversation = Conversation {
        server: server.clone(),
        channel: channel.clone(),
        turn: u32::from_ne_bytes(turn),
        lent: adopted(server, &caller),
        caller,
        requests: UnderWay::default(),
        questions: UnderWay::default(),
    };
    conversation.go_on();
    conversation.lent.end();
    drop(kept);
}

/// Who is there; `None` where they have gone.
fn meet(server: &Server, channel: &Channel, origin: &Origin) -> Result<Option<Caller>, Refusal> {
    let denied = |words: String| Refusal::new(Kind::Denied, words);
    match origin {
        Origin::New => {
            if channel.meet(PATIENCE)?.is_none() {
                return Ok(None);
            }
        }
        Origin::Kept(name) => {
            if name.split('-').next() != Some(&VERSION.to_string()) {
                return Err(denied(format!("the channel {name} is of another version than {VERSION}")));
            }
        }
    }
    Caller::of(channel, &server.known).map(Some).map_err(denied)
}

/// The locks that are this process' already: an earlier broker took them for it.
fn adopted(server: &Server, caller: &Caller) -> Lent {
    let lent = Lent::default();
    let locks = terminal::locks_of(&server.paths, caller.pid);
    let route = if locks.is_empty() { None } else { publish::read_route(&server.paths, &caller.guest).ok().flatten() };
    for (number, lock) in locks {
        let ways = route.iter().flat_map(|route| &route.consoles);
        let console = ways.filter(|way| way.raw == Some(Backend::Pty(number))).map(|way| way.console).next();
        // Whatever else was lent is watched no more; a terminal can be found again.
        let port = terminal::look_at(number).and_then(|terminal| Port::of(terminal.as_fd()));
        let watched = console.zip(port.ok().flatten());
        let watched = watched.map(|(console, port)| server.watches.watch(&caller.guest, console, port));
        lent.enter(Loan { id: None, console, lock: Some(lock), watched });
    }
    lent
}

/// A channel that systemd keeps for the next broker.
struct Kept(String);

impl Kept {
    fn keep(name: String, channel: &Channel) -> Self {
        systemd::store(&name, channel.as_fd());
        Self(name)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        systemd::forget(&self.0);
    }
}

/// With one proxy.
#[derive(Clone)]
struct Conversation {
    server: Server,
    channel: Arc<Channel>,
    caller: Caller,
    turn: u32,
    lent: Lent,
    requests: UnderWay,
    questions: UnderWay,
}

impl Conversation {
    /// Answers until the proxy or its channel has ended.
    fn go_on(&self) {
        if self.channel.greet(self.turn).is_err() {
            return;
        }
        let mut pace = Bucket::new(BURST, A_SECOND);
        let began = Instant::now();
        while self.caller.wait_for(&*self.channel) {
            match self.channel.hear() {
                Ok(None) => return,
                Ok(Some(Said::Hello { .. })) => {}
                Ok(Some(Said::Release { id, console })) => self.lent.release(id, console),
                // For an earlier broker: the proxy asks again.
                Ok(Some(Said::Ask(request))) if request.turn != self.turn => {}
                Ok(Some(Said::Ask(request))) => {
                    std::thread::sleep(pace.wait(began.elapsed()));
                    self.take(request);
                }
                Err(refusal) => {
                    tracing::warn!("refused the proxy of {}: {refusal}", self.caller.guest);
                    return self.channel.dismiss(refusal);
                }
            }
        }
    }

    fn take(&self, request: Request) {
        let id = request.id;
        if let Err(words) = self.caller.speaks_of(&request.guest) {
            let refusal = Refusal::new(Kind::Denied, words);
            tracing::warn!("refused a caller: {refusal}");
            let _ = self.channel.refuse(id, refusal);
            return;
        }
        let busy = |words: &str| {
            let _ = self.channel.refuse(id, Refusal::new(Kind::Busy, words));
        };
        let question = match request.part {
            Part::Login => match self.questions.seat(MOST_QUESTIONS) {
                None => return busy("too many questions about users of this guest are being answered"),
                seat => seat,
            },
            _ => None,
        };
        let seats = self.requests.seat(MOST_OF_ONE).zip(self.server.under_way.seat(MOST));
        let Some(seats) = seats else { return busy("too many requests to the console broker are under way") };
        if let Some(console) = request.lends() {
            self.lent.give_back(console);
        }
        let conversation = self.clone();
        let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            if request.part == Part::Login {
                conversation.question(id);
            } else {
                conversation.answer(&request);
            }
            drop((question, seats));
        });
        if let Err(why) = spawned {
            tracing::warn!("cannot serve a proxy: {why}");
            busy("the console broker has no thread for this");
        }
    }

    fn answer(&self, request: &Request) {
        let paths = &self.server.paths;
        match grant(paths, &self.server.displays, &self.caller, request) {
            Ok(granted) => {
                let descriptors: Vec<_> = granted.descriptors.iter().map(AsFd::as_fd).collect();
                // Before the proxy hears of it, so that a release finds it.
                if let Some(console) = request.lends() {
                    let watched = descriptors.first().and_then(|port| self.watch(console, *port));
                    let (id, lock) = (Some(request.id), granted.lock);
                    self.lent.enter(Loan { id, console: Some(console), lock, watched });
                }
                let told = self.channel.grant(request.id, granted.files, &descriptors);
                drop(granted.descriptors);
                if told.is_ok()
                    && let Some(port) = granted.guarded
                {
                    warn_unguarded(paths, port);
                }
            }
            Err(refusal) => {
                if refusal.kind == Kind::Denied {
                    tracing::warn!("refused a caller: {refusal}");
                } else {
                    tracing::info!("{refusal}");
                }
                let _ = self.channel.refuse(request.id, refusal);
            }
        }
    }

    fn watch(&self, console: Console, port: BorrowedFd<'_>) -> Option<Arc<Watched>> {
        let port = Port::of(port).unwrap_or_else(|why| {
            tracing::warn!("{console} of {} cannot be watched: {why}", self.caller.guest);
            None
        });
        Some(self.server.watches.watch(&self.caller.guest, console, port?))
    }

    /// Gives the proxy a connection to `console-proxy-auth`, for one question. It takes one of the proxy's places until
    /// it is answered, so that no proxy keeps others from asking.
    fn question(&self, id: u32) {
        let began = Instant::now();
        let connected =
            connect_unix(&self.server.paths.auth_socket().to_string_lossy(), PATIENCE).and_then(|connection| {
                introduction::introduce(&connection, &self.caller.guest).map(|asked| (connection, asked))
            });
        match connected {
            Ok((connection, asked)) => {
                let granted = self.channel.grant(id, Vec::new(), &[connection.as_fd()]);
                drop(connection);
                if granted.is_ok() {
                    asked.wait(LONGEST_QUESTION);
                }
            }
            Err(why) => {
                tracing::error!("console-proxy-auth is not reached: {why}");
                let _ = self.channel.refuse(id, Refusal::new(Kind::Refused, format!("console-proxy-auth: {why}")));
            }
        }
        std::thread::sleep(QUESTION.saturating_sub(began.elapsed()));
    }
}
