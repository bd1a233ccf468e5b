//! `--security-opt`.

use super::fields::Fields;
use super::refused;
use crate::errors::{Error, Result};
use std::collections::BTreeSet;

/// What `SecurityOpt` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    /// No process gains a privilege by what it executes.
    pub(super) no_new_privileges: bool,
    /// The seccomp program, as text; `None`: that of the default profile.
    pub(super) seccomp: Option<String>,
}

/// Reads it for a container with these capabilities. Of two profiles the last one counts, as with dockerd.
pub(super) fn read(fields: &Fields<'_>, held: &BTreeSet<String>) -> Result<Security> {
    let mut out = Security::default();
    for option in fields.list("SecurityOpt")? {
        if option == "no-new-privileges" {
            out.no_new_privileges = true;
            continue;
        }
        // As dockerd: '=', or the ':' of old.
        let (name, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .ok_or_else(|| Error::bad(format!("invalid --security-opt 1: {option:?}")))?;
        match (name, value) {
            ("no-new-privileges", "true") => out.no_new_privileges = true,
            ("no-new-privileges", "false") => out.no_new_privileges = false,
            ("no-new-privileges", _) => {
                return Err(Error::bad(format!("invalid --security-opt 2: {option:?}")));
            }
            // What there is not cannot be on.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("seccomp", profile) => out.seccomp = program(profile, held)?,
            ("apparmor" | "label", _) => {
                return Err(refused(
                    &format!("--security-opt {name}"),
                    "the guest's kernel has neither AppArmor nor SELinux; leave it out",
                ));
            }
            ("systempaths" | "writable-cgroups", _) => {
                return Err(refused(
                    &format!("--security-opt {name}"),
                    "the default paths are masked",
                ));
            }
            _ => return Err(Error::bad(format!("invalid --security-opt 2: {option:?}"))),
        }
    }
    Ok(out)
}

/// The program of a profile: `builtin`, `unconfined`, or JSON, which clients send in place of a file's name.
fn program(profile: &str, held: &BTreeSet<String>) -> Result<Option<String>> {
    let program = match profile {
        "builtin" => return Ok(None),
        "unconfined" => seccomp::unconfined(),
        json => seccomp::custom(json, held),
    };
    let program = program.map_err(|e| Error::bad(e.to_string()))?;
    Ok(Some(seccomp::to_text(&program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(options: &[&str]) -> Result<Security> {
        let host = json!({ "SecurityOpt": options });
        read(&Fields(host.as_object().unwrap()), &seccomp::held(&[], &[]))
    }

    #[test]
    fn security_options_are_read_as_docker_reads_them() {
        let plain = of(&[
            "no-new-privileges",
            "apparmor=unconfined",
            "seccomp=builtin",
        ])
        .unwrap();
        assert_eq!((plain.no_new_privileges, plain.seccomp), (true, None));
        let open = of(&["no-new-privileges:false", "seccomp:unconfined"]).unwrap();
        assert!(!open.no_new_privileges);
        assert!(open.seccomp.is_some());
        let own = of(&[r#"seccomp={"defaultAction": "SCMP_ACT_ALLOW"}"#]).unwrap();
        assert!(own.seccomp.is_some());
        for (option, words) in [
            ("x", "invalid --security-opt 1"),
            ("x=y", "invalid --security-opt 2"),
            ("seccomp=/no/file", "Decoding seccomp profile failed: "),
            (
                r#"seccomp={"defaultAction": "NO"}"#,
                "string NO is not a valid action for seccomp",
            ),
            ("apparmor=x", "--security-opt apparmor is not supported"),
            (
                "systempaths=unconfined",
                "--security-opt systempaths is not supported",
            ),
        ] {
            let error = of(&[option]).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
