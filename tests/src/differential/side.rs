//! One side of the comparison: a Docker host on which cases run, one after the other.

use super::case::{Case, Kind};
use super::{folder, json, normal};
use crate::command::{self, DEADLINE};
use crate::docker::Docker;
use crate::places;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The API version that both are asked in: the one of Debian's dockerd.
pub const API_VERSION: &str = "1.41";

/// Seconds that one case may take; what hangs is ended by then, with all that it started.
const CASE_SECONDS: u64 = 240;

/// What one step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `subject/case:step`, or `subject/case:NAME`.
    pub at: String,
    /// The command, for reports.
    pub command: String,
    /// Exit code, standard error (behind `! `) and standard output, as they are compared.
    pub lines: Vec<String>,
}

/// A Docker host that cases run on.
#[derive(Debug)]
pub struct Side {
    /// For messages.
    pub name: &'static str,
    docker: Docker,
    words: normal::Words,
    registry: String,
    own: String,
    work: TempDir,
}

impl Side {
    /// A side over a host; `registry` is the address of one that it reaches, `words` are those that only this host has.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn new(
        name: &'static str,
        docker: Docker,
        registry: &str,
        mut words: normal::Words,
    ) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("side-").tempdir()?;
        words.push((docker.host().to_owned(), "<host>"));
        if let Some(socket) = docker.socket() {
            words.push((socket.display().to_string(), "<socket>"));
        }
        words.push((work.path().display().to_string(), "<work>"));
        // The peer's folders are in there, too.
        words.push((std::env::temp_dir().display().to_string(), "/tmp"));
        // Both push at once to one registry: what they tell of a push depends on who was first, where it is to one place.
        let own = format!("side-of-{}", name.to_lowercase());
        words.push((own.clone(), "<own>"));
        words.push((registry.to_owned(), "<registry>"));
        words.push((folder().display().to_string(), "<cases>"));
        Ok(Side {
            name,
            docker,
            words,
            registry: registry.to_owned(),
            own,
            work,
        })
    }

    /// Runs a case, and clears away what it left.
    ///
    /// # Errors
    /// When a step that prepares fails, or the whole takes too long.
    pub fn run(&self, case: &Case) -> Result<Vec<Outcome>> {
        let at = self.work.path().join(case.name.replace('/', "-"));
        let (home, out) = (at.join("work"), at.join("out"));
        std::fs::create_dir_all(&home)?;
        std::fs::create_dir_all(&out)?;
        let script = at.join("script");
        std::fs::write(&script, text_of(case, &out))?;
        let ran = self.shell(&script, &home);
        let read = ran.and_then(|outcome| {
            let mut all = Vec::new();
            for number in 1..=case.steps.len() {
                self.read(case, number, &out, &mut all)
                    .with_context(|| format!("exit {}, {}", outcome.code, outcome.errors()))?;
            }
            Ok(all)
        });
        let cleared = self.clear(&home);
        let all = read.with_context(|| format!("{} on {}", case.name, self.name))?;
        cleared.with_context(|| format!("clearing up after {} on {}", case.name, self.name))?;
        Ok(all)
    }

    /// Removes containers, networks, volumes and images that a case left.
    fn clear(&self, home: &Path) -> Result<()> {
        let outcome = self.shell(&folder().join("clear.sh"), home)?;
        ensure!(outcome.code == 0, "{}", outcome.errors());
        Ok(())
    }

    fn shell(&self, script: &Path, home: &Path) -> Result<command::Outcome> {
        // timeout(1) ends the whole process group.
        let mut c = Command::new("timeout");
        c.args(["-k", "5", &CASE_SECONDS.to_string(), "bash"]);
        c.arg(script).current_dir(home);
        for (name, value) in self.docker.command(&[]).get_envs() {
            match value {
                Some(value) => c.env(name, value),
                None => c.env_remove(name),
            };
        }
        c.env("DOCKER_API_VERSION", API_VERSION)
            .env("SOCKET", self.docker.socket().context("a unix socket")?)
            .env("REGISTRY", &self.registry)
            .env("OWN", &self.own)
            .env("CASES", folder())
            .env("PYTHON", python())
            .env("ARCHIVES", places::target().join("images"))
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command::run(c, b"", DEADLINE + Duration::from_secs(CASE_SECONDS))
    }

    fn read(&self, case: &Case, number: usize, out: &Path, all: &mut Vec<Outcome>) -> Result<()> {
        let step = &case.steps[number - 1];
        let file = |part: &str| -> Result<String> {
            let path = out.join(format!("{number}.{part}"));
            let bytes = std::fs::read(&path)
                .with_context(|| format!("step {number} did not come to its end"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let code = file("code")?;
        let code = code.trim();
        let errors = file("err")?;
        let at = |part: &str| format!("{}:{part}", case.name);
        match step.kind {
            Kind::Quiet => ensure!(
                code == "0",
                "step {number} exited with {code}: {}\n{errors}",
                step.command
            ),
            Kind::Compared => {
                let mut lines = vec![format!("exit {code}")];
                lines.extend(errors.lines().map(|line| format!("! {line}")));
                lines.extend(json::lines(&file("out")?));
                all.push(Outcome {
                    at: at(&number.to_string()),
                    command: step.command.clone(),
                    lines: self.normal(lines),
                });
            }
            Kind::Calls => {
                ensure!(code == "0", "{} exited with {code}: {errors}", step.command);
                for line in file("out")?.lines() {
                    let (name, outcome) = line
                        .split_once('\t')
                        .with_context(|| format!("no name and outcome: {line:?}"))?;
                    all.push(Outcome {
                        at: at(name),
                        command: format!("{name} of {}", step.command),
                        lines: self.normal(json::lines(outcome)),
                    });
                }
            }
        }
        Ok(())
    }

    fn normal(&self, lines: Vec<String>) -> Vec<String> {
        let lines = lines.iter();
        lines.map(|l| normal::line(l, &self.words)).collect()
    }
}

/// The Python that has the Docker libraries (scripts/clients).
fn python() -> PathBuf {
    places::target().join("clients/bin/python3")
}

/// A case as a script: each step's output and exit code go to files of its own.
fn text_of(case: &Case, out: &Path) -> String {
    let mut text = "exec </dev/null\n. \"$CASES/functions.sh\"\n".to_owned();
    for (number, step) in (1..).zip(&case.steps) {
        let file = |part: &str| out.join(format!("{number}.{part}")).display().to_string();
        text += &format!(
            "{{\n{}\n}} >'{}' 2>'{}'\necho $? >'{}'\n",
            step.command,
            file("out"),
            file("err"),
            file("code")
        );
    }
    text
}
