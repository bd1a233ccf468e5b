//! What one VM is while it runs, and what the endpoint may ask of it.

use crate::boot::disk::Found;
use crate::boot::volumes::nfs;
use crate::boot::{Fault, files as boot_files, modules::Modules};
use crate::container::cgroup::Cgroup;
use crate::container::spawn::{Place, Waiting, prepare};
use crate::container::{StartError, top};
use crate::files;
use crate::io::logs;
use crate::io::record::Recorder;
use crate::io::stream::Outlet;
use crate::net::{
    filter, interfaces,
    leases::{self, Leases},
    uevent::Uevents,
};
use crate::reaper::Reaper;
use crate::restart::Restarts;
use crate::session::Session;
use crate::sys::process::{self, Ended};
use link::{GuestLink, LinkError, Sender};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::{Mutex, mpsc, watch};
use wire::config::{GuestConfig, Interface, Process};
use wire::files::Job;
use wire::health::Health;
use wire::message::{
    Attach, ExitStatus, LogRange, Reply, SessionId, SessionState, StreamId, ToGuest, ToHost,
};

/// Execs that ended and whose state is still told, at most.
const ENDED_MAX: usize = 256;

/// How far the boot is.
#[derive(Debug, Clone)]
pub enum Boot {
    /// On its way.
    Running,
    /// The container waits for its start.
    Done,
    /// A step failed.
    Failed(Fault),
}

/// Why the VM ends.
#[derive(Debug)]
pub enum End {
    /// The container's process ended for good, and its outputs are drained.
    Exited(ExitStatus),
    /// It could not be started.
    NotStarted(StartError),
    /// The VM is to end before a process was started.
    Shutdown,
}

/// The VM.
#[derive(Debug)]
pub struct Vm {
    /// Its configuration; the link's secret is no longer in it.
    pub config: GuestConfig,
    /// Reaps all children.
    pub reaper: Rc<Reaper>,
    /// The interfaces as they are; held while they change.
    pub networks: Mutex<Vec<Interface>>,
    /// What interfaces have by DHCP.
    pub leases: RefCell<Leases>,
    /// The interfaces and name servers that the endpoint told last.
    pub told: RefCell<(Vec<Interface>, Vec<String>)>,
    /// The kernel's modules, once the boot is done with them.
    pub modules: RefCell<Modules>,
    /// Its restarts.
    pub restarts: Restarts,
    /// Its health, where that is checked.
    pub health: RefCell<Health>,
    /// The container's processes are frozen.
    pub paused: watch::Sender<bool>,
    /// The journal, once its step is done.
    pub recorder: OnceCell<Rc<Recorder>>,
    /// The container's cgroup, once made.
    pub cgroup: OnceCell<Cgroup>,
    /// The container's first process, until it is started.
    pub waiting: RefCell<Option<Waiting>>,
    /// How far the boot is.
    pub boot: watch::Sender<Boot>,
    /// The link, while there is one.
    pub link: watch::Sender<Option<Sender<ToHost>>>,
    /// Told once: the VM ends.
    pub end: mpsc::UnboundedSender<End>,
    /// Streams that are not wholly sent.
    pub live: watch::Sender<usize>,
    /// Log streams that are not wholly sent.
    pub logs: watch::Sender<usize>,
    /// Jobs with the container's files that are not done.
    pub jobs: watch::Sender<usize>,
    /// The container's disk, once found.
    pub disk: OnceCell<Found>,
    /// Nothing waits for a reader any more.
    pub cut: watch::Sender<bool>,
    /// Pid of the container's first process, once cloned.
    first: Cell<i32>,
    /// The start of the container's process was begun.
    starting: Cell<bool>,
    /// How that start failed; held while it is under way.
    start_failed: Mutex<Option<Reply>>,
    container: RefCell<Rc<Session>>,
    sessions: RefCell<BTreeMap<SessionId, Rc<Session>>>,
}

