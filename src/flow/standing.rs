//! What people may here, and whether they still may it: rights are looked at when a console is opened, and again
//! and again while it is open, by what the host says of its users now, the configuration, and the administrator's orders.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OnceCell;

use super::audit;
use super::guest::Guest;
use super::live::{Entry, Pass};
use crate::edges::publish::now;
use crate::edges::sessions::Id;
use crate::edges::wake::Wake;
use crate::rules::auth::{Answer, Question, Verdict};
use crate::rules::close::End;
use crate::rules::config::GuestSettings;
use crate::rules::revoked::Subject;
use crate::rules::rights::{Rights, Who};
use crate::rules::route::Route;
use crate::rules::session::{Bought, Session, Standing};
use crate::rules::ticket::{Mode, Pattern};

/// Between two looks at what open consoles stand on. A lost right ends them within 60 s: two of these, and the time
/// that an answer takes.
const BETWEEN: Duration = Duration::from_secs(20);
/// What was found out of a user counts for so many seconds: little beside [`BETWEEN`], so that each look asks anew,
/// also where the one before it waited for somebody's PAM module.
const FRESH: u64 = 5;
/// And, where nothing can be found out, for so many: the directory may be down for a moment.
const GRACE: u64 = 600;

/// Ends open consoles whose right has gone, for as long as the proxy runs.
pub(super) async fn watch(guest: &Rc<Guest>) {
    // Without a folder (a guest that has gone, or a lack of watches) the clock has to do.
    let wake = guest.route_file.parent().and_then(|folder| Wake::new(folder).ok());
    loop {
        let woken = async {
            match &wake {
                Some(wake) => wake.changed().await,
                None => std::future::pending().await,
            }
        };
        let now_and_then = async {
            while guest.live.all().is_empty() {
                guest.live.changed().await;
            }
            tokio::time::sleep(BETWEEN).await;
        };
        let at_once = tokio::select! {
            woken = woken => match woken {
                Ok(()) => true,
                Err(why) => {
                    tracing::warn!("changes are seen later than at once: {why}");
                    tokio::time::sleep(BETWEEN).await;
                    false
                }
            },
            () = now_and_then => false,
        };
        // Not waited for: an order is to count at once, also while somebody's PAM module keeps a look from ending.
        let guest = guest.clone();
        tokio::task::spawn_local(async move { look(&guest, at_once).await });
    }
}

/// Looks at every open console; `at_once`: what was found out of users does not count any more.
async fn look(guest: &Guest, at_once: bool) {
    // A guest that has stopped says so by itself.
    let route = match guest.route() {
        Ok(Some(route)) => route,
        Ok(None) => return,
        Err(why) => {
            audit::fault(guest, &why.context("rights are looked at by what the guest's route said last"));
            let Some(route) = guest.last_route() else { return };
            route
        }
    };
    let look = Look { at_once, found: RefCell::default() };
    // A user whom nobody can say anything about, for instance because a PAM module hangs, keeps no other's right alive.
    let each = guest.live.all().into_iter().map(async |entry| {
        if let Some(end) = verdict(guest, &route, &entry, &look).await {
            entry.end(end);
        }
    });
    join_all(each).await;
}

/// A user, and the address that they came from.
type Comer = (String, String);

/// One look: each user is asked about once for each address that they came from.
#[derive(Default)]
pub(super) struct Look {
    /// What was found out earlier does not count any more.
    at_once: bool,
    found: RefCell<HashMap<Comer, Rc<OnceCell<Found>>>>,
}

/// Why an open console has to end.
async fn verdict(guest: &Guest, route: &Route, entry: &Entry, look: &Look) -> Option<End> {
    let subject = Subject { person: &entry.person, ticket: None, session: None, began: entry.since, is_ticket: false };
    let rights = match &entry.pass {
        Pass::Open => return None,
        Pass::Ticket(claims) => {
            let ended = guest.ended(route, &Subject::of_ticket(claims)).or_else(|| guest.ended(route, &subject));
            if let Some(why) = ended {
                return Some(End::SessionEnded(why));
            }
            guest.rights_of_ticket(route, &claims.iss, &claims.consoles, claims.mode)
        }
        Pass::Session(id) => {
            // Its file has gone: somebody logged out. Its end by time is the console's own.
            let Some(session) = guest.store.get(id) else { return Some(End::LOGGED_OUT) };
            if let Some(why) = guest.ended(route, &Subject::of_session(id.as_str(), &session)) {
                return Some(End::SessionEnded(why));
            }
            let session = match refresh(guest, id, session, look).await {
                Ok(session) => session,
                Err(Stale::Barred(why)) => return Some(End::Denied(why)),
                Err(Stale::Unknown(_)) => return Some(End::SessionEnded(NOT_SURE)),
            };
            guest.rights_of_session(route, &session)
        }
        Pass::Password(standing) => {
            if let Some(why) = guest.ended(route, &subject) {
                return Some(End::SessionEnded(why));
            }
            let known = standing.borrow().clone();
            match still(guest, &entry.person, &known, look).await {
                Ok(new) => {
                    let rights = guest.rights_of_user(route, &entry.person, &new.groups);
                    standing.replace(new);
                    rights
                }
                Err(Stale::Barred(why)) => return Some(End::Denied(why)),
                Err(Stale::Unknown(_)) => return Some(End::SessionEnded(NOT_SURE)),
            }
        }
    };
    lost(entry, rights.on(entry.console))
}

