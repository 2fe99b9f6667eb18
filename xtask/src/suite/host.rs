//! The tests that run here: `cargo test` of the host packages, counted test by test.

use super::runner::Done;
use crate::{exec, paths, ui};
use anyhow::{Context as _, Result, anyhow};
use regex_lite::Regex;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PACKAGES: [&str; 8] = [
    "breakwater",
    "breakwater-boot",
    "breakwater-image",
    "breakwater-trace",
    "breakwater-oracle",
    "breakwater-witness",
    "breakwater-bench",
    "xtask",
];

/// Runs them all, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Vec<Done> {
    let began = Instant::now();
    let mut done = Vec::new();
    let outcome = tests(filter, &mut done);
    let counted = done.iter().any(|one| one.outcome.is_err());
    match outcome {
        Err(error) => done.push(Done::failed("host/cargo-test", began.elapsed(), &error)),
        // Cargo failed and no test did: it did not compile, or a test took the whole process down.
        Ok(false) if !counted => {
            let why = anyhow!("cargo test failed outside any test: see its output above");
            done.push(Done::failed("host/cargo-test", began.elapsed(), &why));
        }
        Ok(_) => {}
    }
    done
}

/// Whether Cargo was content.
fn tests(filter: Option<&str>, done: &mut Vec<Done>) -> Result<bool> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).args(["test", "--no-fail-fast"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(filter).stdin(Stdio::null()).stdout(Stdio::piped());
    // xtask's own copy of these would redirect the tests' idea of where the repository is.
    command.env_remove("CARGO_MANIFEST_DIR");
    ui::command(&exec::shown(&command));
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut log = Log::new()?;
    for line in BufReader::new(output).lines() {
        log.line(&line?, done);
    }
    let good = child.wait()?.success();
    if !good {
        log.text.iter().for_each(|line| anstream::eprintln!("{line}"));
    }
    Ok(good)
}

/// What the test harness says, line by line.
struct Log {
    verdict: Regex,
    text: Vec<String>,
    since: Instant,
}

impl Log {
    fn new() -> Result<Self> {
        let verdict = Regex::new(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED)$")?;
        Ok(Self { verdict, text: Vec::new(), since: Instant::now() })
    }

    fn line(&mut self, line: &str, done: &mut Vec<Done>) {
        if let Some(found) = self.verdict.captures(line) {
            let (name, good) = (format!("host/{}", &found[1]), &found[2] == "ok");
            let outcome = if good { Ok(()) } else { Err("see the output of cargo test".to_owned()) };
            let took = std::mem::replace(&mut self.since, Instant::now()).elapsed();
            done.push(Done { name, took: took.min(Duration::from_secs(3600)), outcome });
        }
        if line.starts_with("test result: ") {
            ui::step("Tested", line.trim_start_matches("test result: "));
        }
        self.text.push(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_each_test_is_counted_once_and_ignored_ones_are_not() {
        let mut done = Vec::new();
        let mut log = Log::new().expect("the expression is valid");
        for line in [
            "running 4 tests",
            "test a::good ... ok",
            "test a::bad ... FAILED",
            "test src/lib.rs - Thing (line 3) ... ok",
            "test a::later ... ignored",
            "test result: FAILED. 2 passed; 1 failed",
        ] {
            log.line(line, &mut done);
        }
        let names: Vec<&str> = done.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["host/a::good", "host/a::bad", "host/src/lib.rs - Thing (line 3)"]);
        assert!(done[1].outcome.is_err());
    }
}
