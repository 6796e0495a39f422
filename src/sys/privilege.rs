//! Users, groups and resource limits.
//!
//! Names are looked up in a process of its own: a look-up may block and may load modules that start threads.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User};
use std::ffi::CString;
use std::io;

/// Who a child becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What the system knows about a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// The name; `None` for a number that has no entry.
    pub name: Option<String>,
    /// User number.
    pub uid: u32,
    /// The user's own group; `None` for a number that has no entry.
    pub gid: Option<u32>,
}

/// The user of `User`: a name, or `#number`. `None` if there is no such name, or no number behind the `#`.
///
/// # Errors
/// If the system's database cannot be read.
pub fn find_user(spec: &str) -> io::Result<Option<Account>> {
    let account =
        |user: User| Account { name: Some(user.name), uid: user.uid.as_raw(), gid: Some(user.gid.as_raw()) };
    let Some(number) = spec.strip_prefix('#') else {
        return Ok(User::from_name(spec)?.map(account));
    };
    let Ok(uid) = number.parse() else { return Ok(None) };
    let known = User::from_uid(Uid::from_raw(uid))?.map(account);
    Ok(Some(known.unwrap_or(Account { name: None, uid, gid: None })))
}

/// The group of `Group`: a name, or `#number`. `None` as for [`find_user`].
///
/// # Errors
/// If the system's database cannot be read.
pub fn find_group(spec: &str) -> io::Result<Option<u32>> {
    match spec.strip_prefix('#') {
        Some(number) => Ok(number.parse().ok()),
        None => Ok(Group::from_name(spec)?.map(|group| group.gid.as_raw())),
    }
}

/// The supplementary groups of a user of this name, `gid` among them.
///
/// # Errors
/// If the system's database cannot be read.
pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let groups = nix::unistd::getgrouplist(&name, Gid::from_raw(gid))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// Becomes `identity` for good: groups, group, user, in the one order that works.
///
/// # Errors
/// EPERM without root; EAGAIN if the user may have no more processes. Half-way is possible: leave then.
pub fn become_identity(identity: &Identity) -> io::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let gid = Gid::from_raw(identity.gid);
    let uid = Uid::from_raw(identity.uid);
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

/// Lets the process leave a core, which the kernel forbids after a change of user.
///
/// # Errors
/// None that Linux documents for this call.
pub fn allow_core_dumps() -> io::Result<()> {
    // SAFETY: this prctl takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether we may bind low ports and change the user.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// RLIMIT_NOFILE, soft and hard: how many descriptors a process of ours may have.
///
/// # Errors
/// None that Linux documents for this call.
pub fn nofile() -> io::Result<(u64, u64)> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?)
}

/// Raises the soft RLIMIT_NOFILE to the hard one, and says what it is now.
///
/// # Errors
/// None that Linux documents for this call.
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = nofile()?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = Account { name: Some("root".into()), uid: 0, gid: Some(0) };
        for (spec, want) in [
            ("root", Some(root.clone())),
            ("#0", Some(root)),
            ("#4000000001", Some(Account { name: None, uid: 4_000_000_001, gid: None })),
            ("#", None),
            ("#-1", None),
            ("no such user", None),
        ] {
            assert_eq!(find_user(spec).unwrap(), want, "{spec}");
        }
        for (spec, want) in [("root", Some(0)), ("#77", Some(77)), ("no such group", None), ("#x", None)] {
            assert_eq!(find_group(spec).unwrap(), want, "{spec}");
        }
        assert!(groups_of("root", 0).unwrap().contains(&0));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_nofile().unwrap();
        assert_eq!(nofile().unwrap(), (limit, limit));
    }
}
