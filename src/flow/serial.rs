//! A text console for one client. Its backend is always read, whatever the client does: held and
//! unread it would freeze the guest's kernel at its next message. What the client is too slow for is
//! dropped, oldest first, and the gap is shown.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, Notify, mpsc};

use super::control::Control;
use crate::edges::websocket::{Incoming, Receiver, Sender};
use crate::rules::close::End;
use crate::rules::ticket::Mode;

/// The most bytes of one frame.
const CHUNK: usize = 16 << 10;
/// Messages of input that wait for a guest that does not read; beyond it the client waits. Each may be
/// as long as a frame.
const INPUT: usize = 4;
/// How long a client has to take what a guest said last.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Output that waits for the client: bounded, the oldest goes first.
#[derive(Debug)]
pub struct Outbox {
    bytes: VecDeque<u8>,
    limit: usize,
    dropped: u64,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, dropped: 0 }
    }

    /// Adds output; returns how many bytes had to go for it.
    pub fn push(&mut self, bytes: &[u8]) -> u64 {
        let over = (self.bytes.len() + bytes.len()).saturating_sub(self.limit);
        let old = over.min(self.bytes.len());
        self.bytes.drain(..old);
        self.bytes.extend(&bytes[over - old..]);
        self.dropped += over as u64;
        over as u64
    }

    /// The next frame's payload, with a notice before it where output is missing.
    pub fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.bytes.is_empty() {
            return None;
        }
        let mut payload = Vec::with_capacity(most.min(self.bytes.len()) + 64);
        if self.dropped > 0 {
            let notice = format!("\r\n[console-proxy: {} bytes were dropped here]\r\n", self.dropped);
            payload.extend(notice.as_bytes());
            self.dropped = 0;
        }
        let n = most.min(self.bytes.len());
        payload.extend(self.bytes.drain(..n));
        Some(payload.into())
    }
}

/// Runs until either side ends.
pub async fn run(
    sender: &mut Sender,
    receiver: &mut Receiver,
    backend: impl AsyncRead + AsyncWrite,
    control: &Control,
    buffer: usize,
) -> End {
    let (from_backend, to_backend) = tokio::io::split(backend);
    let output = Output { waiting: RefCell::new(Outbox::new(buffer)), arrived: Notify::new() };
    let sender = Mutex::new(sender);
    let (input, typed) = tokio::sync::mpsc::channel::<Bytes>(INPUT);
    let end = tokio::select! {
        end = output.read(from_backend, control) => end,
        end = output.write(&sender, control) => end,
        end = receive(receiver, input, control) => end,
        end = type_in(typed, to_backend) => end,
        end = control.send_pings(&sender) => end,
        end = control.pulse.lost(|| sender.try_lock().is_ok()) => end,
        end = control.ended() => end,
    };
    // The last words of a guest that stops are often the ones that matter.
    if matches!(end, End::BackendGone(_)) {
        let _ = tokio::time::timeout(LAST_WORDS, output.write_rest(&sender, control)).await;
    }
    end
}

/// The way from the guest to the client: what was read waits here until the client takes it.
struct Output {
    waiting: RefCell<Outbox>,
    arrived: Notify,
}

impl Output {
    async fn read(&self, mut backend: impl AsyncRead + Unpin, control: &Control) -> End {
        let mut bytes = vec![0; CHUNK];
        loop {
            match backend.read(&mut bytes).await {
                Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                Ok(n) => {
                    let dropped = self.waiting.borrow_mut().push(&bytes[..n]);
                    control.entry.dropped.set(control.entry.dropped.get() + dropped);
                    self.arrived.notify_one();
                }
                Err(why) => return End::BackendGone(format!("the guest's console failed: {why}")),
            }
        }
    }

    async fn write(&self, sender: &Mutex<&mut Sender>, control: &Control) -> End {
        loop {
            if let Err(end) = self.write_rest(sender, control).await {
                return end;
            }
            self.arrived.notified().await;
        }
    }

    async fn write_rest(&self, sender: &Mutex<&mut Sender>, control: &Control) -> Result<(), End> {
        loop {
            // First the lock: what is taken must not be lost when this is cancelled.
            let mut sender = sender.lock().await;
            let payload = self.waiting.borrow_mut().take(CHUNK);
            let Some(payload) = payload else { return Ok(()) };
            let n = payload.len();
            sender.send(payload).await?;
            control.sent(n);
        }
    }
}

/// Reads the client. It waits where the guest takes no input and enough of it is kept.
async fn receive(receiver: &mut Receiver, input: mpsc::Sender<Bytes>, control: &Control) -> End {
    loop {
        let bytes = match receiver.next().await {
            Ok(Incoming::Data(bytes)) => bytes,
            Ok(Incoming::Alive) => Bytes::new(),
            Err(end) => return end,
        };
        control.pulse.alive();
        // View-only is enforced here, not by the page.
        if control.entry.mode == Mode::Control && !bytes.is_empty() {
            control.received(bytes.len());
            // It is closed where the guest takes no more: then what it said before is still to be read.
            let _ = control.pulse.while_deaf(input.send(bytes)).await;
        }
    }
}

