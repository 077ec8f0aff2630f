//! What this project reads of a libvirt domain's XML: the one module that knows its element names
//! for reading. (`rules::wiring` knows those that it writes.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::guest::Uuid;
use super::rights::Allow;
use super::xml::{BadXml, Document, Node, Scope};

/// The namespace of what a guest's owner says in its `<metadata>`.
pub const NAMESPACE: &str = "urn:console-proxy:1";

/// The namespace of the note that wiring leaves there. One of its own: libvirt keeps a single element
/// per namespace, so the owner's `virsh metadata` would otherwise replace the note, and the note the settings.
pub const WIRING_NAMESPACE: &str = "urn:console-proxy:wiring:1";

/// The alias of the serial port that wiring adds. libvirt keeps aliases that begin with `ua-`.
pub const ALIAS: &str = "ua-console-proxy";

/// The most devices of a kind that could be a console. More are no guest but an attack on whoever reads it. Of its serial
/// ports QEMU has 4 on the ISA bus (`MAX_ISA_SERIAL_PORTS`); libvirt has one `<graphics>` of a type; a virtio-serial
/// controller has 31 ports in libvirt.
pub const MOST_OF_A_KIND: usize = 256;

/// The most devices at all: what 256 PCI buses with 32 places each can hold.
pub const MOST_DEVICES: usize = 8192;

/// A domain, as far as its consoles go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The guest's identity.
    pub uuid: Uuid,
    /// Its name; any text.
    pub name: String,
    /// `x86_64`, `aarch64`, ... (`os/type@arch`).
    pub arch: String,
    /// `pc-q35-7.2`, `virt-9.0`, ... (`os/type@machine`).
    pub machine: String,
    /// Serial ports.
    pub serials: Vec<Chardev>,
    /// Consoles, twins of serial ports included.
    pub consoles: Vec<Chardev>,
    /// Displays.
    pub displays: Vec<Display>,
    /// What this project noted, or was told, in the guest's metadata.
    pub notes: Notes,
}

/// A `<serial>` or `<console>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chardev {
    /// The device's `type` attribute: where its bytes are on the host.
    pub source: Source,
    /// `target@type`: `isa-serial`, `serial`, `virtio`, ...
    pub target: String,
    /// `target/model@name`: `isa-serial`, `sclpconsole`, ...; empty before libvirt has chosen one.
    pub model: String,
    /// `target@port`; `None` before libvirt has numbered it.
    pub port: Option<u16>,
    /// `alias@name`.
    pub alias: Option<String>,
    /// `log@file`: where libvirt keeps what the device says.
    pub log: Option<String>,
}

/// Where a character device's bytes are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A pty; the path is known while the guest runs.
    Pty(Option<String>),
    /// A TCP port that QEMU listens on.
    TcpListen {
        /// The address as written.
        host: String,
        /// The port.
        port: u16,
        /// `protocol@type` is `raw`.
        raw: bool,
        /// TLS is asked for (`source@tls='yes'`).
        tls: bool,
    },
    /// A unix socket that QEMU listens on.
    UnixListen(String),
    /// Anything else, by its `type`, `(connects)` added where QEMU is the client.
    Other(String),
}

/// A `<graphics>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    /// `vnc` or `spice`; others are left out of [`Domain::displays`].
    pub kind: DisplayKind,
    /// Its place among all `<graphics>`, those others included: libvirt's number for it.
    pub index: u32,
    /// Where it listens.
    pub listen: Listen,
    /// The plain port, where there is one and it is known.
    pub port: Option<u16>,
    /// SPICE's TLS port, likewise.
    pub tls_port: Option<u16>,
    /// Whether SPICE channels that every client opens are served on the TLS port alone, on the plain one alone.
    pub only: Only,
    /// `websocket` as written: -1 means "one that libvirt chooses".
    pub websocket: Option<i32>,
    /// It has a password of its own, which only an XML with passwords shows.
    pub password: bool,
}

