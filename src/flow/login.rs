//! A user of this host shows their password: the host is asked, and says in which groups they are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Semaphore;

use super::guest::Guest;
use super::identity::{Person, Proof, no_right};
use super::refused::{Refused, refuse};
use crate::edges::publish::now;
use crate::rules::audit::Reason;
use crate::rules::auth::{Answer, Question, Verdict, is_password, is_user};
use crate::rules::limits::Source;
use crate::rules::route::Route;
use crate::rules::session::Standing;

/// The most passwords that are checked at a time for one guest: each may be held up by its PAM module.
const MOST: usize = 16;
/// And of those that come from one address, which wait for each other: all guests of the host share one auth unit.
const MOST_OF_ONE: usize = 2;

/// The passwords that are being checked.
#[derive(Debug)]
pub(super) struct Turns {
    all: Semaphore,
    each: RefCell<BTreeMap<Source, Rc<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Semaphore::new(MOST), each: RefCell::default() }
    }
}

impl Turns {
    fn of(&self, from: &str) -> Rc<Semaphore> {
        let source = from.parse().map_or(Source::Local, Source::of);
        let mut each = self.each.borrow_mut();
        each.retain(|_, turns| Rc::strong_count(turns) > 1);
        each.entry(source).or_insert_with(|| Rc::new(Semaphore::new(MOST_OF_ONE))).clone()
    }
}

/// Checks a password. Who is let in here has a right to something of the guest.
pub(super) async fn log_in(
    guest: &Guest,
    route: &Route,
    user: String,
    password: String,
    from: &str,
) -> Result<Person, Refused> {
    if !guest.takes_passwords() {
        return Err(refuse(401, "passwords are not taken here: a ticket is needed"));
    }
    // The name is not told: many a password was typed where the name belongs. PAM's own lines have it, if it is one.
    let wrong = || refuse(401, "the user or the password is wrong").because(Reason::Password);
    if !is_user(&user) || !is_password(&password) {
        return Err(wrong());
    }
    let of_one = guest.logins.of(from);
    let _own_turn = of_one.acquire().await;
    let Ok(_turn) = guest.logins.all.try_acquire() else {
        return Err(refuse(429, "too many passwords are being checked: try again in a moment"));
    };
    // What is no address, such as a unix socket, is nothing that PAM's rules could be about.
    let from = if from.parse::<std::net::IpAddr>().is_ok() { from.to_owned() } else { String::new() };
    let question = Question::Password { password, from };
    let answer = guest.ask_auth(&user, question).await;
    let unknown = |why: String| refuse(503, format!("the password cannot be checked now: {why}"));
    match answer {
        Ok(Answer { verdict: Verdict::Right, user, groups, .. }) => {
            let rights = guest.rights_of_user(route, &user, &groups);
            if rights.is_none() {
                return Err(no_right(&user));
            }
            Ok(Person {
                viewer: format!("password {user}"),
                name: user,
                rights,
                life: guest.config().access.session_life,
                proof: Proof::Password(Standing { groups, checked: now() }),
            })
        }
        Ok(Answer { verdict: Verdict::Wrong, .. }) => Err(wrong()),
        Ok(Answer { verdict: Verdict::Barred, words, .. }) => Err(refuse(403, words).because(Reason::Right)),
        Ok(Answer { verdict: Verdict::Limited, words, retry_after, .. }) => {
            let mut refused = refuse(429, words).because(Reason::Password);
            refused.headers.push(("retry-after", retry_after.to_string()));
            Err(refused)
        }
        Ok(Answer { verdict: Verdict::Unknown | Verdict::Denied, words, .. }) => Err(unknown(words)),
        Err(why) => Err(unknown(why)),
    }
}
