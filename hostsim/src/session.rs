//! Sessions: who is logged in, and what lives as long as that (views, filters, pages).

use crate::property::{Collector, View};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use vim::types::*;
use vim::{DateTime, Fault, FaultKind};

/// Sessions at a time.
const SESSIONS_MAX: usize = 1000;

/// The one account.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Credentials {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Its key, shown to clients.
    pub key: String,
    /// Who.
    pub user: String,
    /// Since when.
    pub login_time: DateTime,
    /// Calls that are being answered keep it alive.
    active: Mutex<(usize, Instant)>,
    /// What lives in it.
    pub objects: Mutex<Objects>,
    /// Cancelled when it ends.
    pub ended: tokio_util::sync::CancellationToken,
}

/// Objects of a session.
#[derive(Debug, Default)]
pub struct Objects {
    /// Views by ID.
    pub views: HashMap<String, View>,
    /// Collectors by ID; the default one is made at once.
    pub collectors: HashMap<String, Arc<Collector>>,
    /// Rest of a reading by its token.
    pub pages: HashMap<String, std::collections::VecDeque<ObjectContent>>,
    /// Tickets for one request each, with their URL path.
    pub last_id: u64,
}

impl Session {
    /// Its objects.
    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks that a call is being answered until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> Active {
        self.lock_active().0 += 1;
        Active(self.clone())
    }

    fn lock_active(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expired(&self, idle: Duration) -> bool {
        let active = self.lock_active();
        active.0 == 0 && active.1.elapsed() > idle
    }

    /// As the API shows it.
    pub fn info(&self) -> UserSession {
        UserSession {
            key: self.key.clone(),
            user_name: self.user.clone(),
            full_name: self.user.clone(),
            login_time: self.login_time,
            last_active_time: DateTime::now(),
            locale: "en".into(),
            message_locale: "en".into(),
            ..UserSession::default()
        }
    }

    /// An ID for a new object in it, unique on the host.
    pub fn new_id(&self, objects: &mut Objects) -> String {
        objects.last_id += 1;
        format!("session[{}]{}", self.key, objects.last_id)
    }
}

/// A call that is being answered.
#[derive(Debug)]
pub struct Active(Arc<Session>);

impl Drop for Active {
    fn drop(&mut self) {
        let mut active = self.0.lock_active();
        active.0 -= 1;
        active.1 = Instant::now();
    }
}

/// All sessions, by their secret.
#[derive(Debug)]
pub struct Sessions {
    credentials: Credentials,
    idle: Duration,
    all: Mutex<HashMap<String, Arc<Session>>>,
    tickets: Mutex<HashMap<String, Ticket>>,
}

#[derive(Debug)]
struct Ticket {
    path: String,
    method: Option<String>,
    until: Instant,
    session: Arc<Session>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(credentials: Credentials, idle: Duration) -> Sessions {
        Sessions {
            credentials,
            idle,
            all: Mutex::default(),
            tickets: Mutex::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; returns it with its secret, the cookie's value.
    ///
    /// # Errors
    /// `InvalidLogin`.
    pub fn login(&self, user: &str, password: &str) -> Result<(String, Arc<Session>), Fault> {
        let same = |a: &str, b: &str| bool::from(a.as_bytes().ct_eq(b.as_bytes()));
        if !(same(user, &self.credentials.user) & same(password, &self.credentials.password)) {
            let message = "Cannot complete login due to an incorrect user name or password.";
            return Err(Fault::new(FaultKind::InvalidLogin {}, message));
        }
        let mut all = self.all();
        self.expire(&mut all);
        if all.len() >= SESSIONS_MAX {
            let kind = FaultKind::ResourceInUse {
                kind: Some("UserSession".into()),
                name: None,
            };
            return Err(Fault::new(
                kind,
                format!("There are {SESSIONS_MAX} sessions already"),
            ));
        }
        let session = Arc::new(Session {
            key: uuid::Uuid::new_v4().to_string(),
            user: user.to_owned(),
            login_time: DateTime::now(),
            active: Mutex::new((0, Instant::now())),
            objects: Mutex::default(),
            ended: tokio_util::sync::CancellationToken::new(),
        });
        let secret = random_hex().map_err(crate::host::system_error)?;
        all.insert(secret.clone(), session.clone());
        Ok((secret, session))
    }

    /// The session of a secret.
    pub fn find(&self, secret: &str) -> Option<Arc<Session>> {
        let mut all = self.all();
        self.expire(&mut all);
        all.get(secret).cloned()
    }

    /// The session of a user and password given with a single request.
    pub fn basic(&self, user: &str, password: &str) -> bool {
        let same = |a: &str, b: &str| bool::from(a.as_bytes().ct_eq(b.as_bytes()));
        same(user, &self.credentials.user) & same(password, &self.credentials.password)
    }

    /// Ends a session.
    pub fn logout(&self, secret: &str) {
        if let Some(session) = self.all().remove(secret) {
            session.ended.cancel();
        }
    }

    /// Ends every session, as an expiry would (for tests and for administrators).
    pub fn expire_all(&self) {
        for (_, session) in self.all().drain() {
            session.ended.cancel();
        }
    }

    fn expire(&self, all: &mut HashMap<String, Arc<Session>>) {
        all.retain(|_, session| {
            let keep = !session.expired(self.idle);
            if !keep {
                session.ended.cancel();
            }
            keep
        });
    }

    /// A ticket for one request on a URL.
    ///
    /// # Errors
    /// No random bytes.
    pub fn ticket(
        &self,
        session: &Arc<Session>,
        spec: &HttpServiceRequestSpec,
    ) -> Result<String, Fault> {
        let path = match spec.url.parse::<http::Uri>() {
            Ok(uri) => uri
                .path_and_query()
                .map(|p| p.as_str().to_owned())
                .unwrap_or_default(),
            Err(_) => {
                return Err(Fault::invalid_argument(
                    "spec.url",
                    format!("{:?} is no URL", spec.url),
                ));
            }
        };
        let id = random_hex().map_err(crate::host::system_error)?;
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, t| t.until > Instant::now() && !t.session.ended.is_cancelled());
        let method = spec
            .method
            .as_deref()
            .and_then(|m| m.strip_prefix("http"))
            .map(str::to_uppercase);
        let until = Instant::now() + Duration::from_secs(120);
        tickets.insert(
            id.clone(),
            Ticket {
                path,
                method,
                until,
                session: session.clone(),
            },
        );
        Ok(id)
    }

    /// Uses a ticket up.
    pub fn use_ticket(&self, id: &str, method: &str, path_and_query: &str) -> bool {
        let ticket = self
            .tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        ticket.is_some_and(|t| {
            t.until > Instant::now()
                && !t.session.ended.is_cancelled()
                && t.path == path_and_query
                && t.method.is_none_or(|m| m == method)
        })
    }
}

/// 32 random bytes, hex.
pub fn random_hex() -> Result<String, String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| format!("no random bytes: {e}"))?;
    Ok(hex::encode(bytes))
}

/// The fault for a call without a session.
pub fn not_authenticated() -> Fault {
    let kind = FaultKind::NotAuthenticated {
        object: None,
        privilege_id: None,
    };
    Fault::new(kind, "The session is not authenticated.")
}
