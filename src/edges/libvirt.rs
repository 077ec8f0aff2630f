//! libvirt, through the crate `virt`: the one module that calls it.
//!
//! Stored definitions are changed by single-device calls alone (`VIR_DOMAIN_AFFECT_CONFIG`); there is
//! no way here to define a text. Must never be used from the hook: libvirt holds the guest's lock there.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

use crate::rules::domain::{ALIAS, WIRING_NAMESPACE};
use crate::rules::guest::{BadUuid, Uuid, printable};
use crate::rules::wiring::{Call, NOTE_KEY};

/// The daemon whose guests are served. `qemu:///session` guests are not.
const SYSTEM: &str = "qemu:///system";
/// How long its daemon may take to answer a new connection. It is slow while it starts, with many guests.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why libvirt did not do what was asked, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// No connection.
    #[error(
        "cannot connect to libvirt ({0}); is libvirtd or virtqemud running, and are you root or a member of group libvirt?"
    )]
    Unreachable(String),
    /// Its daemon takes connections and does not answer.
    #[error(
        "libvirt's daemon has not answered for {0} s: it hangs, or is busy with something long; `systemctl status libvirtd virtqemud`"
    )]
    Silent(u64),
    /// The connection ended while it was used.
    #[error("libvirt went away ({0}); try again when its daemon is back")]
    Lost(String),
    /// Neither an id nor a UUID nor a name.
    #[error("there is no guest {0:?}; `virsh list --all` shows all")]
    NoSuchGuest(String),
    /// libvirt, or polkit, refuses this user.
    #[error("libvirt does not allow it ({0}); run this as root or as a member of group libvirt")]
    NotAllowed(String),
    /// Another job holds the guest: it is starting, being saved or migrated.
    #[error("the guest is busy ({0}); try again when it has started, or when its job is done")]
    Busy(String),
    /// Anything else, in libvirt's words.
    #[error("libvirt: {0}")]
    Other(String),
    /// libvirt named a guest by what is no UUID.
    #[error("libvirt gave a guest's UUID as {0}")]
    Uuid(#[from] BadUuid),
}

impl LibvirtError {
    /// Whether it may go well a little later, with nothing changed by a person.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Lost(_) | Self::Unreachable(_) | Self::Silent(_))
    }
}

impl From<virt::error::Error> for LibvirtError {
    fn from(why: virt::error::Error) -> Self {
        let words = printable(why.message());
        match why.code().to_raw() {
            sys::VIR_ERR_NO_DOMAIN => Self::NoSuchGuest(words),
            sys::VIR_ERR_OPERATION_TIMEOUT => Self::Busy(words),
            sys::VIR_ERR_OPERATION_DENIED
            | sys::VIR_ERR_ACCESS_DENIED
            | sys::VIR_ERR_AUTH_FAILED
            | sys::VIR_ERR_AUTH_CANCELLED
            | sys::VIR_ERR_AUTH_UNAVAILABLE => Self::NotAllowed(words),
            sys::VIR_ERR_RPC => Self::Lost(words),
            sys::VIR_ERR_SYSTEM_ERROR | sys::VIR_ERR_NO_CONNECT => Self::Unreachable(words),
            // The client library's words for a daemon that ended; it has no code of its own.
            _ if words.contains("client socket is closed") => Self::Lost(words),
            _ => Self::Other(words),
        }
    }
}

/// A connection to the host's libvirt.
#[derive(Debug)]
pub struct Libvirt(Connect);

/// A guest that libvirt knows, as it was when it was looked up.
#[derive(Debug)]
pub struct Guest {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name; any text.
    pub name: String,
    /// Its id, while it runs.
    pub id: Option<u32>,
    /// libvirt keeps a definition of it.
    pub persistent: bool,
    /// libvirt starts it at boot.
    pub autostart: bool,
    domain: Domain,
}

/// Which of a guest's XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What runs, or the definition where nothing runs.
    Live,
    /// The same with passwords; not over a connection for looking alone. Not for printing.
    LiveWithSecrets,
    /// The stored definition.
    Stored,
    /// The stored definition with passwords, as changing a device needs it. Not for printing.
    StoredWithSecrets,
}

impl Libvirt {
    /// Connects for changes. Members of group `libvirt` may, as with virsh.
    pub fn open() -> Result<Self, LibvirtError> {
        Self::open_at(SYSTEM, false)
    }

    /// Connects for looking alone.
    pub fn open_read_only() -> Result<Self, LibvirtError> {
        Self::open_at(SYSTEM, true)
    }

