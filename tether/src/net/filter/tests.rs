//! The filter as the kernel has it, told by `nft`. It takes root.

use super::*;
use std::process::Command;

/// What `nft` says of the rules in a namespace that a thread makes for itself; `None` without root.
fn loaded(tables: &[&[String]]) -> Option<String> {
    std::thread::scope(|scope| {
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            tables.iter().for_each(|guards| set(guards).unwrap());
            let out = Command::new("nft").args(["list", "ruleset"]).output();
            let out = out.unwrap();
            assert!(out.status.success(), "{out:?}");
            Some(String::from_utf8(out.stdout).unwrap())
        };
        scope.spawn(work).join().unwrap()
    })
}

#[test]
fn each_level_is_what_nft_shows_of_it() {
    let all = [
        "eth0 1",
        "eth1 0",
        "eth2 2",
        "eth3 6 10.0.0.0-10.0.0.255 fd00::-fd00::ffff",
        "eth4 6 6:80 17:53",
    ]
    .map(str::to_owned);
    let Some(text) = loaded(&[&all[..2], &all]) else {
        eprintln!("skipped: making a network namespace takes root");
        return;
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let count = |start: &str| lines.iter().filter(|l| l.starts_with(start)).count();
    assert_eq!(
        count("type filter hook input priority filter; policy drop;"),
        1
    );
    assert_eq!(
        count("type filter hook output priority filter; policy drop;"),
        1
    );
    for line in [
        "iifname \"lo\" accept",
        "oifname \"lo\" accept",
        "iifname \"eth0\" accept",
        "oifname \"eth0\" accept",
        "iifname \"eth1\" drop",
        "oifname \"eth1\" drop",
        "oifname \"eth2\" accept",
        "iifname \"eth4\" tcp dport 80 accept",
        "iifname \"eth4\" udp dport 53 accept",
        "iifname \"eth3\" ip saddr 10.0.0.0-10.0.0.255 accept",
        "iifname \"eth3\" ip6 saddr fd00::-fd00::ffff accept",
    ] {
        assert_eq!(count(line), 1, "{line} in\n{text}");
    }
    for n in 2..=4 {
        assert_eq!(
            count(&format!(
                "iifname \"eth{n}\" ct state established,related accept"
            )),
            1,
            "{text}"
        );
        assert_eq!(count(&format!("iifname \"eth{n}\" accept")), 0);
    }
    assert_eq!(count("oifname \"eth1\" accept"), 0);
    assert!(!text.contains("eth2\" tcp"), "{text}");
}

#[test]
fn without_guards_there_is_no_table() {
    let open = ["eth0 2".to_owned()];
    for tables in [&[&[][..]][..], &[&open, &[]]] {
        assert_eq!(loaded(tables).unwrap_or_default(), "");
    }
}

#[test]
fn a_filter_that_cannot_be_set_is_an_error() {
    assert!(
        set(&["eth0".to_owned()])
            .unwrap_err()
            .contains("packet filter")
    );
    let without_rights = std::thread::spawn(|| {
        // A user namespace of its own has no right to the network outside.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).ok()?;
        Some(set(&["eth0 2".to_owned()]))
    });
    // unshare(2) refuses a user namespace to a thread of several: then there is nothing to see.
    if let Ok(Some(result)) = without_rights.join() {
        assert!(result.unwrap_err().contains("packet filter"));
    }
}
