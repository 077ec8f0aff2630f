//! One viewer of a serial port: shows it the hub's output from its own cursor on, and types what it
//! sends. What it is too slow for is left out, and the gap is shown.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Mutex;

use super::control::Control;
use super::hub::{Before, Hub};
use super::past::{Mark, Past};
use crate::edges::websocket::{Frame, Receiver, Sender};
use crate::rules::close::End;
use crate::rules::history::Place;
use crate::rules::ticket::Mode;
use crate::rules::told::{self, Told, Wish};

/// The most bytes of one frame.
const CHUNK: usize = 32 << 10;
/// Who joins others sees at most that much of what they have seen.
const JOINED: usize = 16 << 10;
/// How long a client has to take what a guest said last.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs until either side ends.
pub async fn run(sender: &mut Sender, receiver: &mut Receiver, hub: &Hub, control: &Control, wanted: Wanted) -> End {
    let viewer = Viewer::new(hub, &wanted);
    let sender = Mutex::new(sender);
    let end = tokio::select! {
        end = viewer.show(&sender, control) => end,
        end = viewer.receive(receiver, &sender, control) => end,
        end = control.send_pings(&sender) => end,
        end = control.pulse.lost(|| sender.try_lock().is_ok()) => end,
        end = control.ended() => end,
        end = viewer.watch_port(control) => end,
    };
    // The last words of a guest that stops are often the ones that matter.
    if matches!(end, End::BackendGone(_)) {
        let _ = tokio::time::timeout(LAST_WORDS, viewer.show_rest(&sender, control)).await;
    }
    end
}

/// What a viewer wants to see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// What it asks for.
    pub wish: Wish,
    /// It tells text messages from binary ones.
    pub listens: bool,
    /// Bytes of the past that it gets where it asks for nothing.
    pub history: u64,
}

struct Viewer<'a> {
    hub: &'a Hub,
    listens: bool,
    cursor: Cell<u64>,
    /// Bytes that it was told are missing.
    dropped: Cell<u64>,
    /// To be told before the next byte.
    told: RefCell<Vec<Told>>,
    /// The mark that was told last stands at this offset.
    marked: Cell<Option<u64>>,
    /// The file that the position was told by last.
    file: Cell<Option<u64>>,
}

impl<'a> Viewer<'a> {
    fn new(hub: &'a Hub, wanted: &Wanted) -> Self {
        let (cursor, notice) = begin(hub, wanted);
        let viewer = Self {
            hub,
            listens: wanted.listens,
            cursor: Cell::new(cursor),
            dropped: Cell::new(0),
            told: RefCell::default(),
            marked: Cell::new(Some(cursor)),
            file: Cell::new(None),
        };
        // Whoever is on a recorded console is told before anything else.
        let recorded = hub.notice().map(str::to_owned);
        viewer.told.borrow_mut().extend(recorded.into_iter().chain(notice).map(Told::Notice));
        viewer.tell_position();
        viewer
    }

    fn tell_position(&self) {
        let cursor = self.cursor.get();
        let past = if let Before::Kept(past) = self.hub.before() { Some(past) } else { None };
        self.file.set(past.and_then(|past| past.file(cursor)));
        self.told.borrow_mut().push(Told::Position(past.and_then(|past| past.position(cursor))));
    }

    async fn show(&self, sender: &Mutex<&mut Sender>, control: &Control) -> End {
        loop {
            if let Err(end) = self.show_rest(sender, control).await {
                return end;
            }
            self.hub.grown().await;
        }
    }

    async fn show_rest(&self, sender: &Mutex<&mut Sender>, control: &Control) -> Result<(), End> {
        loop {
            // First the lock: what is taken must not be lost when this is cancelled.
            let mut sender = sender.lock().await;
            let taken = self.take(control);
            if self.listens {
                for told in self.told.take() {
                    sender.say(&told.to_message()).await?;
                }
            }
            let Some(mut frame) = taken else { return Ok(()) };
            let n = frame.len();
            if n > 0 {
                sender.send(&mut frame, n).await?;
                control.sent(n);
            }
        }
    }

    /// The next frame. What is told before it is in `told` for those who listen, in the frame for others. It
    /// may be empty, and there is more all the same.
    fn take(&self, control: &Control) -> Option<Frame> {
        let frame = self.take_bytes(control);
        if frame.is_some() || self.listens {
            return frame;
        }
        let words = self.words();
        (!words.is_empty()).then(|| framed(&words, &[]))
    }

