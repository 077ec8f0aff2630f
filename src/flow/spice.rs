//! Whose a SPICE display is. spice-server has one client, and when another one comes it ends the first without a
//! word; so the proxy decides before it does. A client is all sockets that share ticket or session, and `?client=`:
//! one for each of its channels.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::live::{Entry, Live, Seat};
use super::refused::{Refused, refuse};
use crate::rules::close::End;
use crate::rules::config::SpiceViewers;
use crate::rules::guest::{Console, printable};
use crate::rules::route::Route;

/// For so long a client that was sent away is refused: its channels come one after the other, and one that was under
/// way must not take the display back.
const GRACE: Duration = Duration::from_secs(3);
/// How long the one before has for leaving: a close frame, and a moment to answer it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A socket is left alone for so long after it came. spice-server 0.15.1 does not survive a client that leaves between
/// the opening of its display channel and that channel's first message: a round trip, and what a browser takes.
const SETTLING: Duration = Duration::from_secs(2);

/// What a proxy knows of its guest's SPICE server and its clients.
#[derive(Debug, Default)]
pub(super) struct Spice {
    sent_away: RefCell<Vec<SentAway>>,
    /// The route's `since` at which spice-server turned out to speak no websocket.
    bridged: Cell<Option<u64>>,
}

#[derive(Debug)]
struct SentAway {
    viewer: String,
    client: Option<String>,
    by: String,
    until: Instant,
}

/// What tells clients apart.
type Client<'a> = (&'a str, Option<&'a str>);

impl Spice {
    /// Whether a client may come: 409 where the display is another's and stays so.
    pub(super) fn may_come(&self, live: &Live, own: Client<'_>, policy: SpiceViewers) -> Result<(), Refused> {
        let taken = |by: &str| Err(refuse(409, format!("{by} took this console over")));
        let mut sent_away = self.sent_away.borrow_mut();
        sent_away.retain(|other| other.until > Instant::now());
        if let Some(this) = sent_away.iter().find(|other| (other.viewer.as_str(), other.client.as_deref()) == own) {
            return taken(&this.by);
        }
        match others(live, own).first() {
            Some(holder) if policy == SpiceViewers::Refuse => {
                Err(refuse(409, format!("spice is in use by {}", who(holder))))
            }
            _ => Ok(()),
        }
    }

    /// Sends other clients away, and waits until they have left: their connections to spice-server are closed then,
    /// and it has nobody to end.
    pub(super) async fn take_over(&self, live: &Rc<Live>, seat: &Seat) -> Result<(), Refused> {
        until_ended(seat, settled(live, seat)).await?;
        let others = others(live, seat.entry.client());
        let by = who(&seat.entry);
        for other in &others {
            other.end(End::TakenOver(by.clone()));
            self.send_away(other, &by);
        }
        let gone = async {
            while live.on(Console::Spice).iter().any(|entry| others.iter().any(|other| Rc::ptr_eq(entry, other))) {
                live.changed().await;
            }
        };
        let gone = until_ended(seat, tokio::time::timeout(PATIENCE, gone)).await?;
        gone.map_err(|_| refuse(504, "the one who has this console does not leave"))
    }

    fn send_away(&self, entry: &Entry, by: &str) {
        let mut sent_away = self.sent_away.borrow_mut();
        let until = Instant::now() + GRACE;
        match sent_away.iter_mut().find(|other| (other.viewer.as_str(), other.client.as_deref()) == entry.client()) {
            Some(this) => (this.by, this.until) = (by.to_owned(), until),
            None => sent_away.push(SentAway {
                viewer: entry.viewer.clone(),
                client: entry.client.clone(),
                by: by.to_owned(),
                until,
            }),
        }
    }

    /// Notes that this guest's spice-server, as long as it runs, speaks no websocket.
    pub(super) fn has_no_websocket(&self, route: &Route) {
        self.bridged.set(Some(route.since));
    }

    /// Whether that was noted.
    pub(super) fn is_bridged(&self, route: &Route) -> bool {
        self.bridged.get() == Some(route.since)
    }
}

/// Does something for a client that may be sent away meanwhile.
pub(super) async fn until_ended<T>(seat: &Seat, work: impl Future<Output = T>) -> Result<T, Refused> {
    tokio::select! {
        biased;
        end = seat.entry.ended() => {
            let status = match end {
                End::TakenOver(_) => 409,
                End::SessionEnded(_) => 401,
                _ => 502,
            };
            Err(refuse(status, end.words()))
        }
        done = work => Ok(done),
    }
}

/// Returns when no socket of another client is so young that ending it would hurt the guest.
async fn settled(live: &Rc<Live>, seat: &Seat) {
    let youngest = || others(live, seat.entry.client()).iter().map(|other| other.opened + SETTLING).max();
    while let Some(time) = youngest().filter(|time| *time > Instant::now()) {
        tokio::time::sleep_until(time).await;
    }
}

