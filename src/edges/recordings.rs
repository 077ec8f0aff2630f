//! Recordings of text consoles: where they lie, how one begins, which ones are kept, and their lines.
//!
//! A folder for each guest, root's own: proxies are handed an open file and see neither folder nor name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::files;
use super::paths::Paths;
use crate::rules::config::Record;
use crate::rules::guest::{Console, Uuid};
use crate::rules::recording::{Kept, expired, file_name};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 16 << 20;
/// How often another name is tried where two recordings begin in one second.
const TRIES: u32 = 99;

/// Makes a file for a recording that begins now: new, for appending alone, 0640 whatever the umask.
pub fn create(paths: &Paths, guest: &Uuid, name: &str, console: Console, now: u64) -> io::Result<File> {
    let folder = paths.recordings().join(guest.as_str());
    files::make_folder(&paths.recordings(), 0o750)?;
    files::make_folder(&folder, 0o750)?;
    for turn in 1..=TRIES {
        let path = folder.join(file_name(name, console, now, turn));
        match OpenOptions::new().append(true).create_new(true).mode(0o640).open(&path) {
            Ok(file) => {
                file.set_permissions(fs::Permissions::from_mode(0o640))?;
                return Ok(file);
            }
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many recordings began in one second"))
}

/// Removes the recordings of one guest that are kept no longer; returns which.
pub fn prune_guest(paths: &Paths, guest: &Uuid, record: &Record, now: SystemTime) -> io::Result<Vec<PathBuf>> {
    let folder = paths.recordings().join(guest.as_str());
    let entries = match fs::read_dir(&folder) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut kept = Vec::new();
    for entry in entries.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        if let (true, Ok(name)) = (data.is_file(), entry.file_name().into_string()) {
            let age = data.modified().ok().and_then(|changed| now.duration_since(changed).ok());
            kept.push(Kept { name, bytes: data.len(), age: age.unwrap_or(Duration::ZERO) });
        }
    }
    let mut removed = Vec::new();
    for name in expired(kept, record) {
        let path = folder.join(name);
        if files::remove(&path)? {
            removed.push(path);
        }
    }
    // Only where it is empty.
    let _ = fs::remove_dir(&folder);
    Ok(removed)
}

/// The same for every guest that has some, whether it still exists or not.
pub fn prune(paths: &Paths, record: &Record, now: SystemTime) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(paths.recordings()) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let guests = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut removed = Vec::new();
    for guest in guests {
        removed.extend(prune_guest(paths, &guest, record, now)?);
    }
    Ok(removed)
}

/// A line of a recording.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// With its newline, which is taken off.
    Whole(String),
    /// The last one, where that has none.
    Last(String),
}

/// The lines of a recording, as they come. What is no UTF-8 in the last one is replaced: it was cut there.
pub fn lines(source: impl Read) -> impl Iterator<Item = io::Result<Line>> {
    let mut source = BufReader::new(source);
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let line = next_line(&mut source);
        ended = !matches!(line, Ok(Some(Line::Whole(_))));
        line.transpose()
    })
}

fn next_line(source: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    source.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        let text = String::from_utf8(bytes);
        return text.map(|text| Some(Line::Whole(text))).map_err(|_| io::Error::other("it is not UTF-8"));
    }
    if bytes.len() as u64 == LONGEST_LINE {
        return Err(io::Error::other("the line is too long for one of a recording"));
    }
    Ok(Some(Line::Last(String::from_utf8_lossy(&bytes).into_owned())))
}
