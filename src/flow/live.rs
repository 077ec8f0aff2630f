//! Who is connected: the table of live sessions, and its text for `systemctl status` and `status`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::limits::Place;
use crate::edges::sessions::Id;
use crate::rules::close::End;
use crate::rules::config::Status;
use crate::rules::guest::{Console, printable};
use crate::rules::person::Who;
use crate::rules::route::Reached;
use crate::rules::session::Standing;
use crate::rules::ticket::{Claims, Mode};

/// One session.
#[derive(Debug)]
pub struct Entry {
    /// Which console.
    pub console: Console,
    /// How it is reached; an old spice-server turns out later to speak no websocket.
    pub reached: Cell<Reached>,
    /// Look on, or type.
    pub mode: Mode,
    /// The person; any text.
    pub person: String,
    /// Who that is, for their shares.
    pub who: Who,
    /// The ticket or session that let them in: sockets of one client share it.
    pub viewer: String,
    /// How they showed who they are, for people: `password`, `ticket ISSUER/JTI`.
    pub how: String,
    /// What that stands on, which may be taken away.
    pub pass: Pass,
    /// The client among those with that ticket or session, where it gave itself a name: one tab of a browser.
    pub client: Option<String>,
    /// The client's address.
    pub from: String,
    /// Milliseconds since 1970.
    pub since: u64,
    /// The same moment on a clock that nobody sets.
    pub opened: Instant,
    /// Bytes to the client.
    pub out: Cell<u64>,
    /// Bytes from the client.
    pub input: Cell<u64>,
    /// Bytes that a slow client did not get.
    pub dropped: Cell<u64>,
    end: watch::Sender<Option<End>>,
}

/// What `console-proxy status` reads of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shown {
    /// Which console.
    pub console: Console,
    /// How it is reached.
    pub reached: Reached,
    /// Look on, or type.
    pub mode: Mode,
    /// The person.
    pub person: String,
    /// How they showed who they are: `password`, `ticket ISSUER/JTI`.
    #[serde(default)]
    pub how: String,
    /// The name of the session that they came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The client's address.
    pub from: String,
    /// Seconds since 1970.
    pub since: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes that a slow client did not get.
    pub bytes_dropped: u64,
}

/// What a new entry begins with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Which console.
    pub console: Console,
    /// How it is reached.
    pub reached: Reached,
    /// Look on, or type.
    pub mode: Mode,
    /// The person.
    pub person: String,
    /// Who that is, for their shares.
    pub who: Who,
    /// The ticket or session.
    pub viewer: String,
    /// How they showed who they are.
    pub how: String,
    /// What that stands on.
    pub pass: Pass,
    /// The name that the client gave itself.
    pub client: Option<String>,
    /// The client's address.
    pub from: String,
    /// Milliseconds since 1970.
    pub since: u64,
}

/// What a session stands on, and what is looked at again while it lasts.
#[derive(Clone, Debug)]
pub enum Pass {
    /// Nothing: by hand, without rights.
    Open,
    /// A ticket.
    Ticket(Claims),
    /// A session that a ticket or a password bought.
    Session(Id),
    /// A password that came along, and what was found out of its user.
    Password(RefCell<Standing>),
}

/// The table.
#[derive(Debug, Default)]
pub struct Live {
    entries: RefCell<Vec<Rc<Entry>>>,
    connections: Cell<usize>,
    changed: Notify,
}

/// A place in the table; dropped, it is free again.
#[derive(Debug)]
pub struct Seat {
    /// The session's entry.
    pub entry: Rc<Entry>,
    live: Rc<Live>,
}

/// A TCP connection that is counted, here and for its address; sessions keep theirs.
#[derive(Debug)]
pub struct Connection {
    counted: Counted,
    /// None where the limits know nothing of it.
    place: Option<Place>,
}

#[derive(Debug)]
enum Counted {
    Here(Rc<Live>),
    /// One of a reverse proxy's requests: the connection that it came by is.
    Below(#[allow(dead_code, reason = "it is counted for as long as it is kept")] Rc<Connection>),
}

impl Connection {
    /// A request for an address behind a reverse proxy, as a connection of that address.
    #[must_use]
    pub(super) fn behind(connection: Rc<Self>, place: Place) -> Self {
        Self { counted: Counted::Below(connection), place: Some(place) }
    }

