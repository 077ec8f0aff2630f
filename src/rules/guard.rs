//! The guard: which places on loopback are root's alone. Pure; `edges::nft` puts it into the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::config::Config;
use super::guest::Uuid;
use super::ports::PortRange;
use super::route::{Backend, Route};

/// What the table in the kernel should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The range of serial ports, whether a guest has them or not.
    pub serial: PortRange,
    /// Where running guests' QEMUs listen, all on loopback: serial ports of the range, websockets that wiring asked for,
    /// and with `guard.displays` displays' own ports. The same port of another address is somebody else's.
    pub places: BTreeSet<SocketAddr>,
}

/// The guard for a configuration and the guests that are published.
#[must_use]
pub fn guard(config: &Config, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let mut guard = without_displays(config.serial.ports, routes);
    if config.guard.displays {
        guard.places.extend(displays(routes));
    }
    guard
}

/// The guard while the configuration is refused: nothing that is guarded is opened, and displays that were open stay
/// so. `there` is what the kernel has; where it has nothing, whatever may be root's alone is.
#[must_use]
pub fn guard_as_it_is(there: Option<&Guard>, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let serial = there.map_or_else(|| Config::default().serial.ports, |there| there.serial);
    let mut guard = without_displays(serial, routes);
    guard.places.extend(displays(routes).filter(|place| there.is_none_or(|there| there.places.contains(place))));
    guard
}

fn without_displays(serial: PortRange, routes: &BTreeMap<Uuid, Route>) -> Guard {
    Guard { serial, places: routes.values().flat_map(|route| consoles(serial, route)).collect() }
}

/// What wiring made of a guest's consoles. That it did is a note in the guest's metadata, which its owner can write as
/// well: it counts for what the guest's QEMU was seen to listen at.
fn consoles(serial: PortRange, route: &Route) -> BTreeSet<SocketAddr> {
    let tcp = |backend: &Option<Backend>| {
        let backend = backend.as_ref().filter(|backend| matches!(route.held(backend), Ok(Some(_))))?;
        if let Backend::Tcp(ip, port) = backend { Some(SocketAddr::new(*ip, *port)) } else { None }
    };
    let mut places = BTreeSet::new();
    for way in &route.consoles {
        if let Some(place) = tcp(&way.websocket).filter(|_| way.guarded) {
            places.insert(place);
            // QEMU listens at each of the addresses that "localhost" has.
            places.extend(route.displays.iter().filter(|display| display.port() == place.port()));
        }
        let in_range = |place: &SocketAddr| way.console.is_text() && serial.contains(place.port());
        places.extend(tcp(&way.raw).filter(in_range));
    }
    places
}

