//! Folders of the machine that the containers' VMs run on, where that is the endpoint's own (`vch up --share`,
//! docs/decisions/0020-shared-folders.md): what `-v /path:/path` and `--mount type=bind` mean there.

use crate::errors::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use wire::volume::{SHARES_MAX, Share};

/// A folder that the host shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Its path, without links.
    pub path: PathBuf,
    /// Nobody writes to it.
    pub read_only: bool,
}

impl Shared {
    /// As the host announces it: `rw:/path` or `ro:/path`.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (access, path) = text.split_once(':')?;
        Some(Shared {
            path: PathBuf::from(path),
            read_only: access != "rw",
        })
    }
}

/// A path of the machine that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedShare {
    /// The option, for messages.
    pub option: String,
    /// Where on the machine: absolute and clean.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// Only to read.
    pub read_only: bool,
    /// Make a folder where there is nothing.
    pub create: bool,
    /// The mode, as given.
    pub mode: String,
}

/// One that a container has, as it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMount {
    /// Where on the machine, as it was asked for.
    pub source: String,
    /// The folder that the VM gets: the source, or, where that is a file, the folder that it is in.
    pub folder: String,
    /// What of it is mounted; empty: all.
    #[serde(default)]
    pub subpath: String,
    /// Where in the container.
    pub target: String,
    /// The container cannot write to it.
    pub read_only: bool,
    /// The mode, as given.
    #[serde(default)]
    pub mode: String,
}

