//! What each fuzz target does with its input, and what has to hold whatever that is. libFuzzer calls these
//! (in the folder beside this), and so does tests/fuzz.rs, which is part of `make test`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use console_proxy::edges::broker_server::Channel;
use console_proxy::edges::passing;
use console_proxy::rules::config::Config;
use console_proxy::rules::domain::Domain;
use console_proxy::rules::forwarded::Forwarded;
use console_proxy::rules::frame::{self, From, Kind, Scanner};
use console_proxy::rules::guest::Uuid;
use console_proxy::rules::reach::{self, Tls, VncTls};
use console_proxy::rules::request::{self, Endpoint, OriginVerdict};
use console_proxy::rules::rfb::ViewOnly;
use console_proxy::rules::route::{Backend, Route};
use console_proxy::rules::ticket::{self, Claims, Issuer, Issuers};
use console_proxy::rules::{auth, broker, wiring};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A target's name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("ticket", ticket),
    ("request", request),
    ("frame", frame),
    ("broker", broker),
    ("auth", auth),
    ("rfb", rfb),
    ("domain", domain),
];

const NOW: u64 = 1_800_000_000;
const GUEST: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
const HEADER: &str = r#"{"alg":"EdDSA","kid":"host","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"iss":"host","aud":"console-proxy","sub":"ann","guest":"b50bdc9f-490b-4b9b-8641-7573c0eba77c","consoles":["vnc","serial/0"],"mode":"control","iat":1800000000,"nbf":1800000000,"exp":1800000060,"jti":"j1"}"#;

struct Known {
    key: Ed25519KeyPair,
    issuers: Issuers,
    guest: Uuid,
    good: String,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public_keys = vec![key.public_key().as_ref().try_into().unwrap()];
        let issuer = Issuer { public_keys, guests: None, modes: None, longest_life: Some(120), origins: vec![] };
        let good = signed(&key, HEADER.as_bytes(), CLAIMS.as_bytes());
        Known { key, issuers: Issuers::from([("host".to_owned(), issuer)]), guest: GUEST.parse().unwrap(), good }
    })
}

fn signed(key: &Ed25519KeyPair, header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// `t`: the rest is a whole token, of which the good one alone counts. `c`: the rest are claims, `h`: a header, which the
/// issuer did sign: what counts then is as strict as the rules say.
pub fn ticket(data: &[u8]) {
    let Known { key, issuers, guest, good } = known();
    let check = |token: &str| ticket::check(token, issuers, (guest, "g1"), NOW);
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'c' => {
            let Ok(claims) = check(&signed(key, HEADER.as_bytes(), rest)) else { return };
            assert!(claims.guest == *guest && claims.iss == "host" && claims.aud == "console-proxy");
            assert!(!claims.sub.is_empty() && !claims.jti.is_empty() && !claims.consoles.is_empty());
            assert!(claims.iat <= NOW + 5 && claims.nbf <= NOW + 5 && claims.exp + 5 > NOW);
            assert!(claims.exp > claims.iat && claims.exp - claims.iat <= 120);
            assert_eq!(check(&ticket::sign(&claims, key).unwrap()), Ok(claims), "it reads back");
        }
        b'h' => {
            let Ok(claims) = check(&signed(key, rest, CLAIMS.as_bytes())) else { return };
            assert_eq!(claims, serde_json::from_str::<Claims>(CLAIMS).unwrap());
            let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(rest).unwrap();
            assert!(header["alg"] == "EdDSA" && header["kid"] == "host");
            assert!(header.keys().all(|key| ["alg", "kid", "typ"].contains(&key.as_str())), "{header:?}");
        }
        _ => {
            let token = String::from_utf8_lossy(rest);
            assert_eq!(check(&token).is_ok(), token == *good, "{token}");
        }
    }
}

