//! SPICE displays of real guests: QEMU's own spice-server, native, bridged and within TLS, one client after the other.

use std::time::Duration;

use crate::host::{Configured, Guest, SOON, restart_libvirtd, sh, virsh, wait_until};
use crate::ws::{Refused, Ws};

pub const MAIN: u8 = 1;
const DISPLAY: u8 = 2;
const INPUTS: u8 = 3;
const CURSOR: u8 = 4;

/// A SPICE client: its channels, each a websocket of its own with the same ticket.
struct Client {
    port: u16,
    path: String,
    ticket: String,
    main: Ws,
    others: Vec<Ws>,
}

impl Client {
    fn open(port: u16, path: &str, ticket: &str) -> Result<Ws, Refused> {
        Ws::connect_with(port, path, ticket, &[("sec-websocket-protocol", "binary")])
    }

    /// Opens the main channel, and then the others of the session that the server gave it.
    #[track_caller]
    fn connect(guest: &Guest, person: &str) -> Self {
        let (port, ticket) = (guest.port(), guest.ticket_with(&format!("--user {person}")));
        let mut main = Self::open(port, "/spice", &ticket).unwrap_or_else(|why| panic!("{why:?}"));
        link(&mut main, 0, MAIN);
        let session = session_of(&mut main);
        let mut client = Self { port, path: "/spice".to_owned(), ticket, main, others: Vec::new() };
        for channel in [DISPLAY, INPUTS, CURSOR] {
            let mut ws = Self::open(port, &client.path, &client.ticket).unwrap_or_else(|why| panic!("{why:?}"));
            link(&mut ws, session, channel);
            if channel == DISPLAY {
                // SPICE_MSGC_DISPLAY_INIT, as every client does at once. spice-server's worker waits for it, and in
                // 0.15.1 a client that leaves before takes QEMU down with it.
                let init = [&101u16.to_le_bytes()[..], &14u32.to_le_bytes(), &[1], &[0; 8], &[1], &[0; 4]].concat();
                ws.send(&init);
            }
            client.others.push(ws);
        }
        client.is_served();
        client
    }

    /// The display channel has spoken, and the others live.
    #[track_caller]
    fn is_served(&mut self) {
        if self.others[0].received.is_empty() {
            let said = take(&mut self.others[0], 6);
            assert_ne!(said, [0; 6], "the head of a message");
            self.others[0].received = said;
        }
        for ws in self.others.iter_mut().chain([&mut self.main]) {
            assert!(ws.next(Duration::from_millis(200)).is_ok(), "it lives");
        }
    }
}

/// SPICE's handshake on one channel, without a password (the link messages of spice-protocol's protocol.h).
#[track_caller]
fn link(ws: &mut Ws, session: u32, channel: u8) {
    assert_eq!(log_in(ws, session, channel), 0, "SPICE_LINK_ERR_OK");
}

/// The same; what the server answers to the empty password.
#[track_caller]
pub fn log_in(ws: &mut Ws, session: u32, channel: u8) -> u32 {
    let mess = [
        &session.to_le_bytes()[..],
        &[channel, 0],
        &1u32.to_le_bytes(),
        &0u32.to_le_bytes(),
        &18u32.to_le_bytes(),
        // Authentication may be selected: bit 0; with a ticket: bit 1.
        &0b1011u32.to_le_bytes(),
    ]
    .concat();
    let header = [&b"REDQ"[..], &2u32.to_le_bytes(), &2u32.to_le_bytes(), &(mess.len() as u32).to_le_bytes()].concat();
    ws.send(&header);
    ws.send(&mess);
    let reply = take(ws, 16);
    assert_eq!(&reply[..4], b"REDQ", "{reply:?}");
    let size = u32::from_le_bytes(reply[12..16].try_into().unwrap()) as usize;
    let reply = take(ws, size);
    assert_eq!(reply[..4], [0; 4], "SPICE_LINK_ERR_OK");
    // The server's RSA key, behind which its capabilities are.
    assert!(size >= 178, "{size}");
    // No password, encrypted all the same: spice-server decrypts it before it looks whether it wants one.
    ws.send(&1u32.to_le_bytes());
    ws.send(&encrypted(b"\0", &reply[4..166]));
    u32::from_le_bytes(take(ws, 4).try_into().unwrap())
}

/// RSA with OAEP, for a public key in DER.
#[track_caller]
fn encrypted(text: &[u8], key: &[u8]) -> Vec<u8> {
    std::fs::write("/tmp/spice-key.der", key).unwrap();
    std::fs::write("/tmp/spice-text", text).unwrap();
    sh("openssl pkeyutl -encrypt -pubin -keyform DER -inkey /tmp/spice-key.der -pkeyopt rsa_padding_mode:oaep \
        -in /tmp/spice-text -out /tmp/spice-encrypted");
    std::fs::read("/tmp/spice-encrypted").unwrap()
}

/// The session that `SPICE_MSG_MAIN_INIT` names: the main channel's first message (with short headers).
#[track_caller]
fn session_of(main: &mut Ws) -> u32 {
    let header = take(main, 6);
    assert_eq!(u16::from_le_bytes(header[..2].try_into().unwrap()), 103, "SPICE_MSG_MAIN_INIT");
    let body = take(main, u32::from_le_bytes(header[2..].try_into().unwrap()) as usize);
    u32::from_le_bytes(body[..4].try_into().unwrap())
}

