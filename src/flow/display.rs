//! A bridged display: websocket towards the client, the raw stream towards QEMU. A slow client slows
//! its own display and nothing else: the next bytes are read when the last ones have gone out. Of a client that
//! may only look on the guest gets what `rules::rfb` passes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::control::Control;
use crate::edges::websocket::{Frame, Receiver, Sender};
use crate::rules::close::End;
use crate::rules::rfb::ViewOnly;
use crate::rules::ticket::Mode;

/// The most bytes of one read, and so of one frame: at first, which is enough for a quiet screen, and once a
/// read has filled it. With its frame's header of 4 bytes each fills whole TLS records (RFC 8446, 5.1: 2^14).
const CHUNK: [usize; 2] = [(16 << 10) - 4, (64 << 10) - 4];

/// Runs until either side ends.
pub async fn run(
    sender: &mut Sender,
    receiver: &mut Receiver,
    backend: impl AsyncRead + AsyncWrite,
    control: &Control,
) -> End {
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let sender = Mutex::new(sender);
    let down = async {
        let mut frame = Frame::with_capacity(CHUNK[0]);
        frame.resize(CHUNK[0]);
        loop {
            match from_backend.read(frame.payload()).await {
                Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                Ok(n) => {
                    if let Err(end) = sender.lock().await.send(&mut frame, n).await {
                        return end;
                    }
                    control.sent(n);
                    if n == CHUNK[0] {
                        frame.resize(CHUNK[1]);
                    }
                }
                Err(why) => return End::BackendGone(format!("the guest's console failed: {why}")),
            }
        }
    };
    let up = async {
        let mut takes_input = true;
        let mut filter = (control.entry.mode == Mode::View).then(ViewOnly::default);
        let mut passed = Vec::new();
        loop {
            let mut bytes = match control.hear(receiver, &sender).await {
                Ok(bytes) => bytes,
                Err(end) => return end,
            };
            let mut denied = None;
            if let Some(filter) = &mut filter {
                passed.clear();
                denied = filter.take(bytes, &mut passed).err();
                bytes = &passed;
            }
            control.received(bytes.len());
            // A backend that takes no more may have said something before: `down` reads that, and its end.
            takes_input = takes_input && control.pulse.while_deaf(to_backend.write_all(bytes)).await.is_ok();
            if let Some(why) = denied {
                return End::Denied(why.to_string());
            }
        }
    };
    tokio::select! {
        end = down => end,
        end = up => end,
        end = control.send_pings(&sender) => end,
        end = control.pulse.lost(|| sender.try_lock().is_ok()) => end,
        end = control.ended() => end,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{INTERVAL, control, from_client, next, view_only, websocket};
    use super::*;
    use crate::rules::guest::Console;
    use std::cell::Cell;
    use tokio::io::duplex;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_holds_its_backend_up_and_is_lost_after_three_intervals() {
        let (mut sender, mut receiver, _client) = websocket(1000);
        let (backend, mut guest) = duplex(1000);
        let (control, _seat) = control(Console::Vnc);
        let (start, said) = (Instant::now(), Cell::new(0));
        let saying = async {
            loop {
                said.set(said.get() + guest.write(&[b'x'; 100]).await.unwrap());
            }
        };
        let end = tokio::select! {
            end = run(&mut sender, &mut receiver, backend, &control) => end,
            () = saying => unreachable!(),
        };
        assert_eq!((end, start.elapsed()), (End::ClientLost, 3 * INTERVAL));
        assert!(said.get() <= 2 * CHUNK[1], "{}", said.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_little_at_a_time_is_served_for_as_long_as_it_does() {
        let (mut sender, mut receiver, mut client) = websocket(100);
        let (backend, mut guest) = duplex(1000);
        let (control, _seat) = control(Console::Vnc);
        let start = Instant::now();
        let script = async {
            let saying = async { while guest.write_all(&[b'x'; 100]).await.is_ok() {} };
            let taking = async {
                // It answers no ping: its answers would stand behind what it has not read yet.
                for _ in 0..20 {
                    tokio::time::sleep(INTERVAL * 19 / 20).await;
                    let before = control.entry.out.get();
                    while control.entry.out.get() < before + 1000 {
                        next(&mut client).await.unwrap();
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::join!(saying, taking);
        };
        let end = tokio::select! {
            end = run(&mut sender, &mut receiver, backend, &control) => end,
            () = script => unreachable!(),
        };
        assert_eq!(end, End::ClientLost);
        assert!(start.elapsed() > 21 * INTERVAL, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_a_backend_said_is_sent_before_its_end_is() {
        let (mut sender, mut receiver, mut client) = websocket(100);
        let (backend, mut guest) = duplex(200_000);
        let (control, _seat) = control(Console::Vnc);
        guest.write_all(&vec![b'z'; 150_000]).await.unwrap();
        drop(guest);
        let reading = async {
            let mut got = 0;
            while let Some((_, payload)) = next(&mut client).await {
                got += payload.len();
            }
            got
        };
        let running = async {
            let end = run(&mut sender, &mut receiver, backend, &control).await;
            drop((sender, receiver));
            end
        };
        let (end, got) = tokio::join!(running, reading);
        assert_eq!((end, got), (End::BackendGone("the guest closed the console".to_owned()), 150_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_view_only_client_does_reaches_the_guest_only_as_far_as_it_shows_and_counts_as_far() {
        let (mut sender, mut receiver, mut client) = websocket(10_000);
        let (backend, mut guest) = duplex(10_000);
        let (control, _seat) = view_only(Console::Vnc);
        let script = async {
            // A key between two requests for the screen, cut in the middle; then what nobody knows.
            let stream = b"RFB 003.008\n\x01\x00\x03\x01\0\0\0\0\0\x01\0\x01\x04\x01\0\0\0\0\xff\x0d\x03\x00\0\0\0\0\0\x01\0\x01\x63";
            for piece in stream.chunks(17) {
                client.write_all(&from_client(0x82, piece)).await.unwrap();
            }
            let mut got = Vec::new();
            guest.read_to_end(&mut got).await.unwrap();
            got
        };
        let running = async {
            let end = run(&mut sender, &mut receiver, backend, &control).await;
            drop((sender, receiver));
            end
        };
        let (end, got) = tokio::join!(running, script);
        let expected = b"RFB 003.008\n\x01\x01\x03\x01\0\0\0\0\0\x01\0\x01\x03\x00\0\0\0\0\0\x01\0\x01";
        assert_eq!(got, expected);
        assert_eq!(control.entry.input.get(), expected.len() as u64);
        let (code, words) = end.frame();
        assert_eq!((code, words.ends_with("a type that is not known: 99")), (4403, true), "{words}");
    }
}
