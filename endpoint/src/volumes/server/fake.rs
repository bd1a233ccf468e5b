//! A server of NFS 4.0 for tests: folders in memory, with owners, a few names a page, and a root that may be squashed.

use super::xdr::{Garbled, In, Out};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Names of a page.
const PAGE: usize = 3;
/// Who root becomes.
const NOBODY: u32 = 65_534;
const ROOT: u64 = 1;

#[derive(Debug, Default)]
struct Node {
    names: BTreeMap<Vec<u8>, u64>,
    is_folder: bool,
    owner: u32,
    mode: u32,
}

#[derive(Debug, Default)]
struct Tree {
    nodes: BTreeMap<u64, Node>,
    made: u64,
    squash: bool,
}

impl Tree {
    fn add(&mut self, folder: u64, name: &[u8], node: Node) -> u64 {
        self.made += 1;
        // Numbers of nodes are places in a page, too, of which the first ones are no client's.
        let id = self.made + 10;
        self.nodes.insert(id, node);
        let above = self.nodes.get_mut(&folder).unwrap();
        above.names.insert(name.to_vec(), id);
        id
    }

    fn find(&self, path: &str) -> Option<u64> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(ROOT, |at, part| {
            self.nodes[&at].names.get(part.as_bytes()).copied()
        })
    }
}

/// A server, while the test's runtime lives.
#[derive(Debug, Clone)]
pub struct Fake {
    tree: Arc<Mutex<Tree>>,
    pub at: SocketAddr,
}

impl Fake {
    /// An empty one that listens at an address of this machine, and turns the first `away` connections down.
    pub async fn start(address: &str, away: usize) -> Fake {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let fake = Fake {
            tree: Arc::default(),
            at: listener.local_addr().unwrap(),
        };
        let root = Node {
            is_folder: true,
            mode: 0o755,
            ..Node::default()
        };
        fake.tree().nodes.insert(ROOT, root);
        let tree = fake.tree.clone();
        tokio::spawn(async move {
            for _ in 0..away {
                drop(listener.accept().await);
            }
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tree.clone()));
            }
        });
        fake
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap()
    }

    /// From now on root is nobody.
    pub fn squash(&self) {
        self.tree().squash = true;
    }

    /// Makes a path of folders; the last one has this owner and mode.
    pub fn folder(&self, path: &str, owner: u32, mode: u32) {
        let mut tree = self.tree();
        let mut at = ROOT;
        for part in path.split('/') {
            let there = tree.nodes[&at].names.get(part.as_bytes()).copied();
            at = there.unwrap_or_else(|| {
                let node = Node {
                    is_folder: true,
                    mode: 0o755,
                    ..Node::default()
                };
                tree.add(at, part.as_bytes(), node)
            });
        }
        let last = tree.nodes.get_mut(&at).unwrap();
        (last.owner, last.mode) = (owner, mode);
    }

    /// Makes an empty file in a folder that is there.
    pub fn file(&self, folder: &str, name: &str) {
        let mut tree = self.tree();
        let at = tree.find(folder).unwrap();
        tree.add(at, name.as_bytes(), Node::default());
    }

    /// Whether there is something.
    pub fn has(&self, path: &str) -> bool {
        self.tree().find(path).is_some()
    }

    /// The owner of what is there.
    pub fn owner(&self, path: &str) -> u32 {
        let tree = self.tree();
        tree.nodes[&tree.find(path).unwrap()].owner
    }
}

