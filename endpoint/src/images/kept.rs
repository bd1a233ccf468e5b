//! Blobs as far as they have come, in files: what a pull fetched before it was interrupted, be it by the end of the
//! endpoint, is not fetched again.
//!
//! A file holds a blob's first bytes, as the registry sent them, and is named by its digest. It is no more than a cache:
//! nothing waits until it is on the disk, and a blob of which it has a part is judged by its digest, as any. It goes once
//! an image has the layer, when nobody has asked for it for a day, or to make room for another one.

use layers::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How long a file stays that nobody asks for.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of all of them, at most.
const MOST: u64 = 8 << 30;
/// A blob is kept only where the disk has this many times its size free: the layer that it becomes goes first.
const ROOM: u64 = 8;

/// The files.
#[derive(Debug, Clone)]
pub(super) struct Kept(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    most: u64,
    /// Blobs that are being written down, with their sizes.
    coming: Mutex<BTreeMap<Digest, u64>>,
}

/// A blob as far as it has come.
#[derive(Debug)]
pub(super) struct Part {
    shelf: Arc<Shelf>,
    digest: Digest,
    /// `None` where it cannot be kept.
    file: Option<File>,
    /// Bytes that came earlier.
    came: u64,
    /// What comes is written down. Not where somebody else is at it, whose bytes so far are of use all the same.
    ours: bool,
}

/// A file, and when it was written to.
struct Found {
    digest: Digest,
    size: u64,
    age: Duration,
}

impl Kept {
    /// The files in a folder, which is made where it is missing. What is too old goes.
    ///
    /// # Errors
    /// Where the folder cannot be made or read.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        Self::limited(folder, MOST)
    }

    fn limited(folder: PathBuf, most: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let kept = Kept(Arc::new(Shelf {
            folder,
            most,
            coming: Mutex::default(),
        }));
        kept.0.tidy(AGE)?;
        Ok(kept)
    }

    /// Has what nobody asks for deleted, as long as the endpoint runs.
    pub fn watch(&self) {
        let shelf = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            // Files become old without that anything happens.
            let mut hours = tokio::time::interval(AGE / 24);
            loop {
                hours.tick().await;
                let Some(shelf) = shelf.upgrade() else {
                    return;
                };
                let tidied = tokio::task::spawn_blocking(move || shelf.tidy(AGE)).await;
                if let Ok(Err(error)) = tidied {
                    tracing::warn!(%error, "kept downloads cannot be tidied up");
                }
            }
        });
    }

    /// What there is of a blob of `size` bytes, to be continued. Blocks on the disk. Where it cannot be kept, it is as
    /// one of which nothing has come.
    pub fn part(&self, digest: &Digest, size: u64) -> Part {
        let mut part = Part {
            shelf: self.0.clone(),
            digest: *digest,
            file: None,
            came: 0,
            ours: false,
        };
        if let Err(error) = part.find(size) {
            tracing::info!(%error, %digest, "a download is not kept");
            part.file = None;
            part.came = 0;
        }
        part
    }

    /// Forgets blobs: an image has them.
    pub fn forget(&self, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            self.0.remove(&digest);
        }
    }
}

impl Shelf {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn coming(&self) -> MutexGuard<'_, BTreeMap<Digest, u64>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, digest: &Digest) {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, %digest, "a kept download cannot be deleted");
            }
            _ => {}
        }
    }

    /// Files that nobody writes to, the oldest first.
    fn idle(&self, coming: &BTreeMap<Digest, u64>) -> io::Result<Vec<Found>> {
        let now = SystemTime::now();
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name
                .to_str()
                .and_then(|name| format!("sha256:{name}").parse::<Digest>().ok())
            else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                // It went meanwhile.
                continue;
            };
            if !coming.contains_key(&digest) {
                all.push(Found {
                    digest,
                    size: metadata.len(),
                    // One of the future is as good as new.
                    age: now.duration_since(metadata.modified()?).unwrap_or_default(),
                });
            }
        }
        all.sort_by_key(|found| std::cmp::Reverse(found.age));
        Ok(all)
    }

    fn tidy(&self, oldest: Duration) -> io::Result<()> {
        let coming = self.coming();
        for found in self.idle(&coming)? {
            if found.age > oldest {
                self.remove(&found.digest);
            }
        }
        Ok(())
    }

    /// Makes room for a blob; `false` where there is none. Those who wait longest go first.
    fn make_room(
        &self,
        coming: &BTreeMap<Digest, u64>,
        digest: &Digest,
        size: u64,
    ) -> io::Result<bool> {
        let mut used = coming.values().sum::<u64>().saturating_add(size);
        if used > self.most || !has_room(&self.folder, size)? {
            return Ok(false);
        }
        let mut idle = self.idle(coming)?;
        idle.retain(|found| found.digest != *digest);
        used = used.saturating_add(idle.iter().map(|found| found.size).sum());
        for found in idle {
            if used <= self.most {
                break;
            }
            self.remove(&found.digest);
            used -= found.size;
        }
        Ok(true)
    }
}

/// Whether the disk has room for a blob and more.
fn has_room(folder: &Path, size: u64) -> io::Result<bool> {
    let disk = nix::sys::statvfs::statvfs(folder)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok(free >= size.saturating_mul(ROOM))
}

