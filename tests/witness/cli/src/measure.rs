//! `measure`: what the image's boot costs and exposes, measured from outside of it.
//!
//! QEMU runs the image with the recorder plugin (`tests/witness/recorder`); the trace is replayed here over a shadow of physical memory.
//! Nothing that the image says of itself is used, and no code of the image's own page-table manager either.
//!
//! * `run` starts QEMU; `replay` drives everything else, record by record.
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
pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use breakwater_oracle::tables::Memory;
use breakwater_trace::Feature;

use crate::Tools;
use crate::elf::Names;

pub use args::{Args, command, in_order};
pub use result::{
    CpuFigures, Enable, Exposed, Limits, LiveChange, Measurement, Milestone, RootSwitch, Share, StoredTwice,
    TableStores,
};

/// A file in physical memory before the first instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Physical address, a multiple of 8.
    pub pa: u64,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl Loaded {
    /// Declares the contents to `memory`.
    pub(crate) fn declare(&self, memory: &mut Memory) {
        self.words().for_each(|(pa, value)| memory.declare(pa, value));
    }

    /// Physical address and value of each word of eight bytes, the last filled up with zeros.
    pub fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bytes.chunks(8).zip((self.pa..).step_by(8)).map(|(chunk, pa)| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (pa, u64::from_le_bytes(word))
        })
    }
}

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The emulator and the recorder.
    pub tools: Tools,
    /// The raw image.
    pub image: PathBuf,
    /// Its ELF file, for symbols.
    pub elf: Option<PathBuf>,
    /// Where the image lies in physical memory; by default where QEMU's virt machine puts a Linux `Image` given as `-kernel`.
    pub load_address: Option<u64>,
    /// `-M`.
    pub machine: String,
    /// `-cpu`.
    pub cpu: String,
    /// `-smp`.
    pub smp: u32,
    /// `-m`.
    pub memory: String,
    /// `-append`.
    pub append: String,
    /// Adds `-icount shift=0,sleep=off`; one CPU only, because QEMU then gives plugins wrong CPU numbers.
    pub icount: bool,
    /// Further arguments. Without a `-kernel` or a loader device among them the image is passed as a kernel, with the command line.
    pub extra: Vec<String>,
    /// Where the trace goes.
    pub trace: PathBuf,
    /// Where the serial console's output goes; nowhere by default.
    pub serial: Option<PathBuf>,
    /// Ends the run after this many instructions of a CPU; for images that do not end by themselves.
    pub limit: Option<u64>,
    /// Records fetches too, for [`Measurement::profile`] and the image's entry among the milestones.
    pub fetches: bool,
    /// Records every load, not those with the MMU off alone.
    pub loads: bool,
    /// Records those besides that say something of the order between CPUs.
    pub shared_loads: bool,
    /// The largest trace; by default the recorder's own limit.
    pub cap_bytes: Option<u64>,
    /// Features and errata that every CPU is judged by.
    pub features: Vec<Feature>,
    /// The image is held to house rules besides.
    pub house_rules: bool,
    /// Ends the run, as a failure.
    pub timeout: Duration,
}

impl Options {
    /// One cortex-a57 with 2 GiB: the machine that this project's promises are about.
    #[must_use]
    pub fn new(tools: &Tools, image: &Path, trace: &Path) -> Self {
        Self {
            tools: tools.clone(),
            image: image.into(),
            elf: None,
            load_address: None,
            machine: "virt,virtualization=on,gic-version=3".into(),
            cpu: "cortex-a57".into(),
            smp: 1,
            memory: "2G".into(),
            append: String::new(),
            icount: false,
            extra: Vec::new(),
            trace: trace.into(),
            serial: None,
            limit: None,
            fetches: true,
            loads: false,
            shared_loads: false,
            cap_bytes: None,
            features: Vec::new(),
            house_rules: false,
            timeout: Duration::from_secs(60),
        }
    }
}

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
    let exit_status = run::run(options)?;
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

/// Where QEMU's virt machine loads a Linux arm64 `Image`: its text offset above the start of RAM, 2 MiB further up if
/// that would cover QEMU's own first instructions.
pub fn virt_load_address(image: &[u8]) -> Result<u64> {
    const RAM: u64 = 0x4000_0000;
    const BOOT_CODE: u64 = 0x1000;
    const BEYOND_BOOT_CODE: u64 = 0x20_0000;
    ensure!(image.get(56..60) == Some(b"ARM\x64"), "this is no arm64 Image: say where it is loaded");
    let mut offset = [0; 8];
    offset.copy_from_slice(&image[8..16]);
    let offset = u64::from_le_bytes(offset);
    ensure!(offset < 1 << 48, "the text offset {offset:#x} is beyond any memory");
    Ok(RAM + if offset < BOOT_CODE { offset + BEYOND_BOOT_CODE } else { offset })
}
