//! The vocabulary of the suite: what an administrator does on a host, with failures that say what happened.

#![allow(dead_code)] // A vocabulary is larger than what today's tests say.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use console_proxy::rules::guest::Uuid;
use serde_json::Value;

use crate::ws::{Refused, Ws};

/// Runs a shell command; panics with all it said when it fails. Returns its stdout without the last newline.
#[track_caller]
pub fn sh(command: &str) -> String {
    try_sh(command).unwrap_or_else(|said| panic!("`{command}` failed: {said}"))
}

/// Runs a shell command: its stdout when it succeeds, all that it said when not.
pub fn try_sh(command: &str) -> Result<String, String> {
    let output = Command::new("bash").args(["-c", command]).stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        Ok(stdout)
    } else {
        Err(format!("{}\n{stdout}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()))
    }
}

#[track_caller]
pub fn virsh(arguments: &str) -> String {
    sh(&format!("virsh --quiet {arguments}"))
}

#[track_caller]
pub fn systemctl(arguments: &str) -> String {
    sh(&format!("systemctl {arguments}"))
}

/// `systemctl is-active`: active, inactive, failed, activating, ...
pub fn state_of(unit: &str) -> String {
    try_sh(&format!("systemctl is-active '{unit}' || true")).unwrap()
}

/// A property of a unit, as `systemctl show` has it.
#[track_caller]
pub fn property(unit: &str, name: &str) -> String {
    systemctl(&format!("show --value -p {name} '{unit}'"))
}

/// Asks until there is an answer, ten times a second; panics with `what` when there is none in time.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} for {what}\n{}", last_words());
        sleep(Duration::from_millis(100));
    }
}

#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

pub const SOON: Duration = Duration::from_secs(10);

/// The end of the journal, for a failure's text.
fn last_words() -> String {
    let lines = try_sh("journalctl --no-pager -n 25 -o short-precise").unwrap_or_default();
    format!("the journal's last lines:\n{lines}")
}

/// The journal's cursor now; [`journal_since`] reads from there.
#[must_use]
pub fn journal_cursor() -> String {
    sh("journalctl --sync; journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")
}

#[track_caller]
pub fn journal_since(cursor: &str) -> String {
    sh(&format!("journalctl --sync; journalctl --no-pager -o short-precise --after-cursor='{cursor}'"))
}

/// Further configuration, in a file of its own under `console-proxy.toml.d/`; taken away at the end of a test.
pub struct Configured(PathBuf);

