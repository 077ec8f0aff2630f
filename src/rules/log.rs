//! The files in which libvirt keeps what serial ports say: where ours are, and how older parts are
//! called. Names alone; what is in them is [`super::history`]'s.

use super::guest::Uuid;

/// Where libvirt's own logs of guests are: what guards libvirt (SELinux, `AppArmor`) lets its log
/// daemon write there.
pub const FOLDER: &str = "/var/log/libvirt/qemu";
/// Files outside of it are not handed to proxies, whatever a definition says.
pub const ALL_LOGS: &str = "/var/log/";
/// The most older parts that are looked for (`max_backups` in virtlogd.conf, 3 unless set).
pub const MOST_OLDER: u8 = 9;

/// The file of a guest's serial port.
#[must_use]
pub fn our_log(uuid: &Uuid, index: u16) -> String {
    format!("{FOLDER}/console-proxy-{uuid}-serial-{index}.log")
}

/// A file of ours, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurLog {
    /// Whose it is.
    pub uuid: Uuid,
    /// Its serial port.
    pub index: u16,
}

impl OurLog {
    /// `None` where wiring would not have called it so.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix(FOLDER)?.strip_prefix("/console-proxy-")?.strip_suffix(".log")?;
        let (uuid, index) = name.split_once("-serial-")?;
        let ours = Self { uuid: uuid.parse().ok()?, index: index.parse().ok()? };
        (our_log(&ours.uuid, ours.index) == path).then_some(ours)
    }

    /// Likewise of a file in the folder, older parts included: `....log.0`.
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<Self> {
        let current = match name.rsplit_once('.') {
            Some((current, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => current,
            _ => name,
        };
        Self::of_path(&format!("{FOLDER}/{current}"))
    }
}

/// The path of an older part; 0 is the newest of them.
#[must_use]
pub fn older(path: &str, number: u8) -> String {
    format!("{path}.{number}")
}

/// Whether a path that a definition names may be handed to proxies: a file below /var/log, written
/// without detours.
#[must_use]
pub fn may_be_shown(path: &str) -> bool {
    let Some(rest) = path.strip_prefix(ALL_LOGS) else { return false };
    path.len() < 4000 && !path.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_files_are_known_by_their_names_and_no_others() {
        let uuid: Uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        let path = our_log(&uuid, 12);
        assert_eq!(path, "/var/log/libvirt/qemu/console-proxy-b50bdc9f-490b-4b9b-8641-7573c0eba77c-serial-12.log");
        let ours = OurLog { uuid, index: 12 };
        assert_eq!(OurLog::of_path(&path), Some(ours.clone()));
        let name = path.rsplit_once('/').unwrap().1;
        for name in [name.to_owned(), older(name, 0), older(name, 11)] {
            assert_eq!(OurLog::of_file_name(&name), Some(ours.clone()), "{name}");
        }
        for other in [
            path.replace("-12", "-012"),
            path.replace("-12", "-x"),
            path.replace("b50b", "B50B"),
            path.replace(".log", ".txt"),
            path.replace("/qemu", ""),
            format!("{path}.0"),
            "/var/log/libvirt/qemu/g1.log".to_owned(),
        ] {
            assert_eq!(OurLog::of_path(&other), None, "{other}");
        }
        assert_eq!(OurLog::of_file_name("g1.log.0"), None);
    }

    #[test]
    fn only_files_below_var_log_are_shown() {
        for path in ["/var/log/a", "/var/log/libvirt/qemu/g 1.log"] {
            assert!(may_be_shown(path), "{path}");
        }
        for path in [
            "/etc/shadow",
            "/var/log/../../etc/shadow",
            "/var/log/",
            "/var/log",
            "/var/log/a//b",
            "/var/log/a/.",
            "a",
            "",
        ] {
            assert!(!may_be_shown(path), "{path}");
        }
    }
}