    /// Somebody has shown a right on it.
    pub(super) fn shown(&self, who: Who) {
        if let Some(place) = &self.place {
            place.shown(who);
        }
    }

    /// A console is open on it.
    pub(super) fn opened(&self) {
        if let Some(place) = &self.place {
            place.opened();
        }
    }

    /// Whether nobody has shown a right on it.
    pub(super) fn is_strangers(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_strangers)
    }

    /// Returns when its place is another's: it has to end.
    pub(super) async fn lost(&self) {
        match &self.place {
            Some(place) => place.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Returns when it is that old, if it is a stranger's then.
    pub(super) async fn outlived(&self, life: Duration) {
        match &self.place {
            Some(place) => place.outlived(life).await,
            None => std::future::pending().await,
        }
    }
}

impl Live {
    /// Counts one more connection.
    #[must_use]
    pub fn connect(self: &Rc<Self>) -> Connection {
        self.connect_from(None)
    }

    /// Counts one more connection, whose address has a place for it.
    #[must_use]
    pub(super) fn connect_from(self: &Rc<Self>, place: Option<Place>) -> Connection {
        self.connections.set(self.connections.get() + 1);
        Connection { counted: Counted::Here(self.clone()), place }
    }

    /// Open connections, sessions or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Enters a session.
    #[must_use]
    pub fn enter(self: &Rc<Self>, opening: Opening) -> Seat {
        let Opening { console, reached, mode, person, who, viewer, how, pass, client, from, since } = opening;
        let entry = Rc::new(Entry {
            console,
            reached: Cell::new(reached),
            mode,
            person,
            who,
            viewer,
            how,
            pass,
            client,
            from,
            since,
            opened: Instant::now(),
            out: Cell::default(),
            input: Cell::default(),
            dropped: Cell::default(),
            end: watch::Sender::new(None),
        });
        self.entries.borrow_mut().push(entry.clone());
        self.changed.notify_waiters();
        Seat { entry, live: self.clone() }
    }

    /// All sessions.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<Entry>> {
        self.entries.borrow().clone()
    }

    /// The sessions on one console.
    #[must_use]
    pub fn on(&self, console: Console) -> Vec<Rc<Entry>> {
        self.entries.borrow().iter().filter(|entry| entry.console == console).cloned().collect()
    }

    /// Ends every session.
    pub fn end_all(&self, end: &End) {
        for entry in self.all() {
            entry.end(end.clone());
        }
    }

    /// Returns when a session or a connection has come or gone.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// For `console-proxy status`.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let entries = self.entries.borrow();
        let shown = entries.iter().map(|entry| Shown {
            console: entry.console,
            reached: entry.reached.get(),
            mode: entry.mode,
            person: entry.person.clone(),
            how: entry.how.clone(),
            session: match &entry.pass {
                Pass::Session(id) => Some(id.to_string()),
                _ => None,
            },
            from: entry.from.clone(),
            since: entry.since / 1000,
            bytes_out: entry.out.get(),
            bytes_in: entry.input.get(),
            bytes_dropped: entry.dropped.get(),
        });
        shown.collect()
    }

    /// One line for `systemctl status`: how many are on which console, or who, and how much went through.
    #[must_use]
    pub fn line(&self, guest: &str, status: Status) -> String {
        let sessions = self.shown();
        let guest = printable(guest);
        if sessions.is_empty() {
            return format!("{guest}: nobody is connected");
        }
        if status == Status::Numbers {
            return format!("{guest}: {}", numbers(&sessions));
        }
        let one = |s: &Shown| {
            let mode = if s.mode == Mode::View { ", view only" } else { "" };
            let (person, from) = (printable(&s.person), printable(&s.from));
            format!(
                "{person} from {from} on {} ({}{mode}, {} out, {} in)",
                s.console,
                s.reached,
                size(s.bytes_out),
                size(s.bytes_in)
            )
        };
        let mut line = format!("{guest}: {}", sessions.iter().map(one).collect::<Vec<_>>().join("; "));
        // PID 1 takes long texts, but nobody reads them.
        if line.len() > 1000 {
            let cut = (0..=1000).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
            line.truncate(cut);
            line.push_str(" ...");
        }
        line
    }
}

