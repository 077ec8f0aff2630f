//! A made-up host in a temporary folder, and the proxy's process: started by a small stand-in for systemd that keeps
//! the listening socket and starts a process when somebody connects, or by hand.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use console_proxy::edges::broker_server::Channel;
use console_proxy::edges::paths::Paths;
use console_proxy::edges::{caller, files, introduction, keys, logs, passing, recordings};
use console_proxy::rules::broker::{Kind, Part, Refusal, Request, Said};
use console_proxy::rules::guest::{Console, Uuid};
use console_proxy::rules::route::{Auth, Backend as Place, Route, Way};
use console_proxy::rules::ticket::{self, Claims, Mode, Pattern};
use ring::signature::Ed25519KeyPair;
use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::client::{Answer, Client, Ws};

/// Nothing here takes that long, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The guest.
pub const GUEST: &str = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";

/// A host: its folders, its keys, one published guest.
pub struct Host {
    root: tempfile::TempDir,
    pub route: Route,
    key: Ed25519KeyPair,
    /// How many descriptors the proxy may have, under activation.
    pub descriptors: u32,
    /// Further variables of the proxy's environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Host {
    /// A host whose guest has no console yet. Timeouts are those of the tests: see [`Self::config`].
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (private, public) = keys::ticket_key().unwrap();
        let route = Route {
            version: 1,
            uuid: GUEST.parse().unwrap(),
            name: "g1".into(),
            port: 23000,
            since: 0,
            auth: Auth::Ticket,
            allow: None,
            displays: Vec::new(),
            owner: None,
            consoles: Vec::new(),
            unreachable: Vec::new(),
        };
        let key = keys::read_ticket_key(&private).unwrap();
        let host = Self { root, route, key, descriptors: 1024, environment: Vec::new() };
        host.write("etc/console-proxy/signing/host.pem", &private);
        host.add_issuer("host", &public, "");
        host.make_certificate();
        host.write_route();
        host
    }

    /// A console whose raw bytes are there.
    pub fn raw(mut self, console: &str, place: &Place) -> Self {
        self.way(console).raw = Some(place.clone());
        self.write_route();
        self
    }

    /// A console with a log, which lies where libvirt's do.
    pub fn logged(mut self, console: &str, place: &Place, log: &str) -> Self {
        self.way(console).log = Some(log.to_owned());
        self.raw(console, place)
    }

    /// A console with a websocket of its own.
    pub fn native(mut self, console: &str, place: &Place) -> Self {
        self.way(console).websocket = Some(place.clone());
        self.write_route();
        self
    }

    /// The same over TLS, with the certificates that its chain must end in.
    pub fn native_tls(mut self, console: &str, place: &Place, ca: &str) -> Self {
        self.way(console).websocket_ca = Some(ca.to_owned());
        self.native(console, place)
    }

    /// A console whose raw bytes are within TLS.
    pub fn raw_tls(mut self, console: &str, place: &Place, ca: &str) -> Self {
        self.way(console).raw_ca = Some(ca.to_owned());
        self.raw(console, place)
    }

    fn way(&mut self, console: &str) -> &mut Way {
        let console: Console = console.parse().unwrap();
        let at = self.route.consoles.iter().position(|way| way.console == console).unwrap_or_else(|| {
            self.route.consoles.push(serde_json::from_value(serde_json::json!({"console": console})).unwrap());
            self.route.consoles.len() - 1
        });
        &mut self.route.consoles[at]
    }

    /// Another name of the guest.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.route.name);
        self.write_route();
        self
    }

    /// Nobody needs a ticket.
    pub fn open_to_all(mut self) -> Self {
        self.route.auth = Auth::None;
        self.write_route();
        self
    }

    /// The host's configuration.
    pub fn config(self, text: &str) -> Self {
        self.write("etc/console-proxy/console-proxy.toml", text);
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// `console-proxy` on this host.
    pub fn console_proxy(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_console-proxy"));
        command.env("CONSOLE_PROXY_ROOT", self.root.path()).env("TERM", "dumb").env("CONSOLE_PROXY_LOG", "error");
        command
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        files::replace(&path, text.as_bytes(), 0o644).unwrap();
    }

    /// The guest's folder.
    pub fn guest_folder(&self) -> PathBuf {
        self.path("run/console-proxy/guests").join(GUEST)
    }

    pub fn state_folder(&self) -> PathBuf {
        self.path("run/console-proxy/state").join(GUEST)
    }

    pub fn route_file(&self) -> PathBuf {
        self.guest_folder().join("route.toml")
    }

    pub fn write_route(&self) {
        fs::create_dir_all(self.guest_folder()).unwrap();
        fs::create_dir_all(self.state_folder()).unwrap();
        files::replace(&self.route_file(), self.route.to_text().as_bytes(), 0o644).unwrap();
    }

    /// What `publish`, `kick` and `revoke` do so that the proxy looks at once at what its consoles stand on.
    pub fn have_it_look(&self) {
        files::replace(&self.guest_folder().join("look"), b"", 0o644).unwrap();
    }

    /// What a verb of `console-proxy` prints when it went well.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.console_proxy().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What libvirt's hook does when the guest stops.
    pub fn withdraw_route(&self) {
        fs::remove_file(self.route_file()).unwrap();
    }

    pub fn add_issuer(&self, name: &str, public_key: &str, more: &str) {
        self.write(
            &format!("etc/console-proxy/issuers.d/{name}.toml"),
            &format!("public-key = \"{public_key}\"\n{more}\n"),
        );
    }

    /// Makes another certificate and puts it in place; returns its fingerprint.
    pub fn make_certificate(&self) -> String {
        let (certificate, key) = keys::certificate(&["localhost".into()], Duration::from_secs(3600)).unwrap();
        self.write("etc/console-proxy/tls/key.pem", &key);
        self.write("etc/console-proxy/tls/certificate.pem", &certificate);
        console_proxy::edges::tls::fingerprint(certificate.as_bytes()).unwrap()
    }

    pub fn without_certificate(self) -> Self {
        fs::remove_dir_all(self.path("etc/console-proxy/tls")).unwrap();
        self
    }

    /// The claims of a ticket that opens everything, for a minute.
    pub fn claims(&self) -> Claims {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let now = now();
        Claims {
            iss: "host".into(),
            aud: ticket::AUDIENCE.into(),
            sub: "ann".into(),
            guest: self.route.uuid.clone(),
            consoles: vec![Pattern::All],
            mode: Mode::Control,
            iat: now,
            nbf: now,
            exp: now + 60,
            jti: format!("jti-{}", MADE.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub fn sign(&self, claims: &Claims) -> String {
        ticket::sign(claims, &self.key).unwrap()
    }

    /// A new ticket that opens everything.
    pub fn ticket(&self) -> String {
        self.sign(&self.claims())
    }

    /// A new ticket, with a change to its claims.
    pub fn ticket_with(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.sign(&claims)
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A proxy: its host, and where it listens.
pub struct Proxy {
    pub host: Host,
    pub address: SocketAddr,
    runner: Runner,
}

impl std::ops::Deref for Proxy {
    type Target = Host;
    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Proxy {
    /// As systemd runs it: the socket is made here and kept; whoever connects starts a process, also after the last one
    /// has ended. Backends come from a stand-in for the broker.
    pub fn activated(host: Host) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runner = Runner::activated(&host, listener);
        Self { host, address, runner }
    }

    /// As a person runs it: `--listen 127.0.0.1:PORT --route FILE`.
    pub fn by_hand(host: Host) -> Self {
        Self::by_hand_with(host, &[])
    }

    /// The same with further arguments.
    pub fn by_hand_with(host: Host, arguments: &[&str]) -> Self {
        loop {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = console_proxyd(&host);
            command.arg("--listen").arg(address.to_string()).arg("--route").arg(host.route_file()).args(arguments);
            let runner = Runner::once(&mut command);
            until("the proxy listens", || TcpStream::connect(address).is_ok() || !runner.is_running());
            if runner.is_running() {
                return Self { host, address, runner };
            }
            // Somebody else took the port in between.
            assert!(runner.log().contains("in use"), "{}", runner.log());
        }
    }

    /// As a person runs it, somewhere else.
    pub fn by_hand_on(host: Host, arguments: &[&str], is_up: impl Fn() -> bool) -> Self {
        let mut command = console_proxyd(&host);
        let runner = Runner::once(command.arg("--route").arg(host.route_file()).args(arguments));
        until("the proxy listens", || is_up() || !runner.is_running());
        assert!(runner.is_running(), "{}", runner.log());
        Self { host, address: ([127, 0, 0, 1], 0).into(), runner }
    }

    /// A TLS connection.
    pub fn client(&self) -> Client {
        Client::tls(self.address)
    }

    /// A request without body on a connection of its own.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.client().ask(method, target, headers)
    }

    /// A websocket on a console, with a new ticket.
    #[track_caller]
    pub fn open(&self, path: &str) -> Ws {
        let target = format!("{path}?token={}", self.ticket());
        match self.try_open(&target, &[]) {
            Ok(ws) => ws,
            Err(answer) => panic!("{path}: {answer:?}; the log:\n{}", self.log()),
        }
    }

    /// A websocket, or why not. Headers given replace those of the same name that are sent by default.
    pub fn try_open(&self, target: &str, headers: &[(&str, &str)]) -> Result<Ws, Answer> {
        Ws::open(self.client(), target, headers)
    }

    /// A websocket on a console that somebody else has just left.
    #[track_caller]
    pub fn open_when_free(&self, path: &str) -> Ws {
        let mut found = None;
        until("the console is free", || {
            found = self.try_open(&format!("{path}?token={}", self.ticket()), &[]).ok();
            found.is_some()
        });
        found.unwrap()
    }

    /// Why there is no websocket.
    #[track_caller]
    pub fn refusal(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        match self.try_open(target, headers) {
            Ok(_) => panic!("{target} was opened"),
            Err(answer) => answer,
        }
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        self.runner.log()
    }

    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        until(text, || self.log().contains(text));
    }

    /// The broker ends, and with it every channel.
    pub fn broker_hangs_up(&self) {
        self.runner.channels.lock().unwrap().drain(..).for_each(|channel| channel.close());
    }

    pub fn is_running(&self) -> bool {
        self.runner.is_running()
    }

    /// How many processes have been started.
    pub fn starts(&self) -> usize {
        self.runner.shared.lock().unwrap().starts
    }

    /// The texts of all `STATUS=` messages to systemd so far.
    pub fn statuses(&self) -> Vec<String> {
        self.runner.statuses.as_ref().map(|statuses| statuses.lock().unwrap().clone()).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        self.runner.signal(signal);
    }

    /// Waits for the process to end.
    #[track_caller]
    pub fn ended(&self) -> ExitStatus {
        until("the proxy ends", || !self.is_running());
        self.runner.shared.lock().unwrap().status.unwrap()
    }

    /// The process' resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let pid = self.runner.shared.lock().unwrap().pid.expect("it runs").as_raw_nonzero();
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// `console-proxyd` on this host, with everything that it says on standard error.
pub fn console_proxyd(host: &Host) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_console-proxyd"));
    command.env("CONSOLE_PROXY_ROOT", host.root.path()).env("CONSOLE_PROXY_LOG", "trace").env_remove("NOTIFY_SOCKET");
    command.envs(host.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[derive(Default)]
struct Shared {
    pid: Option<Pid>,
    status: Option<ExitStatus>,
    starts: usize,
    log: String,
}

/// A process at a time, or none, and a thread that looks after it.
struct Runner {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    statuses: Option<Arc<Mutex<Vec<String>>>>,
    channels: Channels,
    thread: Option<JoinHandle<()>>,
}

/// The stand-in's.
type Channels = Arc<Mutex<Vec<Arc<Channel>>>>;

impl Runner {
    fn once(command: &mut Command) -> Self {
        let (shared, stop) = (Arc::default(), Arc::default());
        let child = start(command, &shared);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || reap(child, &of_thread));
        Self { shared, stop, statuses: None, channels: Channels::default(), thread: Some(thread) }
    }

    fn activated(host: &Host, listener: TcpListener) -> Self {
        let (shared, stop) = (Arc::<Mutex<Shared>>::default(), Arc::<AtomicBool>::default());
        let notify = host.path("run/notify");
        let statuses = collect_statuses(&notify, Arc::clone(&stop));
        let channels = serve_broker(host, Arc::clone(&stop));
        let daemon = console_proxyd(host);
        let (of_thread, stopping) = (Arc::clone(&shared), Arc::clone(&stop));
        // LISTEN_PID has to be the process' own, so a shell says it; as sd_listen_fds(3) has it, descriptor 3 is the first.
        let script = "ulimit -n $2; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" --guest \"$1\" 3<&0 </dev/null";
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .arg(daemon.get_program())
            .arg(GUEST)
            .arg(host.descriptors.to_string())
            .env("NOTIFY_SOCKET", &notify);
        command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdout(Stdio::null());
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                if !caller::wait(listener.as_fd(), PollFlags::IN, Duration::from_millis(20)).unwrap() {
                    continue;
                }
                command.stdin(OwnedFd::from(listener.try_clone().unwrap())).stderr(Stdio::piped());
                let child = start(&mut command, &of_thread);
                reap(child, &of_thread);
                if !of_thread.lock().unwrap().status.is_some_and(|status| status.success()) {
                    // Whoever waits shall be refused at once: a test that does not expect this fails at once.
                    return;
                }
            }
        });
        Self { shared, stop, statuses: Some(statuses), channels, thread: Some(thread) }
    }

    fn log(&self) -> String {
        self.shared.lock().unwrap().log.clone()
    }

    fn is_running(&self) -> bool {
        self.shared.lock().unwrap().pid.is_some()
    }

    fn signal(&self, signal: Signal) {
        // Under the lock it is not reaped, so the pid is its own.
        if let Some(pid) = self.shared.lock().unwrap().pid {
            kill_process(pid, signal).unwrap();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A process that is just being started, too.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.signal(Signal::KILL);
            std::thread::sleep(Duration::from_millis(2));
        }
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}

fn start(command: &mut Command, shared: &Arc<Mutex<Shared>>) -> Child {
    let mut locked = shared.lock().unwrap();
    let mut child = command.spawn().unwrap();
    locked.pid = Some(Pid::from_child(&child));
    locked.status = None;
    locked.starts += 1;
    let mut stderr = child.stderr.take().unwrap();
    let of_thread = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut bytes) {
            of_thread.lock().unwrap().log.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    });
    child
}

