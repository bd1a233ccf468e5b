//! Port groups, and network cards of VMs that are on.

use super::netns::Netns;
use super::real::{Real, State};
use super::restart::Program;
use super::*;
use crate::guest::{LONG, boot};
use vim::FaultKind;

/// Arguments of a switch with three port groups.
fn switch(netns: &str) -> Vec<&str> {
    let groups = ["bridge=100", "net 1=101", "net 2=102"];
    let mut args = vec!["--switch", netns];
    args.extend(groups.iter().flat_map(|group| ["--port-group", group]));
    args
}

/// A state-only host with these port groups: the switch is never touched.
async fn rig() -> Rig {
    use clap::Parser;
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: hostsim::serve::ServeArgs,
    }
    Rig::with(|args| {
        let given = ["hostsim", "--state", "/", "--state-only"];
        let given = given.into_iter().chain(switch("/run/netns/none"));
        let parsed = Cli::parse_from(given).serve;
        args.switch = parsed.switch;
        args.port_group = parsed.port_group;
    })
    .await
}

fn change(device_change: Vec<VirtualDeviceConfigSpec>) -> VirtualMachineConfigSpec {
    VirtualMachineConfigSpec {
        device_change,
        ..Default::default()
    }
}

fn edit(device: VirtualDevice) -> VirtualMachineConfigSpec {
    change(vec![VirtualDeviceConfigSpec {
        operation: Some(DeviceOperation::Edit),
        file_operation: None,
        device,
    }])
}

fn card(network: &str) -> VirtualDeviceConfigSpec {
    VirtualDeviceConfigSpec::add(VirtualDevice::vmxnet3(-1, network, None))
}

/// The VM's network cards, by their keys.
async fn cards(client: &Client, vm: &ManagedObjectReference) -> Vec<VirtualDevice> {
    let info: VirtualMachineConfigInfo = client.property(vm, "config").await.unwrap().unwrap();
    let mut cards = info.hardware.device;
    cards.retain(|d| matches!(d.kind, DeviceKind::Vmxnet3(_)));
    cards
}

fn group_of(card: &VirtualDevice) -> &str {
    match &card.backing {
        Some(Backing::Network(backing)) => &backing.device_name,
        other => panic!("{other:?}"),
    }
}

fn connected(card: &VirtualDevice) -> bool {
    card.connectable.as_ref().unwrap().connected
}

#[tokio::test]
async fn port_groups_have_their_vlans_and_user_mode_networks_their_subnets() {
    let rig = rig().await;
    let groups = rig.client.port_groups().await.unwrap();
    let expected = [("bridge", 100), ("net 1", 101), ("net 2", 102)];
    assert_eq!(
        groups,
        expected.map(|(name, vlan)| (name.to_owned(), vlan)).into()
    );
    let options = rig.client.options("mooring.").await.unwrap();
    assert!(!options.iter().any(|o| o.key.contains("network")));
    let host = hostsim::inventory::host();
    let all = rig
        .client
        .properties(&host, &["config.network.vswitch"])
        .await
        .unwrap();
    let switches: Vec<HostVirtualSwitch> = all.items("config.network.vswitch").unwrap();
    assert_eq!(switches[0].portgroup.len(), 3);
    // As govc reads them.
    let system: ManagedObjectReference = rig
        .client
        .property(&host, "configManager.networkSystem")
        .await
        .unwrap()
        .unwrap();
    let info: HostNetworkInfo = rig
        .client
        .property(&system, "networkInfo")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(info.portgroup[2].spec.name, "net 2");
    assert_eq!(info.portgroup[2].spec.vswitch_name, info.vswitch[0].name);

    let user = Rig::new().await;
    let groups = user.client.port_groups().await.unwrap();
    assert_eq!(groups, [("VM Network".to_owned(), 0)].into());
    let options = user.client.options("mooring.network.").await.unwrap();
    assert_eq!(options[0].key, "mooring.network.VM Network");
}

