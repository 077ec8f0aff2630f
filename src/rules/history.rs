//! What a serial port said, as one stream over the files of its log: the current one and the older ones
//! that its writer has renamed. Knows what each look found, and decides what belongs where; a position
//! in the stream is told by the file that it is counted from, so it outlives the process that told it.
//!
//! libvirt's log daemon (seen: 9.0.0) renames at 2 MB, byte for byte, and makes a new file; with
//! `append='off'` it removes them all at the guest's start; a file that somebody removes is written on
//! until the next renaming, and leaves a hole in the numbers.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};

/// How many bytes a file is known by, beside its identity: who cuts a file keeps that.
pub const HEAD: usize = 64;
/// Parts that are remembered; far more than are kept on disk.
const MOST_PARTS: usize = 64;

/// A file, whatever it is renamed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(u64);

impl FileId {
    /// From its device, its inode and the time of its birth (seconds, nanoseconds), where the file
    /// system knows that: an inode's number is soon another file's.
    #[must_use]
    pub fn new(device: (u32, u32), inode: u64, birth: Option<(i64, u32)>) -> Self {
        let (seconds, nanoseconds) = birth.unwrap_or_default();
        let text = format!("{}:{} {inode} {seconds}.{nanoseconds}", device.0, device.1);
        Self(first_eight(text.as_bytes()))
    }
}

/// The first bytes of a file when a position was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: u8,
    sum: u32,
}

impl Head {
    fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HEAD)];
        let sum = (first_eight(bytes) >> 32) as u32;
        Self { length: u8::try_from(bytes.len()).unwrap_or(u8::MAX), sum }
    }

    /// Whether a file that begins with these bytes began so then.
    fn begins(self, bytes: &[u8]) -> bool {
        bytes.get(..self.length.into()).is_some_and(|bytes| Self::of(bytes) == self)
    }
}

fn first_eight(bytes: &[u8]) -> u64 {
    digest(&SHA256, bytes).as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A place in the stream: `ID:OFFSET`. The offset counts from the beginning of the file that the id names,
/// and goes on into those that came after it: who counts the bytes that follow adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    file: FileId,
    head: Head,
    offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, head, offset } = self;
        write!(f, "{:016x}{:02x}{:08x}:{offset}", file.0, head.length, head.sum)
    }
}

/// A text that is no position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no position: it is told as ID:OFFSET, with an id of 26 digits")]
pub struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (id, offset) = text.split_once(':').ok_or(BadPosition)?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if id.len() != 26 || !digits(id) || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadPosition);
        }
        let part = |range| u64::from_str_radix(&id[range], 16).map_err(|_| BadPosition);
        let length = u8::try_from(part(16..18)?).map_err(|_| BadPosition)?;
        let sum = u32::try_from(part(18..26)?).map_err(|_| BadPosition)?;
        let offset = offset.parse().map_err(|_| BadPosition)?;
        Ok(Self { file: FileId(part(0..16)?), head: Head { length, sum }, offset })
    }
}

/// A file as a look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// 0: the current one; 1: the newest of the older ones, and so on.
    pub number: u8,
    /// Which file.
    pub id: FileId,
    /// Its first [`HEAD`] bytes, or as many as it has.
    pub head: Vec<u8>,
    /// Its bytes.
    pub size: u64,
}

/// Why the stream is not whole where a part begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A file between this part and the one before has gone, or may have.
    Lost,
    /// Somebody cut the file, or wrote it anew.
    Cut,
}

/// A file's part of the stream, from `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counts the parts: files may be empty, and then begin where the next one does.
    pub serial: u64,
    /// Which file.
    pub id: FileId,
    head: Vec<u8>,
    /// The stream's offset of its first byte.
    pub start: u64,
    /// Its bytes that belong to the stream.
    pub size: u64,
    /// The stream is not whole right before it.
    pub broken: Option<Break>,
}

impl Part {
    /// The stream's offset behind its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// The stream, as far as looks have told. Offsets count from the oldest byte that the first look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    parts: VecDeque<Part>,
}