impl Vm {
    /// A VM at its boot, and where its end is told.
    #[must_use]
    pub fn new(config: GuestConfig, reaper: Rc<Reaper>) -> (Rc<Vm>, mpsc::UnboundedReceiver<End>) {
        let (end, ends) = mpsc::unbounded_channel();
        let container = Session::new(SessionId::CONTAINER, config.process.clone());
        let vm = Vm {
            networks: Mutex::new(config.networks.clone()),
            leases: RefCell::default(),
            told: RefCell::new((config.networks.clone(), config.dns.clone())),
            modules: RefCell::default(),
            restarts: Restarts::new(config.restart),
            health: RefCell::default(),
            paused: watch::Sender::new(false),
            config,
            reaper,
            recorder: OnceCell::new(),
            cgroup: OnceCell::new(),
            waiting: RefCell::new(None),
            boot: watch::Sender::new(Boot::Running),
            link: watch::Sender::new(None),
            end,
            live: watch::Sender::new(0),
            logs: watch::Sender::new(0),
            jobs: watch::Sender::new(0),
            disk: OnceCell::new(),
            cut: watch::Sender::new(false),
            first: Cell::new(0),
            starting: Cell::new(false),
            start_failed: Mutex::default(),
            container: RefCell::new(Rc::clone(&container)),
            sessions: RefCell::new([(SessionId::CONTAINER, container)].into()),
        };
        (Rc::new(vm), ends)
    }

    /// The container's own process, in its present run.
    #[must_use]
    pub fn container(&self) -> Rc<Session> {
        self.container.borrow().clone()
    }

    /// A further run of the container's process has begun: it takes the place of the one before, of which was told until
    /// now.
    pub fn replace_run(&self, pid: i32, session: Rc<Session>) {
        self.first.set(pid);
        let mut sessions = self.sessions.borrow_mut();
        sessions.insert(SessionId::CONTAINER, Rc::clone(&session));
        self.container.replace(session);
    }

    /// A session as the endpoint shall see it: a container that waits for its next start has not
    /// ended.
    fn told(&self, mut state: SessionState) -> SessionState {
        if state.session == SessionId::CONTAINER && self.restarts.waiting().is_some() {
            state.exit = None;
        }
        state
    }

    /// Pid of the container's first process in this VM.
    #[must_use]
    pub fn first_pid(&self) -> i32 {
        self.first.get()
    }

