//! The registry beside the endpoint (`vch up --registry`): made once in the state folder, on loopback, with a CA that the
//! endpoint trusts. It knows by itself how it is made and used: `registry init --local` and `registry guide`.

use crate::options::Options;
use crate::process;
use crate::state::{Part, Record, StateDir};
use crate::{Error, down, up};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its name among the parts, that of the program, and of the folder.
pub const NAME: &str = "registry";
/// What clients call it by, as images' names begin.
const HOST: &str = "localhost";

/// What it keeps. Beside its log, so that the folder is its own.
fn data(state: &Path) -> PathBuf {
    state.join(NAME).join("data")
}

/// Words that are among the arguments of this state folder's registry, and of no other process.
fn words(state: &Path) -> [String; 3] {
    let data = data(state).display().to_string();
    ["serve".into(), "--data".into(), data]
}

/// The port that it was started on.
fn port(part: &Part) -> Option<u16> {
    part.ready.rsplit_once(':')?.1.parse().ok()
}

/// Whether it belongs to this virtual container host: it was asked for, or still runs.
pub fn is_wanted(record: &Record) -> bool {
    record.options.registry.is_some() || up::runs(record.registry.as_ref())
}

/// Starts it if it was asked for and does not run; makes it at the first time. Where the endpoint runs already and knows
/// of none, that waits for the endpoint's next start.
///
/// # Errors
/// [`Error::Start`], with what it said.
pub(crate) fn ensure(dir: &StateDir, record: &mut Record) -> Result<(), Error> {
    let serving = up::runs(record.endpoint.as_ref());
    let Some(wanted) = record.options.registry else {
        if !serving && record.registry.is_some() {
            end(dir, record)?;
            record.registry = None;
            dir.save(record)?;
        }
        return Ok(());
    };
    if up::runs(record.registry.as_ref()) || serving && record.registry.is_none() {
        return Ok(());
    }
    let program = process::program(&record.options.programs, NAME)?;
    process::stop_those_with(&words(dir.path()), NAME, down::PATIENCE)?;
    up::progress("starting the registry");
    let folder = dir.path().join(NAME);
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let data = data(dir.path());
    let at = data.display().to_string();
    asked(&program, &["init", "--local", "--data", &at])?;
    // Where it was before: images are named after it, and the endpoint knows that address.
    let before = record.registry.as_ref().and_then(port);
    let port = match (wanted, before) {
        (wanted, Some(before)) if serving || wanted == 0 => before,
        (wanted, _) => wanted,
    };
    let mut args = words(dir.path()).to_vec();
    args.extend(["--listen".into(), format!("127.0.0.1:{port}")]);
    let (process, ready) = process::start(NAME, &program, &args, &folder.join("log"))?;
    let ready = ready.replace("127.0.0.1", HOST);
    record.registry = Some(Part { process, ready });
    dir.save(record)
}

/// The options with what the endpoint has to know of it: the CA by both of its names, and that it may be used.
pub(crate) fn trusted(dir: &StateDir, record: &Record) -> Options {
    let mut options = record.options.clone();
    let own = record.registry.as_ref().filter(|_| is_wanted(record));
    if let Some(port) = own.and_then(port) {
        let ca = data(dir.path()).join("ca.crt");
        for host in [HOST, "127.0.0.1"] {
            let address = format!("{host}:{port}");
            let registries = &mut options.registries;
            registries
                .registry_ca
                .push(format!("{address}={}", ca.display()));
            // An empty list is one of all.
            if !registries.registry_allow.is_empty() {
                registries.registry_allow.push(address);
            }
        }
    }
    options
}

/// Tells how it is used.
pub(crate) fn announce(dir: &StateDir, record: &Record) {
    let Some(port) = record.registry.as_ref().and_then(port) else {
        return;
    };
    let told = process::program(&record.options.programs, NAME).and_then(|program| {
        let (data, address) = (data(dir.path()), format!("{HOST}:{port}"));
        let data = data.display().to_string();
        let guide = ["guide", "--data", &data, "--address", &address, "--trusted"];
        asked(&program, &guide)
    });
    match told {
        Ok(guide) => eprintln!("registry (as the endpoint's clients use it):\n{guide}"),
        Err(error) => eprintln!("note: {error}"),
    }
}

/// Ends it, also one that a `vch` that was killed had no time to note. What is in it stays.
///
/// # Errors
/// [`Error::Stop`] where it had to be killed.
pub(crate) fn end(dir: &StateDir, record: &Record) -> Result<(), Error> {
    let known = record
        .registry
        .as_ref()
        .map_or(Ok(()), |part| part.process.stop(NAME, down::PATIENCE));
    let words = words(dir.path());
    known.and(process::stop_those_with(&words, NAME, down::PATIENCE))
}

/// Runs the program to its end; what it printed.
fn asked(program: &Path, args: &[&str]) -> Result<String, Error> {
    let failed = |reason: String| Error::Start {
        name: NAME,
        reason,
        log: String::new(),
    };
    let out = Command::new(program).args(args).output();
    let out = out.map_err(|e| failed(format!("{}: {e}", program.display())))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(failed(said.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[test]
    fn the_endpoint_trusts_it_and_may_use_it_where_only_some_may_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        let mut record = Record::new("v".into(), Options::default());
        assert_eq!(trusted(&dir, &record), record.options);
        record.options.registry = Some(0);
        record.registry = Some(Part {
            process: Process::of(std::process::id()).unwrap(),
            ready: "https://localhost:5443".into(),
        });
        let ca = data(dir.path()).join("ca.crt").display().to_string();
        let args = trusted(&dir, &record).registries.args().join(" ");
        let wanted = format!("--registry-ca=localhost:5443={ca} --registry-ca=127.0.0.1:5443={ca}");
        assert_eq!(args, wanted);
        record.options.registries.registry_allow = vec!["docker.io".into()];
        let allowed = trusted(&dir, &record).registries.registry_allow;
        assert_eq!(allowed, ["docker.io", "localhost:5443", "127.0.0.1:5443"]);
    }
}
