//! What the journal is told of those who come: when a console was opened and closed, and who was refused why. The
//! fields and the forms of the messages are relied on: docs/audit.md. A message begins with words and an address of
//! ours; what a client said comes behind them, so that nobody can pass for somebody else's refusal.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::entry::Peer;
use super::guest::Guest;
use super::limits;
use super::live::Entry;
use super::refused::Refused;
use crate::rules::audit::{Gathering, Line, More, Reason, WINDOW, plain};
use crate::rules::close::End;
use crate::rules::guest::Uuid;
use crate::rules::route::Route;
use crate::rules::ticket::Mode;

/// The refusals of the last minute.
#[derive(Debug)]
pub(super) struct Audit {
    gathering: RefCell<Gathering>,
    begun: Instant,
    gathers: Notify,
    faulty: Cell<Option<Instant>>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { gathering: RefCell::default(), begun: Instant::now(), gathers: Notify::new(), faulty: Cell::default() }
    }
}

impl Audit {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Tells of a fault of this host's that every request meets, and so anybody could fill the journal with: once a minute.
pub(super) fn fault(guest: &Guest, why: &anyhow::Error) {
    let now = Instant::now();
    if guest.audit.faulty.get().is_none_or(|last| now >= last + WINDOW) {
        guest.audit.faulty.set(Some(now));
        tracing::error!("{why:#}");
    }
}

/// Tells of a refusal, by itself or later together with others.
pub(super) fn refused(guest: &Guest, peer: &Peer, refused: &Refused) {
    let Some(reason) = refused.reason else {
        return tracing::debug!("{peer} is answered {}: {}", refused.status, plain(&refused.words));
    };
    let audit = &guest.audit;
    let lines = audit.gathering.borrow_mut().refused(limits::network(peer), reason, audit.now());
    for line in lines {
        match line {
            Line::This => tell(guest, peer, refused, reason),
            Line::More(more) => tell_more(guest, &more),
        }
    }
    audit.gathers.notify_one();
}

/// Tells, for as long as it runs, how many were refused in minutes that are over.
pub(super) async fn keep_telling(guest: &Guest) -> Infallible {
    let audit = &guest.audit;
    loop {
        let due = audit.gathering.borrow().due();
        let over = async {
            match due {
                Some(due) => tokio::time::sleep_until(audit.begun + due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {
                let lines = audit.gathering.borrow_mut().over(audit.now());
                tell_all(guest, lines);
            }
            () = audit.gathers.notified() => {}
        }
    }
}

/// Tells what has not been told; the proxy ends.
pub(super) fn tell_rest(guest: &Guest) {
    let lines = guest.audit.gathering.borrow_mut().rest();
    tell_all(guest, lines);
}

fn tell_all(guest: &Guest, lines: Vec<Line>) {
    for line in lines {
        if let Line::More(more) = line {
            tell_more(guest, &more);
        }
    }
}

fn tell(guest: &Guest, peer: &Peer, refused: &Refused, reason: Reason) {
    let (uuid, name) = about(guest);
    let person = refused.person.as_deref().map(plain);
    let whose = person.as_ref().map(|person| format!(" ({person})")).unwrap_or_default();
    tracing::info!(
        event = "refused", guest = uuid, guest_name = name, person, from = %peer, reason = reason.word(),
        status = refused.status,
        "refused {peer}: {}: {}{whose}", reason.word(), plain(&refused.words)
    );
}

fn tell_more(guest: &Guest, more: &More) {
    let (uuid, name) = about(guest);
    let (count, kinds) = (more.count(), more.kinds());
    tracing::info!(
        event = "refused-more", guest = uuid, guest_name = name, from = %more, count, reason = kinds,
        "refused more from {more}: {count} in a minute ({kinds})"
    );
}

/// Tells that a guest's port is full, and who has it.
pub(super) fn full(guest: &Guest, holders: &str, count: usize) {
    let (uuid, name) = about(guest);
    let shown = name.clone().unwrap_or_default();
    tracing::warn!(
        event = "full",
        guest = uuid,
        guest_name = name,
        count,
        holders,
        "the port of {shown} is full with {count} connections: {holders}; the oldest without a right make room"
    );
}

/// Tells that it is so no more.
pub(super) fn has_room(guest: &Guest, made_room: u64, kept_out: u64) {
    let (uuid, name) = about(guest);
    let shown = name.clone().unwrap_or_default();
    let count = made_room + kept_out;
    tracing::info!(
        event = "full-over",
        guest = uuid,
        guest_name = name,
        count,
        "the port of {shown} has room again: {made_room} connections made room for others, {kept_out} found none at once"
    );
}

/// The guest's UUID and name, as far as they are known: it may have stopped.
fn about(guest: &Guest) -> (Option<String>, Option<String>) {
    if let Ok(Some(route)) = guest.route() {
        return (Some(route.uuid.to_string()), Some(plain(&route.name)));
    }
    let folder = guest.route_file.parent().and_then(|folder| folder.file_name()?.to_str());
    (folder.and_then(|name| name.parse::<Uuid>().ok()).map(|uuid| uuid.to_string()), None)
}

/// Tells that somebody began a session.
pub(super) fn login(route: &Route, peer: &Peer, person: &str, how: &str) {
    let (guest_name, person, auth) = (plain(&route.name), plain(person), plain(how));
    tracing::info!(
        event = "login", guest = %route.uuid, guest_name, person, auth, from = %peer,
        "login to {guest_name} from {peer}: {person} ({auth})"
    );
}

/// Tells that somebody ended their session.
pub(super) fn logout(route: &Route, peer: &Peer, person: &str, how: &str) {
    let (guest_name, person, auth) = (plain(&route.name), plain(person), plain(how));
    tracing::info!(
        event = "logout", guest = %route.uuid, guest_name, person, auth, from = %peer,
        "logout from {guest_name} from {peer}: {person} ({auth})"
    );
}

/// Tells that a session ended because another one needed its place.
pub(super) fn dropped(route: &Route, person: &str, how: &str) {
    let (guest_name, person, auth) = (plain(&route.name), plain(person), plain(how));
    tracing::info!(
        event = "session-dropped", guest = %route.uuid, guest_name, person, auth,
        "dropped a session of {guest_name}, which another one needed the place of: {person} ({auth})"
    );
}

/// A console that is open, as the journal was told. Dropped before its end was told, that is told: the proxy ended.
pub(super) struct Told {
    guest: Uuid,
    guest_name: String,
    person: String,
    entry: Rc<Entry>,
    is_over: bool,
}

impl Told {
    /// Tells that a console was opened.
    pub(super) fn open(route: &Route, entry: Rc<Entry>) -> Self {
        let (guest, guest_name, person) = (route.uuid.clone(), plain(&route.name), plain(&entry.person));
        let (console, from, auth, mode, reached) =
            (entry.console, &entry.from, plain(&entry.how), mode(entry.mode), entry.reached.get());
        tracing::info!(
            event = "session-start", guest = %guest, guest_name, person, auth, from = %from, console = %console, mode,
            reached = %reached,
            "opened {console} of {guest_name} from {from}: {person} ({auth}), {mode}, {reached}"
        );
        Self { guest, guest_name, person, entry, is_over: false }
    }

    /// Tells that it was closed, and why.
    pub(super) fn end(mut self, end: &End) {
        self.tell_end(end);
    }

    fn tell_end(&mut self, end: &End) {
        self.is_over = true;
        let Self { guest, guest_name, person, entry, .. } = self;
        let (console, from, auth, mode, reached) =
            (entry.console, &entry.from, plain(&entry.how), mode(entry.mode), entry.reached.get());
        let (bytes_out, bytes_in, bytes_dropped) = (entry.out.get(), entry.input.get(), entry.dropped.get());
        let (seconds, words) = (entry.opened.elapsed().as_secs(), plain(&end.words()));
        tracing::info!(
            event = "session-end", guest = %guest, guest_name, person, auth, from = %from, console = %console, mode,
            reached = %reached, bytes_out, bytes_in, bytes_dropped, seconds, end = words, end_code = end.code(),
            "left {console} of {guest_name} from {from} after {seconds} s: {person} ({auth}), {bytes_out} bytes out, \
             {bytes_in} in, {bytes_dropped} dropped: {words}"
        );
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.is_over {
            self.tell_end(&End::ProxyStops);
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::View => "view",
        Mode::Control => "control",
    }
}

#[cfg(test)]
mod tests {
    use super::super::guest::Opener;
    use super::super::live::{Live, Opening};
    use super::super::refused::refuse;
    use super::super::testing::opening;
    use super::*;
    use crate::edges::journal;
    use crate::edges::paths::Paths;
    use crate::rules::config::Config;
    use crate::rules::guest::Console;
    use tokio::time::sleep;

    fn guest(folder: &std::path::Path) -> Guest {
        Guest::new(Paths::new(folder), folder.join("route.toml"), Config::default(), None, Opener::Direct)
    }

    fn ann() -> Peer {
        Peer::Ip("::ffff:192.0.2.7".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_beyond_ten_are_told_once_the_minute_is_over_and_the_rest_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let guest = guest(folder.path());
        let (_guard, lines) = journal::kept();
        let script = async {
            for n in 0..25 {
                refused(&guest, &ann(), &refuse(401, format!("no {n}")).because(Reason::Ticket));
                sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(lines().len(), 10, "{:#?}", lines());
            sleep(Duration::from_secs(34)).await;
            assert_eq!(lines().len(), 10, "59 s");
            sleep(Duration::from_secs(2)).await;
            for n in 0..11 {
                refused(&guest, &ann(), &refuse(429, format!("again {n}")));
            }
        };
        tokio::select! { never = keep_telling(&guest) => match never {}, () = script => {} }
        tell_rest(&guest);
        let lines = lines();
        assert_eq!(lines.len(), 22, "{lines:#?}");
        assert!(lines[0].trim_start().starts_with("INFO refused 192.0.2.7: ticket: no 0 "), "{}", lines[0]);
        assert!(lines[10].contains("refused more from 192.0.2.7: 15 in a minute (15 ticket)"), "{}", lines[10]);
        assert!(lines[10].contains("event=\"refused-more\"") && lines[10].contains("count=15"), "{}", lines[10]);
        assert!(lines[21].contains("refused more from 192.0.2.7: 1 in a minute (1 limit)"), "{}", lines[21]);
    }

    #[tokio::test]
    async fn who_brings_nothing_is_not_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let (guest, (_guard, lines)) = (guest(folder.path()), journal::kept());
        refused(&guest, &ann(), &refuse(401, "a ticket is needed"));
        refused(&guest, &ann(), &refuse(404, "there is nothing at this path"));
        assert_eq!(lines(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_that_every_request_meets_is_told_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let (guest, (_guard, lines)) = (guest(folder.path()), journal::kept());
        for _ in 0..59 {
            fault(&guest, &anyhow::anyhow!("the route is broken"));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(lines().len(), 1);
        sleep(Duration::from_secs(1)).await;
        fault(&guest, &anyhow::anyhow!("the route is broken"));
        assert_eq!(lines().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_console_whose_proxy_ends_first_is_closed_in_the_journal_all_the_same() {
        let route = Route::parse_by_hand(
            "version = 1\nuuid = \"48e17e85-1ca1-4573-ba34-f18aba8934e6\"\nname = \"g\\nrefused 192.0.2.9: ticket: x\"\nport = 9100\n",
        );
        let (_guard, lines) = journal::kept();
        let live = Rc::new(Live::default());
        let opening = Opening { person: "refused 192.0.2.9: ticket: \u{1b}[31m".into(), ..opening(Console::Vnc) };
        let seat = live.enter(opening);
        let told = Told::open(&route.unwrap(), seat.entry.clone());
        seat.entry.out.set(1000);
        sleep(Duration::from_secs(63)).await;
        drop(told);
        let lines = lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].trim_start().starts_with("INFO opened vnc of g\u{fffd}refused "), "{}", lines[0]);
        assert!(lines[1].trim_start().starts_with("INFO left vnc of g\u{fffd}refused "), "{}", lines[1]);
        for field in ["seconds=63", "bytes_out=1000", "end=\"the console proxy is stopping\"", "end_code=1001"] {
            assert!(lines[1].contains(field), "{field}: {}", lines[1]);
        }
        assert!(!lines.concat().contains('\u{1b}'));
    }
}
