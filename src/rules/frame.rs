//! WebSocket frames (RFC 6455, 5.2), read from a stream as they come and never put together: what a
//! forwarded console needs to know to put a frame of its own between two, to refuse what the RFC
//! forbids, and to notice a client that has gone; and what a bridged one needs besides: masks, text,
//! closes, and the headers of its own frames.

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
    /// A frame ends with it.
    pub ends: bool,
    /// Where in its frame's payload it begins.
    pub at: u64,
}

/// Follows one direction of a websocket.
#[derive(Debug)]
pub struct Scanner {
    from: From,
    largest: u64,
    header: [u8; 14],
    have: usize,
    left: u64,
    at: u64,
    mask: [u8; 4],
    kind: Kind,
    in_message: bool,
    is_text: bool,
}

impl Scanner {
    /// A scanner at the beginning of a stream; `largest` is the most that one frame may carry.
    #[must_use]
    pub fn new(from: From, largest: u64) -> Self {
        Self {
            from,
            largest,
            header: [0; 14],
            have: 0,
            left: 0,
            at: 0,
            mask: [0; 4],
            kind: Kind::Data,
            in_message: false,
            is_text: false,
        }
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
            return Ok((0, Some(self.piece(input.len(), false))));
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
        (self.left, self.at) = (left, 0);
        if self.from == From::Client {
            self.mask.copy_from_slice(&self.header[self.have - 4..self.have]);
        }
        Ok((taken, Some(self.piece(input.len() - taken, true))))
    }

    fn piece(&mut self, input: usize, begins: bool) -> Piece {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input);
        let at = self.at;
        self.left -= len as u64;
        self.at += len as u64;
        Piece { len, kind: self.kind, begins, ends: self.left == 0, at }
    }

    /// Takes the mask off a piece's payload (5.3).
    pub fn unmask(&self, piece: &Piece, payload: &mut [u8]) {
        // Eight bytes at a time from the mask's own place in them on.
        let mask: [u8; 8] = std::array::from_fn(|i| self.mask[(piece.at as usize + i) % 4]);
        let wide = u64::from_ne_bytes(mask);
        let mut words = payload.chunks_exact_mut(8);
        for word in &mut words {
            let bytes: [u8; 8] = (&*word).try_into().unwrap_or_default();
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
        words.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// Whether the message that the last data piece belongs to is text, and goes on after its frame.
    #[must_use]
    pub fn message(&self) -> (bool, bool) {
        (self.is_text, self.in_message)
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
                self.is_text = if opcode == 0 { self.is_text } else { opcode == 1 };
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

/// The longest header of a server's frame.
pub const HEAD: usize = 10;

/// Writes the header of a server's binary frame into the end of `head`, in front of a payload of
/// `length` bytes; returns where it begins.
pub fn binary_header(head: &mut [u8; HEAD], length: usize) -> usize {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => {
            head[8..].copy_from_slice(&[0x82, short]);
            8
        }
        (_, Ok(medium)) => {
            head[6..8].copy_from_slice(&[0x82, 126]);
            head[8..].copy_from_slice(&medium.to_be_bytes());
            6
        }
        _ => {
            head[..2].copy_from_slice(&[0x82, 127]);
            head[2..].copy_from_slice(&(length as u64).to_be_bytes());
            0
        }
    }
}

/// A server's text message.
#[must_use]
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut head = [0; HEAD];
    let begins = binary_header(&mut head, text.len());
    head[begins] = 0x81;
    [&head[begins..], text.as_bytes()].concat()
}

/// A server's pong with a ping's payload, which is at most 125 bytes (5.5).
#[must_use]
pub fn pong_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8A, payload.len() as u8];
    frame.extend(payload);
    frame
}

/// What a client's close frame says: the code to answer with, 1000 where it has none.
pub fn close_code(payload: &[u8]) -> Result<u16, End> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(1000) } else { Err(End::Protocol(1002, "a close frame of one byte")) };
    };
    let code = u16::from_be_bytes(*code);
    // 7.4: these alone may be sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(End::Protocol(1002, "a close code that may not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(code),
        Err(_) => Err(End::Protocol(1007, "a close reason that is not UTF-8")),
    }
}

