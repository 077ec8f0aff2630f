//! The configuration: one TOML file and the folder `.d/` beside it, parsed straight into meaningful
//! types. Knows no file: texts come in, a [`Config`] or an error with line and column goes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guest::{Console, Uuid};
use super::ports::{PortRange, Slot};
use super::rights::Rule;
use super::web::is_component;

/// The most bytes of one recording: a proxy's unit lets it write no larger file (`LimitFSIZE=`).
pub const LARGEST_RECORDING: u64 = 1 << 30;

/// Everything that can be set. [`Config::default`] is what an empty file means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where browsers connect.
    pub listen: Listen,
    /// Serial ports in guests' definitions.
    pub serial: Serial,
    /// VNC displays.
    pub vnc: Vnc,
    /// SPICE displays.
    pub spice: Spice,
    /// What is recorded.
    pub record: Record,
    /// Which guests take part.
    pub guests: Guests,
    /// What local users do not reach.
    pub guard: Guard,
    /// The page, and other clients.
    pub web: Web,
    /// A guest's proxy.
    pub proxy: Proxy,
    /// Who may enter.
    pub access: Access,
    /// Certificate and key.
    pub tls: Tls,
}

/// Where browsers connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    /// Public ports; a guest's is the first plus its slot.
    pub ports: PortRange,
    /// The address to listen on; empty: all addresses, IPv4 and IPv6.
    pub address: String,
    /// The host name in printed URLs; empty: this host's full name.
    pub host: String,
    /// Whether each guest has a unix socket as well, for a reverse proxy of this host.
    pub front: bool,
    /// Where browsers reach a guest instead of at its port, with `{uuid}` in it; empty: at its port.
    pub url: String,
}

impl Listen {
    /// Where a program of this host reaches a public port.
    #[must_use]
    pub fn from_here(&self, port: u16) -> SocketAddr {
        let address = match self.address.parse() {
            Ok(IpAddr::V6(all)) if all.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            Ok(own) if !IpAddr::is_unspecified(&own) => own,
            // All of them: systemd's socket takes both kinds, and IPv4 is never off.
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        SocketAddr::new(address, port)
    }

    /// A guest's URL for browsers, which ends in `/`; `host` is this host's name.
    #[must_use]
    pub fn browser_url(&self, host: &str, port: u16, uuid: &Uuid) -> String {
        if self.url.is_empty() { format!("https://{host}:{port}/") } else { self.url.replace("{uuid}", uuid.as_str()) }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            ports: PortRange::new(23000, 23999),
            address: String::new(),
            host: String::new(),
            front: false,
            url: String::new(),
        }
    }
}

/// Which guests get a serial port of ours in their definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialAdd {
    /// Guests with neither a serial port nor another console.
    #[default]
    Missing,
    /// Every guest with room for one more, but those with a virtio console alone: it would become their
    /// first console.
    Always,
    /// No guest.
    Never,
}

/// What happens to a serial port that a guest has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialExisting {
    /// It stays as it is; a pty is served through the broker.
    #[default]
    Keep,
    /// The first pty becomes a tcp port on loopback, at the guest's next start.
    Tcp,
}

/// What becomes of those who type at a text console when one more comes who may. Who may only look on
/// is neither in the way nor sent away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// All type.
    #[default]
    Share,
    /// The one who comes ends the others' sessions.
    TakeOver,
    /// The one who comes is refused.
    Refuse,
}

/// Whether libvirt keeps what serial ports say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// Only where an owner's own `<log>` does.
    #[default]
    Off,
    /// Wiring gives every serial port a log file of its own, at the guest's next start.
    On,
}

/// Serial ports: in guests' definitions, and how they are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Serial {
    /// Loopback ports of the serial ports that wiring adds.
    pub ports: PortRange,
    /// Which guests get one.
    pub add: SerialAdd,
    /// What happens to those that are there.
    pub existing: SerialExisting,
    /// Whether libvirt keeps what they say.
    pub history: History,
    /// Bytes of it that a client gets when it connects.
    pub history_bytes: usize,
    /// Several who type at one port.
    pub viewers: Sharing,
    /// The longest time that a port is left alone while its guest keeps talking.
    #[serde(deserialize_with = "span")]
    pub pause: Duration,
}

impl Default for Serial {
    fn default() -> Self {
        Self {
            ports: PortRange::new(28000, 28999),
            add: SerialAdd::default(),
            existing: SerialExisting::default(),
            history: History::default(),
            history_bytes: 64 << 10,
            viewers: Sharing::default(),
            pause: Duration::from_millis(20),
        }
    }
}