    fn take_bytes(&self, control: &Control) -> Option<Frame> {
        let before = self.hub.before();
        let Before::Kept(past) = before else { return self.take_new(control, u64::MAX) };
        let cursor = self.cursor.get();
        if cursor > self.hub.output().end() {
            // It saw more elsewhere than was read here yet.
            return None;
        }
        if self.listens && past.file(cursor) != self.file.get() {
            self.tell_position();
        }
        let (mark, next) = past.marks(cursor);
        if let Some(mark) = mark.filter(|_| self.marked.get() != Some(cursor)) {
            self.marked.set(Some(cursor));
            self.tell_mark(mark);
        }
        let ring = self.hub.output().start();
        if cursor < ring { Some(self.take_old(past, control, next.min(ring))) } else { self.take_new(control, next) }
    }

    fn tell_mark(&self, mark: Mark) {
        let (gap, words) = match mark {
            Mark::Broken(broken) => (None, told::about_break(broken)),
            Mark::Live(live) => (Some(live.missing), told::LIVE),
        };
        let mut told = self.told.borrow_mut();
        told.push(Told::Notice(words.to_owned()));
        if self.listens && gap != Some(0) {
            told.push(Told::Gap(gap));
        }
        drop(told);
        self.tell_position();
    }

    /// What the ring has; a gap is told where the viewer was too slow.
    fn take_new(&self, control: &Control, until: u64) -> Option<Frame> {
        let output = self.hub.output();
        let cursor = self.cursor.get();
        let most = usize::try_from(until - cursor.min(until)).unwrap_or(usize::MAX).min(CHUNK);
        let piece = output.read(cursor, most);
        self.cursor.set(piece.next);
        if piece.is_empty() {
            return None;
        }
        if piece.missing > 0 {
            self.tell_gap(control, piece.missing, piece.len());
        }
        Some(framed(&self.words(), &piece.parts))
    }

    /// What only the log has.
    fn take_old(&self, past: &Past, control: &Control, until: u64) -> Frame {
        let words = self.words();
        let mut frame = framed(&words, &[]);
        frame.resize(words.len() + CHUNK);
        let cursor = self.cursor.get();
        let (missing, n) = past.read_old(cursor, until, &mut frame.payload()[words.len()..]);
        frame.resize(words.len() + n);
        self.cursor.set(cursor + missing + n as u64);
        if missing > 0 {
            self.tell_gap(control, missing, n);
        }
        frame
    }

    /// What is told in the frame itself.
    fn words(&self) -> String {
        if self.listens || self.told.borrow().is_empty() {
            return String::new();
        }
        self.told.take().iter().filter_map(Told::to_words).collect()
    }

    /// `taken`: bytes behind the gap that were taken already.
    fn tell_gap(&self, control: &Control, missing: u64, taken: usize) {
        self.dropped.set(self.dropped.get() + missing);
        control.entry.dropped.set(self.dropped.get());
        self.told.borrow_mut().push(Told::Gap(Some(missing)));
        let next = self.cursor.get();
        self.cursor.set(next - taken as u64);
        self.tell_position();
        self.cursor.set(next);
    }

    /// Reads the client. It waits where the guest takes no input and enough of it is kept.
    async fn receive(&self, receiver: &mut Receiver, sender: &Mutex<&mut Sender>, control: &Control) -> End {
        loop {
            let bytes = match control.hear(receiver, sender).await {
                Ok(bytes) => bytes,
                Err(end) => return end,
            };
            // View-only is enforced here, not by the page.
            if control.entry.mode == Mode::Control {
                control.received(bytes.len());
                control.pulse.while_deaf(self.hub.type_in(bytes)).await;
            }
        }
    }

    /// Returns when the port has ended; meanwhile counts what the viewer has missed already.
    async fn watch_port(&self, control: &Control) -> End {
        loop {
            if let Some(end) = self.hub.over() {
                return end;
            }
            if !matches!(self.hub.before(), Before::Kept(_)) {
                let missed = self.hub.output().start().saturating_sub(self.cursor.get());
                control.entry.dropped.set(self.dropped.get() + missed);
            }
            self.hub.grown().await;
        }
    }
}

