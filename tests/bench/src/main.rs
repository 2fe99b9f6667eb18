//! `breakwater-bench`: times the requests on this machine, and tells them beside what the target counted.

#![forbid(unsafe_code)]

mod report;

use anyhow::{Context, Result, ensure};
use breakwater_bench::arena::Arena;
use breakwater_bench::request;
use breakwater_bench::rounds;
use clap::Parser;
use report::{Host, Report, Target};
use std::path::PathBuf;

/// Times requests on this machine beside a peer; `cargo xtask bench` adds what the target counted
#[derive(Debug, Parser)]
struct Args {
    /// Rounds that count, after one that is thrown away; 0 times nothing
    #[arg(long, default_value_t = 25, value_name = "N")]
    rounds: u32,
    /// Only requests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Boots of the target, as `cargo xtask bench` writes them
    #[arg(long, value_name = "FILE.json")]
    target: Option<PathBuf>,
    /// Print the figures as one line, `BENCH-REPORT` and JSON
    #[arg(long)]
    json: bool,
    /// Where the plot goes, as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let host = if args.rounds > 0 { Some(timed(args.rounds, args.filter.as_deref())?) } else { None };
    let report = Report { host, target: args.target.as_deref().map(Target::read).transpose()? };
    if args.json {
        println!("BENCH-REPORT {}", serde_json::to_string(&report).context("the figures are not JSON")?);
    } else {
        print!("{}", report.text());
    }
    if let Some(file) = &args.plot {
        report.draw(file)?;
        eprintln!("wrote {}", file.display());
    }
    let over = report.target.iter().flat_map(Target::over).collect::<Vec<_>>();
    ensure!(over.is_empty(), "{}", over.join("\n"));
    Ok(())
}

/// Times every request whose name contains `filter`.
fn timed(rounds: u32, filter: Option<&str>) -> Result<Host> {
    let (wanted, others): (Vec<_>, Vec<_>) =
        request::all().into_iter().partition(|work| filter.is_none_or(|filter| work.name.contains(filter)));
    let others = others.iter().map(|work| work.name).collect::<Vec<_>>();
    ensure!(!wanted.is_empty(), "no request has such a name; there are {}", others.join(", "));
    let arena = Arena::lock();
    let timed = wanted.iter().map(|work| {
        eprintln!("timing {}", work.title);
        rounds::measure(&arena, work, rounds as usize)
    });
    Ok(Host::new(rounds, timed.collect()))
}
