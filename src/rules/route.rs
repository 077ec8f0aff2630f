//! The route: the file that says all about one published guest. Written by the hook and by
//! `publish`, read by the proxy, the broker and the administrator's tools.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::guest::{Console, Uuid, printable};
use super::rights::Allow;
use super::serving::{Held, Owner};
use super::ticket::Mode;

/// The form that this program writes and reads.
pub const VERSION: u32 = 1;

/// The keys of a route, of a console in it, and of one that cannot be reached.
const KEYS: [&str; 11] =
    ["version", "uuid", "name", "port", "since", "auth", "allow", "displays", "owner", "consoles", "unreachable"];
const WAY_KEYS: [&str; 8] = ["console", "raw", "websocket", "guarded", "websocket-ca", "raw-ca", "log", "added"];
const GONE_KEYS: [&str; 2] = ["console", "reason"];

/// A published guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// [`VERSION`].
    pub version: u32,
    /// The guest.
    pub uuid: Uuid,
    /// Its name when it was published; any text.
    pub name: String,
    /// Its public port.
    pub port: u16,
    /// Seconds since 1970 at which the guest was published.
    #[serde(default)]
    pub since: u64,
    /// Who may enter.
    #[serde(default, skip_serializing_if = "Auth::is_ticket")]
    pub auth: Auth,
    /// What the guest's own settings leave of people's rights; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Allow>>,
    /// Where its displays listen that do so on loopback alone (`127.0.0.1:5900`), whether that is used here or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displays: Vec<SocketAddr>,
    /// Who serves its backends. Absent in a route that was written by hand, and where it could not be found out: then
    /// the broker opens nothing that could be somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What can be reached.
    #[serde(default)]
    pub consoles: Vec<Way>,
    /// What the guest has and cannot be reached, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<Unreachable>,
}

/// Who may enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// A ticket or a session.
    #[default]
    Ticket,
    /// Anybody: in a hand-written route alone, and only on loopback or a unix socket.
    None,
}

impl Auth {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_ticket(&self) -> bool {
        *self == Self::Ticket
    }
}

/// A console and where its bytes are. At least one of `raw` and `websocket` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// Which one.
    pub console: Console,
    /// The raw byte stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Backend>,
    /// QEMU's or spice-server's own websocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Backend>,
    /// The websocket is there because wiring asked QEMU for it: the guard keeps it for root alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
    /// The websocket speaks TLS; certificates (PEM): its chain must end in one of them, or it shows one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket_ca: Option<String>,
    /// The raw stream is within TLS; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_ca: Option<String>,
    /// The file in which libvirt keeps what the console says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Wiring added it: it is silent until the guest runs something on it, such as a getty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
}

/// How a console is reached, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// QEMU or spice-server speaks websocket itself; its frames are forwarded.
    Native,
    /// The proxy speaks websocket and carries the raw stream.
    Bridged,
    /// The guest's pty, through the broker.
    Pty,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Bridged => "bridged",
            Self::Pty => "pty",
        })
    }
}

/// A console that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unreachable {
    /// Which one.
    pub console: Console,
    /// Why, and what to do.
    pub reason: String,
}

/// Where a console's bytes are on this host: `tcp:127.0.0.1:5900`, `unix:/path`, `pty:/dev/pts/3`, `display:0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Backend {
    /// A port on a loopback address.
    Tcp(IpAddr, u16),
    /// A unix stream socket, by an absolute path.
    Unix(String),
    /// The number of a pseudo-terminal under /dev/pts.
    Pty(u32),
    /// A display that libvirt alone connects to: its place among all `<graphics>` of its guest.
    Display(u32),
}

/// Why a text names no backend.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no backend: tcp:LOOPBACK-ADDRESS:PORT, unix:/PATH, pty:/dev/pts/N or display:N")]
pub struct BadBackend(String);

impl FromStr for Backend {
    type Err = BadBackend;

