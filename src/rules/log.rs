//! The files in which libvirt keeps what serial ports say: where ours are, and how older parts are
//! called. Names alone; what is in them is [`super::history`]'s.

use super::guest::{Uuid, printable};

/// Where libvirt's own logs of guests are: what guards libvirt (SELinux, `AppArmor`) lets its log
/// daemon write there.
pub const FOLDER: &str = "/var/log/libvirt/qemu";
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

/// Whether a path that a guest's definition names may be shown to those who may open the guest's consoles. libvirt's
/// daemon writes to it as root, so the path alone says nothing about whose the file is: its name must hold the guest's
/// UUID.
#[must_use]
pub fn may_be_shown(path: &str, guest: &Uuid) -> bool {
    let Some(rest) = path.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/')) else { return false };
    let is_plain = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let name = rest.rsplit('/').next().unwrap_or(rest);
    path.len() < 4000 && !path.contains('\0') && is_plain && name.contains(guest.as_str())
}

/// Why a path is not shown, and what name is wanted.
#[must_use]
pub fn why_not_shown(path: &str, guest: &Uuid) -> String {
    format!(
        "the log {} is not shown: the name of a guest's <log file='...'> must hold the guest's UUID and lie below \
         {FOLDER}, as {FOLDER}/{guest}-serial0.log",
        printable(path)
    )
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
    fn a_log_is_shown_only_where_its_name_holds_the_guests_own_uuid() {
        let uuid: Uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c".parse().unwrap();
        let other: Uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77d".parse().unwrap();
        let own = format!("{FOLDER}/{uuid}-serial0.log");
        for path in [&own, &our_log(&uuid, 3), &format!("{FOLDER}/of tenants/g-{uuid}"), &older(&own, 2)] {
            assert!(may_be_shown(path, &uuid), "{path}");
            assert!(!may_be_shown(path, &other), "{path}");
        }
        for path in [
            "/var/log/apt/term.log".to_owned(),
            format!("{FOLDER}/g1.log"),
            our_log(&other, 0),
            older(&our_log(&other, 0), 0),
            format!("/var/log/{uuid}.log"),
            format!("{FOLDER}-{uuid}.log"),
            format!("{FOLDER}/{uuid}/g1.log"),
            format!("{FOLDER}/../{uuid}.log"),
            format!("{FOLDER}//{uuid}.log"),
            format!("{FOLDER}/./{uuid}.log"),
            format!("{FOLDER}/{uuid}.log/"),
            format!("{FOLDER}/{uuid}\0"),
            format!("{FOLDER}/{}.log", uuid.as_str().to_uppercase()),
            format!("{uuid}.log"),
            String::new(),
        ] {
            assert!(!may_be_shown(&path, &uuid), "{path}");
        }
        let why = why_not_shown("/var/log/a\x1b", &uuid);
        assert!(why.contains(&own) && !why.contains('\x1b'), "{why}");
    }
}
