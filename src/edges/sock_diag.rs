//! Who listens at an address, as the kernel finds it for a connection that comes (`sock_diag(7)`): not by a table's text,
//! which takes milliseconds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

/// Of `linux/sock_diag.h`, `linux/netlink.h` and `linux/inet_diag.h`.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const TCP: u8 = 6;
const LISTENS: u8 = 10;
const HEADER: usize = 16;
const REQUEST_LENGTH: usize = HEADER + 56;
const ANSWER_LENGTH: usize = HEADER + 72;

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// No other socket has this number until the next boot.
    pub cookie: u64,
    /// As `/proc/PID/fd` has it.
    pub inode: u64,
    /// The user who made it.
    pub uid: u32,
}

/// The socket that a connection to this address would come to; `None` where nothing listens.
pub fn listener(address: SocketAddr) -> io::Result<Option<Listener>> {
    let kernel =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    sockopt::set_socket_timeout(&kernel, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
    send(&kernel, &question(address), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::empty())?;
    read(&answer[..length.min(answer.len())])
}

fn question(address: SocketAddr) -> [u8; REQUEST_LENGTH] {
    let mut bytes = [0; REQUEST_LENGTH];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(0, &(REQUEST_LENGTH as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &REQUEST.to_ne_bytes());
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    put(HEADER, &[family.as_raw() as u8, TCP]);
    put(HEADER + 4, &(1u32 << LISTENS).to_ne_bytes());
    // struct inet_diag_sockid: ports and addresses as on the wire.
    put(HEADER + 8, &address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => put(HEADER + 12, &ip.octets()),
        IpAddr::V6(ip) => put(HEADER + 12, &ip.octets()),
    }
    // Whatever its cookie.
    put(HEADER + 48, &[0xff; 8]);
    bytes
}

fn read(answer: &[u8]) -> io::Result<Option<Listener>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not understood");
    let four = |at: usize| answer.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    let kind = answer.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(odd)?;
    if kind == ERROR {
        let code = four(HEADER).ok_or_else(odd)?.cast_signed();
        let why = io::Error::from_raw_os_error(code.saturating_neg());
        return if why.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(why) };
    }
    if kind != BY_FAMILY || answer.len() < ANSWER_LENGTH {
        return Err(odd());
    }
    if answer[HEADER + 1] != LISTENS {
        return Ok(None);
    }
    // struct inet_diag_msg: the cookie's lower half first, the user and the inode at its end.
    let (low, high) = (four(HEADER + 44).ok_or_else(odd)?, four(HEADER + 48).ok_or_else(odd)?);
    let (uid, inode) = (four(HEADER + 64).ok_or_else(odd)?, four(HEADER + 68).ok_or_else(odd)?);
    Ok(Some(Listener { cookie: u64::from(high) << 32 | u64::from(low), inode: inode.into(), uid }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    #[test]
    fn a_listener_is_found_at_each_address_that_leads_to_it_and_the_next_of_its_port_is_another() {
        for (bound, asked) in
            [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::1]", "[::1]"), ("[::]", "127.0.0.1")]
        {
            let bind = |port: u16| TcpListener::bind(format!("{bound}:{port}"));
            let Ok(socket) = bind(0) else { continue };
            let port = socket.local_addr().unwrap().port();
            let address: SocketAddr = format!("{asked}:{port}").parse().unwrap();
            let found = listener(address).unwrap().unwrap_or_else(|| panic!("{bound} at {asked}"));
            assert_eq!(found.inode, rustix::fs::fstat(&socket).unwrap().st_ino, "{bound}");
            assert_eq!(found.uid, rustix::process::geteuid().as_raw());
            let _client = TcpStream::connect(address).unwrap();
            let _server = socket.accept().unwrap();
            assert_eq!(listener(address).unwrap(), Some(found), "also while it serves somebody");
            drop(socket);
            let next = bind(port).unwrap();
            let after = listener(address).unwrap().unwrap();
            assert!(after.cookie != found.cookie, "{bound}: {after:?}");
            drop(next);
        }
    }

    #[test]
    fn where_nothing_listens_there_is_nobody() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let Ok(socket) = TcpListener::bind((ip, 0)) else { continue };
            let address = socket.local_addr().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let _server = socket.accept().unwrap();
            drop(socket);
            assert_eq!(listener(address).unwrap(), None, "{address}");
        }
    }

    #[test]
    fn a_short_or_odd_answer_is_an_error() {
        for answer in [&[][..], &[0; 16], &[0xff; 200]] {
            assert!(read(answer).is_err(), "{answer:?}");
        }
    }
}
