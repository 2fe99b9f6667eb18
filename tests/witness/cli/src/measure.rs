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

mod args;
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
use std::path::Path;

use anyhow::{Context, Result};

use crate::elf::Names;
use crate::loader::{Loaded, virt_load_address};
use crate::recorded::{self, Options};

pub use args::{Args, command, in_order};
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
    let symbols = match (elf, loaded.first()) {
        (Some(elf), Some(image)) => Names::read(elf, image.pa)?,
        _ => Names::default(),
    };
    let mut measurement = replayed.measurement;
    measurement.profile = result::shares(&replayed.profile, &symbols);
    Ok(measurement)
}