    fn from_str(text: &str) -> Result<Self, BadBackend> {
        let bad = || BadBackend(text.chars().take(200).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        match kind {
            "tcp" => {
                let address: std::net::SocketAddr = rest.parse().map_err(|_| bad())?;
                let usable = address.ip().is_loopback() && address.port() != 0;
                usable.then(|| Self::Tcp(address.ip(), address.port())).ok_or_else(bad)
            }
            "unix" if rest.starts_with('/') && rest.len() < 108 && !rest.contains('\0') => {
                Ok(Self::Unix(rest.to_owned()))
            }
            "pty" => pts_number(rest).map(Self::Pty).ok_or_else(bad),
            "display" => small_number(rest).map(Self::Display).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
        text.extend([digit(byte >> 4), digit(byte & 15)]);
        text
    })
}

/// The N of `/dev/pts/N`.
#[must_use]
pub fn pts_number(path: &str) -> Option<u32> {
    small_number(path.strip_prefix("/dev/pts/")?)
}

fn small_number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.len() < 10 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

impl TryFrom<String> for Backend {
    type Error = BadBackend;
    fn try_from(text: String) -> Result<Self, BadBackend> {
        text.parse()
    }
}

impl From<Backend> for String {
    fn from(backend: Backend) -> Self {
        backend.to_string()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(ip, port) => write!(f, "tcp:{}", std::net::SocketAddr::new(*ip, *port)),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Pty(number) => write!(f, "pty:/dev/pts/{number}"),
            Self::Display(index) => write!(f, "display:{index}"),
        }
    }
}

/// Why a route is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRoute {
    /// Not TOML, or not of this form.
    #[error("the route is unreadable: {0}")]
    Form(String),
    /// Written by another version of this program.
    #[error("the route has version {0}, this program knows version {VERSION}: run `console-proxy publish --all`")]
    Version(u32),
    /// Its displays have ports alone, as an earlier version wrote them.
    #[error(
        "the route names its displays by port, as an earlier version wrote it, and this program needs their addresses: run `console-proxy publish --all`"
    )]
    Ports,
    /// A display that listens elsewhere than on loopback.
    #[error("the route's displays have {0}, which is not on loopback")]
    Display(SocketAddr),
    /// A key that no route has.
    #[error("the route has a key {0:?}, which none has")]
    Unknown(String),
    /// A console without a backend, with one that it cannot have, or twice there.
    #[error("the route's console {0} {1}")]
    Console(Console, &'static str),
}

impl Way {
    /// How the console is reached in a session that may type.
    #[must_use]
    pub fn reached(&self) -> Reached {
        match (&self.websocket, &self.raw) {
            (Some(_), _) => Reached::Native,
            (None, Some(Backend::Pty(_))) => Reached::Pty,
            (None, _) => Reached::Bridged,
        }
    }

    /// Why a person in that mode cannot open the console, in words; `None` where they can. Who only looks on is
    /// served where the proxy can read what the client sends and pass on what shows and does nothing
    /// (`rules::rfb`): text consoles, and VNC whose raw stream is plain RFB.
    #[must_use]
    pub fn refused_for(&self, mode: Mode) -> Option<String> {
        let why = match (mode, self.console) {
            (Mode::Control, _) | (Mode::View, Console::Serial(_) | Console::Console(_)) => return None,
            (Mode::View, Console::Spice) => "SPICE has no view-only way that the proxy could enforce",
            (Mode::View, Console::Vnc) if self.raw.is_some() && self.raw_ca.is_none() => return None,
            (Mode::View, Console::Vnc) if self.websocket_ca.is_some() || self.raw_ca.is_some() => {
                "it speaks TLS (vnc_tls in qemu.conf), so the proxy cannot read and filter what a client sends"
            }
            (Mode::View, Console::Vnc) => "it has a websocket of its own alone, whose input the proxy does not filter",
        };
        Some(format!("{} cannot be opened view-only: {why}", self.console))
    }

    /// The backend that such a session connects to.
    #[must_use]
    pub fn backend(&self) -> Option<&Backend> {
        self.websocket.as_ref().or(self.raw.as_ref())
    }
}

impl Route {
    /// Reads a text that a person wrote: a key that no route has is refused, as it is a slip.
    pub fn parse_by_hand(text: &str) -> Result<Self, BadRoute> {
        let route = Self::parse(text)?;
        if let Some(way) = route.consoles.iter().find(|way| matches!(way.raw, Some(Backend::Display(_)))) {
            let why = "is reached through libvirt, which the broker of an installed console-proxy asks: by hand, name its port or unix socket";
            return Err(BadRoute::Console(way.console, why));
        }
        let table: toml::Table = toml::from_str(text).map_err(|why| BadRoute::Form(why.to_string()))?;
        let unknown =
            |table: &toml::Table, known: &[&str]| table.keys().find(|key| !known.contains(&key.as_str())).cloned();
        let below = |list: &str, known: &[&str]| {
            let entries = table.get(list).and_then(toml::Value::as_array).into_iter().flatten();
            entries.filter_map(toml::Value::as_table).find_map(|entry| unknown(entry, known))
        };
        let slip = unknown(&table, &KEYS)
            .or_else(|| below("consoles", &WAY_KEYS))
            .or_else(|| below("unreachable", &GONE_KEYS));
        slip.map_or(Ok(route), |key| Err(BadRoute::Unknown(key)))
    }