/// Checks that text which comes in pieces is UTF-8 (RFC 6455, 8.1).
#[derive(Debug, Default)]
pub struct Utf8 {
    begun: [u8; 4],
    have: usize,
}

impl Utf8 {
    /// Takes the next piece; `false` where it cannot be part of any text.
    pub fn takes(&mut self, mut bytes: &[u8]) -> bool {
        while self.have > 0 {
            let Some((next, rest)) = bytes.split_first() else { return true };
            self.begun[self.have] = *next;
            self.have += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..self.have]) {
                Ok(_) => self.have = 0,
                Err(why) if why.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(why) = std::str::from_utf8(bytes) else { return true };
        let rest = &bytes[why.valid_up_to()..];
        // What is only cut off is shorter than a character.
        if why.error_len().is_some() || rest.len() >= self.begun.len() {
            return false;
        }
        self.begun[..rest.len()].copy_from_slice(rest);
        self.have = rest.len();
        true
    }

    /// The text is over; `false` where it ends within a character.
    pub fn ends(&mut self) -> bool {
        std::mem::take(&mut self.have) == 0
    }
}

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

    #[test]
    fn headers_of_our_own_say_the_length_in_the_shortest_way() {
        for (length, expected) in [
            (0, &[0x82u8, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut head = [0; HEAD];
            let begins = binary_header(&mut head, length);
            assert_eq!(&head[begins..], expected);
        }
    }

    #[test]
    fn a_clients_close_is_answered_with_its_own_code_unless_it_may_not_be_sent() {
        assert_eq!(close_code(b""), Ok(1000));
        assert_eq!(close_code(&[&4000u16.to_be_bytes()[..], b"bye"].concat()), Ok(4000));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(close_code(&code.to_be_bytes()).unwrap_err().frame().0, 1002, "{code}");
        }
        assert_eq!(close_code(&[3]).unwrap_err().frame().0, 1002);
        assert_eq!(close_code(&[3, 232, 0xff]).unwrap_err().frame().0, 1007);
    }

    proptest! {
        #[test]
        fn text_in_any_pieces_is_judged_as_it_is_whole(
            text in prop_oneof![any::<String>().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40), "[é€𐍈]{0,9}".prop_map(String::into_bytes)],
            cuts in prop::collection::vec(1usize..5, 1..60),
        ) {
            let (mut check, mut rest, mut good) = (Utf8::default(), &text[..], true);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                good = good && check.takes(piece);
                rest = after;
            }
            good = good && check.takes(rest) && check.ends();
            prop_assert_eq!(good, std::str::from_utf8(&text).is_ok());
        }

        #[test]
        fn masks_come_off_however_the_payload_is_cut(
            payload in prop::collection::vec(any::<u8>(), 0..300), mask in any::<[u8; 4]>(), cuts in prop::collection::vec(1usize..40, 1..300)
        ) {
            let mut bytes = frame(2, true, false, &payload);
            bytes[1] |= 0x80;
            let begins = bytes.len() - payload.len();
            bytes.splice(begins..begins, mask);
            payload.iter().enumerate().for_each(|(i, byte)| bytes[begins + 4 + i] = byte ^ mask[i % 4]);
            let mut scanner = Scanner::new(From::Client, 1 << 20);
            let (mut got, mut ends, mut rest) = (Vec::<u8>::new(), 0, &mut bytes[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (mut chunk, after) = rest.split_at_mut(cut.min(rest.len()));
                rest = after;
                while !chunk.is_empty() {
                    let (taken, piece) = scanner.next(chunk).unwrap();
                    chunk = &mut chunk[taken..];
                    let Some(piece) = piece else { continue };
                    if piece.begins { scanner.take_header(); }
                    prop_assert_eq!(piece.at as usize, got.len());
                    let (data, after) = chunk.split_at_mut(piece.len);
                    scanner.unmask(&piece, data);
                    got.extend(&*data);
                    chunk = after;
                    ends += usize::from(piece.ends);
                }
            }
            prop_assert_eq!((got, ends), (payload, 1));
        }

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
