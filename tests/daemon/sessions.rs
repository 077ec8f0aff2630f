//! Sessions: what a ticket buys a browser, and how that ends.

use rustix::process::Signal;

use crate::backends::Backend;
use crate::client::{Answer, headers};
use crate::host::{Host, Proxy};

fn proxy() -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo).raw("spice", &echo))
}

fn buy(proxy: &Proxy, token: &str) -> Answer {
    proxy.ask("POST", "/api/session", &[("Authorization", &format!("Bearer {token}"))])
}

fn own(proxy: &Proxy) -> String {
    format!("https://{}", proxy.address)
}

#[test]
fn a_ticket_buys_one_session_whose_cookie_no_script_and_no_other_site_gets() {
    let proxy = proxy();
    let token = proxy.ticket();
    let bought = buy(&proxy, &token);
    assert_eq!((bought.status, bought.header("cache-control")), (200, "no-store"));
    let (name, value) = bought.cookie().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!((name.as_str(), value.len()), ("__Host-console-proxy-b50bdc9f", 43));
    let attributes: Vec<_> = bought.header("set-cookie").split("; ").skip(1).collect();
    assert_eq!(attributes, ["Path=/", "Max-Age=28800", "Secure", "HttpOnly", "SameSite=Strict"]);
    let again = buy(&proxy, &token);
    assert_eq!((again.status, again.header("set-cookie")), (401, ""));
    assert!(again.body.contains("has bought its session already"), "{again:?}");
    assert!(proxy.try_open(&format!("/vnc?token={token}"), &[]).is_ok(), "the ticket itself still counts");
    let second = bought.secret();
    assert_eq!((second.len(), second == value), (43, false));
    // What is kept on disk is of no use to who reads it.
    let sessions = proxy.state_folder().join("sessions");
    for file in std::fs::read_dir(sessions).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        for secret in [&value, &second] {
            assert!(!text.contains(secret) && !file.file_name().to_string_lossy().contains(secret));
        }
    }
}

#[test]
fn a_persons_logins_end_their_own_oldest_sessions_and_keep_nobody_else_out() {
    let proxy = proxy();
    let of = |person: &str| {
        let bought = buy(&proxy, &proxy.ticket_with(|claims| claims.sub = person.into()));
        assert_eq!(bought.status, 200, "{person}: {bought:?}");
        bought
    };
    let bobs = of("bob");
    let anns: Vec<_> = (0..260).map(|_| of("ann")).collect();
    of("root");
    let status = |session: &Answer| {
        let (cookie, secret) = (session.cookie(), session.secret());
        proxy.ask("GET", "/api/guest", &[("Cookie", &cookie), ("console-proxy-secret", &secret)]).status
    };
    assert_eq!((status(&bobs), status(&anns[243]), status(&anns[244]), status(&anns[259])), (200, 401, 200, 200));
    let said = proxy.log().lines().filter(|line| line.contains("dropped a session of g1")).count();
    assert_eq!(said, 244);
}

#[test]
fn a_session_is_not_bought_without_a_ticket_or_by_another_sites_page() {
    let proxy = proxy();
    assert_eq!(proxy.ask("POST", "/api/session", &[]).status, 401);
    let bearer = format!("Bearer {}", proxy.ticket());
    let foreign = proxy.ask("POST", "/api/session", &[("Authorization", &bearer), ("Origin", "https://evil.example")]);
    assert_eq!((foreign.status, foreign.header("set-cookie")), (403, ""));
    let session = buy(&proxy, &proxy.ticket()).session(&own(&proxy));
    let with_session = proxy.ask("POST", "/api/session", &headers(&session));
    assert_eq!(with_session.status, 401);
}

