//! What goes wrong on a real host, one thing at a time: the guest is never hurt, and its consoles come back.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::host::{
    Configured, Guest, Replaced, SOON, exists, journal_cursor, journal_since, property, restart_libvirtd, sh, state_of,
    systemctl, try_sh, virsh, wait_for, wait_until,
};
use crate::ws::Ws;

#[test]
fn a_session_goes_on_while_libvirtd_is_restarted_and_the_port_stays() {
    let guest = Guest::define("steady").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let (mut serial, mut vnc) = (guest.open("serial/0"), guest.open("vnc"));
    let proxy = property(&guest.service(), "MainPID");
    restart_libvirtd();
    serial.command("echo still $((40 + 2))", "still 42");
    vnc.read_until("RFB 003.008\n", SOON);
    assert_eq!((guest.port(), property(&guest.service(), "MainPID")), (port, proxy));
    guest.open("serial/0").read_until("still 42", SOON);
}

#[test]
fn a_guest_that_is_saved_and_restored_keeps_its_port_and_its_shell() {
    let guest = Guest::define("sleeper").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let mut serial = guest.open("serial/0");
    serial.command("kept=$((6 * 7)); echo is $kept", "is 42");
    virsh("managedsave sleeper");
    assert_eq!(serial.wait_for_close(SOON), (1001, "the guest has stopped".to_owned()));
    wait_until("the socket to be gone", SOON, || state_of(&guest.socket()) == "inactive");
    guest.start();
    assert_eq!(guest.port(), port);
    guest.open("serial/0").command("echo was $kept", "was 42");
}

