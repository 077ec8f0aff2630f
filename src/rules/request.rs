//! What a request asks for, and what it brings: the path, the token, the cookie, the Origin, the
//! subprotocols. Header values are bytes (RFC 9110, 5.5): what another application put beside ours may be no text.

use super::config::is_origin;
use super::guest::{Console, Uuid};

/// What a path means. There is no second spelling: nothing is decoded, joined or normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/api/guest`
    Guest,
    /// `/api/session`: a ticket is exchanged for a session (POST).
    Session,
    /// `/api/logout` (POST).
    Logout,
    /// `/websockify`: the guest's VNC display, else its SPICE display.
    FirstDisplay,
    /// `/vnc`, `/spice`, `/serial/N`, `/console/N`.
    Console(Console),
}

impl Endpoint {
    /// From the path of a request's target; `None` where there is nothing.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Some(match path {
            "/api/guest" => Self::Guest,
            "/api/session" => Self::Session,
            "/api/logout" => Self::Logout,
            "/websockify" => Self::FirstDisplay,
            other => Self::Console(other.strip_prefix('/')?.parse().ok()?),
        })
    }
}

/// A header or a query that is refused as a whole, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub &'static str);

/// The `token` of a query string. Two of them are refused: which would count?
///
/// A token is base64url and dots, so nothing needs decoding.
pub fn query_token(query: &str) -> Result<Option<&str>, BadRequest> {
    let found = query.split('&').filter_map(|pair| pair.strip_prefix("token="));
    only(found, "the request has two tokens in its query").map(|token| token.filter(|token| !token.is_empty()))
}

/// The `client` of a query string: the name that a client gives itself, the same for all of its sockets.
pub fn client(query: &str) -> Result<Option<&str>, BadRequest> {
    let mut named = query.split('&').filter_map(|pair| pair.strip_prefix("client="));
    let (first, second) = (named.next(), named.next());
    let fits = |name: &&str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    match first {
        Some(_) if second.is_some() => Err(BadRequest("the request has two clients in its query")),
        Some(name) => {
            Some(name).filter(fits).map(Some).ok_or(BadRequest("client is not 1 to 64 letters, digits, _ and -"))
        }
        None => Ok(None),
    }
}

/// The token of an `Authorization` header: `Bearer TOKEN`, the scheme in any case (RFC 9110, 11.1).
#[must_use]
pub fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = split_once(header, b' ')?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

/// User and password of an `Authorization` header: `Basic BASE64(USER:PASSWORD)` in UTF-8 (RFC 7617). `None`: another
/// scheme.
#[must_use]
pub fn basic(header: &[u8]) -> Option<Result<(String, String), BadRequest>> {
    use base64::Engine as _;
    let (scheme, credentials) = split_once(header, b' ')?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(credentials.trim_ascii());
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.split_once(':'));
    let pair = pair.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Some(pair.ok_or(BadRequest("Authorization is not Basic and the base64 of USER:PASSWORD in UTF-8")))
}

/// The values of all cookies of that name, from all `Cookie` headers. Cookies of other names may be any bytes.
pub fn cookies<'h>(headers: impl Iterator<Item = &'h [u8]>, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.flat_map(|header| header.split(|byte| *byte == b';'));
    let pairs = pairs.filter_map(|pair| split_once(pair.trim_ascii(), b'='));
    pairs.filter(move |(key, value)| *key == name.as_bytes() && !value.is_empty()).map(|(_, value)| value)
}

/// The cookie of that name. Two are refused.
pub fn cookie<'h>(headers: impl Iterator<Item = &'h [u8]>, name: &str) -> Result<Option<&'h [u8]>, BadRequest> {
    only(cookies(headers, name), "the request has two cookies of one name")
}

/// The value of a header that may stand once. Two are refused.
pub fn once<'h>(headers: impl Iterator<Item = &'h [u8]>) -> Result<Option<&'h [u8]>, BadRequest> {
    only(headers, "the request has a header twice that may stand once")
}

