//! What the administrator says of registries: which may be used, how they are trusted, and the way to them.

use super::is_loopback;
use crate::images::reference::DEFAULT_DOMAIN;
use clap::Args;
use reqwest::Url;
use std::net::IpAddr;
use std::path::PathBuf;

/// Options about registries.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistrySettings {
    /// A registry that images may come from and go to: HOST, HOST:PORT or *.DOMAIN; docker.io is Docker Hub. Repeatable,
    /// or with commas. Without it: all.
    #[arg(long, value_name = "REGISTRY", value_delimiter = ',', value_parser = pattern)]
    pub registry_allow: Vec<String>,
    /// A registry whose certificate is not checked, and which may speak plain HTTP: HOST, HOST:PORT or a subnet as
    /// 10.0.0.0/8. Repeatable, or with commas.
    #[arg(long, value_name = "REGISTRY", value_delimiter = ',', value_parser = insecure)]
    pub insecure_registry: Vec<Insecure>,
    /// A mirror of Docker Hub, asked before it: https://HOST[:PORT]. Repeatable.
    #[arg(long, value_name = "URL", value_parser = mirror)]
    pub registry_mirror: Vec<String>,
    /// Authorities (PEM) that registries' certificates may be signed by beside the machine's own: FILE, or HOST[:PORT]=FILE
    /// for one registry, which is not spoken to without TLS then. Repeatable.
    #[arg(long, value_name = "[REGISTRY=]FILE", value_parser = authority)]
    pub registry_ca: Vec<Authority>,
    /// Images are pulled only where they are signed with this key (ECDSA P-256 in PEM, as cosign makes it): FILE for all
    /// registries, and then nothing is loaded, imported or committed; or HOST[:PORT]=FILE for one. Repeatable: one of the keys
    /// will do.
    #[arg(long, value_name = "[REGISTRY=]FILE", value_parser = authority)]
    pub require_signed: Vec<Authority>,
    /// Proxy for registries without TLS: http://[USER:PASSWORD@]HOST:PORT. Default: the environment's HTTP_PROXY, which
    /// other users of the machine do not see, as they do an option.
    #[arg(long, value_name = "URL", value_parser = proxy)]
    pub http_proxy: Option<Url>,
    /// Proxy for registries with TLS. Default: the environment's HTTPS_PROXY.
    #[arg(long, value_name = "URL", value_parser = proxy)]
    pub https_proxy: Option<Url>,
    /// Hosts, domains and subnets that no proxy is used for, with commas; loopback never has one. Default: the
    /// environment's NO_PROXY.
    #[arg(long, value_name = "LIST")]
    pub no_proxy: Option<String>,
}

/// Registries that are spoken to without proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insecure {
    /// One, by name.
    Host(String),
    /// All in a subnet.
    Subnet(Subnet),
}

/// A subnet, as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

