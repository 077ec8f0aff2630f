//! A guest's text console in a terminal: on the host, and by ssh through a real sshd.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::host::{
    Guest, Running, SOON, User, exists, journal_cursor, journal_since, property, sh, systemctl, try_sh, wait_until,
};
use crate::ws::Ws;

const SNIPPET: &str = "/etc/ssh/sshd_config.d/console-proxy.conf";
const KEYS: &str = "/etc/console-proxy/ssh/authorized_keys";

/// This host's sshd with its own configuration and, as the documentation says it, our snippet. It ends with the test.
struct Sshd {
    _process: Running,
}

impl Sshd {
    /// `keys`: lines of the list of keys, with `KEY` for the test's own key.
    #[track_caller]
    fn started(keys: &str) -> Self {
        Self::started_with(keys, "")
    }

    /// The same with further settings of sshd, which come before the snippet.
    #[track_caller]
    fn started_with(keys: &str, more: &str) -> Self {
        let _ = fs::remove_file("/root/e2e-key");
        sh("ssh-keygen -q -t ed25519 -N '' -C '' -f /root/e2e-key; mkdir -p /run/sshd");
        let key = fs::read_to_string("/root/e2e-key.pub").unwrap();
        fs::write(KEYS, keys.replace("KEY", key.trim()) + "\n").unwrap();
        sh(&format!("install -D -m 644 /usr/share/console-proxy/sshd.conf {SNIPPET}"));
        fs::write("/etc/ssh/sshd_config.d/00-e2e.conf", more).unwrap();
        let process = Running::sh("/usr/sbin/sshd -D -o Port=2222 -o ListenAddress=127.0.0.1 -o PidFile=none");
        wait_until("sshd to listen", SOON, || try_sh("ss -Hltn 'sport = :2222' | grep -q .").is_ok());
        Self { _process: process }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for file in [SNIPPET, "/etc/ssh/sshd_config.d/00-e2e.conf", KEYS, "/root/e2e-key", "/root/e2e-key.pub"] {
            let _ = fs::remove_file(file);
        }
    }
}

/// `ssh OPTIONS console@127.0.0.1 WORDS`, as one line of shell.
fn ssh(options: &str, words: &str) -> String {
    format!(
        "ssh -F none -p 2222 -i /root/e2e-key -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {options} console@127.0.0.1 {words}"
    )
}

/// A program in a terminal of its own, at whose keyboard we sit.
struct Screen {
    program: Child,
    text: Arc<Mutex<String>>,
}

