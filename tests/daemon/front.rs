//! The front socket: a reverse proxy speaks for browsers there, and is believed. Nowhere else.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::backends::Backend;
use crate::client::{Answer, Client, Ws, headers};
use crate::host::{Host, Proxy};

/// A proxy behind a reverse proxy, and the socket between them.
struct Fronted {
    proxy: Proxy,
    socket: PathBuf,
}

impl Fronted {
    fn new() -> Self {
        let host = Host::new().raw("serial/0", &Backend::echo());
        let socket = host.path("front.sock");
        let listen = format!("unix:{}", socket.display());
        let proxy = Proxy::by_hand_on(host, &["--listen", &listen, "--front"], || UnixStream::connect(&socket).is_ok());
        Self { proxy, socket }
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        Client::unix(&self.socket).ask(method, target, headers)
    }

    fn open(&self, target: &str, headers: &[(&str, &str)]) -> Result<Ws, Answer> {
        Ws::open(Client::unix(&self.socket), target, headers)
    }

    fn with_ticket(&self) -> String {
        format!("/serial/0?token={}", self.proxy.ticket())
    }

    /// What a page sends along in the session that a ticket buys: cookie and second secret.
    fn session(&self) -> [(&'static str, String); 2] {
        let bearer = format!("Bearer {}", self.proxy.ticket());
        let bought = self.ask("POST", "/api/session", &[("Authorization", &bearer)]);
        assert_eq!(bought.status, 200, "{bought:?}");
        assert!(bought.header("set-cookie").contains("; Secure; "), "the browser speaks https: {bought:?}");
        let [cookie, secret, _] = bought.session("");
        [cookie, secret]
    }
}

const HOST: (&str, &str) = ("Host", "consoles.example");
const HTTPS: (&str, &str) = ("X-Forwarded-Proto", "https");

#[test]
fn an_origin_is_the_forwarded_scheme_and_the_host_and_no_other() {
    let fronted = Fronted::new();
    let session = fronted.session();
    for (scheme, host, origin, expected) in [
        ("https", "consoles.example", "https://consoles.example", 101),
        ("https", "consoles.example:8443", "https://consoles.example:8443", 101),
        ("http", "localhost:8080", "http://localhost:8080", 101),
        ("http", "consoles.example", "https://consoles.example", 403),
        ("https", "consoles.example", "http://consoles.example", 403),
        ("https", "consoles.example:8443", "https://consoles.example", 403),
        ("https", "consoles.example", "https://evil.example", 403),
        ("https", "consoles.example", "null", 403),
        ("https, http", "consoles.example", "https://consoles.example", 400),
        ("wss", "consoles.example", "https://consoles.example", 400),
    ] {
        let [cookie, secret] = headers(&session);
        let headers = [("Host", host), ("X-Forwarded-Proto", scheme), ("Origin", origin), cookie, secret];
        let status = fronted.open("/serial/0", &headers).map_or_else(|answer| answer.status, |_| 101);
        assert_eq!(status, expected, "{scheme} {host} {origin}");
    }
}

#[test]
fn without_a_forwarded_scheme_no_page_gets_in_and_a_program_with_a_ticket_does() {
    let fronted = Fronted::new();
    for origin in ["https://consoles.example", "http://consoles.example"] {
        let answer = fronted.open(&fronted.with_ticket(), &[HOST, ("Origin", origin)]).err().expect("it is refused");
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains("X-Forwarded-Proto"), "the administrator reads what to do: {answer:?}");
    }
    fronted.open(&fronted.with_ticket(), &[HOST]).unwrap().echoes("no browser");
}

#[test]
fn the_client_is_the_last_forwarded_address_in_the_log() {
    let fronted = Fronted::new();
    for (forwarded, shown) in [
        ("10.9.9.9, 192.0.2.7", "192.0.2.7"),
        ("\u{ff}, 192.0.2.8", "192.0.2.8"),
        ("2001:db8::7", "2001:db8::7"),
        ("root", "a unix socket"),
    ] {
        let mut ws = fronted.open(&fronted.with_ticket(), &[HOST, HTTPS, ("X-Forwarded-For", forwarded)]).unwrap();
        ws.echoes("hello");
        fronted.proxy.until_logged(&format!("opened serial/0 of g1 from {shown}: ann "));
    }
    assert!(!fronted.proxy.log().contains("from 10.9.9.9"), "what the client itself may have said");
}

#[test]
fn plain_http_is_served_and_redirected_nowhere() {
    let fronted = Fronted::new();
    for headers in [&[HOST, HTTPS][..], &[HOST, ("X-Forwarded-Proto", "http")], &[HOST]] {
        assert_eq!(fronted.ask("GET", "/", headers).status, 200, "{headers:?}");
    }
}

#[test]
fn on_the_tcp_port_nobody_is_believed() {
    let echo = Backend::echo();
    let proxy = Proxy::activated(Host::new().raw("serial/0", &echo));
    let target = || format!("/serial/0?token={}", proxy.ticket());
    let own = format!("https://{}", proxy.address);
    let lies = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "http"), ("Origin", &*own)];
    proxy.try_open(&target(), &lies).unwrap().echoes("the own origin counts, whatever is said");
    proxy.until_logged("opened serial/0 of g1 from 127.0.0.1: ann ");
    assert!(!proxy.log().contains("192.0.2.7"), "{}", proxy.log());
    let http = format!("http://{}", proxy.address);
    assert_eq!(proxy.refusal(&target(), &[lies[1], ("Origin", &http)]).status, 403);
    assert_eq!(proxy.ask("GET", "/", &[("X-Forwarded-Proto", "nonsense")]).status, 200, "it is not even read");
}

#[test]
fn on_a_unix_socket_by_hand_nobody_is_believed_unless_it_is_said_to_be_a_front() {
    let host = Host::new().raw("serial/0", &Backend::echo());
    let socket = host.path("socket");
    let (listen, target) = (format!("unix:{}", socket.display()), format!("/serial/0?token={}", host.ticket()));
    let proxy = Proxy::by_hand_on(host, &["--listen", &listen, "--plain"], || UnixStream::connect(&socket).is_ok());
    let lies = [HOST, HTTPS, ("X-Forwarded-For", "192.0.2.7")];
    Ws::open(Client::unix(&socket), &target, &lies).unwrap().echoes("a ticket counts");
    proxy.until_logged("opened serial/0 of g1 from a unix socket: ann ");
    let own = [HOST, HTTPS, ("Origin", "https://consoles.example")];
    assert_eq!(Ws::open(Client::unix(&socket), &target, &own).err().map(|answer| answer.status), Some(403));
}

#[test]
fn four_hundred_cookies_of_other_guests_are_in_nobodys_way() {
    let fronted = Fronted::new();
    let others = (0..400).map(|n| format!("__Host-console-proxy-{n:08x}={}", "a".repeat(43)));
    let [(_, cookie), (secret, value)] = fronted.session();
    let cookies: Vec<String> = others.chain([cookie]).collect();
    let headers =
        [HOST, HTTPS, ("Origin", "https://consoles.example"), ("Cookie", &cookies.join("; ")), (secret, &value)];
    fronted.open("/serial/0", &headers).unwrap().echoes("found among many");
}
