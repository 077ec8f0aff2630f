//! The issuers' public keys: a file each, read again when the folder or a file in it changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files;
use crate::rules::ticket::{Issuer, Issuers, is_issuer_name};

/// The issuers in force.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
    issuers: Issuers,
}

/// A file as it was when it was read.
#[derive(Clone, Debug)]
struct Seen {
    /// Time of the last change (contents, owner or mode), inode, size.
    stamp: (i64, i64, u64, u64),
    issuer: Option<(String, Issuer)>,
}

impl Folder {
    /// Reads a folder. A file that cannot be read counts as absent, and is told.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let mut folder = Self { path: path.to_owned(), seen: BTreeMap::new(), issuers: Issuers::new() };
        folder.refresh();
        folder
    }

    /// The issuers as the folder has them now. A file is read, and what is wrong with it told, once for each change.
    pub fn refresh(&mut self) -> &Issuers {
        let there = self.look();
        let is_same = |(file, stamp): (&PathBuf, &(i64, i64, u64, u64))| {
            self.seen.get(file).is_some_and(|seen| seen.stamp == *stamp)
        };
        if there.len() != self.seen.len() || !there.iter().all(is_same) {
            let mut before = std::mem::take(&mut self.seen);
            let now = |(file, stamp): (PathBuf, _)| {
                let known = before.remove(&file).filter(|seen| seen.stamp == stamp);
                let seen = known.unwrap_or_else(|| Seen { stamp, issuer: read(&file) });
                (file, seen)
            };
            self.seen = there.into_iter().map(now).collect();
            self.issuers = self.seen.values().filter_map(|seen| seen.issuer.clone()).collect();
        }
        &self.issuers
    }

    /// The files whose tickets do not count, because something is wrong with them.
    pub fn refused(&self) -> impl Iterator<Item = &Path> {
        self.seen.iter().filter(|(_, seen)| seen.issuer.is_none()).map(|(file, _)| file.as_path())
    }

    fn look(&self) -> BTreeMap<PathBuf, (i64, i64, u64, u64)> {
        let Ok(entries) = fs::read_dir(&self.path) else { return BTreeMap::new() };
        let files =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml"));
        let stamped = files.map(|path| {
            let data = fs::metadata(&path).ok();
            let stamp = data.map(|data| (data.ctime(), data.ctime_nsec(), data.ino(), data.size()));
            (path, stamp.unwrap_or_default())
        });
        stamped.collect()
    }
}

fn read(file: &Path) -> Option<(String, Issuer)> {
    let name = file.file_stem()?.to_str().filter(|name| is_issuer_name(name))?.to_owned();
    let text = files::read(file, 64 << 10)
        .map_err(|why| why.to_string())
        .and_then(|text| text.ok_or_else(|| "it has gone".to_owned()));
    match text.and_then(|text| toml::from_str(&text).map_err(|why| why.to_string())) {
        Ok(issuer) => Some((name, issuer)),
        Err(why) => {
            tracing::error!("{} is refused, its tickets do not count: {}", file.display(), why.trim_end());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::journal;

    #[test]
    fn a_new_key_counts_at_once_and_a_bad_file_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut issuers = Folder::load(folder.path());
        assert!(issuers.refresh().is_empty());
        let key = "A".repeat(43);
        fs::write(folder.path().join("host.toml"), format!("public-key = \"{key}\"")).unwrap();
        fs::write(folder.path().join("bad.toml"), "public-key = 1").unwrap();
        fs::write(folder.path().join("README"), "text").unwrap();
        assert_eq!(issuers.refresh().keys().collect::<Vec<_>>(), ["host"]);
        assert_eq!(issuers.refused().collect::<Vec<_>>(), [folder.path().join("bad.toml")]);
        fs::remove_file(folder.path().join("host.toml")).unwrap();
        assert!(issuers.refresh().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_once_and_a_file_that_did_not_change_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let key = "A".repeat(43);
        fs::write(folder.path().join("bad.toml"), "public-key = 1").unwrap();
        let (_guard, told) = journal::kept();
        let lines = || told().iter().filter(|line| line.contains("bad.toml is refused")).count();
        let mut issuers = Folder::load(folder.path());
        for _ in 0..3 {
            issuers.refresh();
        }
        fs::write(folder.path().join("host.toml"), format!("public-key = \"{key}\"")).unwrap();
        assert_eq!(issuers.refresh().len(), 1);
        assert_eq!(lines(), 1, "another file changed");
        fs::write(folder.path().join("bad.toml"), "public-key = 12").unwrap();
        issuers.refresh();
        assert_eq!(lines(), 2, "it changed");
        // By another name: a file that is renamed into place keeps its time of change of contents.
        fs::write(folder.path().join("new"), format!("public-key = \"{key}\"")).unwrap();
        fs::rename(folder.path().join("new"), folder.path().join("bad.toml")).unwrap();
        assert_eq!(issuers.refresh().len(), 2);
        assert_eq!(lines(), 2);
    }
}
