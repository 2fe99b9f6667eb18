//! What this image promises of its registers beyond what the architecture demands of any: an automaton for each CPU.
//!
//! Why it exists: the oracle accepts whatever is sound. Some of what `boot/` does is sound without one of its steps only because of something
//! far away (both roots happen to agree, so a late invalidation does no harm; no exception happens to be taken before the vectors are
//! in force). The image does not lean on such luck, and this is where that is checked.
//!
//! What must hold, in the order of a boot: vectors are in force before anything may fault; HCR_EL2 is written and read back, because E2H may be
//! RES1; the MMU is turned on with WXN in force, C and I in the same step, an ISB next; a root switch turns M off and on and nothing
//! else, with everything invalidated before the new root is named.

use breakwater_oracle::descriptor::Descriptor;
use breakwater_oracle::level::Levels;
use breakwater_oracle::maintenance::{Invalidation, Ordering, Reach, TlbiTarget};
use breakwater_oracle::params::Features;
use breakwater_oracle::regime::{Control, Controls};
use breakwater_oracle::tables::{Memory, Words};
use breakwater_trace::{Access, Event, Operation, Record, Step};
use std::fmt;
use std::ops::Range;

const M: u64 = 1;
const C: u64 = 1 << 2;
const I: u64 = 1 << 12;
const WXN: u64 = 1 << 19;
const EE: u64 = 1 << 25;

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lapse {
    /// Line of the trace.
    pub line: u64,
    /// The CPU's step.
    pub step: Step,
    /// The promise.
    pub promise: &'static str,
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, step: Step { cpu, pc, .. }, promise } = self;
        write!(f, "line {line}, PE {cpu} at {pc:#x}: house rule: {promise}")
    }
}

/// All CPUs, and what their walks read.
pub(crate) struct Conduct {
    image: Range<u64>,
    memory: Memory,
    cpus: Vec<Conducting>,
    line: u64,
    lapses: Vec<Lapse>,
}

/// How far the invalidation of everything has come since M became 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Cleared {
    #[default]
    Owed,
    Issued(Reach),
    Complete,
    Synchronised,
}

/// How far HCR_EL2 has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Hypervisor {
    #[default]
    Unwritten,
    Written,
    Synchronised,
    ReadBack,
}

/// One CPU.
#[derive(Default)]
struct Conducting {
    controls: Controls,
    has_tcr2: bool,
    tcr2_written: bool,
    /// VBAR_EL2 as written, and as of the last ISB.
    vectors: (Option<u64>, Option<u64>),
    cleared: Cleared,
    hypervisor: Hypervisor,
    /// This image has had M at 1 before; what firmware had is its own affair.
    was_on: bool,
    levels: Levels,
    /// A full DSB, Inner Shareable at least, came after the last store.
    stores_settled: bool,
    /// The ordinal that has to be an ISB.
    isb_due: Option<u64>,
}

impl Conduct {
    /// Before the first record; the image lies at `image`.
    pub(crate) fn new(image: Range<u64>) -> Self {
        Self { image, memory: Memory::default(), cpus: Vec::new(), line: 0, lapses: Vec::new() }
    }

    /// What was found so far.
    pub(super) fn lapses(&self) -> &[Lapse] {
        &self.lapses
    }

    /// What was found.
    pub(crate) fn into_lapses(self) -> Vec<Lapse> {
        self.lapses
    }

    /// Follows one record.
    pub(crate) fn record(&mut self, line: u64, record: &Record) {
        self.line = line;
        match record {
            Record::Word { pa, value } => self.memory.declare(*pa, *value),
            Record::Step(step) => self.step(step),
            _ => {}
        }
    }

    fn require(&mut self, holds: bool, step: &Step, promise: &'static str) {
        let known = |lapse: &Lapse| (lapse.step.cpu, lapse.step.pc, lapse.promise) == (step.cpu, step.pc, promise);
        if !holds && !self.lapses.iter().any(known) {
            self.lapses.push(Lapse { line: self.line, step: *step, promise });
        }
    }

    fn step(&mut self, step: &Step) {
        let index = step.cpu as usize;
        if self.cpus.len() <= index {
            self.cpus.resize_with(index + 1, Conducting::default);
        }
        let mut cpu = std::mem::take(&mut self.cpus[index]);
        cpu.levels.follow(step.pc, &step.event);
        match step.event {
            Event::Found { register, value } => {
                cpu.has_tcr2 |= register.name() == Some("tcr2_el2");
                if let Some(control) = Control::of(register) {
                    cpu.controls.set(control, value);
                }
            }
            Event::Start { .. } | Event::Fetch { .. } | Event::Eret { .. } => {}
            _ if !cpu.levels.is_el2() => {}
            _ => self.step_at_el2(&mut cpu, step),
        }
        self.cpus[index] = cpu;
    }