#[test]
fn with_a_broken_configuration_guests_start_and_one_is_told_where_it_is_broken() {
    let guest = Guest::define("misled").with_vnc().with_pty_serial().done();
    {
        let _broken = Configured::with("[proxy]\nidle-timeout = \"2s\"\n[listen]\nprots = \"23000-23999\"\n");
        let before = journal_cursor();
        guest.start();
        assert_eq!(guest.state(), "running");
        let said = try_sh("console-proxy check-config").unwrap_err();
        assert!(said.contains("50-e2e.toml") && said.contains("line 4, column 1") && said.contains("prots"), "{said}");
        let journal = journal_since(&before);
        assert!(journal.contains("misled: the guest runs on") && journal.contains("50-e2e.toml"), "{journal}");
        assert!(try_sh("console-proxy list").unwrap_err().contains("50-e2e.toml"));
    }
    sh("console-proxy check-config");
    assert_eq!(guest.listed(), None, "nothing has told of the repair yet");
    sh("console-proxy publish misled");
    guest.port();
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_client_that_waits_for_a_proxy_that_cannot_start_is_served_after_the_repair() {
    let guest = Guest::define("patient").with_vnc().started();
    let (port, ticket) = (guest.port(), guest.ticket());
    let gone = Replaced::removed("/usr/sbin/console-proxyd");
    let client = std::thread::spawn(move || Ws::connect(port, "/vnc", &ticket));
    // One start a second, as the unit says: never "too often".
    wait_until("a few vain starts", Duration::from_secs(15), || {
        property(&guest.service(), "NRestarts").parse::<u32>().unwrap_or(0) >= 6
    });
    assert_eq!(state_of(&guest.socket()), "active");
    assert!(!client.is_finished());
    drop(gone);
    let mut vnc = client.join().unwrap().expect("it is served");
    vnc.read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_port_that_another_program_holds_is_kept_shown_and_retried_until_it_is_free() {
    let guest = Guest::define("blocked").with_vnc().started();
    let port = guest.port();
    guest.destroy();
    wait_until("the port to be free", SOON, || state_of(&guest.socket()) == "inactive");

    let holder = TcpListener::bind(("0.0.0.0", port)).unwrap();
    guest.start();
    let shown =
        wait_for("list to show the reason", SOON, || guest.listed().filter(|shown| shown["reason"].is_string()));
    assert_eq!(shown["state"], "failed");
    assert_eq!(shown["port"], port, "the guest keeps its port");
    let reason = format!("port {port} is held by e2e (pid {})", std::process::id());
    assert!(shown["reason"].as_str().unwrap().contains(&reason), "{shown}");
    assert!(sh("console-proxy list").contains(&reason));
    assert!(try_sh("console-proxy doctor").unwrap_err().contains(&port.to_string()));
    assert_eq!(guest.state(), "running");
    drop(holder);
    wait_until("the retry", Duration::from_secs(25), || state_of(&guest.socket()) == "active");
    assert_eq!(guest.port(), port);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    wait_until("the reason to go", SOON, || guest.listed().unwrap()["reason"].is_null());
}

#[test]
fn a_stopped_target_shuts_all_consoles_and_a_new_guests_too_until_it_is_started() {
    let first = Guest::define("first").with_vnc().started();
    first.port();
    let mut vnc = first.open("vnc");
    vnc.read_until("RFB 003.008\n", SOON);
    systemctl("stop console-proxy.target");
    assert_eq!(vnc.wait_for_close(SOON).0, 1001);
    let second = Guest::define("second").with_vnc().started();
    wait_until("the second to be shown", SOON, || second.listed().is_some_and(|shown| !shown["reason"].is_null()));
    for guest in [&first, &second] {
        assert_eq!(state_of(&guest.socket()), "inactive", "{}", guest.name);
        assert_eq!(state_of(&guest.service()), "inactive", "{}", guest.name);
    }
    let reason = second.listed().unwrap()["reason"].to_string();
    assert!(reason.contains("console-proxy.target is stopped"), "{reason}");
    systemctl("start console-proxy.target");
    for guest in [&first, &second] {
        guest.port();
        guest.open("vnc").read_until("RFB 003.008\n", SOON);
    }
}

#[test]
fn the_hook_does_without_its_runtime_folders() {
    sh("rm -rf /run/console-proxy/queue /run/console-proxy/guests /run/console-proxy/wire");
    let guest = Guest::define("homeless").with_vnc().started();
    guest.port();
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    guest.destroy();
    wait_until("the socket to be gone", SOON, || state_of(&guest.socket()) == "inactive");
    sh("systemd-tmpfiles --create console-proxy.conf");
}

#[test]
fn with_a_full_runtime_folder_guests_start_and_are_published_later() {
    /// No room for one more route. (Only this folder: systemd watches the notes', and a watch knows no mounts.)
    struct Full;
    impl Full {
        fn guests() -> Self {
            sh("mount -t tmpfs -o size=64k,nr_inodes=1,mode=755 full /run/console-proxy/guests");
            Self
        }
    }
    impl Drop for Full {
        fn drop(&mut self) {
            sh("umount /run/console-proxy/guests");
        }
    }
    let guest = Guest::define("crowded").with_vnc().with_pty_serial().done();
    let full = Full::guests();
    let before = journal_cursor();
    guest.start();
    assert_eq!(guest.state(), "running");
    let journal = journal_since(&before);
    assert!(journal.contains("crowded: the guest runs on") && journal.contains("No space left"), "{journal}");
    guest.destroy();
    guest.start();
    drop(full);
    assert_eq!(guest.listed(), None);
    sh("console-proxy publish --all");
    guest.port();
}

/// Calls the installed hook file as libvirt does.
fn call_hook(guest: &Guest, operation: &str, xml: &str) -> String {
    let mut hook = Command::new("/etc/libvirt/hooks/qemu.d/console-proxy");
    hook.args([&guest.name, operation, "end", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut hook = hook.spawn().unwrap();
    hook.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let output = hook.wait_with_output().unwrap();
    assert!(output.status.success(), "{operation}: {}", output.status);
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn release_without_started_and_started_without_release_do_no_harm() {
    let guest = Guest::define("twice").with_vnc().done();
    let before = journal_cursor();
    assert_eq!(call_hook(&guest, "release", &guest.xml()), "");
    assert_eq!(call_hook(&guest, "stopped", &guest.xml()), "");
    assert_eq!(guest.listed(), None);
    assert!(!journal_since(&before).contains("the guest runs on"));

    guest.start();
    let port = guest.port();
    assert_eq!(call_hook(&guest, "started", &guest.xml()), "", "a second time");
    assert_eq!(call_hook(&guest, "reconnect", &guest.xml()), "");
    assert_eq!(guest.port(), port);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_guest_whose_qemu_is_killed_is_closed_like_any_other() {
    let guest = Guest::define("crashed").with_vnc().with_pty_serial().started();
    guest.port();
    let mut serial = guest.open("serial/0");
    sh(&format!("kill -KILL {}", guest.pid()));
    assert_eq!(serial.wait_for_close(SOON), (1001, "the guest has stopped".to_owned()));
    wait_until("the socket to be gone", SOON, || state_of(&guest.socket()) == "inactive");
    assert!(!exists(&format!("/run/console-proxy/guests/{}/route.toml", guest.uuid())));
}

#[test]
fn a_damaged_route_ends_nothing_opens_nothing_of_its_guest_and_publish_mends_it() {
    let (bad, good) = (Guest::define("damaged").with_vnc().started(), Guest::define("sound").with_vnc().started());
    let (port, ticket) = (bad.port(), bad.ticket());
    good.port();
    let mut open = bad.open("vnc");
    open.read_until("RFB 003.008\n", SOON);
    let before = journal_cursor();
    fs::write(format!("/run/console-proxy/guests/{}/route.toml", bad.uuid()), "version = 1\nuuid = nonsense").unwrap();
    systemctl("start console-proxy-sync");
    assert!(journal_since(&before).contains("route.toml"));
    let Err(refused) = Ws::connect(port, "/vnc", &ticket) else { panic!("something was opened by it") };
    println!("{} {}", refused.status(), refused.words());
    assert!(refused.status() >= 500, "{}", refused.words());
    open.send(b"RFB 003.008\n");
    assert!(open.next(SOON).unwrap().is_some(), "what was open goes on");
    assert_eq!(state_of(&bad.socket()), "active");
    assert_eq!(state_of(&good.socket()), "active");
    good.open("vnc").read_until("RFB 003.008\n", SOON);
    sh("console-proxy publish damaged");
    bad.port();
    bad.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_state_folder_that_is_missing_is_made_for_a_guest_that_listens_already() {
    let guest = Guest::define("without-state").with_vnc().blank().started();
    guest.port();
    let folder = format!("/run/console-proxy/state/{}", guest.uuid());
    sh(&format!("rm -rf {folder}"));
    systemctl("start console-proxy-sync");
    assert_eq!(sh(&format!("stat -c '%a %U:%G' {folder}")), "2771 root:console-proxy");
    let mut open = guest.open("vnc");
    open.read_until("RFB 003.008\n", SOON);
    wait_until("its proxy to write there", SOON, || exists(&format!("{folder}/live.json")));
}
