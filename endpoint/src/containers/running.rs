//! A container while its link is up: one task for each link session.

use super::{
    Container, Containers, keys,
    state::{Phase, Status},
};
use crate::{
    errors::{Error, Kind, Result},
    link::Session,
};
use link::HostLink;
use std::{collections::BTreeMap, sync::Arc};
use wire::{
    handshake::{KeyState, NewSession},
    health::Health,
    keys::Identity,
    message::{ExitStatus, Reply, SessionId, SessionState, ToGuest, ToHost},
};

/// The keys of the VMs' links, kept in the VMs.
#[derive(Debug, Clone)]
pub struct Links(pub Arc<Containers>);

impl link::KeyStore for Links {
    async fn lookup(&self, identity: Identity) -> Result<Option<KeyState>, String> {
        let Some(container) = self.0.by_id(&identity.container_hex()) else {
            return Ok(None);
        };
        self.0.dialled(&container);
        let status = container.status();
        if status.gone || status.removing || status.boot() != identity.boot {
            return Ok(None);
        }
        Ok(status.link)
    }

    async fn store(&self, session: NewSession) -> Result<bool, String> {
        let Some(container) = self.0.by_id(&session.identity.container_hex()) else {
            return Ok(false);
        };
        let admitted = container.modify(|status| {
            let admitted = status.boot() == session.identity.boot
                && status
                    .link
                    .as_ref()
                    .is_some_and(|known| known.admits(&session));
            if admitted {
                status.link = Some(KeyState::after(&session));
            }
            admitted
        });
        if !admitted {
            return Ok(false);
        }
        let _task = container.vm_task.lock().await;
        let resume = BTreeMap::from([(keys::RESUME.to_owned(), keys::resume_text(&session))]);
        self.0
            .vsphere
            .set_keys(&container.vm, &resume, None)
            .await
            .map_err(|e| e.to_string())?;
        Ok(true)
    }
}

impl Containers {
    /// Serves an accepted link until it ends.
    pub async fn serve_link(self: Arc<Self>, identity: Identity, mut link: HostLink) {
        let Some(container) = self.by_id(&identity.container_hex()) else {
            return;
        };
        let session = Arc::new(Session::new(identity.boot, link.sender()));
        let why = loop {
            match link.recv().await {
                // Everything was flushed before it; over a serial port nothing else tells the end.
                Ok(ToHost::Goodbye) => break "goodbye".to_owned(),
                Ok(message) => self.message(&container, &session, message),
                Err(error) => break error.to_string(),
            }
        };
        tracing::debug!(id = container.id(), %why, "link ended");
        session.close();
        container.modify(|status| {
            if status
                .session
                .as_ref()
                .is_some_and(|own| Arc::ptr_eq(own, &session))
            {
                status.session = None;
            }
        });
        self.execs.link_lost(&container);
        // Where the watch has missed a short life, this finds it.
        self.check_power(&container).await;
        // A stream that was opened while the tether said goodbye would wait for ever: a serial port that goes silent is
        // taken for one that comes back.
        session.end();
    }

    fn message(
        self: &Arc<Self>,
        container: &Arc<Container>,
        session: &Arc<Session>,
        message: ToHost,
    ) {
        if self.in_maintenance(container, session, &message) {
            return;
        }
        match message {
            ToHost::Ready {
                container: state, ..
            } => {
                self.ready(container, session, state);
            }
            ToHost::BootFault { step, message } => {
                let error = super::console::boot_fault(container.id(), &step, &message);
                self.start_failed(container, session.boot, 128, error);
            }
            ToHost::Answer { request, reply } => session.answer(request, reply),
            ToHost::Exit {
                session: of,
                status,
            } if of == SessionId::CONTAINER => {
                self.exited(container, session.boot, status);
            }
            ToHost::Exit {
                session: of,
                status,
            } => self.execs.ended(container.id(), of, status.code),
            ToHost::Goodbye | ToHost::Maintenance { .. } => {}
            ToHost::Life(life) => self.life(container, session.boot, life),
            ToHost::Probed {
                status,
                streak,
                probe,
            } => self.probed(container, session.boot, (status, streak), probe),
            ToHost::Oom => self.oom(container, session.boot),
            ToHost::Restarting { status, restarts } => {
                self.restarting(container, session.boot, status, restarts);
            }
            ToHost::Lease {
                mac,
                address,
                gateway,
            } => self.leased(
                container,
                session.boot,
                &mac,
                address.as_deref(),
                gateway.as_deref(),
            ),
            ToHost::Restarted { pid, at } => self.restarted(container, session.boot, pid, at),
        }
    }

