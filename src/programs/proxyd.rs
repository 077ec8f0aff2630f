//! `console-proxyd`: the proxy of one guest. Under systemd it gets its socket passed and ends when
//! nobody was there for a while; by hand it makes its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};

use crate::edges::broker::Channel;
use crate::edges::paths::Paths;
use crate::edges::systemd::{self, Inherited};
use crate::edges::{cage, files, journal, keys, tls};
use crate::flow::guest::{Guest, Opener};
use crate::flow::server::{self, Ended, Listener};
use crate::rules::guest::Uuid;
use crate::rules::route::Auth;

/// The proxy of one guest: TLS, tickets, websocket, and the bytes of its consoles.
///
/// systemd starts it when somebody connects. By hand, without systemd or libvirt:
/// `console-proxyd --listen 127.0.0.1:9100 --route FILE`.
#[derive(Parser, Debug)]
#[command(name = "console-proxyd", version)]
struct Arguments {
    /// The guest whose socket systemd passes.
    #[arg(long, value_name = "UUID", conflicts_with_all = ["listen", "route"], required_unless_present = "listen")]
    guest: Option<Uuid>,
    /// Listen here instead: `ADDRESS:PORT`, or `unix:/PATH`.
    #[arg(long, value_name = "WHERE", requires = "route")]
    listen: Option<String>,
    /// The route to serve, a TOML file. Its backends are connected to from here.
    #[arg(long, value_name = "FILE", requires = "listen")]
    route: Option<PathBuf>,
    /// The certificate (PEM); by default the configuration's, else one made for this run.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "plain")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// No TLS: on loopback or a unix socket alone.
    #[arg(long, requires = "listen")]
    plain: bool,
    /// A reverse proxy connects to this unix socket: what it says of its clients is believed.
    #[arg(long, requires = "listen")]
    front: bool,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.listen.is_some() {
        journal::init_by_hand();
    } else {
        journal::init("console-proxyd");
    }
    // Not dumpable: no core with keys in it, and nobody of the same user reads our memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let result = runtime.context("cannot start").and_then(|runtime| {
        let result = runtime.block_on(run(arguments));
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why:#}");
            systemd::status(&crate::rules::guest::printable(&format!("cannot serve: {why:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let paths = Paths::from_environment();
    let config = files::config(&paths)?;
    let mut broker = None;
    let (guest, listeners, idle) = match (&arguments.guest, &arguments.listen, &arguments.route) {
        (Some(uuid), ..) => {
            let listeners = inherited()?;
            // While the first client shakes hands the broker finds out who we are.
            let channel = broker.insert(Channel::connect(&paths.broker_socket()).await);
            let server =
                tls::Server::load(&paths.below_root(&config.tls.certificate), &paths.below_root(&config.tls.key))?;
            let guest =
                Guest::new(paths.clone(), paths.route(uuid), config, Some(server), Opener::Broker(channel.clone()));
            (guest, listeners, true)
        }
        (None, Some(listen), Some(route)) => by_hand(&arguments, paths, config, listen, route).await?,
        _ => bail!("either --guest, or --listen and --route"),
    };
    let guest = Rc::new(guest);
    // A guest that has stopped since has no route: whoever connects is told so.
    let name = guest.route().ok().flatten().map_or_else(|| "the guest".to_owned(), |route| route.name);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    if arguments.guest.is_some() {
        shut_in()?;
    }
    systemd::ready();
    tell(&guest, &name);
    let telling = tokio::task::spawn_local(keep_telling(guest.clone(), name.clone()));
    let stop = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = of_no_use(&guest, broker) => {} }
    };
    let ended = server::run(guest.clone(), listeners, idle, stop).await;
    telling.abort();
    systemd::stopping();
    tell(&guest, &name);
    let words = if ended == Ended::Idle { "nobody was connected" } else { "told to stop" };
    tracing::debug!("ending: {words}");
    Ok(())
}

/// From here on the proxy can use what it has, and reach nothing else.
fn shut_in() -> Result<()> {
    systemd::prepare();
    let landlock = cage::enter()?;
    if let Some(missing) = landlock.missing() {
        tracing::info!("{missing}");
    }
    Ok(())
}

/// Returns when there is no channel to the broker any more, and nothing is open that would end with this process: the
/// next client gets a proxy with a channel of its own.
async fn of_no_use(guest: &Guest, broker: Option<Channel>) {
    /// A proxy that never had a channel ends no sooner, or a client that waits would start one after the other.
    const FOR_A_MOMENT: Duration = Duration::from_secs(1);
    let Some(broker) = broker else { return std::future::pending().await };
    tracing::warn!("{}", broker.lost().await);
    loop {
        tokio::time::sleep(FOR_A_MOMENT).await;
        if guest.live.all().is_empty() {
            return;
        }
        guest.live.changed().await;
    }
}

fn inherited() -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for socket in systemd::inherited().context("cannot use the sockets that systemd passed")? {
        listeners.push(match socket {
            Inherited::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            // A guest's socket unit has no other (templates/50-listen-front.conf).
            Inherited::Unix(listener) => Listener::Front(UnixListener::from_std(listener)?),
            Inherited::Packets(_) | Inherited::Stored(..) => bail!("systemd passed a socket that is no guest's"),
        });
    }
    if listeners.is_empty() {
        bail!(
            "systemd passed no socket: start console-proxy@UUID.socket, not the service (by hand: --listen and --route)"
        );
    }
    Ok(listeners)
}

