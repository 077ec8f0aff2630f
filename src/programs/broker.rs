//! `console-proxy-broker`: hands the proxy of a guest connected descriptors of that guest's backends.
//! Root, socket-activated, a thread for each proxy's channel, gone when there was none for a while.

mod channel;
mod grant;
mod lent;
mod room;
mod served;
mod watch;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::PollFlags;
use rustix::net::SocketFlags;

use self::channel::{Origin, UnderWay};
use self::watch::Watches;
use crate::edges::broker_server::Channel;
use crate::edges::caller::{self, Known};
use crate::edges::displays::Displays;
use crate::edges::journal;
use crate::edges::paths::Paths;
use crate::edges::systemd::{self, Inherited};
use crate::rules::bucket::Bucket;

/// The broker ends when there was no channel for this time.
const IDLE: Duration = Duration::from_secs(60);
/// Channels at once; systemd keeps as many (`FileDescriptorStoreMax=`).
const MOST: usize = 1024;
/// A user, which is a guest's proxy, may open one channel at a time: so many in a row, and then so many a second.
const BURST: u32 = 8;
const A_SECOND: u32 = 1;
/// Between two words to the journal about connections that are too many.
const IN_BETWEEN: Duration = Duration::from_secs(1);

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
    let (mut listener, mut kept) = (None, Vec::new());
    for socket in systemd::inherited().context("cannot use the socket that systemd passed")? {
        match socket {
            Inherited::Packets(socket) => listener = Some(socket),
            Inherited::Stored(name, socket) => kept.push((name, socket)),
            Inherited::Tcp(_) | Inherited::Unix(_) => {}
        }
    }
    let Some(listener) = listener else {
        bail!("systemd passed no socket of ours: start console-proxy-broker.socket");
    };
    let server = Server {
        paths: Paths::from_environment(),
        displays: Displays::default(),
        known: Arc::default(),
        under_way: UnderWay::default(),
        channels: UnderWay::default(),
        watches: Watches::default(),
    };
    let (watches, paths) = (server.watches.clone(), server.paths.clone());
    std::thread::Builder::new().stack_size(256 << 10).spawn(move || watches.run(&paths))?;
    let (channels, paths) = (server.channels.clone(), server.paths.clone());
    std::thread::Builder::new().stack_size(256 << 10).spawn(move || room::keep(&paths, &channels))?;
    let mut gate = Gate::new();
    for (name, socket) in kept {
        adopt(&server, &mut gate, name, socket);
    }
    systemd::ready();
    serve(&server, &listener, &mut gate)
}

fn serve(server: &Server, listener: &OwnedFd, gate: &mut Gate) -> Result<()> {
    let turn = systemd::watchdog_interval().unwrap_or(IDLE).min(IDLE);
    let mut idle_since = Instant::now();
    loop {
        systemd::alive();
        if caller::wait(listener.as_fd(), PollFlags::IN, turn).context("cannot wait for callers")? {
            accept(listener, server, gate);
            idle_since = Instant::now();
        } else if server.channels.any() {
            idle_since = Instant::now();
        } else if idle_since.elapsed() >= IDLE {
            return Ok(());
        }
    }
}

/// What each channel's thread has a share in.
#[derive(Clone)]
struct Server {
    paths: Paths,
    displays: Displays,
    known: Arc<Known>,
    under_way: UnderWay,
    watches: Watches,
    channels: UnderWay,
}

/// Goes on with a channel that an earlier broker had.
fn adopt(server: &Server, gate: &mut Gate, name: String, socket: OwnedFd) {
    let uid = uid_of(&socket);
    match (Channel::new(socket).map(Arc::new), server.channels.seat(MOST)) {
        (Ok(channel), Some(seat)) => {
            gate.enter(uid, &channel);
            channel::start(server, &channel, Origin::Kept(name), seat);
        }
        (channel, _) => {
            tracing::warn!("cannot go on with the channel {name}: {:?}", channel.err());
            systemd::forget(&name);
        }
    }
}

