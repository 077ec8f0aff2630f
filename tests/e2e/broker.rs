//! The broker comes and goes, and what is open stays.

use std::time::Duration;

use crate::host::{Guest, SOON, exists, property, sh, state_of, systemctl, try_sh, wait_for, wait_until};
use crate::ws::Refused;

const SERVICE: &str = "console-proxy-broker.service";

/// libvirt's lock of the guest's terminal.
fn lock_of(guest: &Guest) -> String {
    format!("/var/lock/LCK..{}", guest.pty().trim_start_matches("/dev").replace('/', "_"))
}

fn broker() -> String {
    property(SERVICE, "MainPID")
}

#[test]
fn an_open_terminal_outlives_the_brokers_restart_and_its_death_and_stays_locked() {
    let guest = Guest::define("lasting").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let mut serial = guest.open("serial/0");
    serial.command("echo first $((40 + 2))", "first 42");
    let (lock, proxy) = (lock_of(&guest), property(&guest.service(), "MainPID"));
    assert_eq!(sh(&format!("tr -d ' ' <{lock}")), proxy);

    for (n, end) in ["systemctl restart console-proxy-broker.service", "kill -KILL PID"].iter().enumerate() {
        let before = broker();
        sh(&end.replace("PID", &before));
        wait_until("another broker", SOON, || state_of(SERVICE) == "active" && broker() != before);
        serial.command(&format!("echo after $((40 + {n}))"), &format!("after {}", 40 + n));
        let virsh = format!("script -qefc 'virsh console {} --force' /dev/null </dev/null", guest.name);
        let busy = try_sh(&virsh).unwrap_err();
        assert!(busy.contains("held by process"), "after {end}: {busy}");
        // The same channel, asked of the new one.
        guest.open("vnc").read_until("RFB 003.008\n", SOON);
        assert_eq!(sh(&format!("tr -d ' ' <{lock}")), proxy, "after {end}");
        assert_eq!(property(&guest.service(), "MainPID"), proxy, "after {end}");
    }
    drop(serial);
    wait_until("the lock to be given back to the broker that never took it", SOON, || !exists(&lock));
    let mut again = guest.open("serial/0");
    again.command("echo again $((40 + 2))", "again 42");
    drop(again);
    systemctl(&format!("stop {}", guest.service()));
    wait_until("systemd to keep no channel", SOON, || property(SERVICE, "NFileDescriptorStore") == "0");
}

#[test]
fn a_stopped_broker_leaves_what_is_open_and_the_next_client_gets_a_proxy_with_a_new_channel() {
    let guest = Guest::define("orphan").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let mut serial = guest.open("serial/0");
    serial.command("echo first $((40 + 2))", "first 42");
    let proxy = property(&guest.service(), "MainPID");
    systemctl(&format!("stop {SERVICE}"));
    // Another guest's client has it started again, but this guest's proxy cannot reach it.
    let other = Guest::define("no-orphan").with_vnc().blank().started();
    other.open("vnc").read_until("RFB 003.008\n", SOON);
    serial.command("echo then $((40 + 3))", "then 43");
    match guest.try_open("vnc") {
        Err(Refused::Status(status, words)) => {
            assert!(status == 502 && words.contains("close what is open of this guest"), "{status} {words}");
        }
        other => panic!("{:?}", other.err()),
    }
    drop(serial);
    wait_until("the proxy to end with its last session", SOON, || property(&guest.service(), "MainPID") != proxy);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    let mut again =
        wait_for("the terminal's lock to be stale", Duration::from_secs(15), || guest.try_open("serial/0").ok());
    again.command("echo again $((40 + 4))", "again 44");
}
