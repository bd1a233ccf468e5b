//! Folders on an NFS server: made, listed and deleted by the endpoint itself, without a mount, which would take root and
//! could wait for the server for ever (docs/decisions/0023). Version 4.0, or 3.

#[cfg(test)]
pub mod fake;
mod rpc;
mod v3;
mod v4;
mod xdr;

use rpc::{EXISTS, MINOR_VERSION, NO_ENTRY, Rpc};
pub use rpc::{Fault, User};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// Bytes of a page of a folder that is asked for.
const PAGE: u32 = 32 << 10;
/// Bytes of the longest name.
const NAME_MAX: usize = 1024;
/// Folders in each other that are deleted, at most: what is remembered of them is bounded by it.
const DEPTH_MAX: usize = 100_000;
/// Names that a folder of volumes may have.
const VOLUMES_MAX: usize = 100_000;
/// NFS's own port.
const PORT: u16 = 2049;

/// What a server calls a file.
type Handle = Vec<u8>;

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    name: Vec<u8>,
    is_folder: bool,
}

impl Entry {
    fn is_own(&self) -> bool {
        matches!(&self.name[..], b"." | b"..")
    }
}

/// What tells a list of names from another.
fn digest(entries: &[Entry]) -> u64 {
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    hasher.finish()
}

/// Some names of a folder.
#[derive(Debug, Default)]
struct Page {
    entries: Vec<Entry>,
    /// Where the next page begins.
    next: ([u8; 8], u64),
    /// There is none.
    last: bool,
}

/// Where a server is, and what it is asked as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Port of NFS, where it is not the usual one.
    pub port: Option<u16>,
    /// Port of version 3's mountd, where rpcbind is not to be asked.
    pub mount_port: Option<u16>,
    /// Whether version 4 may be used.
    pub four: bool,
    /// Whether version 3 may be used.
    pub three: bool,
    /// Who asks.
    pub user: User,
}

/// A connection to a server, and a folder there.
#[derive(Debug)]
pub struct Folders {
    rpc: Rpc,
    four: bool,
    root: Handle,
}

impl Folders {
    /// Of the path `root`, which is there: by version 4.0 if the server has that, else by version 3.
    ///
    /// # Errors
    /// The server's, in words for people.
    pub async fn open(server: &Server, root: &str) -> Result<Self, Fault> {
        let &Server { address, user, .. } = server;
        if server.four {
            let place = SocketAddr::new(address, server.port.unwrap_or(PORT));
            match v4::root(place, root, user).await {
                Err(Fault::Missing(_) | Fault::Status(MINOR_VERSION)) if server.three => {}
                other => {
                    let (rpc, root) = other?;
                    return Ok(Folders {
                        rpc,
                        four: true,
                        root,
                    });
                }
            }
        }
        let ports = (server.port, server.mount_port);
        let (rpc, root) = v3::root(address, ports, root, user).await?;
        Ok(Folders {
            rpc,
            four: false,
            root,
        })
    }

