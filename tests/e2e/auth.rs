//! Passwords of this host's users, with real PAM: who enters, who does not, and modules that do odd things.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::host::{
    Guest, Replaced, Running, SOON, User, journal_cursor, journal_since, property, sh, state_of, systemctl, try_sh,
    wait_for, wait_until,
};
use crate::hostile::TakenOver;
use crate::ws::{Session, Ws, ask};

/// What a guest's port answers to a user and a password, as a page sends them: status, head and body.
#[track_caller]
pub fn log_in(port: u16, user: &str, password: &str) -> (u16, String, String) {
    let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
    ask(
        port,
        &format!(
            "POST /api/session HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n\
             Authorization: Basic {basic}\r\n"
        ),
    )
}

/// The session that a password buys.
#[track_caller]
pub fn enter(port: u16, user: &str, password: &str) -> Session {
    Session::of(&log_in(port, user, password))
}

/// A console as a page with that session opens it.
#[track_caller]
pub fn open(port: u16, console: &str, session: &Session) -> Ws {
    let origin = format!("https://localhost:{port}");
    let [cookie, secret] = session.headers();
    Ws::connect_with(port, &format!("/{console}"), "", &[cookie, secret, ("origin", &origin)]).unwrap()
}

/// The same with curl, which waits longer, and comes from another of this host's addresses: the body and the status.
fn log_in_from(address: &str, port: u16, user: &str, password: &str) -> String {
    sh(&format!(
        "curl -sk -m 60 --interface {address} -w '%{{http_code}}' -X POST -H 'Origin: https://localhost:{port}' \
         -u '{user}:{password}' https://localhost:{port}/api/session"
    ))
}

/// A user with a password who may open consoles, on a host that has counted no failures.
#[track_caller]
pub fn person(name: &'static str, password: &str) -> User {
    forget();
    let user = User::in_groups(name, "libvirt");
    sh(&format!("echo '{name}:{password}' | chpasswd"));
    user
}

/// Forgets all failures; what earlier tests did is none of the next one's.
pub fn forget() {
    let _ = fs::remove_file("/run/console-proxy/failures/counts");
}

const SERVICE: &str = "/etc/pam.d/console-proxy";

/// The host's own rules, with the odd module of `tests/pam` before them.
#[track_caller]
fn with_odd_module(does: &str) -> Replaced {
    let source = Path::new("/root/odd.c");
    fs::write(source, include_str!("../pam/odd.c")).unwrap();
    sh("cc -Wall -shared -fPIC -o /usr/local/lib/pam_odd.so /root/odd.c -lpam");
    let rules = fs::read_to_string(SERVICE).unwrap();
    // `sufficient`: what it says counts, where it says anything.
    let control = if does == "become-root" { "sufficient" } else { "requisite" };
    Replaced::by_script(SERVICE, &format!("auth {control} /usr/local/lib/pam_odd.so {does}\n{rules}"))
}

#[test]
fn a_user_of_this_host_enters_with_their_password_and_has_the_serial_console() {
    let guest = Guest::define("pam").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let _ann = person("e2e-ann", "Anns secret: ünï");
    let session = enter(port, "e2e-ann", "Anns secret: ünï");
    open(port, "serial/0", &session).command("echo $((6 * 7)) is right", "42 is right");
    let (status, _, words) = log_in(port, "e2e-ann", "wrong");
    let (unknown, _, same) = log_in(port, "e2e-nobody", "wrong");
    assert_eq!((status, unknown, &words), (401, 401, &same), "nobody is told which it was");
    let _bob = User::in_groups("e2e-bob", "");
    sh("echo 'e2e-bob:secret' | chpasswd");
    let (status, _, words) = log_in(port, "e2e-bob", "secret");
    assert!(status == 403 && words.contains("no right"), "{status} {words}");
}

