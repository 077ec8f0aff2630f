//! From a request to an answer: which endpoint, and what it says.

use std::net::IpAddr;
use std::rc::Rc;

use futures_util::future::join_all;
use serde_json::json;

use super::audit;
use super::guest::{Guest, viewer_of};
use super::identity::{Person, Proof, identify, no_right, session_to_end};
use super::limits;
use super::live::Connection;
use super::page;
use super::refused::{Refused, plain_headers, refuse};
use super::session::open_console;
use super::upgrade::refuse_console;
use crate::edges::http::{Asked, Reply};
use crate::edges::publish::now_ms;
use crate::edges::sessions::{Id, NoSession};
use crate::rules::audit::Reason;
use crate::rules::close::End;
use crate::rules::forwarded::Forwarded;
use crate::rules::request::{self, Endpoint};
use crate::rules::revoked::Subject;
use crate::rules::route::{Route, Way};
use crate::rules::session::Session;
use crate::rules::ticket::Mode;
use crate::rules::web::Place;

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
    let (peer, connection) = match peer {
        Peer::Front => {
            let believed = believe(&mut asked);
            let peer = believed.as_ref().map_or(Peer::Front, Peer::clone);
            match believed.and_then(|peer| limits::admit_request(&guest, &peer, &connection)) {
                Ok(connection) => (peer, connection),
                Err(refused) => {
                    audit::refused(&guest, &peer, &refused);
                    return refuse_console(&guest, connection, &mut asked, refused);
                }
            }
        }
        direct => (direct, connection),
    };
    match decide(guest.clone(), &peer, connection.clone(), &mut asked).await {
        Ok(reply) => reply,
        Err(mut refused) => {
            audit::refused(&guest, &peer, &refused);
            if matches!(refused.status, 401 | 403) && guest.takes_passwords() {
                // The page then asks for one. Not as a challenge: browsers would ask by themselves.
                refused.headers.push(("console-proxy-login", "password".to_owned()));
            }
            refuse_console(&guest, connection, &mut asked, refused)
        }
    }
}

/// Takes a reverse proxy's word for who asks.
fn believe(asked: &mut Asked) -> Result<Peer, Refused> {
    let forwarded = Forwarded::read(asked.headers("x-forwarded-for"), asked.headers("x-forwarded-proto"))?;
    asked.forwarded = Some(forwarded);
    Ok(forwarded.from.map_or(Peer::Unix, Peer::Ip))
}

async fn decide(
    guest: Rc<Guest>,
    peer: &Peer,
    connection: Rc<Connection>,
    asked: &mut Asked,
) -> Result<Reply, Refused> {
    let wrong_method = |allowed: &'static str| {
        let mut refused = refuse(405, format!("this path takes {allowed} alone"));
        refused.headers.push(("allow", allowed.to_owned()));
        refused
    };
    // What keeps other sites' pages away here is the Origin alone, and one whose name leads to loopback by now (DNS
    // rebinding) is of the same origin.
    if guest.is_open_to_all() && !asked.host.as_deref().is_some_and(request::is_loopback) {
        let words = "nobody has to show a right here (auth = \"none\"), so the Host has to be localhost, a name below it, \
                     or a loopback address";
        return Err(refuse(421, words).because(Reason::Origin));
    }
    if let Some(place) = Place::of_path(&asked.path) {
        let may_ask = matches!(asked.method.as_str(), "GET" | "HEAD");
        return if may_ask { page::serve(&guest, place, asked) } else { Err(wrong_method("GET, HEAD")) };
    }
    let endpoint = Endpoint::from_path(&asked.path).ok_or_else(|| refuse(404, "there is nothing at this path"))?;
    match endpoint {
        Endpoint::Session | Endpoint::Logout if asked.method != "POST" => return Err(wrong_method("POST")),
        Endpoint::Session | Endpoint::Logout => {}
        _ if asked.method != "GET" => return Err(wrong_method("GET")),
        _ => {}
    }
    let route = match guest.route() {
        Ok(Some(route)) => route,
        Ok(None) => return Err(refuse(404, "the guest is not running, or not published")),
        Err(why) => {
            // Whoever asks has shown no right yet: the words are for the journal.
            audit::fault(&guest, &why);
            return Err(refuse(502, "the guest's route cannot be used: the host's journal says why"));
        }
    };
    match endpoint {
        Endpoint::Guest => {
            let person = identify(&guest, &route, asked, peer).await?;
            connection.shown(person.who());
            // A ticket that a guest's settings leave nothing of is still a good one.
            if person.rights.is_none() && person.is_user() {
                return Err(no_right(&person.name));
            }
            Ok(about(&guest, &route, &person).await)
        }
        Endpoint::Session => buy_session(&guest, &route, asked, peer, &connection).await,
        Endpoint::Logout => log_out(&guest, &route, asked, peer, &connection),
        Endpoint::FirstDisplay | Endpoint::Console(_) => {
            open_console(guest, route, endpoint, peer, connection, asked).await
        }
    }
}