    fn step_at_el2(&mut self, cpu: &mut Conducting, step: &Step) {
        if let Some(due) = cpu.isb_due.take() {
            let kept = step.event == Event::Isb && step.instruction == due;
            self.require(kept, step, promise::ISB_AFTER_M);
        }
        let on = cpu.controls.mmu_on();
        if on || self.image.contains(&step.pc) {
            self.vectors_are_live(cpu, step);
        }
        match step.event {
            Event::Msr { register, value } => match Control::of(register) {
                Some(control) => self.write(cpu, step, control, value),
                None if register.name() == Some("vbar_el2") => cpu.vectors.0 = Some(value),
                None => {}
            },
            Event::Mrs { register }
                if Control::of(register) == Some(Control::Hcr) && cpu.hypervisor == Hypervisor::Synchronised =>
            {
                cpu.hypervisor = Hypervisor::ReadBack;
            }
            Event::Store(access) if !access.device => self.store(cpu, step, &access),
            Event::Maintain { operation, operand } => cpu.maintain(operation, operand),
            Event::Dsb(barrier) => cpu.dsb(Ordering::of(barrier)),
            Event::Isb => cpu.isb(),
            _ => {}
        }
    }

    /// With M = 1 writes of registers are common and harmless; accesses are not.
    fn vectors_are_live(&mut self, cpu: &Conducting, step: &Step) {
        let may_fault = match step.event {
            Event::Load(_) | Event::Store(_) | Event::Maintain { .. } => true,
            Event::Msr { register, .. } => register.name() != Some("vbar_el2") && !cpu.controls.mmu_on(),
            _ => false,
        };
        let live = cpu.vectors.0.is_some() && cpu.vectors.0 == cpu.vectors.1;
        self.require(!may_fault || live, step, promise::VECTORS);
    }

    fn store(&mut self, cpu: &mut Conducting, step: &Step, access: &Access) {
        cpu.stores_settled = false;
        if access.va != access.pa {
            let mapped = cpu.vectors.1.is_some_and(|vectors| self.executable(cpu, vectors).is_some());
            self.require(mapped, step, promise::VECTORS_MAPPED);
        }
        self.memory.store(access);
    }

    fn write(&mut self, cpu: &mut Conducting, step: &Step, control: Control, value: u64) {
        let old = cpu.controls;
        cpu.controls.set(control, value);
        match control {
            Control::Hcr => cpu.hypervisor = Hypervisor::Written,
            Control::Tcr2 => cpu.tcr2_written = true,
            Control::Tcr | Control::Mair => {}
            Control::Ttbr0 => {
                let kept = !old.mmu_on() || old.ttbr0 == value;
                self.require(kept, step, promise::ROOT_WITH_M_OFF);
                let ready = old.mmu_on() || !cpu.was_on || cpu.cleared == Cleared::Synchronised;
                self.require(ready, step, promise::CLEARED_BEFORE_ROOT);
            }
            Control::Sctlr => match (old.mmu_on(), value & M != 0) {
                (false, true) => self.turn_on(cpu, step, old.sctlr, value),
                (true, false) => self.turn_off(cpu, step, old, value),
                (true, true) => {
                    let kept = (old.sctlr ^ value) & (C | I | WXN | EE) == 0;
                    self.require(kept, step, promise::SCTLR_KEPT);
                }
                (false, false) => {
                    self.require(!cpu.was_on || old.sctlr == value, step, promise::M_ALONE);
                }
            },
        }
    }

    fn turn_on(&mut self, cpu: &mut Conducting, step: &Step, old: u64, value: u64) {
        self.require(old & value & WXN != 0, step, promise::WXN_BEFORE_M);
        self.require(value & (C | I) == C | I, step, promise::CACHES_WITH_M);
        self.require(cpu.was_on || old & C == 0, step, promise::C_NOT_BEFORE_M);
        self.require(!cpu.was_on || old | M == value, step, promise::M_ALONE);
        self.require(!cpu.has_tcr2 || cpu.tcr2_written, step, promise::TCR2_WRITTEN);
        let read_back = cpu.hypervisor == Hypervisor::ReadBack;
        self.require(read_back, step, promise::HCR_READ_BACK);
        // M is turned on where virtual and physical addresses agree.
        cpu.was_on |= self.image.contains(&step.pc);
        cpu.isb_due = Some(step.instruction + 1);
    }

