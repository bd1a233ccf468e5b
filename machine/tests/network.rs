//! `vch up` and `vch down` with a network on bridges: what comes back, what outlives what, and that nothing is left.
//! Needs root, iproute2, slirp4netns, the programs hostsim and endpoint, and boot files.
// A test that cannot go on should say where it stopped; helpers of tests are tests, too.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use machine::network::{self, Layout};
use machine::options::{NETWORKS, Network};
use machine::process::{self, Process};
use machine::state::{self, StateDir, Wanted};
use machine::status::{self, Status};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A virtual container host's state folder; a test that fails in the middle leaves nothing running.
struct Host {
    folder: tempfile::TempDir,
    programs: PathBuf,
    boot: PathBuf,
}

impl Host {
    /// `None` where it cannot be had, with the reason printed.
    fn new() -> Option<Host> {
        if let Err(error) = network::choose(Network::Bridge) {
            println!("skipped: {error}");
            return None;
        }
        let from = |name: &str, otherwise: PathBuf| {
            std::env::var_os(name).map_or(otherwise, PathBuf::from)
        };
        let beside = Path::new(env!("CARGO_BIN_EXE_vch")).parent().unwrap();
        let programs = from("MOORING_BIN", beside.to_owned());
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let boot = from("MOORING_BOOT", target.join("../boot"));
        for file in [
            programs.join("hostsim"),
            programs.join("endpoint"),
            boot.join("boot.iso"),
        ] {
            if !file.exists() {
                println!("skipped: no {}", file.display());
                return None;
            }
        }
        Some(Host {
            folder: tempfile::tempdir().unwrap(),
            programs,
            boot,
        })
    }

    fn state(&self) -> &Path {
        self.folder.path()
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.state().canonicalize().unwrap(), NETWORKS, false)
    }

    fn vch(&self, command: &str) -> Command {
        let mut vch = Command::new(env!("CARGO_BIN_EXE_vch"));
        vch.args([command, "--state"]).arg(self.state());
        vch
    }

    fn up_command(&self) -> Command {
        let mut up = self.foreground();
        up.arg("--detach");
        up
    }

    fn foreground(&self) -> Command {
        let mut up = self.vch("up");
        up.args(["--network", "bridge", "--programs"])
            .arg(&self.programs)
            .arg("--boot")
            .arg(&self.boot);
        up
    }

    fn up(&self) -> String {
        ok(self.up_command().output().unwrap())
    }

    fn down(&self) {
        ok(self.vch("down").args(["--time", "1"]).output().unwrap());
    }

    fn status(&self) -> Status {
        status::read(self.state()).unwrap()
    }

    fn process(&self, part: &str) -> Process {
        let status = self.status();
        let part = status.parts.iter().find(|p| p.name == part).unwrap();
        Process::of(part.pid.unwrap()).unwrap()
    }

    /// What runs for this state folder, by its arguments.
    fn processes(&self) -> Vec<Process> {
        let state = self.state().canonicalize().unwrap();
        let path = |name: &str| state.join(name).display().to_string();
        let router = self.layout().router().display().to_string();
        let api = self.layout().publish_api().display().to_string();
        [path("hostsim"), path("endpoint"), router, api]
            .iter()
            .flat_map(|word| process::with_arguments(&[word]))
            .collect()
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), []);
        assert!(!self.layout().switch().exists() && !self.layout().router().exists());
        assert!(!self.layout().publish_api().exists());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.vch("down").args(["--time", "0"]).output();
    }
}

fn ok(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = text(&output.stderr);
    assert!(output.status.success(), "{words}");
    words
}

fn kill_9(process: &Process) {
    kill_process(
        Pid::from_raw(process.pid.cast_signed()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    process.wait();
}

/// The machine's own interfaces and rules have none that is ours.
fn assert_own_network_is_untouched() {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output.map_or_else(
            |e| e.to_string(),
            |o| String::from_utf8_lossy(&o.stdout).into_owned(),
        )
    };
    let links = run("ip", &["-br", "link"]);
    let names = links
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    for name in names {
        let ours = ["trunk", "public", "vlan100", "up100", "nic0"];
        assert!(
            !ours.iter().any(|prefix| name.starts_with(prefix)),
            "{links}"
        );
    }
    assert!(!run("nft", &["list", "tables"]).contains("mooring"));
}

#[test]
fn each_part_comes_back_by_itself_and_down_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let said = host.up();
    assert!(
        said.contains("network: bridges") && said.contains("the host's set-up is not touched"),
        "{said}"
    );
    let status = host.status();
    assert!(status.up && status.network == Some(network::Kind::Bridge));
    assert_eq!(status.parts[0].name, "uplink");
    assert_own_network_is_untouched();
    let [uplink, ports, hostsim, endpoint] =
        ["uplink", "ports", "hostsim", "endpoint"].map(|p| host.process(p));

    kill_9(&uplink);
    assert!(!host.status().up);
    host.up();
    let second = host.process("uplink");
    assert_ne!(second, uplink);
    assert_eq!(host.process("ports"), ports);
    assert_eq!(host.process("hostsim"), hostsim);
    kill_9(&ports);
    host.up();
    assert_ne!(host.process("ports"), ports);
    assert_eq!(host.process("uplink"), second);

    kill_9(&hostsim);
    kill_9(&endpoint);
    host.up();
    assert!(host.status().up);
    assert_eq!(host.process("uplink"), second);

    // Namespaces that somebody removed take all along that hold on to them.
    let hostsim = host.process("hostsim");
    let name = host.layout().router();
    let name = name.file_name().unwrap().to_str().unwrap().to_owned();
    ok(Command::new("ip")
        .args(["netns", "del", &name])
        .output()
        .unwrap());
    let said = host.up();
    assert!(said.contains("made anew"), "{said}");
    assert!(host.status().up && host.process("hostsim") != hostsim);

    // Asked for another kind while it runs: it stays as it is.
    ok(host
        .up_command()
        .args(["--networks", "16"])
        .output()
        .unwrap());
    let mut other = host.vch("up");
    other
        .args(["--detach", "--network", "user", "--programs"])
        .arg(&host.programs)
        .arg("--boot")
        .arg(&host.boot);
    let said = ok(other.output().unwrap());
    assert!(said.contains("other options"), "{said}");
    assert_eq!(host.status().network, Some(network::Kind::Bridge));

    host.down();
    host.assert_nothing_is_left();
    assert_own_network_is_untouched();
    host.down();

    let said = ok(other.output().unwrap());
    assert!(said.contains("network: user-mode"), "{said}");
    let status = host.status();
    assert!(status.up && status.parts.iter().all(|p| p.name != "uplink"));
    assert!(!host.layout().switch().exists());
    host.down();
    host.assert_nothing_is_left();
}

