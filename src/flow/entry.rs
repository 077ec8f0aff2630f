//! From a request to an answer: which endpoint, and what it says.

use std::net::IpAddr;
use std::rc::Rc;

use serde_json::json;

use super::guest::Guest;
use super::identity::{Person, Proof, identify};
use super::live::Connection;
use super::refused::{Refused, plain_headers, refuse};
use super::session::open_console;
use crate::edges::http::{Asked, Reply};
use crate::edges::publish::now;
use crate::edges::sessions::NoSession;
use crate::rules::close::End;
use crate::rules::forwarded::Forwarded;
use crate::rules::guest::printable;
use crate::rules::request::{self, Endpoint};
use crate::rules::route::Route;
use crate::rules::session::Session;

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub enum Peer {
    /// An address.
    Ip(IpAddr),
    /// A unix socket.
    Unix,
    /// The front socket: a reverse proxy, which says for whom each of its requests is.
    Front,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A listener for both families shows IPv4 clients in mapped form.
            Self::Ip(ip) => write!(f, "{}", ip.to_canonical()),
            Self::Unix => f.write_str("a unix socket"),
            Self::Front => f.write_str("the front socket"),
        }
    }
}

/// Answers one request. `connection` stays counted for as long as a session uses it.
pub async fn answer(guest: Rc<Guest>, peer: Peer, connection: Rc<Connection>, mut asked: Asked) -> Reply {
    let peer = match peer {
        Peer::Front => match believe(&mut asked) {
            Ok(peer) => peer,
            Err(refused) => return refused.reply(),
        },
        direct => direct,
    };
    match decide(guest, &peer, connection, asked).await {
        Ok(reply) => reply,
        Err(refused) => {
            if matches!(refused.status, 401 | 403) {
                tracing::info!(peer = %peer, status = refused.status, "refused {peer}: {}", refused.words);
            }
            refused.reply()
        }
    }
}

/// Takes a reverse proxy's word for who asks.
fn believe(asked: &mut Asked) -> Result<Peer, Refused> {
    let forwarded = Forwarded::read(asked.headers("x-forwarded-for"), asked.headers("x-forwarded-proto"))?;
    asked.forwarded = Some(forwarded);
    Ok(forwarded.from.map_or(Peer::Unix, Peer::Ip))
}

async fn decide(guest: Rc<Guest>, peer: &Peer, connection: Rc<Connection>, asked: Asked) -> Result<Reply, Refused> {
    let endpoint = Endpoint::from_path(&asked.path).ok_or_else(|| refuse(404, "there is nothing at this path"))?;
    let wrong_method = |allowed: &'static str| {
        let mut refused = refuse(405, format!("this path takes {allowed} alone"));
        refused.headers.push(("allow", allowed.to_owned()));
        refused
    };
    match endpoint {
        Endpoint::Session | Endpoint::Logout if asked.method != "POST" => return Err(wrong_method("POST")),
        Endpoint::Session | Endpoint::Logout => {}
        _ if asked.method != "GET" => return Err(wrong_method("GET")),
        _ => {}
    }
    if endpoint == Endpoint::Page {
        return Ok(page());
    }
    let route = match guest.route() {
        Ok(Some(route)) => route,
        Ok(None) => return Err(refuse(404, "the guest is not running, or not published")),
        Err(why) => {
            // Whoever asks has shown no right yet: the words are for the journal.
            tracing::error!("{why:#}");
            return Err(refuse(502, "the guest's route cannot be used: the host's journal says why"));
        }
    };
    match endpoint {
        Endpoint::Guest => {
            let person = identify(&guest, &route, &asked)?;
            Ok(about(&route, &person))
        }
        Endpoint::Session => buy_session(&guest, &route, &asked),
        Endpoint::Logout => Ok(log_out(&guest, &route, &asked)?),
        Endpoint::Page | Endpoint::FirstDisplay | Endpoint::Console(_) => {
            open_console(guest, route, endpoint, peer, connection, asked).await
        }
    }
}

/// The page for people who open the port in a browser. It tells nothing of the guest.
fn page() -> Reply {
    let mut headers = plain_headers();
    headers.push(("content-type", "text/html; charset=utf-8".to_owned()));
    headers.push((
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'".to_owned(),
    ));
    Reply { status: 200, headers, body: include_str!("page.html").into() }
}

fn about(route: &Route, person: &Person) -> Reply {
    let consoles: Vec<_> = route
        .consoles
        .iter()
        .filter(|way| person.may_open(way.console))
        .map(|way| json!({"console": way.console, "path": format!("/{}", way.console), "reached": way.reached()}))
        .collect();
    let body = json!({"uuid": route.uuid, "name": route.name, "person": person.name, "mode": person.mode,
                      "consoles": consoles, "unreachable": route.unreachable});
    json_reply(200, &body)
}

fn json_reply(status: u16, body: &serde_json::Value) -> Reply {
    let mut headers = plain_headers();
    headers.push(("content-type", "application/json".to_owned()));
    Reply { status, headers, body: body.to_string().into() }
}

/// `POST /api/session`: a ticket becomes a cookie.
fn buy_session(guest: &Guest, route: &Route, asked: &Asked) -> Result<Reply, Refused> {
    let person = identify(guest, route, asked)?;
    let Proof::Ticket(claims) = person.proof else {
        return Err(refuse(401, "a session is bought with a ticket"));
    };
    let life = guest.config().access.session_life.as_secs();
    let session = Session::bought_with(&claims, now(), life);
    let cookie = guest.store.add(&session, |id, old| guest.is_alive(id, old)).map_err(|why| match why {
        NoSession::Bought => refuse(401, why.to_string()),
        NoSession::TooMany => refuse(429, why.to_string()),
        NoSession::Io(_) => refuse(500, why.to_string()),
    })?;
    tracing::info!(guest = %route.uuid, person = %session.sub, jti = %session.jti, "{} began a session", printable(&session.sub));
    let mut headers = plain_headers();
    let name = request::session_cookie(&route.uuid);
    headers.push(("set-cookie", format!("{name}={cookie}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict")));
    Ok(Reply { status: 204, headers, ..Reply::default() })
}

/// `POST /api/logout`: the session and its websockets end.
fn log_out(guest: &Guest, route: &Route, asked: &Asked) -> Result<Reply, Refused> {
    let person = identify(guest, route, asked)?;
    let Proof::Session(id, session) = person.proof else {
        return Err(refuse(401, "there is no session to end"));
    };
    guest.store.remove(&id).map_err(|why| refuse(500, format!("the session cannot be ended: {why}")))?;
    for entry in guest.live.all().iter().filter(|entry| entry.viewer == person.viewer) {
        entry.end(End::SessionEnded);
    }
    tracing::info!(guest = %route.uuid, person = %session.sub, "{} ended the session", printable(&session.sub));
    let mut headers = plain_headers();
    headers.push((
        "set-cookie",
        format!("{}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict", request::session_cookie(&route.uuid)),
    ));
    Ok(Reply { status: 204, headers, ..Reply::default() })
}
