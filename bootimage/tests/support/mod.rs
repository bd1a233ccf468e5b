//! What the tests of this crate share: where kernels are, an init, and a VM.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bootimage::build::{Manifest, Options, build};
use bootimage::modules::{DEFAULT_LIST, parse_list};

/// Emulated, on a machine with other work: far more than any boot takes.
const DEADLINE: Duration = Duration::from_secs(300);

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../kernel")
}

/// Debian's kernel package, or why a test has to be skipped.
pub fn debian_kernel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MOORING_KERNEL_DEB") {
        return Some(path.into());
    }
    let debs = std::fs::read_dir(target())
        .ok()
        .into_iter()
        .flatten()
        .flatten();
    let found = debs
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .max();
    if found.is_none() {
        eprintln!("skipped: no kernel package; run scripts/fetch-kernel or set MOORING_KERNEL_DEB");
    }
    found
}

/// The trimmed kernel, or why a test has to be skipped.
pub fn fast_kernel() -> Option<PathBuf> {
    let path = std::env::var_os("MOORING_KERNEL_FAST")
        .map_or_else(|| target().join("fast"), PathBuf::from);
    if path.join("release").exists() {
        return Some(path);
    }
    eprintln!(
        "skipped: no trimmed kernel in {}; run `bootimage kernel`",
        path.display()
    );
    None
}

/// Compiles the test's init into `folder`.
pub fn compile_init(folder: &Path) -> PathBuf {
    let init = folder.join("init");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/init.c");
    let status = Command::new("gcc")
        .args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"])
        .arg(&init)
        .arg(source)
        .status()
        .expect("gcc starts; the tests need Debian's build-essential");
    assert!(status.success());
    init
}

/// Options for a kernel with the default modules and an ISO.
pub fn options(kernel: &Path, init: &Path, out: &Path) -> Options {
    Options {
        kernel: kernel.to_path_buf(),
        init: init.to_path_buf(),
        out: out.to_path_buf(),
        modules: parse_list(DEFAULT_LIST, "default").unwrap(),
        compression: None,
        iso: Some(bootimage::iso::DEFAULT_CMDLINE.into()),
    }
}

/// Builds with [`options`].
pub fn build_default(kernel: &Path, init: &Path, out: &Path) -> Manifest {
    build(&options(kernel, init, out), &mut |_| {}).unwrap()
}

/// Ends a VM whatever becomes of the test.
struct Vm(Child);

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a VM until it powers off and gives back what it said on its first serial port.
pub fn run_vm<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> String {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-accel",
            "tcg",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args(["-cpu", "max", "-m", "256", "-no-reboot", "-serial", "stdio"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut vm = Vm(command
        .spawn()
        .expect("QEMU starts; the tests need qemu-system-x86"));
    let mut output = vm.0.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    // The port closes when QEMU ends.
    let bytes = receiver.recv_timeout(DEADLINE).expect("the VM powers off");
    assert!(vm.0.wait().unwrap().success(), "QEMU failed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Checks that the init ran under the kernel of this manifest, and loaded all its modules.
pub fn assert_booted(output: &str, manifest: &Manifest) {
    let count = manifest.modules.len();
    let release = &manifest.kernel.release;
    let expected = format!("TEST-INIT {release} loaded {count} failed 0 of {count}");
    assert!(output.contains(&expected), "no `{expected}` in:\n{output}");
}
