//! Listing folders as the datastore browser does.

use super::{Datastore, file_fault};
use std::fs;
use std::time::SystemTime;
use vim::types::{DatastoreSearchResults, DatastoreSearchSpec, FileInfo, ManagedObjectReference};
use vim::{DatastorePath, DateTime, Fault};

/// Folders below each other, before a listing stops going down.
const DEPTH_MAX: usize = 32;

/// Lists a folder, with `sub_folders` also those below it.
///
/// # Errors
/// `FileNotFound`.
pub fn search(
    store: &Datastore,
    reference: &ManagedObjectReference,
    folder: &DatastorePath,
    spec: &DatastoreSearchSpec,
    sub_folders: bool,
) -> Result<Vec<DatastoreSearchResults>, Fault> {
    let mut results = Vec::new();
    search_in(store, reference, folder, spec, sub_folders, 0, &mut results)?;
    Ok(results)
}

fn search_in(
    store: &Datastore,
    reference: &ManagedObjectReference,
    folder: &DatastorePath,
    spec: &DatastoreSearchSpec,
    sub_folders: bool,
    depth: usize,
    results: &mut Vec<DatastoreSearchResults>,
) -> Result<(), Fault> {
    let path = store.resolve(folder)?;
    let mut below = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).map_err(|e| file_fault(folder, &e))? {
        let entry = entry.map_err(|e| file_fault(folder, &e))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // A file may go while the folder is read; names with a dot are files in the making.
        let Ok(meta) = entry.metadata() else { continue };
        if name.starts_with('.') || meta.file_type().is_symlink() {
            continue;
        }
        if meta.is_dir() {
            below.push(folder.join(&name));
        }
        let fold = spec.search_case_insensitive.unwrap_or(true);
        if !spec.match_pattern.is_empty()
            && !spec.match_pattern.iter().any(|p| matches(p, &name, fold))
        {
            continue;
        }
        let details = spec.details.clone().unwrap_or_default();
        let kind = if !details.file_type && !meta.is_dir() {
            "FileInfo"
        } else {
            kind_of(&name, meta.is_dir())
        };
        files.push(FileInfo {
            kind: kind.to_owned(),
            path: name,
            file_size: details.file_size.then_some(meta.len() as i64),
            modification: details.modification.then(|| date(meta.modified().ok())),
            owner: details
                .file_owner
                .unwrap_or(false)
                .then(|| "root".to_owned()),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if spec.sort_folders_first.unwrap_or(false) {
        files.sort_by_key(|f| !f.is_folder());
    }
    let folder_path = if folder.path.is_empty() {
        folder.to_string()
    } else {
        format!("{folder}/")
    };
    results.push(DatastoreSearchResults {
        datastore: Some(reference.clone()),
        folder_path: Some(folder_path),
        file: files,
    });
    if sub_folders && depth < DEPTH_MAX {
        below.sort();
        for folder in below {
            match search_in(store, reference, &folder, spec, true, depth + 1, results) {
                Err(fault) if fault.is_not_found() => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn date(time: Option<SystemTime>) -> DateTime {
    DateTime(time.unwrap_or(SystemTime::UNIX_EPOCH).into())
}

fn kind_of(name: &str, folder: bool) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        _ if folder => "FolderFileInfo",
        Some("vmdk") => "VmDiskFileInfo",
        Some("vmx") => "VmConfigFileInfo",
        Some("iso") => "IsoImageFileInfo",
        Some("log") => "VmLogFileInfo",
        Some("nvram") => "VmNvramFileInfo",
        _ => "FileInfo",
    }
}

/// Whether a name matches a pattern of `*` and `?`.
fn matches(pattern: &str, name: &str, fold: bool) -> bool {
    let text = |t: &str| if fold { t.to_lowercase() } else { t.to_owned() };
    let pattern: Vec<char> = text(pattern).chars().collect();
    let name: Vec<char> = text(name).chars().collect();
    // The last star and how far it has eaten: enough to backtrack, and linear in memory.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, eaten)) => {
                    p = at + 1;
                    n = eaten + 1;
                    star = Some((at, eaten + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_a_shell_has_it() {
        assert!(matches("*.vmdk", "a.vmdk", false));
        assert!(matches("*a*b?", "xxaybbz", false));
        assert!(!matches("*.vmdk", "a.vmx", false));
        assert!(matches("A*", "abc", true));
        assert!(!matches("A*", "abc", false));
        assert!(!matches("", "a", false));
    }
}
