use super::*;
use crate::process::Process;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn names_follow_from_the_state_folder_and_port_groups_have_vlans_of_their_own() {
    let layout = Layout::new(Path::new("/s"), 16, false);
    assert_eq!(layout, Layout::new(Path::new("/s"), 16, false));
    assert_ne!(
        layout.switch(),
        Layout::new(Path::new("/t"), 16, false).switch()
    );
    let groups = layout.port_groups();
    assert_eq!(groups[0], ("mooring-bridge".to_owned(), 100));
    assert_eq!(groups[1], ("mooring-net-01".to_owned(), 101));
    assert_eq!(groups[16], ("mooring-net-16".to_owned(), 116));
    assert_eq!(groups.len(), 17);
    // Interface names have 15 bytes at most.
    assert!(format!("{TRUNK}.{}", FIRST_VLAN + NETWORKS_MAX).len() <= 15);
}

/// A layout whose namespaces go with the test; `None` where they cannot be made, with the reason printed.
struct Made(
    Layout,
    #[allow(dead_code, reason = "goes with the test")] tempfile::TempDir,
);

impl Made {
    fn new(networks: u16) -> Option<Made> {
        match choose(crate::options::Network::Bridge) {
            Ok(choice) if choice.kind == Kind::Bridge => {}
            Ok(_) => {
                println!("skipped: not there: root");
                return None;
            }
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        Some(Made(Layout::new(dir.path(), networks, false), dir))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn links(name: &str) -> String {
    ip(
        "look",
        Command::new("ip").args(["-n", name, "-o", "link"]),
        "",
    )
    .unwrap()
}

fn kill_9(process: &Process) {
    let pid = Pid::from_raw(process.pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    process.wait();
}

fn uplinks(layout: &Layout) -> Vec<Process> {
    crate::process::with_arguments(&["slirp4netns", &layout.router().display().to_string()])
}

#[test]
fn namespaces_are_made_once_mended_and_removed_without_a_trace() {
    let Some(made) = Made::new(2) else { return };
    let layout = &made.0;
    assert!(layout.ensure().unwrap());
    assert!(!layout.ensure().unwrap());
    let router = links(&layout.router_name());
    for vlan in [100, 101, 102] {
        assert!(router.contains(&format!("trunk.{vlan}@")), "{router}");
        assert!(links(&layout.switch_name()).contains(&format!("up{vlan}@")));
    }
    assert!(router.contains("lo: <LOOPBACK,UP"), "{router}");
    // As after a kill in the middle: an interface is missing, a namespace is, the name of one is left.
    let name = layout.router_name();
    ip(
        "break",
        Command::new("ip").args(["-n", &name, "link", "del", "trunk.101"]),
        "",
    )
    .unwrap();
    assert!(!layout.ensure().unwrap());
    assert!(links(&name).contains("trunk.101@"));
    ip(
        "break",
        Command::new("ip").args(["netns", "del", &name]),
        "",
    )
    .unwrap();
    std::fs::write(layout.router(), "").unwrap();
    assert!(layout.ensure().unwrap());
    assert!(links(&layout.switch_name()).contains("up102@"));
    layout.remove().unwrap();
    layout.remove().unwrap();
    assert!(!layout.router().exists() && !layout.switch().exists());
    let own = ip("look", Command::new("ip").args(["-br", "link"]), "").unwrap();
    assert!(!own.contains("trunk.") && !own.contains("up100"), "{own}");
}

#[test]
fn the_uplink_gives_the_router_an_address_and_one_that_nobody_noted_is_ended() {
    let Some(made) = Made::new(1) else { return };
    let layout = &made.0;
    layout.ensure().unwrap();
    let part = uplink::start(layout).unwrap();
    assert!(uplink::is_up(layout, &part.process));
    let router = layout.router_name();
    let addresses = ip("look", Command::new("ip").args(["-n", &router, "addr"]), "").unwrap();
    assert!(addresses.contains("10.0.2.100/24"), "{addresses}");
    let routes = ip(
        "look",
        Command::new("ip").args(["-n", &router, "route"]),
        "",
    )
    .unwrap();
    assert!(
        routes.contains("default via 10.0.2.2 dev public"),
        "{routes}"
    );
    // Its sandbox has left the machine's mounts alone.
    assert!(is_namespace(&router) && is_namespace(&layout.switch_name()));
    assert_eq!(uplinks(layout), std::slice::from_ref(&part.process));

    kill_9(&part.process);
    assert!(!uplink::is_up(layout, &part.process));
    let again = uplink::start(layout).unwrap();
    assert!(uplink::is_up(layout, &again.process));
    layout.remove().unwrap();
    assert!(!again.process.alive() && uplinks(layout).is_empty());
}

#[test]
fn an_uplink_that_cannot_start_says_why() {
    let Some(made) = Made::new(1) else { return };
    let error = uplink::start(&made.0).unwrap_err().to_string();
    assert!(
        error.starts_with("uplink did not start") && error.contains("existing path expected"),
        "{error}"
    );
}
