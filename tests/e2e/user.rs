//! What a user does, and sees: from a started guest to its shell in a websocket, and back to nothing.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::host::{
    Configured, Guest, Running, SOON, User, exists, journal_cursor, journal_since, property, sh, state_of, try_sh,
    virsh, wait_for, wait_until,
};
use crate::ws::{Ws, served_fingerprint};

#[test]
fn a_guest_is_listed_with_its_port_its_consoles_and_how_each_is_reached() {
    let guest = Guest::define("listed").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let text = sh("console-proxy list");
    let row = text.lines().find(|line| line.starts_with("listed ")).unwrap_or_else(|| panic!("no row in:\n{text}"));
    for cell in [&port.to_string(), "listening", "vnc (bridged)", "serial/0 (pty)"] {
        assert!(row.contains(cell), "no {cell:?} in {row:?}");
    }
    assert!(row.ends_with(" -"), "nobody is connected: {row:?}");
    assert!(text.contains(&served_fingerprint(port)), "the certificate's fingerprint:\n{text}");
}

#[test]
fn a_panel_reads_ports_urls_and_the_fingerprint_of_the_served_certificate_from_json() {
    let guest = Guest::define("panel").with_vnc_websocket().with_pty_serial().started();
    let port = guest.port();
    let listing: Value = serde_json::from_str(&sh("console-proxy list --json")).unwrap();
    let host = listing["host"].as_str().unwrap();
    assert_eq!(listing["version"], 1);
    assert_eq!(listing["certificate_sha256"], served_fingerprint(port).as_str());
    let shown = guest.listed().unwrap();
    assert_eq!(shown["uuid"], guest.uuid().as_str());
    assert_eq!(shown["url"], format!("https://{host}:{port}/").as_str());
    assert_eq!(shown["sessions"], serde_json::json!([]));
    let consoles = shown["consoles"].as_array().unwrap();
    for (row, (console, reached)) in consoles.iter().zip([("vnc", "native"), ("serial/0", "pty")]) {
        assert_eq!((row["console"].as_str(), row["reached"].as_str()), (Some(console), Some(reached)), "{row}");
        assert_eq!(row["url"], format!("wss://{host}:{port}/{console}").as_str());
    }
    assert_eq!(consoles.len(), 2);
}

#[test]
fn until_somebody_connects_a_socket_listens_under_the_guests_name_and_no_proxy_runs() {
    let guest = Guest::define("named").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let status = sh(&format!("systemctl status {}", guest.socket()));
    assert!(status.contains("Consoles of guest named") && status.contains("active (listening)"), "{status}");
    assert!(status.contains(&format!(":{port} (Stream)")), "{status}");
    assert_eq!(state_of(&guest.service()), "inactive");
    assert_eq!(property(&guest.service(), "MainPID"), "0");
    assert!(try_sh(&format!("pgrep -f 'console-proxyd --guest {}'", guest.uuid())).is_err(), "a proxy runs");
}

#[test]
fn the_printed_url_opens_the_screen_and_the_shell_and_changes_nothing_in_the_guest() {
    let guest = Guest::define("shell").with_vnc().with_pty_serial().done();
    let defined = guest.definition();
    guest.start();
    guest.wait_to_boot();
    let live = guest.xml();
    let port = guest.port();
    let url = sh("console-proxy url shell 2>/dev/null");
    let (place, ticket) = url.strip_prefix("https://").unwrap().split_once("/?token=").unwrap();
    assert_eq!(place.rsplit_once(':').unwrap().1, port.to_string());

    let mut vnc = Ws::connect(port, "/vnc", ticket).unwrap();
    assert_eq!(vnc.read_until("\n", SOON), "RFB 003.008\n");
    let mut serial = Ws::connect(port, "/serial/0", ticket).unwrap();
    serial.command("echo the answer is $((6 * 7))", "the answer is 42");
    serial.command("hostname; tty", "shell\r\n/dev/ttyS0");
    assert_eq!((defined, live), (guest.definition(), guest.xml()));
}

