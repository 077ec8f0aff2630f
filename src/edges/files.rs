//! Files that others read while they are written, locks, and the configuration's files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::paths::Paths;
use crate::rules::config::Config;

/// Who administers guests: they may read what is kept of them.
pub const OPERATORS: &str = "libvirt";

/// Replaces a file as a whole: readers see the old text or the new one, also after a crash.
///
/// The new text stands in a hidden file of the same folder first; on any error (a full disk) that
/// one is removed and the old text stays.
pub fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        // Whatever the caller's umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// Reads a file of at most `limit` bytes as UTF-8; `None` where there is none.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<String>> {
    read_opened(File::open(path), limit)
}

/// The same for a file in a folder that others may write, whoever's the file is: what [`open_regular`] opens, or an
/// error.
pub fn read_untrusted(path: &Path, limit: u64) -> io::Result<Option<String>> {
    open_regular(path)?.map_or(Ok(None), |(file, _)| read_opened(Ok(file), limit))
}

/// The same for a file in an open folder.
pub fn read_untrusted_in(folder: impl AsFd, name: &str, limit: u64) -> io::Result<Option<String>> {
    open_regular_in(folder, Path::new(name))?.map_or(Ok(None), |(file, _)| read_opened(Ok(file), limit))
}

/// Opens a folder that somebody else may have put there: through no link in the path's last part.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Like [`read_untrusted`], where the file must be root's or this process's own user's: a file of anybody else is an error that
/// names its owner.
pub fn read_trusted(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let Some((file, about)) = open_regular(path)? else { return Ok(None) };
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        let words = format!("it belongs to uid {}", about.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    read_opened(Ok(file), limit)
}

/// Opens a regular file for reading in a folder that others may write: through no link in the path's last part, and
/// never waiting for the other end of a pipe. `None` where nothing is there; anything else is an error that says what
/// it is.
pub fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    open_regular_in(CWD, path)
}

fn open_regular_in(folder: impl AsFd, path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let refused = |words| io::Error::new(io::ErrorKind::InvalidData, words);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(refused("it is a symbolic link")),
        // A socket, or a device without a driver.
        Err(Errno::NXIO | Errno::NODEV) => return Err(refused("it is no regular file")),
        Err(why) => return Err(why.into()),
    };
    let about = file.metadata()?;
    if about.is_file() { Ok(Some((file, about))) } else { Err(refused("it is no regular file")) }
}

fn read_opened(file: io::Result<File>, limit: u64) -> io::Result<Option<String>> {
    let file = match file {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(Some(text))
}

/// Removes a file; that it is gone already is fine. True if it was there.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

/// Makes a folder and those above it, with `mode` for the last one; that it exists is fine.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(why) => Err(why),
    }
}

/// Makes a folder that members of `group` alone may look into, beside root; that it exists is fine. systemd-tmpfiles has
/// made it on a host; in another tree there need not be such a group.
pub fn make_folder_of(path: &Path, group: &str, paths: &Paths) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_folder(path, 0o750).with_context(|| format!("cannot make {}", path.display()))?;
    if paths.is_this_host() { give_to_group(path, group) } else { Ok(()) }
}

/// Gives a file or folder to a group, by the group's name in /etc/group; its mode stays.
pub fn give_to_group(path: &Path, group: &str) -> Result<()> {
    let gid = group_id(group).with_context(|| format!("there is no group {group}: `systemd-sysusers` makes it"))?;
    let mode = fs::metadata(path)?.permissions();
    std::os::unix::fs::chown(path, None, Some(gid))
        .with_context(|| format!("cannot give {} to group {group}", path.display()))?;
    // A change of owner takes the set-group-ID bit away.
    fs::set_permissions(path, mode).with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// A group's number, by its name in /etc/group.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Drops a note: an empty file whose name says which guest to look at.
pub fn leave_note(folder: &Path, name: &str) -> io::Result<()> {
    make_folder(folder, 0o700)?;
    File::create(folder.join(name)).map(drop)
}

/// A lock that lasts as long as the value.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "dropping the file releases the lock")] File);

/// Takes an exclusive lock on a file, waiting at most `patience`: a holder that was stopped must not
/// hold up a guest's start.
pub fn lock(path: &Path, patience: Duration) -> io::Result<Lock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let until = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another program holds the lock"));
            }
            Err(why) => return Err(why.into()),
        }
    }
}

/// A configuration that follows its files: for a program that outlives an edit.
#[derive(Debug)]
pub struct Watched {
    paths: Paths,
    seen: Vec<Seen>,
    config: Rc<Config>,
}

/// A file, when it was changed, and its inode.
type Seen = (PathBuf, Option<SystemTime>, u64);

