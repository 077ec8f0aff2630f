//! View-only VNC of a real guest: its screen is seen, and keys do nothing.

use std::time::Duration;

use crate::host::{Guest, SOON, wait_until};
use crate::ws::Ws;

/// A VNC client by hand: its handshake is done.
pub struct Viewer {
    pub ws: Ws,
    width: u16,
    height: u16,
}

impl Viewer {
    #[track_caller]
    pub fn connect(guest: &Guest, options: &str, shared: bool) -> Self {
        let mut ws = Ws::connect(guest.port(), "/vnc", &guest.ticket_with(options)).unwrap();
        assert_eq!(take(&mut ws, 12), b"RFB 003.008\n");
        ws.send(b"RFB 003.008\n");
        let types = take(&mut ws, 1)[0];
        assert!(take(&mut ws, types.into()).contains(&1), "no password");
        ws.send(&[1]);
        assert_eq!(take(&mut ws, 4), [0; 4]);
        ws.send(&[shared.into()]);
        let init = take(&mut ws, 24);
        let name = u32::from_be_bytes(init[20..24].try_into().unwrap());
        take(&mut ws, name as usize);
        let size = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
        // Raw alone.
        ws.send(&[2, 0, 0, 1, 0, 0, 0, 0]);
        Self { width: size(0), height: size(2), ws }
    }

    /// Asks for the whole screen: its pixels, four bytes each.
    #[track_caller]
    pub fn pixels(&mut self) -> Vec<u8> {
        let [w, h] = [self.width, self.height].map(u16::to_be_bytes);
        self.ws.send(&[3, 0, 0, 0, 0, 0, w[0], w[1], h[0], h[1]]);
        let mut pixels = Vec::new();
        loop {
            assert_eq!(take(&mut self.ws, 1), [0], "FramebufferUpdate");
            let head = take(&mut self.ws, 3);
            for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
                let rect = take(&mut self.ws, 12);
                let side = |at: usize| usize::from(u16::from_be_bytes([rect[at], rect[at + 1]]));
                pixels.extend(take(&mut self.ws, side(4) * side(6) * 4));
            }
            if pixels.len() >= usize::from(self.width) * usize::from(self.height) * 4 {
                return pixels;
            }
        }
    }

    /// Presses and releases the key of each character; one that wants Shift comes as the one without.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        for key in text.bytes() {
            let symbol = if key == b'\n' { 0xff0d } else { u32::from(key) };
            for down in [1, 0] {
                self.ws.send(&[&[4, down, 0, 0][..], &symbol.to_be_bytes()].concat());
            }
            // A shell on a small guest: keys that come faster than its keyboard's queue are lost.
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

#[track_caller]
pub fn take(ws: &mut Ws, n: usize) -> Vec<u8> {
    while ws.received.len() < n {
        match ws.next(SOON) {
            Ok(Some(bytes)) => ws.received.extend(bytes),
            other => panic!("{other:?} after {} of {n} bytes", ws.received.len()),
        }
    }
    ws.received.drain(..n).collect()
}

#[test]
fn who_looks_on_sees_the_screen_and_types_nothing_and_who_has_control_does() {
    let guest = Guest::define("looked-at").with_vnc_websocket().with_pty_serial().started();
    guest.wait_to_boot();
    let mut control = Viewer::connect(&guest, "", true);
    // Asking for the screen for themselves alone ends nobody's session.
    let mut looking = Viewer::connect(&guest, "--view", false);
    let before = looking.pixels();
    assert!(before.iter().any(|byte| *byte != before[0]), "there is something on the screen");
    looking.types("expr 86420864 / 4\n");
    control.types("expr 86420864 / 2\n");
    wait_until("the command to run", SOON, || guest.screen().contains("43210432"));
    let screen = guest.screen();
    assert_eq!(screen.matches("expr").count(), 1, "what was typed before did nothing: {screen}");
    assert_ne!(looking.pixels(), before, "who looks on sees what the other did");

    // The power button does nothing, and neither does anything else that has a length; then the end.
    looking.ws.send(&[250, 0, 1, 2]);
    assert!(!looking.pixels().is_empty());
    assert_eq!(guest.state(), "running");
    looking.ws.send(&[77]);
    let words = "this session is view-only, and the client sent an RFB message of a type that is not known: 77";
    assert_eq!(looking.ws.wait_for_close(SOON), (4403, words.to_owned()));
}
