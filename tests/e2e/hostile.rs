//! A proxy that was taken over, a user who wants more than is theirs, and names that are not just names.
//!
//! The hostile program is this suite's own binary ([`act`]), put in a proxy's place by a drop-in: what it runs in is
//! the installed unit's sandbox, and nothing else is different.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use console_proxy::edges::systemd::{self, Inherited};
use console_proxy::edges::{cage, passing};
use console_proxy::rules::guest::Console;
use console_proxy::rules::route::{Backend, Route};
use nix::libc;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

use crate::channel::{BROKER, Channel};
use crate::host::{
    Guest, Running, SOON, User, journal_cursor, journal_since, property, sh, state_of, systemctl, try_sh, wait_for,
    wait_until,
};
use crate::ws::{Ws, get};

const PROGRAM: &str = "/usr/local/sbin/e2e-hostile";

/// What the hostile program tried, and what became of it: a line each, `name: what it got` or `name! why not`.
pub struct Report(pub String);

impl Report {
    #[track_caller]
    pub fn succeeded(&self, attempt: &str) {
        assert!(self.0.lines().any(|line| line.starts_with(&format!("{attempt}: "))), "{attempt}, in:\n{}", self.0);
    }

    #[track_caller]
    pub fn failed(&self, attempt: &str, why: &str) {
        self.failed_for_one_of(attempt, &[why]);
    }

    #[track_caller]
    pub fn failed_for_one_of(&self, attempt: &str, whys: &[&str]) {
        let line = self.0.lines().find_map(|line| line.strip_prefix(attempt)).unwrap_or_default();
        let failed = line.starts_with("! ") && whys.iter().any(|why| line.contains(why));
        assert!(failed, "{attempt} should fail for one of {whys:?}, in:\n{}", self.0);
    }
}

/// This suite's binary in the place of a guest's proxy.
pub struct TakenOver<'a>(&'a Guest, String);

impl<'a> TakenOver<'a> {
    pub fn proxy_of(guest: &'a Guest, act: &str, victim: &Guest) -> Self {
        Self::proxy_with(guest, act, victim, "")
    }

    /// `more`: further words of the environment.
    pub fn proxy_with(guest: &'a Guest, act: &str, victim: &Guest, more: &str) -> Self {
        fs::copy(std::env::current_exe().unwrap(), PROGRAM).unwrap();
        let folder = format!("/run/systemd/system/{}.d", guest.service());
        // That one is about the watchdog; others may take their time.
        let watchdog = if act == "deaf" { 10 } else { 0 };
        let text = format!(
            "[Service]\nExecStart=\nExecStart={PROGRAM} --ignored --exact hostile::act --nocapture\nRestart=no\nWatchdogSec={watchdog}\n\
             Environment=ACT={act} GUEST={} VICTIM={} VICTIM_PID={} VICTIM_PORT={} VICTIM_PTY={} {more}\n",
            guest.uuid(),
            victim.uuid(),
            property(&victim.service(), "MainPID"),
            victim.port(),
            if act == "attempts" { victim.pty() } else { String::new() }
        );
        let drop_in = format!("{folder}/99-hostile.conf");
        fs::write(&drop_in, text).unwrap();
        systemctl("daemon-reload");
        Self(guest, drop_in)
    }

    /// Starts it as any proxy is started: by a client.
    pub fn runs(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.0.port())).unwrap();
        wait_until("the hostile program to run", SOON, || state_of(&self.0.service()) == "active");
        client
    }

    /// What it wrote, when it has ended.
    pub fn report(&self) -> Report {
        let file = report_of(&self.0.uuid());
        Report(wait_for("the hostile program's report", Duration::from_secs(120), || fs::read_to_string(&file).ok()))
    }
}

impl TakenOver<'_> {
    /// Tells one that goes on until it is told, and waits for its report.
    pub fn ends(&self) -> Report {
        fs::write(enough(&self.0.uuid()), "").unwrap();
        self.report()
    }
}

/// Where this is, the hostile program of that guest has done enough.
fn enough(guest: &str) -> String {
    format!("/run/console-proxy/state/{guest}/enough")
}

impl Drop for TakenOver<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
        // One that asks for more time would hold up the end.
        let (socket, service) = (self.0.socket(), self.0.service());
        let _ =
            try_sh(&format!("systemctl stop --no-block {socket} {service}; systemctl kill --signal=KILL {service}"));
        let _ = try_sh(&format!("systemctl stop {socket} {service}; systemctl daemon-reload"));
        let _ = try_sh(&format!("systemctl reset-failed {}", self.0.service()));
    }
}