#[test]
fn accounts_that_expired_are_barred_after_the_right_password_alone_and_locked_ones_are_wrong() {
    let guest = Guest::define("expired").with_vnc().blank().started();
    let port = guest.port();
    let _ann = person("e2e-ann", "secret");
    sh("chage -E 0 e2e-ann");
    let (status, _, words) = log_in(port, "e2e-ann", "secret");
    assert!(status == 403 && words.contains("the account may not be used"), "{status} {words}");
    assert_eq!(log_in(port, "e2e-ann", "wrong").0, 401);
    sh("chage -E -1 -d 0 e2e-ann");
    let (status, _, words) = log_in(port, "e2e-ann", "secret");
    assert!(status == 403 && words.contains("the password has expired"), "{status} {words}");
    sh("chage -d $(($(date +%s) / 86400)) e2e-ann; passwd -q -l e2e-ann");
    assert_eq!(log_in(port, "e2e-ann", "secret").0, 401);
    sh("passwd -q -u e2e-ann");
    assert_eq!(log_in(port, "e2e-ann", "secret").0, 200);
}

#[test]
fn roots_right_password_is_refused_whatever_its_name_and_before_pam_is_asked() {
    let guest = Guest::define("noroot").with_vnc().blank().started();
    let port = guest.port();
    let _odd = person("e2e-odd", "secret");
    let shadow = sh("getent shadow root | cut -d: -f2");
    sh(
        "echo root:secret | chpasswd; useradd --no-create-home --non-unique --uid 0 e2e-toor; echo e2e-toor:secret | chpasswd",
    );
    let cursor = journal_cursor();
    let answers: Vec<_> = ["root", "e2e-toor"].map(|user| log_in(port, user, "secret")).into();
    let asked = journal_since(&cursor);
    // Not userdel: processes of that user run.
    sh(&format!("sed -i /^e2e-toor:/d /etc/passwd /etc/shadow; usermod -p '{shadow}' root; groupdel e2e-toor || true"));
    for (status, _, words) in answers {
        assert!(status == 403 && words.contains("root does not log in here"), "{status} {words}");
    }
    assert!(!asked.contains("pam_"), "PAM was not asked:\n{asked}");
    let _module = with_odd_module("become-root");
    let (status, _, words) = log_in(port, "e2e-odd", "secret");
    assert!(
        status == 403 && words.contains("root does not log in here"),
        "a module made root of them: {status} {words}"
    );
}

#[test]
fn names_and_passwords_that_nobody_has_are_just_wrong() {
    let guest = Guest::define("badnames").with_vnc().blank().started();
    let port = guest.port();
    let _ann = person("e2e-ann", "secret");
    let long = "a".repeat(3000);
    for (user, password) in [
        ("e2e ann", "secret"),
        ("e2e-ann\n", "secret"),
        ("e2e-ann\0", "secret"),
        ("e2e-ann", "secret\0"),
        ("e2e-ann", ""),
        ("", "secret"),
        ("ünï", "secret"),
        ("e2e-ann:", "secret"),
        (&long, "secret"),
        ("e2e-ann", &long),
        ("../../etc/shadow", "secret"),
    ] {
        let (status, _, words) = log_in(port, user, password);
        assert!(matches!(status, 400 | 401), "{user:?}: {status} {words}");
    }
    // Too long for a header at all.
    let (status, ..) = log_in(port, &"a".repeat(10_000), "secret");
    assert!(matches!(status, 401 | 431), "{status}");
    forget();
    assert_eq!(log_in(port, "e2e-ann", "secret").0, 200);
}