/// Lines: the path, the query, Origin, Host, Authorization, and any number of Cookie headers, which are bytes.
pub fn request(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let [path, query, origin, host, authorization] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    let cookies: Vec<&[u8]> = lines.collect();

    let (path, query) = (String::from_utf8_lossy(path), String::from_utf8_lossy(query));
    if let Some(Endpoint::Console(console)) = Endpoint::from_path(&path) {
        assert_eq!(format!("/{console}"), path, "one spelling");
    }
    let named = |key: &str| query.split('&').filter(|pair| pair.starts_with(key)).count();
    if let Ok(Some(token)) = request::query_token(&query) {
        assert!(named("token=") == 1 && !token.is_empty() && !token.contains('&'));
    }
    if let Ok(Some(client)) = request::client(&query) {
        assert!(named("client=") == 1 && query.contains(&format!("client={client}")) && client.len() <= 64);
    }
    let own = request::session_cookie(&known().guest);
    let other = request::session_cookie(&"00000000-490b-4b9b-8641-7573c0eba77c".parse().unwrap());
    for name in [own.as_str(), &other, "token"] {
        // Anything may stand before and behind it, also what is no text.
        let start = [name.as_bytes(), b"="].concat();
        let all = cookies.iter().flat_map(|header| header.split(|byte| *byte == b';'));
        let all = all.filter_map(|pair| pair.trim_ascii().strip_prefix(&start[..]));
        let all: Vec<_> = all.filter(|value| !value.is_empty()).collect();
        let expected = if all.len() > 1 { Err(()) } else { Ok(all.first().copied()) };
        assert_eq!(request::cookie(cookies.iter().copied(), name).map_err(|_| ()), expected, "{name} of {cookies:?}");
    }
    if let Some(token) = request::bearer(authorization) {
        assert!(authorization[..7].eq_ignore_ascii_case(b"bearer ") && authorization[7..].trim_ascii() == token);
    }
    let _ = request::basic(authorization);

    let listed = "https://panel.example";
    let header = Some(origin).filter(|header| !header.is_empty());
    let host = request::host([host].into_iter(), None, true).ok().flatten();
    match request::origin(header, Some("https"), host, [listed].into_iter()) {
        OriginVerdict::Absent => assert_eq!(header, None),
        OriginVerdict::Own => assert!(origin.eq_ignore_ascii_case(format!("https://{}", host.unwrap()).as_bytes())),
        OriginVerdict::Listed => assert!(origin.eq_ignore_ascii_case(listed.as_bytes())),
        OriginVerdict::Refused => assert!(header.is_some() && origin != listed.as_bytes()),
    }
    assert_ne!(request::origin(header, None, host, std::iter::empty()), OriginVerdict::Own, "nobody said how");
    if let Some(host) = host {
        assert!(host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)), "{host}");
    }
    if let Some(name) = request::subprotocol(cookies.iter().copied()) {
        assert!(cookies.iter().any(|offered| offered.windows(name.len()).any(|part| part == name.as_bytes())));
        assert!(name.len() <= 64 && !name.to_ascii_lowercase().contains("token"));
        assert!(!name.to_ascii_lowercase().contains("secret"), "{name}");
    }
    if let Ok(Some(secret)) = request::secret(std::iter::empty(), cookies.iter().copied()) {
        let item = [request::SECRET_PROTOCOL.as_bytes(), secret].concat();
        assert!(cookies.iter().any(|offered| offered.windows(item.len()).any(|part| part == item)));
    }
    let _ = Forwarded::read(cookies.iter().copied(), [origin].into_iter());
}

/// The largest frame that the `frame` target allows, so that inputs can be above it.
const LARGEST: u64 = 300;

/// What came of a stream of frames: each frame's kind, header and payload without its mask (the last one may be cut
/// short), how many were whole, and the close code of what is forbidden.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stream {
    frames: Vec<(Kind, Vec<u8>, Vec<u8>)>,
    whole: usize,
    forbidden: Option<u16>,
}

/// The first byte says which peer sends and how large the pieces are in which its stream comes.
pub fn frame(data: &[u8]) {
    let Some((manner, stream)) = data.split_first() else { return };
    let from = if manner & 1 == 0 { From::Client } else { From::Server };
    let (expected, text) = frames_of(from, stream);
    for size in [usize::from(manner >> 1).max(1), 1, stream.len().max(1)] {
        assert_eq!(scanned(from, stream.chunks(size)), (expected.clone(), text), "in pieces of {size}");
    }
    for (_, _, payload) in expected.frames.iter().filter(|(kind, ..)| *kind == Kind::Close) {
        if let Ok(code) = frame::close_code(payload) {
            let said = payload.first_chunk().map_or(1000, |code| u16::from_be_bytes(*code));
            assert!(said == code && (1000..5000).contains(&code) && ![1004, 1005, 1006, 1015].contains(&code));
            assert!(std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_ok());
        }
    }
}