/// `virsh console`, which wants a terminal of its own.
fn virsh_console(guest: &str) -> String {
    format!("script -qefc 'virsh console {guest}' /dev/null")
}

#[test]
fn virsh_console_is_told_that_the_page_has_the_console_and_the_page_that_virsh_has() {
    let guest = Guest::define("shared").with_pty_serial().started();
    guest.port();
    let held = guest.open("serial/0");
    let refused = try_sh(&format!("{} </dev/null", virsh_console("shared"))).unwrap_err();
    let lock =
        format!("locked by lock file '{}' held by process {}", lock_of(&guest), property(&guest.service(), "MainPID"));
    assert!(refused.contains(&lock), "{refused}");
    drop(held);
    wait_until("the console to be free again", SOON, || !exists(&lock_of(&guest)));

    let mut virsh = Running::sh(&virsh_console("shared"));
    wait_until("virsh to have the console", SOON, || exists(&lock_of(&guest)));
    let refused = guest.try_open("serial/0").unwrap_err();
    assert_eq!(refused.status(), 409);
    assert!(refused.words().contains("in use by virsh console"), "{refused:?}");
    // Ctrl-], virsh's way out.
    virsh.0.stdin.as_mut().unwrap().write_all(b"\x1d").unwrap();
    wait_until("virsh to leave the console", SOON, || !exists(&lock_of(&guest)));
    guest.open("serial/0");
}

fn lock_of(guest: &Guest) -> String {
    format!("/var/lock/LCK.._pts_{}", guest.pty().strip_prefix("/dev/pts/").unwrap())
}

#[test]
fn two_people_share_a_serial_port_and_see_what_the_other_types() {
    let guest = Guest::define("shared-port").with_pty_serial().started();
    guest.wait_to_boot();
    let mut ann = Ws::connect(guest.port(), "/serial/0", &guest.ticket_with("--user ann")).unwrap();
    ann.command("echo by a''nn", "by ann");
    let mut bob = Ws::connect(guest.port(), "/serial/0", &guest.ticket_with("--user bob")).unwrap();
    bob.read_until("by ann", SOON);
    bob.command("echo by b''ob", "by bob");
    ann.read_until("by bob", SOON);
}

#[test]
fn status_shows_root_who_is_on_which_console_and_others_how_many_and_how_much_went_through() {
    let guest = Guest::define("watched").with_vnc().with_pty_serial().started();
    let stranger = User::in_groups("e2e-watcher", "");
    guest.wait_to_boot();
    let mut serial = Ws::connect(guest.port(), "/serial/0", &guest.ticket_with("--user ann")).unwrap();
    serial.command("seq 1000 | tr '\\n' ' '; echo e''nd", "end");
    let line = wait_for("systemctl status to show what went through", SOON, || {
        let line = property(&guest.service(), "StatusText");
        line.contains("KiB out").then_some(line)
    });
    assert!(line.starts_with("watched: 1 on serial/0; "), "{line}");
    let status = stranger.run(&format!("systemctl status {}", guest.service())).unwrap();
    assert!(status.contains(&format!("Status: \"{line}\"")), "{status}");
    let all = stranger.run(&format!("systemctl show {0} {1}", guest.service(), guest.socket())).unwrap();
    for word in ["ann", "127.0.0.1"] {
        assert!(!status.contains(word) && !all.contains(word), "{word} in {status}\n{all}");
    }

    let shown: Value = serde_json::from_str(&sh("console-proxy status watched --json")).unwrap();
    let session = &shown["sessions"][0];
    assert_eq!((&session["person"], &session["console"]), (&"ann".into(), &"serial/0".into()));
    assert!(session["bytes-out"].as_u64() > Some(3000) && session["bytes-in"].as_u64() > Some(30), "{session}");
    let text = sh("console-proxy status watched");
    let row = text.lines().find(|line| line.starts_with("serial/0 ")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("ann") && row.contains("127.0.0.1") && row.contains("KiB"), "{row}");
    assert!(sh("console-proxy list").contains("ann on serial/0"));

    let _names = Configured::with("[proxy]\nstatus = \"names\"\n");
    wait_until("systemctl status to name them", SOON, || {
        property(&guest.service(), "StatusText").starts_with("watched: ann from 127.0.0.1 on serial/0 (pty, ")
    });
}

