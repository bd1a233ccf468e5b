//! The datastore: a folder whose insides are reached only by paths that stay in it.

mod browse;
mod disks;
mod http;
mod path;

pub use browse::search;
pub use disks::{DiskFile, Disks, disk_uuid};
#[cfg(any(test, fuzzing))]
pub(crate) use http::range;
pub use http::{CutOff, serve};
pub(crate) use http::{part_of, remove_parts};
pub use path::Datastore;
pub(crate) use path::{sync_folder, write_durably};

use vim::{DatastorePath, Fault, FaultKind};

/// The fault for a failed file operation.
pub fn file_fault(path: &DatastorePath, error: &std::io::Error) -> Fault {
    use std::io::ErrorKind;
    let file = path.to_string();
    match error.kind() {
        ErrorKind::NotFound => {
            let message = format!("File {file} was not found");
            Fault::new(FaultKind::FileNotFound { file }, message)
        }
        ErrorKind::AlreadyExists => {
            let message = format!(
                "Cannot complete the operation because the file or folder {file} already exists"
            );
            Fault::new(FaultKind::FileAlreadyExists { file }, message)
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let message = format!("Insufficient disk space on datastore '{}'", path.datastore);
            Fault::new(
                FaultKind::NoDiskSpace {
                    file,
                    datastore: path.datastore.clone(),
                },
                message,
            )
        }
        _ => {
            let message = format!("A general system error occurred at {file}: {error}");
            Fault::new(FaultKind::FileFault { file }, message)
        }
    }
}

/// The fault for a file that is in use.
pub fn locked(path: &DatastorePath, why: &str) -> Fault {
    let file = path.to_string();
    Fault::new(
        FaultKind::FileLocked { file: file.clone() },
        format!("Unable to access file {file} since it is locked: {why}"),
    )
}
