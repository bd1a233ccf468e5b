//! An appliance: a VM in which the endpoint serves as on ESXi, with a vNIC on a trunk of VLANs. Its kernel is the
//! distribution's, which has 802.1Q; the trunk's other end is a [`Splitter`], which does what a port group with the VLAN
//! 4095 does: it takes tagged frames to their VLANs' bridges and back.

use crate::command::{self, DEADLINE, eventually};
use crate::{places, vch::Vch};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Modules of a router, in bootimage's form.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "8021q",
    "ipv6",
    "nf_tables",
    "nf_conntrack",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_masq",
    "nft_fib",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_fib_inet",
];
/// MAC addresses by which the start script names both vNICs.
const PUBLIC: &str = "52:54:00:00:00:01";
const TRUNK: &str = "00:50:56:3f:00:01";

const START: &str = r#"#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
while read -r group file rest; do
    case $file in *.ko) insmod "/modules/$file" ;; esac
done </modules/order
for path in /sys/class/net/*; do
    case $(cat "$path/address") in
        "$PUBLIC_MAC") ip link set "${path##*/}" name public ;;
        "$TRUNK_MAC") ip link set "${path##*/}" name trunk ;;
    esac
done
ip link set lo up
ip address add 10.0.2.15/24 dev public
ip link set public up
ip route add default via 10.0.2.2
echo "nameserver 10.0.2.3" >/etc/resolv.conf
while read -r word; do set -- "$@" "$word"; done </arguments
/endpoint "$@"
echo "the endpoint has ended: $?"
poweroff -f
"#;

/// The VM; ended when this goes out of scope.
#[derive(Debug)]
pub struct Appliance {
    child: Child,
    console: PathBuf,
}

impl Appliance {
    /// Boots one with an endpoint of these arguments, these files at its root, and these TCP ports of the machine's
    /// loopback led into it. `trunk`: sockets of the VM's own end and of the other one.
    ///
    /// # Errors
    /// Where a part is missing, or the endpoint does not come to serve.
    pub fn start(
        folder: &Path,
        arguments: &[String],
        files: &[PathBuf],
        ports: &[u16],
        trunk: [&Path; 2],
    ) -> Result<Self> {
        let boot = folder.join("boot");
        let list: String = MODULES
            .iter()
            .map(|name| format!("boot required {name}\n"))
            .collect();
        fs::write(folder.join("modules"), list)?;
        let mut build = Command::new(places::programs().join("bootimage"));
        build
            .args(["build", "--compress", "none", "--init", "/usr/bin/busybox"])
            .arg("--kernel")
            .arg(places::kernel_package()?)
            .arg("--modules")
            .arg(folder.join("modules"))
            .arg("--out")
            .arg(&boot);
        command::run(build, b"", DEADLINE)?.ok()?;
        let root = folder.join("root");
        for name in ["proc", "sys", "dev", "run", "tmp", "etc", "bin", "sbin"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox"))?;
        let endpoint = root.join("endpoint");
        let mut strip = Command::new("strip");
        strip
            .arg("-o")
            .arg(&endpoint)
            .arg(places::programs().join("endpoint"));
        command::run(strip, b"", DEADLINE)?.ok()?;
        fs::copy("/usr/sbin/nft", root.join("sbin/nft"))?;
        for library in libraries(&[&endpoint, Path::new("/usr/sbin/nft")])? {
            let to = root.join(library.strip_prefix("/")?);
            fs::create_dir_all(to.parent().context("a library's folder")?)?;
            fs::copy(library, to)?;
        }
        for file in files {
            fs::copy(file, root.join(file.file_name().context("a file's name")?))?;
        }
        let start = START
            .replace("$PUBLIC_MAC", PUBLIC)
            .replace("$TRUNK_MAC", TRUNK);
        fs::write(root.join("start"), start)?;
        fs::write(root.join("arguments"), arguments.join("\n") + "\n")?;
        let initrd = folder.join("initrd");
        // The kernel unpacks both archives, one over the other.
        let pack = format!(
            "chmod 755 start && cp {0} {1} && find . | busybox cpio -o -H newc >>{1}",
            boot.join("initrd.cpio").display(),
            initrd.display()
        );
        let mut sh = Command::new("sh");
        sh.args(["-ec", &pack]).current_dir(&root);
        command::run(sh, b"", DEADLINE)?.ok()?;

        let console = folder.join("console");
        let forwards: String = ports
            .iter()
            .map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:{port}"))
            .collect();
        let [own, other] = trunk.map(|path| path.display().to_string());
        let child = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-m", "640"])
            // Under emulation, as hostsim's (see its module `tuning`): a machine may have a /dev/kvm that does not work.
            .args(["-machine", "q35", "-accel", "tcg,thread=multi"])
            .args(["-cpu", "max,-erms,-fsrm,-la57,-pclmulqdq"])
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 rdinit=/start nolapic_timer no_timer_check noreplace-smp",
            ])
            .arg("-kernel")
            .arg(boot.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-netdev", &format!("user,id=public{forwards}")])
            .args([
                "-device",
                &format!("virtio-net-pci,netdev=public,mac={PUBLIC}"),
            ])
            .args([
                "-netdev",
                &format!("dgram,id=trunk,local.type=unix,local.path={own},remote.type=unix,remote.path={other}"),
            ])
            .args(["-device", &format!("vmxnet3,netdev=trunk,mac={TRUNK}")])
            .stdin(Stdio::null())
            .spawn()
            .context("qemu-system-x86_64")?;
        let mut appliance = Appliance { child, console };
        eventually("the appliance's endpoint serves", || {
            let said = appliance.console();
            ensure!(
                appliance.child.try_wait()?.is_none() && !said.contains("has ended"),
                "it has ended:\n{said}"
            );
            Ok(said.contains("ready: DOCKER_HOST="))
        })
        .with_context(|| format!("it said: {}", appliance.console()))?;
        Ok(appliance)
    }

