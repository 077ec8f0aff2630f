//! A client that sends what it is told to, byte for byte: TLS, HTTP and websocket frames by hand.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::host::PATIENCE;

/// The key of RFC 6455, 1.3, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

enum Stream {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

/// Headers, to be sent.
pub fn headers<'h, const N: usize>(own: &'h [(&'static str, String); N]) -> [(&'static str, &'h str); N] {
    own.each_ref().map(|(name, value)| (*name, value.as_str()))
}

/// A connection to a proxy.
pub struct Client {
    stream: Stream,
    /// What was received and not asked for yet.
    pub buffer: Vec<u8>,
    host: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The value of a cookie that it sets.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
    }

    /// The second secret of a new session.
    #[track_caller]
    pub fn secret(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["secret"].as_str().unwrap_or_else(|| panic!("no session was bought: {self:?}")).to_owned()
    }

    /// What our page sends along in the session that it has bought, with this Origin.
    #[track_caller]
    pub fn session(&self, origin: &str) -> [(&'static str, String); 3] {
        [("Cookie", self.cookie()), ("console-proxy-secret", self.secret()), ("Origin", origin.to_owned())]
    }
}

impl Client {
    /// TLS as browsers speak it; any certificate will do.
    pub fn tls(address: SocketAddr) -> Self {
        Self::tls_with(address, ALL_VERSIONS).unwrap()
    }

    /// TLS that begins some time after the connection was made.
    pub fn tls_after(address: SocketAddr, pause: Duration) -> Self {
        let tcp = connect(address);
        std::thread::sleep(pause);
        Self::secure(tcp, address, ALL_VERSIONS).unwrap()
    }

    /// TLS over a connection whose receive buffer does not hide how fast the client reads.
    pub fn tls_with_small_buffer(address: SocketAddr) -> Self {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 32 << 10).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        Self::secure(prepared(TcpStream::from(socket)), address, ALL_VERSIONS).unwrap()
    }

    /// TLS of these versions, with the handshake done.
    pub fn tls_with(address: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> io::Result<Self> {
        Self::secure(connect(address), address, versions)
    }

    fn secure(
        mut tcp: TcpStream,
        address: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Self> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Self::new(Stream::Tls(Box::new(StreamOwned::new(connection, tcp))), address.to_string()))
    }

    /// Without TLS, from an address of this machine.
    pub fn tcp_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::new(source.into(), 0))?;
        rustix::net::connect(&socket, &address)?;
        Ok(Self::new(Stream::Tcp(prepared(TcpStream::from(socket))), address.to_string()))
    }

    /// Without TLS.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::new(Stream::Tcp(connect(address)), address.to_string())
    }

    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(Stream::Unix(stream), "localhost".to_owned())
    }

    fn new(stream: Stream, host: String) -> Self {
        Self { stream, buffer: Vec::new(), host }
    }

    /// The fingerprint of the certificate that the proxy showed.
    pub fn fingerprint(&self) -> String {
        let Stream::Tls(stream) = &self.stream else { panic!("no TLS here") };
        let certificate = &stream.conn.peer_certificates().unwrap()[0];
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// Sends bytes; an error is one only where the test says so.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Receives more; false at the end of the connection, however it ends.
    #[track_caller]
    pub fn receive(&mut self) -> bool {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend(&bytes[..n]);
                true
            }
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the proxy said nothing in time; before: {:?}", String::from_utf8_lossy(&self.buffer))
            }
            Err(_) => false,
        }
    }

    /// Waits until the proxy has closed the connection; what it had said before is returned.
    #[track_caller]
    pub fn until_closed(&mut self) -> String {
        while self.receive() {}
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// A request without body, and its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(method, target, &[], headers);
        self.send(request.as_bytes());
        self.answer()
    }

    /// A request's text: headers given replace those of the same name among `usual` and `Host`.
    pub fn request(&self, method: &str, target: &str, usual: &[(&str, &str)], headers: &[(&str, &str)]) -> String {
        let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        let usual = [("Host", self.host.as_str())].into_iter().chain(usual.iter().copied());
        for (name, value) in usual.filter(|(name, _)| !is_given(name)).chain(headers.iter().copied()) {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text + "\r\n"
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.receive(), "no answer: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.to_owned(), b.to_owned()));
        let mut answer = Answer { status, headers: headers.collect(), body: String::new() };
        if status != 101 && status != 204 {
            let length = answer.header("content-length").parse().unwrap_or(0);
            while self.buffer.len() < length {
                assert!(self.receive(), "half an answer: {answer:?}");
            }
            answer.body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        }
        answer
    }
}

