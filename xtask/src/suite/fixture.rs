//! Is the measurement itself right? A small image of known figures, and twins that each break one promise.
//!
//! `tests/witness/recorder/images/small_boot.S` is a boot in forty instructions and two loops. Its figures follow from its text alone, so
//! they are written down here and compared exactly: QEMU, the recorder, the trace format and the replay all have to be right
//! for that. A twin must break its own promise and no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};

use breakwater_witness::measure::{Limits, Measurement, measure};
use breakwater_witness::recorded::Options;

/// Where everything that is needed for the check is.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The emulator and the recorder.
    pub(crate) tools: breakwater_witness::Tools,
    /// The compiler, which assembles.
    pub(crate) rustc: PathBuf,
    /// `aarch64-unknown-none-softfloat`; its `core` must be installed.
    pub(crate) target: String,
    /// `tests/witness/recorder/images/small_boot.S`.
    pub(crate) source: PathBuf,
    /// A directory for what is built and recorded.
    pub(crate) scratch: PathBuf,
}

/// A variant of the image: the number of its fault, and the only promise it may break, by a part of its text.
pub(crate) struct Variant {
    /// What it is called in a list of tests.
    pub(crate) name: &'static str,
    fault: u32,
    cpus: u32,
    breaks: Option<&'static str>,
    exceptions: u64,
}

const GOOD: Variant = Variant { name: "good_small_boot", fault: 0, cpus: 1, breaks: None, exceptions: 0 };

/// All variants.
pub(crate) const VARIANTS: [Variant; 9] = [
    GOOD,
    Variant { name: "good_small_boot_on_two_cpus", cpus: 2, ..GOOD },
    Variant {
        name: "bad_writable_executable",
        fault: 1,
        breaks: Some("2024 instructions with 0x40200000 writable and executable"),
        ..GOOD
    },
    Variant {
        name: "bad_store_in_the_window",
        fault: 2,
        breaks: Some("0 loads and 1 stores with the MMU off"),
        ..GOOD
    },
    Variant { name: "bad_slot_stored_twice", fault: 3, breaks: Some("slot 0x40204008"), ..GOOD },
    Variant { name: "bad_live_change", fault: 4, breaks: Some("changed live slot 0x40202010"), ..GOOD },
    Variant { name: "bad_wxn_with_m", fault: 5, breaks: Some("WXN was not in force before M"), ..GOOD },
    Variant { name: "bad_root_with_mmu_on", fault: 6, breaks: Some("root switched with the MMU on"), ..GOOD },
    Variant { name: "good_exception_is_seen", fault: 7, exceptions: 1, ..GOOD },
];

/// Instructions of the good variant: QEMU's own six included, up to the second root; and what its second CPU executes
/// before it parks.
const TO_RUNTIME_ROOT: u64 = 2071;
const MMU_OFF: u64 = 7;
const SECOND_CPU_TO_MMU_ON: u64 = 19;
const SECOND_CPU: u64 = 2027;
/// Where QEMU puts a raw binary that is no Linux image.
const LOAD_ADDRESS: u64 = 0x4008_0000;

impl Variant {
    /// Builds, runs and compares.
    ///
    /// # Errors
    /// The image could not be built or run, or a figure is not what the image's text says.
    pub(crate) fn check(&self, tools: &Tools) -> Result<()> {
        self.compare(tools).with_context(|| format!("measuring {}", self.name))
    }

    fn compare(&self, tools: &Tools) -> Result<()> {
        fs::create_dir_all(&tools.scratch)?;
        let image = self.assemble(tools)?;
        let mut options = Options::new(&tools.tools, &image, &image.with_extension("trace"));
        (options.smp, options.load_address) = (self.cpus, Some(LOAD_ADDRESS));
        let measured = measure(&options)?;
        let broken = measured.broken_promises(Limits::PROMISED);
        let expected = broken.len() == usize::from(self.breaks.is_some())
            && self.breaks.is_none_or(|part| broken.iter().all(|promise| promise.contains(part)));
        ensure!(expected, "breaks {broken:?}, and not {:?}", self.breaks);
        ensure!(measured.exit_status == Some(0), "QEMU exited with {:?}", measured.exit_status);
        let exceptions = measured.cpus.first().map_or(0, |cpu| cpu.exceptions);
        ensure!(exceptions == self.exceptions, "{exceptions} exceptions, not {}", self.exceptions);
        if self.fault == 0 { self.compare_figures(&measured) } else { Ok(()) }
    }

    fn compare_figures(&self, measured: &Measurement) -> Result<()> {
        let off = measured.cpus.first().and_then(|cpu| cpu.switches.first()).map(|switch| switch.mmu_off);
        ensure!(measured.to_runtime_root == Some(TO_RUNTIME_ROOT), "{:?} to the root", measured.to_runtime_root);
        ensure!(off == Some(MMU_OFF), "{off:?} with the MMU off");
        ensure!(measured.cpus.len() == self.cpus as usize, "{} CPUs", measured.cpus.len());
        if let Some(second) = measured.cpus.get(1) {
            let enabled = second.enables.first().map(|enable| enable.instruction);
            ensure!(enabled == Some(SECOND_CPU_TO_MMU_ON), "second CPU: MMU on at {enabled:?}");
            // The machine may end before the second CPU has executed its last instructions.
            let executed = second.instructions;
            ensure!((SECOND_CPU - 3..=SECOND_CPU).contains(&executed), "second CPU: {executed} instructions");
        }
        Ok(())
    }

    /// The image: the text section of the assembled source, which is position independent.
    fn assemble(&self, tools: &Tools) -> Result<PathBuf> {
        let at = |extension: &str| tools.scratch.join(self.name).with_extension(extension);
        let wrapper = format!(
            "#![no_std]\ncore::arch::global_asm!(\".set FAULT, {}\", include_str!({:?}), options(raw));\n",
            self.fault,
            absolute(&tools.source)?
        );
        fs::write(at("rs"), wrapper)?;
        let mut rustc = Command::new(&tools.rustc);
        rustc.args(["--edition=2024", "--crate-type=lib", "--emit=obj", "--target", &tools.target, "-o"]);
        let output = rustc.arg(at("o")).arg(at("rs")).output().context("the compiler cannot be run")?;
        ensure!(output.status.success(), "assembling failed: {}", String::from_utf8_lossy(&output.stderr));
        let object = fs::read(at("o"))?;
        let file = object::File::parse(&*object)?;
        let text = file.section_by_name(".text").context("the object has no text")?;
        fs::write(at("img"), text.data()?)?;
        Ok(at("img"))
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}
