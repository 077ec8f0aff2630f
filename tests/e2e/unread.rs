//! A serial console that is held and not read freezes its guest's kernel at the next message (FACTS). Measured in the
//! guest: how long its kernel takes for messages while nobody looks, while a browser never reads, and while the proxy
//! itself is stopped.

use std::time::Duration;

use serde_json::Value;

use crate::host::{
    Configured, Guest, SOON, journal_cursor, journal_since, property, sh, systemctl, wait_for, wait_until,
};
use crate::hostile::TakenOver;
use crate::ws::Ws;

/// Enough for every buffer on the way to a client that takes nothing: the proxy's socket alone keeps some 400 KB.
const MESSAGES: u32 = 16_000;

/// Has the guest's kernel print messages to its serial port, in two seconds; the time that takes will be on its
/// screen, in hundredths of a second, behind `word`.
fn print_soon(serial: &mut Ws, word: &str) {
    print_in(2, serial, word);
}

/// The same, so many seconds from now.
fn print_in(seconds: u32, serial: &mut Ws, word: &str) {
    let now = "$(cut -d' ' -f1 /proc/uptime | tr -d .)";
    let print = format!("for i in $(seq {MESSAGES}); do echo a message of the kernel >/dev/kmsg; done");
    // Otherwise the kernel takes ten messages in five seconds from programs.
    serial.command("echo on >/proc/sys/kernel/printk_devkmsg; dmesg -n 8; echo 'lo''ud'", "loud");
    serial.command(
        &format!("(sleep {seconds}; a={now}; {print}; b={now}; echo {word}=$((b-a)), >/dev/tty1) & echo 'so''on'"),
        "soon",
    );
}

fn wait_for_time(guest: &Guest, word: &str) -> Duration {
    let word = format!("{word}=");
    let hundredths = wait_for(&format!("{word} on the guest's screen"), Duration::from_secs(90), || {
        let screen = guest.screen();
        let (_, rest) = screen.split_once(&word)?;
        rest.split_once(',')?.0.parse::<u64>().ok()
    });
    Duration::from_millis(hundredths * 10)
}

/// The kernel keeps little for a connection; its own limit is megabytes.
struct SmallBuffers(String);

const WMEM: &str = "/proc/sys/net/ipv4/tcp_wmem";

impl SmallBuffers {
    fn for_sending() -> Self {
        let usual = std::fs::read_to_string(WMEM).unwrap();
        std::fs::write(WMEM, "4096 16384 65536").unwrap();
        Self(usual)
    }
}

impl Drop for SmallBuffers {
    fn drop(&mut self) {
        std::fs::write(WMEM, &self.0).unwrap();
    }
}

#[test]
fn a_browser_that_never_reads_and_a_stopped_proxy_do_not_freeze_the_guest() {
    let _small = (Configured::with("[proxy]\nserial-buffer = 4096\n"), SmallBuffers::for_sending());
    let guest = Guest::define("chatty").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();

    let mut serial = guest.open("serial/0");
    print_soon(&mut serial, "ALONE");
    drop(serial);
    let alone = wait_for_time(&guest, "ALONE");

    let mut serial = Ws::connect_narrow(port, "/serial/0", &guest.ticket()).unwrap();
    print_soon(&mut serial, "UNREAD");
    let unread = wait_for_time(&guest, "UNREAD");
    let dropped = wait_for("the gap in status", SOON, || {
        let shown: Value = serde_json::from_str(&sh("console-proxy status chatty --json")).unwrap();
        shown["sessions"][0]["bytes-dropped"].as_u64().filter(|bytes| *bytes > 0)
    });
    // What is left of it is shown with its gap.
    serial.read_until(" bytes were dropped here]", SOON);
    drop(serial);

    let mut serial = guest.open("serial/0");
    print_soon(&mut serial, "STOPPED");
    let proxy = property(&guest.service(), "MainPID");
    sh(&format!("kill -STOP {proxy}"));
    let stopped = wait_for_time(&guest, "STOPPED");

    println!(
        "{MESSAGES} kernel messages took {alone:?} with nobody there, {unread:?} with a client that never reads ({dropped} \
         bytes dropped), {stopped:?} with a stopped proxy"
    );
    assert!(unread < alone * 3 + Duration::from_secs(2), "unread {unread:?}, alone {alone:?}");
    assert!(stopped < alone * 3 + Duration::from_secs(15), "the watchdog ends a stopped proxy after 10 s: {stopped:?}");
    assert_ne!(property(&guest.service(), "MainPID"), proxy, "the stopped proxy was ended");
    guest.open("serial/0").command("dmesg -n 1; echo still $((40 + 2))", "still 42");
}

