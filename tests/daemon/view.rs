//! View-only displays: what a guest's VNC server gets of a client that may only look on.

use std::io::{Read, Write};

use console_proxy::rules::ticket::Mode;

use crate::backends::{Backend, TlsKeys};
use crate::client::Ws;
use crate::host::{Host, Proxy, until};

/// A VNC server with a screen of 1 by 1 pixels and no password, which answers each request for it.
fn vnc_server() -> Backend {
    Backend::serve(|conversation| {
        conversation.write_all(b"RFB 003.008\n")?;
        conversation.read_exact(&mut [0; 12])?;
        conversation.write_all(b"\x01\x01")?;
        conversation.read_exact(&mut [0])?;
        conversation.write_all(b"\0\0\0\0")?;
        conversation.read_exact(&mut [0])?;
        conversation.write_all(b"\0\x01\0\x01\x20\x18\0\x01\0\xff\0\xff\0\xff\x10\x08\0\0\0\0\0\0\0\x04QEMU")?;
        let mut byte = [0];
        while conversation.read(&mut byte)? == 1 {
            if byte == [3] {
                conversation.read_exact(&mut [0; 9])?;
                conversation.write_all(b"\0\0\0\x01\0\0\0\0\0\x01\0\x01\0\0\0\0RGB.")?;
            }
        }
        Ok(())
    })
}

const HELLO: &[u8] = b"RFB 003.008\n";
const REQUEST: &[u8] = b"\x03\0\0\0\0\0\0\x01\0\x01";
const PIXELS: &[u8] = b"\0\0\0\x01\0\0\0\0\0\x01\0\x01\0\0\0\0RGB.";
/// Keys, the pointer, the clipboard in both forms, another size, sound, and the power button.
const DEEDS: &[&[u8]] = &[
    b"\x04\x01\0\0\0\0\xff\x0d",
    b"\xff\0\0\x01\0\0\0\x61\0\0\0\x1e",
    b"\x05\x01\0\0\0\0",
    b"\x06\0\0\0\0\0\0\x05paste",
    b"\x06\0\0\0\xff\xff\xff\xfc\x01\0\0\0",
    b"\xfb\0\x03\x20\x02\x58\x01\0\0\0\0\0\0\0\0\0\x03\x20\x02\x58\0\0\0\0",
    b"\xff\x01\0\0",
    b"\xfa\0\x01\x03",
];

fn open(proxy: &Proxy, mode: Mode) -> Ws {
    let ticket = proxy.ticket_with(|claims| claims.mode = mode);
    proxy.try_open(&format!("/vnc?token={ticket}"), &[]).unwrap()
}

/// Does RFB's handshake as a client that wants the screen for itself alone.
fn shake_hands(ws: &mut Ws) {
    assert_eq!(ws.read(12), HELLO);
    ws.send(HELLO);
    assert_eq!(ws.read(2), b"\x01\x01");
    ws.send(b"\x01");
    assert_eq!(ws.read(4), b"\0\0\0\0");
    ws.send(b"\0");
    assert!(ws.read(28).ends_with(b"QEMU"));
}

#[test]
fn who_looks_on_sees_the_screen_and_nothing_that_they_do_reaches_the_guest() {
    let (raw, native) = (vnc_server(), Backend::websocket());
    let proxy = Proxy::activated(Host::new().raw("vnc", &raw).native("vnc", &native));
    let mut ws = open(&proxy, Mode::View);
    shake_hands(&mut ws);
    for deed in DEEDS {
        ws.send(deed);
        ws.send(REQUEST);
        assert_eq!(ws.read(PIXELS.len()), PIXELS);
    }
    // In one message, and each byte in a message of its own.
    ws.send(&[&DEEDS.concat(), REQUEST].concat());
    assert_eq!(ws.read(PIXELS.len()), PIXELS);
    for byte in [&DEEDS.concat(), REQUEST].concat() {
        ws.send(&[byte]);
    }
    assert_eq!(ws.read(PIXELS.len()), PIXELS);
    let expected = [HELLO, b"\x01\x01", &REQUEST.repeat(DEEDS.len() + 2)].concat();
    assert_eq!(raw.received(), expected, "and the screen is shared");
    assert_eq!(native.received_text(), "", "its own websocket cannot be filtered");
    let out = 12 + 2 + 4 + 28 + PIXELS.len() * (DEEDS.len() + 2);
    let status = format!(": 1 on vnc (1 view only); {out} B out, {} B in", expected.len());
    until("the status counts what reached the guest", || proxy.statuses().iter().any(|line| line.contains(&status)));
}

#[test]
fn who_has_control_is_not_filtered() {
    let raw = vnc_server();
    let proxy = Proxy::activated(Host::new().raw("vnc", &raw));
    let mut ws = open(&proxy, Mode::Control);
    shake_hands(&mut ws);
    ws.send(&[&DEEDS.concat(), REQUEST].concat());
    let expected = [HELLO, b"\x01\0", &DEEDS.concat(), REQUEST].concat();
    until("all to arrive", || raw.received().len() >= expected.len());
    assert_eq!(raw.received(), expected);
}

#[test]
fn a_message_that_nobody_knows_ends_a_view_only_session_with_4403_and_its_type() {
    let raw = vnc_server();
    let proxy = Proxy::activated(Host::new().raw("vnc", &raw));
    for (bad, words) in [
        (&b"\x7f\x04\x01\0\0\0\0\xff\x0d"[..], "the client sent an RFB message of a type that is not known: 127"),
        (b"\xff\x09\x04\x01\0\0\0\0\xff\x0d", "the client sent a QEMU message that is not known: 255/9"),
    ] {
        let mut ws = open(&proxy, Mode::View);
        shake_hands(&mut ws);
        ws.send(bad);
        assert_eq!(ws.closed(), (4403, format!("this session is view-only, and {words}")));
    }
    assert_eq!(raw.received(), [HELLO, b"\x01\x01"].concat().repeat(2));
    for (hello, words) in [
        (&b"RFB 003.003\n"[..], "RFB 3.3 cannot be filtered: use a client that speaks 3.8"),
        (b"RFB 003.008\n\x13", "RFB security type 19 cannot be filtered (1 and 2 can)"),
    ] {
        let mut ws = open(&proxy, Mode::View);
        ws.send(hello);
        assert_eq!(ws.closed(), (4403, format!("this session is view-only, and {words}")));
    }
}

#[test]
fn what_cannot_be_filtered_is_403_with_the_reason_before_anything_is_opened() {
    // Whoever connects there hears 502.
    let (nowhere, keys) = (Backend::refuses(), TlsKeys::new());
    for (host, path, words) in [
        (Host::new().raw("spice", &nowhere).native("spice", &nowhere), "/spice", "SPICE has no view-only way"),
        (Host::new().native_tls("vnc", &nowhere, &keys.authority()), "/vnc", "it speaks TLS (vnc_tls in qemu.conf)"),
        (Host::new().native("vnc", &nowhere), "/websockify", "it has a websocket of its own alone"),
    ] {
        let proxy = Proxy::activated(host);
        let ticket = proxy.ticket_with(|claims| claims.mode = Mode::View);
        let answer = proxy.refusal(&format!("{path}?token={ticket}"), &[]);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("cannot be opened view-only: ") && answer.body.contains(words), "{answer:?}");
        assert_eq!(proxy.refusal(&format!("{path}?token={}", proxy.ticket()), &[]).status, 502);
    }
}
