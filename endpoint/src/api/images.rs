//! Images: pull, load, list, inspect, tag, remove; and `docker login`.

use super::half_closed::Finite;
use super::query::Query;
use super::{JsonBody, image_fields, ok, version::ApiVersion};
use crate::app::App;
use crate::errors::{Error, Result};
use crate::images::manifest::Platform;
use crate::images::progress::Progress;
use crate::images::registry::{Credentials, RegistryError};
use crate::images::{ImageRecord, Images, Import, Reference, User};
use crate::timestamps;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The calls under `/images`, `/build` and `/auth`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/prune", post(prune))
        .route("/images/search", get(search))
        .route("/images/get", get(save))
        .route(
            "/images/{*rest}",
            get(get_one).post(post_one).delete(delete_one),
        )
        .route("/build", post(async || Error::not_yet("docker build")))
        .route(
            "/build/prune",
            // There is no build cache to be pruned.
            post(async |State(app): State<Arc<App>>| {
                app.events.pruned("builder", 0);
                ok(json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
            }),
        )
        .route("/distribution/{*rest}", get(distribution))
        .route("/auth", post(login))
}

fn platform(query: &Query) -> Result<Option<Platform>> {
    match query.text("platform") {
        "" => Ok(None),
        // Newer clients send JSON, older ones `os/architecture`.
        text if text.starts_with('{') => serde_json::from_str(text)
            .map(Some)
            .map_err(|e| Error::bad(format!("invalid platform: {e}"))),
        text => Platform::parse(text).map(Some).ok_or_else(|| {
            Error::bad(format!(
                "{text:?} is an invalid platform; write os/architecture"
            ))
        }),
    }
}

fn credentials(headers: &HeaderMap) -> Result<Credentials> {
    let text = headers
        .get("x-registry-auth")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let invalid = |e: String| Error::bad(format!("invalid X-Registry-Auth header: {e}"));
    // Clients differ in alphabet and padding.
    let text: String = text
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            c => c,
        })
        .collect();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|e| invalid(e.to_string()))?;
    if bytes.is_empty() || bytes == b"null" {
        return Ok(Credentials::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))
}

/// An answer whose lines come as the work goes on. Once it has begun, an error is its last line.
fn stream<F>(work: impl FnOnce(Progress) -> F) -> Response
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (progress, mut lines) = Progress::new();
    let work = work(progress.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = work => if let Err(error) = result {
                progress.error(&error.message);
            },
            // Ctrl-C at the client gives the work up.
            () = progress.closed() => {}
        }
    });
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| {
        lines
            .poll_recv(context)
            .map(|line| line.map(Ok::<_, std::convert::Infallible>))
    }));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The same, but work that fails before it has told anything is answered with its error's status, as with Docker.
