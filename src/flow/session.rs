//! One session: may it begin, by which way, and what it does until it ends.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::control::{Control, Pulse};
use super::entry::Peer;
use super::guest::Guest;
use super::hub::Port;
use super::identity::{Person, Proof, identify};
use super::live::{Connection, Opening, Seat};
use super::refused::{Refused, refuse};
use super::serial::Wanted;
use super::{audit, display, forward, limits, serial, spice, upgrade};
use crate::edges::http::{Asked, Native, Reply, Upgrade, upgrade_backend};
use crate::edges::publish::{now, now_ms};
use crate::edges::{host, tls, websocket};
use crate::rules::audit::Reason;
use crate::rules::broker::Part;
use crate::rules::close::End;
use crate::rules::config::Sharing;
use crate::rules::guest::{Console, printable};
use crate::rules::request::{self, Endpoint};
use crate::rules::route::{Backend, Reached, Route, Way};
use crate::rules::shares::{self, Sitting};
use crate::rules::ticket::Mode;
use crate::rules::told::Wish;

/// An open backend, in the way that its console is reached.
enum Opened {
    Text(Rc<Port>),
    Raw(Native),
    Native(Native, bytes::Bytes),
}

/// Opens a console for whoever may, and answers the upgrade; the session goes on by itself.
pub(super) async fn open_console(
    guest: Rc<Guest>,
    route: Route,
    endpoint: Endpoint,
    peer: &Peer,
    connection: Rc<Connection>,
    asked: &mut Asked,
) -> Result<Reply, Refused> {
    let key = upgrade::check(asked)?;
    let wish = Wish::of_query(&asked.query)?;
    let client = request::client(&asked.query)?.map(str::to_owned);
    let person = identify(&guest, &route, asked, peer).await?;
    connection.shown(person.who());
    let (way, mode) = choose(&guest, &route, endpoint, &person, client.as_deref())?;
    let is_bridged = mode == Mode::View || (way.console == Console::Spice && guest.spice.is_bridged(&route));
    let reached = if is_bridged { Reached::Bridged } else { way.reached() };
    // The seat is taken before the backend is opened: two that come at once must not both think that
    // nobody types.
    let seat = guest.live.enter(Opening {
        console: way.console,
        reached: if matches!(way.raw, Some(Backend::Pty(_))) { Reached::Pty } else { reached },
        mode,
        person: person.name.clone(),
        who: person.who(),
        viewer: person.viewer.clone(),
        how: person.how(),
        pass: person.pass(),
        client,
        from: peer.to_string(),
        since: now_ms(),
    });
    if way.console == Console::Spice {
        guest.spice.take_over(&guest.live, &seat).await?;
    }
    let opened = open(&guest, &route, &way, &seat).await.inspect_err(|why| {
        tracing::warn!(guest = %route.uuid, console = %way.console, "{} of {}: {}", way.console, printable(&route.name), why.words);
    })?;
    let wanted = wanted(&guest, &way, asked, wish);
    let upgrade = asked.take_upgrade().ok_or_else(|| refuse(400, "the connection cannot be upgraded"))?;
    if way.console.is_text() && mode == Mode::Control && guest.config().serial.viewers == Sharing::TakeOver {
        take_over(&guest, &seat);
    }
    connection.opened();
    let session = Running { guest, route, seat, person, wanted, _connection: connection };
    tokio::task::spawn_local(session.run(upgrade, opened));
    Ok(upgrade::accept(&key, asked))
}

/// What the client wants to see of a text console.
fn wanted(guest: &Guest, way: &Way, asked: &Asked, wish: Wish) -> Wanted {
    let listens = way.console.is_text() && upgrade::listens(asked);
    Wanted { wish, listens, history: guest.config().serial.history_bytes as u64 }
}

/// Ends the sessions of the others who type at the same console.
fn take_over(guest: &Guest, seat: &Seat) {
    let by = spice::who(&seat.entry);
    let others = guest.live.on(seat.entry.console).into_iter().filter(|entry| !Rc::ptr_eq(entry, &seat.entry));
    for other in others.filter(|entry| entry.mode == Mode::Control) {
        other.end(End::TakenOver(by.clone()));
    }
}