fn accept(listener: &OwnedFd, server: &Server, gate: &mut Gate) {
    let socket = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
        Ok(socket) => socket,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
        Err(why) => {
            tracing::warn!("cannot accept a caller: {why}");
            std::thread::sleep(Duration::from_millis(200));
            return;
        }
    };
    let uid = uid_of(&socket);
    let Some(seat) = gate.admits(uid).then(|| server.channels.seat(MOST)).flatten() else {
        return gate.turn_away(uid);
    };
    match Channel::new(socket).map(Arc::new) {
        Ok(channel) => {
            gate.enter(uid, &channel);
            channel::start(server, &channel, Origin::New, seat);
        }
        Err(why) => tracing::warn!("cannot serve a caller: {why}"),
    }
}

/// As the kernel knows it: whoever connected, at that time.
fn uid_of(socket: &OwnedFd) -> u32 {
    rustix::net::sockopt::socket_peercred(socket).map_or(u32::MAX, |peer| peer.uid.as_raw())
}

/// Who may open a channel. It is here that a flood of connections ends, at the cost of looking at a number.
#[derive(Debug)]
struct Gate {
    users: HashMap<u32, User>,
    began: Instant,
    /// When the journal was told of those who were turned away, and how many were since.
    told: Option<Instant>,
    turned_away: u64,
}

#[derive(Debug)]
struct User {
    channel: Weak<Channel>,
    pace: Bucket,
}

impl User {
    fn has_channel(&self) -> bool {
        self.channel.upgrade().is_some_and(|channel| !channel.has_ended())
    }
}

impl Gate {
    fn new() -> Self {
        Self { users: HashMap::new(), began: Instant::now(), told: None, turned_away: 0 }
    }

    fn admits(&mut self, uid: u32) -> bool {
        let now = self.began.elapsed();
        if self.users.len() >= 2 * MOST {
            self.users.retain(|_, user| user.has_channel() || !user.pace.is_full(now));
        }
        let user = self.users.entry(uid);
        let user = user.or_insert_with(|| User { channel: Weak::new(), pace: Bucket::new(BURST, A_SECOND) });
        !user.has_channel() && user.pace.take(now)
    }

    fn enter(&mut self, uid: u32, channel: &Arc<Channel>) {
        let user = self.users.entry(uid);
        let user = user.or_insert_with(|| User { channel: Weak::new(), pace: Bucket::new(BURST, A_SECOND) });
        user.channel = Arc::downgrade(channel);
    }

    fn turn_away(&mut self, uid: u32) {
        self.turned_away += 1;
        if self.told.is_none_or(|last| last.elapsed() >= IN_BETWEEN) {
            let n = self.turned_away;
            tracing::warn!(
                uid,
                "uid {uid} has its channel to the broker, or asks for one too often: {n} connections turned away"
            );
            (self.told, self.turned_away) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::passing;

    fn channel() -> (Arc<Channel>, OwnedFd) {
        let (ours, theirs) = passing::pair().unwrap();
        (Arc::new(Channel::new(ours).unwrap()), theirs)
    }

    #[test]
    fn a_user_has_one_channel_and_the_next_when_that_has_ended() {
        let mut gate = Gate::new();
        let (one, theirs) = channel();
        assert!(gate.admits(1));
        gate.enter(1, &one);
        assert!(!gate.admits(1) && gate.admits(2));
        drop(theirs);
        assert!(gate.admits(1), "the proxy has ended, whether its thread has noticed or not");
        let (two, _theirs) = channel();
        gate.enter(1, &two);
        assert!(!gate.admits(1));
        drop(two);
        assert!(gate.admits(1));
    }

    #[test]
    fn who_opens_and_closes_channels_without_end_is_turned_away() {
        let mut gate = Gate::new();
        let admitted = (0..1000).filter(|_| gate.admits(1)).count();
        assert!((BURST as usize..BURST as usize + 20).contains(&admitted), "{admitted}");
        assert!(gate.admits(2), "and nobody else");
        gate.began -= Duration::from_secs(2);
        assert!(gate.admits(1), "after a while again");
    }

    #[test]
    fn users_who_have_gone_are_forgotten() {
        let mut gate = Gate::new();
        for uid in 0..10 * MOST as u32 {
            gate.began -= Duration::from_millis(10);
            gate.admits(uid);
        }
        assert!(gate.users.len() <= 2 * MOST + 1, "{}", gate.users.len());
    }
}