    fn turn_off(&mut self, cpu: &mut Conducting, step: &Step, old: Controls, value: u64) {
        // From firmware's tables the caches go with M: the image sets up everything anew.
        self.require(!cpu.was_on || old.sctlr ^ value == M, step, promise::M_ALONE);
        self.require(cpu.stores_settled, step, promise::STORES_COMPLETE);
        (cpu.isb_due, cpu.cleared) = (Some(step.instruction + 1), Cleared::Owed);
    }

    /// Where `va` leads if code may run there.
    fn executable(&self, cpu: &Conducting, va: u64) -> Option<u64> {
        let format = cpu.controls.format(&Features::default()).ok()?;
        let mut table = cpu.controls.root(&format);
        for level in format.start_level..=3 {
            let slot = table + 8 * format.index(cpu.controls.input(va, &format)?, level);
            match format.decode(self.memory.word(slot), level) {
                Descriptor::Table(below) if !below.no_execute => table = below.next,
                Descriptor::Leaf(leaf) if leaf.executable => return Some(leaf.output | va & (format.span(level) - 1)),
                _ => return None,
            }
        }
        None
    }
}

impl Conducting {
    fn maintain(&mut self, operation: Operation, operand: u64) {
        self.stores_settled &= !operation.zeroes();
        let features = Features::default();
        let Ok(format) = self.controls.format(&features) else { return };
        if let Some(tlbi) = Invalidation::decode(operation, operand, &format, &features)
            && tlbi.target == TlbiTarget::All
            && !self.controls.mmu_on()
            // Before an ISB walks may go on under the old registers, and old entries may come back.
            && self.isb_due.is_none()
        {
            self.cleared = Cleared::Issued(tlbi.reach);
        }
    }

    fn dsb(&mut self, ordering: Ordering) {
        self.stores_settled |= ordering.is_full() && ordering.reach >= Reach::Inner;
        if ordering.is_full() && matches!(self.cleared, Cleared::Issued(reach) if reach <= ordering.reach) {
            self.cleared = Cleared::Complete;
        }
    }

    fn isb(&mut self) {
        self.vectors.1 = self.vectors.0;
        if self.cleared == Cleared::Complete {
            self.cleared = Cleared::Synchronised;
        }
        if self.hypervisor == Hypervisor::Written {
            self.hypervisor = Hypervisor::Synchronised;
        }
    }
}

/// What is promised, as it is reported; `RULES.md` says why.
pub(super) mod promise {
    pub(in super::super) const VECTORS: &str = "VBAR_EL2 is written and an ISB follows before anything may fault";
    pub(in super::super) const VECTORS_MAPPED: &str =
        "VBAR_EL2 leads to executable memory before the first store at a virtual address";
    pub(in super::super) const HCR_READ_BACK: &str = "HCR_EL2 is written, ISB, read back before M";
    pub(in super::super) const TCR2_WRITTEN: &str = "TCR2_EL2 is written before M where it exists";
    pub(in super::super) const WXN_BEFORE_M: &str = "WXN is set while M is still 0, and kept";
    pub(in super::super) const CACHES_WITH_M: &str = "C and I are set together with M";
    pub(in super::super) const C_NOT_BEFORE_M: &str = "C is not set before M";
    pub(in super::super) const ISB_AFTER_M: &str = "an ISB comes directly after M changes";
    pub(in super::super) const SCTLR_KEPT: &str = "SCTLR_EL2 is kept while M is 1";
    pub(in super::super) const ROOT_WITH_M_OFF: &str = "TTBR0_EL2 is not written with the MMU on";
    pub(in super::super) const STORES_COMPLETE: &str =
        "a full DSB, ISH or wider, comes between the last store and M = 0";
    pub(in super::super) const M_ALONE: &str = "a root switch toggles M alone";
    pub(in super::super) const CLEARED_BEFORE_ROOT: &str = "root switch: ISB, TLBI ALLE2, DSB, ISB before TTBR0_EL2";

    /// Each of them, in the order of a boot.
    #[cfg(test)]
    pub(in super::super) const ALL: [&str; 13] = [
        VECTORS,
        VECTORS_MAPPED,
        HCR_READ_BACK,
        TCR2_WRITTEN,
        WXN_BEFORE_M,
        CACHES_WITH_M,
        C_NOT_BEFORE_M,
        ISB_AFTER_M,
        SCTLR_KEPT,
        ROOT_WITH_M_OFF,
        STORES_COMPLETE,
        M_ALONE,
        CLEARED_BEFORE_ROOT,
    ];
}
