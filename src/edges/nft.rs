//! The guard: a small nftables table of our own that lets root alone connect to the loopback ports
//! that wiring made. The one module that knows nft.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::rules::ports::PortRange;

const FAMILY: &str = "inet";
const TABLE: &str = "console_proxy";

/// What the table should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The loopback serial ports.
    pub serial: PortRange,
    /// Websockets of displays that we asked QEMU for.
    pub websockets: BTreeSet<u16>,
}

impl Guard {
    /// The table as nft's own language has it; loading it replaces the old one in one transaction.
    #[must_use]
    pub fn ruleset(&self) -> String {
        let elements = self.websockets.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let elements = if elements.is_empty() { String::new() } else { format!("    elements = {{ {elements} }}\n") };
        // The table is named before it is deleted, so that the first load does not fail.
        format!(
            "table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\ntable {FAMILY} {TABLE} {{\n  set websockets {{\n    type inet_service\n{elements}  }}\n  \
             chain output {{\n    type filter hook output priority filter; policy accept;\n    \
             oif \"lo\" tcp dport {} meta skuid != 0 counter reject with tcp reset\n    \
             oif \"lo\" tcp dport @websockets meta skuid != 0 counter reject with tcp reset\n  }}\n}}\n",
            self.serial
        )
    }
}

/// Whether the kernel has the table.
pub fn is_loaded() -> Result<bool> {
    Ok(list()?.is_some())
}

/// Whether the kernel's table is the one that should be there.
pub fn is_current(guard: &Guard) -> Result<bool> {
    let Some(text) = list()? else { return Ok(false) };
    let elements = text.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}')).map(|(inside, _)| inside);
    let there: BTreeSet<u16> =
        elements.unwrap_or_default().split(',').filter_map(|port| port.trim().parse().ok()).collect();
    Ok(there == guard.websockets && text.contains(&format!("tcp dport {} meta skuid != 0", guard.serial)))
}

/// Loads the table.
pub fn load(guard: &Guard) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft (package nftables)")?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(guard.ruleset().as_bytes()).context("cannot write to nft")?;
    }
    let output = nft.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!("nft refuses the guard: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Takes the table out of the kernel; that it is not there is fine.
pub fn remove() -> Result<()> {
    if is_loaded()? {
        let output = Command::new("nft").args(["delete", "table", FAMILY, TABLE]).output().context("cannot run nft")?;
        if !output.status.success() {
            bail!("nft does not delete the guard: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// The kernel's table (numbers, not service names), or `None` where there is none.
fn list() -> Result<Option<String>> {
    let output = Command::new("nft")
        .args(["-n", "list", "table", FAMILY, TABLE])
        .output()
        .context("cannot run nft (package nftables)")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let why = String::from_utf8_lossy(&output.stderr);
    if why.contains("No such file or directory") {
        return Ok(None);
    }
    bail!("nft cannot list the guard: {}", why.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ruleset_replaces_itself_and_names_both_kinds_of_ports() {
        let guard = Guard { serial: PortRange::new(28000, 28999), websockets: BTreeSet::from([5700, 5701]) };
        let text = guard.ruleset();
        assert!(text.contains("delete table inet console_proxy\n"));
        assert!(text.contains("elements = { 5700, 5701 }"));
        assert!(text.contains("tcp dport 28000-28999 meta skuid != 0"));
        assert!(!Guard { websockets: BTreeSet::new(), ..guard }.ruleset().contains("elements"));
    }
}
