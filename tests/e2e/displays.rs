//! Displays without a port, which libvirt alone connects to: real guests, opened through the broker as any other.

use std::time::Duration;

use crate::host::{Guest, Running, SOON, property, sh, systemctl, try_sh, virsh, wait_until};
use crate::spice::{MAIN, has_all_channels, log_in};
use crate::view::{Viewer, take};
use crate::ws::Ws;

/// libvirt's daemon, stopped and not to be woken by its sockets; back at the end of a test.
struct WithoutLibvirt;

impl WithoutLibvirt {
    fn stop() -> Self {
        systemctl("stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service");
        Self
    }
}

impl Drop for WithoutLibvirt {
    fn drop(&mut self) {
        systemctl("start libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket");
        wait_until("libvirtd to answer", Duration::from_secs(60), || try_sh("virsh list").is_ok());
    }
}

/// A QEMU that does not answer; it goes on at the end of a test.
struct Hung(u32);

impl Hung {
    fn qemu_of(guest: &Guest) -> Self {
        let pid = guest.pid();
        sh(&format!("kill -STOP {pid}"));
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = try_sh(&format!("kill -CONT {}", self.0));
    }
}

#[test]
fn vnc_that_listens_nowhere_or_at_a_unix_socket_is_bridged_and_seen() {
    for display in ["vnc-none", "vnc-socket"] {
        let guest = Guest::define(display).with_display(display).with_pty_serial().started();
        guest.wait_to_boot();
        let shown = guest.listed().unwrap();
        assert_eq!(shown["consoles"][0]["console"], "vnc", "{shown}");
        assert!(sh("console-proxy list").contains("vnc (bridged), serial/0 (pty)"));
        let doctor = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
        assert!(doctor.lines().any(|line| line.contains(&format!("{display}: port"))), "{doctor}");

        let mut control = Viewer::connect(&guest, "", true);
        let mut looking = Viewer::connect(&guest, "--view", true);
        assert!(property(&guest.service(), "StatusText").contains("2 on vnc (1 view only)"));
        let before = looking.pixels();
        assert!(before.iter().any(|byte| *byte != before[0]), "there is something on the screen");
        looking.types("expr 86420864 / 4\n");
        control.types("expr 86420864 / 2\n");
        wait_until("the command to run", SOON, || guest.screen().contains("43210432"));
        assert_eq!(guest.screen().matches("expr").count(), 1, "what was typed before did nothing");
        assert_ne!(looking.pixels(), before, "who looks on sees what the other did");
        guest.destroy();
        let (code, words) = control.ws.wait_for_close(SOON);
        assert_eq!((code, words.as_str()), (1001, "the guest has stopped"), "{display}");
    }
}

#[test]
fn spice_that_listens_nowhere_or_at_a_unix_socket_has_all_of_its_channels() {
    for display in ["spice-none", "spice-socket"] {
        let guest = Guest::define(display).with_display(display).started();
        has_all_channels(&guest, "bridged");
    }
}

#[test]
fn a_displays_own_password_is_asked_for_though_libvirt_made_the_connection() {
    let guest = Guest::define("with-password").with_password("secret12").with_display("vnc-none");
    let guest = guest.with_display("spice-none").blank().started();
    let mut vnc = guest.open("vnc");
    assert_eq!(take(&mut vnc, 12), b"RFB 003.008\n");
    vnc.send(b"RFB 003.008\n");
    assert_eq!(take(&mut vnc, 2), [1, 2], "one security type: VncAuth");
    let mut spice = guest.open("spice");
    assert_eq!(log_in(&mut spice, 0, MAIN), 7, "SPICE_LINK_ERR_PERMISSION_DENIED");
}

#[test]
fn without_libvirt_a_client_hears_so_and_is_served_when_it_is_back() {
    let guest = Guest::define("no-libvirt").with_display("vnc-none").blank().started();
    let (port, ticket) = (guest.port(), guest.ticket());
    let mut open = Ws::connect(port, "/vnc", &ticket).unwrap();
    open.read_until("RFB 003.008\n", SOON);
    let without = WithoutLibvirt::stop();
    let refused = Ws::connect(port, "/vnc", &ticket).unwrap_err();
    assert_eq!(refused.status(), 502, "{refused:?}");
    assert!(refused.words().contains("cannot connect to libvirt"), "{refused:?}");
    open.send(b"RFB 003.008\n");
    assert_eq!(take(&mut open, 2), [1, 1], "who was connected stays so");
    drop(without);
    Ws::connect(port, "/vnc", &ticket).unwrap().read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_hung_guests_display_is_silent_in_words_and_keeps_nobody_elses_waiting() {
    let hung = Guest::define("hung").with_display("vnc-none").with_pty_serial().blank().started();
    let other = Guest::define("lively").with_display("vnc-none").blank().started();
    let (port, ticket) = (hung.port(), hung.ticket());
    other.port();
    let stopped = Hung::qemu_of(&hung);
    let begin = || {
        std::thread::spawn({
            let ticket = ticket.clone();
            move || Ws::connect(port, "/vnc", &ticket).unwrap_err()
        })
    };
    let waiting: Vec<_> = (0..3).map(|_| begin()).collect();
    // While they wait: another guest's display, and this guest's own terminal.
    other.open("vnc").read_until("RFB 003.008\n", SOON);
    hung.open("serial/0");
    assert!(waiting.iter().all(|thread| !thread.is_finished()), "those still wait");
    let refused: Vec<_> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(refused.iter().all(|why| why.status() == 504), "{refused:?}");
    assert_eq!(refused.iter().filter(|why| why.words().contains("did not connect within")).count(), 1, "{refused:?}");
    assert_eq!(refused.iter().filter(|why| why.words().contains("asked for before")).count(), 2, "{refused:?}");
    // However often somebody tries: one worker of libvirt's daemon waits for this guest.
    assert_eq!(sh("pgrep -fc 'console-proxy display'"), "1");
    other.open("vnc").read_until("RFB 003.008\n", SOON);
    drop(stopped);
    wait_until("the call that hung to end", SOON, || try_sh("pgrep -f 'console-proxy display'").is_err());
    hung.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_paused_guests_display_is_opened_and_one_whose_job_lasts_is_silent_in_words() {
    let guest = Guest::define("paused").with_display("vnc-socket").blank().started();
    virsh("suspend paused");
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    virsh("resume paused");
    // A job that lasts: QEMU does not answer what `suspend` asks of it.
    let (port, ticket) = (guest.port(), guest.ticket());
    let stopped = Hung::qemu_of(&guest);
    let _suspending = Running::sh("virsh suspend paused");
    wait_until("the job", SOON, || virsh("domcontrol paused").contains("occupied"));
    let refused = Ws::connect(port, "/vnc", &ticket).unwrap_err();
    assert_eq!(refused.status(), 504, "{refused:?}");
    assert!(refused.words().contains("another job has the guest"), "{refused:?}");
    drop(stopped);
    wait_until("the display", SOON, || Ws::connect(port, "/vnc", &ticket).is_ok());
}
