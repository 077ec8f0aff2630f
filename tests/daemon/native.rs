//! Consoles that are forwarded to a backend's own websocket: what goes there, and what the proxy makes of its answers.

use std::io::Write;

use console_proxy::rules::ticket::Mode;

use crate::backends::{Backend, TlsKeys};
use crate::host::{Host, Proxy};

#[test]
fn nothing_of_the_clients_request_reaches_the_backend() {
    let backend = Backend::websocket();
    let proxy = Proxy::activated(Host::new().native("vnc", &backend));
    let token = proxy.ticket();
    let origin = format!("https://{}", proxy.address);
    let headers = [
        ("Origin", origin.as_str()),
        ("Cookie", "secret-cookie=1"),
        ("User-Agent", "secret-agent"),
        ("X-Forwarded-For", "secret-address"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Protocol", "binary"),
        ("Authorization", &format!("Bearer {token}")),
    ];
    let mut ws = proxy.try_open("/vnc?secret=query", &headers).unwrap();
    assert_eq!(ws.answer.header("sec-websocket-protocol"), "binary");
    assert_eq!(ws.answer.header("sec-websocket-extensions"), "");
    assert_eq!(ws.answer.header("server"), "", "nor does the backend's answer reach the client");
    ws.echoes("RFB 003.008\n");
    let (head, _) = backend.received_text().split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(head.len() < 4000, "spice-server reads it in one go");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("GET / HTTP/1.1"));
    let mut headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    headers.retain(|(name, _)| *name != "sec-websocket-key");
    headers.sort_unstable();
    let expected = [
        ("connection", "Upgrade"),
        ("host", "localhost"),
        ("sec-websocket-protocol", "binary"),
        ("sec-websocket-version", "13"),
        ("upgrade", "websocket"),
    ];
    assert_eq!(headers, expected);
    assert!(!head.contains(crate::client::KEY), "the key is the proxy's own");
}

#[test]
fn payload_goes_through_as_it_is_in_both_directions() {
    let backend = Backend::websocket();
    let proxy = Proxy::activated(Host::new().native("vnc", &backend));
    let mut ws = proxy.open("/vnc");
    let mut sent = Vec::new();
    for n in [0usize, 1, 125, 126, 127, 65_535, 65_536, 300_000] {
        let payload: Vec<u8> = (0..n).map(|i| (i * 7 % 251) as u8).collect();
        ws.send(&payload);
        assert_eq!(ws.read(n), payload, "{n} bytes");
        sent.extend(crate::client::frame(0x82, Some([1, 2, 3, 4]), &payload));
    }
    let received = backend.received();
    assert!(received.ends_with(&sent), "byte for byte, mask and all");
}

#[test]
fn what_the_backend_says_with_its_answer_is_not_lost() {
    let backend = Backend::websocket_that(|ws| {
        ws.send(0x82, b"at once")?;
        ws.next().map(drop)
    });
    let proxy = Proxy::activated(Host::new().native("vnc", &backend));
    assert_eq!(proxy.open("/vnc").read(7), b"at once");
}

#[test]
fn a_backend_that_breaks_the_protocol_is_4502() {
    let masked = Backend::websocket_that(|ws| {
        ws.conversation.write_all(&crate::client::frame(0x82, Some([1; 4]), b"masked"))?;
        ws.next().map(drop)
    });
    let proxy = Proxy::activated(Host::new().native("vnc", &masked));
    let (code, reason) = proxy.open("/vnc").closed();
    assert_eq!(code, 4502);
    assert!(reason.starts_with("the guest's console broke the websocket protocol"), "{reason}");
}

#[test]
fn a_backends_own_close_is_passed_on() {
    let closes = Backend::websocket_that(|ws| {
        ws.send(0x88, &[&1011u16.to_be_bytes()[..], b"its own words"].concat())?;
        ws.next().map(drop)
    });
    let proxy = Proxy::activated(Host::new().native("vnc", &closes));
    let mut ws = proxy.open("/vnc");
    assert_eq!(ws.closed(), (1011, "its own words".to_owned()));
    ws.send_frame(0x88, &1000u16.to_be_bytes());
    assert_eq!(ws.next(), None, "and no second one follows");
}

#[test]
fn a_backend_that_offers_no_websocket_is_502_with_the_reason() {
    for (says, words) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "answered 403 Forbidden instead of a websocket"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "has a wrong key"),
        ("RFB 003.008\n", "refuses"),
        ("", "refuses"),
    ] {
        let backend = Backend::says(says);
        let proxy = Proxy::activated(Host::new().native("vnc", &backend));
        let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
        assert_eq!(answer.status, 502, "{says:?}");
        assert!(answer.body.contains(words), "{says:?}: {answer:?}");
        proxy.until_logged("vnc of g1: vnc's own websocket");
    }
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    let config = "[proxy]\nconnect-timeout = \"1s\"\n";
    let proxy = Proxy::activated(Host::new().native("vnc", &Backend::silent()).config(config));
    let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (504, "vnc's own websocket did not answer within 1 s\n"));
}

#[test]
fn a_backend_with_tls_must_show_a_chain_that_ends_in_the_routes_authority() {
    let (keys, other) = (TlsKeys::new(), TlsKeys::new());
    for names in [vec!["localhost"], vec!["127.0.0.1", "elsewhere.example"]] {
        let backend = Backend::websocket_tls(&keys, &names);
        let proxy = Proxy::activated(Host::new().native_tls("vnc", &backend, &keys.authority()));
        proxy.open("/vnc").echoes("over TLS");
    }
    let listed = Backend::websocket_tls(&keys, &["elsewhere.example"]);
    let both = other.authority() + &keys.last_server();
    Proxy::activated(Host::new().native_tls("vnc", &listed, &both)).open("/vnc").echoes("listed itself");
    for (backend, ca) in [
        (Backend::websocket_tls(&keys, &["localhost"]), other.authority()),
        (Backend::websocket_tls(&keys, &["elsewhere.example"]), keys.authority()),
        (Backend::says("HTTP/1.1 400 Bad Request\r\n\r\n"), keys.authority()),
    ] {
        let proxy = Proxy::activated(Host::new().native_tls("vnc", &backend, &ca));
        let answer = proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &[]);
        assert_eq!(answer.status, 502);
        assert!(answer.body.starts_with("vnc's own websocket refuses: "), "{answer:?}");
    }
}

#[test]
fn a_view_only_session_is_never_forwarded() {
    let (raw, native) = (Backend::says("login: "), Backend::websocket());
    let proxy = Proxy::activated(Host::new().raw("serial/0", &raw).native("serial/0", &native));
    let ticket = proxy.ticket_with(|claims| claims.mode = Mode::View);
    assert_eq!(proxy.try_open(&format!("/serial/0?token={ticket}"), &[]).unwrap().read(7), b"login: ");
    assert_eq!(native.received_text(), "");
}
