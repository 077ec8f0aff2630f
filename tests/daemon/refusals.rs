//! Refusals to clients that understand `console-proxy.v1`: a browser tells its page nothing of an upgrade that was
//! refused, so they get a websocket and hear on it what HTTP would have said.

use console_proxy::rules::ticket::Mode;

use crate::backends::Backend;
use crate::client::Ws;
use crate::host::{Host, Proxy, until};

const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "console-proxy.v1");

fn proxy() -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo))
}

fn with_v1<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().copied().chain([V1]).collect()
}

/// Asks twice: by HTTP alone, and so that the refusal comes as a close frame. Both must say the same.
#[track_caller]
fn is_refused(proxy: &Proxy, target: &str, headers: &[(&str, &str)], status: u16, words: &str) {
    let answer = proxy.refusal(target, headers);
    assert_eq!((answer.status, answer.body.trim_end()), (status, words), "{target}");
    let mut ws = proxy.try_open(target, &with_v1(headers)).unwrap();
    assert_eq!(ws.answer.header("sec-websocket-protocol"), "console-proxy.v1");
    let told = ws.answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    let told: Vec<_> = told.filter(|name| !name.starts_with("sec-websocket-")).collect();
    assert!(told.iter().all(|name| ["upgrade", "connection", "date"].contains(&name.as_str())), "{told:?}");
    assert_eq!(ws.closed_after(), (Vec::new(), 4000 + status, words.to_owned()), "{target}");
    ws.send_frame(0x88, &(4000 + status).to_be_bytes());
    assert_eq!(ws.next(), None, "the connection ends with it");
}

