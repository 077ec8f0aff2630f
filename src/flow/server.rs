//! The accept loop: TLS or a redirect, limits on connections, and the end when nobody is left.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::entry::{self, Peer};
use super::guest::Guest;
use super::limits::NoPlace;
use super::live::Connection;
use super::standing;
use super::{audit, limits};
use crate::edges::http::{self, Asked, Client, Reply};
use crate::edges::tls;
use crate::rules::close::End;
use crate::rules::limits::{STRANGER_LIFE, STRANGER_REQUESTS, STRANGER_REST};

/// How much the kernel takes for a client that has not acknowledged it, in bytes; it doubles this for
/// its own needs.
const SEND_BUFFER: usize = 256 << 10;

/// What clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
    /// A unix socket to which a reverse proxy connects.
    Front(UnixListener),
}

/// A connection as it comes.
enum Arrived {
    Tcp(TcpStream, Peer),
    Unix(Client, Peer),
}

impl Listener {
    async fn accept(&self) -> io::Result<Arrived> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // Left to the kernel it grows to megabytes: on a slow line pings and their answers would
                // stand behind those for longer than a client is waited for.
                rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
                Ok(Arrived::Tcp(stream, Peer::Ip(address.ip())))
            }
            Self::Unix(listener) => Ok(Arrived::Unix(Client::Unix(listener.accept().await?.0), Peer::Unix)),
            Self::Front(listener) => Ok(Arrived::Unix(Client::Unix(listener.accept().await?.0), Peer::Front)),
        }
    }
}

/// Why the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody was connected for the configured time.
    Idle,
    /// It was told to.
    Stopped,
}

/// Serves until nobody was there for the configured time (with `idle`), or until `stop`; then sessions are told and given time.
pub async fn run(guest: Rc<Guest>, listeners: Vec<Listener>, idle: bool, stop: impl Future<Output = ()>) -> Ended {
    let ended = tokio::select! {
        ended = serve_all(&guest, &listeners, idle, stop) => ended,
        never = audit::keep_telling(&guest) => match never {},
        never = limits::watch(&guest) => match never {},
    };
    limits::tell_over(&guest);
    audit::tell_rest(&guest);
    ended
}

async fn serve_all(guest: &Rc<Guest>, listeners: &[Listener], idle: bool, stop: impl Future<Output = ()>) -> Ended {
    let accepting = accept_all(guest, listeners);
    let ended = tokio::select! {
        () = accepting => Ended::Stopped,
        () = unused(guest, idle) => Ended::Idle,
        () = standing::watch(guest) => Ended::Stopped,
        () = stop => Ended::Stopped,
    };
    if ended == Ended::Idle {
        return ended;
    }
    let end = if guest.is_withdrawn() { End::GuestStopped } else { End::ProxyStops };
    guest.live.end_all(&end);
    let drained = async {
        while !guest.live.all().is_empty() {
            guest.live.changed().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), drained).await;
    ended
}

/// Returns when no connection was open for the configured time, counted from the start or from the last one's end.
async fn unused(guest: &Guest, idle: bool) {
    if !idle {
        std::future::pending::<()>().await;
    }
    loop {
        while guest.live.connections() > 0 {
            guest.live.changed().await;
        }
        let time = guest.config().proxy.idle_timeout;
        tokio::select! {
            // A password is checked to its end, also where nobody waits for it any more.
            () = tokio::time::sleep(time) => if guest.live.connections() == 0 && !guest.logins.any() { return },
            () = guest.live.changed() => {}
        }
    }
}

async fn accept_all(guest: &Rc<Guest>, listeners: &[Listener]) {
    futures_util::future::join_all(listeners.iter().map(|listener| accept_one(guest, listener))).await;
}

