//! A registry in this process, or as a process of its own, and a client of it.

use registry::access::{Role, password};
use registry::digest::{Algorithm, Digest};
use registry::metadata::Error;
use registry::registry::Registry;
use registry::server::Server;
use registry::settings::Settings;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

pub const ADMIN: &str = "admin";
pub const PASSWORD: &str = "a test's password";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Makes a registry's folder with a public project, a private one (`private`), an administrator, a user without a role
/// (`somebody`), and a user for each role, who has it in both projects (`viewer`, `developer`, `devops-admin`): the copy of one that is made once, since making it durable takes its time.
pub fn init(folder: &Path, settings: &Settings) {
    static FIRST: OnceLock<TempDir> = OnceLock::new();
    copy(FIRST.get_or_init(first).path(), folder);
    let text = toml::to_string_pretty(settings).unwrap();
    std::fs::write(folder.join(Settings::FILE), text).unwrap();
}

fn first() -> TempDir {
    let folder = TempDir::new().unwrap();
    let hash = password::hash(PASSWORD).unwrap();
    let metadata = Registry::create(folder.path()).unwrap();
    let make = metadata.write(move |db| {
        db.create_project(&"default-project".parse().unwrap(), true)?;
        db.create_project(&"private".parse().unwrap(), false)?;
        db.set_user(ADMIN, &hash, true)?;
        db.set_user("somebody", &hash, false)?;
        for role in Role::ALL {
            db.set_user(role.name(), &hash, false)?;
            let user = db.user(role.name())?.unwrap();
            for project in ["default-project", "private"] {
                let project = db.project(project)?.unwrap();
                db.set_member(project.id, user.id, role)?;
            }
        }
        Ok(())
    });
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let made: Result<(), Error> = runtime.unwrap().block_on(make);
        made.unwrap();
    };
    // On a thread, since a test may be inside of a runtime already.
    std::thread::scope(|s| s.spawn(wait).join().unwrap());
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".into(),
        ..Settings::default()
    }
}

/// A registry that serves in this process.
pub struct Running {
    pub registry: Arc<Registry>,
    pub server: Server,
    pub client: Remote,
    pub folder: TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let folder = TempDir::new().unwrap();
        init(folder.path(), &settings);
        Self::open(folder).await
    }

    pub async fn open(folder: TempDir) -> Self {
        let registry = Registry::open(folder.path()).unwrap();
        let server = Server::start(registry.clone()).await.unwrap();
        let client = Remote::new(&format!("http://{}", server.address()));
        Running {
            registry,
            server,
            client,
            folder,
        }
    }

    /// Ends it and begins anew on the same folder.
    pub async fn restart(self) -> Self {
        let Running {
            registry,
            server,
            client,
            folder,
        } = self;
        drop(client);
        server.shutdown().await;
        drop(registry);
        Self::open(folder).await
    }
}

/// A registry at some address.
#[derive(Clone)]
pub struct Remote {
    pub base: String,
    pub http: Client,
    pub user: Option<(String, String)>,
}

impl Remote {
    pub fn new(base: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Remote {
            base: base.to_owned(),
            http: Client::builder().no_proxy().build().unwrap(),
            user: Some((ADMIN.into(), PASSWORD.into())),
        }
    }

    pub fn anonymous(&self) -> Self {
        Remote {
            user: None,
            ..self.clone()
        }
    }

    pub fn signed_in(&self, user: &str, password: &str) -> Self {
        Remote {
            user: Some((user.into(), password.into())),
            ..self.clone()
        }
    }

    /// With a token in place of a password.
    pub fn bearer(&self, token: &str) -> Self {
        let mut headers = reqwest::header::HeaderMap::new();
        let value = format!("Bearer {token}").parse().unwrap();
        headers.insert("authorization", value);
        let http = Client::builder().no_proxy().default_headers(headers);
        Remote {
            http: http.build().unwrap(),
            ..self.anonymous()
        }
    }

    /// The token service's answer for these scopes.
    pub async fn ask_token(&self, scopes: &[&str], more: &str) -> Value {
        let scopes: Vec<String> = scopes.iter().map(|s| format!("&scope={s}")).collect();
        let answer = self
            .get(&format!("/token?service=x{}{more}", scopes.concat()))
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// A client with a token for these scopes.
    pub async fn with_token(&self, scopes: &[&str]) -> Self {
        let answer = self.ask_token(scopes, "").await;
        self.bearer(answer["token"].as_str().unwrap())
    }

    /// Sends JSON to the administration API; status and answer.
    pub async fn api(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, &format!("/api/v1{path}"));
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A request of a path, or of a `Location`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    pub async fn post(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }

    /// Pushes a blob in one request.
    pub async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let answer = self
            .request(
                Method::POST,
                &format!("/v2/{name}/blobs/uploads/?digest={digest}"),
            )
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    pub async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Response {
        self.request(Method::PUT, &format!("/v2/{name}/manifests/{reference}"))
            .header("content-type", kind)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    /// Pushes an image of a config and these layers, with a tag; its digest.
    pub async fn push_image(&self, name: &str, tag: &str, layers: &[&[u8]]) -> Digest {
        let mut digests = Vec::new();
        for layer in layers {
            digests.push((self.push_blob(name, layer).await, layer.len()));
        }
        let config = self.push_blob(name, b"{}").await;
        let body = image(&config, &digests, &json!({}));
        let digest = sha256(&body);
        let answer = self.put_manifest(name, tag, OCI_MANIFEST, body).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// An image manifest's bytes; `more` is merged into it.
pub fn image(config: &Digest, layers: &[(Digest, usize)], more: &Value) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.as_str(), "size": size})
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.as_str(), "size": 2},
        "layers": layers,
    });
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    serde_json::to_vec_pretty(&manifest).unwrap()
}

/// An index's bytes.
pub fn index(children: &[(Digest, usize)]) -> Vec<u8> {
    let manifests: Vec<Value> = children
        .iter()
        .map(|(digest, size)| json!({"mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": size}))
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    serde_json::to_vec(&index).unwrap()
}

pub fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no header {name} in {answer:?}"))
        .to_str()
        .unwrap()
}

/// Asserts status and the spec's error shape.
pub async fn refused(answer: Response, status: u16, code: &str) -> Value {
    let found = answer.status().as_u16();
    let kind = header(&answer, "content-type").to_owned();
    let text = answer.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    assert_eq!(kind, "application/json");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["errors"][0]["code"], code, "{text}");
    assert!(body["errors"][0]["message"].is_string());
    body
}

/// Bytes that look random, and are the same each time.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next() as u8).collect()
}

/// A small generator of numbers (xorshift), the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The seed of tests with random moments.
pub fn seed() -> u64 {
    std::env::var("MOORING_SEED").map_or(7, |s| s.parse().expect("MOORING_SEED is a number"))
}

/// Whether counts run whole.
pub fn soak() -> bool {
    std::env::var_os("MOORING_SOAK").is_some()
}

/// How often something is done: `few` times, or `whole` with `MOORING_SOAK`; `MOORING_COUNT` says it for one test, so
/// that a long count can be done in parts (scripts/soak).
pub fn count(few: usize, whole: usize) -> usize {
    let count = match std::env::var("MOORING_COUNT") {
        Ok(count) => count.parse().expect("MOORING_COUNT is a number"),
        Err(_) if soak() => whole,
        Err(_) => few,
    };
    if soak() {
        eprintln!("soak: count {count}");
    }
    count
}
