//! The users and groups that this host knows, from wherever its nsswitch.conf says. The one module that asks for them.

use std::ffi::CString;
use std::io;
use std::os::unix::net::UnixStream;

use nix::unistd::{Gid, Group, getgrouplist};

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, as the host writes it.
    pub name: String,
    /// The number.
    pub uid: u32,
    gid: u32,
}

/// The user of that name; `None` where there is none. An error means that it cannot be said: a directory that should
/// know does not answer.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let user = nix::unistd::User::from_name(name)?;
    Ok(user.map(|user| User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// Whether the host's own /etc/passwd has a user of that name.
#[must_use]
pub fn is_local(name: &str) -> bool {
    let text = std::fs::read("/etc/passwd").unwrap_or_default();
    text.split(|byte| *byte == b'\n').any(|line| has_name(line, name))
}

fn has_name(line: &[u8], name: &str) -> bool {
    let mut fields = line.split(|byte| *byte == b':');
    !name.is_empty() && fields.next() == Some(name.as_bytes()) && fields.next().is_some()
}

/// Whether nslcd or winbindd, where this host asks them for users, do not answer. (Of SSSD `edges::sssd` knows.)
#[must_use]
pub fn lack_a_source() -> bool {
    let sources = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let sockets = [("ldap", "/run/nslcd/socket"), ("winbind", "/run/samba/winbindd/pipe")];
    sockets.iter().any(|(source, socket)| asks(&sources, source) && UnixStream::connect(socket).is_err())
}

/// Whether nsswitch.conf(5) has a source of users.
fn asks(sources: &str, source: &str) -> bool {
    let passwd = sources.lines().filter_map(|line| line.trim_start().strip_prefix("passwd:"));
    passwd.flat_map(str::split_whitespace).any(|word| word == source)
}

/// The names of all the groups that a user is in. A group without a name is none that a right can be given to.
pub fn groups(user: &User) -> io::Result<Vec<String>> {
    let name = CString::new(user.name.as_str())?;
    let mut names = Vec::new();
    for gid in getgrouplist(&name, Gid::from_raw(user.gid))? {
        names.extend(Group::from_gid(gid)?.map(|group| group.name));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_hosts_own_file_is_local() {
        assert!(is_local("root") && !is_local("roo") && !is_local("") && !is_local("root:x"));
        assert!(has_name(b"ann:x:1000:", "ann") && !has_name(b"ann2:x:1001:", "ann") && !has_name(b"ann", "ann"));
    }

    #[test]
    fn a_source_is_one_of_users() {
        let sources = "# passwd: winbind\npasswd:  files ldap [NOTFOUND=return] systemd\ngroup: files winbind\n";
        assert!(asks(sources, "ldap") && !asks(sources, "winbind") && !asks("", "ldap"));
    }

    #[test]
    fn root_is_a_user_in_a_group_and_what_is_no_user_is_none() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.uid), ("root", 0));
        assert!(groups(&root).unwrap().contains(&"root".to_owned()));
        for name in ["no such user", "a:b", "", "ünï"] {
            assert_eq!(user(name).unwrap(), None, "{name}");
        }
    }
}
