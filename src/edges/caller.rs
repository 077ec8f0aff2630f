//! Who is at the other end of a socket that guests' proxies alone may use, and the line that they send. Nothing is
//! taken from the caller itself: not even which guest it is there for.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::rules::broker::{Hierarchy, cgroup_path, unit_of_path};
use crate::rules::guest::Uuid;

/// Who is at the other end: the process that connected, and whose proxy it is.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// The guest whose proxy it is.
    pub guest: Uuid,
    path: String,
    process: Arc<OwnedFd>,
}

/// Units that the system manager has vouched for, each with a process of it. While that one lives, and is asked for in
/// the same cgroup and with the same user, the unit is the same, whichever of its processes asks: nobody but root
/// changes a process' cgroup or user. Asking takes milliseconds, on a busy host seconds.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<(String, u32), Caller>>);

impl Known {
    fn vouches_for(&self, caller: &Caller) -> bool {
        self.living().contains_key(&(caller.path.clone(), caller.uid))
    }

    fn remember(&self, caller: &Caller) {
        self.living().insert((caller.path.clone(), caller.uid), caller.clone());
    }

    fn living(&self) -> MutexGuard<'_, HashMap<(String, u32), Caller>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, caller| caller.is_alive());
        known
    }
}

impl Caller {
    /// Finds out who connected; the error says why they are refused. The kernel says which process
    /// and user connected, its whole cgroup says which unit it is, and the system manager says which
    /// user it gave that unit, and where that unit is.
    pub fn of(socket: impl AsFd, known: &Known) -> Result<Self, String> {
        let peer =
            rustix::net::sockopt::socket_peercred(socket).map_err(|why| format!("the caller is not known: {why}"))?;
        // Held from here on: while it names a living process, the pid cannot be another's.
        let process = pidfd_open(peer.pid, PidfdFlags::empty()).map_err(|why| format!("the caller has gone: {why}"))?;
        let pid = Pid::as_raw(Some(peer.pid)).unsigned_abs();
        let uid = peer.uid.as_raw();
        let cgroup =
            fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|why| format!("the caller has gone: {why}"))?;
        let path = cgroup_path(&cgroup, hierarchy()).unwrap_or_default();
        let stranger = || format!("pid {pid} (uid {uid}) runs in no proxy's unit");
        let (unit, guest) = unit_of_path(path).ok_or_else(stranger)?;
        let caller = Self { pid, uid, guest, path: path.to_owned(), process: Arc::new(process) };
        if !known.vouches_for(&caller) {
            caller.check(unit)?;
            known.remember(&caller);
        }
        if !caller.is_alive() {
            return Err("the caller has gone".to_owned());
        }
        Ok(caller)
    }

    /// Compares with what the system manager says of the unit.
    fn check(&self, unit: &str) -> Result<(), String> {
        let (pid, uid) = (self.pid, self.uid);
        let unit_is = super::units::unit_identity(unit)
            .map_err(|why| format!("the system manager does not know {unit}: {why:#}"))?;
        // A user's own systemd can run a unit of the same name, in a path of its own.
        if unit_is.control_group != self.path {
            return Err(format!("pid {pid} (uid {uid}) does not run where the system manager keeps {unit}"));
        }
        if unit_is.uid != Some(uid) {
            return Err(format!("pid {pid} has uid {uid}, which is not the one that {unit} was given"));
        }
        Ok(())
    }

    /// Whether the process that connected still runs: its pid is then still its own.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A pidfd becomes readable when its process ends.
        matches!(wait((*self.process).as_fd(), PollFlags::IN, Duration::ZERO), Ok(false))
    }

    /// Waits until there is something to read, or the process has ended; `false` where it has.
    pub fn wait_for(&self, socket: impl AsFd) -> bool {
        let mut both = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&*self.process, PollFlags::IN)];
        loop {
            match poll(&mut both, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => return both[1].revents().is_empty(),
            }
        }
    }

    /// Whether it speaks of the guest that it is there for; the error says how not.
    pub fn speaks_of(&self, guest: &Uuid) -> Result<(), String> {
        if *guest == self.guest { Ok(()) } else { Err(format!("the proxy of {} asked for guest {guest}", self.guest)) }
    }
}

/// Which hierarchy the system manager uses: v2 where that is what /sys/fs/cgroup is.
fn hierarchy() -> Hierarchy {
    /// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
    const CGROUP2: u64 = 0x6367_7270;
    let unified = rustix::fs::statfs("/sys/fs/cgroup")
        .is_ok_and(|system| u64::try_from(system.f_type).is_ok_and(|magic| magic == CGROUP2));
    if unified { Hierarchy::Unified } else { Hierarchy::Named }
}

/// Reads a request: one line, at most so many bytes, all of it within `patience`. `None` where the caller only
/// wanted to be known before it asks.
pub fn read_line(stream: &mut UnixStream, longest: usize, patience: Duration) -> Result<Option<Vec<u8>>, String> {
    let until = Instant::now() + patience;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("the request did not come in time".to_owned());
        }
        stream.set_read_timeout(Some(left)).map_err(|why| why.to_string())?;
        let mut bytes = [0; 2048];
        match stream.read(&mut bytes) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => return Err("the request is not whole".to_owned()),
            Ok(n) => line.extend(&bytes[..n]),
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(why) => return Err(format!("the request cannot be read: {why}")),
        }
        if line.len() > longest {
            return Err("the request is too long".to_owned());
        }
    }
    Ok(Some(line))
}

/// Whether a descriptor becomes ready in that time.
pub fn wait(descriptor: BorrowedFd<'_>, flags: PollFlags, patience: Duration) -> io::Result<bool> {
    let mut one = [PollFd::new(&descriptor, flags)];
    let span = Timespec::try_from(patience).map_err(io::Error::other)?;
    loop {
        match poll(&mut one, Some(&span)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn half_a_request_is_given_up_and_a_long_one_refused() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"version\":1").unwrap();
        let why = read_line(&mut ours, 2048, Duration::from_millis(20)).unwrap_err();
        assert_eq!(why, "the request did not come in time");
        theirs.write_all(&[b'a'; 3000]).unwrap();
        assert_eq!(read_line(&mut ours, 2048, Duration::from_secs(5)).unwrap_err(), "the request is too long");
        let (mut ours, _) = UnixStream::pair().unwrap();
        assert_eq!(
            read_line(&mut ours, 2048, Duration::from_secs(5)).unwrap(),
            None,
            "who asks nothing is just greeted"
        );
    }

    #[test]
    fn a_process_that_is_no_proxy_is_refused_whatever_it_says() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let why = Caller::of(&ours, &Known::default()).unwrap_err();
        assert!(why.contains("runs in no proxy's unit"), "{why}");
    }
}
