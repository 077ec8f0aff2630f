//! Limits on one address and on one person, so that nobody takes all the room that a guest's proxy has. Who makes room
//! for whom `rules::limits` says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::audit;
use super::entry::Peer;
use super::guest::Guest;
use super::live::Connection;
use super::refused::{Refused, refuse};
use crate::rules::audit::{WINDOW, plain};
use crate::rules::limits::{Answer, Held, Hold, Room, admit as judge, holders};
use crate::rules::person::Who;
use crate::rules::source::Network;

/// Of the connections that a guest may have, so many more may wait for one: a part.
const WAITING: usize = 4;

/// Who holds connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    held: RefCell<Vec<Rc<Holder>>>,
    waiting: Cell<usize>,
    full: Full,
}

/// One connection, or one request of a reverse proxy's.
#[derive(Debug)]
struct Holder {
    from: Network,
    is_here: bool,
    is_request: bool,
    began: Instant,
    hold: Cell<Hold>,
    who: RefCell<Option<Who>>,
    has_made_room: Cell<bool>,
    makes_room: Notify,
}

/// A place in the crowd; dropped, there is room for another.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Rc<Crowd>,
    holder: Rc<Holder>,
}

/// Since when the guest's port is full, for the journal.
#[derive(Debug, Default)]
struct Full {
    last: Cell<Option<Instant>>,
    made_room: Cell<u64>,
    kept_out: Cell<u64>,
    begins: Notify,
}

/// Why there is no place.
pub(super) enum NoPlace {
    /// All are held by those who have a right to them.
    Full,
    /// An address or a network has as many as it may.
    Refused(Refused),
}

impl Holder {
    fn new(peer: &Peer, is_request: bool) -> Self {
        let is_front = is_request || matches!(peer, Peer::Front);
        Self {
            from: network(peer),
            is_here: match peer {
                Peer::Ip(address) => address.to_canonical().is_loopback(),
                Peer::Unix => true,
                Peer::Front => false,
            },
            is_request,
            began: Instant::now(),
            hold: Cell::new(if is_front { Hold::Fixed } else { Hold::Stranger }),
            who: RefCell::default(),
            has_made_room: Cell::new(false),
            makes_room: Notify::new(),
        }
    }

    fn make_room(&self) {
        self.has_made_room.set(true);
        self.makes_room.notify_waiters();
    }
}

impl Crowd {
    /// A place for one more, be it another's.
    fn enter(
        self: &Rc<Self>,
        comes: Holder,
        room: Room,
        tell_full: impl FnOnce(&str, usize),
    ) -> Result<Place, NoPlace> {
        let answer = self.ask(&comes, room, tell_full);
        match answer {
            Answer::Come => {}
            Answer::Instead { of, .. } => self.held.borrow_mut().remove(of).make_room(),
            Answer::Wait => return Err(NoPlace::Full),
            Answer::Refused(network, most) => {
                return Err(NoPlace::Refused(refuse(429, format!("{network} has {most} connections already"))));
            }
        }
        let holder = Rc::new(comes);
        self.held.borrow_mut().push(holder.clone());
        Ok(Place { crowd: self.clone(), holder })
    }

    fn ask(&self, comes: &Holder, room: Room, tell_full: impl FnOnce(&str, usize)) -> Answer {
        let held = self.held.borrow();
        let people: Vec<_> = held.iter().map(|holder| holder.who.borrow()).collect();
        let seen = |holder: &Holder| Held {
            from: holder.from,
            is_here: holder.is_here,
            is_request: holder.is_request,
            hold: holder.hold.get(),
            who: None,
        };
        let all: Vec<_> =
            held.iter().zip(&people).map(|(holder, who)| Held { who: who.as_ref(), ..seen(holder) }).collect();
        let answer = judge(&all, &seen(comes), room);
        match answer {
            Answer::Instead { is_full: true, .. } => self.full.made_room.set(self.full.made_room.get() + 1),
            Answer::Wait => {}
            Answer::Come | Answer::Instead { .. } | Answer::Refused(..) => return answer,
        }
        if self.full.last.replace(Some(Instant::now())).is_none() {
            tell_full(&holders(&all), all.iter().filter(|one| !one.is_request).count());
            self.full.begins.notify_one();
        }
        answer
    }
}

impl Place {
    /// Somebody has shown a right on it.
    pub(super) fn shown(&self, who: Who) {
        if self.holder.hold.get() == Hold::Stranger {
            self.holder.hold.set(Hold::Known);
        }
        *self.holder.who.borrow_mut() = Some(who);
    }

    /// A console is open on it.
    pub(super) fn opened(&self) {
        self.holder.hold.set(Hold::Fixed);
    }

    pub(super) fn is_strangers(&self) -> bool {
        self.holder.hold.get() == Hold::Stranger
    }

    /// Returns when it is another's.
    pub(super) async fn lost(&self) {
        let lost = self.holder.makes_room.notified();
        if !self.holder.has_made_room.get() {
            lost.await;
        }
    }

    /// Returns when it is that old, if it is a stranger's then.
    pub(super) async fn outlived(&self, life: Duration) {
        tokio::time::sleep_until(self.holder.began + life).await;
        if !self.is_strangers() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.held.borrow_mut().retain(|holder| !Rc::ptr_eq(holder, &self.holder));
    }
}

