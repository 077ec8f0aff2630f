//! History under the real libvirt and its log daemon: what a guest says while nobody looks, and what becomes of it
//! when files are renamed, removed, replaced, when the disk is full, and when the daemon itself goes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::host::{Configured, Guest, SOON, sh, state_of, systemctl, try_sh, wait_for, wait_until};
use crate::ws::Ws;

const ON: &str = "[serial]\nhistory = \"on\"\n[proxy]\nidle-timeout = \"1s\"\n";
const VIRTLOGD: &str = "/etc/libvirt/virtlogd.conf";

/// libvirt's log daemon renames early.
struct SmallLogs(String);

impl SmallLogs {
    fn of(bytes: u32) -> Self {
        let usual = fs::read_to_string(VIRTLOGD).unwrap();
        fs::write(VIRTLOGD, format!("{usual}\nmax_size = {bytes}\n")).unwrap();
        systemctl("restart virtlogd.service");
        Self(usual)
    }
}

impl Drop for SmallLogs {
    fn drop(&mut self) {
        let _ = fs::write(VIRTLOGD, &self.0);
        let _ = try_sh("systemctl restart virtlogd.service");
    }
}

fn log_of(guest: &Guest) -> String {
    format!("/var/log/libvirt/qemu/console-proxy-{}-serial-0.log", guest.uuid())
}

/// A guest whose first serial port has a log, running.
fn logged(name: &str) -> Guest {
    let guest = Guest::define(name).with_pty_serial().with_vnc().done();
    let log = log_of(&guest);
    wait_until("the guest to be wired", SOON, || guest.definition().contains(&log));
    guest.start();
    guest.wait_to_boot();
    guest
}

/// All that is kept, the oldest first.
fn kept(log: &str) -> Vec<u8> {
    let older = (0..9).rev().map(|number| format!("{log}.{number}"));
    older.chain([log.to_owned()]).filter_map(|path| fs::read(path).ok()).flatten().collect()
}

/// A client that counts the bytes it gets since it was told its position.
struct Counting {
    ws: Ws,
    position: String,
    bytes: Vec<u8>,
}

impl Counting {
    #[track_caller]
    fn open(guest: &Guest, query: &str) -> Self {
        let bearer = format!("Bearer {}", guest.ticket());
        let headers = [("authorization", bearer.as_str()), ("sec-websocket-protocol", "console-proxy.v1")];
        let path = format!("/serial/0{query}");
        let ws = Ws::connect_with(guest.port(), &path, "", &headers).unwrap_or_else(|why| panic!("{why:?}"));
        Self { ws, position: String::new(), bytes: Vec::new() }
    }

    /// What came until nothing came for a moment after `text`, from the last position on.
    #[track_caller]
    fn read_until(&mut self, text: &str) {
        let mut all = Vec::new();
        loop {
            let found = all.windows(text.len()).any(|window| window == text.as_bytes());
            let limit = if found { Duration::from_millis(500) } else { Duration::from_secs(60) };
            match self.ws.next(limit).unwrap() {
                None if found => return,
                None => panic!("no {text:?} in {:?}", String::from_utf8_lossy(&all)),
                Some(message) => self.take(message, &mut all),
            }
        }
    }

    fn take(&mut self, message: Vec<u8>, all: &mut Vec<u8>) {
        if let Some(position) = message.strip_prefix(b"{\"position\":\"") {
            String::from_utf8_lossy(position).trim_end_matches("\"}").clone_into(&mut self.position);
            self.bytes.clear();
        } else {
            all.extend(&message);
            self.bytes.extend(message);
        }
    }

    fn here(&self) -> String {
        let (id, offset) = self.position.split_once(':').unwrap();
        format!("{id}:{}", offset.parse::<usize>().unwrap() + self.bytes.len())
    }
}