/// The stream as the proxy reads it, piece by piece; and whether its text messages are text, as far as they came.
fn scanned<'s>(from: From, pieces: impl Iterator<Item = &'s [u8]>) -> (Stream, bool) {
    let (mut scanner, mut utf8, mut all, mut is_text) =
        (Scanner::new(from, LARGEST), frame::Utf8::default(), Stream::default(), true);
    for piece in pieces {
        let mut rest = piece;
        while !rest.is_empty() {
            let (taken, found) = match scanner.next(rest) {
                Ok(next) => next,
                Err(end) => {
                    all.forbidden = Some(end.frame().0);
                    return (all, is_text);
                }
            };
            rest = &rest[taken..];
            let Some(found) = found else {
                assert!(
                    rest.is_empty() && scanner.at_boundary(),
                    "nothing of a header is passed on before it is whole"
                );
                continue;
            };
            if found.begins {
                let (header, length) = scanner.take_header();
                all.frames.push((found.kind, header[..length].to_vec(), Vec::new()));
            }
            let (bytes, after) = rest.split_at(found.len);
            rest = after;
            let mut bytes = bytes.to_vec();
            if from == From::Client {
                scanner.unmask(&found, &mut bytes);
            }
            let (_, _, payload) = all.frames.last_mut().unwrap();
            assert_eq!(found.at, payload.len() as u64);
            payload.extend(&bytes);
            all.whole += usize::from(found.ends);
            assert_eq!(found.ends, scanner.at_boundary());
            if let (Kind::Data, (true, goes_on)) = (found.kind, scanner.message()) {
                is_text = is_text && utf8.takes(&bytes) && (goes_on || !found.ends || utf8.ends());
            }
        }
    }
    (all, is_text)
}

/// The same by RFC 6455, 5.2 to 5.5, from the whole of it.
fn frames_of(from: From, mut rest: &[u8]) -> (Stream, bool) {
    let (mut all, mut is_text) = (Stream::default(), true);
    // The text of a message that goes on; `None`: a binary one.
    let mut message: Option<Option<Vec<u8>>> = None;
    while let [first, second, ..] = *rest {
        let (last, opcode, short) = (first >= 0x80, first & 0xf, second & 0x7f);
        let forbidden = first & 0x70 != 0
            || (second >= 0x80) != (from == From::Client)
            || matches!(opcode, 3..=7 | 11..)
            || opcode == 0 && message.is_none()
            || matches!(opcode, 1 | 2) && message.is_some()
            || opcode >= 8 && (!last || short > 125);
        if forbidden {
            all.forbidden = Some(1002);
            break;
        }
        let extended = [0, 2, 8][usize::from(short > 125) + usize::from(short > 126)];
        let masked = if second >= 0x80 { 4 } else { 0 };
        let Some((header, payload)) = rest.split_at_checked(2 + extended + masked) else { break };
        let length = header[2..2 + extended].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if extended == 0 { u64::from(short) } else { length };
        if length > LARGEST {
            all.forbidden = Some(1009);
            break;
        }
        let (payload, after) = payload.split_at(payload.len().min(length as usize));
        let is_whole = payload.len() as u64 == length;
        let mask = &header[2 + extended..];
        let plain = payload.iter().enumerate().map(|(i, byte)| byte ^ if masked == 0 { 0 } else { mask[i % 4] });
        let plain: Vec<u8> = plain.collect();
        let kind = [Kind::Data, Kind::Close, Kind::Ping, Kind::Pong][usize::from(opcode.saturating_sub(7))];
        if opcode < 8 {
            let mut text = message.take().unwrap_or_else(|| (opcode == 1).then(Vec::new));
            if let Some(text) = &mut text {
                text.extend(&plain);
                let cut = !(last && is_whole);
                let why = std::str::from_utf8(text).err();
                is_text = is_text && why.is_none_or(|why| cut && why.error_len().is_none());
            }
            message = (!last).then_some(text);
        }
        // A frame that is just a header at the stream's end has begun, too.
        all.frames.push((kind, header.to_vec(), plain));
        all.whole += usize::from(is_whole);
        rest = after;
        if !is_whole {
            break;
        }
    }
    (all, is_text)
}