/// What somebody counts as.
pub(super) fn network(peer: &Peer) -> Network {
    match peer {
        Peer::Ip(address) => Network::of(*address),
        Peer::Unix | Peer::Front => Network::Local,
    }
}

/// Counts a new connection, where there is room for one.
pub(super) fn admit(guest: &Guest, peer: &Peer) -> Result<Rc<Connection>, NoPlace> {
    Ok(Rc::new(guest.live.connect_from(Some(place(guest, Holder::new(peer, false))?))))
}

/// The same for a request that came by a reverse proxy's connection: that one is nobody's own.
pub(super) fn admit_request(
    guest: &Guest,
    peer: &Peer,
    connection: &Rc<Connection>,
) -> Result<Rc<Connection>, Refused> {
    match place(guest, Holder::new(peer, true)) {
        Ok(place) => Ok(Rc::new(Connection::behind(connection.clone(), place))),
        Err(NoPlace::Refused(refused)) => Err(refused),
        Err(NoPlace::Full) => Ok(connection.clone()),
    }
}

fn place(guest: &Guest, holder: Holder) -> Result<Place, NoPlace> {
    let config = guest.config();
    let room = Room { most: config.proxy.max_connections, of_address: config.proxy.max_per_address };
    guest.crowd.enter(holder, room, |holders, count| audit::full(guest, holders, count))
}

/// Waits for a place; `None` where too many do, or none came free in time.
pub(super) async fn wait(guest: &Guest, peer: &Peer) -> Option<Rc<Connection>> {
    let config = guest.config();
    let Crowd { waiting, full, .. } = &*guest.crowd;
    full.kept_out.set(full.kept_out.get() + 1);
    if waiting.get() >= config.proxy.max_connections.div_ceil(WAITING) {
        return None;
    }
    waiting.set(waiting.get() + 1);
    let coming = async {
        loop {
            guest.live.changed().await;
            match admit(guest, peer) {
                Ok(connection) => return Some(connection),
                Err(NoPlace::Refused(_)) => return None,
                Err(NoPlace::Full) => {}
            }
        }
    };
    let came = tokio::time::timeout(config.proxy.handshake_timeout, coming).await;
    waiting.set(waiting.get() - 1);
    came.ok().flatten()
}

/// Tells, for as long as it runs, that the port has room again: nobody had to make room for a minute.
pub(super) async fn watch(guest: &Guest) -> std::convert::Infallible {
    let full = &guest.crowd.full;
    loop {
        full.begins.notified().await;
        while let Some(over) = full.last.get().map(|last| last + WINDOW).filter(|over| *over > Instant::now()) {
            tokio::time::sleep_until(over).await;
        }
        tell_over(guest);
    }
}

/// Tells that the port is no longer full, where it was told that it is.
pub(super) fn tell_over(guest: &Guest) {
    let full = &guest.crowd.full;
    if full.last.take().is_some() {
        audit::has_room(guest, full.made_room.take(), full.kept_out.take());
    }
}

/// Whether a person may open one more console.
pub(super) fn has_room(guest: &Guest, who: &Who, person: &str) -> Result<(), Refused> {
    let open = guest.live.all().iter().filter(|entry| entry.who == *who).count();
    if open < guest.config().proxy.max_per_person {
        return Ok(());
    }
    Err(refuse(429, format!("{} has {open} consoles of this guest open already", plain(person))).of(person))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { most: 4, of_address: 2 };

    fn comes(crowd: &Rc<Crowd>, n: u8, told: &Cell<u32>) -> Option<Place> {
        let holder = Holder::new(&Peer::Ip([192, 0, 2, n].into()), false);
        crowd.enter(holder, ROOM, |_, _| told.set(told.get() + 1)).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_strangers_place_goes_to_the_next_and_one_with_a_right_is_kept_and_being_full_is_told_once() {
        let (crowd, told) = (Rc::new(Crowd::default()), Cell::new(0));
        let comes = |n| comes(&crowd, n, &told);
        let (one, two) = (comes(1).unwrap(), comes(1).unwrap());
        two.shown(Who::User("ann".into()));
        let three = comes(1).unwrap();
        one.lost().await;
        three.opened();
        two.opened();
        assert!(comes(1).is_none(), "an address has no more than it may");
        drop(one);
        let (four, five) = (comes(2).unwrap(), comes(3).unwrap());
        assert_eq!(told.get(), 0, "a share that is used up is no full port");
        let six = comes(4).unwrap();
        four.lost().await;
        let seven = comes(5).unwrap();
        five.lost().await;
        assert_eq!((told.get(), crowd.full.made_room.get(), crowd.held.borrow().len()), (1, 2, 4));
        drop((two, three, four, five, six, seven));
        assert!(crowd.held.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_strangers_time_ends_and_not_that_of_one_who_has_shown_a_right() {
        let (crowd, told) = (Rc::new(Crowd::default()), Cell::new(0));
        let begun = Instant::now();
        let (one, two) = (comes(&crowd, 1, &told).unwrap(), comes(&crowd, 1, &told).unwrap());
        let life = Duration::from_secs(30);
        one.outlived(life).await;
        assert_eq!(begun.elapsed(), life);
        two.shown(Who::Anyone);
        assert!(tokio::time::timeout(100 * life, two.outlived(life)).await.is_err());
    }
}
