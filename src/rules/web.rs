//! The page's files, and other people's clients beside it: which path is which file, in which encoding it goes out,
//! and what a browser is told about it. Texts in, decisions out; knows no file system.

use super::request::items;

/// What a path means. There is no second spelling: nothing is decoded, joined or normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// `/`
    Page,
    /// What lies beside the page: [`BESIDE`].
    Beside(&'a str),
    /// `/assets/NAME`: what the page is made of. Each name has its content's hash in it.
    Asset(&'a str),
    /// `/clients/NAME/PATH`: somebody else's client, from a folder that the configuration names.
    Client(&'a str, &'a str),
}

/// The files beside the page.
pub const BESIDE: [&str; 2] = ["favicon.svg", "licences.txt"];

impl<'a> Place<'a> {
    /// From the path of a request's target; `None` where there is no file.
    #[must_use]
    pub fn of_path(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Self::Page);
        }
        if let Some(name) = path.strip_prefix("assets/") {
            return is_asset(name).then_some(Self::Asset(name));
        }
        if let Some(rest) = path.strip_prefix("clients/") {
            let (name, path) = rest.split_once('/')?;
            let (folders, file) = path.rsplit_once('/').map_or((None, path), |(folders, file)| (Some(folders), file));
            let fits = is_component(name)
                && folders.is_none_or(|folders| folders.split('/').all(is_component))
                && (file.is_empty() || is_component(file));
            return fits.then_some(Self::Client(name, path));
        }
        BESIDE.contains(&path).then_some(Self::Beside(path))
    }

    /// The file, below its folder.
    #[must_use]
    pub fn file(&self) -> String {
        match self {
            Self::Page => "index.html".to_owned(),
            Self::Beside(name) => (*name).to_owned(),
            Self::Asset(name) => format!("assets/{name}"),
            Self::Client(_, path) if path.is_empty() || path.ends_with('/') => format!("{path}index.html"),
            Self::Client(_, path) => (*path).to_owned(),
        }
    }

    /// How long a browser may keep it. What has its content's hash in its name never changes.
    #[must_use]
    pub fn cache_control(&self) -> &'static str {
        if matches!(self, Self::Asset(_)) { "public, max-age=31536000, immutable" } else { "no-cache" }
    }
}

fn is_asset(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes().all(fits) && !name.is_empty() && !name.starts_with('.')
}

/// Whether a text may be one component of a client's path, or the name of a client: no hidden file, nothing above.
#[must_use]
pub fn is_component(name: &str) -> bool {
    let begins = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().next().is_some_and(begins) && name.bytes().all(|byte| begins(byte) || b".+@-".contains(&byte))
}

/// What the units of proxies hide from them, but for a few files of their own.
const HIDDEN: [&str; 10] = ["/boot", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var"];

/// Whether a proxy cannot see a folder, whatever its mode is.
#[must_use]
pub fn is_hidden(folder: &str) -> bool {
    let within = |rest: &str| rest.is_empty() || rest.starts_with('/');
    HIDDEN.iter().any(|hidden| folder.strip_prefix(hidden).is_some_and(within))
}

/// The media type of a file, by the end of its name. Browsers are told not to guess.
#[must_use]
pub fn media_type(file: &str) -> &'static str {
    match file.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "gif" => "image/gif",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "mp3" => "audio/mpeg",
        "oga" | "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        _ => "application/octet-stream",
    }
}

/// How a file's bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Brotli, from a file NAME`.br`.
    Brotli,
    /// Gzip, from a file NAME`.gz`.
    Gzip,
    /// As they are.
    Identity,
}

impl Encoding {
    /// What the name of a file so encoded ends in.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
            Self::Identity => "",
        }
    }

    /// Its name in `Content-Encoding`, which is not sent for what goes out as it is.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

/// The encodings that a client takes, the best first, by all its `Accept-Encoding` headers (RFC 9110, 12.5.3). The
/// plain bytes are always among them: a client that takes nothing at all gets them rather than nothing.
#[must_use]
pub fn accepted<'h>(headers: impl Iterator<Item = &'h [u8]>) -> Vec<Encoding> {
    let (mut brotli, mut gzip, mut identity, mut others) = (None, None, None, None);
    for part in items(headers) {
        let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
        let slot = match name.trim().to_ascii_lowercase().as_str() {
            "br" => &mut brotli,
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut others,
            _ => continue,
        };
        *slot = Some(quality(parameters));
    }
    let others = others.unwrap_or(0);
    // The plain bytes are taken where nothing forbids them, but nobody who names another way prefers them.
    let mut all = [
        (Encoding::Brotli, brotli.unwrap_or(others)),
        (Encoding::Gzip, gzip.unwrap_or(others)),
        (Encoding::Identity, identity.unwrap_or(0)),
    ];
    all.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    let taken = |(encoding, quality): &(Encoding, u16)| *quality > 0 || *encoding == Encoding::Identity;
    let mut taken: Vec<_> = all.into_iter().filter(taken).collect();
    // Behind the others where it was refused.
    taken.sort_by_key(|(_, quality)| *quality == 0);
    taken.into_iter().map(|(encoding, _)| encoding).collect()
}

