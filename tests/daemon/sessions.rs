//! Sessions: what a ticket buys a browser, and how that ends.

use rustix::process::Signal;

use crate::backends::Backend;
use crate::client::Answer;
use crate::host::{Host, Proxy};

fn proxy() -> Proxy {
    let echo = Backend::echo();
    Proxy::activated(Host::new().raw("vnc", &echo).raw("serial/0", &echo))
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
    assert_eq!((bought.status, bought.header("cache-control")), (204, "no-store"));
    let (name, value) = bought.cookie().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!((name.as_str(), value.len()), ("__Host-console-proxy-b50bdc9f", 43));
    let attributes: Vec<_> = bought.header("set-cookie").split("; ").skip(1).collect();
    assert_eq!(attributes, ["Path=/", "Max-Age=28800", "Secure", "HttpOnly", "SameSite=Strict"]);
    let again = buy(&proxy, &token);
    assert_eq!((again.status, again.header("set-cookie")), (401, ""));
    assert!(again.body.contains("has bought its session already"), "{again:?}");
    assert!(proxy.try_open(&format!("/vnc?token={token}"), &[]).is_ok(), "the ticket itself still counts");
    // What is kept on disk is of no use to who reads it.
    let sessions = proxy.guest_folder().join("state/sessions");
    for file in std::fs::read_dir(sessions).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(&value) && !file.file_name().to_string_lossy().contains(&value));
    }
}

#[test]
fn a_session_is_not_bought_without_a_ticket_or_by_another_sites_page() {
    let proxy = proxy();
    assert_eq!(proxy.ask("POST", "/api/session", &[]).status, 401);
    let bearer = format!("Bearer {}", proxy.ticket());
    let foreign = proxy.ask("POST", "/api/session", &[("Authorization", &bearer), ("Origin", "https://evil.example")]);
    assert_eq!((foreign.status, foreign.header("set-cookie")), (403, ""));
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    let with_session = proxy.ask("POST", "/api/session", &[("Cookie", &cookie), ("Origin", &own(&proxy))]);
    assert_eq!(with_session.status, 401);
}

#[test]
fn a_session_opens_websockets_with_its_own_origin_alone() {
    let proxy = proxy();
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    let own = own(&proxy);
    let mut ws = proxy.try_open("/vnc", &[("Cookie", &cookie), ("Origin", &own)]).unwrap();
    ws.echoes("hello");
    let without = proxy.refusal("/vnc", &[("Cookie", &cookie)]);
    assert_eq!(without.status, 401);
    assert_eq!(without.body, "a session counts with an Origin header alone: use a ticket\n");
    for origin in ["null", "https://evil.example"] {
        assert_eq!(proxy.refusal("/vnc", &[("Cookie", &cookie), ("Origin", origin)]).status, 403);
    }
    assert_eq!(proxy.ask("GET", "/api/guest", &[("Cookie", &cookie)]).status, 200, "a page's own GET has no Origin");
    let made_up =
        cookie.replace(|c: char| c.is_ascii_lowercase(), "a").replace("__Host-aaaaaaa-aaaaa", "__Host-console-proxy");
    assert_eq!(proxy.refusal("/vnc", &[("Cookie", &made_up), ("Origin", &own)]).status, 401);
}

#[test]
fn a_session_opens_only_what_its_ticket_named() {
    let proxy = proxy();
    let ticket = proxy.ticket_with(|claims| claims.consoles = vec!["serial/0".to_owned().try_into().unwrap()]);
    let cookie = buy(&proxy, &ticket).cookie();
    let headers = [("Cookie", cookie.as_str()), ("Origin", &own(&proxy))];
    assert!(proxy.try_open("/serial/0", &headers).is_ok());
    assert_eq!(proxy.refusal("/vnc", &headers).status, 403);
}

#[test]
fn a_session_survives_a_restart_of_the_proxy() {
    let proxy = proxy();
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    let mut ws = proxy.try_open("/vnc", &[("Cookie", &cookie), ("Origin", &own(&proxy))]).unwrap();
    ws.echoes("still here");
    assert_eq!(proxy.starts(), 2);
}

#[test]
fn logging_out_ends_the_session_and_its_websockets_and_nobody_elses() {
    let proxy = proxy();
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    let origin = own(&proxy);
    let headers = [("Cookie", cookie.as_str()), ("Origin", origin.as_str())];
    let mut vnc = proxy.try_open("/vnc", &headers).unwrap();
    let mut serial = proxy.try_open("/serial/0", &headers).unwrap();
    let mut other = proxy.open("/vnc");
    assert_eq!(proxy.ask("POST", "/api/logout", &[("Cookie", &cookie)]).status, 401, "a form of another site");
    let foreign = proxy.ask("POST", "/api/logout", &[("Cookie", &cookie), ("Origin", "https://evil.example")]);
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
    let both = format!("{cookie}; token={}", proxy.ticket());
    assert!(proxy.try_open("/vnc", &[("Cookie", &both), ("Origin", &origin)]).is_ok());
}

#[test]
fn a_session_ends_with_its_time_and_by_disuse() {
    let echo = Backend::echo();
    let config = "[access]\nsession-life = \"4s\"\nsession-idle = \"3s\"\n";
    let proxy = Proxy::activated(Host::new().raw("vnc", &echo).config(config));
    let cookie = buy(&proxy, &proxy.ticket()).cookie();
    let origin = own(&proxy);
    let headers = [("Cookie", cookie.as_str()), ("Origin", origin.as_str())];
    let mut ws = proxy.try_open("/vnc", &headers).unwrap();
    assert_eq!(ws.closed(), (4401, "the session has ended: its time is over".to_owned()));
    assert_eq!(proxy.refusal("/vnc", &headers).status, 401);
    let unused = buy(&proxy, &proxy.ticket()).cookie();
    let is_alive = || proxy.ask("GET", "/api/guest", &[("Cookie", &unused)]).status == 200;
    crate::host::until("a session ends by disuse", || !is_alive());
}