/// The next bytes, so many of them.
#[track_caller]
fn take(ws: &mut Ws, n: usize) -> Vec<u8> {
    while ws.received.len() < n {
        match ws.next(SOON) {
            Ok(Some(bytes)) => ws.received.extend(bytes),
            other => panic!("{other:?} after {:?} of {n} bytes", ws.received),
        }
    }
    ws.received.drain(..n).collect()
}

/// How each of its open consoles is reached.
fn reached(guest: &Guest) -> Vec<String> {
    let shown = guest.listed().expect("it is published");
    let reached = |session: &serde_json::Value| {
        Some(format!("{} {}", session["console"].as_str()?, session["reached"].as_str()?))
    };
    shown["sessions"].as_array().unwrap().iter().filter_map(reached).collect()
}

#[track_caller]
pub fn has_all_channels(guest: &Guest, how: &str) {
    let mut client = Client::connect(guest, "ann");
    client.is_served();
    let spice = format!("spice {how}");
    wait_until("the status to show four sockets", SOON, || reached(guest) == [spice.as_str(); 4]);
}

#[test]
fn a_clients_four_channels_are_forwarded_or_bridged_by_configuration() {
    let guest = Guest::define("spice").with_spice().started();
    has_all_channels(&guest, "native");
    let configured = Configured::with("[spice]\nwebsocket = \"bridge\"\n");
    sh("console-proxy publish spice");
    has_all_channels(&guest, "bridged");
    drop(configured);
    sh("console-proxy publish spice");
}

#[test]
fn a_second_spice_client_takes_the_screen_over_and_the_first_hears_from_whom() {
    let guest = Guest::define("spice-two").with_spice().started();
    for how in ["use", "bridge"] {
        let configured = Configured::with(&format!("[spice]\nwebsocket = \"{how}\"\n"));
        sh("console-proxy publish spice-two");
        let mut ann = Client::connect(&guest, "ann");
        let words = (4409, "bob from 127.0.0.1 took this console over".to_owned());
        let bob = std::thread::scope(|scope| {
            let bob = scope.spawn(|| Client::connect(&guest, "bob"));
            assert_eq!(ann.main.wait_for_close(SOON), words);
            for ws in &mut ann.others {
                assert_eq!(ws.wait_for_close(SOON), words);
            }
            bob.join()
        });
        bob.unwrap().is_served();
        assert_eq!(Client::open(ann.port, &ann.path, &ann.ticket).unwrap_err().status(), 409);
        drop(configured);
    }
}

#[test]
fn where_the_configuration_says_so_a_second_spice_client_is_refused() {
    let _configured = Configured::with("[spice]\nviewers = \"refuse\"\n");
    let guest = Guest::define("spice-refuse").with_spice().started();
    let mut ann = Client::connect(&guest, "ann");
    let refused = guest.try_open("spice").unwrap_err();
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.words(), "spice is in use by ann from 127.0.0.1\n");
    ann.is_served();
}

#[test]
fn who_may_only_look_on_is_refused_spice_with_the_reason() {
    let guest = Guest::define("spice-view").with_spice().started();
    let ticket = guest.ticket_with("--view");
    let refused = Ws::connect(guest.port(), "/spice", &ticket).unwrap_err();
    assert_eq!(refused.status(), 403);
    assert!(refused.words().contains("SPICE has no view-only way"), "{refused:?}");
}

/// The host's SPICE servers speak TLS, for the time of a test.
struct SpiceTls;

impl SpiceTls {
    #[track_caller]
    fn on() -> Self {
        sh("set -e; mkdir -p /etc/pki/libvirt-spice; cd /etc/pki/libvirt-spice
            openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca-cert.pem -days 2 -subj '/CN=test CA' 2>/dev/null
            openssl req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr -subj \"/CN=$(hostname -f)\" 2>/dev/null
            echo basicConstraints=CA:FALSE >no-names
            openssl x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile no-names -out server-cert.pem 2>/dev/null
            chmod 644 *.pem; cp /etc/libvirt/qemu.conf /root/qemu.conf.saved; echo 'spice_tls = 1' >>/etc/libvirt/qemu.conf");
        restart_libvirtd();
        Self
    }
}

impl Drop for SpiceTls {
    fn drop(&mut self) {
        sh("cp /root/qemu.conf.saved /etc/libvirt/qemu.conf; rm -r /etc/pki/libvirt-spice");
        restart_libvirtd();
    }
}

#[test]
fn a_spice_server_that_speaks_tls_alone_is_forwarded_and_bridged_within_tls() {
    let _tls = SpiceTls::on();
    let guest = Guest::define("spice-tls").with_secure_spice().started();
    let xml = virsh("dumpxml spice-tls");
    assert!(xml.contains("tlsPort='") && xml.contains("defaultMode='secure'"), "{xml}");
    has_all_channels(&guest, "native");
    let configured = Configured::with("[spice]\nwebsocket = \"bridge\"\n");
    sh("console-proxy publish spice-tls");
    has_all_channels(&guest, "bridged");
    drop(configured);
    // A host that has both ports, for a guest that does not mind.
    let either = Guest::define("spice-either").with_spice().started();
    assert!(virsh("dumpxml spice-either").contains("tlsPort='"));
    has_all_channels(&either, "native");
    sh("mv /etc/pki/libvirt-spice/ca-cert.pem /etc/pki/libvirt-spice/elsewhere.pem; console-proxy publish spice-tls");
    let refused = guest.try_open("spice").unwrap_err();
    assert_eq!(refused.status(), 502);
    assert!(refused.words().contains("/etc/pki/libvirt-spice/ca-cert.pem does not exist"), "{refused:?}");
}
