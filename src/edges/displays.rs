//! Displays that libvirt alone connects to, as the broker has them: a process of its own for each, which asks libvirt
//! and sends the descriptor back.
//!
//! libvirt's call waits for the guest's job, 30 s at most, and then for QEMU, without end where that hangs; a worker of
//! libvirt's daemon waits with it, whatever becomes of who asked. So one call is under way for each guest, and a few for
//! all: whoever opens the display of a hung guest again and again takes one worker and not all of them.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{broker_server, passing};
use crate::rules::broker::{Kind, Refusal};
use crate::rules::guest::Uuid;

/// Calls at once: libvirt's daemon has 20 workers by default, and other work.
const MOST: usize = 8;

/// Opens displays, for many threads.
#[derive(Clone, Debug)]
pub struct Displays {
    program: PathBuf,
    under_way: Arc<(Mutex<HashSet<Uuid>>, Condvar)>,
}

impl Default for Displays {
    fn default() -> Self {
        Self::by("/usr/bin/console-proxy")
    }
}

impl Displays {
    fn by(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), under_way: Arc::default() }
    }

    /// Connects to a display of a guest, by its place among the guest's `<graphics>`.
    pub fn open(&self, guest: &Uuid, index: u32, patience: Duration) -> Result<OwnedFd, Refusal> {
        let until = Instant::now() + patience;
        let turn = self.turn(guest, until).ok_or_else(|| {
            let why = "libvirt has not done what was asked for before: another job has the guest, or its QEMU hangs";
            Refusal::new(Kind::Silent, format!("display:{index}: {why}"))
        })?;
        let refused = |why: io::Error| Refusal::new(Kind::Refused, format!("display:{index}: {why}"));
        let (mut child, answer) = self.start(guest, index).map_err(refused)?;
        let received = passing::receive(&answer, until);
        if received.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::TimedOut) {
            // Ended, it would leave libvirt's worker waiting and make room for the next one.
            std::thread::Builder::new().stack_size(64 << 10).spawn(move || see_out(child, turn)).map_err(refused)?;
            let seconds = patience.as_secs();
            let why = format!(
                "libvirt did not connect within {seconds} s: another job has the guest (a migration, a save), or its QEMU hangs; \
                 `virsh domjobinfo` and `virsh domcontrol` tell"
            );
            return Err(Refusal::new(Kind::Silent, format!("display:{index}: {why}")));
        }
        let _ = child.wait();
        let (answer, descriptors) = received.map_err(|why| {
            Refusal::new(Kind::Refused, format!("display:{index}: {} failed: {why}", self.program.display()))
        })?;
        match (answer.refusal, descriptors.into_iter().next()) {
            (None, Some(descriptor)) => Ok(descriptor),
            (Some(refusal), _) => Err(refusal),
            (None, None) => Err(Refusal::new(Kind::Refused, format!("display:{index}: libvirt sent no descriptor"))),
        }
    }

    fn start(&self, guest: &Uuid, index: u32) -> io::Result<(Child, OwnedFd)> {
        let (ours, theirs) = passing::pair()?;
        let mut command = Command::new(&self.program);
        // What the system manager told the broker is not for this one.
        command.env_clear().args(["display", guest.as_str(), &index.to_string()]).stdin(theirs);
        let child = command.spawn().map_err(|why| {
            io::Error::new(why.kind(), format!("{} cannot be started: {why}", self.program.display()))
        })?;
        Ok((child, ours))
    }

    /// Waits until no call for this guest is under way, and there is room for one.
    fn turn(&self, guest: &Uuid, until: Instant) -> Option<Turn> {
        let mut under_way = self.under_way();
        while under_way.contains(guest) || under_way.len() >= MOST {
            let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            let waited = self.under_way.1.wait_timeout(under_way, left);
            under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        under_way.insert(guest.clone());
        Some(Turn { displays: self.clone(), guest: guest.clone() })
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way.
#[derive(Debug)]
struct Turn {
    displays: Displays,
    guest: Uuid,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.displays.under_way().remove(&self.guest);
        self.displays.under_way.1.notify_all();
    }
}

fn see_out(mut child: Child, turn: Turn) {
    let _ = child.wait();
    drop(turn);
}

/// By the program that was started: sends the descriptor, or the refusal, to standard input.
pub fn answer(opened: Result<OwnedFd, Refusal>) -> io::Result<()> {
    let broker = broker_server::Channel::new(io::stdin().as_fd().try_clone_to_owned()?)?;
    match opened {
        Ok(descriptor) => broker.grant(0, Vec::new(), &[descriptor.as_fd()]),
        Err(refusal) => broker.refuse(0, refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const LONG: Duration = Duration::from_secs(20);

    /// A program that runs this shell script, `$2` is the guest.
    fn displays(folder: &tempfile::TempDir, script: &str) -> Displays {
        let program = folder.path().join("program");
        // A name of its own: the file must not be open for writing in a process that another test has just forked.
        fs::write(folder.path().join("script"), script).unwrap();
        fs::write(&program, format!("#!/bin/sh\n. {}/script\n", folder.path().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Displays::by(program)
    }

    fn guest(n: u32) -> Uuid {
        format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap()
    }

    #[test]
    fn what_the_program_says_is_the_answer_and_its_silence_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let answer = r#"{"answer":{"id":0,"refusal":{"kind":"silent","words":"busy"}}}"#;
        let why = displays(&folder, &format!("echo '{answer}' >&0")).open(&guest(1), 0, LONG).unwrap_err();
        assert_eq!(why, Refusal::new(Kind::Silent, "busy"));
        for (script, words) in [
            ("exit 0", "failed"),
            ("echo nonsense >&0", "failed"),
            (r#"echo '{"answer":{"id":0}}' >&0"#, "libvirt sent no descriptor"),
            (r#"echo '{"greeting":{"version":2,"turn":1}}' >&0"#, "it is no answer"),
        ] {
            let why = displays(&folder, script).open(&guest(1), 3, LONG).unwrap_err();
            assert!(why.kind == Kind::Refused && why.words.starts_with("display:3: "), "{script}: {why:?}");
            assert!(why.words.contains(words), "{script}: {why:?}");
        }
        let why = Displays::by("/nonexistent/program").open(&guest(1), 0, LONG).unwrap_err();
        assert!(why.kind == Kind::Refused && why.words.contains("cannot be started"), "{why:?}");
    }

    #[test]
    fn a_call_that_hangs_is_given_up_but_not_ended_and_holds_up_its_own_guest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let script = format!(
            "case $2 in 00000001*) until [ -e {} ]; do sleep 0.05; done;; esac; echo '{{\"answer\":{{\"id\":0}}}}' >&0",
            go.display()
        );
        let displays = displays(&folder, &script);
        let short = Duration::from_millis(50);
        let why = displays.open(&guest(1), 0, short).unwrap_err();
        assert!(why.kind == Kind::Silent && why.words.contains("did not connect within"), "{why:?}");
        let why = displays.open(&guest(1), 0, short).unwrap_err();
        assert!(why.kind == Kind::Silent && why.words.contains("asked for before"), "{why:?}");
        assert!(displays.open(&guest(2), 0, LONG).unwrap_err().words.contains("sent no descriptor"));
        fs::write(go, "").unwrap();
        assert!(displays.open(&guest(1), 0, LONG).unwrap_err().words.contains("sent no descriptor"));
    }

    #[test]
    fn so_many_calls_and_no_more_wait_in_libvirts_daemon() {
        let displays = Displays::by("/nonexistent/program");
        let soon = || Instant::now() + Duration::from_millis(20);
        let mut turns: Vec<_> = (0..MOST).map(|n| displays.turn(&guest(n as u32), soon()).unwrap()).collect();
        assert!(displays.turn(&guest(99), soon()).is_none());
        turns.pop();
        assert!(displays.turn(&guest(99), soon()).is_some());
    }
}
