//! What a client may put into a websocket, on each kind of console: `/vnc` is bridged, `/serial/0` is text, `/spice` is
//! forwarded to a backend with a websocket of its own.

use crate::backends::Backend;
use crate::client::{Ws, frame};
use crate::host::{Host, Proxy, until};

const KINDS: [&str; 3] = ["/vnc", "/serial/0", "/spice"];
const LARGEST: usize = 4096;

fn proxy() -> Proxy {
    let echo = Backend::echo();
    let host = Host::new().raw("vnc", &echo).raw("serial/0", &echo).native("spice", &Backend::websocket());
    Proxy::activated(host.config(&format!("[proxy]\nmax-frame = {LARGEST}\n")))
}

/// Sends this on each kind of console and expects it to be closed with that code.
#[track_caller]
fn is_refused(proxy: &Proxy, what: &str, bytes: &[u8], code: u16) {
    for kind in KINDS {
        let mut ws = proxy.open_when_free(kind);
        ws.echoes("before");
        let _ = ws.client.try_send(bytes);
        let (got, reason) = ws.closed();
        assert_eq!(got, code, "{kind}, {what}: {reason}");
        assert!(!reason.is_empty(), "{kind}, {what}");
        assert_eq!(ws.next(), None, "{kind}, {what}: the connection is closed");
    }
}

const MASK: Option<[u8; 4]> = Some([9, 8, 7, 6]);

#[test]
fn frames_that_are_not_masked_are_1002() {
    let proxy = proxy();
    is_refused(&proxy, "data", &frame(0x82, None, b"hello"), 1002);
    is_refused(&proxy, "a ping", &frame(0x89, None, b""), 1002);
}

#[test]
fn frames_that_are_too_long_are_1009_also_while_they_are_being_sent() {
    let proxy = proxy();
    is_refused(&proxy, "one byte", &frame(0x82, MASK, &[b'a'; LARGEST + 1]), 1009);
    is_refused(&proxy, "8 MiB", &frame(0x82, MASK, &vec![b'a'; 8 << 20]), 1009);
    is_refused(&proxy, "a claim", &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4], 1009);
    for kind in KINDS {
        let mut ws = proxy.open_when_free(kind);
        ws.echoes(&"a".repeat(LARGEST));
    }
}

#[test]
fn a_message_in_fragments_is_as_long_as_it_likes_for_it_is_never_put_together() {
    let proxy = proxy();
    for kind in KINDS {
        let mut ws = proxy.open(kind);
        ws.send_frame(0x02, &[b'a'; LARGEST]);
        assert_eq!(ws.read(LARGEST), [b'a'; LARGEST], "{kind}: and each goes on at once");
        for _ in 0..10 {
            ws.send_frame(0x00, &[b'b'; LARGEST]);
            assert_eq!(ws.read(LARGEST), [b'b'; LARGEST], "{kind}");
        }
        ws.send_frame(0x80, b"end");
        assert_eq!(ws.read(3), b"end", "{kind}");
    }
}

#[test]
fn opcodes_and_bits_that_rfc_6455_forbids_are_1002() {
    let proxy = proxy();
    for opcode in [0x83, 0x87, 0x8B, 0x8F] {
        is_refused(&proxy, "an unknown opcode", &frame(opcode, MASK, b"x"), 1002);
    }
    for first in [0xC2, 0xA2, 0x92] {
        is_refused(&proxy, "a reserved bit", &frame(first, MASK, b"x"), 1002);
    }
    is_refused(&proxy, "a ping in fragments", &frame(0x09, MASK, b"x"), 1002);
    is_refused(&proxy, "a long ping", &frame(0x89, MASK, &[0; 126]), 1002);
    is_refused(&proxy, "a continuation of nothing", &frame(0x80, MASK, b"x"), 1002);
    let within = [frame(0x02, MASK, b"x"), frame(0x82, MASK, b"y")].concat();
    is_refused(&proxy, "a message within a message", &within, 1002);
}