const ALL_VERSIONS: &[&SupportedProtocolVersion] =
    &[&tokio_rustls::rustls::version::TLS13, &tokio_rustls::rustls::version::TLS12];

fn connect(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(address).unwrap())
}

fn prepared(tcp: TcpStream) -> TcpStream {
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// A websocket frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn opcode(&self) -> u8 {
        self.first % 16
    }
}

/// A frame's bytes.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(masked + u8::try_from(n).unwrap()),
        n @ 126..=0xffff => {
            bytes.push(masked + 126);
            bytes.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            bytes.push(masked + 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads a frame.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut bytes = |n: usize| {
        let mut bytes = vec![0; n];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    let head = bytes(2)?;
    let length = match head[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(bytes(2)?.try_into().unwrap())),
        127 => u64::from_be_bytes(bytes(8)?.try_into().unwrap()),
        short => u64::from(short),
    };
    let mask = if head[1] & 0x80 == 0 { vec![0; 4] } else { bytes(4)? };
    let payload = bytes(usize::try_from(length).unwrap())?;
    Ok(Frame {
        first: head[0],
        payload: payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(),
    })
}

/// An open websocket.
pub struct Ws {
    pub client: Client,
    /// The answer that opened it.
    pub answer: Answer,
    /// Whether pings are answered by themselves; they are.
    pub answers_pings: bool,
    /// How many pings came.
    pub pings: usize,
    data: Vec<u8>,
}

impl Ws {
    /// Asks for a websocket.
    pub fn open(mut client: Client, target: &str, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        let usual = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let request = client.request("GET", target, &usual, headers);
        client.send(request.as_bytes());
        let answer = client.answer();
        if answer.status != 101 {
            return Err(answer);
        }
        Ok(Self { client, answer, answers_pings: true, pings: 0, data: Vec::new() })
    }

    /// Sends a binary message.
    #[track_caller]
    pub fn send(&mut self, payload: &[u8]) {
        self.send_frame(0x82, payload);
    }

    /// Sends a masked frame with this first byte.
    #[track_caller]
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.client.send(&frame(first, Some([1, 2, 3, 4]), payload));
    }

    /// The next frame, whatever it is; `None` at the end of the connection.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let mut bytes = &self.client.buffer[..];
            if let Ok(frame) = read_frame(&mut bytes) {
                let left = bytes.len();
                self.client.buffer.drain(..self.client.buffer.len() - left);
                if frame.opcode() == 9 {
                    self.pings += 1;
                    if self.answers_pings {
                        let _ = self.client.try_send(&crate::client::frame(0x8A, Some([0; 4]), &frame.payload));
                    }
                }
                return Some(frame);
            }
            if !self.client.receive() {
                return None;
            }
        }
    }

    /// The next data, `n` bytes of it, however they are framed.
    #[track_caller]
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        let begun = Instant::now();
        while self.data.len() < n {
            // Pings would keep it waiting for ever.
            assert!(begun.elapsed() < PATIENCE, "{} of {n} bytes came", self.data.len());
            let frame = self.next().expect("the connection ended before the data came");
            match frame.opcode() {
                0..=2 => self.data.extend(frame.payload),
                8 => panic!("closed before the data came: {:?}", close_of(&frame)),
                _ => {}
            }
        }
        self.data.drain(..n).collect()
    }

    /// Sends text and expects it back.
    #[track_caller]
    pub fn echoes(&mut self, text: &str) {
        self.send(text.as_bytes());
        assert_eq!(String::from_utf8_lossy(&self.read(text.len())), text);
    }

    /// Waits for a close frame: all data before it, the code and the reason.
    #[track_caller]
    pub fn closed_after(&mut self) -> (Vec<u8>, u16, String) {
        let begun = Instant::now();
        loop {
            // Pings would keep it waiting for ever.
            assert!(begun.elapsed() < PATIENCE, "it was not closed");
            let frame = self.next().expect("the connection ended without a close frame");
            match frame.opcode() {
                0..=2 => self.data.extend(frame.payload),
                8 => {
                    let (code, reason) = close_of(&frame);
                    return (std::mem::take(&mut self.data), code, reason);
                }
                _ => {}
            }
        }
    }

    /// Waits for a close frame: the code and the reason.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let (_, code, reason) = self.closed_after();
        (code, reason)
    }
}

fn close_of(frame: &Frame) -> (u16, String) {
    match frame.payload.split_first_chunk::<2>() {
        Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
        None => (1005, String::new()),
    }
}

/// These are tests of the proxy, not of the client's trust: the fingerprint is compared where it matters.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
