//! One guest as its proxy knows it: the route, the configuration, the certificate, the issuers, the
//! sessions. Files that change are read again when the next client asks.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::audit::Audit;
use super::hub::{Before, Hub, Hubs, Limits, Port};
use super::limits::Crowd;
use super::live::Live;
use super::logged::{Files, Logged};
use super::login::Turns;
use super::past::Past;
use super::recorder::{Order, Recorder};
use super::spice::Spice;
use crate::edges::backends::{self, Lease, Stream};
use crate::edges::broker::Channel;
use crate::edges::http::Asked;
use crate::edges::paths::Paths;
use crate::edges::publish::now;
use crate::edges::sessions::{Id, Store};
use crate::edges::web::Shelf;
use crate::edges::{auth, files, issuers, line, logs, recordings, revoked, tls};
use crate::rules::auth::{Answer, Question, Request, VERSION};
use crate::rules::broker::{Kind, Part, Refusal};
use crate::rules::config::Config;
use crate::rules::guest::{Console, Uuid};
use crate::rules::request::OriginVerdict;
use crate::rules::revoked::Subject;
use crate::rules::route::{Auth, Backend, Route, Way};
use crate::rules::session::Session;
use crate::rules::ticket::{self, BadTicket, Claims, Mode};

/// How backends are reached.
#[derive(Clone, Debug)]
pub enum Opener {
    /// By the broker: under systemd.
    Broker(Channel),
    /// From here: by hand.
    Direct,
}

impl Opener {
    fn is_by_hand(&self) -> bool {
        matches!(self, Self::Direct)
    }
}

/// A guest and everything that its proxy needs.
#[derive(Debug)]
pub struct Guest {
    /// Where things are.
    pub paths: Paths,
    /// The route's file.
    pub route_file: PathBuf,
    /// Who is connected.
    pub live: Rc<Live>,
    /// The folder that its proxy may write.
    pub state: PathBuf,
    /// The sessions on disk.
    pub store: Store,
    /// How many connections each address has.
    pub(super) crowd: Rc<Crowd>,
    /// What the journal is told of those who come.
    pub(super) audit: Audit,
    /// Its SPICE display.
    pub(super) spice: Spice,
    /// The page's files.
    pub(super) shelf: Shelf,
    hubs: Hubs,
    opener: Opener,
    config: RefCell<files::Watched>,
    tls: RefCell<Option<tls::Server>>,
    issuers: RefCell<issuers::Folder>,
    revoked: RefCell<revoked::Watched>,
    last_route: RefCell<Option<Route>>,
    /// Passwords that are being checked.
    pub(super) logins: Turns,
}

/// How long a check may take; its unit is ended a little later (`RuntimeMaxSec=`).
const CHECK: Duration = Duration::from_secs(28);

impl Guest {
    /// Puts a guest together. `tls` is absent where plain connections are served by hand.
    #[must_use]
    pub fn new(paths: Paths, route_file: PathBuf, config: Config, tls: Option<tls::Server>, opener: Opener) -> Self {
        let issuers = issuers::Folder::load(&paths.issuers());
        let state = paths.state_of_route(&route_file);
        let config = RefCell::new(files::Watched::new(&paths, config));
        let revoked = revoked::Watched::new(&paths);
        Self {
            paths,
            route_file,
            config,
            live: Rc::default(),
            store: Store::new(&state),
            state,
            crowd: Rc::default(),
            audit: Audit::default(),
            spice: Spice::default(),
            shelf: Shelf::default(),
            hubs: Hubs::default(),
            opener,
            tls: RefCell::new(tls),
            issuers: RefCell::new(issuers),
            revoked: RefCell::new(revoked),
            last_route: RefCell::default(),
            logins: Turns::default(),
        }
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Rc<Config> {
        self.config.borrow_mut().current()
    }

    /// The route as it is now; `None` where the guest is not published (any more).
    pub fn route(&self) -> Result<Option<Route>> {
        let file = &self.route_file;
        let text = files::read(file, 1 << 20).with_context(|| format!("cannot read {}", file.display()))?;
        let Some(text) = text else { return Ok(None) };
        let parse = if self.opener.is_by_hand() { Route::parse_by_hand } else { Route::parse };
        let route = parse(&text).with_context(|| file.display().to_string())?;
        if route.auth == Auth::None && !self.opener.is_by_hand() {
            bail!("{}: auth = \"none\" counts in a hand-written route alone", file.display());
        }
        self.last_route.replace(Some(route.clone()));
        Ok(Some(route))
    }

    /// Whether nobody has to show a right: with `auth = "none"` in a route by hand.
    pub(super) fn is_open_to_all(&self) -> bool {
        let route = || self.route().ok().flatten().or_else(|| self.last_route());
        self.opener.is_by_hand() && route().is_some_and(|route| route.auth == Auth::None)
    }

    /// The route as it was when it could be read last.
    pub(super) fn last_route(&self) -> Option<Route> {
        self.last_route.borrow().clone()
    }

    /// Whether the guest has stopped: its route was withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        !self.route_file.exists()
    }

