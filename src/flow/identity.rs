//! Who asks, by the strongest thing that the request brings: a ticket, a password, or a session's cookie.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::entry::Peer;
use super::guest::{Guest, viewer_of};
use super::live::Pass;
use super::login::log_in;
use super::refused::{Refused, refuse};
use super::standing::{Look, Stale, refresh};
use crate::edges::http::Asked;
use crate::edges::publish::now;
use crate::edges::sessions::{Id, sha256};
use crate::rules::audit::Reason;
use crate::rules::guest::{Console, printable};
use crate::rules::person::Who;
use crate::rules::request::{self, Endpoint, OriginVerdict};
use crate::rules::revoked::Subject;
use crate::rules::rights::Rights;
use crate::rules::route::{Auth, Route};
use crate::rules::session::{Session, Standing};
use crate::rules::ticket::{Claims, Mode};

/// Who asks, and what they may.
pub(super) struct Person {
    pub(super) name: String,
    pub(super) rights: Rights,
    pub(super) viewer: String,
    /// Seconds until the session that this opens has to end.
    pub(super) life: Duration,
    pub(super) proof: Proof,
}

pub(super) enum Proof {
    Ticket(Claims),
    Session(Id, Session),
    Password(Standing),
    Open,
}

impl Person {
    /// What they may on a console; the refusal says whose word it is.
    pub(super) fn may_open(&self, console: Console) -> Result<Mode, Refused> {
        self.rights.on(console).ok_or_else(|| {
            let words = match (self.rights.gives(console), self.ticket()) {
                (true, _) => format!("the guest's own settings keep {console} from {}", printable(&self.name)),
                (false, Some(_)) => format!("the ticket is not for {console}"),
                (false, None) => format!("{} has no right to {console} of this guest", printable(&self.name)),
            };
            refuse(403, words).because(Reason::Right).of(&self.name)
        })
    }

    /// Who they are, for their shares.
    pub(super) fn who(&self) -> Who {
        match &self.proof {
            Proof::Ticket(claims) => Who::bearer(&claims.iss, &claims.sub),
            Proof::Session(_, session) => session.who(),
            Proof::Password(_) => Who::User(self.name.clone()),
            Proof::Open => Who::Anyone,
        }
    }

    /// How they showed who they are, for people.
    pub(super) fn how(&self) -> String {
        match &self.proof {
            Proof::Ticket(claims) => format!("ticket {}/{}", claims.iss, claims.jti),
            Proof::Session(_, session) => session.how(),
            Proof::Password(_) => "password".to_owned(),
            Proof::Open => "anyone".to_owned(),
        }
    }

    /// What is looked at again while a console of theirs is open.
    pub(super) fn pass(&self) -> Pass {
        match &self.proof {
            Proof::Ticket(claims) => Pass::Ticket(claims.clone()),
            Proof::Session(id, _) => Pass::Session(id.clone()),
            Proof::Password(standing) => Pass::Password(RefCell::new(standing.clone())),
            Proof::Open => Pass::Open,
        }
    }

    /// Whether it is a user of this host, not the bearer of a ticket.
    pub(super) fn is_user(&self) -> bool {
        self.ticket().is_none() && !matches!(self.proof, Proof::Open)
    }

    fn ticket(&self) -> Option<(&str, &str)> {
        match &self.proof {
            Proof::Ticket(claims) => Some((&claims.iss, &claims.jti)),
            Proof::Session(_, session) => session.ticket(),
            Proof::Password(_) | Proof::Open => None,
        }
    }
}

