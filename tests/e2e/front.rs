//! Behind a reverse proxy: one public port for all guests, with Debian's servers and the shipped configurations.

use std::fs;

use serde_json::Value;

use crate::host::{
    Configured, Guest, SOON, User, exists, journal_cursor, journal_since, sh, systemctl, try_sh, wait_for, wait_until,
};
use crate::ws::{CERTIFICATE, Session, Ws, ask};

const FRONT: &str = "[listen]\nfront = true\nurl = \"https://consoles.example/console/{uuid}/\"\n";
const HOST: (&str, &str) = ("host", "consoles.example");
const ORIGIN: (&str, &str) = ("origin", "https://consoles.example");
/// What a client says to be somebody else.
const LIE: (&str, &str) = ("x-forwarded-for", "192.0.2.66");

/// A reverse proxy that runs with what docs/reverse-proxy says, until the end of the test.
struct Server(&'static str);

impl Server {
    fn start(unit: &'static str, configuration: &str, file: &str, set_up: &str) -> Self {
        let folder = format!("/etc/{unit}");
        sh(&format!("cp {CERTIFICATE} {folder}/consoles.pem; cp /etc/console-proxy/tls/key.pem {folder}/consoles.key"));
        fs::write(format!("{folder}/{file}"), configuration).unwrap();
        sh(set_up);
        systemctl(&format!("restart {unit}"));
        let server = Self(unit);
        wait_until("it to listen", SOON, || sh("ss -Hltn 'sport = :443'").contains(":443"));
        server
    }

    fn nginx() -> Self {
        let configuration = include_str!("../../docs/reverse-proxy/nginx.conf");
        Self::start("nginx", configuration, "conf.d/consoles.conf", "usermod -aG console-proxy-front www-data")
    }

    fn caddy() -> Self {
        let configuration = include_str!("../../docs/reverse-proxy/Caddyfile");
        let set_up = "usermod -aG console-proxy-front caddy; chown caddy /etc/caddy/consoles.key";
        Self::start("caddy", configuration, "Caddyfile", set_up)
    }

    fn haproxy(guests: &[&Guest]) -> Self {
        let lines = guests.iter().map(|guest| {
            let uuid = guest.uuid();
            format!("\tserver {uuid} unix@/run/console-proxy/front/{uuid}.sock\n")
        });
        let configuration =
            include_str!("../../docs/reverse-proxy/haproxy.cfg").to_owned() + &lines.collect::<String>();
        let set_up = "cd /etc/haproxy && cat consoles.key >>consoles.pem";
        Self::start("haproxy", &configuration, "haproxy.cfg", set_up)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = try_sh(&format!("systemctl stop {}", self.0));
    }
}

/// A path of a guest behind the reverse proxy.
fn at(guest: &Guest, path: &str) -> String {
    format!("/console/{}/{path}", guest.uuid())
}

fn get(path: &str) -> u16 {
    ask(443, &format!("GET {path} HTTP/1.1\r\nHost: consoles.example\r\n")).0
}

/// Where the guest's one client comes from, by `console-proxy status`.
fn from(guest: &Guest) -> String {
    wait_for("the session to be shown", SOON, || {
        let status: Value = serde_json::from_str(&sh(&format!("console-proxy status --json {}", guest.name))).unwrap();
        Some(status["sessions"].as_array()?.first()?["from"].as_str()?.to_owned())
    })
}

/// A session, bought by a page of that host.
fn buy_session(port: u16, host: &str, path: &str, guest: &Guest) -> Session {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nContent-Length: 0\r\n\
         Authorization: Bearer {}\r\n",
        guest.ticket()
    );
    let answer = ask(port, &request);
    assert!(answer.1.contains("; Secure; "), "{}", answer.1);
    Session::of(&answer)
}

