//! A route leads to its own guest's QEMU and to nobody else, also where that has ended without a word and others have
//! its terminal, its port or its socket's path.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::host::{
    Guest, Running, SOON, exists, install_package, journal_cursor, journal_since, restart_libvirtd, sh, state_of,
    systemctl, try_sh, virsh, wait_for, wait_until,
};
use crate::ws::{Refused, Ws};

/// libvirt's folder for its QEMUs, which their user may write.
const FOLDER: &str = "/var/lib/libvirt/qemu";
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/console-proxy";
/// A port in no range of ours, so that no guard is before it.
const PORT: u16 = 24_471;

/// Sync does not run, so that what refuses is the broker; it runs again at the end.
struct SyncStopped;

impl SyncStopped {
    fn now() -> Self {
        systemctl("stop console-proxy-sync.path console-proxy-sync.timer");
        wait_until("sync to have ended", SOON, || state_of("console-proxy-sync.service") == "inactive");
        Self
    }
}

impl Drop for SyncStopped {
    fn drop(&mut self) {
        let _ = try_sh("systemctl start console-proxy-sync.path");
    }
}

/// The hook is not there, as with the RPM; it is put back at the end.
struct HookAway;

impl HookAway {
    fn now() -> Self {
        // Not beside it: libvirt runs every file of that folder.
        sh(&format!("mv {HOOK} /root/hook.e2e-saved; systemctl reload libvirtd"));
        Self
    }
}

impl Drop for HookAway {
    fn drop(&mut self) {
        let _ = try_sh(&format!("mv /root/hook.e2e-saved {HOOK}; systemctl reload libvirtd"));
    }
}

/// libvirt's daemon does not run; it runs again at the end.
struct DaemonStopped;

impl DaemonStopped {
    fn now() -> Self {
        systemctl("stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service");
        Self
    }
}

impl Drop for DaemonStopped {
    fn drop(&mut self) {
        let _ = try_sh("systemctl start libvirtd.socket libvirtd.service");
        wait_until("libvirtd to answer", Duration::from_secs(60), || try_sh("virsh list").is_ok());
    }
}

fn killed(guest: &Guest) {
    let pid = guest.pid();
    sh(&format!("kill -KILL {pid}"));
    wait_until("QEMU to end", SOON, || !exists(&format!("/proc/{pid}")));
}

#[track_caller]
fn refused(port: u16, console: &str, ticket: &str) -> Refused {
    Ws::connect(port, &format!("/{console}"), ticket).unwrap_err()
}

fn withdrawn(guest: &Guest, uuid: &str) {
    wait_until("the stale route to be withdrawn", SOON, || {
        !exists(&format!("/run/console-proxy/guests/{uuid}/route.toml"))
    });
    assert_eq!(guest.listed(), None);
}

#[test]
fn a_dead_guests_ticket_reaches_no_terminal_that_has_its_number_by_now() {
    let guest = Guest::define("dead-pty").with_pty_serial().started();
    guest.wait_to_boot();
    let (port, uuid, name) = (guest.port(), guest.uuid(), guest.pty());
    guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    let ticket = guest.ticket();
    let hook = HookAway::now();
    sh("console-proxy publish --all");
    let stopped = SyncStopped::now();
    guest.destroy();
    assert!(exists(&format!("/run/console-proxy/guests/{uuid}/route.toml")), "nobody said that it has ended");

    let mut others = Vec::new();
    let master = loop {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        if ptsname(&master, Vec::new()).unwrap().to_str() == Ok(&name) {
            break master;
        }
        others.push(master);
        assert!(others.len() < 100, "no terminal is {name}");
    };
    let terminal = rustix::fs::open(name.as_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let before = format!("{:?}", tcgetattr(&terminal).unwrap());
    let cursor = journal_cursor();
    for _ in 0..3 {
        let why = refused(port, "serial/0", &ticket);
        assert!(why.words().contains("has ended"), "{why:?}");
    }
    assert_eq!(format!("{:?}", tcgetattr(&terminal).unwrap()), before, "the terminal is as it was");
    assert!(tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON));
    rustix::io::write(&master, b"a password\n").unwrap();
    let mut typed = [0; 64];
    let length = rustix::io::read(&terminal, &mut typed).unwrap();
    assert_eq!(&typed[..length], b"a password\n", "what root types reaches root's program");
    let said = journal_since(&cursor);
    assert!(said.contains("dead-pty: the guest's QEMU") && said.contains("having it withdrawn"), "{said}");
    let listing = sh("console-proxy list");
    assert!(listing.contains("dead-pty: the guest's QEMU") && listing.contains("has ended"), "{listing}");
    let doctor = try_sh("console-proxy doctor").unwrap_err();
    assert!(doctor.contains("FAULT   dead-pty is published and does not run"), "{doctor}");

    drop(stopped);
    withdrawn(&guest, &uuid);
    drop(hook);
    drop(terminal);
    drop((master, others));
    guest.start();
    guest.wait_to_boot();
    guest.port();
    guest.open("serial/0").command("echo $((6 * 8)) again", "48 again");
}

