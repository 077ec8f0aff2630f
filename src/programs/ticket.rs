//! `console-proxy ticket`, `url` and `open`: minting tickets of this host.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

use super::lookup;
use crate::edges::libvirt::Libvirt;
use crate::edges::paths::Paths;
use crate::edges::publish::now;
use crate::edges::{files, host, keys, publish, tls};
use crate::rules::config::{Config, parse_span};
use crate::rules::guest::printable;
use crate::rules::route::Route;
use crate::rules::ticket::{AUDIENCE, Claims, HOST, LONGEST_LIFE, Mode, Pattern, sign};

/// What a ticket is to allow.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The guest: an id, a name or a UUID.
    guest: String,
    /// A console that it opens: vnc, spice, serial/N, console/N, or * for all. May be repeated.
    #[arg(long = "console", value_name = "CONSOLE", default_value = "*", value_parser = pattern)]
    consoles: Vec<Pattern>,
    /// Look on, but do not type.
    #[arg(long)]
    view: bool,
    /// How long it opens consoles, such as 60s, at most 300s. A console that is open stays open.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    ttl: Option<Duration>,
    /// The person, for the audit; by default who called sudo, else who logged in.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::try_from(text.to_owned()).map_err(|why| why.to_string())
}

/// Prints a ticket alone.
pub fn ticket(paths: &Paths, arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let (_, token) = mint(paths, arguments)?;
    writeln!(out, "{token}").context("cannot print")
}

/// Prints a URL with a ticket; the certificate's fingerprint goes to standard error.
pub fn url(paths: &Paths, arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let url = make_url(paths, arguments)?;
    writeln!(out, "{url}").context("cannot print")?;
    let config = files::config(paths)?;
    // A reverse proxy shows a certificate of its own.
    if config.listen.url.is_empty()
        && let Ok(fingerprint) = fingerprint(paths, &config)
    {
        let _ = writeln!(std::io::stderr(), "certificate SHA-256 {fingerprint}");
    }
    Ok(())
}

/// Starts a browser.
pub fn open(paths: &Paths, arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let url = make_url(paths, arguments)?;
    let mut browser = Command::new("xdg-open");
    browser.arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match browser.status() {
        Ok(status) if status.success() => Ok(()),
        _ => writeln!(out, "there is no browser to start (xdg-open) on this host; open this yourself:\n{url}")
            .context("cannot print"),
    }
}

fn make_url(paths: &Paths, arguments: &Arguments) -> Result<String> {
    let config = files::config(paths)?;
    let (route, token) = mint(paths, arguments)?;
    Ok(format!("{}?token={token}", config.listen.browser_url(&url_host(&config), route.port, &route.uuid)))
}

/// The host part of printed URLs.
#[must_use]
pub fn url_host(config: &Config) -> String {
    if config.listen.host.is_empty() { host::full_name() } else { config.listen.host.clone() }
}

/// The certificate's SHA-256.
pub fn fingerprint(paths: &Paths, config: &Config) -> Result<String> {
    let path = paths.below_root(&config.tls.certificate);
    let pem = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    tls::fingerprint(&pem).with_context(|| path.display().to_string())
}

/// What a ticket is to allow, of a guest's route.
#[derive(Debug)]
pub struct Order<'a> {
    /// What it opens.
    pub consoles: &'a [Pattern],
    /// Look on, or type.
    pub mode: Mode,
    /// Seconds.
    pub life: u64,
    /// Whom it is for.
    pub person: &'a str,
}

fn mint(paths: &Paths, arguments: &Arguments) -> Result<(Route, String)> {
    let config = files::config(paths)?;
    let route = published(paths, &arguments.guest)?;
    let life = arguments.ttl.unwrap_or(config.access.ticket_life).as_secs();
    if !(1..=LONGEST_LIFE).contains(&life) {
        bail!("a ticket lives from 1 to {LONGEST_LIFE} s, not {life} s");
    }
    for pattern in &arguments.consoles {
        if let Pattern::One(console) = pattern
            && route.way(*console).is_none()
        {
            let has: Vec<_> = route.consoles.iter().map(|way| way.console.to_string()).collect();
            bail!("{} has no {console} that can be reached; it has {}", printable(&route.name), has.join(", "));
        }
    }
    let person = person(arguments.user.as_deref())?;
    let mode = if arguments.view { Mode::View } else { Mode::Control };
    let token = issue(paths, &route, &Order { consoles: &arguments.consoles, mode, life, person: &person })?;
    Ok((route, token))
}

/// The route of the guest that a person means; otherwise why it has none, and what to do.
pub fn published(paths: &Paths, guest: &str) -> Result<Route> {
    let uuid = lookup::guest(paths, guest)?;
    if let Some(route) = publish::read_route(paths, &uuid)? {
        return Ok(route);
    }
    let name = printable(guest);
    match Libvirt::open_read_only().and_then(|libvirt| libvirt.find(uuid.as_str())) {
        Ok(found) if !found.active() => bail!("{name} does not run: `virsh start {name}`"),
        _ => {
            bail!("{name} is not published: `console-proxy publish {name}`, and `console-proxy doctor` if it stays so")
        }
    }
}

/// Signs a ticket with this host's key, and notes in the journal that it was made.
pub fn issue(paths: &Paths, route: &Route, order: &Order<'_>) -> Result<String> {
    let key = paths.signing_key();
    let pem = files::read(&key, 64 << 10)
        .with_context(|| format!("cannot read {}: only root and members of group libvirt make tickets", key.display()))?
        .with_context(|| format!("{} does not exist: `systemctl start console-proxy-keys`", key.display()))?;
    let key = keys::read_ticket_key(&pem).with_context(|| key.display().to_string())?;
    let mut name = [0; 12];
    SystemRandom::new().fill(&mut name).map_err(|_| anyhow::anyhow!("there are no random numbers"))?;
    let now = now();
    let claims = Claims {
        iss: HOST.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: order.person.to_owned(),
        guest: route.uuid.clone(),
        consoles: order.consoles.to_vec(),
        mode: order.mode,
        iat: now,
        nbf: now,
        exp: now + order.life,
        jti: URL_SAFE_NO_PAD.encode(name),
    };
    let token = sign(&claims, &key).context("cannot write the ticket")?;
    let consoles: Vec<String> = claims.consoles.iter().map(|pattern| String::from(*pattern)).collect();
    let (by, person) = (rustix::process::getuid().as_raw(), printable(order.person));
    tracing::info!(
        guest = %route.uuid, guest_name = %printable(&route.name), person = %person, jti = %claims.jti, consoles = %consoles.join(","),
        mode = ?claims.mode, life = order.life, minted_by = by,
        "ticket {} for {person} on {} of {}", claims.jti, consoles.join(","), printable(&route.name)
    );
    Ok(token)
}

/// Who the ticket is for: `--user`, else who called sudo, else who logged in, else who this is.
pub fn person(user: Option<&str>) -> Result<String> {
    let sudo =
        || std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && rustix::process::getuid().is_root());
    let own = || host::user_name(rustix::process::getuid().as_raw());
    let person = user.map(str::to_owned).or_else(sudo).or_else(host::login_name).or_else(own);
    let person = person.context("who the ticket is for is not known: say it with --user")?;
    if person.is_empty() || person.len() > 256 {
        bail!("a person's name has from 1 to 256 bytes");
    }
    Ok(person)
}
