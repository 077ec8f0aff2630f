//! What guests' proxies write: a folder for each guest, all in one small file system (console-proxy-state.service). Folders
//! of a proxy that was taken over may be of any depth and size: coreutils' programs walk through them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command;
use super::paths::Paths;
use crate::rules::guest::Uuid;

/// Of the file system a guest may have this part, where less than half of it is free. A guest's sessions, with as many as
/// there can be, are a sixteenth.
const SHARE: u64 = 8;
/// A file system of memory is quick.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether less than half is left of it: bytes, or files.
pub fn is_filling(paths: &Paths) -> Result<bool> {
    let about = rustix::fs::statvfs(paths.guest_states())?;
    Ok(about.f_bfree < about.f_blocks / 2 || about.f_ffree < about.f_files / 2)
}

/// The guests whose proxies have more of it than their share.
pub fn greedy(paths: &Paths) -> Result<Vec<Uuid>> {
    let about = rustix::fs::statvfs(paths.guest_states())?;
    let bytes = largest(paths, "--block-size=1", about.f_blocks * about.f_frsize / SHARE)?;
    let mut guests = largest(paths, "--inodes", about.f_files / SHARE)?;
    guests.extend(bytes);
    guests.sort();
    guests.dedup();
    Ok(guests)
}

/// Those that have more than so much, as `du` counts it.
fn largest(paths: &Paths, unit: &str, most: u64) -> Result<Vec<Uuid>> {
    let folder = paths.guest_states();
    let mut du = Command::new("du");
    du.args(["--one-file-system", "--max-depth=1", unit, "--"]).arg(&folder);
    // What goes while it looks is an error to it.
    let told = command::output(&mut du, b"", PATIENCE).context("cannot run du")?;
    let guest = |line: &str| {
        let (number, path) = line.split_once('\t')?;
        let is_large = number.parse::<u64>().ok()? > most;
        path.rsplit('/').next()?.parse::<Uuid>().ok().filter(|_| is_large)
    };
    Ok(String::from_utf8_lossy(&told.stdout).lines().filter_map(guest).collect())
}

/// Removes what is in a guest's folder.
pub fn empty(paths: &Paths, uuid: &Uuid) -> Result<()> {
    let mut find = Command::new("find");
    find.arg(paths.guest_state(uuid)).args(["-xdev", "-mindepth", "1", "-delete"]);
    run(&mut find, uuid)
}

/// Removes a guest's folder with all that is in it.
pub fn remove(paths: &Paths, uuid: &Uuid) -> Result<()> {
    let mut rm = Command::new("rm");
    rm.args(["--recursive", "--force", "--one-file-system", "--"]).arg(paths.guest_state(uuid));
    run(&mut rm, uuid)
}

fn run(program: &mut Command, uuid: &Uuid) -> Result<()> {
    let told = command::output(program, b"", PATIENCE).context("cannot remove what a proxy wrote")?;
    if !told.status.success() {
        bail!("what {uuid}'s proxy wrote cannot be removed: {}", String::from_utf8_lossy(&told.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn who_has_more_than_so_much_is_found_whatever_their_folders_hold_and_removed_whole() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let [small, large, deep] = [1, 2, 3].map(|n| format!("{n:08x}-0000-4000-8000-000000000000").parse().unwrap());
        for guest in [&small, &large, &deep] {
            fs::create_dir_all(paths.guest_state(guest)).unwrap();
        }
        fs::write(paths.guest_state(&large).join("file"), vec![1; 100_000]).unwrap();
        let nest = "cd \"$0\"; i=0; while [ $i -lt 1500 ]; do mkdir d; cd -P d; i=$((i + 1)); done";
        let status = Command::new("sh").args(["-c", nest]).arg(paths.guest_state(&deep)).status().unwrap();
        assert!(status.success());
        assert_eq!(largest(&paths, "--inodes", 1000).unwrap(), std::slice::from_ref(&deep));
        let found = largest(&paths, "--block-size=1", 90_000).unwrap();
        assert!(found.contains(&large) && !found.contains(&small), "{found:?}");
        for guest in [&small, &large, &deep] {
            empty(&paths, guest).unwrap();
            assert_eq!(fs::read_dir(paths.guest_state(guest)).unwrap().count(), 0);
            remove(&paths, guest).unwrap();
            assert!(!paths.guest_state(guest).exists());
        }
        remove(&paths, &small).unwrap();
    }
}
