//! Tokens of the distribution API ("Token Authentication Specification" of Docker's registry): signed by this registry
//! for itself, good for some minutes. A token narrows what its owner may do, it never widens it: [`super::authorise`]
//! asks for the owner's rights each time.

use super::{Action, Principal, Target, secret};
use crate::audit::Draft;
use crate::metadata::{self, AuditEntry, Metadata, TokenKey, Write, now};
use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Seconds that a token is good for.
pub const LIFETIME: i64 = 300;
/// Seconds that clocks may differ. The registry judges its own tokens, so that is for a clock that was set back.
const LEEWAY: u32 = 5;
/// Milliseconds after which another key signs.
const KEY_AGE: i64 = 30 * 24 * 3600 * 1000;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// Longest key name.
const MAX_KEY_ID: usize = 64;

/// What a token allows; in the form of its `access` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository's name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, or `*`.
    pub actions: Vec<String>,
}

/// Whether a token's grants are enough for this. What tokens cannot name, no token allows.
#[must_use]
pub fn cover(grants: &[Grant], action: Action, target: Target<'_>) -> bool {
    let Target::Repository(name) = target else {
        return false;
    };
    let Some(wanted) = action_name(action) else {
        return false;
    };
    grants.iter().any(|g| {
        g.kind == "repository" && g.name == name.as_str() && g.actions.iter().any(|a| a == wanted)
    })
}