#[tokio::test]
async fn cards_of_a_vm_that_is_on_come_move_and_go_and_their_networks_know_it() {
    let rig = rig().await;
    let vm = rig.create(named("a")).await.unwrap();
    let (client, reconfigure) = (&rig.client, |spec| rig.client.reconfigure_vm(&vm, spec));
    client.power_on(&vm).await.unwrap();
    reconfigure(change(vec![card("bridge"), card("net 1")]))
        .await
        .unwrap();
    let now = cards(client, &vm).await;
    assert_eq!([group_of(&now[0]), group_of(&now[1])], ["bridge", "net 1"]);
    assert!(connected(&now[0]) && connected(&now[1]));
    let vms = async |group: &str| -> Vec<ManagedObjectReference> {
        let network = hostsim::inventory::network(group);
        let found = client.properties(&network, &["vm"]).await.unwrap();
        found.items("vm").unwrap()
    };
    assert_eq!(vms("net 1").await, std::slice::from_ref(&vm));
    assert_eq!(vms("net 2").await, []);

    // To another port group, with its cable out.
    let before = now;
    let mut moved = before[1].clone();
    moved.backing = VirtualDevice::vmxnet3(0, "net 2", None).backing;
    moved.connectable.as_mut().unwrap().connected = false;
    reconfigure(edit(moved)).await.unwrap();
    assert_eq!(vms("net 1").await, []);
    assert_eq!(vms("net 2").await, std::slice::from_ref(&vm));
    let now = cards(client, &vm).await;
    assert_eq!(now[1].mac_address(), before[1].mac_address());
    assert!(!connected(&now[1]) && connected(&now[0]));

    let gone = VirtualDeviceConfigSpec::remove(now[0].clone());
    reconfigure(change(vec![gone.clone()])).await.unwrap();
    let wrong = reconfigure(change(vec![gone])).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::DeviceNotFound { .. })),
        "{wrong}"
    );
    // The cable was out for as long as the VM was on; the port group is for good.
    client.power_off(&vm).await.unwrap();
    client.power_on(&vm).await.unwrap();
    let now = cards(client, &vm).await;
    assert_eq!((now.len(), group_of(&now[0])), (1, "net 2"));
    assert!(connected(&now[0]));
}