#[test]
fn a_dead_guests_ticket_reaches_no_program_that_listens_at_its_port_by_now() {
    let guest = Guest::define("dead-port").with_tcp_serial(PORT).started();
    guest.wait_to_boot();
    let (port, uuid, ticket) = (guest.port(), guest.uuid(), guest.ticket());
    guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    let stopped = SyncStopped::now();
    let daemon = DaemonStopped::now();
    killed(&guest);
    let other = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    other.set_nonblocking(true).unwrap();
    let why = refused(port, "serial/0", &ticket);
    assert!(why.words().contains("has ended"), "{why:?}");
    assert!(other.accept().is_err(), "nobody connected to the other program");
    drop(stopped);
    // Of whom the broker left a note.
    systemctl("start console-proxy-sync.service");
    wait_until("the stale route to be withdrawn", SOON, || {
        !exists(&format!("/run/console-proxy/guests/{uuid}/route.toml"))
    });
    assert!(other.accept().is_err());
    drop(daemon);
}

#[test]
fn sync_withdraws_a_guest_that_ended_without_a_word_also_when_nobody_connects() {
    let guest = Guest::define("dead-quiet").with_vnc().blank().started();
    guest.port();
    let uuid = guest.uuid();
    let _daemon = DaemonStopped::now();
    killed(&guest);
    let cursor = journal_cursor();
    systemctl("start console-proxy-sync.service");
    wait_until("the stale route to be withdrawn", SOON, || {
        !exists(&format!("/run/console-proxy/guests/{uuid}/route.toml"))
    });
    let said = journal_since(&cursor);
    assert!(said.contains("dead-quiet: the guest's QEMU") && said.contains("has ended: withdrawn"), "{said}");
}

#[test]
fn a_unix_socket_that_qemus_user_replaced_leads_nobody_anywhere() {
    let path = format!("{FOLDER}/e2e-replaced.sock");
    let guest = Guest::define("replaced").with_unix_serial(&path).started();
    let other = Guest::define("replaced-2").with_unix_serial(&format!("{FOLDER}/e2e-other.sock")).blank().started();
    guest.wait_to_boot();
    let (port, ticket) = (guest.port(), guest.ticket());
    other.port();
    guest.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    let qemus = |command: &str| sh(&format!("cd / && runuser -u libvirt-qemu -- sh -c '{command}'"));
    let look = |words: &str| {
        let why = refused(port, "serial/0", &ticket);
        assert!(why.words().contains(words), "{why:?}");
    };
    qemus(&format!("mv {path} {path}.own"));

    // What root listens at is spoken to by nobody.
    let _ = fs::remove_file("/run/e2e-roots.sock");
    let roots = UnixListener::bind("/run/e2e-roots.sock").unwrap();
    roots.set_nonblocking(true).unwrap();
    qemus(&format!("ln -s /run/e2e-roots.sock {path}"));
    look("there is a symbolic link in its path");
    assert!(roots.accept().is_err(), "nobody came");
    let connections = || sh("ss -Hx state connected src /run/dbus/system_bus_socket | wc -l");
    qemus(&format!("ln -sfn /run/dbus/system_bus_socket {path}"));
    let before = connections();
    look("there is a symbolic link in its path");
    assert_eq!(connections(), before, "the system bus saw nobody");
    // The folder that it is in, too.
    qemus(&format!("rm {path}; mkdir {path}; ln -s /run/e2e-roots.sock {path}/s"));
    look("it is no socket");
    qemus(&format!("rm -r {path}"));

    // A socket of that user's own, and another guest's.
    let script = format!(
        "import socket,os,time; s=socket.socket(socket.AF_UNIX); s.bind(\"{path}\"); s.listen(); c,_=s.accept(); \
         open(\"{FOLDER}/e2e-heard\",\"wb\").write(c.recv(100)); time.sleep(100)"
    );
    let own = Running::sh(&format!("runuser -u libvirt-qemu -- python3 -c '{script}'"));
    wait_until("the user's own socket", SOON, || exists(&path));
    look("listens there, and not this guest's QEMU");
    wait_until("it to have heard that", SOON, || exists(&format!("{FOLDER}/e2e-heard")));
    assert_eq!(sh(&format!("cat {FOLDER}/e2e-heard; rm {FOLDER}/e2e-heard")), "", "it was told nothing");
    drop(own);
    qemus(&format!("rm {path}; mv {FOLDER}/e2e-other.sock {path}"));
    look("listens there, and not this guest's QEMU");

    qemus(&format!("rm {path}; mv {path}.own {path}"));
    guest.open("serial/0").command("echo $((6 * 8)) again", "48 again");
    let _ = fs::remove_file("/run/e2e-roots.sock");
}

