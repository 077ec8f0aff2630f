//! The audit in the real journal: what docs/audit.md says can be asked is asked, and fail2ban's own program reads the
//! filter that is shipped.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::host::{Guest, SOON, User, journal_cursor, journal_since, sh, systemctl, try_sh, wait_until};
use crate::ws::{Ws, ask};

const DOCUMENT: &str = include_str!("../../docs/audit.md");

/// All entries of the journal after the cursor that have these fields: `NAME=VALUE NAME=VALUE`. Not by journalctl's own
/// matches: of those that match, systemd 252 leaves out the first after a cursor that does not.
fn entries(cursor: &str, matches: &str) -> Vec<Value> {
    let lines = sh(&format!("journalctl --sync; journalctl -o json --after-cursor='{cursor}'"));
    let entries = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted: Vec<_> = matches.split(' ').map(|field| field.split_once('=').unwrap()).collect();
    entries.filter(|entry| wanted.iter().all(|(name, value)| entry[name] == *value)).collect()
}

#[track_caller]
fn until_journal_has(cursor: &str, matches: &str) -> Value {
    wait_until(matches, SOON, || !entries(cursor, matches).is_empty());
    entries(cursor, matches).pop().unwrap()
}

#[track_caller]
fn has(entry: &Value, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(entry[format!("CONSOLE_PROXY_{name}")], *value, "{name} in {entry:#}");
    }
}

/// A request from an address of this host, without TLS being checked: its status.
fn request_from(address: &str, port: u16, path: &str) -> String {
    sh(&format!("curl -sk -o /dev/null -w '%{{http_code}}' --interface {address} 'https://127.0.0.1:{port}{path}'"))
}

/// Addresses of this host's loopback that nobody came from before this guest was.
fn address(guest: &Guest, n: u8) -> String {
    let uuid = guest.uuid();
    let byte = |at: usize| u8::from_str_radix(&uuid[at..at + 2], 16).unwrap();
    format!("127.{}.{}.{n}", byte(0), byte(2))
}

#[test]
fn the_journal_says_who_was_on_which_port_from_where_how_long_and_why_it_ended() {
    let guest = Guest::define("audited").with_vnc().with_pty_serial().started();
    let port = guest.port();
    guest.wait_to_boot();
    let cursor = journal_cursor();
    let ticket = guest.ticket_with("--user 'ann smith'");
    let mut ws = Ws::connect(port, "/serial/0", &ticket).unwrap();
    ws.command("echo the answer is $((6 * 7))", "the answer is 42");
    let uuid = guest.uuid();
    let whose = [
        ("GUEST", uuid.as_str()),
        ("GUEST_NAME", "audited"),
        ("PERSON", "ann smith"),
        ("FROM", "127.0.0.1"),
        ("CONSOLE", "serial/0"),
        ("MODE", "control"),
        ("REACHED", "pty"),
    ];
    let start = until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=session-start");
    has(&start, &whose);
    assert!(start["CONSOLE_PROXY_AUTH"].as_str().unwrap().starts_with("ticket host/"), "{start:#}");
    drop(ws);
    let end = until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=session-end");
    has(&end, &whose);
    has(&end, &[("END", "the client's connection broke"), ("END_CODE", "1006"), ("BYTES_DROPPED", "0")]);
    for count in ["BYTES_OUT", "BYTES_IN"] {
        let bytes: u64 = end[format!("CONSOLE_PROXY_{count}")].as_str().unwrap().parse().unwrap();
        assert!(bytes > 20, "{count} in {end:#}");
    }
    // Who it was is the system manager's word, not the proxy's.
    assert_eq!(end["_SYSTEMD_UNIT"], guest.service().as_str());
    assert_eq!(end["_SYSTEMD_SLICE"], "system-console\\x2dproxy.slice");

    let mut vnc = guest.open("vnc");
    guest.destroy();
    vnc.wait_for_close(SOON);
    let end = until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=session-end CONSOLE_PROXY_CONSOLE=vnc");
    has(&end, &[("END", "the guest has stopped"), ("END_CODE", "1001")]);
    assert_eq!(entries(&cursor, "CONSOLE_PROXY_EVENT=session-start").len(), 2);
    assert_eq!(entries(&cursor, "CONSOLE_PROXY_EVENT=session-end").len(), 2);
}

