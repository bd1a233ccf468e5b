//! The client's side of a registry: OCI distribution-spec 1.1 for pulling, Docker's token authentication.

mod challenge;
mod credentials;
mod download;
mod error;
mod http;
mod repository;
mod search;
mod settings;
mod tags;
mod trust;
mod upload;

#[cfg(any(test, fuzzing))]
pub(crate) use challenge::Challenge;
pub use credentials::Credentials;
pub use error::RegistryError;
pub use repository::{Access, Fetched, Repository};
pub use search::Found;
pub use settings::{Insecure, Proxies, RegistrySettings};
#[cfg(any(test, fuzzing))]
pub(crate) use trust::says;
pub use upload::Told;

use super::reference::{DEFAULT_DOMAIN, Reference};
use http::send;
use layers::Digest;
use reqwest::{Response, StatusCode};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trust::PublicKey;

/// A registry that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// The client's side of all registries, with its connections.
#[derive(Debug)]
pub struct RegistryClient {
    settings: RegistrySettings,
    proxies: Proxies,
    /// Keys that images are signed with, by their files.
    keys: BTreeMap<PathBuf, Vec<PublicKey>>,
    /// Connections by what their other ends must prove.
    connections: Mutex<BTreeMap<Trust, Http>>,
}

/// What a registry must prove of itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// A certificate of the machine's authorities, or of those in these files.
    Proven(Vec<PathBuf>),
    /// Nothing.
    Anyone,
}

/// Connections to registries and to their token servers.
#[derive(Debug, Clone)]
struct Http {
    /// Follows redirects; `Authorization` goes to no other host and port (RFC 9110, 15.4).
    any: reqwest::Client,
    /// Follows none: for requests with a secret in their body, which a redirect would carry to anyone.
    still: reqwest::Client,
    /// Follows none, and waits for an answer as long as there is something to send.
    sending: reqwest::Client,
}

/// Where a reference may be had: a registry, with the credentials that it is given.
#[derive(Debug, Clone)]
pub struct Source {
    /// `https://host:port` where only that will do, else the host alone.
    host: String,
    credentials: Credentials,
    /// It stands for another one; what fails there is asked for elsewhere.
    pub is_mirror: bool,
}

