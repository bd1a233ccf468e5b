//! From a request to the operation that the audit log has.

use crate::distribution::Route;
use http::Method;
use std::borrow::Cow;

/// What somebody did, or tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// Its name: what it is about, a dot, what is done.
    pub name: Cow<'static, str>,
    /// In which project.
    pub project: Option<String>,
    /// In which repository.
    pub repository: Option<String>,
    /// To what.
    pub target: Option<String>,
    /// Nothing is changed by it.
    pub reads: bool,
    /// Only written down when it is forbidden.
    pub quiet: bool,
}

impl Operation {
    /// Of the distribution API; `None`: it is about no repository.
    #[must_use]
    pub fn of_distribution(route: &Route, method: &Method, query: Option<&str>) -> Option<Self> {
        let looks = *method == Method::HEAD;
        let deletes = *method == Method::DELETE;
        let (repository, name, target, reads, quiet) = match route {
            Route::Base | Route::Catalog => return None,
            Route::Manifest(name, reference) => {
                let operation = match *method {
                    Method::PUT => "push",
                    Method::DELETE => "delete",
                    _ => "pull",
                };
                let reads = operation == "pull";
                (name, operation, Some(reference.to_string()), reads, looks)
            }
            Route::Blob(name, digest) => {
                let operation = if deletes { "blob.delete" } else { "blob.pull" };
                (name, operation, Some(digest.to_string()), !deletes, looks)
            }
            Route::Uploads(name) => {
                let has = |key: &str| {
                    let pairs = query.unwrap_or_default().split('&');
                    pairs
                        .filter_map(|p| p.split_once('='))
                        .find(|(k, _)| *k == key)
                        .map(|(_, v)| decoded(v))
                };
                match (has("mount"), has("digest")) {
                    (Some(digest), _) => (name, "blob.mount", Some(digest), false, false),
                    (None, Some(digest)) => (name, "blob.push", Some(digest), false, false),
                    (None, None) => (name, "blob.push", None, false, true),
                }
            }
            Route::Upload(name, _) if *method == Method::PUT => {
                (name, "blob.push", digest_of(query), false, false)
            }
            Route::Upload(name, _) => (name, "blob.push", None, false, true),
            Route::Tags(name) => (name, "list", None, true, true),
            Route::Referrers(name, digest) => (name, "list", Some(digest.to_string()), true, true),
        };
        Some(Operation {
            name: name.into(),
            project: Some(repository.project().to_owned()),
            repository: Some(repository.as_str().to_owned()),
            target,
            reads,
            quiet,
        })
    }

    /// Of the administration API: from the path's template (`/api/v1/projects/{project}/…`) and the path.
    #[must_use]
    pub fn of_api(template: &str, path: &str, method: &Method) -> Self {
        let template = template.strip_prefix("/api/v1").unwrap_or(template);
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let mut operation = Operation {
            reads: matches!(*method, Method::GET | Method::HEAD),
            quiet: matches!(*method, Method::GET | Method::HEAD),
            ..Operation::default()
        };
        let mut words = Vec::new();
        for (key, value) in template.split('/').zip(path.split('/')) {
            match key {
                "" => {}
                "{project}" => operation.project = Some(decoded(value)),
                "{repository}" => operation.repository = Some(decoded(value)),
                key if key.starts_with('{') => operation.target = Some(decoded(value)),
                word => words.push(singular(word)),
            }
        }
        if let (Some(project), Some(name)) = (&operation.project, &operation.repository) {
            operation.repository = Some(format!("{project}/{name}"));
        }
        // `projects/{project}/members/{user}` is about a member.
        if words.len() > 1 && words[0] == "project" {
            words.remove(0);
        }
        let verb = match *method {
            Method::GET | Method::HEAD => "read",
            Method::POST => "create",
            Method::DELETE => "remove",
            _ => "change",
        };
        operation.name = format!("{}.{verb}", words.join(".")).into();
        operation
    }
}

fn singular(word: &str) -> &str {
    match word {
        "repositories" => "repository",
        "gc" => "gc",
        word => word.strip_suffix('s').unwrap_or(word),
    }
}

fn digest_of(query: Option<&str>) -> Option<String> {
    let mut pairs = query?.split('&').filter_map(|p| p.split_once('='));
    pairs.find(|(k, _)| *k == "digest").map(|(_, v)| decoded(v))
}

/// Bounded: it is what a client sent.
fn decoded(text: &str) -> String {
    let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_for_what_they_do() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let of = |method: Method, path: &str, query: Option<&str>| {
            let route = crate::distribution::parse(path).unwrap();
            Operation::of_distribution(&route, &method, query)
        };
        let o = of(Method::PUT, "/v2/p/a/manifests/v1", None).unwrap();
        assert_eq!((&*o.name, o.target.as_deref()), ("push", Some("v1")));
        assert!(!o.reads && !o.quiet);
        assert_eq!(o.project.as_deref(), Some("p"));
        let o = of(Method::HEAD, "/v2/p/a/manifests/v1", None).unwrap();
        assert!(o.reads && o.quiet);
        let query = format!("digest={}", digest.replace(':', "%3A"));
        let o = of(Method::PUT, "/v2/p/a/blobs/uploads/1", Some(&query)).unwrap();
        assert_eq!(
            (&*o.name, o.target.as_deref()),
            ("blob.push", Some(&*digest))
        );
        assert_eq!(of(Method::GET, "/v2/", None), None);

        let api = |method, template, path| Operation::of_api(template, path, &method);
        let o = api(
            Method::PUT,
            "/api/v1/projects/{project}/members/{user}",
            "/api/v1/projects/p/members/jo%40x",
        );
        assert_eq!(
            (&*o.name, o.target.as_deref()),
            ("member.change", Some("jo@x"))
        );
        let o = api(
            Method::DELETE,
            "/api/v1/projects/{project}",
            "/api/v1/projects/p",
        );
        assert_eq!(
            (&*o.name, o.project.as_deref()),
            ("project.remove", Some("p"))
        );
        let o = api(
            Method::DELETE,
            "/api/v1/projects/{project}/repositories/{repository}",
            "/api/v1/projects/p/repositories/a%2Fb",
        );
        assert_eq!(o.repository.as_deref(), Some("p/a/b"));
        assert_eq!(o.name, "repository.remove");
    }
}
