//! What is promised in numbers, measured from outside the image by the recorder plugin; and the proof that the recorder counts right.

use super::Context;
use super::runner::Case;
use super::variety::TIMEOUT;
use crate::measure::fixture::{Tools, VARIANTS};
use crate::measure::{self, Limits, Measurement, Options};
use crate::mutations::{self, Fate};
use crate::setup::{self, Qemu};
use crate::{exec, image, paths, recorded, ui};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `cargo xtask measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// CPU model
    #[arg(long, default_value = "cortex-a57", value_name = "MODEL")]
    cpu: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 1, value_name = "N")]
    smp: u32,
    /// Measure this layout
    #[arg(long, value_name = "N")]
    layout_seed: Option<u64>,
    /// Instead: remove, weaken and move each barrier of the boot assembly, one at a time; every mutant must be noticed
    #[arg(long)]
    mutate: bool,
    /// Keep the recorded boot as a trace for `cargo xtask judge`
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the figures as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
}

/// Runs `measure`: prints the figures, and fails when one breaks a promise.
///
/// # Errors
/// Set-up, build or boot failed, or a promise is broken.
pub(crate) fn command(args: &Args) -> Result<()> {
    let ready = setup::ready(args.qemu.as_deref())?;
    let recipe = image::Recipe { layout_seed: args.layout_seed, ..image::Recipe::default() };
    let image = image::build(&ready.toolchain, &recipe)?;
    let scratch = paths::out().join("measure");
    std::fs::create_dir_all(&scratch)?;
    let mut options = options(&ready.qemu, &plugin()?, &image, (&args.cpu, args.smp), &scratch);
    if args.mutate {
        (options.smp, options.memory, options.timeout) = (2, "256M".to_owned(), Duration::from_secs(3));
        return mutate(&options);
    }
    let measurement = measure::measure(&options)?;
    if args.json {
        anstream::println!("{}", measurement.to_json());
    } else {
        anstream::println!("{measurement}");
    }
    if let Some(file) = &args.trace {
        recorded::save(&options, file)?;
        ui::step("Wrote", &paths::shown(file));
    }
    kept(&measurement, args.smp)?;
    in_order(&options)
}

/// The measurements of every test run.
///
/// # Errors
/// The recorder does not build.
pub(super) fn cases() -> Result<Vec<Case>> {
    let plugin = plugin()?;
    let promised = [("cortex-a57", 1), ("cortex-a57", 4), ("cortex-a76", 2), ("max", 8)].map(|(cpu, smp)| {
        let plugin = plugin.clone();
        Case::new(format!("measure/promises-{cpu}-{smp}-cpus"), move |context: &Context, scratch: &Path| {
            let options = options(&context.ready.qemu, &plugin, &context.image, (cpu, smp), scratch);
            kept(&measure::measure(&options)?, smp)?;
            in_order(&options)
        })
    });
    let proofs = VARIANTS.iter().map(|variant| {
        let plugin = plugin.clone();
        Case::new(format!("measure/recorder-{}", variant.name), move |context, scratch| {
            variant.check(&tools(&context.ready.qemu, plugin, scratch)?)
        })
    });
    Ok(promised.into_iter().chain(proofs).collect())
}

fn options(qemu: &Qemu, plugin: &Path, image: &image::Image, (cpu, smp): (&str, u32), scratch: &Path) -> Options {
    let mut options = Options::new(&qemu.program, plugin, &image.img, &scratch.join("boot.trace"));
    options.elf = Some(image.elf.clone());
    (options.cpu, options.smp) = (cpu.to_owned(), smp);
    options.timeout = TIMEOUT;
    options
}

fn kept(measurement: &Measurement, smp: u32) -> Result<()> {
    ensure!(measurement.exit_status == Some(0), "the boot ended with {:?}", measurement.exit_status);
    let broken = measurement.broken_promises(Limits::PROMISED);
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    let started = measurement.cpus.iter().filter(|cpu| cpu.start.is_some()).count();
    ensure!(started == smp as usize, "{started} CPUs started of {smp}");
    Ok(())
}

/// The recorded boot keeps every rule of the oracle.
fn in_order(options: &Options) -> Result<()> {
    let lines = recorded::judge(&recorded::loaded(options)?, options)?.lines();
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

/// Removes, weakens and moves each barrier of boot/, one at a time, and boots each mutant: all must be noticed.
fn mutate(options: &Options) -> Result<()> {
    let total = std::sync::OnceLock::new();
    let fates = mutations::mutations(options, &paths::root().join("boot"), &mut |_, count, mutant, fate| {
        total
            .get_or_init(|| ui::Progress::new(count as u64))
            .done(*fate != Fate::Survived, Some(&format!("{mutant}: {fate:?}")));
    })?;
    let count = |wanted: Fate| fates.iter().filter(|(_, fate)| *fate == wanted).count();
    let (survived, unexecuted) = (count(Fate::Survived), count(Fate::NotExecuted));
    anstream::println!("{} mutants: {survived} survived, {unexecuted} not executed in this boot", fates.len());
    ensure!(survived == 0, "{survived} mutants survived");
    Ok(())
}

fn tools(qemu: &Qemu, plugin: PathBuf, scratch: &Path) -> Result<Tools> {
    let sysroot = setup::sysroot().context("cannot find the compiler")?;
    Ok(Tools {
        qemu: qemu.program.clone(),
        plugin,
        rustc: sysroot.join("bin/rustc"),
        target: paths::TARGET.to_owned(),
        source: paths::root().join("tests/witness/recorder/images/small_boot.S"),
        scratch: scratch.to_path_buf(),
    })
}

/// Builds the recorder.
///
/// # Errors
/// It does not build.
pub(crate) fn plugin() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    exec::run(cargo.current_dir(paths::root()).args(["build", "--release", "--package", "breakwater-recorder"]))?;
    Ok(paths::target().join("release/libbreakwater_recorder.so"))
}