#[test]
fn when_nobody_is_connected_for_a_while_the_proxy_goes_and_the_socket_still_listens() {
    let _quick = Configured::with("[proxy]\nidle-timeout = \"2s\"\n");
    let guest = Guest::define("idle").with_vnc().started();
    let port = guest.port();
    let vnc = guest.open("vnc");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(state_of(&guest.service()), "active", "a session is not idle");
    drop(vnc);
    wait_until("the proxy to end", SOON, || state_of(&guest.service()) == "inactive");
    assert_eq!(property(&guest.service(), "Result"), "success");
    assert_eq!(property(&guest.socket(), "SubState"), "listening");
    assert_eq!(guest.port(), port);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_destroyed_guest_tells_its_clients_takes_everything_along_and_comes_back_on_the_same_port() {
    let guest = Guest::define("ended").with_vnc().with_pty_serial().started();
    let (port, uuid) = (guest.port(), guest.uuid());
    let (mut vnc, mut serial) = (guest.open("vnc"), guest.open("serial/0"));
    guest.destroy();
    for ws in [&mut vnc, &mut serial] {
        assert_eq!(ws.wait_for_close(SOON), (1001, "the guest has stopped".to_owned()));
    }
    wait_until("the socket to be gone", SOON, || state_of(&guest.socket()) == "inactive");
    assert_eq!(state_of(&guest.service()), "inactive");
    assert!(!exists(&format!("/run/console-proxy/guests/{uuid}/route.toml")));
    assert_eq!(guest.listed(), None);
    assert!(try_sh("console-proxy url ended").is_err());
    assert_eq!(sh("ls /run/console-proxy/queue"), "");

    guest.start();
    assert_eq!(guest.port(), port);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn with_a_view_ticket_one_sees_the_shell_and_types_nothing() {
    let guest = Guest::define("viewed").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let view = guest.ticket_with("--view");
    let mut serial = Ws::connect(port, "/serial/0", &view).unwrap();
    serial.send(b"echo $((6 * 7))\n");
    while let Some(bytes) = serial.next(Duration::from_secs(2)).expect("it stays open") {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("echo") && !text.contains("42"), "it was typed: {text:?}");
    }
    drop(serial);
    // It would have come back now, had it been waiting anywhere.
    let before = guest.open("serial/0").command("echo next $((1 + 1))", "next 2");
    assert!(!before.contains("42") && before.matches("echo").count() == 1, "{before:?}");
}

#[test]
fn without_a_ticket_or_with_another_guests_there_is_no_console() {
    let (mine, other) = (Guest::define("mine").with_vnc().started(), Guest::define("other").with_vnc().started());
    let port = mine.port();
    assert_eq!(Ws::connect(port, "/vnc", "").unwrap_err().status(), 401);
    other.port();
    assert_eq!(Ws::connect(port, "/vnc", &other.ticket()).unwrap_err().status(), 403);
    let narrow = Guest::define("narrow").with_vnc().with_pty_serial().started();
    let port = narrow.port();
    assert_eq!(Ws::connect(port, "/vnc", &narrow.ticket_with("--console serial/0")).unwrap_err().status(), 403);
}

#[test]
fn each_ticket_is_in_the_journal_under_its_jti_and_no_token_is() {
    let guest = Guest::define("audited").with_pty_serial().started();
    let port = guest.port();
    let before = journal_cursor();
    let ticket = guest.ticket_with("--user ann");
    let mut serial = Ws::connect(port, "/serial/0", &ticket).unwrap();
    serial.send(b"\n");
    drop(serial);
    assert!(Ws::connect(port, &format!("/nowhere?token={ticket}"), "").is_err());
    wait_until("the session's end in the journal", SOON, || journal_since(&before).contains(" from 127.0.0.1 after "));
    let fields = sh(&format!("journalctl -o export --after-cursor='{before}' | tr -d '\\0'"));
    let jti = fields.lines().find_map(|line| line.strip_prefix("CONSOLE_PROXY_JTI="));
    assert!(jti.is_some_and(|jti| jti.len() == 16), "the minting is in the journal:\n{}", journal_since(&before));
    let signature = ticket.rsplit_once('.').unwrap().1;
    assert!(!fields.contains(signature), "a token is in the journal");
}

#[test]
fn a_member_of_group_libvirt_lists_and_prints_urls_and_another_user_may_not() {
    let guest = Guest::define("rights").with_vnc().started();
    let port = guest.port();
    let (operator, stranger) = (User::in_groups("e2e-operator", "libvirt"), User::in_groups("e2e-stranger", ""));
    let list = operator.run("console-proxy list").unwrap();
    assert!(list.contains("rights") && list.contains("listening"), "{list}");
    operator.run("console-proxy status rights").unwrap();
    let url = operator.run("console-proxy url rights").unwrap();
    let ticket = url.split_once("token=").unwrap().1;
    let mut vnc = Ws::connect(port, "/vnc", ticket).unwrap();
    vnc.read_until("RFB 003.008\n", SOON);
    let status = wait_for("the session in status", SOON, || {
        operator.run("console-proxy status rights").ok().filter(|status| status.contains("vnc "))
    });
    assert!(status.contains("e2e-operator"), "the ticket's person is who called: {status}");

    for verb in ["list", "status rights", "url rights", "ticket rights"] {
        let said = stranger.run(&format!("console-proxy {verb}")).unwrap_err();
        assert!(said.contains("ermission denied"), "{verb}: {said}");
    }
    for file in ["/etc/console-proxy/signing/host.pem", "/etc/console-proxy/tls/key.pem"] {
        assert!(stranger.run(&format!("cat {file}")).is_err(), "{file}");
    }
    virsh("list");
}

#[test]
fn what_takes_root_is_refused_to_others_at_once_in_one_sentence_and_changes_nothing() {
    let guest = Guest::define("roots-own").with_vnc().with_pty_serial().started();
    guest.port();
    let path = format!("/run/console-proxy/guests/{}/route.toml", guest.uuid());
    let state = || (sh(&format!("cat {path}; stat -c %i {path}; ls -i /run/console-proxy/queue")), guest.definition());
    wait_until("sync to be done", SOON, || state_of("console-proxy-sync.service") == "inactive");
    let before = state();
    for groups in ["libvirt", ""] {
        let user = User::in_groups("e2e-eager", groups);
        for verb in [
            "publish roots-own",
            "publish --all",
            "wire roots-own",
            "wire --all",
            "unwire roots-own",
            "unwire --once roots-own",
            "prune",
            "prune --recordings",
            "sync",
            "guard",
            "guard --remove-unless-needed",
            "keys",
        ] {
            let said = user.run(&format!("console-proxy {verb}")).unwrap_err();
            let lines: Vec<_> = said.lines().filter(|line| line.contains("console-proxy: ")).collect();
            let name = verb.split(' ').next().unwrap();
            let expected = format!("console-proxy: `console-proxy {name}` takes root: nothing was changed");
            assert!(lines == [expected.as_str()] && !said.contains("ermission denied"), "{verb}: {said}");
            assert!(!said.contains("listens there") && !said.contains("WARN"), "{verb}: {said}");
        }
        // A definition in a file is nobody's but the caller's.
        let path = "/run/e2e-roots-own.xml";
        sh(&format!("virsh dumpxml --inactive roots-own >{path}; chmod 644 {path}"));
        let text = user.run(&format!("console-proxy unwire --xml {path}")).unwrap();
        assert!(text.contains("<name>roots-own</name>"), "{text}");
    }
    assert_eq!(state(), before);
}
