//! How much lies unread in a serial port that a proxy was lent: the broker keeps a twin of a socket, and knows a terminal
//! again.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::socket::GetSockOpt;
use nix::sys::socket::sockopt::GetStruct;
use rustix::fs::FileType;
use rustix::net::AddressFamily;

use crate::rules::unread::Look;

/// What a terminal's buffer takes (`N_TTY_BUF_SIZE` of linux/tty.h).
const FULL: u64 = 4096;

/// A port that was lent.
#[derive(Debug)]
pub enum Port {
    /// A TCP connection.
    Tcp(OwnedFd),
    /// A unix connection.
    Unix(OwnedFd),
    /// A terminal, which all who have it open read from one buffer. It is opened for each look, so that the broker itself
    /// holds none, and is a port also after the proxy said that it has closed it.
    Terminal(Terminal),
}

/// Which terminal, and what tells it from a later one of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    number: u32,
    owner: u32,
    made: (i64, i64),
}

impl Port {
    /// Of a descriptor that is lent; `None` where it is of no kind that is lent.
    pub fn of(descriptor: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let about = rustix::fs::fstat(descriptor)?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::CharacterDevice => Ok(Some(Self::Terminal(Terminal::of(&about)))),
            FileType::Socket => match rustix::net::sockopt::socket_domain(descriptor)? {
                AddressFamily::UNIX => Ok(Some(Self::Unix(descriptor.try_clone_to_owned()?))),
                AddressFamily::INET | AddressFamily::INET6 => Ok(Some(Self::Tcp(descriptor.try_clone_to_owned()?))),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// How it stands now. An error: it is there no more.
    pub fn look(&self) -> io::Result<Look> {
        match self {
            Self::Tcp(socket) => {
                // In this order: what comes in between seems to be read, and not to have lain there.
                let unread = rustix::io::ioctl_fionread(socket)?;
                Ok(Look::Counted { received: TcpInfo.get(socket)?[RECEIVED], unread })
            }
            Self::Unix(socket) => Ok(Look::Level { unread: rustix::io::ioctl_fionread(socket)? }),
            Self::Terminal(terminal) => {
                match terminal.open() {
                    Ok(opened) => Ok(Look::Level { unread: rustix::io::ioctl_fionread(opened)? }),
                    // Somebody who has it keeps all others out (TIOCEXCL): what cannot be seen counts as unread.
                    Err(why) if why.raw_os_error() == Some(libc::EBUSY) => Ok(Look::Level { unread: FULL }),
                    Err(why) => Err(why),
                }
            }
        }
    }

    /// The terminal's number: that one can still be held by one who gave it back.
    #[must_use]
    pub fn terminal(&self) -> Option<u32> {
        match self {
            Self::Terminal(terminal) => Some(terminal.number),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Frees the guest, whoever has the other descriptors; only of a terminal this cannot be done.
    pub fn cut(&self) {
        if let Self::Tcp(socket) | Self::Unix(socket) = self {
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }
}

impl Terminal {
    fn of(about: &rustix::fs::Stat) -> Self {
        // All pseudo-terminals have one major number.
        Self {
            number: rustix::fs::minor(about.st_rdev),
            owner: about.st_uid,
            made: (about.st_ctime, about.st_ctime_nsec.cast_signed()),
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let opened = super::terminal::look_at(self.number)?;
        if Self::of(&rustix::fs::fstat(&opened)?) == *self { Ok(opened) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// `struct tcp_info` of linux/tcp.h up to `tcpi_bytes_received`, which kernels have from 4.1 on.
type Info = [u64; 17];
const RECEIVED: usize = 16;

#[derive(Clone, Copy, Debug)]
struct TcpInfo;
nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, Info, GetStruct<Info>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_came_and_what_lies_unread_of_a_connection_is_seen_by_its_twin() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut guest, _) = listener.accept().unwrap();
        let port = Port::of(proxy.as_fd()).unwrap().unwrap();
        guest.write_all(&[b'x'; 1000]).unwrap();
        proxy.read_exact(&mut [0; 400]).unwrap();
        assert_eq!(port.look().unwrap(), Look::Counted { received: 1000, unread: 600 });
        port.cut();
        assert_eq!(guest.read(&mut [0]).unwrap(), 0, "though the proxy still has its own");

        let (mut guest, proxy) = UnixStream::pair().unwrap();
        let port = Port::of(proxy.as_fd()).unwrap().unwrap();
        guest.write_all(b"hello").unwrap();
        assert_eq!(port.look().unwrap(), Look::Level { unread: 5 });
        port.cut();
        assert_eq!(guest.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_terminal_is_known_again_and_another_of_its_number_is_not_taken_for_it() {
        let open = || {
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let master = rustix::pty::openpt(flags).unwrap();
            rustix::pty::grantpt(&master).unwrap();
            rustix::pty::unlockpt(&master).unwrap();
            let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
            let slave = crate::edges::terminal::open(crate::rules::route::pts_number(&name).unwrap(), None).unwrap();
            (master, slave)
        };
        let (master, slave) = open();
        let port = Port::of(slave.as_fd()).unwrap().unwrap();
        rustix::io::write(&master, &[b'x'; 100]).unwrap();
        let soon = std::time::Duration::from_secs(20);
        assert!(crate::edges::caller::wait(slave.as_fd(), rustix::event::PollFlags::IN, soon).unwrap());
        assert_eq!(port.look().unwrap(), Look::Level { unread: 100 });
        let Port::Terminal(terminal) = port else { panic!("{port:?}") };
        let later = Port::Terminal(Terminal { made: (terminal.made.0, terminal.made.1 + 1), ..terminal });
        later.look().unwrap_err();
        drop((master, slave));
        Port::Terminal(terminal).look().unwrap_err();
    }
}
