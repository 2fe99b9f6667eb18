//! Breakwater's own commands: set up, build, boot, test, lint. `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod boot;
mod checks;
mod elf;
mod exec;
mod guest;
mod image;
mod linkmap;
mod lint;
mod loader;
mod machine;
mod measure;
mod paths;
mod sequences;
mod setup;
mod suite;
mod trees;
mod ui;
mod verdict;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Set up, build, boot and test Breakwater
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch what is missing: the Rust target and QEMU (the other commands do this by themselves)
    Setup(setup::Args),
    /// Build the image: target/breakwater/breakwater.elf and .img
    Build(image::Args),
    /// Boot the image under QEMU and judge its report
    #[command(after_help = boot::EXIT_STATUSES)]
    Boot(boot::Args),
    /// Run every test; the last line is `N passed, N failed`
    Test(suite::Args),
    /// Boot many machines, layouts and times
    Matrix(suite::MatrixArgs),
    /// Count from outside what the boot costs and exposes
    Measure(suite::MeasureArgs),
    /// Format, clippy and rustdoc for host and target, and the house rules
    Lint,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome: Result<()> = match &cli.command {
        Verb::Setup(args) => setup::command(args),
        Verb::Build(args) => image::command(args),
        Verb::Boot(args) => boot::command(args),
        Verb::Test(args) => suite::command(args),
        Verb::Matrix(args) => suite::matrix(args),
        Verb::Measure(args) => suite::measure(args),
        Verb::Lint => lint::command(),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if !error.is::<suite::TestsFailed>() {
        ui::failure(&format!("{error:#}"));
    }
    let code = error.downcast_ref::<verdict::Failure>().map_or(1, |failure| failure.kind.exit_code());
    ExitCode::from(code)
}
