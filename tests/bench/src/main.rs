//! Runs the benchmark of the host and prints one line of JSON; `cargo xtask bench` makes a table and a plot of it.

#![forbid(unsafe_code)]

use breakwater_bench::arena::Arena;
use breakwater_bench::request;
use breakwater_bench::rounds::{self, RUNNERS};
use clap::Parser;
use serde_json::json;

/// Runs the benchmark of the host and prints one line of JSON on standard output.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds that count; one more comes first and is thrown away
    #[arg(long, default_value_t = 25, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only requests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let mut works = request::all();
    works.retain(|work| args.filter.as_ref().is_none_or(|filter| work.name.contains(filter.as_str())));
    if works.is_empty() {
        let names: Vec<&str> = request::all().iter().map(|work| work.name).collect();
        eprintln!("no request has such a name; there are {}", names.join(", "));
        return std::process::ExitCode::FAILURE;
    }
    let arena = Arena::lock();
    let requests: Vec<_> = works
        .iter()
        .map(|work| {
            eprintln!("timing {}", work.title);
            rounds::measure(&arena, work, args.rounds as usize)
        })
        .collect();
    let candidates: Vec<_> = RUNNERS.iter().map(|runner| json!({"name": runner.name, "note": runner.note})).collect();
    println!("{}", json!({"rounds": args.rounds, "candidates": candidates, "requests": requests}));
    std::process::ExitCode::SUCCESS
}
