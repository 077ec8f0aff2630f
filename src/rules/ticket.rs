//! Tickets: JWS compact (RFC 7515), `alg` `EdDSA` (RFC 8037), with the claims of DESIGN, "What
//! outsiders rely on". This module owns their form; it says each rule itself, because what a JWT
//! library leaves optional (`nbf`, `aud`, unknown headers) is not optional here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::guest::{Console, Uuid};
use super::rights::names_guest;

/// The longest token that is looked at, in bytes.
pub const LONGEST: usize = 4096;
/// The longest life of a ticket, in seconds.
pub const LONGEST_LIFE: u64 = 300;
/// How far clocks may differ, in seconds.
pub const LEEWAY: u64 = 5;
/// The issuer of this host's own tickets.
pub const HOST: &str = "host";
/// The most keys of one issuer.
const MOST_KEYS: usize = 8;
/// The `aud` of every ticket.
pub const AUDIENCE: &str = "console-proxy";

/// What a ticket allows on its consoles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Look on.
    View,
    /// Type, too.
    Control,
}

/// Which consoles a ticket names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// `*`
    All,
    /// One of them.
    One(Console),
}

impl TryFrom<String> for Pattern {
    type Error = super::guest::BadConsole;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::All => "*".to_owned(),
            Pattern::One(console) => console.to_string(),
        }
    }
}

/// The claims, all of them required. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer; equal to the header's `kid`.
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// The person, for the audit.
    pub sub: String,
    /// The guest.
    pub guest: Uuid,
    /// What may be opened.
    pub consoles: Vec<Pattern>,
    /// Look on, or type.
    pub mode: Mode,
    /// When it was made.
    pub iat: u64,
    /// From when it counts.
    pub nbf: u64,
    /// When it ends.
    pub exp: u64,
    /// A name of its own.
    pub jti: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
}

/// Who may issue tickets, and what those may allow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "IssuerFile")]
pub struct Issuer {
    /// Ed25519 public keys: a ticket counts that one of them signed. More than one while a key is exchanged.
    pub public_keys: Vec<[u8; 32]>,
    /// Guests whose tickets it may issue, by UUID or by name (`*` and `?` match as in a shell); absent: all.
    pub guests: Option<Vec<String>>,
    /// Modes that its tickets may have; absent: both.
    pub modes: Option<Vec<Mode>>,
    /// Longest life of its tickets in seconds, at most [`LONGEST_LIFE`].
    pub longest_life: Option<u64>,
    /// Origins from which pages may use its tickets, besides those of the configuration.
    pub origins: Vec<String>,
}

/// An issuer's file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IssuerFile {
    public_key: Option<String>,
    public_keys: Option<Vec<String>>,
    guests: Option<Vec<String>>,
    modes: Option<Vec<Mode>>,
    longest_life: Option<u64>,
    #[serde(default)]
    origins: Vec<String>,
}

impl TryFrom<IssuerFile> for Issuer {
    type Error = String;

    fn try_from(file: IssuerFile) -> Result<Self, String> {
        let keys = match (file.public_key, file.public_keys) {
            (Some(one), None) => vec![one],
            (None, Some(all)) if (1..=MOST_KEYS).contains(&all.len()) => all,
            (None, Some(_)) => return Err(format!("public-keys has not 1 to {MOST_KEYS} keys")),
            (Some(_), Some(_)) => return Err("it has both public-key and public-keys: which would count?".to_owned()),
            (None, None) => return Err("it has no public-key".to_owned()),
        };
        let public_keys = keys.iter().map(|text| key(text)).collect::<Option<_>>();
        Ok(Self {
            public_keys: public_keys.ok_or("a public key is not 32 bytes in base64")?,
            guests: file.guests,
            modes: file.modes,
            longest_life: file.longest_life,
            origins: file.origins,
        })
    }
}

/// An Ed25519 public key from base64 or base64url, padded or not.
fn key(text: &str) -> Option<[u8; 32]> {
    let plain: String = text
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            c => c,
        })
        .collect();
    URL_SAFE_NO_PAD.decode(plain).ok()?.try_into().ok()
}

