//! SSSD's own word on whether it reaches its directory, over D-Bus (Debian's package sssd-dbus, Fedora's sssd-dbus):
//! to those who ask it about a user whom it has never seen, it says "no such user" in either case.

use std::process::{Command, Stdio};

const SERVICE: &str = "org.freedesktop.sssd.infopipe";
const ROOT: &str = "/org/freedesktop/sssd/infopipe";

/// Whether all directories of this host's SSSD answer; `None` where there is no SSSD that could be asked.
#[must_use]
pub fn is_online() -> Option<bool> {
    let domains = call(ROOT, SERVICE, "ListDomains")?;
    let online = |domain: &str| call(domain, "org.freedesktop.sssd.infopipe.Domains.Domain", "IsOnline");
    let answers: Option<Vec<_>> = quoted(&domains).map(online).collect();
    // One that has just been started may not know its domains yet.
    answers.filter(|answers| !answers.is_empty()).map(|answers| answers.iter().all(|answer| answer.trim() == "b true"))
}

/// Whether this host is to have an SSSD, whether it runs or not.
#[must_use]
pub fn is_configured() -> bool {
    let parts = std::fs::read_dir("/etc/sssd/conf.d").is_ok_and(|mut parts| parts.next().is_some());
    parts || std::path::Path::new("/etc/sssd/sssd.conf").exists()
}

/// Whether there is a socket where its PAM module asks.
#[must_use]
pub fn is_listening() -> bool {
    std::path::Path::new("/var/lib/sss/pipes/pam").exists()
}

fn call(object: &str, interface: &str, method: &str) -> Option<String> {
    let output = Command::new("busctl")
        .args(["--system", "--timeout=3", "call", SERVICE, object, interface, method])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The strings in what busctl prints: `ao 1 "/org/freedesktop/sssd/infopipe/Domains/example_2eorg"`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_that_busctl_prints_are_read() {
        let text = "ao 2 \"/org/freedesktop/sssd/infopipe/Domains/a\" \"/org/freedesktop/sssd/infopipe/Domains/b\"\n";
        assert_eq!(quoted(text).count(), 2);
        assert!(quoted(text).all(|object| object.starts_with(ROOT)));
        assert_eq!(quoted("ao 0\n").next(), None);
    }
}
