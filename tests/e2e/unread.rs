//! A serial console that is held and not read freezes its guest's kernel at the next message (FACTS). Measured in the
//! guest: how long its kernel takes for messages while nobody looks, while a browser never reads, and while the proxy
//! itself is stopped.

use std::time::Duration;

use crate::host::{Guest, property, sh, wait_for};
use crate::ws::Ws;

/// Has the guest's kernel print messages to its serial port, some seconds from now; the time that takes will be on its
/// screen, in hundredths of a second, behind `word`.
fn print_soon(serial: &mut Ws, word: &str, messages: u32) {
    let now = "$(cut -d' ' -f1 /proc/uptime | tr -d .)";
    serial.command(
        &format!(
            "dmesg -n 8; (sleep 3; a={now}; for i in $(seq {messages}); do echo a message of the kernel >/dev/kmsg; done; \
             b={now}; echo {word}=$((b-a)), >/dev/tty1) & echo 'so''on'"
        ),
        "soon",
    );
}

fn wait_for_time(guest: &Guest, word: &str, limit: Duration) -> Duration {
    let word = format!("{word}=");
    let hundredths = wait_for(&format!("{word} on the guest's screen"), limit, || {
        let screen = guest.screen();
        let (_, rest) = screen.split_once(&word)?;
        rest.split_once(',')?.0.parse::<u64>().ok()
    });
    Duration::from_millis(hundredths * 10)
}

#[test]
fn a_browser_that_never_reads_and_a_stopped_proxy_do_not_freeze_the_guest() {
    let guest = Guest::define("chatty").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();

    let mut serial = guest.open("serial/0");
    print_soon(&mut serial, "ALONE", 300);
    drop(serial);
    let alone = wait_for_time(&guest, "ALONE", Duration::from_secs(60));

    // More than every buffer on the way to the client takes, so that it waits in the proxy.
    let mut serial = guest.open("serial/0");
    print_soon(&mut serial, "UNREAD", 300);
    let unread = wait_for_time(&guest, "UNREAD", Duration::from_secs(60));
    drop(serial);

    let mut serial = guest.open("serial/0");
    print_soon(&mut serial, "STOPPED", 300);
    let proxy = property(&guest.service(), "MainPID");
    sh(&format!("kill -STOP {proxy}"));
    let stopped = wait_for_time(&guest, "STOPPED", Duration::from_secs(60));

    println!("300 kernel messages: {alone:?} with nobody there, {unread:?} unread, {stopped:?} with a stopped proxy");
    assert!(unread < alone * 3 + Duration::from_secs(2), "unread {unread:?}, alone {alone:?}");
    assert!(stopped < Duration::from_secs(20), "the watchdog ends a stopped proxy after 10 s: {stopped:?}");
    assert_ne!(property(&guest.service(), "MainPID"), proxy);
    guest.open("serial/0").command("dmesg -n 1; echo still $((40 + 2))", "still 42");
}
