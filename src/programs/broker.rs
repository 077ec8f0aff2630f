//! `console-proxy-broker`: hands the proxy of a guest connected descriptors of that guest's backends.
//! Root, socket-activated, a thread per caller, gone when nobody called for a while.

mod grant;
mod served;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::PollFlags;

use self::grant::{connect_unix, grant, warn_unguarded};
use crate::edges::broker_server;
use crate::edges::caller::{self, Caller, Known};
use crate::edges::displays::Displays;
use crate::edges::paths::Paths;
use crate::edges::systemd::{self, Inherited};
use crate::edges::{introduction, journal};
use crate::rules::broker::{Kind, Part, Refusal, Request};

/// The broker ends when no proxy lives, and nobody was connected, for this time.
const IDLE: Duration = Duration::from_secs(60);
/// A whole request must have come by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers at once, and of one user: a proxy needs one per serial port, one for each question about a user, and one
/// more for a moment.
const MOST: usize = 512;
const MOST_OF_ONE: usize = 64;
/// Of those, questions about users: 16 passwords, and looks at who is there.
const MOST_QUESTIONS: usize = 32;
/// Between two words to the journal about callers that are too many.
const IN_BETWEEN: Duration = Duration::from_secs(1);
/// A question takes its place for so long at least: each has the system manager start a process.
const QUESTION: Duration = Duration::from_secs(1);
/// And no longer than that; its unit is ended by then (`RuntimeMaxSec=`).
const LONGEST_QUESTION: Duration = Duration::from_secs(32);

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    journal::init("console-proxy-broker");
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut sockets = systemd::inherited().context("cannot use the socket that systemd passed")?;
    let Some(Inherited::Unix(listener)) = sockets.pop() else {
        bail!("systemd passed no unix socket: start console-proxy-broker.socket");
    };
    let callers = Callers::new(MOST_OF_ONE);
    let server = Server {
        paths: Paths::from_environment(),
        displays: Displays::default(),
        known: Arc::default(),
        questions: Callers::new(MOST_QUESTIONS),
    };
    systemd::ready();
    let turn = systemd::watchdog_interval().unwrap_or(IDLE).min(IDLE);
    let (mut idle_since, mut told) = (Instant::now(), None);
    loop {
        systemd::alive();
        if caller::wait(listener.as_fd(), PollFlags::IN, turn).context("cannot wait for callers")? {
            accept(&listener, &server, &callers, &mut told);
            idle_since = Instant::now();
        } else if !callers.is_empty() || !server.known.is_empty() {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= IDLE {
            return Ok(());
        }
    }
}

/// What each caller's thread has a share in.
#[derive(Clone)]
struct Server {
    paths: Paths,
    displays: Displays,
    known: Arc<Known>,
    questions: Callers,
}

fn accept(listener: &UnixListener, server: &Server, callers: &Callers, told: &mut Option<Instant>) {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return,
        Err(why) => {
            tracing::warn!("cannot accept a caller: {why}");
            std::thread::sleep(Duration::from_millis(200));
            return;
        }
    };
    let uid = rustix::net::sockopt::socket_peercred(&stream).map_or(u32::MAX, |peer| peer.uid.as_raw());
    let Some(seat) = callers.seat(uid) else {
        if told.is_none_or(|last| last.elapsed() >= IN_BETWEEN) {
            tracing::warn!(uid, "uid {uid} has too many connections to the broker");
            *told = Some(Instant::now());
        }
        return;
    };
    let server = server.clone();
    let spawned = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let _seat = seat;
        serve(&server, stream);
    });
    if let Err(why) = spawned {
        tracing::warn!("cannot serve a caller: {why}");
    }
}

fn serve(server: &Server, mut stream: UnixStream) {
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    let paths = &server.paths;
    let granted = match identify(&server.known, &mut stream) {
        Ok(Some((caller, Request { part: Part::Login, .. }))) => return question(server, &caller, &mut stream),
        Ok(Some((caller, request))) => {
            grant(paths, &server.displays, &caller, &request).map(|granted| (caller, granted))
        }
        Ok(None) => return,
        Err(refusal) => Err(refusal),
    };
    match granted {
        Ok((caller, granted)) => {
            let descriptors: Vec<_> = granted.descriptors.iter().map(AsFd::as_fd).collect();
            if broker_server::grant(&mut stream, granted.files, &descriptors).is_err() {
                return;
            }
            drop(granted.descriptors);
            if let Some(port) = granted.guarded {
                warn_unguarded(paths, port);
            }
            if granted.lock.is_some() {
                caller::wait_for_close(&stream, &caller);
            }
        }
        Err(refusal) => {
            if refusal.kind == Kind::Denied {
                tracing::warn!("refused a caller: {refusal}");
            } else {
                tracing::info!("{refusal}");
            }
            let _ = broker_server::refuse(&mut stream, refusal);
        }
    }
}

/// Gives a proxy a connection to `console-proxy-auth`, for one question. It takes one of the proxy's places until it is
/// answered, so that no proxy keeps others from asking.
fn question(server: &Server, caller: &Caller, stream: &mut UnixStream) {
    let began = Instant::now();
    let Some(_seat) = server.questions.seat(caller.uid) else {
        let words = "too many questions about users of this guest are being answered";
        let _ = broker_server::refuse(stream, Refusal::new(Kind::Busy, words));
        return;
    };
    let connected = connect_unix(&server.paths.auth_socket().to_string_lossy(), PATIENCE)
        .and_then(|connection| introduction::introduce(&connection, &caller.guest).map(|asked| (connection, asked)));
    match connected {
        Ok((connection, asked)) => {
            let granted = broker_server::grant(stream, Vec::new(), &[connection.as_fd()]);
            drop(connection);
            if granted.is_ok() {
                asked.wait(LONGEST_QUESTION);
            }
        }
        Err(why) => {
            tracing::error!("console-proxy-auth is not reached: {why}");
            let _ = broker_server::refuse(stream, Refusal::new(Kind::Refused, format!("console-proxy-auth: {why}")));
        }
    }
    std::thread::sleep(QUESTION.saturating_sub(began.elapsed()));
}

/// Who calls, and what for; `None` where they only wanted to be known.
fn identify(known: &Known, stream: &mut UnixStream) -> Result<Option<(Caller, Request)>, Refusal> {
    let denied = |words: String| Refusal::new(Kind::Denied, words);
    let caller = Caller::of(stream, known).map_err(denied)?;
    let Some(request) = broker_server::read_request(stream, PATIENCE)? else { return Ok(None) };
    caller.speaks_of(&request.guest).map_err(denied)?;
    Ok(Some((caller, request)))
}

/// How many connections each user has, and may have.
#[derive(Clone, Debug)]
struct Callers(Arc<Mutex<HashMap<u32, usize>>>, usize);

struct Seat(Callers, u32);

impl Callers {
    fn new(most_of_one: usize) -> Self {
        Self(Arc::default(), most_of_one)
    }

    fn seat(&self, uid: u32) -> Option<Seat> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = all.values().sum();
        let one = all.entry(uid).or_default();
        if total >= MOST || *one >= self.1 {
            return None;
        }
        *one += 1;
        Some(Seat(self.clone(), uid))
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = all.get_mut(&self.1) {
            *one -= 1;
            if *one == 0 {
                all.remove(&self.1);
            }
        }
    }
}