impl Display {
    /// Where it listens on loopback, if on no other address. Of "localhost" those are the places at which QEMU may
    /// listen: the host says which addresses that has.
    pub fn local_places(&self) -> impl Iterator<Item = SocketAddr> {
        let (four, six) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        let addresses = match &self.listen {
            Listen::Address(None) => vec![four],
            Listen::Address(Some(address)) if address.is_empty() => vec![four],
            Listen::Address(Some(address)) if address == "localhost" => vec![four, six],
            Listen::Address(Some(address)) => address.parse().into_iter().filter(IpAddr::is_loopback).collect(),
            Listen::Network | Listen::Socket | Listen::Nowhere => Vec::new(),
        };
        let websocket = self.websocket.and_then(|port| u16::try_from(port).ok());
        let ports = [self.port, self.tls_port, websocket].into_iter().flatten().filter(|port| *port != 0);
        ports.flat_map(move |port| addresses.clone().into_iter().map(move |address| SocketAddr::new(address, port)))
    }
}

/// The displays that have a console of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisplayKind {
    /// `<graphics type='vnc'>`.
    Vnc,
    /// `<graphics type='spice'>`.
    Spice,
}

/// SPICE channels that are bound to one of its two ports (`defaultMode`, `<channel mode=.../>`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// There is one for the TLS port alone.
    pub tls: bool,
    /// There is one for the plain port alone.
    pub plain: bool,
}

/// Where a display listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At an address, or at libvirt's default (loopback unless qemu.conf says otherwise) while unknown.
    Address(Option<String>),
    /// At a unix socket.
    Socket,
    /// At the address of one of libvirt's networks, not known before the guest runs.
    Network,
    /// Nowhere: `<listen type='none'/>`.
    Nowhere,
}

/// This project's part of `<metadata>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a note of its own")]
pub struct Notes {
    /// `<console-proxy:settings wire='no'/>`: the guest's owner wants its definition left alone.
    pub no_wiring: bool,
    /// `<console-proxy:settings publish='no'/>`: the guest is not published at all.
    pub no_publishing: bool,
    /// `<console-proxy:settings><console-proxy:allow .../></console-proxy:settings>`: what they leave of people's
    /// rights; absent where none stands there. One that cannot be read leaves nothing.
    pub allow: Option<Vec<Allow>>,
    /// What is wrong with one of them, or with the settings around them, in words.
    pub bad_allow: Option<String>,
    /// The guest's definition carries a note of wiring.
    pub wired: bool,
    /// The VNC display has a websocket because wiring asked for one.
    pub websocket_added: bool,
}

/// Why a text is not read as a domain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadDomain {
    /// Not XML.
    #[error(transparent)]
    Xml(#[from] BadXml),
    /// XML, but the root is not libvirt's `<domain>`.
    #[error("the root element is not libvirt's <domain>")]
    NotADomain,
    /// A required element is absent, twice there, or makes no sense.
    #[error("the domain's <{0}> {1}")]
    Element(&'static str, &'static str),
    /// More devices than QEMU could have.
    #[error("the domain has {there} {what}, and guests with more than {most} are neither published nor wired")]
    TooMany {
        /// `<serial> devices`, ...
        what: &'static str,
        /// How many there are.
        there: usize,
        /// The limit.
        most: usize,
    },
}

impl Chardev {
    /// Whether wiring added it, and it still is what wiring makes: a port that QEMU listens on.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.alias.as_deref() == Some(ALIAS) && matches!(self.source, Source::TcpListen { .. })
    }

    /// Whether a `<console>` is no device of its own but a second name for the first serial port.
    #[must_use]
    pub fn is_serial_twin(&self) -> bool {
        matches!(self.target.as_str(), "" | "serial")
    }
}

impl Domain {
    /// Reads a domain's XML, live or stored.
    pub fn parse(text: &str) -> Result<Self, BadDomain> {
        Self::of(&Document::parse(text)?)
    }

