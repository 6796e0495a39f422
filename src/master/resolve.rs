//! Names to numbers: backends, and who the children become.
//!
//! A look-up may block, and may load modules that start threads: the master leaves it to a process of its own
//! (`resolver`).

use crate::config::model::{Config, Endpoint};
use crate::master::error::StartError;
use crate::sys::privilege::{self, Identity};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Fills in the addresses of every backend that is configured by name.
///
/// # Errors
/// For the first name that has none.
pub fn backends(config: &mut Config) -> Result<(), StartError> {
    let mut known: HashMap<(String, u16), Vec<SocketAddr>> = HashMap::new();
    for backend in &mut config.backends {
        let Endpoint::Tcp { host, port, addresses } = &mut backend.endpoint else { continue };
        if !addresses.is_empty() {
            continue;
        }
        let name = (host.clone(), *port);
        let found = match known.get(&name) {
            Some(found) => found,
            None => {
                let found = look_up(&name).map_err(|source| StartError::Resolve {
                    url: backend.url.clone(),
                    host: host.clone(),
                    source,
                })?;
                known.entry(name).or_insert(found)
            }
        };
        addresses.clone_from(found);
    }
    Ok(())
}

fn look_up(name: &(String, u16)) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (name.0.as_str(), name.1).to_socket_addrs()? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// Who the children become, and what the administrator should know about it.
#[derive(Debug, Eq, PartialEq)]
pub struct Descent {
    /// `None`: the children stay who the master is.
    pub identity: Option<Identity>,
    /// A warning.
    pub note: Option<String>,
}

/// Looks up `User` and `Group`. Without root nobody can become somebody else, so they are a warning then.
///
/// # Errors
/// If they name nobody.
pub fn identity(config: &Config, is_root: bool) -> Result<Descent, StartError> {
    if !is_root {
        let named = config.user.is_some() || config.group.is_some();
        let note = "User and Group have no effect: only root can become somebody else".to_owned();
        return Ok(Descent { identity: None, note: named.then_some(note) });
    }
    let Some(user) = config.user.as_deref() else {
        let note = "children run as root, since the configuration has no User: a fault in one is root's";
        let gid = config.group.as_deref().map(group).transpose()?;
        let identity = gid.map(|gid| Identity { uid: 0, gid, groups: vec![gid] });
        return Ok(Descent { identity, note: Some(note.to_owned()) });
    };
    let fault = |source| StartError::Accounts { directive: "User", name: user.to_owned(), source };
    let account = privilege::find_user(user)
        .map_err(fault)?
        .ok_or_else(|| StartError::Nobody { directive: "User", name: user.to_owned() })?;
    let gid = match (config.group.as_deref(), account.gid) {
        (Some(name), _) => group(name)?,
        (None, Some(gid)) => gid,
        // A number that the system does not know has no group of its own.
        (None, None) => return Err(StartError::NoGroup { user: user.to_owned() }),
    };
    let groups = match &account.name {
        Some(name) => privilege::groups_of(name, gid).map_err(fault)?,
        None => vec![gid],
    };
    let note = "children run as root, as User says: a fault in one is root's";
    let note = (account.uid == 0).then(|| note.to_owned());
    Ok(Descent { identity: Some(Identity { uid: account.uid, gid, groups }), note })
}

fn group(name: &str) -> Result<u32, StartError> {
    privilege::find_group(name)
        .map_err(|source| StartError::Accounts { directive: "Group", name: name.to_owned(), source })?
        .ok_or_else(|| StartError::Nobody { directive: "Group", name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    fn config(text: &str) -> Config {
        let text = format!("Listen 127.0.0.1:0\n{text}\n");
        config::from_text("test", &text, &Options::default()).expect("a valid text").config
    }

    #[test]
    fn names_of_backends_become_addresses() {
        let mut config = config("ProxyPass /a http://localhost:3000/\nProxyPass /b http://127.0.0.1:3001/");
        backends(&mut config).unwrap();
        for backend in &config.backends {
            let Endpoint::Tcp { addresses, port, .. } = &backend.endpoint else { panic!("{backend:?}") };
            assert!(!addresses.is_empty() && addresses.iter().all(|address| address.port() == *port));
            assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        }
    }

    #[test]
    fn a_name_without_address_is_a_fault_that_names_the_line() {
        let mut config = config("ProxyPass / http://no-such-host.invalid:3000/");
        let sentence = backends(&mut config).unwrap_err().sentence();
        assert!(sentence.contains("http://no-such-host.invalid:3000"), "{sentence}");
        assert!(sentence.ends_with("; correct the name, or write an address"), "{sentence}");
    }

    #[test]
    fn who_the_children_become() {
        let own = |uid, gid, groups: &[u32]| Some(Identity { uid, gid, groups: groups.to_vec() });
        for (text, is_root, want, noted) in [
            ("", false, None, false),
            ("User root", false, None, true),
            ("", true, None, true),
            ("User #4000000001\nGroup #77", true, own(4_000_000_001, 77, &[77]), false),
            ("User root\nGroup #77", true, own(0, 77, &[]), true),
        ] {
            let descent = identity(&config(text), is_root).unwrap();
            // Which supplementary groups a name has is the machine's business.
            let got = descent.identity.map(|identity| (identity.uid, identity.gid));
            assert_eq!(got, want.map(|identity| (identity.uid, identity.gid)), "{text:?}");
            assert_eq!(descent.note.is_some(), noted, "{text:?}");
        }
        for (text, words) in [
            ("User no-such-user", "User no-such-user: there is no such user"),
            ("User root\nGroup no-such-group", "Group no-such-group: there is no such group"),
            ("User #4000000001", "set Group"),
        ] {
            let sentence = identity(&config(text), true).unwrap_err().sentence();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
