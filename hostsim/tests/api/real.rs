//! VMs that really run, through the API: the whole way from a specification to a guest and back.

use super::restart::Program;
use super::*;
use crate::guest::{LONG, boot};
use std::path::PathBuf;

/// A state folder; a test that fails in the middle leaves no VM behind.
pub(super) struct State(pub(super) tempfile::TempDir);

impl State {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        use std::io::{Read as _, Write as _};
        for vm in std::fs::read_dir(self.path().join("run"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(mut stream) =
                std::os::unix::net::UnixStream::connect(vm.path().join("vmx/control.sock"))
            {
                let _ = stream.write_all(b"{\"request\":\"power_off\"}\n");
                let _ = stream.read(&mut [0; 1024]);
            }
        }
    }
}

/// A client of a program, for VMs that boot the test guest directly.
pub(super) struct Real {
    pub(super) client: Client,
    pub(super) kernel: String,
    pub(super) initrd: String,
}

impl Real {
    pub(super) async fn new(program: &Program, state: &Path, boot: &(PathBuf, PathBuf)) -> Real {
        let client = program.client(state).await;
        client
            .make_directory(None, &path("boot"), true)
            .await
            .unwrap();
        let (kernel, initrd) = (path("boot/kernel"), path("boot/initrd"));
        for (from, to) in [(&boot.0, &kernel), (&boot.1, &initrd)] {
            let file = tokio::fs::File::open(from).await.unwrap();
            let length = file.metadata().await.unwrap().len();
            client
                .file_put_stream("ha-datacenter", to, file, Some(length))
                .await
                .unwrap();
        }
        Real {
            client,
            kernel: kernel.to_string(),
            initrd: initrd.to_string(),
        }
    }

    pub(super) async fn create(
        &self,
        name: &str,
        test: &str,
        change: impl FnOnce(&mut VirtualMachineConfigSpec),
    ) -> ManagedObjectReference {
        let mut spec = named(name);
        spec.memory_mb = Some(128);
        spec.device_change = vec![VirtualDeviceConfigSpec::add(VirtualDevice::serial_file(
            -4,
            &format!("[datastore1] {name}/console.log"),
        ))];
        spec.extra_config = vec![
            OptionValue::text("answer.msg.serial.file.open", "Append"),
            OptionValue::text("hostsim.boot.kernel", &self.kernel),
            OptionValue::text("hostsim.boot.initrd", &self.initrd),
            OptionValue::text(
                "hostsim.boot.cmdline",
                format!("console=ttyS0,115200 quiet panic=-1 test={test}"),
            ),
        ];
        change(&mut spec);
        let (folder, pool) = (
            hostsim::inventory::vm_folder(),
            hostsim::inventory::resource_pool(),
        );
        self.client.create_vm(&folder, spec, &pool).await.unwrap()
    }

