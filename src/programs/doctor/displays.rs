//! What `doctor` says of displays that others reach past the proxy.

use std::collections::BTreeSet;

use crate::rules::domain::{Display, DisplayKind, Domain};
use crate::rules::qemu_conf::QemuConf;

/// What is known beside a running guest's XML.
pub(super) struct Around<'a> {
    /// Ports that are root's alone.
    pub(super) guarded: &'a BTreeSet<u16>,
    /// libvirt's qemu.conf.
    pub(super) conf: &'a QemuConf,
    /// Whether the XML would show passwords.
    pub(super) shows_passwords: bool,
    /// Whether the configuration has displays guarded; then only those of published guests are.
    pub(super) asked_for: bool,
}

/// A sentence for each display of a running guest that every local user reaches, and may see without a password.
pub(super) fn open_to_local_users(name: &str, domain: &Domain, around: &Around<'_>) -> Vec<String> {
    domain.displays.iter().filter_map(|display| open(name, display, around)).collect()
}

fn open(name: &str, display: &Display, around: &Around<'_>) -> Option<String> {
    let (kind, asks) = match display.kind {
        DisplayKind::Vnc => ("VNC", around.conf.asks.vnc),
        DisplayKind::Spice => ("SPICE", around.conf.asks.spice),
    };
    let ports: Vec<_> =
        display.local_ports().filter(|port| !around.guarded.contains(port)).map(|port| port.to_string()).collect();
    if ports.is_empty() || asks || display.password {
        return None;
    }
    let without = if around.shows_passwords { "without a password" } else { "unless it has a password of its own" };
    let remedy = if around.asked_for {
        "publish the guest, and guard.displays keeps it for root; or give it a password"
    } else {
        "guard.displays = true in the configuration keeps such ports for root; or give it a password"
    };
    Some(format!(
        "{name}: any local user reaches its {kind} display on loopback ({}) {without}: {remedy}",
        ports.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(graphics: &str, conf: &str, guarded: &[u16], shows_passwords: bool) -> Vec<String> {
        let xml = format!(
            "<domain><name>g</name><uuid>b50bdc9f490b4b9b86417573c0eba77c</uuid><devices>{graphics}</devices></domain>"
        );
        let (guarded, conf) = (guarded.iter().copied().collect(), QemuConf::parse(conf));
        let around = Around { guarded: &guarded, conf: &conf, shows_passwords, asked_for: false };
        open_to_local_users("g1", &Domain::parse(&xml).unwrap(), &around)
    }

    #[test]
    fn a_display_without_a_password_is_named_and_one_that_asks_or_is_guarded_is_not() {
        let vnc = "<graphics type='vnc' port='5900' websocket='5700' listen='127.0.0.1'/>";
        let open = "g1: any local user reaches its VNC display on loopback (5900, 5700) without a password: \
                    guard.displays = true in the configuration keeps such ports for root; or give it a password";
        assert_eq!(said(vnc, "", &[], true), [open]);
        assert_eq!(said(vnc, "", &[5700], true), [open.replace("5900, 5700", "5900")]);
        assert_eq!(said(vnc, "spice_sasl = 1", &[], true), [open]);
        let hidden = said(vnc, "", &[], false);
        assert!(hidden.len() == 1 && hidden[0].contains("unless it has a password of its own"), "{hidden:?}");
        for (graphics, conf, guarded) in [
            (vnc, "", &[5700, 5900][..]),
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
