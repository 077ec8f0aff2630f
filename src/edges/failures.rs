//! The counts of failed passwords: one file of the whole host, which lasts until it reboots.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use super::files;
use super::paths::Paths;
use crate::rules::failures::{Failures, Try};

const LARGEST: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts a try as a failure before anybody looks at it. The inner error is after how many seconds one would be.
pub fn begin(paths: &Paths, a_try: &Try<'_>) -> Result<Result<(), u64>> {
    change(paths, |failures, now| failures.begin(a_try, now))
}

/// Takes a try back: nothing could be found out.
pub fn take_back(paths: &Paths, a_try: &Try<'_>) -> Result<()> {
    change(paths, |failures, now| failures.take_back(a_try, now))
}

/// The try's password was right.
pub fn succeed(paths: &Paths, a_try: &Try<'_>) -> Result<()> {
    change(paths, |failures, now| failures.succeed(a_try, now))
}

fn change<T>(paths: &Paths, edit: impl FnOnce(&mut Failures, u64) -> T) -> Result<T> {
    let path = paths.failures();
    let lock = path.with_extension("lock");
    let _lock = files::lock(&lock, PATIENCE).with_context(|| format!("cannot lock {}", lock.display()))?;
    let text = files::read(&path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    let mut failures = match text.map(|text| serde_json::from_str::<Failures>(&text)) {
        Some(Ok(failures)) => failures,
        Some(Err(why)) => {
            tracing::error!("{} is damaged ({why}): failed passwords are counted anew", path.display());
            Failures::new(salt()?)
        }
        None => Failures::new(salt()?),
    };
    let before = failures.clone();
    let result = edit(&mut failures, now());
    if failures != before {
        let text = serde_json::to_vec(&failures)?;
        files::replace(&path, &text, 0o600).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(result)
}

fn salt() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("the kernel gave no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Seconds since the boot: nobody sets that clock.
fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::failures::MOST_OF_BOTH;

    fn host() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        files::make_folder(paths.failures().parent().unwrap(), 0o700).unwrap();
        (root, paths)
    }

    const ANN: Try<'_> = Try { user: "ann", from: "192.0.2.1", guest: "g1" };

    #[test]
    fn tries_at_once_are_counted_one_by_one() {
        let (_root, paths) = host();
        let tries: Vec<_> = (0..3 * MOST_OF_BOTH)
            .map(|_| {
                let paths = paths.clone();
                std::thread::spawn(move || begin(&paths, &ANN).unwrap().is_ok())
            })
            .collect();
        let looked_at = tries.into_iter().map(|one| one.join().unwrap()).filter(|ok| *ok).count();
        assert_eq!(looked_at, MOST_OF_BOTH as usize);
        take_back(&paths, &ANN).unwrap();
        begin(&paths, &ANN).unwrap().unwrap();
        begin(&paths, &ANN).unwrap().unwrap_err();
    }

    #[test]
    fn a_damaged_file_is_begun_anew_and_a_missing_folder_is_an_error() {
        let (root, paths) = host();
        std::fs::write(paths.failures(), "{").unwrap();
        begin(&paths, &ANN).unwrap().unwrap();
        succeed(&paths, &ANN).unwrap();
        std::fs::remove_dir_all(root.path().join("run")).unwrap();
        assert!(begin(&paths, &ANN).is_err(), "what cannot be counted is not looked at");
    }
}