/// The bytes as a request, as an answer, and as the text of /proc/PID/cgroup.
pub fn broker(data: &[u8]) {
    let data = &data[..data.len().min(2 * broker::LONGEST)];
    let send = || {
        let (ours, theirs) = passing::pair().unwrap();
        passing::send(&theirs, data, &[]).unwrap();
        ours
    };
    if let Ok(Some(said)) = Channel::new(send()).unwrap().hear() {
        assert!(data.len() <= broker::LONGEST);
        let text = serde_json::to_vec(&said).unwrap();
        assert!(text.len() < broker::LONGEST && serde_json::from_slice::<broker::Said>(&text).unwrap() == said);
    }
    if let Ok((answer, descriptors)) = passing::receive(send(), Instant::now() + Duration::from_secs(5)) {
        assert!(data.len() <= broker::LONGEST && descriptors.is_empty());
        let text = serde_json::to_vec(&answer).unwrap();
        assert_eq!(serde_json::from_slice::<broker::Answer>(&text).unwrap(), answer);
    }
    if let Ok(told) = serde_json::from_slice::<broker::Told>(data) {
        let text = serde_json::to_vec(&told).unwrap();
        assert_eq!(serde_json::from_slice::<broker::Told>(&text).unwrap(), told);
    }
    let text = String::from_utf8_lossy(data);
    for hierarchy in [broker::Hierarchy::Unified, broker::Hierarchy::Named] {
        let Some(path) = broker::cgroup_path(&text, hierarchy) else { continue };
        assert!(!path.contains('\n'));
        if let Some((unit, guest)) = broker::unit_of_path(path) {
            assert!(unit == format!("console-proxy@{guest}.service") && path.ends_with(&format!("/{unit}")));
        }
    }
}

/// The bytes as a question, and as an answer.
pub fn auth(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<auth::Request>(data) {
        let text = serde_json::to_vec(&request).unwrap();
        assert!(serde_json::from_slice::<auth::Request>(&text).unwrap() == request);
        assert_eq!(format!("{request:?}"), format!("a question about {:?}", request.user), "nothing of a password");
        if auth::is_user(&request.user) {
            assert!(request.user.len() <= auth::LONGEST_USER && !request.user.contains(['\0', '\n', '\r', '\u{85}']));
        }
        if let auth::Question::Password { password, .. } = &request.question
            && auth::is_password(password)
        {
            assert!(!password.is_empty() && password.len() <= auth::LONGEST_PASSWORD && !password.contains('\0'));
        }
    }
    if let Ok(answer) = serde_json::from_slice::<auth::Answer>(data) {
        let text = serde_json::to_vec(&answer).unwrap();
        assert_eq!(serde_json::from_slice::<auth::Answer>(&text).unwrap(), answer);
    }
}

/// The first byte says how large the pieces are in which the others come.
pub fn rfb(data: &[u8]) {
    let Some((pieces, stream)) = data.split_first() else { return };
    let filter = |size: usize| {
        let (mut filter, mut out) = (ViewOnly::default(), Vec::new());
        let end = stream.chunks(size).find_map(|piece| filter.take(piece, &mut out).err());
        (out, end)
    };
    let (whole, end) = filter(stream.len().max(1));
    assert_eq!((&whole, &end), (&filter(usize::from(*pieces).max(1)).0, &filter(1).1), "pieces change nothing");
    assert!(whole.len() <= stream.len());
    only_shows(&whole);
}