/// Which way a person goes, if they may: 403, 404, 409 and 429 are decided here.
fn choose(
    guest: &Guest,
    route: &Route,
    endpoint: Endpoint,
    person: &Person,
    client: Option<&str>,
) -> Result<(Way, Mode), Refused> {
    let console = match endpoint {
        Endpoint::Console(console) => console,
        _ => route.first_display().map(|way| way.console).ok_or_else(|| refuse(404, "this guest has no display"))?,
    };
    let mode = person.may_open(console)?;
    let Some(way) = route.way(console) else {
        let known = route.unreachable.iter().find(|u| u.console == console);
        return Err(match known {
            Some(unreachable) => refuse(502, format!("{console} cannot be reached: {}", unreachable.reason)),
            None => refuse(404, format!("this guest has no {console}")),
        });
    };
    if let Some(words) = way.refused_for(mode) {
        return Err(refuse(403, words).because(Reason::Right).of(&person.name));
    }
    limits::has_room(guest, &person.who(), &person.name)?;
    if console == Console::Spice {
        guest.spice.may_come(&guest.live, (person.viewer.as_str(), client), guest.config().spice.viewers)?;
        return Ok((way.clone(), mode));
    }
    let sessions = guest.live.on(console);
    if console.is_text()
        && mode == Mode::Control
        && guest.config().serial.viewers == Sharing::Refuse
        && let Some(holder) = sessions.iter().find(|entry| entry.mode == Mode::Control)
    {
        return Err(refuse(409, format!("{console} is in use by {}", spice::who(holder))));
    }
    sit(guest, person, (console, mode, client))?;
    Ok((way.clone(), mode))
}

/// Finds a seat at a console for one more client, be it another's. Clients are counted, not sockets; of SPICE there is
/// one.
fn sit(guest: &Guest, person: &Person, comes: (Console, Mode, Option<&str>)) -> Result<(), Refused> {
    let (console, mode, client) = comes;
    let config = guest.config();
    let (most, share) = (config.proxy.max_viewers, config.proxy.max_viewers_per_person);
    let sessions: Vec<_> = guest.live.on(console).into_iter().filter(|entry| !entry.is_ended()).collect();
    let taken: Vec<_> = sessions
        .iter()
        .map(|entry| shares::Seat { client: entry.client(), who: &entry.who, mode: entry.mode })
        .collect();
    let who = person.who();
    let own = shares::Seat { client: (person.viewer.as_str(), client), who: &who, mode };
    match shares::may_sit(&taken, &own, most, share) {
        Sitting::Room => Ok(()),
        Sitting::Instead(other) => {
            for entry in sessions.iter().filter(|entry| entry.client() == other) {
                entry.end(End::MadeRoom(printable(&person.name)));
            }
            Ok(())
        }
        Sitting::Share => {
            let words = format!("{} has {share} of the places at {console} already", printable(&person.name));
            Err(refuse(429, words).of(&person.name))
        }
        Sitting::Full => Err(refuse(429, format!("{console} has {most} viewers already")).of(&person.name)),
    }
}

async fn open(guest: &Rc<Guest>, route: &Route, way: &Way, seat: &Seat) -> Result<Opened, Refused> {
    match way.console {
        Console::Serial(_) | Console::Console(_) => Ok(Opened::Text(guest.join(route, way).await?)),
        Console::Vnc => open_display(guest, route, way, seat).await,
        Console::Spice => spice::until_ended(seat, open_display(guest, route, way, seat)).await?,
    }
}

async fn open_display(guest: &Guest, route: &Route, way: &Way, seat: &Seat) -> Result<Opened, Refused> {
    if seat.entry.reached.get() == Reached::Native {
        let native = connect(guest, route, way, Part::Websocket).await?;
        let upgrading = in_time(guest, way, "own websocket", upgrade_backend(native, "localhost"));
        match upgrading.await? {
            Ok((native, early)) => return Ok(Opened::Native(native, early)),
            Err(why) if way.console == Console::Spice && way.raw.is_some() => {
                tracing::info!(guest = %route.uuid, "spice is bridged, as spice-server answers no websocket (0.14.3 and later do): {why}");
                guest.spice.has_no_websocket(route);
                seat.entry.reached.set(Reached::Bridged);
            }
            Err(why) => return Err(refuse(502, format!("{}'s own websocket refuses: {why}", way.console))),
        }
    }
    Ok(Opened::Raw(connect(guest, route, way, Part::Raw).await?))
}

