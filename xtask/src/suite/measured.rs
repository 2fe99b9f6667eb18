//! What is promised in numbers, measured from outside the image by the recorder plugin; and the proof that the recorder counts right.
//! So are the counts of `cargo xtask bench`: they are exact, and can be tested; its times are not, and are not.
//!
//! The proof: `tests/witness/recorder/images/small_boot.S` is a boot in forty instructions and two loops. Its figures follow from its text
//! alone, so they are written down here and compared exactly: QEMU, the recorder, the trace format and the replay all have to be right for
//! that. A twin must break its own promise and no other.

use super::assembled::{Assembled, LOAD_ADDRESS, Source};
use super::runner::Case;
use super::variety::TIMEOUT;
use super::{Context, host};
use crate::boot::patient;
use crate::setup::Toolchain;
use crate::{bench, exec, witness};
use anyhow::{Result, ensure};
use breakwater_witness::measure::{Limits, Measurement, in_order, measure};
use breakwater_witness::recorded::Options;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The measurements of every test run.
///
/// # Errors
/// The small boot cannot be assembled.
pub(super) fn cases() -> Result<Vec<Case>> {
    let promised = [("cortex-a57", 1), ("cortex-a57", 4), ("cortex-a76", 2), ("max", 8)].map(|(cpu, smp)| {
        Case::new(format!("measure/promises-{cpu}-{smp}-cpus"), move |context: &Context, scratch: &Path| {
            let options = options(context, (cpu, smp), scratch)?;
            let is_pinned = matches!(context.ready.toolchain, Toolchain::Pinned);
            let limits = if is_pinned { Limits::PROMISED } else { Limits::OF_ANY_COMPILER };
            measure(&options)?.kept(smp, limits)?;
            in_order(&options)
        })
    });
    let small_boots = Arc::new(Assembled::new("small_boot", &VARIANTS.map(|variant| variant.source()))?);
    let proofs = VARIANTS.into_iter().map(|variant| {
        let small_boots = Arc::clone(&small_boots);
        Case::new(format!("measure/recorder-{}", variant.name), move |context, scratch| {
            variant.check(&small_boots, context, scratch)
        })
    });
    Ok(promised.into_iter().chain(proofs).collect())
}

fn options(context: &Context, (cpu, smp): (&str, u32), scratch: &Path) -> Result<Options> {
    let tools = witness::tools(&context.ready.qemu, scratch)?;
    let mut options = Options::new(&tools, &context.image.img, &scratch.join("boot.trace"));
    options.elf = Some(context.image.elf.clone());
    (options.cpu, options.smp) = (cpu.to_owned(), smp);
    (options.features, options.house_rules) = (witness::weakest(cpu), true);
    (options.append, options.timeout) = (patient("exit=semihosting"), TIMEOUT);
    Ok(options)
}

/// What `cargo xtask bench` counts, as breakwater-bench has it: the same in each boot, and within its limits; so is what is
/// promised of a boot.
pub(super) fn bench_case() -> Case {
    Case::new("bench/exact-counts", |context: &Context, scratch: &Path| {
        let sizes = &bench::SIZES[..bench::PROMISED];
        let counted = bench::boots(&context.ready, &context.image.img, sizes, scratch)?;
        let mut told = Command::new(host::program(bench::PACKAGE)?);
        exec::ask(told.args(["--rounds", "0", "--target"]).arg(counted)).map(drop)
    })
}

/// A variant of the small boot: the number of its fault, and the only promise it may break, by a part of its text.
struct Variant {
    /// What it is called in a list of tests.
    name: &'static str,
    fault: u32,
    cpus: u32,
    breaks: Option<&'static str>,
    exceptions: u64,
}

const GOOD: Variant = Variant { name: "good_small_boot", fault: 0, cpus: 1, breaks: None, exceptions: 0 };

/// All variants.
const VARIANTS: [Variant; 9] = [
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

impl Variant {
    fn source(&self) -> Source {
        let files = vec!["tests/witness/recorder/images/small_boot.S".to_owned()];
        Source { name: self.name.to_owned(), defines: format!(".set FAULT, {}", self.fault), files }
    }

    /// Links, runs and compares: every figure is what the image's text says.
    fn check(&self, small_boots: &Assembled, context: &Context, scratch: &Path) -> Result<()> {
        let image = small_boots.link(self.name, &context.ready.toolchain)?.raw;
        let mut options =
            Options::new(&witness::tools(&context.ready.qemu, scratch)?, &image, &scratch.join("boot.trace"));
        (options.smp, options.load_address) = (self.cpus, Some(LOAD_ADDRESS));
        let measured = measure(&options)?;
        // A fault in the window makes it longer, which is not what it is here for.
        let broken = measured.broken_promises(Limits { mmu_off: 40, ..Limits::PROMISED });
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
}
