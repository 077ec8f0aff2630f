//! Pseudo-terminals of guests: opened raw, and under libvirt's own lock.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, renameat_with};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::files;
use super::paths::Paths;
use crate::rules::broker::{Kind, Refusal, lock_holder, lock_text};
use crate::rules::route::hex;
use crate::rules::serving::Terminal;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: u64 = 0x1cd1;
/// In bytes: ten columns and a newline, and what other programs write behind them.
const LONGEST_LOCK: u64 = 256;

/// What tells the terminal that is `/dev/pts/N` now from those that have been it, and will be.
pub fn identity(number: u32) -> io::Result<Terminal> {
    Ok(identity_of(&rustix::fs::statat(CWD, format!("/dev/pts/{number}"), AtFlags::SYMLINK_NOFOLLOW)?))
}

fn identity_of(about: &Stat) -> Terminal {
    let nanoseconds = i64::try_from(about.st_ctime_nsec).unwrap_or_default();
    let made = about.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    Terminal { device: about.st_rdev, inode: about.st_ino, uid: about.st_uid, made }
}

/// Opens `/dev/pts/N` for reading and writing: raw, not blocking, and never as the controlling
/// terminal. Refuses whatever is not a pseudo-terminal, and another one than the `expected` one, which it leaves as it is.
pub fn open(number: u32, expected: Option<&Terminal>) -> Result<OwnedFd, Refusal> {
    let path = format!("/dev/pts/{number}");
    let failed = |why: io::Error| {
        let kind = if why.kind() == io::ErrorKind::NotFound { Kind::Unknown } else { Kind::Refused };
        Refusal::new(kind, format!("{path}: {why}"))
    };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let terminal = rustix::fs::open(path.as_str(), flags, Mode::empty()).map_err(|why| failed(why.into()))?;
    let about = rustix::fs::fstat(&terminal).map_err(|why| failed(why.into()))?;
    let is_pts = || -> rustix::io::Result<bool> {
        let kind = FileType::from_raw_mode(about.st_mode);
        let system = rustix::fs::fstatfs(&terminal)?;
        Ok(kind == FileType::CharacterDevice && u64::try_from(system.f_type).is_ok_and(|magic| magic == DEVPTS))
    };
    if !is_pts().map_err(|why| failed(why.into()))? {
        return Err(Refusal::new(Kind::Refused, format!("{path} is no pseudo-terminal")));
    }
    if expected.is_some_and(|expected| *expected != identity_of(&about)) {
        return Err(Refusal::new(Kind::Unknown, format!("{path} is another terminal by now")));
    }
    let raw = || -> rustix::io::Result<()> {
        let mut settings = tcgetattr(&terminal)?;
        settings.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &settings)
    };
    raw().map_err(|why| failed(why.into()))?;
    Ok(terminal)
}

/// Opens `/dev/pts/N` to look at it, and changes nothing.
pub fn look_at(number: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(format!("/dev/pts/{number}"), flags, Mode::empty())?)
}

/// libvirt's lock of a terminal; dropped, it is given back.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    pid: u32,
}

/// What is at a lock's path.
enum Found {
    Nothing,
    /// The lock of a process that lives.
    Held(u32),
    /// One whose process has ended, or that names none.
    Ended,
    /// Something else: the folder is open to all, so only a regular file of root's, or of this process's own user, is a
    /// lock. In words.
    NoLock(String),
}

