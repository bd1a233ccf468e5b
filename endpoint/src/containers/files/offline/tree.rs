//! The file tree of a disk, to be told: paths are looked up here as a kernel would in a root of its own.

use filetree::{Found, Step, Tree, below, follow, system};
use layers::ext4::read::ReadError;
use layers::overlay::{Content, Overlay, Place, View};
use tokio_util::sync::CancellationToken;
use wire::files::{Failure, FailureKind};

/// Longest name in a folder (NAME_MAX).
const NAME_MAX: usize = 255;

/// A tree below a place of a container's root.
#[derive(Debug)]
pub struct Disk<'a> {
    /// The root, then what is mounted in it.
    trees: Vec<Mounted<'a>>,
    /// What is mounted from elsewhere.
    away: Away,
    /// No part of it but the last is a link.
    place: Vec<u8>,
    cut: &'a CancellationToken,
    /// Why something could not be read here: a kernel may be able to.
    pub unread: Option<Unread>,
}

/// A tree in a container's root.
#[derive(Debug)]
struct Mounted<'a> {
    /// Where.
    at: Vec<u8>,
    view: View<'a>,
    /// Those of one disk have the same.
    disk: u32,
}

/// Something, and in which tree.
type Spot = (usize, Place);

/// Why a disk is not read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// What the disk says.
    #[error(transparent)]
    Disk(#[from] ReadError),
    /// It is elsewhere.
    #[error("{0} is a mount, or has one in it")]
    Mount(String),
    /// The disk cannot be opened.
    #[error("{0}")]
    Open(String),
}

/// An open file, and how far it was read.
pub struct File<'a> {
    content: Box<dyn Content + 'a>,
    at: u64,
}

