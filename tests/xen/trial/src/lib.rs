//! Debian's Xen, built from its source twice: as it is, and with this core in place of its own boot tables and
//! page-table editor.
//!
//! Why it exists: the core is there because Xen on Arm's boot code breaks the architecture. The proof is Xen itself,
//! with the core in it, beside what it was. What must hold: none of Xen's text is in this repository, only names and
//! the edits that our variant needs; everything fetched and built stays below one directory; nothing is built as root.
//!
//! * [`source`] fetches the tree; [`edit`] changes a copy by names, [`edits`] is what our variant changes; [`mod@build`]
//!   makes both. [`boot`] boots one on a machine, [`matrix`] names the machines.

#![forbid(unsafe_code)]

pub mod boot;
pub mod build;
pub mod edit;
pub mod edits;
pub mod matrix;
pub mod source;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use breakwater_witness::child::Finished;
use breakwater_witness::{Tools, pool, ui};

use boot::Supply;
use build::{Bench, Built, Recipe, Variant};
use matrix::Row;

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
    /// Print the names of the boots, and do nothing
    #[arg(long)]
    list: bool,
    /// Only boots whose name contains this; once more for each further one
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// Boots at a time
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
    /// Seconds of work of QEMU's until a boot counts as hung
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
    pub library: &'a (dyn Fn() -> Result<PathBuf> + Sync),
}

/// Fetches, builds, boots.
///
/// # Errors
/// Something cannot be had or built, or a boot is not what it should be.
pub fn command(args: &Args, ground: &Ground<'_>) -> Result<()> {
    let is_wanted = |row: &Row| args.filters.is_empty() || args.filters.iter().any(|text| row.name.contains(text));
    let rows: Vec<Row> = matrix::rows().into_iter().filter(is_wanted).collect();
    ensure!(!rows.is_empty(), "no boot has such a name: --list prints them");
    if args.list {
        rows.iter().for_each(|row| anstream::println!("{}", row.name));
        return Ok(());
    }
    let variants: &[Variant] = if args.stock_only { &[Variant::Stock] } else { &[Variant::Stock, Variant::Ours] };
    let bench = Bench::new(&ground.home)?;
    let failed = boots(args, ground, &bench, variants, &rows)?;
    ensure!(failed == 0, "{failed} boots of {} failed", variants.len() * rows.len());
    Ok(())
}

/// Builds what the rows need, and boots each; how many failed.
fn boots(args: &Args, ground: &Ground<'_>, bench: &Bench, variants: &[Variant], rows: &[Row]) -> Result<usize> {
    let mut all = Vec::new();
    for variant in variants {
        let library = (*variant == Variant::Ours).then(|| (ground.library)()).transpose()?;
        for row in rows {
            all.push((row, bench.build(&Recipe::of(*variant, row.flavour), library.as_deref())?));
        }
    }
    let progress = ui::Progress::new(all.len() as u64);
    let done = |(row, built): &(&Row, Built), outcome: &Result<Finished>| match outcome {
        Ok(finished) => {
            progress.done(true, Some(&format!("{}/{} in {:.1} s", built.name, row.name, finished.took.as_secs_f64())));
        }
        Err(error) => progress.done(false, Some(&format!("{}/{}: {error:#}", built.name, row.name))),
    };
    let outcomes = pool::each(
        args.jobs.into(),
        &all,
        |_, (row, built)| {
            let scratch = ground.tools.scratch.join(format!("{}-{}", built.name, row.name));
            let mut command = row.case.command(&ground.tools.qemu, &built.image, ground.supply, &scratch)?;
            let outcome = row.case.run(&mut command, Duration::from_secs(args.timeout));
            // Disks, above all.
            fs::remove_dir_all(&scratch)?;
            Ok(outcome)
        },
        |item, outcome| done(item, outcome),
    )?;
    Ok(outcomes.iter().filter(|outcome| outcome.is_err()).count())
}
