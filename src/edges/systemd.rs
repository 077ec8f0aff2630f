//! systemd: what a service tells it and gets from it. (`edges::units` asks it to do things.)

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sendmsg_addr,
};
use sd_notify::NotifyState;

/// Says that the service is up.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that it is going down.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`. A newline would begin another field, so there is none.
pub fn status(line: &str) {
    debug_assert!(!line.contains('\n'));
    let line = line.replace('\n', " ");
    notify(&[NotifyState::Status(line.as_str())]);
}

/// Says that it lives; for as long as `watchdog_interval` asks for.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear from us: half of `WatchdogSec=`.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|span| span / 2)
}

/// Keeps a descriptor for the next process of this service, under a name; the manager drops it by itself once its other
/// end is closed (`FileDescriptorStoreMax=`).
pub fn store(name: &str, descriptor: BorrowedFd<'_>) {
    say(&format!("FDSTORE=1\nFDNAME={name}\n"), &[descriptor]);
}

/// Gives up what is kept under a name.
pub fn forget(name: &str) {
    say(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]);
}

/// Does what the first word to systemd takes, so that each later one takes no more than a socket that is there.
pub fn prepare() {
    let _ = notifier();
}

/// The socket that says it, and to whom. It is neither connected nor bound: both may be forbidden by now.
fn notifier() -> Option<&'static (OwnedFd, SocketAddrUnix)> {
    static NOTIFIER: OnceLock<Option<(OwnedFd, SocketAddrUnix)>> = OnceLock::new();
    NOTIFIER
        .get_or_init(|| {
            let path = std::env::var_os("NOTIFY_SOCKET")?;
            let address = match path.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddrUnix::new_abstract_name(name),
                None => SocketAddrUnix::new(path.as_os_str()),
            };
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
            Some((socket.ok()?, address.ok()?))
        })
        .as_ref()
}

fn notify(state: &[NotifyState<'_>]) {
    say(&state.iter().map(|state| format!("{state}\n")).collect::<String>(), &[]);
}

fn say(message: &str, descriptors: &[BorrowedFd<'_>]) {
    let Some((socket, address)) = notifier() else { return };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let message = [IoSlice::new(message.as_bytes())];
    if let Err(why) = sendmsg_addr(socket, address, &message, &mut ancillary, SendFlags::NOSIGNAL) {
        tracing::debug!("cannot notify systemd: {why}");
    }
}

/// A socket from systemd.
#[derive(Debug)]
pub enum Inherited {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(UnixListener),
    /// A unix socket of `SOCK_SEQPACKET`.
    Packets(OwnedFd),
    /// A connection of `SOCK_SEQPACKET` that an earlier process had [`store`]d, and its name.
    Stored(String, OwnedFd),
}

/// The sockets that systemd passed, by `sd_listen_fds(3)`.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for i in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let packets = (i32::from(AddressFamily::UNIX.as_raw()), SocketType::SEQPACKET.as_raw().cast_signed());
        if let Ok(Some(listener)) = passed.take_tcp_listener(i) {
            listener.set_nonblocking(true)?;
            sockets.push(Inherited::Tcp(listener));
        } else if let Ok(Some(socket)) = passed.take_custom::<OwnedFd>(i, packets.0, packets.1, "packets") {
            let listens = rustix::net::sockopt::socket_acceptconn(&socket)?;
            sockets.push(if listens {
                rustix::io::ioctl_fionbio(&socket, true)?;
                Inherited::Packets(socket)
            } else {
                Inherited::Stored(name.to_owned(), socket)
            });
        } else if let Some(listener) = passed.take_unix_listener(i)? {
            listener.set_nonblocking(true)?;
            sockets.push(Inherited::Unix(listener));
        }
    }
    Ok(sockets)
}