async fn accept_one(guest: &Rc<Guest>, listener: &Listener) {
    loop {
        match listener.accept().await {
            Ok(arrived) => {
                let (Arrived::Tcp(_, peer) | Arrived::Unix(_, peer)) = &arrived;
                match limits::admit(guest, peer) {
                    Ok(connection) => drop(tokio::task::spawn_local(serve(guest.clone(), arrived, connection))),
                    Err(NoPlace::Full) => drop(tokio::task::spawn_local(serve_later(guest.clone(), arrived))),
                    // It is closed at once: whoever has so many has heard enough.
                    Err(NoPlace::Refused(refused)) => audit::refused(guest, peer, &refused),
                }
            }
            Err(why) => {
                tracing::warn!("cannot accept a connection: {why}");
                // Out of descriptors: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Serves one for whom there is no room yet, if there is in time.
async fn serve_later(guest: Rc<Guest>, arrived: Arrived) {
    let (Arrived::Tcp(_, peer) | Arrived::Unix(_, peer)) = &arrived;
    let Some(connection) = limits::wait(&guest, peer).await else {
        return tracing::debug!("{peer}: no connection came free in time");
    };
    serve(guest, arrived, connection).await;
}

async fn serve(guest: Rc<Guest>, arrived: Arrived, connection: Rc<Connection>) {
    let (Arrived::Tcp(_, peer) | Arrived::Unix(_, peer)) = &arrived;
    let peer = peer.clone();
    tokio::select! {
        () = serve_here(guest, arrived, connection.clone()) => {}
        () = connection.lost() => tracing::debug!("{peer}: another one needed the place"),
        () = connection.outlived(STRANGER_LIFE + STRANGER_REST) => tracing::debug!("{peer}: no right was shown in time"),
    }
}

async fn serve_here(guest: Rc<Guest>, arrived: Arrived, connection: Rc<Connection>) {
    let patience = guest.config().proxy.handshake_timeout;
    let deadline = tokio::time::Instant::now() + patience;
    let (client, peer) = match arrived {
        Arrived::Unix(client, peer) => (client, peer),
        Arrived::Tcp(tcp, peer) => match tokio::time::timeout_at(deadline, secure(&guest, tcp)).await {
            Ok(Ok(Secured::Client(client))) => (client, peer),
            Ok(Ok(Secured::Plain(tcp))) => {
                let redirecting = http::serve(Client::Plain(tcp), patience, std::future::pending(), |asked| {
                    std::future::ready(redirect(&asked))
                });
                let _ = tokio::time::timeout_at(deadline, redirecting).await;
                return;
            }
            Ok(Err(why)) => return tracing::debug!("{peer}: the TLS handshake failed: {why}"),
            Err(_) => return tracing::debug!("{peer}: the TLS handshake took too long"),
        },
    };
    let asked_so_far = Cell::new(0);
    let handler = |asked| {
        asked_so_far.set(asked_so_far.get() + 1);
        let is_last = asked_so_far.get() >= STRANGER_REQUESTS;
        let (guest, peer, connection) = (guest.clone(), peer.clone(), connection.clone());
        async move {
            let mut reply = entry::answer(guest, peer, connection.clone(), asked).await;
            if is_last && connection.is_strangers() && reply.status != 101 {
                reply.headers.push(("connection", "close".to_owned()));
            }
            reply
        }
    };
    // One deadline for the handshake and the first request's head; hyper's own is for each later head.
    let too_late = async {
        tokio::time::sleep_until(deadline).await;
        if asked_so_far.get() > 0 {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = http::serve(client, patience, connection.outlived(STRANGER_LIFE), handler) => if let Err(why) = served {
            tracing::debug!("{peer}: {why}");
        },
        () = too_late => tracing::debug!("{peer}: the request took too long"),
    }
}

enum Secured {
    Client(Client),
    Plain(TcpStream),
}

/// TLS where the first byte is that of a handshake record (RFC 8446, 5.1).
async fn secure(guest: &Guest, tcp: TcpStream) -> io::Result<Secured> {
    let Some(config) = guest.tls() else { return Ok(Secured::Client(Client::Plain(tcp))) };
    let mut first = [0];
    if tcp.peek(&mut first).await? == 1 && first[0] != 0x16 {
        return Ok(Secured::Plain(tcp));
    }
    Ok(Secured::Client(Client::Tls(Box::new(tls::Server::accept(config, tcp).await?))))
}

/// Plain HTTP on the port: to the same place over TLS, but never with a path or a query, which may
/// hold a ticket.
fn redirect(asked: &Asked) -> Reply {
    match &asked.host {
        Some(host) => Reply {
            status: 308,
            headers: vec![("location", format!("https://{host}/")), ("connection", "close".to_owned())],
            ..Reply::default()
        },
        None => Reply {
            status: 400,
            headers: vec![("connection", "close".to_owned())],
            body: "this port speaks TLS\n".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::paths::Paths;
    use crate::flow::guest::Opener;
    use crate::rules::config::Config;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn the_idle_time_counts_from_the_start_and_anew_from_each_last_connection() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let guest = Guest::new(paths, root.path().join("route.toml"), Config::default(), None, Opener::Direct);
        let idle = Config::default().proxy.idle_timeout;
        let start = Instant::now();
        unused(&guest, true).await;
        assert_eq!(start.elapsed(), idle);

        let start = Instant::now();
        let visits = async {
            sleep(idle / 2).await;
            let (one, two) = (guest.live.connect(), guest.live.connect());
            sleep(3 * idle).await;
            drop(one);
            sleep(3 * idle).await;
            drop(two);
            // One who comes and goes at once starts the count anew, too.
            sleep(idle / 2).await;
            drop(guest.live.connect());
            std::future::pending::<()>().await;
        };
        tokio::select! { () = unused(&guest, true) => {}, () = visits => unreachable!() }
        assert_eq!(start.elapsed(), 8 * idle);

        let never = tokio::time::timeout(1000 * idle, unused(&guest, false)).await;
        assert!(never.is_err(), "by hand it stays");
    }
}
