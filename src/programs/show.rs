//! `console-proxy list` and `status`: what is published, and who is on it. Tables for people, JSON
//! for programs; its fields are only ever added.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{lookup, ticket};
use crate::edges::paths::Paths;
use crate::edges::processes::{NotHeld, Process};
use crate::edges::publish::now;
use crate::edges::{files, publish, units};
use crate::flow::live::{Shown, size};
use crate::rules::config::Config;
use crate::rules::guest::{Console, Uuid, printable};
use crate::rules::plan::{Active, Unit};
use crate::rules::route::{Reached, Route, Unreachable};

/// `list --json`.
#[derive(Debug, Serialize)]
pub struct Listing {
    version: u32,
    /// The host's name in URLs.
    host: String,
    /// SHA-256 of the certificate; absent where there is none yet.
    certificate_sha256: Option<String>,
    guests: Vec<Shows>,
}

/// A published guest.
#[derive(Debug, Serialize)]
pub struct Shows {
    uuid: Uuid,
    name: String,
    port: u16,
    /// `listening`, `failed` or `closed`.
    state: &'static str,
    /// Why it does not listen.
    reason: Option<String>,
    url: String,
    consoles: Vec<Row>,
    unreachable: Vec<Unreachable>,
    /// Why none of its consoles can be opened, though it is published; absent where nothing is known of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<String>,
    sessions: Vec<Shown>,
}

/// A console of a guest.
#[derive(Debug, Serialize)]
pub struct Row {
    console: Console,
    reached: Reached,
    url: String,
    sessions: usize,
    /// Why it cannot be opened, though it is there; absent where nothing is known of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<String>,
}

/// Prints all published guests.
pub fn list(paths: &Paths, json: bool, out: &mut dyn Write) -> Result<()> {
    let listing = listing(paths)?;
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(&listing)?).context("cannot print");
    }
    let mut rows = vec![["GUEST", "PORT", "STATE", "CONSOLES", "CONNECTED"].map(str::to_owned)];
    for guest in &listing.guests {
        let consoles: Vec<_> = guest.consoles.iter().map(|row| format!("{} ({})", row.console, row.reached)).collect();
        let people: Vec<_> =
            guest.sessions.iter().map(|s| format!("{} on {}", printable(&s.person), s.console)).collect();
        let nobody = || "-".to_owned();
        rows.push([
            printable(&guest.name),
            guest.port.to_string(),
            guest.state.to_owned(),
            if consoles.is_empty() { nobody() } else { consoles.join(", ") },
            if people.is_empty() { nobody() } else { people.join(", ") },
        ]);
    }
    table(&rows, out)?;
    for guest in &listing.guests {
        if let Some(why) = &guest.stale {
            writeln!(out, "{}: {why}", printable(&guest.name))?;
        }
        for (console, why) in guest.consoles.iter().filter_map(|row| Some((row.console, row.closed.as_ref()?))) {
            writeln!(out, "{}: {console} cannot be opened: {}", printable(&guest.name), printable(why))?;
        }
        for gone in &guest.unreachable {
            writeln!(
                out,
                "{}: {} cannot be reached: {}",
                printable(&guest.name),
                gone.console,
                printable(&gone.reason)
            )?;
        }
        if let Some(reason) = &guest.reason {
            writeln!(out, "{}: port {}: {}", printable(&guest.name), guest.port, printable(reason))?;
        }
    }
    if let Some(fingerprint) = &listing.certificate_sha256 {
        writeln!(out, "\ncertificate SHA-256 {fingerprint}")?;
    }
    Ok(())
}