#[test]
fn what_a_guest_says_to_nobody_is_kept_shown_to_who_comes_and_outlives_its_run() {
    let _on = Configured::with(ON);
    let guest = logged("keeper");
    assert_ne!(state_of(&guest.service()), "active", "no process serves it");
    let log = log_of(&guest);
    let banner = "console-proxy test guest keeper on ttyS0";
    wait_until("the log", SOON, || String::from_utf8_lossy(&kept(&log)).contains(banner));
    assert_eq!(sh(&format!("stat -c '%a %U' {log}")), "600 root");
    let mut serial = guest.open("serial/0");
    serial.read_until(banner, SOON);
    serial.command("echo the answer is $((6 * 7))", "the answer is 42");
    guest.destroy();
    wait_until("its port to be closed", SOON, || state_of(&guest.socket()) == "inactive");
    let printed = sh("console-proxy log keeper serial/0");
    assert!(printed.contains(banner) && printed.contains("the answer is 42"), "{printed}");

    // The next start goes on in the same file.
    guest.start();
    guest.wait_to_boot();
    wait_until("the second start in the log", SOON, || sh("console-proxy log keeper").matches(banner).count() == 2);
    let mut serial = guest.open("serial/0");
    serial.read_until("the answer is 42", SOON);
    serial.read_until(banner, SOON);
    assert_eq!(sh("console-proxy log keeper --bytes 0"), "");
    drop(serial);

    let uuid = guest.uuid();
    drop(guest);
    wait_until("the log to go with its guest", SOON, || {
        !Path::new(&format!("/var/log/libvirt/qemu/console-proxy-{uuid}-serial-0.log")).exists()
    });
}

#[test]
fn who_comes_back_gets_every_byte_once_over_renamings_a_restart_of_the_guest_and_another_process() {
    let _small = SmallLogs::of(20_000);
    let _on = Configured::with(ON);
    let guest = logged("counted");
    let log = log_of(&guest);
    let mut first = Counting::open(&guest, "");
    first.read_until("counted:ttyS0# ");
    let begin = kept(&log);
    assert_eq!(begin, first.bytes, "all of it is there");

    // While somebody looks on.
    first.ws.send(b"seq 1 4000; echo fin''ished\n");
    first.read_until("finished");
    assert!(Path::new(&format!("{log}.0")).exists(), "it was renamed");
    let seen = kept(&log).len();
    let here = first.here();
    // While nobody does.
    first.ws.send(b"(sleep 2; seq 5001 9000; echo a''ll) & echo go''ne\n");
    drop(first);
    wait_until("the proxy to end", SOON, || state_of(&guest.service()) != "active");
    wait_until("the guest to have said it", SOON, || String::from_utf8_lossy(&kept(&log)).contains("\r\nall\r\n"));
    let mut back = Counting::open(&guest, &format!("?from={here}"));
    back.read_until("\r\nall\r\n");
    assert_eq!(back.ws.received, b"");
    let all = kept(&log);
    let mut both = Counting::open(&guest, &format!("?from={here}"));
    let mut got = Vec::new();
    while got.len() < all.len() - seen {
        let message = both.ws.next(SOON).unwrap().expect("more");
        if !message.starts_with(b"{\"position\":") {
            got.extend(message);
        }
    }
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&all[seen..]));
    let here = back.here();
    drop((back, both));

    guest.destroy();
    guest.start();
    guest.wait_to_boot();
    let mut again = Counting::open(&guest, &format!("?from={here}"));
    again.read_until("console-proxy test guest counted on ttyS0");
    let told = String::from_utf8_lossy(&again.bytes).into_owned();
    assert!(!told.contains("notice") && !told.contains("9000"), "{told}");
    again.ws.send(b"echo al''ive\n");
    again.read_until("alive");
}

#[test]
fn a_log_that_was_replaced_is_not_shown_and_the_console_works_all_the_same() {
    let _on = Configured::with(ON);
    let guest = logged("replaced");
    let log = log_of(&guest);
    for (replace, why) in [
        (format!("ln -s /etc/shadow {log}"), "there is a symbolic link in its path"),
        (format!("mkfifo {log}"), "it is no regular file"),
        (format!("ln /etc/shadow {log}"), "hard link"),
        ("true".to_owned(), "No such file or directory"),
    ] {
        wait_until("the proxy to end", SOON, || state_of(&guest.service()) != "active");
        sh(&format!("rm -f {log}; {replace}"));
        let mut serial = guest.open("serial/0");
        let notice = serial.read_until("]\r\n", SOON);
        assert!(notice.contains("there is no history: ") && notice.contains(why), "{notice}");
        let said = serial.command("echo $((6 * 7)) is it", "42 is it");
        assert!(!said.contains("root:"), "{said}");
        drop(serial);
        sh(&format!("rm -f {log}"));
    }
}