#[test]
fn a_hostile_proxy_reaches_its_own_guest_and_nothing_else() {
    let guest = Guest::define("taken").with_vnc().with_pty_serial().started();
    let victim = Guest::define("victim").with_vnc().with_pty_serial().started();
    guest.port();
    let mut session = victim.open("serial/0");
    let proxy = property(&victim.service(), "MainPID");
    let before = journal_cursor();
    let taken = TakenOver::proxy_of(&guest, "attempts", &victim);
    let _client = taken.runs();
    let report = taken.report();
    println!("{}", report.0);

    report.succeeded("the broker, for its own guest");
    report.failed("the broker, for another guest", "denied");
    report.failed("the broker, for a console that its guest has not", "unknown");
    report.failed("the broker, for a recording that nobody asked for", "asks for no recording of serial/0");
    // Closed at once; whether its hello had arrived by then decides which of the two the kernel says.
    report.failed_for_one_of("a second channel to the broker", &["Connection reset", "the broker has hung up"]);
    report.failed("others' recordings", "No such file");
    report.succeeded("its own route");
    report.failed("another guest's route", "No such file");
    report.failed("changing its own route", "ermission denied");
    report.failed("another guest's sessions", "No such file");
    report.succeeded("its own state folder");
    for folder in ["the host's folder of temporary files", "its folder on disk", "the folder of shared memory"] {
        report.failed_for_one_of(folder, &["ermission denied", "No such file"]);
    }
    report.succeeded("its own memory's map");
    report.failed("another proxy's memory", "No such file");
    report.failed("another proxy's descriptors", "Operation not permitted");
    report.failed("a signal to another proxy", "Operation not permitted");
    report.failed("the key that signs tickets", "ermission denied");
    report.failed("the root user's home", "ermission denied");
    report.failed("libvirt's socket", "No such file");
    report.failed("the system bus", "No such file");
    report.failed("the system manager", "No such file");
    for family in ["INET", "INET6", "NETLINK", "PACKET"] {
        report.failed(&format!("a socket of family {family}"), "Address family not supported");
    }
    report.failed("the victim's port", "Address family not supported");
    report.failed("writing to /etc", "Read-only");
    report.failed("writing to /usr", "Read-only");
    report.failed("a terminal of another guest", "ermission denied");
    report.failed("a program with another user's rights", "Operation not permitted");

    assert_eq!(property(&victim.service(), "MainPID"), proxy, "the system manager believes nobody's MAINPID=");
    session.send(b"\n");
    assert!(session.next(Duration::from_secs(1)).is_ok(), "the victim's session goes on");
    let journal = journal_since(&before);
    assert!(journal.contains(&format!("the proxy of {} asked for guest {}", guest.uuid(), victim.uuid())), "{journal}");
}

/// A listener of this host's that says one word to whoever comes.
fn speaks_at(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"reached");
        }
    });
    port
}

/// An address of this host that others would reach; it goes with the test.
struct Outside;

impl Outside {
    const ADDRESS: &str = "192.0.2.77";

    fn made() -> Self {
        sh(&format!("ip addr add {}/32 dev lo", Self::ADDRESS));
        Self
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = try_sh(&format!("ip addr del {}/32 dev lo", Self::ADDRESS));
    }
}

/// Where a guest's display, and the serial port that wiring gave it, are on loopback.
fn loopback_ports(guest: &Guest) -> (u16, u16) {
    let route = format!("/run/console-proxy/guests/{}/route.toml", guest.uuid());
    let route = Route::parse(&fs::read_to_string(route).unwrap()).unwrap();
    let port = |is_wanted: &dyn Fn(Console) -> bool| {
        route.consoles.iter().filter(|way| is_wanted(way.console)).find_map(|way| match way.raw {
            Some(Backend::Tcp(_, port)) => Some(port),
            _ => None,
        })
    };
    let serial = port(&Console::is_text).unwrap_or_else(|| panic!("no serial port of {} is on loopback", guest.name));
    (port(&|console| console == Console::Vnc).unwrap(), serial)
}

/// The guard is away: it would refuse these sockets' packets by their mark, and what is tried here is what comes before.
struct Unguarded;

impl Unguarded {
    fn now() -> Self {
        sh("systemctl mask --runtime --now console-proxy-sync.service; nft delete table inet console_proxy");
        Self
    }
}

impl Drop for Unguarded {
    fn drop(&mut self) {
        let _ = try_sh("systemctl unmask --runtime console-proxy-sync.service; systemctl restart console-proxy-guard");
        let _ = try_sh("systemctl start console-proxy-sync.path console-proxy-sync.service");
    }
}

const SOCKETS: [&str; 3] = ["the backend's", "the client's", "the listener"];

