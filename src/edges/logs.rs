//! The files in which libvirt's log daemon keeps what serial ports say: opened for reading, read as one
//! stream, and removed with their guest. Which file is whose is in [`crate::rules::log`], what belongs
//! together in [`crate::rules::history`].

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;

use super::paths::Paths;
use crate::rules::broker::{Kind, Refusal};
use crate::rules::guest::Uuid;
use crate::rules::history::{FileId, Found, HEAD, Stream};
use crate::rules::log::{FOLDER, MOST_OLDER, OurLog, may_be_shown, older, why_not_shown};

/// All logs of the host; libvirt's folder is below it.
const ALL_LOGS: &str = "/var/log/";

/// An open file of a log, and its number: 0 for the current one, 1 for the newest older one, and so on.
pub type Numbered = (u8, OwnedFd);

/// The most files that are held: those that are there, and some that somebody may still be reading.
const MOST_HELD: usize = 2 * (MOST_OLDER as usize + 1);

/// Opens a log's files, as they are at one moment.
///
/// Whoever wrote the definition chose the name, and what is opened may be shown to others. So: with the
/// guest's UUID in their name, through no symbolic link, regular files of root's (or of whoever may write
/// libvirt's folder of logs) without another name. Nothing is waited for, not even at a FIFO.
pub fn open(paths: &Paths, guest: &Uuid, path: &str) -> Result<Vec<Numbered>, Refusal> {
    if !may_be_shown(path, guest) {
        return Err(Refusal::new(Kind::Refused, why_not_shown(path, guest)));
    }
    let below = path.strip_prefix(FOLDER).unwrap_or(path);
    let refused = |why: io::Error| {
        let kind = if why.kind() == io::ErrorKind::NotFound { Kind::Unknown } else { Kind::Refused };
        Refusal::new(kind, format!("{path}: {why}"))
    };
    let (folders, below) = below.rsplit_once('/').unwrap_or(("", below));
    let (folder, owner) = open_folder(paths, folders).map_err(refused)?;
    let open_one = |name: &str| open_one(&folder, owner, name);
    // Renaming may go on meanwhile: then the current file is another one at the end, and it is done again.
    for _ in 0..8 {
        let mut files = vec![(0, open_one(below).map_err(refused)?)];
        for number in 0..MOST_OLDER {
            match open_one(&older(below, number)) {
                Ok(file) => files.push((number + 1, file)),
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => return Err(refused(why)),
            }
        }
        let again = open_one(below).map_err(refused)?;
        if identity(&files[0].1).map_err(refused)? == identity(&again).map_err(refused)? {
            return Ok(files);
        }
    }
    Err(refused(io::Error::other("it is renamed all the time")))
}

/// How long ago a log was written to; `None` where nothing ever was.
#[must_use]
pub fn written(files: Vec<Numbered>) -> Option<Duration> {
    let is_only_one = files.len() == 1;
    let (_, current) = files.into_iter().find(|(number, _)| *number == 0)?;
    let about = fs::File::from(current).metadata().ok()?;
    let was_written = about.len() > 0 || !is_only_one;
    // A clock that was set back makes it now.
    was_written.then(|| about.modified().ok().map(|time| time.elapsed().unwrap_or_default())).flatten()
}

/// Opens a folder in that of libvirt's logs; and says which user has that one.
fn open_folder(paths: &Paths, below: &str) -> io::Result<(OwnedFd, u32)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Where all logs are may be elsewhere by a link: an administrator made that.
    let all = openat(CWD, paths.below_root(ALL_LOGS), flags, Mode::empty())?;
    let libvirts = walk(all, FOLDER.strip_prefix(ALL_LOGS).unwrap_or(FOLDER))?;
    let owner = rustix::fs::fstat(&libvirts)?.st_uid;
    Ok((walk(libvirts, below)?, owner))
}

