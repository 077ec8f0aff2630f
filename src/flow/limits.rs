//! Limits on one address and on one person, so that nobody takes all the room that a guest's proxy has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::entry::Peer;
use super::guest::Guest;
use super::live::Connection;
use super::refused::{Refused, refuse};
use crate::rules::audit::plain;
use crate::rules::limits::Source;

/// How many connections each address has. An address without one is not in here, so this is never larger than the
/// number of connections.
#[derive(Debug, Default)]
pub(super) struct Crowd(RefCell<BTreeMap<Source, usize>>);

/// One of an address's connections; dropped, there is room for another.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Rc<Crowd>,
    source: Source,
}

impl Crowd {
    /// One more connection of an address, where it has fewer than `most`.
    fn enter(self: &Rc<Self>, source: Source, most: usize) -> Option<Place> {
        let mut counts = self.0.borrow_mut();
        let has_room = counts.get(&source).copied().unwrap_or_default() < most;
        has_room.then(|| {
            *counts.entry(source).or_default() += 1;
            Place { crowd: self.clone(), source }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.borrow_mut();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// What somebody counts as.
pub(super) fn source(peer: &Peer) -> Source {
    match peer {
        Peer::Ip(address) => Source::of(*address),
        Peer::Unix | Peer::Front => Source::Local,
    }
}

/// Counts a new connection, where its address has room for one.
pub(super) fn admit(guest: &Guest, peer: &Peer) -> Result<Rc<Connection>, Refused> {
    Ok(Rc::new(guest.live.connect_from(place(guest, peer)?)))
}

/// The same for a request that came by a reverse proxy's connection: that one is nobody's own.
pub(super) fn admit_request(
    guest: &Guest,
    peer: &Peer,
    connection: &Rc<Connection>,
) -> Result<Rc<Connection>, Refused> {
    Ok(match place(guest, peer)? {
        Some(place) => Rc::new(Connection::behind(connection.clone(), place)),
        None => connection.clone(),
    })
}

/// A place for one more connection; who has no address needs none.
fn place(guest: &Guest, peer: &Peer) -> Result<Option<Place>, Refused> {
    let source = source(peer);
    if source == Source::Local {
        return Ok(None);
    }
    let most = guest.config().proxy.max_per_address;
    let place = guest.crowd.enter(source, most);
    place.map(Some).ok_or_else(|| refuse(429, format!("{source} has {most} connections already")))
}

/// Whether a person may open one more console.
pub(super) fn has_room(guest: &Guest, person: &str) -> Result<(), Refused> {
    let open = guest.live.all().iter().filter(|entry| entry.person == person).count();
    if open < guest.config().proxy.max_per_person {
        return Ok(());
    }
    Err(refuse(429, format!("{} has {open} consoles of this guest open already", plain(person))).of(person))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_is_forgotten_with_the_last() {
        let crowd = Rc::new(Crowd::default());
        let (ann, bob) = (Source::of([192, 0, 2, 1].into()), Source::of([192, 0, 2, 2].into()));
        let one = crowd.enter(ann, 2).unwrap();
        let two = crowd.enter(ann, 2).unwrap();
        assert!(crowd.enter(ann, 2).is_none());
        let other = crowd.enter(bob, 2).unwrap();
        assert_eq!(crowd.0.borrow().len(), 2, "who was refused has left nothing");
        drop(one);
        let again = crowd.enter(ann, 2).unwrap();
        drop((two, other, again));
        assert!(crowd.0.borrow().is_empty());
    }
}
