//! Builds and runs tests/bench.

use super::report::Host;
use crate::{exec, paths, ui};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// The package.
const PACKAGE: &str = "breakwater-bench";

/// Runs it.
///
/// # Errors
/// It does not build, does not end well, or does not say what it should.
pub(super) fn run(rounds: u32, filter: Option<&str>) -> Result<Host> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::root()).args(["build", "--release", "--package", PACKAGE, "--bin", PACKAGE]);
    exec::run(&mut cargo).context("the host's benchmark does not build")?;
    let mut bench = Command::new(paths::target().join("release").join(PACKAGE));
    bench.arg("--rounds").arg(rounds.to_string());
    if let Some(filter) = filter {
        bench.args(["--filter", filter]);
    }
    ui::command(&exec::shown(&bench));
    let mut child = bench
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", exec::shown(&bench)))?;
    let mut output = child.stdout.take().context("no standard output")?;
    // Read beside, so that neither pipe fills up.
    let json = std::thread::spawn(move || {
        let mut json = String::new();
        output.read_to_string(&mut json).map(|_| json)
    });
    for line in BufReader::new(child.stderr.take().context("no standard error")?).lines() {
        let line = line?;
        match line.strip_prefix("timing ") {
            Some(title) => ui::step("Timing", title),
            None => anstream::eprintln!("{line}"),
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{}` ended with {status}", exec::shown(&bench));
    let json = json.join().ok().context("its output was not read")??;
    serde_json::from_str(&json).context("the host's benchmark did not print its figures")
}