impl Issuer {
    /// Whether it may give tickets of that mode for a guest; an error: what it may not.
    pub fn may(&self, (uuid, name): (&Uuid, &str), mode: Mode) -> Result<(), BadTicket> {
        if self.guests.as_ref().is_some_and(|guests| !names_guest(guests, name, uuid)) {
            return Err(BadTicket::NotFor("guest"));
        }
        if self.modes.as_ref().is_some_and(|modes| !modes.contains(&mode)) {
            return Err(BadTicket::NotFor("mode"));
        }
        Ok(())
    }
}

/// The issuers by name: the stem of their file.
pub type Issuers = BTreeMap<String, Issuer>;

/// Whether a text may name an issuer: it is a file's stem, so nothing that could be a path.
#[must_use]
pub fn is_issuer_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !name.starts_with('.')
}

/// Why a ticket is refused: the words of the answer, and of the journal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadTicket {
    /// Not three base64url parts of JSON, too long, or a header or claim that is unknown, missing or
    /// of the wrong form.
    #[error("the ticket is malformed: {0}")]
    Malformed(String),
    /// Another algorithm than `EdDSA`.
    #[error("the ticket's algorithm is not EdDSA")]
    Algorithm,
    /// No such issuer.
    #[error("the ticket's issuer is not known here")]
    Issuer,
    /// The signature is not the issuer's.
    #[error("the ticket's signature is wrong")]
    Signature,
    /// `iss` is not `kid`, or `aud` is not ours.
    #[error("the ticket's {0} is not what it must be")]
    Claim(&'static str),
    /// Not yet, or no longer.
    #[error("the ticket {0}")]
    Time(&'static str),
    /// It lives longer than its issuer's tickets may.
    #[error("the ticket lives {0} s, at most {1} s are allowed")]
    Life(u64, u64),
    /// Another guest's, or a guest or mode that this issuer may not give.
    #[error("the ticket is not for this {0}")]
    NotFor(&'static str),
}

impl BadTicket {
    /// Whether the ticket is good in itself but not for this place: 403, else 401.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::NotFor(_))
    }
}

/// A guest that a ticket is shown to: its UUID and its name.
pub type Shown<'a> = (&'a Uuid, &'a str);

/// Reads and checks a token for one guest at a time `now` (seconds since 1970).
pub fn check(token: &str, issuers: &Issuers, guest: Shown<'_>, now: u64) -> Result<Claims, BadTicket> {
    let malformed = |what: &str| BadTicket::Malformed(what.to_owned());
    if token.len() > LONGEST {
        return Err(malformed("it is too long"));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { return Err(malformed("it has not three parts")) };
    let header: Header = part(header, "header")?;
    if header.alg != "EdDSA" {
        return Err(BadTicket::Algorithm);
    }
    if header.typ.as_deref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(malformed("its typ is not JWT"));
    }
    let issuer = issuers.get(&header.kid).filter(|_| is_issuer_name(&header.kid)).ok_or(BadTicket::Issuer)?;
    let signed = &token[..token.len() - signature.len() - 1];
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("its signature is not base64url"))?;
    let is_by = |key| UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature).is_ok();
    if !issuer.public_keys.iter().any(is_by) {
        return Err(BadTicket::Signature);
    }
    let claims: Claims = part(payload, "payload")?;
    check_claims(&claims, &header.kid, issuer, guest, now)?;
    Ok(claims)
}

