//! Profiles in Docker's form (moby, profiles/seccomp/seccomp.go): JSON, of which what is not known is passed over.

use crate::numbers::Arch;
use crate::program::{Argument, Compare, Rule, compile};
use crate::{Instruction, PROFILE_MAX, PROGRAM_MAX, SeccompError};
use serde::Deserialize;
use std::collections::BTreeSet;

/// The oldest kernel of a container VM.
const KERNEL: (u32, u32) = (6, 1);
/// Linux's errno, when a profile names none: EPERM.
const EPERM: u32 = 1;
/// The largest errno (linux/err.h, `MAX_ERRNO`).
const ERRNO_MAX: u32 = 4095;

/// A profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<ArchMap>,
    #[serde(deserialize_with = "or_none")]
    syscalls: Vec<Syscalls>,
    listener_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(deserialize_with = "or_none")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Syscalls {
    name: String,
    #[serde(deserialize_with = "or_none")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(deserialize_with = "or_none")]
    args: Vec<Arg>,
    includes: Filter,
    excludes: Filter,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    #[serde(deserialize_with = "or_none")]
    caps: Vec<String>,
    #[serde(deserialize_with = "or_none")]
    arches: Vec<String>,
    min_kernel: String,
}

/// Go writes a list that is none as null.
fn or_none<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn wrong(what: impl Into<String>) -> SeccompError {
    SeccompError::Wrong(what.into())
}

/// What the kernel does (linux/seccomp.h, `SECCOMP_RET_…`).
fn action(name: &str, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = errno.unwrap_or(EPERM);
    if data > ERRNO_MAX {
        return Err(wrong(format!(
            "errnoRet {data}: no errno is larger than {ERRNO_MAX}"
        )));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | data,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | data,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => crate::program::ALLOW,
        "SCMP_ACT_NOTIFY" => {
            return Err(wrong(
                "SCMP_ACT_NOTIFY is not supported: there is no listener in a container's VM",
            ));
        }
        _ => {
            return Err(wrong(format!(
                "string {name} is not a valid action for seccomp"
            )));
        }
    })
}

impl Filter {
    fn is_old_enough(&self) -> Result<Option<bool>, SeccompError> {
        if self.min_kernel.is_empty() {
            return Ok(None);
        }
        let invalid = || {
            wrong(format!(
                "invalid kernel version: {:?}; expected MAJOR.MINOR",
                self.min_kernel
            ))
        };
        let (major, minor) = self.min_kernel.split_once('.').ok_or_else(invalid)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| invalid());
        Ok(Some(KERNEL >= (number(major)?, number(minor)?)))
    }
}

impl Syscalls {
    /// Whether it is for a container with these capabilities on this architecture and kernel.
    fn applies(&self, held: &BTreeSet<String>) -> Result<bool, SeccompError> {
        let here = |filter: &Filter| filter.arches.iter().any(|arch| arch == "amd64");
        let has = |cap: &String| held.contains(cap);
        let Syscalls {
            includes, excludes, ..
        } = self;
        let out = here(excludes)
            || excludes.caps.iter().any(has)
            || excludes.is_old_enough()? == Some(true);
        let into = (includes.arches.is_empty() || here(includes))
            && includes.caps.iter().all(has)
            && includes.is_old_enough()? != Some(false);
        Ok(into && !out)
    }

    fn names(&self) -> Result<Vec<&str>, SeccompError> {
        match (self.name.as_str(), self.names.is_empty()) {
            ("", _) => Ok(self.names.iter().map(String::as_str).collect()),
            (name, true) => Ok(vec![name]),
            _ => Err(wrong(
                "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
            )),
        }
    }

    /// The conditions: one of these lists has to hold as a whole. As runc: two for one argument are alternatives.
    fn conditions(&self) -> Result<Vec<Vec<Argument>>, SeccompError> {
        let all = self.args.iter().map(Arg::read);
        let all: Vec<Argument> = all.collect::<Result<_, _>>()?;
        let twice = all
            .iter()
            .enumerate()
            .any(|(n, one)| all[..n].iter().any(|other| other.index == one.index));
        Ok(match twice {
            true => all.into_iter().map(|one| vec![one]).collect(),
            false => vec![all],
        })
    }
}

