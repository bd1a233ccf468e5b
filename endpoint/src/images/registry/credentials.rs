//! Who asks.

use serde::Deserialize;

/// Credentials as a Docker client sends them (`X-Registry-Auth`, the body of `POST /auth`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// User name.
    #[serde(alias = "Username")]
    pub username: String,
    /// Password.
    #[serde(alias = "Password")]
    pub password: String,
    /// A refresh token, in place of a password.
    #[serde(alias = "identitytoken", alias = "IdentityToken")]
    pub identity_token: String,
    /// A bearer token that the client has obtained.
    #[serde(alias = "registrytoken", alias = "RegistryToken")]
    pub registry_token: String,
    /// The registry that they are for.
    #[serde(alias = "serveraddress", alias = "ServerAddress")]
    pub server_address: String,
}

/// Without the secrets.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let c = Credentials {
            username: "u".into(),
            password: "hidden".into(),
            ..Credentials::default()
        };
        assert!(!format!("{c:?}").contains("hidden"));
    }
}