fn displays(routes: &BTreeMap<Uuid, Route>) -> impl Iterator<Item = SocketAddr> {
    routes.values().flat_map(|route| route.displays.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::config;

    fn places(of: &[&str]) -> BTreeSet<SocketAddr> {
        of.iter().map(|place| place.parse().unwrap()).collect()
    }

    fn routes(more: &str) -> BTreeMap<Uuid, Route> {
        let text = format!("version=1\nuuid=\"b50bdc9f-490b-4b9b-8641-7573c0eba77c\"\nname=\"g\"\nport=23000\n{more}");
        let route = Route::parse(&text).unwrap();
        BTreeMap::from([(route.uuid.clone(), route)])
    }

    /// QEMU as the owner of these backends.
    fn owner(backends: &[&str]) -> String {
        let holds = backends.iter().map(|backend| format!("\"{backend}\"={{socket=7}}\n"));
        format!("[owner]\npid=7\nstarted=7\n[owner.holds]\n{}", holds.collect::<String>())
    }

    fn way(console: &str, more: &str) -> String {
        format!("[[consoles]]\nconsole=\"{console}\"\n{more}\n")
    }

    #[test]
    fn ports_that_wiring_made_are_roots_and_an_owners_own_are_not() {
        let all = ["tcp:127.0.0.1:5900", "tcp:127.0.0.1:5700", "tcp:[::1]:28003", "tcp:127.0.0.1:4555"];
        for (consoles, expected) in [
            (
                way("vnc", "raw=\"tcp:127.0.0.1:5900\"\nwebsocket=\"tcp:127.0.0.1:5700\"\nguarded=true"),
                &["127.0.0.1:5700"][..],
            ),
            (way("vnc", "raw=\"tcp:127.0.0.1:5900\"\nwebsocket=\"tcp:127.0.0.1:5700\""), &[]),
            (way("serial/0", "raw=\"tcp:[::1]:28003\""), &["[::1]:28003"]),
            (way("serial/0", "raw=\"tcp:127.0.0.1:4555\""), &[]),
            (way("serial/0", "raw=\"pty:/dev/pts/3\""), &[]),
        ] {
            let guard = guard(&Config::default(), &routes(&format!("{}{consoles}", owner(&all))));
            assert_eq!(guard.places, places(expected), "{consoles}");
            assert_eq!(guard.serial, PortRange::new(28000, 28999));
        }
    }

    #[test]
    fn what_an_owner_notes_of_a_port_that_the_guests_qemu_does_not_hold_guards_nothing() {
        let noted = way("vnc", "websocket=\"tcp:127.0.0.1:8123\"\nguarded=true")
            + &way("serial/0", "raw=\"tcp:127.0.0.1:28003\"");
        for owner in [String::new(), owner(&[]), owner(&["tcp:[::1]:8123", "tcp:127.0.0.2:8123", "tcp:127.0.0.1:5900"])]
        {
            assert_eq!(guard(&Config::default(), &routes(&format!("{owner}{noted}"))).places, places(&[]), "{owner}");
        }
    }

    #[test]
    fn a_websocket_that_wiring_made_is_guarded_at_each_address_where_its_display_listens() {
        let consoles = way("vnc", "websocket=\"tcp:127.0.0.1:5700\"\nguarded=true");
        let displays = "displays=[\"127.0.0.1:5900\", \"[::1]:5900\", \"127.0.0.1:5700\", \"[::1]:5700\"]\n";
        let routes = routes(&format!("{displays}{}{consoles}", owner(&["tcp:127.0.0.1:5700"])));
        assert_eq!(guard(&Config::default(), &routes).places, places(&["127.0.0.1:5700", "[::1]:5700"]));
    }

    const DISPLAYS: &str =
        "displays=[\"127.0.0.1:5900\", \"[::1]:5700\"]\n[[consoles]]\nconsole=\"vnc\"\nraw=\"tcp:127.0.0.1:5900\"\n";

    #[test]
    fn displays_are_roots_where_the_configuration_says_so_and_all_of_their_ports() {
        let config = |displays| Config { guard: config::Guard { displays }, ..Config::default() };
        assert_eq!(guard(&config(false), &routes(DISPLAYS)).places, places(&[]));
        assert_eq!(guard(&config(true), &routes(DISPLAYS)).places, places(&["[::1]:5700", "127.0.0.1:5900"]));
        assert_eq!(guard(&config(true), &BTreeMap::new()).places, places(&[]), "with the guest its ports go");
    }

    #[test]
    fn a_configuration_that_is_refused_opens_no_display_and_shuts_none() {
        let serial = PortRange::new(29000, 29999);
        let there = |of: &[&str]| Guard { serial, places: places(of) };
        let both = &["[::1]:5700", "127.0.0.1:5900"][..];
        for (in_kernel, expected) in [
            (Some(there(both)), there(both)),
            (Some(there(&[])), there(&[])),
            // Of a guest that has gone, and of another address.
            (Some(there(&["127.0.0.1:5900", "127.0.0.1:5700", "127.0.0.1:5999"])), there(&["127.0.0.1:5900"])),
            (None, Guard { serial: Config::default().serial.ports, places: places(both) }),
        ] {
            assert_eq!(guard_as_it_is(in_kernel.as_ref(), &routes(DISPLAYS)), expected, "{in_kernel:?}");
        }
    }
}