/// The `q` of a part's parameters in thousandths; what is malformed is not wanted.
fn quality(parameters: &str) -> u16 {
    let mut named = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let Some((_, text)) = named.find(|(key, _)| key.trim().eq_ignore_ascii_case("q")) else { return 1000 };
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, format!("{part:0<3}").parse::<u16>()) {
        ("0", Ok(thousandths)) if digits => thousandths,
        ("1", Ok(0)) if digits => 1000,
        _ => 0,
    }
}

/// The tag of some content, from its SHA-256: a strong one, as each encoding is content of its own.
#[must_use]
pub fn etag(content: &[u8]) -> String {
    use base64::Engine as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, content);
    format!("\"{}\"", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]))
}

/// Whether a browser has it already, by all its `If-None-Match` headers: compared weakly (RFC 9110, 13.1.2).
#[must_use]
pub fn has_already<'h>(headers: impl Iterator<Item = &'h [u8]>, etag: &str) -> bool {
    items(headers).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// Whose page a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Ours: no inline script and no inline style but this one, if any.
    Us(&'a str),
    /// Somebody else's, which was written without a policy in mind.
    Others,
}

/// The Content-Security-Policy. `frames`: the sites that may show it in a frame; `host`: this port as the browser
/// knows it, because not every browser counts wss: to the same port as its own.
#[must_use]
pub fn policy(owner: Owner<'_>, frames: &[String], scheme: &str, host: Option<&str>) -> String {
    let ancestors = if frames.is_empty() { "'none'".to_owned() } else { frames.join(" ") };
    // Its grammar has no addresses of IPv6.
    let sockets = host.filter(|host| !host.starts_with('[')).map(|host| {
        let scheme = if scheme == "https" { "wss" } else { "ws" };
        format!(" {scheme}://{host}")
    });
    let sockets = sockets.unwrap_or_default();
    let (script, style) = match owner {
        Owner::Us("") => (String::new(), String::new()),
        Owner::Us(inline) => (String::new(), format!(" 'sha256-{}'", hash(inline))),
        Owner::Others => (" 'unsafe-inline'".to_owned(), " 'unsafe-inline'".to_owned()),
    };
    format!(
        "default-src 'none'; script-src 'self'{script}; style-src 'self'{style}; img-src 'self' blob: data:; \
         font-src 'self'; media-src 'self' blob:; connect-src 'self'{sockets}; worker-src 'self' blob:; \
         manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
    )
}

fn hash(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()))
}

