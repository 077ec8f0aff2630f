//! WebSocket frame headers (RFC 6455, 5.2), read from a stream without touching payload: what a
//! forwarded console needs to know to put a frame of its own between two, to refuse what the RFC
//! forbids, and to notice a client that has gone.

use super::close::End;

/// Which peer the stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Frames must be masked (5.1).
    Client,
    /// Frames must not be masked.
    Server,
}

/// A frame's kind, as far as forwarding cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, binary or a continuation.
    Data,
    /// A close.
    Close,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

/// A stretch of the stream that belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes of the input it has.
    pub len: usize,
    /// What frame it is part of.
    pub kind: Kind,
    /// A frame begins with it.
    pub begins: bool,
}

/// Follows one direction of a websocket.
#[derive(Debug)]
pub struct Scanner {
    from: From,
    largest: u64,
    header: [u8; 14],
    have: usize,
    left: u64,
    kind: Kind,
    in_message: bool,
}

impl Scanner {
    /// A scanner at the beginning of a stream; `largest` is the most that one frame may carry.
    #[must_use]
    pub fn new(from: From, largest: u64) -> Self {
        Self { from, largest, header: [0; 14], have: 0, left: 0, kind: Kind::Data, in_message: false }
    }

    /// Between two frames: the only place where another frame may be put. A header that has begun does
    /// not count: it is kept back until it is whole and good.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// Reads the next piece of a non-empty input. Header bytes that are not complete yet are kept
    /// here: `Ok(None)` says that all of the input was such, and nothing can be passed on yet.
    ///
    /// A piece that begins a frame does not count the header bytes kept earlier: [`Self::header`] has
    /// the whole header, which goes before the piece's own payload bytes.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Option<Piece>), End> {
        if self.left > 0 {
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
            self.left -= len as u64;
            if self.left == 0 {
                self.have = 0;
            }
            return Ok((0, Some(Piece { len, kind: self.kind, begins: false })));
        }
        let mut taken = 0;
        while self.have < self.header_len() {
            let Some(byte) = input.get(taken) else { return Ok((taken, None)) };
            self.header[self.have] = *byte;
            self.have += 1;
            taken += 1;
            if self.have == 2 {
                self.check_start()?;
            }
        }
        let left = self.payload_len();
        if left > self.largest {
            return Err(End::Protocol(1009, "the frame is too large"));
        }
        self.left = left;
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - taken);
        self.left -= len as u64;
        Ok((taken, Some(Piece { len, kind: self.kind, begins: true })))
    }

    /// The header of the frame that has just begun. Call it once per beginning piece.
    pub fn take_header(&mut self) -> ([u8; 14], usize) {
        let header = (self.header, self.have);
        self.have = 0;
        header
    }

    fn header_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_len(&self) -> u64 {
        match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => self.header[2..10].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            short => u64::from(short),
        }
    }

    fn check_start(&mut self) -> Result<(), End> {
        let [first, second] = [self.header[0], self.header[1]];
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let refuse = |why| Err(End::Protocol(1002, why));
        if first & 0x70 != 0 {
            return refuse("a reserved bit is set and no extension was agreed on");
        }
        if (second & 0x80 != 0) != (self.from == From::Client) {
            return refuse("frames from a client must be masked, those from a server must not");
        }
        self.kind = match opcode {
            0x0 if !self.in_message => return refuse("a continuation of nothing"),
            0x1 | 0x2 if self.in_message => return refuse("a message within a message"),
            0x0..=0x2 => {
                self.in_message = !last;
                Kind::Data
            }
            0x8 => Kind::Close,
            0x9 => Kind::Ping,
            0xA => Kind::Pong,
            _ => return refuse("an opcode that is not known"),
        };
        if opcode >= 8 && (!last || second & 0x7f > 125) {
            return refuse("a control frame that is fragmented or too long");
        }
        Ok(())
    }
}

/// A server's ping without payload.
pub const PING: [u8; 2] = [0x89, 0];