    /// How many processes of the container the OOM killer ended so far.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.cgroup.get().map_or(0, Cgroup::oom_kills)
    }

    /// Takes the container's prepared process.
    pub fn hold(&self, waiting: Waiting) {
        self.first.set(waiting.pid);
        *self.waiting.borrow_mut() = Some(waiting);
    }

    /// Sends a message where there is a link. Where there is none, the endpoint asks for the state
    /// when it is back.
    pub async fn tell(&self, message: ToHost) {
        let link = self.link.borrow().clone();
        if let Some(link) = link {
            // The link's own task notices that it is over.
            let _ = link.send(message).await;
        }
    }

    /// Serves one link until it ends.
    pub async fn serve(self: &Rc<Vm>, mut link: GuestLink) -> link::LinkError {
        let sender = link.sender();
        let ready = ToHost::Ready {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: uptime_ns() / 1_000_000,
            container: self.told(self.container().state()),
        };
        let messages = match &self.config.maintenance {
            None => {
                let mut all = vec![ready, ToHost::Life(self.life())];
                all.extend(self.leases.borrow().messages());
                all
            }
            Some(maintenance) => {
                // Its files are all that there is to ask for.
                let mut boot = self.boot.subscribe();
                // Cannot fail: the VM holds the sender.
                let _ = boot.wait_for(|b| !matches!(b, Boot::Running)).await;
                let ready = ToHost::Maintenance {
                    nonce: maintenance.nonce.clone(),
                };
                // A fault is told by itself.
                let up = matches!(*self.boot.borrow(), Boot::Done);
                Vec::from_iter(up.then_some(ready))
            }
        };
        for message in messages {
            if let Err(error) = sender.send(message).await {
                return error;
            }
        }
        self.link.send_replace(Some(sender.clone()));
        let error = loop {
            match link.recv().await {
                Ok(message) => self.handle(message, &sender),
                Err(error) => break error,
            }
        };
        self.link.send_replace(None);
        self.sessions.borrow().values().for_each(|s| s.detach_all());
        error
    }

    /// Handles one message: at once what is a matter of moments (so that what follows finds it
    /// done), in a task of its own what waits.
    fn handle(self: &Rc<Vm>, message: ToGuest, link: &Sender<ToHost>) {
        let (vm, to) = (Rc::clone(self), link.clone());
        let answer = move |request: u32, reply: Reply| {
            tokio::task::spawn_local(send_answer(to, request, reply));
        };
        let done = |result: Result<(), String>| result.map_or_else(Reply::Error, |()| Reply::Done);
        match message {
            ToGuest::Attach {
                request,
                session,
                attach,
            } => {
                answer(
                    request,
                    done(
                        self.find(session)
                            .and_then(|s| self.attach(&s, attach, link)),
                    ),
                );
            }
            ToGuest::Start { request } => drop(tokio::task::spawn_local(async move {
                if let Some(reply) = vm.start().await {
                    answer(request, reply);
                }
            })),
            ToGuest::Exec {
                request,
                session,
                process,
                attach,
            } => match self.new_exec(session, process, attach, link) {
                Ok(session) => drop(tokio::task::spawn_local(async move {
                    answer(request, vm.exec(session).await)
                })),
                Err(error) => answer(request, Reply::Error(error)),
            },
            ToGuest::Signal {
                request,
                session,
                signal,
            } => {
                answer(
                    request,
                    done(self.find(session).and_then(|s| s.signal(signal))),
                );
                if session == SessionId::CONTAINER && signal == libc::SIGKILL {
                    self.let_go(self.container());
                }
            }
            ToGuest::Resize {
                request,
                session,
                rows,
                cols,
            } => {
                answer(
                    request,
                    done(self.find(session).and_then(|s| s.resize(rows, cols))),
                );
            }
            ToGuest::Processes { request } => drop(tokio::task::spawn_local(async move {
                answer(request, vm.processes().await)
            })),
            ToGuest::Logs {
                request,
                stream,
                range,
            } => answer(request, done(self.logs(stream, range, link))),
            // Dropping the peer's half is what ends it; the link's own flow tells the outlet.
            ToGuest::CloseStream { .. } => {}
            ToGuest::Sessions { request } => {
                answer(
                    request,
                    Reply::Sessions(
                        self.sessions
                            .borrow()
                            .values()
                            .map(|s| self.told(s.state()))
                            .collect(),
                    ),
                );
            }
            ToGuest::Networks {
                request,
                networks,
                dns,
            } => drop(tokio::task::spawn_local(async move {
                answer(request, done(vm.change_networks(networks, dns).await));
            })),
            ToGuest::Guards { request, guards } => answer(request, done(self.guard(&guards))),
            ToGuest::Shutdown { request } => {
                answer(request, Reply::Done);
                self.cut.send_replace(true);
                self.kill();
            }
            ToGuest::KeepDown { request } => {
                self.restarts.stopped_by_client();
                answer(request, Reply::Done);
            }
            ToGuest::Update { request, update } => {
                if let Some(policy) = update.restart {
                    self.restarts.set_policy(policy);
                }
                let limited = match (update.pids, self.cgroup.get()) {
                    (Some(most), Some(cgroup)) => cgroup
                        .limit_pids(most)
                        .map_err(|e| format!("limiting the container's processes: {e}")),
                    _ => Ok(()),
                };
                answer(request, done(limited));
            }
            ToGuest::Freeze { request, frozen } => drop(tokio::task::spawn_local(async move {
                answer(request, vm.set_frozen(frozen).await)
            })),
            ToGuest::Stats { request } => answer(request, self.stats()),
            ToGuest::Table { request } => drop(tokio::task::spawn_local(async move {
                answer(request, vm.table().await)
            })),
            ToGuest::Files {
                request,
                stream,
                job,
            } => answer(request, done(self.files(stream, job, link))),
        }
    }

    fn find(&self, session: SessionId) -> Result<Rc<Session>, String> {
        self.sessions
            .borrow()
            .get(&session)
            .cloned()
            .ok_or_else(|| format!("there is no session {}", session.0))
    }

    fn attach(
        &self,
        session: &Rc<Session>,
        attach: Attach,
        link: &Sender<ToHost>,
    ) -> Result<(), String> {
        let (sender, receiver) = link.open(attach.stream).map_err(|e| e.to_string())?;
        if attach.stdin {
            tokio::task::spawn_local(Rc::clone(session).feed(receiver));
        }
        let done = count(&self.live);
        session.attach(Outlet::new(
            sender,
            attach.stdout,
            attach.stderr,
            self.cut.subscribe(),
            done,
        ));
        Ok(())
    }

    /// Starts the container's process; `None` where the boot failed (the fault is told instead).
    async fn start(self: &Rc<Vm>) -> Option<Reply> {
        let mut boot = self.boot.subscribe();
        match boot
            .wait_for(|b| !matches!(b, Boot::Running))
            .await
            .as_deref()
        {
            Ok(Boot::Done) => {}
            _ => return None,
        }
        if self.config.maintenance.is_some() {
            return Some(Reply::Error("the VM is up for its files only".into()));
        }
        let running = |vm: &Vm| {
            let state = vm.container().state();
            Reply::Started {
                pid: state.pid,
                at: state.started,
            }
        };
        // A request that is repeated over a new link waits for the start under way, and is told how that went.
        let mut failed = self.start_failed.lock().await;
        if self.container().state().started != 0 {
            return Some(running(self));
        }
        if failed.is_some() {
            return failed.clone();
        }
        let waiting = self.waiting.borrow_mut().take()?;
        self.starting.set(true);
        let recorder = self.output_recorder();
        self.record_start();
        match self.container().start(waiting, recorder).await {
            Ok(ended) => {
                tokio::task::spawn_local(Rc::clone(self).watch_oom());
                tokio::task::spawn_local(Rc::clone(self).keep_running(ended));
                Some(running(self))
            }
            Err(error) => {
                let reply = Reply::StartFailed {
                    code: error.code,
                    message: error.message.clone(),
                };
                let _ = self.end.send(End::NotStarted(error));
                *failed = Some(reply.clone());
                Some(reply)
            }
        }
    }

    fn new_exec(
        &self,
        id: SessionId,
        process: Process,
        attach: Option<Attach>,
        link: &Sender<ToHost>,
    ) -> Result<Rc<Session>, String> {
        if self.sessions.borrow().contains_key(&id) {
            return Err(format!("session {} exists already", id.0));
        }
        self.forget_ended();
        let session = Session::new(id, process);
        if let Some(attach) = attach {
            self.attach(&session, attach, link)?;
        }
        self.sessions.borrow_mut().insert(id, Rc::clone(&session));
        Ok(session)
    }

    /// Those that ended were told of: only the last of them are kept.
    fn forget_ended(&self) {
        let mut sessions = self.sessions.borrow_mut();
        let execs = sessions
            .iter()
            .filter(|(id, _)| **id != SessionId::CONTAINER);
        let mut ended: Vec<_> = execs
            .filter_map(|(id, s)| Some((s.state().exit?.at, *id)))
            .collect();
        ended.sort_unstable();
        for (_, id) in &ended[..ended.len().saturating_sub(ENDED_MAX)] {
            sessions.remove(id);
        }
    }

    async fn exec(self: Rc<Vm>, session: Rc<Session>) -> Reply {
        let result = self.start_exec(&session).await;
        match result {
            Ok(ended) => {
                let state = session.state();
                let vm = Rc::clone(&self);
                let done = count(&self.live);
                tokio::task::spawn_local(async move {
                    let oom_before = vm.oom_kills();
                    let how = ended.await.unwrap_or(Ended::Signaled(libc::SIGKILL));
                    let oom = how == Ended::Signaled(libc::SIGKILL) && vm.oom_kills() > oom_before;
                    let status = session.ended(how, oom);
                    session.release();
                    vm.tell(ToHost::Exit {
                        session: session.id,
                        status,
                    })
                    .await;
                    session.drained().await;
                    done();
                });
                Reply::Started {
                    pid: state.pid,
                    at: state.started,
                }
            }
            Err(error) => {
                self.sessions.borrow_mut().remove(&session.id);
                // Its stdin may be waited for since before it was prepared.
                session.over();
                session.drained().await;
                Reply::StartFailed {
                    code: error.code,
                    message: error.message,
                }
            }
        }
    }

    /// Starts a process beside the container's.
    ///
    /// # Errors
    /// Where the container does not run, or why the program could not be started.
    pub async fn start_exec(
        &self,
        session: &Rc<Session>,
    ) -> Result<tokio::sync::oneshot::Receiver<Ended>, StartError> {
        // It would freeze, too, before it could say that it is there.
        if self.is_paused() {
            return Err(StartError::other("the container is paused"));
        }
        let container = self
            .container()
            .pidfd()
            .filter(|_| self.container().state().exit.is_none());
        let (Some(container), Some(cgroup)) = (container, self.cgroup.get()) else {
            return Err(StartError::other("the container is not running"));
        };
        let process = session
            .take_process()
            .ok_or_else(|| StartError::other("it was started before"))?;
        let waiting = prepare(
            &process,
            &self.config,
            cgroup,
            &self.reaper,
            Place::Beside(&container),
        )
        .await?;
        session.start(waiting, None).await
    }

    /// Makes the packet filter this one, with the modules that it takes.
    fn guard(&self, guards: &[String]) -> Result<(), String> {
        if !guards.is_empty() {
            let mut modules = self.modules.borrow_mut();
            modules.load_group("nft").map_err(|f| f.message)?;
        }
        filter::set(guards)
    }

    /// Makes the interfaces, and the files that name them, what the endpoint says.
    async fn change_networks(
        self: &Rc<Vm>,
        new: Vec<Interface>,
        dns: Vec<String>,
    ) -> Result<(), String> {
        let mut networks = self.networks.lock().await;
        let mut events = Uevents::open().map_err(|e| format!("listening to device events: {e}"))?;
        for groups in interfaces::modules(&new) {
            let mut modules = self.modules.borrow_mut();
            modules.load_group(groups).map_err(|f| f.message)?;
        }
        self.leases.borrow_mut().update(&new);
        interfaces::change(&networks, &new, &mut events).await?;
        self.leases.borrow().restore()?;
        self.told.replace((new.clone(), dns));
        let before = std::mem::replace(&mut *networks, new);
        for added in networks.iter().filter(|i| i.addresses.is_empty()) {
            if !before.iter().any(|i| i.mac == added.mac) {
                leases::join(self, added).await?;
            }
        }
        boot_files::write_network(&self.config, &self.as_told()).map_err(|fault| fault.message)
    }

    async fn processes(&self) -> Reply {
        match self.cgroup.get() {
            Some(cgroup) if self.container().state().started != 0 => {
                match top::list(cgroup, self.first.get(), &self.reaper).await {
                    Ok(rows) => Reply::Processes(rows),
                    Err(error) => Reply::Error(format!("listing processes: {error}")),
                }
            }
            _ => Reply::Error("the container is not running".into()),
        }
    }

    /// What records the output of the container's process; nothing where there is to be no log.
    #[must_use]
    pub fn output_recorder(&self) -> Option<Rc<Recorder>> {
        let recorder = self.recorder.get().filter(|_| !self.config.no_log);
        recorder.cloned()
    }

    /// Sends the log on a stream; once the journal is open, which is late in a boot.
    fn logs(
        self: &Rc<Vm>,
        stream: StreamId,
        range: LogRange,
        link: &Sender<ToHost>,
    ) -> Result<(), String> {
        let (sender, _) = link.open(stream).map_err(|e| e.to_string())?;
        let vm = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut boot = vm.boot.subscribe();
            let _ = boot.wait_for(|b| !matches!(b, Boot::Running)).await;
            drop(boot);
            let Some(recorder) = vm.recorder.get().cloned() else {
                // What earlier runs wrote is read from the disk, by whoever finds the link gone and not the log at its end.
                return std::future::pending().await;
            };
            let done = count(&vm.logs);
            let mut cut = vm.cut.subscribe();
            tokio::select! {
                result = logs::send(recorder, range, sender) => if let Err(error) = result {
                    crate::console(&format!("logs on stream {}: {error}", stream.0));
                },
                _ = cut.wait_for(|cut| *cut) => {}
            }
            done();
        });
        Ok(())
    }

    fn files(&self, stream: StreamId, job: Job, link: &Sender<ToHost>) -> Result<(), String> {
        let up = matches!(*self.boot.borrow(), Boot::Done);
        let disk = self.disk.get().filter(|_| up);
        let disk = disk.ok_or("the container's files are not mounted yet")?;
        let both = link.open(stream).map_err(|e| e.to_string())?;
        let (cut, done) = (self.cut.subscribe(), count(&self.jobs));
        files::begin(job, &self.config, disk, &self.reaper, both, cut, done).map_err(|e| {
            self.jobs.send_modify(|n| *n = n.saturating_sub(1));
            format!("starting a job with the container's files: {e}")
        })
    }

    /// SIGKILL to the container and so to all in it; without one, the VM ends. A run that is being prepared, or is about to
    /// become its program, sees by itself that it is to stay down.
    pub fn kill(self: &Rc<Vm>) {
        self.restarts.keep_down();
        self.thaw();
        if self.container().state().started == 0 && !self.starting.get() {
            let _ = self.end.send(End::Shutdown);
        }
        let first = self.first.get();
        if first > 0 && self.container().state().exit.is_none() {
            // Its pid is not reused: it is reaped by the tether alone, which notes the exit.
            let _ = process::kill(first, libc::SIGKILL);
            self.let_go(self.container());
        }
    }

    /// This run was killed: no server of NFS is to keep its processes.
    pub fn let_go(self: &Rc<Vm>, run: Rc<Session>) {
        if !self.config.nfs.is_empty() {
            let vm = Rc::clone(self);
            tokio::task::spawn_local(async move {
                nfs::after_kill(&vm.config, &vm.reaper, || run.state().exit.is_some()).await;
            });
        }
    }
}

/// Answers a request. An answer that is no message, since it is too long, is answered with that.
async fn send_answer(to: Sender<ToHost>, request: u32, reply: Reply) {
    let sent = to.send(ToHost::Answer { request, reply }).await;
    if let Err(LinkError::Protocol(why)) = sent {
        let reply = Reply::Error(why);
        // Fails only where the link is over, for which it would be the reason, too.
        let _ = to.send(ToHost::Answer { request, reply }).await;
    }
}

/// Counts one up; the closure counts it down again.
fn count(counter: &watch::Sender<usize>) -> impl FnOnce() + 'static {
    counter.send_modify(|n| *n += 1);
    let counter = counter.clone();
    move || counter.send_modify(|n| *n = n.saturating_sub(1))
}

/// ns since the kernel's start.
#[must_use]
pub fn uptime_ns() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| {
        t.tv_sec().unsigned_abs() * 1_000_000_000 + t.tv_nsec().unsigned_abs()
    })
}

#[cfg(test)]
#[path = "vm_tests.rs"]
pub(crate) mod tests;
