//! TLS: the host's certificate towards browsers, read again when its files change, and a checked
//! chain towards QEMU. The one module that knows rustls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls};

use super::backends::Stream;
use super::read_ahead::ReadAhead;

/// A connection from a browser.
pub type FromClient = tokio_rustls::server::TlsStream<ReadAhead<TcpStream>>;
/// A connection to a guest's own port on this host.
pub type ToProxy = tokio_rustls::client::TlsStream<TcpStream>;
/// A connection to QEMU's own TLS port.
pub type ToBackend = tokio_rustls::client::TlsStream<Stream>;

/// The certificate in force.
#[derive(Debug)]
pub struct Server {
    certificate: PathBuf,
    key: PathBuf,
    seen: Seen,
    config: Arc<ServerConfig>,
}

type Seen = [Option<(SystemTime, u64)>; 2];

impl Server {
    /// Reads certificate and key, PEM files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let seen = look(certificate, key);
        let config = read(certificate, key)?;
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), seen, config })
    }

    /// A server with a certificate that lives in memory alone, for use by hand.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let config = server_config(certificate.as_bytes(), key.as_bytes())?;
        Ok(Self { certificate: PathBuf::new(), key: PathBuf::new(), seen: [None; 2], config })
    }

    /// Reads the files again if they have changed. On an error the old certificate stays in force;
    /// the error is told once per change.
    pub fn refresh(&mut self) -> Result<()> {
        if self.certificate.as_os_str().is_empty() {
            return Ok(());
        }
        let seen = look(&self.certificate, &self.key);
        if seen == self.seen {
            return Ok(());
        }
        self.seen = seen;
        self.config = read(&self.certificate, &self.key)?;
        Ok(())
    }

    /// Does the handshake of one connection.
    pub async fn accept(config: Arc<ServerConfig>, tcp: TcpStream) -> io::Result<FromClient> {
        TlsAcceptor::from(config).accept(ReadAhead::new(tcp)).await
    }

    /// What new connections use.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

fn look(certificate: &Path, key: &Path) -> Seen {
    [certificate, key].map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, std::os::unix::fs::MetadataExt::ino(&data)))
    })
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let file = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let what = || format!("{} and {}", certificate.display(), key.display());
    server_config(&file(certificate)?, &file(key)?).with_context(what)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>> {
    let chain = chain(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).context("there is no private key in the key file")?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .context("the certificate file is not PEM")?;
    if chain.is_empty() {
        bail!("there is no certificate in the certificate file");
    }
    Ok(chain)
}

/// The SHA-256 fingerprint of a PEM file's first certificate, as browsers show it: `AB:CD:...`.
pub fn fingerprint(pem: &[u8]) -> Result<String> {
    let chain = chain(pem)?;
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, &chain[0]);
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// Speaks TLS to a backend whose certificate is one of `ca` (PEM), or has a chain that ends in one of them.
///
/// The connection goes to a loopback port, so the certificate may name this host in any way that it
/// is known by here: `host`, `localhost` or 127.0.0.1. What one that is listed itself says does not matter.
pub async fn connect(backend: Stream, ca: &str, host: &str) -> io::Result<ToBackend> {
    let listed = chain(ca.as_bytes()).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    for certificate in &listed {
        roots.add(certificate.clone()).map_err(io::Error::other)?;
    }
    let names = [host, "localhost", "127.0.0.1"]
        .into_iter()
        .filter_map(|name| ServerName::try_from(name.to_owned()).ok())
        .collect();
    let inner = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName { inner, names, listed }))
        .with_no_client_auth();
    config.enable_sni = false;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, backend).await
}

/// Speaks TLS to a guest's own port, which must show the first certificate of `pem` and no other; what its name
/// and its dates say does not matter then.
pub async fn connect_pinned(tcp: TcpStream, pem: &str) -> io::Result<ToProxy> {
    let certificate = chain(pem.as_bytes()).map_err(io::Error::other)?.swap_remove(0);
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// One certificate and no other.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl rustls::client::danger::ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if *certificate == self.certificate {
            return Ok(rustls::client::danger::ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate than this host's".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// One of a few certificates, or else rustls' own verifier, tried with each name that this host goes by.
#[derive(Debug)]
struct AnyName {
    inner: Arc<rustls::client::WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
    listed: Vec<CertificateDer<'static>>,
}

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if self.listed.iter().any(|known| known == certificate) {
            return Ok(rustls::client::danger::ServerCertVerified::assertion());
        }
        let mut last = rustls::Error::General("no name to check".to_owned());
        for name in &self.names {
            match self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