    fn open_at(uri: &str, read_only: bool) -> Result<Self, LibvirtError> {
        // libvirt's client library prints every error on stderr otherwise.
        virt::error::clear_error_callback();
        let (answer, answered) = mpsc::channel();
        let uri = uri.to_owned();
        // The library's calls cannot be given up: a daemon that hangs keeps the thread, and nobody else.
        let opening = move || {
            let uri = Some(uri.as_str());
            let connection = if read_only { Connect::open_read_only(uri) } else { Connect::open(uri) };
            // An error is the thread's own until it has been read.
            let _ = answer.send(connection.map_err(LibvirtError::from));
        };
        let spawned = std::thread::Builder::new().name("libvirt".to_owned()).spawn(opening);
        spawned.map_err(|why| LibvirtError::Other(format!("cannot start a thread: {why}")))?;
        let connection = answered.recv_timeout(PATIENCE).map_err(|_| LibvirtError::Silent(PATIENCE.as_secs()))?;
        connection.map(Self).map_err(|why| match why {
            LibvirtError::NotAllowed(words) => LibvirtError::NotAllowed(words),
            LibvirtError::Lost(words) | LibvirtError::Other(words) | LibvirtError::Unreachable(words) => {
                LibvirtError::Unreachable(words)
            }
            other => other,
        })
    }

    /// All guests, running or defined, in the order of their names.
    pub fn guests(&self) -> Result<Vec<Guest>, LibvirtError> {
        // Three calls for any number of guests, instead of two for each.
        let persistent = self.uuids(sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
        let autostart = self.uuids(sys::VIR_CONNECT_LIST_DOMAINS_AUTOSTART)?;
        let mut guests = Vec::new();
        for domain in self.0.list_all_domains(0)? {
            let uuid: Uuid = domain.uuid_string()?.parse()?;
            guests.push(Guest {
                name: domain.name()?,
                id: domain.id(),
                persistent: persistent.contains(&uuid),
                autostart: autostart.contains(&uuid),
                uuid,
                domain,
            });
        }
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(guests)
    }

    fn uuids(&self, flags: u32) -> Result<HashSet<Uuid>, LibvirtError> {
        let domains = self.0.list_all_domains(flags)?;
        domains.iter().map(|domain| Ok(domain.uuid_string()?.parse()?)).collect()
    }

    /// The guest with that UUID, and not one whose name is the same text.
    pub fn guest(&self, uuid: &Uuid) -> Result<Guest, LibvirtError> {
        Guest::of(self.0.lookup_domain_by_uuid_string(uuid.as_str())?)
    }

    /// The guest that a person means: an id, a UUID or a name, tried in virsh's order.
    pub fn find(&self, text: &str) -> Result<Guest, LibvirtError> {
        let missing = |why: virt::error::Error| match LibvirtError::from(why) {
            LibvirtError::NoSuchGuest(_) => Ok(None),
            other => Err(other),
        };
        if let Ok(id) = text.parse::<u32>()
            && let Some(domain) = self.0.lookup_domain_by_id(id).map(Some).or_else(missing)?
        {
            return Guest::of(domain);
        }
        if let Ok(uuid) = text.parse::<Uuid>()
            && let Some(domain) = self.0.lookup_domain_by_uuid_string(uuid.as_str()).map(Some).or_else(missing)?
        {
            return Guest::of(domain);
        }
        // libvirt has other words for an empty name.
        let name = if text.is_empty() { " " } else { text };
        match self.0.lookup_domain_by_name(name).map(Some).or_else(missing)? {
            Some(domain) => Guest::of(domain),
            None => Err(LibvirtError::NoSuchGuest(printable(text))),
        }
    }
}

impl Guest {
    fn of(domain: Domain) -> Result<Self, LibvirtError> {
        Ok(Self {
            uuid: domain.uuid_string()?.parse()?,
            name: domain.name()?,
            id: domain.id(),
            persistent: domain.is_persistent()?,
            // A transient guest has no such setting, and libvirt says so with an error.
            autostart: domain.autostart().unwrap_or(false),
            domain,
        })
    }

    /// Whether it ran when it was looked up.
    #[must_use]
    pub fn active(&self) -> bool {
        self.id.is_some()
    }

    /// Its name, fit for a terminal.
    #[must_use]
    pub fn shown(&self) -> String {
        printable(&self.name)
    }

    /// Its XML.
    pub fn xml(&self, which: Which) -> Result<String, LibvirtError> {
        let flags = match which {
            Which::Live => 0,
            Which::LiveWithSecrets => sys::VIR_DOMAIN_XML_SECURE,
            Which::Stored => sys::VIR_DOMAIN_XML_INACTIVE,
            Which::StoredWithSecrets => sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE,
        };
        Ok(self.domain.xml_desc(flags)?)
    }

    /// Connects to a display, by its place among the guest's `<graphics>`: one end of a socket pair whose other end
    /// QEMU has. The display's password or SASL is asked for there as everywhere (no `SKIPAUTH`). Waits for the guest's
    /// job, 30 s at most, and for QEMU without end.
    pub fn open_display(&self, index: u32) -> Result<OwnedFd, LibvirtError> {
        Ok(raw::open_display(&self.domain, index)?)
    }