#[test]
fn a_session_opens_websockets_with_its_own_origin_alone() {
    let proxy = proxy();
    let own = own(&proxy);
    let session = buy(&proxy, &proxy.ticket()).session(&own);
    let [cookie, secret, _] = headers(&session);
    let mut ws = proxy.try_open("/vnc", &headers(&session)).unwrap();
    ws.echoes("hello");
    let without = proxy.refusal("/vnc", &[cookie, secret]);
    assert_eq!(without.status, 401);
    assert_eq!(without.body, "a session counts with an Origin header alone: use a ticket\n");
    for origin in ["null", "https://evil.example"] {
        assert_eq!(proxy.refusal("/vnc", &[cookie, secret, ("Origin", origin)]).status, 403);
    }
    assert_eq!(proxy.ask("GET", "/api/guest", &[cookie, secret]).status, 200, "a page's own GET has no Origin");
    let made_up =
        cookie.1.replace(|c: char| c.is_ascii_lowercase(), "a").replace("__Host-aaaaaaa-aaaaa", "__Host-console-proxy");
    assert_eq!(proxy.refusal("/vnc", &[("Cookie", &made_up), secret, ("Origin", &own)]).status, 401);
}

#[test]
fn a_session_opens_only_what_its_ticket_named() {
    let proxy = proxy();
    let ticket = proxy.ticket_with(|claims| claims.consoles = vec!["serial/0".to_owned().try_into().unwrap()]);
    let session = buy(&proxy, &ticket).session(&own(&proxy));
    let headers = headers(&session);
    assert!(proxy.try_open("/serial/0", &headers).is_ok());
    assert_eq!(proxy.refusal("/vnc", &headers).status, 403);
}

#[test]
fn a_session_survives_a_restart_of_the_proxy() {
    let proxy = proxy();
    let session = buy(&proxy, &proxy.ticket()).session(&own(&proxy));
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    let mut ws = proxy.try_open("/vnc", &headers(&session)).unwrap();
    ws.echoes("still here");
    assert_eq!(proxy.starts(), 2);
}

#[test]
fn logging_out_ends_the_session_and_its_websockets_and_nobody_elses() {
    let proxy = proxy();
    let origin = own(&proxy);
    let session = buy(&proxy, &proxy.ticket()).session(&origin);
    let headers = headers(&session);
    let [cookie, secret, _] = headers;
    let mut vnc = proxy.try_open("/vnc", &headers).unwrap();
    let mut serial = proxy.try_open("/serial/0", &headers).unwrap();
    let mut other = proxy.open("/vnc");
    assert_eq!(proxy.ask("POST", "/api/logout", &[cookie, secret]).status, 401, "a form of another site");
    let foreign = proxy.ask("POST", "/api/logout", &[cookie, secret, ("Origin", "https://evil.example")]);
    assert_eq!(foreign.status, 403);
    let out = proxy.ask("POST", "/api/logout", &headers);
    assert_eq!(out.status, 204);
    assert_eq!(
        out.header("set-cookie"),
        "__Host-console-proxy-b50bdc9f=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict"
    );
    for ws in [&mut vnc, &mut serial] {
        assert_eq!(ws.closed(), (4401, "the session has ended: somebody logged out of it".to_owned()));
    }
    other.echoes("not mine");
    let after = proxy.refusal("/vnc", &headers);
    assert_eq!(
        (after.status, after.body.as_str()),
        (401, "the session has ended: get another ticket, or log in again\n")
    );
    // spice-html5 brings its ticket in a cookie: a session that has ended must not be in its way.
    let both = format!("{}; token={}", cookie.1, proxy.ticket());
    assert!(proxy.try_open("/spice", &[("Cookie", &both), ("Origin", &origin)]).is_ok());
}

