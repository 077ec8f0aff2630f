//! Connections to a guest's backends: from the broker's hand or, without systemd, made here; a
//! display's as one stream type, whatever it is.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::paths::Paths;
use super::{broker, terminal};
use crate::rules::broker::{Kind, Refusal};
use crate::rules::route::Backend;

/// A display's open backend.
#[derive(Debug)]
pub enum Stream {
    /// A loopback port.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// Kept for as long as a session uses its backend; dropped, a text console is given back.
#[derive(Debug)]
pub enum Lease {
    /// Nothing to give back.
    None,
    /// The lock itself.
    Terminal(terminal::Lock),
    /// The broker's, which holds the lock.
    Broker(broker::Lent),
}

impl Stream {
    /// Takes over a connected descriptor of a backend.
    pub fn from_descriptor(backend: &Backend, descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        match backend {
            Backend::Tcp(..) => Ok(Self::Tcp(TcpStream::from_std(descriptor.into())?)),
            // libvirt's are one end of a socket pair.
            Backend::Unix(_) | Backend::Display(_) => Ok(Self::Unix(UnixStream::from_std(descriptor.into())?)),
            Backend::Pty(_) => Err(io::Error::other("a terminal is no display")),
        }
    }
}

/// Connects to a backend from here, without a broker.
pub async fn connect(paths: &Paths, backend: &Backend, patience: Duration) -> Result<(OwnedFd, Lease), Refusal> {
    let refused = |why: io::Error| Refusal::new(Kind::Refused, format!("{backend}: {why}"));
    let connecting = async {
        match backend {
            Backend::Tcp(ip, port) => {
                let stream = TcpStream::connect((*ip, *port)).await.and_then(TcpStream::into_std).map_err(refused)?;
                Ok((stream.into(), Lease::None))
            }
            Backend::Unix(path) => {
                let stream = UnixStream::connect(path).await.and_then(UnixStream::into_std).map_err(refused)?;
                Ok((stream.into(), Lease::None))
            }
            Backend::Pty(number) => {
                let lock = terminal::lock(paths, *number, std::process::id())?;
                Ok((terminal::open(*number, None)?, Lease::Terminal(lock)))
            }
            Backend::Display(_) => {
                Err(Refusal::new(Kind::Refused, format!("{backend}: the broker alone asks libvirt for a display")))
            }
        }
    };
    let silent = |_| Refusal::new(Kind::Silent, format!("{backend} did not accept within {} s", patience.as_secs()));
    let (descriptor, lease) = tokio::time::timeout(patience, connecting).await.map_err(silent)??;
    send_at_once(backend, &descriptor).map_err(refused)?;
    Ok((descriptor, lease))
}

/// Without this a key would wait for the acknowledgement of the one before.
pub(super) fn send_at_once(backend: &Backend, descriptor: &OwnedFd) -> io::Result<()> {
    if matches!(backend, Backend::Tcp(..)) {
        rustix::net::sockopt::set_tcp_nodelay(descriptor, true)?;
    }
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
