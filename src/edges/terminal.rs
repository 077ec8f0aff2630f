//! Pseudo-terminals of guests: opened raw, and under libvirt's own lock.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::paths::Paths;
use crate::rules::broker::{Kind, Refusal, lock_holder, lock_text};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: u64 = 0x1cd1;

/// Opens `/dev/pts/N` for reading and writing: raw, not blocking, and never as the controlling
/// terminal. Refuses whatever is not a pseudo-terminal.
pub fn open(number: u32) -> Result<OwnedFd, Refusal> {
    let path = format!("/dev/pts/{number}");
    let failed = |why: io::Error| {
        let kind = if why.kind() == io::ErrorKind::NotFound { Kind::Unknown } else { Kind::Refused };
        Refusal::new(kind, format!("{path}: {why}"))
    };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let terminal = rustix::fs::open(path.as_str(), flags, Mode::empty()).map_err(|why| failed(why.into()))?;
    let is_pts = || -> rustix::io::Result<bool> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&terminal)?.st_mode);
        let system = rustix::fs::fstatfs(&terminal)?;
        Ok(kind == FileType::CharacterDevice && u64::try_from(system.f_type).is_ok_and(|magic| magic == DEVPTS))
    };
    if !is_pts().map_err(|why| failed(why.into()))? {
        return Err(Refusal::new(Kind::Refused, format!("{path} is no pseudo-terminal")));
    }
    let raw = || -> rustix::io::Result<()> {
        let mut settings = tcgetattr(&terminal)?;
        settings.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &settings)
    };
    raw().map_err(|why| failed(why.into()))?;
    Ok(terminal)
}

/// libvirt's lock of a terminal; dropped, it is given back.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    pid: u32,
}

/// Takes libvirt's lock file for `/dev/pts/N` in the name of process `pid`, by UUCP's rules: created
/// exclusively, and a lock whose holder is dead is taken over. `virsh console` does the same.
pub fn lock(paths: &Paths, number: u32, pid: u32) -> Result<Lock, Refusal> {
    let path = paths.terminal_locks().join(format!("LCK.._pts_{number}"));
    // Twice: once more after a dead holder's lock was removed.
    for _ in 0..2 {
        match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
            Ok(mut file) => {
                let lock = Lock { path, pid };
                return match file.write_all(lock_text(pid).as_bytes()) {
                    Ok(()) => Ok(lock),
                    Err(why) => {
                        let _ = fs::remove_file(&lock.path);
                        Err(Refusal::new(Kind::Refused, format!("cannot write {}: {why}", lock.path.display())))
                    }
                };
            }
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
                let holder = fs::read_to_string(&path).ok().and_then(|text| lock_holder(&text));
                if let Some(holder) = holder.filter(|holder| is_alive(*holder)) {
                    return Err(Refusal::new(Kind::Busy, format!("the console is in use by {}", name_of(holder))));
                }
                let _ = fs::remove_file(&path);
            }
            Err(why) => return Err(Refusal::new(Kind::Refused, format!("cannot make {}: {why}", path.display()))),
        }
    }
    Err(Refusal::new(Kind::Busy, "the console's lock is contended".to_owned()))
}

impl Drop for Lock {
    fn drop(&mut self) {
        let ours = fs::read_to_string(&self.path).ok().and_then(|text| lock_holder(&text)) == Some(self.pid);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_alive(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

fn name_of(pid: u32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match command.trim() {
        // libvirt's daemon takes the lock for whoever runs `virsh console`.
        "libvirtd" | "virtqemud" => "virsh console".to_owned(),
        other => format!("{other} (pid {pid})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.terminal_locks()).unwrap();
        (root, paths)
    }

    #[test]
    fn a_lock_is_held_by_one_and_given_back() {
        let (_root, paths) = host();
        let me = std::process::id();
        let held = lock(&paths, 3, me).unwrap();
        assert_eq!(lock(&paths, 3, me).unwrap_err().kind, Kind::Busy);
        let text = fs::read_to_string(paths.terminal_locks().join("LCK.._pts_3")).unwrap();
        assert_eq!(text, lock_text(me));
        drop(held);
        lock(&paths, 3, me).unwrap();
    }

    #[test]
    fn a_dead_holders_lock_is_taken_over_and_anothers_is_not_removed() {
        let (_root, paths) = host();
        let path = paths.terminal_locks().join("LCK.._pts_4");
        fs::write(&path, lock_text(i32::MAX as u32)).unwrap();
        let held = lock(&paths, 4, std::process::id()).unwrap();
        fs::write(&path, lock_text(1)).unwrap();
        drop(held);
        assert!(path.exists());
    }

    #[test]
    fn a_pty_is_opened_raw_and_what_is_not_there_is_unknown() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let number = crate::rules::route::pts_number(&name).unwrap();
        let terminal = open(number).unwrap();
        let settings = tcgetattr(&terminal).unwrap();
        assert!(!settings.local_modes.contains(rustix::termios::LocalModes::ECHO));
        assert_eq!(open(999_999_999).unwrap_err().kind, Kind::Unknown);
    }
}