/// What has to work behind every reverse proxy; what it answers when the guest is off.
fn all_that_a_browser_does_works(guest: &Guest, when_off: u16) {
    guest.wait_to_boot();
    let (status, _, page) = ask(443, &format!("GET {} HTTP/1.1\r\nHost: consoles.example\r\n", at(guest, "")));
    assert_eq!(status, 200, "{page}");
    for file in page.split('"').filter(|text| text.trim_start_matches("./").starts_with("assets/")) {
        assert_eq!(get(&at(guest, file.trim_start_matches("./"))), 200, "what the page loads is below it: {file}");
    }
    assert_eq!(get(&at(guest, "api/guest")), 401, "no right");
    let (status, _, body) = ask(
        443,
        &format!(
            "GET {} HTTP/1.1\r\nHost: consoles.example\r\nAuthorization: Bearer {}\r\n",
            at(guest, "api/guest"),
            guest.ticket()
        ),
    );
    assert!(status == 200 && body.contains(&guest.uuid()), "{status} {body}");

    let serial = at(guest, "serial/0");
    let mut ws = Ws::connect_with(443, &serial, &guest.ticket(), &[HOST, ORIGIN, LIE]).unwrap();
    ws.command("echo the answer is $((6 * 7))", "the answer is 42");
    assert_eq!(from(guest), "127.0.0.1", "the address that connected to the reverse proxy");
    drop(ws);

    let mine = buy_session(443, HOST.1, &at(guest, "api/session"), guest);
    let others = (0..150).map(|n| format!("__Host-console-proxy-{n:08x}={}", "a".repeat(43)));
    let cookies = others.chain([mine.cookie.clone()]).collect::<Vec<_>>().join("; ");
    let [_, secret] = mine.headers();
    let mut ws = Ws::connect_with(443, &serial, "", &[HOST, ORIGIN, ("cookie", &cookies), secret]).unwrap();
    ws.command("echo again $((6 * 7))", "again 42");
    for origin in ["https://evil.example", "http://consoles.example", "https://consoles.example:8443", "null"] {
        let headers = [HOST, ("origin", origin), ("x-forwarded-proto", "http"), ("cookie", &cookies), secret];
        assert_eq!(Ws::connect_with(443, &serial, "", &headers).unwrap_err().status(), 403, "{origin}");
    }
    guest.destroy();
    assert_eq!(ws.wait_for_close(SOON), (1001, "the guest has stopped".to_owned()));
    wait_until("the socket to go", SOON, || !exists(&format!("/run/console-proxy/front/{}.sock", guest.uuid())));
    assert_eq!(get(&at(guest, &format!("vnc?token={}", guest.ticket_like()))), when_off);
}

impl Guest {
    /// What looks like a ticket in a log.
    fn ticket_like(&self) -> String {
        format!("e30.{}.c2VjcmV0", self.name)
    }
}

#[test]
fn behind_nginx_all_guests_are_reached_also_those_that_come_later_and_no_ticket_is_logged() {
    let _configured = Configured::with(FRONT);
    let nginx = Server::nginx();
    let running = systemctl("show --value -p MainPID,ExecReload nginx");
    // Defined and started with nginx running.
    let guest = Guest::define("front-nginx").with_vnc().with_pty_serial().started();
    guest.port();
    let later = Guest::define("front-later").with_vnc().blank().started();
    later.port();
    let mut vnc = Ws::connect_with(443, &at(&later, "websockify"), &later.ticket(), &[HOST, ORIGIN]).unwrap();
    assert_eq!(vnc.read_until("\n", SOON), "RFB 003.008\n");
    all_that_a_browser_does_works(&guest, 502);
    vnc.send(b"RFB 003.008\n");
    assert!(vnc.next(SOON).unwrap().is_some(), "the other guest's console is still open");
    assert_eq!(systemctl("show --value -p MainPID,ExecReload nginx"), running);
    let logs = sh("cat /var/log/nginx/*");
    assert!(logs.contains("/console/"), "there is something in the logs");
    assert!(!logs.contains("token") && !logs.contains("e30."), "{logs}");
    drop(nginx);
}

#[test]
fn behind_caddy_all_works_too() {
    let _configured = Configured::with(FRONT);
    let _caddy = Server::caddy();
    let cursor = journal_cursor();
    let guest = Guest::define("front-caddy").with_vnc().with_pty_serial().started();
    guest.port();
    all_that_a_browser_does_works(&guest, 502);
    let said = journal_since(&cursor);
    assert!(said.contains("no such file or directory") && !said.contains("e30."), "{said}");
}

#[test]
fn behind_haproxy_guests_with_a_line_are_reached_others_not_and_lines_can_be_added() {
    let _configured = Configured::with(FRONT);
    let guest = Guest::define("front-haproxy").with_vnc().with_pty_serial().started();
    guest.port();
    let _haproxy = Server::haproxy(&[&guest]);
    let later = Guest::define("front-later").with_vnc().blank().started();
    later.port();
    assert_eq!(get(&at(&later, "")), 503, "never another guest's");
    let uuid = later.uuid();
    sh(&format!(
        "echo 'add server consoles/{uuid} unix@/run/console-proxy/front/{uuid}.sock weight 0; \
         enable server consoles/{uuid}' | socat - UNIX-CONNECT:/run/haproxy/admin.sock"
    ));
    assert_eq!(get(&at(&later, "")), 200);
    let cursor = journal_cursor();
    all_that_a_browser_does_works(&guest, 503);
    let said = journal_since(&cursor);
    assert!(!said.contains("e30."), "{said}");
}

