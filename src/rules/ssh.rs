//! Text consoles over ssh: what the word after the host may be, whose key it was, what sshd has to be
//! told, and the lines between the one who came in and the one who makes the ticket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::guest::{Console, printable};

/// The user of this host who comes in that way, and what sshd runs whatever is asked for.
pub const USER: &str = "console";
/// What sshd runs for that user.
pub const COMMAND: &str = "/usr/bin/console-proxy ssh";

/// The version of [`Request`] and [`Answer`].
pub const VERSION: u32 = 1;
/// The longest line between the two, in bytes: keys and certificates are long.
pub const LONGEST_LINE: u64 = 256 << 10;

/// What the program that sshd runs asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// A guest's name or UUID.
    pub guest: String,
    /// The key that let the person in: its type and its base64.
    pub key: String,
    /// The address from which they came, for the journal.
    pub from: String,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What opens the console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Granted>,
}

/// What opens one text console of one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The guest's name; any text.
    pub name: String,
    /// The console that the ticket is for.
    pub console: Console,
    /// The guest's port on this host.
    pub address: std::net::SocketAddr,
    /// The ticket.
    pub token: String,
    /// The certificate that the port must show, PEM.
    pub certificate: String,
}

/// Whether a word may name a guest here: letters and digits, and `. _ + : @ -` but not at its beginning.
/// Guests with other names have a UUID.
#[must_use]
pub fn is_guest_word(word: &str) -> bool {
    (1..=255).contains(&word.len())
        && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | ':' | '@' | '-'))
        && word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The guest in what was typed after the host, as sshd passes it in `SSH_ORIGINAL_COMMAND`; or what to type.
pub fn guest_word(command: Option<&str>) -> Result<&str, String> {
    const TYPE: &str = "type `ssh -t console@HOST GUEST`, with a guest's name or UUID and nothing else";
    match command {
        None | Some("") => Err(format!("no guest was named: {TYPE}")),
        Some(word) if is_guest_word(word) => Ok(word),
        Some(word) => {
            let shown: String = printable(word).chars().take(80).collect();
            Err(format!(
                "{shown:?} names no guest: {TYPE} (a name that has more than letters, digits and .+:@_- in it: its UUID)"
            ))
        }
    }
}

/// The public keys in sshd's `SSH_USER_AUTH` file (`sshd_config(5)`, `ExposeAuthInfo`), as `TYPE BASE64`.
#[must_use]
pub fn keys_used(info: &str) -> Vec<&str> {
    info.lines().filter_map(|line| line.strip_prefix("publickey ")).map(str::trim).collect()
}

/// Why a key lets nobody in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoOwner {
    /// It is on no line.
    #[error("the key is not in the list of keys")]
    Unknown,
    /// Its line has no comment.
    #[error("line {0} has the key and does not say whose it is: a name must stand behind the key")]
    Nameless(usize),
    /// The name has characters that no name has, or is too long.
    #[error("the name behind the key on line {0} is no name")]
    BadName(usize),
    /// Two lines name two people.
    #[error("the key stands on lines {0} and {1} under two names")]
    Twice(usize, usize),
}

/// One line of a list of keys: `sshd(8)`, "`AUTHORIZED_KEYS` file format".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLine<'a> {
    /// Counted from 1.
    pub number: usize,
    /// `ssh-ed25519`, ...
    pub kind: &'a str,
    /// The key.
    pub blob: Vec<u8>,
    /// Whose it is; empty where nothing is said.
    pub owner: &'a str,
}

impl KeyLine<'_> {
    /// The key as sshd names it: its type and its base64.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }
}

/// The lines that have a key; others are passed over as sshd does.
pub fn key_lines(text: &str) -> impl Iterator<Item = KeyLine<'_>> {
    text.lines().enumerate().filter_map(|(at, line)| key_line(at + 1, line))
}

fn key_line(number: usize, line: &str) -> Option<KeyLine<'_>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (first, rest) = split_word(line);
    let (kind, rest) = if is_key_kind(first) {
        (first, rest)
    } else if first.split(',').any(|option| option.eq_ignore_ascii_case("cert-authority")) {
        // An authority's key signs others' keys and is nobody's own.
        return None;
    } else {
        split_word(rest)
    };
    let (blob, owner) = split_word(rest);
    let blob = STANDARD.decode(blob).ok()?;
    is_key_kind(kind).then_some(KeyLine { number, kind, blob, owner: owner.trim() })
}

fn is_key_kind(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|begin| word.starts_with(begin))
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'@' | b'.'))
}

/// The first word, in which blanks between quotes count as any character, and what follows the blanks.
fn split_word(text: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c: char| {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return true,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        false
    });
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start_matches([' ', '\t']))
}

/// Whose key it is, by the comment behind it.
pub fn owner(authorized_keys: &str, key: &str) -> Result<String, NoOwner> {
    let (kind, blob) = key.split_once(' ').ok_or(NoOwner::Unknown)?;
    let blob = STANDARD.decode(blob.trim()).map_err(|_| NoOwner::Unknown)?;
    let mut lines = key_lines(authorized_keys).filter(|line| line.kind == kind && line.blob == blob);
    let first = lines.next().ok_or(NoOwner::Unknown)?;
    // sshd takes the first line whose options let the key in: which one that was, nobody tells us.
    if let Some(other) = lines.find(|line| line.owner != first.owner) {
        return Err(NoOwner::Twice(first.number, other.number));
    }
    if first.owner.is_empty() {
        return Err(NoOwner::Nameless(first.number));
    }
    if first.owner.len() > 256 || printable(first.owner) != first.owner {
        return Err(NoOwner::BadName(first.number));
    }
    Ok(first.owner.to_owned())
}