fn only<T>(mut found: impl Iterator<Item = T>, twice: &'static str) -> Result<Option<T>, BadRequest> {
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(BadRequest(twice)),
        (first, _) => Ok(first),
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

/// The items of a header that is a list with commas. Those that are no text are passed over.
pub(super) fn items<'h>(headers: impl Iterator<Item = &'h [u8]>) -> impl Iterator<Item = &'h str> {
    let items = headers.flat_map(|header| header.split(|byte| *byte == b','));
    items.filter_map(|item| str::from_utf8(item).ok()).map(str::trim)
}

/// The header with a session's second secret.
pub const SECRET: &str = "console-proxy-secret";
/// What that secret follows where a browser's page can send no header: among the subprotocols of a websocket.
pub const SECRET_PROTOCOL: &str = "console-proxy.secret.";

/// The second secret of a session, from its header or from a subprotocol. Two are refused.
pub fn secret<'h>(
    headers: impl Iterator<Item = &'h [u8]>,
    protocols: impl Iterator<Item = &'h [u8]>,
) -> Result<Option<&'h [u8]>, BadRequest> {
    let among = items(protocols).filter_map(|item| item.strip_prefix(SECRET_PROTOCOL)).map(str::as_bytes);
    only(headers.chain(among), "the request has two secrets of a session")
}

/// The name of a guest's session cookie. Cookies ignore ports, so it says whose it is.
#[must_use]
pub fn session_cookie(guest: &Uuid) -> String {
    format!("__Host-console-proxy-{}", guest.short())
}

/// What the browser is told to keep from a session's cookie: scripts, plain HTTP, and other sites. In a frame it is
/// another site's cookie; it is sent there all the same, and kept for each site that frames it by itself.
#[must_use]
pub fn cookie_attributes(is_framed: bool) -> &'static str {
    if is_framed { "Secure; HttpOnly; SameSite=None; Partitioned" } else { "Secure; HttpOnly; SameSite=Strict" }
}

/// Where a request comes from, by its `Origin` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginVerdict {
    /// The guest's own port.
    Own,
    /// A site that is listed.
    Listed,
    /// No header: no browser sent this. A ticket counts, a cookie does not.
    Absent,
    /// Another site, `null`, or what is no origin, such as bytes beyond ASCII.
    Refused,
}

/// Judges an Origin (RFC 6454) against the request's own scheme, host and port, and a list. Where the
/// scheme is not known, no Origin is the request's own.
#[must_use]
pub fn origin<'l>(
    header: Option<&[u8]>,
    scheme: Option<&str>,
    host: Option<&str>,
    mut listed: impl Iterator<Item = &'l str>,
) -> OriginVerdict {
    let Some(header) = header else { return OriginVerdict::Absent };
    let Some(origin) = str::from_utf8(header).ok().filter(|text| is_origin(text)) else {
        return OriginVerdict::Refused;
    };
    let own = scheme.zip(host).map(|(scheme, host)| format!("{scheme}://{host}"));
    if own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) {
        OriginVerdict::Own
    } else if listed.any(|one| one.eq_ignore_ascii_case(origin)) {
        OriginVerdict::Listed
    } else {
        OriginVerdict::Refused
    }
}

/// Whether a browser says that another site's page made the request (`Sec-Fetch-Site`, W3C Fetch Metadata): an image or
/// a link there sends no Origin. A page of another port of this host name is another site's here.
pub fn comes_from_another_site<'h>(mut headers: impl Iterator<Item = &'h [u8]>) -> bool {
    headers.any(|value| !matches!(value, b"same-origin" | b"none"))
}

/// Who is asked (RFC 9112, 3.2): one `Host` header that is a name or an address with or without a port. A target that
/// names a host itself (3.2.2) has to name the same. HTTP/1.0 may come without.
pub fn host<'h>(
    hosts: impl Iterator<Item = &'h [u8]>,
    in_target: Option<&str>,
    is_http_1_1: bool,
) -> Result<Option<&'h str>, BadRequest> {
    let Some(host) = only(hosts, "the request has two Host headers")? else {
        return match (is_http_1_1, in_target) {
            (false, None) => Ok(None),
            _ => Err(BadRequest("the request has no Host header")),
        };
    };
    let host = str::from_utf8(host).ok().and_then(strict_host);
    let host = host.ok_or(BadRequest("the Host header is not a name or an address with or without a port"))?;
    if in_target.is_some_and(|target| !target.eq_ignore_ascii_case(host)) {
        return Err(BadRequest("the request names one host in its target and another one in its Host header"));
    }
    Ok(Some(host))
}

