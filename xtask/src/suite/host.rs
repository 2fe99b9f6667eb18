//! The tests that run here: every package's, as Cargo knows them, counted test by test.
//!
//! No list of packages stands here: Cargo builds the tests of the whole workspace and says where each program lies. A target whose tests
//! cannot be linked on a host says so in its own manifest (`test = false`). That nothing is forgotten is a case of its own:
//! each `#[test]` of the repository must have run.

use super::runner::Done;
use crate::child::{self, Limits};
use crate::paths::cargo;
use crate::{exec, paths, ui};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use breakwater_witness::pool;
use regex_lite::Regex;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ends a program of tests that hangs.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// Runs them all, or those whose name contains `filter`.
pub(super) fn run(filter: Option<&str>) -> Vec<Done> {
    let mut done = Vec::new();
    if let Err((name, began, error)) = all(filter, &mut done) {
        done.push(Done::failed(name, began.elapsed(), &error));
    }
    done
}

/// Builds and runs; what cannot be built is told by the name of the case that it is.
fn all(filter: Option<&str>, done: &mut Vec<Done>) -> Result<(), (&'static str, Instant, anyhow::Error)> {
    let began = Instant::now();
    let programs = programs().map_err(|error| ("host/build", began, error))?;
    let ran = pool::each(pool::host_cpus(), &programs, |_, program| program.run(filter), |_, _| {});
    done.extend(ran.map_err(|error| ("host/run", began, error))?.into_iter().flatten());
    let began = Instant::now();
    let mut doctests = cargo();
    doctests.args(["test", "--workspace", "--doc"]).args(filter);
    done.extend(counted(&mut doctests, "host/doctests").map_err(|error| ("host/doctests", began, error))?);
    let began = Instant::now();
    if filter.is_none() {
        every_test_ran(done).map_err(|error| ("host/every-test-runs", began, error))?;
        done.push(Done {
            name: "host/every-test-runs".to_owned(),
            took: began.elapsed(),
            outcome: Ok(()),
            log: String::new(),
        });
    }
    Ok(())
}

/// A command of the workspace, built as the tests are, so that nothing is compiled once more.
///
/// # Errors
/// It does not build.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    exec::run(cargo().args(["build", "--workspace", "--bin", name]))?;
    Ok(paths::target().join("debug").join(name))
}

/// A program that Cargo made of a target's tests.
struct Program {
    package: String,
    target: String,
    directory: PathBuf,
    executable: PathBuf,
}

/// What Cargo says of the workspace.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// What Cargo says of something that it has built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    /// It is a program of tests, and not a command or an example that tests need.
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the tests of every package.
fn programs() -> Result<Vec<Program>> {
    let metadata = exec::ask(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let Metadata { packages } = serde_json::from_str(&metadata).context("what cargo metadata says")?;
    let mut build = cargo();
    build.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    ui::command(&exec::shown(&build));
    let built = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(built.status.success(), "the tests do not build: see above");
    // Whatever is no artifact, or has no program, does not read as one.
    let lines = std::str::from_utf8(&built.stdout)?.lines();
    let artifacts = lines.filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let program = |artifact: Artifact| {
        let executable = artifact.executable?;
        let package = packages.iter().find(|package| package.manifest_path == artifact.manifest_path)?;
        let directory = package.manifest_path.parent()?.to_path_buf();
        Some(Program { package: package.name.clone(), target: artifact.target.name, directory, executable })
    };
    let programs: Vec<Program> = artifacts.filter(|artifact| artifact.profile.test).filter_map(program).collect();
    ensure!(!programs.is_empty(), "cargo names no program with tests");
    Ok(programs)
}

impl Program {
    /// Runs it as `cargo test` would: from its package's directory.
    fn run(&self, filter: Option<&str>) -> Result<Vec<Done>> {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory).args(filter);
        counted(&mut command, &format!("host/{}/{}", self.package, self.target))
    }
}

