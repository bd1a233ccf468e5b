//! Volume stores of the administrator's on NFS servers (`--volume-store nfs://SERVER/PATH:NAME`): a volume in one is a
//! folder there, `PATH/VCH/VOLUME`, which the endpoint makes and deletes, and which guests mount.

use super::nfs::Source;
use super::request::check_name;
use super::server::{Fault, Folders, Server, User};
use crate::errors::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// As `--opt VolumeStore=` asks for it.
    pub name: String,
    /// Its folder on the server.
    source: Source,
    /// As whom the endpoint makes folders.
    user: User,
}

/// A folder in a store, with all that is needed to find it again should the store be gone from the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The store's name.
    pub store: String,
    /// The store's folder.
    source: Source,
    /// The folder in it that is the VCH's own.
    vch: String,
    /// As whom it is made and deleted.
    user: User,
}

impl FromStr for Store {
    type Err = String;

    /// Reads `nfs://SERVER[:PORT]/PATH[?uid=N&gid=N&OPTION…]:NAME`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; write nfs://SERVER/PATH[?uid=N&gid=N]:NAME");
        let rest = text.strip_prefix("nfs://").ok_or_else(|| {
            wrong("a volume store is a folder on an NFS server (the datastore's is there as `default`)")
        })?;
        let (rest, name) = rest
            .rsplit_once(':')
            .filter(|(_, name)| !name.contains('/'))
            .ok_or_else(|| wrong("the store's name is missing"))?;
        check_name(name).map_err(|e| wrong(&format!("the store's name: {}", e.message)))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, path) = place
            .split_once('/')
            .ok_or_else(|| wrong("the path is missing"))?;
        let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
        let (server, port) = match server.rsplit_once(':') {
            Some((server, port)) if is_port(port) && !server.ends_with(':') => (server, Some(port)),
            _ => (server, None),
        };
        let mut user = User::default();
        let mut options = vec![format!("addr={server}")];
        options.extend(port.map(|port| format!("port={port}")));
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let number = |text: &str| {
                text.parse::<u32>()
                    .map_err(|_| wrong(&format!("{option:?} is no number")))
            };
            match option.split_once('=').unwrap_or((option, "")) {
                ("uid", uid) => user.uid = number(uid)?,
                ("gid", gid) => user.gid = number(gid)?,
                ("ro" | "addr", _) => {
                    return Err(wrong(&format!("{option:?} does not go with a store")));
                }
                _ if option.contains(',') => {
                    return Err(wrong(&format!("{option:?}: options are parted by &")));
                }
                _ => options.push(option.to_owned()),
            }
        }
        let read = |(name, value): (&str, String)| (name.to_owned(), value);
        let given = [
            ("type", "nfs".to_owned()),
            ("o", options.join(",")),
            ("device", format!(":/{}", path.trim_end_matches('/'))),
        ];
        let source = Source::read(&given.into_iter().map(read).collect())
            .map_err(|e| e.message)?
            .ok_or_else(|| wrong("it says nothing"))?;
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err(wrong("the path is not to have . and .. in it"));
        }
        Ok(Store {
            name: name.to_owned(),
            source,
            user,
        })
    }
}

/// Stores by their names.
///
/// # Errors
/// Two have one name.
pub fn by_name(stores: &[Store]) -> Result<BTreeMap<String, Store>, String> {
    let mut all = BTreeMap::new();
    for store in stores {
        if all.insert(store.name.clone(), store.clone()).is_some() {
            return Err(format!(
                "--volume-store: two stores are named {}",
                store.name
            ));
        }
    }
    Ok(all)
}

impl Store {
    /// The folder of a VCH's volumes in it.
    #[must_use]
    pub fn of(&self, vch: &str) -> Placed {
        Placed {
            store: self.name.clone(),
            source: self.source.clone(),
            vch: vch.to_owned(),
            user: self.user,
        }
    }
}

impl Placed {
    /// What guests mount for a volume.
    #[must_use]
    pub fn source(&self, volume: &str) -> Source {
        let above = self.source.path.trim_end_matches('/');
        Source {
            path: format!("{above}/{}/{volume}", self.vch),
            ..self.source.clone()
        }
    }

