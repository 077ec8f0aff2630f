//! What a request gets: statuses, headers and words, without any websocket being opened.

use std::net::TcpStream;

use crate::backends::Backend;
use crate::client::{ACCEPT, Client};
use crate::host::{Host, Proxy};

fn proxy() -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo))
}

#[test]
fn the_page_needs_no_right_and_tells_nothing_of_the_guest() {
    let proxy = Proxy::activated(Host::new().named("secret-name"));
    let page = proxy.ask("GET", "/", &[]);
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("secret-name") && !page.body.contains(crate::host::GUEST));
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("style-src 'self' 'sha256-"), "{policy}");
    for (name, value) in
        [("cache-control", "no-cache"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
    {
        assert_eq!(page.header(name), value);
    }
}

#[test]
fn what_is_no_path_of_ours_is_404_and_a_wrong_method_405() {
    let proxy = proxy();
    let bearer = format!("Bearer {}", proxy.ticket());
    for target in ["/serial/99999", "/serial/../vnc", "/serial/", "/nothing", "//vnc", "/vnc/", "/VNC", "/%76nc", "*"] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let answer = proxy.ask(method, target, &[("Authorization", &bearer)]);
        assert_eq!((answer.status, answer.body.as_str()), (404, "there is nothing at this path\n"), "{target}");
    }
    for (method, target, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("HEAD", "/vnc", "GET"),
        ("DELETE", "/serial/0", "GET"),
        ("GET", "/api/session", "POST"),
        ("GET", "/api/logout", "POST"),
        ("PUT", "/api/logout", "POST"),
    ] {
        let mut client = proxy.client();
        client.send(client.request(method, target, &[], &[("Connection", "close")]).as_bytes());
        let answer = client.until_closed();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {target}: {answer}");
        assert!(answer.contains(&format!("allow: {allowed}\r\n")), "{method} {target}: {answer}");
    }
}

#[test]
fn a_console_that_the_guest_has_not_is_404_by_name() {
    let proxy = proxy();
    for path in ["/serial/99", "/spice", "/console/0"] {
        let answer = proxy.refusal(&format!("{path}?token={}", proxy.ticket()), &[]);
        assert_eq!((answer.status, answer.body), (404, format!("this guest has no {}\n", &path[1..])));
    }
    let text_only = Proxy::activated(Host::new().raw("serial/0", &Backend::echo()));
    let answer = text_only.refusal(&format!("/websockify?token={}", text_only.ticket()), &[]);
    assert_eq!((answer.status, answer.body.as_str()), (404, "this guest has no display\n"));
}

#[test]
fn websockify_is_the_vnc_display_whatever_comes_first_in_the_definition() {
    let both = Proxy::activated(Host::new().raw("spice", &Backend::echo()).raw("vnc", &Backend::echo()));
    both.open("/websockify").echoes("hello");
    both.until_logged("opened vnc");
    let spice = Proxy::activated(Host::new().raw("spice", &Backend::echo()));
    spice.open("/websockify").echoes("hello");
    spice.until_logged("opened spice");
}

#[test]
fn a_console_without_upgrade_or_with_a_wrong_one_is_426() {
    let proxy = proxy();
    let bearer = format!("Bearer {}", proxy.ticket());
    let plain = proxy.ask("GET", "/vnc", &[("Authorization", &bearer)]);
    assert_eq!(plain.status, 426);
    assert_eq!((plain.header("upgrade"), plain.header("connection")), ("websocket", "Upgrade"));
    for (name, value) in [("Upgrade", "h2c"), ("Connection", "close"), ("Connection", "keep-alive")] {
        assert_eq!(proxy.refusal("/vnc", &[("Authorization", &bearer), (name, value)]).status, 426, "{name}: {value}");
    }
    for version in ["12", "14", "013", "13, 8", ""] {
        let answer = proxy.refusal("/vnc", &[("Authorization", &bearer), ("Sec-WebSocket-Version", version)]);
        assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, "13"), "{version:?}");
    }
}

#[test]
fn a_wrong_key_is_400() {
    let proxy = proxy();
    let bearer = format!("Bearer {}", proxy.ticket());
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not base64 at all!!!!==="] {
        let answer = proxy.refusal("/vnc", &[("Authorization", &bearer), ("Sec-WebSocket-Key", key)]);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, "Sec-WebSocket-Key is not 16 bytes in base64\n"),
            "{key:?}"
        );
    }
    let good = proxy.open("/vnc");
    assert_eq!(good.answer.header("sec-websocket-accept"), ACCEPT);
}

#[test]
fn headers_of_64_kib_are_431() {
    let proxy = proxy();
    let mut client = proxy.client();
    let request = client.request("GET", "/vnc", &[], &[("X-Long", &"a".repeat(64 << 10))]);
    let _ = client.try_send(request.as_bytes());
    assert_eq!(client.answer().status, 431);
    // Long enough that the answer comes while the request is still being sent.
    let mut client = proxy.client();
    let _ =
        client.try_send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: aaaaaaa\r\n".repeat(200_000)).as_bytes());
    assert_eq!(client.answer().status, 431);
    assert_eq!(proxy.ask("GET", "/", &[]).status, 200, "others are served on");
}

