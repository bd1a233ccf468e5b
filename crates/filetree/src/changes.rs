//! What a container has changed of its image: the overlay's upper folder, compared with the layers.

use crate::read::{Walk, describe, told};
use crate::{Found, Output, Tree, below, system};
use std::io::Write;
use wire::files::{Change, Entry, Failure, Kind, Record};

/// What hides what is below it, as an entry of a layer.
const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";

/// What a path is in the image, itself, by folders alone: where a link is on the way, it is none.
type Image<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Option<Found>, Failure>;

/// Tells the changes: `tree` is the upper folder.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn list<T: Tree, W: Write>(
    tree: &mut T,
    image: Image<'_>,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    // The root itself is never told.
    List { tree, image, out }.folder(b"", true)
}

/// Tells the changes as a layer.
///
/// # Errors
/// Where something cannot be read, or nobody reads.
pub fn layer<T: Tree, W: Write>(
    tree: &mut T,
    image: Image<'_>,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    layer_folder(image, &mut Walk::new(tree, out), b"")
}

struct List<'a, T, W> {
    tree: &'a mut T,
    image: Image<'a>,
    out: &'a mut Output<W>,
}

impl<T: Tree, W: Write> List<'_, T, W> {
    /// Tells what has changed in a folder; `told`: it was told itself.
    fn folder(&mut self, path: &[u8], mut told: bool) -> Result<(), Failure> {
        for name in self.tree.names(path)? {
            let own = below(path, &name);
            let Some(found) = self.tree.look(&own)? else {
                continue;
            };
            let image = (self.image)(&own)?;
            if made_by_the_tether(&own, &found, image.as_ref()) {
                continue;
            }
            let change = match &image {
                _ if found.is_whiteout() => Change::Deleted,
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
            if found.is_folder() {
                self.folder(&own, true)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, change: Change, path: &[u8]) -> Result<(), Failure> {
        let path = [b"/", path].concat();
        let record = Record::Changed(change, path);
        self.out.record(&record).map_err(told)
    }
}

fn layer_folder<T: Tree, W: Write>(
    image: Image<'_>,
    walk: &mut Walk<'_, T, W>,
    path: &[u8],
) -> Result<(), Failure> {
    for name in walk.tree.names(path)? {
        let own = below(path, &name);
        let Some(found) = walk.tree.look(&own)? else {
            continue;
        };
        let in_image = image(&own)?;
        if made_by_the_tether(&own, &found, in_image.as_ref()) {
            continue;
        }
        if found.is_whiteout() {
            let hidden = below(path, &[WHITEOUT, &name].concat());
            let entry = describe(walk.tree, &hidden, &own, Kind::File(0), &found)?;
            walk.out
                .record(&Record::Entry(Entry {
                    mode: 0o600,
                    ..entry
                }))
                .map_err(told)?;
            continue;
        }
        for reference in [
            &b"trusted.overlay.redirect"[..],
            b"trusted.overlay.metacopy",
        ] {
            if walk.tree.attribute(&own, reference)?.is_some() {
                return Err(system(format!(
                    "{} is only a reference to what is below it: the kernel's overlayfs must not use redirect_dir or metacopy",
                    walk.tree.shown(&own)
                )));
            }
        }
        walk.entry(&own, &found)?;
        if found.is_folder() {
            let opaque = walk.tree.attribute(&own, b"trusted.overlay.opaque")?;
            if opaque.as_deref() == Some(b"y") {
                let entry = Entry {
                    mode: 0o600,
                    attributes: Vec::new(),
                    ..describe(walk.tree, &below(&own, OPAQUE), &own, Kind::File(0), &found)?
                };
                walk.out.record(&Record::Entry(entry)).map_err(told)?;
            }
            layer_folder(image, walk, &own)?;
        }
    }
    Ok(())
}

fn same_folder(image: &Found, found: &Found) -> bool {
    let ((image_s, image_ns), (s, ns)) = (image.mtime, found.mtime);
    // A time out of a tar may have whole seconds only.
    let same_time = image_s == s && (image_ns == ns || image_ns == 0 || ns == 0);
    image.is_folder() && found.is_folder() && image.mode == found.mode && same_time
}

/// Mount points that every container has: under Docker they are in a layer below the container's own.
fn made_by_the_tether(path: &[u8], found: &Found, image: Option<&Found>) -> bool {
    match path {
        b"dev" | b"proc" | b"sys" => {
            found.is_folder() && image.is_none_or(|i| same_folder(i, found))
        }
        b"etc/hosts" | b"etc/hostname" | b"etc/resolv.conf" => found.is_file() && found.size == 0,
        _ => false,
    }
}
