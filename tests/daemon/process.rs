//! The process: its idle exit, what it tells systemd, how it is started by hand, and what it refuses to start with.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::backends::Backend;
use crate::client::{Client, Ws, headers};
use crate::host::{GUEST, Host, Proxy, console_proxyd, until};

#[test]
fn it_ends_when_nobody_was_there_for_the_idle_time_and_the_next_client_starts_the_next() {
    let host = Host::new().raw("vnc", &Backend::echo()).config("[proxy]\nidle-timeout = \"1s\"\n");
    let proxy = Proxy::activated(host);
    assert_eq!(proxy.starts(), 0, "nobody has come");
    let mut ws = proxy.open("/vnc");
    std::thread::sleep(Duration::from_millis(1500));
    ws.echoes("in use is not idle");
    assert_eq!(proxy.starts(), 1);
    drop(ws);
    assert_eq!(proxy.ended().code(), Some(0));
    proxy.open("/vnc").echoes("hello again");
    assert_eq!(proxy.starts(), 2);
}

#[test]
fn it_ends_also_when_whoever_woke_it_never_said_a_word() {
    let proxy = Proxy::activated(Host::new().config("[proxy]\nidle-timeout = \"1s\"\nhandshake-timeout = \"1s\"\n"));
    let silent = Client::tcp(proxy.address);
    until("it is started", || proxy.starts() == 1);
    assert_eq!(proxy.ended().code(), Some(0));
    drop(silent);
}

#[test]
fn a_client_that_comes_while_it_ends_is_served_by_the_next() {
    let proxy = Proxy::activated(Host::new().config("[proxy]\nidle-timeout = \"1s\"\n"));
    // Around the moment at which the idle time of the connection before is over.
    for pause in [980, 990, 996, 1000, 1004, 1010] {
        assert_eq!(proxy.ask("GET", "/", &[("Connection", "close")]).status, 200);
        std::thread::sleep(Duration::from_millis(pause));
    }
    assert_eq!(proxy.ask("GET", "/", &[]).status, 200);
}

#[test]
fn systemd_hears_who_is_on_which_console_in_one_line_whatever_the_names_where_that_is_asked_for() {
    let host = Host::new().named("g\"1\" %s <b>\nSTATUS=x").raw("vnc", &Backend::echo());
    let host = host.config("[proxy]\nstatus = \"names\"\n");
    let proxy = Proxy::activated(host);
    let ticket = proxy.ticket_with(|claims| claims.sub = "ann\nREADY=1\u{1b}[31m".into());
    let mut ws = proxy.try_open(&format!("/vnc?token={ticket}"), &[]).unwrap();
    let name = "g\"1\" %s <b>\u{fffd}STATUS=x";
    let line = format!("{name}: ann\u{fffd}READY=1\u{fffd}[31m from 127.0.0.1 on vnc (bridged, 0 B out, 0 B in)");
    until("the status names the person", || proxy.statuses().contains(&line));
    ws.echoes("hello");
    let live = proxy.state_folder().join("live.json");
    until("others can read it too", || {
        std::fs::read_to_string(&live).is_ok_and(|text| text.contains("\"console\":\"vnc\""))
    });
    drop(ws);
    let nobody = format!("{name}: nobody is connected");
    until("the status says that nobody is there", || proxy.statuses().last() == Some(&nobody));
    assert!(proxy.statuses().iter().all(|status| !status.contains(['\n', '\u{1b}'])));
    assert!(!proxy.log().contains('\u{1b}') && !proxy.log().contains("\nREADY"), "{}", proxy.log());
    until("nobody is left in the file", || !live.exists());
}

#[test]
fn by_default_systemd_hears_how_many_are_on_which_console_and_not_who() {
    let proxy = Proxy::activated(Host::new().named("g1").raw("vnc", &Backend::echo()));
    let _ws = proxy.open("/vnc");
    until("the status counts the person", || proxy.statuses().contains(&"g1: 1 on vnc; 0 B out, 0 B in".to_owned()));
    assert!(proxy.statuses().iter().all(|status| !status.contains("127.0.0.1")), "{:?}", proxy.statuses());
}

