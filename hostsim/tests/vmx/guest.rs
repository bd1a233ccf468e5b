//! Test guests: a kernel from the boot folder, and an initramfs with nothing but `init.c`.

use hostsim::vmx::host::HostFacts;
use hostsim::vmx::{DirectBoot, Launcher, SerialSpec, VmxHandle, VmxSpec};
use sha2::Digest;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Around events of a guest, on a machine however busy.
pub const LONG: Duration = Duration::from_secs(180);

/// The folder with the kernel: `vmlinux` or `vmlinuz`, and `modules/` (sorted by name, in the order
/// of loading) where it is not built in. `None`: the test cannot run here, and says so.
fn boot_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MOORING_BOOT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../boot"),
        PathBuf::from,
    );
    let found = ["vmlinux", "vmlinuz"]
        .iter()
        .any(|name| folder.join(name).exists());
    if !found {
        println!("skipped: no kernel in {} (MOORING_BOOT)", folder.display());
    }
    found.then_some(folder)
}

/// Kernel and initramfs for the test guests.
pub fn boot() -> Option<(PathBuf, PathBuf)> {
    static INITRD: OnceLock<PathBuf> = OnceLock::new();
    let folder = boot_folder()?;
    let kernel = ["vmlinux", "vmlinuz"]
        .iter()
        .map(|n| folder.join(n))
        .find(|p| p.exists())?;
    let initrd = INITRD.get_or_init(|| build_initrd(&folder));
    Some((kernel, initrd.clone()))
}

fn build_initrd(boot: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.c");
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut hash = sha2::Sha256::new();
    hash.update(std::fs::read(&source).unwrap());
    hash.update(boot.as_os_str().as_encoded_bytes());
    let kept = temporary.join(format!("initrd-{}", hex::encode(&hash.finalize()[..8])));
    if kept.exists() {
        return kept;
    }
    // Each test may be a process of its own: nobody must see a half-written file.
    let folder = tempfile::tempdir_in(temporary).unwrap();
    let init = folder.path().join("init");
    let status = Command::new("gcc")
        .args(["-static", "-O2", "-Wall", "-o"])
        .args([&init, &source])
        .status()
        .expect("gcc is needed for the test guests");
    assert!(status.success());
    let mut archive = Vec::new();
    entry(
        &mut archive,
        "init",
        0o100755,
        &std::fs::read(&init).unwrap(),
    );
    entry(&mut archive, "modules", 0o040755, &[]);
    if let Ok(modules) = std::fs::read_dir(boot.join("modules")) {
        for module in modules {
            let path = module.unwrap().path();
            let name = format!("modules/{}", path.file_name().unwrap().to_str().unwrap());
            entry(
                &mut archive,
                &name,
                0o100644,
                &std::fs::read(&path).unwrap(),
            );
        }
    }
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    let path = folder.path().join("initrd");
    std::fs::write(&path, archive).unwrap();
    std::fs::rename(&path, &kept).unwrap();
    kept
}

/// One file of a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst).
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) {
    let (len, name_len) = (bytes.len(), name.len() + 1);
    let fields = [0, mode as usize, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// What this host can do; without its TSC's frequency an emulated guest on a busy machine takes
/// seconds for minutes.
pub async fn facts() -> &'static HostFacts {
    static FACTS: tokio::sync::OnceCell<HostFacts> = tokio::sync::OnceCell::const_new();
    let detect = || async {
        let state = tempfile::tempdir().unwrap();
        HostFacts::detect(state.path()).await.unwrap()
    };
    FACTS.get_or_init(detect).await
}

/// A VM with 128 MiB whose console goes to `console.log` in `folder` and that does `test`.
pub async fn spec(folder: &Path, boot: &(PathBuf, PathBuf), test: &str) -> VmxSpec {
    let facts = facts().await;
    VmxSpec {
        uuid: uuid::Uuid::new_v4(),
        instance_uuid: uuid::Uuid::new_v4(),
        name: format!("test, {test}"),
        memory_mib: 128,
        cpus: 1,
        accelerator: facts.accelerator,
        tsc_khz: facts.tsc_khz,
        firmware: Default::default(),
        boot: Some(DirectBoot {
            kernel: boot.0.clone(),
            initrd: Some(boot.1.clone()),
            cmdline: format!("console=ttyS0,115200 quiet panic=-1 test={test}"),
        }),
        disks: Vec::new(),
        nics: Vec::new(),
        cdrom: None,
        cdrom_first: false,
        serials: vec![SerialSpec::File {
            path: folder.join("console.log"),
            append: true,
        }],
        guestinfo: BTreeMap::new(),
        vsock: None,
        shares: std::collections::BTreeMap::new(),
    }
}

/// What the guest has written to its console so far.
pub fn console(folder: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(folder.join("console.log")).unwrap_or_default())
        .into_owned()
}

/// A folder for a VM; a test that fails in the middle leaves no VM behind.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A new one.
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let socket = self.path().join("run/control.sock");
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
            let _ = stream.write_all(b"{\"request\":\"power_off\"}\n");
            let _ = stream.read(&mut [0; 1024]);
        }
    }
}

/// Starts VMs by the program that was built with the tests.
pub fn launcher() -> Launcher {
    Launcher::with_program(env!("CARGO_BIN_EXE_hostsim"))
}

/// Power on, or say all there is to know.
pub async fn power_on(folder: &Path, spec: &VmxSpec) -> VmxHandle {
    match launcher().power_on(&folder.join("run"), spec).await {
        Ok(handle) => handle,
        Err(e) => panic!(
            "{e}\n{}",
            std::fs::read_to_string(folder.join("run/vmx.log")).unwrap_or_default()
        ),
    }
}

/// Wait until the console shows a word. The file is the only thing that tells; it is watched.
pub async fn until_console(folder: &Path, word: &str) {
    let wait = async {
        while !console(folder).contains(word) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LONG, wait).await.is_err() {
        panic!("no {word:?} on the console:\n{}", console(folder));
    }
}