#[test]
fn a_proxy_that_fills_its_folder_takes_nothing_of_the_hosts_and_is_ended() {
    let guest = Guest::define("filler").blank().started();
    let victim = Guest::define("victim").with_vnc().blank().started();
    guest.port();
    victim.port();
    let used = || sh("df --output=used --block-size=1K /run | tail -1").trim().parse::<u64>().unwrap();
    let (before, cursor) = (used(), journal_cursor());
    let taken = TakenOver::proxy_of(&guest, "fill", &victim);
    let client = taken.runs();
    let words = format!("the proxy of {} fills /run/console-proxy/state: its unit is killed", guest.uuid());
    // Each proxy's channel wakes the broker.
    victim.open("vnc").read_until("RFB 003.008\n", SOON);
    wait_until("it to be ended", Duration::from_secs(60), || {
        victim.open("vnc");
        journal_since(&cursor).contains(&words)
    });
    drop(client);
    assert!(used() < before + 8192, "/run: {before} KiB, {} KiB", used());
    let left = || sh(&format!("find /run/console-proxy/state/{} | wc -l", guest.uuid())).trim().parse::<u32>().unwrap();
    wait_until("what it wrote to be removed", Duration::from_secs(60), || left() < 100);
    // Others have room again, and new guests start and are published.
    Guest::define("starts").with_vnc().blank().started().open("vnc").read_until("RFB 003.008\n", SOON);
}

#[test]
fn a_proxy_that_does_not_end_keeps_no_other_guest_from_being_published() {
    let guest = Guest::define("stays").blank().started();
    let victim = Guest::define("victim").with_vnc().blank().started();
    guest.port();
    let taken = TakenOver::proxy_of(&guest, "stay", &victim);
    let _client = taken.runs();
    wait_until("its program to run", SOON, || {
        try_sh(&format!("grep -q python /proc/{}/cmdline", property(&guest.service(), "MainPID"))).is_ok()
    });
    guest.destroy();
    let other = Guest::define("comes-later").with_vnc().blank().started();
    wait_for("the other guest to be published", Duration::from_secs(60), || {
        other.listed().filter(|shown| shown["state"] == "listening")
    });
    other.open("vnc").read_until("RFB 003.008\n", SOON);
    wait_until("it to have ended", Duration::from_secs(60), || state_of(&guest.service()) != "deactivating");
}

#[test]
fn a_socket_that_a_proxy_holds_is_turned_around_by_no_way_that_is_known_once_it_is_caged() {
    let _outside = Outside::made();
    let guest = Guest::define("turning").with_vnc().blank().started();
    let victim = Guest::define("turned-to").with_vnc().done();
    wait_until("the victim to be wired", SOON, || victim.definition().contains("ua-console-proxy"));
    victim.start();
    guest.port();
    victim.port();
    let (vnc, serial) = loopback_ports(&victim);
    assert!((28_000..29_000).contains(&serial), "{serial} is guarded");
    let here = speaks_at("127.0.0.1");
    let outside = speaks_at(Outside::ADDRESS);
    let targets = format!(
        "\"TARGETS=display=127.0.0.1,{vnc};loopback=127.0.0.1,{here};outside={},{outside};serial=127.0.0.1,{serial}\"",
        Outside::ADDRESS
    );
    let _unguarded = Unguarded::now();
    let run = |caged: &str| {
        // The end of one before it stopped it.
        systemctl(&format!("start {}", guest.socket()));
        let taken = TakenOver::proxy_with(&guest, "turn-around", &victim, &format!("CAGED={caged} {targets}"));
        let _client = taken.runs();
        let report = taken.report();
        let _ = fs::remove_file(report_of(&guest.uuid()));
        println!("caged: {caged}\n{}", report.0);
        report
    };
    // What is tried is what works where nothing is forbidden.
    let free = run("no");
    for socket in SOCKETS {
        for way in ["dissolving", "sendto", "sendmsg", "sendmmsg", "more flags", "ulp", "another process"] {
            for target in ["display", "loopback", "outside"] {
                // The backend's comes from 127.0.0.1, from where no packet leads outside.
                if (socket, target) != ("the backend's", "outside") {
                    free.succeeded(&format!("{socket} by {way} to {target}"));
                }
            }
        }
    }
    free.succeeded("the backend's by dissolving to serial");
    let caged = run("yes");
    caged.succeeded("end");
    let reached: Vec<_> = caged.0.lines().filter(|line| !line.contains("! ") && *line != "end: ").collect();
    assert!(reached.is_empty(), "{reached:#?}");
    for line in caged.0.lines().filter(|line| line.contains("! ")) {
        let by = |way: &str| line.contains(&format!(" by {way} to "));
        let why = if by("/proc/self/fd") {
            "No such device"
        } else if by("x32") {
            ""
        } else {
            "Operation not permitted"
        };
        assert!(line.contains(why), "{line}");
    }
    assert_eq!(caged.0.lines().count(), 3 * 4 * 14 + 1, "all was tried");
}

