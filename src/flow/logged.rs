//! A serial port whose output is read from its log. The port itself is drained, so that its guest never
//! waits, and its words are thrown away: they tell when to look into the log. Where the log does not
//! follow (its writer has gone, the disk is full), the port is shown after all.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::past::Past;
use crate::edges::line::Line;
use crate::edges::logs::Numbered;
use crate::rules::broker::Refusal;
use crate::rules::pace::{Next, Pace};

/// The most bytes of one read of the port.
const CHUNK: usize = 32 << 10;
/// Reads of the port at a time: a flood must not keep the log from being read.
const READS: usize = 8;
/// What the port said and the log may lack: more than its writer ever has under way.
const KEPT: usize = 256 << 10;
/// The log's last words that are kept beside: where it is given up they say where in the port's words it ended. Counts
/// alone do not, to a few bytes: a guest that talked while both were opened said those to one of the two.
const CONTEXT: usize = 64;
/// As many of them must be the same.
const ENOUGH: usize = 8;
/// When the port has ended, who writes the log may be that much behind.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Who opens the files of a log.
pub trait Files {
    /// Opens them as they are now.
    fn open(&self) -> impl Future<Output = Result<Vec<Numbered>, Refusal>>;
}

/// A port with its log.
#[derive(Debug)]
pub struct Logged<L, F> {
    port: L,
    files: F,
    past: Rc<Past>,
    started: Instant,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// The port's last words, the log's backlog among them.
    said: VecDeque<u8>,
    /// The log's last words.
    logged: VecDeque<u8>,
    scratch: Vec<u8>,
    wake: Option<Instant>,
    refresh: bool,
    ended: Option<Instant>,
}

impl<L: Line, F: Files> Logged<L, F> {
    /// Puts a port and its log together. The log was opened first; what the port has ready now may be in
    /// it already.
    pub fn new(port: L, files: F, past: Rc<Past>) -> Self {
        let state = State {
            pace: Pace::default(),
            said: VecDeque::new(),
            logged: VecDeque::new(),
            scratch: vec![0; CHUNK],
            wake: None,
            refresh: false,
            ended: None,
        };
        let logged = Self { port, files, past, started: Instant::now(), state: RefCell::new(state) };
        let mut state = logged.state.borrow_mut();
        while matches!(logged.port.try_read(&mut state.scratch), Ok(n @ 1..) if n == CHUNK) {}
        // Once, without being told to.
        state.pace.logged(Duration::ZERO, 0);
        drop(state);
        logged
    }