    /// Reads a document that was parsed before.
    pub fn of(document: &Document<'_>) -> Result<Self, BadDomain> {
        let root = document.root();
        if !root.is("domain") {
            return Err(BadDomain::NotADomain);
        }
        let uuid = only(root, "uuid")?.parse().map_err(|_| BadDomain::Element("uuid", "is not a UUID"))?;
        let name = only(root, "name")?;
        if name.is_empty() {
            return Err(BadDomain::Element("name", "is empty"));
        }
        let notes = match (root.all("metadata").next(), root.all("metadata").nth(1)) {
            (metadata, None) => metadata.map(notes).transpose()?.unwrap_or_default(),
            (_, Some(_)) => return Err(BadDomain::Element("metadata", "is there twice")),
        };
        let machine = root.first("os").and_then(|os| os.first("type"));
        let of_machine = |key| machine.and_then(|node| node.attribute(key)).unwrap_or_default().to_owned();
        let devices = root.first("devices");
        devices.map_or(Ok(()), not_too_many)?;
        let all = |kind: &'static str| devices.into_iter().flat_map(move |devices| devices.all(kind));
        Ok(Self {
            uuid,
            name,
            arch: of_machine("arch"),
            machine: of_machine("machine"),
            serials: all("serial").map(chardev).collect(),
            consoles: all("console").map(chardev).collect(),
            displays: (0..).zip(all("graphics")).filter_map(|(index, node)| display(index, node)).collect(),
            notes,
        })
    }

    /// The consoles that are devices of their own, not a second name for a serial port.
    pub fn own_consoles(&self) -> impl Iterator<Item = &Chardev> {
        self.consoles.iter().filter(|console| !console.is_serial_twin())
    }
}

fn not_too_many(devices: Node<'_>) -> Result<(), BadDomain> {
    let of = |name| devices.all(name).count();
    for (what, there, most) in [
        ("<serial> devices", of("serial"), MOST_OF_A_KIND),
        ("<console> devices", of("console"), MOST_OF_A_KIND),
        ("<graphics> devices", of("graphics"), MOST_OF_A_KIND),
        ("devices", devices.children().count(), MOST_DEVICES),
    ] {
        if there > most {
            return Err(BadDomain::TooMany { what, there, most });
        }
    }
    Ok(())
}

fn only(root: Node<'_>, name: &'static str) -> Result<String, BadDomain> {
    let mut found = root.children().filter(|child| child.is(name));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node.text()),
        (None, _) => Err(BadDomain::Element(name, "is missing")),
        (Some(_), Some(_)) => Err(BadDomain::Element(name, "is there twice")),
    }
}

fn chardev(node: Node<'_>) -> Chardev {
    let target = node.first("target");
    Chardev {
        source: source(node),
        target: target.and_then(|t| t.attribute("type")).unwrap_or_default().to_owned(),
        model: target
            .and_then(|t| t.first("model"))
            .and_then(|model| model.attribute("name"))
            .unwrap_or_default()
            .to_owned(),
        port: target.and_then(|t| t.attribute("port")).and_then(|port| port.parse().ok()),
        alias: node.first("alias").and_then(|a| a.attribute("name")).map(str::to_owned),
        log: node.first("log").and_then(|log| log.attribute("file")).map(str::to_owned),
    }
}