#[test]
fn what_is_no_http_gets_400_and_harms_nobody() {
    let proxy = proxy();
    for text in ["hello\r\n\r\n", "GET /vnc\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let mut client = proxy.client();
        let _ = client.try_send(text.as_bytes());
        let answer = client.until_closed();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{text:?}: {answer}");
    }
    assert_eq!(proxy.ask("GET", "/", &[]).status, 200);
    assert_eq!(proxy.starts(), 1, "it never crashed");
}

#[test]
fn a_websocket_is_not_opened_over_http_1_0() {
    let proxy = proxy();
    let mut client = proxy.client();
    let request = client
        .request(
            "GET",
            &format!("/vnc?token={}", proxy.ticket()),
            &[],
            &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", crate::client::KEY),
            ],
        )
        .replace("HTTP/1.1", "HTTP/1.0");
    client.send(request.as_bytes());
    assert_eq!(client.answer().status, 426);
}

#[test]
fn plain_http_is_sent_to_https_without_path_and_query() {
    let proxy = proxy();
    let own = proxy.address.to_string();
    for (host, location) in [
        (own.as_str(), format!("https://{own}/")),
        ("kvm7.example:23000", "https://kvm7.example:23000/".to_owned()),
        ("[::1]:23000", "https://[::1]:23000/".to_owned()),
    ] {
        let mut client = Client::tcp(proxy.address);
        client.send(client.request("GET", "/vnc?token=a.b.c", &[], &[("Host", host)]).as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("location")), (308, location.as_str()));
        assert_eq!(client.until_closed(), "", "the connection is closed");
    }
    for host in ["evil/..", "a b", "user@h", "h:0", "h:99999", "", "h\tx"] {
        let answer = Client::tcp(proxy.address).ask("GET", "/", &[("Host", host)]);
        assert_eq!((answer.status, answer.header("location")), (400, ""), "{host:?}");
    }
    let twice = Client::tcp(proxy.address).ask("GET", "/", &[("Host", "a"), ("Host", "b")]);
    assert_eq!((twice.status, twice.header("location")), (400, ""));
    let mut without = Client::tcp(proxy.address);
    without.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(without.answer().status, 400);
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_garbage_after_the_first_byte_harms_nobody() {
    use tokio_rustls::rustls::version::{TLS12, TLS13};
    let proxy = proxy();
    for version in [&TLS12, &TLS13] {
        let mut client = Client::tls_with(proxy.address, &[version]).unwrap();
        assert_eq!(client.ask("GET", "/", &[]).status, 200);
    }
    let mut garbage = Client::tcp(proxy.address);
    garbage.send(&[0x16; 4000]);
    garbage.until_closed();
    drop(TcpStream::connect(proxy.address).unwrap());
    assert_eq!(proxy.ask("GET", "/", &[]).status, 200);
}

#[test]
fn the_guest_is_described_to_who_has_a_right_and_to_nobody_else() {
    let name = "a \"b\" <b>%s\nc";
    let proxy =
        Proxy::activated(Host::new().named(name).raw("vnc", &Backend::echo()).raw("serial/0", &Backend::echo()));
    assert_eq!(proxy.ask("GET", "/api/guest", &[]).status, 401);
    let ticket = proxy.ticket_with(|claims| claims.consoles = vec!["vnc".to_owned().try_into().unwrap()]);
    let answer = proxy.ask("GET", &format!("/api/guest?token={ticket}"), &[]);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["name"], name);
    assert_eq!(told["uuid"], crate::host::GUEST);
    assert_eq!(
        told["consoles"],
        serde_json::json!([{"console": "vnc", "path": "/vnc", "reached": "bridged", "added": false, "mode": "control"}])
    );
    assert_eq!(told["session"], serde_json::Value::Null);
}

#[test]
fn a_route_that_is_gone_is_404_and_a_broken_one_502_with_its_faults_told_to_the_journal_alone() {
    let proxy = proxy();
    let target = format!("/vnc?token={}", proxy.ticket());
    proxy.write(&format!("run/console-proxy/guests/{}/route.toml", crate::host::GUEST), "secret = 1");
    let answer = proxy.refusal(&target, &[]);
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("secret") && !answer.body.contains("route.toml"), "{answer:?}");
    proxy.withdraw_route();
    let answer = proxy.refusal(&target, &[]);
    assert_eq!((answer.status, answer.body.as_str()), (404, "the guest is not running, or not published\n"));
    let open = Host::new().raw("vnc", &Backend::echo()).open_to_all();
    let open = Proxy::activated(open);
    assert_eq!(open.refusal("/vnc", &[]).status, 502, "auth = \"none\" is for hand-written routes");
}
