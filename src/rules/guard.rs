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
    /// Ports that running guests' consoles listen on: serial ports of the range, websockets that wiring asked QEMU for.
    pub ports: BTreeSet<u16>,
}

/// The guard for a configuration and the guests that are published.
#[must_use]
pub fn guard(config: &Config, routes: &BTreeMap<Uuid, Route>) -> Guard {
    let serial = config.serial.ports;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
