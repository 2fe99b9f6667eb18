//! What is promised in numbers, measured from outside the image by the recorder plugin; and the proof that the recorder counts right.

use super::Context;
use super::runner::Case;
use super::variety::TIMEOUT;
use crate::measure::fixture::{Tools, VARIANTS};
use crate::measure::{self, Limits, Measurement, Options};
use crate::setup::{self, Qemu};
use crate::{exec, image, paths};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo xtask measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of CPUs
    #[arg(long, default_value_t = 1, value_name = "N")]
    smp: u32,
    /// Measure this layout
    #[arg(long, value_name = "N")]
    layout_seed: Option<u64>,
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
    let measurement = of_image(&ready.qemu, &plugin()?, &image, args.smp, &scratch)?;
    if args.json {
        anstream::println!("{}", measurement.to_json());
    } else {
        anstream::println!("{measurement}");
    }
    kept(&measurement)
}

/// The measurements of every test run.
///
/// # Errors
/// The recorder does not build.
pub(super) fn cases() -> Result<Vec<Case>> {
    let plugin = plugin()?;
    let promised = [1, 4].map(|smp| {
        let plugin = plugin.clone();
        Case::new(format!("measure/promises-{smp}-cpus"), move |context: &Context, scratch: &Path| {
            kept(&of_image(&context.ready.qemu, &plugin, &context.image, smp, scratch)?)
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

fn of_image(qemu: &Qemu, plugin: &Path, image: &image::Image, smp: u32, scratch: &Path) -> Result<Measurement> {
    let mut options = Options::new(&qemu.program, plugin, &image.img, &scratch.join("boot.trace"));
    options.elf = Some(image.elf.clone());
    options.smp = smp;
    options.timeout = TIMEOUT;
    measure::measure(&options)
}

fn kept(measurement: &Measurement) -> Result<()> {
    ensure!(measurement.exit_status == Some(0), "the boot ended with {:?}", measurement.exit_status);
    let broken = measurement.broken_promises(Limits::PROMISED);
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

fn tools(qemu: &Qemu, plugin: PathBuf, scratch: &Path) -> Result<Tools> {
    let sysroot = setup::sysroot().context("cannot find the compiler")?;
    Ok(Tools {
        qemu: qemu.program.clone(),
        plugin,
        rustc: sysroot.join("bin/rustc"),
        target: paths::TARGET.to_owned(),
        source: paths::root().join("tests/recorder/images/small_boot.S"),
        scratch: scratch.to_path_buf(),
    })
}

/// Builds the recorder.
fn plugin() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    exec::run(cargo.current_dir(paths::root()).args(["build", "--release", "--package", "breakwater-recorder"]))?;
    Ok(paths::target().join("release/libbreakwater_recorder.so"))
}
