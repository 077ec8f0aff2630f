//! One serial port and its viewers: one task reads the port, whatever the viewers do, into a bounded
//! ring; each viewer has a cursor of its own in it. Held and unread a port would freeze its guest's
//! kernel at the next message.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OnceCell, mpsc};
use tokio::time::{Instant, sleep_until};

use super::past::Past;
use super::recorder::Recorder;
use crate::edges::backends::Lease;
use crate::edges::line::Line;
use crate::rules::close::End;
use crate::rules::gather::{Gather, Next};
use crate::rules::guest::Console;
use crate::rules::ring::Ring;

/// The most bytes of one read.
const CHUNK: usize = 32 << 10;
/// Pieces of input that wait for a guest that does not read; beyond it the viewers wait.
const INPUT: usize = 4;
/// The most bytes of a piece: whoever types waits for no more than a few of somebody's paste.
const PIECE: usize = 4 << 10;

/// What a hub needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of output that are kept for slow viewers.
    pub buffer: usize,
    /// How long the port is left alone at most while output keeps coming.
    pub pause: Duration,
}

/// What is known of a port's past.
#[derive(Clone, Debug, Default)]
pub enum Before {
    /// Nothing is kept.
    #[default]
    Nothing,
    /// Something may be, but cannot be had; the reason.
    Unknown(String),
    /// Its log, which is also where the line that the hub reads is read from.
    Kept(Rc<Past>),
}

/// For how long at most a port stays open without viewers, for what they typed last.
const LAST_KEYS: Duration = Duration::from_millis(200);

/// A serial port that is open. Dropped with its last viewer, it closes the port when the guest has taken what was
/// typed, or after a moment.
#[derive(Debug)]
pub struct Hub {
    before: Before,
    shared: Rc<Shared>,
    input: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
struct Shared {
    ring: RefCell<Ring>,
    grown: Notify,
    gather: RefCell<Gather>,
    typed: Notify,
    left: Notify,
    started: Instant,
    /// When the port said something last.
    spoke: Cell<Option<Instant>>,
    over: RefCell<Option<End>>,
    recorder: Option<Recorder>,
}

impl Hub {
    /// Begins to read a port; the lease is given back when the port has ended or the hub is dropped. The recorder gets
    /// what is read, and what is typed.
    #[must_use]
    pub fn start(
        line: impl Line + 'static,
        lease: Lease,
        limits: Limits,
        before: Before,
        recorder: Option<Recorder>,
    ) -> Self {
        let start = if let Before::Kept(past) = &before { past.read() } else { 0 };
        let shared = Rc::new(Shared {
            ring: RefCell::new(Ring::new(limits.buffer, start)),
            grown: Notify::new(),
            gather: RefCell::new(Gather::new(limits.pause, line.room())),
            typed: Notify::new(),
            left: Notify::new(),
            started: Instant::now(),
            spoke: Cell::new(None),
            over: RefCell::new(None),
            recorder,
        });
        let (input, typed) = mpsc::channel(INPUT);
        tokio::task::spawn_local(serve(shared.clone(), line, lease, typed));
        Self { before, shared, input }
    }

    /// What is known of the port's past.
    #[must_use]
    pub fn before(&self) -> &Before {
        &self.before
    }

    /// What a viewer is told before anything else: that the port is recorded.
    #[must_use]
    pub fn notice(&self) -> Option<&'static str> {
        self.shared.recorder.as_ref().map(Recorder::notice)
    }

    /// What was read of the port lately.
    #[must_use]
    pub fn output(&self) -> Ref<'_, Ring> {
        self.shared.ring.borrow()
    }

    /// Returns when there is more output than before, or the port has ended.
    pub async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// Why the port has ended, if it has.
    #[must_use]
    pub fn over(&self) -> Option<End> {
        self.shared.over.borrow().clone()
    }

    /// Types into the port. It waits where the guest takes no input and enough of it is kept; what is
    /// typed into a port that has ended is lost.
    pub async fn type_in(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            if self.input.send(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.left.notify_one();
    }
}

async fn serve(shared: Rc<Shared>, line: impl Line, lease: Lease, typed: mpsc::Receiver<Bytes>) {
    let end = tokio::select! {
        end = shared.read(&line) => end,
        end = shared.write(&line, typed) => end,
        end = shared.left_alone() => end,
    };
    // The port is closed before it is given back.
    drop(line);
    drop(lease);
    *shared.over.borrow_mut() = Some(end);
    shared.grown.notify_waiters();
}