/// A server's close frame.
#[must_use]
pub fn close_frame(end: &End) -> Vec<u8> {
    let (code, reason) = end.frame();
    let mut frame = vec![0x88, 2 + reason.len() as u8];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything a scanner passes on, with the frames it saw, for an input in chunks of any size.
    fn run(scanner: &mut Scanner, chunks: &[&[u8]]) -> Result<(Vec<u8>, Vec<Kind>), End> {
        let (mut out, mut frames) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let (taken, piece) = scanner.next(rest)?;
                rest = &rest[taken..];
                let Some(piece) = piece else { continue };
                if piece.begins {
                    let (header, len) = scanner.take_header();
                    out.extend(&header[..len]);
                    frames.push(piece.kind);
                }
                out.extend(&rest[..piece.len]);
                rest = &rest[piece.len..];
            }
        }
        Ok((out, frames))
    }

    fn frame(opcode: u8, last: bool, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![opcode | if last { 0x80 } else { 0 }];
        let mask = if masked { 0x80 } else { 0 };
        match payload.len() {
            n @ 0..=125 => bytes.push(mask | n as u8),
            n @ 126..=0xffff => {
                bytes.push(mask | 0x7e);
                bytes.extend((n as u16).to_be_bytes());
            }
            n => {
                bytes.push(mask | 0x7f);
                bytes.extend((n as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn what_rfc_6455_forbids_ends_the_stream_with_its_code() {
        for (bytes, code) in [
            (frame(2, true, false, b"x"), 1002),
            (frame(0, true, true, b"x"), 1002),
            (frame(3, true, true, b"x"), 1002),
            (frame(0xB, true, true, b"x"), 1002),
            (frame(9, false, true, b"x"), 1002),
            (frame(9, true, true, &[0; 126]), 1002),
            (frame(0x42, true, true, b"x"), 1002),
            ([frame(1, false, true, b"x"), frame(2, true, true, b"y")].concat(), 1002),
            (frame(2, true, true, &[0; 1001]), 1009),
            (vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
        ] {
            let ended = run(&mut Scanner::new(From::Client, 1000), &[&bytes]).unwrap_err();
            assert_eq!(ended.frame().0, code, "{:x?}", &bytes[..2]);
        }
        assert!(run(&mut Scanner::new(From::Server, 1000), &[&frame(2, true, true, b"x")]).is_err());
    }

    #[test]
    fn a_control_frame_may_stand_inside_a_message() {
        let bytes = [frame(1, false, true, b"a"), frame(9, true, true, b""), frame(0, true, true, b"b")].concat();
        let (out, frames) = run(&mut Scanner::new(From::Client, 1000), &[&bytes]).unwrap();
        assert_eq!((out, frames), (bytes, vec![Kind::Data, Kind::Ping, Kind::Data]));
    }

    proptest! {
        #[test]
        fn any_stream_in_any_chunks_comes_out_byte_for_byte_and_ends_at_a_boundary(
            payloads in prop::collection::vec((prop::sample::select(vec![0usize, 1, 125, 126, 127, 300, 65_535, 65_536]), prop::sample::select(vec![2u8, 1, 9, 10])), 0..5),
            cuts in prop::collection::vec(1usize..40, 1..400),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|(n, op)| frame(*op, true, true, &vec![7; if *op > 8 { (*n).min(125) } else { *n }])).collect();
            let mut scanner = Scanner::new(From::Client, 1 << 20);
            let (mut chunks, mut rest, mut cut) = (Vec::new(), &bytes[..], cuts.iter().cycle());
            // Small cuts around the headers, then all the rest.
            for _ in 0..cuts.len() {
                let n = (*cut.next().unwrap()).min(rest.len());
                chunks.push(&rest[..n]);
                rest = &rest[n..];
            }
            chunks.push(rest);
            let (out, frames) = run(&mut scanner, &chunks).unwrap();
            prop_assert_eq!(out, bytes);
            prop_assert_eq!(frames.len(), payloads.len());
            prop_assert!(scanner.at_boundary());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = run(&mut Scanner::new(From::Client, 1 << 20), &[&bytes]);
        }
    }
}
