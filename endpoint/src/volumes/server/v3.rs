//! NFS version 3 (RFC 1813) and what stands before it: rpcbind (RFC 1833, version 2) and mountd.

use super::rpc::{Fault, Rpc, User};
use super::xdr::{Garbled, In, Out};
use super::{Entry, Handle, NAME_MAX, PAGE, Page};
use std::net::{IpAddr, SocketAddr};

const RPCBIND: (u32, u32) = (100_000, 2);
const MOUNTD: (u32, u32) = (100_005, 3);
const NFS: (u32, u32) = (100_003, 3);
const HANDLE_MAX: usize = 64;
/// Bytes of a `fattr3` behind its first number, the kind of file.
const ATTRIBUTES: usize = 80;
const FOLDER: u32 = 2;

async fn port(address: IpAddr, program: (u32, u32), name: &'static str) -> Result<u16, Fault> {
    if address.is_ipv6() {
        return Err(Fault::TooMuch(
            "over IPv6 the ports of version 3 are not asked for: give port and mountport, or use version 4",
        ));
    }
    let mut rpc = Rpc::connect(SocketAddr::new(address, 111), User::default()).await?;
    let arguments = Out::default().all(&[program.0, program.1, 6, 0]);
    let answer = rpc.call(RPCBIND, "rpcbind", 3, arguments).await?;
    match u16::try_from(In(&answer).u32()?) {
        Ok(0) | Err(_) => Err(Fault::Missing(name)),
        Ok(port) => Ok(port),
    }
}

/// Connects, and gives the handle of an exported path.
pub(super) async fn root(
    address: IpAddr,
    ports: (Option<u16>, Option<u16>),
    path: &str,
    user: User,
) -> Result<(Rpc, Handle), Fault> {
    let mountd = match ports.1 {
        Some(port) => port,
        None => port(address, MOUNTD, "mountd for NFS version 3").await?,
    };
    let mut rpc = Rpc::connect(SocketAddr::new(address, mountd), user).await?;
    let argument = Out::default().opaque(path.as_bytes());
    let answer = rpc.call(MOUNTD, "mountd", 1, argument.clone()).await?;
    let root = mounted(&answer)?;
    // So that the server's list of those who have mounted it does not grow; the handle stays good.
    let _its_list_only = rpc.call(MOUNTD, "mountd", 3, argument).await;
    let nfs = match ports.0 {
        Some(port) => port,
        None => port(address, NFS, "NFS version 3").await?,
    };
    let rpc = Rpc::connect(SocketAddr::new(address, nfs), user).await?;
    Ok((rpc, root))
}

fn status(from: &mut In<'_>) -> Result<(), Fault> {
    match from.u32()? {
        0 => Ok(()),
        status => Err(Fault::Status(status)),
    }
}

/// What mountd says.
pub(super) fn mounted(answer: &[u8]) -> Result<Handle, Fault> {
    let mut from = In(answer);
    status(&mut from)?;
    Ok(from.opaque(HANDLE_MAX)?.to_vec())
}

fn place(folder: &Handle, name: &[u8]) -> Out {
    Out::default().opaque(folder).opaque(name)
}

async fn call(rpc: &mut Rpc, procedure: u32, arguments: Out) -> Result<Vec<u8>, Fault> {
    rpc.call(NFS, "NFS version 3", procedure, arguments).await
}

/// LOOKUP.
pub(super) async fn look_up(rpc: &mut Rpc, folder: &Handle, name: &[u8]) -> Result<Handle, Fault> {
    mounted(&call(rpc, 3, place(folder, name)).await?)
}

/// MKDIR, with this mode.
pub(super) async fn make(
    rpc: &mut Rpc,
    folder: &Handle,
    name: &[u8],
    mode: u32,
) -> Result<(), Fault> {
    // Of owner, group, size and times nothing is said.
    let arguments = place(folder, name).all(&[1, mode, 0, 0, 0, 0, 0]);
    status(&mut In(&call(rpc, 9, arguments).await?))
}

/// REMOVE, or RMDIR.
pub(super) async fn remove(
    rpc: &mut Rpc,
    folder: &Handle,
    name: &[u8],
    is_folder: bool,
) -> Result<(), Fault> {
    let procedure = if is_folder { 13 } else { 12 };
    status(&mut In(&call(rpc, procedure, place(folder, name)).await?))
}

/// READDIRPLUS, from there on.
pub(super) async fn list(
    rpc: &mut Rpc,
    folder: &Handle,
    from: &([u8; 8], u64),
) -> Result<Page, Fault> {
    let arguments = Out::default()
        .opaque(folder)
        .u64(from.1)
        .raw(&from.0)
        .all(&[PAGE, PAGE]);
    page(&call(rpc, 17, arguments).await?)
}

/// The kind of file of attributes that may be there.
fn attributes(from: &mut In<'_>) -> Result<Option<u32>, Garbled> {
    if !from.flag()? {
        return Ok(None);
    }
    let kind = from.u32()?;
    from.raw(ATTRIBUTES)?;
    Ok(Some(kind))
}

/// A page of a folder.
pub(super) fn page(answer: &[u8]) -> Result<Page, Fault> {
    let mut from = In(answer);
    status(&mut from)?;
    attributes(&mut from)?;
    let verifier = from.raw(8)?.try_into().map_err(|_| Fault::Garbled)?;
    let mut page = Page {
        next: (verifier, 0),
        ..Page::default()
    };
    while from.flag()? {
        let _number = from.u64()?;
        let name = from.opaque(NAME_MAX)?.to_vec();
        page.next.1 = from.u64()?;
        let is_folder = attributes(&mut from)? == Some(FOLDER);
        if from.flag()? {
            from.opaque(HANDLE_MAX)?;
        }
        page.entries.push(Entry { name, is_folder });
    }
    page.last = from.flag()?;
    Ok(page)
}
