//! The guard: loopback ports of the serial range are for root alone, whatever becomes of nftables.

use std::net::TcpListener;
use std::time::Duration;

use crate::host::{SOON, User, sh, state_of, systemctl, try_sh, wait_for, wait_until};

/// In the serial range, and no guest's.
const PORT: u16 = 28_999;

fn is_guarded() -> bool {
    try_sh("nft list table inet console_proxy | grep -q 28000-28999").is_ok()
}

fn connects(who: &User) -> bool {
    who.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{PORT}'")).is_ok()
}

#[test]
fn an_ordinary_user_is_refused_in_the_serial_range_and_root_and_others_ports_are_not() {
    let user = User::in_groups("e2e-local", "libvirt");
    let (_inside, outside) =
        (TcpListener::bind(("127.0.0.1", PORT)).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    assert!(!connects(&user), "an ordinary user reaches port {PORT}");
    sh(&format!("echo </dev/tcp/127.0.0.1/{PORT}"));
    let other = outside.local_addr().unwrap().port();
    user.run(&format!("bash -c 'echo </dev/tcp/127.0.0.1/{other}'")).expect("other ports are none of its business");
    // And not by another way round.
    assert!(user.run(&format!("bash -c 'echo </dev/tcp/::1/{PORT}'")).is_err());
    assert!(user.run(&format!("bash -c 'echo </dev/tcp/127.9.9.9/{PORT}'")).is_err());
    let own = sh("hostname -I 2>/dev/null; true");
    for address in own.split_whitespace() {
        assert!(user.run(&format!("bash -c 'echo </dev/tcp/{address}/{PORT}'")).is_err(), "{address}");
    }
}

#[test]
fn the_guard_is_there_again_after_nftables_was_restarted_reloaded_stopped_and_started() {
    /// nftables is stopped on a host that came without it.
    struct Stopped;
    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = try_sh("systemctl stop nftables; systemctl restart console-proxy-guard");
        }
    }
    let _stopped = Stopped;
    systemctl("start nftables");
    wait_until("the guard after nftables' start", SOON, is_guarded);
    for verb in ["restart", "reload"] {
        systemctl(&format!("{verb} nftables"));
        wait_until(&format!("the guard after nftables' {verb}"), SOON, is_guarded);
    }
    systemctl("stop nftables");
    systemctl("start nftables");
    wait_until("the guard after nftables was stopped and started", SOON, is_guarded);
}

#[test]
fn after_a_flush_the_guard_is_back_with_the_next_sync() {
    let doctor = wait_for("a flush that no sync has made up for", SOON, || {
        sh("nft flush ruleset");
        try_sh("console-proxy doctor").err()
    });
    assert!(doctor.contains("FAULT   the guard is not in the kernel"), "{doctor}");
    assert_eq!(state_of("console-proxy-guard.service"), "active", "its unit knows nothing of it");
    sh("nft flush ruleset");
    // Whatever a guest does leaves a note; any note will do.
    sh("touch /run/console-proxy/queue/guard");
    wait_until("the guard", SOON, is_guarded);
}

#[test]
fn stopping_nftables_does_not_take_the_guard_away_for_longer_than_it_takes_to_load_it() {
    sh("systemctl start nftables; systemctl stop nftables");
    wait_until("the guard", Duration::from_secs(15), || {
        sh("touch /run/console-proxy/queue/guard");
        is_guarded()
    });
}
