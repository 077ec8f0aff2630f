//! Keys and certificates, made here: the host's ticket key and its first certificate.

use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use ring::signature::Ed25519KeyPair;

/// The `CN` of certificates that we made: the page of a browser's warning shows it.
pub const COMMON_NAME: &str = "console-proxy on this host";

/// A self-signed certificate for these names and addresses: `(certificate, key)`, PEM.
pub fn certificate(names: &[String], life: Duration) -> Result<(String, String)> {
    let mut params = CertificateParams::new(names.to_vec()).context("a host name that no certificate can have")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = time::OffsetDateTime::now_utc();
    // A day back: clients whose clock is behind.
    params.not_before = now - Duration::from_secs(86_400);
    params.not_after = now + life;
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params.self_signed(&key).context("cannot make a certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A new Ed25519 key for tickets: PKCS#8 in PEM, and the public key in base64.
pub fn ticket_key() -> Result<(String, String)> {
    use base64::Engine as _;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).context("cannot make a key")?;
    Ok((key.serialize_pem(), base64::engine::general_purpose::STANDARD.encode(key.public_key_raw())))
}

/// Reads a private ticket key, PKCS#8 in PEM.
pub fn read_ticket_key(pem: &str) -> Result<Ed25519KeyPair> {
    use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).context("there is no private key in it")?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        .map_err(|why| anyhow::anyhow!("it is no Ed25519 key: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_key_reads_back_and_its_public_half_fits() {
        use base64::Engine as _;
        use ring::signature::KeyPair as _;
        let (pem, public) = ticket_key().unwrap();
        let key = read_ticket_key(&pem).unwrap();
        assert_eq!(base64::engine::general_purpose::STANDARD.encode(key.public_key().as_ref()), public);
        assert!(read_ticket_key("nonsense").is_err());
    }

    #[test]
    fn a_certificate_is_usable_with_its_key() {
        let (certificate, key) =
            certificate(&["h".into(), "192.0.2.1".into(), "::1".into()], Duration::from_secs(60)).unwrap();
        crate::edges::tls::Server::from_pem(&certificate, &key).unwrap();
        assert_eq!(crate::edges::tls::fingerprint(certificate.as_bytes()).unwrap().len(), 95);
    }
}
