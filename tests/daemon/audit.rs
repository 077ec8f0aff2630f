//! The audit, as the proxy prints it by hand: who came and went, who was refused and why, and nothing else that a
//! stranger could fill a journal with.

use console_proxy::rules::ticket::Mode;
use rustix::process::Signal;

use crate::backends::Backend;
use crate::client::{Client, Ws};
use crate::host::{Host, Proxy};

fn proxy() -> Proxy {
    let echo = Backend::echo();
    let mut host = Host::new().raw("vnc", &echo).raw("serial/0", &echo);
    host.environment.push(("CONSOLE_PROXY_LOG", "info".to_owned()));
    Proxy::activated(host)
}

/// The lines with that event.
fn of(proxy: &Proxy, event: &str) -> Vec<String> {
    let field = format!("event=\"{event}\"");
    proxy.log().lines().filter(|line| line.contains(&field)).map(str::to_owned).collect()
}

#[track_caller]
fn ends(proxy: &Proxy) {
    proxy.signal(Signal::TERM);
    proxy.ended();
}

#[test]
fn a_console_is_one_line_when_it_opens_and_one_when_it_is_left() {
    let proxy = proxy();
    let token = proxy.ticket_with(|claims| claims.jti = "j1".into());
    let mut ws = proxy.try_open(&format!("/serial/0?token={token}"), &[]).unwrap();
    ws.echoes("hello");
    proxy.until_logged("event=\"session-start\"");
    ws.send_frame(0x88, &1000u16.to_be_bytes());
    ws.closed();
    proxy.until_logged("event=\"session-end\"");
    let (start, end) = (of(&proxy, "session-start"), of(&proxy, "session-end"));
    assert_eq!((start.len(), end.len()), (1, 1), "{start:#?} {end:#?}");
    let guest = format!("guest={}", crate::host::GUEST);
    for field in [
        "opened serial/0 of g1 from 127.0.0.1: ann (ticket host/j1), control, bridged",
        &guest,
        "guest_name=\"g1\"",
        "person=\"ann\"",
        "auth=\"ticket host/j1\"",
        "from=127.0.0.1",
        "console=serial/0",
        "mode=\"control\"",
        "reached=bridged",
    ] {
        assert!(start[0].contains(field), "no {field} in {}", start[0]);
    }
    for field in [
        "left serial/0 of g1 from 127.0.0.1 after ",
        " s: ann (ticket host/j1), 5 bytes out, 5 in, 0 dropped: the client closed",
        &guest,
        "person=\"ann\"",
        "auth=\"ticket host/j1\"",
        "bytes_out=5",
        "bytes_in=5",
        "bytes_dropped=0",
        " seconds=",
        "end=\"the client closed\"",
        "end_code=1000",
    ] {
        assert!(end[0].contains(field), "no {field} in {}", end[0]);
    }
}

#[test]
fn why_a_console_was_left_is_said_also_where_the_proxy_or_the_connection_ends() {
    let proxy = proxy();
    drop(proxy.open("/vnc"));
    proxy.until_logged("end=\"the client's connection broke\" end_code=1006");
    let _ws = proxy.open("/vnc");
    ends(&proxy);
    proxy.until_logged("end=\"the console proxy is stopping\" end_code=1001");
}

