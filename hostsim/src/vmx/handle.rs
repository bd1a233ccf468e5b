//! hostsim's side of a shim: start one, find one again, ask it things.

use super::control::{CONTROL_SOCKET, LINE_MAX, Reply, Request, VmxStatus};
use super::exit::{EXIT_FILE, ExitReason, ExitRecord};
use super::files;
use super::spec::{NicSpec, VmxSpec};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Name of the specification in the run folder.
pub(super) const SPEC_FILE: &str = "spec.json";
/// Name of the lock in the run folder: held by shim and QEMU, free once both are gone.
pub(super) const LOCK_FILE: &str = "lock";
/// Name of the shim's own log in the run folder.
pub const LOG_FILE: &str = "vmx.log";
/// Pause before a shim that could not be asked is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long those who waited for the end of a folder's earlier run may hold its lock: they look, and let it go.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two attempts to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why something could not be done with a VM's process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmxError {
    /// The specification cannot be run.
    #[error("VM {name}: {message}")]
    Spec {
        /// The VM.
        name: String,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// The run folder belongs to a VM that runs.
    #[error("{run_dir} belongs to a VM that runs already; reattach to it, or power it off")]
    Running {
        /// The run folder.
        run_dir: PathBuf,
    },
    /// A file of the run folder.
    #[error("{path}: cannot {what}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The VM never came to run.
    #[error("the VM could not be powered on: {reason}")]
    PowerOn {
        /// Why.
        reason: ExitReason,
    },
    /// The VM has ended meanwhile.
    #[error("the VM no longer runs: {}", .0.reason)]
    Exited(ExitRecord),
    /// The shim refused a request.
    #[error("{request}: {message}")]
    Refused {
        /// The request.
        request: String,
        /// The shim's words.
        message: String,
    },
    /// The shim answered something that makes no sense.
    #[error("the shim of {run_dir} answered {request} with {reply}")]
    Protocol {
        /// The run folder.
        run_dir: PathBuf,
        /// The request.
        request: String,
        /// The answer.
        reply: String,
    },
    /// A step of the shim itself failed.
    #[error("{what}: {source}")]
    Shim {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn file_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> VmxError {
    let path = path.to_path_buf();
    move |source| VmxError::File { path, what, source }
}

/// Starts shims.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
}

impl Default for Launcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher {
    /// A launcher that runs the program that is running now, which must be hostsim
    /// (works on when the program's file was replaced by an upgrade).
    pub fn new() -> Self {
        Launcher {
            program: PathBuf::from("/proc/self/exe"),
        }
    }

    /// A launcher that runs another hostsim.
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Launcher {
            program: program.into(),
        }
    }

    /// Power a VM on: start its shim, and return once the guest runs.
    ///
    /// The run folder (created with mode 0700 where missing; on a local file system) belongs to
    /// the VM from now on. Files of an earlier run of the VM in it are replaced. Whoever drops the
    /// returned future leaves the VM running.
    ///
    /// # Errors
    /// [`VmxError::PowerOn`] says why QEMU did not come to run, with its own last words;
    /// nothing runs then. [`VmxError::Running`] where the folder's VM runs already.
    pub async fn power_on(&self, run_dir: &Path, spec: &VmxSpec) -> Result<VmxHandle, VmxError> {
        let handle = self.launch(run_dir, spec).await?;
        match handle.insist(&Request::WaitRunning).await {
            Ok(Reply::Status(_)) => Ok(handle),
            Ok(Reply::Exited(record)) if !record.ran => Err(VmxError::PowerOn {
                reason: record.reason,
            }),
            // It ran, and was quicker than this answer: that is for exited() to tell.
            Ok(Reply::Exited(_)) | Err(VmxError::Exited(ExitRecord { ran: true, .. })) => {
                Ok(handle)
            }
            Err(VmxError::Exited(record)) => Err(VmxError::PowerOn {
                reason: record.reason,
            }),
            Ok(other) => Err(handle.unexpected(&Request::WaitRunning, &other)),
            Err(e) => Err(e),
        }
    }

    async fn launch(&self, run_dir: &Path, spec: &VmxSpec) -> Result<VmxHandle, VmxError> {
        spec.validate().map_err(|message| VmxError::Spec {
            name: spec.name.clone(),
            message,
        })?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)
            .map_err(file_error(run_dir, "create the run folder"))?;
        let lock_path = run_dir.join(LOCK_FILE);
        let lock = open_lock(&lock_path).map_err(file_error(&lock_path, "open the lock"))?;
        match tokio::time::timeout(LOCK_LIMIT, take(&lock)).await {
            Ok(taken) => taken.map_err(file_error(&lock_path, "lock"))?,
            Err(_) => {
                return Err(VmxError::Running {
                    run_dir: run_dir.to_path_buf(),
                });
            }
        }
        for name in [EXIT_FILE, CONTROL_SOCKET] {
            let path = run_dir.join(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error(&path, "remove the earlier run's file")(e));
                }
                _ => {}
            }
        }
        let spec_path = run_dir.join(SPEC_FILE);
        let text = serde_json::to_vec_pretty(spec).map_err(io::Error::from);
        text.and_then(|text| files::write_private(&spec_path, &text))
            .map_err(file_error(&spec_path, "write the specification"))?;
        let log_path = run_dir.join(LOG_FILE);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(file_error(&log_path, "open the log"))?;
        let socket_path = run_dir.join(CONTROL_SOCKET);
        let listener = listen(run_dir).map_err(file_error(&socket_path, "listen"))?;

        // The first process forks the shim and ends; the lock and the socket go along as stdin
        // and stdout. From here on the shim lives on without us.
        let status = tokio::process::Command::new(&self.program)
            .arg("vmx")
            .arg("--run-dir")
            .arg(std::path::absolute(run_dir).map_err(file_error(run_dir, "resolve"))?)
            .stdin(Stdio::from(lock))
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::from(log))
            .status()
            .await
            .map_err(file_error(&self.program, "run the VM's shim"))?;
        if !status.success() {
            let message = format!("the shim could not start ({status}): {}", tail(&log_path));
            return Err(VmxError::PowerOn {
                reason: ExitReason::QemuError {
                    status: None,
                    message,
                },
            });
        }
        Ok(VmxHandle::of(run_dir))
    }
}

