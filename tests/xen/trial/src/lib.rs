//! Debian's Xen, built from its source twice: as it is, and with this core in place of its own boot tables and
//! page-table editor.
//!
//! Why it exists: the core is there because Xen on Arm's boot code breaks the architecture. The proof is Xen itself,
//! with the core in it, beside what it was. What must hold: none of Xen's text is in this repository, only names and
//! the edits that our variant needs; everything fetched and built stays below one directory; nothing is built as root.
//!
//! * [`source`] fetches the tree; [`edit`] changes a copy by names, [`edits`] is what our variant changes; [`build`]
//!   makes both, and [`boot`] boots them.

#![forbid(unsafe_code)]

pub mod boot;
pub mod build;
pub mod edit;
pub mod edits;
pub mod source;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use breakwater_witness::{Tools, exec, ui};

use boot::{Case, Supply};
use build::{Bench, Built, FLAVOURS, Recipe, Variant};

/// Shown by `--help`.
pub const AFTER_HELP: &str = "Everything is fetched and built below target/breakwater/xen. Exit status: 0 all is as it \
    should be, 1 it is not, 2 wrong command line";

/// `xen`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Only Xen as Debian has it
    #[arg(long)]
    stock_only: bool,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
    /// Seconds until a boot counts as hung
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// What a trial stands on.
pub struct Ground<'a> {
    /// Where all files go.
    pub home: PathBuf,
    /// The emulator and the recorder.
    pub tools: Tools,
    /// What domains run, and firmware.
    pub supply: &'a dyn Supply,
    /// Builds our library for Xen.
    pub library: &'a dyn Fn() -> Result<PathBuf>,
}

/// Fetches, builds, boots.
///
/// # Errors
/// Something cannot be had or built, or a boot is not what it should be.
pub fn command(args: &Args, ground: &Ground<'_>) -> Result<()> {
    let bench = Bench::new(&ground.home)?;
    let variants: &[Variant] = if args.stock_only { &[Variant::Stock] } else { &[Variant::Stock, Variant::Ours] };
    let mut failed = Vec::new();
    for variant in variants {
        let built = built(&bench, ground, Recipe::of(*variant, FLAVOURS[0]))?;
        if let Err(error) = booted(&Case::default(), &built, args, ground) {
            failed.push(format!("{}: {error:#}", built.name));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn built(bench: &Bench, ground: &Ground<'_>, recipe: Recipe) -> Result<Built> {
    let library = (recipe.variant == Variant::Ours).then(|| (ground.library)()).transpose()?;
    bench.build(&recipe, library.as_deref())
}

fn booted(case: &Case, built: &Built, args: &Args, ground: &Ground<'_>) -> Result<()> {
    let mut command = case.command(&ground.tools.qemu, &built.image, ground.supply, &ground.tools.scratch)?;
    ui::command(&exec::shown(&command));
    let finished = case.run(&mut command, Duration::from_secs(args.timeout))?;
    ui::step("Booted", &format!("{}, {} in {:.2} s", built.name, case.subject_name(), finished.took.as_secs_f64()));
    Ok(())
}