#[test]
fn each_example_of_the_document_finds_what_it_says() {
    let guest = Guest::define("web").with_vnc().with_pty_serial().started();
    let port = guest.port();
    drop(Ws::connect(port, "/serial/0", &guest.ticket_with("--user ann")).unwrap());
    let attacker = address(&guest, 1);
    for _ in 0..15 {
        assert_eq!(request_from(&attacker, port, "/api/guest?token=a.b.c"), "401");
    }
    let cursor = journal_cursor();
    systemctl(&format!("stop {}", guest.service()));
    until_journal_has(&cursor, &format!("CONSOLE_PROXY_EVENT=refused-more CONSOLE_PROXY_FROM={attacker}"));
    let found: Vec<(&str, String)> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("journalctl "))
        .map(|line| (line, sh(&format!("journalctl --sync; {line}"))))
        .collect();
    assert_eq!(found.len(), 7);
    for ((command, said), expected) in found.iter().zip([
        "opened serial/0 of web from 127.0.0.1: ann (ticket host/",
        &format!("refused more from {attacker}: 5 in a minute (5 ticket)"),
        "ann\t127.0.0.1\tweb\tserial/0\t",
        "opened serial/0 of web from 127.0.0.1: ann (ticket host/",
        "left serial/0 of web from 127.0.0.1 after ",
        "opened serial/0 of web from 127.0.0.1: ann (ticket host/",
        &format!("{attacker}\t15"),
    ]) {
        assert!(said.contains(expected), "{command}\nfound no {expected:?} in\n{said}");
    }
    // The document's list of fields is the journal's.
    let fields = sh("journalctl -t console-proxyd -o json | jq -r 'select(.CONSOLE_PROXY_EVENT) | keys[]' | sort -u");
    for field in fields.lines().filter_map(|field| field.strip_prefix("CONSOLE_PROXY_")) {
        assert!(DOCUMENT.contains(&format!("`{field}`")) || field == "EVENT", "{field} is not in docs/audit.md");
    }
}

/// A file of ours in fail2ban's folder, as docs/audit.md has it copied there; taken away at the end of a test.
struct InFail2ban(String);

