use super::*;
use link::{HostLink, KeyStore, Options, SendError};
use std::time::Duration;
use tokio::task::LocalSet;
use wire::config::{CONFIG_VERSION, Disk, LinkConfig, Restart, Transport};
use wire::handshake::{Credentials, KeyState, NewSession};
use wire::keys::{Identity, Key};
use wire::message::{Channel, Life, MESSAGE_MAX};
use wire::restart::RestartPolicy;

/// A VM that is up, without a process, and what tells of its end.
pub(crate) fn up(policy: RestartPolicy) -> (Rc<Vm>, mpsc::UnboundedReceiver<End>) {
    let config = GuestConfig {
        version: CONFIG_VERSION,
        id: "ab".repeat(32),
        boot: 1,
        hostname: "box".into(),
        domainname: String::new(),
        disk: Disk {
            guid: String::new(),
            layers: vec![1],
            ephemeral: 2,
            journal: 3,
            layer_files: Vec::new(),
            read_only: false,
        },
        link: LinkConfig {
            transport: Transport::Vsock { port: 1 },
            secret: String::new(),
        },
        process: process(),
        init: false,
        networks: Vec::new(),
        sctp: false,
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        hosts: Vec::new(),
        shm_size: 0,
        stop_signal: libc::SIGTERM,
        stop_timeout: 10,
        clock: 0,
        seed: String::new(),
        restart: Restart { policy, count: 0 },
        health: None,
        seccomp: String::new(),
        log_size: 0,
        no_log: false,
        limits: Default::default(),
        tmpfs: Vec::new(),
        mounts: Vec::new(),
        nfs: Vec::new(),
        shares: Vec::new(),
        guards: Vec::new(),
        maintenance: None,
    };
    let (vm, ends) = Vm::new(config, Rc::default());
    vm.boot.send_replace(Boot::Done);
    (vm, ends)
}

fn process() -> Process {
    Process {
        args: vec!["true".into()],
        env: Vec::new(),
        cwd: String::new(),
        user: String::new(),
        groups: Vec::new(),
        tty: false,
        stdin: true,
        stdin_once: false,
        size: None,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
    }
}

struct Keys(Key);

impl KeyStore for Keys {
    async fn lookup(&self, _: Identity) -> Result<Option<KeyState>, String> {
        Ok(Some(KeyState::Fresh(self.0.clone())))
    }

    async fn store(&self, _: NewSession) -> Result<bool, String> {
        Ok(true)
    }
}

async fn ends_of_a_link() -> (GuestLink, HostLink) {
    let identity = Identity {
        container: [7; 32],
        boot: 1,
    };
    let (guest, host) = tokio::io::duplex(1 << 16);
    let secret = || Key::new([9; 32]);
    let (keys, mut credentials) = (Keys(secret()), Credentials::new(identity, secret()));
    let (guest, host) = tokio::join!(
        link::dial(guest, &mut credentials, Options::default()),
        link::accept(host, &keys, None, Options::default())
    );
    (guest.unwrap(), host.unwrap().1)
}

/// A link to a VM, and what it is told first.
pub(crate) async fn linked(vm: &Rc<Vm>) -> (HostLink, SessionState, Life) {
    let (guest, mut host) = ends_of_a_link().await;
    let vm = Rc::clone(vm);
    tokio::task::spawn_local(async move { vm.serve(guest).await });
    match (host.recv().await.unwrap(), host.recv().await.unwrap()) {
        (ToHost::Ready { container, .. }, ToHost::Life(life)) => (host, container, life),
        other => panic!("{other:?}"),
    }
}

/// Where this is over, the test hangs.
pub(crate) async fn on_a_loop(test: impl Future<Output = ()>) {
    let set = LocalSet::new();
    tokio::time::timeout(Duration::from_secs(120), set.run_until(test))
        .await
        .expect("the test hangs");
}

