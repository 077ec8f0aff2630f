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
use super::{display, forward, serial, upgrade};
use crate::edges::backends::Stream;
use crate::edges::http::{Asked, Native, Reply, Upgrade, upgrade_backend};
use crate::edges::publish::now;
use crate::edges::{host, tls, websocket};
use crate::rules::broker::Part;
use crate::rules::close::End;
use crate::rules::config::Sharing;
use crate::rules::guest::printable;
use crate::rules::request::{self, Endpoint};
use crate::rules::route::{Backend, Reached, Route, Way};
use crate::rules::ticket::Mode;
use crate::rules::told::Wish;

/// An open backend, in the way that its console is reached.
enum Opened {
    Text(Rc<Port>),
    Raw(Stream),
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
    let person = identify(&guest, &route, asked)?;
    let (way, person) = choose(&guest, &route, endpoint, person, client.as_deref())?;
    let reached = if person.mode == Mode::View { Reached::Bridged } else { way.reached() };
    // The seat is taken before the backend is opened: two that come at once must not both think that
    // nobody types.
    let seat = guest.live.enter(Opening {
        console: way.console,
        reached: if matches!(way.raw, Some(Backend::Pty(_))) { Reached::Pty } else { reached },
        mode: person.mode,
        person: person.name.clone(),
        viewer: person.viewer.clone(),
        client,
        from: peer.to_string(),
        since: now(),
    });
    let opened = open(&guest, &route, &way, reached).await.inspect_err(|why| {
        tracing::warn!(guest = %route.uuid, console = %way.console, "{} of {}: {}", way.console, printable(&route.name), why.words);
    })?;
    let wanted = wanted(&guest, &way, asked, wish);
    let upgrade = asked.take_upgrade().ok_or_else(|| refuse(400, "the connection cannot be upgraded"))?;
    if way.console.is_text() && person.mode == Mode::Control && guest.config().serial.viewers == Sharing::TakeOver {
        take_over(&guest, &seat);
    }
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
    let by = format!("{} from {}", printable(&seat.entry.person), seat.entry.from);
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
    person: Person,
    client: Option<&str>,
) -> Result<(Way, Person), Refused> {
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
    if let Some(words) = not_in_mode(way, person.mode) {
        return Err(refuse(403, words));
    }
    let sessions = guest.live.on(console);
    if console.is_text()
        && person.mode == Mode::Control
        && guest.config().serial.viewers == Sharing::Refuse
        && let Some(holder) = sessions.iter().find(|entry| entry.mode == Mode::Control)
    {
        return Err(refuse(409, format!("{console} is in use by {} from {}", printable(&holder.person), holder.from)));
    }
    // One SPICE client opens several sockets: clients are counted, not sockets.
    let own = (person.viewer.as_str(), client);
    let mut viewers: Vec<_> = sessions.iter().map(|entry| entry.client()).filter(|client| *client != own).collect();
    viewers.sort_unstable();
    viewers.dedup();
    if viewers.len() >= guest.config().proxy.max_viewers {
        return Err(refuse(429, format!("{console} has {} viewers already", viewers.len())));
    }
    Ok((way.clone(), person))
}

/// Why a console cannot be opened in this mode, whoever asks.
pub(super) fn not_in_mode(way: &Way, mode: Mode) -> Option<String> {
    let is_refused = mode == Mode::View && !way.console.is_text();
    is_refused.then(|| format!("{} cannot be opened view-only yet", way.console))
}

async fn open(guest: &Rc<Guest>, route: &Route, way: &Way, reached: Reached) -> Result<Opened, Refused> {
    if way.console.is_text() {
        return Ok(Opened::Text(guest.join(route, way).await?));
    }
    if reached != Reached::Native {
        return Ok(Opened::Raw(guest.open(route, way, Part::Raw).await?));
    }
    let stream = guest.open(route, way, Part::Websocket).await?;
    let patience = guest.config().proxy.connect_timeout;
    let upgrading = async {
        let native = match &way.websocket_ca {
            Some(ca) => Native::Tls(Box::new(tls::connect(stream, ca, &host::name()).await?)),
            None => Native::Plain(stream),
        };
        upgrade_backend(native, "localhost").await
    };
    match tokio::time::timeout(patience, upgrading).await {
        Ok(Ok((native, early))) => Ok(Opened::Native(native, early)),
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
    person: Person,
    wanted: Wanted,
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
            deadline: started + self.person.life,
            pulse: Pulse::new(self.guest.config().proxy.ping_interval),
        };
        let end = match tokio::time::timeout(self.guest.config().proxy.handshake_timeout, upgrade.finish()).await {
            Ok(Ok((client, early))) => relay(&self.guest, client, early, opened, &control, self.wanted).await,
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
    use crate::rules::guest::Console;

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
        seat.entry.end(End::SessionEnded);
        assert_eq!(settle(&guest, &control, gone()).await, End::SessionEnded, "what was said first");
    }
}
