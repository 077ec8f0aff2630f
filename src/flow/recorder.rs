//! The recording of one text console for as long as its hub lives. The hub hands over what it read and what was typed,
//! and never waits: a bounded queue is in between, and what does not fit into it is a gap in the recording. A thread
//! writes; when its disk is full the recording ends, and nothing else does.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::edges::publish::now;
use crate::rules::asciicast::{Header, Way, Writer};
use crate::rules::broker::Refusal;

/// Bytes that wait to be written, and pieces: beyond either the rest is a gap.
const WAITING: usize = 1 << 20;
const PIECES: usize = 4096;

/// What is recorded, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The guest and the console, for the header and the journal.
    pub title: String,
    /// What is typed as well.
    pub input: bool,
    /// Bytes after which it goes on in another file.
    pub file_bytes: u64,
}

/// The hub's end. Dropped, the recording ends when all is written.
#[derive(Debug)]
pub struct Recorder {
    pieces: mpsc::Sender<Piece>,
    waiting: Arc<AtomicUsize>,
    missing: Cell<u64>,
    begun: Instant,
    input: bool,
}

#[derive(Debug)]
struct Piece {
    at: Duration,
    way: Way,
    bytes: Bytes,
    /// Bytes that had no room before this one.
    missing: u64,
}

impl Recorder {
    /// Begins a recording. `create` gives a new file, once for each part; what comes meanwhile waits.
    #[must_use]
    pub fn start<F>(order: Order, create: F) -> Self
    where
        F: AsyncFn() -> Result<File, Refusal> + 'static,
    {
        let (pieces, queue) = mpsc::channel(PIECES);
        let waiting = Arc::<AtomicUsize>::default();
        let input = order.input;
        let parts = Parts { queue, waiting: waiting.clone(), begin: Duration::ZERO, writer: Writer::default() };
        tokio::task::spawn_local(record(order, create, parts));
        Self { pieces, waiting, missing: Cell::new(0), begun: Instant::now(), input }
    }

    /// What everybody on a recorded console is told first.
    #[must_use]
    pub fn notice(&self) -> &'static str {
        if self.input {
            "what this console shows and what is typed here is recorded"
        } else {
            "what this console shows is recorded"
        }
    }

    /// What the guest said.
    pub fn output(&self, bytes: &[u8]) {
        self.push(Way::Output, bytes);
    }

    /// What was typed; it is taken only where that was asked for.
    pub fn input(&self, bytes: &[u8]) {
        if self.input {
            self.push(Way::Input, bytes);
        }
    }

    fn push(&self, way: Way, bytes: &[u8]) {
        let missing = self.missing.get();
        // One place is kept: the last gap must not be silent.
        let has_room = self.waiting.load(Ordering::Acquire) + bytes.len() <= WAITING && self.pieces.capacity() > 1;
        if has_room && let Ok(place) = self.pieces.try_reserve() {
            self.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
            place.send(Piece { at: self.begun.elapsed(), way, bytes: Bytes::copy_from_slice(bytes), missing });
            self.missing.set(0);
        } else {
            self.missing.set(missing + bytes.len() as u64);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let missing = self.missing.get();
        if missing > 0 {
            let last = Piece { at: self.begun.elapsed(), way: Way::Output, bytes: Bytes::new(), missing };
            let _ = self.pieces.try_send(last);
        }
    }
}

/// What goes from part to part.
struct Parts {
    queue: mpsc::Receiver<Piece>,
    waiting: Arc<AtomicUsize>,
    begin: Duration,
    writer: Writer,
}

/// How a part ended.
enum Ended {
    /// It is as large as one may be.
    Large,
    /// There is no more.
    Over,
}

async fn record<F: AsyncFn() -> Result<File, Refusal>>(order: Order, create: F, mut parts: Parts) {
    let title = crate::rules::guest::printable(&order.title);
    loop {
        let file = match create().await {
            Ok(file) => file,
            Err(why) => return tracing::error!("{title} is not recorded: {why}"),
        };
        let part = order.clone();
        let written = tokio::task::spawn_blocking(move || {
            let ended = parts.write(file, &part);
            (parts, ended)
        });
        match written.await {
            Ok((rest, Ok(Ended::Large))) => parts = rest,
            Ok((_, Err(why))) => return tracing::error!("the recording of {title} ends here: {why}"),
            Ok((_, Ok(Ended::Over))) | Err(_) => return,
        }
    }
}