#[test]
fn a_session_ends_with_its_time_and_by_disuse() {
    let echo = Backend::echo();
    let config = "[access]\nsession-life = \"4s\"\nsession-idle = \"3s\"\n";
    let proxy = Proxy::activated(Host::new().raw("vnc", &echo).config(config));
    let session = buy(&proxy, &proxy.ticket()).session(&own(&proxy));
    let headers = headers(&session);
    let mut ws = proxy.try_open("/vnc", &headers).unwrap();
    assert_eq!(ws.closed(), (4401, "the session has ended: its time is over".to_owned()));
    assert_eq!(proxy.refusal("/vnc", &headers).status, 401);
    let unused = buy(&proxy, &proxy.ticket()).session("");
    let is_alive = || proxy.ask("GET", "/api/guest", &crate::client::headers(&unused)[..2]).status == 200;
    crate::host::until("a session ends by disuse", || !is_alive());
}

const ALONE: &str =
    "a session's cookie counts with its second secret alone, which the page keeps: reload the page, or log in again\n";

/// What asks for something of the guest, or does something: method, target.
const DOORS: [(&str, &str); 5] =
    [("GET", "/api/guest"), ("POST", "/api/logout"), ("POST", "/api/session"), ("GET", "/vnc"), ("GET", "/websockify")];

/// How a door answers this: a status and its words.
fn knock(proxy: &Proxy, (method, target): (&str, &str), shown: &[(&str, &str)]) -> (u16, String) {
    let origin = own(proxy);
    let shown = [shown, &[("Origin", origin.as_str())]].concat();
    if target.starts_with("/api/") {
        let answer = proxy.ask(method, target, &shown);
        return (answer.status, answer.body);
    }
    match proxy.try_open(target, &shown) {
        Ok(_) => (101, String::new()),
        Err(answer) => (answer.status, answer.body),
    }
}

#[test]
fn a_cookie_alone_opens_nothing_but_the_page_and_neither_does_a_secret_alone_or_another_ones() {
    let proxy = proxy();
    let (mine, others) = (buy(&proxy, &proxy.ticket()), buy(&proxy, &proxy.ticket()));
    let (cookie, secret, other) = (mine.cookie(), mine.secret(), others.secret());
    let cookie = ("Cookie", cookie.as_str());
    let protocol = |secret: &str| format!("binary, console-proxy.secret.{secret}");
    let (right, wrong) = (protocol(&secret), protocol(&other));
    for door in DOORS {
        assert_eq!(knock(&proxy, door, &[cookie]), (401, ALONE.to_owned()), "{door:?}");
        let (status, words) = knock(&proxy, door, &[("console-proxy-secret", &secret)]);
        assert_eq!(status, 401, "{door:?}: {words}");
        let longer = format!("{secret}A");
        for wrong in [other.as_str(), &secret[..42], &longer, "x", "\u{e9}", cookie.1.split_once('=').unwrap().1] {
            let (status, words) = knock(&proxy, door, &[cookie, ("console-proxy-secret", wrong)]);
            assert_eq!((status, words.contains("another session's second secret")), (401, true), "{door:?}: {words}");
        }
        let (status, words) = knock(&proxy, door, &[cookie, ("Sec-WebSocket-Protocol", &wrong)]);
        assert_eq!((status, words.contains("another session's second secret")), (401, true), "{door:?}: {words}");
        let twice = [("console-proxy-secret", secret.as_str()), ("Sec-WebSocket-Protocol", right.as_str())];
        assert_eq!(knock(&proxy, door, &[cookie, twice[0], twice[1]]).0, 400, "{door:?}");
    }
    for file in ["/", "/favicon.svg"] {
        let (alone, without) = (proxy.ask("GET", file, &[cookie]), proxy.ask("GET", file, &[]));
        assert_eq!((alone.status, alone.body), (without.status, without.body), "{file}");
    }
    for shown in [("console-proxy-secret", secret.as_str()), ("Sec-WebSocket-Protocol", &right)] {
        for door in [DOORS[0], DOORS[3], DOORS[4]] {
            let expected = if door.1.starts_with("/api") { 200 } else { 101 };
            assert_eq!(knock(&proxy, door, &[cookie, shown]).0, expected, "{door:?} {shown:?}");
        }
    }
    assert_eq!(knock(&proxy, DOORS[1], &[cookie, ("console-proxy-secret", &secret)]).0, 204);
    assert_eq!(knock(&proxy, DOORS[0], &[cookie, ("console-proxy-secret", &secret)]).0, 401, "it has ended");
    assert_eq!(
        knock(&proxy, DOORS[0], &[("Cookie", &others.cookie()), ("console-proxy-secret", &other)]).0,
        200,
        "nobody else's has"
    );
}