/// A `Host` header that is a name or an address with or without a port, and nothing else.
#[must_use]
pub fn strict_host(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => host.split_once(':').unwrap_or((host, "")),
    };
    let name_ok = !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    let port_ok = port.is_empty() && !host.ends_with(':')
        || port.parse::<u16>().is_ok_and(|p| p != 0) && port.bytes().all(|b| b.is_ascii_digit());
    (name_ok && port_ok).then_some(host)
}

/// Whether a host is this machine by its name alone, whatever DNS says: `localhost` and names below it (RFC 6761, 6.3)
/// and loopback addresses. A page of any other name came from wherever that name led to then.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default().to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The subprotocol to answer: nothing for nothing, `binary` where it is offered, else the first that
/// does not look like a credential (some clients smuggle tokens there).
#[must_use]
pub fn subprotocol<'h>(headers: impl Iterator<Item = &'h [u8]>) -> Option<&'h str> {
    let offered: Vec<&str> = items(headers).filter(|name| is_token(name)).collect();
    let credential = |name: &str| {
        let lower = name.to_ascii_lowercase();
        name.len() > 64 || ["bearer", "token", "auth", "eyj", "secret"].iter().any(|word| lower.contains(word))
    };
    offered.iter().find(|name| **name == "binary").or_else(|| offered.iter().find(|name| !credential(name))).copied()
}

/// Whether a client offers this subprotocol.
#[must_use]
pub fn offers<'h>(headers: impl Iterator<Item = &'h [u8]>, name: &str) -> bool {
    items(headers).any(|offered| offered == name)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455, 4.2.1).
