//! Tickets and Origins: who is let in, who is not, and with which status.

use console_proxy::edges::keys;
use console_proxy::rules::ticket::Mode;

use crate::backends::Backend;
use crate::host::{Host, Proxy, now};

fn proxy() -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(
        Host::new()
            .raw("vnc", &echo)
            .raw("serial/0", &echo)
            .raw("spice", &echo)
            .config("[access]\norigins = [\"https://panel.example\"]\n"),
    )
}

#[test]
fn a_ticket_is_taken_from_the_query_the_authorization_header_and_for_spice_from_the_cookie_token() {
    let proxy = proxy();
    let token = proxy.ticket();
    let mut by_query = proxy.try_open(&format!("/vnc?a=b&token={token}"), &[]).unwrap();
    let mut by_header = proxy.try_open("/vnc", &[("Authorization", &format!("bearer {token}"))]).unwrap();
    let mut by_cookie = proxy.try_open("/spice", &[("Cookie", &format!("a=b; token={token}"))]).unwrap();
    for ws in [&mut by_query, &mut by_header, &mut by_cookie] {
        ws.echoes("several websockets with one ticket");
    }
}

/// Whoever serves another port of this host name can set it.
#[test]
fn a_cookie_named_token_opens_nothing_but_a_spice_display_and_buys_nothing() {
    let proxy = proxy();
    let (cookie, origin) = (format!("token={}", proxy.ticket()), format!("https://{}", proxy.address));
    let headers = [("Cookie", cookie.as_str()), ("Origin", origin.as_str())];
    for path in ["/vnc", "/serial/0", "/websockify"] {
        assert_eq!(proxy.refusal(path, &headers).status, 401, "{path}");
    }
    for (method, path) in [("GET", "/api/guest"), ("POST", "/api/session")] {
        let answer = proxy.ask(method, path, &headers);
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.body, "a ticket is needed: `console-proxy url GUEST` on the host prints one\n");
    }
}

#[test]
fn what_another_sites_page_asks_without_an_origin_is_not_looked_at() {
    let proxy = proxy();
    let target = format!("/api/guest?token={}", proxy.ticket());
    for site in ["cross-site", "same-site"] {
        assert_eq!(proxy.ask("GET", &target, &[("Sec-Fetch-Site", site)]).status, 403, "{site}");
        let guess = proxy.ask("GET", "/api/guest?token=made.up", &[("Sec-Fetch-Site", site)]);
        assert_eq!(guess.status, 403, "{site}");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(proxy.ask("GET", &target, &[("Sec-Fetch-Site", site)]).status, 200, "{site}");
    }
    proxy.until_logged("refused 127.0.0.1: origin: ");
    assert!(!proxy.log().contains("refused 127.0.0.1: ticket: "), "a guess of another site's is not its visitor's");
}

#[test]
fn no_ticket_is_401_and_says_what_to_do() {
    let proxy = proxy();
    let answer = proxy.refusal("/vnc", &[]);
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(answer.body, "a ticket is needed: `console-proxy url GUEST` on the host prints one\n");
    for headers in [[("Cookie", "token=")], [("Authorization", "Bearer ")]] {
        assert_eq!(proxy.refusal("/vnc?token=", &headers).status, 401, "{headers:?}");
    }
}

#[test]
fn a_ticket_that_is_not_good_is_401_and_one_that_is_for_something_else_403() {
    let proxy = proxy();
    let other = "c50bdc9f-490b-4b9b-8641-7573c0eba77c";
    let good = proxy.ticket();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    let (second, _) = keys::ticket_key().unwrap();
    let second = keys::read_ticket_key(&second).unwrap();
    let foreign = console_proxy::rules::ticket::sign(&proxy.claims(), &second).unwrap();
    for (token, status, words) in [
        (proxy.ticket_with(|c| c.guest = other.parse().unwrap()), 403, "the ticket is not for this guest"),
        (proxy.ticket_with(|c| c.consoles = vec!["serial/0".to_owned().try_into().unwrap()]), 403, "is not for vnc"),
        (
            proxy.ticket_with(|c| (c.iat, c.nbf, c.exp) = (now() - 60, now() - 60, now() - 6)),
            401,
            "the ticket has ended: get another one",
        ),
        (proxy.ticket_with(|c| (c.nbf, c.exp) = (now() + 30, now() + 60)), 401, "the ticket does not count yet"),
        (proxy.ticket_with(|c| c.exp = c.iat + 301), 401, "the ticket lives 301 s, at most 300 s are allowed"),
        (proxy.ticket_with(|c| c.aud = "other".into()), 401, "the ticket's aud is not what it must be"),
        (proxy.ticket_with(|c| c.iss = "stranger".into()), 401, "the ticket's issuer is not known here"),
        (proxy.ticket_with(|c| c.iss = "../host".into()), 401, "the ticket's issuer is not known here"),
        (forged, 401, "the ticket's signature is wrong"),
        (foreign, 401, "the ticket's signature is wrong"),
        ("e30.e30.".to_owned(), 401, "missing field"),
        ("a.b".to_owned(), 401, "it has not three parts"),
        ("x".repeat(5000), 401, "it is too long"),
    ] {
        let answer = proxy.refusal(&format!("/vnc?token={token}"), &[]);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(words), "{words}: {answer:?}");
    }
}

