//! The guard in the kernel: a small nftables table of our own. The one module that knows nft.
//!
//! Which packets are judged, and by what:
//!
//! A guarded place is an address and a port at which a guest's QEMU listens: the same port of another address is another
//! program's. The serial range is guarded by port, at every address. Addresses are those after a destination NAT.
//!
//! - **The first packet of a connection** (SYN without ACK, whatever else is set: TCP Fast Open, MPTCP and ECN
//!   included) to a guarded place on loopback passes when its socket is root's, and is answered by a reset otherwise. A
//!   socket without an owner (`meta skuid` cannot be read: the kernel's own, such as further paths of an ordinary user's
//!   MPTCP connection) is nobody's, and refused. A connection whose first packet was refused does not exist, so the
//!   rest of a connection needs no judging: TCP's flags say what connection tracking would say, without its cost, and
//!   where it is not there.
//! - **Every packet to a place where a guest listens now** is looked at again: one of a socket that is known to be
//!   another user's ends the connection, which began while the guard was away or before the port was known. What has
//!   no owner passes here: it is the end of one of root's connections, whose program has closed it or ended. In the rest
//!   of the serial range it is not looked at: it may be an answer to a client that has such a port for a moment.
//! - **Packets from another machine, network namespace or container to 127.0.0.0/8** (`route_localnet`, destination
//!   NAT) have no socket here; those to guarded places are dropped. For `::1` the kernel does that itself.
//! - **The first packet of a socket that was handed to a proxy**, whatever its destination: `connect(AF_UNSPEC)` takes a
//!   socket's connection away, and systemd's and the broker's sockets are root's whoever has them. They carry a mark
//!   ([`HANDED_OUT`]), which accepted connections inherit and only `CAP_NET_ADMIN` changes; they have no business to
//!   begin a connection. Before other tables may set marks of their own: priority raw.
//!
//! Not judged: what comes from `CAP_NET_RAW` (packet sockets pass by the output hook), and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::command;
use crate::rules::guard::Guard;
use crate::rules::ports::PortRange;

const FAMILY: &str = "inet";
const TABLE: &str = "console_proxy";
/// How long nft may take: another program may hold the kernel's tables for a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// The mark (`SO_MARK`) of sockets that proxies hold: `Mark=` in console-proxy@.socket, and what the broker hands out.
/// Its bits are of no mask that Kubernetes, Calico, Cilium, Tailscale or `WireGuard`'s tools route or drop by.
pub const HANDED_OUT: u32 = 0x1030;