async fn stream_or_error<F>(work: impl FnOnce(Progress) -> F) -> Result<Response>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (progress, mut lines) = Progress::new();
    let (failed, mut failure) = oneshot::channel();
    let work = work(progress.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = work => if let Err(error) = result {
                let _client_is_gone = failed.send(error);
            },
            () = progress.closed() => {}
        }
    });
    let first = lines.recv().await;
    if first.is_none()
        && let Ok(error) = failure.try_recv()
    {
        return Err(error);
    }
    let body = futures_util::stream::unfold(
        (first, lines, failure),
        async |(first, mut lines, mut failure)| {
            let line = match first {
                Some(line) => Some(line),
                None => lines.recv().await,
            };
            // All that was told is out; what is left is why it ended.
            let line = line.or_else(|| Some(Progress::last(&failure.try_recv().ok()?.message)))?;
            Some((
                Ok::<_, std::convert::Infallible>(line),
                (None, lines, failure),
            ))
        },
    );
    let body = Body::from_stream(body);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn create(
    State(app): State<Arc<App>>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    if !query.text("fromSrc").is_empty() {
        return import(app, &query, body).await;
    }
    let name = query.text("fromImage");
    if name.is_empty() {
        return Err(Error::bad(
            "fromImage is missing: which image is to be pulled?",
        ));
    }
    let full = match query.text("tag") {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let reference = Reference::parse(&full).map_err(|e| Error::bad(e.to_string()))?;
    let (platform, credentials) = (platform(&query)?, credentials(&headers)?);
    // Docker's clients name the tag, unless all are wanted.
    let last = full.rsplit('/').next().unwrap_or(&full);
    let all = !last.contains([':', '@']);
    stream_or_error(move |progress| async move {
        if all {
            return app
                .images
                .pull_all(&reference, platform.as_ref(), credentials, &progress)
                .await;
        }
        app.images
            .pull(&reference, platform.as_ref(), credentials, &progress)
            .await
    })
    .await
}

/// `docker import`.
async fn import(app: Arc<App>, query: &Query, body: Body) -> Result<Response> {
    let reference = match (query.text("repo"), query.text("tag")) {
        ("", _) => None,
        (repo, "") => Some(repo.to_owned()),
        (repo, tag) => Some(format!("{repo}:{tag}")),
    };
    let reference = reference
        .map(|r| Reference::parse(&r))
        .transpose()
        .map_err(|e| Error::bad(e.to_string()))?;
    if reference.as_ref().is_some_and(|r| r.digest.is_some()) {
        return Err(Error::bad("cannot import digest reference"));
    }
    let import = Import {
        source: query.text("fromSrc").to_owned(),
        reference,
        changes: query.all("changes").map(str::to_owned).collect(),
        message: query.text("message").to_owned(),
        platform: platform(query)?,
    };
    import.check()?;
    app.images.can_place()?;
    app.images.registry().check_unsigned("docker import")?;
    let from_client = import.source == "-";
    let sent = if from_client {
        Some(app.images.receive(body.into_data_stream()).await?)
    } else {
        None
    };
    Ok(stream(move |progress| async move {
        let file = match sent {
            Some(file) => file,
            None => {
                progress.status(&format!("Downloading from {}", import.shown()));
                app.images.download(&import.source).await?
            }
        };
        app.images.import(file, &import, &progress).await
    }))
}

/// `docker search`.
async fn search(State(app): State<Arc<App>>, query: Query, headers: HeaderMap) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["is-automated", "is-official", "stars"])?;
    let limit = query.number::<u64>("limit")?.unwrap_or(25);
    if !(1..=100).contains(&limit) {
        return Err(Error::bad(format!(
            "limit {limit} is outside the range of [1, 100]"
        )));
    }
    let stars = match filters.values("stars") {
        None => 0,
        Some(values) => values
            .iter()
            .map(|v| v.parse::<u64>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::bad(format!("invalid filter 'stars={values:?}'")))?
            .into_iter()
            .max()
            .unwrap_or(0),
    };
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let term = query.text("term");
    if term.is_empty() {
        return Err(Error::bad("term is missing: what is to be searched for?"));
    }
    if term.contains("://") {
        return Err(Error::bad(format!(
            "invalid repository name ({term}): write no scheme"
        )));
    }
    let mut found = app
        .images
        .registry()
        .search(term, limit, &credentials(&headers)?)
        .await?;
    found.retain(|f| {
        f.star_count >= stars
            && official.is_none_or(|o| f.is_official == o)
            && automated.is_none_or(|a| f.is_automated == a)
    });
    Ok(ok(json!(found)))
}

/// `GET /distribution/{name}/json`.
async fn distribution(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let name = rest
        .strip_suffix("/json")
        .ok_or_else(|| Error::not_found("page not found"))?;
    let reference = Reference::parse(name).map_err(|e| Error::bad(e.to_string()))?;
    let (descriptor, platforms) = app
        .images
        .distribution(&reference, credentials(&headers)?)
        .await?;
    let platforms: Vec<Value> = platforms
        .into_iter()
        .map(|p| {
            let mut value = json!({ "architecture": p.architecture, "os": p.os });
            if let Some(variant) = p.variant {
                value["variant"] = variant.into();
            }
            value
        })
        .collect();
    Ok(ok(
        json!({ "Descriptor": descriptor, "Platforms": platforms }),
    ))
}