/// Step by step: openat2(2), which would do all at once, is not there under systemd's `RestrictSUIDSGID=` (seen: 252).
fn walk(mut folder: OwnedFd, below: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for name in below.split('/').filter(|name| !name.is_empty()) {
        folder = openat(&folder, name, flags, Mode::empty()).map_err(|why| match why {
            Errno::NOTDIR | Errno::LOOP => io::Error::other("there is a symbolic link in its path, or no folder"),
            why => why.into(),
        })?;
    }
    Ok(folder)
}

/// `owner`: the user, beside root, whose file it may be.
fn open_one(folder: &OwnedFd, owner: u32, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty()).map_err(|why| match why {
        Errno::LOOP => io::Error::other("there is a symbolic link in its path"),
        why => why.into(),
    })?;
    let about = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    if about.st_uid != 0 && about.st_uid != owner {
        return Err(io::Error::other(format!("it belongs to uid {}, and not to libvirt's daemon", about.st_uid)));
    }
    match about.st_nlink {
        // Removed since it was opened.
        0 => Err(io::ErrorKind::NotFound.into()),
        1 => Ok(file),
        _ => Err(io::Error::other("it is the same file as another one (a hard link)")),
    }
}

fn identity(file: &OwnedFd) -> io::Result<FileId> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let about = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let has_birth = about.stx_mask & StatxFlags::BTIME.bits() != 0;
    let birth = has_birth.then_some((about.stx_btime.tv_sec, about.stx_btime.tv_nsec));
    Ok(FileId::new((about.stx_dev_major, about.stx_dev_minor), about.stx_ino, birth))
}

/// What is at an offset of a file, at most as much as there is room for.
fn read_at(file: impl AsFd, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *bytes, offset))?)
}

fn size_and_head(file: &OwnedFd) -> io::Result<(u64, Vec<u8>)> {
    let mut head = vec![0; HEAD];
    let length = read_at(file, &mut head, 0)?;
    head.truncate(length);
    Ok((rustix::fs::fstat(file)?.st_size.cast_unsigned(), head))
}

/// A log that is read as one stream, from files that were opened by whoever may.
#[derive(Debug)]
pub struct Log {
    stream: Stream,
    /// By their parts' serials, in the stream's order.
    files: Vec<(u64, OwnedFd)>,
}

impl Log {
    /// Takes files over.
    pub fn new(files: Vec<Numbered>) -> io::Result<Self> {
        let mut log = Self { stream: Stream::default(), files: Vec::new() };
        log.look(files, 0)?;
        Ok(log)
    }

    /// What is known of it.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Takes over files that were opened anew. `read`: up to where the stream was read.
    pub fn look(&mut self, files: Vec<Numbered>, read: u64) -> io::Result<()> {
        // What was written before the newest one got another name.
        self.grow(read)?;
        let mut found = Vec::with_capacity(files.len());
        let mut opened = Vec::with_capacity(files.len());
        for (number, file) in files {
            let id = identity(&file)?;
            let (size, head) = size_and_head(&file)?;
            found.push(Found { number, id, head, size });
            opened.push((id, file));
        }
        let known = self.stream.parts().back().map(|part| part.serial);
        self.stream.look(found, read);
        for part in self.stream.parts().iter().filter(|part| known.is_none_or(|known| part.serial > known)) {
            if let Some(at) = opened.iter().position(|(id, _)| *id == part.id) {
                self.files.push((part.serial, opened.swap_remove(at).1));
            }
        }
        let over = self.files.len().saturating_sub(MOST_HELD);
        self.files.drain(..over);
        Ok(())
    }

    /// Looks how far the newest file has grown. `read`: up to where the stream was read.
    pub fn grow(&mut self, read: u64) -> io::Result<()> {
        let Some((serial, file)) = self.files.pop() else { return Ok(()) };
        let (size, head) = size_and_head(&file)?;
        self.stream.grown(size, &head, read);
        // Where it was cut it is read again from its beginning.
        let serial = self.stream.parts().back().map_or(serial, |part| part.serial);
        self.files.push((serial, file));
        Ok(())
    }

