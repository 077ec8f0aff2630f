//! A client that costs little: TLS with one cipher, an upgrade, and frame headers counted. Yardsticks
//! that speak no websocket, or no TLS, are spoken to as they are.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, version};

/// How a tool is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Websocket over TLS.
    Wss,
    /// TLS alone.
    Tls,
    /// Neither.
    Plain,
}

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection through a tool.
pub struct Client {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    frames: Option<Frames>,
    received: Vec<u8>,
    plain: Vec<u8>,
    /// What has come so far.
    pub count: Count,
    /// Payload of the last [`Client::receive`].
    pub payload: Vec<u8>,
    /// Whether payload is to be kept.
    pub keeps: bool,
}

/// What has come so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Data frames; reads, where no websocket is spoken.
    pub frames: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

/// What all connections have in common; made once, because it takes a millisecond.
#[derive(Clone, Debug)]
pub struct Setting(Arc<ClientConfig>);

impl Setting {
    /// TLS 1.3, AES-128-GCM (what browsers ask for first), no resumption: each handshake is a whole one.
    /// websocat's server speaks no TLS 1.3; it gets 1.2 with the same cipher.
    pub fn new() -> Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![
                ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![ring::kx_group::X25519, ring::kx_group::SECP256R1],
            ..ring::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

impl Client {
    /// Connects, and shakes hands as far as the tool does.
    pub fn connect(setting: &Setting, port: u16, speech: Speech, path: &str) -> Result<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("cannot connect to port {port}"))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let tls = if speech == Speech::Plain {
            None
        } else {
            let mut tls = ClientConnection::new(setting.0.clone(), ServerName::try_from("localhost")?)?;
            tls.set_buffer_limit(None);
            while tls.is_handshaking() {
                tls.complete_io(&mut &tcp).context("the TLS handshake failed")?;
            }
            Some(tls)
        };
        let mut client = Self {
            tcp,
            tls,
            frames: None,
            received: vec![0; 256 << 10],
            plain: Vec::new(),
            count: Count::default(),
            payload: Vec::new(),
            keeps: false,
        };
        if speech == Speech::Wss {
            client.upgrade(port, path)?;
        }
        Ok(client)
    }

    fn upgrade(&mut self, port: u16, path: &str) -> Result<()> {
        self.put(
            format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Protocol: binary\r\nOrigin: https://127.0.0.1:{port}\r\n\r\n"
            )
            .as_bytes(),
        )?;
        let mut head = Vec::new();
        loop {
            self.pull()?;
            head.append(&mut self.plain);
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                if !head.starts_with(b"HTTP/1.1 101") {
                    bail!("no websocket: {}", String::from_utf8_lossy(&head));
                }
                self.plain = head.split_off(at + 4);
                self.frames = Some(Frames::default());
                return Ok(());
            }
        }
    }

    /// Sends bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => (&self.tcp).write_all(bytes)?,
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                while tls.wants_write() {
                    tls.write_tls(&mut &self.tcp)?;
                }
            }
        }
        Ok(())
    }

    /// Sends payload, in a frame where websocket is spoken.
    pub fn say(&mut self, payload: &[u8]) -> Result<()> {
        if self.frames.is_some() { self.put(&frame(2, payload)) } else { self.put(payload) }
    }

    /// What [`Client::say`] puts on the way.
    pub fn framed(&self, payload: &[u8]) -> Vec<u8> {
        if self.frames.is_some() { frame(2, payload) } else { payload.to_vec() }
    }

    /// Waits until something has come, at most until then.
    pub fn wait(&self, until: Instant) -> bool {
        if !self.plain.is_empty() {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        let time = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut polled = [PollFd::new(&self.tcp, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&time)), Ok(1..))
    }

    /// What to wait at with others.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether something has come that no socket tells of.
    pub fn has_more(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Takes what has come, waiting for it if need be, and counts it.
    pub fn receive(&mut self) -> Result<()> {
        self.payload.clear();
        if self.plain.is_empty() {
            self.pull()?;
        }
        let Some(frames) = &mut self.frames else {
            self.count.frames += 1;
            self.count.bytes += self.plain.len() as u64;
            if self.keeps {
                self.payload.extend(&self.plain);
            }
            self.plain.clear();
            return Ok(());
        };
        let mut pings = 0;
        let scanned = frames.scan(&self.plain, &mut self.count, &mut pings, self.keeps.then_some(&mut self.payload));
        self.plain.clear();
        scanned?;
        for _ in 0..pings {
            self.put(&frame(10, &[]))?;
        }
        Ok(())
    }

    /// Receives until so many bytes of payload have come in all.
    pub fn receive_until(&mut self, bytes: u64) -> Result<()> {
        while self.count.bytes < bytes {
            self.receive().with_context(|| format!("after {} of {bytes} bytes", self.count.bytes))?;
        }
        Ok(())
    }

    /// Reads the socket once, and takes all that can be decrypted.
    fn pull(&mut self) -> Result<()> {
        let n = match (&self.tcp).read(&mut self.received) {
            Ok(0) => bail!("the tool closed the connection"),
            Ok(n) => n,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => bail!("nothing came for {PATIENCE:?}"),
            Err(why) => return Err(why.into()),
        };
        let mut rest = &self.received[..n];
        let Some(tls) = &mut self.tls else {
            self.plain.extend(rest);
            return Ok(());
        };
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().context("TLS")?;
            let (begin, more) = (self.plain.len(), state.plaintext_bytes_to_read());
            self.plain.resize(begin + more, 0);
            tls.reader().read_exact(&mut self.plain[begin..])?;
        }
        Ok(())
    }
}

/// A client's frame, masked as browsers must.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0xff);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Follows a server's frames by their headers.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    left: u64,
    is_data: bool,
}

impl Frames {
    fn scan(
        &mut self,
        mut input: &[u8],
        count: &mut Count,
        pings: &mut u32,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<()> {
        while !input.is_empty() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                if self.is_data {
                    count.bytes += n as u64;
                    if let Some(keep) = &mut keep {
                        keep.extend(&input[..n]);
                    }
                }
                self.left -= n as u64;
                input = &input[n..];
                continue;
            }
            self.header.push(input[0]);
            input = &input[1..];
            let Some(left) = length(&self.header) else { continue };
            self.left = left;
            let opcode = self.header[0] & 15;
            self.header.clear();
            self.is_data = opcode < 8;
            match opcode {
                0..8 => count.frames += 1,
                8 => bail!("the tool closed the websocket"),
                9 => *pings += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The payload's length, when the header is whole.
fn length(header: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = header else { return None };
    match second & 0x7f {
        126 => Some(u64::from(u16::from_be_bytes(rest.try_into().ok()?))),
        127 => Some(u64::from_be_bytes(rest.try_into().ok()?)),
        short => Some(u64::from(short)),
    }
}

/// One certificate for all tools, made for this run: there is nothing to check it against.
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
