//! Where a path leads, inside a root.

/// Links that are followed, as the kernel has it (`MAXSYMLINKS`).
const LINKS: u32 = 40;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A link to this.
    Link(Vec<u8>),
    /// Something else; or nothing, which is well, too.
    Other,
}

/// Follows all links of a path, inside the root: of what comes back no part is a link. `at` says what a path is, and is
/// told whether it is the last part; none of the path before that is a link.
///
/// # Errors
/// `at`'s; `too_many` for more links than the kernel would follow.
pub fn follow<E>(
    path: &[u8],
    too_many: impl FnOnce() -> E,
    mut at: impl FnMut(&[u8], bool) -> Result<Step, E>,
) -> Result<Vec<u8>, E> {
    let (mut done, mut links) = (Vec::new(), 0);
    let mut left = names(path);
    while let Some(name) = left.pop() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                let parent = done.iter().rposition(|b| *b == b'/').unwrap_or(0);
                done.truncate(parent);
                continue;
            }
            _ => {}
        }
        let length = done.len();
        done.push(b'/');
        done.extend_from_slice(&name);
        let Step::Link(link) = at(&done, left.is_empty())? else {
            continue;
        };
        links += 1;
        if links > LINKS {
            return Err(too_many());
        }
        done.truncate(if link.starts_with(b"/") { 0 } else { length });
        left.extend(names(&link));
    }
    if done.is_empty() {
        done.push(b'/');
    }
    Ok(done)
}

/// The names in a path, the last one first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(path: &str) -> Result<String, &'static str> {
        let found = follow(
            path.as_bytes(),
            || "too many",
            |at, _| {
                Ok(match at {
                    b"/abs" => Step::Link(b"/x/y".to_vec()),
                    b"/x/up" => Step::Link(b"../../../z".to_vec()),
                    b"/x/near" => Step::Link(b"y/./w/".to_vec()),
                    b"/round" => Step::Link(b"round".to_vec()),
                    b"/bad" => return Err("bad"),
                    _ => Step::Other,
                })
            },
        );
        found.map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn links_lead_to_places_inside_the_root() {
        for (path, to) in [
            ("/", "/"),
            ("", "/"),
            ("/..", "/"),
            ("/a/../../b/", "/b"),
            ("/abs", "/x/y"),
            ("/abs/..", "/x"),
            ("/x/up", "/z"),
            ("/x/near/v", "/x/y/w/v"),
        ] {
            assert_eq!(led(path).as_deref(), Ok(to), "{path}");
        }
    }

    #[test]
    fn a_link_to_itself_must_not_be_followed_for_ever() {
        assert_eq!(led("/round"), Err("too many"));
        assert_eq!(led("/bad/x"), Err("bad"));
    }
}
