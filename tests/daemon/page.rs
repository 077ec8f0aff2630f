//! The page's files and other people's clients: what a browser gets, and what nobody gets.

use std::os::unix::fs::symlink;

use crate::host::{Host, Proxy};

const WEB: &str = "usr/share/console-proxy/web";

/// A host with a page, and with a client in a folder that the configuration names.
fn host() -> Host {
    let host = Host::new().config("[web.clients]\nnovnc = \"/usr/share/novnc\"\n");
    for (file, text) in [
        ("index.html", "<!doctype html>the page"),
        ("favicon.svg", "<svg/>"),
        ("licences.txt", "licences"),
        ("notes.txt", "not for browsers"),
        ("assets/index-B1x_-9ab.js", "plain();"),
        ("assets/index-B1x_-9ab.js.br", "brotli"),
        ("assets/index-B1x_-9ab.js.gz", "gzip"),
        ("assets/.hidden", "hidden"),
    ] {
        host.write(&format!("{WEB}/{file}"), text);
    }
    host.write("usr/share/console-proxy/secret", "secret");
    host.write("usr/share/novnc/vnc.html", "<!doctype html>noVNC");
    host.write("usr/share/novnc/app/ui.js", "ui();");
    host
}

#[test]
fn the_page_and_its_files_come_with_their_types_and_are_kept_as_long_as_they_last() {
    let proxy = Proxy::activated(host());
    for (target, body, media, cached) in [
        ("/", "<!doctype html>the page", "text/html; charset=utf-8", "no-cache"),
        ("/?token=a.b.c", "<!doctype html>the page", "text/html; charset=utf-8", "no-cache"),
        ("/favicon.svg", "<svg/>", "image/svg+xml", "no-cache"),
        ("/licences.txt", "licences", "text/plain; charset=utf-8", "no-cache"),
        (
            "/assets/index-B1x_-9ab.js",
            "plain();",
            "text/javascript; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        ("/clients/novnc/vnc.html", "<!doctype html>noVNC", "text/html; charset=utf-8", "no-cache"),
        ("/clients/novnc/app/ui.js", "ui();", "text/javascript; charset=utf-8", "no-cache"),
    ] {
        let answer = proxy.ask("GET", target, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{target}");
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), (media, cached), "{target}");
        for (name, value) in [
            ("vary", "accept-encoding"),
            ("content-encoding", ""),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{target}: {name}");
        }
    }
}

