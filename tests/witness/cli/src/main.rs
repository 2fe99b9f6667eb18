//! `breakwater-witness`: the command line.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use breakwater_witness::{Tools, judge, measure, mutate, paths, qemu, run, story, ui, watch};
use clap::{Parser, Subcommand};

/// Watch an image boot at EL2 and say where it breaks the rules of the architecture
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch an image boot under QEMU, instruction by instruction, and judge it
    #[command(after_help = watch::EXIT_STATUSES)]
    Run(Box<run::Args>),
    /// Judge a trace, written by anyone
    #[command(after_help = judge::AFTER_HELP)]
    Judge(judge::Args),
    /// Count what a boot costs and exposes
    Measure(Box<measure::Args>),
    /// Take each barrier and each maintenance instruction of an image away, one at a time: is every one missed?
    Mutate(Box<mutate::Args>),
    /// Tell the Xen story as a table: what is flagged, and which cores would have crashed
    Story(story::Args),
}

/// Where memory runs out, or a judge is wrong about itself, there is no verdict, which is a status of its own: Rust
/// then aborts, and that is turned into the status of `verb`. What happened has been said on standard error.
fn without_verdict(verb: &Verb) -> Result<()> {
    let status = match verb {
        Verb::Judge(_) => 2,
        Verb::Run(_) => watch::Verdict::Undecided.exit_code().into(),
        Verb::Measure(_) | Verb::Mutate(_) | Verb::Story(_) => return Ok(()),
    };
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGABRT, status, always)?;
    Ok(())
}

fn main() -> ExitCode {
    let verb = Cli::parse().command;
    let outcome = without_verdict(&verb).and_then(|()| command(&verb));
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if !breakwater_witness::is_said(&error) {
        ui::failure(&format!("{error:#}"));
    }
    ExitCode::from(breakwater_witness::exit_code(&error))
}

fn command(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Run(args) => {
            args.check()?;
            with_tools(args.qemu.as_deref(), |tools| run::command(args, tools))
        }
        Verb::Judge(args) => judge::command(args),
        Verb::Measure(args) => with_tools(args.qemu.as_deref(), |tools| measure::command(args, tools)),
        Verb::Mutate(args) => with_tools(args.qemu.as_deref(), |tools| mutate::command(args, tools)),
        Verb::Story(args) if args.image.is_none() => story::command(args, None),
        Verb::Story(args) => with_tools(args.qemu.as_deref(), |tools| story::command(args, Some(tools))),
    }
}

/// Does `work` with an emulator, and with a directory for its files that is gone afterwards.
fn with_tools(asked: Option<&Path>, work: impl FnOnce(&Tools) -> Result<()>) -> Result<()> {
    let qemu = qemu::required(asked)?;
    let scratch = paths::scratch_in(&std::env::temp_dir())?;
    work(&Tools::new(qemu, scratch.path(), &paths::cache())?)
}