fn others(live: &Live, own: Client<'_>) -> Vec<Rc<Entry>> {
    live.on(Console::Spice).into_iter().filter(|entry| entry.client() != own).collect()
}

/// Who a session's person is, for another.
pub(super) fn who(entry: &Entry) -> String {
    format!("{} from {}", printable(&entry.person), entry.from)
}

#[cfg(test)]
mod tests {
    use super::super::live::Opening;
    use super::super::testing::{local, opening};
    use super::*;

    fn enter(live: &Rc<Live>, person: &str, client: Option<&str>) -> Seat {
        let client = client.map(str::to_owned);
        live.enter(Opening { person: person.into(), viewer: person.into(), client, ..opening(Console::Spice) })
    }

    /// A session that leaves a while after it was told to.
    async fn sit(seat: Seat) -> End {
        let end = seat.entry.ended().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        end
    }

    fn refused(result: Result<(), Refused>) -> Option<(u16, String)> {
        result.err().map(|refused| (refused.status, refused.words))
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_waits_until_all_sockets_of_the_one_before_have_left() {
        local(async {
            let (live, spice) = (Rc::new(Live::default()), Spice::default());
            let first = [enter(&live, "ann", Some("a")), enter(&live, "ann", Some("a"))];
            let sitting = first.map(|seat| tokio::task::spawn_local(sit(seat)));
            let bob = enter(&live, "bob", None);
            let start = Instant::now();
            assert_eq!(refused(spice.take_over(&live, &bob).await), None);
            assert_eq!(start.elapsed(), SETTLING + Duration::from_secs(1));
            for sitting in sitting {
                assert_eq!(sitting.await.unwrap(), End::TakenOver("bob from 192.0.2.1".into()));
            }
            let second = enter(&live, "bob", None);
            assert_eq!(refused(spice.take_over(&live, &second).await), None, "his own sockets stay");
            assert_eq!(live.on(Console::Spice).len(), 2);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_socket_is_ended_while_its_channel_may_be_opening() {
        local(async {
            let (live, spice) = (Rc::new(Live::default()), Spice::default());
            let start = Instant::now();
            tokio::task::spawn_local(sit(enter(&live, "ann", None)));
            tokio::time::sleep(SETTLING / 2).await;
            let bob = enter(&live, "bob", None);
            let opens_another = async {
                tokio::time::sleep(SETTLING / 4).await;
                let seat = enter(&live, "ann", None);
                let end = seat.entry.ended().await;
                (end, start.elapsed())
            };
            let (result, (end, when)) = tokio::join!(spice.take_over(&live, &bob), opens_another);
            assert_eq!((refused(result), end), (None, End::TakenOver("bob from 192.0.2.1".into())));
            assert_eq!(when, SETTLING * 7 / 4, "its last one counts");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_come_at_once_the_later_one_has_it_and_the_other_hears_so() {
        local(async {
            let (live, spice) = (Rc::new(Live::default()), Spice::default());
            tokio::task::spawn_local(sit(enter(&live, "ann", None)));
            let bob = enter(&live, "bob", None);
            let bobs = async {
                let result = refused(spice.take_over(&live, &bob).await);
                drop(bob);
                result
            };
            let carols = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let carol = enter(&live, "carol", None);
                (refused(spice.take_over(&live, &carol).await), live.on(Console::Spice).len())
            };
            let (bob, carol) = tokio::join!(bobs, carols);
            assert_eq!(bob, Some((409, "carol from 192.0.2.1 took this console over".into())));
            assert_eq!(carol, (None, 1));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_was_under_way_does_not_take_the_display_back_and_a_person_does() {
        local(async {
            let (live, spice) = (Rc::new(Live::default()), Spice::default());
            tokio::task::spawn_local(sit(enter(&live, "ann", Some("a"))));
            let bob = enter(&live, "bob", None);
            assert_eq!(refused(spice.take_over(&live, &bob).await), None);
            let come = |client| refused(spice.may_come(&live, ("ann", client), SpiceViewers::TakeOver));
            assert_eq!(come(Some("a")), Some((409, "bob from 192.0.2.1 took this console over".into())));
            assert_eq!(come(Some("b")), None, "another tab");
            tokio::time::sleep(GRACE).await;
            assert_eq!(come(Some("a")), None);
        })
        .await;
    }

    #[test]
    fn where_the_configuration_says_so_another_client_is_refused_and_hears_who_has_it() {
        let (live, spice) = (Rc::new(Live::default()), Spice::default());
        let come = |own| refused(spice.may_come(&live, own, SpiceViewers::Refuse));
        assert_eq!(come(("ann", None)), None);
        let _ann = enter(&live, "ann", Some("a"));
        assert_eq!(come(("ann", Some("a"))), None);
        let busy = Some((409, "spice is in use by ann from 192.0.2.1".into()));
        assert_eq!(come(("ann", Some("b"))), busy);
        assert_eq!(come(("bob", Some("a"))), busy);
    }
}