async fn load(State(app): State<Arc<App>>, query: Query, body: Body) -> Result<Response> {
    let platform = platform(&query)?;
    app.images.can_place()?;
    app.images.registry().check_unsigned("docker load")?;
    let file = app.images.receive(body.into_data_stream()).await?;
    let quiet = query.flag("quiet");
    Ok(stream(move |progress| async move {
        let progress = if quiet { progress.quiet() } else { progress };
        app.images.load(file, platform.as_ref(), &progress).await
    }))
}

async fn login(
    State(app): State<Arc<App>>,
    JsonBody(credentials): JsonBody<Credentials>,
) -> Result<Response> {
    match app.images.registry().login(credentials).await {
        Ok(()) => Ok(ok(
            json!({ "Status": "Login Succeeded", "IdentityToken": "" }),
        )),
        Err(e @ RegistryError::Unauthorized(_)) => Ok((
            StatusCode::UNAUTHORIZED,
            axum::Json(json!({ "message": e.to_string() })),
        )
            .into_response()),
        Err(e) => Err(e.into()),
    }
}

/// When the image was made, in seconds since 1970; 0 where it does not say.
fn created(image: &ImageRecord) -> i64 {
    seconds(
        image
            .config
            .get("created")
            .and_then(Value::as_str)
            .unwrap_or_default(),
    )
}

fn seconds(text: &str) -> i64 {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(text, format).map_or(0, time::OffsetDateTime::unix_timestamp)
}

/// The same in ns; 0 where it does not say.
fn created_ns(image: &ImageRecord) -> u64 {
    u64::try_from(created(image))
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
}

fn labels(image: &ImageRecord) -> BTreeMap<String, String> {
    image
        .config
        .pointer("/config/Labels")
        .and_then(|l| serde_json::from_value(l.clone()).ok())
        .unwrap_or_default()
}

/// A row of the list of images.
pub(super) fn summary(app: &App, image: &ImageRecord) -> Value {
    json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": created(image),
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": -1,
        "Labels": labels(image),
        "Containers": users(app)(&image.id).len(),
    })
}

/// Whether a pattern with `*` and `?` means a text. Neither stands for a slash, as in Go's path.Match, so each part
/// between slashes is matched with its own.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut patterns, mut texts) = (pattern.split('/'), text.split('/'));
    loop {
        match (patterns.next(), texts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(text)) if part_matches(pattern.as_bytes(), text.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// The same for one part. The last star is the only one that is tried again, with one byte more: an earlier one that
/// took more would leave less to those behind it. So the time is that of one length by the other, whatever the pattern.
fn part_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(&byte), _) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether a name of an image, with or without its tag, is what the pattern means.
fn name_matches(name: &str, pattern: &str) -> bool {
    let bare = name.split('@').next().unwrap_or(name);
    let bare = bare
        .rfind(':')
        .filter(|at| !bare[*at..].contains('/'))
        .map_or(bare, |at| &bare[..at]);
    matches(pattern, name) || matches(pattern, bare)
}

fn names_match(image: &ImageRecord, pattern: &str) -> bool {
    image
        .repo_tags
        .iter()
        .chain(&image.repo_digests)
        .any(|name| name_matches(name, pattern))
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["before", "dangling", "label", "reference", "since", "until"])?;
    let until = match filters.values("until") {
        None => u64::MAX,
        Some([one]) => timestamps::parse(one, timestamps::now())?,
        Some(_) => return Err(Error::bad("more than one until filter specified")),
    };
    let time_of = |name: &str| {
        let first = filters.values(name).and_then(<[String]>::first);
        first
            .map(|r| find(&app, r).map(|i| created(&i)))
            .transpose()
    };
    let (before, since, dangling) = (
        time_of("before")?,
        time_of("since")?,
        filters.flag("dangling")?,
    );
    let mut images = app.images.all();
    images.sort_by_key(|i| (std::cmp::Reverse(created(i)), i.id.clone()));
    let shown = images.iter().filter(|i| {
        before.is_none_or(|t| created(i) < t)
            && since.is_none_or(|t| created(i) > t)
            && dangling.is_none_or(|d| d == i.repo_tags.is_empty())
            && created_ns(i) <= until
            && filters.labels("label", &labels(i))
            && filters.any("reference", |p| names_match(i, p))
    });
    let rows = shown.map(|i| {
        // As with Docker, only the names that were asked for are shown.
        let mut shown = (**i).clone();
        if let Some(patterns) = filters.values("reference") {
            let wanted = |name: &String| patterns.iter().any(|p| name_matches(name, p));
            shown.repo_tags.retain(wanted);
            shown.repo_digests.retain(wanted);
        }
        summary(&app, &shown)
    });
    Ok(ok(Value::Array(rows.collect())))
}

