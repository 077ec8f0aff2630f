//! The files in which libvirt's log daemon keeps what serial ports say: opened for reading, and removed
//! with their guest. Which file is whose is in [`crate::rules::log`].

use std::fs;
use std::io;

use super::paths::Paths;
use crate::rules::guest::Uuid;
use crate::rules::log::OurLog;

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
