//! How each console of a running guest is reached: one pure function, one table of tests.

use std::net::IpAddr;

use super::config::{Config, SpiceWebsocket, VncWebsocket};
use super::domain::{Chardev, Display, DisplayKind, Domain, Listen, Source};
use super::guest::Console;
use super::log;
use super::ports::Slot;
use super::route::{Auth, Backend, Route, Unreachable, VERSION, Way, pts_number};

/// How this host's displays speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// VNC.
    pub vnc: VncTls,
    /// The certificates (PEM) for SPICE's TLS ports, the server's own among them, or why there are none.
    pub spice: Result<String, String>,
}

/// What QEMU's `vnc_tls` setting means for displays: the host's, from libvirt's qemu.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VncTls {
    /// Plain.
    #[default]
    Off,
    /// TLS with a server certificate; the certificates (PEM) that its chain must end in.
    Server(String),
    /// On, but it cannot be spoken from here; the reason.
    Unusable(String),
}

/// The route of a running guest, from the XML that libvirt gives the hook at `started`.
///
/// A loopback port of this project's own range is published only if it is that of the guest's slot:
/// a copied definition carries another guest's.
#[must_use]
pub fn route(domain: &Domain, slot: Slot, config: &Config, tls: &Tls, now: u64) -> Option<Route> {
    let (port, serial_port) = config.ports(slot)?;
    let mut route = Route {
        version: VERSION,
        uuid: domain.uuid.clone(),
        name: domain.name.clone(),
        port,
        since: now,
        auth: Auth::Ticket,
        allow: domain.notes.allow.clone(),
        displays: domain.displays.iter().flat_map(Display::local_places).collect(),
        owner: None,
        consoles: Vec::new(),
        unreachable: Vec::new(),
    };
    for display in &domain.displays {
        match display.kind {
            DisplayKind::Vnc => add(&mut route, Console::Vnc, vnc(display, config, &tls.vnc)),
            DisplayKind::Spice => add(&mut route, Console::Spice, spice(display, config, &tls.spice)),
        }
    }
    let serials = domain.serials.iter().map(|serial| (Console::Serial(serial.port.unwrap_or(0)), serial));
    let others = domain.own_consoles().map(|other| (Console::Console(other.port.unwrap_or(0)), other));
    for (console, device) in serials.chain(others) {
        let known = route.consoles.len();
        add(&mut route, console, chardev(device, config, serial_port));
        for way in &mut route.consoles[known..] {
            way.log = device.log.clone().filter(|path| log::may_be_shown(path, &domain.uuid));
            way.added = device.is_ours();
        }
    }
    for way in &mut route.consoles {
        way.guarded = way.console == Console::Vnc && way.websocket.is_some() && domain.notes.websocket_added;
    }
    Some(route)
}

/// The raw stream, the websocket, and the certificates for both where they speak TLS.
type Found = Result<(Option<Backend>, Option<Backend>, Option<String>), String>;

fn add(route: &mut Route, console: Console, found: Found) {
    let known = route.consoles.iter().any(|way| way.console == console)
        || route.unreachable.iter().any(|u| u.console == console);
    if known {
        return;
    }
    match found {
        Ok((raw, websocket, ca)) => {
            let of = |part: &Option<Backend>| part.as_ref().and(ca.clone());
            let (raw_ca, websocket_ca) = (of(&raw), of(&websocket));
            route.consoles.push(Way {
                console,
                raw,
                websocket,
                websocket_ca,
                raw_ca,
                guarded: false,
                log: None,
                added: false,
            });
        }
        Err(reason) => route.unreachable.push(Unreachable { console, reason }),
    }
}

fn vnc(display: &Display, config: &Config, tls: &VncTls) -> Found {
    let address = match &display.listen {
        Listen::Nowhere | Listen::Socket => return vnc_without_port(display, tls),
        Listen::Network => return Err("the address of the network that it listens on is not known".to_owned()),
        Listen::Address(address) => loopback(address.as_deref())?,
    };
    let websocket = match config.vnc.websocket {
        VncWebsocket::Bridge => None,
        VncWebsocket::Use | VncWebsocket::Add => display.websocket.and_then(|port| u16::try_from(port).ok()),
    };
    let websocket = websocket.map(|port| Backend::Tcp(address, port));
    let raw = display.port.map(|port| Backend::Tcp(address, port));
    match tls {
        VncTls::Off if raw.is_none() && websocket.is_none() => Err("it has no port".to_owned()),
        VncTls::Off => Ok((raw, websocket, None)),
        VncTls::Unusable(why) => Err(why.clone()),
        // The raw port speaks VeNCrypt then, which no HTML5 client does: only the websocket is of use.
        VncTls::Server(_) if websocket.is_none() => {
            Err("vnc_tls is on in qemu.conf and the display has no websocket: set vnc.websocket = \"add\"".to_owned())
        }
        VncTls::Server(ca) => Ok((None, websocket, Some(ca.clone()))),
    }
}

