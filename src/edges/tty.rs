//! The caller's own standard input and output: a terminal, made raw and given back as it was, or a pipe.
//! (`edges::terminal` is about guests' terminals.)
//!
//! Neither is set not to block: that would be seen by every program that shares them, the caller's shell first
//! of all. A thread reads, another writes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpgrp, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{Signal as Arriving, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::rules::escape::Escape;
use crate::rules::modes::RESET;

/// The most bytes that are read at once. No proxy refuses a frame of that size.
const CHUNK: usize = 4096;
/// How much input is read ahead of a guest that takes none, in chunks: as long as there is room for what somebody
/// types, the key that leaves is seen.
const AHEAD: usize = 256;
/// Output under way to a terminal that takes none, in messages of the proxy. Then the proxy waits.
const BEHIND: usize = 8;

/// Whether standard input is a terminal.
#[must_use]
pub fn is_input_a_terminal() -> bool {
    isatty(io::stdin())
}

/// Whether standard output is a terminal.
#[must_use]
pub fn is_output_a_terminal() -> bool {
    isatty(io::stdout())
}

/// A terminal, made raw. Dropped, it is what it was before: at a normal end, at an error, while
/// a panic unwinds. Signals do not unwind: see [`Signals`].
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Makes it raw: every key is one of the guest's.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let raw = Self { before: tcgetattr(&terminal)?, terminal };
        raw.again()?;
        Ok(raw)
    }

    fn again(&self) -> io::Result<()> {
        let mut settings = self.before.clone();
        settings.make_raw();
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &settings)?)
    }

    fn restore(&self) {
        // In the background the terminal is another's by now, and its settings too.
        if tcgetpgrp(&self.terminal).is_ok_and(|group| group != getpgrp()) {
            return;
        }
        drop(Tidy);
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Dropped, it switches off in the terminal on standard output what a guest may have left on. [`Raw`] does that, too.
#[derive(Debug)]
pub struct Tidy;

impl Drop for Tidy {
    fn drop(&mut self) {
        if isatty(io::stdout()) && std::env::var_os("TERM").is_some_and(|term| term != "dumb") {
            let _ = rustix::io::write(io::stdout(), RESET.as_bytes());
        }
    }
}

/// The signals that end a program, and those that stop it and let it go on.
#[derive(Debug)]
pub struct Signals {
    ending: [(Signal, Arriving); 4],
    stop: Arriving,
    go_on: Arriving,
}

impl Signals {
    /// From here on they are heard of in [`Self::ended`] alone.
    pub fn catch() -> io::Result<Self> {
        let on = |which: Signal| signal(SignalKind::from_raw(which.as_raw()));
        let ending = |which| Ok::<_, io::Error>((which, on(which)?));
        Ok(Self {
            ending: [ending(Signal::TERM)?, ending(Signal::HUP)?, ending(Signal::INT)?, ending(Signal::QUIT)?],
            stop: on(Signal::TSTP)?,
            go_on: on(Signal::CONT)?,
        })
    }

    /// Returns the number of the signal that is to end the program. Meanwhile it gives the terminal back before the
    /// program is stopped, and takes it again when that goes on.
    pub async fn ended(&mut self, terminal: Option<&Raw>) -> i32 {
        let [a, b, c, d] = &mut self.ending;
        loop {
            tokio::select! {
                _ = a.1.recv() => return a.0.as_raw(),
                _ = b.1.recv() => return b.0.as_raw(),
                _ = c.1.recv() => return c.0.as_raw(),
                _ = d.1.recv() => return d.0.as_raw(),
                _ = self.stop.recv() => {
                    if let Some(terminal) = terminal {
                        terminal.restore();
                    }
                    let _ = kill_process(getpid(), Signal::STOP);
                }
                // Also after a SIGSTOP, of which nobody is told.
                _ = self.go_on.recv() => {
                    if let Some(terminal) = terminal {
                        let _ = terminal.again();
                    }
                }
            }
        }
    }
}

/// What is typed, or comes from a pipe.
#[derive(Debug)]
pub struct Typed {
    /// In order; it ends with the input, or at the key that leaves.
    pub bytes: mpsc::Receiver<Bytes>,
    /// True from the moment at which that key was typed, however much stands before it.
    pub left: watch::Receiver<bool>,
}

/// Reads standard input from here on, until its end or the key that leaves.
pub fn read_input(escape: Escape) -> io::Result<Typed> {
    let (typing, bytes) = mpsc::channel(AHEAD);
    let (leave, left) = watch::channel(false);
    let reading = move || {
        let mut buffer = [0; CHUNK];
        while let Ok(n @ 1..) = patiently(io::stdin().as_fd(), PollFlags::IN, |fd| rustix::io::read(fd, &mut buffer)) {
            let at = escape.find(&buffer[..n]);
            let before = Bytes::copy_from_slice(&buffer[..at.unwrap_or(n)]);
            if at.is_some() {
                let _ = typing.try_send(before);
                let _ = leave.send(true);
                return;
            }
            if typing.blocking_send(before).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(reading)?;
    Ok(Typed { bytes, left })
}

/// Writes what it is sent to standard output; the receiver hears when all is written or nobody reads any more.
pub fn write_output() -> io::Result<(mpsc::Sender<Bytes>, oneshot::Receiver<()>)> {
    let (shown, mut bytes) = mpsc::channel::<Bytes>(BEHIND);
    let (done, is_done) = oneshot::channel();
    let writing = move || {
        while let Some(mut left) = bytes.blocking_recv() {
            while !left.is_empty() {
                match patiently(io::stdout().as_fd(), PollFlags::OUT, |fd| rustix::io::write(fd, &left)) {
                    Ok(n) => drop(left.split_to(n)),
                    Err(_) => return,
                }
            }
        }
        let _ = done.send(());
    };
    std::thread::Builder::new().name("output".to_owned()).spawn(writing)?;
    Ok((shown, is_done))
}

/// Reads or writes, over signals and also where somebody else has set the descriptor not to block.
fn patiently(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    mut act: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    use rustix::io::Errno;
    loop {
        match act(fd) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&fd, flags)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(why) => return Err(why),
            },
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    #[test]
    fn a_raw_terminal_is_what_it_was_before_when_a_panic_unwinds() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let modes = || tcgetattr(&terminal).unwrap().local_modes;
        let before = modes();
        assert!(before.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
        let ended = std::panic::catch_unwind(|| {
            let _raw = Raw::enter(&terminal).unwrap();
            assert!(!modes().intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
            panic!("something that nobody thought of");
        });
        assert!(ended.is_err());
        assert_eq!(modes(), before);
    }

    #[test]
    fn what_is_no_terminal_is_not_made_raw() {
        assert!(Raw::enter(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
