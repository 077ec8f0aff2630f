//! `console-proxy keys`: makes what is missing, before the first socket: the host's ticket key and
//! its certificate; renews a certificate that it made itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::edges::paths::Paths;
use crate::edges::publish::now;
use crate::edges::{files, host, keys, tls};

/// How long our certificate counts, and how long before its end it is renewed.
const LIFE: Duration = Duration::from_secs(825 * 86_400);
const BEFORE: u64 = 30 * 86_400;

/// Makes or renews what needs it.
pub fn run(paths: &Paths) -> Result<()> {
    ticket_key(paths).context("cannot make the host's ticket key")?;
    certificate(paths).context("cannot make the host's certificate")
}

fn ticket_key(paths: &Paths) -> Result<()> {
    let (private, public) = (paths.signing_key(), paths.issuers().join("host.toml"));
    if private.exists() && public.exists() {
        return Ok(());
    }
    let (pem, key) = keys::ticket_key()?;
    folder_of(&private, 0o750, "libvirt")?;
    files::make_folder(&paths.issuers(), 0o755)?;
    files::replace(&private, pem.as_bytes(), 0o640)?;
    files::give_to_group(&private, "libvirt")?;
    let text =
        format!("# This host's own tickets: `console-proxy url` and `console-proxy ticket`.\npublic-key = \"{key}\"\n");
    files::replace(&public, text.as_bytes(), 0o644)?;
    tracing::info!("made the host's ticket key, {}", private.display());
    Ok(())
}

fn certificate(paths: &Paths) -> Result<()> {
    let config = files::config(paths)?;
    let (certificate, key) = (paths.below_root(&config.tls.certificate), paths.below_root(&config.tls.key));
    let made = certificate.with_file_name("made-by-console-proxy");
    if certificate.exists() || key.exists() {
        match ours(&certificate, &made) {
            // The administrator's own is never touched.
            None => return Ok(()),
            Some(ends) if ends > now() + BEFORE => return Ok(()),
            Some(_) => {}
        }
    }
    let mut names = vec![host::full_name(), host::name(), "localhost".to_owned()];
    if !config.listen.host.is_empty() {
        names.push(config.listen.host.trim_matches(['[', ']']).to_owned());
    }
    names.extend(host::addresses().iter().map(ToString::to_string));
    names.sort();
    names.dedup();
    let (pem, private) = keys::certificate(&names, LIFE)?;
    folder_of(&certificate, 0o751, "console-proxy")?;
    folder_of(&key, 0o751, "console-proxy")?;
    // The key first: a reader that sees the old certificate with the new key keeps what it had.
    files::replace(&key, private.as_bytes(), 0o640)?;
    files::give_to_group(&key, "console-proxy")?;
    files::replace(&certificate, pem.as_bytes(), 0o644)?;
    let fingerprint = tls::fingerprint(pem.as_bytes())?;
    files::replace(&made, format!("{fingerprint} {}\n", now() + LIFE.as_secs()).as_bytes(), 0o600)?;
    tracing::info!("made the host's certificate, SHA-256 {fingerprint}, for {}", names.join(", "));
    Ok(())
}

/// When our own certificate ends (seconds since 1970); `None` where it is not ours.
fn ours(certificate: &Path, made: &Path) -> Option<u64> {
    let note = files::read(made, 1024).ok()??;
    let (fingerprint, ends) = note.trim().split_once(' ')?;
    let there = tls::fingerprint(&std::fs::read(certificate).ok()?).ok()?;
    (there == fingerprint).then(|| ends.parse().ok())?
}

fn folder_of(file: &Path, mode: u32, group: &str) -> Result<()> {
    let folder = file.parent().context("it has no folder")?;
    if !folder.is_dir() {
        files::make_folder(folder, mode)?;
        files::give_to_group(folder, group)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_certificate_that_was_made_here_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, made) = (folder.path().join("c"), folder.path().join("m"));
        let (pem, _) = keys::certificate(&["h".into()], LIFE).unwrap();
        std::fs::write(&certificate, &pem).unwrap();
        assert_eq!(ours(&certificate, &made), None);
        std::fs::write(&made, format!("{} 77\n", tls::fingerprint(pem.as_bytes()).unwrap())).unwrap();
        assert_eq!(ours(&certificate, &made), Some(77));
        let (other, _) = keys::certificate(&["h".into()], LIFE).unwrap();
        std::fs::write(&certificate, other).unwrap();
        assert_eq!(ours(&certificate, &made), None);
    }
}