/// A SPICE client opens all of its channels on one path, so one of the two ports has to serve them all: the TLS port
/// where a channel is bound to it, or where there is no other, and otherwise the plain one, which is on loopback.
fn spice(display: &Display, config: &Config, ca: &Result<String, String>) -> Found {
    let address = match &display.listen {
        // libvirt hands the guest's end to spice-server as a connection without TLS.
        Listen::Nowhere | Listen::Socket if display.only.tls => {
            return Err("its channels are secure, and without a port it cannot speak TLS".to_owned());
        }
        Listen::Nowhere | Listen::Socket => return Ok((Some(Backend::Display(display.index)), None, None)),
        Listen::Network => return Err("the address of the network that it listens on is not known".to_owned()),
        Listen::Address(address) => loopback(address.as_deref())?,
    };
    let only = display.only;
    if only.tls && only.plain {
        return Err("some of its channels are secure and others insecure: give them all one mode".to_owned());
    }
    let (plain, tls) = (display.port.filter(|_| !only.tls), display.tls_port.filter(|_| !only.plain));
    let (port, ca) = match (plain, tls) {
        (Some(port), _) => (port, None),
        (None, Some(port)) => (port, Some(ca.clone().map_err(|why| format!("it speaks TLS, and {why}"))?)),
        (None, None) if only.tls => return Err("its channels are secure and it has no TLS port".to_owned()),
        (None, None) if only.plain => return Err("its channels are insecure and it has no plain port".to_owned()),
        (None, None) => return Err("it has no port".to_owned()),
    };
    let raw = Backend::Tcp(address, port);
    let websocket = (config.spice.websocket == SpiceWebsocket::Use).then(|| raw.clone());
    Ok((Some(raw), websocket, ca))
}

/// A display that listens nowhere, or at a unix socket: libvirt knows which one is this guest's, whoever else has its
/// path by now.
fn vnc_without_port(display: &Display, tls: &VncTls) -> Found {
    match tls {
        VncTls::Off => Ok((Some(Backend::Display(display.index)), None, None)),
        VncTls::Unusable(_) | VncTls::Server(_) => Err(
            "vnc_tls is on in qemu.conf, and a display without a port has no websocket: no HTML5 client speaks its TLS"
                .to_owned(),
        ),
    }
}

fn chardev(device: &Chardev, config: &Config, own_port: u16) -> Found {
    let raw = match &device.source {
        Source::Pty(Some(path)) => {
            Backend::Pty(pts_number(path).ok_or_else(|| format!("its pty {path:?} is not /dev/pts/N"))?)
        }
        Source::Pty(None) => return Err("its pty is not known".to_owned()),
        Source::TcpListen { raw: false, .. } => return Err("its protocol is telnet, not raw".to_owned()),
        Source::TcpListen { tls: true, .. } => return Err("it speaks TLS (tls='yes' in its source)".to_owned()),
        Source::TcpListen { host, port, .. } => {
            if config.serial.ports.contains(*port) && *port != own_port {
                return Err(format!(
                    "it has port {port}, this guest's own is {own_port}: a copied definition; `console-proxy wire --all`, then restart the guest"
                ));
            }
            Backend::Tcp(loopback(Some(host))?, *port)
        }
        Source::UnixListen(path) => {
            format!("unix:{path}").parse().map_err(|why: super::route::BadBackend| why.to_string())?
        }
        Source::Other(kind) => return Err(format!("its type is {kind}: nothing on this host to connect to")),
    };
    Ok((Some(raw), None, None))
}