    fn drain(&self, state: &mut State) {
        for _ in 0..READS {
            if state.ended.is_some() || (self.past.live().is_some() && state.said.len() > KEPT) {
                return;
            }
            match self.port.try_read(&mut state.scratch) {
                Ok(n @ 1..) => {
                    state.said.extend(&state.scratch[..n]);
                    state.pace.spoke(self.started.elapsed(), n);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => state.ended = Some(Instant::now()),
            }
        }
    }

    /// Keeps of what the port said what the log lacks, and a little before it.
    fn trim(state: &mut State) {
        let behind = usize::try_from(state.pace.behind()).unwrap_or(usize::MAX);
        let over = state.said.len().saturating_sub(behind.min(KEPT).saturating_add(2 * CONTEXT));
        state.said.drain(..over);
        let over = state.logged.len().saturating_sub(CONTEXT);
        state.logged.drain(..over);
    }

    fn give_up(&self, state: &mut State, why: &dyn std::fmt::Display) {
        let missing = state.pace.behind().saturating_sub(state.said.len() as u64);
        let lacking = usize::try_from(state.pace.behind()).unwrap_or(usize::MAX).min(state.said.len());
        let ended = end_of(state.said.make_contiguous(), state.logged.make_contiguous(), lacking);
        state.said.drain(..ended);
        tracing::warn!("the log of a console does not follow ({why}): the port is shown itself");
        self.past.give_up(missing);
    }

    fn take_said(state: &mut State, bytes: &mut [u8]) -> io::Result<usize> {
        let n = state.said.len().min(bytes.len());
        bytes.iter_mut().zip(state.said.drain(..n)).for_each(|(to, from)| *to = from);
        match n {
            0 if state.ended.is_some() => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

/// Where in the port's words the log ended: where it has its last words, next to where it lacks `lacking` bytes.
fn end_of(said: &[u8], logged: &[u8], lacking: usize) -> usize {
    let counted = said.len() - lacking;
    let fits = |end: usize| {
        let known = end.min(logged.len());
        known >= ENOUGH && said[end - known..end] == logged[logged.len() - known..]
    };
    let near =
        (0..=CONTEXT).flat_map(|off| [counted.checked_sub(off), Some(counted + off).filter(|end| *end <= said.len())]);
    near.flatten().find(|end| fits(*end)).unwrap_or(counted)
}

impl<L: Line, F: Files> Line for Logged<L, F> {
    async fn readable(&self) -> io::Result<()> {
        let (refresh, wake, ended) = {
            let mut state = self.state.borrow_mut();
            if self.past.live().is_some() && (state.ended.is_some() || !state.said.is_empty()) {
                return Ok(());
            }
            (std::mem::take(&mut state.refresh), state.wake, state.ended.is_some())
        };
        if refresh {
            // A renaming is under way, or there is no log any more: then it is given up in time.
            match self.files.open().await {
                Ok(files) => {
                    if let Err(why) = self.past.look(files) {
                        tracing::debug!("the log's files cannot be read: {why}");
                    }
                }
                Err(why) => tracing::debug!("{why}"),
            }
            return Ok(());
        }
        let woken = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = self.port.readable(), if !ended => result,
            () = woken => Ok(()),
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.wake = None;
        self.drain(state);
        if self.past.live().is_some() {
            return Self::take_said(state, bytes);
        }
        let now = self.started.elapsed();
        match self.past.read_on(bytes) {
            Ok(0) => {}
            Ok(n) => {
                state.pace.logged(now, n);
                state.logged.extend(&bytes[n.saturating_sub(CONTEXT)..n]);
                Self::trim(state);
                return Ok(n);
            }
            Err(why) => {
                self.give_up(state, &why);
                return Self::take_said(state, bytes);
            }
        }
        Self::trim(state);
        if let Some(ended) = state.ended.filter(|_| state.pace.behind() == 0) {
            state.wake = Some(ended + LAST_WORDS);
            let over = Instant::now() >= ended + LAST_WORDS;
            return if over { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        match state.pace.next(now) {
            Next::WhenReadable => {}
            Next::At(time) => state.wake = Some(self.started + time),
            Next::Refresh => state.refresh = true,
            Next::GiveUp => {
                self.give_up(state, &"it has not grown for a second");
                return Self::take_said(state, bytes);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.port.write_all(bytes).await
    }

    fn room(&self) -> usize {
        self.port.room()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::super::hub::{Before, Hub, Limits};
    use super::super::past::Mark;
    use super::super::testing::{Guest, MemoryLine, local};
    use super::*;
    use crate::edges::backends::Lease;
    use crate::edges::logs;
    use crate::edges::paths::Paths;
    use crate::rules::close::End;
    use crate::rules::history::{Break, Place};

    const GUEST: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
    const LOG: &str = "/var/log/libvirt/qemu/b50bdc9f-490b-4b9b-8641-7573c0eba77c.log";

    /// A guest's port, its log, and who writes that.
    struct Host {
        root: tempfile::TempDir,
        guest: Option<Guest>,
        writer: std::fs::File,
    }

    struct Folder(Paths);

    impl Files for Folder {
        async fn open(&self) -> Result<Vec<Numbered>, Refusal> {
            logs::open(&self.0, &GUEST.parse().unwrap(), LOG)
        }
    }

    impl Host {
        fn new(past: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let paths = Paths::new(root.path());
            fs::create_dir_all(paths.guest_logs()).unwrap();
            let writer = append(&paths.below_root(LOG));
            let mut host = Self { root, guest: None, writer };
            host.log(past);
            host
        }

        fn file(&self, number: Option<u8>) -> PathBuf {
            let path = Paths::new(self.root.path()).below_root(LOG);
            number.map_or(path.clone(), |number| crate::rules::log::older(path.to_str().unwrap(), number).into())
        }

        fn open(&mut self) -> Hub {
            let paths = Paths::new(self.root.path());
            let past = Rc::new(Past::new(logs::open(&paths, &GUEST.parse().unwrap(), LOG).unwrap()).unwrap());
            let (line, guest) = MemoryLine::new();
            self.guest = Some(guest);
            let limits = Limits { buffer: 1000, pause: Duration::from_millis(8) };
            Hub::start(Logged::new(line, Folder(paths), past.clone()), Lease::None, limits, Before::Kept(past), None)
        }

        fn log(&mut self, words: &str) {
            self.writer.write_all(words.as_bytes()).unwrap();
        }

        /// The port and the log.
        fn say(&mut self, words: &str) {
            self.guest.as_ref().unwrap().say(words.as_bytes());
            self.log(words);
        }

        fn rename(&mut self) {
            for number in (0..2).rev() {
                let _ = fs::rename(self.file(Some(number)), self.file(Some(number + 1)));
            }
            let _ = fs::rename(self.file(None), self.file(Some(0)));
            self.writer = append(&self.file(None));
        }
    }

    fn append(path: &std::path::Path) -> std::fs::File {
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    fn past(hub: &Hub) -> Rc<Past> {
        let Before::Kept(past) = hub.before() else { panic!() };
        past.clone()
    }

    /// All of the ring.
    fn shown(hub: &Hub) -> String {
        let output = hub.output();
        let piece = output.read(output.start(), usize::MAX);
        String::from_utf8(piece.parts.concat()).unwrap()
    }

    async fn ms(n: u64) {
        sleep(Duration::from_millis(n)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_gets_is_shown_once_and_what_it_had_is_the_past() {
        local(async {
            let mut host = Host::new("before ");
            let hub = host.open();
            ms(5).await;
            assert_eq!((shown(&hub).as_str(), hub.output().end()), ("", 7));
            host.guest.as_ref().unwrap().say(b"now ");
            ms(3).await;
            assert_eq!(shown(&hub), "", "the port's own words are not shown");
            host.log("now ");
            ms(5).await;
            assert_eq!(shown(&hub), "now ");
            ms(5000).await;
            assert_eq!((shown(&hub).as_str(), past(&hub).live()), ("now ", None));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn renamings_change_nothing_for_who_looks_on() {
        local(async {
            let mut host = Host::new("");
            let hub = host.open();
            for turn in 0..20 {
                host.say(&format!("{turn} "));
                if turn % 3 == 0 {
                    host.rename();
                }
                if turn == 10 {
                    host.rename();
                }
                host.say("x ");
                ms(turn * 5).await;
            }
            ms(1000).await;
            let all: String = (0..20).map(|turn| format!("{turn} x ")).collect();
            assert_eq!((shown(&hub), past(&hub).live()), (all, None));
            assert_eq!(past(&hub).marks(past(&hub).start()), (None, u64::MAX));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_stands_still_is_given_up_and_not_a_byte_is_lost_or_shown_twice() {
        local(async {
            let mut host = Host::new("");
            let hub = host.open();
            host.say("both ");
            ms(100).await;
            // The disk is full after two bytes.
            host.guest.as_ref().unwrap().say(b"half ");
            host.log("ha");
            ms(10).await;
            assert_eq!(shown(&hub), "both ha");
            ms(900).await;
            host.guest.as_ref().unwrap().say(b"port ");
            ms(50).await;
            assert_eq!(past(&hub).live(), None);
            ms(60).await;
            assert_eq!(shown(&hub), "both half port ");
            let live = past(&hub).live().unwrap();
            assert_eq!((live.from, live.missing), (7, 0));
            assert_eq!(past(&hub).marks(7).0, Some(Mark::Live(live)));
            host.guest.as_ref().unwrap().say(b"alone ");
            ms(20).await;
            assert_eq!(shown(&hub), "both half port alone ");
            assert_eq!(past(&hub).position(8), None, "it cannot be come back to");
            host.guest = None;
            ms(100).await;
            assert_eq!(hub.over(), Some(End::BackendGone("the guest closed the console".to_owned())));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_that_no_log_follows_is_shown_within_bounds_and_the_gap_counted() {
        local(async {
            let mut host = Host::new("");
            let hub = host.open();
            for _ in 0..200 {
                host.guest.as_ref().unwrap().say(&[b'x'; 3000]);
                ms(5).await;
            }
            ms(200).await;
            let live = past(&hub).live().unwrap();
            assert_eq!(live.missing + hub.output().end(), 600_000);
            assert!(live.missing > 300_000 && host.guest.as_ref().unwrap().unread() == 0);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_log_is_read_on_until_its_writer_makes_another_and_a_cut_one_from_its_beginning() {
        local(async {
            let mut host = Host::new("");
            let hub = host.open();
            host.say("one ");
            ms(100).await;
            fs::remove_file(host.file(None)).unwrap();
            host.say("two ");
            ms(100).await;
            assert_eq!(shown(&hub), "one two ");
            host.rename();
            host.say("three ");
            ms(1000).await;
            assert_eq!(shown(&hub), "one two three ");
            assert_eq!(past(&hub).marks(8).0, Some(Mark::Broken(Break::Lost)));

            host.writer.set_len(0).unwrap();
            host.say("4 ");
            ms(1000).await;
            assert_eq!(shown(&hub), "one two three 4 ");
            assert_eq!(past(&hub).marks(14), (Some(Mark::Broken(Break::Cut)), u64::MAX));
            assert_eq!(past(&hub).live(), None);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_replaced_by_something_else_while_it_is_read_is_given_up() {
        local(async {
            for kind in ["link", "fifo"] {
                let mut host = Host::new("");
                let hub = host.open();
                host.say("one ");
                ms(100).await;
                let secret = host.root.path().join("secret");
                fs::write(&secret, "secret").unwrap();
                fs::rename(host.file(None), host.file(Some(0))).unwrap();
                if kind == "link" {
                    std::os::unix::fs::symlink(&secret, host.file(None)).unwrap();
                } else {
                    let mode = rustix::fs::Mode::RUSR;
                    rustix::fs::mknodat(rustix::fs::CWD, host.file(None), rustix::fs::FileType::Fifo, mode, 0).unwrap();
                }
                host.guest.as_ref().unwrap().say(b"two");
                ms(1100).await;
                assert_eq!((shown(&hub).as_str(), past(&hub).live().map(|live| live.from)), ("one two", Some(4)));
            }
        })
        .await;
    }

    #[test]
    fn a_log_that_ends_is_gone_on_from_where_it_has_its_last_words() {
        for (said, logged, lacking, rest) in [
            ("one two three four", "one two thre", 6, "e four"),
            ("one two three four", "one two thre", 7, "e four"),
            ("one two three four", "one two thre", 0, "e four"),
            ("one two three four", "something else", 5, " four"),
            ("one two three four", "three", 5, " four"),
            ("aaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaa", 3, "aaa"),
            ("", "", 0, ""),
        ] {
            let end = end_of(said.as_bytes(), logged.as_bytes(), lacking);
            assert_eq!(&said[end..], rest, "{said:?} {logged:?} {lacking}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_had_before_the_port_was_read_is_not_said_again_where_the_log_ends() {
        local(async {
            let mut host = Host::new("");
            let hub = host.open();
            host.say("0123456789 ");
            ms(2).await;
            // The log is read before the port is: the port's copy would be counted as lacking in it.
            host.log("ab");
            ms(100).await;
            assert_eq!(shown(&hub), "0123456789 ab");
            host.guest.as_ref().unwrap().say(b"abcdef");
            ms(1100).await;
            assert_eq!(shown(&hub), "0123456789 abcdef");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_guest_ends_its_last_words_are_waited_for() {
        local(async {
            for late in [0, 30, 400] {
                let mut host = Host::new("");
                let hub = host.open();
                host.guest.as_ref().unwrap().say(b"bye");
                ms(1).await;
                host.guest = None;
                ms(late).await;
                host.log("bye");
                ms(600).await;
                assert_eq!((shown(&hub).as_str(), hub.over().is_some()), ("bye", true), "{late}");
            }
        })
        .await;
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Say(u8),
        Rename,
        Wait(u16),
        /// Somebody joins who wants everything that is kept, or comes back to where another one was.
        Join,
        Back(usize),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            5 => (1u8..60).prop_map(Deed::Say),
            1 => Just(Deed::Rename),
            4 => (0u16..40).prop_map(Deed::Wait),
            2 => Just(Deed::Join),
            2 => any::<usize>().prop_map(Deed::Back),
        ];
        prop::collection::vec(deed, 1..40)
    }

    /// What a viewer sees from an offset to what is there now: from the log, then from the ring.
    fn seen(hub: &Hub, mut cursor: u64) -> String {
        let past = past(hub);
        let (mut text, mut bytes) = (Vec::new(), [0; 50]);
        while cursor < hub.output().start() {
            let (missing, n) = past.read_old(cursor, hub.output().start(), &mut bytes);
            assert_eq!(missing, 0);
            text.extend(&bytes[..n]);
            cursor += n as u64;
        }
        text.extend(hub.output().read(cursor, usize::MAX).parts.concat());
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whenever they come, and whatever is renamed meanwhile: all see the same bytes, to the last one.
        #[test]
        fn from_history_to_live_no_byte_is_lost_or_repeated(before in 0u8..100, deeds in deeds()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(local(async {
                let mut all: String = (0..before).map(|n| char::from(b'a' + n % 26)).collect();
                let mut host = Host::new(&all);
                let hub = host.open();
                let (mut renamed, mut joined, mut positions) = (0, Vec::new(), Vec::new());
                for deed in deeds {
                    match deed {
                        Deed::Say(n) => {
                            let words: String = (0..n).map(|n| char::from(b'A' + n % 26)).collect();
                            host.say(&words);
                            all.push_str(&words);
                        }
                        Deed::Rename if renamed < 2 => {
                            host.rename();
                            renamed += 1;
                        }
                        Deed::Wait(time) => ms(time.into()).await,
                        Deed::Join => {
                            joined.push((0, past(&hub).start()));
                            let end = hub.output().end();
                            positions.push((end, past(&hub).position(end).unwrap().to_string()));
                        }
                        Deed::Back(n) if !positions.is_empty() => {
                            let (offset, told) = &positions[n % positions.len()];
                            let Place::At(place) = past(&hub).find(&told.parse().unwrap()) else { panic!() };
                            joined.push((*offset as usize, place));
                        }
                        Deed::Rename | Deed::Back(_) => {}
                    }
                }
                ms(2000).await;
                assert_eq!(past(&hub).live(), None);
                for (from, cursor) in joined {
                    assert_eq!(seen(&hub, cursor), all[from..]);
                }
                assert_eq!(hub.output().end(), all.len() as u64);
            }));
        }
    }
}