#[test]
fn every_refusal_has_the_code_of_its_status_and_the_same_words() {
    let config = "[proxy]\nmax-viewers = 1\n[serial]\nviewers = \"refuse\"\n";
    let (echo, silent) = (Backend::echo(), Backend::says("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
    let mut host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).native("spice", &silent).config(config);
    host.route.unreachable =
        serde_json::from_str("[{\"console\": \"serial/3\", \"reason\": \"it is a file\"}]").unwrap();
    host.write_route();
    let proxy = Proxy::activated(host);
    let ticket = || proxy.ticket();
    is_refused(&proxy, "/vnc", &[], 401, "a ticket is needed: `console-proxy url GUEST` on the host prints one");
    is_refused(&proxy, "/vnc?token=a.b.c", &[], 401, proxy.refusal("/vnc?token=a.b.c", &[]).body.trim_end());
    is_refused(
        &proxy,
        &format!("/vnc?token={}&client=a.b", ticket()),
        &[],
        400,
        "client is not 1 to 64 letters, digits, _ and -",
    );
    is_refused(
        &proxy,
        &format!("/vnc?token={}", ticket()),
        &[("Origin", "https://evil.example")],
        403,
        "pages of https://evil.example may not connect here",
    );
    is_refused(&proxy, &format!("/serial/9?token={}", ticket()), &[], 404, "this guest has no serial/9");
    is_refused(&proxy, &format!("/serial/3?token={}", ticket()), &[], 502, "serial/3 cannot be reached: it is a file");
    is_refused(
        &proxy,
        &format!("/spice?token={}", ticket()),
        &[],
        502,
        "spice's own websocket refuses: the backend answered 403 Forbidden instead of a websocket",
    );
    let _serial = proxy.open("/serial/0");
    is_refused(&proxy, &format!("/serial/0?token={}", ticket()), &[], 409, "serial/0 is in use by ann from 127.0.0.1");
    let _vnc = proxy.open("/vnc");
    is_refused(&proxy, &format!("/websockify?token={}", ticket()), &[], 429, "vnc has 1 viewers already");
    let view = proxy.ticket_with(|claims| claims.mode = Mode::View);
    let words = proxy.refusal(&format!("/spice?token={view}"), &[]).body;
    is_refused(&proxy, &format!("/spice?token={view}"), &[], 403, words.trim_end());
    let target = format!("/vnc?token={}", ticket());
    proxy.withdraw_route();
    is_refused(&proxy, &target, &[], 404, "the guest is not running, or not published");
    proxy.until_logged("refused 127.0.0.1: origin: pages of https://evil.example may not connect here");
}

#[test]
fn a_silent_backend_is_4504() {
    let config = "[proxy]\nconnect-timeout = \"1s\"\n";
    let proxy = Proxy::activated(Host::new().native("vnc", &Backend::silent()).config(config));
    let words = "vnc's own websocket did not answer within 1 s";
    is_refused(&proxy, &format!("/vnc?token={}", proxy.ticket()), &[], 504, words);
}

#[test]
fn long_words_are_cut_to_what_a_close_frame_has_room_for() {
    let mut host = Host::new();
    let reason = "é".repeat(200);
    host.route.unreachable = serde_json::from_value(serde_json::json!([{"console": "vnc", "reason": reason}])).unwrap();
    host.write_route();
    let proxy = Proxy::activated(host);
    let mut ws = proxy.try_open(&format!("/vnc?token={}", proxy.ticket()), &[V1]).unwrap();
    let (code, words) = ws.closed();
    assert_eq!(code, 4502);
    assert!(words.starts_with("vnc cannot be reached: éé") && (122..=123).contains(&words.len()), "{words}");
}

#[test]
fn what_is_no_console_or_no_good_upgrade_is_refused_by_http_as_ever() {
    let proxy = proxy();
    for (target, headers, status) in [
        ("/nothing", vec![], 404),
        ("/serial/99999", vec![], 404),
        ("/api/guest", vec![], 401),
        ("/vnc", vec![("Sec-WebSocket-Key", "short")], 400),
        ("/vnc", vec![("Sec-WebSocket-Version", "12")], 426),
        ("/vnc", vec![("Upgrade", "h2c")], 426),
    ] {
        assert_eq!(proxy.refusal(target, &with_v1(&headers)).status, status, "{target} {headers:?}");
    }
    let others = [("Sec-WebSocket-Protocol", "binary, console-proxy.v2")];
    assert_eq!(proxy.refusal("/vnc", &others).status, 401, "who has not offered it is not sent it");
}

#[test]
fn every_console_answers_the_subprotocol_and_displays_send_nothing_but_their_bytes() {
    let native = Backend::websocket();
    let proxy = Proxy::activated(
        Host::new().raw("vnc", &Backend::echo()).native("spice", &native).raw("serial/0", &Backend::echo()),
    );
    for path in ["/vnc", "/spice", "/websockify", "/serial/0"] {
        let headers = [("Sec-WebSocket-Protocol", "binary, console-proxy.v1")];
        let mut ws = proxy.try_open(&format!("{path}?token={}", proxy.ticket()), &headers).unwrap();
        assert_eq!(ws.answer.header("sec-websocket-protocol"), "console-proxy.v1", "{path}");
        if path == "/serial/0" {
            assert_eq!(ws.next().unwrap().first, 0x81, "it is told its position");
        }
        ws.send(b"bytes");
        let frame = ws.next().unwrap();
        assert_eq!((frame.first, frame.payload.as_slice()), (0x82, &b"bytes"[..]), "{path}");
    }
    assert!(native.received_text().contains("sec-websocket-protocol: binary\r\n"), "QEMU knows no other");
}

#[test]
fn who_does_not_hear_its_refusal_is_not_waited_for() {
    let proxy = Proxy::activated(Host::new().raw("vnc", &Backend::echo()).config("[proxy]\nmax-connections = 2\n"));
    // They answer no close frame, and go on talking.
    let mut deaf: Vec<Ws> = (0..2).map(|_| proxy.try_open("/vnc", &[V1]).unwrap()).collect();
    for ws in &mut deaf {
        ws.send(&[0; 1000]);
    }
    // There is room again.
    proxy.open("/vnc").echoes("hello");
    until("they are gone", || {
        deaf.iter_mut().all(|ws| ws.client.try_send(&crate::client::frame(0x82, Some([0; 4]), b"x")).is_err())
    });
}
