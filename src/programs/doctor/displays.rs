//! What `doctor` says of displays that others reach past the proxy.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Finding::{self, Advice, Unseen};
use crate::rules::domain::{Display, DisplayKind, Domain};
use crate::rules::qemu_conf::QemuConf;

/// What is known beside a running guest's XML.
pub(super) struct Around<'a> {
    /// Where root alone connects; `None` where that cannot be seen.
    pub(super) guarded: Option<&'a BTreeSet<SocketAddr>>,
    /// libvirt's qemu.conf.
    pub(super) conf: &'a QemuConf,
    /// Whether the XML would show passwords.
    pub(super) shows_passwords: bool,
    /// Whether the configuration has displays guarded; then only those of published guests are.
    pub(super) asked_for: bool,
}

/// A finding for each display of a running guest that every local user reaches, and may see without a password; or that
/// they may reach, where it cannot be seen whether the guard keeps them from it.
pub(super) fn open_to_local_users(name: &str, domain: &Domain, around: &Around<'_>) -> Vec<Finding> {
    domain.displays.iter().filter_map(|display| open(name, display, around)).collect()
}

fn open(name: &str, display: &Display, around: &Around<'_>) -> Option<Finding> {
    let (kind, asks) = match display.kind {
        DisplayKind::Vnc => ("VNC", around.conf.asks.vnc),
        DisplayKind::Spice => ("SPICE", around.conf.asks.spice),
    };
    let is_open = |place: &SocketAddr| around.guarded.is_none_or(|guarded| !guarded.contains(place));
    let mut ports: Vec<_> = display.local_places().filter(is_open).map(|place| place.port().to_string()).collect();
    // At "localhost" it listens twice.
    ports.dedup();
    if ports.is_empty() || asks || display.password {
        return None;
    }
    let ports = ports.join(", ");
    if around.guarded.is_none() {
        return Some(Unseen(format!(
            "{name}: root alone can see whether the guard keeps other users from its {kind} display on loopback ({ports})"
        )));
    }
    let without = if around.shows_passwords { "without a password" } else { "unless it has a password of its own" };
    let remedy = if around.asked_for {
        "publish the guest, and guard.displays keeps it for root; or give it a password"
    } else {
        "guard.displays = true in the configuration keeps such ports for root; or give it a password"
    };
    Some(Advice(format!("{name}: any local user reaches its {kind} display on loopback ({ports}) {without}: {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        graphics: &str,
        conf: &str,
        guarded: Option<&BTreeSet<SocketAddr>>,
        shows_passwords: bool,
    ) -> Vec<Finding> {
        let xml = format!(
            "<domain><name>g</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><devices>{graphics}</devices></domain>"
        );
        let conf = QemuConf::parse(conf);
        let around = Around { guarded, conf: &conf, shows_passwords, asked_for: false };
        open_to_local_users("g1", &Domain::parse(&xml).unwrap(), &around)
    }

    fn said(graphics: &str, conf: &str, guarded: &[&str], shows_passwords: bool) -> Vec<String> {
        let guarded = guarded.iter().map(|place| place.parse().unwrap()).collect();
        let said = |finding| if let Advice(words) = finding { words } else { panic!("{finding:?}") };
        found(graphics, conf, Some(&guarded), shows_passwords).into_iter().map(said).collect()
    }

    #[test]
    fn where_the_guard_cannot_be_seen_nothing_is_claimed_of_a_display() {
        let vnc = "<graphics type='vnc' port='5900' listen='localhost'/>";
        let found = found(vnc, "", None, true);
        let words =
            "g1: root alone can see whether the guard keeps other users from its VNC display on loopback (5900)";
        assert!(matches!(&found[..], [Unseen(said)] if said == words), "{found:?}");
    }

    #[test]
    fn a_display_without_a_password_is_named_and_one_that_asks_or_is_guarded_is_not() {
        let vnc = "<graphics type='vnc' port='5900' websocket='5700' listen='127.0.0.1'/>";
        let open = "g1: any local user reaches its VNC display on loopback (5900, 5700) without a password: \
                    guard.displays = true in the configuration keeps such ports for root; or give it a password";
        assert_eq!(said(vnc, "", &[], true), [open]);
        assert_eq!(said(vnc, "", &["127.0.0.1:5700"], true), [open.replace("5900, 5700", "5900")]);
        assert_eq!(said(vnc, "", &["127.0.0.2:5700", "[::1]:5900"], true), [open], "of other addresses");
        assert_eq!(said(vnc, "spice_sasl = 1", &[], true), [open]);
        let hidden = said(vnc, "", &[], false);
        assert!(hidden.len() == 1 && hidden[0].contains("unless it has a password of its own"), "{hidden:?}");
        for (graphics, conf, guarded) in [
            (vnc, "", &["127.0.0.1:5700", "127.0.0.1:5900"][..]),
            (vnc, "vnc_password = \"secret\"", &[]),
            (vnc, "vnc_sasl = 1", &[]),
            (&vnc.replace("port=", "passwd='x' port="), "", &[]),
            (&vnc.replace("127.0.0.1", "0.0.0.0"), "", &[]),
            ("<graphics type='spice' port='5901' passwd=''/>", "", &[]),
            ("<graphics type='vnc'><listen type='none'/></graphics>", "", &[]),
        ] {
            assert_eq!(said(graphics, conf, guarded, true), Vec::<String>::new(), "{graphics} {conf}");
        }
        assert!(
            said("<graphics type='spice' port='5901'/>", "", &[], true)[0].contains("SPICE display on loopback (5901)")
        );
    }
}
