//! View-only VNC: which of a client's bytes reach the guest (RFC 6143, and the extensions that its registry of
//! message types lists). A list of what passes: what is not on it is dropped by its length, and what has no known
//! length ends the session, as nobody can say where the next message begins.
//!
//! The stream comes in pieces of any size. Nothing is kept of it but the head of one message.

/// The bytes of `ProtocolVersion`; no message needs as many to tell its length.
const VERSION: usize = 12;

/// A client's stream on its way to a guest that nobody may touch.
#[derive(Debug)]
pub struct ViewOnly {
    expects: Expects,
    /// What has come of that, of what has to be seen before anything is passed on.
    head: [u8; VERSION],
    got: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Version,
    SecurityType,
    /// The answer to `VncAuth`'s challenge; so many bytes are left.
    Response(u64),
    ClientInit,
    Message,
    /// The rest of a message.
    Rest {
        left: u64,
        passes: bool,
    },
}

/// Why a stream cannot be filtered any further, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this session is view-only, and {0}")]
pub struct Unfilterable(String);

/// What a message's first bytes tell of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// So many of its bytes have to be seen first.
    Needs(usize),
    /// All of its bytes.
    Is(u64),
}

impl Default for ViewOnly {
    fn default() -> Self {
        Self { expects: Expects::Version, head: [0; VERSION], got: 0 }
    }
}

impl ViewOnly {
    /// Takes what the client sent, and adds to `out` what of it the guest gets. After an error it is not to be
    /// called again; what was added before is good.
    pub fn take(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Unfilterable> {
        while !input.is_empty() {
            input = match self.expects {
                Expects::Version => self.version(input, out)?,
                Expects::SecurityType => self.security_type(input, out)?,
                Expects::Response(left) => {
                    let (piece, rest, left) = cut(input, left);
                    out.extend_from_slice(piece);
                    self.expects = if left == 0 { Expects::ClientInit } else { Expects::Response(left) };
                    rest
                }
                Expects::ClientInit => {
                    // The shared-flag: who looks on sends nobody away.
                    out.push(1);
                    self.expects = Expects::Message;
                    &input[1..]
                }
                Expects::Message => self.message(input, out)?,
                Expects::Rest { left, passes } => {
                    let (piece, rest, left) = cut(input, left);
                    if passes {
                        out.extend_from_slice(piece);
                    }
                    self.expects = if left == 0 { Expects::Message } else { Expects::Rest { left, passes } };
                    rest
                }
            };
        }
        Ok(())
    }

    /// Fills the head up to so many bytes; what is left of the input.
    fn fill<'a>(&mut self, upto: usize, input: &'a [u8]) -> &'a [u8] {
        let (piece, rest) = input.split_at(input.len().min(upto - self.got));
        self.head[self.got..self.got + piece.len()].copy_from_slice(piece);
        self.got += piece.len();
        rest
    }

    fn version<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Unfilterable> {
        let rest = self.fill(VERSION, input);
        if self.got < VERSION {
            return Ok(rest);
        }
        match &self.head {
            b"RFB 003.007\n" | b"RFB 003.008\n" => {}
            // The server alone decides then how the client proves itself, and that is not in this stream.
            b"RFB 003.003\n" => return unfilterable("RFB 3.3 cannot be filtered: use a client that speaks 3.8"),
            _ => return unfilterable("the client speaks no version of RFB that is known here (3.7, 3.8)"),
        }
        out.extend_from_slice(&self.head);
        (self.got, self.expects) = (0, Expects::SecurityType);
        Ok(rest)
    }

    fn security_type<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Unfilterable> {
        self.expects = match input[0] {
            1 => Expects::ClientInit,
            2 => Expects::Response(16),
            other => {
                return unfilterable(format!("RFB security type {other} cannot be filtered (1 and 2 can)"));
            }
        };
        out.push(input[0]);
        Ok(&input[1..])
    }

    /// The head of a message, until it tells the length.
    fn message<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Unfilterable> {
        let mut rest = input;
        let length = loop {
            match length(&self.head[..self.got])? {
                Length::Is(length) => break length,
                Length::Needs(_) if rest.is_empty() => return Ok(rest),
                Length::Needs(bytes) => rest = self.fill(bytes, rest),
            }
        };
        let (passes, seen) = (passes(self.head[0]), std::mem::take(&mut self.got));
        if passes {
            out.extend_from_slice(&self.head[..seen]);
        }
        let left = length - seen as u64;
        self.expects = if left == 0 { Expects::Message } else { Expects::Rest { left, passes } };
        Ok(rest)
    }
}

