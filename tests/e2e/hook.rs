//! The hook file under a real libvirtd: whatever becomes of its binary, guests start, run and survive libvirtd's restart.

use std::time::{Duration, Instant};

use crate::host::{Guest, Replaced, journal_cursor, journal_since, restart_libvirtd, virsh};

const BINARY: &str = "/usr/sbin/console-proxy-hook";

/// A whole life of a guest, libvirtd's restart in the middle of it.
fn a_guest_lives_its_life(limit: Duration) {
    let begun = Instant::now();
    let guest = Guest::define("hooked").with_pty_serial().with_vnc().started();
    let pid = guest.pid();
    restart_libvirtd();
    // Answered when it has the guest again: a destroy before that comes between.
    virsh("qemu-monitor-command hooked --hmp info status");
    assert_eq!(guest.state(), "running", "after libvirtd's restart");
    assert_eq!(guest.pid(), pid, "it is still the same process");
    guest.destroy();
    assert_eq!(guest.state(), "shut off");
    assert!(begun.elapsed() < limit, "it took {:?}", begun.elapsed());
}

#[test]
fn libvirt_calls_the_hook_and_a_guest_lives() {
    let calls = tempfile::NamedTempFile::new().unwrap();
    let path = calls.path().display();
    let _fake = Replaced::by_script(BINARY, &format!("#!/bin/sh\ncat >/dev/null\necho \"$2\" >>{path}\n"));
    a_guest_lives_its_life(Duration::from_secs(30));
    let calls = std::fs::read_to_string(calls.path()).unwrap();
    assert_eq!(calls.lines().collect::<Vec<_>>(), ["prepare", "start", "started", "reconnect", "stopped", "release"]);
}

#[test]
fn without_its_binary_guests_live() {
    let _gone = Replaced::removed(BINARY);
    a_guest_lives_its_life(Duration::from_secs(30));
}

#[test]
fn with_a_binary_whose_interpreter_is_missing_guests_live() {
    let _broken = Replaced::by_script(BINARY, "#!/nonexistent\n");
    a_guest_lives_its_life(Duration::from_secs(30));
}

#[test]
fn with_a_binary_that_crashes_guests_live() {
    let _broken = Replaced::by_script(BINARY, "#!/bin/sh\nkill -SEGV $$\n");
    a_guest_lives_its_life(Duration::from_secs(30));
}

#[test]
fn with_a_binary_that_is_killed_guests_live() {
    let _broken = Replaced::by_script(BINARY, "#!/bin/sh\nkill -KILL $$\n");
    a_guest_lives_its_life(Duration::from_secs(30));
}

#[test]
fn with_a_binary_that_stops_guests_live_and_wait_five_seconds_a_step() {
    let _broken = Replaced::by_script(BINARY, "#!/bin/sh\nkill -STOP $$\n");
    a_guest_lives_its_life(Duration::from_secs(6 * 5 + 30));
}

#[test]
fn with_a_binary_that_fails_and_chatters_guests_live_and_libvirt_logs_nothing_of_it() {
    let before = journal_cursor();
    let _broken = Replaced::by_script(BINARY, "#!/bin/sh\necho '<nonsense/>'; echo chatter >&2; exit 1\n");
    a_guest_lives_its_life(Duration::from_secs(30));
    let said = journal_since(&before);
    assert!(!said.contains("chatter") && !said.contains("hook script execution failed"), "{said}");
}

#[test]
fn a_broken_filter_does_not_keep_a_saved_guest_from_being_restored() {
    for script in ["#!/bin/sh\nprintf '<domain>'; kill -SEGV $$\n", "#!/bin/sh\necho '<domain'; exit 1\n"] {
        let _broken = Replaced::by_script(BINARY, script);
        let guest = Guest::define("saved").with_pty_serial().with_vnc().started();
        virsh("managedsave saved");
        assert_eq!(guest.state(), "shut off");
        guest.start();
        assert_eq!(guest.state(), "running", "with {script:?}");
    }
}