/// Finds what is asked for below a shared folder. Blocks on files.
///
/// # Errors
/// 501 where nothing is shared, 403 for what is not below a shared folder, 400 in dockerd's words for what is not there.
pub fn resolve(wanted: WantedShare, shared: &[Shared]) -> Result<SharedMount> {
    let WantedShare {
        option,
        source,
        target,
        read_only,
        create,
        mode,
    } = wanted;
    if shared.is_empty() {
        return Err(Error::new(
            Kind::NotImplemented,
            format!(
                "{option} is not supported by Mooring: a container is a VM of its own, and has no files of the host that the client or the endpoint runs on; use a volume (--volume NAME:/path) and fill it with docker cp, or put the files into the image. Where all is on one machine, `vch up --share PATH` allows it for paths below PATH"
            ),
        ));
    }
    let failed = |e: io::Error| {
        Error::bad(format!(
            "invalid mount config for type \"bind\": {source}: {e}"
        ))
    };
    let (there, missing) = existing(Path::new(&source)).map_err(failed)?;
    let covers = shared.iter().filter(|s| there.starts_with(&s.path));
    let Some(cover) = covers.max_by_key(|s| s.path.as_os_str().len()) else {
        let list: Vec<_> = shared
            .iter()
            .map(|s| s.path.display().to_string())
            .collect();
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "{option} is not allowed: {} is below no shared folder; this host shares {} (vch up --share)",
                there.display(),
                list.join(", ")
            ),
        ));
    };
    if !missing.as_os_str().is_empty() {
        if !create {
            return Err(Error::bad(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {source}"
            )));
        }
        if cover.read_only {
            return Err(failed(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        fs::create_dir_all(there.join(&missing)).map_err(failed)?;
    }
    // Joined with nothing a path ends in a slash, and is another text.
    let there = match missing.as_os_str().is_empty() {
        true => there,
        false => there.join(missing),
    };
    let (folder, subpath) = if there.is_dir() {
        (there.as_path(), "")
    } else {
        let name = there.file_name().and_then(|name| name.to_str());
        (there.parent().unwrap_or(&there), name.unwrap_or_default())
    };
    let Some(folder) = folder.to_str().filter(|_| there.to_str().is_some()) else {
        return Err(failed(io::Error::other("its path is not UTF-8")));
    };
    let mount = SharedMount {
        folder: folder.to_owned(),
        subpath: subpath.to_owned(),
        source,
        target,
        read_only: read_only || cover.read_only,
        mode,
    };
    check_inner(&mount, shared)?;
    Ok(mount)
}

/// Refuses to write to a folder in which another one is only to be read: the VM has all of it or nothing.
fn check_inner(wanted: &SharedMount, shared: &[Shared]) -> Result<()> {
    let inner = |share: &&Shared| share.read_only && share.path.starts_with(&wanted.folder);
    match shared.iter().find(inner).filter(|_| !wanted.read_only) {
        Some(share) => Err(Error::new(
            Kind::Forbidden,
            format!(
                "{} cannot be mounted to be written to: {} in it is shared to be read only; mount it read-only, or a folder beside that one",
                wanted.source,
                share.path.display()
            ),
        )),
        None => Ok(()),
    }
}

/// The part of a path that is there, resolved, and the rest.
fn existing(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    for part in path.ancestors() {
        match part.canonicalize() {
            Ok(there) => {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                return Ok((there, rest.to_owned()));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere is not replaced by a folder.
                if part.is_symlink() {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The folders that the VM gets, by their numbers, and whether they are only read.
fn folders(mounts: &[SharedMount]) -> Vec<(&str, bool)> {
    let mut all: Vec<(&str, bool)> = Vec::new();
    for mount in mounts {
        match all.iter_mut().find(|(folder, _)| *folder == mount.folder) {
            Some((_, read_only)) => *read_only &= mount.read_only,
            None => all.push((&mount.folder, mount.read_only)),
        }
    }
    all
}

/// Refuses more folders than a VM can have.
///
/// # Errors
/// 400 with what is possible.
pub fn check_count(mounts: &[SharedMount]) -> Result<()> {
    match folders(mounts).len() {
        ..=SHARES_MAX => Ok(()),
        count => Err(Error::bad(format!(
            "the container has parts of {count} folders of this machine; {SHARES_MAX} are possible: mount a folder that is above some of them"
        ))),
    }
}

/// The keys by which the VM has them.
pub fn vm_keys(mounts: &[SharedMount]) -> impl Iterator<Item = (String, String)> {
    let folders = folders(mounts).into_iter().enumerate();
    folders.map(|(number, (folder, read_only))| {
        let access = if read_only { "ro" } else { "rw" };
        (
            format!("hostsim.share.{number}"),
            format!("{access}:{folder}"),
        )
    })
}

/// The same for the guest.
#[must_use]
pub fn for_guest(mounts: &[SharedMount]) -> Vec<Share> {
    let folders = folders(mounts);
    let number = |mount: &SharedMount| {
        let place = folders
            .iter()
            .position(|(folder, _)| *folder == mount.folder);
        // Each is there, and no more than `SHARES_MAX` of them.
        u8::try_from(place.unwrap_or_default()).unwrap_or_default()
    };
    let mounts = mounts.iter().map(|mount| Share {
        number: number(mount),
        subpath: mount.subpath.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    });
    mounts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(source: &Path, create: bool) -> WantedShare {
        WantedShare {
            option: format!("--volume {}", source.display()),
            source: source.display().to_string(),
            target: "/t".into(),
            read_only: false,
            create,
            mode: String::new(),
        }
    }

    #[test]
    fn what_is_not_below_a_shared_folder_is_refused_and_nothing_is_made_there() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let (open, closed) = (base.join("open"), base.join("closed"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(&closed).unwrap();
        std::os::unix::fs::symlink(&closed, open.join("out")).unwrap();
        std::os::unix::fs::symlink(base.join("nowhere"), open.join("dangling")).unwrap();
        let shared = [Shared {
            path: open.clone(),
            read_only: false,
        }];
        for outside in [
            closed.join("made"),
            open.join("out/made"),
            base.join("open-too"),
        ] {
            let e = resolve(wanted(&outside, true), &shared).unwrap_err();
            assert_eq!(e.kind, Kind::Forbidden, "{}", e.message);
            assert!(!outside.exists(), "{}", outside.display());
        }
        let e = resolve(wanted(&open.join("dangling/made"), true), &shared).unwrap_err();
        assert_eq!(e.kind, Kind::BadParameter, "{}", e.message);
        let e = resolve(wanted(&open.join("new"), false), &shared).unwrap_err();
        assert!(e.message.contains("does not exist"), "{}", e.message);
        assert!(!open.join("new").exists());
        let made = resolve(wanted(&open.join("new/deep"), true), &shared).unwrap();
        assert_eq!(made.folder, open.join("new/deep").display().to_string());
        let with_closed = [
            shared[0].clone(),
            Shared {
                path: open.join("new"),
                read_only: true,
            },
        ];
        let e = resolve(wanted(&open, true), &with_closed).unwrap_err();
        assert_eq!(e.kind, Kind::Forbidden, "{}", e.message);
        let e = resolve(wanted(&open, true), &[]).unwrap_err();
        assert_eq!(e.kind, Kind::NotImplemented);
    }

    #[test]
    fn files_of_one_folder_share_its_device_which_is_written_to_if_one_of_them_is() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::write(base.join("one"), "1").unwrap();
        fs::write(base.join("two"), "2").unwrap();
        let shared = [Shared {
            path: base.clone(),
            read_only: false,
        }];
        let mut mounts = Vec::new();
        for (name, read_only) in [("one", true), ("two", false), ("", true)] {
            let wanted = WantedShare {
                read_only,
                ..wanted(&base.join(name), false)
            };
            mounts.push(resolve(wanted, &shared).unwrap());
        }
        let keys: Vec<_> = vm_keys(&mounts).collect();
        let folder = format!("rw:{}", base.display());
        assert_eq!(keys, [("hostsim.share.0".to_owned(), folder)]);
        let guest = for_guest(&mounts);
        assert_eq!(
            (guest[0].subpath.as_str(), guest[0].read_only),
            ("one", true)
        );
        assert_eq!((guest[1].subpath.as_str(), guest[1].number), ("two", 0));
        assert_eq!((guest[2].subpath.as_str(), guest[2].number), ("", 0));
    }
}
