//! Unix sockets of this host, by path: connected to without being led elsewhere by whoever may write a folder on the way.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;

/// The most links on one way.
const MOST_LINKS: u32 = 8;

/// Who listens: the process and the user that made the socket listen, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub pid: u32,
    /// Its effective user at that time.
    pub uid: u32,
}

/// Connects to the socket at an absolute path, and to no other: what was found there is what is connected to.
pub fn connect(path: &str, patience: Duration) -> io::Result<OwnedFd> {
    let node = find(Path::new(path))?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A unix connect blocks while the backlog is full; with a send timeout it gives up (unix(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", node.as_raw_fd()))?)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
    Ok(socket)
}

/// Who is at the other end of a connection that was made here.
pub fn peer(socket: &OwnedFd) -> io::Result<Peer> {
    let peer = sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: Pid::as_raw(Some(peer.pid)).unsigned_abs(), uid: peer.uid.as_raw() })
}

/// Finds the socket's node, step by step: openat2(2), which would do all at once, is not there under systemd's
/// `RestrictSUIDSGID=`. A link is followed where root alone can have put it, such as `/var/run`.
fn find(path: &Path) -> io::Result<OwnedFd> {
    let refused = |words: &str| io::Error::other(words.to_owned());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || openat(CWD, "/", flags | OFlags::DIRECTORY, Mode::empty());
    if !path.is_absolute() {
        return Err(refused("it is no absolute path"));
    }
    let (mut folder, mut left, mut links) = (root()?, steps(path), 0);
    while let Some(name) = left.pop_front() {
        let found = openat(&folder, &name, flags, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&found)?.st_mode) {
            FileType::Directory => folder = found,
            FileType::Socket if left.is_empty() => return Ok(found),
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(refused("there are too many symbolic links in its path"));
                }
                if !is_roots_alone(&folder)? {
                    return Err(refused(
                        "there is a symbolic link in its path, in a folder that others than root can write",
                    ));
                }
                let target = OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes());
                if Path::new(&target).is_absolute() {
                    folder = root()?;
                }
                for step in steps(Path::new(&target)).into_iter().rev() {
                    left.push_front(step);
                }
            }
            _ => break,
        }
    }
    Err(refused("it is no socket"))
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

fn is_roots_alone(folder: &OwnedFd) -> io::Result<bool> {
    let about = fstat(folder)?;
    Ok(about.st_uid == 0 && about.st_mode & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    const SOON: Duration = Duration::from_secs(5);

    fn try_connect(path: &Path) -> Result<Peer, String> {
        connect(path.to_str().unwrap(), SOON).and_then(|socket| peer(&socket)).map_err(|why| why.to_string())
    }

    #[test]
    fn a_socket_is_connected_to_and_the_kernel_says_who_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(try_connect(&path), Ok(Peer { pid: std::process::id(), uid }));
        assert_eq!(try_connect(&folder.path().join("./s")), Ok(Peer { pid: std::process::id(), uid }));
    }

    #[test]
    fn a_link_that_others_may_have_put_there_leads_nowhere_and_roots_own_does() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let listener = UnixListener::bind(at("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(at("s"), at("open/link")).unwrap();
        symlink(folder.path(), at("open/folder")).unwrap();
        for path in ["open/link", "open/folder/s"] {
            let why = try_connect(&at(path)).unwrap_err();
            assert!(why.contains("there is a symbolic link in its path"), "{path}: {why}");
        }
        assert!(listener.accept().is_err(), "nobody came");
        if rustix::process::geteuid().is_root() {
            symlink(at("s"), at("link")).unwrap();
            symlink("../s", at("open/../relative")).unwrap();
            symlink(".", at("here")).unwrap();
            assert!(try_connect(&at("link")).is_ok());
            assert!(try_connect(&at("here/s")).is_ok());
            fs::create_dir(at("below")).unwrap();
            symlink("../s", at("below/up")).unwrap();
            assert!(try_connect(&at("below/up")).is_ok());
            symlink("loop", at("loop")).unwrap();
            assert!(try_connect(&at("loop")).unwrap_err().contains("too many symbolic links"));
        }
    }

    #[test]
    fn what_is_no_socket_is_not_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        rustix::fs::mkfifoat(CWD, folder.path().join("pipe"), Mode::RUSR).unwrap();
        for name in ["file", "pipe", "", "file/s"] {
            assert_eq!(try_connect(&folder.path().join(name)).unwrap_err(), "it is no socket", "{name}");
        }
        assert!(try_connect(&folder.path().join("none")).unwrap_err().contains("No such file"));
        assert_eq!(try_connect(Path::new("s")).unwrap_err(), "it is no absolute path");
    }
}
