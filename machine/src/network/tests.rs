use super::*;
use crate::process::Process;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn the_kind_of_network_is_chosen_by_what_there_is() {
    let kind = |asked, missing: &[&'static str]| decide(asked, missing).map(|c| c.kind);
    assert_eq!(kind(Network::Auto, &[]).unwrap(), Kind::Bridge);
    assert_eq!(kind(Network::Auto, &["root"]).unwrap(), Kind::User);
    assert_eq!(kind(Network::User, &[]).unwrap(), Kind::User);
    assert_eq!(kind(Network::Bridge, &[]).unwrap(), Kind::Bridge);
    let error = decide(Network::Bridge, &["root", "the program ip"]).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("root, the program ip") && words.contains("--network user"),
        "{words}"
    );
    let said = announcement(&decide(Network::Auto, &["root"]).unwrap());
    assert!(said.contains("user-mode") && said.contains("not there: root"));
}

#[test]
fn programs_are_looked_for_where_a_shell_would() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ip"), "").unwrap();
    let path = std::env::join_paths([Path::new("/none"), dir.path()]).unwrap();
    assert!(in_path(Some(&path), "ip"));
    assert!(!in_path(Some(&path), "slirp4netns") && !in_path(None, "ip"));
}

#[test]
fn names_follow_from_the_state_folder_and_port_groups_have_vlans_of_their_own() {
    let layout = Layout::new(Path::new("/s"), 16);
    assert_eq!(layout, Layout::new(Path::new("/s"), 16));
    assert_ne!(layout.switch(), Layout::new(Path::new("/t"), 16).switch());
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
        let missing = missing();
        if !missing.is_empty() {
            println!("skipped: not there: {}", missing.join(", "));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        Some(Made(Layout::new(dir.path(), networks), dir))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn links(name: &str) -> String {
    ip("look", &["-n", name, "-o", "link"], "").unwrap()
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
    ip("break", &["-n", &name, "link", "del", "trunk.101"], "").unwrap();
    assert!(!layout.ensure().unwrap());
    assert!(links(&name).contains("trunk.101@"));
    ip("break", &["netns", "del", &name], "").unwrap();
    std::fs::write(layout.router(), "").unwrap();
    assert!(layout.ensure().unwrap());
    assert!(links(&layout.switch_name()).contains("up102@"));
    layout.remove().unwrap();
    layout.remove().unwrap();
    assert!(!layout.router().exists() && !layout.switch().exists());
    let own = ip("look", &["-br", "link"], "").unwrap();
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
    let addresses = ip("look", &["-n", &router, "addr"], "").unwrap();
    assert!(addresses.contains("10.0.2.100/24"), "{addresses}");
    let routes = ip("look", &["-n", &router, "route"], "").unwrap();
    assert!(
        routes.contains("default via 10.0.2.2 dev public"),
        "{routes}"
    );
    std::os::unix::net::UnixStream::connect(layout.publish_api()).unwrap();
    // Its sandbox has left the machine's mounts alone.
    assert!(is_namespace(&router) && is_namespace(&layout.switch_name()));
    assert_eq!(uplinks(layout), std::slice::from_ref(&part.process));

    kill_9(&part.process);
    assert!(!uplink::is_up(layout, &part.process));
    let again = uplink::start(layout).unwrap();
    assert!(uplink::is_up(layout, &again.process));
    layout.remove().unwrap();
    assert!(!again.process.alive() && uplinks(layout).is_empty());
    assert!(!layout.publish_api().exists());
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