/// A VM under its shim. Cheap to clone; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct VmxHandle {
    run_dir: PathBuf,
}

impl VmxHandle {
    /// The VM of a run folder, unasked: whether it runs, whoever asks it will learn.
    pub(crate) fn of(run_dir: &Path) -> VmxHandle {
        VmxHandle {
            run_dir: run_dir.to_path_buf(),
        }
    }

    /// Find the shim of a run folder again, e.g. after hostsim was restarted. `None` where none
    /// runs: [`ExitRecord::read`] tells how the VM ended (no record: [`ExitReason::ShimDied`]).
    ///
    /// # Errors
    /// The folder's socket is there but cannot be used.
    pub async fn reattach(run_dir: &Path) -> Result<Option<VmxHandle>, VmxError> {
        let handle = VmxHandle::of(run_dir);
        match handle.ask(&Request::Status).await {
            Ok(Reply::Status(_)) => Ok(Some(handle)),
            Ok(Reply::Exited(_)) => Ok(None),
            Ok(other) => Err(handle.unexpected(&Request::Status, &other)),
            Err(e) if is_gone(&e) => {
                handle.wait_for_lock().await?;
                Ok(None)
            }
            Err(e) => Err(file_error(&run_dir.join(CONTROL_SOCKET), "ask the shim")(e)),
        }
    }

    /// The VM's run folder.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// How the VM is now.
    ///
    /// # Errors
    /// [`VmxError::Exited`] where it has ended.
    pub async fn status(&self) -> Result<VmxStatus, VmxError> {
        match self.request(&Request::Status).await? {
            Reply::Status(status) => Ok(status),
            other => Err(self.unexpected(&Request::Status, &other)),
        }
    }

    /// Ask the guest to shut down (ACPI power button). Returns once it was asked.
    ///
    /// # Errors
    /// [`VmxError::Exited`] where it has ended.
    pub async fn shutdown_guest(&self) -> Result<(), VmxError> {
        self.done(&Request::ShutdownGuest).await
    }

    /// Press the reset button: the guest boots again (in a new QEMU under the same shim). Returns
    /// once it runs.
    ///
    /// # Errors
    /// [`VmxError::Exited`] where it has ended.
    pub async fn reset(&self) -> Result<(), VmxError> {
        self.done(&Request::Reset).await
    }

