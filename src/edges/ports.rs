//! Who holds a TCP port on this host, by the kernel's tables.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A description of whoever listens on a loopback port, or `None` where it is free.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(address) {
        Err(why) if why.kind() == std::io::ErrorKind::AddrInUse => Some(name_holder(port)),
        _ => None,
    }
}

/// Whether something listens on a port, by the kernel's tables: nothing is bound for it.
#[must_use]
pub fn is_listened_to(port: u16) -> bool {
    listening_inode(port).is_some()
}

fn name_holder(port: u16) -> String {
    let nobody = || format!("a program that cannot be named (`ss -ltnp sport = :{port}` may)");
    let Some(inode) = listening_inode(port) else { return nobody() };
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

/// The inode of the socket that listens on a port, from /proc/net/tcp and tcp6 (state 0A: LISTEN).
fn listening_inode(port: u16) -> Option<String> {
    let suffix = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == "0A";
        listens.then(|| fields[9].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_names_the_process_and_a_free_one_nobody() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = holder(port).unwrap();
        assert!(named.ends_with(&format!("(pid {})", std::process::id())), "{named}");
        drop(listener);
        assert_eq!(holder(port), None);
    }
}