/// Takes libvirt's lock file for `/dev/pts/N` in the name of process `pid`, by UUCP's rules: made exclusively, and a lock
/// whose holder is dead is taken over. `virsh console` does the same.
///
/// Where there is no room for a lock the terminal is open to `virsh console` as soon as there is some.
///
/// What is no lock is passed over, and said. Ours takes its place in one step, so nobody who makes such files again and
/// again can keep it away.
pub fn lock(paths: &Paths, number: u32, pid: u32) -> Result<Lock, Refusal> {
    let path = lock_path(paths, number);
    let failed = |why: io::Error| Refusal::new(Kind::Refused, format!("cannot make {}: {why}", path.display()));
    let busy = |holder| Refusal::new(Kind::Busy, format!("the console is in use by {}", name_of(holder)));
    let draft = match Draft::new(&path, pid) {
        Ok(draft) => draft,
        // Any local user can fill that folder. libvirt cannot make a lock there, either.
        Err(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            if let Found::Held(holder) = look(&path) {
                return Err(busy(holder));
            }
            tracing::warn!("{} cannot be made: {why}; the terminal is opened without it", path.display());
            return Ok(Lock { path, pid });
        }
        Err(why) => return Err(failed(why)),
    };
    // Again where somebody else gave theirs back in between.
    for _ in 0..8 {
        match renameat_with(CWD, &draft.0, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Lock { path, pid }),
            Err(Errno::EXIST) => {}
            Err(why) => return Err(failed(why.into())),
        }
        if let Found::Held(holder) = look(&path) {
            return Err(busy(holder));
        }
        match renameat_with(CWD, &draft.0, CWD, &path, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => continue,
            Err(why) => return Err(failed(why.into())),
        }
        match look(&draft.0) {
            Found::Held(holder) => {
                // Taken between the look and the step: it goes back.
                let _ = renameat_with(CWD, &draft.0, CWD, &path, RenameFlags::EXCHANGE);
                return Err(busy(holder));
            }
            Found::NoLock(why) => tracing::warn!("{} was no lock and is passed over: {why}", path.display()),
            Found::Nothing | Found::Ended => {}
        }
        return Ok(Lock { path, pid });
    }
    Err(Refusal::new(Kind::Busy, "the console's lock is contended".to_owned()))
}

/// The locks that name process `pid`, with their terminals' numbers: taken into keeping again by who took them, or whose
/// place it has taken.
#[must_use]
pub fn locks_of(paths: &Paths, pid: u32) -> Vec<(u32, Lock)> {
    let files = fs::read_dir(paths.terminal_locks()).into_iter().flatten().flatten();
    let number = |file: &fs::DirEntry| file.file_name().to_str()?.strip_prefix("LCK.._pts_")?.parse().ok();
    let named = files.filter_map(|file| Some((number(&file)?, file.path())));
    named.filter(|(_, path)| holder(path) == Some(pid)).map(|(number, path)| (number, Lock { path, pid })).collect()
}

/// The living process that has the lock of a terminal, if there is one.
#[must_use]
pub fn living_holder(paths: &Paths, number: u32) -> Option<u32> {
    holder(&lock_path(paths, number)).filter(|holder| is_alive(*holder))
}

fn lock_path(paths: &Paths, number: u32) -> PathBuf {
    paths.terminal_locks().join(format!("LCK.._pts_{number}"))
}

fn look(path: &Path) -> Found {
    match files::read_trusted(path, LONGEST_LOCK) {
        Ok(None) => Found::Nothing,
        Ok(Some(text)) => lock_holder(&text).filter(|holder| is_alive(*holder)).map_or(Found::Ended, Found::Held),
        Err(why) => Found::NoLock(why.to_string()),
    }
}

fn holder(path: &Path) -> Option<u32> {
    files::read_trusted(path, LONGEST_LOCK).ok().flatten().and_then(|text| lock_holder(&text))
}

/// A whole lock under a name that nobody knows; and afterwards what stood where it is to be. It is removed in the end.
struct Draft(PathBuf);