#[test]
fn no_token_and_no_cookie_reaches_the_log() {
    let host = Host::new().raw("vnc", &Backend::echo()).raw("serial/0", &Backend::refuses());
    let proxy = Proxy::by_hand(host.native("spice", &Backend::websocket()));
    let good = proxy.ticket();
    let ended = proxy.ticket_with(|claims| (claims.iat, claims.nbf, claims.exp) = (1, 1, 60));
    let bearer = |token: &str| format!("Bearer {token}");
    let origin = format!("https://{}", proxy.address);
    let session = proxy.ask("POST", "/api/session", &[("Authorization", &bearer(&good))]).session(&origin);
    let [(_, cookie), (_, second), _] = &session;
    let protocols = format!("console-proxy.v1, console-proxy.secret.{second}");
    for token in [&good, &ended] {
        for path in ["/vnc", "/spice", "/serial/0", "/serial/9", "/nothing"] {
            let _ = proxy.try_open(&format!("{path}?token={token}"), &[]);
            let _ = proxy.try_open(path, &[("Authorization", &bearer(token))]);
            let _ = proxy.try_open(path, &[("Cookie", &format!("token={token}"))]);
            let _ = proxy.try_open(&format!("{path}?token={token}&token={token}"), &[]);
            let _ = proxy.try_open(&format!("{path}?token={token}"), &[("Origin", "https://evil.example")]);
        }
        Client::tcp(proxy.address).ask("GET", &format!("/vnc?token={token}"), &[]);
    }
    let mut ws = proxy.try_open("/vnc", &headers(&session)).unwrap();
    ws.echoes("hello");
    drop(ws);
    for origin in [origin.as_str(), "https://evil.example"] {
        let by_protocol = [("Cookie", cookie.as_str()), ("Sec-WebSocket-Protocol", &protocols), ("Origin", origin)];
        drop(proxy.try_open("/vnc", &by_protocol).unwrap());
        let _ = proxy.try_open("/vnc", &by_protocol[1..]);
        let wrong = [("Cookie", cookie.as_str()), ("console-proxy-secret", cookie), ("Origin", origin)];
        let _ = proxy.try_open("/vnc", &wrong);
    }
    proxy.signal(Signal::TERM);
    proxy.ended();
    proxy.until_logged("told to stop");
    let log = proxy.log();
    assert!(log.contains("opened vnc of g1 from 127.0.0.1: ann "), "the log is there: {log}");
    for secret in [&good, &ended, cookie.split_once('=').unwrap().1, second] {
        for part in secret.split('.') {
            assert!(!log.contains(part), "{part} of {secret} is in the log");
        }
    }
}

#[test]
fn another_certificate_is_used_from_the_next_connection_on_and_sessions_stay() {
    let proxy = Proxy::activated(Host::new().raw("vnc", &Backend::echo()));
    let mut ws = proxy.open("/vnc");
    let first = proxy.client().fingerprint();
    let second = proxy.make_certificate();
    assert_ne!(first, second);
    assert_eq!(proxy.client().fingerprint(), second);
    proxy.write("etc/console-proxy/tls/certificate.pem", "nonsense");
    assert_eq!(proxy.client().fingerprint(), second, "what cannot be used is not used");
    proxy.until_logged("the certificate has changed and is not usable, the old one stays in force");
    let third = proxy.make_certificate();
    assert_eq!(proxy.client().fingerprint(), third);
    ws.echoes("all the while");
    assert_eq!(proxy.starts(), 1);
}

#[test]
fn by_hand_a_unix_socket_serves_plain_http() {
    let host = Host::new().raw("vnc", &Backend::echo());
    let path = host.path("socket");
    let listen = format!("unix:{}", path.display());
    let target = format!("/vnc?token={}", host.ticket());
    let proxy = Proxy::by_hand_on(host, &["--listen", &listen, "--plain"], || UnixStream::connect(&path).is_ok());
    let mut ws = Ws::open(Client::unix(&path), &target, &[("Origin", "http://localhost")]).unwrap();
    ws.echoes("over a unix socket");
    let answer = Ws::open(Client::unix(&path), "/vnc", &[]).err().unwrap();
    assert_eq!(answer.status, 401, "a ticket is needed here too");
    proxy.signal(Signal::INT);
    assert_eq!(ws.closed().0, 1001);
    assert_eq!(proxy.ended().code(), Some(0));
    let proxy = Proxy::by_hand_on(proxy.host, &["--listen", &listen, "--plain"], || UnixStream::connect(&path).is_ok());
    assert_eq!(Client::unix(&path).ask("GET", "/", &[]).status, 200, "the path can be used again");
    drop(proxy);
}

