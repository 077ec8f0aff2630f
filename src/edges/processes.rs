//! Processes of this host: held so that their pid cannot become another's, and what the kernel says of them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::rules::broker::{Hierarchy, cgroup_path};
use crate::rules::serving::{self, Owner};

/// A process. While it lives its pid is its own.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    handle: OwnedFd,
}

/// Why an owner is not held.
#[derive(Debug, thiserror::Error)]
pub enum NotHeld {
    /// It has ended, whoever has its pid now.
    #[error("the guest's QEMU (pid {0}) has ended")]
    Ended(u32),
    /// The kernel does not say.
    #[error("the kernel does not tell of the guest's QEMU (pid {0}): {1}")]
    Unknown(u32, io::Error),
}

impl Process {
    /// Holds a process; `NotFound` where there is none.
    pub fn hold(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).map_err(|why| match why {
            // The latter for the number of another process' thread.
            Errno::SRCH | Errno::INVAL | Errno::NOENT => io::ErrorKind::NotFound.into(),
            why => io::Error::from(why),
        })?;
        Ok(Self { pid, handle })
    }

    /// Holds a guest's QEMU: the process that it was when the guest was published.
    pub fn hold_owner(owner: &Owner) -> Result<Self, NotHeld> {
        let gone = || NotHeld::Ended(owner.pid);
        let process = Self::hold(owner.pid).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => gone(),
            _ => NotHeld::Unknown(owner.pid, why),
        })?;
        // From here on the pid is that process', if it is another one.
        match process.started() {
            Ok(started) if started == owner.started && process.is_alive() => Ok(process),
            Ok(_) => Err(gone()),
            Err(_) if !process.is_alive() => Err(gone()),
            Err(why) => Err(NotHeld::Unknown(owner.pid, why)),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs. Where a question of below was answered before this says yes, the answer was about this process.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A pidfd becomes readable when its process ends.
        let mut one = [PollFd::new(&self.handle, PollFlags::IN)];
        loop {
            match poll(&mut one, Some(&Timespec::default())) {
                Err(Errno::INTR) => {}
                ready => return ready == Ok(0),
            }
        }
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(format!("/proc/{}/{file}", self.pid))
    }

    fn text(&self, file: &str) -> io::Result<String> {
        // A command's name may be any bytes.
        self.read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// When it began, in clock ticks since boot.
    pub fn started(&self) -> io::Result<u64> {
        serving::start_time(&self.text("stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Its effective user.
    pub fn effective_uid(&self) -> io::Result<u32> {
        serving::effective_uid(&self.text("status")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Its command line, each word with a NUL behind it.
    pub fn command(&self) -> io::Result<Vec<u8>> {
        self.read("cmdline")
    }

    /// What it has open. Needs `CAP_SYS_PTRACE` for another user's.
    pub fn open_things(&self) -> io::Result<OpenThings> {
        let mut found = OpenThings::default();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))?.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.to_string_lossy();
            if let Some(inode) = serving::socket_inode(&link) {
                found.sockets.insert(inode);
            } else if link.ends_with("/ptmx") {
                let info = self.text(&format!("fdinfo/{}", entry.file_name().to_string_lossy()));
                found.terminals.extend(info.ok().and_then(|info| serving::terminal_number(&info)));
            }
        }
        Ok(found)
    }

    /// The other processes in the scope that libvirt keeps a guest's processes in; none where there is no such scope.
    #[must_use]
    pub fn companions(&self) -> Vec<Process> {
        let Some(own) = scope_of(&self.pid.to_string()) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let others = pids.filter(|pid| *pid != self.pid && scope_of(&pid.to_string()).as_ref() == Some(&own));
        others.filter_map(|pid| Self::hold(pid).ok()).collect()
    }
}

fn scope_of(pid: &str) -> Option<String> {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let paths = [Hierarchy::Unified, Hierarchy::Named].into_iter().filter_map(|which| cgroup_path(&cgroup, which));
    paths.filter_map(serving::scope).map(str::to_owned).next()
}

/// Sockets and terminals that a process has open.
#[derive(Debug, Default)]
pub struct OpenThings {
    /// Sockets, by their inodes.
    pub sockets: HashSet<u64>,
    /// Pseudo-terminals whose other end it has, by their numbers.
    pub terminals: HashSet<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    #[test]
    fn an_owner_is_held_while_it_lives_and_neither_before_nor_after() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let started = Process::hold(child.id()).unwrap().started().unwrap();
        let owner = Owner { pid: child.id(), started, holds: [].into() };
        let held = Process::hold_owner(&owner).unwrap();
        assert!(held.is_alive());
        let later = Owner { started: started + 1, ..owner.clone() };
        assert!(matches!(Process::hold_owner(&later), Err(NotHeld::Ended(_))), "another process of that pid");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!held.is_alive());
        assert!(matches!(Process::hold_owner(&owner), Err(NotHeld::Ended(_))));
        for pid in [0, u32::MAX, 4_000_000] {
            let nobody = Owner { pid, ..owner.clone() };
            assert!(matches!(Process::hold_owner(&nobody), Err(NotHeld::Ended(_))), "{pid}");
        }
    }

    #[test]
    fn what_a_process_has_open_is_found_and_what_it_closed_is_not() {
        let own = Process::hold(std::process::id()).unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let number = crate::rules::route::pts_number(&name).unwrap();
        let things = own.open_things().unwrap();
        assert!(things.sockets.contains(&inode) && things.terminals.contains(&number), "{}", master.as_raw_fd());
        drop(socket);
        assert!(!own.open_things().unwrap().sockets.contains(&inode));
        assert_eq!(own.effective_uid().unwrap(), rustix::process::geteuid().as_raw());
        assert!(own.companions().is_empty(), "tests run in no guest's scope");
    }
}
