//! Options of `vch up` about registries, passed on to the endpoint, which checks them.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Which registries may be used, how they are trusted, and the way to them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// A registry that images may come from and go to: HOST, HOST:PORT or *.DOMAIN; docker.io is Docker Hub; may be
    /// repeated [default: all]
    #[arg(long, value_name = "REGISTRY")]
    pub registry_allow: Vec<String>,
    /// A registry whose certificate is not checked and that may speak plain HTTP: HOST, HOST:PORT or a subnet; may be
    /// repeated
    #[arg(long, value_name = "REGISTRY")]
    pub insecure_registry: Vec<String>,
    /// A mirror of Docker Hub, asked before it: https://HOST[:PORT]; may be repeated
    #[arg(long, value_name = "URL")]
    pub registry_mirror: Vec<String>,
    /// Further authorities (PEM) of registries' certificates: FILE, or HOST[:PORT]=FILE for one registry, which
    /// is not spoken to without TLS then; may be repeated
    #[arg(long, value_name = "[REGISTRY=]FILE")]
    pub registry_ca: Vec<String>,
    /// Pull only images that are signed with this key (ECDSA P-256 in PEM, as cosign makes it): FILE for all registries, and
    /// then nothing is loaded, imported or committed either, or HOST[:PORT]=FILE for one; may be repeated
    #[arg(long, value_name = "[REGISTRY=]FILE")]
    pub require_signed: Vec<String>,
    /// Proxy for registries without TLS: http://HOST:PORT [default: $HTTP_PROXY]
    #[arg(long, value_name = "URL")]
    pub http_proxy: Option<String>,
    /// Proxy for registries with TLS [default: $HTTPS_PROXY]
    #[arg(long, value_name = "URL")]
    pub https_proxy: Option<String>,
    /// Hosts, domains and subnets without a proxy, with commas [default: $NO_PROXY]
    #[arg(long, value_name = "LIST")]
    pub no_proxy: Option<String>,
}

/// The path of `[REGISTRY=]FILE` from the root, for an endpoint that is started again from elsewhere.
fn whole(text: &str) -> io::Result<String> {
    let (registry, file) = match text.split_once('=') {
        Some((registry, file)) => (Some(registry), file),
        None => (None, text),
    };
    let path = std::fs::canonicalize(Path::new(file))
        .map_err(|e| io::Error::new(e.kind(), format!("{file}: {e}")))?;
    let path = path.display();
    Ok(registry.map_or_else(|| path.to_string(), |r| format!("{r}={path}")))
}

impl Registries {
    /// With all files' paths from the root.
    ///
    /// # Errors
    /// Where one is not there.
    pub fn whole(mut self) -> io::Result<Self> {
        for file in self.registry_ca.iter_mut().chain(&mut self.require_signed) {
            *file = whole(file)?;
        }
        Ok(self)
    }

    /// As the endpoint's arguments.
    pub fn args(&self) -> Vec<String> {
        let lists = [
            ("registry-allow", &self.registry_allow),
            ("insecure-registry", &self.insecure_registry),
            ("registry-mirror", &self.registry_mirror),
            ("registry-ca", &self.registry_ca),
            ("require-signed", &self.require_signed),
        ];
        let single = [
            ("http-proxy", &self.http_proxy),
            ("https-proxy", &self.https_proxy),
            ("no-proxy", &self.no_proxy),
        ];
        let all = lists
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |v| (name, v)))
            .chain(
                single
                    .iter()
                    .filter_map(|(name, value)| value.as_ref().map(|v| (name, v))),
            );
        all.map(|(name, value)| format!("--{name}={value}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_passed_on_and_remembered() {
        let registries = Registries {
            registry_allow: vec!["a".into(), "b".into()],
            no_proxy: Some("c".into()),
            ..Registries::default()
        };
        assert_eq!(
            registries.args(),
            ["--registry-allow=a", "--registry-allow=b", "--no-proxy=c"]
        );
        let text = serde_json::to_string(&registries).unwrap();
        assert_eq!(
            serde_json::from_str::<Registries>(&text).unwrap(),
            registries
        );
        assert_eq!(
            serde_json::from_str::<Registries>("{}").unwrap(),
            Registries::default()
        );
        assert!(whole("x=/no/such/file").is_err());
    }
}
