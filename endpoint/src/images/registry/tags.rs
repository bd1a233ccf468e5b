//! The tags of a repository (distribution-spec, "Listing Tags").

use super::http::bounded;
use super::{RegistryError, Repository};
use crate::images::manifest::MANIFEST_MAX;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

/// The most tags that are read, and the most pages that they come on.
const TAGS_MAX: usize = 10_000;
const PAGES_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// All tags, as the registry orders them.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] names `shown`.
    pub async fn tags(&self, shown: &str) -> Result<Vec<String>, RegistryError> {
        let mut url = format!("{}/v2/{}/tags/list", self.base(), self.path());
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let fail = |reason: String| RegistryError::Transport {
                url: url.clone(),
                reason,
            };
            let answer = self.get(&url, "").await.map_err(|e| match e {
                RegistryError::Missing { .. } => RegistryError::NotFound(shown.to_owned()),
                other => other,
            })?;
            let next = next(answer.headers(), answer.url());
            let bytes = bounded(answer, MANIFEST_MAX, &url).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|e| fail(format!("its answer is no list of tags: {e}")))?;
            all.extend(page.tags.unwrap_or_default());
            if all.len() > TAGS_MAX {
                return Err(fail(format!("it has more than {TAGS_MAX} tags")));
            }
            match next {
                None => return Ok(all),
                Some(next) if self.is_ours(&next) => url = next,
                Some(next) => return Err(fail(format!("its next page is elsewhere: {next}"))),
            }
        }
        Err(RegistryError::Transport {
            url,
            reason: format!("its tags come on more than {PAGES_MAX} pages"),
        })
    }
}

/// The next page: `Link: </v2/…>; rel="next"` (RFC 8288).
fn next(headers: &HeaderMap, from: &reqwest::Url) -> Option<String> {
    let text = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = text.strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
    is_next.then(|| from.join(target).ok().map(|u| u.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_where_the_link_leads() {
        let from = reqwest::Url::parse("https://r.example/v2/x/tags/list").unwrap();
        for (text, is) in [
            (
                r#"</v2/x/tags/list?last=b&n=2>; rel="next""#,
                Some("https://r.example/v2/x/tags/list?last=b&n=2"),
            ),
            (
                r#"<?last=b>; rel=next"#,
                Some("https://r.example/v2/x/tags/list?last=b"),
            ),
            (r#"</v2/x>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, text.parse().unwrap());
            assert_eq!(next(&headers, &from).as_deref(), is, "{text}");
        }
    }
}