#[tokio::test]
async fn what_cannot_be_done_with_a_running_vm_s_cards_is_refused_whole() {
    let rig = rig().await;
    let vm = rig.create(named("a")).await.unwrap();
    let reconfigure = |spec| rig.client.reconfigure_vm(&vm, spec);
    rig.client.power_on(&vm).await.unwrap();
    let wrong = reconfigure(change(vec![card("bridge"), card("nowhere")]))
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidDeviceSpec { property: Some(p), device_index: 1 }) if p.contains("deviceName")),
        "{wrong}"
    );
    let wrong = reconfigure(change((0..11).map(|_| card("bridge")).collect()))
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::TooManyDevices { .. })),
        "{wrong}"
    );
    let disk = VirtualDeviceConfigSpec::add(VirtualDevice::pvscsi(-2, 0));
    for spec in [
        change(vec![card("bridge"), disk]),
        VirtualMachineConfigSpec {
            memory_mb: Some(512),
            ..change(vec![card("bridge")])
        },
    ] {
        let wrong = reconfigure(spec).await.unwrap_err();
        assert!(
            matches!(wrong.kind(), Some(FaultKind::InvalidPowerState { .. })),
            "{wrong}"
        );
    }
    assert!(cards(&rig.client, &vm).await.is_empty());
    reconfigure(change((0..10).map(|_| card("bridge")).collect()))
        .await
        .unwrap();
    let wrong = reconfigure(change(vec![card("net 1")])).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::TooManyDevices { .. })),
        "{wrong}"
    );
    let mut other = cards(&rig.client, &vm).await[0].clone();
    let DeviceKind::Vmxnet3(members) = &mut other.kind else {
        unreachable!()
    };
    members.mac_address = Some("00:50:56:00:00:99".into());
    let wrong = reconfigure(edit(other)).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidPowerState { .. })),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_running_guest_gets_and_loses_cards_over_the_api_and_across_a_kill_of_hostsim() {
    let (Some(boot), Some(netns)) = (boot(), Netns::new()) else {
        return;
    };
    let path = netns.path().display().to_string();
    let state = State(tempfile::tempdir().unwrap());
    let program = Program::start_with(state.path(), &switch(&path));
    let real = Real::new(&program, state.path(), &boot).await;
    let on = |spec: &mut VirtualMachineConfigSpec| spec.device_change.push(card("net 1"));
    let (a, b) = (
        real.create("a", "ether", on).await,
        real.create("b", "ether", |_| {}).await,
    );
    for vm in [&a, &b] {
        real.client.power_on(vm).await.unwrap();
    }
    assert_eq!(netns.taps().len(), 1);
    // A card that comes while the firmware still runs can make it run astray.
    until(&real, "b", "guest: ether").await;
    real.client
        .reconfigure_vm(&b, change(vec![card("net 1")]))
        .await
        .unwrap();
    assert_eq!(netns.taps().len(), 2);
    let mac = async |client: &Client, vm| {
        let card = cards(client, vm).await.remove(0);
        card.mac_address().unwrap().to_owned()
    };
    let (of_a, of_b) = (mac(&real.client, &a).await, mac(&real.client, &b).await);
    until(&real, "a", &format!("heard {of_b}")).await;
    until(&real, "b", &format!("heard {of_a}")).await;
    let mut out = cards(&real.client, &b).await.remove(0);
    out.connectable.as_mut().unwrap().connected = false;
    real.client.reconfigure_vm(&b, edit(out)).await.unwrap();

    drop(program);
    let program = Program::start_with(state.path(), &switch(&path));
    let client = program.client(state.path()).await;
    let real = Real { client, ..real };
    assert_eq!(netns.taps().len(), 2);
    let mut back = cards(&real.client, &b).await.remove(0);
    assert!(!connected(&back));
    back.connectable.as_mut().unwrap().connected = true;
    back.backing = VirtualDevice::vmxnet3(0, "net 2", None).backing;
    real.client
        .reconfigure_vm(&b, edit(back.clone()))
        .await
        .unwrap();
    real.client
        .reconfigure_vm(&a, change(vec![card("net 2")]))
        .await
        .unwrap();
    let second = cards(&real.client, &a).await.remove(1);
    let second = second.mac_address().unwrap();
    until(&real, "b", &format!("heard {second}")).await;
    real.client
        .reconfigure_vm(&b, change(vec![VirtualDeviceConfigSpec::remove(back)]))
        .await
        .unwrap();
    until(&real, "b", &format!("gone {of_b}")).await;
    assert_eq!(netns.taps().len(), 2);
    for vm in [&a, &b] {
        real.client.power_off(vm).await.unwrap();
    }
    assert!(netns.taps().is_empty());
}

/// Waits until a guest's console shows a word.
async fn until(real: &Real, name: &str, word: &str) {
    let wait = async {
        while !real.console(name).await.contains(word) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(LONG, wait).await.is_err() {
        panic!("no {word:?}:\n{}", real.console(name).await);
    }
}

#[tokio::test]
async fn a_switch_that_is_not_there_keeps_hostsim_from_serving_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut args = args(folder.path());
    args.state_only = false;
    args.switch = Some("/run/netns/there-is-none".into());
    args.port_group = vec![("a".into(), hostsim::host::Network::Vlan(5))];
    let error = Serving::start(&args, None).await.unwrap_err().to_string();
    assert!(
        error.contains("set up the port groups") && error.contains("/run/netns/there-is-none"),
        "{error}"
    );
}
