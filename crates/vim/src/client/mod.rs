//! The asynchronous client: one [`Client`] for one server and account, shared by clones.
//!
//! A session that has expired is renewed by itself and the call repeated once. Calls that return
//! a task come in two forms: `call` gives the task's reference, [`Client::run`] also waits for it.

mod entity;
mod error;
mod files;
mod tasks;
mod tls;
mod transport;
mod watch;

pub use error::Error;
pub use files::{FileBody, FileStat};
pub use tasks::TaskHandle;
pub use tls::Trust;
pub use watch::{Watch, WatchEvent};

use crate::fault::Fault;
use crate::method::{self, Method, Task};
use crate::soap::{self, SoapError};
use crate::types::*;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use transport::Transport;

/// How to reach a server and who to be there.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://host[:port]`; a path is ignored.
    pub url: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// What makes the server's certificate acceptable.
    pub trust: Trust,
    /// How long a call may take (long polls and file transfers excepted).
    pub timeout: Duration,
    /// How long the server may hold the answer to a long poll back, in whole seconds
    /// (`WaitOptions.maxWaitSeconds`): then it answers without a change, too.
    pub poll_wait: Duration,
    /// How long after that the answer to a long poll may still take. A later one does not come:
    /// the connection is lost, though nobody said so.
    pub poll_grace: Duration,
}

impl ClientConfig {
    /// A configuration with a time-out of 60 s, and long polls of 240 s with 60 s more for the answer.
    pub fn new(
        url: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<String>,
        trust: Trust,
    ) -> ClientConfig {
        ClientConfig {
            url: url.into(),
            user: user.into(),
            password: password.into(),
            trust,
            timeout: Duration::from_secs(60),
            poll_wait: Duration::from_secs(240),
            poll_grace: Duration::from_secs(60),
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("url", &self.url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A logged-in client. Clones share the session, the connections and the waiter for tasks.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What clones share; its drop ends the waiter for tasks.
struct Inner {
    core: Arc<Core>,
    tasks: tasks::Waiter,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.inner.core.config.url)
            .finish_non_exhaustive()
    }
}

/// Session and transport, also held by background work.
pub(crate) struct Core {
    config: ClientConfig,
    transport: Transport,
    content: OnceLock<ServiceContent>,
    /// Held while logging in; counts log-ins, so that one expiry makes one log-in.
    login: tokio::sync::Mutex<u64>,
}

impl Core {
    fn content(&self) -> &ServiceContent {
        // `Client::connect` sets it before a `Core` is handed out.
        static EMPTY: OnceLock<ServiceContent> = OnceLock::new();
        self.content
            .get()
            .unwrap_or_else(|| EMPTY.get_or_init(ServiceContent::default))
    }

    /// One call without renewal of the session.
    async fn call_once<M: Method>(&self, method: &M, limit: Duration) -> Result<M::Output, Error> {
        let (_, output) = self.exchange(method, limit).await?;
        Ok(output)
    }

    /// As [`Core::call_once`], with the answer's headers. No call is without a limit: a server may
    /// go without a word, and the connection to it seem open for ever.
    async fn exchange<M: Method>(
        &self,
        method: &M,
        limit: Duration,
    ) -> Result<(http::HeaderMap, M::Output), Error> {
        let request = soap::encode_request(method);
        let answered = tokio::time::timeout(limit, self.transport.soap(request)).await;
        let Ok(answer) = answered else {
            self.transport.forget_connections();
            return Err(Error::Timeout {
                what: M::NAME,
                limit,
            });
        };
        let (headers, body) = answer?;
        let output = soap::decode_response::<M>(&body).map_err(|e| match e {
            SoapError::Fault(fault) => Error::Fault {
                method: M::NAME,
                fault,
            },
            other => Error::Answer {
                method: M::NAME,
                source: other,
            },
        })?;
        Ok((headers, output))
    }

    /// A long poll, without renewal of the session: the collector is gone with the old one. An
    /// answer that does not come is [`Error::Timeout`], to be taken as the loss of the connection.
    async fn wait_for_updates(
        &self,
        collector: &ManagedObjectReference,
        version: Option<&str>,
    ) -> Result<Option<UpdateSet>, Error> {
        let (wait, grace) = (self.config.poll_wait, self.config.poll_grace);
        let call = method::WaitForUpdatesEx {
            this: collector.clone(),
            version: version.map(str::to_owned),
            options: Some(WaitOptions {
                max_wait_seconds: Some(i32::try_from(wait.as_secs()).unwrap_or(i32::MAX)),
                max_object_updates: None,
            }),
        };
        self.call_once(&call, wait.saturating_add(grace)).await
    }

    async fn log_in(&self) -> Result<(), Error> {
        let session_manager = manager(&self.content().session_manager, "SessionManager")?;
        let login = method::Login {
            this: session_manager,
            user_name: self.config.user.clone(),
            password: self.config.password.clone(),
            locale: None,
        };
        self.transport.forget_session();
        let (headers, _) = self.exchange(&login, self.config.timeout).await?;
        self.transport.begin_session(&headers);
        Ok(())
    }

    /// Logs in again unless another task has since `generation`.
    async fn renew(&self, generation: u64) -> Result<(), Error> {
        let mut current = self.login.lock().await;
        if *current == generation {
            tracing::debug!(server = %self.config.url, "session has expired, logging in again");
            self.log_in().await?;
            *current += 1;
        }
        Ok(())
    }

    async fn generation(&self) -> u64 {
        *self.login.lock().await
    }

    pub(crate) async fn call<M: Method>(&self, method: &M) -> Result<M::Output, Error> {
        let limit = self.config.timeout;
        let generation = self.generation().await;
        match self.call_once(method, limit).await {
            Err(e) if e.fault().is_some_and(Fault::is_not_authenticated) => {
                self.renew(generation).await?;
                self.call_once(method, limit).await
            }
            other => other,
        }
    }
}

fn manager(
    reference: &Option<ManagedObjectReference>,
    name: &'static str,
) -> Result<ManagedObjectReference, Error> {
    reference.clone().ok_or(Error::NoManager { name })
}

impl Client {
    /// Connects, reads the service's content and logs in.
    ///
    /// # Errors
    /// [`Error`] where the server cannot be reached or trusted, or refuses the account (`InvalidLogin`).
    pub async fn connect(config: ClientConfig) -> Result<Client, Error> {
        let transport = Transport::new(&config.url, &config.trust)?;
        let core = Arc::new(Core {
            config,
            transport,
            content: OnceLock::new(),
            login: tokio::sync::Mutex::new(0),
        });
        let retrieve = method::RetrieveServiceContent {
            this: ManagedObjectReference::service_instance(),
        };
        let content = core.call_once(&retrieve, core.config.timeout).await?;
        let _ = core.content.set(content);
        core.log_in().await?;
        let tasks = tasks::Waiter::new(core.clone());
        Ok(Client {
            inner: Arc::new(Inner { core, tasks }),
        })
    }

    /// What the server is and where its managers are.
    pub fn content(&self) -> &ServiceContent {
        self.inner.core.content()
    }

    /// Calls any method.
    ///
    /// # Errors
    /// [`Error::Fault`] with the server's fault, or what was wrong with connection or answer.
    pub async fn call<M: Method>(&self, method: &M) -> Result<M::Output, Error> {
        self.inner.core.call(method).await
    }

    /// Calls a `…_Task` method and waits for the task's end.
    ///
    /// # Errors
    /// As [`Client::call`]; a task that failed is [`Error::Fault`] with the task's fault.
    pub async fn run<M: Method<Output = Task>>(&self, method: &M) -> Result<TaskInfo, Error> {
        let task = self.call(method).await?;
        self.wait_task_named(&task, M::NAME).await
    }

    /// Waits for a task's end, without polling: all waits of a client share one long poll.
    ///
    /// # Errors
    /// [`Error::Fault`] with the task's fault where it failed; other errors where it cannot be watched.
    pub async fn wait_task(&self, task: &Task) -> Result<TaskInfo, Error> {
        self.wait_task_named(task, "Task").await
    }

    /// Watches a task: its progress, then its end.
    ///
    /// # Errors
    /// Where the task cannot be watched.
    pub async fn watch_task(&self, task: &Task) -> Result<TaskHandle, Error> {
        self.inner.tasks.watch(task).await
    }

    async fn wait_task_named(&self, task: &Task, method: &'static str) -> Result<TaskInfo, Error> {
        let mut info = self.watch_task(task).await?.end().await?;
        match (info.state, info.error.take()) {
            (TaskInfoState::Success, _) => Ok(info),
            (_, Some(fault)) => Err(Error::Fault {
                method,
                fault: Box::new(fault),
            }),
            (_, None) => Err(Error::Fault {
                method,
                fault: Box::default(),
            }),
        }
    }

    /// Ends the session. Later calls log in again.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn logout(&self) -> Result<(), Error> {
        let this = manager(&self.content().session_manager, "SessionManager")?;
        let core = &self.inner.core;
        core.call_once(&method::Logout { this }, core.config.timeout)
            .await
    }

    /// The server's clock.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn current_time(&self) -> Result<crate::DateTime, Error> {
        self.call(&method::CurrentTime {
            this: ManagedObjectReference::service_instance(),
        })
        .await
    }

