//! systemd's units, through systemctl: the one module that asks the system manager to do something.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command;
use crate::rules::guest::Uuid;
use crate::rules::plan::{Active, Unit};

/// PID 1 may be busy for seconds while it reloads hundreds of units.
const PATIENCE: Duration = Duration::from_secs(60);
/// Proxies end within 5 s, or are killed (`TimeoutStopSec=`).
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// A command line has room for thousands of names; a hundred at once keep PID 1's answer short.
const AT_ONCE: usize = 100;

/// Who a service is, by the system manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The whole path of its cgroup.
    pub control_group: String,
    /// The user that it was given.
    pub uid: Option<u32>,
}

/// Asks the system manager who a service is.
pub fn unit_identity(unit: &str) -> Result<Identity> {
    let properties = show(unit, &["ControlGroup", "UID"])?;
    let control_group =
        properties.get("ControlGroup").filter(|path| !path.is_empty()).context("it does not run")?.clone();
    Ok(Identity { control_group, uid: properties.get("UID").and_then(|uid| uid.parse().ok()) })
}

/// Properties of a unit.
pub fn show(unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>> {
    let text = systemctl(&["show", "--property", &names.join(","), "--", unit])?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// All guests' sockets that systemd has loaded.
pub fn sockets() -> Result<BTreeMap<Uuid, Unit>> {
    let text = systemctl(&[
        "list-units",
        "--all",
        "--full",
        "--plain",
        "--no-legend",
        "--no-pager",
        "console-proxy@*.socket",
    ])?;
    let unit = |line: &str| {
        let mut words = line.split_whitespace();
        let uuid = words.next()?.strip_prefix("console-proxy@")?.strip_suffix(".socket")?.parse().ok()?;
        let active = match words.nth(1)? {
            "active" => Active::Yes,
            "failed" => Active::Failed,
            "inactive" => Active::No,
            _ => Active::Changing,
        };
        Some((uuid, Unit { active }))
    };
    Ok(text.lines().filter_map(unit).collect())
}

/// Whether a unit is active.
pub fn is_active(unit: &str) -> Result<bool> {
    Ok(show(unit, &["ActiveState"])?.get("ActiveState").is_some_and(|state| state == "active"))
}

/// The socket unit of a guest.
#[must_use]
pub fn socket_of(uuid: &Uuid) -> String {
    format!("console-proxy@{uuid}.socket")
}

/// The service unit of a guest.
#[must_use]
pub fn service_of(uuid: &Uuid) -> String {
    format!("console-proxy@{uuid}.service")
}

/// Starts guests' sockets and waits; which of them failed is for [`sockets`] to say.
pub fn start(guests: &[Uuid]) -> Result<()> {
    verb("start", guests)
}

/// Stops guests' sockets, and with them their proxies, and waits. A proxy that does not end in time (one that was taken
/// over can ask for more time without end, `EXTEND_TIMEOUT_USEC` of `sd_notify(3)`) is killed.
pub fn stop(guests: &[Uuid]) -> Result<()> {
    for some in guests.chunks(AT_ONCE) {
        let Err(why) = verb_within("stop", some, STOP_PATIENCE) else { continue };
        tracing::warn!("proxies do not end: {why:#}");
        for guest in some {
            let service = service_of(guest);
            if show(&service, &["ActiveState"])?.get("ActiveState").is_none_or(|state| state != "inactive") {
                tracing::warn!(guest = %guest, "{service} is killed");
                kill(&service)?;
            }
        }
        verb_within("stop", some, PATIENCE)?;
    }
    Ok(())
}

/// Kills all processes of a guest's proxy, as its watchdog does.
pub fn kill(unit: &str) -> Result<()> {
    systemctl(&["kill", "--signal=SIGKILL", "--", unit]).map(drop)
}

/// Forgets that they failed.
pub fn reset_failed(guests: &[Uuid]) -> Result<()> {
    verb("reset-failed", guests)
}

fn verb(verb: &str, guests: &[Uuid]) -> Result<()> {
    guests.chunks(AT_ONCE).try_for_each(|some| verb_within(verb, some, PATIENCE))
}

fn verb_within(verb: &str, guests: &[Uuid], patience: Duration) -> Result<()> {
    let units: Vec<String> = guests.iter().map(socket_of).collect();
    let mut arguments = vec![verb, "--"];
    arguments.extend(units.iter().map(String::as_str));
    // A unit that fails makes the whole call fail; each one's state tells more than that.
    let output = run_within(&arguments, patience)?;
    if !output.status.success() {
        tracing::debug!("systemctl {verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Has the manager read unit files again.
pub fn daemon_reload() -> Result<()> {
    systemctl(&["daemon-reload"]).map(drop)
}

/// Starts a unit without waiting for it.
pub fn start_later(unit: &str) -> Result<()> {
    systemctl(&["restart", "--no-block", "--", unit]).map(drop)
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    let output = run(arguments)?;
    if !output.status.success() {
        bail!("systemctl {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(arguments: &[&str]) -> Result<Output> {
    run_within(arguments, PATIENCE)
}

fn run_within(arguments: &[&str], patience: Duration) -> Result<Output> {
    let mut command = Command::new("systemctl");
    command.args(arguments).env("SYSTEMD_COLORS", "0");
    command::output(&mut command, b"", patience).context("cannot ask the system manager")
}