    /// What needs no answer is done at once: the messages behind this one build on it.
    fn ready(
        self: &Arc<Self>,
        container: &Arc<Container>,
        session: &Arc<Session>,
        state: SessionState,
    ) {
        let (this, own, link) = (self.clone(), container.clone(), session.clone());
        if container.status().record.ended >= session.boot {
            // Of a run that is over: only what its journal holds is left of it.
            return;
        }
        if let Some(status) = state.exit {
            container.modify(|now| now.record.started = state.started);
            self.exited(container, session.boot, status);
            return;
        }
        if state.started != 0 {
            // A link that came back.
            let news = container.status().record.started != state.started;
            let before = container.modify(|status| {
                status.record.started = state.started;
                status.pid = state.pid;
                status.phase = Phase::Running;
                status.revive = false;
                status.session.replace(session.clone())
            });
            if news {
                // Its run began while the endpoint was away.
                self.keep_start(container);
            }
            if before.is_none_or(|before| !Arc::ptr_eq(&before, session)) {
                tokio::spawn(async move { this.catch_up(&own, &link).await });
            }
            return;
        }
        session.numbered();
        if !session.waits() {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = this.launch(&own, &link).await {
                tracing::warn!(id = own.id(), %error, "start");
            }
        });
    }

    /// Learns of the execs that run already, or ended while the endpoint was away.
    async fn catch_up(&self, container: &Arc<Container>, session: &Arc<Session>) {
        let told = session.request(|request| ToGuest::Sessions { request });
        if let Ok(Reply::Sessions(sessions)) = told.await {
            for state in sessions {
                session.note_exec(state.session);
                if let Some(exit) = state.exit {
                    self.execs.ended(container.id(), state.session, exit.code);
                }
            }
        }
        session.numbered();
    }

    /// Attaches those who wait, and starts the container's process.
    async fn launch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        session: &Arc<Session>,
    ) -> Result<()> {
        let mut attaches = Vec::new();
        {
            let mut pending = container.pending();
            for waiting in pending
                .drain(..)
                .filter(|waiting| !waiting.stream.is_closed())
            {
                let (attach, stream) = session.open_attach(waiting.wants)?;
                attaches.push((attach, stream, waiting.stream));
            }
            // From here on an attach goes to the session itself.
            let over = container.modify(|status| {
                // A fault of the boot that was told behind `Ready` may have been handled before this.
                if status.boot() != session.boot || status.record.ended >= session.boot {
                    return true;
                }
                status.session = Some(session.clone());
                if status.phase == Phase::Created || status.phase == Phase::Exited {
                    status.phase = Phase::Starting;
                }
                false
            });
            if over {
                return Ok(());
            }
        }
        for (attach, stream, waiting) in attaches {
            session
                .done(|request| ToGuest::Attach {
                    request,
                    session: SessionId::CONTAINER,
                    attach,
                })
                .await?;
            let _client_is_gone = waiting.send(stream);
        }
        match session
            .long_request(|request| ToGuest::Start { request })
            .await?
        {
            Reply::Started { pid, at } => {
                let checked = container.spec.config.health_check().is_some();
                let news = container.modify(|status| {
                    // An endpoint that was started while the VM booted took it for one that runs.
                    let boots = status.phase == Phase::Starting
                        || status.phase == Phase::Running && status.pid == 0;
                    let news = status.record.ended < session.boot && boots;
                    if news {
                        status.pid = pid;
                        status.phase = Phase::Running;
                        status.revive = false;
                        status.health = checked.then(Health::default);
                        status.record.error.clear();
                    }
                    // Its end may have been told already, and the start with it.
                    if status.record.started == status.record.finished {
                        status.record.started = at;
                    }
                    status.record.started = status.record.started.max(at);
                    news
                });
                if news {
                    self.tell_start(container);
                }
                self.keep_start(container);
                Ok(())
            }
            Reply::StartFailed { code, message } => {
                // What is neither 126 nor 127 is 128 in Docker's state; 125 is what `docker run` makes of it.
                let code = if code == 125 { 128 } else { code };
                self.start_failed(container, session.boot, code, start_error(&message));
                let _powers_off_anyway =
                    session.done(|request| ToGuest::Shutdown { request }).await;
                Ok(())
            }
            other => {
                let error =
                    Error::internal(format!("the guest did not start the process: {other:?}"));
                self.start_failed(container, session.boot, 128, error.clone());
                Err(error)
            }
        }
    }

    /// The events of a process's start.
    fn tell_start(&self, container: &Container) {
        self.tell_networks(container, true);
        self.emit(container, "start", &[]);
    }

    /// A process that ends at once may be gone before its start was told: the answer to that and this message are handled
    /// side by side. Whoever counts starts and ends gets them in order.
    pub(super) fn tell_start_before_end(&self, container: &Container, boot: u64, ended: u64) {
        let checked = container.spec.config.health_check().is_some();
        let untold = container.modify(|status| {
            let untold = status.boot() == boot
                && status.record.ended < boot
                && status.phase == Phase::Starting;
            if untold {
                status.phase = Phase::Running;
                status.record.error.clear();
                status.health = checked.then(Health::default);
                if status.record.started <= status.record.finished {
                    // That of the run before. The answer brings its own.
                    status.record.started = ended;
                }
            }
            untold
        });
        if untold {
            self.tell_start(container);
        }
    }

    /// The container's process has ended.
    pub(super) fn exited(
        self: &Arc<Self>,
        container: &Arc<Container>,
        boot: u64,
        exit: ExitStatus,
    ) {
        self.tell_start_before_end(container, boot, exit.at);
        let policy = container.restart_policy();
        let mut told = false;
        let news = container.modify(|status| {
            if status.boot() != boot || status.record.ended >= boot {
                return false;
            }
            told = status.phase == Phase::Restarting;
            status.revive = !status.stopping
                && !status.record.stopped
                && policy.wants(exit.code, status.record.restarts);
            status.record.ended = boot;
            status.record.finished = exit.at;
            status.record.exit_code = exit.code;
            status.record.oom = exit.oom;
            status.phase = Phase::Exited;
            status.exits += 1;
            if !told {
                self.emit_end(container, status);
            }
            status.end_run();
            true
        });
        if news && !told {
            self.tell_networks(container, false);
        }
        if news {
            self.leave(container, boot);
        }
        if news && container.status().session.is_none() {
            // No link will end and tell them.
            self.execs.link_lost(container);
        }
    }

    /// The events of an end of the container's process, as its record has it; the networks' come behind it.
    pub(super) fn emit_end(&self, container: &Container, status: &mut Status) {
        for signal in std::mem::take(&mut status.signalled) {
            self.emit_kill(container, &status.name, signal);
        }
        // Told by itself, unless the link was away.
        let told = std::mem::take(&mut status.oom);
        let record = &status.record;
        if record.oom && !told {
            self.emit_as(container, &status.name, "oom", &[]);
        }
        let seconds = record.finished.saturating_sub(record.started) / 1_000_000_000;
        self.emit_as(
            container,
            &status.name,
            "die",
            &[
                ("exitCode", record.exit_code.to_string()),
                ("execDuration", seconds.to_string()),
            ],
        );
    }

    pub(super) fn emit_kill(&self, container: &Container, name: &str, signal: i32) {
        self.emit_as(container, name, "kill", &[("signal", signal.to_string())]);
    }

    /// A start that came to nothing: those who wait for it are told.
    pub(super) fn start_failed(
        self: &Arc<Self>,
        container: &Arc<Container>,
        boot: u64,
        code: i32,
        error: Error,
    ) {
        let clients = {
            let mut pending = container.pending();
            std::mem::take(&mut *pending)
        };
        container.modify(|status| {
            if status.boot() != boot || status.record.ended >= boot {
                return;
            }
            status.record.ended = boot;
            status.end_run();
            status.record.exit_code = code;
            status.record.error.clone_from(&error.message);
            status.phase = if status.record.started == 0 {
                Phase::Created
            } else {
                Phase::Exited
            };
            status.start_failures += 1;
            status.start_error = Some(error);
        });
        self.leave(container, boot);
        drop(clients);
    }
}

/// The error of `docker start` where the process could not be started, in the words that the
/// client takes its exit code from.
fn start_error(message: &str) -> Error {
    // dockerd looks for these itself.
    if message.starts_with("unable to find user") || message.starts_with("unable to find group") {
        return Error::bad(message);
    }
    Error::new(
        Kind::BadParameter,
        format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: {message}: unknown"
        ),
    )
}
