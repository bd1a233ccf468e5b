//! `docker cp`, `diff` and `export`: a container's files as a tar, and as a list of changes.

use super::{Target, half_closed::Finite, ok, query::Query};
use crate::{
    containers::{
        files::{JobError, Packer, unpack},
        state::Phase,
    },
    errors::{Error, Result},
    volumes::mounts::clean,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};
use wire::files::{Change, Item, Job, PATH_MAX, PathStat, Record};

/// Encoded entries that wait for the guest, at most.
const QUEUE: usize = 4;
/// Bytes of a list of changes in memory, at most.
const CHANGES_MAX: usize = 256 << 20;
/// Bytes of an entry beside its path, about: a JSON object with two names.
const CHANGE_SIZE: usize = 256;
const STAT: &str = "X-Docker-Container-Path-Stat";

/// The query's path, and the same as Docker reads it: absolute, without `.` and `..`, but for a slash or `/.` at its end.
struct Asked {
    given: String,
    path: String,
}

impl Asked {
    fn read(query: &Query) -> Result<Self> {
        let given = query.text("path").to_owned();
        if given.is_empty() {
            // As Docker has it.
            return Err(Error::bad("bad parameter: pathcannot be empty"));
        }
        let path = absolute(&given);
        if path.contains('\0') || path.len() >= PATH_MAX {
            return Err(Error::bad(format!(
                "bad parameter: path has a NUL or more than {PATH_MAX} bytes"
            )));
        }
        Ok(Self { given, path })
    }

    fn error(&self, at: &str, error: JobError) -> Error {
        match error {
            JobError::NotFound(_) => Error::not_found(format!(
                "Could not find the file {} in container {at}",
                self.given
            )),
            JobError::Other(error) => error,
        }
    }
}

/// `filepath.Join("/", path)`, with `PreserveTrailingDotOrSeparator`.
fn absolute(given: &str) -> String {
    let mut path = clean(given);
    let slash = |path: &mut String| {
        if !path.ends_with('/') {
            path.push('/');
        }
    };
    if given == "." || given.ends_with("/.") {
        slash(&mut path);
        path.push('.');
    } else if given.ends_with('/') {
        slash(&mut path);
    }
    path
}

/// `filepath.Base`.
fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// `os.FileMode` of a `st_mode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        _ => 0,
    };
    let bit = |own: u32, go: u32| if mode & own == 0 { 0 } else { go };
    kind | bit(libc::S_ISUID, 1 << 23)
        | bit(libc::S_ISGID, 1 << 22)
        | bit(libc::S_ISVTX, 1 << 20)
        | mode & 0o777
}

/// The header that tells what the path is.
fn stat_header(path: &str, stat: &PathStat) -> Result<HeaderValue> {
    let ns = i128::from(stat.mtime) * 1_000_000_000 + i128::from(stat.mtime_ns);
    let mtime = time::OffsetDateTime::from_unix_timestamp_nanos(ns)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .format(&time::format_description::well_known::Rfc3339)
        .map_err(|e| Error::internal(e.to_string()))?;
    let value = json!({
        "name": base(path),
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": mtime,
        "linkTarget": String::from_utf8_lossy(&stat.target),
    });
    HeaderValue::from_str(&STANDARD.encode(value.to_string()))
        .map_err(|e| Error::internal(e.to_string()))
}

pub(super) async fn head(at: Target) -> Result<Response> {
    let asked = Asked::read(&at.query)?;
    let path = asked.path.clone().into_bytes();
    let job = at.app.containers.job(&at.container, Job::Stat { path });
    let stat = job.await?.found().await;
    let stat = stat.map_err(|e| asked.error(&at.name, e))?;
    let mut response = Response::new(Body::empty());
    response
        .headers_mut()
        .insert(STAT, stat_header(&asked.path, &stat)?);
    Ok(response)
}