#[test]
fn a_file_comes_in_the_encoding_that_the_browser_likes_best_each_with_its_own_tag() {
    let proxy = Proxy::activated(host());
    let mut tags = Vec::new();
    for (accepted, body, encoding) in
        [("gzip, deflate, br", "brotli", "br"), ("gzip", "gzip", "gzip"), ("br;q=0, gzip;q=0", "plain();", "")]
    {
        let answer = proxy.ask("GET", "/assets/index-B1x_-9ab.js", &[("Accept-Encoding", accepted)]);
        assert_eq!((answer.body.as_str(), answer.header("content-encoding")), (body, encoding));
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        tags.push(answer.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
    let page = proxy.ask("GET", "/", &[("Accept-Encoding", "gzip, br")]);
    assert_eq!((page.status, page.header("content-encoding")), (200, ""), "what is not there packed comes as it is");
}

#[test]
fn who_has_a_file_already_is_told_so_until_it_changes() {
    let proxy = Proxy::activated(host());
    let tag = proxy.ask("GET", "/", &[]).header("etag").to_owned();
    let mut client = proxy.client();
    for header in [tag.clone(), format!("W/{tag}, \"x\""), "*".to_owned()] {
        let answer = client.ask("GET", "/", &[("If-None-Match", &header)]);
        assert_eq!((answer.status, answer.body.as_str(), answer.header("etag")), (304, "", tag.as_str()), "{header}");
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-cache", "accept-encoding"));
    }
    proxy.write(&format!("{WEB}/index.html"), "another page");
    let answer = client.ask("GET", "/", &[("If-None-Match", &tag)]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "another page"));
}

#[test]
fn head_says_what_get_would_and_sends_nothing() {
    let proxy = Proxy::activated(host());
    for target in ["/", "/assets/index-B1x_-9ab.js", "/clients/novnc/vnc.html"] {
        let of_get = proxy.ask("GET", target, &[]);
        let mut client = proxy.client();
        client.send(client.request("HEAD", target, &[], &[("Connection", "close")]).as_bytes());
        let answer = client.until_closed().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        for header in ["etag", "content-type", "content-length", "cache-control", "content-security-policy"] {
            let line = format!("{header}: {}\r\n", of_get.header(header).to_ascii_lowercase());
            assert!(answer.contains(&line), "{line} {answer}");
        }
    }
    assert_eq!(proxy.ask("POST", "/clients/novnc/vnc.html", &[]).header("allow"), "GET, HEAD");
}

#[test]
fn nothing_inline_runs_in_the_page_and_other_clients_work_as_they_are() {
    let proxy = Proxy::activated(host());
    let own = format!("wss://{}", proxy.address);
    let page = proxy.ask("GET", "/", &[]);
    assert_eq!(
        page.header("content-security-policy"),
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; \
             media-src 'self' blob:; connect-src 'self' {own}; worker-src 'self' blob:; manifest-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    let evil = proxy.ask("GET", "/clients/novnc/vnc.html", &[("Host", "evil; script-src *")]);
    assert_eq!((evil.status, evil.header("content-security-policy")), (400, ""));
    let client = proxy.ask("GET", "/clients/novnc/vnc.html", &[("Host", "[::1]:1")]);
    let policy = client.header("content-security-policy");
    assert!(policy.contains("script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"), "{policy}");
    assert!(policy.contains("connect-src 'self';") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
}

#[test]
fn no_other_file_is_given_out_however_it_is_asked_for() {
    let proxy = Proxy::activated(host());
    for target in [
        "/notes.txt",
        "/index.html",
        "/assets",
        "/assets/",
        "/assets/none.js",
        "/assets/.hidden",
        "/assets/../index.html",
        "/assets/../../secret",
        "/assets/..%2f..%2fsecret",
        "/assets/%2e%2e/%2e%2e/secret",
        "/assets//index-B1x_-9ab.js",
        "//assets/index-B1x_-9ab.js",
        "/assets/index-B1x_-9ab%2ejs",
        "/assets/..\\..\\secret",
        "/assets/index-B1x_-9ab.js%00.txt",
        "/../secret",
        "/clients",
        "/clients/",
        "/clients/novnc",
        "/clients/novnc/",
        "/clients/novnc/app",
        "/clients/novnc/app/",
        "/clients/other/vnc.html",
        "/clients/novnc/../console-proxy/secret",
        "/clients/novnc/%2e%2e/console-proxy/secret",
        "/clients/novnc//vnc.html",
        "/clients/novnc/app/../vnc.html",
    ] {
        let answer = proxy.ask("GET", target, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (404, "there is nothing at this path\n"), "{target}");
    }
    let mut client = proxy.client();
    let _ = client.try_send(b"GET /assets/index-B1x_-9ab.js\0 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.until_closed().starts_with("HTTP/1.1 400 "));
}

#[test]
fn links_in_a_clients_folder_lead_to_what_distributions_share_and_nowhere_else() {
    let proxy = Proxy::activated(host());
    proxy.write("usr/share/nodejs/pako/pako.js", "pako();");
    proxy.write("etc/secret", "secret");
    let folder = proxy.path("usr/share/novnc");
    for (name, target) in [
        ("vnc_auto.html", "vnc.html".into()),
        ("vendor", proxy.path("usr/share/nodejs")),
        ("etc", proxy.path("etc")),
        ("secret.txt", proxy.path("etc/secret")),
    ] {
        symlink(target, folder.join(name)).unwrap();
    }
    for (path, body) in [("vnc_auto.html", "<!doctype html>noVNC"), ("vendor/pako/pako.js", "pako();")] {
        let answer = proxy.ask("GET", &format!("/clients/novnc/{path}"), &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
    }
    for path in ["etc/secret", "secret.txt", "etc/console-proxy/tls/key.pem"] {
        assert_eq!(proxy.ask("GET", &format!("/clients/novnc/{path}"), &[]).status, 404, "{path}");
    }
}

#[test]
fn a_clients_folder_is_served_from_the_moment_that_it_is_configured() {
    let proxy = Proxy::activated(Host::new());
    proxy.write("usr/share/mine/index.html", "mine");
    assert_eq!(proxy.ask("GET", "/clients/mine/", &[]).status, 404);
    proxy.write("etc/console-proxy/console-proxy.toml", "[web.clients]\nmine = \"/usr/share/mine\"\n");
    assert_eq!(proxy.ask("GET", "/clients/mine/", &[]).body, "mine");
}

#[test]
fn a_file_of_more_than_4_mib_is_not_sent() {
    let proxy = Proxy::activated(host());
    let file = std::fs::File::create(proxy.path(WEB).join("assets/large.js")).unwrap();
    file.set_len((4 << 20) + 1).unwrap();
    let answer = proxy.ask("GET", "/assets/large.js", &[]);
    assert_eq!(answer.status, 500);
    assert!(!answer.body.contains("usr/share"), "{answer:?}");
    file.set_len(4 << 20).unwrap();
    assert_eq!(proxy.ask("GET", "/assets/large.js", &[]).body.len(), 4 << 20);
}
