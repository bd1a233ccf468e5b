//! A fault in any step of the boot is the error of `docker start`, naming step, container and reason; once it is
//! mended, the container starts.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Context, Result};
use layers::gpt::Table;
use layers::vmdk::Chain;
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tests::admin;
use tests::vch::{Settings, Vch};
use wire::config::GuestConfig;

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone(
            "faults::of_the_boot_are_the_error_of_docker_start_and_name_the_step",
            steps,
        ),
        alone("faults::docker_run_ends_with_125_and_rm_removes", run),
    ]
}

/// What is done to the guest's configuration.
type Change = fn(&mut GuestConfig);

/// A created container of a host, and its name.
struct Victim<'a> {
    vch: &'a Vch,
    id: String,
}

impl<'a> Victim<'a> {
    fn new(vch: &'a Vch, more: &[&str]) -> Result<Self> {
        let args = [&["create"], more, &[BUSYBOX, "echo", "whole"]].concat();
        let id = vch.docker.ok(&args)?;
        Ok(Victim { vch, id })
    }

    /// Starts it, which must fail with these words and leave it as Docker leaves one that was never started.
    fn fails(&self, step: &str, words: &[&str]) -> Result<()> {
        let docker = &self.vch.docker;
        let out = docker.run(&["start", &self.id])?.exits(1);
        let out = out.with_context(|| format!("fault of {step:?}"))?;
        let errors = out.errors();
        for part in [self.id.as_str(), step].iter().chain(words) {
            holds(&errors, part).with_context(|| format!("fault of {step:?}"))?;
        }
        let state = docker.inspect(
            &self.id,
            "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Error}}",
        )?;
        let reason = state
            .strip_prefix("created 128 false ")
            .with_context(|| format!("state after a fault of {step:?}: {state}"))?;
        holds(&errors, reason)
    }

    /// Starts it, which must work.
    fn works(&self, what: &str) -> Result<()> {
        let docker = &self.vch.docker;
        let output = docker.ok(&["start", "-a", &self.id]);
        equal(
            what,
            output.with_context(|| what.to_owned())?,
            "whole".into(),
        )?;
        equal(
            what,
            docker.inspect(
                &self.id,
                "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}",
            )?,
            "exited 0".into(),
        )?;
        docker.ok(&["rm", &self.id]).map(drop)
    }

    fn leaf(&self) -> Result<PathBuf> {
        let containers = self.vch.vch_folder()?.join("containers");
        Ok(containers.join(&self.id).join("leaf.vmdk"))
    }

    fn guest(&self, change: impl FnOnce(&mut GuestConfig)) -> Result<()> {
        admin::set_guest(self.vch, &self.id, change)
    }

    fn keys(&self, changes: &[(&str, &str)]) -> Result<()> {
        let change = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        admin::set_keys(self.vch, &self.id, |_| {
            Ok(changes.iter().map(change).collect())
        })
    }
}

/// Overwrites the first 64 KiB of a partition with zeros.
pub fn damage(vch: &Vch, leaf: &Path, partition: usize) -> Result<()> {
    let inside = leaf.strip_prefix(vch.datastore())?;
    let table = Table::read(&Chain::open_files(&vch.datastore(), inside)?)?;
    zero(leaf, table.partitions[partition - 1].start, "64k")
}

/// Overwrites bytes of a disk with zeros.
fn zero(leaf: &Path, start: u64, length: &str) -> Result<()> {
    let mut io = Command::new("qemu-io");
    io.args(["-f", "vmdk", "-c", &format!("write -P 0 {start} {length}")])
        .arg(leaf);
    tests::command::run(io, b"", tests::command::DEADLINE)?
        .ok()
        .map(drop)
}

/// The archive of a list of modules.
fn archive(order: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("modules"))?;
    std::fs::write(dir.path().join("modules/order"), order)?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc"])
        .current_dir(dir.path());
    let out = tests::command::run(cpio, b"modules/order\n", tests::command::DEADLINE)?;
    Ok(out.ok()?.stdout)
}

