//! Reading and writing files over HTTP.

use super::{file_fault, locked, sync_folder};
use crate::host::Host;
use crate::server::{Body, full, text};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use vim::{DatastorePath, Fault, FaultKind};

/// Answers a request for a file. The caller is allowed to.
pub async fn serve(
    host: &Arc<Host>,
    request: Request<Incoming>,
    path: DatastorePath,
) -> Response<Body> {
    let result = match *request.method() {
        Method::GET => read(host, &request, &path, true).await,
        Method::HEAD => read(host, &request, &path, false).await,
        Method::PUT | Method::POST => {
            let (parts, mut body) = request.into_parts();
            let result = write(host, &parts, &mut body, &path).await;
            if host.settings.cut_off_uploads
                && let Err(fault) = &result
                && is_full(fault)
            {
                let mut response = empty(StatusCode::INSUFFICIENT_STORAGE);
                response.extensions_mut().insert(CutOff);
                return response;
            }
            if result.is_err() {
                // Either way the answer goes out; what is left then is the connection's end.
                let _ = tokio::time::timeout(FORGET_TIME, forget(body)).await;
            }
            result
        }
        Method::DELETE => {
            let doomed = path.clone();
            host.blocking(move |host| crate::files::delete_file(host, &doomed))
                .await
                .map(|()| empty(StatusCode::NO_CONTENT))
        }
        _ => {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET, HEAD, PUT and DELETE are possible",
            );
        }
    };
    result.unwrap_or_else(|fault| {
        let status = match fault.kind {
            FaultKind::FileNotFound { .. } => StatusCode::NOT_FOUND,
            FaultKind::InvalidDatastorePath { .. } => StatusCode::BAD_REQUEST,
            FaultKind::FileLocked { .. } | FaultKind::FileAlreadyExists { .. } => {
                StatusCode::CONFLICT
            }
            _ if is_full(&fault) => StatusCode::INSUFFICIENT_STORAGE,
            FaultKind::NotSupported {} => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        text(status, fault.message)
    })
}

/// Whether there was no room.
fn is_full(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::NoDiskSpace { .. } | FaultKind::InsufficientStorageSpace {}
    )
}

/// In the extensions of an answer that is not sent: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub struct CutOff;

/// Bytes of a refused upload that are read only to be forgotten, and how long that may take.
const FORGET_MAX: u64 = 1 << 30;
const FORGET_TIME: Duration = Duration::from_secs(10);

/// Takes what a refused upload still sends: a client that is still writing would see its connection reset, and not why
/// (RFC 9112, section 9.6).
async fn forget(mut body: Incoming) {
    let mut left = FORGET_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// First byte and number of bytes of a `Range: bytes=…` header; `Err` where it is outside of the file.
pub(crate) fn range(header: Option<&HeaderValue>, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(text) = header
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    // Several ranges may be answered by the whole.
    let Some((from, to)) = text.split_once('-').filter(|_| !text.contains(',')) else {
        return Ok(None);
    };
    let (first, last) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if to.is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(count)) if from.is_empty() && count > 0 => {
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        _ => return Ok(None),
    };
    if first >= size || first > last {
        Err(())
    } else {
        Ok(Some((first, last - first + 1)))
    }
}

