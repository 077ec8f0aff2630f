//! What a serial port said before anybody looked: its log, as the one source of all that its viewers
//! see. What is shown live is read from the log, too, so that past and present meet without a seam.
//! Offsets are those of the hub's ring.

use std::cell::{Cell, RefCell};
use std::io;

use crate::edges::logs::{Log, Numbered};
use crate::rules::history::{Break, Place, Position, Stream};

/// A log that is being read.
#[derive(Debug)]
pub struct Past {
    log: RefCell<Log>,
    read: Cell<u64>,
    live: Cell<Option<Live>>,
}

/// The log was given up: from here on the stream is what the port itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// From this offset on.
    pub from: u64,
    /// Bytes before it that neither has.
    pub missing: u64,
}

/// What stands between two bytes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Something is missing.
    Broken(Break),
    /// From here on the port is shown itself.
    Live(Live),
}

impl Past {
    /// Begins at the end of what is there: what comes then is live.
    pub fn new(files: Vec<Numbered>) -> io::Result<Self> {
        let log = Log::new(files)?;
        let read = log.stream().end();
        Ok(Self { log: RefCell::new(log), read: Cell::new(read), live: Cell::new(None) })
    }

    /// Up to where the log was read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Reads on; 0 bytes where the log has not grown. Never over the end of a file.
    pub fn read_on(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut log = self.log.borrow_mut();
        let read = self.read.get();
        if read >= log.stream().end() {
            log.grow(read)?;
        }
        let n = log.read(read, bytes)?;
        if n == 0 && read < log.stream().end() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "what it had is no longer in it"));
        }
        self.read.set(read + n as u64);
        Ok(n)
    }

    /// Takes over the log's files, opened anew.
    pub fn look(&self, files: Vec<Numbered>) -> io::Result<()> {
        self.log.borrow_mut().look(files, self.read.get())
    }

    /// Gives the log up; `missing` bytes are in neither.
    pub fn give_up(&self, missing: u64) {
        self.live.set(Some(Live { from: self.read.get(), missing }));
    }

    /// Since when the port is shown itself.
    #[must_use]
    pub fn live(&self) -> Option<Live> {
        self.live.get()
    }

    /// Reads what a viewer wants that is older than the ring, before `until`; how much of it is missing,
    /// and the bytes.
    pub fn read_old(&self, cursor: u64, until: u64, bytes: &mut [u8]) -> (u64, usize) {
        let log = self.log.borrow();
        let most = usize::try_from(until - cursor).unwrap_or(usize::MAX).min(bytes.len());
        match log.read(cursor, &mut bytes[..most]) {
            Ok(n @ 1..) => (0, n),
            // Cut since it was looked at, or rotated away: on with what comes after it.
            _ => (log.stream().part_after(cursor).map_or(until, |part| part.start.min(until)) - cursor, 0),
        }
    }

    /// Where a viewer begins who wants the last `most` bytes.
    #[must_use]
    pub fn tail(&self, most: u64) -> u64 {
        let read = self.read.get();
        self.log.borrow().tail(read, most).unwrap_or(read)
    }

    /// The offset of the oldest byte that is kept.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.log.borrow().stream().start()
    }

    /// Where a position lies.
    #[must_use]
    pub fn find(&self, position: &Position) -> Place {
        self.log.borrow().stream().find(position)
    }

    /// How an offset is told to a viewer, and from where on it would be told otherwise: the next file
    /// begins there. `None` where the port is shown itself.
    #[must_use]
    pub fn position(&self, offset: u64) -> Option<Position> {
        if self.live.get().is_some_and(|live| offset >= live.from) {
            return None;
        }
        self.log.borrow().stream().position(offset)
    }

    /// The file that an offset is counted from, by the offset of its first byte.
    #[must_use]
    pub fn file(&self, offset: u64) -> Option<u64> {
        if self.live.get().is_some_and(|live| offset >= live.from) {
            return None;
        }
        self.log.borrow().stream().part_at(offset).map(|part| part.start)
    }

    /// What stands right before the byte at `offset`, and the offset of the next such place.
    #[must_use]
    pub fn marks(&self, offset: u64) -> (Option<Mark>, u64) {
        let log = self.log.borrow();
        let broken = |stream: &Stream| {
            let at = stream.parts().iter().filter(|part| part.start == offset).find_map(|part| part.broken);
            let next = stream.parts().iter().find(|part| part.start > offset && part.broken.is_some());
            (at.map(Mark::Broken), next.map_or(u64::MAX, |part| part.start))
        };
        let (mut mark, mut next) = broken(log.stream());
        match self.live.get() {
            Some(live) if live.from == offset => (mark, next) = (Some(Mark::Live(live)), u64::MAX),
            Some(live) if live.from > offset => next = next.min(live.from),
            _ => {}
        }
        (mark, next)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;
    use crate::edges::logs;
    use crate::edges::paths::Paths;
    use crate::rules::log::older;

    const GUEST: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
    const LOG: &str = "/var/log/libvirt/qemu/b50bdc9f-490b-4b9b-8641-7573c0eba77c.log";

    fn host(words: &str) -> (tempfile::TempDir, Paths, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let file = paths.below_root(LOG);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        append(&file, words);
        (root, paths, file)
    }

    fn append(file: &std::path::Path, words: &str) {
        OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(words.as_bytes()).unwrap();
    }

    fn cut(file: &std::path::Path, length: u64) {
        OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
    }

    #[test]
    fn an_older_file_that_was_cut_before_it_was_read_is_an_error_and_its_end_is_missing_to_who_reads_it_later() {
        let (_root, paths, file) = host("abc");
        let past = Past::new(logs::open(&paths, &GUEST.parse().unwrap(), LOG).unwrap()).unwrap();
        append(&file, "defgh");
        let renamed = PathBuf::from(older(file.to_str().unwrap(), 0));
        fs::rename(&file, &renamed).unwrap();
        append(&file, "now");
        past.look(logs::open(&paths, &GUEST.parse().unwrap(), LOG).unwrap()).unwrap();
        cut(&renamed, 3);
        let mut bytes = [0; 10];
        assert_eq!(past.read_on(&mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!((past.read_old(0, 11, &mut bytes), &bytes[..3]), ((0, 3), &b"abc"[..]));
        assert_eq!(past.read_old(3, 11, &mut bytes), (5, 0), "the rest of that file");
        assert_eq!((past.read_old(8, 11, &mut bytes), &bytes[..3]), ((0, 3), &b"now"[..]));
        assert_eq!(past.read_old(1, 2, &mut bytes), (0, 1), "never beyond what was asked for");
    }

    #[test]
    fn marks_stand_where_something_is_missing_and_where_the_log_was_given_up() {
        let (_root, paths, file) = host("abc");
        let past = Past::new(logs::open(&paths, &GUEST.parse().unwrap(), LOG).unwrap()).unwrap();
        assert_eq!(past.marks(0), (None, u64::MAX));
        cut(&file, 0);
        append(&file, "xy");
        let mut bytes = [0; 10];
        assert_eq!(past.read_on(&mut bytes).unwrap(), 2);
        past.give_up(7);
        let live = Live { from: 5, missing: 7 };
        assert_eq!(past.marks(0), (None, 3));
        assert_eq!(past.marks(3), (Some(Mark::Broken(Break::Cut)), 5));
        assert_eq!(past.marks(4), (None, 5));
        assert_eq!(past.marks(5), (Some(Mark::Live(live)), u64::MAX));
        assert_eq!(past.marks(6), (None, u64::MAX));
        assert!(past.position(4).is_some() && past.position(5).is_none());
    }
}