fn source(node: Node<'_>) -> Source {
    let kind = node.attribute("type").unwrap_or_default();
    let source = node.first("source");
    let of_source = |key| source.and_then(|s| s.attribute(key));
    let connects = || Source::Other(format!("{kind} (connects)"));
    match kind {
        "pty" => Source::Pty(of_source("path").or_else(|| node.attribute("tty")).map(str::to_owned)),
        "tcp" if of_source("mode") == Some("bind") => {
            let port = of_source("service").and_then(|service| service.parse().ok());
            let Some(port) = port else { return Source::Other("tcp (without a port)".to_owned()) };
            Source::TcpListen {
                host: of_source("host").unwrap_or_default().to_owned(),
                port,
                raw: node.first("protocol").and_then(|p| p.attribute("type")).is_none_or(|kind| kind == "raw"),
                tls: of_source("tls") == Some("yes"),
            }
        }
        "unix" if of_source("mode") == Some("bind") => of_source("path").map_or_else(
            || Source::Other("unix (without a path)".to_owned()),
            |path| Source::UnixListen(path.to_owned()),
        ),
        "tcp" | "unix" => connects(),
        other => Source::Other(other.to_owned()),
    }
}

fn display(index: u32, node: Node<'_>) -> Option<Display> {
    let kind = match node.attribute("type")? {
        "vnc" => DisplayKind::Vnc,
        "spice" => DisplayKind::Spice,
        _ => return None,
    };
    let port = |key| node.attribute(key).and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
    let listen = node.first("listen");
    let of_listen = |key| listen.and_then(|l| l.attribute(key)).map(str::to_owned);
    let place = match listen.and_then(|l| l.attribute("type")) {
        Some("none") => Listen::Nowhere,
        Some("socket") => Listen::Socket,
        Some("network") if of_listen("address").is_none() => Listen::Network,
        None if node.attribute("socket").is_some() => Listen::Socket,
        _ => Listen::Address(of_listen("address").or_else(|| node.attribute("listen").map(str::to_owned))),
    };
    Some(Display {
        kind,
        index,
        listen: place,
        port: port("port"),
        tls_port: port("tlsPort"),
        only: bound_channels(node),
        websocket: node.attribute("websocket").and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        password: node.attribute("passwd").is_some(),
    })
}

fn bound_channels(graphics: Node<'_>) -> Only {
    let of_channel = |name| {
        let named = graphics.children().find(|node| node.is("channel") && node.attribute("name") == Some(name));
        named.and_then(|node| node.attribute("mode")).or(graphics.attribute("defaultMode"))
    };
    // Without sound, say, a client still works.
    let modes = ["main", "display", "inputs", "cursor"].map(of_channel);
    Only { tls: modes.contains(&Some("secure")), plain: modes.contains(&Some("insecure")) }
}

/// Settings that are not understood close the guest: it is left alone, or nobody is let in.
fn notes(metadata: Node<'_>) -> Result<Notes, BadDomain> {
    let mut notes = Notes::default();
    for child in metadata.children() {
        match child.namespace() {
            // libvirt drops such an element: only a file can hold one, and it was meant to say something.
            Scope::Undeclared => return Err(BadDomain::Element("metadata", "has a prefix that is declared nowhere")),
            scope if scope.is(WIRING_NAMESPACE) && child.local_name() == "wired" => {
                notes.wired = true;
                notes.websocket_added |= child.attribute("websocket") == Some("added");
            }
            scope if scope.is(NAMESPACE) && child.local_name() == "settings" => read_settings(child, &mut notes),
            scope if scope.is(NAMESPACE) => {
                left_alone(&mut notes, format!("it has an element {:?}, which is no <settings>", child.local_name()));
            }
            _ => {}
        }
    }
    Ok(notes)
}

fn read_settings(settings: Node<'_>, notes: &mut Notes) {
    for (name, value) in settings.attributes_in(NAMESPACE) {
        match name {
            // Whatever is no yes was meant as a no.
            "wire" => notes.no_wiring |= value != "yes",
            "publish" => notes.no_publishing |= value != "yes",
            other => left_alone(notes, format!("its settings have an unknown attribute {other:?}")),
        }
    }
    for child in settings.children() {
        // `virsh metadata` gives the namespace to the outermost element alone: a child without any is ours, or the
        // guest's owner would believe that a setting is made that is not.
        match child.namespace() {
            scope @ Scope::Named(_) if !scope.is(NAMESPACE) => {}
            _ if child.local_name() == "allow" => read_allow(child, notes),
            _ => not_understood(notes, format!("its settings have an unknown element {:?}", child.name())),
        }
    }
}

