//! What a request asks for, and what it brings: the path, the token, the cookie, the Origin, the
//! subprotocols. Texts in, decisions out; knows nothing of the library that read the headers.

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
    only(query.split('&').filter_map(|pair| pair.strip_prefix("token=")), "the request has two tokens in its query")
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
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// User and password of an `Authorization` header: `Basic BASE64(USER:PASSWORD)` in UTF-8 (RFC 7617). `None`: another
/// scheme.
#[must_use]
pub fn basic(header: &str) -> Option<Result<(String, String), BadRequest>> {
    use base64::Engine as _;
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(credentials.trim());
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.split_once(':'));
    let pair = pair.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Some(pair.ok_or(BadRequest("Authorization is not Basic and the base64 of USER:PASSWORD in UTF-8")))
}

/// A cookie's value from all `Cookie` headers. Two of one name are refused.
pub fn cookie<'h>(headers: impl Iterator<Item = &'h str>, name: &str) -> Result<Option<&'h str>, BadRequest> {
    let pairs = headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    only(pairs.filter(|(key, _)| *key == name).map(|(_, value)| value), "the request has two cookies of one name")
}

fn only<'a>(mut found: impl Iterator<Item = &'a str>, twice: &'static str) -> Result<Option<&'a str>, BadRequest> {
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(BadRequest(twice)),
        (first, _) => Ok(first.filter(|value| !value.is_empty())),
    }
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
    /// Another site, `null`, or no origin at all.
    Refused,
}

/// Judges an Origin (RFC 6454) against the request's own scheme, host and port, and a list. Where the
/// scheme is not known, no Origin is the request's own.
#[must_use]
pub fn origin<'l>(
    header: Option<&str>,
    scheme: Option<&str>,
    host: Option<&str>,
    mut listed: impl Iterator<Item = &'l str>,
) -> OriginVerdict {
    let Some(origin) = header else { return OriginVerdict::Absent };
    if !is_origin(origin) {
        return OriginVerdict::Refused;
    }
    let own = scheme.zip(host.and_then(strict_host)).map(|(scheme, host)| format!("{scheme}://{host}"));
    if own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) {
        OriginVerdict::Own
    } else if listed.any(|one| one.eq_ignore_ascii_case(origin)) {
        OriginVerdict::Listed
    } else {
        OriginVerdict::Refused
    }
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
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'));
    let port_ok = port.is_empty() && !host.ends_with(':')
        || port.parse::<u16>().is_ok_and(|p| p != 0) && port.bytes().all(|b| b.is_ascii_digit());
    (name_ok && port_ok).then_some(host)
}

/// The subprotocol to answer: nothing for nothing, `binary` where it is offered, else the first that
/// does not look like a credential (some clients smuggle tokens there).
#[must_use]
pub fn subprotocol<'h>(headers: impl Iterator<Item = &'h str>) -> Option<&'h str> {
    let offered: Vec<&str> =
        headers.flat_map(|header| header.split(',')).map(str::trim).filter(|name| is_token(name)).collect();
    let credential = |name: &str| {
        let lower = name.to_ascii_lowercase();
        name.len() > 64 || ["bearer", "token", "auth", "eyj"].iter().any(|word| lower.contains(word))
    };
    offered.iter().find(|name| **name == "binary").or_else(|| offered.iter().find(|name| !credential(name))).copied()
}

/// Whether a client offers this subprotocol.
#[must_use]
pub fn offers<'h>(headers: impl Iterator<Item = &'h str>, name: &str) -> bool {
    headers.flat_map(|header| header.split(',')).any(|offered| offered.trim() == name)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455, 4.2.1).
#[must_use]
pub fn is_websocket_key(key: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Whether a comma-separated header has this word, in any case.
#[must_use]
pub fn has_word<'h>(mut headers: impl Iterator<Item = &'h str>, word: &str) -> bool {
    headers.any(|header| header.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
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
        assert_eq!(bearer("bEARER  a.b.c"), Some("a.b.c"));
        assert_eq!(bearer("Basic a"), None);
        assert_eq!(cookie(["a=1; token=t", "b=2"].into_iter(), "token"), Ok(Some("t")));
        assert!(cookie(["token=1", "token=2"].into_iter(), "token").is_err());
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
            origin(header, Some("https"), Some(host), ["https://panel.example"].into_iter())
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
            "file://",
        ] {
            assert_eq!(judge(Some(bad), "h:23000"), OriginVerdict::Refused, "{bad}");
        }
        assert_eq!(origin(Some("https://h"), Some("https"), None, std::iter::empty()), OriginVerdict::Refused);
        for own in ["https://h", "http://h"] {
            assert_eq!(origin(Some(own), None, Some("h"), std::iter::empty()), OriginVerdict::Refused, "{own}");
        }
        assert_eq!(origin(Some("https://p"), None, Some("h"), ["https://p"].into_iter()), OriginVerdict::Listed);
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for good in ["h", "h:1", "a.b-c:65535", "[::1]:23000", "[::1]", "10.0.0.1:80"] {
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
    fn subprotocols_are_answered_as_clients_expect() {
        for (offered, answer) in [
            (vec![], None),
            (vec!["binary"], Some("binary")),
            (vec!["base64, binary"], Some("binary")),
            (vec!["chat", "super"], Some("chat")),
            (vec!["base64url.bearer.authorization.k8s.io.abc", "plain"], Some("plain")),
            (vec!["token-abc"], None),
            (vec!["", " , "], None),
        ] {
            assert_eq!(subprotocol(offered.clone().into_iter()), answer, "{offered:?}");
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