fn reap(mut child: Child, shared: &Mutex<Shared>) {
    let pid = Pid::from_child(&child);
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {}
    let mut shared = shared.lock().unwrap();
    shared.pid = None;
    shared.status = Some(child.wait().unwrap());
}

/// What systemd's end of `NOTIFY_SOCKET` hears.
fn collect_statuses(path: &Path, stop: Arc<AtomicBool>) -> Arc<Mutex<Vec<String>>> {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let statuses = Arc::<Mutex<Vec<String>>>::default();
    let of_thread = Arc::clone(&statuses);
    std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        while !stop.load(Ordering::Relaxed) {
            let Ok(n) = socket.recv(&mut bytes) else { continue };
            if let Some(status) = String::from_utf8_lossy(&bytes[..n]).strip_prefix("STATUS=") {
                of_thread.lock().unwrap().push(status.strip_suffix('\n').unwrap_or(status).to_owned());
            }
        }
    });
    statuses
}

/// The broker's protocol without its questions: every caller gets what it asks for.
fn serve_broker(host: &Host, stop: Arc<AtomicBool>) -> Channels {
    let path = host.path("run/console-proxy/broker/socket");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = passing::listen(&path).unwrap();
    let (route, paths) = (host.route_file(), Paths::new(host.root.path()));
    let channels = Channels::default();
    let all = Arc::clone(&channels);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if !caller::wait(listener.as_fd(), PollFlags::IN, Duration::from_millis(50)).unwrap() {
                continue;
            }
            let channel = Arc::new(Channel::new(rustix::net::accept(&listener).unwrap()).unwrap());
            all.lock().unwrap().push(Arc::clone(&channel));
            let (route, paths) = (route.clone(), paths.clone());
            std::thread::spawn(move || {
                let Ok(Some(_)) = channel.meet(PATIENCE) else { return };
                let _ = channel.greet(1);
                while let Ok(Some(said)) = channel.hear() {
                    let Said::Ask(request) = said else { continue };
                    let (channel, route, paths) = (Arc::clone(&channel), route.clone(), paths.clone());
                    std::thread::spawn(move || answer(&channel, &request, &route, &paths));
                }
            });
        }
        all.lock().unwrap().iter().for_each(|channel| channel.close());
    });
    channels
}