/// The inline style of an HTML text; empty where there is none.
#[must_use]
pub fn inline_style(html: &str) -> &str {
    let inside = html.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
    inside.map_or("", |(style, _)| style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_file_has_one_path() {
        for (path, place, file) in [
            ("/", Place::Page, "index.html"),
            ("/favicon.svg", Place::Beside("favicon.svg"), "favicon.svg"),
            ("/licences.txt", Place::Beside("licences.txt"), "licences.txt"),
            ("/assets/index-B1x_-9.js", Place::Asset("index-B1x_-9.js"), "assets/index-B1x_-9.js"),
            ("/assets/-x", Place::Asset("-x"), "assets/-x"),
            ("/clients/novnc/vnc.html", Place::Client("novnc", "vnc.html"), "vnc.html"),
            ("/clients/novnc/app/a@2x+b.png", Place::Client("novnc", "app/a@2x+b.png"), "app/a@2x+b.png"),
            ("/clients/novnc/", Place::Client("novnc", ""), "index.html"),
            ("/clients/novnc/app/", Place::Client("novnc", "app/"), "app/index.html"),
        ] {
            assert_eq!(Place::of_path(path), Some(place), "{path}");
            assert_eq!(place.file(), file);
        }
        for path in [
            "",
            "//",
            "/index.html",
            "/assets",
            "/assets/",
            "/assets/a/b",
            "/assets//a",
            "/assets/../index.html",
            "/assets/..",
            "/assets/.htaccess",
            "/assets/%2e%2e",
            "/assets/a\0",
            "/assets/a b",
            "/assets/é",
            "/ASSETS/a",
            "//assets/a",
            "/clients",
            "/clients/",
            "/clients/novnc",
            "/clients//vnc.html",
            "/clients/novnc//vnc.html",
            "/clients/novnc/app//",
            "/clients/novnc/../vnc.html",
            "/clients/../clients/novnc/vnc.html",
            "/clients/novnc/.git/config",
            "/clients/novnc/app/..",
            "/clients/novnc/-x",
            "/clients/novnc/a%2fb",
            "/clients/novnc/a\\b",
            "/favicon.svg/",
        ] {
            assert_eq!(Place::of_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_best_encoding_that_the_client_takes_comes_first() {
        use Encoding::{Brotli, Gzip, Identity};
        for (headers, encodings) in [
            (vec![], vec![Identity]),
            (vec![""], vec![Identity]),
            (vec!["gzip, deflate, br, zstd"], vec![Brotli, Gzip, Identity]),
            (vec!["GZIP"], vec![Gzip, Identity]),
            (vec!["gzip", "br"], vec![Brotli, Gzip, Identity]),
            (vec!["br;q=0.5, gzip;q=0.9"], vec![Gzip, Brotli, Identity]),
            (vec!["br;q=0, gzip"], vec![Gzip, Identity]),
            (vec!["br;q=0.000;x=y, x-gzip ; Q=1.000"], vec![Gzip, Identity]),
            (vec!["*"], vec![Brotli, Gzip, Identity]),
            (vec!["*;q=0"], vec![Identity]),
            (vec!["br, *;q=0"], vec![Brotli, Identity]),
            (vec!["gzip;q=0, *;q=0.1"], vec![Brotli, Identity]),
            (vec!["identity, br;q=0.5"], vec![Identity, Brotli]),
            (vec!["identity;q=0, br"], vec![Brotli, Identity]),
            (vec!["br;q=2, gzip;q=-1, *;q=0.1234"], vec![Identity]),
            (vec!["br;q=x, gzip;q=1.5"], vec![Identity]),
        ] {
            assert_eq!(accepted(headers.iter().map(|header| header.as_bytes())), encodings, "{headers:?}");
        }
    }

    #[test]
    fn a_browser_that_has_the_content_says_so_by_its_tag() {
        let tag = etag(b"content");
        assert_ne!(tag, etag(b"another"));
        assert_eq!(tag.len(), 24);
        for (headers, has) in [
            (vec![], false),
            (vec![tag.clone()], true),
            (vec![format!("W/{tag}")], true),
            (vec![format!("\"a,b\", W/\"x\" ,{tag}")], true),
            (vec!["\"x\"".into(), tag.clone()], true),
            (vec!["*".into()], true),
            (vec![tag.trim_matches('"').into()], false),
            (vec![format!("w/{tag}")], false),
            (vec![String::new()], false),
        ] {
            assert_eq!(has_already(headers.iter().map(String::as_bytes), &tag), has, "{headers:?}");
        }
    }

    #[test]
    fn only_what_has_its_hash_in_its_name_is_kept_without_asking() {
        assert!(Place::Asset("a-12345678.js").cache_control().contains("immutable"));
        for place in [Place::Page, Place::Beside("favicon.svg"), Place::Client("novnc", "vnc.html")] {
            assert_eq!(place.cache_control(), "no-cache");
        }
    }

    #[test]
    fn what_the_units_hide_is_known_here() {
        let unit = include_str!("../../units/console-proxy@.service");
        for hidden in HIDDEN.iter().filter(|hidden| !matches!(**hidden, "/home" | "/root")) {
            let is_hidden =
                |line: &str| line.starts_with("TemporaryFileSystem=") || line.starts_with("InaccessiblePaths=");
            let named = |word: &str| word.trim_start_matches('-').split(':').next() == Some(*hidden);
            assert!(
                unit.lines().filter(|line| is_hidden(line)).flat_map(|line| line.split(['=', ' '])).any(named),
                "{hidden}"
            );
        }
        assert!(unit.contains("ProtectHome=yes"));
        assert!(is_hidden("/srv") && is_hidden("/var/www") && is_hidden("/home/ann/web"));
        assert!(!is_hidden("/usr/share/novnc") && !is_hidden("/variable"));
    }

    #[test]
    fn types_are_told_by_the_end_of_a_name() {
        for (file, media) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.min.js", "text/javascript; charset=utf-8"),
            ("app/images/x.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("Makefile", "application/octet-stream"),
            ("html", "application/octet-stream"),
            ("a.HTML", "application/octet-stream"),
        ] {
            assert_eq!(media_type(file), media, "{file}");
        }
    }

    #[test]
    fn nothing_inline_runs_in_our_page_and_only_listed_sites_frame_it() {
        let ours = policy(Owner::Us(""), &[], "https", Some("h:23000"));
        assert!(!ours.contains("unsafe") && ours.contains("default-src 'none'; script-src 'self';"), "{ours}");
        assert!(
            ours.contains("connect-src 'self' wss://h:23000;") && ours.ends_with("frame-ancestors 'none'"),
            "{ours}"
        );
        let listed = ["https://panel.example".to_owned(), "https://b.example:8443".to_owned()];
        let framed = policy(Owner::Others, &listed, "http", Some("[::1]:1"));
        assert!(
            framed.contains("script-src 'self' 'unsafe-inline';") && framed.contains("connect-src 'self';"),
            "{framed}"
        );
        assert!(framed.ends_with("frame-ancestors https://panel.example https://b.example:8443"), "{framed}");
        // The hash of "a" by another program: printf a | openssl dgst -sha256 -binary | base64
        let with_style = policy(Owner::Us(inline_style("<style>a</style>")), &[], "https", None);
        assert!(
            with_style.contains("style-src 'self' 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=';"),
            "{with_style}"
        );
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_its_folder_or_to_a_hidden_file(path in "(/|assets|clients|a|\\.|\\.\\.|%2e|\\\\|\0|-){1,12}") {
            if let Some(place) = Place::of_path(&path) {
                let file = place.file();
                prop_assert!(!file.starts_with('/') && file.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{file}");
                prop_assert!(file.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%' && byte != b'\\'), "{file}");
            }
        }
    }
}
