//! `console-proxy doctor`: looks at everything that has to be right, says what is not, and what to do.
//! It changes nothing, and never connects to a serial port: that has room for one.

mod displays;
mod guests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use self::guests::Host;
use super::{sync, ticket};
use crate::edges::paths::Paths;
use crate::edges::revoked::Watched;
use crate::edges::{cage, files, host, issuers, keys, nft, ssh, tls, units};
use crate::rules::config::Config;
use crate::rules::guest::{Uuid, printable};
use crate::rules::plan::Active;
use crate::rules::route::Route;
use crate::rules::ssh as rules;
use crate::rules::web::is_hidden;

/// The units that should be active on a host.
const UNITS: [&str; 10] = [
    "console-proxy.target",
    "console-proxy-sync.path",
    "console-proxy-wire.path",
    "console-proxy-wire-notes.path",
    "console-proxy-broker.socket",
    "console-proxy-auth.socket",
    "console-proxy-guard.service",
    "console-proxy-state.service",
    "console-proxy-keys.timer",
    "console-proxy-prune.timer",
];
/// What sshd is to be told, as it is installed.
const SSHD_SNIPPET: &str = "/usr/share/console-proxy/sshd.conf";
/// Whose members may connect to front sockets.
const FRONT_GROUP: &str = "console-proxy-front";
/// Who may log in by a password, as PAM reads it.
const PAM_SERVICES: [&str; 3] =
    ["/etc/pam.d/console-proxy", "/etc/pam.d/console-proxy-still", "/etc/pam.d/console-proxy-reach"];
/// libvirt's folder of hooks, and the file in it.
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/console-proxy";
const HOOK_BINARY: &str = "/usr/sbin/console-proxy-hook";

/// What was found.
#[derive(Debug)]
enum Finding {
    /// In order.
    Good(String),
    /// Works, but should be known.
    Advice(String),
    /// Only root, or a member of group libvirt, can look at it.
    Unseen(String),
    /// Does not work: what, and what to do.
    Fault(String, String),
}

use Finding::{Advice, Fault, Good, Unseen};

/// Looks, prints, and answers 0 where there is no fault, else 1.
pub fn run(paths: &Paths, out: &mut dyn Write) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let config = configuration(paths, &mut findings);
    hook(&mut findings);
    manager(&mut findings);
    let guarded = guard(paths, &mut findings);
    cages(&mut findings);
    certificate(paths, &config, &mut findings);
    tickets(paths, &mut findings);
    pam(paths, &mut findings);
    revoked(paths, &mut findings);
    page(paths, &config, &mut findings);
    by_ssh(paths, &mut findings);
    front(paths, &config, &mut findings);
    let routes = routes(paths, &mut findings);
    findings.extend(guests::look(&Host { paths: paths.clone(), config, guarded, routes: routes.clone() }));
    if let Some(routes) = routes {
        sockets(paths, &routes, &mut findings);
    }
    print(&findings, out)
}

/// What this kernel has of what proxies forbid themselves by.
fn cages(findings: &mut Vec<Finding>) {
    if !cage::has_filters() {
        findings.push(Fault(
            "this kernel has no filters of system calls: no proxy serves without one".to_owned(),
            "boot a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
        ));
        return;
    }
    findings.push(match cage::Landlock::offered().missing() {
        None => Good("proxies are kept from the network by Landlock and by a filter of system calls".to_owned()),
        Some(missing) => Advice(missing.to_owned()),
    });
}