    /// Makes one change of the stored definition; what runs stays as it is. Waits for the guest's job.
    pub fn call(&self, call: &Call) -> Result<(), LibvirtError> {
        const CONFIG: u32 = sys::VIR_DOMAIN_AFFECT_CONFIG;
        let domain = &self.domain;
        match call {
            Call::Note(note) => domain.set_metadata(
                sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed(),
                note.as_deref(),
                Some(NOTE_KEY),
                Some(WIRING_NAMESPACE),
                CONFIG,
            )?,
            Call::DetachOurs => raw::detach_by_alias(domain, ALIAS, CONFIG)?,
            Call::Detach(xml) => domain.detach_device_flags(xml, CONFIG)?,
            Call::Attach(xml) => domain.attach_device_flags(xml, CONFIG)?,
            Call::Update(xml) => domain.update_device_flags(xml, CONFIG)?,
        }
        Ok(())
    }
}

/// The calls that the crate `virt` does not wrap, or not wholly.
mod raw {
    #![allow(unsafe_code)]

    use std::ffi::CString;
    use std::os::fd::{FromRawFd, OwnedFd};

    use virt::domain::Domain;
    use virt::error::Error;
    use virt::sys;

    pub(super) fn detach_by_alias(domain: &Domain, alias: &str, flags: u32) -> Result<(), Error> {
        let alias = CString::new(alias)?;
        // SAFETY: `domain` holds a reference on the pointer for the whole call, and `alias` is a string
        // that ends in NUL and lives as long; libvirt keeps neither.
        let done = unsafe { sys::virDomainDetachDeviceAlias(domain.as_ptr(), alias.as_ptr(), flags) };
        if done == 0 { Ok(()) } else { Err(Error::last_error()) }
    }

    pub(super) fn open_display(domain: &Domain, index: u32) -> Result<OwnedFd, Error> {
        let descriptor = domain.open_graphics_fd(index, 0)?;
        // SAFETY: libvirt received the descriptor for this call and gave it away with it: it is open, and nobody
        // else's. It came from libvirt as a C int that is not negative.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor.cast_signed()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// libvirt's own test driver: one running guest named `test`, id 1. All connections of a process share it, and what
    /// they define, until the last is closed: one test at a time.
    struct Driver(Libvirt, #[allow(dead_code, reason = "held until the connection is closed")] MutexGuard<'static, ()>);

    impl std::ops::Deref for Driver {
        type Target = Libvirt;
        fn deref(&self) -> &Libvirt {
            &self.0
        }
    }

    fn driver() -> Driver {
        static ONE: Mutex<()> = Mutex::new(());
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Driver(Libvirt::open_at("test:///default", false).unwrap(), turn)
    }

    #[test]
    fn a_guest_is_found_by_id_uuid_or_name_in_virshs_order() {
        let libvirt = driver();
        let guests = libvirt.guests().unwrap();
        let guest = &guests[0];
        assert_eq!((guests.len(), guest.name.as_str(), guest.id, guest.persistent), (1, "test", Some(1), true));
        for text in ["1", "test", guest.uuid.as_str()] {
            assert_eq!(libvirt.find(text).unwrap().uuid, guest.uuid, "{text}");
        }
        for text in ["2", "tes", "", "b50bdc9f-490b-4b9b-8641-7573c0eba77c", "\u{1b}[2J"] {
            let why = libvirt.find(text).unwrap_err();
            assert!(matches!(why, LibvirtError::NoSuchGuest(_)), "{why:?}");
            assert!(!why.to_string().contains('\u{1b}'));
        }
    }

    #[test]
    fn a_guest_whose_name_is_anothers_uuid_is_not_taken_for_it() {
        let libvirt = driver();
        let uuid: Uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        let xml =
            format!("<domain type='test'><name>{uuid}</name><memory>1</memory><os><type>hvm</type></os></domain>");
        libvirt.0.0.define_domain_xml(&xml).unwrap();
        assert_ne!(libvirt.find(uuid.as_str()).unwrap().uuid, uuid, "for a person it is");
        assert!(matches!(libvirt.guest(&uuid), Err(LibvirtError::NoSuchGuest(_))));
        let running = libvirt.find("test").unwrap().uuid;
        assert_eq!(libvirt.guest(&running).unwrap().name, "test");
    }

    #[test]
    fn a_guests_xml_is_what_the_rules_read() {
        let libvirt = driver();
        let guest = libvirt.find("test").unwrap();
        assert!(guest.active());
        let domain = crate::rules::domain::Domain::parse(&guest.xml(Which::Stored).unwrap()).unwrap();
        assert_eq!(domain.uuid, guest.uuid);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_unreachable_and_passes() {
        let why = Libvirt::open_at("qemu+unix:///system?socket=/nonexistent/socket", true).unwrap_err();
        assert!(matches!(why, LibvirtError::Unreachable(_)) && why.passes(), "{why:?}");
    }
}
