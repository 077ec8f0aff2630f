//! The users and groups that this host knows, from wherever its nsswitch.conf says. The one module that asks for them.

use std::ffi::CString;
use std::io;

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
    fn root_is_a_user_in_a_group_and_what_is_no_user_is_none() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.uid), ("root", 0));
        assert!(groups(&root).unwrap().contains(&"root".to_owned()));
        for name in ["no such user", "a:b", "", "ünï"] {
            assert_eq!(user(name).unwrap(), None, "{name}");
        }
    }
}