const NOT_SURE: &str = "the session has ended: nobody could say for ten minutes whether its user may still enter";

/// Why a console that was opened with more than is left has to end.
fn lost(entry: &Entry, left: Option<Mode>) -> Option<End> {
    match left {
        None => Some(End::Denied(format!("the right to {} was taken away", entry.console))),
        Some(Mode::View) if entry.mode == Mode::Control => {
            Some(End::Denied(format!("the right to type at {} was taken away", entry.console)))
        }
        Some(_) => None,
    }
}

/// Why a user's standing is not known, or no good.
pub(super) enum Stale {
    /// They may enter no longer; why, in words.
    Barred(String),
    /// It has not been found out for too long; why, in words.
    Unknown(String),
}

/// What this host says of a user.
#[derive(Clone)]
enum Found {
    Standing(Standing),
    Barred(String),
    Unknown(String),
}

/// A session as it stands now: of one that a password bought, its user's groups are found out anew where that was
/// long ago. One whose user may enter no longer is ended.
pub(super) async fn refresh(guest: &Guest, id: &Id, mut session: Session, look: &Look) -> Result<Session, Stale> {
    let Bought::Password(known) = &session.bought else { return Ok(session) };
    if !guest.takes_passwords() {
        return Err(Stale::Barred("passwords are not taken here any more".to_owned()));
    }
    match still(guest, &session.sub, known, look).await {
        Ok(standing) => {
            if standing != *known
                && let Err(why) = guest.store.found(id, &standing)
            {
                tracing::warn!("cannot note what was found out of a session's user: {why}");
            }
            session.bought = Bought::Password(standing);
            Ok(session)
        }
        Err(stale) => {
            if matches!(stale, Stale::Barred(_))
                && let Err(why) = guest.store.remove(id)
            {
                tracing::warn!("cannot end a session: {why}");
            }
            Err(stale)
        }
    }
}

/// What a user's standing is now.
async fn still(guest: &Guest, user: &str, known: &Standing, look: &Look) -> Result<Standing, Stale> {
    let age = now().saturating_sub(known.checked);
    if age < FRESH && !look.at_once {
        return Ok(known.clone());
    }
    let who = (user.to_owned(), known.from.clone());
    let found = look.found.borrow_mut().entry(who).or_default().clone();
    match found.get_or_init(|| find_out(guest, user, known)).await.clone() {
        Found::Standing(standing) => Ok(standing),
        Found::Barred(why) => Err(Stale::Barred(why)),
        Found::Unknown(why) if age >= GRACE => Err(Stale::Unknown(why)),
        Found::Unknown(_) => Ok(known.clone()),
    }
}

async fn find_out(guest: &Guest, user: &str, known: &Standing) -> Found {
    let (from, local) = (known.from.clone(), known.local);
    match guest.ask_auth(user, Question::Still { from: from.clone(), local }).await {
        Ok(Answer { verdict: Verdict::Right, groups, local, .. }) => {
            Found::Standing(Standing { groups, checked: now(), from, local })
        }
        Ok(Answer { verdict: Verdict::Barred, words, .. }) if words.is_empty() => {
            Found::Barred("the right to enter was taken away".to_owned())
        }
        Ok(Answer { verdict: Verdict::Barred, words, .. }) => Found::Barred(words),
        Ok(answer) => Found::Unknown(answer.words),
        Err(why) => Found::Unknown(why),
    }
}

impl Guest {
    /// What a user of this host may here.
    pub(super) fn rights_of_user(&self, route: &Route, user: &str, groups: &[String]) -> Rights {
        let config = self.config();
        let rights = Rights::of_user(&config.access.rights, user, groups, (&route.name, &route.uuid));
        self.narrow(route, rights, &Who::User(user, groups))
    }

    /// What a ticket allows, as far as its issuer still may give that.
    pub(super) fn rights_of_ticket(&self, route: &Route, issuer: &str, consoles: &[Pattern], mode: Mode) -> Rights {
        let consoles = if self.issuer_may(route, issuer, mode) { consoles } else { &[] };
        self.narrow(route, Rights::of_ticket(consoles, mode), &Who::Issuer(issuer))
    }

    /// What a session allows.
    pub(super) fn rights_of_session(&self, route: &Route, session: &Session) -> Rights {
        match &session.bought {
            Bought::Ticket { iss, consoles, mode, .. } => self.rights_of_ticket(route, iss, consoles, *mode),
            Bought::Password(standing) => self.rights_of_user(route, &session.sub, &standing.groups),
        }
    }

    fn narrow(&self, route: &Route, rights: Rights, who: &Who<'_>) -> Rights {
        match &route.allow {
            Some(allow) if self.config().access.guest_settings == GuestSettings::Narrow => rights.narrowed(allow, who),
            _ => rights,
        }
    }
}