#[test]
fn an_up_that_is_killed_in_the_middle_is_cleaned_up_by_down_and_gone_on_with_by_up() {
    let Some(host) = Host::new() else { return };
    for (round, milliseconds) in [3, 30, 70, 130, 200, 400, 900].into_iter().enumerate() {
        let mut up = host
            .up_command()
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Some moment in the middle.
        std::thread::sleep(Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
        if round % 2 == 0 {
            host.down();
            host.assert_nothing_is_left();
        } else {
            host.up();
            assert!(host.status().up);
        }
    }
    host.down();
    host.assert_nothing_is_left();
}

#[test]
fn who_watches_leaves_when_somebody_else_ends_it() {
    let Some(host) = Host::new() else { return };
    let mut up = host
        .foreground()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(up.stdout.take().unwrap()).lines();
    let ready = said.next().unwrap().unwrap();
    assert!(ready.starts_with("ready: "), "{ready}");
    // It starts again what ends by itself.
    let before = host.process("endpoint");
    kill_9(&before);
    let limit = Instant::now() + Duration::from_secs(120);
    while !host.status().up {
        assert!(Instant::now() < limit, "the endpoint did not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_ne!(host.process("endpoint"), before);
    host.down();
    assert!(up.wait().unwrap().success());
    host.assert_nothing_is_left();
}

/// Reads what it says up to a line that begins so; gives the lines after it.
fn read_until(up: &mut Child, begin: &str) -> impl Iterator<Item = String> + use<> {
    let said = BufReader::new(up.stderr.take().unwrap()).lines();
    let mut said = said.map(|line| line.unwrap() + "\n");
    let found = said.any(|line| line.starts_with(begin));
    assert!(found, "it never said {begin:?}");
    said
}

#[test]
fn whoever_is_interrupted_ends_what_it_started() {
    let Some(host) = Host::new() else { return };
    let interrupt = |up: &Child| {
        let pid = Pid::from_child(up);
        kill_process(pid, Signal::INT).unwrap();
    };
    // While it starts.
    for detached in [false, true] {
        let mut up = if detached {
            host.up_command()
        } else {
            host.foreground()
        };
        let mut up = up
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = read_until(&mut up, "starting the simulated ESXi host");
        interrupt(&up);
        let rest: String = said.collect();
        // Who asked for a host that serves has none.
        assert_eq!(up.wait().unwrap().success(), !detached, "{rest}");
        assert_eq!(
            rest.contains("interrupted before it served"),
            detached,
            "{rest}"
        );
        host.assert_nothing_is_left();
    }
    // What ran before is not a second command's to end.
    host.up();
    kill_9(&host.process("endpoint"));
    let hostsim = host.process("hostsim");
    let mut up = host
        .up_command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = read_until(&mut up, "starting the Docker endpoint");
    interrupt(&up);
    said.for_each(drop);
    assert!(!up.wait().unwrap().success());
    assert_eq!(host.process("hostsim"), hostsim);
    // When it serves.
    let mut up = host
        .foreground()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = read_until(&mut up, "running: ");
    interrupt(&up);
    said.for_each(drop);
    assert!(up.wait().unwrap().success());
    host.assert_nothing_is_left();
}

#[test]
fn options_are_those_of_the_start_and_a_down_that_was_cut_short_is_made_up_for() {
    let Some(host) = Host::new() else { return };
    host.up();
    let options = || state::load(host.state()).unwrap().unwrap().options;
    let before = options();
    let other = || {
        let mut up = host.up_command();
        up.args(["--networks", "20"]);
        ok(up.output().unwrap())
    };
    assert!(other().contains("other options"));
    assert_eq!(options(), before);

    // Without an endpoint nothing is in their way: hostsim gets its own of them, too.
    let hostsim = host.process("hostsim");
    kill_9(&host.process("endpoint"));
    assert!(!other().contains("other options"));
    assert_ne!(options(), before);
    assert!(host.status().up && host.process("hostsim") != hostsim);

    // As `down` leaves it when it is killed while the VMs end: the endpoint holds its restart policies back.
    let dir = StateDir::open(host.state()).unwrap();
    let mut record = dir.load().unwrap().unwrap();
    record.wanted = Wanted::Ending;
    dir.save(&record).unwrap();
    drop(dir);
    let (hostsim, endpoint) = (host.process("hostsim"), host.process("endpoint"));
    other();
    assert_eq!(host.process("hostsim"), hostsim);
    assert_ne!(host.process("endpoint"), endpoint);

    host.down();
    host.assert_nothing_is_left();
}