impl Screen {
    #[track_caller]
    fn of(command: &str) -> Self {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut program = shell.spawn().unwrap();
        let text = Arc::<Mutex<String>>::default();
        let (out, err) = (program.stdout.take().unwrap(), program.stderr.take().unwrap());
        for mut stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let text = Arc::clone(&text);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut bytes) {
                    text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
                }
            });
        }
        Self { program, text }
    }

    fn types(&mut self, keys: &str) {
        self.program.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let begun = Instant::now();
        while !self.text.lock().unwrap().contains(text) {
            assert!(begun.elapsed() < SOON, "no {text:?} on the screen, but {:?}", self.text.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) {
        wait_until("the program to end", SOON, || self.program.try_wait().unwrap().is_some());
        assert_eq!(self.program.wait().unwrap().code(), Some(code), "{}", self.text.lock().unwrap());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[track_caller]
fn until_left(guest: &Guest) {
    wait_until("the console to be free", SOON, || {
        property(&guest.service(), "StatusText").ends_with("nobody is connected")
    });
}

#[test]
fn in_a_terminal_of_the_host_one_is_in_the_guests_shell_and_status_says_who() {
    let guest = Guest::define("local").with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let mut screen = Screen::of("script -qefc 'console-proxy console local --user ann' /dev/null");
    screen.shows("console-proxy: serial/0 of local; ^] leaves");
    screen.types("echo the answer is $((6 * 7))\r");
    screen.shows("the answer is 42");
    assert!(sh("console-proxy status local").contains("ann"));
    let line = property(&guest.service(), "StatusText");
    assert!(line.starts_with("local: 1 on serial/0; "), "{line}");
    // The end of the input, in the guest, is not ours.
    screen.types("echo re''ads; cat\r");
    screen.shows("reads");
    screen.types("\x04");
    screen.types("echo still $((1 + 1))\r");
    screen.shows("still 2");
    screen.types("\x1d");
    screen.ends_with(0);
    screen.shows("console-proxy: serial/0 of local: left");
}

#[test]
fn from_a_pipe_a_command_is_run_by_the_guests_shell_also_for_a_member_of_group_libvirt() {
    let guest = Guest::define("piped").with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let answer = sh("echo 'echo the answer is $((6 * 7))' | console-proxy console piped");
    assert!(answer.contains("the answer is 42\r\n"), "{answer:?}");
    until_left(&guest);
    let operator = User::in_groups("e2e-typist", "libvirt");
    let answer = operator.run("bash -c 'echo \"echo next \\$((1 + 1))\" | console-proxy console piped serial/0'");
    assert!(answer.as_ref().is_ok_and(|answer| answer.contains("next 2\r\n")), "{answer:?}");
    until_left(&guest);
    let stranger = User::in_groups("e2e-nobody", "");
    assert!(stranger.run("console-proxy console piped </dev/null").unwrap_err().contains("ermission denied"));
    guest.destroy();
    let refused = try_sh("console-proxy console piped </dev/null").unwrap_err();
    assert!(refused.contains("piped does not run: `virsh start piped`"), "{refused}");
    let refused = try_sh("console-proxy console nobody </dev/null").unwrap_err();
    assert!(refused.contains("there is no guest"), "{refused}");
}

#[test]
fn by_ssh_the_owner_of_a_key_is_in_the_guests_shell_and_in_the_audit() {
    let guest = Guest::define("byssh").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    guest.port();
    let _sshd = Sshd::started("# people\nrestrict,pty KEY ann@example.org");
    let before = journal_cursor();
    for name in ["byssh".to_owned(), guest.uuid()] {
        let mut screen = Screen::of(&ssh("-tt", &name));
        screen.shows("console-proxy: serial/0 of byssh; ^] leaves");
        screen.types("echo the answer is $((6 * 7)); tty\r");
        screen.shows("the answer is 42\r\n/dev/ttyS0");
        let status = sh("console-proxy status byssh");
        assert!(status.contains("ann@example.org"), "{status}");
        let line = property(&guest.service(), "StatusText");
        assert!(line.starts_with("byssh: 1 on serial/0; "), "{line}");
        screen.types("\x1d");
        screen.ends_with(0);
        until_left(&guest);
    }
    let journal = journal_since(&before);
    for line in [
        "ann@example.org came by ssh from 127.0.0.1 for serial/0 of byssh",
        "for ann@example.org on serial/0 of byssh",
        "opened serial/0 of byssh from 127.0.0.1: ann@example.org (",
        "left serial/0 of byssh from 127.0.0.1 after ",
    ] {
        assert!(journal.contains(line), "no {line:?} in\n{journal}");
    }
    // A pipe: no terminal, and no key that leaves.
    let answer = sh(&format!("echo 'echo piped $((2 + 2))' | {}", ssh("", "byssh")));
    assert!(answer.contains("piped 4\r\n"), "{answer:?}");
    until_left(&guest);

    // Who is cut off leaves the console.
    let mut screen = Screen::of(&ssh("-tt", "byssh"));
    screen.shows("^] leaves");
    screen.program.kill().unwrap();
    until_left(&guest);
}

#[test]
fn by_ssh_the_word_after_the_host_is_a_guests_name_or_uuid_and_nothing_else() {
    let guest = Guest::define("words").with_pty_serial().started();
    guest.port();
    let _sshd = Sshd::started("KEY ann");
    for words in [
        "'words; touch /tmp/e2e-executed'",
        "'$(touch /tmp/e2e-executed)'",
        "'`touch /tmp/e2e-executed`'",
        "'words && touch /tmp/e2e-executed'",
        "'words\ntouch /tmp/e2e-executed'",
        // Two dashes, or ssh on the client's side takes them for its own.
        "-- --help",
        "-- -oX",
        "words serial/0",
        "' words'",
        "/usr/lib/openssh/sftp-server",
        "scp -t /tmp/e2e-executed",
        "../words",
        "$'\\xff'",
    ] {
        let refused = try_sh(&ssh("", words)).unwrap_err();
        assert!(refused.starts_with("exit status: 1"), "{words}: {refused}");
        assert!(refused.contains("names no guest: type `ssh -t console@HOST GUEST`"), "{words}: {refused}");
    }
    for options in ["", "-tt"] {
        let refused = try_sh(&ssh(options, "")).unwrap_err();
        assert!(refused.contains("no guest was named: type `ssh -t console@HOST GUEST`"), "{refused}");
    }
    let refused = try_sh(&ssh("", "nobody")).unwrap_err();
    assert!(refused.contains("no guest nobody runs here"), "{refused}");
    let sftp = ssh("", "").replacen("ssh ", "sftp ", 1).replace("-p 2222", "-P 2222");
    assert!(try_sh(&format!("echo ls | {sftp}")).is_err());
    assert!(!exists("/tmp/e2e-executed"));
    assert_eq!(property(&guest.service(), "MainPID"), "0", "nobody came through to the guest");
}

#[test]
fn by_ssh_a_key_without_a_name_or_that_is_not_listed_opens_nothing() {
    let guest = Guest::define("nameless").with_pty_serial().started();
    guest.port();
    let before = journal_cursor();
    let sshd = Sshd::started("KEY");
    let refused = try_sh(&ssh("", "nameless")).unwrap_err();
    let words = "line 1 has the key and does not say whose it is: a name must stand behind the key";
    assert!(refused.contains(words), "{refused}");
    assert!(journal_since(&before).contains(&format!("refused a ticket for ssh: {KEYS}: {words}")));
    let doctor = try_sh("console-proxy doctor").unwrap_err();
    assert!(doctor.contains(&format!("FAULT   {KEYS}: {words}")), "{doctor}");
    drop(sshd);
    let sshd = Sshd::started("KEY ann");
    fs::write(KEYS, "").unwrap();
    assert!(try_sh(&ssh("", "nameless")).unwrap_err().contains("Permission denied (publickey)"));
    drop(sshd);
    // sshd was told of another list, ours has no such key.
    let mine = "Match User console\nAuthorizedKeysFile /etc/ssh/e2e-keys\nMatch all\n";
    let _sshd = Sshd::started_with("KEY ann", mine);
    fs::rename(KEYS, "/etc/ssh/e2e-keys").unwrap();
    fs::write(KEYS, "").unwrap();
    let refused = try_sh(&ssh("", "nameless"));
    fs::remove_file("/etc/ssh/e2e-keys").unwrap();
    assert!(refused.unwrap_err().contains("the key is not in the list of keys"));
}

#[test]
fn by_ssh_nothing_is_forwarded() {
    let _sshd = Sshd::started("KEY ann");
    let reaches = |port: u16| try_sh(&format!("timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; head -c4 <&3'"));
    assert_eq!(reaches(2222).as_deref(), Ok("SSH-"), "sshd itself");
    let forwards = Screen::of(&ssh("-N -v -L 127.0.0.1:2223:127.0.0.1:2222 -D 127.0.0.1:2224", ""));
    wait_until("the client to listen", SOON, || try_sh("ss -Hltn 'sport = :2223' | grep -q .").is_ok());
    assert_ne!(reaches(2223).as_deref().unwrap_or_default(), "SSH-");
    forwards.shows("administratively prohibited");
    drop(forwards);
    let refused = try_sh(&ssh("-N -o ExitOnForwardFailure=yes -R 127.0.0.1:2225:127.0.0.1:2222", "")).unwrap_err();
    assert!(refused.contains("remote port forwarding failed"), "{refused}");
    let refused = try_sh(&ssh("-o ExitOnForwardFailure=yes -R /tmp/e2e-socket:127.0.0.1:2222 -N", "")).unwrap_err();
    assert!(refused.contains("forwarding failed"), "{refused}");
    let settings = sh("sshd -T -C user=console,host=localhost,addr=127.0.0.1");
    for line in ["allowagentforwarding no", "x11forwarding no", "permittunnel no", "disableforwarding yes"] {
        assert!(settings.lines().any(|setting| setting == line), "no {line} in\n{settings}");
    }
}

#[test]
fn the_user_that_comes_by_ssh_reads_no_key_and_gets_tickets_for_text_consoles_and_listed_people_alone() {
    let guest = Guest::define("least").with_vnc().with_pty_serial().started();
    let port = guest.port();
    let _sshd = Sshd::started("KEY ann");
    assert_eq!(sh("id -Gn console"), "console");
    let as_console = |command: &str| try_sh(&format!("runuser -u console -- {command}"));
    for file in ["/etc/console-proxy/signing/host.pem", "/etc/console-proxy/tls/key.pem"] {
        assert!(as_console(&format!("cat {file}")).is_err(), "{file}");
    }
    for verb in ["ticket least", "list", "console least </dev/null"] {
        assert!(as_console(&format!("console-proxy {verb}")).unwrap_err().contains("ermission denied"), "{verb}");
    }
    let ask = |user: &str, guest: &str, key: &str| {
        let question = format!("{{\"version\":1,\"guest\":\"{guest}\",\"key\":\"{key}\",\"from\":\"192.0.2.1\"}}");
        try_sh(&format!(
            "echo '{question}' | runuser -u {user} -- socat -t5 - UNIX-CONNECT:/run/console-proxy/ssh/socket"
        ))
    };
    let key = fs::read_to_string("/root/e2e-key.pub").unwrap();
    let other =
        sh("ssh-keygen -q -t ed25519 -N '' -f /tmp/e2e-other <<<y >/dev/null; cut -d' ' -f1,2 /tmp/e2e-other.pub");
    assert!(ask("console", "least", &other).unwrap().contains("the key is not in the list of keys"));
    assert!(ask("console", "x; id", key.trim()).unwrap().contains("that names no guest"));
    let stranger = User::in_groups("e2e-asker", "libvirt");
    assert!(ask(stranger.0, "least", key.trim()).unwrap_err().contains("Permission denied"));

    let answer = ask("console", "least", key.trim()).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let token = answer["granted"]["token"].as_str().unwrap();
    assert_eq!(Ws::connect(port, "/vnc", token).unwrap_err().status(), 403);
    drop(Ws::connect(port, "/serial/0", token).unwrap());
    until_left(&guest);
    assert!(try_sh("systemctl list-units --failed --no-legend 'console-proxy-ssh@*' | grep .").is_err());
}

#[test]
fn doctor_tells_whether_text_consoles_by_ssh_are_set_up_and_safe() {
    let doctor = || try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    let advice = "text consoles by ssh are not set up: /usr/share/console-proxy/sshd.conf says how to";
    assert!(doctor().contains(advice), "{}", doctor());
    let sshd = Sshd::started("KEY ann");
    assert!(doctor().contains("ok      text consoles by ssh: 1 keys"), "{}", doctor());
    systemctl("stop console-proxy-ssh.socket");
    assert!(doctor().contains("FAULT   console-proxy-ssh.socket is not active"), "{}", doctor());
    let refused = try_sh(&ssh("", "any")).unwrap_err();
    assert!(refused.contains("this host makes no ticket"), "{refused}");
    systemctl("start console-proxy-ssh.socket");
    drop(sshd);
    let _sshd = Sshd::started_with("KEY ann", "Match User console\nAllowTcpForwarding yes\nMatch all\n");
    let found = doctor();
    assert!(found.contains("FAULT   sshd for user console: AllowTcpForwarding is \"yes\" and must be no"), "{found}");
}