    /// Plug a vNIC into a free slot while the VM runs; the guest finds it by itself, but must have
    /// booted: firmware and kernel can run astray of a card that comes while they look for devices.
    ///
    /// # Errors
    /// [`VmxError::Refused`] where it cannot be plugged in; [`VmxError::Exited`] where the VM has ended.
    pub async fn plug_nic(&self, nic: &NicSpec) -> Result<(), VmxError> {
        self.done(&Request::PlugNic { nic: nic.clone() }).await
    }

    /// Change a vNIC's port group, or plug its cable in or out, while the VM runs. The guest does
    /// not notice.
    ///
    /// # Errors
    /// [`VmxError::Refused`] on a user-mode network; [`VmxError::Exited`] where the VM has ended.
    pub async fn set_nic(&self, nic: &NicSpec) -> Result<(), VmxError> {
        self.done(&Request::SetNic { nic: nic.clone() }).await
    }

    /// Take a vNIC out while the VM runs. Returns once the guest has let it go; an empty slot is fine.
    ///
    /// # Errors
    /// [`VmxError::Refused`] where the guest keeps it (it is connected as before then);
    /// [`VmxError::Exited`] where the VM has ended.
    pub async fn unplug_nic(&self, slot: u8) -> Result<(), VmxError> {
        self.done(&Request::UnplugNic { slot }).await
    }

    /// Pull the plug, and return once nothing of the VM runs any more. A VM that ended by itself
    /// before is no error; the record tells.
    ///
    /// # Errors
    /// The shim cannot be asked.
    pub async fn power_off(&self) -> Result<ExitRecord, VmxError> {
        match self.request(&Request::PowerOff).await {
            Ok(Reply::Exited(record)) | Err(VmxError::Exited(record)) => Ok(record),
            Ok(other) => Err(self.unexpected(&Request::PowerOff, &other)),
            Err(e) => Err(e),
        }
    }

    /// Wait until the VM has ended. May be called by many, at any time, again and again.
    ///
    /// # Errors
    /// The shim answers what makes no sense.
    pub async fn exited(&self) -> Result<ExitRecord, VmxError> {
        match self.insist(&Request::WaitExit).await {
            Ok(Reply::Exited(record)) | Err(VmxError::Exited(record)) => Ok(record),
            Ok(other) => Err(self.unexpected(&Request::WaitExit, &other)),
            Err(e) => Err(e),
        }
    }

    async fn done(&self, request: &Request) -> Result<(), VmxError> {
        match self.request(request).await? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(request, &other)),
        }
    }

    /// Ask until there is an answer, or the shim is known to be gone: what else can fail is this process's own trouble
    /// (it has no descriptor left, say), and tells nothing of the VM.
    async fn insist(&self, request: &Request) -> Result<Reply, VmxError> {
        loop {
            let error = match self.request(request).await {
                Err(error) if !matches!(error, VmxError::Exited(_)) => error,
                known => return known,
            };
            tracing::warn!(%error, "a VM's shim cannot be asked; it will be asked again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Ask, and turn a shim that is gone into the record that it left.
    async fn request(&self, request: &Request) -> Result<Reply, VmxError> {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match self.ask(request).await {
            Ok(Reply::Error { message }) => Err(VmxError::Refused {
                request: format!("{request:?}"),
                message,
            }),
            Ok(Reply::Exited(record)) => {
                // The shim's last act was to answer; have it gone before anyone starts anew.
                self.wait_for_lock().await?;
                Ok(Reply::Exited(record))
            }
            Ok(reply) => Ok(reply),
            Err(e) if is_gone(&e) => {
                self.wait_for_lock().await?;
                let record = match ExitRecord::read(&self.run_dir) {
                    // One that says nothing is none.
                    Err(e) if matches!(e.kind(), InvalidData | UnexpectedEof) => None,
                    read => read.map_err(file_error(&self.run_dir.join(EXIT_FILE), "read"))?,
                };
                Err(VmxError::Exited(record.unwrap_or(ExitRecord {
                    reason: ExitReason::ShimDied,
                    at: 0,
                    ran: true,
                })))
            }
            Err(e) => Err(file_error(
                &self.run_dir.join(CONTROL_SOCKET),
                "ask the shim",
            )(e)),
        }
    }

    async fn ask(&self, request: &Request) -> io::Result<Reply> {
        let mut stream = connect(&self.run_dir).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream)
            .take(LINE_MAX as u64)
            .read_until(b'\n', &mut answer)
            .await?;
        if answer.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Wait until neither shim nor QEMU is left: both have the lock's file open. Many may wait at a time.
    async fn wait_for_lock(&self) -> Result<(), VmxError> {
        let path = self.run_dir.join(LOCK_FILE);
        let result = tokio::task::spawn_blocking(move || match File::open(&path) {
            Ok(file) => file.lock_shared().map_err(file_error(&path, "lock")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(file_error(&path, "open the lock")(e)),
        });
        result.await.unwrap_or_else(|e| {
            Err(VmxError::Shim {
                what: "waiting for the shim's end",
                source: io::Error::other(e),
            })
        })
    }

    fn unexpected(&self, request: &Request, reply: &Reply) -> VmxError {
        VmxError::Protocol {
            run_dir: self.run_dir.clone(),
            request: format!("{request:?}"),
            reply: format!("{reply:?}"),
        }
    }
}

/// The shim of a run folder is gone (or never was).
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof
    )
}

/// Take a lock, in vain as long as a VM runs: there is no waiting for it that could be given up.
async fn take(lock: &File) -> io::Result<()> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// A path to a socket of a folder that fits into a socket address (108 bytes) wherever the folder
/// is. Good as long as the folder is held open.
pub(super) fn short_path(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    let folder = File::open(run_dir)?;
    UnixListener::bind(short_path(&folder, CONTROL_SOCKET))
}

async fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    let folder = File::open(run_dir)?;
    UnixStream::connect(short_path(&folder, CONTROL_SOCKET)).await
}

