//! Finding the program in the container's root, with Docker's messages and codes.

use super::{StartError, reason};
use nix::sys::stat::stat;
use nix::unistd::{AccessFlags, eaccess};
use std::io;
use std::path::Path;

/// Finds `program` as Docker does: along `path` (the value of PATH) where it has no slash, else as
/// it is. Runs in the container's root with the process's credentials.
///
/// # Errors
/// Code 127 where it does not exist, 126 where it is a folder or not executable.
pub fn find(program: &str, path: &str) -> Result<String, StartError> {
    if program.contains('/') {
        return match executable(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(e) => Err(failure(program, &e, true)),
        };
    }
    let mut denied = None;
    // None is in no PATH; within one, an empty name is the working directory.
    for folder in path.split(':').filter(|_| !path.is_empty()) {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{}/{program}", folder.trim_end_matches('/'));
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => denied = Some(e),
            Err(_) => {}
        }
    }
    match denied {
        Some(e) if !program.is_empty() => Err(failure(program, &e, false)),
        _ => Err(StartError {
            code: 127,
            message: format!("exec: {program:?}: executable file not found in $PATH"),
        }),
    }
}

fn executable(path: &str) -> io::Result<()> {
    // Not by std's function: that one calls statx(2), which a seccomp profile that is made for runc may not allow.
    let mode = stat(path)?.st_mode;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    match eaccess(Path::new(path), AccessFlags::X_OK) {
        // A seccomp profile that has no such call: as Go, and so runc, does, the bits count.
        Err(nix::Error::EPERM | nix::Error::ENOSYS) if mode & 0o111 != 0 => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

/// The error for a program that could not be looked at, or that execve(2) refused.
#[must_use]
pub fn failure(program: &str, error: &io::Error, stat: bool) -> StartError {
    let why = reason(error);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) if stat => {
            StartError {
                code: 127,
                message: format!("exec: {program:?}: stat {program}: {why}"),
            }
        }
        Some(libc::ENOENT) => StartError {
            code: 127,
            message: format!("exec: {program:?}: {why}"),
        },
        _ => StartError {
            code: 126,
            message: format!("exec: {program:?}: {why}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn along_path_and_by_path() {
        let dir = std::env::temp_dir().join(format!("tether-lookup-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        std::fs::create_dir_all(a.join("folder")).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        for (file, mode) in [(a.join("plain"), 0o644), (b.join("tool"), 0o755)] {
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = format!("{}/:{}", a.display(), b.display());
        assert_eq!(find("tool", &path), Ok(format!("{}/tool", b.display())));
        let e = find("missing", &path).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (127, "exec: \"missing\": executable file not found in $PATH")
        );
        let e = find("plain", &path).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (126, "exec: \"plain\": permission denied")
        );
        let e = find("/no/such", &path).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (
                127,
                "exec: \"/no/such\": stat /no/such: no such file or directory"
            )
        );
        let folder = a.display().to_string();
        let e = find(&folder, &path).unwrap_err();
        assert_eq!(
            (e.code, e.message),
            (126, format!("exec: {folder:?}: is a directory"))
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
