//! `console-proxy sessions`, `kick` and `revoke`: who has a way into which guest, and how that is ended at once.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::cli::needs_root;
use super::show::{connected, span, table};
use super::{lookup, ticket};
use crate::edges::files;
use crate::edges::paths::Paths;
use crate::edges::publish::{self, have_it_look, now};
use crate::edges::revoked::{self, Watched};
use crate::edges::sessions::Store;
use crate::flow::live::Shown;
use crate::rules::config::Config;
use crate::rules::guest::{Console, Uuid, printable};
use crate::rules::revoked::{Orders, Subject, Whose};
use crate::rules::route::Route;

/// Orders are kept for as long as a session may live, at least for so long.
const KEPT: Duration = Duration::from_secs(31 * 86_400);

/// Which sessions.
#[derive(clap::Args, Debug)]
pub struct KickArguments {
    /// The guest: an id, a name or a UUID.
    guest: String,
    /// This person's alone.
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// This one alone: the first digits of what `sessions` shows, at least 4.
    #[arg(long, value_name = "ID", value_parser = session_id)]
    session: Option<String>,
}

/// What is revoked.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
pub struct RevokeArguments {
    /// Everything that a person has on this host now: sessions, open consoles, tickets.
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// A ticket by its name (`jti`), and what it bought; ISSUER/JTI where two issuers use one name.
    #[arg(long, value_name = "[ISSUER/]JTI")]
    ticket: Option<String>,
}