    async fn look_up(&mut self, folder: &Handle, name: &[u8]) -> Result<Option<Handle>, Fault> {
        let found = match self.four {
            true => v4::look_up(&mut self.rpc, folder, name).await,
            false => v3::look_up(&mut self.rpc, folder, name).await,
        };
        match found {
            Err(Fault::Status(NO_ENTRY)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// False: there is something of that name.
    async fn make_one(&mut self, folder: &Handle, name: &[u8], mode: u32) -> Result<bool, Fault> {
        let made = match self.four {
            true => v4::make(&mut self.rpc, folder, name, mode).await,
            false => v3::make(&mut self.rpc, folder, name, mode).await,
        };
        match made {
            Err(Fault::Status(EXISTS)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// What is not there any more counts as removed.
    async fn remove_one(&mut self, folder: &Handle, entry: &Entry) -> Result<(), Fault> {
        let removed = match self.four {
            true => v4::remove(&mut self.rpc, folder, &entry.name).await,
            false => v3::remove(&mut self.rpc, folder, &entry.name, entry.is_folder).await,
        };
        match removed {
            Err(Fault::Status(NO_ENTRY)) => Ok(()),
            other => other,
        }
    }

    async fn page(&mut self, folder: &Handle, from: &([u8; 8], u64)) -> Result<Page, Fault> {
        match self.four {
            true => v4::list(&mut self.rpc, folder, from).await,
            false => v3::list(&mut self.rpc, folder, from).await,
        }
    }

    /// Makes the empty folder `name` in the folder `above`, which is made, too, where it is missing. What is there under
    /// that name is deleted first.
    ///
    /// # Errors
    /// The server's.
    pub async fn make(&mut self, above: &str, name: &str) -> Result<(), Fault> {
        let root = self.root.clone();
        self.make_one(&root, above.as_bytes(), 0o755).await?;
        let folder = self.look_up(&root, above.as_bytes()).await?;
        let folder = folder.ok_or(Fault::Status(NO_ENTRY))?;
        if !self.make_one(&folder, name.as_bytes(), 0o755).await? {
            self.delete_in(&folder, name.as_bytes()).await?;
            if !self.make_one(&folder, name.as_bytes(), 0o755).await? {
                return Err(Fault::Status(EXISTS));
            }
        }
        Ok(())
    }

    /// The folders in the folder `above`; none where that is not there.
    ///
    /// # Errors
    /// The server's.
    pub async fn names(&mut self, above: &str) -> Result<Vec<String>, Fault> {
        let root = self.root.clone();
        let Some(folder) = self.look_up(&root, above.as_bytes()).await? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        let mut next = Default::default();
        let mut seen = 0;
        loop {
            let page = self.page(&folder, &next).await?;
            seen += page.entries.len();
            for entry in &page.entries {
                if entry.is_folder && !entry.is_own() {
                    names.extend(String::from_utf8(entry.name.clone()));
                }
            }
            if seen > VOLUMES_MAX {
                return Err(Fault::TooMuch("the folder has too many entries"));
            }
            // A server that gives nothing gives nothing the next time either.
            if page.last || page.entries.is_empty() {
                return Ok(names);
            }
            next = page.next;
        }
    }

    /// Deletes the folder `name` in the folder `above`, with all in it, as far as it is there. No link is followed.
    ///
    /// # Errors
    /// The server's.
    pub async fn delete(&mut self, above: &str, name: &str) -> Result<(), Fault> {
        let root = self.root.clone();
        match self.look_up(&root, above.as_bytes()).await? {
            Some(folder) => self.delete_in(&folder, name.as_bytes()).await,
            None => Ok(()),
        }
    }

    async fn delete_in(&mut self, above: &Handle, name: &[u8]) -> Result<(), Fault> {
        let Some(first) = self.look_up(above, name).await? else {
            return Ok(());
        };
        // Folders that are being emptied, each in the one before, with what was in it the last time.
        let mut open = vec![(name.to_vec(), first, None)];
        while let Some((name, folder, before)) = open.last_mut() {
            let (name, folder) = (name.clone(), folder.clone());
            // From its beginning each time: what was there is gone.
            let page = self.page(&folder, &Default::default()).await?;
            let now = Some(digest(&page.entries));
            if std::mem::replace(before, now) == now && !page.entries.iter().all(Entry::is_own) {
                return Err(Fault::TooMuch("the server still lists what it has deleted"));
            }
            let entries = page.entries.iter().filter(|entry| !entry.is_own());
            let mut inner = None;
            let mut count = 0;
            for entry in entries {
                count += 1;
                if !entry.is_folder {
                    self.remove_one(&folder, entry).await?;
                } else if inner.is_none() {
                    inner = Some(entry.name.clone());
                }
            }
            if let Some(inner) = inner {
                if open.len() >= DEPTH_MAX {
                    return Err(Fault::TooMuch("too many folders are in each other"));
                }
                if let Some(found) = self.look_up(&folder, &inner).await? {
                    open.push((inner, found, None));
                }
            } else if count == 0 && page.last {
                open.pop();
                let above = open.last().map_or(above, |(_, folder, _)| folder).clone();
                let entry = Entry {
                    name,
                    is_folder: true,
                };
                self.remove_one(&above, &entry).await?;
            } else if count == 0 && page.entries.is_empty() {
                return Err(Fault::Garbled);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
