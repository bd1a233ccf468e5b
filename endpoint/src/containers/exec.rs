//! Further processes in a container. What is known of them lives as long as the endpoint.

use super::{Container, Containers, names};
use crate::{
    errors::{Error, Kind, Result},
    link::{
        Session,
        session::{Stream, Wants},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use wire::{
    config::Process,
    message::{Reply, SessionId, ToGuest},
};

/// From so many execs on, those that have ended make room.
const KEPT: usize = 1024;
/// For so long after its end an exec can be inspected whatever else is run: its client asks for the exit code. As dockerd.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// How an exec stands.
#[derive(Debug, Clone, Default)]
pub struct ExecState {
    /// Its session and process, once started.
    pub started: Option<(SessionId, u32)>,
    /// Its exit code, once ended.
    pub exit_code: Option<i32>,
    /// `start` was called.
    pub taken: bool,
    /// When the exit code was set.
    ended_at: Option<Instant>,
}

impl ExecState {
    fn end(&mut self, code: i32) {
        self.exit_code = Some(code);
        self.ended_at = Some(Instant::now());
    }
}

/// One exec.
#[derive(Debug)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    /// Its container.
    pub container: Arc<Container>,
    /// What runs.
    pub process: Process,
    /// What a client attaches.
    pub wants: Wants,
    /// As the client gave it.
    pub detach_keys: String,
    state: watch::Sender<ExecState>,
}

impl Exec {
    /// How it stands.
    pub fn state(&self) -> ExecState {
        self.state.borrow().clone()
    }

    /// Waits for its end; `None` where that will never be known.
    pub async fn ended(&self) -> Option<i32> {
        let mut watch = self.state.subscribe();
        let state = watch
            .wait_for(|state| state.exit_code.is_some())
            .await
            .ok()?;
        state.exit_code
    }

    /// Whether it runs.
    pub fn running(&self) -> bool {
        let state = self.state.borrow();
        state.started.is_some() && state.exit_code.is_none()
    }
}

/// All execs.
#[derive(Debug, Default)]
pub struct Execs {
    all: Mutex<HashMap<String, Arc<Exec>>>,
}

impl Execs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exec of this ID.
    ///
    /// # Errors
    /// 404 where there is none.
    pub fn find(&self, id: &str) -> Result<Arc<Exec>> {
        self.all()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::no_such_exec(id))
    }

    /// IDs of a container's execs that run.
    pub fn of(&self, container: &str) -> Vec<String> {
        self.all()
            .values()
            .filter(|exec| exec.container.id() == container && exec.running())
            .map(|exec| exec.id.clone())
            .collect()
    }

    /// A tether says that an exec has ended.
    pub(super) fn ended(&self, container: &str, session: SessionId, code: i32) {
        for exec in self
            .all()
            .values()
            .filter(|exec| exec.container.id() == container)
        {
            exec.state.send_if_modified(|state| {
                let this = state.started.is_some_and(|(own, _)| own == session)
                    && state.exit_code.is_none();
                if this {
                    state.end(code);
                }
                this
            });
        }
    }

    /// A link is gone: if its container has ended, so have its execs.
    pub(super) fn link_lost(&self, container: &Container) {
        if container.status().live() {
            return;
        }
        let all = self.all();
        let own = |exec: &&Arc<Exec>| exec.container.id() == container.id();
        for exec in all.values().filter(own) {
            exec.state.send_if_modified(|state| {
                let open = state.started.is_some() && state.exit_code.is_none();
                if open {
                    state.end(137);
                }
                open
            });
        }
    }

    pub(super) fn forget(&self, container: &Container) {
        self.link_lost(container);
        self.all()
            .retain(|_, exec| exec.container.id() != container.id());
    }

    fn add(&self, exec: Exec) -> Arc<Exec> {
        let exec = Arc::new(exec);
        let mut all = self.all();
        if all.len() >= KEPT {
            all.retain(|_, old| {
                let state = old.state();
                match state.ended_at {
                    Some(at) => at.elapsed() < KEPT_FOR,
                    // One that was not started before its container's end never will be.
                    None => state.taken || old.container.status().live(),
                }
            });
        }
        all.insert(exec.id.clone(), exec.clone());
        exec
    }
}

