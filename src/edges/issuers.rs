//! The issuers' public keys: a file each, read again when the folder or a file in it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files;
use crate::rules::ticket::{Issuer, Issuers, is_issuer_name};

/// The issuers in force.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
    issuers: Issuers,
}

impl Folder {
    /// Reads a folder. A file that cannot be read counts as absent, and is told.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let mut folder = Self { path: path.to_owned(), seen: Vec::new(), issuers: Issuers::new() };
        folder.refresh();
        folder
    }

    /// The issuers as the folder has them now.
    pub fn refresh(&mut self) -> &Issuers {
        let seen = self.look();
        if seen != self.seen || seen.is_empty() {
            self.issuers = seen.iter().filter_map(|(file, ..)| read(file)).collect();
            self.seen = seen;
        }
        &self.issuers
    }

    fn look(&self) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let files =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml"));
        let mut seen: Vec<_> = files
            .map(|path| {
                let data = fs::metadata(&path).ok();
                let changed = data.as_ref().and_then(|data| data.modified().ok());
                (path, changed, data.map_or(0, |data| std::os::unix::fs::MetadataExt::ino(&data)))
            })
            .collect();
        seen.sort();
        seen
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
        fs::remove_file(folder.path().join("host.toml")).unwrap();
        assert!(issuers.refresh().is_empty());
    }
}
