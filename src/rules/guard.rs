//! The guard: which ports on loopback are root's alone. Pure; `edges::nft` puts it into the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::guest::Uuid;
use super::ports::PortRange;
use super::route::{Backend, Route};

/// What the table in the kernel should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The range of serial ports, whether a guest has them or not.
    pub serial: PortRange,
    /// Ports that running guests' consoles listen on: serial ports of the range, websockets that wiring asked QEMU for,
    /// and with `guard.displays` displays' own ports.
    pub ports: BTreeSet<u16>,
}

/// The guard for a configuration and the guests that are published.
#[must_use]
pub fn guard(config: &Config, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let mut guard = without_displays(config.serial.ports, routes);
    if config.guard.displays {
        guard.ports.extend(displays(routes));
    }
    guard
}

/// The guard while the configuration is refused: nothing that is guarded is opened, and displays that were open stay
/// so. `there` is what the kernel has; where it has nothing, whatever may be root's alone is.
#[must_use]
pub fn guard_as_it_is(there: Option<&Guard>, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let serial = there.map_or_else(|| Config::default().serial.ports, |there| there.serial);
    let mut guard = without_displays(serial, routes);
    guard.ports.extend(displays(routes).filter(|port| there.is_none_or(|there| there.ports.contains(port))));
    guard
}

fn without_displays(serial: PortRange, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let ways = routes.values().flat_map(|route| &route.consoles);
    let tcp = |backend: &Option<Backend>| match backend {
        Some(Backend::Tcp(_, port)) => Some(*port),
        _ => None,
    };
    let ports = ways.flat_map(|way| {
        let websocket = tcp(&way.websocket).filter(|_| way.guarded);
        let raw = tcp(&way.raw).filter(|port| way.console.is_text() && serial.contains(*port));
        websocket.into_iter().chain(raw)
    });
    Guard { serial, ports: ports.collect() }
}

fn displays(routes: &BTreeMap<Uuid, Route>) -> impl Iterator<Item = u16> {
    routes.values().flat_map(|route| route.displays.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::config;

    fn routes(consoles: &str) -> BTreeMap<Uuid, Route> {
        let text =
            format!("version=1\nuuid=\"b50bdc9f-490b-4b9b-8641-7573c0eba77c\"\nname=\"g\"\nport=23000\n{consoles}");
        let route = Route::parse(&text).unwrap();
        BTreeMap::from([(route.uuid.clone(), route)])
    }

    #[test]
    fn ports_that_wiring_made_are_roots_and_an_owners_own_are_not() {
        let way = |console: &str, more: &str| format!("[[consoles]]\nconsole=\"{console}\"\n{more}\n");
        for (consoles, expected) in [
            (way("vnc", "raw=\"tcp:127.0.0.1:5900\"\nwebsocket=\"tcp:127.0.0.1:5700\"\nguarded=true"), vec![5700]),
            (way("vnc", "raw=\"tcp:127.0.0.1:5900\"\nwebsocket=\"tcp:127.0.0.1:5700\""), vec![]),
            (way("serial/0", "raw=\"tcp:127.0.0.1:28003\""), vec![28003]),
            (way("serial/0", "raw=\"tcp:127.0.0.1:4555\""), vec![]),
            (way("serial/0", "raw=\"pty:/dev/pts/3\""), vec![]),
        ] {
            let guard = guard(&Config::default(), &routes(&consoles));
            assert_eq!(guard.ports.iter().copied().collect::<Vec<_>>(), expected, "{consoles}");
            assert_eq!(guard.serial, PortRange::new(28000, 28999));
        }
    }

    const DISPLAYS: &str = "displays=[5900, 5700]\n[[consoles]]\nconsole=\"vnc\"\nraw=\"tcp:127.0.0.1:5900\"\n";

    #[test]
    fn displays_are_roots_where_the_configuration_says_so_and_all_of_their_ports() {
        let config = |displays| Config { guard: config::Guard { displays }, ..Config::default() };
        assert_eq!(guard(&config(false), &routes(DISPLAYS)).ports, BTreeSet::new());
        assert_eq!(guard(&config(true), &routes(DISPLAYS)).ports, BTreeSet::from([5700, 5900]));
        assert_eq!(guard(&config(true), &BTreeMap::new()).ports, BTreeSet::new(), "with the guest its ports go");
    }

    #[test]
    fn a_configuration_that_is_refused_opens_no_display_and_shuts_none() {
        let serial = PortRange::new(29000, 29999);
        let there = |ports: &[u16]| Guard { serial, ports: ports.iter().copied().collect() };
        for (in_kernel, expected) in [
            (Some(there(&[5700, 5900])), there(&[5700, 5900])),
            (Some(there(&[])), there(&[])),
            // Of a guest that has gone.
            (Some(there(&[5700, 5900, 5999])), there(&[5700, 5900])),
            (None, Guard { serial: Config::default().serial.ports, ports: BTreeSet::from([5700, 5900]) }),
        ] {
            assert_eq!(guard_as_it_is(in_kernel.as_ref(), &routes(DISPLAYS)), expected, "{in_kernel:?}");
        }
    }
}