impl Draft {
    fn new(path: &Path, pid: u32) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let draft = path.with_file_name(format!(".console-proxy-lock.{}", hex(&random)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        let draft = Self(draft);
        // Whatever the umask: libvirt reads it, and so does whoever wants to know.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(lock_text(pid).as_bytes())?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let gone = match fs::remove_file(&self.0) {
            Err(why) if why.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(&self.0),
            other => other,
        };
        if let Err(why) = gone.or_else(|why| if why.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(why) }) {
            tracing::warn!("{} is left, somebody else's: {why}", self.0.display());
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if holder(&self.path) == Some(self.pid) {
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
    fn what_is_no_lock_is_passed_over_and_a_real_one_is_not() {
        let (_root, paths) = host();
        let me = std::process::id();
        let path = paths.terminal_locks().join("LCK.._pts_5");
        let other = paths.terminal_locks().join("other");
        fs::write(&other, lock_text(1)).unwrap();
        let impostors: [&dyn Fn(); 6] = [
            &|| rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap(),
            &|| fs::create_dir(&path).unwrap(),
            &|| {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("file"), "").unwrap();
            },
            &|| std::os::unix::fs::symlink(&other, &path).unwrap(),
            &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            &|| fs::write(&path, "1".repeat(1000)).unwrap(),
        ];
        for (n, impostor) in impostors.into_iter().enumerate() {
            impostor();
            let held = lock(&paths, 5, me).unwrap_or_else(|why| panic!("{n}: {why}"));
            assert_eq!(fs::read_to_string(&path).unwrap(), lock_text(me), "{n}");
            assert_eq!(lock(&paths, 5, 1).unwrap_err().kind, Kind::Busy, "{n}");
            drop(held);
            assert!(!path.exists(), "{n}");
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), lock_text(1), "what a link led to is as it was");
        fs::write(&path, lock_text(1)).unwrap();
        assert_eq!(lock(&paths, 5, me).unwrap_err().kind, Kind::Busy);
        assert_eq!(fs::read_to_string(&path).unwrap(), lock_text(1));
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            drop(lock(&paths, 5, me).unwrap());
        }
        let left: Vec<_> = fs::read_dir(paths.terminal_locks()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(left.iter().filter(|path| path.is_file() && **path != other).count(), 0, "{left:?}");
    }

    #[test]
    fn the_locks_of_a_process_are_found_again_and_nothing_else_is_read() {
        let (_root, paths) = host();
        let me = std::process::id();
        let names = |n: u32| lock_path(&paths, n);
        for (number, pid) in [(1, me), (2, 1), (3, me)] {
            fs::write(names(number), lock_text(pid)).unwrap();
        }
        fs::write(paths.terminal_locks().join("LCK..ttyS0"), lock_text(me)).unwrap();
        rustix::fs::mkfifoat(CWD, names(5), Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::fs::symlink(names(1), names(6)).unwrap();
        let mut found = locks_of(&paths, me);
        found.sort_by_key(|(number, _)| *number);
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
        drop(found);
        assert_eq!([1, 2, 3].map(|n| names(n).exists()), [false, true, false]);
    }

    #[test]
    fn a_pty_is_opened_raw_and_what_is_not_there_is_unknown() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let number = crate::rules::route::pts_number(&name).unwrap();
        let about = identity(number).unwrap();
        let others = [
            Terminal { device: about.device + 1, ..about },
            Terminal { inode: about.inode + 1, ..about },
            Terminal { uid: about.uid + 1, ..about },
            Terminal { made: about.made - 1, ..about },
        ];
        for other in others {
            assert_eq!(open(number, Some(&other)).unwrap_err().words, format!("{name} is another terminal by now"));
        }
        let left = rustix::fs::open(name.as_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        assert!(tcgetattr(&left).unwrap().local_modes.contains(rustix::termios::LocalModes::ECHO), "it is as it was");
        let terminal = open(number, Some(&about)).unwrap();
        rustix::io::write(&terminal, b"said").unwrap();
        assert_eq!(identity(number).unwrap(), about, "use does not change it");
        let settings = tcgetattr(&terminal).unwrap();
        assert!(!settings.local_modes.contains(rustix::termios::LocalModes::ECHO));
        assert_eq!(open(999_999_999, None).unwrap_err().kind, Kind::Unknown);
    }
}
