//! What this host is called, and where: its names and addresses, and the names of its users.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use super::command;

/// How long the name service may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The host's short name, as the kernel has it.
#[must_use]
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The full name: the kernel's if it has a dot, else what /etc/hosts says, else the short one.
#[must_use]
pub fn full_name() -> String {
    let name = name();
    if name.contains('.') {
        return name;
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    full_name_in(&hosts, &name).unwrap_or(name)
}

fn full_name_in(hosts: &str, name: &str) -> Option<String> {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>());
    let mut ours = lines.filter(|names| names.contains(&name));
    ours.find_map(|names| {
        names.into_iter().find(|other| other.contains('.') && !other.starts_with("localhost")).map(str::to_owned)
    })
}

/// All addresses of this host but link-local ones, loopback included.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let v4 = local_v4(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
    let v6 = local_v6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    let mut all: Vec<IpAddr> = v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect();
    all.sort();
    all.dedup();
    all
}

/// Addresses marked `/32 host LOCAL` in the kernel's routing trie.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut all = Vec::new();
    for line in trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
        } else if line.trim() == "/32 host LOCAL" {
            all.extend(last);
        }
    }
    all
}

/// Addresses of `if_inet6(5)`: 32 hex digits first; the fourth field is the scope, 20 for link-local.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(fields.first()?, 16).ok()?;
        (*fields.get(3)? != "20").then(|| Ipv6Addr::from(bits))
    };
    table.lines().filter_map(address).collect()
}

/// A user's name, by number, from wherever this host keeps its users.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let line = getent(&["passwd", &uid.to_string()])?;
    line.split(':').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The names of a group's members, and of the users whose first group it is.
#[must_use]
pub fn members(group: &str, number: u32) -> Vec<String> {
    let ask = |arguments: &[&str]| getent(arguments).unwrap_or_default();
    members_in(&ask(&["group", group]), &ask(&["passwd"]), number)
}

/// What the host's name service says; a directory may be down.
fn getent(arguments: &[&str]) -> Option<String> {
    let output = command::output(Command::new("getent").args(arguments), b"", PATIENCE).ok()?;
    String::from_utf8(output.stdout).ok()
}

fn members_in(group: &str, users: &str, number: u32) -> Vec<String> {
    let listed = group.trim_end().rsplit(':').next().unwrap_or_default().split(',').map(str::to_owned);
    let first = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(2)?.parse() == Ok(number)).then(|| name.to_owned())
    });
    listed.chain(first).filter(|name| !name.is_empty()).collect()
}

/// Who logged in: the user whose session this process belongs to, whatever it has become since.
#[must_use]
pub fn login_name() -> Option<String> {
    let uid = fs::read_to_string("/proc/self/loginuid").ok()?.trim().parse().ok().filter(|uid| *uid != u32::MAX)?;
    user_name(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_comes_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 hv1.example.org hv1 # us\n";
        assert_eq!(full_name_in(hosts, "hv1").as_deref(), Some("hv1.example.org"));
        assert_eq!(full_name_in(hosts, "hv2"), None);
    }

    #[test]
    fn a_groups_members_are_those_listed_and_those_whose_first_group_it_is() {
        let users = "root:x:0:0::/root:/bin/sh\nproxy:x:13:990::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n";
        assert_eq!(members_in("front:x:990:www-data,caddy\n", users, 990), ["www-data", "caddy", "proxy"]);
        assert!(members_in("front:x:991:\n", users, 991).is_empty());
        assert!(members_in("", "", 991).is_empty());
    }

    #[test]
    fn local_addresses_are_read_from_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 0, 0, 5)]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(local_v6(table), [Ipv6Addr::LOCALHOST]);
    }
}