/// How a token calls an action.
#[must_use]
pub fn action_name(action: Action) -> Option<&'static str> {
    match action {
        Action::Pull => Some("pull"),
        Action::Push => Some("push"),
        Action::Delete => Some("delete"),
        _ => None,
    }
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Forged, expired, for another registry, signed with a key that is gone, or no token at all.
    #[error("the token is not good: {0}")]
    Invalid(&'static str),
    /// Its owner is gone, or has another password or secret since.
    #[error("the token's owner may not sign in any more, or has a new password")]
    Owner,
    /// None can be made.
    #[error("no token can be made: {0}")]
    Make(String),
    /// Keys and owners could not be looked up.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The owner's name; empty for anonymous.
    sub: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    access: Vec<Grant>,
    /// Which row the owner is: another one of the same name is somebody else.
    owner: Owner,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
enum Owner {
    Anonymous,
    User { id: i64, generation: i64 },
    Robot { id: i64, generation: i64 },
}

/// A token that was made.
#[derive(Debug)]
pub struct Made {
    /// The token.
    pub token: String,
    /// Seconds since 1970.
    pub issued: i64,
}

/// Makes and verifies tokens.
#[derive(Debug)]
pub struct Tokens {
    metadata: Arc<Metadata>,
    rotating: tokio::sync::Mutex<()>,
}

/// Name of the setting that names this registry in its tokens.
const SERVICE: &str = "service";

impl Tokens {
    /// Over these keys and users.
    #[must_use]
    pub fn new(metadata: Arc<Metadata>) -> Self {
        Tokens {
            metadata,
            rotating: tokio::sync::Mutex::default(),
        }
    }

    /// What this registry is called in its tokens, as issuer and audience: no other one has this name.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn service(&self) -> metadata::Result<String> {
        let kept = self.metadata.read(|db| db.setting(SERVICE))?;
        Ok(kept
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| "registry".into()))
    }

    /// Gives the registry its name, if it has none.
    ///
    /// # Errors
    /// When there is no randomness, or the metadata cannot be written.
    pub async fn name_service(&self) -> Result<(), TokenError> {
        let random = secret::random().map_err(|e| TokenError::Make(e.to_string()))?;
        let name = format!("registry-{}", hex::encode(&random[..8]));
        self.metadata
            .write(move |db| match db.setting(SERVICE)? {
                Some(_) => Ok(()),
                None => db.set_setting(SERVICE, name.as_bytes()),
            })
            .await?;
        Ok(())
    }

    /// Makes a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn make(&self, owner: &Principal, access: Vec<Grant>) -> Result<Made, TokenError> {
        let key = self.signing_key().await?;
        let service = self.service()?;
        let issued = now() / 1000;
        // Of the generation that was proved: whoever has another password by now gets nothing for the old one.
        let owner_row = self.metadata.read(|db| match owner.subject() {
            &Principal::User { id, generation, .. } => {
                let user = db.user_by_id(id)?.filter(|u| u.is_good(generation));
                user.map(|_| Owner::User { id, generation })
                    .ok_or(TokenError::Owner)
            }
            &Principal::Robot { id, generation, .. } => {
                let good = |r: &metadata::Robot| r.generation == generation && r.is_good(now());
                let robot = db.robot_by_id(id)?.filter(good);
                robot
                    .map(|_| Owner::Robot { id, generation })
                    .ok_or(TokenError::Owner)
            }
            Principal::Anonymous => Ok(Owner::Anonymous),
            Principal::Token { .. } | Principal::Console => Err(TokenError::Owner),
        })?;
        let random = secret::random().map_err(|e| TokenError::Make(e.to_string()))?;
        let claims = Claims {
            iss: service.clone(),
            aud: service,
            sub: match owner {
                Principal::Anonymous => String::new(),
                owner => owner.name().to_owned(),
            },
            exp: issued + LIFETIME,
            nbf: issued,
            iat: issued,
            jti: hex::encode(&random[..16]),
            access,
            owner: owner_row,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.id);
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&key.secret))
            .map_err(|e| TokenError::Make(e.to_string()))?;
        Ok(Made { token, issued })
    }

    /// Whose token this is, and what for.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        const FORM: TokenError = TokenError::Invalid("it has not the form of one");
        if token.len() > MAX_TOKEN {
            return Err(FORM);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| FORM)?;
        let id = header.kid.filter(|k| k.len() <= MAX_KEY_ID).ok_or(FORM)?;
        let key = self
            .metadata
            .read(|db| db.token_key(&id))?
            .ok_or(TokenError::Invalid("its key is not in use"))?;
        let service = self.service()?;
        // One algorithm, whatever the header says; and nothing may be left out.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[&service]);
        validation.set_issuer(&[&service]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY.into();
        let claims: Claims =
            jsonwebtoken::decode(token, &DecodingKey::from_secret(&key.secret), &validation)
                .map_err(|e| TokenError::Invalid(reason(&e)))?
                .claims;
        // Whoever got hold of a key cannot make tokens with it that are good for longer than ours.
        let leeway = i64::from(LEEWAY);
        let lives = claims.exp.saturating_sub(claims.iat);
        if !(0..=LIFETIME).contains(&lives) || claims.iat > now() / 1000 + leeway {
            return Err(TokenError::Invalid("it is good for another time than ours"));
        }
        if let Some(retired) = key.retired
            && (claims.iat > retired / 1000 + leeway || retired < Self::over())
        {
            return Err(TokenError::Invalid("its key is not in use"));
        }
        let subject = self.metadata.read(|db| match claims.owner {
            Owner::Anonymous => Ok(Principal::Anonymous),
            Owner::User { id, generation } => {
                let user = db.user_by_id(id)?;
                let user = user.filter(|u| u.is_good(generation));
                let user = user.ok_or(TokenError::Owner)?;
                Ok(Principal::User {
                    id,
                    name: user.name,
                    generation,
                })
            }
            Owner::Robot { id, generation } => {
                let robot = db.robot_by_id(id)?;
                let robot = robot.filter(|r| r.generation == generation && r.is_good(now()));
                Ok::<_, TokenError>(robot.ok_or(TokenError::Owner)?.into())
            }
        })?;
        Ok(Principal::Token {
            subject: Box::new(subject),
            grants: claims.access.into(),
        })
    }

    /// Lets another key sign from now on. `revoke`: tokens of the keys before are no good any more; else they are until
    /// they expire.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn rotate(&self, revoke: bool, draft: &Draft) -> Result<(), TokenError> {
        let _one = self.rotating.lock().await;
        self.new_key(revoke, draft).await.map(|_| ())
    }

    /// Removes keys whose last tokens have expired.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub async fn forget_keys(&self) -> metadata::Result<()> {
        let over = Self::over();
        self.metadata
            .write(move |db| db.forget_token_keys(over))
            .await
    }

    /// What a key signed that was retired before this time (milliseconds since 1970) has expired.
    fn over() -> i64 {
        now() - (LIFETIME + 2 * i64::from(LEEWAY)) * 1000
    }

    async fn signing_key(&self) -> Result<TokenKey, TokenError> {
        let young = |key: &TokenKey| now() - key.created < KEY_AGE;
        if let Some(key) = self.metadata.read(|db| db.signing_key())?.filter(young) {
            return Ok(key);
        }
        let _one = self.rotating.lock().await;
        // Somebody else may have made it meanwhile.
        if let Some(key) = self.metadata.read(|db| db.signing_key())?.filter(young) {
            return Ok(key);
        }
        // One that is made because it is time changes nothing for anybody.
        self.new_key(false, &Draft::default()).await
    }

    async fn new_key(&self, revoke: bool, draft: &Draft) -> Result<TokenKey, TokenError> {
        let fail = |e: getrandom::Error| TokenError::Make(e.to_string());
        let key = TokenKey {
            id: hex::encode(&secret::random().map_err(fail)?[..8]),
            secret: secret::random().map_err(fail)?.to_vec(),
            created: now(),
            retired: None,
        };
        let kept = key.clone();
        let old = if revoke { i64::MAX } else { Self::over() };
        let status = StatusCode::NO_CONTENT;
        let add = move |db: &Write<'_>, _: &mut AuditEntry| db.add_token_key(&kept, old);
        draft.commit(&self.metadata, status, add).await?;
        Ok(key)
    }
}

/// In few words, and none of the token's.
fn reason(e: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind as E;
    match e.kind() {
        E::ExpiredSignature => "it has expired",
        E::ImmatureSignature => "its time has not come",
        E::InvalidSignature => "its signature is wrong",
        E::InvalidAudience | E::InvalidIssuer => "it is for another registry",
        E::InvalidAlgorithm | E::InvalidAlgorithmName => "it is signed in another way than ours",
        E::MissingRequiredClaim(_) => "it does not say all it must",
        _ => "it has not the form of one",
    }
}