#[test]
fn a_front_socket_is_its_groups_alone_and_the_port_believes_nobody() {
    let _configured = Configured::with(FRONT);
    let cursor = journal_cursor();
    let guest = Guest::define("front-closed").with_vnc().blank().started();
    let port = guest.port();
    let socket = format!("/run/console-proxy/front/{}.sock", guest.uuid());
    assert_eq!(sh(&format!("stat -c '%a %U:%G' {socket}")), "660 root:console-proxy-front");
    assert_eq!(sh(&format!("systemctl show --value -p NConnections {}", guest.socket())), "0");
    let ask_page = format!("sh -c \"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | socat -t 5 - UNIX-CONNECT:{socket}\"");
    for groups in ["", "libvirt", "console-proxy"] {
        let user = User::in_groups("front-other", groups);
        let said = user.run(&ask_page).expect_err("it is shut");
        assert!(said.contains("Permission denied"), "{groups}: {said}");
    }
    let user = User::in_groups("front-member", "console-proxy-front");
    assert!(user.run(&ask_page).unwrap().contains("200 OK"), "no redirect");

    let _ws = Ws::connect_with(port, "/vnc", &guest.ticket(), &[LIE, ("x-forwarded-proto", "http")]).unwrap();
    assert_eq!(from(&guest), "127.0.0.1");
    let said = journal_since(&cursor);
    assert!(!said.contains("192.0.2.66"), "{said}");
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("systemd[") && line.contains("failed")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_change_of_front_ends_consoles_with_a_reason_and_a_broken_configuration_ends_none() {
    let guest = Guest::define("front-change").with_vnc().blank().started();
    let port = guest.port();
    let socket = format!("/run/console-proxy/front/{}.sock", guest.uuid());
    let mut ws = Ws::connect(port, "/vnc", &guest.ticket()).unwrap();
    let own = format!("localhost:{port}");
    let session = buy_session(port, &own, "/api/session", &guest);
    let cursor = journal_cursor();
    {
        let _configured = Configured::with(FRONT);
        sh("console-proxy publish --all");
        assert_eq!(ws.wait_for_close(SOON), (1001, "the console proxy is stopping".to_owned()));
        wait_until("the front socket", SOON, || exists(&socket));
        assert_eq!(guest.port(), port);
        assert!(journal_since(&cursor).contains("is to listen elsewhere"));
        // The next proxy, under whatever user, knows the session.
        let origin = format!("https://{own}");
        let [cookie, secret] = session.headers();
        ws = Ws::connect_with(port, "/vnc", "", &[("origin", &origin), cookie, secret]).unwrap();
    }
    {
        let _broken = Configured::with("[listen]\nfront = maybe\n");
        systemctl("start console-proxy-sync");
        assert!(exists(&socket), "with a configuration that is refused nothing changes");
        assert_eq!(ws.read_until("\n", SOON), "RFB 003.008\n");
    }
    sh("console-proxy publish --all");
    assert_eq!(ws.wait_for_close(SOON).0, 1001);
    wait_until("the front socket to go", SOON, || !exists(&socket));
    assert_eq!(guest.port(), port);
}

#[test]
fn printed_urls_are_those_of_the_reverse_proxy_and_the_doctor_knows_who_may_connect() {
    let _configured = Configured::with(FRONT);
    let guest = Guest::define("front-url").with_vnc().blank().started();
    guest.port();
    let url = format!("https://consoles.example/console/{}/", guest.uuid());
    assert!(sh("console-proxy url front-url").starts_with(&format!("{url}?token=")));
    let shown = guest.listed().unwrap();
    assert_eq!(shown["url"], url);
    assert_eq!(shown["consoles"][0]["url"], format!("wss{}vnc", url.strip_prefix("https").unwrap()));

    let doctor = || try_sh("console-proxy doctor").unwrap_or_else(|said| said);
    sh("gpasswd -M '' console-proxy-front");
    assert!(doctor().contains("group console-proxy-front has no member"), "{}", doctor());
    sh("usermod -aG console-proxy-front www-data");
    assert!(doctor().contains("front sockets are open to www-data"), "{}", doctor());
    sh("chmod 755 /run/console-proxy/front");
    assert!(doctor().contains("FAULT   /run/console-proxy/front is not 0750"), "{}", doctor());
    sh("systemd-tmpfiles --create console-proxy.conf");
    assert!(doctor().contains("front sockets are open to www-data"), "{}", doctor());
}