/// Whether QEMU's own websocket is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VncWebsocket {
    /// Where the definition has one.
    #[default]
    Use,
    /// Asked for on displays that listen on loopback alone.
    Add,
    /// Never: the raw port is bridged.
    Bridge,
}

/// VNC displays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vnc {
    /// Whether QEMU's own websocket is used.
    pub websocket: VncWebsocket,
}

/// Whether spice-server's own websocket is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpiceWebsocket {
    /// spice-server 0.14.3 and later answers websocket on its ordinary port; an older one is bridged.
    #[default]
    Use,
    /// The raw port is bridged.
    Bridge,
}

/// What becomes of the client that has a SPICE display when another one comes: spice-server serves one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpiceViewers {
    /// The one who comes ends the other's session.
    #[default]
    TakeOver,
    /// The one who comes is refused.
    Refuse,
}

/// SPICE displays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spice {
    /// Whether spice-server's own websocket is used.
    pub websocket: SpiceWebsocket,
    /// Several who come.
    pub viewers: SpiceViewers,
}

/// What is recorded of text consoles, and for how long it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// Names (`*` and `?` match as in a shell) of guests whose text consoles are recorded.
    pub guests: Vec<String>,
    /// Which of their text consoles, by the same patterns.
    pub consoles: Vec<String>,
    /// What is typed as well: passwords are among it.
    pub input: bool,
    /// A recording goes when it was not written to for so many days.
    pub keep_days: u64,
    /// Bytes that are kept of each guest's; beyond it the oldest go.
    pub keep_bytes: u64,
    /// Bytes of one file, after which the recording goes on in another.
    pub file_bytes: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            guests: Vec::new(),
            consoles: vec!["*".to_owned()],
            input: false,
            keep_days: 30,
            keep_bytes: 1 << 30,
            file_bytes: 64 << 20,
        }
    }
}

impl Record {
    /// Whether a console of a guest is recorded.
    #[must_use]
    pub fn wants(&self, guest: &str, console: Console) -> bool {
        let console_name = console.to_string();
        console.is_text()
            && self.guests.iter().any(|pattern| matches(pattern, guest))
            && self.consoles.iter().any(|pattern| matches(pattern, &console_name))
    }
}

/// Which guests take part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guests {
    /// Names (`*` and `?` match as in a shell) of guests that are neither wired nor published.
    pub skip: Vec<String>,
}

impl Guests {
    /// Whether the host's configuration leaves the guest out.
    #[must_use]
    pub fn skips(&self, name: &str) -> bool {
        self.skip.iter().any(|pattern| matches(pattern, name))
    }
}

/// What this host's other users do not reach, beside the ports that wiring made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guard {
    /// Whether root alone connects to the own ports of published guests' displays, where those listen on loopback.
    pub displays: bool,
}

/// The page, and other people's clients beside it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Web {
    /// The page's folder, with `index.html` and `assets/`.
    pub folder: String,
    /// Folders of other clients, by the names under which they are served: `/clients/NAME/`.
    pub clients: BTreeMap<String, String>,
}

impl Default for Web {
    fn default() -> Self {
        Self { folder: "/usr/share/console-proxy/web".to_owned(), clients: BTreeMap::new() }
    }
}

impl Web {
    /// The folders, each with the key that names it.
    pub fn folders(&self) -> impl Iterator<Item = (String, &str)> {
        let clients = self.clients.iter().map(|(name, folder)| (format!("web.clients.{name}"), folder.as_str()));
        std::iter::once(("web.folder".to_owned(), self.folder.as_str())).chain(clients)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = self.clients.keys().find(|name| !is_component(name)) {
            return Err(format!("web.clients: {name:?} can be no part of a path: use letters, digits and _.+@-"));
        }
        let relative = self.folders().find(|(_, folder)| !folder.starts_with('/') || folder.contains('\0'));
        relative.map_or(Ok(()), |(key, folder)| Err(format!("{key} is {folder:?}: an absolute path is needed")))
    }
}

/// What a proxy's line in `systemctl status` says. systemd shows it to every local user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// How many are on which console.
    #[default]
    Numbers,
    /// Who, and from where, too.
    Names,
}