/// Connects to a part of a display, within TLS where the route says so.
async fn connect(guest: &Guest, route: &Route, way: &Way, part: Part) -> Result<Native, Refused> {
    let stream = guest.open(route, way, part).await?;
    let (ca, what) = match part {
        Part::Websocket => (&way.websocket_ca, "own websocket"),
        _ => (&way.raw_ca, "TLS port"),
    };
    let Some(ca) = ca else { return Ok(Native::Plain(stream)) };
    let connecting = async { tls::connect(stream, ca, &host::name()).await };
    match in_time(guest, way, what, connecting).await? {
        Ok(tls) => Ok(Native::Tls(Box::new(tls))),
        Err(why) => Err(refuse(502, format!("{}'s {what} refuses: {why}", way.console))),
    }
}

/// Waits for a backend's answer no longer than the configuration says.
async fn in_time<T>(guest: &Guest, way: &Way, what: &str, answer: impl Future<Output = T>) -> Result<T, Refused> {
    let patience = guest.config().proxy.connect_timeout;
    let silent = |_| refuse(504, format!("{}'s {what} did not answer within {} s", way.console, patience.as_secs()));
    tokio::time::timeout(patience, answer).await.map_err(silent)
}

/// A session from its 101 to its end.
struct Running {
    guest: Rc<Guest>,
    route: Route,
    seat: Seat,
    person: Person,
    wanted: Wanted,
    _connection: Rc<Connection>,
}

impl Running {
    async fn run(self, upgrade: Upgrade, opened: Opened) {
        let entry = self.seat.entry.clone();
        let started = Instant::now();
        let told = audit::Told::open(&self.route, entry.clone());
        let control = Control {
            entry: entry.clone(),
            deadline: started + self.person.life,
            pulse: Pulse::new(self.guest.config().proxy.ping_interval),
        };
        let finishing = tokio::time::timeout(self.guest.config().proxy.handshake_timeout, upgrade.finish());
        let finished = tokio::select! {
            finished = finishing => finished.ok().and_then(Result::ok).ok_or(End::ClientGone),
            // A client that does not take its 101 keeps nothing from others.
            end = entry.ended() => Err(end),
        };
        let end = match finished {
            Ok((client, early)) => relay(&self.guest, client, early, opened, &control, self.wanted).await,
            Err(end) => end,
        };
        if let Proof::Session(id, _) = &self.person.proof
            && let Err(why) = self.guest.store.touch(id, now())
        {
            tracing::warn!("cannot note when the session was used: {why}");
        }
        told.end(&end);
    }
}

async fn relay(
    guest: &Guest,
    client: crate::edges::http::Client,
    early: bytes::Bytes,
    opened: Opened,
    control: &Control,
    wanted: Wanted,
) -> End {
    let largest = guest.config().proxy.max_frame;
    let settle = async |end| settle(guest, control, end).await;
    if let Opened::Native(native, early_native) = opened {
        return forward::run(client, early, native, early_native, control, largest, settle).await;
    }
    let (mut sender, mut receiver) = websocket::accept(client, &early, largest);
    let end = match opened {
        Opened::Text(port) => serial::run(&mut sender, &mut receiver, port.hub(), control, wanted).await,
        Opened::Raw(stream) => display::run(&mut sender, &mut receiver, stream, control).await,
        Opened::Native(..) => unreachable!("it was forwarded"),
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

#[cfg(test)]
mod tests {
    use super::super::guest::Opener;
    use super::super::testing::control;
    use super::*;
    use crate::edges::paths::Paths;
    use crate::rules::config::Config;

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_goes_a_moment_before_its_route_was_its_guests_end() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("route.toml");
        std::fs::write(&file, "").unwrap();
        let guest = Guest::new(Paths::new(root.path()), file.clone(), Config::default(), None, Opener::Direct);
        let (control, seat) = control(Console::Vnc);
        let gone = || End::BackendGone("the guest closed the console".to_owned());

        let start = Instant::now();
        assert_eq!(settle(&guest, &control, gone()).await, gone());
        assert_eq!(start.elapsed(), Duration::from_secs(1), "it stays published");
        assert_eq!(settle(&guest, &control, End::Client(1000)).await, End::Client(1000));
        assert_eq!(start.elapsed(), Duration::from_secs(1), "nothing else is waited for");

        let stops = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            std::fs::remove_file(&file).unwrap();
        };
        let (end, ()) = tokio::join!(settle(&guest, &control, gone()), stops);
        assert_eq!(end, End::GuestStopped);
        std::fs::write(&file, "").unwrap();
        seat.entry.end(End::TIME_OUT);
        assert_eq!(settle(&guest, &control, gone()).await, End::TIME_OUT, "what was said first");
    }
}