#[test]
fn a_dead_guests_unix_socket_is_not_opened_whoever_listens_there_by_now() {
    let path = format!("{FOLDER}/e2e-dead.sock");
    let guest = Guest::define("dead-unix").with_unix_serial(&path).started();
    guest.wait_to_boot();
    let (port, ticket) = (guest.port(), guest.ticket());
    let _stopped = SyncStopped::now();
    let _daemon = DaemonStopped::now();
    killed(&guest);
    let _ = fs::remove_file(&path);
    let other = UnixListener::bind(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    let why = refused(port, "serial/0", &ticket);
    assert!(why.words().contains("has ended"), "{why:?}");
    assert!(other.accept().is_err(), "nobody came");
}

#[test]
fn another_guest_at_the_same_number_of_another_address_shuts_no_console_and_its_own_is_open() {
    let first = Guest::define("same-first").with_vnc().blank().started();
    first.port();
    let live = first.xml();
    let (_, after) = live.split_once("type='vnc' port='").expect("a display");
    let number: u16 = after.split_once('\'').unwrap().0.parse().unwrap();
    let works = |when: &str| {
        let mut screen = first.try_open("vnc").unwrap_or_else(|why| panic!("{when}: {why:?}"));
        assert_eq!(screen.read_until("\n", SOON), "RFB 003.008\n", "{when}");
        let doctor = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
        assert!(!doctor.contains("FAULT   same-"), "{when}: {doctor}");
    };
    works("before the other starts");
    let second = Guest::define("same-second").with_tcp_serial_at("127.0.0.2", number).started();
    second.wait_to_boot();
    second.port();
    second.open("serial/0").command("echo $((6 * 7)) is right", "42 is right");
    works("while the other runs");
    second.destroy();
    wait_until("the other to be withdrawn", SOON, || second.listed().is_none());
    works("when the other has ended");
    drop(second);
    works("when the other is undefined");
}

#[test]
fn consoles_stay_open_to_their_guest_over_libvirts_restart_a_reset_a_save_and_a_new_start() {
    let path = format!("{FOLDER}/e2e-life.sock");
    let guest =
        Guest::define("life").with_vnc_websocket().with_pty_serial().with_tcp_serial(PORT).with_unix_serial(&path);
    let guest = guest.started();
    guest.wait_to_boot();
    let works = |when: &str| {
        guest.port();
        for console in ["serial/0", "serial/1", "serial/2", "vnc"] {
            let open = wait_for(&format!("{console} {when}"), SOON, || guest.try_open(console).ok());
            drop(open);
        }
        let mut screen = guest.open("vnc");
        assert_eq!(screen.read_until("\n", SOON), "RFB 003.008\n", "{when}");
        assert!(!sh("console-proxy list").contains("cannot be opened"), "{when}");
        let doctor = try_sh("console-proxy doctor").unwrap_or_else(|said| said);
        assert!(!doctor.contains("FAULT   life"), "{when}: {doctor}");
    };
    works("after the start");
    restart_libvirtd();
    virsh("qemu-monitor-command life --hmp info status");
    works("after libvirtd's restart");
    virsh("reset life");
    works("after a reset");
    virsh("managedsave life");
    guest.start();
    works("after a save and a restore");
    guest.destroy();
    guest.start();
    works("after a new start");
}

#[test]
fn where_nobody_knows_which_process_serves_a_guest_it_is_closed_said_and_publish_mends_it() {
    let guest = Guest::define("nobodys").with_vnc().with_pty_serial().blank().started();
    guest.port();
    let file = "/run/libvirt/qemu/nobodys.pid";
    let saved = fs::read_to_string(file).unwrap();
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    for content in [None, Some(String::new()), Some("nonsense\n".to_owned()), Some(other.id().to_string())] {
        match &content {
            None => fs::remove_file(file).unwrap(),
            Some(text) => fs::write(file, text).unwrap(),
        }
        let published = sh("console-proxy publish nobodys");
        assert!(published.contains("nobodys: port "), "{published}");
        for console in ["serial/0", "vnc"] {
            let why = guest.try_open(console).unwrap_err();
            let words = why.words();
            assert!(words.contains("nobody knows which process serves"), "{content:?}: {words}");
            assert!(words.contains("`console-proxy publish nobodys`"), "{content:?}: {words}");
        }
        let listing = sh("console-proxy list");
        assert!(listing.contains("nobodys: serial/0 cannot be opened: nobody knows which process"), "{listing}");
        let doctor = try_sh("console-proxy doctor").unwrap_err();
        assert!(doctor.contains("FAULT   nobodys: serial/0 cannot be opened"), "{doctor}");
    }
    fs::write(file, saved).unwrap();
    let _ = (other.kill(), other.wait());
    sh("console-proxy publish nobodys");
    drop((guest.open("serial/0"), guest.open("vnc")));
}

#[test]
fn a_route_of_an_earlier_version_is_closed_in_words_and_the_packages_upgrade_opens_it() {
    let guest = Guest::define("earlier").with_vnc().blank().started();
    guest.port();
    let route = format!("/run/console-proxy/guests/{}/route.toml", guest.uuid());
    let mut table: toml::Table = fs::read_to_string(&route).unwrap().parse().unwrap();
    assert!(table.remove("owner").is_some());
    fs::write(&route, table.to_string()).unwrap();
    let why = guest.try_open("vnc").unwrap_err();
    assert!(why.words().contains("`console-proxy publish earlier`"), "{why:?}");
    install_package();
    assert_eq!(guest.open("vnc").read_until("\n", SOON), "RFB 003.008\n");
}
