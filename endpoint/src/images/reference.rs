//! Image references as Docker reads and shows them (distribution/reference: `[domain/]path[:tag][@digest]`).

use layers::Digest;
use std::fmt;

/// The domain of a name without one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The longest name, with domain, that is taken (distribution's `NameTotalLengthMax`).
const NAME_MAX: usize = 255;

/// A reference that was parsed. At least one of tag and digest is set, `latest` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `127.0.0.1:5000`, …
    pub domain: String,
    /// `library/busybox`.
    pub path: String,
    /// The tag, unless only a digest was given.
    pub tag: Option<String>,
    /// The manifest's digest, if it was given.
    pub digest: Option<Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format{0}")]
pub struct BadReference(String);

fn bad(why: &str) -> BadReference {
    BadReference(if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    })
}

impl Reference {
    /// Parses a reference in familiar or full form.
    ///
    /// # Errors
    /// In Docker's words where the text is no reference.
    pub fn parse(text: &str) -> Result<Reference, BadReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse().map_err(|_| bad("unsupported digest"))?),
            ),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].rfind(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !tag_is_valid(tag)
        {
            return Err(bad(""));
        }
        // The first part is a domain only if it could not be a path's (Docker's splitDockerDomain).
        let (domain, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, path.to_owned())
            }
            _ => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let domain = if domain == "index.docker.io" {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("repository name must be lowercase"));
        }
        if !domain_is_valid(domain)
            || !path.split('/').all(component_is_valid)
            || domain.len() + 1 + path.len() > NAME_MAX
        {
            return Err(bad(""));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference {
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        })
    }

    /// The name without tag and digest, as Docker shows it: `busybox`, `me/x`, `127.0.0.1:5000/x`.
    pub fn name(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            self.path
                .strip_prefix("library/")
                .unwrap_or(&self.path)
                .to_owned()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// The same with its domain and tag, as containerd names it: `docker.io/library/busybox:latest`.
    pub fn whole(&self) -> String {
        let tag = self.tag.as_deref().unwrap_or("latest");
        format!("{}/{}:{tag}", self.domain, self.path)
    }

    /// `name:tag`, if it has a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.name()))
    }

    /// `name@digest` for a digest.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

/// In familiar form; with a digest, the tag is left out.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "{}@{digest}", self.name()),
            (None, Some(tag)) => write!(f, "{}:{tag}", self.name()),
            (None, None) => write!(f, "{}", self.name()),
        }
    }
}

fn tag_is_valid(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn domain_is_valid(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !domain.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    host_is_valid && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn component_is_valid(component: &str) -> bool {
    let separators = |b: u8| matches!(b, b'.' | b'_' | b'-');
    if component.is_empty()
        || component.starts_with(|c: char| !c.is_ascii_alphanumeric())
        || component.ends_with(|c: char| !c.is_ascii_alphanumeric())
    {
        return false;
    }
    component
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || separators(b))
        && component
            .split(|c: char| c.is_ascii_alphanumeric())
            .all(|run| {
                run.is_empty() || matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-')
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_in_all_their_forms() {
        for (text, domain, path, shown) in [
            ("busybox", "docker.io", "library/busybox", "busybox:latest"),
            (
                "docker.io/library/busybox:1",
                "docker.io",
                "library/busybox",
                "busybox:1",
            ),
            ("index.docker.io/me/x", "docker.io", "me/x", "me/x:latest"),
            (
                "127.0.0.1:5000/deb",
                "127.0.0.1:5000",
                "deb",
                "127.0.0.1:5000/deb:latest",
            ),
            (
                "localhost/a/b:v_1.2-3",
                "localhost",
                "a/b",
                "localhost/a/b:v_1.2-3",
            ),
            ("[::1]:5000/x", "[::1]:5000", "x", "[::1]:5000/x:latest"),
            ("a__b/c-d.e", "docker.io", "a__b/c-d.e", "a__b/c-d.e:latest"),
        ] {
            let r = Reference::parse(text).unwrap();
            assert_eq!(
                (r.domain.as_str(), r.path.as_str(), r.to_string().as_str()),
                (domain, path, shown),
                "{text}"
            );
        }
        let r = Reference::parse(&format!("x:tag@{D}")).unwrap();
        assert_eq!(
            (r.wanted(), r.to_string()),
            (D.to_owned(), format!("x@{D}"))
        );
        assert_eq!(Reference::parse(&format!("x@{D}")).unwrap().tag, None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            "/a",
            "a//b",
            "a/",
            "A",
            "docker.io/A",
            "x:-tag",
            "x y",
            "x@sha256:12",
            "a___b",
            "-a",
            "a-",
            "a:b:c",
            "..",
            "x/../y",
            "h:99999/x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert_eq!(
            Reference::parse("Foo").unwrap_err().to_string(),
            "invalid reference format: repository name must be lowercase"
        );
    }
}