fn answer(channel: &Channel, request: &Request, route: &Path, paths: &Paths) {
    let route = || Route::parse(&fs::read_to_string(route).unwrap()).unwrap();
    let console = request.console;
    let opened = match request.part {
        Part::Login => introduce(paths, &request.guest).map(|connection| vec![(0, connection)]),
        Part::Recording => recordings::create(paths, &route().uuid, &route().name, console.unwrap(), now())
            .map(|file| vec![(0, file.into())])
            .map_err(|why| Refusal::new(Kind::Refused, why.to_string())),
        Part::Log => logs::open(paths, &request.guest, route().way(console.unwrap()).unwrap().log.as_ref().unwrap()),
        part => connect(&route(), part, &request.guest, |way| Some(way.console) == console)
            .map(|descriptor| vec![(0, descriptor)]),
    };
    let _ = match opened {
        Err(refusal) => channel.refuse(request.id, refusal),
        Ok(files) => {
            let descriptors: Vec<_> = files.iter().map(|(_, file)| file.as_fd()).collect();
            let log = request.part == Part::Log;
            let numbers = files.iter().filter(|_| log).map(|(number, _)| *number).collect();
            channel.grant(request.id, numbers, &descriptors)
        }
    };
}

fn introduce(paths: &Paths, guest: &Uuid) -> Result<OwnedFd, Refusal> {
    let connected = std::os::unix::net::UnixStream::connect(paths.auth_socket())
        .and_then(|stream| introduction::introduce(&stream, guest).map(|_| stream.into()));
    connected.map_err(|why| Refusal::new(Kind::Refused, format!("console-proxy-auth: {why}")))
}

fn connect(route: &Route, part: Part, guest: &Uuid, is_wanted: impl Fn(&Way) -> bool) -> Result<OwnedFd, Refusal> {
    assert_eq!(*guest, route.uuid);
    let way = route.consoles.iter().find(|way| is_wanted(way)).unwrap();
    let place = if part == Part::Raw { way.raw.as_ref() } else { way.websocket.as_ref() };
    let failed = |why: std::io::Error| {
        let kind = if why.kind() == std::io::ErrorKind::TimedOut { Kind::Silent } else { Kind::Refused };
        Refusal::new(kind, format!("{}: {why}", place.unwrap()))
    };
    match place.unwrap() {
        Place::Tcp(address, number) => {
            TcpStream::connect_timeout(&SocketAddr::new(*address, *number), Duration::from_secs(1))
                .map(OwnedFd::from)
                .map_err(failed)
        }
        Place::Unix(path) => std::os::unix::net::UnixStream::connect(path).map(OwnedFd::from).map_err(failed),
        Place::Pty(_) | Place::Display(_) => panic!("this broker has ports and sockets alone"),
    }
}