/// What `sshd -T -C user=console` says against letting that user in, setting by setting; `None` where sshd
/// was never told of us.
#[must_use]
pub fn sshd_faults(effective: &str, authorized_keys: &str) -> Option<Vec<String>> {
    let value = |key: &str| {
        let mut lines = effective.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(key)).map_or("", |(_, value)| value.trim())
    };
    if value("forcecommand") != COMMAND {
        return None;
    }
    let wanted = [
        ("AuthorizedKeysFile", authorized_keys),
        ("AuthorizedKeysCommand", "none"),
        ("AuthenticationMethods", "publickey"),
        ("ExposeAuthInfo", "yes"),
        ("PermitTTY", "yes"),
        ("DisableForwarding", "yes"),
        ("AllowTcpForwarding", "no"),
        ("AllowStreamLocalForwarding", "no"),
        ("AllowAgentForwarding", "no"),
        ("X11Forwarding", "no"),
        ("PermitTunnel", "no"),
        ("PermitUserRC", "no"),
    ];
    let wrong = wanted.into_iter().filter(|(key, wanted)| value(key) != *wanted);
    Some(wrong.map(|(key, wanted)| format!("{key} is {:?} and must be {wanted}", value(key))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEnn";
    const BOB: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNo";

    #[test]
    fn a_name_or_a_uuid_names_a_guest() {
        for word in ["g1", "web-01.example.org", "b50bdc9f-490b-4b9b-8641-7573c0eba77c", "_x", "gäst", "a+b:c@d"] {
            assert_eq!(guest_word(Some(word)), Ok(word));
        }
    }

    #[test]
    fn nothing_else_does_and_it_is_said_what_to_type() {
        for word in [
            "g1; id",
            "--help",
            "-oX",
            "g1 serial/1",
            " g1",
            "g1\n",
            "$(id)",
            "`id`",
            "../g1",
            "/usr/lib/sftp-server",
            "g1|id",
            "g1&",
            "g1>x",
            "*",
            ".",
            "'g1'",
            "g1\u{0}",
            "g1\u{202e}",
            "~root",
            "é g",
        ] {
            let why = guest_word(Some(word)).unwrap_err();
            assert!(why.contains("names no guest: type `ssh -t console@HOST GUEST`"), "{word:?}: {why}");
            assert!(!why.contains('\n') && !why.contains('\u{202e}'), "{why:?}");
        }
        for none in [None, Some("")] {
            assert!(guest_word(none).unwrap_err().starts_with("no guest was named: type `ssh"));
        }
        assert!(guest_word(Some(&"a".repeat(256))).unwrap_err().len() < 300);
    }

    #[test]
    fn the_key_that_sshd_names_is_found_with_its_owner() {
        let file = format!(
            "# people\n\n{ANN} ann example\n\trestrict,command=\"say \\\"hi\\\" to # all\",from=\"10.0.0.0/8\" {BOB}\tbob@laptop \n"
        );
        assert_eq!(keys_used(&format!("publickey {ANN}\npassword\n")), [ANN]);
        assert_eq!(owner(&file, ANN).unwrap(), "ann example");
        assert_eq!(owner(&file, BOB).unwrap(), "bob@laptop");
        let other = ANN.replace("IEnn", "IEnm");
        assert_eq!(owner(&file, &other), Err(NoOwner::Unknown));
        for nonsense in ["", "ssh-ed25519", "ssh-ed25519 ===", "ann example"] {
            assert_eq!(owner(&file, nonsense), Err(NoOwner::Unknown), "{nonsense:?}");
        }
    }

    #[test]
    fn a_key_without_a_name_with_two_or_with_a_strange_one_lets_nobody_in() {
        assert_eq!(owner(ANN, ANN), Err(NoOwner::Nameless(1)));
        assert_eq!(owner(&format!("#\n{ANN}  \t"), ANN), Err(NoOwner::Nameless(2)));
        assert_eq!(owner(&format!("{ANN} ann\n{ANN} bob"), ANN), Err(NoOwner::Twice(1, 2)));
        assert_eq!(owner(&format!("{ANN} ann\n{ANN} ann"), ANN).unwrap(), "ann");
        assert_eq!(owner(&format!("{ANN} a\u{1b}[2Jnn"), ANN), Err(NoOwner::BadName(1)));
        assert_eq!(owner(&format!("{ANN} {}", "a".repeat(257)), ANN), Err(NoOwner::BadName(1)));
        assert_eq!(owner(&format!("cert-authority {ANN} ann"), ANN), Err(NoOwner::Unknown));
        assert_eq!(owner(&format!("# {ANN} ann"), ANN), Err(NoOwner::Unknown));
    }

    /// The file that is shipped, as sshd prints what it made of it.
    #[test]
    fn the_shipped_snippet_says_all_that_doctor_asks_for() {
        let shipped = include_str!("../../templates/sshd.conf");
        let effective: String = shipped.lines().map(|line| line.trim().to_owned() + "\n").collect();
        let keys = "/etc/console-proxy/ssh/authorized_keys";
        assert_eq!(sshd_faults(&effective, keys), Some(vec![]));
        assert_eq!(sshd_faults("forcecommand none\n", keys), None);
        let open = effective.replace("AllowTcpForwarding no", "AllowTcpForwarding yes");
        assert_eq!(sshd_faults(&open, keys).unwrap(), ["AllowTcpForwarding is \"yes\" and must be no"]);
    }
}
