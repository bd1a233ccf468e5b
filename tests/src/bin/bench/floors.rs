//! The floors: what this machine can do without Mooring. See README.md for what each one leaves out.

use crate::bare::{Bare, Way};
use anyhow::{Context, Result, bail, ensure};
use hostsim::vmx::host::HostFacts;
use hostsim::vmx::{Accelerator, DirectBoot, Launcher, SerialSpec, VmxSpec, VsockSpec, tuning};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tests::command::{self, DEADLINE};
use tests::guest::build::Guest;
use tests::places;
use tokio::runtime::Runtime;

/// The program that runs the floors' VMs.
pub const QEMU: &str = "qemu-system-x86_64";
/// Memory of the floors' VMs: what a container's has by default.
const MEMORY_MIB: u64 = 256;
/// The port that the raw vsock copy goes to.
const PORT: u32 = 7777;
/// Modules of the raw copies.
const COPY_MODULES: &str =
    "boot optional virtio_pci\nboot required vmw_vsock_virtio_transport\nboot required vmxnet3\n";

/// Boots the floors' VMs.
#[derive(Debug)]
pub struct Floors {
    folder: tempfile::TempDir,
    facts: HostFacts,
    runtime: Runtime,
    bare: Option<Rc<Bare>>,
    copy: Option<Guest>,
}