async fn read(
    host: &Arc<Host>,
    request: &Request<Incoming>,
    path: &DatastorePath,
    with_body: bool,
) -> Result<Response<Body>, Fault> {
    let file = host.store.resolve(path)?;
    let mut file = tokio::fs::File::open(&file)
        .await
        .map_err(|e| file_fault(path, &e))?;
    let meta = file.metadata().await.map_err(|e| file_fault(path, &e))?;
    if !meta.is_file() {
        return Err(file_fault(path, &std::io::ErrorKind::NotFound.into()));
    }
    let size = meta.len();
    let (status, first, count) = match range(request.headers().get(header::RANGE), size) {
        Ok(None) => (StatusCode::OK, 0, size),
        Ok(Some((first, count))) => (StatusCode::PARTIAL_CONTENT, first, count),
        Err(()) => {
            let mut response = text(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the range is outside of the file",
            );
            insert(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let body = if with_body {
        file.seek(SeekFrom::Start(first))
            .await
            .map_err(|e| file_fault(path, &e))?;
        let stream = tokio_util::io::ReaderStream::with_capacity(file.take(count), 256 * 1024);
        BodyExt::boxed(StreamBody::new(stream.map(|piece| piece.map(Frame::data))))
    } else {
        full(Bytes::new())
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    insert(&mut response, header::CONTENT_LENGTH, &count.to_string());
    insert(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        let last = first + count - 1;
        insert(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {first}-{last}/{size}"),
        );
    }
    Ok(response)
}

fn insert(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A file in the making beside its place; removed unless it was put there.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Prefix of files in the making: never listed, removed at the start.
pub(crate) const PART_PREFIX: &str = ".part-";

/// A name beside `place` for what is in the making there.
pub(crate) fn part_of(place: &Path) -> PathBuf {
    place.with_file_name(format!("{PART_PREFIX}{}", uuid::Uuid::new_v4().simple()))
}

/// Removes what interrupted uploads and copies left.
pub(crate) fn remove_parts(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_parts(&entry.path()),
            Ok(_) if entry.file_name().to_string_lossy().starts_with(PART_PREFIX) => {
                let _ = std::fs::remove_file(entry.path());
            }
            _ => {}
        }
    }
}

async fn write(
    host: &Arc<Host>,
    request: &http::request::Parts,
    body: &mut Incoming,
    path: &DatastorePath,
) -> Result<Response<Body>, Fault> {
    if path.path.is_empty() {
        return Err(file_fault(path, &std::io::ErrorKind::NotFound.into()));
    }
    let target = host.store.resolve(path)?;
    let replaced = target.exists();
    if target.is_dir() {
        return Err(file_fault(path, &std::io::ErrorKind::AlreadyExists.into()));
    }
    may_replace(host, path)?;
    let announced = request
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = announced {
        host.store.reserve(length)?;
    }
    let part = part_of(&target);
    let temporary = Temporary(part.clone());
    let io = |e: std::io::Error| file_fault(path, &e);
    let out = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&part)
        .await
        .map_err(io)?;
    let mut out = tokio::io::BufWriter::with_capacity(1 << 20, out);
    let mut since_look = 0u64;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| io(std::io::Error::other(format!("the upload broke off: {e}"))))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if announced.is_none() && host.store.is_limited() {
            since_look += data.len() as u64;
            if since_look > 16 << 20 {
                since_look = 0;
                host.store.reserve(16 << 20)?;
            }
        }
        out.write_all(&data).await.map_err(io)?;
    }
    out.flush().await.map_err(io)?;
    let out = out.into_inner();
    out.sync_all().await.map_err(io)?;
    drop(out);
    let path = path.clone();
    host.blocking(move |host| {
        accept_disk(host, &path, &part)?;
        // Once more: a VM may have taken the disk meanwhile.
        may_replace(host, &path)?;
        let io = |e: std::io::Error| file_fault(&path, &e);
        std::fs::rename(&part, &target).map_err(io)?;
        if let Some(folder) = target.parent() {
            sync_folder(folder).map_err(io)?;
        }
        host.disks.refresh(&host.store, &path);
        Ok(())
    })
    .await?;
    drop(temporary);
    Ok(empty(if replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }))
}

/// Refuses to replace a VMDK that others are built on or that a VM has, and a registered VM's .vmx.
fn may_replace(host: &Host, path: &DatastorePath) -> Result<(), Fault> {
    if let Some(child) = host.disks.children(path).first() {
        return Err(locked(path, &format!("{child} is a child of it")));
    }
    let state = host.state();
    let text = path.to_string();
    if state.disk_users().contains_key(&text) || state.vms.values().any(|vm| vm.vmx == *path) {
        return Err(locked(path, "a virtual machine has it"));
    }
    Ok(())
}

/// A sparse VMDK is no run-time format on ESXi: it is taken only where that was announced.
fn accept_disk(host: &Host, path: &DatastorePath, part: &Path) -> Result<(), Fault> {
    use std::io::Read as _;
    let mut magic = [0u8; 4];
    let mut file = std::fs::File::open(part).map_err(|e| file_fault(path, &e))?;
    let sparse =
        path.path.ends_with(".vmdk") && file.read_exact(&mut magic).is_ok() && magic == *b"KDMV";
    if sparse && !host.settings.disk_upload {
        let message = format!("{path}: a monolithicSparse VMDK cannot be used on this host");
        return Err(Fault::new(FaultKind::NotSupported {}, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_inside_the_file() {
        let of = |text: &str, size| range(Some(&HeaderValue::from_str(text).unwrap()), size);
        assert_eq!(of("bytes=0-3", 10), Ok(Some((0, 4))));
        assert_eq!(of("bytes=8-", 10), Ok(Some((8, 2))));
        assert_eq!(of("bytes=8-99", 10), Ok(Some((8, 2))));
        assert_eq!(of("bytes=-4", 10), Ok(Some((6, 4))));
        assert_eq!(of("bytes=10-", 10), Err(()));
        assert_eq!(of("bytes=0-0", 0), Err(()));
        assert_eq!(of("bytes=0-1,4-5", 10), Ok(None));
        assert_eq!(range(None, 10), Ok(None));
    }
}
