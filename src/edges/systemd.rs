//! systemd: what a service tells it and gets from it. (`edges::units` asks it to do things.)

use std::io;
use std::time::Duration;

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

fn notify(state: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(state) {
        tracing::debug!("cannot notify systemd: {why}");
    }
}

/// A listening socket from systemd.
#[derive(Debug)]
pub enum Inherited {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// The listening sockets that systemd passed, by `sd_listen_fds(3)`.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for i in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(i) {
            listener.set_nonblocking(true)?;
            sockets.push(Inherited::Tcp(listener));
        } else if let Some(listener) = passed.take_unix_listener(i)? {
            listener.set_nonblocking(true)?;
            sockets.push(Inherited::Unix(listener));
        }
    }
    Ok(sockets)
}
