//! Headers as they come: bytes, of which some are other applications' and no text; and a head that is not one request
//! for this host (RFC 9112).

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::backends::Backend;
use crate::client::{Answer, Client, KEY};
use crate::host::{Host, Proxy};

fn proxy() -> Proxy {
    Proxy::activated(Host::new().raw("vnc", &Backend::echo()))
}

/// A request whose header lines are bytes.
fn ask(client: &mut Client, first: &str, lines: &[&[u8]]) -> Answer {
    let lines: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    client.send(&[first.as_bytes(), b"\r\n", &lines, b"\r\n"].concat());
    client.answer()
}

fn line(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b": ", value].concat()
}

const UPGRADE: [&[u8]; 3] = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"];

#[test]
fn another_applications_cookie_of_any_bytes_hides_no_session() {
    let proxy = proxy();
    let host = line("Host", proxy.address.to_string().as_bytes());
    let origin = line("Origin", format!("https://{}", proxy.address).as_bytes());
    let bearer = line("Authorization", format!("Bearer {}", proxy.ticket()).as_bytes());
    let key = line("Sec-WebSocket-Key", KEY.as_bytes());
    let strange: [&[u8]; 3] = [b"lang=fran\xe7ais", "lang=français".as_bytes(), b"\xff\xfe; =; x"];
    let before = line("Cookie", strange[0]);
    let bought = ask(&mut proxy.client(), "POST /api/session HTTP/1.1", &[&host, &origin, &bearer, &before]);
    assert_eq!(bought.status, 200, "{bought:?}");
    let (ours, secret) = (bought.cookie(), line("console-proxy-secret", bought.secret().as_bytes()));
    for other in strange {
        let alone = [line("Cookie", other), line("Cookie", ours.as_bytes())];
        let one_line = [line("Cookie", &[other, b"; ", ours.as_bytes(), b"; ", other].concat())];
        for cookies in [&alone[..], &one_line] {
            let cookies = cookies.iter().map(Vec::as_slice);
            let lines: Vec<&[u8]> = [&host[..], &origin, &secret].into_iter().chain(cookies).collect();
            let told = ask(&mut proxy.client(), "GET /api/guest HTTP/1.1", &lines);
            assert_eq!(told.status, 200, "{told:?}");
            let lines: Vec<&[u8]> = [&lines[..], &UPGRADE, &[&key]].concat();
            assert_eq!(ask(&mut proxy.client(), "GET /vnc HTTP/1.1", &lines).status, 101);
        }
    }
    let ours = line("Cookie", &[b"lang=fran\xe7ais; ", ours.as_bytes()].concat());
    let out = ask(&mut proxy.client(), "POST /api/logout HTTP/1.1", &[&host, &origin, &secret, &ours]);
    assert_eq!(out.status, 204);
}

#[test]
fn other_applications_cookies_named_token_keep_no_link_and_no_ticket_out() {
    let proxy = proxy();
    let bearer = format!("Bearer {}", proxy.ticket());
    let others = ("Cookie", "token=theirs; token=of-a-third");
    assert_eq!(proxy.ask("POST", "/api/session", &[("Authorization", &bearer), others]).status, 200);
    assert!(proxy.try_open(&format!("/vnc?token={}", proxy.ticket()), &[others]).is_ok());
    let without = proxy.ask("GET", "/api/guest", &[others]);
    assert_eq!((without.status, without.body.contains("a ticket is needed")), (401, true), "{without:?}");
}

#[test]
fn an_origin_of_bytes_that_are_no_text_is_another_sites_also_with_a_ticket() {
    let proxy = proxy();
    let host = line("Host", proxy.address.to_string().as_bytes());
    for origin in [&b"https://caf\xe9.example"[..], b"\xff", "https://café.example".as_bytes()] {
        let (origin, key) = (line("Origin", origin), line("Sec-WebSocket-Key", KEY.as_bytes()));
        let lines = [&UPGRADE[..], &[&host, &origin, &key]].concat();
        let first = format!("GET /vnc?token={} HTTP/1.1", proxy.ticket());
        assert_eq!(ask(&mut proxy.client(), &first, &lines).status, 403);
    }
}

#[test]
fn of_headers_that_may_stand_once_two_are_refused() {
    let proxy = proxy();
    let (own, bearer) = (format!("https://{}", proxy.address), format!("Bearer {}", proxy.ticket()));
    for twice in [("Origin", own.as_str()), ("Authorization", &bearer), ("Host", "localhost")] {
        let answer = proxy.ask("GET", "/api/guest", &[("Authorization", &bearer), twice, twice]);
        assert_eq!(answer.status, 400, "{twice:?}: {answer:?}");
    }
    let odd = [&b"Authorization: Basic \xe9"[..], b"Host: h"];
    assert_eq!(ask(&mut proxy.client(), "GET /api/guest HTTP/1.1", &odd).status, 400);
    let odd = [&b"Authorization: Bearer \xe9"[..], b"Host: h"];
    assert_eq!(ask(&mut proxy.client(), "GET /api/guest HTTP/1.1", &odd).status, 401);
}