pub(super) async fn get(at: Target) -> Result<Response> {
    let asked = Asked::read(&at.query)?;
    let path = asked.path.clone().into_bytes();
    let job = at.app.containers.job(&at.container, Job::Read { path });
    let mut job = job.await?;
    let stat = job.found().await.map_err(|e| asked.error(&at.name, e))?;
    at.app.containers.tell(&at.container, "archive-path", &[]);
    let mut response = tar(Packer::new(job, base(&asked.path).into()));
    response
        .headers_mut()
        .insert(STAT, stat_header(&asked.path, &stat)?);
    Ok(response)
}

pub(super) async fn export(at: Target) -> Result<Response> {
    let job = at.app.containers.job(&at.container, Job::Export).await?;
    at.app.containers.tell(&at.container, "export", &[]);
    let mut response = tar(Packer::new(job, Vec::new()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

fn tar(packer: Packer) -> Response {
    let mut response = Response::new(Body::from_stream(packer.stream()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-tar"),
    );
    response.extensions_mut().insert(Finite);
    response
}

pub(super) async fn put(at: Target, body: Body) -> Result<Response> {
    let asked = Asked::read(&at.query)?;
    let owner = if at.query.flag("copyUIDGID") {
        at.container.spec.config.user.clone()
    } else {
        String::new()
    };
    let job = Job::Write {
        path: asked.path.clone().into_bytes(),
        keep_kinds: at.query.flag("noOverwriteDirNonDir"),
        owner,
    };
    let job = at.app.containers.job(&at.container, job).await?;
    let (send, pieces) = mpsc::channel(QUEUE);
    let body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let body = SyncIoBridge::new(Box::pin(body));
    let folder = asked.path.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let taken = |piece| {
            // Nobody takes more where the guest has given up, which is what the client is told then.
            send.blocking_send(Ok(piece))
                .map_err(|_| Error::internal("the container's VM takes no more"))
        };
        if let Err(error) = unpack(body, &folder, taken) {
            let _the_guest_gave_up = send.blocking_send(Err(error));
        }
    });
    let fed = job.feed(pieces).await;
    // It lets go of the body: what is left of that is read behind the answer.
    let _ended = unpacking.await;
    fed.map_err(|e| asked.error(&at.name, e))?;
    at.app.containers.tell(&at.container, "extract-to-dir", &[]);
    Ok(Response::new(Body::empty()))
}

pub(super) async fn changes(at: Target) -> Result<Response> {
    let status = at.container.status();
    if status.boot() == 0 && status.phase == Phase::Created {
        // Its VM was never on.
        return Ok(ok(Value::Null));
    }
    let mut job = at.app.containers.job(&at.container, Job::Changes).await?;
    let (mut list, mut size) = (Vec::new(), 0);
    while let Some(item) = job.next().await? {
        let Item::Record(Record::Changed(change, path)) = item else {
            continue;
        };
        // With what an entry of the list takes beside it.
        size += path.len() + CHANGE_SIZE;
        if size > CHANGES_MAX {
            return Err(Error::internal(
                "the container has changed too many files for a list; use docker export",
            ));
        }
        let kind = match change {
            Change::Modified => 0,
            Change::Added => 1,
            Change::Deleted => 2,
        };
        list.push(json!({ "Path": String::from_utf8_lossy(&path), "Kind": kind }));
    }
    Ok(ok(match list.is_empty() {
        true => Value::Null,
        false => Value::Array(list),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_docker_reads_them() {
        for (given, path, name) in [
            ("/a/b", "/a/b", "b"),
            ("a/b/", "/a/b/", "b"),
            ("/a/../../b/.", "/b/.", "."),
            ("/", "/", "/"),
            (".", "/.", "."),
            ("..", "/", "/"),
            ("a//b/./c", "/a/b/c", "c"),
        ] {
            assert_eq!(
                (absolute(given).as_str(), base(&absolute(given))),
                (path, name)
            );
        }
    }

    #[test]
    fn modes_are_go_s() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
    }
}
