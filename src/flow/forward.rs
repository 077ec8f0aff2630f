//! A forwarded console: QEMU or spice-server speaks websocket itself, its frames go through as they
//! are. Only their headers are read, in both directions: see `rules::frame`.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::control::Control;
use crate::edges::http::linger;
use crate::rules::close::End;
use crate::rules::frame::{From, Kind, PING, Scanner, close_frame};

const CHUNK: usize = 64 << 10;
/// QEMU's largest frames are a screen's worth; a header that claims more is a mistake.
const LARGEST_FROM_SERVER: u64 = 1 << 32;
/// How long a client has to take a close frame.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs until either side ends, and tells the client why; `settle` may know better what an end means.
pub async fn run(
    client: impl AsyncRead + AsyncWrite + Unpin,
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
                    Ok(0) | Err(_) if client_closed.get() => return End::Client(1000),
                    Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                    Ok(n) => if let Err(end) = down.pass(&buffer[..n], control).await {
                        return end;
                    },
                    Err(why) => return End::BackendGone(format!("the guest's console failed: {why}")),
                },
                () = control.pulse.due() => if down.is_free() && down.write(&PING).await.is_err() {
                    return End::ClientGone;
                },
            }
        }
    };
    let upwards = async {
        let mut frames = Scanner::new(From::Client, largest as u64);
        let (mut buffer, mut out) = (vec![0; CHUNK / 4], Vec::with_capacity(CHUNK / 4));
        let (mut input, mut takes_input) = (early_client, true);
        loop {
            // Pongs answer our own pings.
            let (closes, copied) = copy_frames(&mut frames, &input, &mut out, |kind| kind != Kind::Pong);
            client_closed.set(client_closed.get() | closes);
            if let Err(end) = copied {
                return end;
            }
            control.received(out.len());
            if !out.is_empty() {
                // A backend that takes no more may have said something before: `downwards` reads that, and its end.
                takes_input = takes_input && control.pulse.while_deaf(to_native.write_all(&out)).await.is_ok();
                out.clear();
            }
            match from_client.read(&mut buffer).await {
                Ok(0) if client_closed.get() => return End::Client(1000),
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
        end = control.pulse.lost(|| down.is_free()) => end,
        end = control.ended() => end,
    };
    let end = settle(end).await;
    let tell = !matches!(end, End::Client(_) | End::ClientGone) && down.is_free();
    let mut client = from_client.unsplit(down.to_client.into_inner());
    let closing = async {
        if tell {
            client.write_all(&close_frame(&end)).await?;
        }
        linger(&mut client).await;
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(CLOSING, closing).await;
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
    /// Whether a frame of our own may be put in now.
    fn is_free(&self) -> bool {
        self.whole.get() && self.frames.borrow().at_boundary() && !self.closed.get()
    }

    async fn pass(&self, input: &[u8], control: &Control) -> Result<(), End> {
        let mut out = Vec::with_capacity(input.len() + 14);
        let (closes, scanned) = copy_frames(&mut self.frames.borrow_mut(), input, &mut out, |_| true);
        self.closed.set(self.closed.get() | closes);
        // The frames before a bad one are good.
        self.write(&out).await.map_err(|_| End::ClientGone)?;
        control.sent(out.len());
        scanned.map_err(|end| match end {
            End::Protocol(_, why) => {
                End::BackendGone(format!("the guest's console broke the websocket protocol: {why}"))
            }
            end => end,
        })
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
}

/// Copies the frames of a kind that `passes` from input to `out`, up to one that RFC 6455 forbids; tells
/// whether a close frame began.
fn copy_frames(
    frames: &mut Scanner,
    input: &[u8],
    out: &mut Vec<u8>,
    passes: impl Fn(Kind) -> bool,
) -> (bool, Result<(), End>) {
    let (mut rest, mut closes) = (input, false);
    while !rest.is_empty() {
        let (taken, piece) = match frames.next(rest) {
            Ok(next) => next,
            Err(end) => return (closes, Err(end)),
        };
        rest = &rest[taken..];
        let Some(piece) = piece else { continue };
        if piece.begins {
            let (header, len) = frames.take_header();
            closes |= piece.kind == Kind::Close;
            if passes(piece.kind) {
                out.extend(&header[..len]);
            }
        }
        if passes(piece.kind) {
            out.extend(&rest[..piece.len]);
        }
        rest = &rest[piece.len..];
    }
    (closes, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{INTERVAL, control, from_client, next};
    use super::*;
    use crate::rules::guest::Console;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    /// Runs a session while the script plays client and backend; what the client got in the end, too.
    async fn play<S: Future<Output = DuplexStream>>(
        control: &Control,
        script: impl FnOnce(DuplexStream, DuplexStream) -> S,
    ) -> (End, Vec<u8>) {
        let ((client, client_end), (native, native_end)) = (duplex(10_000), duplex(10_000));
        let running = run(client, Bytes::new(), native, Bytes::new(), control, 1 << 20, async |end| end);
        let playing = script(client_end, native_end);
        let (end, mut client) = tokio::join!(running, playing);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        (end, got)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_goes_between_two_frames_and_never_into_one() {
        let (mut control, _seat) = control(Console::Vnc);
        control.deadline = Instant::now() + INTERVAL * 5 / 2;
        let (end, got) = play(&control, async |client, mut native| {
            native.write_all(b"\x82\x0ahello").await.unwrap();
            // A ping is due now, and cannot go out.
            sleep(INTERVAL + Duration::from_secs(1)).await;
            native.write_all(b"world").await.unwrap();
            // The next one is due, and half a header is no frame yet.
            native.write_all(b"\x82").await.unwrap();
            sleep(INTERVAL).await;
            native.write_all(b"\x01!").await.unwrap();
            sleep(INTERVAL).await;
            client
        })
        .await;
        assert_eq!(end, End::TIME_OUT);
        let expected = [b"\x82\x0ahelloworld", &PING[..], b"\x82\x01!", &close_frame(&end)].concat();
        assert_eq!(got, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn no_close_frame_goes_into_a_frame_either() {
        let (mut control, _seat) = control(Console::Vnc);
        control.deadline = Instant::now() + Duration::from_secs(5);
        let (end, got) = play(&control, async |client, mut native| {
            native.write_all(b"\x82\x0ahello").await.unwrap();
            sleep(Duration::from_secs(10)).await;
            client
        })
        .await;
        assert_eq!((end, got), (End::TIME_OUT, b"\x82\x0ahello".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn good_frames_before_a_bad_one_are_passed_on_and_the_client_hears_why() {
        let (control, _seat) = control(Console::Vnc);
        let (end, got) = play(&control, async |client, mut native| {
            native.write_all(b"\x82\x02ok\x83\x01x").await.unwrap();
            sleep(Duration::from_secs(1)).await;
            client
        })
        .await;
        let words = "the guest's console broke the websocket protocol: an opcode that is not known";
        assert_eq!(end, End::BackendGone(words.to_owned()));
        assert_eq!(got, [b"\x82\x02ok".to_vec(), close_frame(&end)].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn pongs_are_kept_here_however_they_are_cut_and_data_around_them_is_not() {
        let (control, _seat) = control(Console::Vnc);
        let all =
            [from_client(0x82, b"one"), from_client(0x8A, b"pong"), from_client(0x02, b"two"), from_client(0x8A, b"")]
                .concat();
        let rest = from_client(0x80, b"three");
        let (end, _) = play(&control, async |mut client, mut native| {
            for byte in all.iter().chain(&rest) {
                client.write_all(&[*byte]).await.unwrap();
            }
            let expected = [from_client(0x82, b"one"), from_client(0x02, b"two"), rest.clone()].concat();
            let mut got = vec![0; expected.len()];
            native.read_exact(&mut got).await.unwrap();
            assert_eq!(got, expected);
            client.shutdown().await.unwrap();
            sleep(Duration::from_secs(5)).await;
            drop(native);
            client
        })
        .await;
        assert_eq!(end, End::ClientGone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_nothing_is_lost_after_three_intervals() {
        let (control, _seat) = control(Console::Vnc);
        let start = Instant::now();
        let (end, got) = play(&control, async |client, native| {
            sleep(4 * INTERVAL).await;
            drop(native);
            client
        })
        .await;
        assert_eq!(end, End::ClientLost);
        assert_eq!(got, [&PING[..], &PING, &close_frame(&end)].concat());
        assert!(start.elapsed() >= 3 * INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clients_close_is_the_backends_to_answer_and_no_second_one_follows() {
        let (control, _seat) = control(Console::Vnc);
        let (end, got) = play(&control, async |mut client, mut native| {
            client.write_all(&from_client(0x88, b"\x03\xe8")).await.unwrap();
            let mut asked = [0; 8];
            native.read_exact(&mut asked).await.unwrap();
            native.write_all(b"\x88\x02\x03\xe8").await.unwrap();
            drop(native);
            assert_eq!(next(&mut client).await, Some((0x88, vec![3, 0xe8])));
            client
        })
        .await;
        assert_eq!((end, got), (End::Client(1000), Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_backends_own_close_there_is_no_ping_and_no_second_close() {
        let (mut control, _seat) = control(Console::Vnc);
        control.deadline = Instant::now() + 2 * INTERVAL;
        let (end, got) = play(&control, async |client, mut native| {
            native.write_all(b"\x88\x02\x03\xe9").await.unwrap();
            sleep(3 * INTERVAL).await;
            client
        })
        .await;
        assert_eq!((end, got), (End::TIME_OUT, b"\x88\x02\x03\xe9".to_vec()));
    }
}