impl InFail2ban {
    fn put(folder: &str, text: &str) -> Self {
        let path = format!("/etc/fail2ban/{folder}/console-proxy.conf");
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for InFail2ban {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What fail2ban finds with the shipped filter: how many failures of each address.
fn fail2ban_finds() -> BTreeMap<String, usize> {
    sh("journalctl --sync");
    let said = sh("fail2ban-regex -o '<ip>' systemd-journal console-proxy");
    let mut found = BTreeMap::new();
    for line in said.lines() {
        *found.entry(line.to_owned()).or_default() += 1;
    }
    found
}

#[test]
fn fail2ban_finds_refused_tickets_and_passwords_and_nobody_can_have_another_address_banned() {
    let _filter = InFail2ban::put("filter.d", include_str!("../../docs/fail2ban/filter.d/console-proxy.conf"));
    let _jail = InFail2ban::put("jail.d", include_str!("../../docs/fail2ban/jail.d/console-proxy.conf"));
    let guest = Guest::define("banning").with_vnc().blank().started();
    let port = guest.port();
    let cursor = journal_cursor();
    let [guesser, typist, innocent, victim] = [1, 2, 3, 9].map(|n| address(&guest, n));
    for _ in 0..3 {
        request_from(&guesser, port, "/api/guest?token=a.b.c");
    }
    let basic = format!("-u 'refused {victim}: password: x:wrong'");
    sh(&format!("curl -sk --interface {typist} {basic} https://127.0.0.1:{port}/api/guest"));
    // A request that brings nothing, another site's page: no attack of those whose address it is.
    request_from(&innocent, port, "/vnc");
    request_from(&innocent, port, "/api/guest");
    sh(&format!(
        "curl -sk --interface {innocent} -H 'Origin: https://evil.example' https://127.0.0.1:{port}/api/guest"
    ));
    // Somebody whose name and ticket say what would be a refusal of another.
    let forged = format!("refused {victim}: ticket: x");
    let ticket = guest.ticket_with(&format!("--user '{forged}' --console vnc"));
    drop(Ws::connect(port, "/vnc", &ticket).unwrap());
    until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=session-end");
    assert_eq!(Ws::connect(port, "/serial/0", &ticket).unwrap_err().status(), 403);
    for value in [forged.clone(), format!("a\u{fffd}{forged}")] {
        let request = format!("GET /api/guest HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {victim}\r\n");
        ask(port, &format!("{request}Authorization: Bearer {value}\r\nReferer: {value}\r\n"));
    }
    // A user of this host who writes the very line, with its fields: a service's, for people's own lines lie in
    // another file, which fail2ban does not read.
    fs::write(
        "/tmp/forged",
        format!("MESSAGE={forged}\nSYSLOG_IDENTIFIER=console-proxyd\nCONSOLE_PROXY_EVENT=refused\n"),
    )
    .unwrap();
    sh("runuser -u daemon -- logger --journald </tmp/forged");
    until_journal_has(&cursor, &format!("_UID={} CONSOLE_PROXY_EVENT=refused", sh("id -u daemon")));
    wait_until("the refusals to be there", SOON, || {
        entries(&cursor, &format!("CONSOLE_PROXY_EVENT=refused CONSOLE_PROXY_FROM={typist}")).len() == 1
    });

    let found = fail2ban_finds();
    let failures = |address: &String| found.get(address).copied().unwrap_or_default();
    assert_eq!([&guesser, &typist, &innocent, &victim].map(failures), [3, 1, 0, 0], "{found:?}");
    // The jail is one that fail2ban takes; nothing is started.
    let said = sh("fail2ban-client -t 2>&1; fail2ban-client -d 2>&1");
    assert!(said.contains("'add', 'console-proxy', 'systemd'"), "{said}");
    assert!(try_sh("pgrep -x fail2ban-server").is_err());
}

#[test]
fn a_users_wrong_password_and_login_are_in_the_audit_and_the_password_is_not() {
    let user = User::in_groups("auditann", "libvirt");
    sh("echo 'auditann:right-one' | chpasswd");
    let guest = Guest::define("audit-login").with_vnc().blank().started();
    let port = guest.port();
    let cursor = journal_cursor();
    let log_in = |password: &str| {
        sh(&format!(
            "curl -sk -o /dev/null -w '%{{http_code}}' -X POST -u '{}:{password}' https://127.0.0.1:{port}/api/session",
            user.0
        ))
    };
    assert_eq!(log_in("wrong-one"), "401");
    let refused = until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=refused");
    has(&refused, &[("REASON", "password"), ("STATUS", "401"), ("FROM", "127.0.0.1"), ("GUEST_NAME", "audit-login")]);
    assert_eq!(refused["CONSOLE_PROXY_PERSON"], Value::Null);
    let pam = journal_since(&cursor);
    assert!(pam.contains("user=auditann"), "PAM names the user: {pam}");
    assert_eq!(log_in("right-one"), "200");
    has(
        &until_journal_has(&cursor, "CONSOLE_PROXY_EVENT=login"),
        &[("AUTH", "password"), ("PERSON", "auditann"), ("FROM", "127.0.0.1")],
    );
    let all = sh(&format!("journalctl --sync; sleep 1; journalctl -o export --after-cursor='{cursor}' | tr -d '\\0'"));
    assert!(!all.contains("wrong-one") && !all.contains("right-one"));
}