impl RegistryClient {
    /// A client.
    ///
    /// # Errors
    /// When the machine's certificates, or those of the settings, cannot be read.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        let mut keys = BTreeMap::new();
        for file in settings.require_signed.iter().map(|a| &a.file) {
            let fail = |e: &dyn std::fmt::Display| {
                RegistryError::Setting(format!("--require-signed {}: {e}", file.display()))
            };
            let pem = std::fs::read(file).map_err(|e| fail(&e))?;
            keys.insert(file.clone(), PublicKey::read(&pem).map_err(|e| fail(&e))?);
        }
        let client = RegistryClient {
            keys,
            proxies: settings.proxies(),
            settings,
            connections: Mutex::default(),
        };
        // What is wrong with the settings shows now.
        let all = client.settings.registry_ca.iter();
        let files = all.map(|a| a.file.clone()).collect();
        client.http(Trust::Proven(files))?;
        Ok(client)
    }

    /// The settings.
    pub fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    fn http(&self, trust: Trust) -> Result<Http, RegistryError> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = connections.get(&trust) {
            return Ok(http.clone());
        }
        let mut roots = Vec::new();
        if let Trust::Proven(files) = &trust {
            for file in files {
                let fail = |e: &dyn std::fmt::Display| {
                    RegistryError::Setting(format!("--registry-ca {}: {e}", file.display()))
                };
                let pem = std::fs::read(file).map_err(|e| fail(&e))?;
                let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| fail(&e))?;
                if found.is_empty() {
                    return Err(fail(&"there is no certificate in it"));
                }
                roots.extend(found);
            }
        }
        let client = |redirects: reqwest::redirect::Policy, silence: Option<Duration>| {
            let proxies = self.proxies.clone();
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("mooring/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(30))
                .redirect(redirects)
                .no_proxy()
                .proxy(reqwest::Proxy::custom(move |url| proxies.of(url)));
            for root in &roots {
                builder = builder.add_root_certificate(root.clone());
            }
            if trust == Trust::Anyone {
                builder = builder.danger_accept_invalid_certs(true);
            }
            if let Some(silence) = silence {
                builder = builder.read_timeout(silence);
            }
            builder
                .build()
                .map_err(|e| RegistryError::transport("(no request yet)", &e))
        };
        let none = reqwest::redirect::Policy::none;
        let http = Http {
            any: client(reqwest::redirect::Policy::default(), Some(SILENCE))?,
            still: client(none(), Some(SILENCE))?,
            sending: client(none(), None)?,
        };
        connections.insert(trust, http.clone());
        Ok(http)
    }

    /// Refuses a registry that is not on the administrator's list.
    ///
    /// # Errors
    /// [`RegistryError::NotAllowed`].
    pub fn check(&self, registry: &str) -> Result<(), RegistryError> {
        if self.settings.allows(registry) {
            return Ok(());
        }
        Err(RegistryError::NotAllowed {
            registry: registry.to_owned(),
            allowed: self.settings.registry_allow.join(", "),
        })
    }

    /// Refuses an image of a registry whose images must be signed, unless one of these manifests of it is.
    ///
    /// # Errors
    /// [`RegistryError::NotSigned`].
    pub async fn check_signed(
        &self,
        repository: &Repository,
        reference: &Reference,
        manifests: &[Digest],
    ) -> Result<(), RegistryError> {
        let files = self.settings.signers(&reference.domain);
        if files.is_empty() {
            return Ok(());
        }
        let of = |file| self.keys.get(file).into_iter().flatten().cloned();
        let keys: Vec<PublicKey> = files.iter().flat_map(of).collect();
        for manifest in manifests {
            if repository.is_signed(manifest, &keys).await? {
                return Ok(());
            }
        }
        let keys: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
        Err(RegistryError::NotSigned {
            reference: reference.to_string(),
            digest: manifests.first().copied(),
            keys: keys.join(", "),
        })
    }

    /// Refuses what brings images without signatures, where all must have one.
    ///
    /// # Errors
    /// [`RegistryError::SignedOnly`].
    pub fn check_unsigned(&self, what: &'static str) -> Result<(), RegistryError> {
        if self.settings.takes_signed_only() {
            return Err(RegistryError::SignedOnly(what));
        }
        Ok(())
    }

    /// Where a reference may be had, in the order in which they are to be asked. Mirrors are for Docker Hub only, and are
    /// sent no password.
    ///
    /// # Errors
    /// [`RegistryError::NotAllowed`].
    pub fn sources(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Vec<Source>, RegistryError> {
        self.check(&reference.domain)?;
        let mut sources = Vec::new();
        if reference.domain == DEFAULT_DOMAIN {
            sources.extend(self.settings.registry_mirror.iter().map(|mirror| Source {
                host: mirror.clone(),
                credentials: Credentials::default(),
                is_mirror: true,
            }));
        }
        sources.push(Source {
            host: host_of(&reference.domain).to_owned(),
            credentials,
            is_mirror: false,
        });
        Ok(sources)
    }

    /// Opens a repository: finds out how the registry is spoken to, and logs in where it asks for that.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(
        &self,
        source: Source,
        path: &str,
        access: Access,
    ) -> Result<Repository, RegistryError> {
        let (http, base, answer) = self.reach(&source.host).await?;
        let repository = Repository::new(http, base, path.to_owned(), source.credentials, access);
        if answer.status() == StatusCode::UNAUTHORIZED {
            repository.authorize(&answer).await?;
        }
        Ok(repository)
    }

    /// Opens a repository where it is at home, whatever mirrors it has.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open_home(
        &self,
        reference: &Reference,
        credentials: Credentials,
        access: Access,
    ) -> Result<Repository, RegistryError> {
        self.check(&reference.domain)?;
        let source = Source {
            host: host_of(&reference.domain).to_owned(),
            credentials,
            is_mirror: false,
        };
        self.open(source, &reference.path, access).await
    }

    /// Checks credentials against a registry (`docker login`).
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] where they are wrong.
    pub async fn login(&self, credentials: Credentials) -> Result<(), RegistryError> {
        let address = credentials
            .server_address
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let domain = match address.split('/').next().unwrap_or_default() {
            "" | "index.docker.io" => DEFAULT_DOMAIN,
            other => other,
        };
        self.check(domain)?;
        let (http, base, answer) = self.reach(host_of(domain)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        let url = format!("{base}/v2/");
        let repository = Repository::new(http, base, String::new(), credentials, Access::Pull);
        repository.authorize(&answer).await?;
        repository.get(&url, "").await.map(|_| ())
    }

    /// The connections for a registry, and whether it may go without TLS.
    async fn connections(&self, host: &str) -> Result<(Http, bool), RegistryError> {
        let addresses: Vec<IpAddr> = if self.settings.has_subnets() {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => (name, port),
                _ => (host, "443"),
            };
            // A name that only a proxy knows is in no subnet.
            let found = tokio::net::lookup_host(format!("{name}:{port}")).await;
            found.into_iter().flatten().map(|a| a.ip()).collect()
        } else {
            Vec::new()
        };
        if self.settings.is_insecure(host, &addresses) {
            return Ok((self.http(Trust::Anyone)?, true));
        }
        let files = self.settings.authorities(match host {
            HUB => DEFAULT_DOMAIN,
            host => host,
        });
        // Or whoever has the port could go round the authority.
        let plain = is_loopback(host) && !self.settings.has_own_authority(host);
        Ok((self.http(Trust::Proven(files))?, plain))
    }

    /// The registry's base URL and its answer to `GET /v2/`. Loopback registries may speak plain HTTP, as with Docker;
    /// others where the settings say so. `host` may say how it is spoken to: `http://…`.
    async fn reach(&self, host: &str) -> Result<(Http, String, Response), RegistryError> {
        let (scheme, host) = match host.split_once("://") {
            Some((scheme, host)) => (Some(scheme), host),
            None => (None, host),
        };
        let (http, plain) = self.connections(host).await?;
        let ask = async |scheme: &str| {
            let base = format!("{scheme}://{host}");
            let url = format!("{base}/v2/");
            send(http.any.get(&url), &url)
                .await
                .map(|answer| (http.clone(), base, answer))
        };
        match scheme {
            Some(scheme) => ask(scheme).await,
            None => match ask("https").await {
                Err(_) if plain => ask("http").await,
                done => done,
            },
        }
    }

    /// A GET of something that is no registry's, in pieces: an archive for `docker import`. Where it is led elsewhere, that
    /// has to be allowed, too.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn fetch(&self, url: &reqwest::Url) -> Result<Response, RegistryError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let host = url.host_str().unwrap_or_default();
            let registry = match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            };
            self.check(&registry)?;
            let (http, _) = self.connections(&registry).await?;
            let shown = shown(&url);
            let answer = send(http.still.get(url.clone()), &shown).await?;
            let next = answer.headers().get(reqwest::header::LOCATION);
            let next = next
                .filter(|_| answer.status().is_redirection())
                .and_then(|next| url.join(next.to_str().ok()?).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https"));
            match next {
                Some(next) => url = next,
                None => return http::judge(answer, &shown).await,
            }
        }
        Err(RegistryError::Transport {
            url: shown(&url),
            reason: format!("led elsewhere more than {REDIRECTS_MAX} times"),
        })
    }
}

