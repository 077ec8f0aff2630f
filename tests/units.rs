//! What can be said of the units without a running systemd; the rest is in the end-to-end suite.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("units")
}

/// The last line of `systemd-analyze security` says "Overall exposure level for UNIT: 0.4 SAFE".
fn exposure(unit: &str) -> f64 {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager"])
        .arg(units().join(unit))
        .output()
        .expect("systemd-analyze is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let level = text.rsplit_once(".service: ").and_then(|(_, end)| end.split_whitespace().next());
    level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{unit}: no exposure level in {text}"))
}

#[test]
fn a_proxy_is_exposed_to_at_most_0_6_and_the_broker_to_at_most_3() {
    for (unit, most) in [
        ("console-proxy@.service", 0.6),
        ("console-proxy-broker.service", 3.0),
        // It may look into every process, to name the one that holds a guest's port.
        ("console-proxy-sync.service", 3.4),
        ("console-proxy-wire.service", 3.0),
        ("console-proxy-wire-again.service", 3.0),
        ("console-proxy-keys.service", 3.0),
        ("console-proxy-guard.service", 3.0),
        ("console-proxy-ssh@.service", 0.6),
        ("console-proxy-prune.service", 2.0),
        // Root, with what PAM's modules need.
        ("console-proxy-auth@.service", 2.0),
    ] {
        let level = exposure(unit);
        assert!(level <= most, "{unit}: {level} is more than {most}");
    }
}

#[test]
fn sockets_of_proxies_carry_the_mark_that_the_guard_refuses() {
    let socket = fs::read_to_string(units().join("console-proxy@.socket")).unwrap();
    let line = format!("\nMark={}\n", console_proxy::edges::nft::HANDED_OUT);
    assert!(socket.contains(&line), "console-proxy@.socket has no {}", line.trim());
}

#[test]
fn a_proxy_may_shut_itself_in_and_never_listens() {
    let text = fs::read_to_string(units().join("console-proxy@.service")).unwrap();
    let calls = |kind: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(kind)).flat_map(str::split_whitespace).collect()
    };
    let (allowed, refused) = (calls("SystemCallFilter="), calls("SystemCallFilter=~"));
    for call in ["bind", "listen", "io_uring_setup", "io_uring_enter", "io_uring_register", "pidfd_getfd"] {
        assert!(refused.contains(&call), "{call} is not refused");
    }
    for call in ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"] {
        assert!(allowed.contains(&call) && !refused.contains(&call), "{call} is not allowed");
    }
}

/// Each of these was missing once, in somebody's unit, and left a socket or path dead for good.
#[test]
fn no_unit_is_ever_refused_as_started_too_often() {
    for file in fs::read_dir(units()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let needed: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
            Some("service") => &["\nStartLimitIntervalSec=0\n"],
            Some("socket" | "path") => &["\nTriggerLimitIntervalSec=0\n"],
            _ => &[],
        };
        for line in needed {
            assert!(text.contains(line), "{name} has no {}", line.trim());
        }
    }
    let proxy = fs::read_to_string(units().join("console-proxy@.service")).unwrap();
    for line in ["\nRestart=on-failure\n", "\nRestartSec=1\n", "\nPartOf=console-proxy@%i.socket\n"] {
        assert!(proxy.contains(line), "console-proxy@.service has no {}", line.trim());
    }
    let socket = fs::read_to_string(units().join("console-proxy@.socket")).unwrap();
    assert!(!socket.contains("\nFlushPending=yes"), "a client that waits would be lost");
}