/// Reads what the guest gets as RFC 6143 has it: a handshake, and messages that show and do nothing.
fn only_shows(stream: &[u8]) {
    let Some((version, rest)) = stream.split_at_checked(12) else { return assert_eq!(stream, b"", "a whole version") };
    assert!(version == b"RFB 003.007\n" || version == b"RFB 003.008\n");
    let Some((security, rest)) = rest.split_first() else { return };
    let response = match security {
        1 => 0,
        2 => 16,
        other => panic!("security type {other}"),
    };
    let Some(([shared], mut rest)) = rest.get(response..).and_then(|rest| rest.split_at_checked(1)) else { return };
    assert_eq!(*shared, 1, "nobody is sent away");
    while let Some(message) = rest.first() {
        let length = match message {
            0 => 20,
            2 if rest.len() < 4 => return,
            2 => 4 + 4 * usize::from(u16::from_be_bytes([rest[2], rest[3]])),
            3 | 150 => 10,
            248 if rest.len() < 9 => return,
            248 => 9 + usize::from(rest[8]),
            other => panic!("message {other} reached the guest"),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The bytes as the XML of a running guest, and of a definition.
pub fn domain(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    settings_count_however_they_are_written(&text);
    let Ok(domain) = Domain::parse(&text) else { return };
    let (config, slot) = (Config::default(), 4);
    let tls = Tls { vnc: VncTls::Off, spice: Ok("PEM".to_owned()) };
    let route = reach::route(&domain, slot, &config, &tls, 0).unwrap();
    assert_eq!(Route::parse(&route.to_text()).as_ref(), Ok(&route), "a route reads back");
    let graphics = u32::try_from(text.matches("<graphics").count()).unwrap();
    for backend in route.consoles.iter().flat_map(|way| way.raw.iter().chain(&way.websocket)) {
        match backend {
            Backend::Tcp(ip, port) => assert!(ip.is_loopback() && *port != 0),
            Backend::Unix(path) => assert!(path.starts_with('/')),
            Backend::Display(index) => assert!(*index < graphics),
            Backend::Pty(_) => {}
        }
    }
    let settings = wiring::Settings { config: &config, vnc_listen: "127.0.0.1" };
    if let Ok(wired) = wiring::wire(&text, settings, Some(slot)) {
        assert_eq!(Domain::parse(&wired.text).map(|domain| domain.uuid), Ok(domain.uuid.clone()));
        let back = wiring::unwire(&wired.text).unwrap();
        assert_eq!(back.text, wiring::unwire(&text).unwrap().text, "what is taken back is what was added");
        assert_eq!(wiring::wire(&wired.text, settings, Some(slot)).unwrap().text, wired.text, "twice changes nothing");
    }
    if let Ok(Some(filtered)) = wiring::filter(&text, &config, slot) {
        assert_eq!(Domain::parse(&filtered).map(|domain| domain.uuid), Ok(domain.uuid));
    }
}

/// The bytes choose what settings say, and how their namespace is written: that changes nothing of what they mean.
fn settings_count_however_they_are_written(text: &str) {
    let hash = text.bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let attributes = ["wire='no'", "publish='no'", "wire='no' publish='no'", ""][hash as usize % 4];
    let words: String = text.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let allow = |prefix: &str| match hash >> 2 & 1 {
        0 => String::new(),
        _ => format!("<{prefix}allow users='u{words}' mode='view'/>"),
    };
    let read = |on_domain: &str, on_metadata: &str, on_settings: &str, prefix: &str| {
        let allow = allow(prefix);
        let text = format!(
            "<domain {on_domain}><name>g</name><uuid>{GUEST}</uuid><metadata {on_metadata}><{prefix}settings {on_settings} {attributes}>{allow}</{prefix}settings></metadata></domain>"
        );
        Domain::parse(&text).unwrap().notes
    };
    let (ours, other) = ("urn:console-proxy:1", "urn:console-proxy:10");
    // A name of the input's own as the prefix; xml and xmlns are not to be declared.
    let named = format!("p{words}");
    let (prefix, default) = (format!("{named}:"), format!("xmlns='{ours}'"));
    let (declared, foreign) = (format!("xmlns:{named}='{ours}'"), format!("xmlns:{named}='{other}'"));
    let meant = read("", "", &default, "");
    assert_eq!(meant.no_wiring, attributes.contains("wire"));
    assert_eq!(meant.no_publishing, attributes.contains("publish"));
    assert_eq!(meant.allow.as_ref().map_or(0, Vec::len), usize::from(hash >> 2 & 1 == 1));
    let places: [[&str; 3]; 5] = [
        [&declared, "", ""],
        ["", &declared, ""],
        ["", "", &declared],
        [&foreign, &foreign, &declared],
        [&foreign, &declared, ""],
    ];
    for [domain, metadata, settings] in places {
        assert_eq!(read(domain, metadata, settings, &prefix), meant, "{domain} {metadata} {settings}");
    }
    assert_eq!(read(&declared, &declared, &foreign, &prefix), console_proxy::rules::domain::Notes::default());
}