#[must_use]
pub fn is_websocket_key(key: &[u8]) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Whether a comma-separated header has this word, in any case.
#[must_use]
pub fn has_word<'h>(headers: impl Iterator<Item = &'h [u8]>, word: &str) -> bool {
    items(headers).any(|item| item.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_console_has_one_path_and_nothing_else_has_any() {
        for (path, endpoint) in [
            ("/vnc", Endpoint::Console(Console::Vnc)),
            ("/serial/0", Endpoint::Console(Console::Serial(0))),
            ("/websockify", Endpoint::FirstDisplay),
            ("/api/guest", Endpoint::Guest),
        ] {
            assert_eq!(Endpoint::from_path(path), Some(endpoint));
        }
        for path in [
            "",
            "/",
            "vnc",
            "//vnc",
            "/vnc/",
            "/serial",
            "/serial/../vnc",
            "/serial/%30",
            "/./vnc",
            "/VNC",
            "/serial/99999",
            "/api",
            "/websockify/",
        ] {
            assert_eq!(Endpoint::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn one_token_counts_and_two_are_refused() {
        assert_eq!(query_token("a=b&token=x.y.z"), Ok(Some("x.y.z")));
        assert_eq!(query_token("xtoken=x&token="), Ok(None));
        assert!(query_token("token=x&token=x").is_err());
        assert_eq!(bearer(b"bEARER  a.b.c"), Some(&b"a.b.c"[..]));
        assert_eq!(bearer(b"Basic a"), None);
        assert_eq!(bearer(b"Bearer a.\xe9"), Some(&b"a.\xe9"[..]), "no ticket is like that, and it is refused as one");
        assert_eq!(cookie(bytes(&["a=1; token=t", "b=2"]), "token"), Ok(Some(&b"t"[..])));
        assert!(cookie(bytes(&["token=1", "token=2"]), "token").is_err());
        assert!(once(bytes(&["a", "a"])).is_err());
    }

    fn bytes<'h>(headers: &[&'h str]) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        headers.iter().map(|header| header.as_bytes()).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn a_cookie_is_found_among_others_of_any_bytes_in_any_of_several_headers() {
        let strange: [&[u8]; 5] = [b"lang=fran\xe7ais", "lang=français".as_bytes(), b"\xff", b"=\x80", b"\xfe=a=b"];
        for other in strange {
            let (before, behind) = ([other, b"; ours=1"].concat(), [b"ours=1;", other].concat());
            for headers in [vec![&before[..]], vec![&behind[..]], vec![other, b"ours=1"], vec![b"ours=1", other]] {
                assert_eq!(cookie(headers.iter().copied(), "ours"), Ok(Some(&b"1"[..])), "{headers:?}");
            }
            assert_eq!(cookie([other].into_iter(), "ours"), Ok(None));
        }
        assert_eq!(cookie([&b"ours=\xff"[..]].into_iter(), "ours"), Ok(Some(&b"\xff"[..])), "nobody's session");
    }

    #[test]
    fn a_browser_says_when_another_sites_page_asks() {
        for (value, is_other) in
            [("same-origin", false), ("none", false), ("cross-site", true), ("same-site", true), ("\u{e9}", true)]
        {
            assert_eq!(comes_from_another_site(bytes(&[value])), is_other, "{value}");
        }
        assert!(!comes_from_another_site(bytes(&[])), "no browser");
        assert!(comes_from_another_site(bytes(&["none", "cross-site"])));
    }

    #[test]
    fn items_of_a_list_that_are_no_text_are_passed_over_and_hide_no_others() {
        let headers: [&[u8]; 3] = [b"\xe9, Upgrade\t", b"binary,\xff", b"caf\xc3\xa9 , console-proxy.v1"];
        assert_eq!(items(headers.into_iter()).collect::<Vec<_>>(), ["Upgrade", "binary", "café", "console-proxy.v1"]);
        assert!(has_word(headers.into_iter(), "upgrade") && offers(headers.into_iter(), "console-proxy.v1"));
        assert_eq!(subprotocol(headers.into_iter()), Some("binary"));
        assert!(!is_websocket_key(b"dGhlIHNhbXBsZSBub25jZQ=\xff"));
    }

    #[test]
    fn a_client_has_one_short_plain_name_or_none() {
        let longest = format!("client={}", "a".repeat(64));
        for (query, name) in [
            ("", None),
            ("token=a&xclient=%", None),
            ("client=Tab-1_x&token=a", Some("Tab-1_x")),
            (longest.as_str(), Some(&longest[7..])),
        ] {
            assert_eq!(client(query), Ok(name), "{query}");
        }
        let longer = format!("{longest}a");
        for query in ["client=", "client=a%20b", "client=a.b", "client=a&client=a", "client=\u{e9}", &longer] {
            assert!(client(query).is_err(), "{query}");
        }
    }

    #[test]
    fn an_origin_must_equal_scheme_host_and_port() {
        let judge = |header: Option<&str>, host: &str| {
            origin(header.map(str::as_bytes), Some("https"), Some(host), ["https://panel.example"].into_iter())
        };
        assert_eq!(judge(Some("https://h:23000"), "h:23000"), OriginVerdict::Own);
        assert_eq!(judge(Some("https://H:23000"), "h:23000"), OriginVerdict::Own);
        assert_eq!(judge(Some("https://panel.example"), "h:23000"), OriginVerdict::Listed);
        assert_eq!(judge(None, "h:23000"), OriginVerdict::Absent);
        for bad in [
            "null",
            "",
            "http://h:23000",
            "https://h",
            "https://h:23001",
            "https://h:23000.evil",
            "https://evil/h:23000",
            "https://panel.example.evil",
            "https://h\u{e9}:23000",
            "file://",
        ] {
            assert_eq!(judge(Some(bad), "h:23000"), OriginVerdict::Refused, "{bad}");
        }
        let odd = origin(Some(b"https://h:23000\xff"), Some("https"), Some("h:23000"), std::iter::empty());
        assert_eq!(odd, OriginVerdict::Refused, "it is not as if there were none");
        assert_eq!(origin(Some(b"https://h"), Some("https"), None, std::iter::empty()), OriginVerdict::Refused);
        for own in ["https://h", "http://h"] {
            let verdict = origin(Some(own.as_bytes()), None, Some("h"), std::iter::empty());
            assert_eq!(verdict, OriginVerdict::Refused, "{own}");
        }
        assert_eq!(origin(Some(b"https://p"), None, Some("h"), ["https://p"].into_iter()), OriginVerdict::Listed);
    }

    #[test]
    fn one_host_is_asked_and_the_target_names_no_other() {
        let ask = |hosts: &[&'static str], target, is_1_1| host(bytes(hosts), target, is_1_1);
        for (hosts, target, is_1_1) in
            [(&["h:1"][..], None, true), (&["h:1"], None, false), (&["h:1"], Some("H:1"), true)]
        {
            assert_eq!(ask(hosts, target, is_1_1), Ok(Some("h:1")), "{target:?}");
        }
        assert_eq!(ask(&[], None, false), Ok(None), "HTTP/1.0 knew no Host");
        for (hosts, target, is_1_1) in [
            (&[][..], None, true),
            (&[], Some("h:1"), true),
            (&[], Some("h:1"), false),
            (&["h:1", "h:1"], None, true),
            (&["h:1", "i:1"], None, false),
            (&["h:1"], Some("i:1"), true),
            (&["h:1"], Some("h"), true),
            (&["h:1"], Some("user@h:1"), true),
            (&[""], None, true),
            (&["h\u{e9}"], None, true),
            (&["h, i"], None, true),
        ] {
            assert!(ask(hosts, target, is_1_1).is_err(), "{hosts:?} {target:?}");
        }
        assert!(host([&b"h\xff"[..]].into_iter(), None, true).is_err());
    }

    #[test]
    fn this_machine_is_known_by_names_that_no_dns_server_is_asked_for() {
        for own in
            ["localhost", "LOCALHOST:9100", "g1.localhost:80", "127.0.0.1", "127.9.8.7:9100", "[::1]:9100", "[::1]"]
        {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "evil.example:9100",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.1",
            "0.0.0.0:9100",
            "192.168.0.1",
            "[::]:9100",
            "[fe80::1]",
            "",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for good in ["my_host:1", "h", "h:1", "a.b-c:65535", "[::1]:23000", "[::1]", "10.0.0.1:80"] {
            assert_eq!(strict_host(good), Some(good));
        }
        for bad in [
            "",
            ":1",
            "h:",
            "h:0",
            "h:65536",
            "h:+1",
            "h/x",
            "h\r\nX: y",
            "[::1",
            "[h]:1",
            "::1",
            "a b",
            "h@i",
            "[::1]x",
        ] {
            assert_eq!(strict_host(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_sessions_second_secret_is_in_its_header_or_among_the_subprotocols_and_once() {
        let read = |headers: &[&'static str], protocols: &[&'static str]| secret(bytes(headers), bytes(protocols));
        assert_eq!(read(&[], &["binary", "chat"]), Ok(None));
        assert_eq!(read(&["AbC"], &["binary"]), Ok(Some(&b"AbC"[..])));
        assert_eq!(read(&[], &["console-proxy.v1, console-proxy.secret.AbC"]), Ok(Some(&b"AbC"[..])));
        for (headers, protocols) in [
            (&["a", "a"][..], &[][..]),
            (&["a"], &["console-proxy.secret.a"]),
            (&[], &["console-proxy.secret.a", "console-proxy.secret.b"]),
        ] {
            assert!(read(headers, protocols).is_err(), "{headers:?} {protocols:?}");
        }
    }

    #[test]
    fn subprotocols_are_answered_as_clients_expect() {
        for (offered, answer) in [
            (vec![], None),
            (vec!["binary"], Some("binary")),
            (vec!["base64, binary"], Some("binary")),
            (vec!["chat", "super"], Some("chat")),
            (vec!["base64url.bearer.authorization.k8s.io.abc", "plain"], Some("plain")),
            (vec!["token-abc"], None),
            (vec!["", " , "], None),
            (vec!["console-proxy.secret.AbC", "plain"], Some("plain")),
            (vec!["console-proxy.secret.AbC"], None),
            (vec!["console-proxy.secret.AbC, binary"], Some("binary")),
        ] {
            assert_eq!(subprotocol(bytes(&offered)), answer, "{offered:?}");
        }
    }

    proptest! {
        #[test]
        fn a_strict_host_can_be_put_into_a_location_header(host in ".{0,40}") {
            if let Some(host) = strict_host(&host) {
                prop_assert!(host.chars().all(|c| c.is_ascii_graphic() && !"/\\?#@".contains(c)));
            }
        }
    }
}