/// Has a running process make system calls on its own sockets, as whoever took it over would: `WAY on N: RESULT ERRNO`.
fn has_it_try(pid: &str, port: u16) -> String {
    use std::fmt::Write;
    let tcp = sh("cat /proc/net/tcp /proc/net/tcp6");
    let is_tcp = |inode: &str| tcp.lines().any(|line| line.split_whitespace().nth(9) == Some(inode));
    let mut script =
        "set confirm off\nset pagination off\nset $m = (char*)((void*(*)(long,long))calloc)(1,128)\n".to_owned();
    let mut call = |what: &str, arguments: &str| {
        let _ = write!(
            script,
            "set $r = ((long(*)(long,long,long,long,long,long,long))syscall)({arguments})\n\
             set $e = *((int*(*)(void))__errno_location)()\nprintf \"{what}: %ld %d\\n\", $r, $e\n"
        );
    };
    let numbers = (libc::SYS_connect, libc::SYS_sendto, libc::SYS_bind, libc::SYS_listen, libc::SYS_socket);
    for file in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let link = fs::read_link(file.path()).unwrap_or_default();
        let Some(inode) = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')) else {
            continue;
        };
        let fd = file.file_name().into_string().unwrap();
        if is_tcp(inode) {
            call(&format!("dissolving on {fd}"), &format!("{}, {fd}, $m, 16, 0, 0, 0", numbers.0));
            call(&format!("sending on {fd}"), &format!("{}, {fd}, $m, 1, 0x20000000, $m + 64, 16", numbers.1));
            call(&format!("binding on {fd}"), &format!("{}, {fd}, $m, 16, 0, 0, 0", numbers.2));
            call(&format!("listening on {fd}"), &format!("{}, {fd}, 5, 0, 0, 0, 0", numbers.3));
        }
    }
    call("making on 0", &format!("{}, 1, 1, 0, 0, 0, 0", numbers.4));
    call("io_uring on 0", &format!("{}, 4, $m, 0, 0, 0, 0", libc::SYS_io_uring_setup));
    // AF_INET, the port, 127.0.0.1.
    let [high, low] = port.to_be_bytes();
    script = script.replacen(
        "(1,128)\n",
        &format!("(1,128)\nset {{short}}($m + 64) = 2\nset {{char}}($m + 66) = {high}\nset {{char}}($m + 67) = {low}\nset {{int}}($m + 68) = 0x100007f\n"),
        1,
    );
    fs::write("/root/e2e.gdb", script).unwrap();
    let said = sh(&format!("gdb -n -q -batch -p {pid} -x /root/e2e.gdb 2>&1"));
    said.lines().filter(|line| line.contains(" on ") && line.contains(": ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_installed_proxy_itself_is_in_its_cage_and_one_by_hand_is_not() {
    let guest = Guest::define("caged").with_vnc().with_tcp_serial(24_477).started();
    guest.wait_to_boot();
    guest.port();
    let here = speaks_at("127.0.0.1");
    // A debugger holds it up for longer than its watchdog would wait.
    let folder = format!("/run/systemd/system/{}.d", guest.service());
    fs::write(format!("{folder}/99-e2e.conf"), "[Service]\nWatchdogSec=0\n").unwrap();
    systemctl("daemon-reload");
    let (mut serial, mut vnc) = (guest.open("serial/0"), guest.open("vnc"));
    vnc.read_until("RFB 003.008\n", SOON);
    serial.command("echo caged $((40 + 2))", "caged 42");
    let pid = property(&guest.service(), "MainPID");
    let tried = has_it_try(&pid, here);
    println!("{tried}");
    // The listening socket, two clients, the display, the serial port.
    assert!(tried.lines().filter(|line| line.starts_with("dissolving")).count() >= 5, "{tried}");
    for line in tried.lines() {
        assert!(line.ends_with(": -1 1"), "EPERM: {line}");
    }
    let status = sh(&format!("grep -E '^(NoNewPrivs|Seccomp|Threads):' /proc/{pid}/status"));
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    serial.command("echo still $((40 + 3))", "still 43");
    assert_eq!(property(&guest.service(), "MainPID"), pid);

    // The same program, the same calls, without a cage: they work.
    sh(&format!("cp /run/console-proxy/guests/{}/route.toml /root/e2e-route.toml", guest.uuid()));
    let by_hand = Running::sh("/usr/sbin/console-proxyd --plain --listen 127.0.0.1:9177 --route /root/e2e-route.toml");
    wait_until("it to listen", SOON, || TcpStream::connect("127.0.0.1:9177").is_ok());
    let tried = has_it_try(&by_hand.0.id().to_string(), here);
    println!("{tried}");
    let worked = |way: &str| tried.lines().any(|line| line.starts_with(way) && !line.contains(": -1 "));
    // 115: it is connecting.
    let sends = tried.lines().any(|line| line.starts_with("sending") && (line.ends_with(" 115") || worked("sending")));
    assert!(worked("dissolving") && sends && worked("making") && worked("io_uring"), "{tried}");
    fs::remove_file(format!("{folder}/99-e2e.conf")).unwrap();
    systemctl("daemon-reload");
}

#[test]
fn a_hostile_proxy_gets_no_other_guests_display_from_libvirt() {
    let guest = Guest::define("taken-display").with_display("vnc-none").with_pty_serial().started();
    let victim = Guest::define("victim-display").with_display("vnc-none").with_pty_serial().started();
    guest.port();
    let _session = victim.open("vnc");
    let taken = TakenOver::proxy_of(&guest, "attempts", &victim);
    let _client = taken.runs();
    let report = taken.report();
    report.succeeded("the broker, for its own guest");
    report.failed("the broker, for another guest", "denied");
    report.failed("libvirt's socket", "No such file");
}

#[test]
fn half_requests_and_floods_of_connections_to_the_broker_do_not_keep_others_waiting() {
    let guest = Guest::define("staller").with_vnc().started();
    let victim = Guest::define("waiter").with_vnc().with_pty_serial().started();
    guest.port();
    let _session = victim.open("vnc");
    let taken = TakenOver::proxy_of(&guest, "stall", &victim);
    let _client = taken.runs();
    let slowest = (0..5)
        .map(|_| {
            // The next proxy wants a channel of its own.
            systemctl(&format!("stop {}", victim.service()));
            let begun = Instant::now();
            victim.open("vnc").read_until("RFB 003.008\n", SOON);
            begun.elapsed()
        })
        .max();
    let report = taken.report();
    println!("{}; slowest: {slowest:?}", report.0);
    report.succeeded("stalled");
    assert!(slowest < Some(Duration::from_secs(3)), "{slowest:?}");
    assert_eq!(state_of("console-proxy-broker.service"), "active");
}

#[test]
fn a_users_own_unit_of_a_proxys_name_is_refused_by_the_broker() {
    let guest = Guest::define("wanted").with_vnc().with_pty_serial().started();
    guest.port();
    // One who may not even knock, and one who was let into the proxies' group by mistake.
    for (name, groups, answer) in
        [("e2e-outside", "", "ermission denied"), ("e2e-inside", "console-proxy", "\"kind\":\"denied\"")]
    {
        let user = User::in_groups(name, groups);
        fs::copy(std::env::current_exe().unwrap(), PROGRAM).unwrap();
        let uid = sh(&format!("id -u {name}"));
        sh(&format!("systemctl start user@{uid}.service"));
        let units = format!("/home/{name}/.config/systemd/user");
        sh(&format!("install -d -o {name} -g {name} {units}"));
        let text = format!(
            "[Service]\nType=oneshot\nExecStart={PROGRAM} --ignored --exact hostile::act --nocapture\n\
             Environment=ACT=ask GUEST=%i REPORT=/home/{name}/report\n"
        );
        fs::write(format!("{units}/console-proxy@.service"), text).unwrap();
        let ask = || {
            let start = format!(
                "env XDG_RUNTIME_DIR=/run/user/{uid} systemctl --user start console-proxy@{}.service",
                guest.uuid()
            );
            user.run(&start).unwrap();
            fs::read_to_string(format!("/home/{name}/report")).unwrap()
        };
        let report = ask();
        assert!(report.contains(answer), "{name}, while no proxy runs: {report}");
        let _session = guest.open("vnc");
        let report = ask();
        assert!(report.contains(answer), "{name}, while one runs: {report}");
        drop(user);
    }
}

#[test]
fn the_broker_answers_no_process_that_is_not_a_proxy_not_even_roots() {
    let guest = Guest::define("asked").with_vnc().with_pty_serial().started();
    guest.port();
    let answer = ask_broker(&guest.uuid(), "vnc", "raw").unwrap_err();
    assert!(answer.contains("denied") && answer.contains("runs in no proxy's unit"), "{answer}");
    let user = User::in_groups("e2e-stranger", "libvirt");
    let said = user.run(&format!("bash -c 'exec 3<>{BROKER}; stat {BROKER}'")).unwrap_err();
    assert!(said.contains("ermission denied"), "{said}");
}

/// Names that libvirt takes and that mean something to a shell, systemd, a terminal, TOML, HTML or JSON.
const NAMES: [&str; 8] = [
    "it's \"quoted\"",
    "100% %n %i %h",
    "<img src=x onerror=alert(1)>&amp;<!--",
    "$(touch e2e-pwned)`touch e2e-pwned`;touch e2e-pwned",
    "back\\slash\\n\\x0aListenStream=1",
    "-rf --all",
    "]]>\t\u{202e}rebmun",
    "имя 虚拟机 🖥",
];

#[test]
fn a_guests_name_is_text_wherever_it_is_shown() {
    for (n, name) in NAMES.iter().enumerate() {
        let uuid = format!("{n:08x}-0000-4000-8000-00000000abcd");
        let template = sh(&format!("define-guest TEMPLATE --vnc --pty --blank --uuid {uuid} --print"));
        let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), template.replace("TEMPLATE", &escaped)).unwrap();
        let Ok(defined) = try_sh(&format!("virsh define {}", file.path().display())) else {
            println!("libvirt refuses the name {name:?}");
            continue;
        };
        // By its UUID from here on: this suite's own shell commands are not what is tested.
        let guest = Guest::existing(&uuid);
        guest.start();
        assert_eq!(guest.state(), "running", "{name:?} ({defined})");
        let shown = wait_for("it to listen", SOON, || {
            let listing: serde_json::Value = serde_json::from_str(&sh("console-proxy list --json")).unwrap();
            let guests = listing["guests"].as_array().unwrap().clone();
            guests.into_iter().find(|shown| shown["uuid"] == uuid.as_str() && shown["state"] == "listening")
        });
        assert_eq!(shown["name"], *name);
        let port = shown["port"].as_u64().unwrap() as u16;
        assert_eq!(sh("console-proxy list").lines().filter(|line| line.contains(&port.to_string())).count(), 1);

        let plain: String =
            name.chars().map(|c| if c.is_control() || c == '\u{202e}' { '\u{fffd}' } else { c }).collect();
        let description = property(&guest.socket(), "Description");
        assert_eq!(description, format!("Consoles of guest {}", plain.replace('\\', "/")));
        assert_eq!(sh(&format!("systemctl show -p Listen {}", guest.socket())), format!("Listen=[::]:{port} (Stream)"));

        let ticket = guest.ticket();
        let mut vnc = Ws::connect(port, "/vnc", &ticket).unwrap();
        vnc.read_until("RFB 003.008\n", SOON);
        let status = property(&guest.service(), "StatusText");
        // systemd drops backslashes from what a service says.
        assert!(status.replace('\\', "").starts_with(&plain.replace('\\', "")), "{status:?} of {name:?}");
        let text = sh(&format!("console-proxy status {uuid}"));
        assert!(text.starts_with(&format!("{plain} ({uuid})\n")), "{text}");
        let about: serde_json::Value = serde_json::from_str(&get(port, "/api/guest", &ticket).1).unwrap();
        assert_eq!(about["name"], *name);
        let (status, page) = get(port, "/", "");
        assert!(status == 200 && !page.contains(&plain), "the page tells nothing of the guest");
        if !name.contains('\'') {
            sh(&format!("console-proxy url -- '{name}'"));
        }
    }
    assert_eq!(sh("find / /root /tmp /run -maxdepth 1 -name e2e-pwned"), "");
    assert_eq!(sh("systemctl list-units --failed --no-legend --plain 'console-proxy*'"), "");
}