async fn type_in(mut typed: mpsc::Receiver<Bytes>, mut backend: impl AsyncWrite + Unpin) -> End {
    while let Some(bytes) = typed.recv().await {
        if backend.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(typed);
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::super::testing::{INTERVAL, control, from_client, next, websocket};
    use super::*;
    use crate::rules::guest::Console;
    use proptest::prelude::*;
    use tokio::io::duplex;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_guest_says_a_megabyte_in_no_time_to_a_client_that_takes_nothing_and_is_lost_in_the_end() {
        let (mut sender, mut receiver, _client) = websocket(4096).await;
        let (backend, mut guest) = duplex(1000);
        let (control, seat) = control(Console::Serial(0));
        let start = Instant::now();
        let saying = async {
            guest.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO);
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = run(&mut sender, &mut receiver, backend, &control, 10_000) => end,
            () = saying => unreachable!(),
        };
        // In the first interval it took what there was room for.
        assert_eq!((end, start.elapsed()), (End::ClientLost, 4 * INTERVAL));
        let under_way = 1_000_000 - seat.entry.dropped.get();
        assert!((10_000..10_000 + 2 * CHUNK as u64).contains(&under_way), "{under_way}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_guest_said_last_reaches_its_client_and_a_client_that_takes_nothing_is_waited_for_a_second() {
        for takes in [true, false] {
            let (mut sender, mut receiver, mut client) = websocket(100).await;
            let (backend, mut guest) = duplex(100_000);
            let (control, _seat) = control(Console::Serial(0));
            guest.write_all(&vec![b'z'; 50_000]).await.unwrap();
            drop(guest);
            let start = Instant::now();
            let reading = async {
                let mut got = 0;
                while takes && got < 50_000 {
                    got += next(&mut client).await.unwrap().1.len();
                }
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                end = run(&mut sender, &mut receiver, backend, &control, 100_000) => end,
                () = reading => unreachable!(),
            };
            assert_eq!(end, End::BackendGone("the guest closed the console".to_owned()));
            let (out, time) = if takes { (50_000, Duration::ZERO) } else { (0, LAST_WORDS) };
            assert_eq!((control.entry.out.get(), start.elapsed()), (out, time));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_lost_while_the_guest_takes_no_input_and_its_answers_stand_behind_what_it_typed() {
        let (mut sender, mut receiver, mut client) = websocket(1000).await;
        let (backend, mut guest) = duplex(10);
        let (control, _seat) = control(Console::Serial(0));
        let start = Instant::now();
        let script = async {
            // More than is kept for the guest: the rest waits, and with it all that the client says later.
            for _ in 0..INPUT + 2 {
                client.write_all(&from_client(0x82, &[b'k'; 100])).await.unwrap();
            }
            tokio::time::sleep(10 * INTERVAL).await;
            let mut typed = vec![0; (INPUT + 2) * 100];
            guest.read_exact(&mut typed).await.unwrap();
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = run(&mut sender, &mut receiver, backend, &control, 10_000) => end,
            () = script => unreachable!(),
        };
        assert_eq!(end, End::ClientLost);
        assert_eq!(start.elapsed(), 12 * INTERVAL, "two pings were not answered since it could be heard again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_its_time_is_over_to_the_moment() {
        let (mut sender, mut receiver, mut client) = websocket(1000).await;
        let (backend, _guest) = duplex(10);
        let (mut control, _seat) = control(Console::Serial(0));
        control.deadline = Instant::now() + Duration::from_millis(61_234);
        let start = Instant::now();
        let answering = async {
            while let Some((first, _)) = next(&mut client).await {
                assert_eq!(first, 0x89);
                client.write_all(&from_client(0x8A, b"")).await.unwrap();
            }
        };
        let end = tokio::select! {
            end = run(&mut sender, &mut receiver, backend, &control, 10_000) => end,
            () = answering => unreachable!(),
        };
        assert_eq!((end, start.elapsed()), (End::SessionEnded, Duration::from_millis(61_234)));
    }

    #[test]
    fn the_oldest_goes_first_and_the_gap_is_said_once() {
        let mut outbox = Outbox::new(4);
        assert_eq!(outbox.push(b"abc"), 0);
        assert_eq!(outbox.push(b"def"), 2);
        assert_eq!(outbox.take(100).unwrap(), "\r\n[console-proxy: 2 bytes were dropped here]\r\ncdef");
        assert_eq!(outbox.take(100), None);
        assert_eq!(outbox.push(b"0123456789"), 6);
        assert_eq!(outbox.take(2).unwrap(), "\r\n[console-proxy: 6 bytes were dropped here]\r\n67");
        assert_eq!(outbox.take(2).unwrap(), "89");
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_its_limit_and_counts_every_byte(
            pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..40), limit in 1usize..100
        ) {
            let mut outbox = Outbox::new(limit);
            let (mut all, mut dropped) = (Vec::<u8>::new(), 0);
            for bytes in &pushes {
                all.extend(bytes);
                dropped += outbox.push(bytes) as usize;
                prop_assert!(outbox.bytes.len() <= limit);
            }
            outbox.dropped = 0;
            let rest = outbox.take(usize::MAX >> 1).unwrap_or_default();
            prop_assert_eq!(&all[dropped..], &rest[..]);
        }
    }
}
