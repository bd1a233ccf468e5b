//! What a container has changed of its image: the overlay's upper folder, compared with the layers.

use super::child::{Output, system};
use super::read::{Walk, below, describe, look, names, nanoseconds, told};
use crate::sys::fs::{NO_MAGICLINKS, attribute, openat2};
use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use wire::files::{Change, Entry, Failure, Kind, Record};

/// `RESOLVE_NO_SYMLINKS` and `RESOLVE_BENEATH` of openat2(2).
const BENEATH: u64 = 0x04 | 0x08;
/// What hides what is below it, as an entry of a layer.
const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";

/// Tells the changes.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn list(lower: &File, out: &mut Output) -> Result<(), Failure> {
    let walk = Walk::new(PathBuf::from("/"), out);
    // The root itself is never told.
    List { lower, walk }.folder(b"", true)
}

/// Tells the changes as a layer.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn layer(lower: &File, out: &mut Output) -> Result<(), Failure> {
    layer_folder(lower, &mut Walk::new(PathBuf::from("/"), out), b"")
}

struct List<'a> {
    lower: &'a File,
    walk: Walk<'a>,
}

impl List<'_> {
    /// Tells what has changed in a folder; `told`: it was told itself.
    fn folder(&mut self, path: &[u8], mut told: bool) -> Result<(), Failure> {
        for name in names(&self.walk.at(path))? {
            let own = below(path, name.as_bytes());
            let Some(found) = look(&self.walk.at(&own))? else {
                continue;
            };
            let image = in_image(self.lower, &own)?;
            if made_by_the_tether(&own, &found, image.as_ref()) {
                continue;
            }
            let change = match &image {
                _ if is_whiteout(&found) => Change::Deleted,
                // In the upper folder because of what is in it.
                Some(image) if same_folder(image, &found) => {
                    self.folder(&own, false)?;
                    continue;
                }
                Some(_) => Change::Modified,
                None => Change::Added,
            };
            if change != Change::Modified && !told {
                told = true;
                self.tell(Change::Modified, path)?;
            }
            self.tell(change, &own)?;
            if found.is_dir() {
                self.folder(&own, true)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, change: Change, path: &[u8]) -> Result<(), Failure> {
        let path = [b"/", path].concat();
        let record = Record::Changed(change, path);
        self.walk.out.record(&record).map_err(told)
    }
}

fn layer_folder(lower: &File, walk: &mut Walk<'_>, path: &[u8]) -> Result<(), Failure> {
    for name in names(&walk.at(path))? {
        let own = below(path, name.as_bytes());
        let at = walk.at(&own);
        let Some(found) = look(&at)? else { continue };
        let image = in_image(lower, &own)?;
        if made_by_the_tether(&own, &found, image.as_ref()) {
            continue;
        }
        if is_whiteout(&found) {
            let hidden = below(path, &[WHITEOUT, name.as_bytes()].concat());
            let entry = describe(&hidden, Kind::File(0), &found, &at)?;
            walk.out
                .record(&Record::Entry(Entry {
                    mode: 0o600,
                    ..entry
                }))
                .map_err(told)?;
            continue;
        }
        let text = CString::new(at.as_os_str().as_bytes()).unwrap_or_default();
        let has = |name: &CStr| attribute(&text, name).ok();
        if has(c"trusted.overlay.redirect").is_some() || has(c"trusted.overlay.metacopy").is_some()
        {
            return Err(system(format!(
                "{} is only a reference to what is below it: the kernel's overlayfs must not use redirect_dir or metacopy",
                at.display()
            )));
        }
        walk.entry(&own, &found)?;
        if found.is_dir() {
            if has(c"trusted.overlay.opaque").as_deref() == Some(b"y") {
                let entry = describe(&below(&own, OPAQUE), Kind::File(0), &found, &at)?;
                let entry = Entry {
                    mode: 0o600,
                    attributes: Vec::new(),
                    ..entry
                };
                walk.out.record(&Record::Entry(entry)).map_err(told)?;
            }
            layer_folder(lower, walk, &own)?;
        }
    }
    Ok(())
}

fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

fn same_folder(image: &Metadata, found: &Metadata) -> bool {
    let time = |m: &Metadata| (m.mtime(), nanoseconds(m));
    let ((image_s, image_ns), (s, ns)) = (time(image), time(found));
    // A time out of a tar may have whole seconds only.
    let same_time = image_s == s && (image_ns == ns || image_ns == 0 || ns == 0);
    image.is_dir() && found.is_dir() && image.mode() == found.mode() && same_time
}

/// Mount points that every container has: under Docker they are in a layer below the container's own.
fn made_by_the_tether(path: &[u8], found: &Metadata, image: Option<&Metadata>) -> bool {
    match path {
        b"dev" | b"proc" | b"sys" => found.is_dir() && image.is_none_or(|i| same_folder(i, found)),
        b"etc/hosts" | b"etc/hostname" | b"etc/resolv.conf" => found.is_file() && found.len() == 0,
        _ => false,
    }
}

/// What a path is in the image, itself.
fn in_image(image: &File, path: &[u8]) -> Result<Option<Metadata>, Failure> {
    let fail = |e: std::io::Error| system(format!("{}: {e}", String::from_utf8_lossy(path)));
    let text = CString::new(path).map_err(|e| fail(e.into()))?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match openat2(Some(image.as_fd()), &text, flags, BENEATH | NO_MAGICLINKS) {
        Ok(found) => File::from(found).metadata().map(Some).map_err(fail),
        // A link on the way: then it is another one in the image.
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
            _ => Err(fail(e)),
        },
    }
}