impl Parts {
    /// Writes until the queue ends or the file is large enough.
    fn write(&mut self, mut file: File, order: &Order) -> io::Result<Ended> {
        let mut lines = Header::new(order.title.clone(), now()).line();
        let (mut size, mut last) = (0, self.begin);
        loop {
            file.write_all(lines.as_bytes())?;
            size += lines.len() as u64;
            lines.clear();
            if size >= order.file_bytes {
                self.begin = last;
                return Ok(Ended::Large);
            }
            let Some(piece) = self.queue.blocking_recv() else {
                self.writer.end(last.saturating_sub(self.begin), &mut lines);
                file.write_all(lines.as_bytes())?;
                return Ok(Ended::Over);
            };
            self.waiting.fetch_sub(piece.bytes.len(), Ordering::AcqRel);
            last = piece.at;
            let at = piece.at.saturating_sub(self.begin);
            if piece.missing > 0 {
                self.writer.gap(at, piece.missing, &mut lines);
            }
            self.writer.event(at, piece.way, &piece.bytes, &mut lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::local;
    use super::*;
    use crate::rules::asciicast::{read_event, read_header};
    use crate::rules::broker::Kind;
    use std::cell::RefCell;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    fn order(file_bytes: u64) -> Order {
        Order { title: "g1 serial/0".into(), input: true, file_bytes }
    }

    /// Files `0`, `1`, ... of a folder.
    fn files(folder: &Path) -> impl AsyncFn() -> Result<File, Refusal> + 'static {
        let (folder, count) = (folder.to_owned(), Cell::new(0));
        async move || {
            let path = folder.join(count.get().to_string());
            count.set(count.get() + 1);
            File::create_new(path).map_err(|why| Refusal::new(Kind::Refused, why.to_string()))
        }
    }

    /// What the events of a recording show.
    fn shown(path: PathBuf) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        let (header, events) = text.split_once('\n').unwrap();
        assert_eq!(read_header(header).unwrap().title, "g1 serial/0");
        assert!(text.ends_with('\n'));
        events.lines().filter_map(|line| read_event(line).unwrap().output).collect()
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_was_said_and_typed_is_written_in_its_order_and_all_of_it_before_it_ends() {
        local(async {
            let folder = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(order(1 << 20), files(folder.path()));
            recorder.output(b"login: \xe2\x82");
            recorder.input(b"root\r");
            recorder.output(b"\xac\r\n\xe2");
            drop(recorder);
            let path = folder.path().join("0");
            until(|| std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with("\u{fffd}\"]\n"))).await;
            assert_eq!(shown(path.clone()), "login: €\r\n\u{fffd}");
            assert!(std::fs::read_to_string(&path).unwrap().contains(", \"i\", \"root\\r\"]"));
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_typed_is_left_out_unless_it_was_asked_for() {
        local(async {
            let folder = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(Order { input: false, ..order(1 << 20) }, files(folder.path()));
            recorder.input(b"secret");
            recorder.output(b"said");
            let path = folder.path().join("0");
            until(|| std::fs::read_to_string(&path).is_ok_and(|text| text.contains("said"))).await;
            assert!(!std::fs::read_to_string(&path).unwrap().contains("secret"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_file_that_is_large_enough_is_followed_by_another_and_nothing_is_lost_between() {
        local(async {
            let folder = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(order(5000), files(folder.path()));
            let text: String = (0..3000).map(|i| format!("{i}\n")).collect();
            for piece in text.as_bytes().chunks(97) {
                recorder.output(piece);
            }
            drop(recorder);
            let all = || (0..).map(|i| folder.path().join(i.to_string())).take_while(|path| path.exists());
            until(|| all().map(shown_if_whole(shown)).collect::<String>() == text).await;
            assert!(all().count() > 3);
            assert!(all().all(|path| std::fs::metadata(path).unwrap().len() < 5500));
        })
        .await;
    }

    /// A part that is being written has perhaps no header yet.
    fn shown_if_whole(shown: impl Fn(PathBuf) -> String) -> impl Fn(PathBuf) -> String {
        move |path| {
            let whole = std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'));
            if whole { shown(path) } else { String::new() }
        }
    }

    #[tokio::test]
    async fn while_nothing_can_be_written_memory_is_bounded_and_the_gap_is_marked() {
        local(async {
            let folder = tempfile::tempdir().unwrap();
            let go = Rc::new(tokio::sync::Notify::new());
            let (may_create, create) = (go.clone(), files(folder.path()));
            let recorder = Recorder::start(order(64 << 20), async move || {
                may_create.notified().await;
                create().await
            });
            for _ in 0..200 {
                recorder.output(&[b'x'; 10_000]);
            }
            // Many small ones are bounded, too.
            for _ in 0..10_000 {
                recorder.output(b"y");
            }
            assert!(recorder.waiting.load(Ordering::Acquire) <= WAITING);
            go.notify_one();
            until(|| recorder.waiting.load(Ordering::Acquire) == 0).await;
            recorder.output(b"after");
            recorder.output(&vec![b'z'; WAITING + 1]);
            drop(recorder);
            let (kept, small) = (WAITING / 10_000 * 10_000, PIECES - 1 - WAITING / 10_000);
            let notice =
                |missing| format!("\x18\r\n[console-proxy: {missing} bytes are missing in this recording]\r\n");
            let expected = "x".repeat(kept)
                + &notice(2_000_000 - kept)
                + &"y".repeat(small)
                + &notice(10_000 - small)
                + "after"
                + &notice(WAITING + 1);
            let path = folder.path().join("0");
            until(|| std::fs::read_to_string(&path).is_ok_and(|text| text.matches("missing in").count() == 3)).await;
            assert_eq!(shown(path), expected);
        })
        .await;
    }

    #[tokio::test]
    async fn a_full_disk_or_no_file_ends_the_recording_and_nobody_notices() {
        local(async {
            let tries = Rc::new(RefCell::new(0));
            for full in [true, false] {
                let count = tries.clone();
                let recorder = Recorder::start(order(1 << 20), async move || {
                    *count.borrow_mut() += 1;
                    // The kernel's own full disk.
                    let file = File::options().append(true).open("/dev/full");
                    file.ok().filter(|_| full).ok_or_else(|| Refusal::new(Kind::Denied, "not configured"))
                });
                until(|| recorder.pieces.is_closed()).await;
                for _ in 0..1000 {
                    recorder.output(&[b'x'; 10_000]);
                }
                assert_eq!(recorder.waiting.load(Ordering::Acquire), 0);
            }
            assert_eq!(*tries.borrow(), 2, "it is not tried again");
        })
        .await;
    }
}