fn check_claims(claims: &Claims, kid: &str, issuer: &Issuer, guest: Shown<'_>, now: u64) -> Result<(), BadTicket> {
    if claims.iss != kid {
        return Err(BadTicket::Claim("iss"));
    }
    if claims.aud != AUDIENCE {
        return Err(BadTicket::Claim("aud"));
    }
    let short = |text: &str, most: usize| !text.is_empty() && text.len() <= most;
    if !short(&claims.sub, 256) {
        return Err(BadTicket::Claim("sub"));
    }
    if !short(&claims.jti, 128) {
        return Err(BadTicket::Claim("jti"));
    }
    if claims.consoles.is_empty() || claims.consoles.len() > 32 {
        return Err(BadTicket::Claim("consoles"));
    }
    if claims.iat > now.saturating_add(LEEWAY) {
        return Err(BadTicket::Time("was made in the future: check both clocks"));
    }
    if claims.nbf > now.saturating_add(LEEWAY) {
        return Err(BadTicket::Time("does not count yet"));
    }
    if claims.exp.saturating_add(LEEWAY) <= now {
        return Err(BadTicket::Time("has ended: get another one"));
    }
    if claims.exp <= claims.iat || claims.exp <= claims.nbf {
        return Err(BadTicket::Claim("exp"));
    }
    let (life, most) = (claims.exp - claims.iat, issuer.longest_life.unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE));
    if life > most {
        return Err(BadTicket::Life(life, most));
    }
    if claims.guest != *guest.0 {
        return Err(BadTicket::NotFor("guest"));
    }
    issuer.may(guest, claims.mode)
}