impl Shared {
    async fn read(&self, line: &impl Line) -> End {
        let failed = |why: io::Error| End::BackendGone(format!("the guest's console failed: {why}"));
        let mut bytes = vec![0; CHUNK];
        loop {
            let next = self.gather.borrow().next();
            match next {
                // The viewers get their turn.
                Next::Read => tokio::task::yield_now().await,
                Next::At(time) => tokio::select! {
                    () = sleep_until(self.started + time) => {}
                    () = self.typed.notified() => continue,
                },
                Next::WhenReadable => {
                    if let Err(why) = line.readable().await {
                        return failed(why);
                    }
                }
            }
            match line.try_read(&mut bytes) {
                Ok(0) => return End::BackendGone("the guest closed the console".to_owned()),
                Ok(n) => {
                    self.ring.borrow_mut().push(&bytes[..n]);
                    if let Some(recorder) = &self.recorder {
                        recorder.output(&bytes[..n]);
                    }
                    self.gather.borrow_mut().read(self.started.elapsed(), n);
                    self.spoke.set(Some(Instant::now()));
                    self.grown.notify_waiters();
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => self.gather.borrow_mut().found_nothing(),
                Err(why) => return failed(why),
            }
        }
    }

    async fn left_alone(&self) -> End {
        self.left.notified().await;
        tokio::time::sleep(LAST_KEYS).await;
        End::ClientGone
    }

    /// Returns when the viewers have left and the guest has all that they typed.
    async fn write(&self, line: &impl Line, mut typed: mpsc::Receiver<Bytes>) -> End {
        while let Some(bytes) = typed.recv().await {
            // A guest that takes no more may have said something before: that is still to be read, and its end.
            if line.write_all(&bytes).await.is_err() {
                break;
            }
            if let Some(recorder) = &self.recorder {
                recorder.input(&bytes);
            }
            self.gather.borrow_mut().typed(self.started.elapsed());
            self.typed.notify_one();
        }
        if typed.is_closed() {
            return End::ClientGone;
        }
        drop(typed);
        std::future::pending().await
    }
}

/// A guest's open serial ports.
#[derive(Debug, Default)]
pub struct Hubs(RefCell<HashMap<Console, Weak<Port>>>);

/// A serial port that is open, or being opened by the first of its viewers.
#[derive(Debug, Default)]
pub struct Port(OnceCell<Hub>);

impl Hubs {
    /// Joins a console's hub; where there is none, it is opened. Of several who come at once one opens
    /// it, and the others wait; if that fails, the next one tries.
    pub async fn join<E>(&self, console: Console, open: impl AsyncFnOnce() -> Result<Hub, E>) -> Result<Rc<Port>, E> {
        let port = self.port(console);
        port.0.get_or_try_init(|| open()).await?;
        Ok(port)
    }

    /// How long ago a console spoke, where its port is open and it did.
    #[must_use]
    pub fn spoke(&self, console: Console) -> Option<Duration> {
        let port = self.0.borrow().get(&console).and_then(Weak::upgrade)?;
        Some(port.0.get()?.shared.spoke.get()?.elapsed())
    }

    fn port(&self, console: Console) -> Rc<Port> {
        let mut ports = self.0.borrow_mut();
        let open = ports.get(&console).and_then(Weak::upgrade);
        // One that has ended is still read by those who were there.
        if let Some(port) = open.filter(|port| port.0.get().is_none_or(|hub| hub.over().is_none())) {
            return port;
        }
        let port = Rc::default();
        ports.insert(console, Rc::downgrade(&port));
        port
    }
}

impl Port {
    /// The open port.
    ///
    /// # Panics
    /// Never where [`Hubs::join`] gave it.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        self.0.get().expect("join opened it")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, MemoryLine, local};
    use super::*;
    use tokio::time::sleep;

    const LIMITS: Limits = Limits { buffer: 1000, pause: Duration::from_millis(8) };

    fn start() -> (Hub, Guest) {
        let (line, guest) = MemoryLine::new();
        (Hub::start(line, Lease::None, LIMITS, Before::Nothing, None), guest)
    }