/// `SetPixelFormat`, `SetEncodings`, `FramebufferUpdateRequest`, `EnableContinuousUpdates`, `Fence`: what a screen
/// needs to be shown, and does nothing to the guest.
fn passes(message: u8) -> bool {
    matches!(message, 0 | 2 | 3 | 150 | 248)
}

/// A message's length, header included, as far as its first bytes tell it. It is never less than those.
fn length(head: &[u8]) -> Result<Length, Unfilterable> {
    let u16_at = |at: usize| u64::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let needs = |bytes: usize| head.len() < bytes;
    let Some(message) = head.first() else { return Ok(Length::Needs(1)) };
    Ok(match message {
        // SetPixelFormat
        0 => Length::Is(20),
        // SetEncodings: a count of 4 bytes each
        2 if needs(4) => Length::Needs(4),
        2 => Length::Is(4 + 4 * u16_at(2)),
        // FramebufferUpdateRequest, EnableContinuousUpdates
        3 | 150 => Length::Is(10),
        // KeyEvent
        4 => Length::Is(8),
        // PointerEvent
        5 => Length::Is(6),
        // ClientCutText: a length, which is negative where the extended clipboard is meant
        6 if needs(8) => Length::Needs(8),
        6 => Length::Is(8 + u64::from(i32::from_be_bytes([head[4], head[5], head[6], head[7]]).unsigned_abs())),
        // Fence: at most 64 bytes of payload
        248 if needs(9) => Length::Needs(9),
        248 if head[8] > 64 => return unfilterable("the client sent a Fence with more than 64 bytes"),
        248 => Length::Is(9 + u64::from(head[8])),
        // xvp: power buttons
        250 => Length::Is(4),
        // SetDesktopSize: a count of screens, 16 bytes each
        251 if needs(7) => Length::Needs(7),
        251 => Length::Is(8 + 16 * u64::from(head[6])),
        // QEMU's own
        255 if needs(2) => Length::Needs(2),
        255 => qemu_length(head)?,
        other => return unfilterable(format!("the client sent an RFB message of a type that is not known: {other}")),
    })
}

fn qemu_length(head: &[u8]) -> Result<Length, Unfilterable> {
    Ok(match head[1] {
        // Extended key event
        0 => Length::Is(12),
        // Audio: enable, disable, or a sample format
        1 if head.len() < 4 => Length::Needs(4),
        1 => match [head[2], head[3]] {
            [0, 0 | 1] => Length::Is(4),
            [0, 2] => Length::Is(10),
            [a, b] => {
                let operation = u16::from_be_bytes([a, b]);
                return unfilterable(format!("the client sent a QEMU audio message that is not known: {operation}"));
            }
        },
        other => return unfilterable(format!("the client sent a QEMU message that is not known: 255/{other}")),
    })
}

/// At most so many bytes of the input, the others, and how many are still to come.
fn cut(input: &[u8], left: u64) -> (&[u8], &[u8], u64) {
    let now = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let (piece, rest) = input.split_at(now);
    (piece, rest, left - now as u64)
}

fn unfilterable<T>(words: impl Into<String>) -> Result<T, Unfilterable> {
    Err(Unfilterable(words.into()))
}

#[cfg(test)]
mod tests;