fn part<T: for<'de> Deserialize<'de>>(text: &str, name: &str) -> Result<T, BadTicket> {
    let malformed = |why: String| BadTicket::Malformed(format!("its {name} {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("is not base64url".to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|why| malformed(format!("is not as it must be ({})", why.classify_words())))
}

trait Words {
    fn classify_words(&self) -> String;
}

impl Words for serde_json::Error {
    /// The error without the token's own words, which could be a secret or a page's markup.
    fn classify_words(&self) -> String {
        let text = self.to_string();
        let known = ["missing field", "unknown field", "duplicate field", "invalid type"];
        let kind = known.into_iter().find(|kind| text.starts_with(kind));
        match kind {
            // The field's name is ours here.
            Some("missing field" | "duplicate field") => text.split(" at line").next().unwrap_or_default().to_owned(),
            Some(kind) => kind.to_owned(),
            None => "not this JSON".to_owned(),
        }
    }
}

/// Signs claims with the issuer's key.
pub fn sign(claims: &Claims, key: &Ed25519KeyPair) -> Result<String, serde_json::Error> {
    let header = Header { alg: "EdDSA".to_owned(), kid: claims.iss.clone(), typ: Some("JWT".to_owned()) };
    let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    let signed = format!("{}.{}", part(serde_json::to_vec(&header)?), part(serde_json::to_vec(claims)?));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::rights::Rights;
    use proptest::prelude::*;
    use ring::signature::KeyPair;
    use serde_json::{Value, json};

    const NOW: u64 = 1_800_000_000;

    fn guest() -> Uuid {
        "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap()
    }

    fn host_key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn issuers() -> Issuers {
        let public_keys = vec![host_key().public_key().as_ref().try_into().unwrap()];
        let issuer = Issuer { public_keys, guests: None, modes: None, longest_life: None, origins: vec![] };
        BTreeMap::from([("host".to_owned(), issuer)])
    }

    fn good() -> Value {
        json!({"iss": "host", "aud": "console-proxy", "sub": "ann", "guest": guest().as_str(), "consoles": ["vnc", "serial/0"],
               "mode": "control", "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "j1"})
    }

    fn token_of(header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(host_key().sign(signed.as_bytes())))
    }

    fn verdict(header: &Value, claims: &Value) -> Result<Claims, BadTicket> {
        check(&token_of(header, claims), &issuers(), (&guest(), "g1"), NOW)
    }

    fn plain() -> Value {
        json!({"alg": "EdDSA", "kid": "host"})
    }

    #[test]
    fn a_good_ticket_names_its_person_and_consoles() {
        let claims = verdict(&plain(), &good()).unwrap();
        assert_eq!(claims.sub, "ann");
        let rights = Rights::of_ticket(&claims.consoles, claims.mode);
        for console in [Console::Vnc, Console::Serial(0)] {
            assert_eq!(rights.on(console), Some(claims.mode));
        }
        for console in [Console::Serial(1), Console::Spice] {
            assert_eq!(rights.on(console), None);
        }
        assert_eq!(check(&sign(&claims, &host_key()).unwrap(), &issuers(), (&guest(), "g1"), NOW).unwrap(), claims);
    }

    #[test]
    fn each_claim_is_required() {
        for claim in ["iss", "aud", "sub", "guest", "consoles", "mode", "iat", "nbf", "exp", "jti"] {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(claim);
            let why = verdict(&plain(), &claims).unwrap_err().to_string();
            assert!(why.contains(&format!("missing field `{claim}`")), "{claim}: {why}");
        }
    }

    #[test]
    fn each_wrong_claim_is_refused_for_its_own_reason() {
        use BadTicket::{Claim, Life, NotFor, Time};
        for (claim, value, expected) in [
            ("iss", json!("other"), Claim("iss")),
            ("aud", json!("nova"), Claim("aud")),
            ("sub", json!(""), Claim("sub")),
            ("jti", json!(""), Claim("jti")),
            ("consoles", json!([]), Claim("consoles")),
            ("guest", json!("00000000-0000-4000-8000-000000000000"), NotFor("guest")),
            ("iat", json!(NOW + 6), Time("was made in the future: check both clocks")),
            ("nbf", json!(NOW + 6), Time("does not count yet")),
            ("exp", json!(NOW - 5), Time("has ended: get another one")),
            ("exp", json!(NOW), Claim("exp")),
            ("exp", json!(NOW + 301), Life(301, 300)),
            ("exp", json!(u64::MAX), Life(u64::MAX - NOW, 300)),
        ] {
            let mut claims = good();
            claims[claim] = value.clone();
            assert_eq!(verdict(&plain(), &claims).unwrap_err(), expected, "{claim} = {value}");
        }
        for (claim, value) in [
            ("aud", json!(["console-proxy"])),
            ("mode", json!("root")),
            ("guest", json!("../x")),
            ("consoles", json!(["serial/../vnc"])),
            ("exp", json!("soon")),
            ("exp", json!(-1)),
            ("iat", json!(1.5)),
        ] {
            let mut claims = good();
            claims[claim] = value.clone();
            assert!(matches!(verdict(&plain(), &claims), Err(BadTicket::Malformed(_))), "{claim} = {value}");
        }
    }

    #[test]
    fn the_leeway_is_five_seconds_and_no_more() {
        let mut claims = good();
        claims["iat"] = json!(NOW - 64);
        claims["nbf"] = json!(NOW + 5);
        assert!(verdict(&plain(), &claims).is_ok());
        claims["nbf"] = json!(NOW - 64);
        claims["exp"] = json!(NOW - 4);
        assert!(verdict(&plain(), &claims).is_ok());
    }

    #[test]
    fn headers_that_point_elsewhere_and_other_algorithms_are_refused() {
        for (header, algorithm) in [
            (json!({"alg": "none", "kid": "host"}), true),
            (json!({"alg": "HS256", "kid": "host"}), true),
            (json!({"alg": "RS256", "kid": "host"}), true),
            (json!({"alg": "eddsa", "kid": "host"}), true),
            (json!({"alg": "EdDSA", "kid": "host", "jku": "https://x"}), false),
            (json!({"alg": "EdDSA", "kid": "host", "jwk": {}}), false),
            (json!({"alg": "EdDSA", "kid": "host", "x5u": "https://x"}), false),
            (json!({"alg": "EdDSA", "kid": "host", "crit": []}), false),
            (json!({"alg": "EdDSA"}), false),
            (json!({"kid": "host"}), false),
            (json!({"alg": "EdDSA", "kid": "host", "typ": "at+jwt"}), false),
            (json!("EdDSA"), false),
        ] {
            let why = verdict(&header, &good()).unwrap_err();
            let right = if algorithm { why == BadTicket::Algorithm } else { matches!(why, BadTicket::Malformed(_)) };
            assert!(right, "{header}: {why}");
        }
        for kid in ["../../etc/passwd", "/etc/passwd", "", "other", ".host", "host\0"] {
            assert_eq!(verdict(&json!({"alg": "EdDSA", "kid": kid}), &good()).unwrap_err(), BadTicket::Issuer, "{kid}");
        }
    }

    #[test]
    fn a_changed_byte_an_empty_signature_and_a_huge_token_are_refused() {
        let token = token_of(&plain(), &good());
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(check(&format!("{signed}."), &issuers(), (&guest(), "g1"), NOW), Err(BadTicket::Signature));
        assert!(check(signed, &issuers(), (&guest(), "g1"), NOW).is_err());
        assert!(check(&"a".repeat(100_000), &issuers(), (&guest(), "g1"), NOW).is_err());
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of each part has bits that base64 leaves unused; those are refused, too.
            assert!(check(&changed, &issuers(), (&guest(), "g1"), NOW).is_err(), "byte {i}");
        }
    }

    #[test]
    fn an_issuers_limits_are_kept() {
        let with = |edit: &dyn Fn(&mut Issuer)| {
            let mut all = issuers();
            edit(all.get_mut("host").unwrap());
            check(&token_of(&plain(), &good()), &all, (&guest(), "g1"), NOW)
        };
        assert_eq!(with(&|i| i.guests = Some(vec![])), Err(BadTicket::NotFor("guest")));
        for (patterns, is_good) in [
            (&["g1"][..], true),
            (&["other", "g*"], true),
            (&["g?"], true),
            (&["B50BDC9F490B4B9B86417573C0EBA77C"], true),
            (&["g"], false),
            (&["G1"], false),
            (&["b50bdc9f-*"], false),
            (&[""], false),
        ] {
            let refused = with(&|i| i.guests = Some(patterns.iter().map(ToString::to_string).collect())).err();
            assert_eq!(refused, (!is_good).then_some(BadTicket::NotFor("guest")), "{patterns:?}");
        }
        assert_eq!(with(&|i| i.modes = Some(vec![Mode::View])), Err(BadTicket::NotFor("mode")));
        assert_eq!(with(&|i| i.longest_life = Some(30)), Err(BadTicket::Life(60, 30)));
    }

    #[test]
    fn while_a_key_is_exchanged_tickets_of_both_count_and_then_the_new_ones_alone() {
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let [old, new] = [&host_key(), &other].map(|key| key.public_key().as_ref().try_into().unwrap());
        let claims = verdict(&plain(), &good()).unwrap();
        let verdicts = |keys: &[[u8; 32]]| {
            let mut all = issuers();
            all.get_mut("host").unwrap().public_keys = keys.to_vec();
            [&host_key(), &other].map(|key| check(&sign(&claims, key).unwrap(), &all, (&guest(), "g1"), NOW).is_ok())
        };
        assert_eq!(verdicts(&[old]), [true, false]);
        assert_eq!(verdicts(&[old, new]), [true, true]);
        assert_eq!(verdicts(&[new]), [false, true]);
        assert_eq!(verdicts(&[]), [false, false]);
    }

    #[test]
    fn an_issuers_file_is_strict() {
        let key = "A".repeat(43);
        assert!(toml::from_str::<Issuer>(&format!("public-key = \"{key}=\"")).is_ok());
        assert!(toml::from_str::<Issuer>(&format!("public-keys = [\"{key}\", \"{key}=\"]")).is_ok());
        let nine = format!("\"{key}\",").repeat(9);
        for text in [
            "public-key = \"AAAA\"",
            "",
            "public-key = 1",
            "public-keys = []",
            "public-keys = [\"AAAA\"]",
            &format!("public-keys = \"{key}\""),
            &format!("public-keys = [{nine}]"),
            &format!("public-key = \"{key}\"\npublic-keys = [\"{key}\"]"),
            &format!("public-key = \"{key}\"\nguests = \"*\""),
        ] {
            assert!(toml::from_str::<Issuer>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<Issuer>(&format!("public-key = \"{key}\"\nsurprise = 1")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_panic_or_succeed(token in "[A-Za-z0-9._=-]{0,200}") {
            prop_assert!(check(&token, &issuers(), (&guest(), "g1"), NOW).is_err());
        }
    }
}