/// What there is for this person.
async fn about(guest: &Guest, route: &Route, person: &Person) -> Reply {
    let ways = route.consoles.iter().filter_map(|way| Some((way, person.rights.on(way.console)?)));
    let consoles = join_all(ways.map(|(way, mode)| about_console(guest, route, way, mode))).await;
    let session = match &person.proof {
        Proof::Session(_, session) => {
            let by = if session.ticket().is_some() { "ticket" } else { "password" };
            json!({"ends": session.ends, "by": by})
        }
        Proof::Ticket(_) | Proof::Password(_) | Proof::Open => serde_json::Value::Null,
    };
    let most = person.rights.most(route.consoles.iter().map(|way| way.console)).unwrap_or(Mode::View);
    let body = json!({"uuid": route.uuid, "name": route.name, "person": person.name, "mode": most,
                      "session": session, "consoles": consoles, "unreachable": route.unreachable});
    json_reply(200, &body)
}

async fn about_console(guest: &Guest, route: &Route, way: &Way, mode: Mode) -> serde_json::Value {
    let mut told = json!({"console": way.console, "path": format!("/{}", way.console), "reached": way.reached(),
                          "added": way.added, "mode": mode});
    if way.console.is_text()
        && let Some(ago) = guest.spoke(route, way).await
    {
        told["spoke"] = ago.as_secs().into();
    }
    if let Some(words) = way.refused_for(mode) {
        told["refused"] = words.into();
    }
    told
}

fn json_reply(status: u16, body: &serde_json::Value) -> Reply {
    let mut headers = plain_headers();
    headers.push(("content-type", "application/json".to_owned()));
    Reply { status, headers, body: body.to_string().into() }
}

/// `POST /api/session`: a ticket or a password becomes a session: a cookie, and a second secret in the body. The browser
/// sends the cookie to every port of this host's name; the body is read by pages of this origin alone.
async fn buy_session(
    guest: &Rc<Guest>,
    route: &Route,
    asked: &Asked,
    peer: &Peer,
    connection: &Connection,
) -> Result<Reply, Refused> {
    let person = identify(guest, route, asked, peer).await?;
    connection.shown(person.who());
    let life = guest.config().access.session_life.as_secs();
    let how = person.how();
    let session = match person.proof {
        Proof::Ticket(claims) => Session::by_ticket(&claims, now_ms(), life),
        Proof::Password(standing) => Session::by_password(person.name, standing, now_ms(), life),
        Proof::Session(..) => {
            return Err(refuse(
                401,
                "a session is bought with a ticket that counts, or a password; there is one already",
            ));
        }
        Proof::Open => return Err(refuse(401, "a session is bought with a ticket or a password")),
    };
    let is_alive = |id: &Id, old: &Session| {
        guest.is_alive(id, old) && guest.ended(route, &Subject::of_session(id.as_str(), old)).is_none()
    };
    let is_in_use = |id: &Id| guest.live.all().iter().any(|entry| entry.viewer == viewer_of(id));
    let (secrets, dropped) = guest.store.add(&session, is_alive, is_in_use).map_err(|why| match why {
        NoSession::Bought => refuse(401, why.to_string()).because(Reason::Ticket).of(&session.sub),
        NoSession::TooMany => refuse(429, why.to_string()).of(&session.sub),
        NoSession::Io(_) => refuse(500, why.to_string()),
    })?;
    if let Some(dropped) = dropped {
        audit::dropped(route, &dropped.sub, &dropped.how());
    }
    audit::login(route, peer, &session.sub, &how);
    let mut reply = json_reply(200, &json!({"secret": secrets.second}));
    reply.headers.push(("set-cookie", set_cookie(guest, route, &secrets.cookie, life)));
    Ok(reply)
}

/// `POST /api/logout`: the session and its websockets end.
fn log_out(
    guest: &Guest,
    route: &Route,
    asked: &Asked,
    peer: &Peer,
    connection: &Connection,
) -> Result<Reply, Refused> {
    let (id, session) = session_to_end(guest, route, asked)?;
    connection.shown(session.who());
    guest.store.remove(&id).map_err(|why| refuse(500, format!("the session cannot be ended: {why}")))?;
    for entry in guest.live.all().iter().filter(|entry| entry.viewer == viewer_of(&id)) {
        entry.end(End::LOGGED_OUT);
    }
    audit::logout(route, peer, &session.sub, &session.how());
    let mut headers = plain_headers();
    headers.push(("set-cookie", set_cookie(guest, route, "", 0)));
    Ok(Reply { status: 204, headers, ..Reply::default() })
}

fn set_cookie(guest: &Guest, route: &Route, value: &str, life: u64) -> String {
    let attributes = request::cookie_attributes(!guest.config().access.embed_origins.is_empty());
    format!("{}={value}; Path=/; Max-Age={life}; {attributes}", request::session_cookie(&route.uuid))
}