fn answer_of(message: ToHost) -> (u32, Reply) {
    match message {
        ToHost::Answer { request, reply } => (request, reply),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_start_that_is_repeated_waits_for_the_one_under_way_and_is_told_the_same() {
    on_a_loop(async {
        let (vm, _ends) = up(RestartPolicy::No);
        let mut under_way = vm.start_failed.lock().await;
        let (mut first, ..) = linked(&vm).await;
        first.send(ToGuest::Start { request: 1 }).await.unwrap();
        // Handled in order: the start waits by now.
        first.send(ToGuest::Sessions { request: 2 }).await.unwrap();
        assert_eq!(answer_of(first.recv().await.unwrap()).0, 2);
        drop(first);
        let (mut second, container, _) = linked(&vm).await;
        assert_eq!((container.started, container.exit), (0, None));
        second.send(ToGuest::Start { request: 3 }).await.unwrap();
        second.send(ToGuest::Sessions { request: 4 }).await.unwrap();
        assert_eq!(answer_of(second.recv().await.unwrap()).0, 4);
        let failed = Reply::StartFailed {
            code: 127,
            message: "exec: \"true\"".into(),
        };
        *under_way = Some(failed.clone());
        drop(under_way);
        assert_eq!(answer_of(second.recv().await.unwrap()), (3, failed));
    })
    .await;
}

#[tokio::test]
async fn an_exec_that_fails_before_its_start_must_not_keep_its_stdin() {
    on_a_loop(async {
        let (vm, _ends) = up(RestartPolicy::No);
        let (mut host, ..) = linked(&vm).await;
        let stream = StreamId(1);
        let (mut stdin, mut output) = host.open(stream).unwrap();
        let attach = Attach {
            stream,
            stdin: true,
            stdout: true,
            stderr: true,
        };
        let exec = ToGuest::Exec {
            request: 1,
            session: SessionId(5),
            process: process(),
            attach: Some(attach),
        };
        host.send(exec).await.unwrap();
        // It waits for the start.
        let sent = stdin.send(Channel::Stdin, bytes::Bytes::from_static(b"x"));
        sent.await.unwrap();
        let (_, reply) = answer_of(host.recv().await.unwrap());
        assert!(
            matches!(reply, Reply::StartFailed { code: 125, .. }),
            "{reply:?}"
        );
        assert!(matches!(stdin.closed().await, SendError::Dropped(1)));
        assert_eq!(output.recv().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_answered_with_an_error() {
    on_a_loop(async {
        let (guest, mut host) = ends_of_a_link().await;
        let long = Reply::Error("x".repeat(MESSAGE_MAX));
        send_answer(guest.sender(), 7, long).await;
        let (request, reply) = answer_of(host.recv().await.unwrap());
        let Reply::Error(text) = reply else {
            panic!("{reply:?}")
        };
        assert!(request == 7 && text.contains("over the limit"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn of_ended_execs_the_last_are_told_and_nothing_but_their_state_is_kept() {
    on_a_loop(async {
        let (vm, _ends) = up(RestartPolicy::No);
        let (mut host, ..) = linked(&vm).await;
        let link = vm.link.borrow().clone().unwrap();
        let exec = |id| vm.new_exec(SessionId(id), process(), None, &link).unwrap();
        let runs = exec(1);
        let count = ENDED_MAX as u32 + 50;
        for id in 2..2 + count {
            let session = exec(id);
            assert!(session.take_process().is_some());
            session.ended(Ended::Exited(0), false);
            session.release();
            assert!(session.take_process().is_none());
        }
        let last = exec(2 + count);
        host.send(ToGuest::Sessions { request: 1 }).await.unwrap();
        let (_, Reply::Sessions(told)) = answer_of(host.recv().await.unwrap()) else {
            panic!("no sessions");
        };
        let ids: Vec<_> = told.iter().map(|state| state.session).collect();
        for id in [SessionId::CONTAINER, runs.id, last.id, SessionId(1 + count)] {
            assert!(ids.contains(&id), "{id:?}");
        }
        assert!(!ids.contains(&SessionId(2)), "the oldest");
        assert_eq!(ids.len(), ENDED_MAX + 3);
    })
    .await;
}