async fn serve(mut stream: TcpStream, tree: Arc<Mutex<Tree>>) {
    while let Ok(head) = stream.read_u32().await {
        let mut call = vec![0; (head & !(1 << 31)) as usize];
        stream.read_exact(&mut call).await.unwrap();
        let answer =
            answer(&call, &mut tree.lock().unwrap()).expect("the client's calls are whole");
        let head = 1 << 31 | u32::try_from(answer.len()).unwrap();
        stream.write_u32(head).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

fn answer(call: &[u8], tree: &mut Tree) -> Result<Vec<u8>, Garbled> {
    let mut from = In(call);
    let number = from.u32()?;
    let program = Out::default().all(&[0, 2, 100_003, 4, 1]);
    assert_eq!(from.raw(20)?, program.0);
    let _flavour = from.u32()?;
    let mut credential = In(from.opaque(400)?);
    credential.u32()?;
    credential.opaque(255)?;
    let mut user = credential.u32()?;
    if tree.squash && user == 0 {
        user = NOBODY;
    }
    let _verifier = (from.u32()?, from.opaque(400)?);
    from.opaque(0)?;
    assert_eq!(from.u32()?, 0, "minor version");
    let mut now = None;
    let (mut done, mut results, mut status) = (0, Out::default(), 0);
    for _ in 0..from.u32()? {
        let operation = from.u32()?;
        let (is, result) = match one(operation, &mut from, tree, user, &mut now)? {
            Ok(result) => (0, result),
            Err(is) => (is, Out::default()),
        };
        results = results.all(&[operation, is]).raw(&result.0);
        done += 1;
        status = is;
        if is != 0 {
            break;
        }
    }
    let head = Out::default().all(&[number, 1, 0, 0, 0, 0]).u32(status);
    Ok(head.opaque(b"").u32(done).raw(&results.0).0)
}

/// One operation: what it answers, or its status.
fn one(
    operation: u32,
    from: &mut In<'_>,
    tree: &mut Tree,
    user: u32,
    now: &mut Option<u64>,
) -> Result<Result<Out, u32>, Garbled> {
    const CHANGED: [u32; 5] = [1, 0, 0, 0, 1];
    let out = Out::default();
    if operation == 24 {
        *now = Some(ROOT);
        return Ok(Ok(out));
    }
    if operation == 22 {
        let handle = u64::from_be_bytes(from.opaque(128)?.try_into().map_err(|_| Garbled)?);
        *now = Some(handle);
        return Ok(tree.nodes.contains_key(&handle).then_some(out).ok_or(70));
    }
    let at = now.expect("there is a folder first");
    let folder = &tree.nodes[&at];
    let may = |bits: u32| {
        let own = folder.owner == user && folder.mode >> 6 & bits == bits;
        user == 0 || own || folder.mode & bits == bits
    };
    Ok(match operation {
        10 => Ok(out.opaque(&at.to_be_bytes())),
        15 => {
            let found = folder.names.get(from.opaque(1024)?).copied();
            match found {
                _ if !may(1) => Err(13),
                None => Err(2),
                Some(found) => {
                    *now = Some(found);
                    Ok(out)
                }
            }
        }
        6 => {
            assert_eq!(from.u32()?, 2, "a folder");
            let name = from.opaque(1024)?;
            assert_eq!(from.numbers(8)?, [0, 2], "mode");
            let mode = In(from.opaque(4)?).u32()?;
            if folder.names.contains_key(name) {
                return Ok(Err(17));
            } else if !may(2) {
                return Ok(Err(13));
            }
            let node = Node {
                is_folder: true,
                owner: user,
                mode,
                ..Node::default()
            };
            *now = Some(tree.add(at, name, node));
            Ok(out.all(&CHANGED).all(&[2, 0, 2]))
        }
        28 => {
            let name = from.opaque(1024)?;
            let found = folder.names.get(name).copied();
            match found {
                None => Err(2),
                _ if !may(2) => Err(13),
                Some(id) if !tree.nodes[&id].names.is_empty() => Err(66),
                Some(id) => {
                    tree.nodes.get_mut(&at).unwrap().names.remove(name);
                    tree.nodes.remove(&id);
                    Ok(out.all(&CHANGED))
                }
            }
        }
        26 => {
            let after = from.u64()?;
            from.raw(8 + 4 + 4)?;
            assert_eq!(from.numbers(8)?, [2], "type");
            if !may(4) {
                return Ok(Err(13));
            }
            let mut all: Vec<_> = folder.names.iter().filter(|(_, id)| **id > after).collect();
            all.sort_by_key(|(_, id)| **id);
            let last = all.len() <= PAGE;
            let page = all.iter().take(PAGE).fold(out.raw(&[7; 8]), |out, entry| {
                let kind = if tree.nodes[entry.1].is_folder {
                    2u32
                } else {
                    1
                };
                let out = out.u32(1).u64(*entry.1).opaque(entry.0);
                out.all(&[1, 2]).opaque(&kind.to_be_bytes())
            });
            Ok(page.all(&[0, u32::from(last)]))
        }
        other => panic!("operation {other}"),
    })
}
