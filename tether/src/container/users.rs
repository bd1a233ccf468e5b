//! Users and groups out of the image's /etc/passwd and /etc/group, with bounded parsing.

use super::StartError;
use crate::sys::fs::{IN_ROOT, NO_MAGICLINKS, openat2};
use std::collections::HashMap;
use std::ffi::CString;
use std::io::Read;

/// Bytes that are read of each file at most; an image's file beyond that is cut at a line.
const FILE_MAX: u64 = 4 << 20;
/// Additional groups at most (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Additional groups.
    pub groups: Vec<u32>,
    /// Home folder, for HOME.
    pub home: String,
}

/// Reads a file inside the present root without following a way out of it: a regular file only,
/// at most [`FILE_MAX`] bytes; empty if it is not there or not such a file.
#[must_use]
pub fn read_bounded(path: &str) -> String {
    let Ok(path) = CString::new(path) else {
        return String::new();
    };
    // O_NONBLOCK: an image may have put a fifo there.
    let Ok(fd) = openat2(
        None,
        &path,
        libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY,
        IN_ROOT | NO_MAGICLINKS,
    ) else {
        return String::new();
    };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    if file.take(FILE_MAX).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of /etc/passwd.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let (_, home) = (fields.next(), fields.next());
        Some(User {
            name,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.unwrap_or(""),
        })
    })
}

/// (name, number, members) of /etc/group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or("")))
    })
}

/// Looks up `spec` (`user`, `uid`, `user:group`, `uid:gid`, …; empty: root) and `additional` groups
/// in the contents of the two files, as Docker does: names first, then numbers; a number needs no
/// entry.
///
/// # Errors
/// Docker's words for a user or group that does not exist.
pub fn resolve(
    spec: &str,
    additional: &[String],
    passwd: &str,
    group: &str,
) -> Result<Identity, StartError> {
    let (user_part, group_part) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let number: Option<u32> = parse_id(user_part);
    let entry = users(passwd)
        .find(|u| u.name == user_part)
        .or_else(|| number.and_then(|n| users(passwd).find(|u| u.uid == n)));
    let (uid, mut gid, home, name) = match (&entry, number) {
        (Some(u), _) => (u.uid, u.gid, u.home, Some(u.name)),
        (None, Some(n)) => (n, 0, "", None),
        (None, None) => {
            return Err(StartError::other(format!(
                "unable to find user {user_part}: no matching entries in passwd file"
            )));
        }
    };
    let find_group = |wanted: &str| -> Result<u32, StartError> {
        groups(group)
            .find(|(n, ..)| *n == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| parse_id(wanted))
            .ok_or_else(|| {
                StartError::other(format!(
                    "unable to find group {wanted}: no matching entries in group file"
                ))
            })
    };
    let mut list: Vec<u32> = Vec::new();
    if group_part.is_empty() {
        // The user's own groups count only where no group was asked for.
        if let Some(name) = name {
            list.extend(
                groups(group)
                    .filter(|(_, _, members)| members.split(',').any(|m| m == name))
                    .map(|(_, gid, _)| gid),
            );
        }
    } else {
        gid = find_group(group_part)?;
    }
    for wanted in additional {
        list.push(find_group(wanted)?);
    }
    // Docker's processes have their own group among the additional ones too.
    if !list.contains(&gid) {
        list.insert(0, gid);
    }
    let mut seen = std::collections::HashSet::new();
    list.retain(|gid| seen.insert(*gid));
    list.truncate(GROUPS_MAX);
    let home = if home.is_empty() {
        if uid == 0 && entry.is_none() {
            "/root"
        } else {
            "/"
        }
    } else {
        home
    };
    Ok(Identity {
        uid,
        gid,
        groups: list,
        home: home.to_owned(),
    })
}

/// A user or group number as Docker takes it: 0 to 2^31 - 1.
fn parse_id(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|n| *n <= i32::MAX as u32)
}

/// Entries of a file's names at most, that [`names`] looks at.
const NAMES_MAX: usize = 65_536;

/// Names by user number; the first one of a number counts.
#[must_use]
pub fn names(passwd: &str) -> HashMap<u32, &str> {
    let mut all = HashMap::new();
    for user in users(passwd).take(NAMES_MAX) {
        all.entry(user.uid).or_insert(user.name);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:101:102::/var/lib/redis:/bin/false\nbroken\n33:x:7:8:::\nnobody:x:65534:65534:n:/nonexistent:/bin/false\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:redis,nobody\nredis:x:102:\ntty:x:5:\nbroken:x\n";

    #[test]
    fn the_first_name_of_a_number_counts() {
        let all = names("a:x:1:1\nb:x:1:1\nbroken\nc:x:2:1::/:\n");
        assert_eq!((all.get(&1), all.get(&2)), (Some(&"a"), Some(&"c")));
        assert_eq!(all.len(), 2);
    }

    fn who(spec: &str, more: &[&str]) -> Result<Identity, String> {
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        resolve(spec, &more, PASSWD, GROUP).map_err(|e| e.message)
    }

    #[test]
    fn names_and_numbers() {
        let redis = Identity {
            uid: 101,
            gid: 102,
            groups: vec![102, 4],
            home: "/var/lib/redis".into(),
        };
        assert_eq!(who("redis", &[]), Ok(redis.clone()));
        assert_eq!(who("101", &[]), Ok(redis));
        assert_eq!(who("", &[]).unwrap().home, "/root");
        assert_eq!(
            who("redis:tty", &["adm", "77"]).unwrap().groups,
            vec![5, 4, 77]
        );
        assert_eq!(
            who("4242:43", &[]),
            Ok(Identity {
                uid: 4242,
                gid: 43,
                groups: vec![43],
                home: "/".into()
            })
        );
        assert_eq!(who("4242", &[]).unwrap().gid, 0);
        assert_eq!(
            who("33", &[]).unwrap().uid,
            7,
            "a name of digits is a name first"
        );
    }

    #[test]
    fn what_does_not_exist_is_named_as_docker_names_it() {
        assert_eq!(
            who("ghost", &[]),
            Err("unable to find user ghost: no matching entries in passwd file".into())
        );
        assert_eq!(
            who("redis:ghosts", &[]),
            Err("unable to find group ghosts: no matching entries in group file".into())
        );
        assert!(who("4294967296", &[]).is_err());
        assert!(who("-1", &[]).is_err());
    }

    #[test]
    fn an_image_without_the_files_has_root_and_numbers() {
        let root = resolve("", &[], "", "").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert!(resolve("root", &[], "", "").is_err());
    }
}
