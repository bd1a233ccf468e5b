//! A process under the tether: the container's own, or an exec.

use crate::container::spawn::{Stdio, Waiting};
use crate::container::{StartError, top};
use crate::io::fd::AsyncFile;
use crate::io::output::{Outlets, pump};
use crate::io::record::Recorder;
use crate::io::stream::Outlet;
use crate::sys::process::Ended;
use crate::sys::{process, tty};
use link::{StreamEvent, StreamReceiver};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wire::config::Process;
use wire::message::{Channel, ExitStatus, SessionId, SessionState};

/// Where a session's stdin stands.
#[derive(Debug, Clone)]
enum Stdin {
    /// Not started: what is sent waits.
    Pending,
    Open(Rc<AsyncFile>),
    Closed,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// What it runs, until it is started.
    process: RefCell<Option<Box<Process>>>,
    /// The end of the first stream of stdin is that of stdin.
    stdin_once: bool,
    outlets: Rc<Outlets>,
    stdin: watch::Sender<Stdin>,
    /// The process has ended: outputs are drained, not waited for.
    exited: watch::Sender<bool>,
    pumps: RefCell<Vec<JoinHandle<()>>>,
    outputs_over: Cell<bool>,
    pidfd: RefCell<Option<Rc<OwnedFd>>>,
    tty: RefCell<Option<OwnedFd>>,
    size: Cell<Option<(u16, u16)>>,
    state: Cell<Changing>,
}

/// What of [`SessionState`] changes.
#[derive(Debug, Clone, Copy, Default)]
struct Changing {
    pid: u32,
    started: u64,
    exit: Option<ExitStatus>,
}

impl Session {
    /// A session that is not started.
    #[must_use]
    pub fn new(id: SessionId, process: Process) -> Rc<Session> {
        let size = Cell::new(process.size);
        let once = process.stdin_once || id != SessionId::CONTAINER;
        Rc::new(Session {
            id,
            stdin_once: once && !process.tty,
            process: RefCell::new(Some(Box::new(process))),
            outlets: Rc::default(),
            stdin: watch::Sender::new(Stdin::Pending),
            exited: watch::Sender::new(false),
            pumps: RefCell::default(),
            outputs_over: Cell::new(false),
            pidfd: RefCell::new(None),
            tty: RefCell::new(None),
            size,
            state: Cell::default(),
        })
    }

    /// What it is to run, to be prepared: once. Nothing else of it is kept.
    #[must_use]
    pub fn take_process(&self) -> Option<Box<Process>> {
        self.process.take()
    }

    /// Keeps the first `most` bytes of its output, both channels in one.
    pub fn keep_output(&self, most: usize) {
        self.outlets.keep(most);
    }

    /// What was kept; `...` stands for what was more.
    #[must_use]
    pub fn kept_output(&self) -> String {
        self.outlets.kept()
    }

    /// As the endpoint sees it.
    #[must_use]
    pub fn state(&self) -> SessionState {
        let state = self.state.get();
        SessionState {
            session: self.id,
            pid: state.pid,
            started: state.started,
            exit: state.exit,
        }
    }

    /// Lets the prepared child go. Returns what tells its end, and its pid in the container.
    ///
    /// # Errors
    /// Why the program could not be started.
    pub async fn start(
        self: &Rc<Session>,
        waiting: Waiting,
        recorder: Option<Rc<Recorder>>,
    ) -> Result<oneshot::Receiver<Ended>, StartError> {
        let pid = waiting.pid;
        let (pidfd, ended, stdio) = match waiting.go().await {
            Ok(started) => started,
            Err(error) => {
                self.over();
                return Err(error);
            }
        };
        // The container's own is the first one in its namespace.
        let first = self.id == SessionId::CONTAINER;
        let inner = if first { None } else { top::inner_pid(pid) }.unwrap_or(1);
        self.state.set(Changing {
            pid: inner,
            started: crate::io::now(),
            exit: None,
        });
        *self.pidfd.borrow_mut() = Some(Rc::new(pidfd));
        let Stdio {
            stdin,
            stdout,
            stderr,
            tty,
        } = stdio;
        *self.tty.borrow_mut() = tty;
        if let Some((rows, cols)) = self.size.get() {
            // A size that came before the start.
            let _ = self.resize(rows, cols);
        }
        self.stdin
            .send_replace(stdin.map_or(Stdin::Closed, |file| Stdin::Open(Rc::new(file))));
        let pump_of = |file, channel| {
            tokio::task::spawn_local(pump(
                file,
                channel,
                recorder.clone(),
                Rc::clone(&self.outlets),
                self.exited.subscribe(),
            ))
        };
        let mut pumps = vec![pump_of(stdout, Channel::Stdout)];
        match stderr {
            Some(stderr) => pumps.push(pump_of(stderr, Channel::Stderr)),
            None => self.outlets.never(Channel::Stderr),
        }
        *self.pumps.borrow_mut() = pumps;
        Ok(ended)
    }

