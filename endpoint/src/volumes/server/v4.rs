//! NFS version 4.0 (RFC 7530): what it needs for folders keeps no state at the server.

use super::rpc::{Fault, Rpc, User};
use super::xdr::{Garbled, In, Out};
use super::{Entry, Handle, NAME_MAX, PAGE, Page};
use std::net::SocketAddr;

const NFS: (u32, u32) = (100_003, 4);
const HANDLE_MAX: usize = 128;
/// Names of a path that are looked up in one call; servers take a few operations each.
const AT_ONCE: usize = 8;
/// Words of a set of attributes, and bytes of those that are asked for.
const SET_MAX: usize = 8;
const VALUES_MAX: usize = 4096;
/// Operations.
const CREATE: u32 = 6;
const GETFH: u32 = 10;
const LOOKUP: u32 = 15;
const PUTFH: u32 = 22;
const PUTROOTFH: u32 = 24;
const READDIR: u32 = 26;
const REMOVE: u32 = 28;
/// NF4DIR.
const FOLDER: u32 = 2;
/// The attribute `type`, in a set's first word; `mode` in its second.
const TYPE: u32 = 1 << 1;
const MODE: u32 = 1 << (33 - 32);

/// A compound of operations; those that it is to have done, for its answer.
async fn compound(rpc: &mut Rpc, operations: u32, arguments: Out) -> Result<Vec<u8>, Fault> {
    let head = Out::default().opaque(b"").all(&[0, operations]);
    rpc.call(NFS, "NFS version 4", 1, head.raw(&arguments.0))
        .await
}

/// What a compound answers: all went well, and what comes behind the status of each operation is to be read.
struct Answer<'a>(In<'a>);

impl<'a> Answer<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut from = In(bytes);
        let status = from.u32()?;
        if status != 0 {
            return Err(Fault::Status(status));
        }
        from.opaque(NAME_MAX)?;
        let _operations = from.u32()?;
        Ok(Answer(from))
    }

    /// The next operation is this one.
    fn next(&mut self, operation: u32) -> Result<&mut In<'a>, Garbled> {
        match (self.0.u32()?, self.0.u32()?) {
            (found, 0) if found == operation => Ok(&mut self.0),
            _ => Err(Garbled),
        }
    }
}

fn handle(answer: &[u8], first: u32, names: usize) -> Result<Handle, Fault> {
    let mut answer = Answer::of(answer)?;
    answer.next(first)?;
    for _ in 0..names {
        answer.next(LOOKUP)?;
    }
    Ok(answer.next(GETFH)?.opaque(HANDLE_MAX)?.to_vec())
}

fn at(folder: &Handle) -> Out {
    Out::default().u32(PUTFH).opaque(folder)
}

/// Connects, and gives the handle of a path.
pub(super) async fn root(
    address: SocketAddr,
    path: &str,
    user: User,
) -> Result<(Rpc, Handle), Fault> {
    let mut rpc = Rpc::connect(address, user).await?;
    let start = Out::default().all(&[PUTROOTFH, GETFH]);
    let answer = compound(&mut rpc, 2, start).await?;
    let mut root = handle(&answer, PUTROOTFH, 0)?;
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for some in names.chunks(AT_ONCE) {
        let names = some.iter().fold(at(&root), |out, name| {
            out.u32(LOOKUP).opaque(name.as_bytes())
        });
        // A few.
        let count = u32::try_from(some.len()).unwrap_or(u32::MAX);
        let answer = compound(&mut rpc, count + 2, names.u32(GETFH)).await?;
        root = handle(&answer, PUTFH, some.len())?;
    }
    Ok((rpc, root))
}

/// LOOKUP.
pub(super) async fn look_up(rpc: &mut Rpc, folder: &Handle, name: &[u8]) -> Result<Handle, Fault> {
    let arguments = at(folder).u32(LOOKUP).opaque(name).u32(GETFH);
    handle(&compound(rpc, 3, arguments).await?, PUTFH, 1)
}

/// CREATE of a folder, with this mode.
pub(super) async fn make(
    rpc: &mut Rpc,
    folder: &Handle,
    name: &[u8],
    mode: u32,
) -> Result<(), Fault> {
    let arguments = at(folder)
        .all(&[CREATE, FOLDER])
        .opaque(name)
        .all(&[2, 0, MODE])
        .opaque(&mode.to_be_bytes());
    Answer::of(&compound(rpc, 2, arguments).await?).map(drop)
}

/// REMOVE.
pub(super) async fn remove(rpc: &mut Rpc, folder: &Handle, name: &[u8]) -> Result<(), Fault> {
    let arguments = at(folder).u32(REMOVE).opaque(name);
    Answer::of(&compound(rpc, 2, arguments).await?).map(drop)
}

/// READDIR, from there on.
pub(super) async fn list(
    rpc: &mut Rpc,
    folder: &Handle,
    from: &([u8; 8], u64),
) -> Result<Page, Fault> {
    let arguments = at(folder)
        .u32(READDIR)
        .u64(from.1)
        .raw(&from.0)
        .all(&[PAGE, PAGE, 1, TYPE]);
    page(&compound(rpc, 2, arguments).await?)
}

/// A page of a folder.
pub(super) fn page(answer: &[u8]) -> Result<Page, Fault> {
    let mut answer = Answer::of(answer)?;
    answer.next(PUTFH)?;
    let from = answer.next(READDIR)?;
    let verifier = from.raw(8)?.try_into().map_err(|_| Fault::Garbled)?;
    let mut page = Page {
        next: (verifier, 0),
        ..Page::default()
    };
    while from.flag()? {
        page.next.1 = from.u64()?;
        let name = from.opaque(NAME_MAX)?.to_vec();
        let set = from.numbers(SET_MAX)?;
        let values = from.opaque(VALUES_MAX)?;
        let has_type = set.first().is_some_and(|word| word & TYPE != 0);
        let is_folder = has_type && In(values).u32()? == FOLDER;
        page.entries.push(Entry { name, is_folder });
    }
    page.last = from.flag()?;
    Ok(page)
}