#[test]
fn each_kind_of_refusal_has_its_word() {
    let proxy = proxy();
    let view = proxy.ticket_with(|claims| claims.consoles = vec!["vnc".to_owned().try_into().unwrap()]);
    let other = proxy.ticket_with(|claims| claims.guest = "c50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap());
    let stale = format!("__Host-console-proxy-b50bdc9f={}", "a".repeat(43));
    for (target, headers, line) in [
        ("/vnc?token=a.b.c".to_owned(), vec![], "refused 127.0.0.1: ticket: "),
        (format!("/vnc?token={other}"), vec![], "refused 127.0.0.1: right: the ticket is not for this guest"),
        (format!("/serial/0?token={view}"), vec![], "refused 127.0.0.1: right: the ticket is not for serial/0 (ann)"),
        (
            format!("/vnc?token={view}"),
            vec![("Origin", "https://evil.example")],
            "refused 127.0.0.1: origin: pages of https://evil.example may not connect here",
        ),
        ("/vnc".to_owned(), vec![("Cookie", stale.as_str())], "refused 127.0.0.1: session: the session has ended"),
    ] {
        let answer = proxy.refusal(&target, &headers);
        proxy.until_logged(line);
        let last = of(&proxy, "refused").pop().unwrap();
        let reason = line.split(": ").nth(1).unwrap();
        for field in [&format!("reason=\"{reason}\"")[..], &format!("status={}", answer.status), "from=127.0.0.1"] {
            assert!(last.contains(field), "no {field} in {last}");
        }
    }
    assert_eq!(of(&proxy, "refused").len(), 5);
}

#[test]
fn beyond_ten_a_minute_refusals_are_counted_and_told_when_the_proxy_ends_at_the_latest() {
    let proxy = proxy();
    for _ in 0..2 {
        let mut client = proxy.client();
        for _ in 0..15 {
            assert_eq!(client.ask("GET", "/api/guest?token=a.b.c", &[]).status, 401);
        }
    }
    let mut client = proxy.client();
    for _ in 0..3 {
        client.ask("GET", "/api/guest", &[("Origin", "https://evil.example")]);
    }
    ends(&proxy);
    assert_eq!(of(&proxy, "refused").len(), 10);
    let more = of(&proxy, "refused-more");
    assert_eq!(more.len(), 1, "{more:#?}");
    let line = "refused more from 127.0.0.1: 23 in a minute (20 ticket, 3 origin)";
    assert!(more[0].contains(line) && more[0].contains("count=23"), "{more:#?}");
}

#[test]
fn nobody_can_write_anybody_elses_refusal_into_the_journal() {
    let forged = "refused 192.0.2.9: ticket: x\nrefused 192.0.2.9: ticket: x\u{1b}[2J\u{202e}";
    let echo = Backend::echo();
    let host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).named(forged);
    let proxy = Proxy::activated(host);
    let only_vnc = |claims: &mut console_proxy::rules::ticket::Claims| {
        claims.sub = forged.into();
        claims.jti = forged.into();
        claims.mode = Mode::View;
        claims.consoles = vec!["vnc".to_owned().try_into().unwrap()];
    };
    let ticket = || proxy.ticket_with(only_vnc);
    proxy.try_open(&format!("/vnc?token={}", ticket()), &[]).unwrap().echoes("");
    proxy.refusal(&format!("/serial/0?token={}", ticket()), &[]);
    proxy.refusal("/vnc?token=a%0Arefused%20192.0.2.9:%20ticket:", &[]);
    let origin = "https://h refused 192.0.2.9: ticket: x";
    proxy.refusal(&format!("/vnc?token={}", ticket()), &[("Origin", origin)]);
    let lie = [("X-Forwarded-For", "192.0.2.9"), ("Authorization", "Bearer refused 192.0.2.9: ticket: x")];
    proxy.refusal("/vnc", &lie);
    ends(&proxy);
    let log = proxy.log();
    assert!(log.contains("192.0.2.9"), "it was said, behind what is ours:\n{log}");
    for line in log.lines() {
        let message = line.trim_start().split_once(' ').map_or("", |(_, message)| message.trim_start());
        assert!(!message.starts_with("refused 192"), "{line}");
        let is_ours = ["TRACE", "DEBUG", " INFO", " WARN", "ERROR"].iter().any(|level| line.starts_with(level));
        assert!(is_ours, "a line of somebody's own: {line:?}");
    }
    assert!(!log.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn an_endless_name_is_cut() {
    let proxy = proxy();
    let long = "n".repeat(250);
    let target = |console: &str| {
        let ticket = proxy.ticket_with(|claims| {
            claims.sub.clone_from(&long);
            claims.consoles = vec!["vnc".to_owned().try_into().unwrap()];
        });
        format!("/{console}?token={ticket}")
    };
    drop(proxy.try_open(&target("vnc"), &[]).unwrap());
    proxy.refusal(&target("serial/0"), &[]);
    ends(&proxy);
    assert!(proxy.log().contains(&"n".repeat(200)) && !proxy.log().contains(&"n".repeat(201)), "{}", proxy.log());
}

#[test]
fn a_stranger_who_shows_nothing_writes_nothing() {
    let proxy = proxy();
    for path in ["/", "/api/guest", "/nothing/here", "/assets/none.js", "/vnc", "/serial/9", "/%0aX"] {
        for method in ["GET", "POST", "BREW"] {
            proxy.ask(method, path, &[]);
        }
        let _ = Ws::open(proxy.client(), path, &[]);
        let _ = Ws::open(proxy.client(), path, &[("Sec-WebSocket-Protocol", "console-proxy.v1")]);
        Client::tcp(proxy.address).ask("GET", path, &[]);
    }
    for nonsense in ["\x16\x03\x01nonsense", "nonsense\r\n\r\n", "GET / HTTP/9\r\n\r\n", "\0\0\0\0"] {
        let mut client = Client::tcp(proxy.address);
        client.send(nonsense.as_bytes());
        drop(client);
        proxy.client().try_send(nonsense.as_bytes()).unwrap();
    }
    drop(Client::tcp(proxy.address));
    let mut ws = proxy.open("/vnc");
    ws.echoes("hello");
    drop(ws);
    ends(&proxy);
    let log = proxy.log();
    let others: Vec<_> = log.lines().filter(|line| !line.contains("event=\"session-")).collect();
    assert!(others.is_empty() && log.lines().count() == 2, "{others:#?}");
}
