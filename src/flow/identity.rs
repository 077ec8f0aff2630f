//! Who asks, by the strongest thing that the request brings: a ticket, a password, or a session's cookie.

use std::cell::RefCell;
use std::time::Duration;

use super::guest::{Guest, viewer_of};
use super::live::Pass;
use super::login::log_in;
use super::refused::{Refused, refuse};
use super::standing::{Look, Stale, of_claims, of_session, refresh};
use crate::edges::http::Asked;
use crate::edges::publish::now;
use crate::edges::sessions::Id;
use crate::rules::audit::Reason;
use crate::rules::guest::{Console, printable};
use crate::rules::request::{self, OriginVerdict};
use crate::rules::rights::Rights;
use crate::rules::route::{Auth, Route};
use crate::rules::session::{Bought, Session, Standing};
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

    /// How they showed who they are, for people.
    pub(super) fn how(&self) -> String {
        match (self.ticket(), &self.proof) {
            (Some((issuer, jti)), _) => format!("ticket {issuer}/{jti}"),
            (None, Proof::Open) => "anyone".to_owned(),
            (None, _) => "password".to_owned(),
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

    fn ticket(&self) -> Option<(&str, &str)> {
        match &self.proof {
            Proof::Ticket(claims) => Some((&claims.iss, &claims.jti)),
            Proof::Session(_, session) => session.ticket(),
            Proof::Password(_) | Proof::Open => None,
        }
    }
}

/// Finds out who asks, by the strongest thing that the request brings. `from` is their address.
pub(super) async fn identify(guest: &Guest, route: &Route, asked: &Asked, from: &str) -> Result<Person, Refused> {
    if asked.count("origin") > 1 || asked.count("host") > 1 || asked.count("authorization") > 1 {
        return Err(refuse(400, "the request has a header twice that may stand once"));
    }
    let (origin, host) = (asked.header("origin"), asked.header("host"));
    let scheme = guest.scheme_of(asked);
    let stranger = || match scheme {
        Some(_) => refuse(403, format!("pages of {} may not connect here", printable(origin.unwrap_or_default())))
            .because(Reason::Origin),
        None => refuse(403, "the reverse proxy does not say X-Forwarded-Proto: no page is known to be of this site")
            .because(Reason::Origin),
    };
    let longest = guest.config().access.session_life;
    if route.auth == Auth::None {
        let verdict = guest.origin(origin, scheme, host, None);
        if verdict == OriginVerdict::Refused {
            return Err(stranger());
        }
        let (name, rights) = ("anyone".to_owned(), Rights::all());
        return Ok(Person { viewer: name.clone(), name, rights, life: longest, proof: Proof::Open });
    }
    let cookie = |name| request::cookie(asked.headers("cookie"), name);
    let query = request::query_token(&asked.query)?;
    let authorization = asked.header("authorization");
    let bearer = authorization.and_then(request::bearer);
    let basic = authorization.and_then(request::basic).transpose()?;
    let cookie_name = request::session_cookie(&route.uuid);
    let session = cookie(&cookie_name)?.map(|cookie| find_session(guest, route, cookie));
    // A session that has ended must not hide the ticket that spice-html5 brings in a cookie.
    let spare = if matches!(session, Some(Ok(_))) || basic.is_some() { None } else { cookie("token")? };

    let ticket = query.or(bearer).or(spare).map(|token| guest.check_ticket(token, route));
    let issuer = ticket.as_ref().and_then(|checked| checked.as_ref().ok()).map(|claims| claims.iss.clone());
    let verdict = guest.origin(origin, scheme, host, issuer.as_deref());
    if verdict == OriginVerdict::Refused {
        return Err(stranger());
    }
    // A browser says where a websocket or a POST comes from; without that, only a ticket or a password counts.
    let cookie_counts = verdict != OriginVerdict::Absent || (asked.method == "GET" && !asks_for_websocket(asked));
    match (ticket, basic, session) {
        (Some(Ok(claims)), ..) => of_ticket(guest, route, claims, longest),
        (None, Some((user, password)), _) => log_in(guest, route, user, password, from).await,
        (_, _, Some(Ok((id, session)))) if cookie_counts => of_cookie(guest, route, id, session).await,
        (Some(Err(why)), ..) => Err(why.into()),
        (None, None, Some(Ok(_))) => {
            Err(refuse(401, "a session counts with an Origin header alone: use a ticket").because(Reason::Session))
        }
        (None, None, Some(Err(why))) => Err(refuse(401, why).because(Reason::Session)),
        (None, None, None) => Err(refuse(401, "a ticket is needed: `console-proxy url GUEST` on the host prints one")),
    }
}

fn of_ticket(guest: &Guest, route: &Route, claims: Claims, life: Duration) -> Result<Person, Refused> {
    if let Some(why) = guest.ended(route, &of_claims(&claims)) {
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
    let rights = guest.rights_of_session(route, &session);
    if rights.is_none() && matches!(session.bought, Bought::Password(_)) {
        return Err(no_right(&session.sub));
    }
    Ok(Person {
        name,
        rights,
        viewer: viewer_of(&id),
        life: Duration::from_secs(session.ends.saturating_sub(now())),
        proof: Proof::Session(id, session),
    })
}

/// A user of this host to whom nothing of the guest is given.
pub(super) fn no_right(user: &str) -> Refused {
    refuse(403, format!("{} has no right to this guest", printable(user))).because(Reason::Right).of(user)
}

/// The session of a cookie; an error: why it does not count, in words.
fn find_session(guest: &Guest, route: &Route, cookie: &str) -> Result<(Id, Session), &'static str> {
    const ENDED: &str = "the session has ended: get another ticket, or log in again";
    let id = Id::of_cookie(cookie);
    let session = guest.store.get(&id).ok_or(ENDED)?;
    if let Some(why) = guest.ended(route, &of_session(&id, &session)) {
        return Err(why);
    }
    if guest.is_alive(&id, &session) { Ok((id, session)) } else { Err(ENDED) }
}

pub(super) fn asks_for_websocket(asked: &Asked) -> bool {
    request::has_word(asked.headers("upgrade"), "websocket")
}