fn text(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn lstat(kind: FailureKind, path: &[u8], why: &str) -> Failure {
    Failure {
        kind,
        message: format!("lstat {}: {why}", String::from_utf8_lossy(path)),
    }
}

/// Paths of what is not on the disks that are read.
#[derive(Debug, Default)]
struct Away(Vec<Vec<u8>>);

impl Away {
    /// Whether a path is one of them or below one.
    fn have(&self, path: &[u8]) -> bool {
        self.0.iter().any(|mount| is_in(path, mount))
    }

    /// Whether one of them is a path or below it.
    fn are_in(&self, path: &[u8]) -> bool {
        self.0.iter().any(|mount| is_in(mount, path))
    }
}

fn is_in(path: &[u8], folder: &[u8]) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => folder.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

impl<'a> Disk<'a> {
    /// The tree of a root.
    pub fn new(root: View<'a>, cut: &'a CancellationToken) -> Self {
        let root = Mounted {
            at: Vec::new(),
            view: root,
            disk: 0,
        };
        Self {
            trees: vec![root],
            away: Away::default(),
            place: Vec::new(),
            cut,
            unread: None,
        }
    }

    /// Mounts what is on another disk, of this number, at a path; without a view: what is not on the disks that are read.
    /// An outer one comes before what is in it.
    ///
    /// # Errors
    /// Where that would be is not known from the disks.
    pub fn mount(&mut self, path: &str, view: Option<(View<'a>, u32)>) -> Result<(), Failure> {
        let own = self.lead(path.as_bytes())?;
        let Some((mut view, disk)) = view else {
            self.away.0.push(own);
            return Ok(());
        };
        let root = view.place(b"").map_err(|e| system(e.to_string()))?;
        let root = root.map(|place| place.is_folder());
        match self.at(&own)? {
            Some(found) if root == Some(found.is_folder()) => {
                // What was mounted there is below it now.
                self.trees
                    .retain(|tree| tree.at.is_empty() || !is_in(&tree.at, &own));
                self.trees.push(Mounted {
                    at: own,
                    view,
                    disk,
                });
            }
            // The first boot makes it.
            _ => self.away.0.push(own),
        }
        Ok(())
    }

    fn unread<T>(&mut self, path: &[u8], error: Unread) -> Result<T, Failure> {
        let failure = system(format!("{}: {error}", text(path)));
        self.unread = Some(error);
        Err(failure)
    }

    /// The tree that a path is in, and the path there.
    fn tree<'p>(&self, path: &'p [u8]) -> (usize, &'p [u8]) {
        let trees = self.trees.iter().enumerate();
        let inner = trees
            .filter(|(_, tree)| is_in(path, &tree.at))
            .max_by_key(|(_, tree)| tree.at.len());
        let (number, length) = inner.map_or((0, 0), |(number, tree)| (number, tree.at.len()));
        let rest = &path[length..];
        (number, rest.strip_prefix(b"/").unwrap_or(rest))
    }

    fn go_on(&self) -> Result<(), Failure> {
        match self.cut.is_cancelled() {
            true => Err(system("nobody reads any more")),
            false => Ok(()),
        }
    }

    fn spot(&mut self, path: &[u8]) -> Result<Option<Spot>, Failure> {
        self.go_on()?;
        let (tree, rest) = self.tree(path);
        match self.trees[tree].view.place(rest) {
            Ok(place) => Ok(place.map(|place| (tree, place))),
            Err(error) => self.unread(path, error.into()),
        }
    }

    fn overlay(&self, (tree, _): &Spot) -> &'a Overlay<'a> {
        self.trees[*tree].view.overlay()
    }

    fn found(&mut self, path: &[u8], spot: &Spot) -> Result<Found, Failure> {
        let overlay = self.overlay(spot);
        let (layer, number) = overlay.id(&spot.1);
        match overlay.node(&spot.1) {
            Ok(node) => Ok(Found {
                mode: u32::from(node.kind.mode_bits() | node.mode),
                uid: node.uid,
                gid: node.gid,
                size: node.size,
                mtime: (node.mtime.secs, node.mtime.nanos),
                links: node.links.into(),
                id: (u64::from(self.trees[spot.0].disk) << 32 | layer, number),
                device: node.device,
            }),
            Err(error) => self.unread(path, error.into()),
        }
    }

    /// What is at a path, itself.
    pub fn at(&mut self, path: &[u8]) -> Result<Option<Found>, Failure> {
        match self.spot(path)? {
            Some(spot) => self.found(path, &spot).map(Some),
            None => Ok(None),
        }
    }

    fn target(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let Some(spot) = self.spot(path)? else {
            return Ok(None);
        };
        match self.overlay(&spot).link(&spot.1) {
            Ok(target) => Ok(Some(target)),
            Err(error) => self.unread(path, error.into()),
        }
    }

    /// What a step of a path is: its link, if it is one.
    fn step(&mut self, path: &[u8], found: Option<Found>) -> Result<Step, Failure> {
        match found {
            Some(found) if found.is_link() => {
                let target = self.target(path)?;
                Ok(target.map_or(Step::Other, Step::Link))
            }
            _ => Ok(Step::Other),
        }
    }

    /// Where a path leads in the end; what is missing of it is no link.
    fn lead(&mut self, path: &[u8]) -> Result<Vec<u8>, Failure> {
        let too_many = || {
            lstat(
                FailureKind::System,
                path,
                "too many levels of symbolic links",
            )
        };
        let real = follow(path, too_many, |next, _| {
            let own = &next[1..];
            // A link of what is mounted there may lead out again.
            if self.away.have(own) {
                return self.unread(own, Unread::Mount(text(own)));
            }
            let found = self.at(own)?;
            self.step(own, found)
        })?;
        Ok(real[1..].to_vec())
    }

    /// Asks another tree, whose troubles are this one's.
    ///
    /// # Errors
    /// What is asked for.
    pub fn of_another<T>(
        &mut self,
        root: View<'a>,
        ask: impl FnOnce(&mut Disk<'a>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut other = Disk::new(root, self.cut);
        let answer = ask(&mut other);
        self.unread = self.unread.take().or(other.unread);
        answer
    }

    /// A place of the only tree that this is of, by a path all of whose links are followed.
    ///
    /// # Errors
    /// Where there is nothing.
    pub fn part(&mut self, path: &str) -> Result<Place, Failure> {
        let own = self.lead(path.as_bytes())?;
        match self.spot(&own)? {
            Some((_, place)) => Ok(place),
            None => self.unread(&own, Unread::Open(format!("{path} is not there"))),
        }
    }

    /// Goes to where a path leads, as lstat(2) would: all links on the way are followed, the last one where a slash or
    /// `/.` is behind it. What is there, and where it leads in the end if it is a link itself.
    ///
    /// # Errors
    /// Where there is nothing, or where it is not on these disks.
    pub fn go(&mut self, path: &[u8]) -> Result<(Found, Vec<u8>), Failure> {
        let fail = |why| lstat(FailureKind::System, path, why);
        let missing = || lstat(FailureKind::NotFound, path, "no such file or directory");
        let too_many = || fail("too many levels of symbolic links");
        let real = follow(path, too_many, |next, last| {
            let own = &next[1..];
            let found = self.look_beside(own)?;
            match found {
                None if long(own) => Err(fail("file name too long")),
                None => Err(missing()),
                Some(_) if last => Ok(Step::Other),
                Some(found) if !found.is_folder() && !found.is_link() => {
                    Err(fail("not a directory"))
                }
                found => self.step(own, found),
            }
        })?;
        let real = real[1..].to_vec();
        let found = self.at(&real)?.ok_or_else(missing)?;
        let target = if found.is_link() {
            let from = text(&real).into_bytes();
            // As far as it leads somewhere.
            follow(&from, too_many, |next, _| {
                let own = &next[1..];
                let found = self.look_beside(own)?;
                if found.is_none() && self.is_below_a_file(own)? {
                    return Err(fail("not a directory"));
                }
                self.step(own, found)
            })?
        } else {
            Vec::new()
        };
        self.place = real;
        Ok((found, target))
    }

    /// The same, where all that is there is on these disks.
    ///
    /// # Errors
    /// As [`Disk::go`].
    pub fn go_whole(&mut self, path: &[u8]) -> Result<(Found, Vec<u8>), Failure> {
        let gone = self.go(path)?;
        if self.away.are_in(&self.place) {
            let place = self.place.clone();
            return self.unread(&place, Unread::Mount(text(&place)));
        }
        Ok(gone)
    }

    /// What a path is, if that is on these disks.
    fn look_beside(&mut self, path: &[u8]) -> Result<Option<Found>, Failure> {
        if self.away.have(path) {
            return self.unread(path, Unread::Mount(text(path)));
        }
        let found = self.at(path)?;
        if found.is_none() && self.away.are_in(path) {
            return self.unread(path, Unread::Mount(text(path)));
        }
        Ok(found)
    }

    fn is_below_a_file(&mut self, path: &[u8]) -> Result<bool, Failure> {
        let Some(end) = path.iter().rposition(|b| *b == b'/') else {
            return Ok(false);
        };
        let parent = self.at(&path[..end])?;
        Ok(parent.is_some_and(|parent| !parent.is_folder()))
    }

    fn whole(&self, path: &[u8]) -> Vec<u8> {
        match path {
            b"" => self.place.clone(),
            path => below(&self.place, path),
        }
    }
}

fn long(path: &[u8]) -> bool {
    let name = path.rsplit(|b| *b == b'/').next();
    name.is_some_and(|name| name.len() > NAME_MAX)
}

impl<'a> Tree for Disk<'a> {
    type File = File<'a>;

    fn names(&mut self, folder: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let folder = self.whole(folder);
        self.go_on()?;
        let (tree, rest) = self.tree(&folder);
        match self.trees[tree].view.walk(rest) {
            Ok(names) => Ok(names.unwrap_or_default()),
            Err(error) => self.unread(&folder, error.into()),
        }
    }

    fn look(&mut self, path: &[u8]) -> Result<Option<Found>, Failure> {
        let path = self.whole(path);
        self.at(&path)
    }

    fn link(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.whole(path);
        self.target(&path)
    }

    fn attribute_names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let all = self.attributes(path)?;
        Ok(all.into_iter().map(|(name, _)| name).collect())
    }

    fn attribute(&mut self, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let all = self.attributes(path)?;
        let found = all.into_iter().find(|(own, _)| own == name);
        Ok(found.map(|(_, value)| value))
    }

    fn open(&mut self, path: &[u8]) -> Result<Option<(File<'a>, Found)>, Failure> {
        let path = self.whole(path);
        let Some(spot) = self.spot(&path)? else {
            return Ok(None);
        };
        let found = self.found(&path, &spot)?;
        match self.overlay(&spot).open(&spot.1) {
            Ok(content) => Ok(Some((File { content, at: 0 }, found))),
            Err(error) => self.unread(&path, error.into()),
        }
    }

    fn next(&mut self, path: &[u8], file: &mut File<'a>, buf: &mut [u8]) -> Result<usize, Failure> {
        self.go_on()?;
        match file.content.read_at(file.at, buf) {
            Ok(count) => {
                file.at += count as u64;
                Ok(count)
            }
            Err(error) => {
                let path = self.whole(path);
                self.unread(&path, error.into())
            }
        }
    }

    fn shown(&self, path: &[u8]) -> String {
        text(&self.whole(path))
    }
}

impl Disk<'_> {
    fn attributes(&mut self, path: &[u8]) -> Result<layers::overlay::Attributes, Failure> {
        let path = self.whole(path);
        let Some(spot) = self.spot(&path)? else {
            return Ok(Vec::new());
        };
        match self.overlay(&spot).attributes(&spot.1) {
            Ok(all) => Ok(all),
            Err(error) => self.unread(&path, error.into()),
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