/// The last lines of a log, for an error message.
pub(super) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(2048);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default())
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::Accelerator;
    use std::io::{BufRead, Write};

    #[tokio::test]
    async fn a_shim_that_could_not_be_asked_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let listener = listen(folder.path()).unwrap();
        let record = ExitRecord {
            reason: ExitReason::GuestPowerOff,
            at: 7,
            ran: true,
        };
        let mut last = serde_json::to_string(&Reply::Exited(record.clone())).unwrap();
        last.push('\n');
        let shim = std::thread::spawn(move || {
            for answer in ["what?\n", &last] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let vm = VmxHandle::of(folder.path());
        assert_eq!(vm.exited().await.unwrap(), record);
        shim.join().unwrap();
    }

    #[tokio::test]
    async fn a_shim_that_is_gone_with_a_record_that_says_nothing_has_died() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(EXIT_FILE), "").unwrap();
        let record = VmxHandle::of(folder.path()).exited().await.unwrap();
        assert_eq!(record.reason, ExitReason::ShimDied);
    }

    #[tokio::test]
    async fn whoever_looks_whether_a_run_has_ended_does_not_keep_the_next_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let spec = VmxSpec {
            uuid: uuid::Uuid::nil(),
            instance_uuid: uuid::Uuid::nil(),
            name: "v".into(),
            memory_mib: 64,
            cpus: 1,
            accelerator: Accelerator::Tcg,
            tsc_khz: None,
            firmware: Default::default(),
            boot: None,
            disks: Vec::new(),
            nics: Vec::new(),
            cdrom: None,
            cdrom_first: false,
            serials: Vec::new(),
            guestinfo: Default::default(),
            vsock: None,
            shares: Default::default(),
        };
        let path = folder.path().join(LOCK_FILE);
        let looks = open_lock(&path).unwrap();
        looks.lock_shared().unwrap();
        // Another one that looks is not held up by it.
        let vm = VmxHandle::of(folder.path());
        let looked = tokio::time::timeout(Duration::from_secs(60), vm.wait_for_lock()).await;
        looked.unwrap().unwrap();

        let launcher = Launcher::with_program("/bin/true");
        let (launched, ()) = tokio::join!(launcher.launch(folder.path(), &spec), async {
            drop(looks);
        });
        launched.unwrap();
        // One that runs keeps it, and is not waited for.
        let runs = open_lock(&path).unwrap();
        runs.lock().unwrap();
        let again = launcher.launch(folder.path(), &spec).await;
        assert!(matches!(again, Err(VmxError::Running { .. })), "{again:?}");
    }
}
