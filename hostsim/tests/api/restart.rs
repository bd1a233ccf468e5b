//! What a kill and a new start leave: `hostsim serve` as a program.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub(super) struct Program {
    child: Child,
    url: String,
    thumbprint: String,
}

impl Program {
    fn start(state: &Path) -> Program {
        Program::start_with(state, &["--state-only"])
    }

    pub(super) fn start_with(state: &Path, more: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hostsim"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(more)
            .arg("--state")
            .arg(state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut parts = line
            .trim()
            .strip_prefix("ready: ")
            .unwrap_or_else(|| panic!("{line:?}"))
            .split(" thumbprint=");
        let (url, thumbprint) = (
            parts.next().unwrap().to_owned(),
            parts.next().unwrap().to_owned(),
        );
        Program {
            child,
            url,
            thumbprint,
        }
    }

    pub(super) async fn client(&self, state: &Path) -> Client {
        let text = std::fs::read(state.join("credentials.json")).unwrap();
        let credentials: hostsim::session::Credentials = serde_json::from_slice(&text).unwrap();
        let trust = Trust::thumbprint(&self.thumbprint).unwrap();
        Client::connect(ClientConfig::new(
            &self.url,
            credentials.user,
            credentials.password,
            trust,
        ))
        .await
        .unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL, of this child only.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> ManagedObjectReference {
    hostsim::inventory::vm_folder()
}

#[tokio::test]
async fn vms_survive_a_kill_with_their_state_and_what_they_were_told_at_run_time() {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().unwrap();
    let pool = hostsim::inventory::resource_pool();
    let program = Program::start(state.path());
    let c = program.client(state.path()).await;
    let off = c
        .create_vm(&folder(), container("off", None), &pool)
        .await
        .unwrap();
    let on = c
        .create_vm(&folder(), container("on", None), &pool)
        .await
        .unwrap();
    let gone = c
        .create_vm(&folder(), container("gone", None), &pool)
        .await
        .unwrap();
    c.power_on(&on).await.unwrap();
    c.power_on(&off).await.unwrap();
    let extra = VirtualMachineConfigSpec {
        extra_config: vec![OptionValue::text("mooring.link.resume", "k")],
        ..Default::default()
    };
    c.reconfigure_vm(&on, extra.clone()).await.unwrap();
    c.reconfigure_vm(&off, extra).await.unwrap();
    c.power_off(&off).await.unwrap();
    c.destroy_vm(&gone).await.unwrap();
    let before: VirtualMachineConfigInfo = c.property(&on, "config").await.unwrap().unwrap();
    let thumbprint = program.thumbprint.clone();
    drop(program);

    let mode = std::fs::metadata(state.path().join("credentials.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let program = Program::start(state.path());
    assert_eq!(program.thumbprint, thumbprint);
    let c = program.client(state.path()).await;
    let listed = c
        .list(&folder(), "VirtualMachine", &["name", "runtime.powerState"])
        .await
        .unwrap();
    let mut rows: Vec<(String, PowerState)> = listed
        .iter()
        .map(|o| {
            (
                o.get("name").unwrap().unwrap(),
                o.get("runtime.powerState").unwrap().unwrap(),
            )
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        rows,
        [
            ("off".to_owned(), PowerState::PoweredOff),
            ("on".to_owned(), PowerState::PoweredOn)
        ]
    );
    let after: VirtualMachineConfigInfo = c.property(&on, "config").await.unwrap().unwrap();
    assert_eq!(after, before);
    assert!(
        after
            .extra_config
            .iter()
            .any(|o| o.key == "mooring.link.resume")
    );
    let off_now: VirtualMachineConfigInfo = c.property(&off, "config").await.unwrap().unwrap();
    assert!(
        !off_now
            .extra_config
            .iter()
            .any(|o| o.key == "mooring.link.resume")
    );
    let new = c.create_vm(&folder(), named("new"), &pool).await.unwrap();
    assert!(
        ![&off, &on, &gone].contains(&&new),
        "an ID is never given twice"
    );
}

#[tokio::test]
async fn a_kill_in_the_middle_of_creations_leaves_whole_vms_and_no_litter() {
    let state = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let program = Program::start(state.path());
        let c = program.client(state.path()).await;
        let mut work = tokio::task::JoinSet::new();
        for n in 0..12 {
            let c = c.clone();
            work.spawn(async move {
                let pool = hostsim::inventory::resource_pool();
                c.create_vm(
                    &folder(),
                    container(&format!("vm-{round}-{n}"), None),
                    &pool,
                )
                .await
                .is_ok()
            });
        }
        // Killed once some are made, while others are being made.
        let mut made = 0;
        while made <= round * 3 {
            made += usize::from(work.join_next().await.unwrap().unwrap());
        }
        drop(program);
    }
    let program = Program::start(state.path());
    let c = program.client(state.path()).await;
    let mut listed: Vec<String> = Vec::new();
    for vm in c
        .list(
            &folder(),
            "VirtualMachine",
            &["name", "config.files.vmPathName"],
        )
        .await
        .unwrap()
    {
        listed.push(vm.get("name").unwrap().unwrap());
        c.power_on(&vm.obj).await.unwrap();
    }
    listed.sort();
    let mut folders: Vec<String> = std::fs::read_dir(state.path().join("datastores/datastore1"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, listed);
    for folder in &folders {
        let mut files: Vec<String> =
            std::fs::read_dir(state.path().join("datastores/datastore1").join(folder))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
        files.sort();
        assert_eq!(files, [format!("{folder}.vmdk"), format!("{folder}.vmx")]);
    }
}

#[tokio::test]
async fn a_second_hostsim_on_the_same_folder_is_refused() {
    let rig = Rig::new().await;
    let state = rig.serving.host.settings.state.clone();
    let wrong = hostsim::serve::Serving::start(&args(&state), None)
        .await
        .unwrap_err();
    assert!(wrong.to_string().contains("another hostsim"), "{wrong}");
}