    /// The certificate for a new connection; `None` where plain connections are served.
    pub fn tls(&self) -> Option<Arc<tokio_rustls::rustls::ServerConfig>> {
        let mut tls = self.tls.borrow_mut();
        let server = tls.as_mut()?;
        if let Err(why) = server.refresh() {
            tracing::error!("the certificate has changed and is not usable, the old one stays in force: {why:#}");
        }
        Some(server.config())
    }

    /// `https`, or `http` where plain connections are served.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.borrow().is_some() { "https" } else { "http" }
    }

    /// How the browser spoke: as a reverse proxy says, where one is believed; `None` where that one does not say.
    #[must_use]
    pub fn scheme_of(&self, asked: &Asked) -> Option<&'static str> {
        asked.forwarded.map_or_else(|| Some(self.scheme()), |forwarded| forwarded.scheme)
    }

    /// Checks a ticket for this guest.
    pub fn check_ticket(&self, token: &str, route: &Route) -> Result<Claims, BadTicket> {
        ticket::check(token, self.issuers.borrow_mut().refresh(), (&route.uuid, &route.name), now())
    }

    /// Whether an issuer may still give tickets of that mode for the guest.
    pub(super) fn issuer_may(&self, route: &Route, issuer: &str, mode: Mode) -> bool {
        self.issuers
            .borrow_mut()
            .refresh()
            .get(issuer)
            .is_some_and(|issuer| issuer.may((&route.uuid, &route.name), mode).is_ok())
    }

    /// Why an administrator's order has ended something, in words.
    pub(super) fn ended(&self, route: &Route, subject: &Subject<'_>) -> Option<&'static str> {
        let mut revoked = self.revoked.borrow_mut();
        // Where that is not known nobody is identified.
        revoked.refresh().and_then(|orders| orders.ended(&route.uuid, subject))
    }

    /// Whether it is known what an administrator's orders have ended.
    pub(super) fn knows_what_ended(&self) -> bool {
        self.revoked.borrow_mut().refresh().is_some()
    }

    /// Whether users of this host may log in: by hand nobody is there to ask about them.
    #[must_use]
    pub fn takes_passwords(&self) -> bool {
        !self.opener.is_by_hand() && self.config().access.passwords
    }

    /// Asks this host about one of its users; an error: why there is no answer, in words.
    pub(super) async fn ask_auth(&self, user: &str, question: Question) -> Result<Answer, String> {
        let guest = self.route_uuid().ok_or("the guest is not published")?;
        let request = Request { version: VERSION, guest, user: user.to_owned(), question };
        for pause in [100, 300, 900] {
            match self.ask_auth_once(&request).await {
                Err(Unanswered::TurnedAway(_)) => tokio::time::sleep(Duration::from_millis(pause)).await,
                asked => return asked.map_err(Unanswered::words),
            }
        }
        self.ask_auth_once(&request).await.map_err(Unanswered::words)
    }

    async fn ask_auth_once(&self, request: &Request) -> Result<Answer, Unanswered> {
        let patience = self.config().proxy.connect_timeout;
        let Opener::Broker(broker) = &self.opener else {
            return Err(Unanswered::Failed("nobody is asked by hand".to_owned()));
        };
        let connection = broker.login(&request.guest, patience).await;
        let connection = connection.map_err(|why| match why.kind {
            Kind::Busy => Unanswered::TurnedAway(why.words),
            _ => Unanswered::Failed(why.words),
        })?;
        auth::ask(connection, request, CHECK).await.map_err(|why| {
            let words = why.to_string();
            if is_turned_away(&why) { Unanswered::TurnedAway(words) } else { Unanswered::Failed(words) }
        })
    }

    fn route_uuid(&self) -> Option<Uuid> {
        self.route().unwrap_or_else(|_| self.last_route()).map(|route| route.uuid)
    }

    /// Judges an Origin by the configuration, and by what the ticket's issuer lists.
    #[must_use]
    pub fn origin(
        &self,
        header: Option<&[u8]>,
        scheme: Option<&str>,
        host: Option<&str>,
        issuer: Option<&str>,
    ) -> OriginVerdict {
        let mut issuers = self.issuers.borrow_mut();
        let of_issuer = issuer
            .and_then(|name| issuers.refresh().get(name))
            .map(|issuer| issuer.origins.as_slice())
            .unwrap_or_default();
        let config = self.config();
        let access = &config.access;
        let listed = access.origins.iter().chain(&access.embed_origins).chain(of_issuer).map(String::as_str);
        crate::rules::request::origin(header, scheme, host, listed)
    }

    /// Whether the session with that name still counts.
    #[must_use]
    pub fn is_alive(&self, id: &Id, session: &Session) -> bool {
        let in_use = self.live.all().iter().any(|entry| entry.viewer == viewer_of(id));
        session.is_alive(now(), self.config().access.session_idle.as_secs(), in_use)
    }

    /// Opens a display's backend.
    pub async fn open(&self, route: &Route, way: &Way, part: Part) -> Result<Stream, Refusal> {
        let (descriptor, _) = self.connect(route, way, part).await?;
        Stream::from_descriptor(backend(way, part)?, descriptor).map_err(|why| refused(way, &why))
    }

    /// Joins the viewers of a text console, or opens it for the first.
    pub async fn join(self: &Rc<Self>, route: &Route, way: &Way) -> Result<Rc<Port>, Refusal> {
        let opening = async || {
            // The log first: what the port says from then on is in what the log will have.
            let files = way.log.as_ref().map(|log| LogFiles {
                guest: self.opener(route),
                console: way.console,
                log: log.clone(),
            });
            let past = match &files {
                Some(files) => {
                    Some(files.open().await.and_then(|files| Past::new(files).map_err(|why| refused(way, &why))))
                }
                None => None,
            };
            let (descriptor, lease) = self.connect(route, way, Part::Raw).await?;
            let line = line::Descriptor::new(descriptor).map_err(|why| refused(way, &why))?;
            let config = self.config();
            let limits = Limits { buffer: config.proxy.serial_buffer, pause: config.serial.pause };
            let recorder = self.recorder(route, way.console);
            Ok(match (past, files) {
                (Some(Ok(past)), Some(files)) => {
                    let past = Rc::new(past);
                    let line = Logged::new(line, files, past.clone());
                    Hub::start(line, lease, limits, Before::Kept(past), recorder)
                }
                (Some(Err(why)), _) => {
                    tracing::warn!(guest = %route.uuid, console = %way.console, "{}: no history: {why}", way.console);
                    Hub::start(line, lease, limits, Before::Unknown(why.words), recorder)
                }
                _ => Hub::start(line, lease, limits, Before::Nothing, recorder),
            })
        };
        self.hubs.join(way.console, opening).await
    }

    /// Begins a recording of a console where the configuration asks for one.
    fn recorder(self: &Rc<Self>, route: &Route, console: Console) -> Option<Recorder> {
        let config = self.config();
        let record = &config.record;
        let (guest, uuid, name) = (self.clone(), route.uuid.clone(), route.name.clone());
        let create = async move || {
            let patience = guest.config().proxy.connect_timeout;
            match &guest.opener {
                Opener::Broker(broker) => broker.recording(&uuid, console, patience).await,
                Opener::Direct => recordings::create(&guest.paths, &uuid, &name, console, now())
                    .map_err(|why| Refusal::new(Kind::Refused, format!("cannot make a file: {why}"))),
            }
        };
        let title = format!("{} {console}", route.name);
        let order = Order { title, input: record.input, file_bytes: record.file_bytes };
        record.wants(&route.name, console).then(|| Recorder::start(order, create))
    }

    /// How long ago a text console spoke, where that is known at once: from its open port, else from its log.
    pub async fn spoke(&self, route: &Route, way: &Way) -> Option<Duration> {
        const AT_ONCE: Duration = Duration::from_millis(500);
        if let Some(ago) = self.hubs.spoke(way.console) {
            return Some(ago);
        }
        let files = LogFiles { guest: self.opener(route), console: way.console, log: way.log.clone()? };
        let files = tokio::time::timeout(AT_ONCE, files.open()).await.ok()?.ok()?;
        logs::written(files)
    }

    fn opener(&self, route: &Route) -> LogOpener {
        match &self.opener {
            Opener::Direct => LogOpener::Direct(self.paths.clone(), route.uuid.clone()),
            Opener::Broker(broker) => LogOpener::Broker {
                broker: broker.clone(),
                uuid: route.uuid.clone(),
                patience: self.config().proxy.connect_timeout,
            },
        }
    }

    async fn connect(&self, route: &Route, way: &Way, part: Part) -> Result<(OwnedFd, Lease), Refusal> {
        let backend = backend(way, part)?;
        let patience = self.config().proxy.connect_timeout;
        match &self.opener {
            Opener::Direct => backends::connect(&self.paths, backend, patience).await,
            Opener::Broker(broker) => broker.open(&route.uuid, way.console, part, backend, patience).await,
        }
    }
}

