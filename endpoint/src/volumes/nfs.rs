//! Volumes on NFS servers, as Docker's driver `local` has them: `--opt type=nfs --opt o=addr=…,vers=4 --opt
//! device=:/path` (moby, volume/local/local_unix.go; nfs(5); Linux fs/nfs/fs_context.c). The guest mounts them; here the
//! options are read, and the server's name is looked up at each start.

use super::flags;
use crate::errors::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use wire::volume::Nfs;

/// Bytes of a server's name, of a path and of all further options: together they fit into the page that mount(2) takes.
const SERVER_MAX: usize = 253;
const PATH_MAX: usize = 1024;
const OPTIONS_MAX: usize = 1024;
/// A name is looked up within this.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(10);

/// What an NFS volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Address or name of the server.
    pub server: String,
    /// The exported path.
    pub path: String,
    /// Versions, in the order in which they are tried: `4.2`, `3`.
    pub versions: Vec<String>,
    /// Further options, as the kernel takes them.
    pub options: Vec<String>,
    /// Flags of mount(2).
    pub flags: u64,
}

fn wrong(option: &str, why: &str) -> Error {
    Error::bad(format!("invalid option: \"o\": {option:?}: {why}"))
}

/// Options of the kernel's that are words.
const WORDS: [&str; 18] = [
    "soft",
    "softerr",
    "hard",
    "cto",
    "nocto",
    "ac",
    "noac",
    "acl",
    "noacl",
    "rdirplus",
    "nordirplus",
    "sharecache",
    "nosharecache",
    "resvport",
    "noresvport",
    "nolock",
    "lock",
    "softreval",
];
/// Those that are numbers, and how large they may be.
const NUMBERS: [(&str, u32); 13] = [
    ("rsize", 1 << 20),
    ("wsize", 1 << 20),
    ("timeo", 36_000),
    ("retrans", 100),
    ("acregmin", 1 << 20),
    ("acregmax", 1 << 20),
    ("acdirmin", 1 << 20),
    ("acdirmax", 1 << 20),
    ("actimeo", 1 << 20),
    ("port", 65_535),
    ("mountport", 65_535),
    ("nconnect", 16),
    ("max_connect", 16),
];
/// Those that are one of a few words.
const CHOICES: [(&str, &[&str]); 5] = [
    ("proto", &["tcp", "tcp6"]),
    ("mountproto", &["tcp", "tcp6", "udp", "udp6"]),
    ("lookupcache", &["all", "none", "pos", "positive"]),
    ("local_lock", &["all", "none", "flock", "posix"]),
    ("sec", &["sys", "none"]),
];
/// What mount.nfs takes and the kernel has no use for.
const IGNORED: [&str; 9] = [
    "bg", "fg", "intr", "nointr", "_netdev", "nofail", "auto", "noauto", "tcp",
];

/// What the options of one volume say.
#[derive(Default)]
struct Parsed {
    address: Option<String>,
    version: Option<String>,
    minor: Option<String>,
    options: Vec<String>,
    flags: u64,
}

