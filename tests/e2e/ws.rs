//! A websocket client as a panel's or a browser's would be: TLS with this host's own certificate and no other.

#![allow(dead_code)] // A vocabulary is larger than what today's tests say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::{WebSocketStream, client_async};

/// The certificate that the host made for itself.
pub const CERTIFICATE: &str = "/etc/console-proxy/tls/certificate.pem";

/// Accepts this host's certificate and no other, whatever name it was called by.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn connector() -> TlsConnector {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap_or_else(|why| panic!("{CERTIFICATE}: {why}"));
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// SHA-256 of the certificate that a port serves, in the form in which `list` and `url` print it.
#[track_caller]
pub fn served_fingerprint(port: u16) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("the port takes connections");
        let tls = connector().connect(ServerName::try_from("localhost").unwrap(), tcp).await.expect("it speaks TLS");
        let certificate = tls.get_ref().1.peer_certificates().expect("it shows a certificate")[0].clone();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, &certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    })
}

/// A plain GET with a ticket (none when it is empty): the status and the body.
#[track_caller]
pub fn get(port: u16, path: &str, token: &str) -> (u16, String) {
    let bearer = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let (status, _, body) = ask(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{bearer}"));
    (status, body)
}

/// A request as it is given, but for its end: the status, the head and the body.
#[track_caller]
pub fn ask(port: u16, request: &str) -> (u16, String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = format!("{request}Connection: close\r\n\r\n");
    let answer = runtime.block_on(async {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("the port takes connections");
        let mut tls =
            connector().connect(ServerName::try_from("localhost").unwrap(), tcp).await.expect("it speaks TLS");
        tls.write_all(request.as_bytes()).await.expect("it takes a request");
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(20), tls.read_to_end(&mut answer)).await.expect("it answers in time");
        String::from_utf8_lossy(&answer).into_owned()
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head:?}")), head.to_owned(), body.to_owned())
}

/// An open websocket, used from a test's one thread.
pub struct Ws {
    runtime: Runtime,
    stream: WebSocketStream<TlsStream<TcpStream>>,
    /// What was received and not yet asked for.
    pub received: Vec<u8>,
}

impl std::fmt::Debug for Ws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an open websocket")
    }
}

/// Why there is no websocket: the answer's status, or what went wrong before there was one.
#[derive(Debug)]
pub enum Refused {
    Status(u16, String),
    Other(String),
}

impl Refused {
    #[track_caller]
    pub fn status(&self) -> u16 {
        match self {
            Self::Status(status, _) => *status,
            Self::Other(why) => panic!("no HTTP answer at all: {why}"),
        }
    }

    /// What the answer says.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Status(_, words) | Self::Other(words) => words,
        }
    }
}

/// What a browser is given of a session, and what our page shows with each request.
pub struct Session {
    pub cookie: String,
    pub secret: String,
}

impl Session {
    /// From the status, the head and the body of what bought it.
    #[track_caller]
    pub fn of((status, head, body): &(u16, String, String)) -> Self {
        assert_eq!(*status, 200, "{head}\n{body}");
        let set = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie: "));
        let cookie = set.unwrap_or_else(|| panic!("no cookie: {head}"))[12..].split(';').next().unwrap().to_owned();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        Self { cookie, secret: body["secret"].as_str().unwrap().to_owned() }
    }