/// How many sessions each console has, and what went through all of them: nothing that says who somebody is.
fn numbers(sessions: &[Shown]) -> String {
    let mut consoles: Vec<_> = sessions.iter().map(|session| session.console).collect();
    consoles.sort_unstable();
    consoles.dedup();
    let counted = consoles.iter().map(|console| {
        let on = || sessions.iter().filter(|session| session.console == *console);
        let view = match on().filter(|session| session.mode == Mode::View).count() {
            0 => String::new(),
            n => format!(" ({n} view only)"),
        };
        format!("{} on {console}{view}", on().count())
    });
    let sum = |bytes: fn(&Shown) -> u64| size(sessions.iter().map(bytes).sum());
    let counted = counted.collect::<Vec<_>>().join(", ");
    format!("{counted}; {} out, {} in", sum(|session| session.bytes_out), sum(|session| session.bytes_in))
}

impl Entry {
    /// Who the client is: sockets that share this are one client's, as SPICE's are.
    #[must_use]
    pub fn client(&self) -> (&str, Option<&str>) {
        (&self.viewer, self.client.as_deref())
    }

    /// Whether [`Self::end`] was called.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Ends the session; the first reason counts.
    pub fn end(&self, end: End) {
        self.end.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(end);
            }
            first
        });
    }

    /// Returns when [`Self::end`] was called.
    pub async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let found = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match found {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.live.entries.borrow_mut().retain(|entry| !Rc::ptr_eq(entry, &self.entry));
        self.live.changed.notify_waiters();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Counted::Here(live) = &self.counted {
            live.connections.set(live.connections.get() - 1);
            live.changed.notify_waiters();
        }
    }
}

/// A number of bytes for people.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(person: &str) -> Opening {
        Opening {
            console: Console::Vnc,
            reached: Reached::Bridged,
            mode: Mode::Control,
            person: person.into(),
            who: Who::User(person.into()),
            viewer: "j".into(),
            how: "password".into(),
            pass: Pass::Open,
            client: None,
            from: "192.0.2.1".into(),
            since: 0,
        }
    }

    #[test]
    fn the_status_line_says_who_is_on_what_where_that_is_asked_for_and_stays_one_line() {
        let live = Rc::new(Live::default());
        assert_eq!(live.line("g\n1", Status::Names), "g\u{fffd}1: nobody is connected");
        let seat = live.enter(opening("ann\nSTATUS=x"));
        seat.entry.out.set(2048);
        assert_eq!(
            live.line("g1", Status::Names),
            "g1: ann\u{fffd}STATUS=x from 192.0.2.1 on vnc (bridged, 2.0 KiB out, 0 B in)"
        );
        drop(seat);
        assert_eq!(live.line("g1", Status::Names), "g1: nobody is connected");
    }

    #[test]
    fn by_default_the_status_line_says_how_many_are_on_what_and_nothing_of_who_they_are() {
        let live = Rc::new(Live::default());
        assert_eq!(live.line("g1", Status::Numbers), "g1: nobody is connected");
        let serial = |person| Opening { console: Console::Serial(0), mode: Mode::View, ..opening(person) };
        let seats = [opening("ann"), serial("bob"), serial("cid"), Opening { mode: Mode::Control, ..serial("dan") }]
            .map(|opening| live.enter(opening));
        for seat in &seats {
            seat.entry.out.set(1024);
            seat.entry.input.set(1);
        }
        assert_eq!(
            live.line("g\n1", Status::Numbers),
            "g\u{fffd}1: 1 on vnc, 3 on serial/0 (2 view only); 4.0 KiB out, 4 B in"
        );
    }

    #[tokio::test]
    async fn the_first_reason_for_an_end_counts() {
        let live = Rc::new(Live::default());
        let seat = live.enter(opening("ann"));
        live.end_all(&End::GuestStopped);
        live.end_all(&End::ProxyStops);
        assert_eq!(seat.entry.ended().await, End::GuestStopped);
    }

    #[test]
    fn connections_are_counted_for_as_long_as_they_live() {
        let live = Rc::new(Live::default());
        let (a, b) = (live.connect(), live.connect());
        assert_eq!(live.connections(), 2);
        drop(a);
        drop(b);
        assert_eq!(live.connections(), 0);
    }
}
