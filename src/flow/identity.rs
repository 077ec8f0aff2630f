//! Who asks, by the strongest thing that the request brings: a ticket, or a session's cookie.

use std::time::Duration;

use super::guest::{Guest, viewer_of};
use super::refused::{Refused, refuse};
use crate::edges::http::Asked;
use crate::edges::publish::now;
use crate::edges::sessions::Id;
use crate::rules::guest::{Console, printable};
use crate::rules::request::{self, OriginVerdict};
use crate::rules::route::{Auth, Route};
use crate::rules::session::Session;
use crate::rules::ticket::{Claims, Mode};

/// Who asks, and what they may.
pub(super) struct Person {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) viewer: String,
    /// Seconds until the session that this opens has to end.
    pub(super) life: Duration,
    pub(super) proof: Proof,
}

pub(super) enum Proof {
    Ticket(Claims),
    Session(Id, Session),
    Open,
}

impl Person {
    pub(super) fn may_open(&self, console: Console) -> bool {
        match &self.proof {
            Proof::Ticket(claims) => claims.allows(console),
            Proof::Session(_, session) => session.allows(console),
            Proof::Open => true,
        }
    }
}

/// Finds out who asks, by the strongest thing that the request brings.
pub(super) fn identify(guest: &Guest, route: &Route, asked: &Asked) -> Result<Person, Refused> {
    if asked.count("origin") > 1 || asked.count("host") > 1 || asked.count("authorization") > 1 {
        return Err(refuse(400, "the request has a header twice that may stand once"));
    }
    let (origin, host) = (asked.header("origin"), asked.header("host"));
    let scheme = guest.scheme_of(asked);
    let stranger = || match scheme {
        Some(_) => refuse(403, format!("pages of {} may not connect here", printable(origin.unwrap_or_default()))),
        None => refuse(403, "the reverse proxy does not say X-Forwarded-Proto: no page is known to be of this site"),
    };
    let longest = guest.config().access.session_life;
    if route.auth == Auth::None {
        let verdict = guest.origin(origin, scheme, host, None);
        if verdict == OriginVerdict::Refused {
            return Err(stranger());
        }
        return Ok(Person {
            name: "anyone".into(),
            mode: Mode::Control,
            viewer: "anyone".into(),
            life: longest,
            proof: Proof::Open,
        });
    }
    let cookie = |name| request::cookie(asked.headers("cookie"), name);
    let query = request::query_token(&asked.query)?;
    let bearer = asked.header("authorization").and_then(request::bearer);
    let cookie_name = request::session_cookie(&route.uuid);
    let session = cookie(&cookie_name)?.map(|cookie| find_session(guest, cookie));
    // A session that has ended must not hide the ticket that spice-html5 brings in a cookie.
    let ticket = query.or(bearer).or(if matches!(session, Some(Some(_))) { None } else { cookie("token")? });

    let ticket = ticket.map(|token| guest.check_ticket(token, route));
    let issuer = ticket.as_ref().and_then(|checked| checked.as_ref().ok()).map(|claims| claims.iss.clone());
    let verdict = guest.origin(origin, scheme, host, issuer.as_deref());
    if verdict == OriginVerdict::Refused {
        return Err(stranger());
    }
    // A browser says where a websocket or a POST comes from; without that, only a ticket counts.
    let cookie_counts = verdict != OriginVerdict::Absent || (asked.method == "GET" && !asks_for_websocket(asked));
    match (ticket, session) {
        (Some(Ok(claims)), _) => Ok(Person {
            name: claims.sub.clone(),
            mode: claims.mode,
            viewer: format!("ticket {}/{}", claims.iss, claims.jti),
            life: longest,
            proof: Proof::Ticket(claims),
        }),
        (_, Some(Some((id, session)))) if cookie_counts => Ok(Person {
            name: session.sub.clone(),
            mode: session.mode,
            viewer: viewer_of(&id),
            life: Duration::from_secs(session.ends.saturating_sub(now())),
            proof: Proof::Session(id, session),
        }),
        (Some(Err(why)), _) => Err(why.into()),
        (None, Some(Some(_))) => Err(refuse(401, "a session counts with an Origin header alone: use a ticket")),
        (None, Some(None)) => Err(refuse(401, "the session has ended: get another ticket")),
        (None, None) => Err(refuse(401, "a ticket is needed: `console-proxy url GUEST` on the host prints one")),
    }
}

fn find_session(guest: &Guest, cookie: &str) -> Option<(Id, Session)> {
    let id = Id::of_cookie(cookie);
    let session = guest.store.get(&id)?;
    guest.is_alive(&id, &session).then_some((id, session))
}

pub(super) fn asks_for_websocket(asked: &Asked) -> bool {
    request::has_word(asked.headers("upgrade"), "websocket")
}