#[test]
fn by_hand_plain_http_is_served_on_loopback() {
    let proxy = Proxy::by_hand_with(Host::new().raw("vnc", &Backend::echo()), &["--plain"]);
    let target = format!("/vnc?token={}", proxy.ticket());
    let own = format!("http://{}", proxy.address);
    let mut ws = Ws::open(Client::tcp(proxy.address), &target, &[("Origin", &own)]).unwrap();
    ws.echoes("without TLS");
    let https = format!("https://{}", proxy.address);
    let answer = Ws::open(Client::tcp(proxy.address), &target, &[("Origin", &https)]).err().unwrap();
    assert_eq!(answer.status, 403);
}

#[test]
fn by_hand_a_route_may_ask_for_no_ticket_but_pages_of_others_stay_out() {
    let proxy = Proxy::by_hand(Host::new().raw("vnc", &Backend::echo()).open_to_all());
    proxy.try_open("/vnc", &[]).unwrap().echoes("hello");
    let own = format!("https://{}", proxy.address);
    assert!(proxy.try_open("/vnc", &[("Origin", &own)]).is_ok());
    for origin in ["null", "https://evil.example"] {
        assert_eq!(proxy.refusal("/vnc", &[("Origin", origin)]).status, 403);
    }
}

#[test]
fn by_hand_without_tickets_only_names_of_this_machine_are_hosts_so_that_no_dns_makes_another_site_its_own() {
    let proxy = Proxy::by_hand(Host::new().raw("vnc", &Backend::echo()).open_to_all());
    let port = proxy.address.port();
    for host in ["localhost", "g1.localhost", "127.0.0.1", "127.0.0.2", "[::1]"] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let headers = [("Host", host.as_str()), ("Origin", &format!("https://{host}"))];
            assert_eq!(proxy.ask("GET", "/", &headers).status, 200, "{host}");
            proxy.try_open("/vnc", &headers).unwrap().echoes("this machine");
        }
    }
    for name in ["evil.example", "localhost.evil.example", "192.168.1.1"] {
        let host = format!("{name}:{port}");
        let headers = [("Host", host.as_str()), ("Origin", &format!("https://{host}"))];
        for target in ["/", "/favicon.svg", "/api/guest", "/clients/novnc/vnc.html"] {
            let answer = proxy.ask("GET", target, &headers);
            assert_eq!((answer.status, answer.body.contains("has to be localhost")), (421, true), "{answer:?}");
        }
        assert_eq!(proxy.ask("POST", "/api/session", &headers).status, 421);
        assert_eq!(proxy.refusal("/vnc", &headers).status, 421);
        assert_eq!(proxy.refusal("/vnc", &headers[..1]).status, 421, "without an Origin, too");
    }
    // Where a right has to be shown any name may be the host's.
    let tickets = Proxy::by_hand(Host::new().raw("vnc", &Backend::echo()));
    assert_eq!(tickets.ask("GET", "/", &[("Host", "kvm7.example")]).status, 200);
}

#[test]
fn by_hand_its_certificate_may_be_given_and_is_made_where_there_is_none() {
    let host = Host::new();
    let given = host.make_certificate();
    let [certificate, key] = ["certificate", "key"]
        .map(|name| host.path(&format!("etc/console-proxy/tls/{name}.pem")).display().to_string());
    let (moved, moved_key) = (host.path("c.pem"), host.path("k.pem"));
    std::fs::rename(&certificate, &moved).unwrap();
    std::fs::rename(&key, &moved_key).unwrap();
    let arguments = ["--certificate", moved.to_str().unwrap(), "--key", moved_key.to_str().unwrap()];
    let proxy = Proxy::by_hand_with(host, &arguments);
    assert_eq!(proxy.client().fingerprint(), given);
    let made = Proxy::by_hand(Host::new().without_certificate());
    made.until_logged(&format!("made a certificate for this run, SHA-256 {}", made.client().fingerprint()));
}