    /// Reads what is at an offset of the stream, never over the end of a file; 0 bytes where nothing is,
    /// or nothing any more.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(part) = self.stream.part_at(offset).filter(|part| offset < part.end()) else { return Ok(0) };
        let Some((_, file)) = self.files.iter().find(|(serial, _)| *serial == part.serial) else { return Ok(0) };
        let most = usize::try_from(part.end() - offset).unwrap_or(usize::MAX).min(bytes.len());
        read_at(file, &mut bytes[..most], offset - part.start)
    }

    /// Where a reader begins who wants the last `most` bytes before `end`: at a line's start where there
    /// is one soon.
    pub fn tail(&self, end: u64, most: u64) -> io::Result<u64> {
        let from = end.saturating_sub(most).max(self.stream.start());
        if from == self.stream.start() || most == 0 {
            return Ok(from);
        }
        // From the byte before: it may be the end of a line itself.
        let mut bytes = [0; 4096];
        let length = self.read(from - 1, &mut bytes)?;
        let line = bytes[..length].iter().position(|byte| *byte == b'\n');
        Ok(line.map_or(from, |at| (from + at as u64).min(end)))
    }
}

/// Tells when a log may have changed, to whoever may look into its folder.
#[derive(Debug)]
pub struct Watch {
    events: OwnedFd,
    name: String,
}

impl Watch {
    /// Begins to watch.
    pub fn new(paths: &Paths, path: &str) -> io::Result<Self> {
        let file = paths.below_root(path);
        let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        inotify::add_watch(&events, folder, what | WatchFlags::DELETE)?;
        Ok(Self { events, name: name.to_owned() })
    }

    /// Waits for a change, at most for `limit`; false when nobody reads standard output any more.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let output = io::stdout();
            let mut both = [PollFd::new(&self.events, PollFlags::IN), PollFd::new(&output, PollFlags::empty())];
            match poll(&mut both, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
            if both[1].revents().intersects(PollFlags::ERR | PollFlags::NVAL) {
                return Ok(false);
            }
            if self.is_ours_among_them()? {
                return Ok(true);
            }
        }
    }

    /// All guests' logs are in one folder.
    fn is_ours_among_them(&self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.events, &mut space);
        let mut ours = false;
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    // An overflow of the queue names none.
                    ours |= name.is_none_or(|name| name.starts_with(&self.name));
                }
                Err(Errno::AGAIN) => return Ok(ours),
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }
}