#[test]
fn text_that_is_not_utf_8_is_1007_where_text_is_read() {
    let proxy = proxy();
    for kind in ["/vnc", "/serial/0"] {
        let mut ws = proxy.open(kind);
        ws.send_frame(0x81, "grüß".as_bytes());
        assert_eq!(ws.read(6), "grüß".as_bytes(), "{kind}: text counts as bytes");
        // Cut within a character, by a frame and by a packet.
        ws.send_frame(0x01, b"gr\xc3");
        ws.send_frame(0x80, b"\xbc\xc3\x9f");
        assert_eq!(ws.read(6), "grüß".as_bytes(), "{kind}");
        ws.send_frame(0x81, b"\xff\xfe");
        assert_eq!(ws.closed().0, 1007, "{kind}");
        let mut ws = proxy.open_when_free(kind);
        ws.send_frame(0x81, b"half\xc3");
        assert_eq!(ws.closed().0, 1007, "{kind}: it ends within a character");
    }
    // What is forwarded is the backend's to judge.
    let mut ws = proxy.open("/spice");
    ws.send_frame(0x81, b"\xff\xfe");
    assert_eq!(ws.read(2), b"\xff\xfe");
}

#[test]
fn messages_in_fragments_and_bytes_in_pieces_are_fine() {
    let proxy = proxy();
    for kind in KINDS {
        let mut ws = proxy.open(kind);
        ws.send_frame(0x02, b"he");
        ws.send_frame(0x89, b"a ping between");
        ws.send_frame(0x00, b"ll");
        ws.send_frame(0x80, b"o");
        assert_eq!(ws.read(5), b"hello", "{kind}");
        for byte in frame(0x82, MASK, &[b'x'; 200]) {
            ws.client.send(&[byte]);
        }
        assert_eq!(ws.read(200), [b'x'; 200], "{kind}");
        ws.send(b"");
        ws.echoes("after an empty message");
    }
}

#[test]
fn a_ping_is_answered_with_its_own_payload() {
    let proxy = proxy();
    for kind in KINDS {
        let mut ws = proxy.open(kind);
        ws.send_frame(0x89, b"are you there?");
        let answer = std::iter::from_fn(|| ws.next()).find(|frame| frame.opcode() == 0xA).unwrap();
        assert_eq!(answer.payload, b"are you there?", "{kind}");
    }
}

/// Whether the log says that a console was left, and why.
fn has_left(proxy: &Proxy, console: &str, why: &str) -> bool {
    proxy.log().lines().any(|line| line.contains(&format!("left {console} of g1 ")) && line.contains(why))
}

#[test]
fn a_close_is_answered_and_ends_the_session() {
    let proxy = proxy();
    for kind in KINDS {
        let mut ws = proxy.open(kind);
        ws.send_frame(0x88, &[&1000u16.to_be_bytes()[..], b"bye"].concat());
        assert_eq!(ws.closed().0, 1000, "{kind}");
        assert_eq!(ws.next(), None, "{kind}");
        let name = &kind[1..];
        until(kind, || has_left(&proxy, name, "the client closed"));
    }
}

#[test]
fn a_close_that_rfc_6455_forbids_is_answered_with_what_is_wrong() {
    let proxy = proxy();
    for kind in ["/vnc", "/serial/0"] {
        for (payload, code) in
            [(&[3][..], 1002), (&1005u16.to_be_bytes(), 1002), (&[3, 232, 0xff], 1007), (&[], 1000), (&[0x10, 1], 4097)]
        {
            let mut ws = proxy.open(kind);
            ws.send_frame(0x88, payload);
            assert_eq!(ws.closed().0, code, "{kind}, {payload:?}");
        }
    }
}

#[test]
fn a_client_that_vanishes_ends_the_session() {
    let proxy = proxy();
    for kind in KINDS {
        let mut ws: Ws = proxy.open(kind);
        ws.echoes("hello");
        drop(ws);
        let name = &kind[1..];
        until(kind, || has_left(&proxy, name, "the client's connection broke"));
        proxy.open_when_free(kind).echoes("the next");
    }
}
