use super::*;
use crate::fuzzing::run;
use crate::numbers::Arch;
use crate::program::*;
use proptest::prelude::*;

fn caps(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

fn call(program: &[Instruction], name: &str, first: u64) -> u32 {
    let number = Arch::X86_64.number(name).unwrap();
    run(
        program,
        Arch::X86_64.audit(),
        number,
        [first, 0, 0, 0, 0, 0],
    )
}

#[test]
fn every_listed_call_is_allowed_and_no_other() {
    let program = builtin(&caps(&[])).unwrap();
    let profile: serde_json::Value = serde_json::from_str(DEFAULT).unwrap();
    let listed: Vec<&str> = profile["syscalls"][0]["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let depends = ["clone", "clone3", "personality", "socketcall", "socket"];
    for arch in [Arch::X86_64, Arch::I386] {
        let numbers = |names: &[&str]| -> Vec<u32> {
            names.iter().filter_map(|name| arch.number(name)).collect()
        };
        let (allowed, depends) = (numbers(&listed), numbers(&depends));
        assert!(allowed.len() > 280, "{}", allowed.len());
        for number in (0..1000).filter(|number| !depends.contains(number)) {
            let answer = run(&program, arch.audit(), number, [0; 6]);
            assert_eq!(
                answer == ALLOW,
                allowed.contains(&number),
                "{arch:?} {number}"
            );
        }
        assert_eq!(run(&program, arch.audit(), 4000, [0; 6]), ENOSYS, "newer");
    }
    assert_eq!(run(&program, 0x1234, 1, [0; 6]), ENOSYS);
    assert_eq!(run(&program, Arch::X86_64.audit(), X32 | 1, [0; 6]), ENOSYS);
}

#[test]
fn arguments_decide_where_the_profile_says_so() {
    let program = builtin(&caps(&[])).unwrap();
    for arch in [Arch::X86_64, Arch::I386] {
        let ask = |name: &str, first: u64| {
            let number = arch.number(name).unwrap();
            run(&program, arch.audit(), number, [first, 0, 0, 0, 0, 0])
        };
        assert_eq!(ask("socket", 2), ALLOW);
        assert_eq!(ask("socket", 40), EPERM);
        // The kernel looks at the low half alone.
        assert_eq!(ask("socket", 40 | 1 << 40), EPERM);
        assert_eq!(ask("personality", 0x2_0008), ALLOW);
        assert_eq!(ask("personality", 0xffff_ffff), ALLOW);
        assert_eq!(ask("personality", 1), EPERM);
        assert_eq!(ask("clone", 0x0120_0011), ALLOW);
        assert_eq!(ask("clone", 0x1000_0000), EPERM, "CLONE_NEWUSER");
        assert_eq!(ask("clone3", 0), ENOSYS);
    }
    let socketcall = Arch::I386.number("socketcall").unwrap();
    assert_eq!(
        run(&program, Arch::I386.audit(), socketcall, [1; 6]),
        ENOSYS
    );
}

#[test]
fn a_capability_opens_its_calls() {
    assert_eq!(call(&builtin(&caps(&[])).unwrap(), "mount", 0), EPERM);
    let admin = builtin(&caps(&["SYS_ADMIN"])).unwrap();
    assert_eq!(call(&admin, "mount", 0), ALLOW);
    assert_eq!(call(&admin, "clone", 0x1000_0000), ALLOW);
    assert_eq!(call(&admin, "clone3", 0), ALLOW);
    assert_eq!(call(&admin, "finit_module", 0), EPERM);
}

#[test]
fn no_profile_opens_the_way_to_the_vms_host() {
    let open = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["socket", "socketcall", "io_uring_setup"], "action": "SCMP_ACT_ALLOW"}]}"#;
    for program in [unconfined().unwrap(), custom(open, &caps(&[])).unwrap()] {
        assert_eq!(call(&program, "socket", 40), EPERM);
        assert_eq!(call(&program, "socket", 1), ALLOW);
        assert_eq!(call(&program, "io_uring_setup", 1), EPERM);
        for name in ["mount", "unshare", "keyctl", "clone3", "bpf"] {
            assert_eq!(call(&program, name, 0), ALLOW, "{name}");
        }
        assert_eq!(run(&program, Arch::X86_64.audit(), 4000, [0; 6]), ALLOW);
    }
    // As with libseccomp, what a profile does not name of the architectures does not run.
    assert_eq!(
        run(
            &custom(open, &caps(&[])).unwrap(),
            Arch::I386.audit(),
            3,
            [0; 6]
        ),
        ENOSYS
    );
}

