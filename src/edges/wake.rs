//! Being told at once that something in a folder has changed: what the administrator's tools leave for a proxy that runs.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// A watched folder. Its descriptor is read as a pipe is: what has changed is not asked, only that something has.
#[derive(Debug)]
pub struct Wake(Receiver);

impl Wake {
    /// Watches a folder for files that are renamed into place.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, folder, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        Receiver::from_owned_fd_unchecked(watch).map(Self)
    }

    /// Returns when something has changed since it was called last.
    pub async fn changed(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        let mut any = false;
        loop {
            match self.0.try_read(&mut events) {
                Ok(_) => any = true,
                Err(why) if why.kind() != io::ErrorKind::WouldBlock => return Err(why),
                Err(_) if any => return Ok(()),
                Err(_) => self.0.readable().await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::files;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_that_is_put_into_place_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let wake = Wake::new(folder.path()).unwrap();
        let never = || tokio::time::timeout(Duration::from_millis(50), wake.changed());
        assert!(never().await.is_err());
        for _ in 0..3 {
            files::replace(&folder.path().join("look"), b"", 0o644).unwrap();
        }
        wake.changed().await.unwrap();
        assert!(never().await.is_err());
    }
}
