//! Who holds a TCP port on this host, by the kernel's tables.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::sock_diag;

/// A description of whoever keeps others from listening at a port of an address, or `None` where it is free. A host that
/// is no IP address counts as 127.0.0.1.
#[must_use]
pub fn holder(host: &str, port: u16) -> Option<String> {
    let address = SocketAddr::new(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    match TcpListener::bind(address) {
        Err(why) if why.kind() == std::io::ErrorKind::AddrInUse => Some(name_holder(address)),
        _ => None,
    }
}

/// All ports that something listens on. Reading the kernel's tables takes some 10 ms, however many there are: for a
/// range of ports this is the one to ask.
#[must_use]
pub fn listened_to() -> BTreeSet<u16> {
    let ports = |tables: String| listeners(&tables).map(|(port, _)| port).collect::<Vec<_>>();
    tables().into_iter().flat_map(ports).collect()
}

fn name_holder(address: SocketAddr) -> String {
    let port = address.port();
    let nobody = || format!("a program that cannot be named (`ss -ltnp sport = :{port}` may)");
    let there = sock_diag::listener(address).ok().flatten().map(|listener| listener.inode.to_string());
    let Some(inode) = there.or_else(|| listening_inode(port)) else { return nobody() };
    let socket = format!("socket:[{inode}]");
    let Ok(processes) = fs::read_dir("/proc") else { return nobody() };
    let numbered = |process: &fs::DirEntry| process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    for process in processes.flatten().filter(numbered) {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has_it =
            files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()));
        if has_it {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return format!("{} (pid {})", name.trim(), process.file_name().to_string_lossy());
        }
    }
    nobody()
}

fn listening_inode(port: u16) -> Option<String> {
    let inode = |table: String| listeners(&table).find(|(at, _)| *at == port).map(|(_, inode)| inode.to_owned());
    tables().into_iter().find_map(inode)
}

fn tables() -> [String; 2] {
    ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default())
}

/// Port and inode of each socket that listens (state 0A, proc(5)).
fn listeners(table: &str) -> impl Iterator<Item = (u16, &str)> {
    table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let listens = fields.len() > 9 && fields[3] == "0A";
        listens.then_some((u16::from_str_radix(port, 16).ok()?, fields[9]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_names_the_process_and_a_free_one_nobody() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = holder("127.0.0.1", port).unwrap();
        assert!(listened_to().contains(&port));
        assert!(named.ends_with(&format!("(pid {})", std::process::id())), "{named}");
        assert_eq!(holder("127.0.0.2", port), None, "the same number of another address");
        assert_eq!(holder("localhost", port), Some(named.clone()));
        assert_eq!(holder("0.0.0.0", port), Some(named));
        drop(listener);
        assert_eq!(holder("127.0.0.1", port), None);
    }
}