    /// Waits until the VM has this power state, by being told.
    async fn until(&self, vm: &ManagedObjectReference, state: PowerState) {
        let spec = PropertyFilterSpec::object(vm, &["runtime.powerState"]);
        let mut watch = self.client.watch(spec).await.unwrap();
        let wait = async {
            loop {
                if let vim::client::WatchEvent::Updates(updates) = watch.next().await.unwrap()
                    && updates
                        .iter()
                        .any(|u| u.get("runtime.powerState").unwrap() == Some(state))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(LONG, wait)
            .await
            .unwrap_or_else(|_| panic!("{vm} does not become {state}"));
    }

    pub(super) async fn console(&self, name: &str) -> String {
        let body = self
            .client
            .file_get("ha-datacenter", &path(&format!("{name}/console.log")), None)
            .await
            .unwrap();
        String::from_utf8_lossy(&body.bytes(1 << 20).await.unwrap()).into_owned()
    }

    async fn last_power_off(&self, vm: &ManagedObjectReference) -> String {
        let filter = EventFilterSpec {
            entity: Some(EventFilterSpecByEntity {
                entity: vm.clone(),
                recursion: "self".into(),
            }),
            event_type_id: vec!["vim.event.VmPoweredOffEvent".into()],
            ..Default::default()
        };
        let events = self.client.events(filter).await.unwrap();
        events
            .last()
            .unwrap()
            .full_formatted_message
            .clone()
            .unwrap()
    }
}

#[tokio::test]
async fn a_guest_sees_its_disk_and_guestinfo_and_its_own_power_off_is_told() {
    let Some(boot) = boot() else { return };
    let state = State(tempfile::tempdir().unwrap());
    let program = Program::start_with(state.path(), &[]);
    let real = Real::new(&program, state.path(), &boot).await;
    let vm = real
        .create("info", "fwcfg key=guestinfo.mooring.config.0", |spec| {
            spec.extra_config
                .push(OptionValue::text("guestinfo.mooring.config.0", "c2VjcmV0"));
        })
        .await;
    real.client.power_on(&vm).await.unwrap();
    real.until(&vm, PowerState::PoweredOff).await;
    let console = real.console("info").await;
    assert!(console.contains("value: c2VjcmV0"), "{console}");
    let told = real.last_power_off(&vm).await;
    assert!(told.contains("the guest powered off"), "{told}");
    real.client.destroy_vm(&vm).await.unwrap();

    // A child of an image: what one run writes the next one reads, and the image stays as it is.
    real.client
        .create_virtual_disk(None, &path("boot/base.vmdk"), 1 << 20)
        .await
        .unwrap();
    let base = state.path().join("datastores/datastore1/boot/base.vmdk");
    let before = std::fs::read(&base).unwrap();
    let vm = real
        .create("disk", "disk", |spec| {
            let backing =
                DiskBacking::child_of("", DiskBacking::new("[datastore1] boot/base.vmdk"));
            spec.device_change
                .push(VirtualDeviceConfigSpec::add(VirtualDevice::pvscsi(-1, 0)));
            spec.device_change
                .push(VirtualDeviceConfigSpec::create(VirtualDevice::disk(
                    -2, -1, 0, backing, 0,
                )));
        })
        .await;
    for _ in 0..2 {
        real.client.power_on(&vm).await.unwrap();
        real.until(&vm, PowerState::PoweredOff).await;
    }
    let console = real.console("disk").await;
    assert!(console.contains("disk: changed"), "{console}");
    assert_eq!(std::fs::read(&base).unwrap(), before);
}

#[tokio::test]
async fn a_running_guest_survives_the_kill_of_hostsim_and_an_end_meanwhile_is_told_afterwards() {
    let Some(boot) = boot() else { return };
    let state = State(tempfile::tempdir().unwrap());
    let program = Program::start_with(state.path(), &[]);
    let real = Real::new(&program, state.path(), &boot).await;
    let stays = real.create("stays", "wait", |_| {}).await;
    let ends = real.create("ends", "wait", |_| {}).await;
    real.client.power_on(&stays).await.unwrap();
    real.client.power_on(&ends).await.unwrap();
    drop(program);
    let run = state.path().join("run").join(&ends.id).join("vmx");
    let shim = hostsim::vmx::VmxHandle::reattach(&run)
        .await
        .unwrap()
        .unwrap();
    let qemu = shim.status().await.unwrap().qemu_pid.unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(qemu as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    shim.exited().await.unwrap();

    let program = Program::start_with(state.path(), &[]);
    let real = Real {
        client: program.client(state.path()).await,
        ..real
    };
    let power: PowerState = real
        .client
        .property(&stays, "runtime.powerState")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(power, PowerState::PoweredOn);
    real.until(&ends, PowerState::PoweredOff).await;
    let told = real.last_power_off(&ends).await;
    assert!(told.contains("killed by signal 9"), "{told}");
    real.client.reset(&stays).await.unwrap();
    real.client.power_off(&stays).await.unwrap();
    let told = real.last_power_off(&stays).await;
    assert!(told.contains("powered off on request"), "{told}");
}

#[tokio::test]
async fn a_vm_that_cannot_be_run_says_why_and_stays_off() {
    let Some(boot) = boot() else { return };
    let state = State(tempfile::tempdir().unwrap());
    let program = Program::start_with(state.path(), &["--strict=link"]);
    let real = Real::new(&program, state.path(), &boot).await;
    let vm = real.create("a", "wait", |_| {}).await;
    let wrong = real.client.power_on(&vm).await.unwrap_err();
    assert!(wrong.to_string().contains("mooring.boot.kernel"), "{wrong}");
    let power: PowerState = real
        .client
        .property(&vm, "runtime.powerState")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(power, PowerState::PoweredOff);
    real.client.destroy_vm(&vm).await.unwrap();
}
