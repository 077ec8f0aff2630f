//! Keeps room in the file system of what proxies write: one that takes most of it is ended, and what it wrote is removed.

use std::time::{Duration, Instant};

use super::channel::UnderWay;
use crate::edges::paths::Paths;
use crate::edges::{proxy_files, units};

/// Between two looks, while a proxy runs.
const APART: Duration = Duration::from_secs(2);
/// Likewise where one was just ended: the next client starts another one for that guest.
const CLOSELY: Duration = Duration::from_millis(100);
/// So long.
const A_WHILE: Duration = Duration::from_secs(60);

/// Looks, for as long as the broker runs.
pub(super) fn keep(paths: &Paths, channels: &UnderWay) {
    let mut found: Option<Instant> = None;
    loop {
        let closely = found.is_some_and(|found| found.elapsed() < A_WHILE);
        std::thread::sleep(if closely { CLOSELY } else { APART });
        if !channels.any() || !proxy_files::is_filling(paths).unwrap_or(false) {
            continue;
        }
        let greedy = proxy_files::greedy(paths).unwrap_or_else(|why| {
            tracing::error!("{}: cannot find out who fills it: {why:#}", paths.guest_states().display());
            Vec::new()
        });
        for guest in greedy {
            found = Some(Instant::now());
            tracing::error!(
                guest = %guest,
                "the proxy of {guest} fills {}: its unit is killed, and its sessions end", paths.guest_states().display()
            );
            let service = units::service_of(&guest);
            if let Err(why) = units::kill(&service) {
                tracing::warn!("{service} cannot be killed: {why:#}");
            }
            if let Err(why) = proxy_files::empty(paths, &guest) {
                tracing::error!("{why:#}");
            }
        }
    }
}