#[test]
fn a_ticket_of_100_kb_is_431_and_two_tickets_are_400() {
    let proxy = proxy();
    for (target, headers) in [
        (format!("/vnc?token={}", "x".repeat(100_000)), vec![]),
        ("/vnc".to_owned(), vec![("Authorization", format!("Bearer {}", "x".repeat(100_000)))]),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut client = proxy.client();
        let request = client.request("GET", &target, &[], &headers);
        let _ = client.try_send(request.as_bytes());
        assert_eq!(client.answer().status, 431);
    }
    let token = proxy.ticket();
    let bearer = format!("Bearer {token}");
    for (target, headers) in [
        (format!("/vnc?token={token}&token={token}"), vec![]),
        ("/vnc".to_owned(), vec![("Authorization", bearer.clone()), ("Authorization", bearer)]),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(proxy.refusal(&target, &headers).status, 400, "{headers:?}");
    }
    let cookies = format!("token={token}; token={token}");
    assert_eq!(proxy.refusal("/spice", &[("Cookie", &cookies)]).status, 401, "another application has such a one, too");
}

#[test]
fn an_origin_must_be_the_ports_own_or_listed() {
    let proxy = proxy();
    let own = format!("https://{}", proxy.address);
    let port = proxy.address.port();
    let with = |origin: &str| proxy.try_open(&format!("/vnc?token={}", proxy.ticket()), &[("Origin", origin)]);
    for good in [own.as_str(), "https://panel.example", "https://PANEL.example"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in [
        "null",
        "",
        "https://127.0.0.1",
        &format!("http://127.0.0.1:{port}"),
        &format!("https://127.0.0.1:{}", port - 1),
        &format!("https://localhost:{port}"),
        &format!("{own}.evil"),
        "https://evil.example",
        "https://panel.example:444",
        "https://panel.example.evil",
    ] {
        let Err(answer) = with(bad) else { panic!("{bad} was let in") };
        assert_eq!(answer.status, 403, "{bad}");
        assert!(answer.body.contains("may not connect here"), "{answer:?}");
    }
    let twice = [("Origin", own.as_str()), ("Origin", own.as_str())];
    assert_eq!(proxy.refusal(&format!("/vnc?token={}", proxy.ticket()), &twice).status, 400);
    assert!(proxy.try_open(&format!("/vnc?token={}", proxy.ticket()), &[]).is_ok(), "no browser, but a ticket");
}

#[test]
fn the_subprotocol_is_answered_and_never_a_credential() {
    let proxy = proxy();
    let bearer = format!("Bearer {}", proxy.ticket());
    for (offered, answered) in [
        (None, ""),
        (Some("binary"), "binary"),
        (Some("base64, binary"), "binary"),
        (Some("chat, superchat"), "chat"),
        (Some("base64url.bearer.authorization.x"), ""),
    ] {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(offered.map(|offered| ("Sec-WebSocket-Protocol", offered)));
        let ws = proxy.try_open("/vnc", &headers).unwrap();
        assert_eq!(ws.answer.header("sec-websocket-protocol"), answered, "{offered:?}");
    }
}

#[test]
fn a_view_ticket_reads_a_text_console_and_types_nothing() {
    let serial = Backend::serve(|conversation| {
        std::io::Write::write_all(conversation, b"login: ")?;
        std::io::copy(conversation, &mut std::io::sink()).map(drop)
    });
    let proxy = Proxy::activated(Host::new().raw("serial/0", &serial));
    let ticket = proxy.ticket_with(|claims| claims.mode = Mode::View);
    let mut ws = proxy.try_open(&format!("/serial/0?token={ticket}"), &[]).unwrap();
    ws.send(b"rm -rf /\n");
    assert_eq!(ws.read(7), b"login: ");
    // The ping is answered after the message before it was dealt with.
    ws.send_frame(0x89, b"there?");
    while ws.next().unwrap().opcode() != 0xA {}
    ws.send_frame(0x88, &1000u16.to_be_bytes());
    assert_eq!(ws.closed().0, 1000);
    assert_eq!(serial.received_text(), "");
}

#[test]
fn issuers_count_from_the_moment_their_file_is_there_until_it_is_gone() {
    let proxy = proxy();
    let (private, public) = keys::ticket_key().unwrap();
    let key = keys::read_ticket_key(&private).unwrap();
    let ticket = |mode| {
        let mut claims = proxy.claims();
        (claims.iss, claims.mode) = ("panel".into(), mode);
        console_proxy::rules::ticket::sign(&claims, &key).unwrap()
    };
    let status = |mode| proxy.ask("GET", &format!("/api/guest?token={}", ticket(mode)), &[]).status;
    assert_eq!(status(Mode::View), 401);
    proxy.add_issuer("panel", &public, "modes = [\"view\"]\norigins = [\"https://other.example\"]");
    assert_eq!((status(Mode::View), status(Mode::Control)), (200, 403));
    let target = format!("/serial/0?token={}", ticket(Mode::View));
    assert!(proxy.try_open(&target, &[("Origin", "https://other.example")]).is_ok(), "what the issuer lists");
    let own = format!("/serial/0?token={}", proxy.ticket());
    assert_eq!(proxy.refusal(&own, &[("Origin", "https://other.example")]).status, 403, "for its own tickets alone");
    std::fs::remove_file(proxy.path("etc/console-proxy/issuers.d/panel.toml")).unwrap();
    assert_eq!(status(Mode::View), 401);
    assert_eq!(proxy.starts(), 1);
}