fn report_of(guest: &str) -> String {
    format!("/run/console-proxy/state/{guest}/report")
}

/// Asks the broker over a channel of its own.
fn ask_broker(guest: &str, console: &str, part: &str) -> Result<String, String> {
    Channel::open()?.ask(guest, console, part).map(|got| format!("{} descriptors", got.len()))
}

/// What the hostile program does. Not a test: it runs where a test put it.
#[test]
#[ignore = "the hostile program, not a test"]
fn act() {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let (guest, victim) = (of("GUEST"), of("VICTIM"));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let report = match of("ACT").as_str() {
        "turn-around" => turn_around(&guest),
        "greedy" => greedy(&guest),
        "deaf" => deaf(&guest),
        "attempts" => attempts(&guest, &victim, of("VICTIM_PID").parse().unwrap(), of("VICTIM_PORT").parse().unwrap()),
        "stall" => stall(),
        "fill" => fill(&guest),
        "stay" => stay(),
        "ask" => line("the broker", ask_broker(&guest, "vnc", "raw")),
        _ => return,
    };
    let file = std::env::var("REPORT").unwrap_or_else(|_| report_of(&guest));
    // Whole, or not at all: somebody waits for it.
    if report.is_empty() {
        return;
    }
    fs::write(format!("{file}.new"), report).unwrap();
    fs::rename(format!("{file}.new"), file).unwrap();
    std::thread::sleep(Duration::from_secs(2));
}

