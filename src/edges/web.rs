//! The folders of files that browsers get: the page's, and those of other people's clients. They belong to
//! packages and administrators; what is in them is for everybody, and nothing outside them is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::rules::web::Encoding;

/// The most bytes that a file may have. Each connection may have one on its way, and nobody has shown a right yet:
/// the most connections there are by default (64) must have room in a proxy's memory (512 MiB).
pub const LARGEST: u64 = 4 << 20;

/// Reads a file below a folder in the first of these encodings that it is there in; `None` where it is in none.
///
/// Distributions keep a client's libraries elsewhere and link to them: a link is followed where it ends below the
/// folder itself or below `shared`, which is /usr, and what it leads to elsewhere is not there.
pub fn read(folder: &Path, shared: &Path, file: &str, wanted: &[Encoding]) -> io::Result<Option<(Encoding, Vec<u8>)>> {
    for encoding in wanted {
        if let Some(bytes) = read_one(folder, shared, &format!("{file}{}", encoding.suffix()))? {
            return Ok(Some((*encoding, bytes)));
        }
    }
    Ok(None)
}

fn read_one(folder: &Path, shared: &Path, file: &str) -> io::Result<Option<Vec<u8>>> {
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
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(LARGEST)).unwrap_or(0));
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {LARGEST} bytes")));
    }
    Ok(Some(bytes))
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
        let read = |wanted: &[Encoding]| read(folder.path(), Path::new("/usr"), "a.js", wanted).unwrap();
        let all = [Encoding::Brotli, Encoding::Gzip, Encoding::Identity];
        assert_eq!(read(&all), Some((Encoding::Gzip, b"packed".to_vec())));
        assert_eq!(read(PLAIN), Some((Encoding::Identity, b"plain".to_vec())));
        assert_eq!(read(&[Encoding::Brotli]), None);
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
        let read = |file: &str| read(&folder, &shared, file, PLAIN).map(|found| found.map(|(_, bytes)| bytes));
        assert_eq!(read("own/file").unwrap(), Some(b"client".to_vec()));
        assert_eq!(read("shared/file").unwrap(), Some(b"usr".to_vec()));
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
        let read = |name: &str| read(folder.path(), Path::new("/usr"), name, PLAIN);
        assert_eq!(read("large").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read("pipe").unwrap(), None);
        file.set_len(LARGEST).unwrap();
        assert_eq!(read("large").unwrap().unwrap().1.len() as u64, LARGEST);
    }
}
