//! End to end: the stock Docker client against real VMs, over both links.
//!
//! Run by `make e2e` (or `make test`), with a filter: `make e2e ARGS=exec`.

mod appliance;
mod clients;
mod commit;
mod compose;
mod container_networks;
mod crash;
mod differential;
mod exec;
mod faults;
mod files;
mod health;
mod hosts;
mod images;
mod images_made;
mod images_out;
mod images_policy;
mod images_shared;
mod large;
mod leaks;
mod lifecycle;
mod limits;
mod logs;
mod maintenance;
mod networks;
mod nfs;
mod offline;
mod output;
mod pause;
mod process;
mod races;
mod real;
mod refusals;
mod remote;
mod restart;
mod rootless;
mod run;
mod serial;
mod shares;
mod tokens;
mod up_registry;
mod used_up;
mod volumes;

use hosts::Hosts;
use libtest_mimic::{Arguments, Trial};
use std::sync::Arc;

fn main() {
    let mut args = Arguments::from_args();
    if std::env::var_os("MOORING_E2E").is_none() {
        println!(
            "end-to-end tests are run by `make e2e` or `make test`, which build what they need; not run now"
        );
        return;
    }
    if let Some(path) = tests::places::missing() {
        eprintln!(
            "end-to-end tests need {}; `make test` makes it",
            path.display()
        );
        std::process::exit(1);
    }
    if let Err(e) = tests::interrupt::watch() {
        eprintln!("end-to-end tests: {e:#}");
        std::process::exit(1);
    }
    // A VM under software emulation takes a core: more than the machine has would only wait for each other.
    args.test_threads.get_or_insert(2);
    let hosts = Arc::new(Hosts::default());
    let mut trials: Vec<Trial> = Vec::new();
    for module in [
        run::tests,
        output::tests,
        exec::tests,
        lifecycle::tests,
        logs::tests,
        images::tests,
        images_made::tests,
        images_out::tests,
        images_shared::tests,
        images_policy::tests,
        real::tests,
        refusals::tests,
        serial::tests,
        shares::tests,
        crash::tests,
        large::tests,
        leaks::tests,
        commit::tests,
        faults::tests,
        files::tests,
        maintenance::tests,
        offline::tests,
        remote::tests,
        tokens::tests,
        process::tests,
        races::tests,
        restart::tests,
        health::tests,
        networks::tests,
        rootless::tests,
        appliance::tests,
        container_networks::tests,
        limits::tests,
        pause::tests,
        up_registry::tests,
        used_up::tests,
        volumes::tests,
        nfs::tests,
        clients::tests,
        differential::tests,
        compose::tests,
    ] {
        trials.extend(module(&hosts));
    }
    let conclusion = libtest_mimic::run(&args, trials);
    hosts.end();
    hosts::print_slowest();
    conclusion.exit();
}