/// Runs a program of tests and counts them; `name` goes before each one's own.
fn counted(command: &mut Command, name: &str) -> Result<Vec<Done>> {
    let limits = Limits { timeout: TIMEOUT, ..Limits::default() };
    let (finished, log) = child::read(command, &limits, |output, _| -> Result<Log> {
        let mut log = Log::new(name)?;
        for line in BufReader::new(output).lines() {
            log.line(&line?);
        }
        Ok(log)
    })?;
    let mut log = log?;
    if finished.status != Some(0) {
        let said = log.text.iter().map(String::as_str).chain(finished.messages.lines());
        said.for_each(|line| anstream::eprintln!("{line}"));
        if log.done.iter().all(|one| one.outcome.is_ok()) {
            // It does not compile, or a test took the whole process down.
            let why = anyhow!("outside any test, {}: see above", finished.ended());
            log.done.push(Done::failed(name, log.since.elapsed(), &why));
        }
    }
    if !log.done.is_empty() {
        let failed = log.done.iter().filter(|one| one.outcome.is_err()).count();
        ui::step("Tested", &format!("{name}: {} passed, {failed} failed", log.done.len() - failed));
    }
    Ok(log.done)
}

/// What the test harness says, line by line.
struct Log {
    name: String,
    verdict: Regex,
    text: Vec<String>,
    done: Vec<Done>,
    since: Instant,
}

impl Log {
    fn new(name: &str) -> Result<Self> {
        let verdict = Regex::new(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)$")?;
        Ok(Self { name: name.to_owned(), verdict, text: Vec::new(), done: Vec::new(), since: Instant::now() })
    }

    fn line(&mut self, line: &str) {
        if let Some(found) = self.verdict.captures(line) {
            let (name, good) = (format!("{}/{}", self.name, &found[1]), &found[2] == "ok");
            let outcome = if good { Ok(()) } else { Err("see its output above".to_owned()) };
            // Since the one before: together they are what the program took.
            let took = std::mem::replace(&mut self.since, Instant::now()).elapsed();
            self.done.push(Done { name, took, outcome, log: String::new() });
        }
        self.text.push(line.to_owned());
    }
}

/// Each `#[test]` of the repository is among those that ran.
fn every_test_ran(done: &[Done]) -> Result<()> {
    let ran: BTreeSet<&str> = done.iter().filter_map(|one| one.name.rsplit(['/', ':']).next()).collect();
    let mut missing = Vec::new();
    for file in paths::files()?.iter().filter(|file| file.ends_with(".rs")) {
        let text = std::fs::read_to_string(paths::root().join(file)).with_context(|| file.clone())?;
        let missed = tests_in(&text).filter(|test| !ran.contains(test));
        missing.extend(missed.map(|test| format!("{file}: {test}")));
    }
    if missing.is_empty() { Ok(()) } else { bail!("tests that no program runs: {}", missing.join(", ")) }
}

/// The names of the functions below a `#[test]`; not those that a macro makes up.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().map(str::trim).filter_map(move |line| {
        if line == "#[test]" {
            is_test = true;
            return None;
        }
        let name = line.strip_prefix("fn ").filter(|_| is_test)?.split('(').next()?;
        is_test = false;
        (!name.starts_with('$')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_each_test_is_counted_once_and_ignored_ones_are_not() {
        let mut log = Log::new("host/p/t").expect("the expression is valid");
        for line in [
            "running 4 tests",
            "test a::good ... ok",
            "test a::bad ... FAILED",
            "test src/lib.rs - Thing (line 3) ... ok",
            "test a::later ... ignored",
            "test result: FAILED. 2 passed; 1 failed",
        ] {
            log.line(line);
        }
        let names: Vec<&str> = log.done.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["host/p/t/a::good", "host/p/t/a::bad", "host/p/t/src/lib.rs - Thing (line 3)"]);
        assert!(log.done[1].outcome.is_err());
    }

    #[test]
    fn good_tests_are_found_by_their_attribute() {
        let text =
            "#[test]\n    fn one() {}\nfn helper() {}\n#[test]\n#[should_panic]\nfn two() {\n#[test]\nfn $made() {}\n";
        assert_eq!(tests_in(text).collect::<Vec<_>>(), ["one", "two"]);
    }
}
