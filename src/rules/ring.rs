//! The last output of a serial port, each byte under its absolute offset: one writer, any number of
//! readers with a cursor each. Bounded: the oldest goes first, and a reader who was too slow hears how
//! much is missing.

use std::collections::VecDeque;

/// Output from [`Ring::start`] to [`Ring::end`].
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    limit: usize,
    end: u64,
}

/// What a cursor finds.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Bytes between the cursor and the piece that are no longer there.
    pub missing: u64,
    /// The bytes, in one or two parts.
    pub parts: [&'a [u8]; 2],
    /// The cursor after them.
    pub next: u64,
}

impl Piece<'_> {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ring {
    /// An empty one for at most `limit` bytes, whose first byte will have the offset `start`.
    #[must_use]
    pub fn new(limit: usize, start: u64) -> Self {
        Self { bytes: VecDeque::new(), limit, end: start }
    }

    /// The offset of the oldest byte that is still there.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// The offset that the next byte will have.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds output; the oldest goes where there is no room.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(self.limit)..];
        let over = (self.bytes.len() + kept.len()).saturating_sub(self.limit);
        self.bytes.drain(..over);
        self.bytes.extend(kept);
    }

    /// Where a reader begins who wants the last `most` bytes: at a line's start where there is one.
    #[must_use]
    pub fn tail(&self, most: usize) -> u64 {
        let skip = self.bytes.len().saturating_sub(most);
        let line = self.bytes.range(skip.saturating_sub(1)..).position(|byte| *byte == b'\n').filter(|_| skip > 0);
        self.start() + (skip + line.unwrap_or(0)) as u64
    }

    /// At most `most` bytes from `cursor` on. A cursor beyond the end is taken for the end.
    #[must_use]
    pub fn read(&self, cursor: u64, most: usize) -> Piece<'_> {
        let from = cursor.clamp(self.start(), self.end);
        let skip = (from - self.start()) as usize;
        let len = most.min(self.bytes.len() - skip);
        let (front, back) = self.bytes.as_slices();
        let cut = |part: &'_ [u8], begins: usize| {
            let at = |offset: usize| offset.saturating_sub(begins).min(part.len());
            at(skip)..at(skip + len)
        };
        let parts = [&front[cut(front, 0)], &back[cut(back, front.len())]];
        Piece { missing: from.saturating_sub(cursor), parts, next: from + len as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(piece: &Piece<'_>) -> String {
        String::from_utf8(piece.parts.concat()).unwrap()
    }

    #[test]
    fn a_reader_who_was_too_slow_hears_how_much_is_missing_and_goes_on_with_the_oldest() {
        let mut ring = Ring::new(4, 100);
        ring.push(b"abc");
        assert_eq!((ring.start(), ring.end()), (100, 103));
        let piece = ring.read(101, 9);
        assert_eq!((piece.missing, text(&piece).as_str(), piece.next), (0, "bc", 103));
        ring.push(b"defgh");
        let piece = ring.read(103, 3);
        assert_eq!((piece.missing, text(&piece).as_str(), piece.next), (1, "efg", 107));
        assert!(ring.read(108, 9).is_empty());
    }

    #[test]
    fn a_cursor_from_the_future_waits_at_the_end() {
        let mut ring = Ring::new(4, 0);
        ring.push(b"ab");
        assert_eq!(ring.read(1000, 9), Piece { missing: 0, parts: [b"", b""], next: 2 });
        assert_eq!(ring.read(u64::MAX, 9).next, 2);
    }

    #[test]
    fn the_last_bytes_begin_with_a_whole_line_where_there_is_one() {
        let mut ring = Ring::new(100, 10);
        ring.push(b"one\ntwo\nthree");
        for (most, offset) in [(100, 10), (13, 10), (12, 14), (9, 14), (8, 18), (5, 18), (4, 19), (0, 23)] {
            assert_eq!(ring.tail(most), offset, "{most}");
        }
    }

    proptest! {
        #[test]
        fn every_reader_gets_every_byte_once_or_hears_that_it_is_missing(
            limit in 1usize..40,
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), prop::collection::vec((0usize..4, 0usize..30), 0..6)), 0..40),
        ) {
            let mut ring = Ring::new(limit, 7);
            let mut all = Vec::<u8>::new();
            let mut readers = [7u64; 4];
            for (bytes, reads) in &steps {
                ring.push(bytes);
                all.extend(bytes);
                prop_assert!(ring.end() - ring.start() <= limit as u64);
                for &(who, most) in reads {
                    let piece = ring.read(readers[who], most);
                    prop_assert!(piece.len() <= most);
                    let from = (readers[who] + piece.missing - 7) as usize;
                    prop_assert_eq!(&piece.parts.concat(), &all[from..from + piece.len()]);
                    prop_assert_eq!(piece.next, readers[who] + piece.missing + piece.len() as u64);
                    readers[who] = piece.next;
                }
            }
            for reader in readers {
                let piece = ring.read(reader, usize::MAX);
                prop_assert_eq!(piece.next, ring.end());
                prop_assert!(piece.missing == 0 || reader < ring.start());
            }
        }
    }
}
