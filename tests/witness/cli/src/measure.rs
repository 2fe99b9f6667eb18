//! `measure`: what the image's boot costs and exposes, measured from outside of it.
//!
//! QEMU runs the image with the recorder plugin (`tests/witness/recorder`); the trace is replayed here over a shadow of physical memory.
//! Nothing that the image says of itself is used, and no code of the image's own page-table manager either.
//!
//! * `replay` drives everything else, record by record.
//! * `cpu` keeps what one CPU's registers say; memory and tables are followed by the oracle's [`tables`](breakwater_oracle::tables).
//! * `history` (stores to tables before they are in force) and `live` (stores to tables in force) hold the two checks that look at
//!   more than one event.
//! * `result` is what comes out, `print` its text and JSON forms.

mod cpu;
mod history;
mod live;
mod print;
pub(crate) mod replay;
mod result;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breakwater_trace::Feature;

use crate::loader::{Loaded, virt_load_address};
use crate::names::Names;
use crate::recorded::{self, Options};
use crate::{Tools, paths, ui};

pub use result::{
    CpuFigures, Enable, Exposed, Limits, LiveChange, Measurement, Milestone, RootSwitch, Share, StoredTwice,
    TableStores,
};

/// Runs the image under the recorder and measures.
///
/// # Errors
/// QEMU could not be run or did not end in time; the image could not be read; [`measure_trace`]'s errors.
pub fn measure(options: &Options) -> Result<Measurement> {
    let bytes = fs::read(&options.image).with_context(|| options.image.display().to_string())?;
    let pa = match options.load_address {
        Some(pa) => pa,
        None => virt_load_address(&bytes).with_context(|| options.image.display().to_string())?,
    };
    let exit_status = recorded::run(options)?;
    let mut measurement = measure_trace(&options.trace, options.elf.as_deref(), &[Loaded { pa, bytes }])?;
    measurement.exit_status = exit_status;
    Ok(measurement)
}

/// Measures a trace recorded earlier. The first of `loaded` is the image, which `elf` names the addresses of.
///
/// # Errors
/// A file that cannot be read, a malformed or cut-off trace with its line, a translation regime that is not supported.
pub fn measure_trace(trace: &Path, elf: Option<&Path>, loaded: &[Loaded]) -> Result<Measurement> {
    let name = || trace.display().to_string();
    let file = File::open(trace).with_context(name)?;
    let replayed = replay::replay(BufReader::new(file), loaded).with_context(name)?;
    let symbols = Names::read(elf.as_slice(), loaded, &[])?;
    let mut measurement = replayed.measurement;
    measurement.profile = result::shares(&replayed.profile, &symbols);
    Ok(measurement)
}

/// `measure`.
#[derive(Debug, Clone, clap::Args)]
// Else clap makes a group named Args, and a command that takes these options and others has one of its own.
#[group(skip)]
pub struct Args {
    /// Measure this image: a Linux Image, as QEMU's -kernel takes it
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Its ELF file, for the names of functions
    #[arg(long, value_name = "FILE", requires = "image")]
    pub elf: Option<PathBuf>,
    /// CPU model
    #[arg(long, default_value = "cortex-a57", value_name = "MODEL")]
    pub cpu: String,
    /// Number of CPUs
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub smp: u32,
    /// Command line of the image
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    pub append: String,
    /// Features and errata of every CPU, as the trace format spells them: bbm=2,ets2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub features: Vec<Feature>,
    /// Ask more than the architecture does, as `run --house-rules`
    #[arg(long)]
    pub house_rules: bool,
    /// Keep the recorded boot as a trace for `judge`
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print the figures as JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
}

/// Prints the figures, and fails when one breaks a promise.
///
/// # Errors
/// The boot failed, or a promise is broken.
pub fn command(args: &Args, tools: &Tools) -> Result<()> {
    let Some(image) = &args.image else { bail!("say what to measure: --image FILE") };
    let mut options = Options::new(tools, image, &tools.scratch.join("boot.trace"));
    options.elf.clone_from(&args.elf);
    (options.cpu, options.smp) = (args.cpu.clone(), args.smp);
    options.append.clone_from(&args.append);
    (options.features, options.house_rules) = (args.features.clone(), args.house_rules);
    options.timeout = Duration::from_secs(60);
    let measurement = measure(&options)?;
    if args.json {
        anstream::println!("{}", measurement.to_json());
    } else {
        anstream::println!("{measurement}");
    }
    if let Some(file) = &args.trace {
        recorded::save(&options, file)?;
        ui::step("Wrote", &paths::shown(file));
    }
    measurement.kept(args.smp, Limits::PROMISED)?;
    in_order(&options)
}

impl Measurement {
    /// Requires that the boot of `smp` CPUs succeeded and that every promise is kept, within `limits`.
    ///
    /// # Errors
    /// Each promise that is broken.
    pub fn kept(&self, smp: u32, limits: Limits) -> Result<()> {
        ensure!(self.exit_status == Some(0), "the boot ended with {:?}", self.exit_status);
        let broken = self.broken_promises(limits);
        ensure!(broken.is_empty(), "{}", broken.join("\n"));
        let started = self.cpus.iter().filter(|cpu| cpu.start.is_some()).count();
        ensure!(started == smp as usize, "{started} CPUs started of {smp}");
        Ok(())
    }
}

/// Requires that the recorded boot keeps every rule of the oracle.
///
/// # Errors
/// Each rule that is broken; a trace that cannot be read.
pub fn in_order(options: &Options) -> Result<()> {
    let lines = recorded::judge(&recorded::loaded(options)?, options)?.lines();
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}
