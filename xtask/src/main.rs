//! Breakwater's own commands: set up, build, boot, test, bench, lint. `cargo xtask --help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod bisect;
mod boards;
mod boot;
mod card;
mod firmware;
mod flight;
mod image;
mod lint;
mod linux;
mod map;
mod matrix;
mod mutants;
mod paths;
mod report;
mod setup;
mod suite;
mod trees;
mod verdict;
mod witness;
mod xen;

use anyhow::Result;
use breakwater_witness::{child, exec, judge, loader, machine, ui, watch};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
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
    /// Build the image: target/breakwater/breakwater.img, which loaders take (-kernel), and .elf, for debuggers
    Build(image::Args),
    /// Boot the image under QEMU and judge its report
    #[command(after_help = boot::EXIT_STATUSES)]
    Boot(boot::Args),
    /// Make the file for a board's card, or for a disk: firmware, image, device tree and what starts them
    Image(card::Args),
    /// Write such a file to a card: asks first, and reads it back
    Flash(card::FlashArgs),
    /// Boot the example hypervisor with a guest: Debian's kernel, to user space and power-off
    Guest(linux::Args),
    /// Run every test; the last line is `N passed, N failed`
    Test(suite::Args),
    /// Boot many machines, by many loaders, in many layouts
    Matrix(matrix::Args),
    /// Find the commit that broke a flight
    Bisect(bisect::Args),
    /// Draw the memory map that a boot ends with
    Map(map::Args),
    /// Count from outside what the boot costs and exposes
    Measure(Box<witness::MeasureArgs>),
    /// Judge a trace, written by anyone, by the rules of the architecture
    #[command(after_help = judge::AFTER_HELP)]
    Judge(judge::Args),
    /// Watch an image boot, ours or anyone's, and say where it breaks the architecture
    #[command(after_help = watch::EXIT_STATUSES)]
    Witness(Box<witness::Args>),
    /// Take each barrier and maintenance instruction of our image away, one at a time, and weaken and swap those of
    /// boot/: all must be missed
    Mutate(mutants::Args),
    /// Tell the Xen story as a table: what is flagged, and which cores would have crashed, in Xen's boots and in ours
    Story(witness::StoryArgs),
    /// Build Debian's Xen from its source, as it is and with our core, boot both and print them side by side
    #[command(after_help = xen::AFTER_HELP)]
    Xen(xen::Args),
    /// Time requests on this machine beside other page-table crates, and count what they cost on the target
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Args),
    /// Read device trees, those of Debian's kernel or yours: consoles, CPUs, and what is refused
    Trees(boards::Args),
    /// Read what an image said from a dump of its memory
    #[command(after_help = report::HOW_TO_DUMP)]
    Report(report::Args),
    /// Format, clippy and rustdoc for host and target, and the house rules
    Lint(lint::Args),
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map(|(_, matches)| flight::given(matches)).unwrap_or_default();
    let outcome: Result<()> = match &cli.command {
        Verb::Setup(args) => setup::command(args),
        Verb::Build(args) => image::command(args),
        Verb::Boot(args) => boot::command(args, &given),
        Verb::Image(args) => card::command(args),
        Verb::Flash(args) => card::flash(args),
        Verb::Guest(args) => linux::command(args),
        Verb::Test(args) => suite::command(args),
        Verb::Matrix(args) => matrix::command(args),
        Verb::Bisect(args) => bisect::command(args),
        Verb::Map(args) => map::command(args, &given),
        Verb::Measure(args) => witness::measure(args),
        Verb::Judge(args) => judge::command(args),
        Verb::Witness(args) => witness::watch(args, &given),
        Verb::Mutate(args) => mutants::command(args),
        Verb::Story(args) => witness::story(args),
        Verb::Xen(args) => xen::command(args),
        Verb::Bench(args) => bench::command(args),
        Verb::Trees(args) => boards::command(args),
        Verb::Report(args) => report::command(args),
        Verb::Lint(args) => lint::command(args),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Tests that failed have been listed.
    if !error.is::<suite::TestsFailed>() && !breakwater_witness::is_said(&error) {
        ui::failure(&format!("{error:#}"));
    }
    ExitCode::from(exit_code(&error))
}

/// The command's exit status: 1 unless the error has one of its own.
fn exit_code(error: &anyhow::Error) -> u8 {
    let of_boot = error.downcast_ref::<verdict::Failure>().map(|failure| failure.kind.exit_code());
    of_boot.unwrap_or_else(|| breakwater_witness::exit_code(error))
}
