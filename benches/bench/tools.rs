//! The tools that are measured, ours and the others: how each is started in front of a backend, by hand
//! or by whoever connects.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use console_proxy::edges::broker_server::Channel;
use console_proxy::edges::{caller, keys, passing};
use console_proxy::rules::broker::{Refusal, Said};
use console_proxy::rules::route::{Auth, Backend as RouteBackend, Route};
use console_proxy::rules::ticket::{self, Claims, Mode, Pattern};
use ring::signature::Ed25519KeyPair;
use rustix::event::PollFlags;

use crate::backend::Place;
use crate::client::{Client, Setting, Speech};
use crate::machine::{Cores, Running, free_port};

const GUEST: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// Ours, bridging.
    ConsoleProxy,
    /// Ours, forwarding the frames of a backend that speaks websocket itself.
    Forwarding,
    /// noVNC's, in Python.
    Websockify,
    /// In Rust.
    Websocat,
    /// A yardstick: copies, and nothing else.
    SocketProxyd,
    /// A yardstick: copies, and nothing else.
    Socat,
    /// A yardstick: TLS without websocket.
    Haproxy,
}

impl Tool {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::ConsoleProxy,
        Self::Forwarding,
        Self::Websockify,
        Self::Websocat,
        Self::SocketProxyd,
        Self::Socat,
        Self::Haproxy,
    ];

    /// As the table and the results have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsoleProxy => "console-proxy",
            Self::Forwarding => "console-proxy-forwarding",
            Self::Websockify => "websockify",
            Self::Websocat => "websocat",
            Self::SocketProxyd => "systemd-socket-proxyd",
            Self::Socat => "socat",
            Self::Haproxy => "haproxy",
        }
    }

    /// How it is spoken to.
    pub fn speech(self) -> Speech {
        match self {
            Self::SocketProxyd | Self::Socat => Speech::Plain,
            Self::Haproxy => Speech::Tls,
            _ => Speech::Wss,
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What tools need around them: files, a certificate, programs.
#[derive(Debug)]
pub struct Workshop {
    /// Whose core is which.
    pub cores: Cores,
    /// What all clients have in common.
    pub setting: Setting,
    folder: PathBuf,
    release: PathBuf,
    websocat: PathBuf,
    ticket_key: Ed25519KeyPair,
    /// Lines for console-proxy's configuration.
    pub config: String,
    /// A command in whose words the daemon is started, such as `chrt -f 1`.
    pub wrapper: Vec<String>,
    /// Its timer slack, in nanoseconds.
    pub timer_slack: Option<u64>,
}

/// A tool in front of a backend.
#[derive(Debug)]
pub struct Started {
    /// Its processes.
    pub running: Running,
    /// Where it listens.
    pub port: u16,
    tool: Tool,
    _broker: Option<Broker>,
}

impl Workshop {
    /// Prepares a folder, which goes when this is dropped: `release` holds console-proxy's programs, `tools` what was built to compare with.
    pub fn new(folder: &Path, release: &Path, tools: &Path, cores: Cores) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (certificate, key) = keys::certificate(&names, Duration::from_secs(86_400))?;
        let (private, public) = keys::ticket_key()?;
        let workshop = Self {
            cores,
            ticket_key: keys::read_ticket_key(&private)?,
            setting: Setting::new()?,
            folder: folder.canonicalize()?,
            release: release.canonicalize().with_context(|| format!("there is no {}", release.display()))?,
            websocat: tools.join("bin/websocat"),
            config: String::new(),
            wrapper: Vec::new(),
            timer_slack: None,
        };
        fs::write(workshop.file("both.pem"), format!("{certificate}{key}"))?;
        workshop.write("root/etc/console-proxy/tls/certificate.pem", &certificate)?;
        workshop.write("root/etc/console-proxy/tls/key.pem", &key)?;
        let issuer = format!("public-key = \"{public}\"\n");
        workshop.write("root/etc/console-proxy/issuers.d/host.toml", &issuer)?;
        let made = Command::new("openssl")
            .args(["pkcs12", "-export", "-passout", "pass:", "-in"])
            .arg(workshop.file("both.pem"))
            .arg("-out")
            .arg(workshop.file("both.p12"))
            .status()
            .context("cannot run openssl")?;
        if !made.success() {
            bail!("openssl made no PKCS #12 file, which websocat needs");
        }
        Ok(workshop)
    }

    /// A file in the folder of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes one, with the folders that it takes.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A new ticket that opens everything.
    fn ticket(&self) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = Claims {
            iss: "host".into(),
            aud: ticket::AUDIENCE.into(),
            sub: "bench".into(),
            guest: GUEST.parse()?,
            consoles: vec![Pattern::All],
            mode: Mode::Control,
            iat: now,
            nbf: now,
            exp: now + ticket::LONGEST_LIFE,
            jti: "bench".into(),
        };
        Ok(ticket::sign(&claims, &self.ticket_key)?)
    }

    /// One of console-proxy's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.release.join(name)
    }

    /// The route that both `/serial/0` and `/vnc` of the backend have, and its file.
    fn route(&self, tool: Tool, place: &Place) -> Result<PathBuf> {
        let backend = match place {
            Place::Tcp(port) => format!("tcp:127.0.0.1:{port}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        };
        let side = if tool == Tool::Forwarding { "websocket" } else { "raw" };
        self.write_route(&[("serial/0", "raw", &backend), ("vnc", side, &backend)])
    }

    /// A route, and its file: consoles, which side of each, and where that is.
    fn write_route(&self, consoles: &[(&str, &str, &str)]) -> Result<PathBuf> {
        let way = |(console, side, backend): &(&str, &str, &str)| {
            let backend: RouteBackend = backend.parse()?;
            Ok(serde_json::from_value(serde_json::json!({"console": console, *side: backend}))?)
        };
        let route = Route {
            version: 1,
            uuid: GUEST.parse()?,
            name: "bench".into(),
            port: 23000,
            since: 0,
            auth: Auth::Ticket,
            allow: None,
            displays: Vec::new(),
            owner: None,
            consoles: consoles.iter().map(way).collect::<Result<_>>()?,
            unreachable: Vec::new(),
        };
        let name = format!("root/run/console-proxy/guests/{GUEST}/route.toml");
        self.write(&name, &route.to_text())?;
        fs::create_dir_all(self.file(&name).with_file_name("state"))?;
        Ok(self.file(&name))
    }

    /// Starts our proxy by hand with a route of these consoles, see `write_route`.
    pub fn start_ours(&self, consoles: &[(&str, &str, &str)]) -> Result<Started> {
        let port = free_port()?;
        let mut command = self.console_proxyd(port, &self.write_route(consoles)?)?;
        self.wait_for(Tool::ConsoleProxy, &mut command, port)
    }

    fn console_proxyd(&self, port: u16, route: &Path) -> Result<Command> {
        self.write("root/etc/console-proxy/console-proxy.toml", &self.config)?;
        let mut command = wrapped(&self.wrapper, &self.program("console-proxyd"));
        command.env("CONSOLE_PROXY_ROOT", self.file("root"));
        command.arg(format!("--listen=127.0.0.1:{port}")).arg("--route").arg(route);
        Ok(command)
    }

    fn wait_for(&self, tool: Tool, command: &mut Command, port: u16) -> Result<Started> {
        let mut running = self.cores.start(command, &self.file(&format!("{tool}.log")))?;
        running.wait_for(port).with_context(|| format!("{tool} does not start"))?;
        if let Some(slack) = self.timer_slack {
            fs::write(format!("/proc/{}/timerslack_ns", running.pid()), slack.to_string())?;
        }
        Ok(Started { running, port, tool, _broker: None })
    }

    /// Starts a tool by hand; it listens when this returns.
    pub fn start(&self, tool: Tool, place: &Place) -> Result<Started> {
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let mut command = match tool {
            Tool::ConsoleProxy | Tool::Forwarding => self.console_proxyd(port, &self.route(tool, place)?)?,
            Tool::Websockify => self.websockify(&[&listen], place),
            Tool::Websocat => self.websocat(&format!("wss-l:{listen}"), place),
            Tool::SocketProxyd => {
                // It knows no other way to listen than by socket activation.
                let mut command = activate(port, &[]);
                command.args(socket_proxyd(place));
                command
            }
            Tool::Socat => socat(&format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay"), place),
            Tool::Haproxy => self.haproxy(&listen, place)?,
        };
        self.wait_for(tool, &mut command, port)
    }

    /// Makes the socket of a tool that whoever connects starts.
    pub fn activated(&self, tool: Tool, place: &Place) -> Result<Started> {
        let port = free_port()?;
        let mut broker = None;
        let mut command = match tool {
            Tool::ConsoleProxy | Tool::Forwarding => {
                broker = Some(Broker::serve(&self.file("root"), &self.route(tool, place)?)?);
                self.write("root/etc/console-proxy/console-proxy.toml", &self.config)?;
                let mut command = activate(port, &[]);
                command.arg(format!("--setenv=CONSOLE_PROXY_ROOT={}", self.file("root").display()));
                command.arg(self.program("console-proxyd")).args(["--guest", GUEST]);
                command
            }
            Tool::Websockify => appended(activate(port, &["--inetd"]), &self.websockify(&["--inetd"], place)),
            Tool::Websocat => {
                let peer = self.websocat("ws-u:ssl-accept:inetd:", place);
                appended(activate(port, &["--inetd", "--accept"]), &peer)
            }
            Tool::SocketProxyd => {
                let mut command = activate(port, &[]);
                command.args(socket_proxyd(place));
                command
            }
            Tool::Socat => appended(activate(port, &["--inetd", "--accept"]), &socat("STDIO", place)),
            Tool::Haproxy => appended(activate(port, &[]), &self.haproxy("fd@3", place)?),
        };
        let mut running = self.cores.start(&mut command, &self.file(&format!("{tool}-activated.log")))?;
        running.wait_for(port).with_context(|| format!("the socket of {tool} is not there"))?;
        Ok(Started { running, port, tool, _broker: broker })
    }

    fn websockify(&self, listen: &[&str], place: &Place) -> Command {
        let mut command = Command::new("websockify");
        command.arg("--ssl-only").arg(format!("--cert={}", self.file("both.pem").display()));
        if let Place::Unix(path) = place {
            command.arg(format!("--unix-target={}", path.display()));
        }
        command.args(listen);
        if let Place::Tcp(port) = place {
            command.arg(format!("127.0.0.1:{port}"));
        }
        command
    }

    fn websocat(&self, listen: &str, place: &Place) -> Command {
        let mut command = Command::new(&self.websocat);
        command.args(["--binary", "--exit-on-eof", "--pkcs12-passwd="]);
        command.arg(format!("--pkcs12-der={}", self.file("both.p12").display())).arg(listen);
        command.arg(match place {
            Place::Tcp(port) => format!("tcp:127.0.0.1:{port}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        });
        command
    }

    fn haproxy(&self, listen: &str, place: &Place) -> Result<Command> {
        let backend = match place {
            Place::Tcp(port) => format!("127.0.0.1:{port}"),
            Place::Unix(path) => format!("unix@{}", path.display()),
        };
        let text = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen bench\n  bind {listen} ssl crt {} ssl-min-ver TLSv1.3\n  server guest {backend}\n",
            self.file("both.pem").display()
        );
        self.write("haproxy.cfg", &text)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(self.file("haproxy.cfg"));
        Ok(command)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Started {
    /// What a browser asks for; `console` is what ours is asked for, with a new ticket.
    pub fn target(&self, workshop: &Workshop, console: &str) -> Result<String> {
        Ok(match self.tool {
            Tool::ConsoleProxy | Tool::Forwarding => format!("/{console}?token={}", workshop.ticket()?),
            _ => "/websockify".to_owned(),
        })
    }

    /// Connects to it as a browser does.
    pub fn connect(&self, workshop: &Workshop, target: &str) -> Result<Client> {
        Client::connect(&workshop.setting, self.port, self.tool.speech(), target)
            .with_context(|| format!("{} on port {}; it said:\n{}", self.tool, self.port, self.running.said()))
    }
}

fn wrapped(wrapper: &[String], program: &Path) -> Command {
    let Some((first, rest)) = wrapper.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

fn activate(port: u16, more: &[&str]) -> Command {
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen=127.0.0.1:{port}")).args(more);
    command
}

fn appended(mut command: Command, other: &Command) -> Command {
    command.arg(other.get_program()).args(other.get_args());
    command
}

fn socket_proxyd(place: &Place) -> [String; 2] {
    let backend = match place {
        Place::Tcp(port) => format!("127.0.0.1:{port}"),
        Place::Unix(path) => path.display().to_string(),
    };
    ["/lib/systemd/systemd-socket-proxyd".to_owned(), backend]
}

fn socat(listen: &str, place: &Place) -> Command {
    let mut command = Command::new("socat");
    command.arg(listen).arg(match place {
        Place::Tcp(port) => format!("TCP:127.0.0.1:{port},nodelay"),
        Place::Unix(path) => format!("UNIX-CONNECT:{}", path.display()),
    });
    command
}

/// The broker's protocol without its questions, which take a systemd that runs as PID 1.
#[derive(Debug)]
struct Broker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    fn serve(root: &Path, route: &Path) -> Result<Self> {
        let socket = root.join("run/console-proxy/broker/socket");
        fs::create_dir_all(socket.parent().unwrap_or(root))?;
        let _ = fs::remove_file(&socket);
        let listener = passing::listen(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        let route = Route::parse(&fs::read_to_string(route)?)?;
        let stop = Arc::<AtomicBool>::default();
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let patience = Duration::from_millis(50);
            while !stopping.load(Relaxed) {
                if !caller::wait(listener.as_fd(), PollFlags::IN, patience).unwrap_or(false) {
                    continue;
                }
                let Ok(socket) = rustix::net::accept(&listener) else { continue };
                let route = route.clone();
                std::thread::spawn(move || {
                    if let Err(why) = hand_over(socket, &route) {
                        eprintln!("bench: the broker's stand-in: {why:#}");
                    }
                });
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn hand_over(socket: OwnedFd, route: &Route) -> Result<()> {
    let channel = Channel::new(socket)?;
    let words = |refusal: Refusal| anyhow::anyhow!("{refusal}");
    if channel.meet(Duration::from_secs(5)).map_err(words)?.is_none() {
        return Ok(());
    }
    channel.greet(1)?;
    while let Some(said) = channel.hear().map_err(words)? {
        let Said::Ask(request) = said else { continue };
        let way = request.console.and_then(|console| route.way(console)).context("no such console")?;
        let connected: OwnedFd = match way.raw.as_ref().or(way.websocket.as_ref()).context("no backend")? {
            RouteBackend::Tcp(address, port) => std::net::TcpStream::connect((*address, *port))?.into(),
            RouteBackend::Unix(path) => UnixStream::connect(path)?.into(),
            RouteBackend::Pty(_) | RouteBackend::Display(_) => bail!("this broker has ports and sockets alone"),
        };
        channel.grant(request.id, Vec::new(), &[connected.as_fd()])?;
    }
    Ok(())
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
