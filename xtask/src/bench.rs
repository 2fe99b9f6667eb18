//! `cargo xtask bench`: what requests cost, on the host beside a peer, and on the target by exact counts.
//!
//! Why it exists: the manager claims to validate everything, to do all maintenance, and still to be fast. The host's figures are times, and
//! therefore ratios with their spread; the target's are counts, and therefore the same in every run.
//!
//! What it refuses: a target run whose lines are not the same twice. It judges no time: a machine that is busy is not a fault.
//!
//! * `host` builds and runs tests/bench; `target` boots `request_costs` of tests/boot.
//! * `report` is what they found, `print` its tables, `plot` its picture.

mod host;
mod plot;
mod print;
pub(crate) mod report;
pub(crate) mod target;
#[cfg(test)]
mod tests;

use crate::{paths, ui};
use anyhow::{Context, Result};
use report::Report;
use std::path::PathBuf;

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
    let host = if args.target { None } else { Some(host::run(args.rounds, args.filter.as_deref())?) };
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