/// Starts it with these arguments and expects it to end with an error that says this.
#[track_caller]
fn refuses_to_start(host: &Host, arguments: &[&str], words: &str) {
    let output = console_proxyd(host).args(arguments).stderr(Stdio::piped()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?}");
    assert!(log.contains(words), "{arguments:?}: {words:?} is not in {log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_would_be_open_to_the_world_is_refused() {
    let host = Host::new().raw("vnc", &Backend::echo()).open_to_all();
    let route = host.route_file().display().to_string();
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let words = "auth = \"none\" is for loopback and unix sockets alone";
        refuses_to_start(&host, &["--listen", everywhere, "--route", &route], words);
        let words = "--plain is for loopback and unix sockets alone";
        refuses_to_start(&host, &["--listen", everywhere, "--route", &route, "--plain"], words);
    }
    let words = "--front is for unix sockets alone";
    refuses_to_start(&host, &["--listen", "127.0.0.1:0", "--route", &route, "--front"], words);
}

#[test]
fn what_it_cannot_start_with_is_said_with_its_name() {
    let host = Host::new().raw("vnc", &Backend::echo());
    let route = host.route_file().display().to_string();
    let listen = ["--listen", "127.0.0.1:0", "--route"];
    let with = |route: &str| [&listen[..], &[route]].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let refuses = |route: &str, words: &str| {
        let arguments = with(route);
        refuses_to_start(&host, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    let missing = host.path("missing.toml").display().to_string();
    refuses(&missing, &missing);
    for (text, words) in [
        ("version = 2", "has version 2, this program knows version 1"),
        ("version = 1\nuuid = \"x\"", "uuid"),
        ("version = 1", "missing field"),
        ("[", "line 1"),
    ] {
        host.write("bad.toml", text);
        let bad = host.path("bad.toml").display().to_string();
        refuses(&bad, words);
        refuses(&bad, "bad.toml");
    }
    refuses_to_start(
        &host,
        &["--listen", "nowhere", "--route", &route],
        "\"nowhere\" is not ADDRESS:PORT or unix:/PATH",
    );
    refuses_to_start(
        &host,
        &["--listen", "unix:/nonexistent/socket", "--route", &route],
        "cannot listen on /nonexistent/socket",
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses_to_start(&host, &["--listen", &address, "--route", &route], &format!("cannot listen on {address}"));
    refuses_to_start(&host, &["--guest", "../../etc"], "invalid value");
    refuses_to_start(&host, &["--guest", GUEST, "--route", &route], "cannot be used with");
    refuses_to_start(&host, &[], "required");
}

#[test]
fn a_broken_configuration_is_said_with_its_line_and_systemd_shows_it() {
    let host = Host::new().config("[proxy]\nidle-timeout = \"60s\"\nidel-timeout = 1\n");
    let route = host.route_file().display().to_string();
    refuses_to_start(&host, &["--listen", "127.0.0.1:0", "--route", &route], "line 3, column 1");
    let proxy = Proxy::activated(host);
    drop(std::net::TcpStream::connect(proxy.address).unwrap());
    until("it is started", || proxy.starts() == 1);
    assert_eq!(proxy.ended().code(), Some(1));
    until("the status says why", || proxy.statuses().last().is_some_and(|status| status.starts_with("cannot serve: ")));
    assert!(proxy.statuses()[0].contains("idel-timeout"), "{:?}", proxy.statuses());
}

#[test]
fn under_activation_it_does_not_start_without_a_certificate_or_a_socket() {
    let proxy = Proxy::activated(Host::new().without_certificate());
    drop(std::net::TcpStream::connect(proxy.address).unwrap());
    until("it is started", || proxy.starts() == 1);
    assert_eq!(proxy.ended().code(), Some(1));
    let host = Host::new();
    let status = console_proxyd(&host).args(["--guest", GUEST]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_it_keeps_of_sessions_is_for_its_own_group_alone() {
    let proxy = Proxy::activated(Host::new().raw("vnc", &Backend::echo()));
    proxy.ask("POST", "/api/session", &[("Authorization", &format!("Bearer {}", proxy.ticket()))]);
    let folder = proxy.state_folder().join("sessions");
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o770);
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    }
}