#[test]
fn while_a_module_hangs_others_log_in_and_the_one_who_waits_is_told() {
    let guest = Guest::define("hang").with_vnc().blank().started();
    let port = guest.port();
    let (_ann, _odd) = (person("e2e-ann", "secret"), person("e2e-odd", "secret"));
    let _module = with_odd_module("hang");
    let waiting = thread::spawn(move || log_in_from("127.0.0.1", port, "e2e-odd", "secret"));
    wait_until("the module to be asked", SOON, || try_sh("pgrep -f 'console-proxy-auth --check'").is_ok());
    for _ in 0..3 {
        assert_eq!(log_in(port, "e2e-ann", "secret").0, 200);
        assert!(!waiting.is_finished(), "the other one still waits");
    }
    let answer = waiting.join().unwrap();
    assert!(answer.ends_with("503") && answer.contains("cannot be checked now"), "{answer}");
    wait_until("nothing to be left", SOON, || try_sh("pgrep -f 'console-proxy-auth'").is_err());
}

#[test]
fn a_module_that_prints_crashes_ends_or_asks_for_more_is_nobodys_wrong_password() {
    let guest = Guest::define("odd").with_vnc().blank().started();
    let port = guest.port();
    let (_ann, _odd) = (person("e2e-ann", "secret"), person("e2e-odd", "secret"));
    for does in ["crash", "exit"] {
        let _module = with_odd_module(does);
        // More often than wrong passwords may be: nothing is counted.
        for _ in 0..12 {
            let (status, _, words) = log_in(port, "e2e-odd", "secret");
            assert!(status == 503 && words.contains("cannot be checked now"), "{does}: {status} {words}");
        }
        assert_eq!(log_in(port, "e2e-ann", "secret").0, 200, "{does}");
    }
    for does in ["ask", "login"] {
        let _module = with_odd_module(does);
        // Some modules ask after a right password alone: who counted such tries as none would help to guess it.
        for _ in 0..10 {
            let (status, _, words) = log_in(port, "e2e-odd", "secret");
            assert!(status == 503 && words.contains("cannot be checked now"), "{does}: {status} {words}");
        }
        assert_eq!(log_in(port, "e2e-odd", "secret").0, 429, "{does}");
        assert_eq!(log_in(port, "e2e-ann", "secret").0, 200, "{does}");
        forget();
    }
    let _module = with_odd_module("print");
    assert_eq!(log_in(port, "e2e-odd", "wrong").0, 401, "what a module prints is no answer");
    assert_eq!(log_in(port, "e2e-odd", "secret").0, 200);
    assert_eq!(sh("systemctl list-units --failed --no-legend --plain 'console-proxy-auth*'"), "");
}

#[test]
fn wrong_passwords_block_their_address_for_that_user_over_all_guests_and_the_proxys_end_and_nobody_else() {
    let (guest, second) =
        (Guest::define("guessed").with_vnc().blank().started(), Guest::define("guessed2").with_vnc().blank().started());
    let (port, other) = (guest.port(), second.port());
    let (_ann, _bob) = (person("e2e-ann", "secret"), person("e2e-bob", "secret"));
    // Five at once at each: each waits for PAM. At one guest alone half of the limit can be used up.
    for at in [port, other] {
        let tries: Vec<_> = (0..5).map(|_| thread::spawn(move || log_in(at, "e2e-ann", "wrong").0)).collect();
        for one in tries {
            assert_eq!(one.join().unwrap(), 401);
        }
    }
    let limited = |port| {
        let (status, head, words) = log_in(port, "e2e-ann", "secret");
        let head = head.to_ascii_lowercase();
        assert!(status == 429 && head.contains("retry-after: ") && words.contains("try again in"), "{head}\n{words}");
    };
    limited(port);
    limited(other);
    systemctl(&format!("stop {}", guest.service()));
    limited(port);
    assert!(log_in_from("127.0.0.2", port, "e2e-ann", "secret").ends_with("200"), "the right password from elsewhere");
    assert_eq!(log_in(port, "e2e-bob", "secret").0, 200, "another user from the same address");
    let kept = sh(
        "cat /run/console-proxy/failures/counts; stat -c %a:%U /run/console-proxy/failures /run/console-proxy/failures/counts",
    );
    assert!(!kept.contains("e2e-ann") && !kept.contains("127.0.0") && kept.contains("700:root\n600:root"), "{kept}");
    forget();
}

