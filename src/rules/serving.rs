//! Who serves a guest's backends: its QEMU, told from every other process; and what tells its terminals and ports
//! from those that have their numbers later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::route::Backend;

/// A guest's QEMU, and what it held when the guest was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// Its process.
    pub pid: u32,
    /// When that began, in clock ticks since boot (proc(5), `starttime`): another process of that pid began later.
    pub started: u64,
    /// Its terminals and ports. A unix socket says by itself who listens.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<Backend, Held>,
}

/// What tells a terminal or a port from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", untagged)]
pub enum Held {
    /// A pseudo-terminal.
    Terminal(Terminal),
    /// A socket that listens.
    Listener {
        /// The kernel's cookie for it, which no other socket has until the next boot (`SO_COOKIE`).
        socket: u64,
    },
}

/// A pseudo-terminal's file, as stat(2) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Terminal {
    /// Its device number.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The user that it belongs to.
    pub uid: u32,
    /// When it was made: its ctime, in nanoseconds since 1970. The next terminal of its number is made later; reading
    /// and writing leave it alone.
    pub made: i64,
}

/// The start of a process, from the text of `/proc/PID/stat`: field 22, counted behind the command's name, which may
/// hold anything.
#[must_use]
pub fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A process' effective user, from the text of `/proc/PID/status`.
#[must_use]
pub fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a command line (`/proc/PID/cmdline`) is that of a guest's QEMU: libvirt gives it the guest's UUID.
#[must_use]
pub fn is_qemu_of(command: &[u8], uuid: &str) -> bool {
    let mut words = command.split(|byte| *byte == 0);
    words.any(|word| word == b"-uuid") && words.next() == Some(uuid.as_bytes())
}

/// The scope that libvirt keeps a guest's processes in, from a cgroup's path: that of systemd-machined, or libvirt's
/// own name. `None` where QEMU runs in no scope of its own.
#[must_use]
pub fn scope(path: &str) -> Option<&str> {
    let mut end = 0;
    for part in path.split('/') {
        end += part.len();
        let machined = part.strip_prefix("machine-qemu").and_then(|rest| rest.strip_suffix(".scope"));
        if machined.or(part.strip_suffix(".libvirt-qemu")).is_some() {
            return Some(&path[..end]);
        }
        end += 1;
    }
    None
}

/// libvirt's name for the file with a guest's pid: the guest's name, escaped as in XML (virPidFileBuildPath). `None` for
/// one that is no file's name.
#[must_use]
pub fn pid_file(name: &str) -> Option<String> {
    let usable = !name.is_empty() && !name.contains(['/', '\0']);
    let escaped = name.chars().fold(String::with_capacity(name.len() + 4), |mut file, letter| {
        match letter {
            '<' => file.push_str("&lt;"),
            '>' => file.push_str("&gt;"),
            '&' => file.push_str("&amp;"),
            '"' => file.push_str("&quot;"),
            '\'' => file.push_str("&apos;"),
            other => file.push(other),
        }
        file
    });
    usable.then(|| format!("{escaped}.pid"))
}

/// The inode of a socket, from what a link of `/proc/PID/fd` says.
#[must_use]
pub fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The number of the terminal whose other end a descriptor is, from the text of `/proc/PID/fdinfo/N`.
#[must_use]
pub fn terminal_number(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("tty-index:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_read_behind_whatever_a_command_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 559651 20 21";
        assert_eq!(start_time(&format!("376 (qemu-system-x86) {rest}\n")), Some(559_651));
        assert_eq!(start_time(&format!("376 (a) S 1 (b c) {rest}\n")), Some(559_651));
        assert_eq!(start_time("376 (x) S 1"), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn the_effective_user_is_the_second_of_four() {
        assert_eq!(effective_uid("Name:\tUid:\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"), Some(2));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn a_qemu_is_its_guests_by_the_uuid_that_libvirt_gave_it_and_by_no_other_word() {
        let uuid = "b50bdc9f-490b-4b9b-8641-7573c0eba77c";
        assert!(is_qemu_of(format!("qemu\0-name\0x\0-uuid\0{uuid}\0-S\0").as_bytes(), uuid));
        assert!(!is_qemu_of(format!("qemu\0-name\0{uuid}\0-uuid\0other\0").as_bytes(), uuid));
        assert!(!is_qemu_of(format!("qemu\0-uuid {uuid}\0").as_bytes(), uuid));
        assert!(!is_qemu_of(b"", uuid));
    }

    #[test]
    fn a_scope_is_libvirts_and_never_a_whole_daemons() {
        let machine = "/machine.slice/machine-qemu\\x2d1\\x2dg1.scope";
        assert_eq!(scope(&format!("{machine}/libvirt/emulator")), Some(machine));
        assert_eq!(scope(machine), Some(machine));
        assert_eq!(scope("/machine/qemu-1-g1.libvirt-qemu/emulator"), Some("/machine/qemu-1-g1.libvirt-qemu"));
        for other in ["/system.slice/libvirtd.service", "/", "", "/user.slice/session-1.scope"] {
            assert_eq!(scope(other), None, "{other}");
        }
    }

    #[test]
    fn a_pid_file_is_named_as_libvirt_names_it() {
        assert_eq!(pid_file("we ird.n").as_deref(), Some("we ird.n.pid"));
        assert_eq!(pid_file("it's \"<&>\"").as_deref(), Some("it&apos;s &quot;&lt;&amp;&gt;&quot;.pid"));
        for name in ["", "a/b", "../a", "a\0"] {
            assert_eq!(pid_file(name), None, "{name:?}");
        }
    }

    #[test]
    fn descriptors_are_read_as_the_kernel_writes_them() {
        assert_eq!(socket_inode("socket:[2599753]"), Some(2_599_753));
        assert_eq!(socket_inode("pipe:[2599753]"), None);
        assert_eq!(terminal_number("pos:\t0\nflags:\t0100002\nmnt_id:\t1\ntty-index:\t12\n"), Some(12));
        assert_eq!(terminal_number("pos:\t0\n"), None);
    }
}