async fn by_hand(
    arguments: &Arguments,
    paths: Paths,
    config: crate::rules::config::Config,
    listen: &str,
    route: &std::path::Path,
) -> Result<(Guest, Vec<Listener>, bool)> {
    let (listener, is_local) = if let Some(path) = listen.strip_prefix("unix:") {
        let listener = bind_unix(path).with_context(|| format!("cannot listen on {path}"))?;
        (if arguments.front { Listener::Front(listener) } else { Listener::Unix(listener) }, true)
    } else if arguments.front {
        bail!("--front is for unix sockets alone: whoever reaches {listen} could say to be somebody else");
    } else {
        let address: SocketAddr =
            listen.parse().with_context(|| format!("{listen:?} is not ADDRESS:PORT or unix:/PATH"))?;
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        (Listener::Tcp(listener), address.ip().is_loopback())
    };
    if arguments.plain && !is_local {
        bail!("--plain is for loopback and unix sockets alone: {listen} can be reached by others");
    }
    let (certificate, key) = (paths.below_root(&config.tls.certificate), paths.below_root(&config.tls.key));
    let tls = match (&arguments.certificate, &arguments.key) {
        _ if arguments.plain => None,
        (Some(certificate), Some(key)) => Some(tls::Server::load(certificate, key)?),
        _ if certificate.exists() && key.exists() => Some(tls::Server::load(&certificate, &key)?),
        _ => {
            let (certificate, key) = keys::certificate(&["localhost".to_owned()], Duration::from_secs(30 * 86_400))?;
            tracing::warn!("made a certificate for this run, SHA-256 {}", tls::fingerprint(certificate.as_bytes())?);
            Some(tls::Server::from_pem(&certificate, &key)?)
        }
    };
    let guest = Guest::new(paths, route.to_owned(), config, tls, Opener::Direct);
    let route_now = guest.route()?.with_context(|| format!("there is no {}", route.display()))?;
    if route_now.auth == Auth::None && !is_local {
        bail!(
            "{}: auth = \"none\" is for loopback and unix sockets alone, and {listen} can be reached by others",
            route.display()
        );
    }
    Ok((guest, vec![listener], false))
}

/// A socket that an earlier run left behind is replaced, one that somebody answers on is not.
fn bind_unix(path: &str) -> std::io::Result<UnixListener> {
    use std::io::ErrorKind;
    match UnixListener::bind(path) {
        Err(why) if why.kind() == ErrorKind::AddrInUse => match std::os::unix::net::UnixStream::connect(path) {
            Err(dead) if dead.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(why),
        },
        result => result,
    }
}

/// Keeps `systemctl status` and `console-proxy status` current, and the watchdog quiet.
async fn keep_telling(guest: Rc<Guest>, name: String) {
    let mut tick = tokio::time::interval(
        systemd::watchdog_interval().unwrap_or(Duration::from_secs(5)).min(Duration::from_secs(5)),
    );
    loop {
        tokio::select! {
            _ = tick.tick() => systemd::alive(),
            () = guest.live.changed() => {}
        }
        tell(&guest, &name);
    }
}

fn tell(guest: &Guest, name: &str) {
    systemd::status(&guest.live.line(name, guest.config().proxy.status));
    let file = guest.state.join("live.json");
    let shown = guest.live.shown();
    let result = if shown.is_empty() {
        files::remove(&file).map(drop)
    } else {
        serde_json::to_vec(&shown).map_err(Into::into).and_then(|text| files::replace(&file, &text, 0o664))
    };
    if let Err(why) = result {
        tracing::debug!("cannot write {}: {why}", file.display());
    }
}