#[test]
fn a_flood_of_wrong_passwords_over_several_guests_ports_is_not_looked_at_and_keeps_nobody_out() {
    let guests = ["flooded1", "flooded2", "flooded3"].map(|name| Guest::define(name).with_vnc().blank().started());
    let ports = guests.each_ref().map(Guest::port);
    let _ann = person("e2e-ann", "secret");
    let urls: String = (0..600).map(|n| format!("https://localhost:{}/api/guest\n", ports[n % 3])).collect();
    fs::write("/tmp/flood", urls).unwrap();
    let flood = thread::spawn(|| {
        sh(
            "xargs -P 24 -n 1 curl -sk -m 60 -o /dev/null -w '%{http_code}\\n' --interface 127.0.0.3 -u e2e-ann:wrong </tmp/flood \
            | sort | uniq -c",
        )
    });
    let mut entered = 0;
    while !flood.is_finished() {
        let answer = log_in_from("127.0.0.2", ports[entered % 3], "e2e-ann", "secret");
        assert!(answer.ends_with("200"), "the right password from elsewhere: {answer}");
        entered += 1;
    }
    let counts = flood.join().unwrap();
    assert!(entered > 3, "{entered} log-ins meanwhile");
    let of = |status: &str| {
        let line = counts.lines().find(|line| line.trim().ends_with(status));
        line.map_or(0, |line| line.split_whitespace().next().unwrap().parse::<u32>().unwrap())
    };
    assert_eq!((of(" 401"), of(" 401") + of(" 429")), (10, 600), "{counts}");
}

/// `pam_faillock` in the account phase takes whoever passes it for somebody who logged in.
#[test]
fn a_look_at_who_is_there_leaves_the_hosts_own_count_of_failures_as_it_is() {
    const STILL: &str = "/etc/pam.d/console-proxy-still";
    let guest = Guest::define("tally").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let _ann = person("e2e-ann", "secret");
    let _counts = Replaced::by_script(
        SERVICE,
        "auth required pam_faillock.so preauth silent deny=9\nauth sufficient pam_unix.so\n\
         auth [default=die] pam_faillock.so authfail deny=9\n\
         account required pam_faillock.so\n@include common-account\n",
    );
    let session = enter(port, "e2e-ann", "secret");
    let mut serial = open(port, "serial/0", &session);
    for _ in 0..3 {
        assert_eq!(log_in(port, "e2e-ann", "wrong").0, 401);
    }
    let tally = || sh("faillock --user e2e-ann | grep -c ' V$' || true");
    assert_eq!(tally(), "3");
    // Has it look at once.
    sh("console-proxy publish tally");
    serial.command("echo $((6 * 7)) is right", "42 is right");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(tally(), "3", "nobody logged in");
    // What would become of it by a service that counts.
    let rules = fs::read_to_string(STILL).unwrap();
    let _counts_looks = Replaced::by_script(STILL, &format!("account required pam_faillock.so\n{rules}"));
    sh("console-proxy publish tally");
    wait_until("a look at the count", SOON, || tally() == "0");
    forget();
}