fn steps() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;

    // The disk: its layer, and the partition for what the container writes.
    for (partition, step) in [(1, "layers: mounting layer 1"), (2, "ephemeral: mounting")] {
        let victim = Victim::new(&vch, &[])?;
        let leaf = victim.leaf()?;
        let whole = std::fs::read(&leaf)?;
        damage(&vch, &leaf, partition)?;
        victim.fails(
            step,
            &[&format!("partition {partition} (/dev/sda{partition})")],
        )?;
        // A second start fails as the first one did.
        victim.fails(step, &[])?;
        std::fs::write(&leaf, whole)?;
        victim.works(step)?;
    }

    // A disk that is another one: its table is none. The tether waits half a minute for the right one.
    let victim = Victim::new(&vch, &[])?;
    let leaf = victim.leaf()?;
    let whole = std::fs::read(&leaf)?;
    zero(&leaf, 512, "512")?;
    victim.fails(
        "disk: waiting for the disk with GUID",
        &["(there are: {\"sda\"})"],
    )?;
    std::fs::write(&leaf, whole)?;
    victim.works("after a disk without a table")?;

    modules(&vch)?;

    // The configuration, which the tether reads before it has a link. The next start writes it anew.
    let victim = Victim::new(&vch, &[])?;
    victim.keys(&[("guestinfo.mooring.config.0", "no base64!")])?;
    victim.fails("configuration: ", &["is not base64"])?;
    victim.works("after a configuration that was none")?;
    let victim = Victim::new(&vch, &[])?;
    victim.keys(&[("guestinfo.mooring.config.chunks", "")])?;
    victim.fails(
        "configuration: ",
        &["guestinfo.mooring.config.chunks is missing"],
    )?;
    victim.works("after a configuration that was missing")?;

    // The network: an address that is none, a gateway out of reach, an MTU that no vNIC has.
    let faults: [(&str, Change); 3] = [
        ("is not an address with prefix length", |guest| {
            guest.networks[0].addresses = vec!["172.17.0.2/64".to_owned()];
        }),
        ("adding default route by 192.0.2.1", |guest| {
            guest.networks[0].gateways = vec!["192.0.2.1".to_owned()];
        }),
        ("with MTU 7", |guest| guest.networks[0].mtu = 7),
    ];
    for (words, change) in faults {
        let victim = Victim::new(&vch, &[])?;
        victim.guest(change)?;
        victim.fails("network: eth0", &[words])?;
        victim.works(words)?;
    }

    // The files: a host name that is longer than the kernel's. The client can ask for none.
    let victim = Victim::new(&vch, &[])?;
    victim.guest(|guest| guest.hostname = "h".repeat(65))?;
    victim.fails(
        "files: setting the host name \"hhh",
        &["EINVAL: Invalid argument"],
    )?;
    victim.works("after a host name that is too long")?;

    // The process: a kernel setting that there is not, which the client may well ask for.
    let victim = Victim::new(&vch, &["--sysctl", "net.nothing=1"])?;
    victim.fails(
        "process: write sysctl key net.nothing: open /proc/sys/net/nothing: ",
        &["no such file or directory"],
    )?;
    vch.docker.ok(&["rm", &victim.id])?;
    // A capability that there is not.
    let victim = Victim::new(&vch, &[])?;
    victim.guest(|guest| guest.process.cap_add = vec!["CAP_NO_SUCH".to_owned()])?;
    victim.fails("process: unknown capability \"CAP_NO_SUCH\"", &[])?;
    victim.works("after a capability that there is not")?;

    // A VM that goes off before its tether says anything: a kernel without its init panics.
    let victim = Victim::new(&vch, &["--label", "panics"])?;
    let usual = wire::config::KERNEL_CMDLINE;
    let panics = format!("{usual} rdinit=/no/such/init");
    victim.keys(&[("hostsim.boot.cmdline", &panics)])?;
    victim.fails(
        "went off before its tether reported",
        &["console.log", "Kernel panic"],
    )?;
    victim.keys(&[("hostsim.boot.cmdline", usual)])?;
    victim.works("after a panic")
}

/// A boot image that lacks a module, and one whose list of modules is of another release.
fn modules(vch: &Vch) -> Result<()> {
    let key = "hostsim.boot.initrd";
    let faults = [
        (
            "# mooring modules 1\nboot 000-missing.ko - -\n",
            "modules: loading 000-missing.ko: No such file or directory",
        ),
        // Before there is a link.
        (
            "# mooring modules 99\n",
            "modules: /modules/order does not begin with",
        ),
    ];
    for (order, words) in faults {
        let victim = Victim::new(vch, &[])?;
        let image = victim.leaf()?.with_file_name("image.cpio");
        let mut whole = Vec::new();
        admin::set_keys(vch, &victim.id, |keys| {
            let usual = keys.get(key).context("the boot image")?;
            let (datastore, usual) = usual.split_once(' ').context("a datastore's path")?;
            whole = std::fs::read(vch.datastore().join(usual))?;
            let own = image.strip_prefix(vch.datastore())?.display();
            Ok([(key.to_owned(), format!("{datastore} {own}"))].into())
        })?;
        // The kernel unpacks a further archive, at a multiple of four, over what it has (Linux
        // Documentation/driver-api/early-userspace/buffer-format.rst).
        let mut faulty = whole.clone();
        faulty.resize(whole.len().next_multiple_of(4), 0);
        faulty.extend(archive(order)?);
        std::fs::write(&image, faulty)?;
        victim.fails(words, &[])?;
        // In place: a key that is set now may be lost, since the VM can still be on its way off.
        std::fs::write(&image, whole)?;
        victim.works(words)?;
    }
    Ok(())
}

fn run() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.more.push(
        "--endpoint-arg=--boot-cmdline=console=ttyS0,115200 panic=-1 rdinit=/no/such/init".into(),
    );
    let vch = Vch::start(settings)?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let out = docker
        .run(&["run", "--name", "kept", BUSYBOX, "true"])?
        .exits(125)?;
    holds(&out.errors(), "went off before its tether reported")?;
    equal(
        "state",
        docker.inspect("kept", "{{.State.Status}} {{.State.ExitCode}}")?,
        "created 128".into(),
    )?;
    let out = docker
        .run(&["run", "-d", "--rm", "--name", "gone", BUSYBOX, "true"])?
        .exits(125)?;
    holds(&out.errors(), "went off before its tether reported")?;
    tests::command::eventually("the container is removed", || {
        Ok(docker.run(&["inspect", "gone"])?.code != 0)
    })
}
