//! `docker search`: what the registry's old index says (Docker Registry API v1, `/v1/search`), the one that Docker asks.

use super::http::{bounded, judge, send};
use super::{Credentials, RegistryClient, RegistryError};
use crate::images::reference::DEFAULT_DOMAIN;
use serde::{Deserialize, Serialize};

/// The largest answer to a search, in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// One repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default)]
    pub star_count: u64,
    /// Whether Docker looks after it.
    #[serde(default)]
    pub is_official: bool,
    /// Whether it was built by Docker Hub.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

impl RegistryClient {
    /// Searches a registry's index, Docker Hub's unless the term starts with a registry.
    ///
    /// # Errors
    /// [`RegistryError`]; most registries have no such index.
    pub async fn search(
        &self,
        term: &str,
        limit: u64,
        credentials: &Credentials,
    ) -> Result<Vec<Found>, RegistryError> {
        let (domain, term) = match term.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            _ => (DEFAULT_DOMAIN, term),
        };
        let domain = if domain == "index.docker.io" {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        self.check(domain)?;
        let host = if domain == DEFAULT_DOMAIN {
            "index.docker.io"
        } else {
            domain
        };
        let (http, base) = match self.reach(host).await {
            Ok((http, base, _)) => (http, base),
            Err(error) => return Err(error),
        };
        let text = format!("{base}/v1/search");
        let mut url = reqwest::Url::parse(&text).map_err(|e| RegistryError::Transport {
            url: text.clone(),
            reason: e.to_string(),
        })?;
        url.query_pairs_mut()
            .append_pair("q", term)
            .append_pair("n", &limit.to_string());
        let mut request = http.any.get(url.clone());
        if !credentials.username.is_empty() && base.starts_with("https://") {
            request = request.basic_auth(&credentials.username, Some(&credentials.password));
        }
        let answer = judge(send(request, url.as_str()).await?, url.as_str())
            .await
            .map_err(|e| match e {
                RegistryError::Missing { .. } => RegistryError::Setting(format!(
                    "registry {domain} cannot be searched: it has no index of the kind that docker search asks"
                )),
                other => other,
            })?;
        let bytes = bounded(answer, ANSWER_MAX, url.as_str()).await?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|e| RegistryError::Transport {
                url: url.to_string(),
                reason: format!("its answer is none to a search: {e}"),
            })?;
        Ok(answer.results)
    }
}
