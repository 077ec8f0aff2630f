//! A proxy that was taken over, a user who wants more than is theirs, and names that are not just names.
//!
//! The hostile program is this suite's own binary ([`act`]), put in a proxy's place by a drop-in: what it runs in is
//! the installed unit's sandbox, and nothing else is different.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};

use crate::host::{
    Guest, SOON, User, journal_cursor, journal_since, property, sh, state_of, systemctl, try_sh, wait_for, wait_until,
};
use crate::ws::{Ws, get};

const BROKER: &str = "/run/console-proxy/broker/socket";
const PROGRAM: &str = "/usr/local/sbin/e2e-hostile";

/// What the hostile program tried, and what became of it: a line each, `name: what it got` or `name! why not`.
struct Report(String);

impl Report {
    #[track_caller]
    fn succeeded(&self, attempt: &str) {
        assert!(self.0.lines().any(|line| line.starts_with(&format!("{attempt}: "))), "{attempt}, in:\n{}", self.0);
    }

    #[track_caller]
    fn failed(&self, attempt: &str, why: &str) {
        let line = self.0.lines().find_map(|line| line.strip_prefix(attempt)).unwrap_or_default();
        assert!(line.starts_with("! ") && line.contains(why), "{attempt} should fail for {why:?}, in:\n{}", self.0);
    }
}

/// This suite's binary in the place of a guest's proxy.
struct TakenOver<'a>(&'a Guest, String);

impl<'a> TakenOver<'a> {
    fn proxy_of(guest: &'a Guest, act: &str, victim: &Guest) -> Self {
        fs::copy(std::env::current_exe().unwrap(), PROGRAM).unwrap();
        let folder = format!("/run/systemd/system/{}.d", guest.service());
        let text = format!(
            "[Service]\nExecStart=\nExecStart={PROGRAM} --ignored --exact hostile::act --nocapture\nRestart=no\n\
             Environment=ACT={act} GUEST={} VICTIM={} VICTIM_PID={} VICTIM_PORT={} VICTIM_PTY={}\n",
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
    fn runs(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.0.port())).unwrap();
        wait_until("the hostile program to run", SOON, || state_of(&self.0.service()) == "active");
        client
    }

    /// What it wrote, when it has ended.
    fn report(&self) -> Report {
        let file = format!("/run/console-proxy/guests/{}/state/report", self.0.uuid());
        Report(wait_for("the hostile program's report", Duration::from_secs(15), || fs::read_to_string(&file).ok()))
    }
}

impl Drop for TakenOver<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
        let _ = try_sh(&format!("systemctl stop {} {}; systemctl daemon-reload", self.0.socket(), self.0.service()));
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
    report.failed("others' recordings", "No such file");
    report.succeeded("its own route");
    report.failed("another guest's route", "No such file");
    report.failed("changing its own route", "ermission denied");
    report.failed("another guest's sessions", "No such file");
    report.succeeded("its own state folder");
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
fn half_requests_to_the_broker_do_not_keep_others_waiting() {
    let guest = Guest::define("staller").with_vnc().started();
    let victim = Guest::define("waiter").with_vnc().with_pty_serial().started();
    guest.port();
    let _session = victim.open("vnc");
    let taken = TakenOver::proxy_of(&guest, "stall", &victim);
    let _client = taken.runs();
    let slowest = (0..5)
        .map(|_| {
            let begun = Instant::now();
            victim.open("vnc").read_until("RFB 003.008\n", SOON);
            std::thread::sleep(Duration::from_millis(300));
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
    let answer = ask_broker(&guest.uuid(), "vnc").unwrap_err();
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

/// Asks the broker; the descriptor that may come along is not received. The answer when it is none of refusal.
fn ask_broker(guest: &str, console: &str) -> Result<String, String> {
    ask_broker_for(guest, console, "raw")
}

fn ask_broker_for(guest: &str, console: &str, part: &str) -> Result<String, String> {
    let words = |why: std::io::Error| why.to_string();
    let mut broker = UnixStream::connect(BROKER).map_err(words)?;
    broker.set_read_timeout(Some(SOON)).map_err(words)?;
    let request = format!("{{\"version\":1,\"guest\":\"{guest}\",\"console\":\"{console}\",\"part\":\"{part}\"}}\n");
    // Whoever is refused may have the answer before the question has gone out.
    let _ = broker.write_all(request.as_bytes());
    let mut answer = String::new();
    BufReader::new(broker).read_line(&mut answer).map_err(words)?;
    if answer.contains("refusal") { Err(answer.trim().to_owned()) } else { Ok(answer.trim().to_owned()) }
}

/// What the hostile program does. Not a test: it runs where a test put it.
#[test]
#[ignore = "the hostile program, not a test"]
fn act() {
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let (guest, victim) = (of("GUEST"), of("VICTIM"));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let report = match of("ACT").as_str() {
        "attempts" => attempts(&guest, &victim, of("VICTIM_PID").parse().unwrap(), of("VICTIM_PORT").parse().unwrap()),
        "stall" => stall(),
        "ask" => line("the broker", ask_broker(&guest, "vnc")),
        _ => return,
    };
    let file = std::env::var("REPORT").unwrap_or_else(|_| format!("/run/console-proxy/guests/{guest}/state/report"));
    // Whole, or not at all: somebody waits for it.
    fs::write(format!("{file}.new"), report).unwrap();
    fs::rename(format!("{file}.new"), file).unwrap();
    std::thread::sleep(Duration::from_secs(2));
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
        let file = format!("/run/console-proxy/guests/{guest}/state/suid");
        fs::write(&file, "")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755))
    };
    let run = "/run/console-proxy/guests";
    [
        ("the broker, for its own guest", ask_broker(guest, "vnc")),
        ("the broker, for another guest", ask_broker(victim, "vnc")),
        ("the broker, for a console that its guest has not", ask_broker(guest, "serial/3")),
        ("the broker, for a recording that nobody asked for", ask_broker_for(guest, "serial/0", "recording")),
        ("others' recordings", words(fs::read_dir("/var/lib/console-proxy/recordings"))),
        ("its own route", read(&format!("{run}/{guest}/route.toml"))),
        ("another guest's route", read(&format!("{run}/{victim}/route.toml"))),
        ("changing its own route", write(&format!("{run}/{guest}/route.toml"))),
        ("another guest's sessions", words(fs::read_dir(format!("{run}/{victim}/state")))),
        ("its own state folder", write(&format!("{run}/{guest}/state/x"))),
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

/// As many connections as one caller may have, each with half a request, for some seconds.
fn stall() -> String {
    let begun = Instant::now();
    let (mut open, mut made) = (Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(6) {
        open.retain(|stream: &UnixStream| stream.take_error().is_ok());
        while open.len() < 40 {
            let Ok(mut stream) = UnixStream::connect(BROKER) else { break };
            let _ = stream.write_all(b"{\"version\":1,");
            made += 1;
            open.push(stream);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    line("stalled", Ok(format!("with {made} connections")))
}