/// A guest's proxy: life and limits. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxy {
    /// How long a proxy without a connection lives.
    #[serde(deserialize_with = "span")]
    pub idle_timeout: Duration,
    /// TCP connect to the last byte of the request's headers.
    #[serde(deserialize_with = "span")]
    pub handshake_timeout: Duration,
    /// Between two pings; two unanswered ones end the session.
    #[serde(deserialize_with = "span")]
    pub ping_interval: Duration,
    /// How long a backend may take to accept.
    #[serde(deserialize_with = "span")]
    pub connect_timeout: Duration,
    /// Open TCP connections, sessions or not.
    pub max_connections: usize,
    /// Of them, those of one address; of an IPv6 address, of its /64. The /56 and the /48 around it have more.
    pub max_per_address: usize,
    /// Open consoles of one person; a SPICE client has one for each of its sockets.
    pub max_per_person: usize,
    /// Clients on one console; a SPICE display has one anyway.
    pub max_viewers: usize,
    /// Of them, those of one person.
    pub max_viewers_per_person: usize,
    /// Largest frame from a client; a message of several may be of any length, it is never put together.
    pub max_frame: usize,
    /// Output of a serial port that is kept for its slow viewers; beyond it the oldest is dropped.
    pub serial_buffer: usize,
    /// What `systemctl status` says of who is connected.
    pub status: Status,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            max_connections: 64,
            max_per_address: 48,
            max_per_person: 32,
            max_viewers: 16,
            max_viewers_per_person: 8,
            max_frame: 1 << 20,
            serial_buffer: 256 << 10,
            status: Status::default(),
        }
    }
}

/// Whether a guest's own settings count where they say who may enter. They can only narrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestSettings {
    /// They do.
    #[default]
    Narrow,
    /// They do not: the host's rules alone.
    Ignore,
}