#[test]
fn a_profile_is_read_as_docker_reads_it() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 13, "extra": 1, "syscalls": [
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": null},
        {"names": ["chmod", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
            {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}]},
        {"names": ["close"], "action": "SCMP_ACT_TRAP", "args": [
            {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["fchown"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["link"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.8", "arches": ["amd64"]}},
        {"names": ["symlink"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "9.0"}},
        {"names": ["rename"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["arm64"]}}]}"#;
    let program = custom(json, &caps(&["CHOWN"])).unwrap();
    for (name, want) in [
        ("mkdir", ERRNO_OF | 13),
        ("chmod", ERRNO_OF | 5),
        ("chown", ERRNO_OF | 13),
        ("fchown", ALLOW),
        ("link", ERRNO_OF | 13),
        ("symlink", ALLOW),
        ("rename", ALLOW),
    ] {
        assert_eq!(call(&program, name, 0), want, "{name}");
    }
    let kill = Arch::X86_64.number("kill").unwrap();
    let ask = |a: u64, b: u64| run(&program, Arch::X86_64.audit(), kill, [a, b, 0, 0, 0, 0]);
    assert_eq!(
        [ask(7, 9), ask(7, 8), ask(6, 9), ask(7, 1 << 32)],
        [0x8000_0000, ALLOW, ALLOW, 0x8000_0000]
    );
    assert_eq!(
        [7, 8, 9].map(|n| call(&program, "close", n)),
        [0x0003_0000, 0x0003_0000, ALLOW]
    );
    // Nothing in it: no profile.
    assert_eq!(custom("{}", &caps(&[])).unwrap(), unconfined().unwrap());
}

const ERRNO_OF: u32 = 0x0005_0000;

#[test]
fn what_is_no_profile_is_refused_in_dockers_words() {
    let rule = |rest: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"], {rest}}}]}}"#
        )
    };
    for (json, part) in [
        ("x".to_owned(), "Decoding seccomp profile failed: "),
        ("[]".to_owned(), "Decoding seccomp profile failed: "),
        (
            r#"{"defaultAction": "ALLOW"}"#.to_owned(),
            "string ALLOW is not a valid action for seccomp",
        ),
        (
            r#"{"syscalls": [{"names": ["read"]}]}"#.to_owned(),
            "is not a valid action",
        ),
        (rule(r#""action": "NO""#), "string NO is not a valid action"),
        (rule(r#""action": "SCMP_ACT_NOTIFY""#), "no listener"),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "errnoRet": 65536"#),
            "errnoRet 65536",
        ),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "name": "x""#),
            "use either 'name' or 'names'",
        ),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]"#),
            "no argument 6",
        ),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "EQ"}]"#),
            "string EQ is not a valid operator",
        ),
        (
            rule(r#""action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "x"}"#),
            "invalid kernel version",
        ),
        (
            r#"{"architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}"#.to_owned(),
            "use either 'architectures' or 'archMap'",
        ),
        (
            format!("{{\"x\":\"{}\"}}", "a".repeat(PROFILE_MAX)),
            "bytes",
        ),
    ] {
        let error = custom(&json, &caps(&[])).unwrap_err().to_string();
        assert!(error.contains(part), "{json:.60}: {error}");
    }
    // A kernel takes 4,096 instructions.
    let argument = r#"{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}"#;
    let many = vec![argument; 1000].join(",");
    let json = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{many}]}}"#);
    assert!(matches!(
        custom(&json, &caps(&[])),
        Err(SeccompError::TooLarge(_))
    ));
}

#[test]
fn a_program_has_the_kernels_form() {
    let allow = Instruction {
        code: RET,
        jump_true: 0,
        jump_false: 0,
        k: ALLOW,
    };
    assert_eq!(to_text(&[allow]), "BgAAAAAA/38=");
}

proptest! {
    #[test]
    fn comparisons_are_those_of_64_bits(value: u64, mask: u64, near in 0u64..3, argument: u64, op in 0usize..7) {
        let argument = [argument, value.wrapping_add(near).wrapping_sub(1), value ^ (near << 32)][near as usize];
        let (name, two, holds) = [
            ("NE", 0, argument != value),
            ("LT", 0, argument < value),
            ("LE", 0, argument <= value),
            ("EQ", 0, argument == value),
            ("GE", 0, argument >= value),
            ("GT", 0, argument > value),
            ("MASKED_EQ", mask & value, argument & value == mask & value),
        ][op];
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_TRAP",
                "args": [{{"index": 3, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{name}"}}]}}]}}"#
        );
        let program = custom(&json, &caps(&[])).unwrap();
        let answer = run(&program, Arch::X86_64.audit(), 0, [0, 0, 0, argument, 0, 0]);
        prop_assert_eq!(answer, if holds { 0x0003_0000 } else { 0x7ffc_0000 });
    }

    #[test]
    fn whatever_it_is_it_is_a_program_or_an_error(json in "\\PC{0,300}") {
        let _ = custom(&json, &caps(&[]));
    }
}

proptest! {
    #[test]
    fn any_profile_is_compiled_or_refused_and_keeps_the_way_to_the_host_shut(
        names in proptest::collection::vec("socket|read|io_uring_setup|socketcall|nosuch", 0..4),
        actions in proptest::collection::vec("ALLOW|LOG|ERRNO|TRAP|TRACE|KILL|NO", 2),
        index in 0u8..8,
        value: u64,
        operator in "EQ|NE|LT|GE|MASKED_EQ",
        arch in "X86|X86_64|X32",
    ) {
        let names = serde_json::to_string(&names).unwrap_or_default();
        crate::fuzzing::profile(&format!(
            r#"{{"defaultAction": "SCMP_ACT_{0}", "architectures": ["SCMP_ARCH_{arch}"], "syscalls": [
                {{"names": {names}, "action": "SCMP_ACT_{1}",
                  "args": [{{"index": {index}, "value": {value}, "op": "SCMP_CMP_{operator}"}}]}},
                {{"names": {names}, "action": "SCMP_ACT_ALLOW"}}]}}"#,
            actions[0], actions[1],
        ));
    }
}