    /// Reads the file's text. Keys that are not known are passed over: a process that has run for long reads what a
    /// newer one wrote.
    pub fn parse(text: &str) -> Result<Self, BadRoute> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            #[serde(default)]
            displays: Vec<toml::Value>,
        }
        let form = |why: toml::de::Error| BadRoute::Form(why.to_string().trim_end().to_owned());
        let Versioned { version, displays } = toml::from_str(text).map_err(form)?;
        if version != VERSION {
            return Err(BadRoute::Version(version));
        }
        if displays.iter().any(toml::Value::is_integer) {
            return Err(BadRoute::Ports);
        }
        let route: Self = toml::from_str(text).map_err(form)?;
        if let Some(place) = route.displays.iter().find(|place| !place.ip().is_loopback() || place.port() == 0) {
            return Err(BadRoute::Display(*place));
        }
        for (i, way) in route.consoles.iter().enumerate() {
            if way.backend().is_none() {
                return Err(BadRoute::Console(way.console, "has no backend"));
            }
            if matches!(way.websocket, Some(Backend::Display(_))) {
                return Err(BadRoute::Console(
                    way.console,
                    "has a websocket where libvirt hands out raw streams alone",
                ));
            }
            if route.consoles[..i].iter().any(|other| other.console == way.console) {
                return Err(BadRoute::Console(way.console, "is there twice"));
            }
        }
        Ok(route)
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_else(|why| format!("# cannot be written: {why}\n"))
    }

    /// The way to a console.
    #[must_use]
    pub fn way(&self, console: Console) -> Option<&Way> {
        self.consoles.iter().find(|way| way.console == console)
    }

    /// What `/websockify` leads to, where noVNC looks: the VNC display, in a guest without one the SPICE display.
    #[must_use]
    pub fn first_display(&self) -> Option<&Way> {
        self.way(Console::Vnc).or_else(|| self.way(Console::Spice))
    }

    /// The text console that somebody means: the one that was named, else the first serial port, else the first
    /// other text console. Otherwise why there is none, with what there is.
    pub fn text_console(&self, wanted: Option<Console>) -> Result<Console, String> {
        let name = printable(&self.name);
        let texts = || self.consoles.iter().map(|way| way.console).filter(|console| console.is_text());
        let gone = |fits: &dyn Fn(Console) -> bool| {
            let gone = self.unreachable.iter().find(|gone| fits(gone.console));
            gone.map(|gone| format!("{} of {name} cannot be reached: {}", gone.console, printable(&gone.reason)))
        };
        let Some(wanted) = wanted else {
            let none = || gone(&|console| console.is_text()).unwrap_or_else(|| format!("{name} has no text console"));
            return texts().min().ok_or_else(none);
        };
        if !wanted.is_text() {
            return Err(format!("{wanted} is a screen: `console-proxy url {name}` opens it in a browser"));
        }
        let has: Vec<_> = texts().map(|console| console.to_string()).collect();
        let others =
            if has.is_empty() { "it has no text console".to_owned() } else { format!("it has {}", has.join(", ")) };
        let none = || gone(&|console| console == wanted).unwrap_or_else(|| format!("{name} has no {wanted}; {others}"));
        texts().find(|console| *console == wanted).ok_or_else(none)
    }

    /// What tells a backend from others of its number; the error says why nobody knows whether it is the guest's. `None`
    /// where nothing of that kind is needed.
    pub fn held(&self, backend: &Backend) -> Result<Option<&Held>, String> {
        let held = self.owner.as_ref().map(|owner| owner.holds.get(backend));
        match (backend, held) {
            (Backend::Display(_), _) | (Backend::Unix(_), Some(_)) => Ok(None),
            (Backend::Tcp(..), Some(Some(held @ Held::Listener { .. })))
            | (Backend::Pty(_), Some(Some(held @ Held::Terminal(_)))) => Ok(Some(held)),
            (_, None) => Err(format!("nobody knows which process serves {backend}: {}", self.remedy())),
            (_, Some(_)) => Err(format!("nobody knows whether {backend} is this guest's: {}", self.remedy())),
        }
    }

    /// What to do where its owner is not known.
    fn remedy(&self) -> String {
        format!("`console-proxy publish {}`", printable(&self.name))
    }

    /// The consoles that stay closed for that, in words.
    #[must_use]
    pub fn closed(&self) -> Vec<(Console, String)> {
        let backends = |way: &Way| way.raw.iter().chain(&way.websocket).cloned().collect::<Vec<_>>();
        let why = |way: &Way| backends(way).iter().find_map(|backend| self.held(backend).err());
        self.consoles.iter().filter_map(|way| why(way).map(|why| (way.console, why))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::serving::Terminal;

    fn owner() -> Owner {
        let terminal = Terminal { device: 34819, inode: 6, uid: 64055, made: 1_795_850_407_583_906_200 };
        let holds = [
            ("pty:/dev/pts/3", Held::Terminal(terminal)),
            ("tcp:127.0.0.1:5900", Held::Listener { socket: 77 }),
            ("tcp:[::1]:5700", Held::Listener { socket: 78 }),
        ];
        let holds = holds.into_iter().map(|(backend, held)| (backend.parse().unwrap(), held)).collect();
        Owner { pid: 376, started: 559_651, holds }
    }

    #[test]
    fn a_place_of_which_nobody_knows_whose_it_is_is_closed_and_the_way_to_open_it_said() {
        let text = "version=1\nuuid=\"b50bdc9f490b4b9b86417573c0eba77c\"\nname=\"g1\"\nport=1\n";
        let console = |name: &str, raw: &str| format!("[[consoles]]\nconsole=\"{name}\"\nraw=\"{raw}\"\n");
        let consoles = console("vnc", "display:0")
            + &console("spice", "tcp:127.0.0.1:5900")
            + &console("serial/0", "pty:/dev/pts/3")
            + &console("serial/1", "pty:/dev/pts/4")
            + &console("serial/2", "unix:/run/s");
        let mut route = Route::parse(&format!("{text}{consoles}")).unwrap();
        let closed = |route: &Route| -> Vec<String> { route.closed().iter().map(|(c, _)| c.to_string()).collect() };
        assert_eq!(closed(&route), ["spice", "serial/0", "serial/1", "serial/2"]);
        let words = "nobody knows which process serves tcp:127.0.0.1:5900: `console-proxy publish g1`";
        assert_eq!(route.closed()[0].1, words);
        route.owner = Some(owner());
        assert_eq!(closed(&route), ["serial/1"]);
        let backend = "tcp:127.0.0.1:5900".parse().unwrap();
        assert_eq!(route.held(&backend), Ok(Some(&Held::Listener { socket: 77 })));
        let odd = route.owner.as_ref().unwrap().holds[&"pty:/dev/pts/3".parse::<Backend>().unwrap()].clone();
        route.owner.as_mut().unwrap().holds.insert(backend.clone(), odd);
        assert!(route.held(&backend).is_err(), "a terminal's marks are no port's");
    }

    #[test]
    fn a_route_reads_back_as_it_was_written() {
        let route = Route {
            version: VERSION,
            uuid: "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap(),
            name: "a \"quoted\"\nname".into(),
            port: 23000,
            since: 5,
            auth: Auth::Ticket,
            allow: None,
            displays: vec!["127.0.0.1:5900".parse().unwrap(), "[::1]:5700".parse().unwrap()],
            owner: Some(owner()),
            consoles: vec![
                Way {
                    console: Console::Vnc,
                    raw: "tcp:127.0.0.1:5900".parse().ok(),
                    websocket: "tcp:[::1]:5700".parse().ok(),
                    websocket_ca: None,
                    raw_ca: None,
                    guarded: false,
                    log: None,
                    added: false,
                },
                Way {
                    console: Console::Serial(0),
                    raw: "pty:/dev/pts/3".parse().ok(),
                    websocket: None,
                    websocket_ca: None,
                    raw_ca: None,
                    guarded: false,
                    log: Some("/var/log/x".into()),
                    added: true,
                },
            ],
            unreachable: vec![Unreachable { console: Console::Spice, reason: "it listens nowhere".into() }],
        };
        assert_eq!(Route::parse(&route.to_text()).unwrap(), route);
        assert_eq!(route.way(Console::Vnc).unwrap().reached(), Reached::Native);
        assert_eq!(route.way(Console::Serial(0)).unwrap().reached(), Reached::Pty);
    }

    #[test]
    fn who_only_looks_on_opens_what_can_be_filtered_and_hears_why_not_otherwise() {
        let way =
            |console: &str, more: &str| -> Way { toml::from_str(&format!("console=\"{console}\"\n{more}")).unwrap() };
        let (raw, websocket) = ("raw=\"tcp:127.0.0.1:1\"\n", "websocket=\"tcp:127.0.0.1:2\"\n");
        for (way, why) in [
            (way("serial/0", raw), None),
            (way("console/1", raw), None),
            (way("vnc", raw), None),
            (way("vnc", &format!("{raw}{websocket}")), None),
            (way("vnc", &format!("{websocket}websocket-ca=\"PEM\"")), Some("it speaks TLS (vnc_tls in qemu.conf)")),
            (way("vnc", websocket), Some("it has a websocket of its own alone")),
            (way("spice", raw), Some("SPICE has no view-only way")),
        ] {
            let refused = way.refused_for(Mode::View);
            match why {
                None => assert_eq!(refused, None, "{way:?}"),
                Some(why) => assert!(refused.as_ref().is_some_and(|words| words.contains(why)), "{refused:?}"),
            }
            assert_eq!(way.refused_for(Mode::Control), None, "{way:?}");
        }
    }

    #[test]
    fn the_text_console_is_the_one_named_else_the_first_serial_else_the_first_other() {
        let route = |consoles: &[&str], gone: &[&str]| {
            let consoles = consoles.iter().map(|c| format!("[[consoles]]\nconsole=\"{c}\"\nraw=\"unix:/x\"\n"));
            let gone = gone.iter().map(|c| format!("[[unreachable]]\nconsole=\"{c}\"\nreason=\"a reason\"\n"));
            let head = "version=1\nuuid=\"b50bdc9f490b4b9b86417573c0eba77c\"\nname=\"g1\"\nport=1\n".to_owned();
            Route::parse(&[head].into_iter().chain(consoles).chain(gone).collect::<String>()).unwrap()
        };
        let all = route(&["vnc", "console/1", "console/0", "serial/2", "serial/1"], &[]);
        assert_eq!(all.text_console(None), Ok(Console::Serial(1)));
        assert_eq!(all.text_console(Some(Console::Console(1))), Ok(Console::Console(1)));
        assert_eq!(route(&["console/3", "console/2"], &["serial/0"]).text_console(None), Ok(Console::Console(2)));
        for (route, wanted, why) in [
            (route(&["vnc"], &[]), None, "g1 has no text console"),
            (route(&["vnc"], &["spice", "serial/0"]), None, "serial/0 of g1 cannot be reached: a reason"),
            (route(&["vnc"], &[]), Some(Console::Serial(0)), "g1 has no serial/0; it has no text console"),
            (
                route(&["serial/0", "console/0"], &[]),
                Some(Console::Serial(1)),
                "g1 has no serial/1; it has serial/0, console/0",
            ),
            (
                route(&["serial/0"], &["serial/1"]),
                Some(Console::Serial(1)),
                "serial/1 of g1 cannot be reached: a reason",
            ),
            (all, Some(Console::Vnc), "vnc is a screen: `console-proxy url g1` opens it in a browser"),
        ] {
            assert_eq!(route.text_console(wanted).unwrap_err(), why);
        }
    }

    #[test]
    fn only_loopback_absolute_paths_ptys_and_numbered_displays_are_backends() {
        for text in [
            "tcp:127.0.0.1:5900",
            "tcp:[::1]:5900",
            "tcp:127.0.0.2:1",
            "unix:/run/a b",
            "pty:/dev/pts/12",
            "display:0",
            "display:12",
        ] {
            assert_eq!(text.parse::<Backend>().unwrap().to_string(), text);
        }
        for text in [
            "tcp:10.0.0.1:5900",
            "tcp:127.0.0.1:0",
            "tcp:localhost:1",
            "unix:a",
            "unix:",
            "pty:/dev/tty1",
            "pty:/dev/pts/",
            "pty:/dev/pts/../tty",
            "pty:/dev/pts/+1",
            "display:",
            "display:-1",
            "display:+1",
            "display:vnc",
            "",
            "x",
        ] {
            assert!(text.parse::<Backend>().is_err(), "{text}");
        }
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<Backend>().is_err(), "longer than sun_path");
    }

    #[test]
    fn a_route_of_another_version_or_with_a_console_without_backend_is_refused() {
        let head = "uuid = \"b50bdc9f-490b-4b9b-8641-7573c0eba77c\"\nname = \"a\"\nport = 1\n";
        assert!(matches!(Route::parse(&format!("version = 2\n{head}")), Err(BadRoute::Version(2))));
        assert_eq!(Route::parse(&format!("version = 1\ndisplays = [5900]\n{head}")), Err(BadRoute::Ports));
        assert!(BadRoute::Ports.to_string().ends_with("run `console-proxy publish --all`"));
        let away = Route::parse(&format!("version = 1\ndisplays = [\"192.0.2.1:5900\"]\n{head}"));
        assert!(matches!(away, Err(BadRoute::Display(_))), "{away:?}");
        assert!(matches!(
            Route::parse(&format!("version = 1\n{head}[[consoles]]\nconsole = \"vnc\"\n")),
            Err(BadRoute::Console(..))
        ));
        let twice = "[[consoles]]\nconsole = \"vnc\"\nraw = \"tcp:127.0.0.1:1\"\n".repeat(2);
        assert!(matches!(Route::parse(&format!("version = 1\n{head}{twice}")), Err(BadRoute::Console(..))));
    }

    #[test]
    fn a_display_that_libvirt_opens_is_raw_and_stands_in_no_route_by_hand() {
        let head = "version = 1\nuuid = \"b50bdc9f-490b-4b9b-8641-7573c0eba77c\"\nname = \"a\"\nport = 1\n";
        let with = |line: &str| format!("{head}[[consoles]]\nconsole = \"vnc\"\n{line}\n");
        let route = Route::parse(&with("raw = \"display:1\"")).unwrap();
        assert_eq!(route.consoles[0].raw, Some(Backend::Display(1)));
        assert_eq!(route.consoles[0].reached(), Reached::Bridged);
        assert_eq!(route.consoles[0].refused_for(Mode::View), None);
        let why = Route::parse_by_hand(&with("raw = \"display:1\"")).unwrap_err().to_string();
        assert!(why.starts_with("the route's console vnc is reached through libvirt"), "{why}");
        assert!(Route::parse_by_hand(&with("raw = \"unix:/run/v\"")).is_ok());
        assert!(Route::parse(&with("websocket = \"display:1\"")).is_err());
    }

    #[test]
    fn a_slip_by_hand_is_refused_and_a_key_of_a_newer_version_passed_over() {
        let whole = Route {
            version: VERSION,
            uuid: "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap(),
            name: "g1".into(),
            port: 1,
            since: 1,
            auth: Auth::None,
            allow: Some(vec![Allow::from_attributes([("users", "ann"), ("mode", "view")]).unwrap()]),
            displays: vec!["127.0.0.1:5900".parse().unwrap()],
            owner: Some(owner()),
            consoles: vec![Way {
                console: Console::Vnc,
                raw: "tcp:127.0.0.1:1".parse().ok(),
                websocket: "tcp:127.0.0.1:2".parse().ok(),
                websocket_ca: Some("x".into()),
                raw_ca: Some("x".into()),
                guarded: true,
                log: Some("/x".into()),
                added: true,
            }],
            unreachable: vec![Unreachable { console: Console::Spice, reason: "x".into() }],
        };
        let text = whole.to_text();
        assert_eq!(Route::parse_by_hand(&text).as_ref(), Ok(&whole), "all keys that there are");
        let shut = Route { allow: Some(Vec::new()), ..whole.clone() };
        assert_eq!(Route::parse(&shut.to_text()).as_ref(), Ok(&shut), "settings that allow nothing stay settings");
        for (line, key) in [("port = 1", "prot"), ("guarded = true", "row"), ("reason = \"x\"", "why")] {
            let text = text.replacen(line, &format!("{line}\n{key} = 1"), 1);
            assert_eq!(Route::parse_by_hand(&text), Err(BadRoute::Unknown(key.into())));
            assert_eq!(Route::parse(&text).as_ref(), Ok(&whole));
        }
    }
}
