//! A forwarded console: QEMU or spice-server speaks websocket itself, its frames go through as they
//! are. Only their headers are read, in both directions: see `rules::frame`.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::control::Control;
use crate::rules::close::End;
use crate::rules::frame::{From, Kind, PING, Scanner, close_frame};

const CHUNK: usize = 64 << 10;
/// QEMU's largest frames are a screen's worth; a header that claims more is a mistake.
const LARGEST_FROM_SERVER: u64 = 1 << 32;

/// Runs until either side ends, and tells the client why; `settle` may know better what an end means.
pub async fn run(
    client: impl AsyncRead + AsyncWrite,
    early_client: Bytes,
    native: impl AsyncRead + AsyncWrite,
    early_native: Bytes,
    control: &Control,
    largest: usize,
    settle: impl AsyncFnOnce(End) -> End,
) -> End {
    let (mut from_client, to_client) = tokio::io::split(client);
    let (mut from_native, mut to_native) = tokio::io::split(native);
    let down = Down {
        to_client: RefCell::new(to_client),
        frames: RefCell::new(Scanner::new(From::Server, LARGEST_FROM_SERVER)),
        whole: Cell::new(true),
        closed: Cell::new(false),
    };
    let client_closed = Cell::new(false);

    let downwards = async {
        let mut buffer = vec![0; CHUNK];
        if let Err(end) = down.pass(&early_native, control).await {
            return end;
        }
        loop {
            tokio::select! {
                read = from_native.read(&mut buffer) => match read {
                    // It answers a client's close by closing.
                    Ok(0) | Err(_) if client_closed.get() => return End::Client,
                    Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                    Ok(n) => if let Err(end) = down.pass(&buffer[..n], control).await {
                        return end;
                    },
                    Err(why) => return End::BackendGone(format!("the guest's console failed: {why}")),
                },
                () = control.pulse.due() => if down.at_boundary() && down.write(&PING).await.is_err() {
                    return End::ClientGone;
                },
            }
        }
    };
    let upwards = async {
        let mut frames = Scanner::new(From::Client, largest as u64);
        let (mut buffer, mut out) = (vec![0; CHUNK / 4], Vec::with_capacity(CHUNK / 4));
        let mut input = early_client;
        loop {
            let before = out.len();
            match upward(&mut frames, &input, &mut out) {
                Ok(closes) => client_closed.set(client_closed.get() | closes),
                Err(end) => return end,
            }
            control.received(out.len() - before);
            if !out.is_empty() {
                if let Err(why) = to_native.write_all(&out).await {
                    return End::BackendGone(format!("the guest's console failed: {why}"));
                }
                out.clear();
            }
            match from_client.read(&mut buffer).await {
                Ok(0) if client_closed.get() => return End::Client,
                Ok(0) | Err(_) => return End::ClientGone,
                Ok(n) => {
                    control.pulse.alive();
                    input = Bytes::copy_from_slice(&buffer[..n]);
                }
            }
        }
    };
    let end = tokio::select! {
        end = downwards => end,
        end = upwards => end,
        end = control.pulse.lost(|| down.whole.get() && down.at_boundary()) => end,
        end = control.ended() => end,
    };
    let end = settle(end).await;
    down.finish(&end).await;
    end
}

/// The way to the client: its frames, and whether it is between two of them.
struct Down<W> {
    to_client: RefCell<tokio::io::WriteHalf<W>>,
    frames: RefCell<Scanner>,
    whole: Cell<bool>,
    closed: Cell<bool>,
}

impl<W: AsyncRead + AsyncWrite> Down<W> {
    fn at_boundary(&self) -> bool {
        self.frames.borrow().at_boundary() && !self.closed.get()
    }

    async fn pass(&self, input: &[u8], control: &Control) -> Result<(), End> {
        let mut rest = input;
        let mut out = Vec::with_capacity(input.len() + 14);
        while !rest.is_empty() {
            let backend = |end| match end {
                End::Protocol(_, why) => {
                    End::BackendGone(format!("the guest's console broke the websocket protocol: {why}"))
                }
                end => end,
            };
            let mut frames = self.frames.borrow_mut();
            let (taken, piece) = frames.next(rest).map_err(backend)?;
            rest = &rest[taken..];
            let Some(piece) = piece else { continue };
            if piece.begins {
                let (header, len) = frames.take_header();
                out.extend(&header[..len]);
                if piece.kind == Kind::Close {
                    self.closed.set(true);
                }
            }
            out.extend(&rest[..piece.len]);
            rest = &rest[piece.len..];
        }
        self.write(&out).await.map_err(|_| End::ClientGone)?;
        control.sent(out.len());
        Ok(())
    }

    #[allow(clippy::await_holding_refcell_ref, reason = "one writer at a time: the loop, or the end after it")]
    async fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.whole.set(false);
        let mut to_client = self.to_client.borrow_mut();
        to_client.write_all(bytes).await?;
        to_client.flush().await?;
        self.whole.set(true);
        Ok(())
    }

    /// Says why it ended, where a frame may still be put, and closes.
    #[allow(clippy::await_holding_refcell_ref, reason = "the loops have ended: nobody else writes")]
    async fn finish(&self, end: &End) {
        let tell = !matches!(end, End::Client | End::ClientGone) && self.whole.get() && self.at_boundary();
        let closing = async {
            if tell {
                self.write(&close_frame(end)).await?;
            }
            let mut to_client = self.to_client.borrow_mut();
            to_client.shutdown().await
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), closing).await;
    }
}

/// Passes a client's frames on, but for pongs: those answer our pings. True when it closes.
fn upward(frames: &mut Scanner, input: &[u8], out: &mut Vec<u8>) -> Result<bool, End> {
    let (mut rest, mut closes) = (input, false);
    while !rest.is_empty() {
        let (taken, piece) = frames.next(rest)?;
        rest = &rest[taken..];
        let Some(piece) = piece else { continue };
        let pass = piece.kind != Kind::Pong;
        if piece.begins {
            let (header, len) = frames.take_header();
            closes |= piece.kind == Kind::Close;
            if pass {
                out.extend(&header[..len]);
            }
        }
        if pass {
            out.extend(&rest[..piece.len]);
        }
        rest = &rest[piece.len..];
    }
    Ok(closes)
}