#[test]
fn a_guest_that_says_yes_without_end_leaves_its_port_usable_for_all_who_look() {
    let guest = Guest::define("yes").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let mut ann = guest.open("serial/0");
    // One who takes nothing must not be felt by the others.
    let _deaf = Ws::connect_narrow(guest.port(), "/serial/0", &guest.ticket()).unwrap();
    // In the background: this shell has no terminal of its own that a ^C would go to.
    ann.send(b"yes the guest talks &\n");
    for _ in 0..100 {
        ann.read_until("the guest talks\r\n", SOON);
    }
    let mut bob = guest.open("serial/0");
    bob.read_until("the guest talks\r\n", SOON);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    bob.command("kill $!; echo 'bob sto''pped it'", "bob stopped it");
    ann.read_until("bob stopped it", SOON);
}

/// A proxy that was taken over: it answers its watchdog, reads a byte now and then, and where it can it says that it has
/// given the port back.
#[test]
fn a_proxy_that_answers_its_watchdog_and_does_not_read_is_ended_and_the_guest_goes_on() {
    let _small = SmallBuffers::for_sending();
    let victim = Guest::define("looking-on").with_vnc().with_pty_serial().blank().started();
    let guests = [
        ("a terminal", Guest::define("held-pty").with_vnc().with_pty_serial(), "no"),
        ("a terminal that was given back", Guest::define("held-back").with_vnc().with_pty_serial(), "yes"),
        ("a terminal that others are kept out of", Guest::define("held-shut").with_vnc().with_pty_serial(), "shut"),
        ("a port on loopback", Guest::define("held-tcp").with_vnc().with_tcp_serial(24_478), "no"),
        ("a unix socket", Guest::define("held-unix").with_vnc().with_unix_serial("/run/e2e-held.sock"), "no"),
    ];
    for (what, guest, gives_back) in guests {
        let guest = guest.started();
        guest.wait_to_boot();
        guest.port();
        let mut serial = guest.open("serial/0");
        print_soon(&mut serial, "ALONE");
        drop(serial);
        let alone = wait_for_time(&guest, "ALONE");
        let mut serial = guest.open("serial/0");
        print_in(8, &mut serial, "HELD");
        drop(serial);
        systemctl(&format!("stop {}", guest.service()));
        let before = journal_cursor();
        let taken = TakenOver::proxy_with(&guest, "deaf", &victim, &format!("GIVES_BACK={gives_back}"));
        let _client = taken.runs();
        let is_killed = || property(&guest.service(), "Result") == "signal";
        if gives_back == "shut" {
            wait_until("the hostile proxy to be killed", Duration::from_secs(60), is_killed);
            let program = format!(
                "import fcntl, os, termios; fcntl.ioctl(os.open('{}', os.O_RDWR | os.O_NOCTTY), termios.TIOCNXCL)",
                guest.pty()
            );
            sh(&format!("python3 -c \"{program}\""));
        }
        let held = wait_for_time(&guest, "HELD");
        println!("{what}: {MESSAGES} kernel messages took {alone:?} with a reader, {held:?} with a deaf one");
        // It was held, and for no longer than it takes to be sure of that, and to tell the system manager.
        assert!(
            held > Duration::from_secs(5) && held < alone * 3 + Duration::from_secs(30),
            "{what}: {held:?}, alone {alone:?}"
        );
        wait_until("the hostile proxy to be killed", SOON, is_killed);
        let journal = journal_since(&before);
        let words = format!("the proxy of {} holds serial/0 and does not read it", guest.uuid());
        assert!(journal.contains(&words) && !journal.contains("Watchdog timeout"), "{what}: {journal}");
    }
}
