//! Names in an archive, and what they mean in a layer.

/// Longest name of a file, Linux's NAME_MAX.
const MAX_NAME: usize = 255;
/// Longest path, Linux's PATH_MAX less its NUL.
const MAX_PATH: usize = 4095;

/// Why a path is refused, and the layer with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} is refused: {reason}")]
pub struct BadPath {
    /// The path, as text.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Cleans a path: no leading slash, no empty or `.` component, `..` resolved. Empty for the root. Refused are a path
/// that leads out of the root, a NUL, a name above 255 bytes, and a path above 4,095 bytes.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let refuse = |reason| {
        Err(BadPath {
            path: String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned(),
            reason,
        })
    };
    if path.contains(&0) {
        return refuse("it holds a NUL");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return refuse("it leads out of the image by \"..\"");
                }
            }
            _ if part.len() > MAX_NAME => return refuse("a name in it is longer than 255 bytes"),
            _ => parts.push(part),
        }
    }
    let clean = parts.join(&b'/');
    if clean.len() > MAX_PATH {
        refuse("it is longer than 4095 bytes")
    } else {
        Ok(clean)
    }
}

/// What a cleaned path stands for (OCI image specification, layer, "Whiteouts").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// The entry itself.
    Entry,
    /// `.wh.<name>`: this path of the lower layers is gone.
    Whiteout(Vec<u8>),
    /// `.wh..wh..opq`: what lower layers have in this directory is gone.
    Opaque(&'a [u8]),
    /// AUFS's own metadata (`.wh..wh.plnk`, `.wh..wh.aufs`, `.wh..wh.orph` and below): dropped.
    Dropped,
}

/// Tells what a cleaned path stands for. Refused are whiteouts of nothing, of `.` and of `..`, and an entry below a
/// whiteout.
pub fn meaning(path: &[u8]) -> Result<Meaning<'_>, BadPath> {
    let refuse = |reason| {
        Err(BadPath {
            path: String::from_utf8_lossy(path).into_owned(),
            reason,
        })
    };
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    for part in folder.split(|byte| *byte == b'/') {
        if part.starts_with(b".wh..wh.") {
            return Ok(Meaning::Dropped);
        }
        if part.starts_with(b".wh.") {
            return refuse("it is below a whiteout");
        }
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::Entry),
        Some(b".wh..opq") => Ok(Meaning::Opaque(folder)),
        Some(hidden) if hidden.starts_with(b".wh.") => Ok(Meaning::Dropped),
        Some(b"" | b"." | b"..") => refuse("it is a whiteout of nothing, of \".\" or of \"..\""),
        Some(hidden) if folder.is_empty() => Ok(Meaning::Whiteout(hidden.to_vec())),
        Some(hidden) => Ok(Meaning::Whiteout([folder, b"/", hidden].concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_out_of_the_root_is_refused() {
        for bad in [
            &b".."[..],
            b"../x",
            b"/..",
            b"a/../../x",
            b"./../x",
            b"a/./../../etc/passwd",
            b"a\0b",
        ] {
            assert!(clean(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(clean(&[b'a'; 256]).is_err());
        assert!(clean(&b"a/".repeat(2049)).is_err());
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("", ""),
            ("./", ""),
            ("/", ""),
            ("/etc//passwd", "etc/passwd"),
            ("./a/./b/", "a/b"),
            ("a/../b", "b"),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()).unwrap(), cleaned.as_bytes());
        }
        assert_eq!(clean(b"\xff/\n").unwrap(), b"\xff/\n");
    }

    #[test]
    fn a_whiteout_of_the_parent_is_refused() {
        for bad in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh...", b"a/.wh.b/c"] {
            assert!(meaning(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(
            meaning(b"a/.wh.b").unwrap(),
            Meaning::Whiteout(b"a/b".to_vec())
        );
        assert_eq!(meaning(b".wh.b").unwrap(), Meaning::Whiteout(b"b".to_vec()));
        assert_eq!(meaning(b".wh..wh..opq").unwrap(), Meaning::Opaque(b""));
        assert_eq!(
            meaning(b"a/b/.wh..wh..opq").unwrap(),
            Meaning::Opaque(b"a/b")
        );
        assert_eq!(meaning(b".wh..wh.plnk/1.2").unwrap(), Meaning::Dropped);
        assert_eq!(meaning(b".wh..wh.aufs").unwrap(), Meaning::Dropped);
        assert_eq!(meaning(b"a.wh.b").unwrap(), Meaning::Entry);
    }
}