/// Finds out who asks, by the strongest thing that the request brings.
pub(super) async fn identify(guest: &Rc<Guest>, route: &Route, asked: &Asked, peer: &Peer) -> Result<Person, Refused> {
    let longest = guest.config().access.session_life;
    if route.auth == Auth::None {
        site(guest, asked, None)?;
        let (name, rights) = ("anyone".to_owned(), Rights::all());
        return Ok(Person { viewer: name.clone(), name, rights, life: longest, proof: Proof::Open });
    }
    if !guest.knows_what_ended() {
        return Err(refuse(
            503,
            "nobody can enter now, as this host cannot say what was revoked: its journal says why",
        ));
    }
    let query = request::query_token(&asked.query)?.map(str::as_bytes);
    let authorization = asked.once("authorization")?;
    let bearer = authorization.and_then(request::bearer);
    let basic = authorization.and_then(request::basic).transpose()?;
    let session = find_session(guest, route, asked)?;
    // A session that has ended must not hide the ticket that spice-html5 brings in a cookie. Whoever serves another port
    // of this host name can set that cookie, too: it counts where that client needs it alone, and never for the page.
    // Of several none counts.
    let is_spice = Endpoint::from_path(&asked.path) == Some(Endpoint::Console(Console::Spice));
    let spare = if is_spice && asks_for_websocket(asked) && !matches!(session, Some(Ok(_))) && basic.is_none() {
        request::cookie(asked.headers("cookie"), "token").unwrap_or(None)
    } else {
        None
    };

    let ticket = query.or(bearer).or(spare).map(|token| guest.check_ticket(&String::from_utf8_lossy(token), route));
    let issuer = ticket.as_ref().and_then(|checked| checked.as_ref().ok()).map(|claims| claims.iss.clone());
    let verdict = site(guest, asked, issuer.as_deref())?;
    // A browser says where a websocket or a POST comes from; without that, only a ticket or a password counts.
    let cookie_counts = verdict != OriginVerdict::Absent || (asked.method == "GET" && !asks_for_websocket(asked));
    match (ticket, basic, session) {
        (Some(Ok(claims)), ..) => of_ticket(guest, route, claims, longest),
        (None, Some((user, password)), _) => log_in(guest, route, user, password, peer).await,
        (_, _, Some(Ok((id, session)))) if cookie_counts => of_cookie(guest, route, id, session).await,
        (Some(Err(why)), _, Some(Ok(_))) => {
            let words = format!("{why}; and a session counts with an Origin header alone");
            Err(Refused { words, ..Refused::from(why) })
        }
        (Some(Err(why)), ..) => Err(why.into()),
        (None, None, Some(Ok(_))) => Err(no_origin()),
        (None, None, Some(Err(why))) => Err(refuse(401, why).because(Reason::Session)),
        (None, None, None) => Err(refuse(401, "a ticket is needed: `console-proxy url GUEST` on the host prints one")),
    }
}

fn of_ticket(guest: &Guest, route: &Route, claims: Claims, life: Duration) -> Result<Person, Refused> {
    if let Some(why) = guest.ended(route, &Subject::of_ticket(&claims)) {
        return Err(refuse(401, why).because(Reason::Ticket).of(&claims.sub));
    }
    Ok(Person {
        name: claims.sub.clone(),
        rights: guest.rights_of_ticket(route, &claims.iss, &claims.consoles, claims.mode),
        viewer: format!("ticket {}/{}", claims.iss, claims.jti),
        life,
        proof: Proof::Ticket(claims),
    })
}

async fn of_cookie(guest: &Guest, route: &Route, id: Id, session: Session) -> Result<Person, Refused> {
    let name = session.sub.clone();
    let session = match refresh(guest, &id, session, &Look::default()).await {
        Ok(session) => session,
        Err(Stale::Barred(why)) => {
            return Err(refuse(401, format!("the session has ended: {why}")).because(Reason::Session).of(&name));
        }
        Err(Stale::Unknown(why)) => return Err(refuse(503, format!("it cannot be found out now who you are: {why}"))),
    };
    // It may have been ended while the host was asked.
    let ended = guest.ended(route, &Subject::of_session(id.as_str(), &session));
    if let Some(why) = ended.or(if guest.store.get(&id).is_none() { Some(ENDED) } else { None }) {
        return Err(refuse(401, why).because(Reason::Session).of(&name));
    }
    Ok(Person {
        name,
        rights: guest.rights_of_session(route, &session),
        viewer: viewer_of(&id),
        life: Duration::from_secs(session.ends.saturating_sub(now())),
        proof: Proof::Session(id, session),
    })
}

/// A user of this host to whom nothing of the guest is given.
pub(super) fn no_right(user: &str) -> Refused {
    refuse(403, format!("{} has no right to this guest", printable(user))).because(Reason::Right).of(user)
}