impl Floors {
    /// Finds out what the machine can do.
    ///
    /// # Errors
    /// When no VM runs here at all.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("floors-").tempdir()?;
        let runtime = Runtime::new()?;
        let facts = runtime
            .block_on(HostFacts::detect(folder.path()))
            .context("find out which accelerator works")?;
        Ok(Floors {
            folder,
            facts,
            runtime,
            bare: None,
            copy: None,
        })
    }

    /// `tcg` or `kvm`.
    pub fn accelerator(&self) -> &'static str {
        match self.facts.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }

    /// The bare boot of the distribution's packaged kernel, in seconds.
    ///
    /// # Errors
    /// When it cannot be built or does not boot.
    pub fn bare_boot(&mut self, way: Way) -> Result<f64> {
        self.bare()?.boot(self, way)
    }

    /// The packaged kernel with the floor's init.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn bare(&mut self) -> Result<Rc<Bare>> {
        let bare = match self.bare.take() {
            Some(bare) => bare,
            None => Rc::new(Bare::packaged(self)?),
        };
        Ok(self.bare.insert(bare).clone())
    }

    /// The processor that hostsim gives its VMs, for QEMU.
    pub fn processor(&self) -> &'static str {
        tuning::cpu(self.facts.accelerator)
    }

    /// Bytes a second of a guest that only writes zeros to a vsock, through the device that hostsim gives its VMs;
    /// `piped`: those that another process writes to a pipe.
    ///
    /// # Errors
    /// When it cannot be built, does not boot, or sends less.
    pub fn raw_vsock(&mut self, bytes: u64, piped: bool) -> Result<f64> {
        // hostsim then gives its VMs the kernel's device, and a copy through another one would be no floor.
        ensure!(
            !Path::new("/dev/vhost-vsock").exists(),
            "the raw copy through the kernel's vsock device (/dev/vhost-vsock) is not written yet; without that device hostsim's own one is measured"
        );
        let guest = self.copy_guest()?;
        let place = tempfile::tempdir_in(self.folder.path())?;
        let uds = place.path().join("uds");
        std::fs::create_dir(&uds)?;
        let console = place.path().join("console.log");
        let spec = VmxSpec {
            uuid: uuid::Uuid::new_v4(),
            instance_uuid: uuid::Uuid::new_v4(),
            name: "floor, raw vsock".into(),
            memory_mib: MEMORY_MIB,
            cpus: 1,
            accelerator: self.facts.accelerator,
            tsc_khz: self.facts.tsc_khz,
            firmware: Default::default(),
            boot: Some(DirectBoot {
                kernel: guest.kernel,
                initrd: Some(guest.initramfs),
                cmdline: cmdline(&format!(
                    "{}:{PORT}:{bytes}",
                    if piped { "piped" } else { "vsock" }
                )),
            }),
            disks: Vec::new(),
            nics: Vec::new(),
            cdrom: None,
            cdrom_first: false,
            serials: vec![SerialSpec::File {
                path: console.clone(),
                append: false,
            }],
            guestinfo: BTreeMap::new(),
            vsock: Some(VsockSpec::Uds {
                folder: uds.clone(),
            }),
            shares: Default::default(),
        };
        let launcher = Launcher::with_program(places::programs().join("hostsim"));
        let run = place.path().join("run");
        let (vm, stream) = self.runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(uds.join(format!("port-{PORT}")))?;
            let vm = launcher.power_on(&run, &spec).await?;
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(DEADLINE, listener.accept()) => accepted,
                end = vm.exited() => {
                    bail!("the floor's VM ended: {:?}; console:\n{}", end?.reason, read(&console));
                }
            };
            let (stream, _) = accepted.with_context(|| {
                format!(
                    "no connection from the floor's VM; console:\n{}",
                    read(&console)
                )
            })??;
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok((vm, stream))
        })?;
        let rate = drain(stream, bytes);
        self.runtime.block_on(vm.power_off())?;
        rate.with_context(|| format!("raw vsock copy; console:\n{}", read(&console)))
    }

    /// Bytes a second of a guest that only writes zeros to its second serial port, whose other end is a unix socket.
    ///
    /// # Errors
    /// As [`Floors::raw_vsock`].
    pub fn raw_uart(&mut self, bytes: u64) -> Result<f64> {
        let guest = self.copy_guest()?;
        let place = tempfile::tempdir_in(self.folder.path())?;
        let socket = place.path().join("uart.sock");
        let console = place.path().join("console.log");
        let listener = std::os::unix::net::UnixListener::bind(&socket)?;
        let what = format!("uart:ttyS1:{bytes}");
        let mut qemu = self.qemu(Command::new(QEMU), &guest, &what);
        qemu.arg("-serial")
            .arg(format!("file:{}", console.display()));
        qemu.arg("-chardev")
            .arg(format!("socket,id=uart,path={}", socket.display()));
        qemu.args(["-serial", "chardev:uart"]);
        let _child = Killed(qemu.spawn().context("start qemu-system-x86_64")?);
        // QEMU connects before its guest runs; where it does not, it has ended and said why.
        self.runtime
            .block_on(async {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                let (stream, _) = tokio::time::timeout(DEADLINE, listener.accept()).await??;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                anyhow::Ok(stream)
            })
            .context("QEMU does not connect its serial port")
            .and_then(|stream| drain(stream, bytes))
            .with_context(|| format!("raw UART copy; console:\n{}", read(&console)))
    }

    /// The guest of the raw copies: on the kernel that the containers have, so that only Mooring differs.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn copy_guest(&mut self) -> Result<Guest> {
        if let Some(guest) = &self.copy {
            return Ok(guest.clone());
        }
        let kernel = if places::boot() == places::boot_fast() {
            places::kernel_fast()
        } else {
            places::kernel_package()?
        };
        Ok(self
            .copy
            .insert(self.build(&kernel, "copy", COPY_MODULES, None)?.0)
            .clone())
    }

    /// The guest of the raw copies, which is built.
    ///
    /// # Errors
    /// When it is not.
    pub fn copied(&self) -> Result<&Guest> {
        self.copy.as_ref().context("the floor's guest is not built")
    }

    /// Builds kernel and initramfs out of a kernel package, guest/floor.c and these modules, and an ISO where there is a
    /// command line for it. Gives the folder, too.
    ///
    /// # Errors
    /// Those of gcc and bootimage.
    pub fn build(
        &self,
        kernel: &Path,
        name: &str,
        modules: &str,
        iso: Option<&str>,
    ) -> Result<(Guest, PathBuf)> {
        eprintln!("bench: building the floor's guest ({name})");
        let init = self.program()?;
        let list = self.folder.path().join(format!("{name}.modules"));
        let out = self.folder.path().join(name);
        std::fs::write(&list, modules)?;
        let guest = Guest::build(kernel, &init, Some(&list), iso, &out)?;
        Ok((guest, out))
    }

    /// guest/floor.c, compiled.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn program(&self) -> Result<PathBuf> {
        let program = self.folder.path().join("floor");
        if !program.exists() {
            let mut gcc = Command::new("gcc");
            gcc.args(["-static", "-O2", "-s", "-Wall", "-o"])
                .arg(&program);
            gcc.arg(places::root().join("tests/src/bin/bench/guest/floor.c"));
            command::run(gcc, b"", DEADLINE)?.ok()?;
        }
        Ok(program)
    }

    /// QEMU with a machine of hostsim's kind and memory, no device, and its own firmware and processor.
    pub fn untuned(&self) -> Command {
        let mut qemu = Command::new(QEMU);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-no-reboot", "-smp", "1", "-machine", "q35"]);
        qemu.args(["-accel", tuning::accel(self.facts.accelerator, 1)]);
        qemu.arg("-m").arg(format!("{MEMORY_MIB}M"));
        qemu
    }

    /// QEMU, by a command that starts it, as hostsim starts it for a direct boot, less all devices.
    pub fn qemu(&self, mut qemu: Command, guest: &Guest, what: &str) -> Command {
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-no-reboot", "-smp", "1"]);
        qemu.args(["-accel", tuning::accel(self.facts.accelerator, 1)]);
        qemu.args(["-cpu", self.processor()]);
        qemu.args(["-machine", "q35,usb=off,vmport=off,graphics=off,sata=off"]);
        qemu.arg("-m").arg(format!("{MEMORY_MIB}M"));
        let mut cmdline = cmdline(what);
        cmdline.push_str(&tuning::kernel_arguments(
            self.facts.accelerator,
            self.facts.tsc_khz,
        ));
        if guest.kernel.ends_with("vmlinux") {
            // Entered by PVH: the quickest way in.
            qemu.args(["-bios", "qboot.rom"]);
        }
        qemu.arg("-kernel").arg(&guest.kernel);
        qemu.arg("-initrd").arg(&guest.initramfs);
        qemu.arg("-append").arg(cmdline);
        qemu
    }
}

/// The command line of a floor's kernel.
pub fn cmdline(what: &str) -> String {
    format!("console=ttyS0,115200 panic=-1 quiet loglevel=0 8250.nr_uarts=2 floor={what}")
}

/// Reads a stream to its end, which must come after `bytes` bytes; gives the rate from the first read to the last.
///
/// # Errors
/// When more or less comes.
pub fn drain(mut stream: impl Read, bytes: u64) -> Result<f64> {
    let mut buffer = vec![0; 256 << 10];
    let mut first: Option<(Instant, u64)> = None;
    let mut last = Instant::now();
    let mut total = 0;
    while total < bytes {
        let n = stream
            .read(&mut buffer)
            .with_context(|| format!("after {total} of {bytes} bytes"))?;
        ensure!(n > 0, "it ended after {total} of {bytes} bytes");
        last = Instant::now();
        total += n as u64;
        first.get_or_insert((last, total));
    }
    ensure!(total == bytes, "{total} bytes came instead of {bytes}");
    let (begin, before) = first.context("nothing to copy")?;
    let took = last.duration_since(begin).max(Duration::from_micros(1));
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    Ok((total - before) as f64 / took.as_secs_f64())
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A process that does not outlive the measurement.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