/// A file with authorities or keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The registry that they are for; all without.
    pub registry: Option<String>,
    /// The file.
    pub file: PathBuf,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Subnet { address, bits })
    }

    fn holds(&self, other: IpAddr) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            (0..usize::from(self.bits)).all(|bit| {
                let mask = 0x80 >> (bit % 8);
                a[bit / 8] & mask == b[bit / 8] & mask
            })
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
            _ => false,
        }
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn host_is_good(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

fn pattern(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if !host_is_good(text.strip_prefix("*.").unwrap_or(&text)) {
        return Err(
            "write HOST, HOST:PORT or *.DOMAIN, without https:// and without a path".into(),
        );
    }
    Ok(
        if text == "index.docker.io" || text == "registry-1.docker.io" {
            DEFAULT_DOMAIN.to_owned()
        } else {
            text
        },
    )
}

fn insecure(text: &str) -> Result<Insecure, String> {
    if let Some(subnet) = Subnet::parse(text.trim()) {
        return Ok(Insecure::Subnet(subnet));
    }
    let host = text.trim().to_ascii_lowercase();
    if !host_is_good(&host) {
        return Err(
            "write HOST, HOST:PORT or a subnet as 10.0.0.0/8, without http:// and without a path"
                .into(),
        );
    }
    Ok(Insecure::Host(host))
}

fn mirror(text: &str) -> Result<String, String> {
    let right = "write https://HOST[:PORT], or http:// for a mirror without TLS";
    let url = Url::parse(text).map_err(|e| format!("{e}; {right}"))?;
    let bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !bare {
        return Err(format!("a mirror has no path, query or account; {right}"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn authority(text: &str) -> Result<Authority, String> {
    let (registry, file) = match text.split_once('=') {
        Some((registry, file)) => (Some(registry.to_ascii_lowercase()), file),
        None => (None, text),
    };
    if file.is_empty() || registry.as_deref().is_some_and(|r| !host_is_good(r)) {
        return Err("write FILE, or HOST[:PORT]=FILE for one registry".into());
    }
    Ok(Authority {
        registry,
        file: file.into(),
    })
}

fn proxy(text: &str) -> Result<Url, String> {
    let right = "write http://HOST:PORT";
    let url = Url::parse(text).map_err(|e| format!("{e}; {right}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(right.into());
    }
    Ok(url)
}

/// Whether a pattern means a registry. One without a port means any.
fn means(pattern: &str, registry: &str) -> bool {
    let bare = || match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    if let Some(domain) = pattern.strip_prefix("*.") {
        let ends = |name: &str| {
            name.strip_suffix(domain)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        return ends(registry) || ends(bare());
    }
    pattern == registry || pattern == bare()
}

/// Those files that are for a registry.
fn files(all: &[Authority], registry: &str) -> Vec<PathBuf> {
    let registry = registry.to_ascii_lowercase();
    let is_for = |a: &&Authority| a.registry.as_deref().is_none_or(|p| means(p, &registry));
    let all = all.iter().filter(is_for);
    all.map(|a| a.file.clone()).collect()
}

impl RegistrySettings {
    /// Whether a registry may be used at all.
    pub fn allows(&self, registry: &str) -> bool {
        let registry = registry.to_ascii_lowercase();
        self.registry_allow.is_empty() || self.registry_allow.iter().any(|p| means(p, &registry))
    }

    /// Whether a registry may be spoken to without proof of who it is; its addresses are `addresses`.
    pub(super) fn is_insecure(&self, registry: &str, addresses: &[IpAddr]) -> bool {
        let registry = registry.to_ascii_lowercase();
        self.insecure_registry
            .iter()
            .any(|insecure| match insecure {
                Insecure::Host(pattern) => means(pattern, &registry),
                Insecure::Subnet(subnet) => addresses.iter().any(|a| subnet.holds(*a)),
            })
    }

    /// Whether addresses must be known to tell.
    pub(super) fn has_subnets(&self) -> bool {
        self.insecure_registry
            .iter()
            .any(|i| matches!(i, Insecure::Subnet(_)))
    }

    /// Files with authorities for a registry.
    pub(super) fn authorities(&self, registry: &str) -> Vec<PathBuf> {
        files(&self.registry_ca, registry)
    }

    /// Whether an authority was named for this registry: it speaks TLS, and is not asked without.
    pub(super) fn has_own_authority(&self, registry: &str) -> bool {
        let registry = registry.to_ascii_lowercase();
        let own = |a: &Authority| a.registry.as_deref().is_some_and(|p| means(p, &registry));
        self.registry_ca.iter().any(own)
    }

    /// Files with keys, one of which a registry's images must be signed with; none where they need not be.
    pub(super) fn signers(&self, registry: &str) -> Vec<PathBuf> {
        files(&self.require_signed, registry)
    }

    /// Whether every image must be signed, wherever it comes from.
    pub fn takes_signed_only(&self) -> bool {
        self.require_signed.iter().any(|a| a.registry.is_none())
    }

    /// The proxies in use.
    pub fn proxies(&self) -> Proxies {
        let environment = |names: [&str; 2]| {
            let found = names.iter().find_map(|n| std::env::var(n).ok());
            found.filter(|v| !v.is_empty())
        };
        let url = |option: &Option<Url>, names| {
            option
                .clone()
                .or_else(|| environment(names).and_then(|v| proxy(&v).ok()))
        };
        Proxies {
            http: url(&self.http_proxy, ["HTTP_PROXY", "http_proxy"]),
            https: url(&self.https_proxy, ["HTTPS_PROXY", "https_proxy"]),
            none_for: self
                .no_proxy
                .clone()
                .or_else(|| environment(["NO_PROXY", "no_proxy"]))
                .unwrap_or_default(),
        }
    }
}

/// The way to registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For plain HTTP.
    pub http: Option<Url>,
    /// For TLS.
    pub https: Option<Url>,
    /// What none is used for, with commas.
    pub none_for: String,
}

impl Proxies {
    /// The proxy for a URL, as Go's `httpproxy` decides.
    pub fn of(&self, url: &Url) -> Option<Url> {
        let host = url.host_str()?.to_ascii_lowercase();
        if is_loopback(&host) {
            return None;
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok();
        let free = self.none_for.split(',').map(str::trim).any(|entry| {
            let entry = entry.to_ascii_lowercase();
            if entry == "*" {
                return true;
            }
            if let Some(subnet) = Subnet::parse(&entry) {
                return address.is_some_and(|a| subnet.holds(a));
            }
            let (name, only) = match entry.rsplit_once(':') {
                Some((name, p)) if p.parse::<u16>().is_ok() && !name.contains(':') => {
                    (name, p.parse::<u16>().ok())
                }
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            if name.is_empty() || only.is_some_and(|p| p != port) {
                return false;
            }
            bare == name || (address.is_none() && bare.ends_with(&format!(".{name}")))
        });
        match url.scheme() {
            _ if free => None,
            "https" => self.https.clone(),
            "http" => self.http.clone(),
            _ => None,
        }
    }

    /// A proxy's URL as it may be shown: without the password.
    pub fn shown(url: Option<&Url>) -> String {
        let Some(url) = url else {
            return String::new();
        };
        let mut url = url.clone();
        if url.password().is_some() {
            // It has a host, so this cannot fail.
            let _ = url.set_password(Some("xxxxx"));
        }
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_not_on_the_list_is_not_allowed() {
        let mut settings = RegistrySettings::default();
        assert!(settings.allows("anything:5000"));
        settings.registry_allow = ["docker.io", "a.example", "b.example:5000", "*.c.example"]
            .iter()
            .map(|p| pattern(p).unwrap())
            .collect();
        for (registry, is) in [
            ("docker.io", true),
            ("a.example", true),
            ("A.example:443", true),
            ("b.example:5000", true),
            ("b.example", false),
            ("b.example:5001", false),
            ("x.c.example", true),
            ("x.c.example:5000", true),
            ("c.example", false),
            ("evilc.example", false),
            (".c.example", false),
            ("a.example.evil", false),
            ("evil", false),
        ] {
            assert_eq!(settings.allows(registry), is, "{registry}");
        }
        for bad in ["", "https://a", "a/b", "*", "a b"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn insecure_registries_are_names_or_subnets() {
        let settings = RegistrySettings {
            insecure_registry: ["plain.example", "10.0.0.0/8", "fd00::/8"]
                .iter()
                .map(|i| insecure(i).unwrap())
                .collect(),
            ..RegistrySettings::default()
        };
        let is = |registry: &str, address: &str| {
            settings.is_insecure(registry, &[address.parse().unwrap()])
        };
        assert!(is("plain.example:5000", "192.0.2.1"));
        assert!(is("other.example", "10.9.8.7"));
        assert!(is("other.example", "fd00::1"));
        assert!(!is("other.example", "11.0.0.1"));
        assert!(!is("other.example", "fe00::1"));
        for bad in ["", "http://a", "a/33", "10.0.0.0/33"] {
            assert!(insecure(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_bare_urls() {
        assert_eq!(mirror("https://m.example/").unwrap(), "https://m.example");
        for bad in [
            "m.example",
            "ftp://m.example",
            "https://m.example/x",
            "https://u:p@m.example",
        ] {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_used_for_all_but_what_is_excepted_and_its_password_is_not_shown() {
        let proxies = Proxies {
            http: Some(Url::parse("http://p.example:3128").unwrap()),
            https: Some(Url::parse("http://u:secret@s.example:3128").unwrap()),
            none_for: "near.example, .sub.example,10.0.0.0/8,port.example:81,192.0.2.7".into(),
        };
        for (url, host) in [
            ("http://far.example", Some("p.example")),
            ("https://far.example", Some("s.example")),
            ("https://near.example", None),
            ("https://x.near.example:5000", None),
            ("https://notnear.example", Some("s.example")),
            ("https://a.sub.example", None),
            ("http://10.1.2.3:5000", None),
            ("http://192.0.2.7", None),
            ("http://192.0.2.8", Some("p.example")),
            ("http://port.example:81", None),
            ("http://port.example:82", Some("p.example")),
            ("http://127.0.0.1:5000", None),
            ("http://localhost", None),
            ("https://[::1]:5000", None),
        ] {
            let is = proxies.of(&Url::parse(url).unwrap());
            assert_eq!(is.as_ref().and_then(|u| u.host_str()), host, "{url}");
        }
        let shown = Proxies::shown(proxies.https.as_ref());
        assert!(!shown.contains("secret"), "{shown}");
        let all = Proxies {
            none_for: "*".into(),
            ..proxies
        };
        assert_eq!(all.of(&Url::parse("http://far.example").unwrap()), None);
    }

    #[test]
    fn authorities_are_for_all_or_for_one() {
        let settings = RegistrySettings {
            registry_ca: ["all.pem", "a.example:5000=a.pem"]
                .iter()
                .map(|a| authority(a).unwrap())
                .collect(),
            ..RegistrySettings::default()
        };
        assert_eq!(settings.authorities("a.example:5000").len(), 2);
        assert_eq!(settings.authorities("b.example").len(), 1);
        assert!(settings.has_own_authority("a.example:5000"));
        assert!(!settings.has_own_authority("b.example"));
        assert!(authority("a.example=").is_err());
    }
}
