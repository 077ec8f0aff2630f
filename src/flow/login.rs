//! A user of this host shows their password: the host is asked, and says in which groups they are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::audit;
use super::entry::Peer;
use super::guest::Guest;
use super::identity::{Person, Proof, no_right};
use super::limits;
use super::refused::{Refused, refuse};
use crate::edges::publish::now;
use crate::rules::audit::Reason;
use crate::rules::auth::{Answer, Question, Verdict, is_password, is_user};
use crate::rules::route::Route;
use crate::rules::session::Standing;
use crate::rules::source::Network;

/// The most passwords that are checked at a time for one guest: each may be held up by its PAM module.
const MOST: usize = 16;
/// And of those that come from one address, which wait for each other: all guests of the host share one auth unit. Of a
/// wider IPv6 network its [`Network::times`].
const MOST_OF_ONE: usize = 2;

/// The passwords that are being checked.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    each: RefCell<BTreeMap<Network, Arc<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MOST)), each: RefCell::default() }
    }
}

impl Turns {
    fn of(&self, peer: &Peer) -> Vec<Arc<Semaphore>> {
        let mut each = self.each.borrow_mut();
        each.retain(|_, turns| Arc::strong_count(turns) > 1);
        let most = |network: Network| MOST_OF_ONE * network.times() as usize;
        let all = limits::network(peer).all();
        all.map(|network| each.entry(network).or_insert_with(|| Arc::new(Semaphore::new(most(network)))).clone())
            .collect()
    }

    /// Whether a password is being checked.
    pub(super) fn any(&self) -> bool {
        self.all.available_permits() < MOST
    }
}

/// Checks a password. Who is let in here has a right to something of the guest.
pub(super) async fn log_in(
    guest: &Rc<Guest>,
    route: &Route,
    user: String,
    password: String,
    peer: &Peer,
) -> Result<Person, Refused> {
    if !guest.takes_passwords() {
        return Err(refuse(401, "passwords are not taken here: a ticket is needed"));
    }
    if !is_user(&user) || !is_password(&password) {
        return Err(wrong());
    }
    // Waiting ends with the client: nothing has been asked. Semaphores of ours are never closed.
    // From the narrowest network on, so that nobody waits for who waits for them.
    let mut own_turn = Vec::new();
    for turns in guest.logins.of(peer) {
        own_turn.push(turns.acquire_owned().await);
    }
    let Ok(turn) = guest.logins.all.clone().try_acquire_owned() else {
        return Err(refuse(429, "too many passwords are being checked: try again in a moment"));
    };
    let (tell, told) = oneshot::channel();
    let (guest, route, peer) = (guest.clone(), route.clone(), peer.clone());
    tokio::task::spawn_local(async move {
        let mut found = check(&guest, &route, &user, password, &peer).await;
        drop((own_turn, turn));
        if let Err(refused) = &mut found {
            // Here, where it is told once whoever waits: a client may hang up at any moment.
            audit::refused(&guest, &peer, refused);
            refused.reason = None;
        }
        let _ = tell.send(found);
    });
    told.await.unwrap_or_else(|_| Err(refuse(503, "the password cannot be checked now")))
}

/// Has the host asked. PAM does not stop where a client hangs up: until it has answered this is under way, and a wrong
/// password is one all the same.
async fn check(guest: &Guest, route: &Route, user: &str, password: String, peer: &Peer) -> Result<Person, Refused> {
    // What is no address, such as a unix socket, is nothing that PAM's rules could be about.
    let from = if let Peer::Ip(address) = peer { address.to_canonical().to_string() } else { String::new() };
    let question = Question::Password { password, from: from.clone() };
    let (user, groups, local) = judge(guest.ask_auth(user, question).await)?;
    let rights = guest.rights_of_user(route, &user, &groups);
    if rights.is_none() {
        return Err(no_right(&user));
    }
    Ok(Person {
        viewer: format!("password {user}"),
        name: user,
        rights,
        life: guest.config().access.session_life,
        proof: Proof::Password(Standing { groups, checked: now(), from, local }),
    })
}

/// The user as the host knows them, their groups, and whether they are its own.
fn judge(answer: Result<Answer, String>) -> Result<(String, Vec<String>, bool), Refused> {
    let unknown = |why: String| Err(refuse(503, format!("the password cannot be checked now: {why}")));
    match answer {
        Ok(Answer { verdict: Verdict::Right, user, groups, local, .. }) => Ok((user, groups, local)),
        Ok(Answer { verdict: Verdict::Wrong, .. }) => Err(wrong()),
        Ok(Answer { verdict: Verdict::Barred, words, .. }) => Err(refuse(403, words).because(Reason::Right)),
        Ok(Answer { verdict: Verdict::Limited, words, retry_after, .. }) => {
            let mut refused = refuse(429, words).because(Reason::Password);
            refused.headers.push(("retry-after", retry_after.to_string()));
            Err(refused)
        }
        Ok(Answer { verdict: Verdict::Unknown | Verdict::Unanswerable | Verdict::Denied, words, .. }) => unknown(words),
        Err(why) => unknown(why),
    }
}

/// The name is not told: many a password was typed where the name belongs. PAM's own lines have it, if it is one.
fn wrong() -> Refused {
    refuse(401, "the user or the password is wrong").because(Reason::Password)
}