fn framed(words: &str, parts: &[&[u8]]) -> Frame {
    let mut frame = Frame::with_capacity(words.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    frame.extend(words.as_bytes());
    for part in parts {
        frame.extend(part);
    }
    frame
}

/// Where a viewer begins, and what it is told first.
fn begin(hub: &Hub, Wanted { wish, history, .. }: &Wanted) -> (u64, Option<String>) {
    let joined = |most: u64| hub.output().tail(usize::try_from(most).unwrap_or(usize::MAX).min(JOINED));
    let past = match hub.before() {
        Before::Kept(past) => past,
        Before::Nothing if wish.from.is_some() => {
            let words = "history is not complete: of this console none is kept";
            return (joined(wish.history.unwrap_or(u64::MAX)), Some(words.to_owned()));
        }
        Before::Nothing => return (joined(wish.history.unwrap_or(u64::MAX)), None),
        Before::Unknown(why) => {
            return (joined(wish.history.unwrap_or(u64::MAX)), Some(format!("there is no history: {why}")));
        }
    };
    // Since the log was given up, only the ring has what was said.
    let tail = |most: u64| if past.live().is_some() { joined(most) } else { past.tail(most) };
    let place = wish.from.map(|from| past.find(&from));
    let (cursor, words) = match place {
        None => (tail(wish.history.unwrap_or(u64::MAX).min(*history)), None),
        Some(place) => {
            let cursor = match place {
                Place::At(offset) | Place::Cut(offset) => offset,
                Place::Beyond(_) => tail(*history),
                Place::Gone => past.start(),
            };
            let narrow = wish.history.filter(|most| cursor < past.tail(*most)).map(tail);
            let words = told::about_place(place).or(narrow.map(|_| "what came before was not asked for"));
            (narrow.unwrap_or(cursor), words)
        }
    };
    let words = if past.live().is_some_and(|live| cursor >= live.from) { Some(told::LIVE) } else { words };
    (cursor, words.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::super::hub::Limits;
    use super::super::testing::{Guest, INTERVAL, MemoryLine, control, from_client, local, next, websocket};
    use super::*;
    use crate::edges::backends::Lease;
    use crate::rules::guest::Console;
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::time::{Instant, sleep};

    fn start(buffer: usize) -> (Hub, Guest) {
        let (line, guest) = MemoryLine::new();
        (
            Hub::start(line, Lease::None, Limits { buffer, pause: Duration::from_millis(8) }, Before::Nothing, None),
            guest,
        )
    }

    /// Runs a viewer's session beside a script, which does not end before it.
    async fn beside(
        hub: &Hub,
        control: &Control,
        (mut sender, mut receiver): (Sender, Receiver),
        script: impl Future<Output = ()>,
    ) -> End {
        let script = async {
            script.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = run(&mut sender, &mut receiver, hub, control, Wanted::default()) => end,
            () = script => unreachable!(),
        }
    }

    /// All text that a client gets, until `enough` bytes or its end.
    async fn read(client: &mut DuplexStream, enough: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < enough {
            match next(client).await {
                Some((0x82, payload)) => got.extend(payload),
                Some(_) => {}
                None => break,
            }
        }
        got
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_takes_nothing_is_lost_in_the_end_and_another_gets_every_byte() {
        local(Box::pin(async {
            let (hub, guest) = start(10_000);
            let (slow_sender, slow_receiver, _slow_client) = websocket(4096);
            let (sender, receiver, mut client) = websocket(100_000);
            let ((slow, slow_seat), (other, _seat)) = (control(Console::Serial(0)), control(Console::Serial(0)));
            let start = Instant::now();
            let script = async {
                let mut got = Vec::new();
                for second in 0..100u8 {
                    guest.say(&[second; 1000]);
                    got.extend(read(&mut client, 1000).await);
                    client.write_all(&from_client(0x8A, b"")).await.unwrap();
                    sleep(Duration::from_secs(1)).await;
                }
                assert_eq!(got, (0..100).flat_map(|second| [second; 1000]).collect::<Vec<_>>());
            };
            let ends = async {
                let end = beside(&hub, &slow, (slow_sender, slow_receiver), std::future::pending()).await;
                assert!((3 * INTERVAL..=4 * INTERVAL).contains(&start.elapsed()), "{:?}", start.elapsed());
                end
            };
            let (mut sender, mut receiver) = (sender, receiver);
            let end = tokio::select! {
                end = async { tokio::join!(ends, script).0 } => end,
                end = run(&mut sender, &mut receiver, &hub, &other, Wanted::default()) => unreachable!("{end:?}"),
            };
            assert_eq!((end, other.entry.out.get(), other.entry.dropped.get()), (End::ClientLost, 100_000, 0));
            assert!(slow_seat.entry.out.get() <= 5000, "{}", slow_seat.entry.out.get());
        }))
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_viewer_sees_what_there_is_and_how_much_is_missing() {
        local(async {
            let (hub, guest) = start(1000);
            let (sender, receiver, mut client) = websocket(10);
            let (control, seat) = control(Console::Serial(0));
            let script = async {
                guest.say(b"begin ");
                sleep(Duration::from_millis(20)).await;
                guest.say(&[b'x'; 3000]);
                sleep(Duration::from_millis(20)).await;
                assert_eq!(seat.entry.dropped.get(), 2000, "it counts before the viewer has taken anything");
                let expected =
                    format!("begin \x18\r\n[console-proxy: 2000 bytes were dropped here]\r\n{}", "x".repeat(1000));
                assert_eq!(String::from_utf8(read(&mut client, expected.len()).await).unwrap(), expected);
                assert_eq!(seat.entry.dropped.get(), 2000);
                drop(client);
            };
            let end = beside(&hub, &control, (sender, receiver), script).await;
            assert_eq!(end, End::ClientGone);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_sees_the_last_that_others_saw_and_no_byte_twice() {
        local(async {
            let (hub, guest) = start(100_000);
            guest.say(&[&vec![b'.'; 20_000][..], b"\nlogin: "].concat());
            sleep(Duration::from_millis(100)).await;
            let (sender, receiver, mut client) = websocket(100_000);
            let (control, _seat) = control(Console::Serial(0));
            let script = async {
                assert_eq!(read(&mut client, 7).await, b"login: ");
                guest.say(b"root");
                assert_eq!(read(&mut client, 4).await, b"root");
                drop(client);
            };
            beside(&hub, &control, (sender, receiver), script).await;
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_only_look_on_types_nothing_and_sees_everything() {
        local(async {
            let (hub, guest) = start(1000);
            let live = std::rc::Rc::new(super::super::live::Live::default());
            let seat = live.enter(super::super::live::Opening {
                mode: Mode::View,
                ..super::super::testing::opening(Console::Serial(0))
            });
            let (mut control, _other_seat) = control(Console::Serial(0));
            control.entry = seat.entry.clone();
            let (sender, receiver, mut client) = websocket(1000);
            let script = async {
                client.write_all(&from_client(0x82, b"rm -rf /\r")).await.unwrap();
                client.write_all(&from_client(0x81, b"reboot\r")).await.unwrap();
                sleep(Duration::from_secs(1)).await;
                guest.say(b"# ");
                assert_eq!(read(&mut client, 2).await, b"# ");
                assert_eq!((guest.typed(), control.entry.input.get()), (Vec::new(), 0));
                drop(client);
            };
            beside(&hub, &control, (sender, receiver), script).await;
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_guest_said_last_reaches_its_client_and_a_client_that_takes_nothing_is_waited_for_a_second() {
        for takes in [true, false] {
            local(async {
                let (sender, receiver, mut client) = websocket(100);
                let (hub, guest) = start(100_000);
                let (control, _seat) = control(Console::Serial(0));
                guest.say(&vec![b'z'; 50_000]);
                drop(guest);
                let start = Instant::now();
                let script = async {
                    if takes {
                        read(&mut client, 50_000).await;
                    }
                    std::future::pending::<()>().await;
                };
                let end = beside(&hub, &control, (sender, receiver), script).await;
                assert_eq!(end, End::BackendGone("the guest closed the console".to_owned()));
                let expected = if takes { (50_000, true) } else { (0, false) };
                assert_eq!((control.entry.out.get(), start.elapsed() < LAST_WORDS), expected);
                assert!(start.elapsed() <= LAST_WORDS + Duration::from_millis(20), "{:?}", start.elapsed());
            })
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_lost_while_the_guest_takes_no_input_and_its_answers_stand_behind_what_it_typed() {
        local(async {
            let (sender, receiver, mut client) = websocket(1000);
            let (hub, guest) = start(10_000);
            let (control, _seat) = control(Console::Serial(0));
            guest.takes(10);
            let start = Instant::now();
            let script = async {
                // More than is kept for the guest: the rest waits, and with it all that the client says later.
                let typing = async {
                    for _ in 0..500 {
                        client.write_all(&from_client(0x82, &[b'k'; 100])).await.unwrap();
                    }
                };
                let waking_up = async {
                    sleep(10 * INTERVAL).await;
                    guest.takes(usize::MAX);
                };
                tokio::join!(typing, waking_up);
                sleep(Duration::from_millis(1)).await;
                assert_eq!(guest.typed().len(), 50_000);
                std::future::pending::<()>().await;
            };
            let end = beside(&hub, &control, (sender, receiver), script).await;
            assert_eq!(end, End::ClientLost);
            assert_eq!(start.elapsed(), 13 * INTERVAL, "two pings were not answered since it was heard last");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_its_time_is_over_to_the_moment() {
        local(async {
            let (sender, receiver, mut client) = websocket(1000);
            let (hub, _guest) = start(10_000);
            let (mut control, _seat) = control(Console::Serial(0));
            control.deadline = Instant::now() + Duration::from_millis(61_234);
            let start = Instant::now();
            let answering = async {
                while let Some((first, _)) = next(&mut client).await {
                    assert_eq!(first, 0x89);
                    client.write_all(&from_client(0x8A, b"")).await.unwrap();
                }
            };
            let end = beside(&hub, &control, (sender, receiver), answering).await;
            assert_eq!((end, start.elapsed()), (End::TIME_OUT, Duration::from_millis(61_234)));
        })
        .await;
    }
}