    pub fn headers(&self) -> [(&'static str, &str); 2] {
        [("cookie", &self.cookie), ("console-proxy-secret", &self.secret)]
    }

    /// The same as lines of a request.
    pub fn lines(&self) -> String {
        self.headers().map(|(name, value)| format!("{name}: {value}\r\n")).concat()
    }
}

impl Ws {
    /// Opens `wss://localhost:PORT/PATH?token=TOKEN`; without a token when it is empty.
    pub fn connect(port: u16, path: &str, token: &str) -> Result<Self, Refused> {
        let headers: &[(&'static str, &str)] = &[];
        Self::connect_with(port, path, token, headers)
    }

    /// A client that takes next to nothing: what it does not ask for soon waits on the other side.
    pub fn connect_narrow(port: u16, path: &str, token: &str) -> Result<Self, Refused> {
        Self::open(port, path, token, &[], Some(2048))
    }

    /// The same with further headers, such as an Origin or a cookie.
    pub fn connect_with(port: u16, path: &str, token: &str, headers: &[(&'static str, &str)]) -> Result<Self, Refused> {
        Self::open(port, path, token, headers, None)
    }

    fn open(
        port: u16,
        path: &str,
        token: &str,
        headers: &[(&'static str, &str)],
        receive_buffer: Option<u32>,
    ) -> Result<Self, Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let query = if token.is_empty() { String::new() } else { format!("?token={token}") };
        let mut request = format!("wss://localhost:{port}{path}{query}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let attempt = async {
            let tcp = TcpSocket::new_v4().map_err(|why| why.to_string())?;
            if let Some(bytes) = receive_buffer {
                tcp.set_recv_buffer_size(bytes).map_err(|why| why.to_string())?;
            }
            let address = ([127, 0, 0, 1], port).into();
            let tcp = tcp.connect(address).await.map_err(|why| format!("connect: {why}"))?;
            let name = ServerName::try_from("localhost").unwrap();
            let tls = connector().connect(name, tcp).await.map_err(|why| format!("TLS: {why}"))?;
            Ok::<_, String>(client_async(request, tls).await)
        };
        let answer = runtime.block_on(async { timeout(Duration::from_secs(20), attempt).await });
        match answer {
            Err(_) => Err(Refused::Other("no answer in 20 s".to_owned())),
            Ok(Err(why)) => Err(Refused::Other(why)),
            Ok(Ok(Ok((stream, _)))) => Ok(Self { runtime, stream, received: Vec::new() }),
            Ok(Ok(Err(WsError::Http(answer)))) => {
                let body = answer.body().clone().unwrap_or_default();
                Err(Refused::Status(answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Ok(Ok(Err(why))) => Err(Refused::Other(why.to_string())),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let message = Message::Binary(bytes.to_vec().into());
        self.runtime.block_on(self.stream.send(message)).expect("the websocket takes a message");
    }

    /// Reads until `text` was received; returns all up to and with it. Panics where nothing comes for `limit`, or
    /// something comes for a minute and not that.
    #[track_caller]
    pub fn read_until(&mut self, text: &str, limit: Duration) -> String {
        let wanted = text.as_bytes();
        let end = Instant::now() + Duration::from_secs(60);
        let mut searched = 0;
        loop {
            let found = self.received[searched..].windows(wanted.len()).position(|window| window == wanted);
            if let Some(at) = found.map(|at| at + searched) {
                let read: Vec<u8> = self.received.drain(..at + wanted.len()).collect();
                return String::from_utf8_lossy(&read).into_owned();
            }
            searched = self.received.len().saturating_sub(wanted.len() - 1);
            assert!(Instant::now() < end, "a minute passed without {text:?}; received: {:?}", self.so_far());
            match self.next(limit) {
                Ok(Some(bytes)) => self.received.extend_from_slice(&bytes),
                Ok(None) => panic!("{limit:?} passed without {text:?}; received: {:?}", self.so_far()),
                Err(end) => panic!("the websocket ended ({end:?}) before {text:?}; received: {:?}", self.so_far()),
            }
        }
    }

    /// Types a command line at a guest's shell, and returns all that came back until `answer`, which the line itself
    /// must not contain: the terminal echoes it.
    #[track_caller]
    pub fn command(&mut self, line: &str, answer: &str) -> String {
        assert!(!line.contains(answer), "the echo of {line:?} would be taken for the answer");
        self.send(format!("{line}\n").as_bytes());
        self.read_until(answer, Duration::from_secs(20))
    }

    fn so_far(&self) -> String {
        let last = self.received.len().saturating_sub(4096);
        String::from_utf8_lossy(&self.received[last..]).into_owned()
    }

    /// The next message's bytes; `None` when none came in time; the close code and reason when it was closed.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, (u16, String)> {
        let Self { runtime, stream, .. } = self;
        // Pings do not count.
        let end = Instant::now() + limit;
        runtime.block_on(async {
            loop {
                return match timeout_at(end.into(), stream.next()).await {
                    Err(_) => Ok(None),
                    Ok(Some(Ok(Message::Binary(bytes)))) => Ok(Some(bytes.to_vec())),
                    Ok(Some(Ok(Message::Text(text)))) => Ok(Some(text.as_bytes().to_vec())),
                    Ok(Some(Ok(Message::Close(Some(frame))))) => Err((frame.code.into(), frame.reason.to_string())),
                    Ok(Some(Ok(Message::Close(None)))) => Err((1005, String::new())),
                    Ok(Some(Ok(_))) => continue,
                    Ok(Some(Err(why))) => Err((1006, why.to_string())),
                    Ok(None) => Err((1006, "the connection ended".to_owned())),
                };
            }
        })
    }

    /// Waits for the server to close; the code and the reason.
    #[track_caller]
    pub fn wait_for_close(&mut self, limit: Duration) -> (u16, String) {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Err(end) = self.next(Duration::from_millis(200)) {
                return end;
            }
        }
        panic!("not closed within {limit:?}");
    }
}