/// A chain: where it hangs in the kernel, and its rules. Rules of a chain without a place are reached by `goto`.
struct Chain {
    name: &'static str,
    /// Hook, priority's name and its number.
    hook: Option<(&'static str, &'static str, i64)>,
    /// Each a match and what becomes of a packet that matches. The match is the rule's comment as well.
    rules: Vec<(String, &'static str)>,
}

impl Chain {
    fn text(&self) -> String {
        let place = self.hook.map_or_else(String::new, |(hook, priority, _)| {
            format!("\t\ttype filter hook {hook} priority {priority}; policy accept;\n")
        });
        let rules =
            self.rules.iter().map(|(matches, verdict)| format!("\t\t{matches} {verdict} comment \"{matches}\"\n"));
        format!("\tchain {} {{\n{place}{}\t}}\n", self.name, rules.collect::<Vec<_>>().concat())
    }
}

/// The first packet of a connection.
const NEW: &str = "tcp flags & (syn | ack) == syn";
const REFUSE: &str = "counter reject with tcp reset";

fn chains(guard: &Guard) -> [Chain; 6] {
    let serial = guard.serial;
    let rule = |text: &str, verdict| (text.to_owned(), verdict);
    let output = |priority, number| Some(("output", priority, number));
    [
        Chain {
            name: "handed_out",
            hook: output("raw", -300),
            rules: vec![rule(&format!("meta mark {HANDED_OUT:#x} {NEW}"), REFUSE)],
        },
        Chain {
            name: "output",
            hook: output("filter", 0),
            rules: vec![
                rule("ip daddr . tcp dport @ports4", "goto guarded"),
                rule("ip6 daddr . tcp dport @ports6", "goto guarded"),
                rule(&format!("tcp dport {serial} {NEW}"), "goto guarded"),
            ],
        },
        Chain {
            name: "input",
            hook: Some(("input", "filter", 0)),
            rules: vec![rule("iif != lo ip daddr 127.0.0.0/8", "goto elsewhere")],
        },
        Chain {
            name: "elsewhere",
            hook: None,
            rules: vec![
                rule("ip daddr . tcp dport @ports4", "counter drop"),
                rule(&format!("tcp dport {serial}"), "counter drop"),
            ],
        },
        Chain {
            name: "guarded",
            hook: None,
            // Root first: those are consoles in use. By address as well: after a destination NAT of this host's own, oif
            // is still the device of before.
            rules: vec![
                rule("meta skuid 0", "accept"),
                rule("oif lo", "goto refused"),
                rule("ip daddr 127.0.0.0/8", "goto refused"),
                rule("ip6 daddr ::1", "goto refused"),
            ],
        },
        Chain {
            name: "refused",
            hook: None,
            rules: vec![rule(NEW, REFUSE), rule("meta l4proto tcp meta skuid != 0", REFUSE)],
        },
    ]
}

/// The table as nft's own language has it; loading it replaces the old one in one transaction.
fn ruleset(guard: &Guard) -> String {
    let sets: String = sets(guard).iter().map(|(name, places)| set(name, places)).collect();
    // Those that others lead to come first.
    let chains: String = chains(guard).iter().rev().map(Chain::text).collect();
    // The table is named before it is deleted, so that the first load does not fail.
    format!("table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\ntable {FAMILY} {TABLE} {{\n{sets}{chains}}}\n")
}

/// The guarded places by the name of the set that has them: one per family, both always there.
fn sets(guard: &Guard) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let (four, six) = guard.places.iter().copied().partition(SocketAddr::is_ipv4);
    BTreeMap::from([("ports4".to_owned(), four), ("ports6".to_owned(), six)])
}

fn set(name: &str, places: &BTreeSet<SocketAddr>) -> String {
    let kind = if name == "ports4" { "ipv4_addr" } else { "ipv6_addr" };
    let elements: Vec<_> = places.iter().map(|place| format!("{} . {}", place.ip(), place.port())).collect();
    let elements =
        if elements.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}\n", elements.join(", ")) };
    format!("\tset {name} {{\n\t\ttype {kind} . inet_service\n{elements}\t}}\n")
}

/// An element of a set in nft's JSON: `{"concat": ["127.0.0.1", 5700]}`.
fn place(element: &Value) -> Option<SocketAddr> {
    let [address, port] = element.get("concat")?.as_array()?.as_slice() else { return None };
    let address: IpAddr = address.as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(port.as_u64()?).ok()?))
}

/// Of a chain: hook and priority where it has a place of its own, and its rules' comments.
type Seen = (Option<(String, i64)>, Vec<String>);

/// Of a table what matters: the sets' elements, and of each chain its place and its rules' comments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outline {
    sets: BTreeMap<String, BTreeSet<SocketAddr>>,
    chains: BTreeMap<String, Seen>,
    /// Something that we do not write.
    strange: bool,
}

impl Outline {
    fn of(guard: &Guard) -> Self {
        let chains = chains(guard).map(|chain| {
            let hook = chain.hook.map(|(hook, _, priority)| (hook.to_owned(), priority));
            (chain.name.to_owned(), (hook, chain.rules.into_iter().map(|(matches, _)| matches).collect()))
        });
        Self { sets: sets(guard), chains: chains.into(), strange: false }
    }