impl Parsed {
    fn take(&mut self, option: &str) -> Result<()> {
        if let Some((set, clear)) = flags::of(option) {
            self.flags = (self.flags | set) & !clear;
            return Ok(());
        }
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            _ if IGNORED.contains(&option) || name == "retry" => return Ok(()),
            "addr" => self.address = Some(server(value)?.to_owned()),
            "vers" | "nfsvers" => {
                if !matches!(value, "3" | "4" | "4.0" | "4.1" | "4.2") {
                    return Err(wrong(option, "the versions are 3, 4, 4.0, 4.1 and 4.2"));
                }
                self.version = Some(value.to_owned());
            }
            "minorversion" => {
                if !matches!(value, "0" | "1" | "2") {
                    return Err(wrong(option, "the minor versions are 0, 1 and 2"));
                }
                self.minor = Some(value.to_owned());
            }
            "mountaddr" | "clientaddr" => {
                let _: IpAddr = value
                    .parse()
                    .map_err(|_| wrong(option, "expected an address"))?;
                self.options.push(option.to_owned());
            }
            "udp" | "udp6" | "rdma" | "fsc" | "dev" => {
                return Err(wrong(option, "a container's kernel does not have it"));
            }
            _ => self.kernels(option, name, value)?,
        }
        Ok(())
    }

    /// An option that goes to the kernel.
    fn kernels(&mut self, option: &str, name: &str, value: &str) -> Result<()> {
        let number = NUMBERS.iter().find(|(known, _)| *known == name);
        let choice = CHOICES.iter().find(|(known, _)| *known == name);
        if let Some((_, most)) = number {
            let fits = |n: u32| n <= *most && value.bytes().all(|b| b.is_ascii_digit());
            if !value.parse().is_ok_and(fits) {
                return Err(wrong(
                    option,
                    &format!("expected a number from 0 to {most}"),
                ));
            }
        } else if let Some((_, words)) = choice {
            if !words.contains(&value) {
                let only = match name {
                    "sec" => " (there are no keys for Kerberos in a container's VM)",
                    "proto" => " (kernels have NFS over TCP alone)",
                    _ => "",
                };
                let words = words.join(", ");
                return Err(wrong(option, &format!("it may be one of {words}{only}")));
            }
        } else if !WORDS.contains(&option) {
            return Err(wrong(
                option,
                "it is no option of nfs(5) that is known here",
            ));
        }
        self.options.push(option.to_owned());
        Ok(())
    }

    /// The versions to be tried: as mount.nfs does, the newest first.
    fn versions(&self, kind: &str) -> Result<Vec<String>> {
        let many = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect();
        Ok(match (self.version.as_deref(), &self.minor) {
            (Some("4") | None, Some(minor)) => vec![format!("4.{minor}")],
            (Some(_), Some(minor)) => {
                return Err(wrong(
                    &format!("minorversion={minor}"),
                    "it goes with vers=4",
                ));
            }
            (Some("4"), None) => many(&["4.2", "4.1", "4.0"]),
            (Some("3"), None) if kind == "nfs4" => {
                return Err(wrong("vers=3", "the type is nfs4"));
            }
            (Some(version), None) => vec![version.to_owned()],
            (None, None) if kind == "nfs4" => many(&["4.2", "4.1", "4.0"]),
            (None, None) => many(&["4.2", "4.1", "4.0", "3"]),
        })
    }
}

/// An address, or a name that may be one.
fn server(text: &str) -> Result<&str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let bare = bare.unwrap_or(text);
    let name = !bare.is_empty() && bare.len() <= SERVER_MAX && bare.bytes().all(fine);
    if name || bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(bare);
    }
    Err(wrong(
        &format!("addr={text}"),
        "expected the server's address or name",
    ))
}