/// Why there is no answer about a user, in words.
enum Unanswered {
    /// For want of a place: nobody has looked at it, and it may be asked again.
    TurnedAway(String),
    Failed(String),
}

impl Unanswered {
    fn words(self) -> String {
        let (Self::TurnedAway(words) | Self::Failed(words)) = self;
        words
    }
}

/// The auth unit has its most connections: the system manager takes one more and closes it, with what was said unread,
/// which unix(7) tells as a reset. After a question was read there is an end at most: its try has been counted.
fn is_turned_away(why: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(why.kind(), BrokenPipe | ConnectionReset)
}

/// Who opens a console's log.
struct LogFiles {
    guest: LogOpener,
    console: Console,
    log: String,
}

enum LogOpener {
    Direct(Paths, Uuid),
    Broker { broker: Channel, uuid: Uuid, patience: Duration },
}

impl Files for LogFiles {
    async fn open(&self) -> Result<Vec<logs::Numbered>, Refusal> {
        match &self.guest {
            LogOpener::Direct(paths, guest) => logs::open(paths, guest, &self.log),
            LogOpener::Broker { broker, uuid, patience } => broker.open_log(uuid, self.console, *patience).await,
        }
    }
}

fn refused(way: &Way, why: &std::io::Error) -> Refusal {
    Refusal::new(Kind::Refused, format!("{}: {why}", way.console))
}

fn backend(way: &Way, part: Part) -> Result<&Backend, Refusal> {
    let backend = match part {
        Part::Raw => way.raw.as_ref(),
        Part::Websocket => way.websocket.as_ref(),
        Part::Log | Part::Recording | Part::Login => None,
    };
    backend.ok_or_else(|| Refusal::new(Kind::Unknown, format!("{} has no such backend", way.console)))
}

/// How a session's sockets are recognised in the table of live sessions.
#[must_use]
pub fn viewer_of(id: &Id) -> String {
    format!("session {id:?}")
}