    /// The output so far, and when each part of it was read.
    async fn watch(hub: &Hub, times: &RefCell<Vec<(u128, u64)>>) {
        let start = Instant::now();
        loop {
            hub.grown().await;
            times.borrow_mut().push((start.elapsed().as_millis(), hub.output().end()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_read_at_its_first_byte_then_once_a_pause_and_whole() {
        local(async {
            let (hub, guest) = start();
            let times = RefCell::default();
            let saying = async {
                sleep(Duration::from_millis(100)).await;
                for _ in 0..7 {
                    guest.say(b"x");
                    sleep(Duration::from_millis(3)).await;
                }
                sleep(Duration::from_secs(1)).await;
            };
            tokio::select! { () = saying => {}, () = watch(&hub, &times) => {} }
            assert_eq!(times.take(), [(100, 1), (108, 3), (116, 6), (124, 7)]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_key_is_read_at_once_though_the_guest_keeps_talking() {
        local(async {
            let (hub, guest) = start();
            let times = RefCell::default();
            let script = async {
                guest.say(b"a");
                sleep(Duration::from_millis(4)).await;
                hub.type_in(b"k").await;
                sleep(Duration::from_millis(2)).await;
                assert_eq!(guest.typed(), b"k");
                guest.say(b"K");
                sleep(Duration::from_secs(1)).await;
            };
            tokio::select! { () = script => {}, () = watch(&hub, &times) => {} }
            // At 4 ms there was nothing yet: the port is waited for, and the answer read when it came.
            assert_eq!(times.take(), [(0, 1), (6, 2)]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_talks_without_end_to_nobody_is_read_and_kept_within_bounds() {
        local(async {
            let (hub, guest) = start();
            for _ in 0..10_000 {
                guest.say(&[b'x'; 1000]);
                sleep(Duration::from_millis(1)).await;
                assert!(guest.unread() <= 8000, "{}", guest.unread());
            }
            sleep(Duration::from_millis(10)).await;
            let output = hub.output();
            assert_eq!((output.start(), output.end()), (9_999_000, 10_000_000));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_ends_when_its_guest_does_and_after_all_that_it_said() {
        local(async {
            let (hub, guest) = start();
            guest.say(b"bye");
            drop(guest);
            while hub.over().is_none() {
                hub.grown().await;
            }
            assert_eq!(hub.over(), Some(End::BackendGone("the guest closed the console".to_owned())));
            assert_eq!(hub.output().end(), 3);
            hub.type_in(&[b'k'; 10_000]).await;
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_typed_last_reaches_the_guest_though_everybody_has_left() {
        local(async {
            for (takes, held) in [(usize::MAX, Duration::from_millis(1)), (3, LAST_KEYS)] {
                let (hub, guest) = start();
                guest.takes(takes);
                hub.type_in(b"reboot\n").await;
                drop(hub);
                let start = Instant::now();
                while guest.is_held() {
                    sleep(Duration::from_millis(1)).await;
                }
                assert_eq!(guest.typed(), b"reboot\n"[..takes.min(7)]);
                assert!(start.elapsed() <= held + Duration::from_millis(2), "{:?}", start.elapsed());
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn somebodys_paste_does_not_keep_another_from_typing() {
        local(async {
            let (hub, guest) = start();
            guest.takes(0);
            let paste = async {
                hub.type_in(&vec![b'p'; 1 << 20]).await;
                unreachable!("the guest takes 64 KiB of it in this test");
            };
            let script = async {
                sleep(Duration::from_millis(1)).await;
                tokio::join!(hub.type_in(b"k"), async {
                    sleep(Duration::from_millis(1)).await;
                    guest.takes(64 << 10);
                });
            };
            tokio::select! { () = paste => {}, () = script => {} }
            sleep(Duration::from_millis(1)).await;
            let typed = guest.typed();
            let at = typed.iter().position(|byte| *byte == b'k').unwrap();
            assert!(at <= 2 * (INPUT + 1) * PIECE, "{at}");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_who_come_at_once_one_opens_the_port_and_if_it_fails_the_next_tries() {
        local(async {
            let hubs = Hubs::default();
            let (tries, guests) = (Cell::new(0), RefCell::new(Vec::new()));
            let join = || {
                hubs.join(Console::Serial(0), async || {
                    tries.set(tries.get() + 1);
                    sleep(Duration::from_millis(5)).await;
                    if tries.get() == 1 {
                        return Err("refused");
                    }
                    let (hub, guest) = start();
                    guests.borrow_mut().push(guest);
                    Ok(hub)
                })
            };
            let (one, two, three) = tokio::join!(join(), join(), join());
            assert_eq!(one.unwrap_err(), "refused");
            let (two, three) = (two.unwrap(), three.unwrap());
            assert_eq!(tries.get(), 2);
            assert!(Rc::ptr_eq(&two, &three));

            // The last one to leave closes it.
            drop(two);
            sleep(Duration::from_millis(1)).await;
            assert!(guests.borrow()[0].is_held());
            drop(three);
            sleep(Duration::from_millis(1)).await;
            assert!(!guests.borrow()[0].is_held());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_when_an_open_port_spoke_last() {
        local(async {
            let hubs = Hubs::default();
            let (hub, guest) = start();
            let port = hubs.join(Console::Serial(0), async || Ok::<_, ()>(hub)).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(hubs.spoke(Console::Serial(0)), None);
            guest.say(b"x");
            sleep(Duration::from_secs(7)).await;
            assert_eq!(hubs.spoke(Console::Serial(0)), Some(Duration::from_secs(7)));
            assert_eq!(hubs.spoke(Console::Serial(1)), None);
            drop(port);
            assert_eq!(hubs.spoke(Console::Serial(0)), None);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_after_the_guest_closed_the_port_opens_it_anew() {
        local(async {
            let hubs = Hubs::default();
            let (first, guest) = start();
            let old = hubs.join(Console::Serial(0), async || Ok::<_, ()>(first)).await.unwrap();
            drop(guest);
            while old.hub().over().is_none() {
                old.hub().grown().await;
            }
            let (second, _guest) = start();
            let new = hubs.join(Console::Serial(0), async || Ok::<_, ()>(second)).await.unwrap();
            assert!(new.hub().over().is_none() && !Rc::ptr_eq(&old, &new));
        })
        .await;
    }
}