fn find(app: &App, name: &str) -> Result<Arc<ImageRecord>> {
    app.images
        .resolve(name)
        .ok_or_else(|| Error::no_such_image(name))
}

async fn save(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let names: Vec<String> = query.all("names").map(str::to_owned).collect();
    archive(&app, &names, &query)
}

/// The answer to `docker save`.
fn archive(app: &App, names: &[String], query: &Query) -> Result<Response> {
    let mut pieces = app.images.save(names, platform(query)?.as_ref())?;
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| {
        pieces.poll_recv(context)
    }));
    let kind = [(header::CONTENT_TYPE, "application/x-tar")];
    Ok((kind, Extension(Finite), body).into_response())
}

async fn get_one(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    query: Query,
    version: ApiVersion,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let shown = inspect(&*find(&app, name)?);
            Ok(ok(image_fields::of_version(shown, version)))
        }
        Some((name, "history")) => Ok(ok(history(&*find(&app, name)?))),
        Some((name, "get")) => archive(&app, &[name.to_owned()], &query),
        _ => Err(Error::not_found("page not found")),
    }
}

async fn post_one(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let (repo, tag) = (query.text("repo"), query.text("tag"));
            let target = if tag.is_empty() {
                repo.to_owned()
            } else {
                format!("{repo}:{tag}")
            };
            app.images.tag(name, &target).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((name, "push")) => {
            let (reference, all) = Images::push_target(name, query.text("tag"))?;
            let credentials = credentials(&headers)?;
            Ok(stream(move |progress| async move {
                app.images
                    .push(&reference, all, credentials, &progress)
                    .await
            }))
        }
        _ => Err(Error::not_found("page not found")),
    }
}

/// The containers made from an image.
fn users(app: &App) -> impl Fn(&str) -> Vec<User> {
    move |image| {
        let all = app.containers.all();
        let of_image = all.iter().filter(|c| c.spec.image == image);
        of_image
            .map(|c| User {
                container: Some(c.id().to_owned()),
                running: c.status().running(),
            })
            .collect()
    }
}

async fn delete_one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    Ok(ok(app
        .images
        .remove(&name, query.flag("force"), users(&app))
        .await?
        .to_json()))
}

async fn prune(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["dangling", "label", "label!", "until"])?;
    let prune = filters.prune()?;
    let all = filters.flag("dangling")? == Some(false);
    let takes = |image: &ImageRecord| prune.takes(&labels(image), created_ns(image));
    let removed = app.images.prune(all, takes, users(&app)).await?;
    app.events.pruned("image", removed.freed);
    let deleted = match removed.to_json() {
        Value::Array(none) if none.is_empty() => Value::Null,
        some => some,
    };
    Ok(ok(
        json!({ "ImagesDeleted": deleted, "SpaceReclaimed": removed.freed }),
    ))
}