impl Part {
    fn find(&mut self, size: u64) -> io::Result<()> {
        let path = self.shelf.path(&self.digest);
        let shelf = self.shelf.clone();
        let mut coming = shelf.coming();
        self.ours =
            !coming.contains_key(&self.digest) && shelf.make_room(&coming, &self.digest, size)?;
        let file = File::options()
            .read(true)
            .write(self.ours)
            .create(self.ours)
            .truncate(false)
            .open(&path)?;
        if self.ours {
            coming.insert(self.digest, size);
        }
        drop(coming);
        self.came = file.metadata()?.len();
        if self.came > size {
            // Not this blob: more was written down than it has.
            self.came = 0;
            if self.ours {
                file.set_len(0)?;
            }
        }
        self.file = Some(file);
        Ok(())
    }

    /// Bytes of the blob that came earlier: what is asked for begins behind them.
    pub fn came(&self) -> u64 {
        self.came
    }

    /// All of the blob: what came earlier, then `rest`, which is written down as it comes.
    pub fn whole<R: Read>(&mut self, rest: R) -> Whole<'_, R> {
        Whole {
            part: self,
            at: 0,
            rest,
        }
    }

    /// What there is of it is not right.
    pub fn discard(mut self) {
        self.file = None;
        self.shelf.remove(&self.digest);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.ours {
            self.shelf.coming().remove(&self.digest);
        }
    }
}

/// A blob from its start.
#[derive(Debug)]
pub(super) struct Whole<'a, R> {
    part: &'a mut Part,
    at: u64,
    rest: R,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = &mut *self.part;
        if let Some(file) = part.file.as_ref().filter(|_| self.at < part.came) {
            let left = part.came - self.at;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let count = file.read_at(&mut buf[..most], self.at)?;
            if count == 0 && most > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a kept download became shorter",
                ));
            }
            self.at += count as u64;
            return Ok(count);
        }
        let count = self.rest.read(buf)?;
        if part.ours
            && let Some(file) = &part.file
            && let Err(error) = file.write_all_at(&buf[..count], self.at)
        {
            // What is in the file stays right; the layer does not need it.
            tracing::info!(%error, digest = %part.digest, "a download is kept in part");
            part.file = None;
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &[u8] = b"0123456789";

    fn digest() -> Digest {
        Digest::of(BLOB)
    }

    fn kept() -> (tempfile::TempDir, Kept) {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::limited(folder.path().to_owned(), 100).unwrap();
        (folder, kept)
    }

    fn names(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    /// Reads so many bytes of a blob from a registry that sends `rest`.
    fn reads(part: &mut Part, rest: &[u8], most: u64) -> Vec<u8> {
        let mut out = Vec::new();
        part.whole(rest).take(most).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn what_came_is_there_for_the_next_endpoint() {
        let (folder, kept) = kept();
        let mut part = kept.part(&digest(), 10);
        assert_eq!(part.came(), 0);
        assert_eq!(reads(&mut part, BLOB, 4), b"0123");
        drop((part, kept));
        let kept = Kept::limited(folder.path().to_owned(), 100).unwrap();
        let mut part = kept.part(&digest(), 10);
        assert_eq!(part.came(), 4);
        assert_eq!(reads(&mut part, &BLOB[4..], 100), BLOB);
        drop(part);
        assert_eq!(kept.part(&digest(), 10).came(), 10);
        kept.forget([digest()]);
        assert_eq!(names(&folder), 0);
    }

    #[test]
    fn two_at_once_write_one_file() {
        let (_folder, kept) = kept();
        let mut one = kept.part(&digest(), 10);
        reads(&mut one, BLOB, 6);
        let mut two = kept.part(&digest(), 10);
        assert_eq!(two.came(), 6);
        assert_eq!(reads(&mut two, b"6xyz", 100), b"0123456xyz");
        drop(two);
        drop(one);
        assert_eq!(reads(&mut kept.part(&digest(), 10), b"", 100), b"012345");
    }

    #[test]
    fn what_is_not_right_goes() {
        let (folder, kept) = kept();
        let mut part = kept.part(&digest(), 10);
        reads(&mut part, b"wrong", 100);
        part.discard();
        assert_eq!(names(&folder), 0);
        // More than the blob has: another manifest's lie.
        fs::write(folder.path().join(digest().hex()), [0; 11]).unwrap();
        let mut part = kept.part(&digest(), 10);
        assert_eq!(part.came(), 0);
        assert_eq!(reads(&mut part, BLOB, 100), BLOB);
    }

    #[test]
    fn all_of_them_take_no_more_than_they_may() {
        let (folder, kept) = kept();
        for number in 0..5u8 {
            let mut part = kept.part(&Digest::of(&[number]), 40);
            reads(&mut part, &[number; 40], 40);
        }
        assert_eq!(names(&folder), 2);
        // What is coming is counted as what it will be.
        let one = kept.part(&Digest::of(b"one"), 60);
        let mut two = kept.part(&Digest::of(b"two"), 60);
        assert_eq!(reads(&mut two, &[2; 60], 60), [2; 60]);
        drop((one, two));
        assert_eq!(kept.part(&Digest::of(b"two"), 60).came(), 0);
        let mut large = kept.part(&Digest::of(b"large"), u64::MAX);
        assert_eq!(reads(&mut large, b"all the same", 100), b"all the same");
    }

    #[test]
    fn what_nobody_asks_for_goes() {
        let (folder, kept) = kept();
        reads(&mut kept.part(&digest(), 10), BLOB, 100);
        let coming = kept.part(&Digest::of(b"coming"), 10);
        kept.0.tidy(Duration::from_secs(60)).unwrap();
        assert_eq!(names(&folder), 2);
        let file = File::options()
            .write(true)
            .open(folder.path().join(digest().hex()))
            .unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(61))
            .unwrap();
        kept.0.tidy(Duration::from_secs(60)).unwrap();
        assert_eq!(names(&folder), 1);
        drop(coming);
    }
}
