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
    let start = table.partitions[partition - 1].start;
    let mut io = Command::new("qemu-io");
    io.args(["-f", "vmdk", "-c", &format!("write -P 0 {start} 64k")])
        .arg(leaf);
    tests::command::run(io, b"", tests::command::DEADLINE)?
        .ok()
        .map(drop)
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

    // The process: a capability that there is not.
    let victim = Victim::new(&vch, &[])?;
    victim.guest(|guest| guest.process.cap_add = vec!["CAP_NO_SUCH".to_owned()])?;
    victim.fails("unknown capability \"CAP_NO_SUCH\"", &[])?;
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