fn session_id(text: &str) -> Result<String, String> {
    let fits = (4..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if fits { Ok(text.to_owned()) } else { Err("4 to 64 digits of 0-9 and a-f".to_owned()) }
}

/// One way in: a session, or a client that came with a ticket or a password alone.
#[derive(Debug, Serialize)]
struct Row {
    guest: String,
    uuid: Uuid,
    person: String,
    how: String,
    /// Its name; absent where there is no session.
    session: Option<String>,
    /// Where its open consoles come from.
    from: Vec<String>,
    consoles: Vec<Console>,
    /// Seconds since 1970.
    began: u64,
    /// Likewise; absent where there is no session.
    ends: Option<u64>,
}

/// Prints who has a way in.
pub fn list(paths: &Paths, guest: Option<&str>, json: bool, out: &mut dyn Write) -> Result<()> {
    needs_root(paths, "seeing who has a session")?;
    let guests = match guest {
        Some(guest) => vec![lookup::guest(paths, guest)?],
        None => publish::all_guests(paths)?,
    };
    let (config, mut revoked) = (files::config(paths)?, Watched::new(paths));
    let mut rows = Vec::new();
    for uuid in guests {
        match publish::read_route(paths, &uuid) {
            Ok(Some(route)) => rows.extend(rows_of(paths, &config, revoked.refresh(), &route)),
            Ok(None) => {}
            Err(why) => tracing::error!(guest = %uuid, "{why:#}"),
        }
    }
    rows.sort_by(|a, b| (&a.guest, &a.person, a.began).cmp(&(&b.guest, &b.person, b.began)));
    if json {
        let listing = serde_json::json!({"version": 1, "sessions": rows});
        return writeln!(out, "{}", serde_json::to_string_pretty(&listing)?).context("cannot print");
    }
    if rows.is_empty() {
        return writeln!(out, "nobody has a session").context("cannot print");
    }
    let mut cells = vec![["GUEST", "PERSON", "BY", "SESSION", "CONSOLES", "FROM", "BEGAN", "ENDS"].map(str::to_owned)];
    cells.extend(rows.iter().map(cells_of));
    table(&cells, out)
}

fn cells_of(row: &Row) -> [String; 8] {
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let consoles: Vec<_> = row.consoles.iter().map(ToString::to_string).collect();
    let ends = row.ends.map(|ends| format!("in {}", span(Duration::from_secs(ends.saturating_sub(now())))));
    [
        printable(&row.guest),
        printable(&row.person),
        printable(&row.how),
        or_none(row.session.as_ref().map(|id| id.chars().take(12).collect()).unwrap_or_default()),
        or_none(consoles.join(", ")),
        or_none(printable(&row.from.join(", "))),
        format!("{} ago", span(Duration::from_secs(now().saturating_sub(row.began)))),
        or_none(ends.unwrap_or_default()),
    ]
}

fn rows_of(paths: &Paths, config: &Config, orders: Option<&Orders>, route: &Route) -> Vec<Row> {
    let live = connected(paths, &route.uuid);
    let row = |person: &str, how: &str| Row {
        guest: route.name.clone(),
        uuid: route.uuid.clone(),
        person: person.to_owned(),
        how: how.to_owned(),
        session: None,
        from: Vec::new(),
        consoles: Vec::new(),
        began: 0,
        ends: None,
    };
    let mut rows = Vec::new();
    for (id, session) in Store::new(&paths.guest_state(&route.uuid)).all() {
        let own: Vec<_> = live.iter().filter(|shown| shown.session.as_deref() == Some(id.as_str())).collect();
        let alive = session.is_alive(now(), config.access.session_idle.as_secs(), !own.is_empty());
        let subject = Subject::of_session(id.as_str(), &session);
        if !alive || orders.is_some_and(|orders| orders.ended(&route.uuid, &subject).is_some()) {
            continue;
        }
        let mut row = row(&session.sub, &session.how());
        (row.session, row.began, row.ends) = (Some(id.to_string()), session.began / 1000, Some(session.ends));
        for shown in own {
            add(&mut row, shown);
        }
        rows.push(row);
    }
    let known = rows.len();
    for shown in &live {
        if rows[..known].iter().any(|row| row.session == shown.session) {
            continue;
        }
        let same = |row: &&mut Row| (&row.person, &row.how) == (&shown.person, &shown.how);
        if let Some(row) = rows[known..].iter_mut().find(same) {
            add(row, shown);
        } else {
            let mut row = row(&shown.person, &shown.how);
            (row.session, row.began) = (shown.session.clone(), shown.since);
            add(&mut row, shown);
            rows.push(row);
        }
    }
    rows
}

fn add(row: &mut Row, shown: &Shown) {
    if !row.from.contains(&shown.from) {
        row.from.push(shown.from.clone());
    }
    if !row.consoles.contains(&shown.console) {
        row.consoles.push(shown.console);
    }
}

/// Ends sessions and open consoles of one guest.
pub fn kick(paths: &Paths, arguments: &KickArguments, out: &mut dyn Write) -> Result<()> {
    needs_root(paths, "ending other people's sessions")?;
    let guest = lookup::guest(paths, &arguments.guest)?;
    let (person, session) = (arguments.person.clone(), arguments.session.clone());
    let before = shown(paths, &guest);
    give(paths, Whose::Kick { guest: guest.clone(), person, session }, std::slice::from_ref(&guest))?;
    let ended = before.iter().filter(|row| {
        arguments.person.as_ref().is_none_or(|person| *person == row.person)
            && arguments.session.as_ref().is_none_or(|id| row.session.as_ref().is_some_and(|own| own.starts_with(id)))
    });
    told(ended, out)
}

/// Ends all that a person or a ticket has opened on this host.
pub fn revoke(paths: &Paths, arguments: &RevokeArguments, out: &mut dyn Write) -> Result<()> {
    needs_root(paths, "ending other people's sessions")?;
    let whose = match (&arguments.person, &arguments.ticket) {
        (Some(person), _) => Whose::Person(person.clone()),
        (None, Some(ticket)) => {
            let (issuer, jti) = match ticket.split_once('/') {
                Some((issuer, jti)) => (Some(issuer.to_owned()), jti.to_owned()),
                None => (None, ticket.clone()),
            };
            Whose::Ticket { jti, issuer }
        }
        (None, None) => bail!("either --person or --ticket"),
    };
    let guests = publish::all_guests(paths)?;
    let mut before = Vec::new();
    for guest in &guests {
        before.extend(shown(paths, guest));
    }
    let named = |row: &&Row| match &whose {
        Whose::Person(person) => *person == row.person,
        Whose::Ticket { jti, issuer } => row
            .how
            .strip_prefix("ticket ")
            .and_then(|how| how.split_once('/'))
            .is_some_and(|(iss, id)| id == jti && issuer.as_ref().is_none_or(|issuer| issuer == iss)),
        Whose::Kick { .. } => false,
    };
    give(paths, whose.clone(), &guests)?;
    told(before.iter().filter(named), out)
}

/// What there is to end, for telling. That it cannot be told keeps no order from being given.
fn shown(paths: &Paths, guest: &Uuid) -> Vec<Row> {
    let (config, mut revoked) = (files::config(paths).unwrap_or_default(), Watched::new(paths));
    match publish::read_route(paths, guest) {
        Ok(Some(route)) => rows_of(paths, &config, revoked.refresh(), &route),
        Ok(None) => Vec::new(),
        Err(why) => {
            tracing::error!(guest = %guest, "{why:#}");
            Vec::new()
        }
    }
}

/// Writes the order down, and has proxies that run look at it at once.
fn give(paths: &Paths, whose: Whose, guests: &[Uuid]) -> Result<()> {
    // With a configuration that is refused, too: what has to be ended cannot wait for its repair.
    let life = files::config(paths).map_or(KEPT, |config| config.access.session_life.max(KEPT));
    let (event, words) = match &whose {
        Whose::Kick { guest, person, session } => {
            let of = person.as_ref().map_or_else(|| "everybody".to_owned(), |person| printable(person));
            let one = session.as_ref().map(|id| format!(" (session {id})")).unwrap_or_default();
            ("kick", format!("{of}{one} at {guest}"))
        }
        Whose::Person(person) => ("revoke", format!("all that {} has", printable(person))),
        Whose::Ticket { jti, issuer } => {
            ("revoke", format!("ticket {}/{}", printable(issuer.as_deref().unwrap_or("*")), printable(jti)))
        }
    };
    revoked::add(paths, whose, life)?;
    let by = ticket::person(None).unwrap_or_else(|_| "root".to_owned());
    tracing::info!(event, person = %printable(&by), "{event} by {}: {words}", printable(&by));
    for guest in guests.iter().filter(|guest| paths.route(guest).exists()) {
        if let Err(why) = have_it_look(paths, guest) {
            // It may just have stopped; otherwise its proxy sees the order within 20 s.
            tracing::warn!(guest = %guest, "{why:#}");
        }
    }
    Ok(())
}

fn told<'r>(ended: impl Iterator<Item = &'r Row>, out: &mut dyn Write) -> Result<()> {
    let mut any = false;
    for row in ended {
        any = true;
        let consoles: Vec<_> = row.consoles.iter().map(ToString::to_string).collect();
        let open = if consoles.is_empty() { "no open console".to_owned() } else { consoles.join(", ") };
        writeln!(out, "{}: ended what {} had ({open})", printable(&row.guest), printable(&row.person))?;
    }
    if !any {
        writeln!(out, "nobody had such a session; what there may be of it does not count any more")?;
    }
    Ok(())
}