impl Source {
    /// Reads driver options; `None` where they do not say that the volume is a mount.
    ///
    /// # Errors
    /// 400 in Docker's words, or with what is possible.
    pub fn read(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let get = |name: &str| options.get(name).map(String::as_str);
        let missing = |name: &str| Error::bad(format!("missing required option: {name:?}"));
        let (kind, device) = match (get("type"), get("device")) {
            (None, None) if get("o").is_none() => return Ok(None),
            (None, _) => return Err(missing("type")),
            (_, None) => return Err(missing("device")),
            (Some(kind), Some(device)) => (kind, device),
        };
        let instead = match kind {
            "nfs" | "nfs4" => None,
            "tmpfs" => Some(
                "a file system in memory lives in one container's VM: use --tmpfs or --mount type=tmpfs",
            ),
            "none" | "bind" => Some(
                "a folder of the machine is in no VM, but for those of `vch up --share`: use -v /path:/path",
            ),
            _ => Some("a container's kernel does not have it"),
        };
        if let Some(instead) = instead {
            return Err(Error::bad(format!(
                "invalid option: \"type\": {kind:?} cannot be mounted: {instead}; the types are nfs and nfs4"
            )));
        }
        let given = get("o").unwrap_or("");
        if given.len() > OPTIONS_MAX {
            return Err(Error::bad(format!(
                "invalid option: \"o\": {} bytes are too many: at most {OPTIONS_MAX}",
                given.len()
            )));
        }
        let mut parsed = Parsed::default();
        for option in given.split(',').filter(|option| !option.is_empty()) {
            parsed.take(option)?;
        }
        let wrong_device = |why: &str| {
            Error::bad(format!(
                "invalid option: \"device\": {device:?}: {why}; write :/path or SERVER:/path"
            ))
        };
        // Colons are in an IPv6 address, too.
        let (named, path) = device
            .split_once(":/")
            .ok_or_else(|| wrong_device("there is no path on the server in it"))?;
        let path = format!("/{path}");
        if path.len() > PATH_MAX || path.chars().any(char::is_control) {
            return Err(wrong_device("the path is too long, or no text"));
        }
        let server = match (&parsed.address, named) {
            (Some(address), _) => address.clone(),
            (None, "") => {
                return Err(Error::bad(
                    "invalid option: \"o\": the server is missing: add addr=SERVER",
                ));
            }
            (None, named) => server(named)?.to_owned(),
        };
        let versions = parsed.versions(kind)?;
        if versions == ["3"] && parsed.options.iter().any(|o| o == "lock") {
            return Err(wrong(
                "lock",
                "a container's VM runs no lock daemon for version 3; use version 4, or nolock",
            ));
        }
        Ok(Some(Source {
            server,
            path,
            versions,
            options: parsed.options,
            flags: parsed.flags,
        }))
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self.server.contains(':') {
            true => format!("[{}]:{}", self.server, self.path),
            false => format!("{}:{}", self.server, self.path),
        }
    }

    /// The address of the server.
    ///
    /// # Errors
    /// 500 where its name is not known.
    pub async fn look_up(&self) -> Result<IpAddr> {
        if let Ok(address) = self.server.parse() {
            return Ok(address);
        }
        let failed = |why: &dyn std::fmt::Display| {
            Error::internal(format!(
                "failed to mount local volume: mount {}: error resolving passed in network volume address: {why}",
                self.place()
            ))
        };
        let asked = tokio::net::lookup_host((self.server.as_str(), 0));
        let found: Vec<IpAddr> = match tokio::time::timeout(LOOK_UP_LIMIT, asked).await {
            Ok(found) => found.map_err(|e| failed(&e))?.map(|a| a.ip()).collect(),
            Err(_) => return Err(failed(&"no name server answers")),
        };
        // Not every container has an IPv6 address.
        let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
        first.copied().ok_or_else(|| failed(&"it has no address"))
    }

    /// What the guest of a container is told.
    pub fn for_guest(&self, volume: &str, address: Option<IpAddr>) -> Nfs {
        let host = match address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => self.server.clone(),
        };
        let data = |version: &String| {
            let mut all = vec![format!("vers={version}")];
            all.extend(address.map(|address| format!("addr={address}")));
            let has = |name: &str| {
                let mut given = self.options.iter();
                given.any(|o| o.split('=').next() == Some(name))
            };
            if version == "3" {
                // Locks are the VM's own: the server's would want daemons beside the kernel.
                if !has("nolock") && !has("local_lock") {
                    all.push("nolock".to_owned());
                }
                if !has("mountproto") {
                    all.push("mountproto=tcp".to_owned());
                }
            }
            if !has("proto") {
                let six = matches!(address, Some(IpAddr::V6(_)));
                all.push(if six { "proto=tcp6" } else { "proto=tcp" }.to_owned());
            }
            let fits = |option: &&String| version != "3" || *option != "lock";
            all.extend(self.options.iter().filter(fits).cloned());
            all.join(",")
        };
        Nfs {
            volume: volume.to_owned(),
            source: format!("{host}:{}", self.path),
            data: self.versions.iter().map(data).collect(),
            flags: self.flags,
        }
    }
}

#[cfg(test)]
#[path = "nfs_tests.rs"]
mod tests;