impl Containers {
    /// Makes an exec; it runs once started.
    ///
    /// # Errors
    /// 409 where the container does not run.
    pub fn exec(
        &self,
        container: &Arc<Container>,
        process: Process,
        wants: Wants,
        detach_keys: String,
    ) -> Result<Arc<Exec>> {
        if container.status().restarting() {
            return Err(Error::restarting(container.id()));
        }
        if container.status().paused {
            return Err(Error::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.status().name
            )));
        }
        if !container.status().running() {
            return Err(Error::not_running(container.id()));
        }
        let id = names::random_id()
            .map_err(|e| Error::internal(format!("the system gives no random bytes: {e}")))?;
        let command = process.args.join(" ");
        let exec = self.execs.add(Exec {
            id,
            container: container.clone(),
            process,
            wants,
            detach_keys,
            state: watch::Sender::new(ExecState::default()),
        });
        self.emit(
            container,
            format!("exec_create: {command}"),
            &[("execID", exec.id.clone())],
        );
        Ok(exec)
    }

    /// Takes an exec for its one start.
    ///
    /// # Errors
    /// 409 where it was started already, or its container does not run.
    pub async fn take_exec(&self, exec: &Exec) -> Result<Arc<Session>> {
        let session = exec.container.session().await?;
        let taken = exec
            .state
            .send_if_modified(|state| !std::mem::replace(&mut state.taken, true));
        if !taken {
            let state = exec.state();
            return Err(Error::conflict(match state.exit_code {
                Some(_) => format!("exec command {} has already run", exec.id),
                None => format!("exec command {} is already running", exec.id),
            }));
        }
        Ok(session)
    }

    /// Starts an exec, attached or not.
    ///
    /// # Errors
    /// Docker's words where it cannot be started; then its exit code is 126 or 127.
    pub async fn start_exec(
        &self,
        exec: &Arc<Exec>,
        session: &Session,
        attached: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<Stream>> {
        let number = session.new_exec().await;
        let (attach, stream) = if attached {
            let (attach, stream) = session.open_attach(exec.wants)?;
            (Some(attach), Some(stream))
        } else {
            (None, None)
        };
        let mut process = exec.process.clone();
        if !attached {
            process.stdin = false;
        }
        process.size = size.or(process.size);
        let command = process.args.join(" ");
        // Its end may be told before the answer is seen here.
        exec.state
            .send_modify(|state| state.started = Some((number, 0)));
        let reply = session
            .request(|request| ToGuest::Exec {
                request,
                session: number,
                process,
                attach,
            })
            .await;
        let error = match reply {
            Ok(Reply::Started { pid, .. }) => {
                exec.state
                    .send_modify(|state| state.started = Some((number, pid)));
                self.emit(
                    &exec.container,
                    format!("exec_start: {command}"),
                    &[("execID", exec.id.clone())],
                );
                return Ok(stream);
            }
            Ok(Reply::StartFailed { code, message }) => {
                let (code, message) = start_failure(code, &message);
                exec.state.send_modify(|state| state.end(code));
                return Err(Error::new(Kind::BadParameter, message));
            }
            Ok(other) => Error::internal(format!("the guest did not start the process: {other:?}")),
            Err(error) => error,
        };
        exec.state.send_modify(|state| state.end(126));
        Err(error)
    }

    /// An exec's end, told as an event. To be spawned once it was started.
    pub async fn watch_exec(self: Arc<Self>, exec: Arc<Exec>) {
        if let Some(code) = exec.ended().await {
            self.emit(
                &exec.container,
                "exec_die",
                &[("execID", exec.id.clone()), ("exitCode", code.to_string())],
            );
        }
    }
}

/// Exit code and words of an exec that could not be started. A user that there is not is found by dockerd itself, the rest
/// by its runtime.
fn start_failure(code: i32, message: &str) -> (i32, String) {
    if message.starts_with("unable to find ") {
        return (126, message.to_owned());
    }
    // 125 is for the client's own failures.
    let code = if code == 125 { 126 } else { code };
    let message = format!(
        "OCI runtime exec failed: exec failed: unable to start container process: {message}: unknown"
    );
    (code, message)
}
