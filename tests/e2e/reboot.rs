//! A reboot of the host, in two halves: e2e.sh runs the one, boots the host again, and runs the other.

use std::fs;
use std::time::Duration;

use crate::guard::display_ports;
use crate::host::{Guest, SOON, User, property, sh, state_of, try_sh, wait_until};
use crate::rights::{described, session};
use crate::ws::Session;

const NAMES: [&str; 3] = ["auto1", "auto2", "auto3"];
/// What was, for the second half.
const NOTES: &str = "/var/lib/e2e-before-reboot";

/// Displays are guarded from the boot on.
const GUARDED: &str = "/etc/console-proxy/console-proxy.toml.d/60-reboot.toml";

const COOKIE: &str = "/root/e2e-session-before-reboot";

/// What is to be the same after it.
fn ports_and_fingerprint() -> String {
    let ports: Vec<_> = NAMES.map(|name| kept(Guest::existing(name), Guest::port).to_string()).into();
    format!("{} {}", ports.join(" "), sh("console-proxy list --json | grep certificate"))
}

/// Guests that outlive this process.
fn kept<T>(guest: Guest, look: impl FnOnce(&Guest) -> T) -> T {
    let seen = look(&guest);
    std::mem::forget(guest);
    seen
}

#[test]
#[ignore = "the first half: e2e.sh runs it"]
fn before() {
    for name in NAMES {
        kept(Guest::define(name).with_vnc().with_pty_serial().with_autostart().started(), Guest::port);
    }
    let session = kept(Guest::existing(NAMES[0]), session);
    assert_eq!(kept(Guest::existing(NAMES[0]), |guest| described(guest.port(), &session).0), 200);
    fs::write(COOKIE, format!("{} {}", session.cookie, session.secret)).unwrap();
    // One that runs and is not started by itself.
    kept(Guest::define("manual").with_vnc().blank().started(), Guest::port);
    fs::write(NOTES, ports_and_fingerprint()).unwrap();
    sh(&format!("mkdir -p $(dirname {GUARDED}); printf '[guard]\\ndisplays = true\\n' >{GUARDED}"));
}

#[test]
#[ignore = "the second half: e2e.sh runs it"]
fn after() {
    wait_until("autostarted guests to listen", Duration::from_secs(60), || {
        NAMES.iter().all(|name| {
            try_sh(&format!("virsh domuuid {name}"))
                .is_ok_and(|uuid| state_of(&format!("console-proxy@{}.socket", uuid.trim())) == "active")
        })
    });
    assert_eq!(fs::read_to_string(NOTES).unwrap(), ports_and_fingerprint(), "the same ports, the same certificate");
    let guest = Guest::existing(NAMES[0]);
    guest.wait_to_boot();
    guest.open("serial/0").command("echo up $((40 + 2))", "up 42");
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    let session = fs::read_to_string(COOKIE).unwrap();
    let (cookie, secret) = session.split_once(' ').unwrap();
    let session = Session { cookie: cookie.to_owned(), secret: secret.to_owned() };
    assert_eq!(described(guest.port(), &session).0, 401, "a session does not outlive the host");
    std::mem::forget(guest);

    let user = User::in_groups("e2e-rebooted", "");
    for port in NAMES.map(|name| kept(Guest::existing(name), display_ports)).concat() {
        let reaches = |who: &str| try_sh(&format!("{who} bash -c 'echo </dev/tcp/127.0.0.1/{port}'")).is_ok();
        wait_until("the display to be guarded", SOON, || !reaches(&format!("runuser -u {} --", user.0)));
        assert!(reaches(""), "and there is one");
    }
    fs::remove_file(GUARDED).unwrap();
    sh("console-proxy publish --all");

    assert_eq!(state_of("console-proxy-guard.service"), "active");
    sh("nft list table inet console_proxy");
    let guard = property("console-proxy-guard.service", "ActiveEnterTimestampMonotonic").parse::<u64>().unwrap();
    let libvirtd = property("libvirtd.service", "ActiveEnterTimestampMonotonic").parse::<u64>().unwrap();
    assert!(guard < libvirtd, "the guard was there before libvirt's daemon");
    assert_eq!(sh("systemctl list-units --failed --no-legend --plain 'console-proxy*'"), "");
    let journal = sh("journalctl -b --no-pager");
    for complaint in ["ordering cycle", "console-proxy@.socket: Failed", "start-limit"] {
        assert!(!journal.contains(complaint), "{complaint}:\n{journal}");
    }
    let manual = Guest::existing("manual");
    assert_eq!(manual.listed(), None, "it was not started");
}