fn read_allow(allow: Node<'_>, notes: &mut Notes) {
    let attributes: Vec<_> = allow.attributes_in(NAMESPACE).collect();
    let twice =
        attributes.iter().enumerate().find(|(at, (name, _))| attributes[..*at].iter().any(|(was, _)| was == name));
    let read = match twice {
        Some((_, (name, _))) => Err(format!("it has the attribute {name:?} twice")),
        None => Allow::from_attributes(attributes),
    };
    match read {
        Ok(allow) => notes.allow.get_or_insert_default().push(allow),
        Err(why) => not_understood(notes, why),
    }
}

/// It may have been meant as `wire='no'` or `publish='no'`: wiring leaves the definition alone, and nobody is let in.
fn left_alone(notes: &mut Notes, why: String) {
    notes.no_wiring = true;
    not_understood(notes, why);
}

/// Nobody has more by it than by the other settings.
fn not_understood(notes: &mut Notes, why: String) {
    notes.allow.get_or_insert_default();
    notes.bad_allow = Some(why);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libvirt 9.0.0 gave it to the hook at `started`.
    const STARTED: &str = include_str!("../../tests/xml/started-libvirt-9.0.0.xml");

    #[test]
    fn a_running_guest_is_read_as_libvirt_gives_it_to_the_hook() {
        let domain = Domain::parse(STARTED).unwrap();
        assert_eq!(domain.uuid.as_str(), "b50bdc9f-490b-4b9b-8641-7573c0eba77c");
        assert_eq!(
            (domain.name.as_str(), domain.arch.as_str(), domain.machine.as_str()),
            ("g1", "x86_64", "pc-i440fx-7.2")
        );
        assert_eq!(domain.serials.len(), 1);
        assert_eq!(domain.serials[0].source, Source::Pty(Some("/dev/pts/0".into())));
        assert_eq!(domain.serials[0].port, Some(0));
        assert_eq!(domain.own_consoles().count(), 0, "the console is the serial port's twin");
        let ports: Vec<_> = domain.displays.iter().map(|d| (d.kind, d.port, d.listen.clone())).collect();
        let loopback = || Listen::Address(Some("127.0.0.1".to_owned()));
        assert_eq!(ports, [(DisplayKind::Vnc, Some(5900), loopback()), (DisplayKind::Spice, Some(5901), loopback())]);
        assert_eq!(domain.notes, Notes::default());
    }

    #[test]
    fn a_truncated_domain_is_refused_at_every_byte() {
        for cut in 0..STARTED.trim_end().len() {
            assert!(Domain::parse(&STARTED[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_domain_without_one_uuid_and_one_name_is_refused_by_name() {
        let uuid = "<uuid>b50bdc9f-490b-4b9b-8641-7573c0eba77c</uuid>";
        for (text, error) in [
            ("<domain><name>a</name></domain>".to_owned(), BadDomain::Element("uuid", "is missing")),
            (format!("<domain><name>a</name>{uuid}{uuid}</domain>"), BadDomain::Element("uuid", "is there twice")),
            (
                "<domain><name>a</name><uuid>../x</uuid></domain>".to_owned(),
                BadDomain::Element("uuid", "is not a UUID"),
            ),
            (format!("<domain>{uuid}</domain>"), BadDomain::Element("name", "is missing")),
            (format!("<domain><name> </name>{uuid}</domain>"), BadDomain::Element("name", "is empty")),
            ("<network/>".to_owned(), BadDomain::NotADomain),
            (format!("<domain xmlns='urn:x'><name>a</name>{uuid}</domain>"), BadDomain::NotADomain),
        ] {
            assert_eq!(Domain::parse(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_domain_with_more_devices_than_any_guest_has_is_refused_with_their_number() {
        let guest = |device: &str, count: usize| {
            let devices = device.repeat(count);
            Domain::parse(&format!(
                "<domain><name>a</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><devices>{devices}</devices></domain>"
            ))
        };
        for (device, what, most) in [
            ("<serial type='pty'/>", "<serial> devices", 256),
            ("<console type='pty'/>", "<console> devices", 256),
            ("<graphics type='vnc'/>", "<graphics> devices", 256),
            ("<disk/>", "devices", 8192),
        ] {
            assert!(guest(device, most).is_ok(), "{device}");
            assert_eq!(guest(device, most + 1), Err(BadDomain::TooMany { what, there: most + 1, most }));
        }
        let why = guest("<serial type='pty'/>", 3000).unwrap_err().to_string();
        assert!(why.starts_with("the domain has 3000 <serial> devices, and guests with more than 256"), "{why}");
    }

    #[test]
    fn a_name_is_text_whatever_it_holds() {
        let text =
            "<domain><name>&lt;img src=x&gt; 'q\" %n</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid></domain>";
        assert_eq!(Domain::parse(text).unwrap().name, "<img src=x> 'q\" %n");
    }

    #[test]
    fn settings_and_the_note_of_wiring_count_in_our_namespace_alone() {
        let guest = |metadata: &str| {
            let text = format!(
                "<domain><name>a</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><metadata>{metadata}</metadata></domain>"
            );
            Domain::parse(&text).unwrap().notes
        };
        assert!(guest("<x:settings xmlns:x='urn:console-proxy:1' wire='no'/>").no_wiring);
        assert!(guest("<x:settings xmlns:x='urn:console-proxy:1' publish='no'/>").no_publishing);
        assert!(guest("<wired xmlns='urn:console-proxy:wiring:1'/>").wired);
        assert!(!guest("<wired xmlns='urn:console-proxy:1'/>").wired);
        assert_eq!(guest("<x:settings xmlns:x='urn:other' wire='no'/><settings wire='no'/>"), Notes::default());
    }

    #[test]
    fn settings_count_wherever_their_namespace_is_declared() {
        let closed = ["on-metadata", "on-domain", "default-namespace", "shadowed-prefix"];
        for (case, is_closed) in closed.into_iter().map(|case| (case, true)).chain([("elsewhere", false)]) {
            let file = format!("{}/tests/xml/settings/{case}-by-hand.xml", env!("CARGO_MANIFEST_DIR"));
            let notes = Domain::parse(&std::fs::read_to_string(file).unwrap()).unwrap().notes;
            let ann = Allow::from_attributes([("users", "ann"), ("mode", "view")]).unwrap();
            let allow = is_closed.then(|| vec![ann]);
            assert_eq!((notes.no_wiring, notes.no_publishing, notes.allow), (is_closed, is_closed, allow), "{case}");
        }
    }

    #[test]
    fn settings_that_are_not_understood_close_the_guest() {
        let guest = |inside: &str| {
            let text = format!(
                "<domain><name>a</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><metadata xmlns:c='urn:console-proxy:1'>{inside}</metadata></domain>"
            );
            Domain::parse(&text).map(|domain| domain.notes)
        };
        let said = |inside: &str| {
            let notes = guest(inside).unwrap();
            (notes.no_wiring, notes.no_publishing, notes.allow.map(|all| all.len()), notes.bad_allow.is_some())
        };
        assert_eq!(said("<c:settings wire='No' publish=''/>"), (true, true, None, false));
        assert_eq!(said("<c:settings wire='yes' publish='yes'/>"), (false, false, None, false));
        assert_eq!(said("<c:settings c:wire='no'/>"), (true, false, None, false));
        assert_eq!(said("<c:settings wire='n&#111;'/>"), (true, false, None, false));
        assert_eq!(said("<c:settings wires='no'/>"), (true, false, Some(0), true));
        assert_eq!(said("<c:setting publish='no'/>"), (true, false, Some(0), true));
        assert_eq!(said("<c:settings><c:alow users='ann'/></c:settings>"), (false, false, Some(0), true));
        assert_eq!(said("<c:settings><u:allow users='ann'/></c:settings>"), (false, false, Some(1), false));
        assert_eq!(
            said("<c:settings><c:allow users='ann' c:users='bob'/></c:settings>"),
            (false, false, Some(0), true)
        );
        assert_eq!(
            said("<c:settings><c:allow users='ann' u:mode='view'/></c:settings>"),
            (false, false, Some(0), true)
        );
        assert_eq!(said("<c:settings wire='yes'/><c:settings wire='no'/>"), (true, false, None, false));
        assert_eq!(
            said("<c:settings><!-- <c:allow/> --><![CDATA[<c:allow/>]]></c:settings>"),
            (false, false, None, false)
        );
        let twice = format!("<c:settings/></metadata><metadata>{}", "<x xmlns='urn:console-proxy:1'/>");
        assert_eq!(guest(&twice), Err(BadDomain::Element("metadata", "is there twice")));
        let undeclared = BadDomain::Element("metadata", "has a prefix that is declared nowhere");
        assert_eq!(guest("<u:settings wire='no'/>"), Err(undeclared));
    }

    #[test]
    fn what_a_guest_allows_is_read_and_a_slip_in_it_allows_nothing() {
        let guest = |inside: &str| {
            let text = format!(
                "<domain><name>a</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><metadata><c:settings xmlns:c='urn:console-proxy:1'>{inside}</c:settings></metadata></domain>"
            );
            let notes = Domain::parse(&text).unwrap().notes;
            (notes.allow, notes.bad_allow.is_some())
        };
        let ann = || Allow::from_attributes([("users", "ann"), ("mode", "view")]).unwrap();
        assert_eq!(guest(""), (None, false));
        assert_eq!(guest("<c:allow users='ann' mode='view'/>"), (Some(vec![ann()]), false));
        assert_eq!(guest("<allow xmlns='urn:console-proxy:1' users='ann' mode='view'/>").0, Some(vec![ann()]));
        assert_eq!(guest("<c:allow users='ann' mode='write'/>"), (Some(vec![]), true));
        assert_eq!(guest("<c:allow usr='bob'/><c:allow users='ann' mode='view'/>"), (Some(vec![ann()]), true));
        assert_eq!(guest("<allow users='ann' mode='view'/>").0, Some(vec![ann()]), "as virsh metadata leaves it");
        assert_eq!(guest("<x:allow xmlns:x='urn:other' users='ann'/>"), (None, false));
    }

    #[test]
    fn where_a_serial_port_is_follows_its_type_and_mode() {
        let serial = |xml: &str| {
            let text = format!(
                "<domain><name>a</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><devices>{xml}</devices></domain>"
            );
            Domain::parse(&text).unwrap().serials[0].source.clone()
        };
        let tcp = |raw, tls| Source::TcpListen { host: "127.0.0.1".into(), port: 28000, raw, tls };
        for (xml, source) in [
            (
                "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='28000' tls='no'/><protocol type='raw'/></serial>",
                tcp(true, false),
            ),
            ("<serial type='tcp'><source mode='bind' host='127.0.0.1' service='28000'/></serial>", tcp(true, false)),
            (
                "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='28000' tls='yes'/><protocol type='telnet'/></serial>",
                tcp(false, true),
            ),
            (
                "<serial type='tcp'><source mode='connect' host='127.0.0.1' service='28000'/></serial>",
                Source::Other("tcp (connects)".into()),
            ),
            ("<serial type='unix'><source mode='bind' path='/run/a'/></serial>", Source::UnixListen("/run/a".into())),
            ("<serial type='pty'/>", Source::Pty(None)),
            ("<serial type='file'><source path='/x'/></serial>", Source::Other("file".into())),
        ] {
            assert_eq!(serial(xml), source, "{xml}");
        }
    }
}
