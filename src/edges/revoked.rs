//! What an administrator has ended, in one file: written by `console-proxy kick` and `revoke`, read by proxies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::files;
use super::paths::Paths;
use super::publish::now_ms;
use crate::rules::revoked::{MOST, Order, Orders, Whose};

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// The orders as the file has them now.
#[derive(Debug)]
pub struct Watched {
    file: PathBuf,
    seen: Seen,
    failed: Option<Seen>,
    orders: Option<Orders>,
}

/// Inode and time of a file; `None`: there is none.
type Seen = Option<(u64, i64, i64)>;

impl Watched {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { file: paths.revoked(), seen: None, failed: None, orders: None }
    }

    /// Reads the file again if it is another one than last time. `None`: it has never been readable, so nobody knows
    /// what was ended.
    pub fn refresh(&mut self) -> Option<&Orders> {
        let seen = fs::metadata(&self.file).ok().map(|data| (data.ino(), data.mtime(), data.mtime_nsec()));
        if seen != self.seen || self.orders.is_none() {
            match read(&self.file) {
                Ok(orders) => {
                    self.orders = Some(orders);
                    self.seen = seen;
                }
                // Tried again at the next look: it may have been a lack of descriptors. Told once.
                Err(why) if self.failed != Some(seen) => {
                    let meanwhile =
                        if self.orders.is_some() { "what was known stays in force" } else { "nobody enters" };
                    tracing::error!("it cannot be read what was revoked, {meanwhile}: {why:#}");
                    self.failed = Some(seen);
                }
                Err(_) => {}
            }
        }
        self.orders.as_ref()
    }
}

fn read(file: &std::path::Path) -> Result<Orders> {
    let text = files::read(file, LARGEST).with_context(|| format!("cannot read {}", file.display()))?;
    let orders = text.map(|text| serde_json::from_str(&text)).transpose();
    Ok(orders.with_context(|| format!("{} is malformed", file.display()))?.unwrap_or_default())
}

/// Gives an order; those are forgotten that end nothing any more after `life`.
pub fn add(paths: &Paths, whose: Whose, life: Duration) -> Result<()> {
    let file = paths.revoked();
    let folder = file.parent().context("the file has a folder")?;
    // Proxies look into it.
    files::make_folder_of(&paths.state(), files::OPERATORS, paths)?;
    files::make_folder_of(folder, "console-proxy", paths)?;
    let _lock = files::lock(&folder.join("lock"), Duration::from_secs(5))
        .with_context(|| format!("cannot lock {}", folder.display()))?;
    let mut orders = read(&file)?;
    let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    if !orders.add(Order { at: now_ms(), whose }, life) {
        bail!("{} orders are in force, no more are kept: remove {} once nothing of it matters", MOST, file.display());
    }
    let text = serde_json::to_vec(&orders)?;
    files::replace(&file, &text, 0o644).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_seen_at_once_and_a_broken_file_ends_no_order() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut watched = Watched::new(&paths);
        assert_eq!(watched.refresh(), Some(&Orders::default()));
        for person in ["ann", "bob"] {
            add(&paths, Whose::Person(person.into()), Duration::from_secs(60)).unwrap();
        }
        let whose = |orders: &Orders| orders.orders.iter().map(|order| order.whose.clone()).collect::<Vec<_>>();
        assert_eq!(whose(watched.refresh().unwrap()), [Whose::Person("ann".into()), Whose::Person("bob".into())]);
        files::replace(&paths.revoked(), b"nonsense", 0o644).unwrap();
        assert_eq!(watched.refresh().unwrap().orders.len(), 2);
        let mut started_later = Watched::new(&paths);
        assert_eq!(started_later.refresh(), None, "it cannot know that nothing was revoked");
        files::replace(&paths.revoked(), br#"{"orders":[]}"#, 0o644).unwrap();
        assert_eq!(started_later.refresh(), Some(&Orders::default()));
        files::replace(&paths.revoked(), b"nonsense", 0o644).unwrap();
        assert!(add(&paths, Whose::Person("x".into()), Duration::ZERO).is_err(), "nothing is lost unseen");
    }
}
