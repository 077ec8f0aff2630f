//! From a request to an answer or a session: who asks, for what, and may they.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::control::{Control, Pulse};
use super::guest::{Guest, viewer_of};
use super::live::{Connection, Opening, Seat};
use super::{display, forward, serial};
use crate::edges::backends::{Lease, Stream};
use crate::edges::http::{Asked, Native, Reply, Upgrade, upgrade_backend};
use crate::edges::publish::now;
use crate::edges::sessions::{Id, NoSession};
use crate::edges::{tls, websocket};
use crate::rules::broker::{Kind, Part, Refusal};
use crate::rules::close::End;
use crate::rules::guest::{Console, printable};
use crate::rules::request::{self, BadRequest, Endpoint, OriginVerdict};
use crate::rules::route::{Auth, Reached, Route, Way};
use crate::rules::session::Session;
use crate::rules::ticket::{BadTicket, Claims, Mode};

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub enum Peer {
    /// An address.
    Ip(IpAddr),
    /// A unix socket.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A listener for both families shows IPv4 clients in mapped form.
            Self::Ip(ip) => write!(f, "{}", ip.to_canonical()),
            Self::Unix => f.write_str("a unix socket"),
        }
    }
}

/// Who asks, and what they may.
struct Person {
    name: String,
    mode: Mode,
    viewer: String,
    /// Seconds until the session that this opens has to end.
    life: Duration,
    proof: Proof,
}

enum Proof {
    Ticket(Claims),
    Session(Id, Session),
    Open,
}

impl Person {
    fn may_open(&self, console: Console) -> bool {
        match &self.proof {
            Proof::Ticket(claims) => claims.allows(console),
            Proof::Session(_, session) => session.allows(console),
            Proof::Open => true,
        }
    }
}

