//! Connections to a guest's backends: one stream type whatever they are, from the broker's hand or,
//! without systemd, made here.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};

use super::paths::Paths;
use super::terminal;
use crate::rules::broker::{Kind, Refusal};
use crate::rules::route::Backend;

/// An open backend.
#[derive(Debug)]
pub enum Stream {
    /// A loopback port.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// A pseudo-terminal: its two directions, as tokio has them for any descriptor that can be polled.
    Pty(pipe::Receiver, pipe::Sender),
}

/// Kept for as long as a session uses its backend; dropped, a terminal's lock is given back.
#[derive(Debug)]
pub enum Lease {
    /// Nothing to give back.
    None,
    /// The lock itself.
    Terminal(terminal::Lock),
    /// The connection to the broker, which holds the lock for as long as that is open.
    Broker(UnixStream),
}

impl Lease {
    /// Returns when the lease has ended by itself: the broker is gone, and with it the lock.
    pub async fn ended(&self) {
        if let Self::Broker(broker) = self {
            let mut byte = [0];
            loop {
                if broker.readable().await.is_err() {
                    return;
                }
                match broker.try_read(&mut byte) {
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Stream {
    /// Takes over a connected descriptor of a backend.
    pub fn from_descriptor(backend: &Backend, descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(match backend {
            Backend::Tcp(..) => {
                let stream = TcpStream::from_std(descriptor.into())?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Backend::Unix(_) => Self::Unix(UnixStream::from_std(descriptor.into())?),
            Backend::Pty(_) => {
                let twin = descriptor.try_clone()?;
                Self::Pty(
                    pipe::Receiver::from_owned_fd_unchecked(descriptor)?,
                    pipe::Sender::from_owned_fd_unchecked(twin)?,
                )
            }
        })
    }
}

/// Connects to a backend from here, without a broker.
pub async fn connect(paths: &Paths, backend: &Backend, patience: Duration) -> Result<(Stream, Lease), Refusal> {
    let refused = |why: io::Error| Refusal::new(Kind::Refused, format!("{backend}: {why}"));
    let connecting = async {
        match backend {
            Backend::Tcp(ip, port) => {
                let stream = TcpStream::connect((*ip, *port)).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                Ok((Stream::Tcp(stream), Lease::None))
            }
            Backend::Unix(path) => Ok((Stream::Unix(UnixStream::connect(path).await.map_err(refused)?), Lease::None)),
            Backend::Pty(number) => {
                let lock = terminal::lock(paths, *number, std::process::id())?;
                let stream = Stream::from_descriptor(backend, terminal::open(*number)?).map_err(refused)?;
                Ok((stream, Lease::Terminal(lock)))
            }
        }
    };
    let silent = |_| Refusal::new(Kind::Silent, format!("{backend} did not accept within {} s", patience.as_secs()));
    tokio::time::timeout(patience, connecting).await.map_err(silent)?
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Pty(read, _) => match Pin::new(read).poll_read(cx, buf) {
                // The other side was closed: that is how a terminal says "end".
                Poll::Ready(Err(why)) if why.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Pty(_, write) => Pin::new(write).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Pty(..) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Pty(..) => Poll::Ready(Ok(())),
        }
    }
}