/// The session that a page brings in order to end it, with whatever right is left in it. Nobody is asked about its user.
pub(super) fn session_to_end(guest: &Guest, route: &Route, asked: &Asked) -> Result<(Id, Session), Refused> {
    let found = brought(guest, route, asked)?;
    match (site(guest, asked, None)?, found) {
        (_, None | Some(Err(ENDED))) => Err(refuse(401, "there is no session to end")),
        (OriginVerdict::Absent, Some(_)) => Err(no_origin()),
        (_, Some(found)) => found.map_err(|why| refuse(401, why).because(Reason::Session)),
    }
}

fn no_origin() -> Refused {
    refuse(401, "a session counts with an Origin header alone: use a ticket").because(Reason::Session)
}

/// Which site's page asks; one that may not is refused.
fn site(guest: &Guest, asked: &Asked, issuer: Option<&str>) -> Result<OriginVerdict, Refused> {
    let (origin, scheme) = (asked.once("origin")?, guest.scheme_of(asked));
    let verdict = guest.origin(origin, scheme, asked.host.as_deref(), issuer);
    if verdict == OriginVerdict::Absent && request::comes_from_another_site(asked.headers("sec-fetch-site")) {
        let words = "a page of another site asks this, without saying which: its requests are not looked at";
        return Err(refuse(403, words).because(Reason::Origin));
    }
    if verdict != OriginVerdict::Refused {
        return Ok(verdict);
    }
    let words = match scheme {
        Some(_) => {
            format!("pages of {} may not connect here", printable(&String::from_utf8_lossy(origin.unwrap_or_default())))
        }
        None => "the reverse proxy does not say X-Forwarded-Proto: no page is known to be of this site".to_owned(),
    };
    Err(refuse(403, words).because(Reason::Origin))
}

const ENDED: &str = "the session has ended: get another ticket, or log in again";

const NO_SECRET: &str =
    "a session's cookie counts with its second secret alone, which the page keeps: reload the page, or log in again";
const OTHER_SECRET: &str = "the session's cookie came with another session's second secret: log in again";
const OLD: &str = "the session was made before console-proxy was upgraded, and has no second secret: log in again";

/// The most cookies of this guest that are looked at: a browser keeps one, and one more within another site's frame.
const MOST_COOKIES: usize = 4;

/// A session that a request brings; an error: why it does not count, in words.
type Brought = Result<(Id, Session), &'static str>;

/// The session whose cookie and whose second secret a request brings, alive or not. Another service on this host's name
/// is sent the cookie, and can set others: one without its secret is nobody's.
fn brought(guest: &Guest, route: &Route, asked: &Asked) -> Result<Option<Brought>, Refused> {
    let secret = request::secret(asked.headers(request::SECRET), asked.headers("sec-websocket-protocol"))?;
    let secret = secret.map(sha256);
    let name = request::session_cookie(&route.uuid);
    let found = request::cookies(asked.headers("cookie"), &name).take(MOST_COOKIES).map(|cookie| {
        let id = Id::of_cookie(cookie);
        let session = guest.store.get(&id).ok_or(ENDED)?;
        match &secret {
            Some(secret) if session.has_secret(secret) => Ok((id, session)),
            _ if session.secret.is_empty() => Err(OLD),
            Some(_) => Err(OTHER_SECRET),
            None => Err(NO_SECRET),
        }
    });
    Ok(found.reduce(|first, next| if next.is_ok() { next } else { first }))
}

/// The session that a request brings, where it is alive.
fn find_session(guest: &Guest, route: &Route, asked: &Asked) -> Result<Option<Brought>, Refused> {
    let alive = |(id, session): (Id, Session)| match guest.ended(route, &Subject::of_session(id.as_str(), &session)) {
        Some(why) => Err(why),
        None if guest.is_alive(&id, &session) => Ok((id, session)),
        None => Err(ENDED),
    };
    Ok(brought(guest, route, asked)?.map(|found| found.and_then(alive)))
}

pub(super) fn asks_for_websocket(asked: &Asked) -> bool {
    request::has_word(asked.headers("upgrade"), "websocket")
}
