//! `cargo xtask bench`: what requests cost, on the host beside a peer, and on the target by exact counts.
//!
//! Why it exists: the manager claims to validate everything, to do all maintenance, and still to be fast. The host's figures are times, and
//! therefore ratios with their spread; the target's are counts, and therefore the same in every run.
//!
//! What it refuses: a target run whose lines are not the same twice. It judges no time: a machine that is busy is not a fault.
//!
//! * tests/bench is built and run here; `target` boots `request_costs` of tests/boot.
//! * `report` is what they found, `print` its tables, `plot` its picture.

mod plot;
mod print;
pub(crate) mod report;
pub(crate) mod target;
#[cfg(test)]
mod tests;

use crate::{exec, paths, ui};
use anyhow::{Context, Result, ensure};
use report::Report;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Shown by `--help`.
pub(crate) const AFTER_HELP: &str = "Host figures are medians of rounds in which every candidate has its turn, with their quartiles. \
    Compare ratios, not times, and only within one run. Target figures are exact: the same compiler gives the same numbers";

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of the host's requests
    #[arg(long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Only the host's requests whose name contains this
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    filter: Option<String>,
    /// Only on this machine, beside a peer
    #[arg(long, conflicts_with = "target")]
    host: bool,
    /// Only under QEMU, counted
    #[arg(long)]
    target: bool,
    /// Print the figures as one line, `BENCH-REPORT` and JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Where the plot goes, as SVG [default: bench.svg in Cargo's target directory]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
}

/// Runs `bench`.
///
/// # Errors
/// Set-up, build or a run failed, or the target's counts differ between two runs.
pub(crate) fn command(args: &Args) -> Result<()> {
    let host = if args.target { None } else { Some(run_host(args.rounds, args.filter.as_deref())?) };
    let target = if args.host { None } else { Some(target::run(args.qemu.as_deref())?) };
    let report = Report { host, target };
    if args.json {
        let json = serde_json::to_string(&report).context("the figures are not JSON")?;
        anstream::println!("BENCH-REPORT {json}");
    } else {
        anstream::print!("{}", print::text(&report));
    }
    let file = args.plot.clone().unwrap_or_else(|| paths::target().join("bench.svg"));
    plot::draw(&report, &file)?;
    ui::step("Wrote", &paths::shown(&file));
    Ok(())
}

/// The package of the host's requests.
const PACKAGE: &str = "breakwater-bench";

/// Builds and runs tests/bench.
///
/// # Errors
/// It does not build, does not end well, or does not say what it should.
fn run_host(rounds: u32, filter: Option<&str>) -> Result<report::Host> {
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