    async fn open(&self) -> Result<Folders> {
        let address = self.source.look_up().await?;
        let number = |name: &str| {
            let mut options = self.source.options.iter();
            options.find_map(|o| o.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let four = |version: &String| version.starts_with('4');
        let server = Server {
            address,
            port: number("port"),
            mount_port: number("mountport"),
            four: self.source.versions.iter().any(four),
            three: !self.source.versions.iter().all(four),
            user: self.user,
        };
        let opened = Folders::open(&server, &self.source.path).await;
        opened.map_err(self.failed("reach the volume store"))
    }

    fn failed(&self, what: &str) -> impl Fn(Fault) -> Error {
        let place = format!("{what} {:?} at {}", self.store, self.source.place());
        let User { uid, gid } = self.user;
        let hint = format!(
            " to user {uid} and group {gid}: a server that squashes root takes one who may write there (add ?uid=N&gid=N to the store)"
        );
        move |fault| {
            let kind = match fault {
                Fault::Network(_) | Fault::Late(_) => Kind::Unavailable,
                _ => Kind::Internal,
            };
            let hint = match fault.is_denied() {
                true => hint.as_str(),
                false => "",
            };
            Error::new(kind, format!("cannot {place}: {fault}{hint}"))
        }
    }

    /// Makes the empty folder of a volume.
    ///
    /// # Errors
    /// The server's, with its name and path.
    pub async fn make(&self, volume: &str) -> Result<()> {
        let made = self.open().await?.make(&self.vch, volume).await;
        made.map_err(self.failed(&format!("make {}/{volume} in the volume store", self.vch)))
    }

    /// Deletes the folder of a volume, as far as it is there.
    ///
    /// # Errors
    /// The same.
    pub async fn delete(&self, volume: &str) -> Result<()> {
        let deleted = self.open().await?.delete(&self.vch, volume).await;
        deleted.map_err(self.failed(&format!("delete {}/{volume} in the volume store", self.vch)))
    }

    /// The volumes that have folders there.
    ///
    /// # Errors
    /// The same.
    pub async fn names(&self) -> Result<Vec<String>> {
        let names = self.open().await?.names(&self.vch).await;
        let mut names =
            names.map_err(self.failed(&format!("read {} in the volume store", self.vch)))?;
        // A server's own, such as its snapshots.
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_as_the_earlier_system_had_it() {
        let store: Store = "nfs://nas.example.org/exports/vols/?uid=1000&gid=100&vers=3:shared"
            .parse()
            .unwrap();
        assert_eq!(store.name, "shared");
        assert_eq!(
            store.user,
            User {
                uid: 1000,
                gid: 100
            }
        );
        let source = store.of("v1").source("data");
        assert_eq!(source.place(), "nas.example.org:/exports/vols/v1/data");
        assert_eq!(source.versions, ["3"]);
        let store: Store = "nfs://[fd00::1]:2050/:all".parse().unwrap();
        let source = store.of("v1").source("x1");
        assert_eq!(source.place(), "[fd00::1]:/v1/x1");
        assert_eq!(source.options, ["port=2050"]);
        let store: Store = "nfs://[fd00::1]/x:all".parse().unwrap();
        assert_eq!(store.source.server, "fd00::1");
    }

    #[test]
    fn what_is_no_store_is_refused_with_what_to_write() {
        for (text, part) in [
            ("ds://x/y:z1", "NFS server"),
            ("/x:name", "NFS server"),
            ("nfs://nas/x", "name is missing"),
            ("nfs://nas:2049/x", "name is missing"),
            ("nfs://nas:name", "path is missing"),
            ("nfs://nas/x:", "name"),
            ("nfs://nas/x:a/b", "name is missing"),
            ("nfs://nas/x?uid=me:n1", "no number"),
            ("nfs://nas/x?uid=-1:n1", "no number"),
            ("nfs://nas/x?ro:n1", "does not go"),
            ("nfs://nas/x?what:n1", "what"),
            ("nfs://nas/x?vers=3,soft:n1", "parted by &"),
            ("nfs://nas/../x:n1", ".."),
            ("nfs:///x:n1", "addr="),
        ] {
            let error = text.parse::<Store>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let twice: Vec<Store> = ["nfs://a/x:n1", "nfs://b/x:n1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert!(by_name(&twice).is_err());
    }
}