    /// The guard that this is the table of.
    fn guard(&self) -> Option<Guard> {
        let range = |rule: &String| rule.strip_prefix("tcp dport ")?.parse::<PortRange>().ok();
        let serial = self.chains.get("elsewhere")?.1.iter().find_map(range)?;
        let guard = Guard { serial, places: self.sets.values().flatten().copied().collect() };
        (Self::of(&guard) == *self).then_some(guard)
    }

    /// Reads what `nft -j list table` prints (libnftables-json(5)). Of a rule its comment tells which one it is: its
    /// expressions look different from one version of nft to the next.
    fn read(json: &str) -> Result<Self> {
        let listed: Value = serde_json::from_str(json).context("nft's JSON is malformed")?;
        let mut outline = Self::default();
        for entry in listed["nftables"].as_array().context("nft's JSON has no list \"nftables\"")? {
            if let Some(set) = entry.get("set") {
                let elements = set.get("elem").and_then(Value::as_array).cloned().unwrap_or_default();
                match elements.iter().map(place).collect::<Option<BTreeSet<_>>>() {
                    Some(places) => drop(outline.sets.insert(text(set, "name"), places)),
                    None => outline.strange = true,
                }
            } else if let Some(chain) = entry.get("chain") {
                let hook = chain.get("hook").and_then(Value::as_str).map(str::to_owned);
                outline.strange |= hook.is_some() && (chain["policy"] != "accept" || chain["type"] != "filter");
                let place = hook.zip(chain.get("prio").and_then(Value::as_i64));
                outline.chains.entry(text(chain, "name")).or_default().0 = place;
            } else if let Some(rule) = entry.get("rule") {
                outline.chains.entry(text(rule, "chain")).or_default().1.push(text(rule, "comment"));
            } else {
                outline.strange |= entry.get("metainfo").or(entry.get("table")).is_none();
            }
        }
        Ok(outline)
    }
}

fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

/// Whether the kernel has the table.
pub fn is_loaded() -> Result<bool> {
    Ok(list(&["list"])?.is_some())
}

/// Whether the kernel's table is the one that should be there.
pub fn is_current(guard: &Guard) -> Result<bool> {
    Ok(outline()?.is_some_and(|there| there == Outline::of(guard)))
}

/// What the kernel's table guards; `None` where there is none, or not one of ours.
pub fn current() -> Result<Option<Guard>> {
    Ok(outline()?.and_then(|outline| outline.guard()))
}

fn outline() -> Result<Option<Outline>> {
    list(&["-j", "-n", "list"])?.map(|json| Outline::read(&json)).transpose()
}

/// Loads the table: packets are judged by the old one or by the new one, open connections stay.
pub fn load(guard: &Guard) -> Result<()> {
    let output = run(&["-f", "-"], ruleset(guard).as_bytes())?;
    if !output.status.success() {
        bail!("nft refuses the guard: {}", said(&output));
    }
    Ok(())
}

/// Takes the table out of the kernel; that it is not there is fine.
pub fn remove() -> Result<()> {
    if is_loaded()? {
        let output = run(&["delete", "table", FAMILY, TABLE], b"")?;
        if !output.status.success() {
            bail!("nft does not delete the guard: {}", said(&output));
        }
    }
    Ok(())
}

/// Marks a connected socket before a proxy gets it: it is to begin no other connection. Needs `CAP_NET_ADMIN`.
pub fn mark(socket: impl AsFd) -> std::io::Result<()> {
    socket2::SockRef::from(&socket).set_mark(HANDED_OUT)
}

/// The kernel's table, or `None` where there is none.
fn list(how: &[&str]) -> Result<Option<String>> {
    let output = run(&[how, &["table", FAMILY, TABLE]].concat(), b"")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let why = said(&output);
    if why.contains("No such file or directory") {
        return Ok(None);
    }
    bail!("nft cannot list the guard: {why}")
}

fn run(arguments: &[&str], input: &[u8]) -> Result<Output> {
    command::output(Command::new("nft").args(arguments), input, PATIENCE).context("cannot use nft (package nftables)")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[cfg(test)]
mod tests;