fn print(findings: &[Finding], out: &mut dyn Write) -> Result<ExitCode> {
    let (mut faults, mut unseen) = (0, 0);
    for finding in findings {
        match finding {
            Unseen(what) => {
                unseen += 1;
                writeln!(out, "unseen  {what}")?;
            }
            Good(what) => writeln!(out, "ok      {what}")?,
            Advice(what) => writeln!(out, "note    {what}")?,
            Fault(what, remedy) => {
                faults += 1;
                writeln!(out, "FAULT   {what}\n        {remedy}")?;
            }
        }
    }
    match faults {
        0 if unseen > 0 => writeln!(out, "no fault in what you may see: run it as root for the rest")?,
        0 => writeln!(out, "everything is in order")?,
        1 => writeln!(out, "1 fault")?,
        n => writeln!(out, "{n} faults")?,
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(paths: &Paths, findings: &mut Vec<Finding>) -> Config {
    match files::config(paths) {
        Ok(config) => {
            findings.push(Good("configuration".to_owned()));
            let range = files::read(&paths.below_root("/proc/sys/net/ipv4/ip_local_port_range"), 100)
                .ok()
                .flatten()
                .unwrap_or_default();
            let mut bounds = range.split_whitespace().filter_map(|word| word.parse::<u16>().ok());
            if let (Some(first), Some(last)) = (bounds.next(), bounds.next()) {
                for (key, ours) in [("listen.ports", config.listen.ports), ("serial.ports", config.serial.ports)] {
                    if (first..=last).contains(&ours.first()) || ours.contains(first) {
                        findings.push(Advice(format!("{key} {ours} overlaps the kernel's range for outgoing connections ({first}-{last}): a port may be held for a moment")));
                    }
                }
            }
            config
        }
        Err(why) => {
            findings
                .push(Fault(format!("{why:#}"), "guests start, but none is published until this is mended".to_owned()));
            Config::default()
        }
    }
}

/// Without a file of ours PAM takes what `other` says, which may let everybody or nobody in.
fn pam(paths: &Paths, findings: &mut Vec<Finding>) {
    for service in PAM_SERVICES.iter().filter(|service| !paths.below_root(service).exists()) {
        let what = format!("{service} is not there: PAM is asked who may log in, and who may stay");
        findings.push(Fault(what, "install the package again (dpkg: --force-confmiss)".to_owned()));
    }
}

/// A proxy that starts while nobody can say what was revoked lets nobody in.
fn revoked(paths: &Paths, findings: &mut Vec<Finding>) {
    if matches!(File::open(paths.revoked()), Err(why) if why.kind() == ErrorKind::PermissionDenied) {
        return findings.push(Unseen(format!("{} cannot be read by you", paths.revoked().display())));
    }
    if Watched::new(paths).refresh().is_none() {
        let file = paths.revoked();
        findings.push(Fault(
            format!("{} cannot be read: proxies that start now let nobody in", file.display()),
            format!(
                "put an older one in its place; or remove it, and revoke again what matters (`rm {}`)",
                file.display()
            ),
        ));
    }
}

fn hook(findings: &mut Vec<Finding>) {
    let executable = |path: &str| std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0);
    if !executable(HOOK) {
        findings.push(Fault(
            format!("{HOOK} is not there or not executable"),
            "install the package again, then reload libvirt's daemon".to_owned(),
        ));
    } else if !executable(HOOK_BINARY) {
        findings.push(Fault(
            format!("{HOOK_BINARY} is not there or not executable"),
            "install the package again".to_owned(),
        ));
    } else {
        findings.push(Good("libvirt's hook is in place".to_owned()));
    }
}

fn manager(findings: &mut Vec<Finding>) {
    for unit in UNITS {
        match units::is_active(unit) {
            Ok(true) => findings.push(Good(unit.to_owned())),
            Ok(false) => findings.push(Fault(
                format!("{unit} is not active"),
                format!("`systemctl enable --now {unit}`; why: `journalctl -u {unit}`"),
            )),
            // One that hangs does so for all.
            Err(why) => return findings.push(Fault(format!("{why:#}"), "is systemd running?".to_owned())),
        }
    }
}

/// Whether everything can be looked at.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What is published; `None` where that cannot be seen.
fn routes(paths: &Paths, findings: &mut Vec<Finding>) -> Option<BTreeMap<Uuid, Route>> {
    let folder = paths.guests();
    match std::fs::read_dir(&folder) {
        Err(why) if why.kind() == ErrorKind::PermissionDenied => {
            findings.push(Unseen(format!(
                "published guests are shown to root and group libvirt alone ({})",
                folder.display()
            )));
            None
        }
        _ => Some(sync::routes(paths)),
    }
}

/// Returns where root alone connects; `None` where that cannot be seen.
fn guard(paths: &Paths, findings: &mut Vec<Finding>) -> Option<BTreeSet<SocketAddr>> {
    let wanted = sync::wanted_guard(files::config(paths).ok().as_ref(), &sync::routes(paths));
    match nft::is_current(&wanted) {
        Ok(true) => findings.push(Good("the guard is in the kernel (table inet console_proxy)".to_owned())),
        Ok(false) => findings.push(Fault(
            "the guard is not in the kernel, or not the one it should be: local users can reach ports that wiring made"
                .to_owned(),
            "`systemctl restart console-proxy-guard`, and look what flushed it".to_owned(),
        )),
        Err(why) => {
            findings.push(if is_root() {
                Advice(format!("the guard cannot be looked at: {why:#}"))
            } else {
                Unseen("the guard can be looked at by root alone".to_owned())
            });
            return None;
        }
    }
    Some(wanted.places)
}

fn certificate(paths: &Paths, config: &Config, findings: &mut Vec<Finding>) {
    let (certificate, key) = (paths.below_root(&config.tls.certificate), paths.below_root(&config.tls.key));
    let remedy = || "`systemctl start console-proxy-keys` makes one where there is none".to_owned();
    let denied = |file: &Path| matches!(File::open(file), Err(why) if why.kind() == ErrorKind::PermissionDenied);
    match tls::Server::load(&certificate, &key).and_then(|_| ticket::fingerprint(paths, config)) {
        Err(_) if !is_root() && (denied(&key) || denied(&certificate)) => {
            findings.push(Unseen(format!("{} cannot be read by you", key.display())));
        }
        Ok(fingerprint) => findings.push(Good(format!("certificate, SHA-256 {fingerprint}"))),
        Err(why) => findings.push(Fault(format!("{why:#}"), remedy())),
    }
    if let Ok(data) = std::fs::metadata(&key)
        && data.permissions().mode() & 0o007 != 0
    {
        findings.push(Fault(
            format!("{} can be read by every local user", key.display()),
            format!("`chmod o= {}`", key.display()),
        ));
    }
    let group = files::group_id("console-proxy");
    let data = std::fs::metadata(&key).ok();
    if let (Some(group), Some(data)) = (group, data)
        && (data.gid() != group || data.permissions().mode() & 0o040 == 0)
    {
        let key = key.display();
        findings.push(Fault(
            format!("{key} cannot be read by group console-proxy"),
            format!("`chgrp console-proxy {key}; chmod g+r {key}`"),
        ));
    }
}

fn page(paths: &Paths, config: &Config, findings: &mut Vec<Finding>) {
    let folder = &config.web.folder;
    if paths.below_root(folder).join("index.html").is_file() {
        findings.push(Good(format!("the page, in {folder}")));
    } else {
        findings.push(Advice(format!(
            "web.folder {folder} has no index.html: browsers are shown a few words instead of the page"
        )));
    }
    for (key, folder) in config.web.folders() {
        if is_hidden(folder) {
            let what = format!("{key} {folder} is hidden from proxies (console-proxy@.service)");
            findings.push(Fault(what, "put it below /usr, for example below /usr/local/share".to_owned()));
        } else if key != "web.folder" && !paths.below_root(folder).is_dir() {
            let what = format!("{key} {folder} is no folder");
            findings.push(Fault(what, "install that client, or take the line out".to_owned()));
        }
    }
}

fn tickets(paths: &Paths, findings: &mut Vec<Finding>) {
    let key = paths.signing_key();
    match files::read(&key, 64 << 10) {
        Ok(Some(pem)) => match keys::read_ticket_key(&pem) {
            Ok(_) => findings.push(Good("the host's ticket key".to_owned())),
            Err(why) => findings.push(Fault(
                format!("{}: {why:#}", key.display()),
                "remove it and `systemctl start console-proxy-keys`".to_owned(),
            )),
        },
        Ok(None) => findings.push(Fault(
            format!("{} does not exist", key.display()),
            "`systemctl start console-proxy-keys`".to_owned(),
        )),
        Err(why) => findings.push(Unseen(format!("{} cannot be read by you: {why}", key.display()))),
    }
    let mut folder = issuers::Folder::load(&paths.issuers());
    let names: Vec<_> = folder.refresh().keys().cloned().collect();
    if names.is_empty() {
        findings.push(Fault(
            format!("no issuer in {}: no ticket counts", paths.issuers().display()),
            "`systemctl start console-proxy-keys`".to_owned(),
        ));
    } else {
        findings.push(Good(format!("issuers of tickets: {}", names.join(", "))));
    }
    for file in folder.refused() {
        findings.push(Fault(
            format!("{} is refused: its tickets do not count", file.display()),
            "what is wrong with it is in the journal, and in docs/tickets.md what it should be".to_owned(),
        ));
    }
}

/// Whether `ssh console@HOST GUEST` works, where sshd was told of it.
fn by_ssh(paths: &Paths, findings: &mut Vec<Finding>) {
    let list = paths.ssh_keys();
    let effective = match ssh::effective_settings() {
        None => return,
        Some(Ok(effective)) => effective,
        Some(Err(_)) if !is_root() => return findings.push(Unseen("sshd tells its settings to root alone".to_owned())),
        Some(Err(why)) => {
            return findings.push(Advice(format!("sshd does not tell its settings: {}", printable(&why))));
        }
    };
    let Some(faults) = rules::sshd_faults(&effective, &list.display().to_string()) else {
        return findings.push(Advice(format!("text consoles by ssh are not set up: {SSHD_SNIPPET} says how to")));
    };
    for fault in &faults {
        findings.push(Fault(
            format!("sshd for user {}: {fault}", rules::USER),
            format!("compare its configuration with {SSHD_SNIPPET}; the first value that sshd finds counts"),
        ));
    }
    if !matches!(units::is_active("console-proxy-ssh.socket"), Ok(true)) {
        findings.push(Fault(
            "console-proxy-ssh.socket is not active: nobody comes in by ssh".to_owned(),
            "`systemctl enable --now console-proxy-ssh.socket`".to_owned(),
        ));
    }
    let text = match files::read(&list, 1 << 20) {
        Ok(text) => text.unwrap_or_default(),
        Err(why) => return findings.push(Unseen(format!("{} cannot be read by you: {why}", list.display()))),
    };
    let keys: Vec<_> = rules::key_lines(&text).collect();
    for key in &keys {
        if let Err(why) = rules::owner(&text, &key.text()) {
            let what = format!("{}: {why}: that key lets nobody in", list.display());
            findings.push(Fault(what, "write the person's name behind the key".to_owned()));
        }
    }
    let others = std::fs::metadata(&list).is_ok_and(|data| data.permissions().mode() & 0o022 != 0);
    if others {
        findings.push(Fault(
            format!("{} can be written by others: sshd ignores it", list.display()),
            format!("`chmod go-w {}`", list.display()),
        ));
    }
    if faults.is_empty() {
        findings.push(Good(format!("text consoles by ssh: {} keys", keys.len())));
    }
}

/// Whether a reverse proxy can reach the guests' sockets, and nobody else, where it is to.
fn front(paths: &Paths, config: &Config, findings: &mut Vec<Finding>) {
    if !config.listen.front {
        if !config.listen.url.is_empty() {
            findings.push(Advice("listen.url is set and listen.front is not: what does that URL lead to?".to_owned()));
        }
        return;
    }
    let (folder, before) = (paths.fronts(), findings.len());
    let Some(group) = files::group_id(FRONT_GROUP) else {
        return findings.push(Fault(format!("there is no group {FRONT_GROUP}"), "`systemd-sysusers`".to_owned()));
    };
    let remedy = || "`systemd-tmpfiles --create console-proxy.conf`".to_owned();
    match std::fs::metadata(&folder) {
        Ok(data) if data.uid() == 0 && data.gid() == group && data.permissions().mode() & 0o7777 == 0o750 => {}
        Ok(_) => findings.push(Fault(
            format!(
                "{} is not 0750 root:{FRONT_GROUP}: others may speak for anybody, or the reverse proxy cannot",
                folder.display()
            ),
            remedy(),
        )),
        Err(why) => findings.push(Fault(format!("{}: {why}", folder.display()), remedy())),
    }
    let members = host::members(FRONT_GROUP, group);
    if members.is_empty() {
        findings.push(Advice(format!(
            "listen.front is on and group {FRONT_GROUP} has no member: `usermod -aG {FRONT_GROUP} www-data` for nginx, \
             then restart it (HAProxy has the group in its own configuration)"
        )));
    } else if findings.len() == before {
        findings.push(Good(format!("front sockets are open to {}", members.join(", "))));
    }
}

fn sockets(paths: &Paths, routes: &BTreeMap<Uuid, Route>, findings: &mut Vec<Finding>) {
    let sockets = match units::sockets() {
        Ok(sockets) => sockets,
        Err(why) => return findings.push(Fault(format!("{why:#}"), "is systemd running?".to_owned())),
    };
    for (uuid, route) in routes {
        if sockets.get(uuid).is_some_and(|unit| unit.active == Active::Yes) {
            continue;
        }
        let reason = files::read(&paths.failure(uuid), 64 << 10).ok().flatten();
        let reason = reason.unwrap_or_else(|| format!("{} is not active", units::socket_of(uuid)));
        let what = format!("{}: port {} does not listen: {}", printable(&route.name), route.port, printable(&reason));
        findings
            .push(Fault(what, "it is tried again by itself; at once: `systemctl start console-proxy-sync`".to_owned()));
    }
}