#[test]
fn a_refusal_for_want_of_the_secret_is_heard_by_a_page_too() {
    let proxy = proxy();
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    let headers = [("Cookie", &*cookie), ("Origin", &own(&proxy)), ("Sec-WebSocket-Protocol", "console-proxy.v1")];
    let (code, words) = proxy.try_open("/vnc", &headers).unwrap().closed();
    assert_eq!((code, words), (4401, ALONE.trim_end().to_owned()));
    proxy.until_logged("refused 127.0.0.1: session: a session's cookie counts with its second secret alone");
}

#[test]
fn the_secret_among_the_subprotocols_is_never_the_one_that_is_answered() {
    let proxy = proxy();
    let bought = buy(&proxy, &proxy.ticket());
    let item = format!("console-proxy.secret.{}", bought.secret());
    for (offered, answered) in [
        (format!("{item}, binary"), "binary"),
        (format!("{item}, chat"), "chat"),
        (format!("console-proxy.v1, {item}"), "console-proxy.v1"),
        (item.clone(), ""),
    ] {
        let headers =
            [("Cookie", &*bought.cookie()), ("Origin", &own(&proxy)), ("Sec-WebSocket-Protocol", offered.as_str())];
        let ws = proxy.try_open("/vnc", &headers).unwrap();
        assert_eq!(ws.answer.header("sec-websocket-protocol"), answered);
        assert!(!format!("{:?}", ws.answer).contains(&item), "{:?}", ws.answer);
    }
}

#[test]
fn a_cookie_that_another_service_set_beside_the_own_one_hides_no_session() {
    let proxy = proxy();
    let bought = buy(&proxy, &proxy.ticket());
    let (own_cookie, secret, theirs) = (bought.cookie(), bought.secret(), buy(&proxy, &proxy.ticket()).cookie());
    for cookies in
        [format!("{theirs}; {own_cookie}"), format!("{own_cookie}; {theirs}"), format!("{own_cookie}=; {own_cookie}")]
    {
        let shown = [("Cookie", cookies.as_str()), ("console-proxy-secret", &secret)];
        assert_eq!(knock(&proxy, DOORS[0], &shown).0, 200, "{cookies}");
    }
    let twice = format!("{theirs}; {theirs}");
    assert_eq!(knock(&proxy, DOORS[0], &[("Cookie", &twice), ("console-proxy-secret", &secret)]).0, 401);
}

#[test]
fn a_session_of_an_older_version_ends_in_words_and_its_ticket_stays_spent() {
    let proxy = proxy();
    let token = proxy.ticket();
    let bought = buy(&proxy, &token);
    let file = std::fs::read_dir(proxy.state_folder().join("sessions")).unwrap().next().unwrap().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("secret").unwrap();
    std::fs::write(file.path(), record.to_string()).unwrap();
    let (cookie, secret) = (bought.cookie(), bought.secret());
    let cookie = ("Cookie", cookie.as_str());
    for shown in [&[cookie][..], &[cookie, ("console-proxy-secret", &secret)], &[cookie, ("console-proxy-secret", "")]]
    {
        let (status, words) = knock(&proxy, DOORS[0], shown);
        assert_eq!((status, words.contains("before console-proxy was upgraded")), (401, true), "{words}");
    }
    assert!(buy(&proxy, &token).body.contains("has bought its session already"));
    assert_eq!(buy(&proxy, &proxy.ticket()).status, 200);
}