/// Writes as much as it can, large files and small ones in folders within folders, until it is ended.
fn fill(guest: &str) -> String {
    // Or whoever waits would start the next one.
    let Some(Inherited::Tcp(listener)) = systemd::inherited().unwrap().pop() else { panic!("no listening socket") };
    listener.set_nonblocking(false).unwrap();
    let _client = listener.accept().unwrap();
    let mut folder = std::path::PathBuf::from(format!("/run/console-proxy/state/{guest}"));
    let large = vec![1; 1 << 20];
    for n in 0.. {
        let _ = fs::write(folder.join(format!("large-{n}")), &large);
        if fs::write(folder.join(format!("small-{n}")), "").is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let deeper = folder.join("d");
        if n % 100 == 0 && fs::create_dir(&deeper).is_ok() {
            folder = deeper;
        }
    }
    String::new()
}

/// Does not end when it is told to, and asks the system manager for ten minutes more each time.
fn stay() -> String {
    let program = "import os, signal, socket, time\n\
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        more = lambda *_: manager.sendto(b'EXTEND_TIMEOUT_USEC=600000000', os.environ['NOTIFY_SOCKET'])\n\
        signal.signal(signal.SIGTERM, more)\n\
        while True: time.sleep(0.5); more()";
    let why = std::os::unix::process::CommandExt::exec(Command::new("python3").args(["-c", program]));
    panic!("{why}");
}