fn listing(paths: &Paths) -> Result<Listing> {
    let config = files::config(paths)?;
    let host = ticket::url_host(&config);
    let units = units::sockets().unwrap_or_default();
    let mut guests = Vec::new();
    for uuid in publish::all_guests(paths)? {
        match publish::read_route(paths, &uuid) {
            Ok(Some(route)) => guests.push(show(paths, &config, &units, route)),
            Ok(None) => {}
            Err(why) => tracing::error!(guest = %uuid, "{why:#}"),
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { version: 1, host, certificate_sha256: ticket::fingerprint(paths, &config).ok(), guests })
}

fn show(paths: &Paths, config: &Config, units: &BTreeMap<Uuid, Unit>, route: Route) -> Shows {
    let sessions = connected(paths, &route.uuid);
    let reason = files::read(&paths.failure(&route.uuid), 64 << 10).ok().flatten();
    let state = match units.get(&route.uuid).map(|unit| unit.active) {
        Some(Active::Yes) => "listening",
        Some(Active::Failed) => "failed",
        _ if reason.is_some() => "failed",
        _ => "closed",
    };
    let url = config.listen.browser_url(&ticket::url_host(config), route.port, &route.uuid);
    let closed = route.closed();
    let stale = route.owner.as_ref().and_then(|owner| match Process::hold_owner(owner) {
        Err(why @ NotHeld::Ended(_)) => Some(why.to_string()),
        _ => None,
    });
    let consoles = route.consoles.iter().map(|way| Row {
        closed: closed.iter().find(|(console, _)| *console == way.console).map(|(_, why)| why.clone()),
        console: way.console,
        reached: way.reached(),
        url: format!("{}{}", url.replacen("https:", "wss:", 1), way.console),
        sessions: sessions.iter().filter(|session| session.console == way.console).count(),
    });
    Shows {
        consoles: consoles.collect(),
        url,
        state,
        reason: reason.filter(|_| state != "listening"),
        uuid: route.uuid,
        name: route.name,
        port: route.port,
        unreachable: route.unreachable,
        stale,
        sessions,
    }
}

/// Who is connected, as the guest's proxy last said; nobody where none runs.
pub(super) fn connected(paths: &Paths, uuid: &Uuid) -> Vec<Shown> {
    let file = paths.guest_state(uuid).join("live.json");
    let Some(text) = files::read_untrusted(&file, 1 << 20).ok().flatten() else { return Vec::new() };
    // A proxy that was killed leaves its last word behind.
    if paths.is_this_host() && !units::is_active(&units::service_of(uuid)).unwrap_or(true) {
        return Vec::new();
    }
    serde_json::from_str(&text).unwrap_or_default()
}

/// Prints one guest with its sessions.
pub fn status(paths: &Paths, guest: &str, json: bool, out: &mut dyn Write) -> Result<()> {
    let config: Config = files::config(paths)?;
    let uuid = lookup::guest(paths, guest)?;
    let route = publish::read_route(paths, &uuid)?
        .with_context(|| format!("{} is not published: it does not run", printable(guest)))?;
    let shown = show(paths, &config, &units::sockets().unwrap_or_default(), route);
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(&shown)?).context("cannot print");
    }
    writeln!(out, "{} ({})", printable(&shown.name), shown.uuid)?;
    writeln!(out, "port {} ({}), {}", shown.port, shown.state, shown.url)?;
    for reason in shown.reason.iter().chain(&shown.stale) {
        writeln!(out, "{}", printable(reason))?;
    }
    for row in &shown.consoles {
        writeln!(out, "  /{} ({})", row.console, row.reached)?;
        if let Some(why) = &row.closed {
            writeln!(out, "    cannot be opened: {}", printable(why))?;
        }
    }
    for gone in &shown.unreachable {
        writeln!(out, "  /{} cannot be reached: {}", gone.console, printable(&gone.reason))?;
    }
    if shown.sessions.is_empty() {
        return writeln!(out, "nobody is connected").context("cannot print");
    }
    let mut rows = vec![["CONSOLE", "PERSON", "FROM", "MODE", "SINCE", "OUT", "IN"].map(str::to_owned)];
    for s in &shown.sessions {
        let mode = if s.mode == crate::rules::ticket::Mode::View { "view" } else { "control" };
        let since = format!("{} ago", span(Duration::from_secs(now().saturating_sub(s.since))));
        rows.push([
            s.console.to_string(),
            printable(&s.person),
            printable(&s.from),
            mode.to_owned(),
            since,
            size(s.bytes_out),
            size(s.bytes_in),
        ]);
    }
    table(&rows, out)
}

pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

pub(super) fn table<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).context("cannot print")?;
    }
    Ok(())
}