/// `docker image inspect` (Docker Engine API, `ImageInspect`).
fn inspect(image: &ImageRecord) -> Value {
    let text = |name: &str| {
        image
            .config
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let part = |pointer: &str| image.config.pointer(pointer).cloned();
    json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": comment(image),
        "Created": text("created"),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": part("/config").unwrap_or_else(|| json!({})),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": { "Name": "vmdk", "Data": { "Seal": image.chain.seal } },
        "RootFS": { "Type": "layers", "Layers": part("/rootfs/diff_ids").unwrap_or_else(|| json!([])) },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
    })
}

/// An image's comment, else that of its last step.
fn comment(image: &ImageRecord) -> &str {
    let own = image.config.get("comment").and_then(Value::as_str);
    let last = || {
        let steps = image.config.get("history")?.as_array()?;
        steps.last()?.get("comment")?.as_str()
    };
    own.filter(|c| !c.is_empty())
        .or_else(last)
        .unwrap_or_default()
}

/// `docker history`: the steps that the image's configuration tells of, newest first.
fn history(image: &ImageRecord) -> Value {
    let steps = image
        .config
        .get("history")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let last = steps.len().saturating_sub(1);
    let mut sizes = image.layer_sizes.iter();
    let sized: Vec<(&Value, u64)> = steps
        .iter()
        .map(|step| {
            let empty = step.get("empty_layer").and_then(Value::as_bool) == Some(true);
            let size = if empty { None } else { sizes.next() };
            (step, size.copied().unwrap_or(0))
        })
        .collect();
    let rows = sized
        .into_iter()
        .enumerate()
        .rev()
        .map(|(at, (step, size))| {
            let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
            json!({
                "Id": if at == last { image.id.as_str() } else { "<missing>" },
                "Created": seconds(text("created")),
                "CreatedBy": text("created_by"),
                "Tags": if at == last { json!(image.repo_tags) } else { Value::Null },
                "Size": size,
                "Comment": text("comment"),
            })
        });
    Value::Array(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, is) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("*:latest", "x:latest", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_at_once() {
        // Tried star by star, this takes longer than the world has been there.
        let (pattern, name) = ("*a".repeat(100), "a".repeat(5000));
        assert!(!name_matches(&name, &format!("{pattern}b")));
        assert!(name_matches(&name, &pattern));
        assert!(name_matches(
            &format!("x/{name}:1"),
            &format!("?/{pattern}*")
        ));
    }

    /// As path.Match is described.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) if naive(&pattern[1..], text) => true,
            (Some(b'*'), Some(c)) => *c != b'/' && naive(pattern, &text[1..]),
            (Some(b'?'), Some(c)) => *c != b'/' && naive(&pattern[1..], &text[1..]),
            (Some(p), Some(c)) => p == c && naive(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn patterns_mean_what_trying_everything_says(pattern in "[ab/*?]{0,8}", text in "[ab/]{0,10}") {
            prop_assert_eq!(
                matches(&pattern, &text),
                naive(pattern.as_bytes(), text.as_bytes())
            );
        }
    }

    #[test]
    fn credentials_in_either_alphabet() {
        let json = br#"{"username":"u?>","password":"p"}"#;
        let engines = [
            &base64::engine::general_purpose::URL_SAFE,
            &base64::engine::general_purpose::STANDARD,
        ];
        for engine in engines {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", engine.encode(json).parse().unwrap());
            assert_eq!(credentials(&headers).unwrap().username, "u?>");
        }
        assert_eq!(
            credentials(&HeaderMap::new()).unwrap(),
            Credentials::default()
        );
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", "!!".parse().unwrap());
        assert!(credentials(&headers).is_err());
    }
}