impl Watched {
    /// Follows the files that `config` was read from.
    #[must_use]
    pub fn new(paths: &Paths, config: Config) -> Self {
        Self { paths: paths.clone(), seen: look(paths), config: Rc::new(config) }
    }

    /// What counts now. A new text that is refused is told once, and the old one stays in force.
    pub fn current(&mut self) -> Rc<Config> {
        let seen = look(&self.paths);
        if seen != self.seen {
            self.seen = seen;
            match config(&self.paths) {
                Ok(config) => self.config = Rc::new(config),
                Err(why) => {
                    tracing::error!(
                        "the configuration has changed and is refused, the old one stays in force: {why:#}"
                    );
                }
            }
        }
        self.config.clone()
    }
}

fn look(paths: &Paths) -> Vec<Seen> {
    let seen = |path: PathBuf| {
        let data = fs::metadata(&path).ok();
        let changed = data.as_ref().and_then(|data| data.modified().ok());
        (path, changed, data.map_or(0, |data| data.ino()))
    };
    config_files(paths).into_iter().map(seen).collect()
}

/// The configuration's files in the order in which they are read; the first may be missing.
fn config_files(paths: &Paths) -> Vec<PathBuf> {
    let main = paths.config();
    let folder = main.with_extension("toml.d");
    let mut files = vec![main];
    if let Ok(entries) = fs::read_dir(&folder) {
        let mut more: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .collect();
        more.sort();
        files.extend(more);
    }
    files
}

/// Reads the configuration and its `.d/` folder. A missing file means the defaults.
pub fn config(paths: &Paths) -> Result<Config> {
    const LARGEST: u64 = 1 << 20;
    let mut texts = Vec::new();
    for file in config_files(paths) {
        let text = read(&file, LARGEST).with_context(|| format!("cannot read {}", file.display()))?;
        texts.extend(text.map(|text| (file.display().to_string(), text)));
    }
    Ok(Config::parse(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_text_and_mode_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(read(&path, 10).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_over_its_limit_is_refused_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(read(&path, 10).unwrap().is_none());
        fs::write(&path, "12345678901").unwrap();
        assert!(read(&path, 10).is_err());
    }

    #[test]
    fn a_link_and_a_pipe_in_a_proxys_folder_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (folder.path().join("f"), folder.path().join("l"), folder.path().join("p"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(read_untrusted(&file, 10).unwrap().as_deref(), Some("text"));
        for read in [read_untrusted, read_trusted] {
            assert_eq!(read(&link, 10).unwrap_err().to_string(), "it is a symbolic link");
            assert_eq!(read(&pipe, 10).unwrap_err().to_string(), "it is no regular file");
            assert_eq!(read(folder.path(), 10).unwrap_err().to_string(), "it is no regular file");
            assert!(read(&file, 3).is_err(), "longer than its limit");
            assert_eq!(read(&folder.path().join("none"), 10).unwrap(), None);
        }
    }

    #[test]
    fn a_file_that_another_user_put_there_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "text").unwrap();
        assert_eq!(read_trusted(&file, 10).unwrap().as_deref(), Some("text"));
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
            assert_eq!(read_trusted(&file, 10).unwrap_err().to_string(), "it belongs to uid 12345");
            assert_eq!(read_untrusted(&file, 10).unwrap().as_deref(), Some("text"));
        }
    }

    #[test]
    fn a_lock_that_is_held_is_given_up_after_the_patience() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path, Duration::ZERO).unwrap();
        assert_eq!(lock(&path, Duration::from_millis(5)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(held);
        lock(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_changed_configuration_counts_and_a_broken_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        make_folder(paths.config().parent().unwrap(), 0o755).unwrap();
        let mut watched = Watched::new(&paths, Config::default());
        assert_eq!(*watched.current(), Config::default());
        replace(&paths.config(), b"[listen]\nhost = \"a\"\n", 0o644).unwrap();
        assert_eq!(watched.current().listen.host, "a");
        replace(&paths.config(), b"nonsense", 0o644).unwrap();
        assert_eq!(watched.current().listen.host, "a");
        fs::remove_file(paths.config()).unwrap();
        assert_eq!(*watched.current(), Config::default());
    }

    #[test]
    fn a_missing_configuration_means_the_defaults_and_d_files_come_later() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert_eq!(config(&paths).unwrap(), Config::default());
        let folder = paths.config().with_extension("toml.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(paths.config(), "[listen]\nhost = \"a\"\n").unwrap();
        fs::write(folder.join("9.toml"), "[listen]\nhost = \"b\"\n").unwrap();
        fs::write(folder.join("9.bak"), "nonsense").unwrap();
        assert_eq!(config(&paths).unwrap().listen.host, "b");
    }
}
