//! What a guest's consoles lead to: well-behaved backends, and every other kind.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use console_proxy::edges::websocket::derive_accept_key;
use console_proxy::rules::route::Backend as Place;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::net::{AddressFamily, SocketType};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use crate::client::{Frame, read_frame};

/// A backend: a port on loopback, and what came in there.
pub struct Backend {
    pub place: Place,
    received: Arc<Mutex<Vec<u8>>>,
    /// Keeps a port, and what fills its backlog.
    _kept: (Option<OwnedFd>, Vec<TcpStream>),
}

impl std::ops::Deref for Backend {
    type Target = Place;
    fn deref(&self) -> &Place {
        &self.place
    }
}

/// A connection to a backend, of which all that is read is noted.
pub struct Conversation {
    pub stream: TcpStream,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Read for Conversation {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(bytes)?;
        self.received.lock().unwrap().extend(&bytes[..n]);
        Ok(n)
    }
}

impl Write for Conversation {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Backend {
    /// Each connection gets a thread with this to do; a connection ends when that is done, or fails.
    pub fn serve(talk: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = place_of(listener.local_addr().unwrap().port());
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let (noted, talk) = (Arc::clone(&received), Arc::new(talk));
        // Ends with the test's process: nobody connects any more.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut conversation = Conversation { stream: stream.unwrap(), received: Arc::clone(&noted) };
                let talk = Arc::clone(&talk);
                std::thread::spawn(move || {
                    let _ = talk(&mut conversation);
                });
            }
        });
        Self { place, received, _kept: (None, Vec::new()) }
    }

    /// The same on a unix socket.
    pub fn serve_unix(talk: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let place = format!("unix:{}", path.display()).parse().unwrap();
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let noted = Arc::clone(&received);
        std::thread::spawn(move || {
            let _kept = folder;
            for stream in listener.incoming() {
                // Reading, writing and shutting down are the same for both kinds.
                let stream = TcpStream::from(OwnedFd::from(stream.unwrap()));
                let _ = talk(&mut Conversation { stream, received: Arc::clone(&noted) });
            }
        });
        Self { place, received, _kept: (None, Vec::new()) }
    }

    /// Sends back what it gets.
    pub fn echo() -> Self {
        Self::serve(|conversation| {
            let mut bytes = [0; 4096];
            loop {
                let n = conversation.read(&mut bytes)?;
                if n == 0 {
                    return Ok(());
                }
                conversation.write_all(&bytes[..n])?;
            }
        })
    }

    /// Reads, and says nothing.
    pub fn silent() -> Self {
        Self::serve(|conversation| io::copy(conversation, &mut io::sink()).map(drop))
    }

    /// Says this and closes, whatever it gets.
    pub fn says(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        Self::serve(move |conversation| {
            conversation.write_all(&text)?;
            conversation.stream.shutdown(Shutdown::Write)?;
            io::copy(conversation, &mut io::sink()).map(drop)
        })
    }

    /// Nobody listens there, and nobody else can.
    pub fn refuses() -> Self {
        let socket = bound();
        Self { place: place_of(port_of(&socket)), received: Arc::default(), _kept: (Some(socket), Vec::new()) }
    }

    /// Does not even accept: its backlog is full.
    pub fn hangs() -> Self {
        let socket = bound();
        rustix::net::listen(&socket, 0).unwrap();
        let address = format!("127.0.0.1:{}", port_of(&socket)).parse().unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(100)) {
            waiting.push(one);
        }
        Self { place: place_of(port_of(&socket)), received: Arc::default(), _kept: (Some(socket), waiting) }
    }

    /// Accepts, and neither reads nor says anything.
    pub fn hangs_after_connecting() -> Self {
        Self::serve(|_| {
            std::thread::sleep(std::time::Duration::from_secs(60));
            Ok(())
        })
    }

    /// Accepts and closes.
    pub fn closes_at_once() -> Self {
        Self::serve(|_| Ok(()))
    }

    /// Speaks websocket as QEMU does: any Origin, subprotocol `binary`; sends messages back.
    pub fn websocket() -> Self {
        Self::websocket_that(|ws| {
            loop {
                let frame = ws.next()?;
                match frame.opcode() {
                    0..=2 => ws.send(frame.first, &frame.payload)?,
                    8 => return ws.send(0x88, &frame.payload),
                    9 => ws.send(0x8A, &frame.payload)?,
                    _ => {}
                }
            }
        })
    }

    /// Speaks websocket, and then does this.
    pub fn websocket_that(talk: impl Fn(&mut ServerWs) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::serve(move |conversation| {
            accept_websocket(conversation)?;
            talk(&mut ServerWs { conversation })
        })
    }

    /// [`Self::websocket`] over TLS, with a certificate for these names.
    pub fn websocket_tls(keys: &TlsKeys, names: &[&str]) -> Self {
        Self::tls(keys, names, |stream| {
            accept_websocket(stream)?;
            loop {
                let frame = read_frame(stream)?;
                stream.write_all(&crate::client::frame(frame.first, None, &frame.payload))?;
            }
        })
    }

    /// Speaks TLS, with a certificate for these names, and then does this.
    pub fn tls(
        keys: &TlsKeys,
        names: &[&str],
        talk: impl Fn(&mut Stream<ServerConnection, Conversation>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let config = keys.server(names);
        Self::serve(move |conversation| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            talk(&mut Stream::new(&mut tls, conversation))
        })
    }

    /// All bytes that came in, in all connections.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }

    /// The same as text: a websocket's request, for example.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received()).into_owned()
    }
}

/// An authority that signs certificates, as the one that libvirt's documentation has people make.
pub struct TlsKeys {
    authority: CertifiedIssuer<'static, KeyPair>,
    last: Mutex<String>,
}

impl TlsKeys {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { authority, last: Mutex::default() }
    }

    /// Its certificate, PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// The last server's own, PEM.
    pub fn last_server(&self) -> String {
        self.last.lock().unwrap().clone()
    }

    fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        *self.last.lock().unwrap() = certificate.pem();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        Arc::new(config)
    }
}

/// A server's end of a websocket.
pub struct ServerWs<'c> {
    pub conversation: &'c mut Conversation,
}

impl ServerWs<'_> {
    /// The next frame, unmasked.
    pub fn next(&mut self) -> io::Result<Frame> {
        read_frame(self.conversation)
    }

    /// Sends a frame.
    pub fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.conversation.write_all(&crate::client::frame(first, None, payload))
    }
}

/// Reads an upgrade request and answers it.
pub fn accept_websocket(stream: &mut (impl Read + Write)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let key = key.ok_or(io::ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.as_bytes());
    stream.write_all(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nServer: QEMU VNC\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
        )
        .as_bytes(),
    )?;
    Ok(head)
}

fn place_of(port: u16) -> Place {
    format!("tcp:127.0.0.1:{port}").parse().unwrap()
}

fn bound() -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket
}

fn port_of(socket: &OwnedFd) -> u16 {
    let listener = TcpListener::from(socket.try_clone().unwrap());
    listener.local_addr().unwrap().port()
}

/// What a backend repeats that never stops.
pub static FLOOD: [u8; 1 << 16] = [b'x'; 1 << 16];
