//! A serial port whose output is read from its log. The port itself is drained, so that its guest never
//! waits, and its words are thrown away: they tell when to look into the log. Where the log does not
//! follow (its writer has gone, the disk is full), the port is shown after all.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::past::Past;
use crate::edges::line::Line;
use crate::edges::logs::Numbered;
use crate::rules::broker::Refusal;
use crate::rules::pace::{Next, Pace};

/// The most bytes of one read of the port.
const CHUNK: usize = 32 << 10;
/// Reads of the port at a time: a flood must not keep the log from being read.
const READS: usize = 8;
/// What the port said and the log may lack: more than its writer ever has under way.
const KEPT: usize = 256 << 10;
/// When the port has ended, who writes the log may be that much behind.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Who opens the files of a log.
pub trait Files {
    /// Opens them as they are now.
    fn open(&self) -> impl Future<Output = Result<Vec<Numbered>, Refusal>>;
}

/// A port with its log.
#[derive(Debug)]
pub struct Logged<L, F> {
    port: L,
    files: F,
    past: Rc<Past>,
    started: Instant,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// The port's last words, the log's backlog among them.
    said: VecDeque<u8>,
    scratch: Vec<u8>,
    wake: Option<Instant>,
    refresh: bool,
    ended: Option<Instant>,
}

impl<L: Line, F: Files> Logged<L, F> {
    /// Puts a port and its log together. The log was opened first; what the port has ready now may be in
    /// it already.
    pub fn new(port: L, files: F, past: Rc<Past>) -> Self {
        let state = State {
            pace: Pace::default(),
            said: VecDeque::new(),
            scratch: vec![0; CHUNK],
            wake: None,
            refresh: false,
            ended: None,
        };
        let logged = Self { port, files, past, started: Instant::now(), state: RefCell::new(state) };
        let mut state = logged.state.borrow_mut();
        while matches!(logged.port.try_read(&mut state.scratch), Ok(n @ 1..) if n == CHUNK) {}
        // Once, without being told to.
        state.pace.logged(Duration::ZERO, 0);
        drop(state);
        logged
    }

    fn drain(&self, state: &mut State) {
        for _ in 0..READS {
            if state.ended.is_some() || (self.past.live().is_some() && state.said.len() > KEPT) {
                return;
            }
            match self.port.try_read(&mut state.scratch) {
                Ok(n @ 1..) => {
                    state.said.extend(&state.scratch[..n]);
                    state.pace.spoke(self.started.elapsed(), n);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => state.ended = Some(Instant::now()),
            }
        }
    }

    /// Keeps of what the port said what the log lacks.
    fn trim(&self, state: &mut State) {
        let behind = usize::try_from(state.pace.behind()).unwrap_or(usize::MAX);
        let over = state.said.len().saturating_sub(behind.min(KEPT));
        state.said.drain(..over);
    }

    fn give_up(&self, state: &State, why: &dyn std::fmt::Display) {
        let missing = state.pace.behind().saturating_sub(state.said.len() as u64);
        tracing::warn!("the log of a console does not follow ({why}): the port is shown itself");
        self.past.give_up(missing);
    }

    fn take_said(state: &mut State, bytes: &mut [u8]) -> io::Result<usize> {
        let n = state.said.len().min(bytes.len());
        bytes.iter_mut().zip(state.said.drain(..n)).for_each(|(to, from)| *to = from);
        match n {
            0 if state.ended.is_some() => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl<L: Line, F: Files> Line for Logged<L, F> {
    async fn readable(&self) -> io::Result<()> {
        let (refresh, wake, ended) = {
            let mut state = self.state.borrow_mut();
            if self.past.live().is_some() && (state.ended.is_some() || !state.said.is_empty()) {
                return Ok(());
            }
            (std::mem::take(&mut state.refresh), state.wake, state.ended.is_some())
        };
        if refresh {
            // A renaming is under way, or there is no log any more: then it is given up in time.
            match self.files.open().await {
                Ok(files) => {
                    if let Err(why) = self.past.look(files) {
                        tracing::debug!("the log's files cannot be read: {why}");
                    }
                }
                Err(why) => tracing::debug!("{why}"),
            }
            return Ok(());
        }
        let woken = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = self.port.readable(), if !ended => result,
            () = woken => Ok(()),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.wake = None;
        self.drain(state);
        if self.past.live().is_some() {
            return Self::take_said(state, bytes);
        }
        let now = self.started.elapsed();
        match self.past.read_on(bytes) {
            Ok(0) => {}
            Ok(n) => {
                state.pace.logged(now, n);
                self.trim(state);
                return Ok(n);
            }
            Err(why) => {
                self.give_up(state, &why);
                return Self::take_said(state, bytes);
            }
        }
        self.trim(state);
        if let Some(ended) = state.ended.filter(|_| state.pace.behind() == 0) {
            state.wake = Some(ended + LAST_WORDS);
            let over = Instant::now() >= ended + LAST_WORDS;
            return if over { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        match state.pace.next(now) {
            Next::WhenReadable => {}
            Next::At(time) => state.wake = Some(self.started + time),
            Next::Refresh => state.refresh = true,
            Next::GiveUp => {
                self.give_up(state, &"it has not grown for a second");
                return Self::take_said(state, bytes);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.port.write_all(bytes).await
    }

    fn room(&self) -> usize {
        self.port.room()
    }
}