/// The loopback address at which something that listens at `address` answers.
fn loopback(address: Option<&str>) -> Result<IpAddr, String> {
    let ip: IpAddr = match address {
        None | Some("" | "localhost" | "0.0.0.0") => IpAddr::from([127, 0, 0, 1]),
        Some("::") => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        Some(text) => text.parse().map_err(|_| format!("it listens at {text:?}, which is no address"))?,
    };
    if ip.is_loopback() {
        Ok(ip)
    } else {
        Err(format!("it listens at {ip} alone, and proxies reach loopback addresses only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::route::Reached;

    /// No TLS for VNC, and an authority for SPICE.
    fn tls() -> Tls {
        Tls { vnc: VncTls::Off, spice: Ok("SPICE".into()) }
    }

    fn reach(devices: &str, config: &Config, tls: &Tls) -> Route {
        let text = format!(
            "<domain><name>g</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><devices>{devices}</devices></domain>"
        );
        route(&Domain::parse(&text).unwrap(), 4, config, tls, 0).unwrap()
    }

    /// `console=how[backend]` for what is reached, `console!` for what is not.
    fn table(route: &Route) -> String {
        let reached = route.consoles.iter().map(|way| {
            let how = match way.reached() {
                Reached::Native => "native",
                Reached::Bridged => "bridged",
                Reached::Pty => "pty",
            };
            format!("{}={how}[{}]", way.console, way.backend().unwrap())
        });
        reached.chain(route.unreachable.iter().map(|u| format!("{}!", u.console))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_kind_of_device_is_reached_in_its_own_way() {
        let address = |a: &str| format!("<listen type='address' address='{a}'/>");
        let vnc = |attributes: &str, listen: &str| format!("<graphics type='vnc' {attributes}>{listen}</graphics>");
        let tcp = |port: u16| {
            format!(
                "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/><target port='1'/></serial>"
            )
        };
        for (devices, expected) in [
            (vnc("port='5900'", &address("127.0.0.1")), "vnc=bridged[tcp:127.0.0.1:5900]"),
            (vnc("port='5900' websocket='5700'", &address("127.0.0.1")), "vnc=native[tcp:127.0.0.1:5700]"),
            (vnc("port='5900'", &address("0.0.0.0")), "vnc=bridged[tcp:127.0.0.1:5900]"),
            (vnc("port='5900'", &address("::")), "vnc=bridged[tcp:[::1]:5900]"),
            (vnc("port='5900'", &address("::1")), "vnc=bridged[tcp:[::1]:5900]"),
            (vnc("port='5900'", &address("192.0.2.1")), "vnc!"),
            (vnc("port='-1' websocket='-1'", &address("127.0.0.1")), "vnc!"),
            (vnc("", "<listen type='none'/>"), "vnc=bridged[display:0]"),
            (vnc("websocket='5700'", "<listen type='none'/>"), "vnc=bridged[display:0]"),
            (vnc("", "<listen type='socket' socket='/run/v'/>"), "vnc=bridged[display:0]"),
            ("<graphics type='vnc' socket='/run/v'/>".into(), "vnc=bridged[display:0]"),
            // libvirt counts those that have no console here, too.
            ("<graphics type='sdl'/><graphics type='spice'><listen type='none'/></graphics><graphics type='vnc'><listen type='socket'/></graphics>".into(), "spice=bridged[display:1] vnc=bridged[display:2]"),
            ("<graphics type='spice' defaultMode='secure'><listen type='none'/></graphics>".into(), "spice!"),
            ("<graphics type='spice' port='5901'/>".into(), "spice=native[tcp:127.0.0.1:5901]"),
            ("<graphics type='spice' autoport='yes'/>".into(), "spice!"),
            ("<graphics type='spice'><listen type='socket' socket='/run/s'/></graphics>".into(), "spice=bridged[display:0]"),
            ("<graphics type='sdl'/>".into(), ""),
            ("<serial type='pty'><source path='/dev/pts/3'/><target port='0'/></serial>".into(), "serial/0=pty[pty:/dev/pts/3]"),
            ("<serial type='pty'><source path='/dev/tty1'/><target port='0'/></serial>".into(), "serial/0!"),
            (tcp(28004), "serial/1=bridged[tcp:127.0.0.1:28004]"),
            (tcp(28005), "serial/1!"),
            (tcp(4555), "serial/1=bridged[tcp:127.0.0.1:4555]"),
            ("<serial type='file'><target port='2'/></serial>".into(), "serial/2!"),
            ("<console type='pty'><source path='/dev/pts/9'/><target type='virtio' port='1'/></console>".into(), "console/1=pty[pty:/dev/pts/9]"),
            ("<serial type='pty'><source path='/dev/pts/3'/><target port='0'/></serial><console type='pty'><source path='/dev/pts/3'/><target type='serial' port='0'/></console>".into(), "serial/0=pty[pty:/dev/pts/3]"),
        ] {
            assert_eq!(table(&reach(&devices, &Config::default(), &tls())), expected, "{devices}");
        }
    }

    #[test]
    fn configuration_and_tls_decide_between_native_and_bridged() {
        let both = "<graphics type='vnc' port='5900' websocket='5700'/><graphics type='spice' port='5901'/>";
        let with = |text: &str| Config::parse([("t", text)]).unwrap();
        let off = tls();
        assert_eq!(
            table(&reach(both, &with("[vnc]\nwebsocket=\"bridge\""), &off)),
            "vnc=bridged[tcp:127.0.0.1:5900] spice=native[tcp:127.0.0.1:5901]"
        );
        assert_eq!(
            table(&reach(both, &with("[spice]\nwebsocket=\"bridge\""), &off)),
            "vnc=native[tcp:127.0.0.1:5700] spice=bridged[tcp:127.0.0.1:5901]"
        );
        let server = Tls { vnc: VncTls::Server("PEM".into()), ..tls() };
        let route = reach(both, &Config::default(), &server);
        assert_eq!(table(&route), "vnc=native[tcp:127.0.0.1:5700] spice=native[tcp:127.0.0.1:5901]");
        assert_eq!(route.consoles[0].raw, None, "the raw port speaks VeNCrypt");
        assert_eq!(route.consoles[0].websocket_ca.as_deref(), Some("PEM"));
        for devices in ["<graphics type='vnc' port='5900'/>", "<graphics type='vnc'><listen type='none'/></graphics>"] {
            assert!(table(&reach(devices, &Config::default(), &server)).contains("vnc!"), "{devices}");
        }
    }

    #[test]
    fn running_guests_with_spice_within_tls_are_reached_there() {
        let secure = include_str!("../../tests/xml/started-spice-tls-libvirt-9.0.0.xml");
        let two_channels = include_str!("../../tests/xml/started-spice-channels-libvirt-9.0.0.xml");
        for (xml, port) in [(secure, 5900), (two_channels, 5902)] {
            let route = route(&Domain::parse(xml).unwrap(), 4, &Config::default(), &tls(), 0).unwrap();
            let way = route.way(Console::Spice).unwrap();
            let place = Some(Backend::Tcp([127, 0, 0, 1].into(), port));
            assert_eq!((&way.raw, &way.websocket), (&place, &place));
            assert_eq!((way.raw_ca.as_deref(), way.websocket_ca.as_deref()), (Some("SPICE"), Some("SPICE")));
        }
    }

    #[test]
    fn spice_is_served_on_the_port_that_takes_all_of_its_channels() {
        let graphics =
            |attributes: &str, channels: &str| format!("<graphics type='spice' {attributes}>{channels}</graphics>");
        let channel = |name: &str, mode: &str| format!("<channel name='{name}' mode='{mode}'/>");
        let both = "port='5901' tlsPort='5902'";
        for (attributes, channels, expected) in [
            ("port='5901'", String::new(), "5901 plain"),
            ("tlsPort='5902'", String::new(), "5902 tls"),
            ("port='-1' tlsPort='5902' defaultMode='secure'", String::new(), "5902 tls"),
            (both, String::new(), "5901 plain"),
            (&format!("{both} defaultMode='any'"), String::new(), "5901 plain"),
            (&format!("{both} defaultMode='secure'"), String::new(), "5902 tls"),
            (&format!("{both} defaultMode='insecure'"), String::new(), "5901 plain"),
            (both, channel("main", "secure"), "5902 tls"),
            (both, channel("inputs", "insecure"), "5901 plain"),
            (both, channel("playback", "secure"), "5901 plain"),
            (both, channel("main", "secure") + &channel("cursor", "insecure"), "some of its channels"),
            (&format!("{both} defaultMode='secure'"), channel("display", "insecure"), "some of its channels"),
            (&format!("{both} defaultMode='insecure'"), channel("display", "secure"), "some of its channels"),
            ("port='5901'", channel("main", "secure"), "its channels are secure and it has no TLS port"),
            ("tlsPort='5902'", channel("main", "insecure"), "its channels are insecure and it has no plain port"),
            ("", String::new(), "it has no port"),
        ] {
            let route = reach(&graphics(attributes, &channels), &Config::default(), &tls());
            let found = match route.way(Console::Spice) {
                Some(way) => {
                    let how = if way.raw_ca.is_some() { "tls" } else { "plain" };
                    assert_eq!((&way.raw, &way.raw_ca), (&way.websocket, &way.websocket_ca), "{attributes}");
                    assert_eq!(way.raw_ca.as_deref().unwrap_or("SPICE"), "SPICE");
                    format!("{} {how}", way.raw.as_ref().unwrap().to_string().rsplit(':').next().unwrap())
                }
                None => route.unreachable[0].reason.clone(),
            };
            assert!(found.starts_with(expected), "{attributes} {channels}: {found}");
        }
        let no_ca = Tls { spice: Err("/x/ca-cert.pem does not exist".into()), ..tls() };
        let route = reach(&graphics("tlsPort='5902'", ""), &Config::default(), &no_ca);
        assert_eq!(route.unreachable[0].reason, "it speaks TLS, and /x/ca-cert.pem does not exist");
        assert!(reach(&graphics(both, ""), &Config::default(), &no_ca).unreachable.is_empty(), "it is not needed here");
    }

    #[test]
    fn a_websocket_that_wiring_asked_for_is_guarded_and_another_is_not() {
        let guest = |note: &str| {
            let text = format!(
                "<domain><name>g</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><metadata>{note}</metadata>\
                 <devices><graphics type='vnc' port='5900' websocket='5700'/></devices></domain>"
            );
            route(&Domain::parse(&text).unwrap(), 4, &Config::default(), &tls(), 0).unwrap().consoles[0].guarded
        };
        let namespace = crate::rules::domain::WIRING_NAMESPACE;
        assert!(guest(&format!("<c:wired xmlns:c='{namespace}' websocket='added'/>")));
        assert!(!guest(&format!("<c:wired xmlns:c='{namespace}'/>")));
        assert!(!guest(""));
    }

    #[test]
    fn all_ports_of_displays_on_loopback_are_known_and_of_others_none() {
        for (graphics, expected) in [
            (
                "<graphics type='vnc' port='5900' websocket='5700' listen='127.0.0.1'/>",
                vec!["127.0.0.1:5900", "127.0.0.1:5700"],
            ),
            ("<graphics type='spice' port='5901' tlsPort='5902' listen='::1'/>", vec!["[::1]:5901", "[::1]:5902"]),
            ("<graphics type='vnc' port='5900' listen='localhost'/>", vec!["127.0.0.1:5900", "[::1]:5900"]),
            ("<graphics type='vnc' port='5900' listen='127.0.0.2'/>", vec!["127.0.0.2:5900"]),
            (
                "<graphics type='vnc' port='5900'/><graphics type='vnc' port='5905'/>",
                vec!["127.0.0.1:5900", "127.0.0.1:5905"],
            ),
            ("<graphics type='vnc' port='-1' websocket='-1' listen='localhost'/>", vec![]),
            ("<graphics type='vnc' port='5900' websocket='5700' listen='0.0.0.0'/>", vec![]),
            ("<graphics type='vnc' port='5900' listen='192.0.2.1'/>", vec![]),
            ("<graphics type='vnc' port='5900'><listen type='network' network='default'/></graphics>", vec![]),
            ("<graphics type='vnc' port='5900'><listen type='none'/></graphics>", vec![]),
        ] {
            let displays = reach(graphics, &Config::default(), &tls()).displays;
            assert_eq!(displays.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{graphics}");
        }
    }

    #[test]
    fn the_port_that_wiring_added_is_known_as_such() {
        let serial = |port: u16, alias: &str| {
            format!(
                "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='28004'/><protocol type='raw'/>\
                 <target port='{port}'/><alias name='{alias}'/></serial>"
            )
        };
        let devices = serial(0, "serial0") + &serial(1, crate::rules::domain::ALIAS);
        let route = reach(&devices, &Config::default(), &tls());
        assert_eq!(route.consoles.iter().map(|way| way.added).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_log_of_the_definition_is_the_consoles_where_its_name_holds_the_guests_uuid() {
        let own = log::our_log(&"b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap(), 0);
        let log_of = |file: &str| {
            let device = format!("<serial type='pty'><source path='/dev/pts/1'/><log file='{file}'/></serial>");
            reach(&device, &Config::default(), &tls()).consoles[0].log.clone()
        };
        assert_eq!(log_of(&own), Some(own.clone()));
        assert_eq!(log_of(&own.replace("b50b", "b50c")), None);
        assert_eq!(log_of("/var/log/auth.log"), None);
    }

    #[test]
    fn a_slot_outside_the_ranges_has_no_route() {
        let domain =
            Domain::parse("<domain><name>g</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid></domain>").unwrap();
        assert!(route(&domain, 1000, &Config::default(), &tls(), 0).is_none());
    }
}