fn line(attempt: &str, result: Result<String, String>) -> String {
    match result {
        Ok(got) => format!("{attempt}: {}\n", got.replace('\n', " ")),
        Err(why) => format!("{attempt}! {}\n", why.replace('\n', " ")),
    }
}

fn attempts(guest: &str, victim: &str, pid: i32, port: u16) -> String {
    fn words<T>(result: Result<T, impl std::fmt::Display>) -> Result<String, String> {
        result.map(|_| "it worked".to_owned()).map_err(|why| why.to_string())
    }
    let read = |path: &str| words(fs::File::open(path).and_then(|mut file| file.read(&mut [0; 16])));
    let write =
        |path: &str| words(fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path));
    let connect = |path: &str| words(UnixStream::connect(path));
    let socket = |family, kind| words(rustix::net::socket(family, kind, None));
    let victims = Pid::from_raw(pid).unwrap();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid.unsigned_abs())]);
    let steal = || {
        let process = rustix::process::pidfd_open(victims, PidfdFlags::empty())?;
        rustix::process::pidfd_getfd(&process, 3, PidfdGetfdFlags::empty())
    };
    let suid = || {
        let file = format!("/run/console-proxy/state/{guest}/suid");
        fs::write(&file, "")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755))
    };
    let run = "/run/console-proxy/guests";
    let mut channel = Channel::open();
    let mut ask_broker = |guest: &str, console: &str, part: &str| {
        let channel = channel.as_mut().map_err(|why| why.clone())?;
        channel.ask(guest, console, part).map(|got| format!("{} descriptors", got.len()))
    };
    [
        ("the broker, for its own guest", ask_broker(guest, "vnc", "raw")),
        ("the broker, for another guest", ask_broker(victim, "vnc", "raw")),
        ("the broker, for a console that its guest has not", ask_broker(guest, "serial/3", "raw")),
        ("the broker, for a recording that nobody asked for", ask_broker(guest, "serial/0", "recording")),
        ("a second channel to the broker", Channel::open().map(|_| "it is greeted".to_owned())),
        ("others' recordings", words(fs::read_dir("/var/lib/console-proxy/recordings"))),
        ("its own route", read(&format!("{run}/{guest}/route.toml"))),
        ("another guest's route", read(&format!("{run}/{victim}/route.toml"))),
        ("changing its own route", write(&format!("{run}/{guest}/route.toml"))),
        ("another guest's sessions", words(fs::read_dir(format!("/run/console-proxy/state/{victim}")))),
        ("its own state folder", write(&format!("/run/console-proxy/state/{guest}/x"))),
        ("the host's folder of temporary files", write("/tmp/x")),
        ("its folder on disk", write("/var/tmp/x")),
        ("the folder of shared memory", write("/dev/shm/x")),
        ("its own memory's map", read("/proc/self/maps")),
        ("another proxy's memory", read(&format!("/proc/{pid}/mem"))),
        ("another proxy's descriptors", words(steal())),
        ("a signal to another proxy", words(rustix::process::kill_process(victims, Signal::TERM))),
        ("the key that signs tickets", read("/etc/console-proxy/signing/host.pem")),
        ("the root user's home", words(fs::read_dir("/root"))),
        ("libvirt's socket", connect("/run/libvirt/libvirt-sock")),
        ("the system bus", connect("/run/dbus/system_bus_socket")),
        ("the system manager", connect("/run/systemd/private")),
        ("a socket of family INET", socket(AddressFamily::INET, SocketType::STREAM)),
        ("a socket of family INET6", socket(AddressFamily::INET6, SocketType::STREAM)),
        ("a socket of family NETLINK", socket(AddressFamily::NETLINK, SocketType::RAW)),
        ("a socket of family PACKET", socket(AddressFamily::PACKET, SocketType::RAW)),
        ("the victim's port", words(TcpStream::connect(("127.0.0.1", port)))),
        ("writing to /etc", write("/etc/e2e-hostile")),
        ("writing to /usr", write("/usr/bin/e2e-hostile")),
        ("a terminal of another guest", write(&std::env::var("VICTIM_PTY").unwrap())),
        ("a program with another user's rights", words(suid())),
    ]
    .into_iter()
    .map(|(attempt, result)| line(attempt, result))
    .collect()
}

