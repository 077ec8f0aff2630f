//! The folders of files that browsers get: the page's, and those of other people's clients. They belong to
//! packages and administrators; what is in them is for everybody, and nothing outside them is.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use crate::rules::web::{Encoding, etag};

/// The most bytes that a file may have.
pub const LARGEST: u64 = 4 << 20;

/// The most bytes of files that are kept though nobody reads them at the moment.
const KEPT: usize = 8 << 20;
/// The most files that are remembered.
const REMEMBERED: usize = 1000;

/// A file's content, in one of its encodings.
#[derive(Clone, Debug)]
pub struct Content {
    /// Which one.
    pub encoding: Encoding,
    /// Its tag.
    pub tag: String,
    /// Its bytes: one copy for all who get them.
    pub bytes: Bytes,
}

/// Files as they were read last. Whoever asks needs no right: a file is read and hashed once, however often it is asked
/// for, and is in memory once, however many take it slowly.
#[derive(Debug, Default)]
pub struct Shelf {
    known: RefCell<HashMap<PathBuf, Known>>,
    kept: RefCell<VecDeque<Arc<Vec<u8>>>>,
}

#[derive(Debug)]
struct Known {
    /// Device, inode, time of the last change with nanoseconds, and length.
    seen: (u64, u64, i64, i64, u64),
    tag: String,
    bytes: Weak<Vec<u8>>,
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Shelf {
    /// Reads a file below a folder in the first of these encodings that it is there in; `None` where it is in none.
    ///
    /// Distributions keep a client's libraries elsewhere and link to them: a link is followed where it ends below the
    /// folder itself or below `shared`, which is /usr, and what it leads to elsewhere is not there.
    pub fn read(&self, folder: &Path, shared: &Path, file: &str, wanted: &[Encoding]) -> io::Result<Option<Content>> {
        for encoding in wanted {
            if let Some((path, file)) = open(folder, shared, &format!("{file}{}", encoding.suffix()))? {
                let (tag, bytes) = self.content(path, file)?;
                return Ok(Some(Content { encoding: *encoding, tag, bytes }));
            }
        }
        Ok(None)
    }

    fn content(&self, path: PathBuf, file: File) -> io::Result<(String, Bytes)> {
        let about = file.metadata()?;
        let seen = (about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.len());
        let known = self
            .known
            .borrow()
            .get(&path)
            .filter(|known| known.seen == seen)
            .and_then(|known| Some((known.tag.clone(), known.bytes.upgrade()?)));
        if let Some((tag, bytes)) = known {
            return Ok((tag, Bytes::from_owner(Shared(bytes))));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(LARGEST)).unwrap_or(0));
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {LARGEST} bytes")));
        }
        let (tag, bytes) = (etag(&bytes), Arc::new(bytes));
        let mut all = self.known.borrow_mut();
        if all.len() >= REMEMBERED {
            all.retain(|_, known| known.bytes.strong_count() > 0);
        }
        all.insert(path, Known { seen, tag: tag.clone(), bytes: Arc::downgrade(&bytes) });
        self.keep(bytes.clone());
        Ok((tag, Bytes::from_owner(Shared(bytes))))
    }

    fn keep(&self, bytes: Arc<Vec<u8>>) {
        let mut kept = self.kept.borrow_mut();
        kept.push_back(bytes);
        while kept.iter().map(|bytes| bytes.len()).sum::<usize>() > KEPT || kept.len() > REMEMBERED {
            kept.pop_front();
        }
    }
}

/// Opens a file, with its path behind all links.
fn open(folder: &Path, shared: &Path, file: &str) -> io::Result<Option<(PathBuf, File)>> {
    let absent = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        _ => Err(why),
    };
    let path = match fs::canonicalize(folder.join(file)) {
        Ok(path) => path,
        Err(why) => return absent(why),
    };
    let within = |folder: &Path| fs::canonicalize(folder).is_ok_and(|folder| path.starts_with(folder));
    if !within(folder) && !within(shared) {
        return Ok(None);
    }
    // Nothing is waited for, not even at a FIFO.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(why) => return absent(why.into()),
    };
    Ok(file.metadata()?.is_file().then_some((path, file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const PLAIN: &[Encoding] = &[Encoding::Identity];

    #[test]
    fn a_file_is_read_in_the_first_encoding_that_it_is_there_in() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.js"), "plain").unwrap();
        fs::write(folder.path().join("a.js.gz"), "packed").unwrap();
        let read = |wanted: &[Encoding]| {
            let found = Shelf::default().read(folder.path(), Path::new("/usr"), "a.js", wanted).unwrap();
            found.map(|content| (content.encoding, content.bytes))
        };
        let all = [Encoding::Brotli, Encoding::Gzip, Encoding::Identity];
        assert_eq!(read(&all), Some((Encoding::Gzip, "packed".into())));
        assert_eq!(read(PLAIN), Some((Encoding::Identity, "plain".into())));
        assert_eq!(read(&[Encoding::Brotli]), None);
    }

    #[test]
    fn a_file_is_in_memory_once_for_all_and_read_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (shelf, path) = (Shelf::default(), folder.path().join("a.js"));
        let read = || shelf.read(folder.path(), Path::new("/usr"), "a.js", PLAIN).unwrap().unwrap();
        fs::write(&path, "one").unwrap();
        let (first, second) = (read(), read());
        assert_eq!(first.bytes.as_ptr(), second.bytes.as_ptr());
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let third = read();
        assert_eq!((&first.bytes[..], &third.bytes[..]), (&b"one"[..], &b"two"[..]));
        assert_ne!(first.tag, third.tag);
    }

    #[test]
    fn what_nobody_reads_is_kept_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::default();
        for n in 0..6 {
            fs::write(folder.path().join(n.to_string()), vec![n; LARGEST as usize / 2]).unwrap();
            shelf.read(folder.path(), Path::new("/usr"), &n.to_string(), PLAIN).unwrap().unwrap();
        }
        let alive = shelf.known.borrow().values().filter(|known| known.bytes.strong_count() > 0).count();
        assert_eq!(alive, 4, "8 MiB of the 12");
    }

    #[test]
    fn links_are_followed_within_the_folder_and_to_what_is_shared_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let (folder, shared, secret) =
            (root.path().join("client"), root.path().join("usr"), root.path().join("client-secret"));
        for path in [&folder, &shared, &secret] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        for (name, target) in [("own", &folder), ("shared", &shared), ("out", &secret), ("up", &root.path().to_owned())]
        {
            symlink(target, folder.join(name)).unwrap();
        }
        symlink(secret.join("file"), folder.join("out.js")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        let shelf = Shelf::default();
        let read =
            |file: &str| shelf.read(&folder, &shared, file, PLAIN).map(|found| found.map(|content| content.bytes));
        assert_eq!(read("own/file").unwrap(), Some("client".into()));
        assert_eq!(read("shared/file").unwrap(), Some("usr".into()));
        for file in ["out/file", "out.js", "up/client-secret/file", "../client-secret/file", "own", "none", "file/x"] {
            assert_eq!(read(file).unwrap(), None, "{file}");
        }
        assert!(read("loop").is_err());
    }

    #[test]
    fn what_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("large")).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let shelf = Shelf::default();
        let read = |name: &str| shelf.read(folder.path(), Path::new("/usr"), name, PLAIN);
        assert_eq!(read("large").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read("pipe").unwrap().is_none());
        file.set_len(LARGEST).unwrap();
        assert_eq!(read("large").unwrap().unwrap().bytes.len() as u64, LARGEST);
    }
}
