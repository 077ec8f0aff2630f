//! The page in a frame of another site, and a browser that brings a hundred other guests' cookies.

use crate::backends::Backend;
use crate::client::headers;
use crate::host::{Host, Proxy};

const PANEL: &str = "https://panel.example";

fn embedded() -> Proxy {
    let config = format!("[access]\nembed-origins = [\"{PANEL}\", \"https://b.example:8443\"]\n");
    Proxy::activated(Host::new().raw("vnc", &Backend::echo()).config(&config))
}

#[test]
fn only_listed_sites_may_frame_the_page() {
    let page = embedded().ask("GET", "/", &[]);
    let policy = page.header("content-security-policy");
    assert!(policy.ends_with("; frame-ancestors https://panel.example https://b.example:8443"), "{policy}");
    assert_eq!(page.header("cross-origin-resource-policy"), "cross-origin");
}

#[test]
fn a_framed_pages_session_is_kept_apart_for_each_site_that_frames_it() {
    let proxy = embedded();
    let own = format!("https://{}", proxy.address);
    let bearer = format!("Bearer {}", proxy.ticket());
    let bought = proxy.ask("POST", "/api/session", &[("Authorization", &bearer), ("Origin", &own)]);
    let attributes: Vec<_> = bought.header("set-cookie").split("; ").skip(1).collect();
    assert_eq!(attributes, ["Path=/", "Max-Age=28800", "Secure", "HttpOnly", "SameSite=None", "Partitioned"]);
    let session = bought.session(&own);
    let session = headers(&session);
    let [cookie, secret, _] = session;
    proxy.try_open("/vnc", &session).unwrap().echoes("framed");
    // A browser sends such a cookie whoever asks: what counts is who says that it does.
    for origin in ["https://evil.example", "null"] {
        assert_eq!(proxy.refusal("/vnc", &[cookie, secret, ("Origin", origin)]).status, 403);
        let out = proxy.ask("POST", "/api/logout", &[cookie, secret, ("Origin", origin)]);
        assert_eq!(out.status, 403);
    }
    let told = proxy.ask("GET", "/api/guest", &[cookie, secret]);
    assert_eq!((told.status, told.header("cross-origin-resource-policy")), (200, "same-origin"));
    let out = proxy.ask("POST", "/api/logout", &session);
    assert!(out.header("set-cookie").ends_with("; Max-Age=0; Secure; HttpOnly; SameSite=None; Partitioned"), "{out:?}");
}

#[test]
fn a_site_that_may_frame_the_page_may_connect_too() {
    let proxy = embedded();
    let target = format!("/vnc?token={}", proxy.ticket());
    proxy.try_open(&target, &[("Origin", PANEL)]).unwrap().echoes("from the panel");
    assert_eq!(proxy.refusal(&target, &[("Origin", "https://panel.example.evil")]).status, 403);
}

#[test]
fn a_browser_with_cookies_of_150_guests_is_served_and_none_of_them_reaches_the_backend() {
    let backend = Backend::websocket();
    let proxy = Proxy::activated(Host::new().native("vnc", &backend));
    let bearer = format!("Bearer {}", proxy.ticket());
    let bought = proxy.ask("POST", "/api/session", &[("Authorization", &bearer)]);
    let (own_cookie, secret) = (bought.cookie(), bought.secret());
    let others = (0..150).map(|n| format!("__Host-console-proxy-{n:08x}={}", "s".repeat(43)));
    let cookies = others.chain([own_cookie]).collect::<Vec<_>>().join("; ");
    assert!(cookies.len() > 10_000);
    let own = format!("https://{}", proxy.address);
    let protocols = format!("binary, console-proxy.secret.{secret}");
    let headers =
        [("Cookie", cookies.as_str()), ("Origin", own.as_str()), ("Sec-WebSocket-Protocol", protocols.as_str())];
    for target in ["/", "/api/guest"] {
        assert_eq!(proxy.ask("GET", target, &headers).status, 200, "{target}");
    }
    let mut ws = proxy.try_open("/vnc", &headers).unwrap();
    assert_eq!(ws.answer.header("sec-websocket-protocol"), "binary");
    ws.echoes("RFB 003.008\n");
    let received = backend.received_text();
    assert!(!received.contains("console-proxy") && !received.contains(&secret), "{received}");
    assert!(!received.to_ascii_lowercase().contains("cookie"), "{received}");
}