/// How often an archive's URL may lead elsewhere.
const REDIRECTS_MAX: usize = 10;

/// A URL without its user and password, for messages and histories.
pub(crate) fn shown(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    // Those without a host have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Docker Hub's registry.
const HUB: &str = "registry-1.docker.io";

/// The host that serves a domain.
fn host_of(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN {
        HUB
    } else {
        domain
    }
}

/// Whether a registry is on this machine, by its name.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: RegistrySettings,
    }

    fn client(args: &[&str]) -> Result<RegistryClient, RegistryError> {
        // The one that the program takes; another test may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let line = ["x"].iter().chain(args);
        RegistryClient::new(Line::try_parse_from(line).unwrap().settings)
    }

    #[test]
    fn nothing_unsigned_comes_in_where_all_must_be_signed() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pub");
        std::fs::write(&key, trust::a_key()).unwrap();
        let path = key.display();
        let of_one = client(&[&format!("--require-signed=a.example={path}")]).unwrap();
        assert!(of_one.check_unsigned("docker load").is_ok());
        let of_all = client(&[&format!("--require-signed={path}")]).unwrap();
        let error = of_all.check_unsigned("docker load").unwrap_err();
        assert!(error.to_string().contains("signed images only"), "{error}");
    }

    #[test]
    fn files_that_are_none_are_refused_with_their_option() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "nothing").unwrap();
        for option in ["--registry-ca", "--require-signed"] {
            for path in [file.clone(), folder.path().join("missing")] {
                let error = client(&[&format!("{option}={}", path.display())]).unwrap_err();
                assert!(error.to_string().starts_with(option), "{error}");
            }
        }
    }

    #[test]
    fn mirrors_are_asked_first_and_for_docker_hub_only() {
        let client = client(&["--registry-mirror=https://m.example"]).unwrap();
        let with_password = Credentials {
            username: "u".into(),
            password: "p".into(),
            ..Credentials::default()
        };
        let sources = |name: &str| {
            let reference = Reference::parse(name).unwrap();
            client.sources(&reference, with_password.clone()).unwrap()
        };
        let hub = sources("busybox");
        assert_eq!(hub.len(), 2);
        assert!(hub[0].is_mirror && hub[0].credentials == Credentials::default());
        assert!(!hub[1].is_mirror && hub[1].credentials == with_password);
        let other = sources("a.example/busybox");
        assert_eq!(other.len(), 1);
        assert!(!other[0].is_mirror);
    }

    #[test]
    fn only_loopback_may_be_plain() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "10.0.0.1:5000",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "[2001:db8::1]:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