impl Configured {
    #[track_caller]
    pub fn with(text: &str) -> Self {
        let folder = Path::new("/etc/console-proxy/console-proxy.toml.d");
        fs::create_dir_all(folder).unwrap();
        let path = folder.join("50-e2e.toml");
        assert!(!path.exists(), "one configuration at a time");
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Running {
    /// Starts a shell command with its input open.
    #[track_caller]
    pub fn sh(command: &str) -> Self {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(shell.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user of this host who ends with the test; `groups` as useradd takes them.
pub struct User(pub &'static str);

impl User {
    #[track_caller]
    pub fn in_groups(name: &'static str, groups: &str) -> Self {
        let groups = if groups.is_empty() { String::new() } else { format!("--groups {groups}") };
        sh(&format!("useradd --create-home --shell /bin/bash {groups} {name}"));
        Self(name)
    }

    /// Runs a command as this user, from a home of its own.
    pub fn run(&self, command: &str) -> Result<String, String> {
        try_sh(&format!("cd / && runuser -u {} -- env -i HOME=/home/{0} PATH=/usr/bin:/bin {command}", self.0))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = try_sh(&format!("loginctl terminate-user {0}; pkill -KILL -u {0}; userdel --remove {0}", self.0));
    }
}

/// A file whose content is put back at the end of a test, however that ends.
pub struct Replaced {
    path: PathBuf,
    saved: PathBuf,
}

impl Replaced {
    /// Takes the file away.
    pub fn removed(path: &str) -> Self {
        let saved = PathBuf::from(format!("{path}.e2e-saved"));
        fs::rename(path, &saved).unwrap_or_else(|why| panic!("{path}: {why}"));
        Self { path: path.into(), saved }
    }

    /// Puts an executable with this content in its place.
    pub fn by_script(path: &str, content: &str) -> Self {
        let replaced = Self::removed(path);
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        replaced
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        fs::rename(&self.saved, &self.path).unwrap();
    }
}

/// Restarts libvirt's daemon, and waits until it answers.
#[track_caller]
pub fn restart_libvirtd() {
    systemctl("restart libvirtd");
    wait_until("libvirtd to answer", Duration::from_secs(60), || try_sh("virsh list").is_ok());
}

/// Where the package is that the suite is about.
pub const PACKAGE: &str = "/root/console-proxy.deb";

/// Installs the package (again).
#[track_caller]
pub fn install_package() {
    sh(&format!("DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --reinstall {PACKAGE}"));
}

/// A test guest; it is destroyed and undefined when the value goes out of scope.
pub struct Guest {
    pub name: String,
}

/// A guest that is about to be defined.
pub struct Definition {
    name: String,
    options: String,
}

impl Guest {
    pub fn define(name: &str) -> Definition {
        Definition { name: name.to_owned(), options: String::new() }
    }

    /// Takes over a guest that is there, by its name or UUID.
    pub fn existing(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    #[track_caller]
    pub fn start(&self) -> &Self {
        virsh(&format!("start '{}'", self.name));
        self
    }

    #[track_caller]
    pub fn destroy(&self) -> &Self {
        let destroyed = try_sh(&format!("virsh --quiet destroy '{}'", self.name));
        // libvirt may notice that QEMU has ended before its own request is done; the guest is off all the same.
        let is_off = destroyed.as_ref().err().is_none_or(|why| why.contains("domain is not running"));
        assert!(is_off, "{destroyed:?}");
        self
    }

    /// As `console-proxy list --json` shows it; `None` where it is not published.
    #[track_caller]
    pub fn listed(&self) -> Option<Value> {
        let listing: Value = serde_json::from_str(&sh("console-proxy list --json")).expect("list --json is JSON");
        listing["guests"].as_array().unwrap().iter().find(|guest| guest["name"] == self.name.as_str()).cloned()
    }

    /// Its public port, as soon as that listens.
    #[track_caller]
    pub fn port(&self) -> u16 {
        wait_for(&format!("{} to listen", self.name), SOON, || {
            let shown = self.listed().filter(|shown| shown["state"] == "listening")?;
            Some(shown["port"].as_u64().unwrap() as u16)
        })
    }

    /// A ticket for all of its consoles.
    #[track_caller]
    pub fn ticket(&self) -> String {
        self.ticket_with("")
    }

    /// A ticket with further options of `console-proxy ticket`.
    #[track_caller]
    pub fn ticket_with(&self, options: &str) -> String {
        sh(&format!("console-proxy ticket {options} '{}'", self.name))
    }

    /// Opens a console with a ticket of its own.
    #[track_caller]
    pub fn open(&self, console: &str) -> Ws {
        self.try_open(console).unwrap_or_else(|why| panic!("{} of {}: {why:?}", console, self.name))
    }

    #[track_caller]
    pub fn try_open(&self, console: &str) -> Result<Ws, Refused> {
        Ws::connect(self.port(), &format!("/{console}"), &self.ticket())
    }

    /// What libvirt calls its state: `running`, `shut off`, ...
    #[track_caller]
    pub fn state(&self) -> String {
        virsh(&format!("domstate '{}'", self.name))
    }

    #[track_caller]
    pub fn uuid(&self) -> String {
        // virsh domuuid takes a name or an id, other verbs a UUID, too.
        if self.name.parse::<Uuid>().is_ok() {
            return self.name.clone();
        }
        virsh(&format!("domuuid '{}'", self.name)).trim().to_owned()
    }

    /// Its live XML, or the stored one while it is off.
    #[track_caller]
    pub fn xml(&self) -> String {
        virsh(&format!("dumpxml '{}'", self.name))
    }

    /// Its stored definition.
    #[track_caller]
    pub fn definition(&self) -> String {
        virsh(&format!("dumpxml --inactive '{}'", self.name))
    }

    #[track_caller]
    pub fn socket(&self) -> String {
        format!("console-proxy@{}.socket", self.uuid())
    }

    #[track_caller]
    pub fn service(&self) -> String {
        format!("console-proxy@{}.service", self.uuid())
    }

    /// Process id of its QEMU.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        sh(&format!("cat '/run/libvirt/qemu/{}.pid'", self.name)).parse().unwrap()
    }

    /// The text on its VGA screen, read from its memory: nobody needs to look at a console for that.
    #[track_caller]
    pub fn screen(&self) -> String {
        let command = format!("qemu-monitor-command '{}' --hmp 'xp /8192xw 0xb8000'", self.name);
        let dump = virsh(&command);
        let mut text = String::new();
        for word in dump.split_whitespace().filter_map(|word| word.strip_prefix("0x")) {
            let word = u32::from_str_radix(word, 16).unwrap_or(0);
            for cell in [word, word >> 16] {
                let letter = (cell & 0xff) as u8;
                text.push(if (b' '..=b'~').contains(&letter) { char::from(letter) } else { ' ' });
            }
        }
        text
    }

    /// Waits for the shell on its screen.
    #[track_caller]
    pub fn wait_to_boot(&self) -> &Self {
        let banner = format!("console-proxy test guest {} on tty1", self.name);
        wait_until(&format!("{} to boot", self.name), Duration::from_secs(60), || self.screen().contains(&banner));
        self
    }

    /// The file name of its first serial port's terminal.
    #[track_caller]
    pub fn pty(&self) -> String {
        virsh(&format!("ttyconsole '{}'", self.name)).trim().to_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let name = &self.name;
        let _ = try_sh(&format!("virsh destroy '{name}'; virsh undefine --managed-save --snapshots-metadata '{name}'"));
    }
}

impl Definition {
    fn with(mut self, option: &str) -> Self {
        write!(self.options, " {option}").unwrap();
        self
    }

    pub fn with_pty_serial(self) -> Self {
        self.with("--pty")
    }

    pub fn with_tcp_serial(self, port: u16) -> Self {
        self.with(&format!("--tcp {port}"))
    }

    pub fn with_tcp_serial_at(self, address: &str, port: u16) -> Self {
        self.with(&format!("--tcp {address}:{port}"))
    }

    pub fn with_unix_serial(self, path: &str) -> Self {
        self.with(&format!("--unix '{path}'"))
    }

    pub fn with_virtio_console(self) -> Self {
        self.with("--virtio-console")
    }

    pub fn with_vnc(self) -> Self {
        self.with("--vnc")
    }

    pub fn with_vnc_websocket(self) -> Self {
        self.with("--vnc-websocket")
    }

    pub fn with_spice(self) -> Self {
        self.with("--spice")
    }

    /// A display without a port, as `define-guest` calls it: `vnc-none`, `spice-socket`, ...
    pub fn with_display(self, option: &str) -> Self {
        self.with(&format!("--{option}"))
    }

    /// A password for the displays that are named behind it.
    pub fn with_password(self, word: &str) -> Self {
        self.with(&format!("--password {word}"))
    }

    /// SPICE on a TLS port alone.
    pub fn with_secure_spice(self) -> Self {
        self.with("--spice-secure")
    }

    pub fn with_uuid(self, uuid: &str) -> Self {
        self.with(&format!("--uuid {uuid}"))
    }

    /// A log of the serial ports that are named behind it.
    pub fn with_log(self, file: &str) -> Self {
        self.with(&format!("--log '{file}'"))
    }

    /// Little memory and nothing to boot: for a guest that only has to run.
    pub fn blank(self) -> Self {
        self.with("--blank")
    }

    pub fn with_autostart(self) -> Self {
        self.with("--autostart")
    }

    /// Hands it to libvirt.
    #[track_caller]
    pub fn done(self) -> Guest {
        sh(&format!("define-guest '{}'{}", self.name, self.options));
        Guest { name: self.name }
    }

    /// Hands it to libvirt and starts it.
    #[track_caller]
    pub fn started(self) -> Guest {
        let guest = self.done();
        guest.start();
        guest
    }
}

/// All files under the folders that are the package's own, for "nothing is left".
#[must_use]
pub fn files_named_console_proxy() -> Vec<String> {
    let found = sh("find /etc /usr /var /run -xdev \\( -path '*/console-proxy*' -o -name 'console-proxy*' \\) \
         ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/var/cache/*' ! -path '/usr/local/*' 2>/dev/null; \
         find /run -mindepth 1 -name '*console-proxy*' 2>/dev/null; true");
    found.lines().filter(|line| !line.contains("/journal/")).map(str::to_owned).collect()
}

/// Whether a file exists.
#[must_use]
pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
