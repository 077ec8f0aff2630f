//! Whether what a route names is still served by the guest's QEMU: asked before it is opened, and again of what was
//! opened, so that nothing which took its number or its path meanwhile is handed out.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::edges::caller::Caller;
use crate::edges::paths::Paths;
use crate::edges::processes::{NotHeld, Process};
use crate::edges::{files, nft, sock_diag, terminal, unix_sockets};
use crate::rules::broker::{Kind, Refusal};
use crate::rules::guest::printable;
use crate::rules::route::{Backend, Route};
use crate::rules::serving::Held;

/// The process that serves a guest's backends, held for as long as one is opened; `None` where the route names none.
pub(super) struct Served(Option<Process>);

impl Served {
    /// Finds it. Where it has ended the route is stale: sync is told, which withdraws it.
    pub(super) fn by(paths: &Paths, route: &Route) -> Result<Self, Refusal> {
        let Some(owner) = &route.owner else { return Ok(Self(None)) };
        match Process::hold_owner(owner) {
            Ok(process) => Ok(Self(Some(process))),
            Err(why) => {
                let name = printable(&route.name);
                if matches!(why, NotHeld::Ended(_)) {
                    tracing::warn!(guest = %route.uuid, "{name}: {why}, and its route is still there: having it withdrawn");
                    if let Err(why) = files::leave_note(&paths.queue(), route.uuid.as_str()) {
                        tracing::error!("cannot leave a note for sync: {why}");
                    }
                }
                Err(Refusal::new(Kind::Unknown, format!("{name}: {why}")))
            }
        }
    }

    /// Opens a backend and looks whether it is the guest's.
    pub(super) fn open(
        &self,
        paths: &Paths,
        route: &Route,
        backend: &Backend,
        caller: &Caller,
        patience: Duration,
    ) -> Result<(OwnedFd, Option<terminal::Lock>), Refusal> {
        let held = route.held(backend).map_err(|why| Refusal::new(Kind::Unknown, why))?;
        let process = self.0.as_ref().ok_or_else(|| Refusal::new(Kind::Unknown, "nobody serves this guest"))?;
        let opened = match (backend, held) {
            (Backend::Tcp(ip, port), Some(Held::Listener { socket })) => {
                (connect_tcp(SocketAddr::new(*ip, *port), *socket, patience)?, None)
            }
            (Backend::Pty(number), Some(Held::Terminal(expected))) => {
                let lock = terminal::lock(paths, *number, caller.pid)?;
                (terminal::open(*number, Some(expected))?, Some(lock))
            }
            (Backend::Unix(path), _) => (connect_unix(path, process, patience)?, None),
            _ => return Err(Refusal::new(Kind::Unknown, format!("{backend} is not known to be this guest's"))),
        };
        // What was found above was so while it lived.
        if process.is_alive() {
            Ok(opened)
        } else {
            Err(Refusal::new(Kind::Unknown, format!("{}: its QEMU has ended", printable(&route.name))))
        }
    }
}

fn failed(backend: &str, why: &std::io::Error) -> Refusal {
    let silent = matches!(why.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock);
    Refusal::new(if silent { Kind::Silent } else { Kind::Refused }, format!("{backend}: {why}"))
}

/// A socket that listens at that address all the time between two looks got the connection that was made meanwhile.
fn connect_tcp(address: SocketAddr, socket: u64, patience: Duration) -> Result<OwnedFd, Refusal> {
    let failed = |why: std::io::Error| failed(&format!("tcp:{address}"), &why);
    let look = || match sock_diag::listener(address).map_err(failed)? {
        Some(listener) if listener.cookie == socket => Ok(()),
        Some(listener) => {
            let words = format!("tcp:{address}: a program of uid {} listens there, and not this guest", listener.uid);
            Err(Refusal::new(Kind::Unknown, words))
        }
        None => Err(Refusal::new(Kind::Refused, format!("tcp:{address}: nothing listens there"))),
    };
    look()?;
    let stream = TcpStream::connect_timeout(&address, patience).map_err(failed)?;
    look()?;
    // Where that is not possible the guard has one means less; the proxy's own limits stay.
    if let Err(why) = nft::mark(&stream) {
        tracing::warn!("cannot mark the connection to tcp:{address} for the guard: {why}");
    }
    Ok(stream.into())
}

/// What is at a path is whoever's may write its folder: the kernel says who listens.
fn connect_unix(path: &str, process: &Process, patience: Duration) -> Result<OwnedFd, Refusal> {
    let failed = |why: std::io::Error| failed(&format!("unix:{path}"), &why);
    let socket = unix_sockets::connect(path, patience).map_err(failed)?;
    let peer = unix_sockets::peer(&socket).map_err(failed)?;
    let uid = process.effective_uid().map_err(failed)?;
    if (peer.pid, peer.uid) != (process.pid(), uid) {
        let words = format!(
            "unix:{path}: pid {} (uid {}) listens there, and not this guest's QEMU (pid {}, uid {uid})",
            peer.pid,
            peer.uid,
            process.pid()
        );
        return Err(Refusal::new(Kind::Unknown, words));
    }
    Ok(socket)
}
