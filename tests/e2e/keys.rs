//! Certificates and issuers that are replaced while people are connected.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use console_proxy::edges::keys;
use console_proxy::rules::ticket::{AUDIENCE, Claims, Mode, Pattern, sign};

use crate::host::{Guest, SOON, property, sh, systemctl, wait_until};
use crate::ws::{CERTIFICATE, Ws, served_fingerprint};

const KEY: &str = "/etc/console-proxy/tls/key.pem";

/// The host's own certificate and key, put back at the end.
struct OwnCertificate([(&'static str, String); 2]);

impl OwnCertificate {
    fn kept() -> Self {
        Self([CERTIFICATE, KEY].map(|file| (file, fs::read_to_string(file).unwrap())))
    }
}

impl Drop for OwnCertificate {
    fn drop(&mut self) {
        for (file, text) in &self.0 {
            fs::write(file, text).unwrap();
        }
    }
}

#[test]
fn a_new_certificate_is_served_to_the_next_client_and_cuts_no_session() {
    let _kept = OwnCertificate::kept();
    let guest = Guest::define("renewed").with_vnc().with_pty_serial().started();
    guest.wait_to_boot();
    let port = guest.port();
    let (mut serial, before) = (guest.open("serial/0"), served_fingerprint(port));
    let proxy = property(&guest.service(), "MainPID");

    let (certificate, key) = keys::certificate(&["panel.example".to_owned()], Duration::from_secs(86_400)).unwrap();
    // Half of it: the old one stays in force, for what is served has to fit together.
    fs::write(KEY, &key).unwrap();
    let ticket = guest.ticket();
    assert!(Ws::connect(port, "/vnc", &ticket).is_ok(), "a key without its certificate changes nothing");
    fs::write(CERTIFICATE, &certificate).unwrap();
    let after = served_fingerprint(port);
    assert_ne!(after, before);
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    serial.command("echo still $((40 + 2))", "still 42");
    assert_eq!(property(&guest.service(), "MainPID"), proxy, "nothing was restarted");
    assert!(sh("console-proxy list").contains(&after));
    // One that the administrator put there is not renewed by the host.
    systemctl("start console-proxy-keys");
    assert_eq!(served_fingerprint(port), after);
}

/// An issuer of tickets, taken away at the end.
struct Issuer {
    name: &'static str,
    key: String,
}

impl Issuer {
    fn named(name: &'static str, rules: &str) -> Self {
        let (key, public) = keys::ticket_key().unwrap();
        let text = format!("public-key = \"{public}\"\n{rules}");
        fs::write(format!("/etc/console-proxy/issuers.d/{name}.toml"), text).unwrap();
        Self { name, key }
    }

    fn ticket(&self, guest: &Guest, person: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = Claims {
            iss: self.name.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: person.to_owned(),
            guest: guest.uuid().parse().unwrap(),
            consoles: vec![Pattern::All],
            mode: Mode::Control,
            iat: now,
            nbf: now,
            exp: now + 60,
            jti: format!("{now}"),
        };
        sign(&claims, &keys::read_ticket_key(&self.key).unwrap()).unwrap()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/etc/console-proxy/issuers.d/{}.toml", self.name));
    }
}

#[test]
fn an_issuer_that_is_added_or_removed_counts_at_once_and_cuts_no_session() {
    let (guest, other) = (Guest::define("issued").with_vnc().started(), Guest::define("unissued").with_vnc().started());
    let (port, others) = (guest.port(), other.port());
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    other.open("vnc").read_until("RFB 003.008\n", SOON);
    let panel = Issuer::named("e2e-panel", &format!("guests = [\"{}\"]\n", guest.uuid()));
    let ticket = panel.ticket(&guest, "ann");
    let mut vnc = Ws::connect(port, "/vnc", &ticket).expect("a new issuer's ticket counts");
    vnc.read_until("RFB 003.008\n", SOON);
    let refused = Ws::connect(others, "/vnc", &panel.ticket(&other, "ann")).unwrap_err();
    assert!(matches!(refused.status(), 401 | 403), "the issuer may not speak for that guest: {refused:?}");

    drop(panel);
    wait_until("the issuer to be forgotten", SOON, || {
        Ws::connect(port, "/vnc", &ticket).is_err_and(|why| why.status() == 401)
    });
    vnc.send(b"RFB 003.008\n");
    assert!(vnc.next(SOON).unwrap().is_some(), "the session goes on");
}

#[test]
fn keys_that_are_missing_are_made_before_the_next_guests_socket_listens() {
    let _kept = OwnCertificate::kept();
    sh("rm /etc/console-proxy/tls/*; rm /etc/console-proxy/signing/host.pem");
    let guest = Guest::define("keyless").with_vnc().started();
    let port = guest.port();
    guest.open("vnc").read_until("RFB 003.008\n", SOON);
    assert!(sh("console-proxy list").contains(&served_fingerprint(port)));
    for (file, rights) in [(CERTIFICATE, "644 root:"), (KEY, "640 root:console-proxy")] {
        assert!(sh(&format!("stat -c '%a %U:%G' {file}")).starts_with(rights), "{file}");
    }
    assert_eq!(sh("stat -c '%a %U:%G' /etc/console-proxy/signing/host.pem"), "640 root:libvirt");
}