/// Answers one request. `connection` stays counted for as long as a session uses it.
pub async fn answer(guest: Rc<Guest>, peer: Peer, connection: Rc<Connection>, asked: Asked) -> Reply {
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

/// An answer that is a refusal.
struct Refused {
    status: u16,
    words: String,
    headers: Vec<(&'static str, String)>,
}

fn refuse(status: u16, words: impl Into<String>) -> Refused {
    Refused { status, words: words.into(), headers: Vec::new() }
}

impl Refused {
    fn reply(self) -> Reply {
        let mut headers = plain_headers();
        headers.push(("content-type", "text/plain; charset=utf-8".to_owned()));
        headers.extend(self.headers);
        if self.status == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        Reply { status: self.status, headers, body: format!("{}\n", self.words).into() }
    }
}

impl From<BadRequest> for Refused {
    fn from(why: BadRequest) -> Self {
        refuse(400, why.0)
    }
}

impl From<BadTicket> for Refused {
    fn from(why: BadTicket) -> Self {
        refuse(if why.is_forbidden() { 403 } else { 401 }, why.to_string())
    }
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        let status = match why.kind {
            Kind::Unknown => 404,
            Kind::Busy => 409,
            Kind::Denied | Kind::Refused => 502,
            Kind::Silent => 504,
        };
        refuse(status, why.words)
    }
}

fn plain_headers() -> Vec<(&'static str, String)> {
    [("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-content-type-options", "nosniff")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
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

/// Finds out who asks, by the strongest thing that the request brings.
fn identify(guest: &Guest, route: &Route, asked: &Asked) -> Result<Person, Refused> {
    if asked.count("origin") > 1 || asked.count("host") > 1 || asked.count("authorization") > 1 {
        return Err(refuse(400, "the request has a header twice that may stand once"));
    }
    let (origin, host) = (asked.header("origin"), asked.header("host"));
    let stranger = || refuse(403, format!("pages of {} may not connect here", printable(origin.unwrap_or_default())));
    let longest = guest.config().access.session_life;
    if route.auth == Auth::None {
        let verdict = guest.origin(origin, host, None);
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

    let ticket = ticket.map(|token| guest.check_ticket(token, &route.uuid));
    let issuer = ticket.as_ref().and_then(|checked| checked.as_ref().ok()).map(|claims| claims.iss.clone());
    let verdict = guest.origin(origin, host, issuer.as_deref());
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

fn asks_for_websocket(asked: &Asked) -> bool {
    request::has_word(asked.headers("upgrade"), "websocket")
}

/// The rules of RFC 6455, 4.2.1, for an upgrade request. Returns its key.
fn check_upgrade(asked: &Asked) -> Result<String, Refused> {
    if !asked.is_http_1_1 || !asks_for_websocket(asked) || !request::has_word(asked.headers("connection"), "upgrade") {
        let mut refused =
            refuse(426, "this is a console: open it as a websocket (wss://), for example with noVNC or xterm.js");
        refused.headers.extend([("upgrade", "websocket".to_owned()), ("connection", "Upgrade".to_owned())]);
        return Err(refused);
    }
    if asked.count("sec-websocket-version") != 1 || asked.header("sec-websocket-version") != Some("13") {
        let mut refused = refuse(426, "only version 13 of the websocket protocol is spoken here");
        refused.headers.extend([
            ("sec-websocket-version", "13".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("connection", "Upgrade".to_owned()),
        ]);
        return Err(refused);
    }
    let key = asked
        .header("sec-websocket-key")
        .filter(|key| request::is_websocket_key(key) && asked.count("sec-websocket-key") == 1);
    key.map(str::to_owned).ok_or_else(|| refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64"))
}

/// An open backend, in the way that its console is reached.
enum Opened {
    Raw(Stream),
    Native(Native, bytes::Bytes),
}

async fn open_console(
    guest: Rc<Guest>,
    route: Route,
    endpoint: Endpoint,
    peer: &Peer,
    connection: Rc<Connection>,
    mut asked: Asked,
) -> Result<Reply, Refused> {
    let key = check_upgrade(&asked)?;
    let person = identify(&guest, &route, &asked)?;
    let (way, person) = choose(&guest, &route, endpoint, person)?;
    let reached = if person.mode == Mode::View { Reached::Bridged } else { way.reached() };
    // The seat is taken before the backend is opened: two that come at once must not both think that
    // a serial port is free.
    let seat = guest.live.enter(Opening {
        console: way.console,
        reached: if matches!(way.raw, Some(crate::rules::route::Backend::Pty(_))) { Reached::Pty } else { reached },
        mode: person.mode,
        person: person.name.clone(),
        viewer: person.viewer.clone(),
        from: peer.to_string(),
        since: now(),
    });
    let (opened, lease) = open(&guest, &route, &way, reached).await.inspect_err(|why| {
        tracing::warn!(guest = %route.uuid, console = %way.console, "{} of {}: {}", way.console, printable(&route.name), why.words);
    })?;
    let protocol = request::subprotocol(asked.headers("sec-websocket-protocol")).map(str::to_owned);
    let upgrade = asked.take_upgrade().ok_or_else(|| refuse(400, "the connection cannot be upgraded"))?;
    let session = Running { guest, route, seat, lease, person, _connection: connection };
    tokio::task::spawn_local(session.run(upgrade, opened));

    let mut headers = vec![
        ("upgrade", "websocket".to_owned()),
        ("connection", "Upgrade".to_owned()),
        ("sec-websocket-accept", websocket::derive_accept_key(key.as_bytes())),
    ];
    headers.extend(protocol.map(|protocol| ("sec-websocket-protocol", protocol)));
    Ok(Reply { status: 101, headers, ..Reply::default() })
}

/// Which way a person goes, if they may: 403, 404, 409 and 429 are decided here.
fn choose(guest: &Guest, route: &Route, endpoint: Endpoint, person: Person) -> Result<(Way, Person), Refused> {
    let console = match endpoint {
        Endpoint::Console(console) => console,
        _ => route.first_display().map(|way| way.console).ok_or_else(|| refuse(404, "this guest has no display"))?,
    };
    if !person.may_open(console) {
        return Err(refuse(403, format!("the ticket is not for {console}")));
    }
    let Some(way) = route.way(console) else {
        let known = route.unreachable.iter().find(|u| u.console == console);
        return Err(match known {
            Some(unreachable) => refuse(502, format!("{console} cannot be reached: {}", unreachable.reason)),
            None => refuse(404, format!("this guest has no {console}")),
        });
    };
    if person.mode == Mode::View && !console.is_text() {
        return Err(refuse(403, format!("{console} cannot be opened view-only yet")));
    }
    let sessions = guest.live.on(console);
    if console.is_text()
        && let Some(holder) = sessions.first()
    {
        return Err(refuse(409, format!("{console} is in use by {} from {}", printable(&holder.person), holder.from)));
    }
    // One SPICE client opens several sockets: viewers are counted, not sockets.
    let mut viewers: Vec<_> =
        sessions.iter().map(|entry| entry.viewer.as_str()).filter(|viewer| *viewer != person.viewer).collect();
    viewers.sort_unstable();
    viewers.dedup();
    if viewers.len() >= guest.config().proxy.max_viewers {
        return Err(refuse(429, format!("{console} has {} viewers already", viewers.len())));
    }
    Ok((way.clone(), person))
}

async fn open(guest: &Guest, route: &Route, way: &Way, reached: Reached) -> Result<(Opened, Lease), Refused> {
    if reached != Reached::Native {
        let (stream, lease) = guest.open(route, way, Part::Raw).await?;
        return Ok((Opened::Raw(stream), lease));
    }
    let (stream, lease) = guest.open(route, way, Part::Websocket).await?;
    let patience = guest.config().proxy.connect_timeout;
    let upgrading = async {
        let native = match &way.websocket_ca {
            Some(ca) => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                Native::Tls(Box::new(tls::connect(stream, ca, &host).await?))
            }
            None => Native::Plain(stream),
        };
        upgrade_backend(native, "localhost").await
    };
    match tokio::time::timeout(patience, upgrading).await {
        Ok(Ok((native, early))) => Ok((Opened::Native(native, early), lease)),
        Ok(Err(why)) => Err(refuse(502, format!("{}'s own websocket refuses: {why}", way.console))),
        Err(_) => {
            Err(refuse(504, format!("{}'s own websocket did not answer within {} s", way.console, patience.as_secs())))
        }
    }
}

/// A session from its 101 to its end.
struct Running {
    guest: Rc<Guest>,
    route: Route,
    seat: Seat,
    lease: Lease,
    person: Person,
    _connection: Rc<Connection>,
}

impl Running {
    async fn run(self, upgrade: Upgrade, opened: Opened) {
        let entry = self.seat.entry.clone();
        let started = Instant::now();
        let (name, console) = (printable(&entry.person), entry.console);
        tracing::info!(
            guest = %self.route.uuid, guest_name = %printable(&self.route.name), person = %name, console = %console, from = %entry.from,
            mode = ?entry.mode, reached = %entry.reached, proof = %entry.viewer,
            "{name} from {} opened {console}", entry.from
        );
        let control = Control {
            entry: entry.clone(),
            lease: self.lease,
            deadline: started + self.person.life,
            pulse: Pulse::new(self.guest.config().proxy.ping_interval),
        };
        let end = match tokio::time::timeout(self.guest.config().proxy.handshake_timeout, upgrade.finish()).await {
            Ok(Ok((client, early))) => relay(&self.guest, client, early, opened, &control).await,
            Ok(Err(_)) | Err(_) => End::ClientGone,
        };
        if let Proof::Session(id, _) = &self.person.proof
            && let Err(why) = self.guest.store.touch(id, now())
        {
            tracing::warn!("cannot note when the session was used: {why}");
        }
        tracing::info!(
            guest = %self.route.uuid, guest_name = %printable(&self.route.name), person = %name, console = %console, from = %entry.from,
            bytes_out = entry.out.get(), bytes_in = entry.input.get(), seconds = started.elapsed().as_secs(),
            "{name} from {} left {console}: {}", entry.from, end.words()
        );
    }
}

async fn relay(
    guest: &Guest,
    client: crate::edges::http::Client,
    early: bytes::Bytes,
    opened: Opened,
    control: &Control,
) -> End {
    let largest = guest.config().proxy.max_frame;
    let settle = async |end| settle(guest, control, end).await;
    let stream = match opened {
        Opened::Native(native, early_native) => {
            return forward::run(client, early, native, early_native, control, largest, settle).await;
        }
        Opened::Raw(stream) => stream,
    };
    let (mut sender, mut receiver) = websocket::accept(client, &early, largest).await;
    let end = if control.entry.console.is_text() {
        serial::run(&mut sender, &mut receiver, stream, control, guest.config().proxy.serial_buffer).await
    } else {
        display::run(&mut sender, &mut receiver, stream, control).await
    };
    let end = settle(end).await;
    if end != End::ClientGone {
        websocket::close(sender, receiver, &end).await;
    }
    end
}

/// A guest that stops takes its consoles away a moment before libvirt tells: waits for that moment,
/// so that the client hears the reason and not just that the backend has gone.
async fn settle(guest: &Guest, control: &Control, end: End) -> End {
    if !matches!(end, End::BackendGone(_)) {
        return end;
    }
    let withdrawn = async {
        while !guest.is_withdrawn() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        other = control.entry.ended() => other,
        () = withdrawn => End::GuestStopped,
        () = tokio::time::sleep(Duration::from_secs(1)) => end,
    }
}
