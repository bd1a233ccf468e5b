//! QEMU with one tether in it.

use super::build::Guest;
use super::disk::Disk;
use anyhow::{Context, Result, bail};
use hostsim::vmx::{Accelerator, tuning};
use link::serial::{Pipe, Side, reliable};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use wire::config::{
    CONFIG_VERSION, GuestConfig, KERNEL_CMDLINE, LinkConfig, Process, Restart, Transport, to_chunks,
};

/// How long anything in a VM may take. Only a broken run gets near it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The per-boot secret of test VMs.
pub const SECRET: &str = "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";

/// A connection of the tether.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where the tether's connections arrive.
#[derive(Debug)]
enum Arrival {
    /// QEMU's second serial port connects once; the tether opens connections over it.
    Serial(UnixListener, Option<Pipe>),
    /// Each connection of the tether is one to the socket.
    Vsock(UnixListener, Child),
}

/// A VM that runs; killed when dropped.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    folder: PathBuf,
    arrival: Arrival,
}

/// A process with these arguments and all else as `docker run` gives it.
#[must_use]
pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        cwd: String::new(),
        user: String::new(),
        groups: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        size: None,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
    }
}

/// The filter that the endpoint gives a container without further options.
fn filter() -> String {
    let held = seccomp::held(&[], &[]);
    // Cannot fail: the profile is the crate's own, and its tests compile it.
    seccomp::builtin(&held).map_or_else(|e| e.to_string(), |program| seccomp::to_text(&program))
}

/// A configuration for a disk and a process, over the serial link, without networks.
#[must_use]
pub fn config(disk: &Disk, process: Process) -> GuestConfig {
    GuestConfig {
        version: CONFIG_VERSION,
        id: "ab".repeat(32),
        boot: 1,
        hostname: "box".into(),
        domainname: String::new(),
        disk: disk.config(),
        link: LinkConfig {
            transport: Transport::Serial {
                device: "ttyS1".into(),
            },
            secret: SECRET.into(),
        },
        process,
        init: false,
        networks: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        hosts: Vec::new(),
        shm_size: 64 << 20,
        stop_signal: 15,
        stop_timeout: 10,
        clock: 0,
        seed: String::new(),
        restart: Restart::default(),
        health: None,
        seccomp: filter(),
        log_size: 0,
        no_log: false,
        limits: Default::default(),
        tmpfs: Vec::new(),
        mounts: Vec::new(),
        nfs: Vec::new(),
        shares: Vec::new(),
        guards: Vec::new(),
        sctp: false,
        maintenance: None,
    }
}

/// The port of the tests' endpoint where they run over vsock.
const PORT: u32 = 1024;

/// Starts vhost-device-vsock for a VM, if `MOORING_TEST_VSOCK` names it: then the tests run over
/// vsock, else over the serial port.
fn vsock(folder: &Path) -> Result<Option<Child>> {
    let Some(program) = std::env::var_os("MOORING_TEST_VSOCK") else {
        return Ok(None);
    };
    let socket = folder.join("vhost");
    for stale in ["vhost", "vsock"] {
        let _ = std::fs::remove_file(folder.join(stale));
    }
    let vm = format!(
        "guest-cid=3,socket={},uds-path={}",
        socket.display(),
        folder.join("vsock").display()
    );
    let child = Command::new(program)
        .arg("--vm")
        .arg(vm)
        .spawn()
        .context("starting vhost-device-vsock")?;
    let begin = Instant::now();
    while !socket.exists() && begin.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    Ok(Some(child))
}