    /// It has no process any more, or is never to have one: nobody waits for its stdin or its outputs.
    pub fn over(&self) {
        self.stdin.send_replace(Stdin::Closed);
        self.exited.send_replace(true);
    }

    /// Notes the end. Returns the status.
    pub fn ended(&self, how: Ended, oom: bool) -> ExitStatus {
        let status = ExitStatus {
            code: how.code(),
            oom,
            at: crate::io::now(),
        };
        let state = self.state.get();
        self.state.set(Changing {
            exit: Some(status),
            ..state
        });
        self.over();
        status
    }

    /// Waits until all output was read and handed on, which after the end is a matter of moments;
    /// then lets the streams end.
    pub async fn drained(&self) {
        let pumps: Vec<JoinHandle<()>> = self.pumps.borrow_mut().drain(..).collect();
        for pump in pumps {
            // A pump cannot fail but by the event loop's end.
            let _ = pump.await;
        }
        self.outputs_over.set(true);
        self.outlets.clear();
        *self.tty.borrow_mut() = None;
    }

    /// Attaches an outlet: it gets what is read from now on.
    pub fn attach(&self, outlet: Rc<Outlet>) {
        if self.outputs_over.get() {
            outlet.end(Channel::Stdout);
            outlet.end(Channel::Stderr);
        } else {
            self.outlets.attach(outlet);
        }
    }

    /// Drops all attached streams: the link is gone.
    pub fn detach_all(&self) {
        self.outlets.clear();
    }

    /// Feeds stdin from a stream until its end.
    pub async fn feed(self: Rc<Session>, mut from: StreamReceiver) {
        let mut state = self.stdin.subscribe();
        loop {
            match from.recv().await {
                Ok(Some(StreamEvent::Data(_, bytes))) => {
                    let open = match state
                        .wait_for(|s| !matches!(s, Stdin::Pending))
                        .await
                        .as_deref()
                    {
                        Ok(Stdin::Open(file)) => Rc::clone(file),
                        // What comes now is nobody's.
                        _ => return,
                    };
                    let mut exited = self.exited.subscribe();
                    let result = tokio::select! {
                        result = open.write_whole(&bytes) => result,
                        _ = exited.wait_for(|e| *e) => return,
                    };
                    if result.is_err() {
                        // The process closed its end.
                        self.stdin.send_replace(Stdin::Closed);
                        return;
                    }
                }
                // The client sends no more, or went.
                Ok(Some(StreamEvent::End { .. }) | None) => {
                    // As Docker: a terminal stays open for whoever attaches next.
                    if self.stdin_once {
                        self.close_stdin(&mut state).await;
                    }
                    return;
                }
                // The link broke: the client may come back over another one.
                Err(_) => return,
            }
        }
    }

    async fn close_stdin(&self, state: &mut watch::Receiver<Stdin>) {
        // Not before the start: the pipe has to be there to be closed.
        let _ = state.wait_for(|s| !matches!(s, Stdin::Pending)).await;
        self.stdin.send_replace(Stdin::Closed);
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Text for the endpoint.
    pub fn signal(&self, signal: i32) -> Result<(), String> {
        if !(1..=64).contains(&signal) {
            return Err(format!("{signal} is no signal: expected 1 to 64"));
        }
        let pidfd = self.pidfd.borrow();
        let Some(pidfd) = pidfd.as_ref().filter(|_| self.state.get().exit.is_none()) else {
            return Err(format!(
                "session {} has no process to send signal {signal} to",
                self.id.0
            ));
        };
        process::signal(pidfd.as_fd(), signal)
            .map_err(|e| format!("sending signal {signal} to session {}: {e}", self.id.0))
    }

    /// Sets the window size, now or for the start.
    ///
    /// # Errors
    /// Text for the endpoint.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<(), String> {
        self.size.set(Some((rows, cols)));
        match self.tty.borrow().as_ref() {
            Some(master) => tty::set_size(master.as_fd(), rows, cols)
                .map_err(|e| format!("resizing the terminal of session {}: {e}", self.id.0)),
            None => Ok(()),
        }
    }

    /// The pidfd, once started.
    #[must_use]
    pub fn pidfd(&self) -> Option<Rc<OwnedFd>> {
        self.pidfd.borrow().clone()
    }

    /// Gives up the descriptors that hold the container's namespaces.
    pub fn release(&self) {
        *self.pidfd.borrow_mut() = None;
        *self.tty.borrow_mut() = None;
        drop(self.process.take());
    }
}