/// A guest that boots, with a log of its definition's own; and the definition's owner opens the console.
fn owners(name: &str, uuid: &str, log: &str) -> Guest {
    let guest = Guest::define(name).with_uuid(uuid).with_log(log).with_pty_serial().with_vnc().started();
    guest.wait_to_boot();
    guest.port();
    guest
}

/// Where the broker alone decides, as where a proxy asks on its own: with a route that names the file.
fn name_in_route(guest: &Guest, log: &str) {
    let route = format!("/run/console-proxy/guests/{}/route.toml", guest.uuid());
    let mut table: toml::Table = fs::read_to_string(&route).unwrap().parse().unwrap();
    let consoles = table["consoles"].as_array_mut().unwrap();
    let serial = consoles.iter_mut().find(|way| way["console"].as_str() == Some("serial/0")).unwrap();
    serial.as_table_mut().unwrap().insert("log".to_owned(), log.into());
    fs::write(&route, table.to_string()).unwrap();
}

#[test]
fn a_definitions_log_that_is_another_guests_an_older_part_of_it_or_roots_is_not_shown() {
    let folder = "/var/log/libvirt/qemu";
    let (victim, uuid) = ("11111111-5a5a-4b4b-8c8c-000000000001", "11111111-5a5a-4b4b-8c8c-000000000002");
    // A log of ours in a copied definition is taken out of it by wiring.
    let others = format!("{folder}/{victim}-serial0.log");
    let roots = "/var/log/e2e-root.log";
    fs::create_dir_all(folder).unwrap();
    for path in [&others, &format!("{others}.0"), roots] {
        fs::write(path, "the-others-secret\r\n").unwrap();
        sh(&format!("chmod 600 {path}"));
    }
    let _removed = scopeguard(|| drop(try_sh(&format!("rm -f {others}* {roots}"))));
    for path in [&others, &format!("{others}.0"), roots] {
        let guest = owners("curious", uuid, path);
        let route = fs::read_to_string(format!("/run/console-proxy/guests/{uuid}/route.toml")).unwrap();
        assert!(!route.contains(path), "{route}");
        let mut serial = guest.open("serial/0");
        let said = serial.command("echo $((6 * 7)) is it", "42 is it");
        assert!(!said.contains("secret"), "{said}");
        drop(serial);
        let words = format!("the log {path} is not shown");
        let wanted = format!("{folder}/{uuid}-serial0.log");
        let printed = try_sh("console-proxy log curious serial/0").unwrap_err();
        assert!(printed.contains(&words) && printed.contains(&wanted) && !printed.contains("secret"), "{printed}");
        let doctor = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
        assert!(doctor.contains(&format!("curious: serial/0 has no history: {words}")), "{doctor}");

        // The broker asks for itself.
        systemctl(&format!("stop {}", guest.service()));
        name_in_route(&guest, path);
        let mut serial = guest.open("serial/0");
        let notice = serial.read_until("]\r\n", SOON);
        assert!(notice.contains("there is no history: ") && notice.contains(&wanted), "{notice}");
        let said = serial.command("echo $((6 * 8)) is it", "48 is it");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn a_definitions_own_log_with_the_guests_uuid_is_its_history_with_its_older_parts() {
    let uuid = "11111111-5a5a-4b4b-8c8c-000000000003";
    let log = format!("/var/log/libvirt/qemu/{uuid}-serial0.log");
    fs::create_dir_all("/var/log/libvirt/qemu").unwrap();
    fs::write(format!("{log}.0"), "what it said long ago\r\n").unwrap();
    let _removed = scopeguard(|| drop(try_sh(&format!("rm -f {log}*"))));
    let guest = owners("own-log", uuid, &log);
    let banner = "console-proxy test guest own-log on ttyS0";
    wait_until("the log", SOON, || fs::read_to_string(&log).is_ok_and(|text| text.contains(banner)));
    let mut serial = guest.open("serial/0");
    serial.read_until("what it said long ago", SOON);
    serial.read_until(banner, SOON);
    drop(serial);
    let printed = sh("console-proxy log own-log");
    assert!(printed.contains("what it said long ago") && printed.contains(banner), "{printed}");
    let doctor = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    assert!(!doctor.contains("own-log: serial/0 has no history"), "{doctor}");

    // Of somebody else's by now.
    for part in [format!("{log}.0"), log.clone()] {
        wait_until("the proxy to end", SOON, || {
            systemctl(&format!("stop {}", guest.service()));
            state_of(&guest.service()) != "active"
        });
        sh(&format!("chown nobody {part}"));
        let mut serial = guest.open("serial/0");
        let notice = serial.read_until("]\r\n", SOON);
        assert!(notice.contains("there is no history: ") && notice.contains("it belongs to uid "), "{notice}");
        drop(serial);
        sh(&format!("chown root {part}"));
    }
}

#[test]
fn on_a_full_disk_or_without_the_log_daemon_a_session_goes_on_and_is_told() {
    let _on = Configured::with(ON);
    let folder = "/var/log/libvirt/qemu";
    for trouble in ["a full disk", "no log daemon"] {
        sh(&format!("mount -t tmpfs -o mode=0755,size=64k tmpfs {folder}"));
        let unmount = scopeguard(|| drop(try_sh(&format!("umount {folder}"))));
        systemctl("stop console-proxy-broker.service");
        let guest = logged("unlucky");
        let mut serial = guest.open("serial/0");
        serial.read_until("unlucky:ttyS0# ", SOON);
        serial.command("echo before $((6 * 7))", "before 42");
        if trouble == "a full disk" {
            let _ = try_sh(&format!("dd if=/dev/zero of={folder}/fill bs=1k"));
        } else {
            systemctl("restart virtlogd.service");
        }
        serial.send(b"seq 1 2000; echo after $((6 * 7))\n");
        let shown = serial.read_until("after 42", SOON);
        let (before, rest) = shown.split_once("\x18\r\n[console-proxy: the log does not follow").expect(trouble);
        let said = format!("{before}{}", rest.split_once("]\r\n").expect("its end").1);
        let missing: Vec<_> = (1..=2000).filter(|n| !said.contains(&format!("\n{n}\r\n"))).collect();
        assert!(missing.is_empty(), "{trouble}: {missing:?} in {shown}");
        serial.command("echo still $((6 * 7))", "still 42");
        drop(serial);
        drop(guest);
        drop(unmount);
        systemctl("stop console-proxy-broker.service");
    }
}

/// Does something at the end of a test.
fn scopeguard(at_end: impl FnMut()) -> impl Drop {
    struct AtEnd<F: FnMut()>(F);
    impl<F: FnMut()> Drop for AtEnd<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    AtEnd(at_end)
}

#[test]
fn following_prints_what_comes_over_renamings_and_starts() {
    let _small = SmallLogs::of(20_000);
    let _on = Configured::with(ON);
    let guest = logged("followed");
    let printed = "/tmp/followed";
    let follower = crate::host::Running::sh(&format!("console-proxy log followed --follow >{printed} 2>&1"));
    let mut serial = guest.open("serial/0");
    serial.command("seq 1 6000; echo e''nd", "\nend");
    drop(serial);
    guest.destroy();
    guest.start();
    guest.wait_to_boot();
    let log = log_of(&guest);
    let banner = "console-proxy test guest followed on ttyS0";
    let whole = wait_for("the second start", SOON, || {
        let text = fs::read_to_string(printed).unwrap_or_default();
        (text.matches(banner).count() == 2 && text.ends_with("# \u{1b}[6n")).then_some(text)
    });
    let kept = String::from_utf8_lossy(&kept(&log)).into_owned();
    assert!(whole.ends_with(&kept), "what is kept is the end of what was printed");
    assert!(whole.starts_with("\r\n") && (1..=6000).all(|n| whole.contains(&format!("\n{n}\r\n"))));
    drop(follower);
    // Nobody reads on.
    sh("timeout 20 console-proxy log followed --follow | head -c 10 >/dev/null");
}
