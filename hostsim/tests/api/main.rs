//! The host through our own client, over TLS on loopback; in state-only mode where no guest has to run.
// A test that cannot go on should say where it stopped; helpers of tests are tests, too.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod files;
#[path = "../vmx/guest.rs"]
#[allow(dead_code, reason = "a part of it is for the other test program")]
mod guest;
mod limits;
mod lost;
#[path = "../vmx/netns.rs"]
#[allow(dead_code, reason = "a part of it is for the other test program")]
mod netns;
mod networks;
mod pyvmomi;
mod real;
mod relay;
mod restart;
mod scale;
mod vms;
mod watching;

use hostsim::serve::{ServeArgs, Serving};
use std::path::Path;
use vim::types::*;
use vim::{Client, ClientConfig, DatastorePath, Trust};

/// Arguments of a state-only host on a free port.
fn args(state: &Path) -> ServeArgs {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }
    let state = state.to_str().unwrap();
    Cli::parse_from([
        "hostsim",
        "--state",
        state,
        "--listen",
        "127.0.0.1:0",
        "--state-only",
    ])
    .serve
}

async fn client(serving: &Serving) -> Client {
    Client::connect(config(serving)).await.unwrap()
}

fn config(serving: &Serving) -> ClientConfig {
    let trust = Trust::Thumbprint(serving.thumbprint);
    let credentials = &serving.credentials;
    ClientConfig::new(
        serving.url(),
        &credentials.user,
        &credentials.password,
        trust,
    )
}

/// A host with a client, in a folder that goes with it.
struct Rig {
    serving: Serving,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ServeArgs)) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let mut args = args(folder.path());
        change(&mut args);
        let serving = Serving::start(&args, None).await.unwrap();
        let client = client(&serving).await;
        Rig {
            serving,
            client,
            _folder: folder,
        }
    }

    async fn create(
        &self,
        spec: VirtualMachineConfigSpec,
    ) -> Result<ManagedObjectReference, vim::Error> {
        self.client
            .create_vm(
                &hostsim::inventory::vm_folder(),
                spec,
                &hostsim::inventory::resource_pool(),
            )
            .await
    }

    async fn power_state(&self, vm: &ManagedObjectReference) -> PowerState {
        self.client
            .property(vm, "runtime.powerState")
            .await
            .unwrap()
            .unwrap()
    }
}

fn named(name: &str) -> VirtualMachineConfigSpec {
    VirtualMachineConfigSpec {
        name: Some(name.to_owned()),
        ..VirtualMachineConfigSpec::default()
    }
}

/// A VM as the endpoint makes them, on a disk of its own or a child of `parent`.
fn container(name: &str, parent: Option<&str>) -> VirtualMachineConfigSpec {
    let backing = DiskBacking {
        parent: parent.map(|p| Box::new(DiskBacking::new(p))),
        ..DiskBacking::new("")
    };
    let mut card = VirtualDevice::vmxnet3(-3, "VM Network", None);
    card.controller_key = None;
    VirtualMachineConfigSpec {
        memory_mb: Some(256),
        num_cpus: Some(2),
        guest_id: Some("otherLinux64Guest".into()),
        device_change: vec![
            VirtualDeviceConfigSpec::add(VirtualDevice::pvscsi(-1, 0)),
            VirtualDeviceConfigSpec::create(VirtualDevice::disk(-2, -1, 0, backing, 1 << 20)),
            VirtualDeviceConfigSpec::add(card),
            VirtualDeviceConfigSpec::add(VirtualDevice::serial_file(
                -4,
                &format!("[datastore1] {name}/console.log"),
            )),
            VirtualDeviceConfigSpec::add(VirtualDevice::serial_uri(
                -5,
                "mooring:a:b",
                "telnets://127.0.0.1:1#thumbprint=AA",
            )),
        ],
        extra_config: vec![OptionValue::text("mooring.id", "abc")],
        ..named(name)
    }
}

fn path(text: &str) -> DatastorePath {
    DatastorePath::new("datastore1", text)
}
