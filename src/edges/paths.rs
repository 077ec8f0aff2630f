//! Where everything lies on a host. The one module that knows the folders' names.

use std::path::{Path, PathBuf};

use crate::rules::guest::Uuid;

/// The folders of a host, all below one root: `/`, or another folder in tests.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Paths {
    /// The folders below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folders below the environment's `CONSOLE_PROXY_ROOT`, else `/`.
    #[must_use]
    pub fn from_environment() -> Self {
        std::env::var_os("CONSOLE_PROXY_ROOT").map_or_else(Self::default, Self::new)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A path as the configuration writes it, below this root.
    #[must_use]
    pub fn below_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The configuration file; its `.d/` folder lies beside it.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.at("etc/console-proxy/console-proxy.toml")
    }

    /// The issuers' public keys, a TOML file each.
    #[must_use]
    pub fn issuers(&self) -> PathBuf {
        self.at("etc/console-proxy/issuers.d")
    }

    /// The host's private ticket key, PKCS#8 PEM.
    #[must_use]
    pub fn signing_key(&self) -> PathBuf {
        self.at("etc/console-proxy/signing/host.pem")
    }

    /// The keys with which people come in by ssh, each with its owner's name behind it.
    #[must_use]
    pub fn ssh_keys(&self) -> PathBuf {
        self.at("etc/console-proxy/ssh/authorized_keys")
    }

    /// Where the program that sshd runs asks for a ticket.
    #[must_use]
    pub fn ssh_socket(&self) -> PathBuf {
        self.run().join("ssh/socket")
    }

    /// What survives a reboot: slots, and which certificate we made.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.at("var/lib/console-proxy")
    }

    /// Who has which slot.
    #[must_use]
    pub fn slots(&self) -> PathBuf {
        self.state().join("slots")
    }

    /// The guests that an administrator unwired.
    #[must_use]
    pub fn unwired(&self) -> PathBuf {
        self.state().join("unwired")
    }

    /// What an administrator has ended: sessions, tickets.
    #[must_use]
    pub fn revoked(&self) -> PathBuf {
        self.state().join("revoked/orders.json")
    }

    /// Replaced when a guest's proxy is to look at once at what its sessions stand on.
    #[must_use]
    pub fn look(&self, uuid: &Uuid) -> PathBuf {
        self.guest(uuid).join("look")
    }

    /// Recordings of text consoles, a folder for each guest.
    #[must_use]
    pub fn recordings(&self) -> PathBuf {
        self.state().join("recordings")
    }

    /// The runtime folder.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.at("run/console-proxy")
    }

    /// Notes for sync, one per guest.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.run().join("queue")
    }

    /// Notes for wire, one per guest.
    #[must_use]
    pub fn wire_queue(&self) -> PathBuf {
        self.run().join("wire")
    }

    /// All published guests, a folder each.
    #[must_use]
    pub fn guests(&self) -> PathBuf {
        self.run().join("guests")
    }

    /// A guest's folder; its proxy sees no other.
    #[must_use]
    pub fn guest(&self, uuid: &Uuid) -> PathBuf {
        self.guests().join(uuid.as_str())
    }

    /// A guest's route.
    #[must_use]
    pub fn route(&self, uuid: &Uuid) -> PathBuf {
        self.guest(uuid).join("route.toml")
    }

    /// Why a guest's socket could not be started, for `list` and `doctor`.
    #[must_use]
    pub fn failure(&self, uuid: &Uuid) -> PathBuf {
        self.guest(uuid).join("failure")
    }

    /// What proxies write, a folder for each guest: a file system of its own.
    #[must_use]
    pub fn guest_states(&self) -> PathBuf {
        self.run().join("state")
    }

    /// The folder of that kind of a route: beside it, where it is no published guest's.
    #[must_use]
    pub fn state_of_route(&self, route_file: &Path) -> PathBuf {
        let folder = route_file.parent().and_then(|folder| folder.strip_prefix(self.guests()).ok());
        folder.map_or_else(|| route_file.with_file_name("state"), |name| self.guest_states().join(name))
    }

    /// What a guest's proxy writes: sessions, and who is connected.
    #[must_use]
    pub fn guest_state(&self, uuid: &Uuid) -> PathBuf {
        self.guest_states().join(uuid.as_str())
    }

    /// A guest's socket for a reverse proxy of this host.
    #[must_use]
    pub fn front(&self, uuid: &Uuid) -> PathBuf {
        self.fronts().join(format!("{uuid}.sock"))
    }

    /// The folder of those sockets.
    #[must_use]
    pub fn fronts(&self) -> PathBuf {
        self.run().join("front")
    }

    /// The broker's socket.
    #[must_use]
    pub fn broker_socket(&self) -> PathBuf {
        self.run().join("broker/socket")
    }

    /// Where a proxy asks about a user and a password.
    #[must_use]
    pub fn auth_socket(&self) -> PathBuf {
        self.run().join("auth/socket")
    }

    /// Failed passwords of the whole host, counted.
    #[must_use]
    pub fn failures(&self) -> PathBuf {
        self.run().join("failures/counts")
    }

    /// The drop-in with a guest's port.
    #[must_use]
    pub fn drop_in(&self, uuid: &Uuid) -> PathBuf {
        self.at(&format!("run/systemd/system/console-proxy@{uuid}.socket.d/50-listen.conf"))
    }

    /// The drop-in with the user of a guest's proxy.
    #[must_use]
    pub fn user_drop_in(&self, uuid: &Uuid) -> PathBuf {
        self.at(&format!("run/systemd/system/console-proxy@{uuid}.service.d/50-user.conf"))
    }

    /// The folder of all drop-ins.
    #[must_use]
    pub fn units(&self) -> PathBuf {
        self.at("run/systemd/system")
    }

    /// libvirt's configuration of its QEMU driver.
    #[must_use]
    pub fn qemu_conf(&self) -> PathBuf {
        self.at("etc/libvirt/qemu.conf")
    }

    /// libvirt's stored definitions.
    #[must_use]
    pub fn definitions(&self) -> PathBuf {
        self.at("etc/libvirt/qemu")
    }

    /// Where libvirt keeps guests' logs.
    #[must_use]
    pub fn guest_logs(&self) -> PathBuf {
        self.below_root(crate::rules::log::FOLDER)
    }

    /// libvirt's file with the pid of a running guest's QEMU, by the guest's name; `None` for a name that is no file's.
    #[must_use]
    pub fn qemu_pid(&self, name: &str) -> Option<PathBuf> {
        Some(self.at("run/libvirt/qemu").join(crate::rules::serving::pid_file(name)?))
    }

    /// Held by who changes routes.
    #[must_use]
    pub fn routes_lock(&self) -> PathBuf {
        self.guests().join(".lock")
    }

    /// Where locks of terminal devices lie, by UUCP's rules.
    #[must_use]
    pub fn terminal_locks(&self) -> PathBuf {
        self.at("var/lock")
    }

    /// Whether this is the host that runs, and not the tree of another: then libvirt and systemd can be asked.
    #[must_use]
    pub fn is_this_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The root that all this lies below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}