    /// Watches properties through a collector of its own: first everything, then changes as they happen.
    ///
    /// # Errors
    /// Where the filter cannot be made.
    pub async fn watch(&self, spec: PropertyFilterSpec) -> Result<Watch, Error> {
        Watch::new(self.inner.core.clone(), spec).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// A core for a server that takes connections and never says anything.
    async fn silent() -> (tokio::net::TcpListener, Core) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let trust = Trust::Thumbprint(crate::Thumbprint([0; 32]));
        let mut config = ClientConfig::new(url, "root", "x", trust);
        config.poll_wait = Duration::ZERO;
        config.poll_grace = Duration::from_millis(100);
        let core = Core {
            transport: Transport::new(&config.url, &config.trust).unwrap(),
            config,
            content: OnceLock::new(),
            login: tokio::sync::Mutex::new(0),
        };
        (listener, core)
    }

    #[tokio::test]
    async fn a_long_poll_without_an_answer_ends() {
        let (_listener, core) = silent().await;
        let collector = ManagedObjectReference::new("PropertyCollector", "x");
        let poll = core.wait_for_updates(&collector, None);
        let ended = tokio::time::timeout(Duration::from_secs(60), poll).await;
        let wrong = ended.unwrap().unwrap_err();
        let what = "WaitForUpdatesEx";
        assert!(
            matches!(wrong, Error::Timeout { what: w, .. } if w == what),
            "{wrong}"
        );
    }

    #[test]
    fn a_long_poll_is_given_up_a_minute_after_it_should_have_been_answered() {
        let trust = Trust::Thumbprint(crate::Thumbprint([0; 32]));
        let config = ClientConfig::new("https://host", "root", "x", trust);
        assert_eq!(config.poll_wait, Duration::from_secs(240));
        assert_eq!(config.poll_grace, Duration::from_secs(60));
    }
}