#[test]
fn items_of_a_list_that_are_no_text_hide_no_others() {
    let proxy = proxy();
    let key = line("Sec-WebSocket-Key", KEY.as_bytes());
    let first = format!("GET /vnc?token={} HTTP/1.1", proxy.ticket());
    let answer = ask(
        &mut proxy.client(),
        &first,
        &[
            b"Host: h",
            b"Connection: caf\xe9, Upgrade",
            b"Upgrade: \xff, websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Protocol: caf\xe9, binary",
            &key,
        ],
    );
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, "binary"));
    let page =
        ask(&mut proxy.client(), "GET / HTTP/1.1", &[b"Host: h", b"Accept-Encoding: \xe9", b"If-None-Match: \xff, *"]);
    assert_eq!(page.status, 304);
}

/// What a proxy answers on: TLS, plain HTTP on its port, a front socket.
struct Listeners {
    proxy: Proxy,
    socket: PathBuf,
    _fronted: Proxy,
}

impl Listeners {
    fn new() -> Self {
        let host = Host::new().raw("vnc", &Backend::echo());
        let socket = host.path("front.sock");
        let listen = format!("unix:{}", socket.display());
        let is_up = || UnixStream::connect(&socket).is_ok();
        let fronted = Proxy::by_hand_on(host, &["--listen", &listen, "--front"], is_up);
        Self { proxy: proxy(), _fronted: fronted, socket }
    }

    fn clients(&self) -> [(&'static str, Client); 3] {
        [
            ("TLS", self.proxy.client()),
            ("plain", Client::tcp(self.proxy.address)),
            ("front", Client::unix(&self.socket)),
        ]
    }

    /// A head that is refused wherever it comes, once, whatever comes behind it.
    #[track_caller]
    fn refuse(&self, head: &[u8]) {
        for (kind, mut client) in self.clients() {
            let _ = client.try_send(&[head, b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
            let answers = client.until_closed();
            let head = String::from_utf8_lossy(head);
            assert_eq!(answers.get(..13).map(|start| &start[8..]), Some(" 400 "), "{kind}: {head:?}: {answers}");
            assert_eq!(answers.matches("HTTP/1.").count(), 1, "{kind}: {head:?}: {answers}");
        }
    }
}

#[test]
fn a_request_names_one_host_or_is_400_on_every_listener() {
    let listeners = Listeners::new();
    for hosts in [
        &b""[..],
        b"\r\nHost: h\r\nHost: h",
        b"\r\nHost:",
        b"\r\nHost: h/x",
        b"\r\nHost: user@h",
        b"\r\nHost: h:0",
        b"\r\nHost: h, i",
        b"\r\nHost: caf\xe9",
        "\r\nHost: café".as_bytes(),
    ] {
        for target in ["/", "/api/guest", "/vnc", "http://h/"] {
            let head = [format!("GET {target} HTTP/1.1\r\nX-Forwarded-Proto: https").as_bytes(), hosts].concat();
            listeners.refuse(&head);
        }
    }
    for target in ["/", "/vnc"] {
        listeners.refuse(format!("GET {target} HTTP/1.0\r\nHost: a\r\nHost: b").as_bytes());
    }
}

#[test]
fn http_1_0_needs_no_host_and_gets_the_page_and_no_console() {
    let proxy = proxy();
    let first = |target: &str| format!("GET {target} HTTP/1.0");
    assert_eq!(ask(&mut proxy.client(), &first("/"), &[]).status, 200);
    let key = line("Sec-WebSocket-Key", KEY.as_bytes());
    let target = format!("/vnc?token={}", proxy.ticket());
    assert_eq!(ask(&mut proxy.client(), &first(&target), &[&UPGRADE[..], &[&key]].concat()).status, 426);
    let origin = line("Origin", format!("https://{}", proxy.address).as_bytes());
    assert_eq!(ask(&mut proxy.client(), &first("/api/guest"), &[&origin]).status, 403, "no Origin is its own");
}

#[test]
fn a_target_may_name_the_host_itself_and_no_other_one_than_the_header() {
    let listeners = Listeners::new();
    let absolute = |client: &mut Client| ask(client, "GET http://KVM7.example:1/ HTTP/1.1", &[b"Host: kvm7.example:1"]);
    let statuses = listeners.clients().map(|(_, mut client)| absolute(&mut client).status);
    assert_eq!(statuses, [200, 308, 200]);
    for target in ["http://i/", "https://i:443/vnc", "http://user@h/", "http://h:80/"] {
        listeners.refuse(format!("GET {target} HTTP/1.1\r\nHost: h").as_bytes());
    }
}

#[test]
fn where_a_request_ends_is_beyond_doubt_or_the_connection_ends() {
    let listeners = Listeners::new();
    for lines in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "X: a\r\n b",
        "X : a",
    ] {
        listeners.refuse(format!("POST /api/session HTTP/1.1\r\nHost: h\r\n{lines}").as_bytes());
    }
}