    /// What it has said so far.
    pub fn console(&self) -> String {
        fs::read(&self.console)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The libraries that programs are linked with, by their paths.
fn libraries(programs: &[&Path]) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.args(programs);
    let said = command::run(ldd, b"", DEADLINE)?.ok()?.text();
    let words = said.split_whitespace();
    // A program's own line ends in a colon.
    let paths = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Frames that have gone by, by VLAN: from the trunk, and to it. Those without a tag are counted as VLAN 0.
pub type Counts = BTreeMap<u16, [u64; 2]>;

/// The trunk's other end: a tap on each VLAN's bridge of a host's switch.
#[derive(Debug)]
pub struct Splitter {
    taps: Vec<Child>,
    counts: Arc<Mutex<Counts>>,
    trunk: PathBuf,
}

impl Splitter {
    /// Between a trunk's sockets (its own, and the one here) and VLANs of a host.
    ///
    /// # Errors
    /// Those of `ip`, `socat` and the sockets.
    pub fn start(vch: &Vch, folder: &Path, trunk: [&Path; 2], vlans: &[u16]) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let switch = vch.switch()?;
        let counts = Arc::new(Mutex::new(Counts::new()));
        let [appliance, own] = trunk;
        let up = Arc::new(UnixDatagram::bind(own)?);
        let mut splitter = Splitter {
            taps: Vec::new(),
            counts: counts.clone(),
            trunk: own.to_owned(),
        };
        let mut down = BTreeMap::new();
        for vlan in vlans {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("tr{vlan}-{number}");
            let here = folder.join(format!("{vlan}.here"));
            let there = folder.join(format!("{vlan}.tap"));
            let socket = UnixDatagram::bind(&here)?;
            let tap = Command::new("ip")
                .args(["netns", "exec", &switch, "socat"])
                .arg(format!("TUN,tun-type=tap,tun-name={name},iff-no-pi,iff-up"))
                .arg(format!(
                    "UNIX-SENDTO:{},bind={}",
                    here.display(),
                    there.display()
                ))
                .stdin(Stdio::null())
                .spawn()
                .context("socat")?;
            splitter.taps.push(tap);
            let bridge = format!("vlan{vlan}");
            eventually(&format!("{name} is there"), || {
                let mut set = Command::new("ip");
                set.args(["-n", &switch, "link", "set", &name, "master", &bridge]);
                Ok(there.exists() && set.output()?.status.success())
            })?;
            socket.connect(&there)?;
            let socket = Arc::new(socket);
            down.insert(*vlan, socket.clone());
            let (up, appliance, vlan, counts) =
                (up.clone(), appliance.to_owned(), *vlan, counts.clone());
            std::thread::spawn(move || {
                let mut frame = vec![0; 65536];
                while let Ok(length) = socket.recv(&mut frame) {
                    if length < 12 {
                        continue;
                    }
                    let [high, low] = vlan.to_be_bytes();
                    let tagged = [&frame[..12], &[0x81, 0, high, low], &frame[12..length]].concat();
                    count(&counts, vlan, 1);
                    // One that the VM has no room for, or that is off, is lost.
                    let _ = up.send_to(&tagged, &appliance);
                }
            });
        }
        std::thread::spawn(move || {
            let mut frame = vec![0; 65536];
            while let Ok(length) = up.recv(&mut frame) {
                let tag = frame[..length].get(12..16);
                let vlan = match tag {
                    Some([0x81, 0, high, low]) => u16::from_be_bytes([high & 0x0f, *low]),
                    _ => 0,
                };
                count(&counts, vlan, 0);
                if let Some(socket) = down.get(&vlan) {
                    let _ = socket.send(&[&frame[..12], &frame[16..length]].concat());
                }
            }
        });
        Ok(splitter)
    }

    /// What has gone by.
    pub fn counts(&self) -> Counts {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn count(counts: &Mutex<Counts>, vlan: u16, direction: usize) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.entry(vlan).or_default()[direction] += 1;
}

impl Drop for Splitter {
    fn drop(&mut self) {
        for tap in &mut self.taps {
            let _ = tap.kill();
            let _ = tap.wait();
        }
        let _ = fs::remove_file(&self.trunk);
    }
}