/// Who may enter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Access {
    /// Whether users of this host may log in with their passwords.
    pub passwords: bool,
    /// What those who log in may; nobody else enters without a ticket.
    pub rights: Vec<Rule>,
    /// Whether a guest's own settings count.
    pub guest_settings: GuestSettings,
    /// Origins other than the guest's own port from which pages may connect, such as `https://panel.example`.
    pub origins: Vec<String>,
    /// Sites that may show the page in a frame; they count as `origins`, too.
    pub embed_origins: Vec<String>,
    /// Life of a ticket that `console-proxy ticket` and `url` make, at most 300 s.
    #[serde(deserialize_with = "span")]
    pub ticket_life: Duration,
    /// A session ends after this time.
    #[serde(deserialize_with = "span")]
    pub session_life: Duration,
    /// A session ends when it had no open websocket for this time.
    #[serde(deserialize_with = "span")]
    pub session_idle: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            passwords: true,
            rights: Rule::default_rules(),
            guest_settings: GuestSettings::default(),
            origins: Vec::new(),
            embed_origins: Vec::new(),
            ticket_life: Duration::from_secs(60),
            session_life: Duration::from_secs(8 * 3600),
            session_idle: Duration::from_secs(30 * 60),
        }
    }
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tls {
    /// The certificate and its chain.
    pub certificate: String,
    /// Its private key, readable by group `console-proxy`.
    pub key: String,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: "/etc/console-proxy/tls/certificate.pem".to_owned(),
            key: "/etc/console-proxy/tls/key.pem".to_owned(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// Not TOML, an unknown key, or a value of the wrong form; the text names line and column.
    #[error("{file}: {why}")]
    Form {
        /// The file's name as given.
        file: String,
        /// The parser's words, with the line.
        why: String,
    },
    /// Each value is well-formed, but together they make no sense.
    #[error("the configuration is refused: {0}")]
    Sense(String),
}

impl BadConfig {
    fn form(file: &str, why: &toml::de::Error) -> Self {
        Self::Form { file: file.to_owned(), why: why.to_string().trim_end().to_owned() }
    }
}

impl Config {
    /// Reads `(file name, text)` pairs in order: later ones win, key by key.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadConfig> {
        let files: Vec<_> = files.into_iter().collect();
        // Each file alone first: that is where a mistake has a line and a column.
        let mut config = Self::default();
        for (file, text) in &files {
            config = toml::from_str(text).map_err(|why| BadConfig::form(file, &why))?;
        }
        // Of several, key by key. As a text, for one way of reading it: another one is 100 KiB of each program.
        if files.len() > 1 {
            let mut merged = toml::Table::new();
            for (file, text) in &files {
                merge(&mut merged, toml::from_str(text).map_err(|why| BadConfig::form(file, &why))?);
            }
            let whole = toml::to_string(&merged).map_err(|why| BadConfig::Sense(why.to_string()))?;
            config = toml::from_str(&whole).map_err(|why| BadConfig::Sense(why.to_string()))?;
        }
        config.check()?;
        Ok(config)
    }

    /// How many slots both port ranges have room for.
    #[must_use]
    pub fn room(&self) -> u16 {
        self.listen.ports.len().min(self.serial.ports.len())
    }

    /// The public port and the loopback serial port of a slot, where the ranges reach that far.
    #[must_use]
    pub fn ports(&self, slot: Slot) -> Option<(u16, u16)> {
        Some((self.listen.ports.port(slot)?, self.serial.ports.port(slot)?))
    }

    fn check(&self) -> Result<(), BadConfig> {
        let refuse = |why: String| Err(BadConfig::Sense(why));
        if self.listen.ports.overlaps(self.serial.ports) {
            return refuse(format!(
                "listen.ports {} and serial.ports {} overlap",
                self.listen.ports, self.serial.ports
            ));
        }
        if !self.listen.address.is_empty() && self.listen.address.parse::<std::net::IpAddr>().is_err() {
            return refuse(format!("listen.address {:?} is not an IP address", self.listen.address));
        }
        let host_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if !self.listen.host.chars().all(host_ok) {
            return refuse(format!("listen.host {:?} is not a host name", self.listen.host));
        }
        if let Err(why) = check_url(&self.listen.url) {
            return refuse(format!("listen.url {:?} {why}", self.listen.url));
        }
        let origins = self.access.origins.iter().map(|origin| ("origins", origin));
        for (key, origin) in origins.chain(self.access.embed_origins.iter().map(|origin| ("embed-origins", origin))) {
            if !is_origin(origin) {
                return refuse(format!("access.{key}: {origin:?} is not SCHEME://HOST or SCHEME://HOST:PORT"));
            }
        }
        self.web.check().map_err(BadConfig::Sense)?;
        for rule in &self.access.rights {
            rule.check().map_err(|why| BadConfig::Sense(format!("access.rights: {why}")))?;
        }
        let life = self.access.ticket_life.as_secs();
        if !(5..=300).contains(&life) {
            return refuse(format!("access.ticket-life is {life} s: from 5 to 300 s are possible"));
        }
        let proxy = &self.proxy;
        let positive = [
            ("proxy.idle-timeout", proxy.idle_timeout),
            ("proxy.handshake-timeout", proxy.handshake_timeout),
            ("proxy.ping-interval", proxy.ping_interval),
            ("proxy.connect-timeout", proxy.connect_timeout),
            ("access.session-life", self.access.session_life),
            ("access.session-idle", self.access.session_idle),
        ];
        for (key, value) in positive {
            if value < Duration::from_secs(1) {
                return refuse(format!("{key} must be at least 1 s"));
            }
        }
        if self.serial.pause > Duration::from_millis(100) {
            return refuse(format!(
                "serial.pause is {} ms: at most 100 ms are possible",
                self.serial.pause.as_millis()
            ));
        }
        let ranges = [
            ("proxy.max-connections", proxy.max_connections, 1, 4096),
            ("proxy.max-per-address", proxy.max_per_address, 1, 4096),
            ("proxy.max-per-person", proxy.max_per_person, 1, 4096),
            ("proxy.max-viewers", proxy.max_viewers, 1, 1024),
            ("proxy.max-viewers-per-person", proxy.max_viewers_per_person, 1, 1024),
            ("proxy.max-frame", proxy.max_frame, 4096, 64 << 20),
            ("proxy.serial-buffer", proxy.serial_buffer, 4096, 64 << 20),
            ("serial.history-bytes", self.serial.history_bytes, 0, 64 << 20),
        ];
        let record = &self.record;
        let sizes = [
            ("record.keep-days", record.keep_days, 1, 36_500),
            ("record.file-bytes", record.file_bytes, 64 << 10, LARGEST_RECORDING),
            ("record.keep-bytes", record.keep_bytes, record.file_bytes, u64::MAX),
        ];
        for (key, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return refuse(format!("{key} is {value}: from {least} to {most} is possible"));
            }
        }
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return refuse(format!("{key} is {value}: from {least} to {most} is possible"));
            }
        }
        Ok(())
    }
}

/// Whether a text can be a guest's URL once its `{uuid}` is filled in.
fn check_url(url: &str) -> Result<(), &'static str> {
    if url.is_empty() {
        return Ok(());
    }
    let (place, path) = url.split_at(url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at));
    if !place.starts_with("https://") || !is_origin(place) {
        return Err("does not begin with https:// and a host");
    }
    if path.matches("{uuid}").count() != 1 {
        return Err("has not {uuid} once in its path: the guests could not be told apart");
    }
    // The page finds everything relative to itself.
    if !path.ends_with('/') {
        return Err("does not end in /");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '~');
    if path.replace("{uuid}", "").chars().all(plain) {
        Ok(())
    } else {
        Err("has something in its path that is no name")
    }
}

/// Whether a text is an origin as a browser sends it (RFC 6454, 6.2), and not `null`.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `*` and `?` as in a shell, case counts.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A span of time as `8ms`, `90s`, `5m`, `8h`.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a span of time such as \"90s\", \"5m\" or \"8h\"");
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?);
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).filter(|span| span.as_secs() <= 365 * 86_400).ok_or_else(bad)
}

fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_span(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