/// Where a position lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset.
    At(u64),
    /// That many bytes beyond the end: from the future, or the log was cut.
    Beyond(u64),
    /// In what was cut; all that is in the file now, from this offset on, is newer.
    Cut(u64),
    /// In a file that is no longer there.
    Gone,
}

impl Stream {
    /// What was found, the oldest first.
    #[must_use]
    pub fn parts(&self) -> &VecDeque<Part> {
        &self.parts
    }

    /// The offset of the oldest byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.parts.front().map_or(0, |part| part.start)
    }

    /// The offset behind the newest byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.parts.back().map_or(0, Part::end)
    }

    /// Takes in what a look found. `read`: up to where the stream was read; what was cut off beyond it
    /// never becomes a part of the stream.
    pub fn look(&mut self, mut found: Vec<Found>, read: u64) {
        found.sort_by_key(|file| std::cmp::Reverse(file.number));
        let mut before = None;
        let mut newer = found;
        if let Some(last) = self.parts.back() {
            if let Some(at) = newer.iter().position(|file| file.id == last.id) {
                let file = newer.remove(at);
                before = Some(file.number);
                newer.drain(..at);
                self.grown(file.size, &file.head, read);
            } else {
                // Its writer is files ahead, or somebody removed it: what is known already is older.
                newer.retain(|file| self.parts.iter().all(|part| part.id != file.id));
            }
        }
        let first = self.parts.is_empty();
        for (n, file) in newer.into_iter().enumerate() {
            let follows = before.is_some_and(|before| before == file.number + 1) || (first && n == 0);
            before = Some(file.number);
            self.add(file.id, file.head, file.size, (!follows).then_some(Break::Lost));
        }
    }

    /// Takes in what the newest file has become. `read` as in [`Stream::look`].
    pub fn grown(&mut self, size: u64, head: &[u8], read: u64) {
        let Some(last) = self.parts.back_mut() else { return };
        if size >= last.size && head.starts_with(&last.head) {
            last.size = size;
            head.clone_into(&mut last.head);
            return;
        }
        last.size = read.clamp(last.start, last.end()) - last.start;
        let id = last.id;
        self.add(id, head.to_vec(), size, Some(Break::Cut));
    }

    fn add(&mut self, id: FileId, head: Vec<u8>, size: u64, broken: Option<Break>) {
        let start = self.end();
        let serial = self.parts.back().map_or(0, |last| last.serial + 1);
        self.parts.push_back(Part { serial, id, head, start, size, broken });
        if self.parts.len() > MOST_PARTS {
            self.parts.pop_front();
        }
    }

    /// The part that the byte at `offset` is in, or will be in.
    #[must_use]
    pub fn part_at(&self, offset: u64) -> Option<&Part> {
        self.parts.iter().rev().find(|part| part.start <= offset)
    }

    /// The first part that begins behind `offset`.
    #[must_use]
    pub fn part_after(&self, offset: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.start > offset)
    }

    /// How an offset is told to who may come back to it.
    #[must_use]
    pub fn position(&self, offset: u64) -> Option<Position> {
        let part = self.part_at(offset).filter(|_| offset <= self.end())?;
        Some(Position { file: part.id, head: Head::of(&part.head), offset: offset - part.start })
    }

    /// Where a position lies that was told by this process or by another one.
    #[must_use]
    pub fn find(&self, position: &Position) -> Place {
        let mut cut = None;
        for part in self.parts.iter().rev().filter(|part| part.id == position.file) {
            if !position.head.begins(&part.head) {
                cut = cut.or(Some(Place::Cut(part.start)));
                continue;
            }
            // The file may have been cut to less: then it does not reach that far, and another one follows
            // that is the same.
            return match part.start.checked_add(position.offset) {
                Some(offset) if offset <= self.end() => Place::At(offset),
                _ => Place::Beyond((part.start.saturating_add(position.offset)).saturating_sub(self.end())),
            };
        }
        cut.unwrap_or(Place::Gone)
    }
}

#[cfg(test)]
mod tests;