impl Arg {
    fn read(&self) -> Result<Argument, SeccompError> {
        let compare = match self.op.as_str() {
            "SCMP_CMP_NE" => Compare::NotEqual,
            "SCMP_CMP_LT" => Compare::Less,
            "SCMP_CMP_LE" => Compare::LessOrEqual,
            "SCMP_CMP_EQ" => Compare::Equal,
            "SCMP_CMP_GE" => Compare::GreaterOrEqual,
            "SCMP_CMP_GT" => Compare::Greater,
            "SCMP_CMP_MASKED_EQ" => {
                return Ok(Argument {
                    index: self.index()?,
                    compare: Compare::Masked(self.value),
                    value: self.value_two,
                });
            }
            op => {
                return Err(wrong(format!(
                    "string {op} is not a valid operator for seccomp"
                )));
            }
        };
        Ok(Argument {
            index: self.index()?,
            compare,
            value: self.value,
        })
    }

    fn index(&self) -> Result<u8, SeccompError> {
        let fits = u8::try_from(self.index).ok().filter(|index| *index < 6);
        fits.ok_or_else(|| wrong(format!("a system call has no argument {}", self.index)))
    }
}

impl Profile {
    /// Reads one.
    ///
    /// # Errors
    /// What it is not.
    pub fn read(json: &str) -> Result<Self, SeccompError> {
        if json.len() > PROFILE_MAX {
            return Err(SeccompError::TooLong(json.len()));
        }
        // A list would be taken for the fields in their order.
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json)?;
        let profile: Profile = serde_json::from_value(object.into())?;
        if !profile.arch_map.is_empty() && !profile.architectures.is_empty() {
            return Err(wrong(
                "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
            ));
        }
        if !profile.listener_path.is_empty() {
            return Err(wrong(
                "listenerPath is not supported: there is no listener in a container's VM",
            ));
        }
        Ok(profile)
    }

    /// Whether programs for i386 are judged by the same rules; else the kernel runs none of their calls.
    fn has_i386(&self) -> bool {
        let native = self.arch_map.iter();
        let mut native = native.filter(|map| map.architecture == "SCMP_ARCH_X86_64");
        let i386 = |name: &String| name == "SCMP_ARCH_X86";
        self.architectures.iter().any(i386)
            || native.any(|map| map.sub_architectures.iter().any(i386))
    }

    /// Its program for a container with these capabilities.
    ///
    /// # Errors
    /// What it says that there is not.
    pub fn compile(
        &self,
        capabilities: &BTreeSet<String>,
    ) -> Result<Vec<Instruction>, SeccompError> {
        // As dockerd: then there is no profile.
        if self.default_action.is_empty() && self.syscalls.is_empty() {
            let all = [Arch::X86_64, Arch::I386].map(|arch| (arch, Vec::new()));
            return bounded(compile(&all, crate::program::ALLOW));
        }
        let default = action(&self.default_action, self.default_errno_ret)?;
        let arches = match self.has_i386() {
            true => &[Arch::X86_64, Arch::I386][..],
            false => &[Arch::X86_64],
        };
        let mut programs: Vec<(Arch, Vec<Rule>)> = Vec::new();
        for arch in arches {
            let mut rules = Vec::new();
            for call in &self.syscalls {
                let action = action(&call.action, call.errno_ret.or(self.default_errno_ret))?;
                let conditions = call.conditions()?;
                // What is wrong is told, whether it applies or not.
                let names = call.names()?;
                if !call.applies(capabilities)? {
                    continue;
                }
                // As libseccomp: a name that is not known is passed over.
                for number in names.iter().filter_map(|name| arch.number(name)) {
                    rules.extend(conditions.iter().map(|arguments| Rule {
                        number,
                        arguments: arguments.clone(),
                        action,
                    }));
                }
            }
            programs.push((*arch, rules));
        }
        bounded(compile(&programs, default))
    }
}

fn bounded(program: Vec<Instruction>) -> Result<Vec<Instruction>, SeccompError> {
    match program.len() {
        length if length > PROGRAM_MAX => Err(SeccompError::TooLarge(length)),
        _ => Ok(program),
    }
}
