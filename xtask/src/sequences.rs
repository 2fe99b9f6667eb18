//! Does every barrier of a boot stand where the architecture wants it? Judged from the recorder's trace, CPU by CPU.
//!
//! Why it exists: QEMU hides all of this. An image without one DSB, TLBI or DC boots there as well as one that has them all. So the
//! rules of the Arm ARM's sequences (first enable, root switch, secondaries, live edits) are judged here from the outside, whatever the
//! image and its layout: no golden trace, no symbol, none of the image's own code.
//!
//! * `replay` reads the trace and asks every judge about every event.
//! * `enable` judges one CPU's registers: first enable, root switch, HCR_EL2, VBAR_EL2.
//! * `lines` judges cache maintenance: of what is written with the MMU off, and of what a CPU loads with its MMU off.
//! * `live` judges stores to tables in force: fill, break, change in place, link.
//! * `reach` walks tables, `barriers` says what a barrier or TLBI is good for.
//! * `mutations` is the proof that the judges bite: the image with one instruction removed, weakened or moved, again and again.
//!
//! What it does not see: loads with the MMU on and instruction fetches (the trace could carry them, at ten times the size); so a
//! missing ISB after a fill is found only when a store or a traced instruction uses the new mapping, or at the end.

mod barriers;
mod enable;
mod lines;
mod live;
pub(crate) mod mutations;
mod reach;
mod replay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use breakwater_trace::Step;

use crate::measure::Loaded;

/// What the machine adds to the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demands {
    /// Broadcast invalidations are repeated: one of the CPUs has the erratum (1286807, CVE-2025-10263).
    pub repeat_tlbi: bool,
    /// Bytes in the CPUs' smallest data-cache line.
    pub line_bytes: u64,
}

impl Demands {
    /// What QEMU's model `cpu` (as in `-cpu`) demands.
    #[must_use]
    pub(crate) fn of_cpu(cpu: &str) -> Self {
        const REPEATING: [&str; 6] =
            ["cortex-a76", "cortex-a710", "cortex-a78", "neoverse-n1", "neoverse-n2", "neoverse-v1"];
        Self { repeat_tlbi: REPEATING.contains(&cpu), line_bytes: 64 }
    }
}

/// A broken rule, with its evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// The CPU that broke it.
    pub cpu: u32,
    /// Ordinal of its instruction.
    pub instruction: u64,
    /// The instruction's address.
    pub pc: u64,
    /// The rule in short, the same for every breach of it.
    pub rule: &'static str,
    /// What exactly was seen.
    pub evidence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, instruction, pc, rule, evidence } = self;
        write!(f, "CPU {cpu}, instruction {instruction} at {pc:#x}: {rule}")?;
        if evidence.is_empty() { Ok(()) } else { write!(f, " ({evidence})") }
    }
}

/// Collects findings; one for each rule and place is enough.
#[derive(Default)]
struct Findings {
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, step: &Step, rule: &'static str, evidence: impl Into<String>) {
        let Step { cpu, instruction, pc, .. } = *step;
        if !self.found.iter().any(|known| (known.cpu, known.pc, known.rule) == (cpu, pc, rule)) {
            self.found.push(Finding { cpu, instruction, pc, rule, evidence: evidence.into() });
        }
    }

    fn require(&mut self, holds: bool, step: &Step, rule: &'static str) {
        if !holds {
            self.add(step, rule, "");
        }
    }
}

/// Judges a recorded boot; empty if it keeps every rule. The first of `loaded` is the image.
///
/// # Errors
/// A file that cannot be read, a malformed or cut-off trace with its line.
pub(crate) fn check(trace: &Path, loaded: &[Loaded], demands: Demands) -> Result<Vec<Finding>> {
    let name = || trace.display().to_string();
    let file = File::open(trace).with_context(name)?;
    check_records(BufReader::with_capacity(1 << 20, file), loaded, demands).with_context(name)
}

/// [`check`] of a trace that is no file.
///
/// # Errors
/// A malformed or cut-off trace, with its line.
pub(crate) fn check_records(trace: impl BufRead, loaded: &[Loaded], demands: Demands) -> Result<Vec<Finding>> {
    replay::replay(trace, loaded, demands)
}