/// As many connections as it gets, each with nothing, half a message or no request, for some seconds.
fn stall() -> String {
    let begun = Instant::now();
    let (mut open, mut made) = (Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(6) {
        let Ok(socket) = passing::connect(BROKER.as_ref()) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        for message in [&b"{\"hello\":{\"version\":2}"[..], b"{\"hello\":{\"version\":2}}", b""].iter().skip(made % 3) {
            let _ = passing::send(&socket, message, &[]);
        }
        made += 1;
        open.push(socket);
        if open.len() > 200 {
            open.remove(0);
        }
    }
    line("stalled", Ok(format!("with {made} connections")))
}

/// Holds sockets of all three kinds, enters the cage where it is told to, and has a program try to turn them around.
fn turn_around(guest: &str) -> String {
    let mut channel = Channel::open().unwrap();
    let backend = channel.ask(guest, "vnc", "raw").unwrap().remove(0);
    let Some(Inherited::Tcp(listener)) = systemd::inherited().unwrap().pop() else { panic!("no listening socket") };
    listener.set_nonblocking(false).unwrap();
    let (client, _) = listener.accept().unwrap();
    if std::env::var("CAGED").unwrap() == "yes" {
        cage::restrict().unwrap();
    }
    // What is tried takes no library of ours: a program that takes a proxy over brings its own.
    let mut program = Command::new("/usr/bin/python3");
    program.args(["-c", include_str!("turn-around.py"), &report_of(guest)]);
    program.args(std::env::var("TARGETS").unwrap().split(';'));
    program.stdin(backend).stdout(OwnedFd::from(client)).stderr(OwnedFd::from(listener));
    program.status().unwrap();
    String::new()
}

/// Asks for connections to log in by without end, says nothing over them, and opens connections to the broker.
fn greedy(guest: &str) -> String {
    let enough = enough(guest);
    let goes_on = || !std::path::Path::new(&enough).exists();
    let mut channel = Channel::open().unwrap();
    let knocking = || {
        let mut knocks = 0;
        while goes_on() {
            for _ in 0..100 {
                knocks += usize::from(Channel::knock().is_ok());
            }
        }
        knocks
    };
    std::thread::scope(|scope| {
        let knocking = [scope.spawn(knocking), scope.spawn(knocking)];
        let (mut asked, mut held) = (0, std::collections::VecDeque::new());
        while goes_on() {
            asked += usize::from(channel.send(guest, "", "login").is_ok());
            while let Ok((_, descriptors)) = channel.hear(Duration::from_millis(1)) {
                held.extend(descriptors);
                held.drain(..held.len().saturating_sub(500));
            }
        }
        let knocks: usize = knocking.into_iter().map(|thread| thread.join().unwrap()).sum();
        format!("asked: {asked} times, {} connections held\nknocked: {knocks} times\n", held.len())
    })
}

/// Answers the watchdog, and reads next to nothing of the serial port that it has.
fn deaf(guest: &str) -> String {
    // Or whoever waits would start the next one.
    let Some(Inherited::Tcp(listener)) = systemd::inherited().unwrap().pop() else { panic!("no listening socket") };
    listener.set_nonblocking(false).unwrap();
    let _client = listener.accept().unwrap();
    let mut channel = Channel::open().unwrap();
    let mut port = fs::File::from(channel.ask(guest, "serial/0", "raw").unwrap().remove(0));
    rustix::io::ioctl_fionbio(&port, true).unwrap();
    // So that the kernel keeps little for it; a terminal has no such thing.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&port, 2048);
    match std::env::var("GIVES_BACK").unwrap().as_str() {
        "yes" => channel.release(1, "serial/0"),
        // A real proxy's cage forbids that.
        "shut" => rustix::termios::ioctl_tiocexcl(&port).unwrap(),
        _ => {}
    }
    loop {
        systemd::alive();
        let _ = port.read(&mut [0]);
        std::thread::sleep(Duration::from_millis(200));
    }
}
