//! A token server as Docker's registries use them (distribution's spec/auth/token.md): tokens are JWTs (RFC 7519), signed
//! with a key whose certificate the registry trusts.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The registry's name in its tokens.
pub const SERVICE: &str = "registry.test";
/// The token server's name in its tokens.
pub const ISSUER: &str = "tokens.test";
/// The one account: user and password.
pub const ACCOUNT: &str = "robot:sesame";
/// Repositories below this may be pulled by anyone.
pub const PUBLIC: &str = "public/";

/// How a token server answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mood {
    /// With a token that is good for a while.
    #[default]
    Good,
    /// With one that has expired, once; then as `Good`.
    ExpiredOnce,
    /// By sending the client to this address (`host:port`).
    Elsewhere(String),
}

/// A request for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

#[derive(Debug)]
struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    certificate: String,
}

/// A running token server; it ends with the test's process.
#[derive(Debug)]
pub struct TokenServer {
    /// `127.0.0.1:PORT`.
    pub address: String,
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    signer: Signer,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Asked>>,
}

impl TokenServer {
    /// Starts one with a key of its own.
    ///
    /// # Errors
    /// When no certificate can be made or no port be had.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate =
            rcgen::CertificateParams::new(vec![ISSUER.to_owned()])?.self_signed(&key)?;
        std::fs::write(folder.path().join("tokens.pem"), certificate.pem())?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.serialized_der(),
            &random,
        );
        let shared = Arc::new(Shared {
            signer: Signer {
                key: pair.ok().context("the key that was just made")?,
                random,
                certificate: STANDARD.encode(certificate.der()),
            },
            mood: Mutex::default(),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                // One that breaks off is its client's business.
                let _ = serving.serve(stream);
            }
        });
        Ok(TokenServer {
            address,
            folder,
            shared,
        })
    }

    /// The certificate that a registry has to trust, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tokens.pem")
    }

    /// Sets how it answers from now on.
    pub fn be(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// What it was asked since this was called last.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.shared.asked))
    }
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().context("a request")??;
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut authorization = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = Some(value.to_owned());
            }
        }
        let asked = Asked {
            target,
            authorization,
        };
        lock(&self.asked).push(asked.clone());
        let (head, body) = self.answer(&asked)?;
        write!(
            stream,
            "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(())
    }

    /// Status line with further headers, and body.
    fn answer(&self, asked: &Asked) -> Result<(String, String)> {
        let mut mood = lock(&self.mood);
        let expired = *mood == Mood::ExpiredOnce;
        match &*mood {
            Mood::Elsewhere(host) => {
                let head = format!("302 Found\r\nLocation: http://{host}{}", asked.target);
                return Ok((head, String::new()));
            }
            Mood::ExpiredOnce => *mood = Mood::Good,
            Mood::Good => {}
        }
        drop(mood);
        let known = format!("Basic {}", STANDARD.encode(ACCOUNT));
        let user = match &asked.authorization {
            Some(given) if *given != known => {
                let body = json!({ "details": "incorrect username or password" });
                return Ok(("401 Unauthorized".into(), body.to_string()));
            }
            Some(_) => "robot",
            None => "",
        };
        let access: Vec<Value> = asked
            .target
            .split(['?', '&'])
            .filter_map(|field| field.strip_prefix("scope="))
            .filter_map(|scope| granted(user, &unescaped(scope)))
            .collect();
        let token = self.signer.sign(user, &access, expired)?;
        Ok(("200 OK".into(), json!({ "token": token }).to_string()))
    }
}

/// What of a scope (`repository:NAME:ACTIONS`) a user gets.
fn granted(user: &str, scope: &str) -> Option<Value> {
    let mut parts = scope.split(':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let actions: Vec<&str> = actions
        .split(',')
        .filter(|action| !user.is_empty() || (name.starts_with(PUBLIC) && *action == "pull"))
        .collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

/// The escapes that are in scopes.
fn unescaped(text: &str) -> String {
    text.replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",")
}

impl Signer {
    fn sign(&self, user: &str, access: &[Value], expired: bool) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        // The registry takes clocks to differ by a minute.
        let end = if expired { now - 120 } else { now + 300 };
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER, "sub": user, "aud": SERVICE, "access": access,
            "iat": now - 600, "nbf": now - 600, "exp": end, "jti": now.to_string(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&self.random, text.as_bytes());
        let signature = signature.ok().context("signing a token")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