/// Removes the logs that wiring gave a guest, older parts included.
pub fn remove(paths: &Paths, uuid: &Uuid) -> io::Result<()> {
    let entries = match fs::read_dir(paths.guest_logs()) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().and_then(OurLog::of_file_name);
        if ours.is_some_and(|ours| ours.uuid == *uuid) {
            super::files::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::history::{Break, Place};
    use std::path::PathBuf;

    const PATH: &str = "/var/log/libvirt/qemu/b50bdc9f-490b-4b9b-8641-7573c0eba77c-serial0.log";

    fn guest() -> Uuid {
        "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap()
    }

    fn open(paths: &Paths, path: &str) -> Result<Vec<Numbered>, Refusal> {
        super::open(paths, &guest(), path)
    }

    fn host() -> (tempfile::TempDir, Paths, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.guest_logs()).unwrap();
        let file = paths.below_root(PATH);
        (root, paths, file)
    }

    fn older(file: &std::path::Path, number: u8) -> PathBuf {
        super::older(file.to_str().unwrap(), number).into()
    }

    fn append(file: &std::path::Path, bytes: &str) {
        use std::io::Write;
        fs::OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(bytes.as_bytes()).unwrap();
    }

    fn refused(paths: &Paths, path: &str) -> (Kind, String) {
        let why = open(paths, path).unwrap_err();
        (why.kind, why.words)
    }

    fn rest(log: &Log, from: u64) -> String {
        let mut text = Vec::new();
        let mut bytes = [0; 7];
        loop {
            match log.read(from + text.len() as u64, &mut bytes).unwrap() {
                0 => return String::from_utf8(text).unwrap(),
                n => text.extend(&bytes[..n]),
            }
        }
    }

    #[test]
    fn nothing_but_the_guests_own_regular_file_with_one_name_is_opened() {
        let (root, paths, file) = host();
        assert_eq!(refused(&paths, PATH).0, Kind::Unknown);
        for other in ["/etc/shadow", "/var/log/auth.log", &PATH.replace("b50b", "b50c"), "/var/log/libvirt/qemu/g.log"]
        {
            fs::create_dir_all(paths.below_root(other).parent().unwrap()).unwrap();
            fs::write(paths.below_root(other), "not this guest's").unwrap();
            let why = refused(&paths, other);
            assert!(why.0 == Kind::Refused && why.1.contains(PATH), "what name is wanted: {}", why.1);
        }

        let secret = root.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, &file).unwrap();
        assert_eq!(refused(&paths, PATH), (Kind::Refused, format!("{PATH}: there is a symbolic link in its path")));
        fs::remove_file(&file).unwrap();

        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(refused(&paths, PATH), (Kind::Refused, format!("{PATH}: it is no regular file")));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(refused(&paths, PATH).1, format!("{PATH}: it is no regular file"));
        fs::remove_dir(&file).unwrap();

        fs::hard_link(&secret, &file).unwrap();
        assert!(refused(&paths, PATH).1.contains("hard link"));
        fs::remove_file(&file).unwrap();

        // A folder on the way, and an older file.
        fs::write(&file, "fine").unwrap();
        assert_eq!(open(&paths, PATH).unwrap().len(), 1);
        std::os::unix::fs::symlink(&secret, older(&file, 1)).unwrap();
        assert!(refused(&paths, PATH).1.contains("symbolic link"));
        fs::remove_file(older(&file, 1)).unwrap();
        fs::hard_link(&secret, older(&file, 0)).unwrap();
        assert!(refused(&paths, PATH).1.contains("hard link"));
        fs::remove_file(older(&file, 0)).unwrap();
        std::os::unix::fs::symlink(paths.guest_logs(), paths.guest_logs().join("alias")).unwrap();
        assert!(refused(&paths, &PATH.replace("qemu/", "qemu/alias/")).1.contains("symbolic link"));

        // Somebody else's, where tests may make such a file.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
            assert!(refused(&paths, PATH).1.contains("it belongs to uid 65534"));
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
            fs::write(older(&file, 0), "").unwrap();
            std::os::unix::fs::chown(older(&file, 0), Some(65_534), None).unwrap();
            assert!(refused(&paths, PATH).1.contains("it belongs to uid 65534"));
            std::os::unix::fs::chown(paths.guest_logs(), Some(65_534), None).unwrap();
            assert_eq!(open(&paths, PATH).unwrap().len(), 2, "who has the folder has all of it");
        }
    }

    #[test]
    fn where_all_logs_are_may_be_elsewhere_by_a_link() {
        let (root, paths, file) = host();
        fs::write(&file, "fine").unwrap();
        fs::rename(paths.below_root("/var/log"), root.path().join("data")).unwrap();
        std::os::unix::fs::symlink(root.path().join("data"), paths.below_root("/var/log")).unwrap();
        assert_eq!(open(&paths, PATH).unwrap().len(), 1);
    }

    #[test]
    fn a_log_is_read_over_its_older_files_and_on_while_it_grows_and_is_renamed() {
        let (_root, paths, file) = host();
        append(&older(&file, 1), "one ");
        append(&older(&file, 0), "two ");
        append(&file, "three ");
        let mut log = Log::new(open(&paths, PATH).unwrap()).unwrap();
        assert_eq!(rest(&log, 0), "one two three ");
        append(&file, "four ");
        assert_eq!(rest(&log, 14), "");
        log.grow(14).unwrap();
        assert_eq!(rest(&log, 14), "four ");

        append(&file, "five ");
        fs::rename(older(&file, 1), older(&file, 2)).unwrap();
        fs::rename(older(&file, 0), older(&file, 1)).unwrap();
        fs::rename(&file, older(&file, 0)).unwrap();
        assert_eq!(refused(&paths, PATH).0, Kind::Unknown, "the new one is not there yet");
        append(&file, "six");
        log.look(open(&paths, PATH).unwrap(), 19).unwrap();
        assert_eq!(rest(&log, 0), "one two three four five six");
        assert!(log.stream().parts().iter().all(|part| part.broken.is_none()));
    }

    #[test]
    fn a_removed_file_is_read_to_its_end_and_a_cut_one_from_its_beginning() {
        let (_root, paths, file) = host();
        append(&file, "before ");
        let mut log = Log::new(open(&paths, PATH).unwrap()).unwrap();
        let writer = fs::OpenOptions::new().append(true).open(&file).unwrap();
        fs::remove_file(&file).unwrap();
        std::io::Write::write_all(&mut &writer, b"unseen ").unwrap();
        log.grow(7).unwrap();
        assert_eq!(rest(&log, 0), "before unseen ");
        append(&file, "anew ");
        log.look(open(&paths, PATH).unwrap(), 14).unwrap();
        assert_eq!(rest(&log, 14), "anew ");
        assert_eq!(log.stream().part_at(14).unwrap().broken, Some(Break::Lost));

        fs::write(&file, "x").unwrap();
        log.grow(19).unwrap();
        assert_eq!((rest(&log, 19).as_str(), log.stream().end()), ("x", 20));
        assert_eq!(log.stream().part_at(19).unwrap().broken, Some(Break::Cut));
        append(&file, "y");
        log.look(open(&paths, PATH).unwrap(), 20).unwrap();
        assert_eq!(rest(&log, 19), "xy");
    }

    #[test]
    fn another_process_finds_the_position_in_the_renamed_file_and_not_in_one_made_anew() {
        let (_root, paths, file) = host();
        append(&file, "0123456789");
        let position = {
            let log = Log::new(open(&paths, PATH).unwrap()).unwrap();
            log.stream().position(10).unwrap()
        };
        append(&file, "abc");
        fs::rename(&file, older(&file, 0)).unwrap();
        append(&file, "def");
        let log = Log::new(open(&paths, PATH).unwrap()).unwrap();
        let Place::At(offset) = log.stream().find(&position) else { panic!() };
        assert_eq!(rest(&log, offset), "abcdef");

        fs::remove_file(older(&file, 0)).unwrap();
        fs::remove_file(&file).unwrap();
        append(&file, "0123456789abc");
        let log = Log::new(open(&paths, PATH).unwrap()).unwrap();
        assert_eq!(log.stream().find(&position), Place::Gone);
    }

    #[test]
    fn a_tail_begins_at_a_line() {
        let (_root, paths, file) = host();
        append(&older(&file, 0), "one\ntwo\nth");
        append(&file, "ree\nfour\n");
        let log = Log::new(open(&paths, PATH).unwrap()).unwrap();
        let tail = |most| rest(&log, log.tail(19, most).unwrap());
        for (most, text) in [
            (0, ""),
            (1, ""),
            (4, ""),
            (5, "four\n"),
            (6, "four\n"),
            (12, "three\nfour\n"),
            (18, "two\nthree\nfour\n"),
            (19, "one\ntwo\nthree\nfour\n"),
            (1000, "one\ntwo\nthree\nfour\n"),
        ] {
            assert_eq!(tail(most), text, "{most}");
        }
    }

    #[test]
    fn a_guests_own_logs_go_and_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        remove(&paths, &uuid).unwrap();
        fs::create_dir_all(paths.guest_logs()).unwrap();
        let ours = format!("console-proxy-{uuid}-serial-0.log");
        let others = [ours.replace("b50b", "b50c"), "g1.log".to_owned(), format!("{uuid}.log")];
        for name in [ours.clone(), format!("{ours}.0"), format!("{ours}.2")].iter().chain(&others) {
            fs::write(paths.guest_logs().join(name), "").unwrap();
        }
        remove(&paths, &uuid).unwrap();
        let mut left: Vec<_> = fs::read_dir(paths.guest_logs())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = others.to_vec();
        expected.sort();
        assert_eq!(left, expected);
    }
}