impl Vm {
    /// Starts QEMU on this disk with this configuration.
    ///
    /// # Errors
    /// If something is missing or QEMU does not start.
    pub fn boot(
        folder: &Path,
        guest: &Guest,
        disk: &Disk,
        config: &GuestConfig,
        more: &[&str],
    ) -> Result<Vm> {
        let mut config = config.clone();
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-accel",
            "tcg",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-m",
            "256",
        ]);
        command.args(["-M", "q35,sata=off", "-cpu", tuning::cpu(Accelerator::Tcg)]);
        command.args(["-bios", "qboot.rom"]);
        command
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initramfs);
        let emulated = tuning::kernel_arguments(Accelerator::Tcg, None);
        command.args(["-append", &format!("{KERNEL_CMDLINE}{emulated}")]);
        command
            .arg("-serial")
            .arg(format!("file:{}", folder.join("console.log").display()));
        let arrival = match vsock(folder)? {
            Some(helper) => {
                config.link.transport = Transport::Vsock { port: PORT };
                command.args([
                    "-object",
                    "memory-backend-memfd,id=mem0,size=256M,share=on",
                    "-machine",
                    "memory-backend=mem0",
                ]);
                command.arg("-chardev").arg(format!(
                    "socket,id=c0,path={}",
                    folder.join("vhost").display()
                ));
                command.args(["-device", "vhost-user-vsock-pci,chardev=c0"]);
                let socket = folder.join(format!("vsock_{PORT}"));
                let _ = std::fs::remove_file(&socket);
                Arrival::Vsock(UnixListener::bind(socket)?, helper)
            }
            None => {
                let socket = folder.join("serial");
                let _ = std::fs::remove_file(&socket);
                let listener = UnixListener::bind(&socket)?;
                command
                    .arg("-chardev")
                    .arg(format!("socket,id=link,path={}", socket.display()));
                command.args(["-serial", "chardev:link"]);
                Arrival::Serial(listener, None)
            }
        };
        command.args([
            "-device",
            "pvscsi,id=s0",
            "-device",
            "scsi-hd,drive=d0,bus=s0.0",
        ]);
        command.arg("-drive").arg(format!(
            "file={},if=none,id=d0,format=raw",
            disk.path.display()
        ));
        for (key, value) in to_chunks(&config)? {
            let file = folder.join(&key);
            std::fs::write(&file, value)?;
            command
                .arg("-fw_cfg")
                .arg(format!("name=opt/{key},file={}", file.display()));
        }
        command.args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", folder.join("qmp").display()),
        ]);
        command.args(more);
        command.stderr(std::fs::File::create(folder.join("qemu.log"))?);
        let qemu = command.spawn().context("starting qemu-system-x86_64")?;
        Ok(Vm {
            qemu,
            folder: folder.to_owned(),
            arrival,
        })
    }

    /// The tether's next connection.
    ///
    /// # Errors
    /// With the console's text, if none comes.
    pub async fn connection(&mut self) -> Result<Box<dyn Connection>> {
        let next = async {
            Ok::<Box<dyn Connection>, std::io::Error>(match &mut self.arrival {
                Arrival::Vsock(listener, _) => Box::new(listener.accept().await?.0),
                Arrival::Serial(_, Some(pipe)) => Box::new(pipe.next().await?),
                Arrival::Serial(listener, pipe) => {
                    let (stream, new) = reliable(listener.accept().await?.0, Side::Listener)?;
                    *pipe = Some(new);
                    Box::new(stream)
                }
            })
        };
        match tokio::time::timeout(DEADLINE, next).await {
            Ok(Ok(stream)) => Ok(stream),
            other => bail!(
                "no connection ({:?}); QEMU: {} console:\n{}",
                other.map(|r| r.err()),
                self.text("qemu.log"),
                self.console()
            ),
        }
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// What the kernel and the tether wrote to the console.
    #[must_use]
    pub fn console(&self) -> String {
        self.text("console.log")
    }

    /// Waits until the VM is off.
    ///
    /// # Errors
    /// With the console's text, if it stays on.
    pub async fn off(&mut self) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            if self.qemu.try_wait()?.is_some() {
                return Ok(());
            }
            // waitpid(2) has no descriptor to wait on here; nothing depends on how long this takes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the VM is still on; console:\n{}", self.console())
    }

    /// Presses the power button (QMP `system_powerdown`).
    ///
    /// # Errors
    /// If QMP cannot be reached.
    pub async fn press_power_button(&self) -> Result<()> {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let mut qmp = BufReader::new(UnixStream::connect(self.folder.join("qmp")).await?);
        let mut line = String::new();
        qmp.read_line(&mut line).await?;
        for command in ["qmp_capabilities", "system_powerdown"] {
            qmp.get_mut()
                .write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes())
                .await?;
            line.clear();
            qmp.read_line(&mut line).await?;
        }
        Ok(())
    }

    /// Kills QEMU, as a host that fails does.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if let Arrival::Vsock(_, helper) = &mut self.arrival {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
    }
}