/// One that was taken over asks for connections without end, says nothing over them, and knocks at the broker's door all
/// the while; two more programs of this host compute without end.
#[test]
fn a_proxy_that_takes_all_connections_that_it_can_get_keeps_nobody_elsewhere_from_logging_in() {
    let _busy = [Running::sh("yes"), Running::sh("yes")];
    let (taken, guest) =
        (Guest::define("greedy").with_vnc().blank().started(), Guest::define("modest").with_vnc().blank().started());
    taken.port();
    let port = guest.port();
    let _ann = person("e2e-ann", "secret");
    let greedy = TakenOver::proxy_of(&taken, "greedy", &guest);
    let _client = greedy.runs();
    let held = || property("console-proxy-auth.socket", "NConnections").parse::<u32>().unwrap();
    wait_until("it to hold its share", SOON, || held() >= 32);
    let mut took = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(log_in(port, "e2e-ann", "secret").0, 200);
        took.push(began.elapsed());
        // Its share, as much again that has ended and the manager has not seen end yet, and the login.
        let held = held();
        assert!(held <= 2 * 32 + 1, "{held} connections");
    }
    // And a guest that starts now is published, its proxy gets a channel, and asks.
    let began = Instant::now();
    let late = Guest::define("late").with_vnc().blank().started();
    // With two programs that compute, and this flood, even libvirt takes its time.
    let late_port = wait_for("the new guest to listen", Duration::from_secs(90), || {
        let shown = late.listed().filter(|shown| shown["state"] == "listening")?;
        Some(shown["port"].as_u64().unwrap() as u16)
    });
    let published = began.elapsed();
    assert_eq!(log_in(late_port, "e2e-ann", "secret").0, 200);
    let report = greedy.ends();
    println!(
        "logins took {took:?}; a new guest listened after {published:?}, and let in after {:?}\n{}",
        began.elapsed(),
        report.0
    );
    report.succeeded("asked");
    report.succeeded("knocked");
    drop(greedy);
    wait_until("all to be free again", SOON, || held() == 0);
    forget();
}

#[test]
fn nobody_but_a_guests_proxy_is_told_anything_of_a_password() {
    let guest = Guest::define("asked").with_vnc().blank().started();
    let uuid = guest.uuid();
    let ann = person("e2e-ann", "secret");
    let question = format!(
        "{{\"version\":1,\"guest\":\"{uuid}\",\"user\":\"e2e-ann\",\"question\":{{\"password\":{{\"password\":\"secret\",\"from\":\"\"}}}}}}\n"
    );
    // One message of `SOCK_SEQPACKET`; before it is known who says it, nothing else is heard.
    let login = "{\"hello\":{\"version\":2}}".to_owned();
    for (file, text) in [("bare", question.clone()), ("said", format!("{uuid}\n{question}")), ("login", login)] {
        fs::write(format!("/tmp/e2e-{file}"), text).unwrap();
    }
    let ask = |who: &str, file: &str| {
        let kind = if who == "broker" { ",type=5" } else { "" };
        format!("socat -t20 - UNIX-CONNECT:/run/console-proxy/{who}/socket{kind} </tmp/e2e-{file}")
    };
    for file in ["bare", "said"] {
        let answer = sh(&ask("auth", file));
        assert!(answer.contains("\"verdict\":\"denied\"") && answer.contains("not how the broker says"), "{answer}");
    }
    let answer = sh(&ask("broker", "login"));
    assert!(answer.contains("\"kind\":\"denied\""), "a shell of root's: {answer}");
    // A user's own systemd runs a unit of the proxy's name, and somebody let them at the sockets of proxies.
    sh("usermod -aG console-proxy e2e-ann");
    assert!(ann.run(&format!("bash -c '{}'", ask("auth", "bare"))).unwrap_err().contains("Permission denied"));
    let uid = sh("id -u e2e-ann");
    systemctl(&format!("start user@{uid}.service"));
    let unit = format!("console-proxy@{uuid}.service");
    let run = ann.run(&format!(
        "env XDG_RUNTIME_DIR=/run/user/{uid} systemd-run --user --quiet --wait --unit={unit} bash -c '{} >/tmp/e2e-answer'",
        ask("broker", "login")
    ));
    systemctl(&format!("stop user@{uid}.service"));
    let answer = fs::read_to_string("/tmp/e2e-answer").unwrap_or_default();
    sh("rm -f /tmp/e2e-answer /tmp/e2e-bare /tmp/e2e-said /tmp/e2e-login");
    assert!(answer.contains("\"kind\":\"denied\""), "{run:?}: {answer}");
    assert_eq!(state_of(&unit), "inactive", "the guest's own proxy has not been started");
    assert_eq!(property("console-proxy-auth.socket", "NConnections"), "0");
}
