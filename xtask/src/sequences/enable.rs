//! One CPU's registers: what has to happen before M becomes 1, and while it is 0 in between.
//!
//! The rules are those of arm-rules.md, Sequences: first enable and root switch. They are the same for every CPU; only the tables'
//! cache maintenance, which the first CPU alone owes, lives in `lines`.

use breakwater_trace::{Barrier, Call, Event, Operation, Step};

use super::Findings;
use super::barriers::{Domain, Invalidation, is_full};

const M: u64 = 1;
const C: u64 = 1 << 2;
const I: u64 = 1 << 12;
const WXN: u64 = 1 << 19;
const EE: u64 = 1 << 25;
const E2H: u64 = 1 << 34;
const CNP: u64 = 1;

/// A set of registers.
type Set = u8;
const HCR: Set = 1;
const TCR: Set = 2;
const MAIR: Set = 4;
const TTBR0: Set = 8;
const SCTLR: Set = 16;
const VBAR: Set = 32;
const TCR2: Set = 64;

/// How far the invalidation of everything has come that is owed before M.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Cleared {
    #[default]
    Owed,
    Issued(Invalidation),
    Complete,
    Synchronised,
}

/// How far HCR_EL2 has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Hypervisor {
    #[default]
    Unwritten,
    Written,
    Synchronised,
    ReadBack,
}

/// What one event did to M.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// From 0 to 1, for the first time on this CPU.
    FirstOn,
    /// From 0 to 1 again.
    OnAgain,
    /// From 1 to 0.
    Off,
}

/// One CPU.
#[derive(Default)]
pub(super) struct Cpu {
    pub(super) sctlr: u64,
    pub(super) ttbr0: u64,
    pub(super) tcr: u64,
    mair: u64,
    hcr: u64,
    vbar: u64,
    /// VBAR_EL2 as of the last ISB.
    pub(super) vectors: u64,
    written: Set,
    /// Written since the last ISB.
    unsynchronised: Set,
    cleared: Cleared,
    hypervisor: Hypervisor,
    has_tcr2: bool,
    /// Some DSB came after this CPU's last access, of whatever reach.
    settled: bool,
    /// A full DSB, Inner Shareable at least, came after its last store.
    stores_settled: bool,
    last_isb: u64,
    /// The ordinal that has to be an ISB.
    isb_due: Option<u64>,
    pub(super) was_on: bool,
    at_el3: bool,
    /// EL3 has written SCTLR_EL2.
    reset_at_el3: bool,
    /// Stored with M = 0, and no DSB SY since.
    stored_off: bool,
}

impl Cpu {
    /// True while translation is on.
    pub(super) const fn on(&self) -> bool {
        self.sctlr & M != 0
    }

    /// True while M = 0 between two times with M = 1.
    const fn in_window(&self) -> bool {
        self.was_on && !self.on()
    }

    /// Judges one event; `of_image` is false for code that came before the image's.
    pub(super) fn step(&mut self, step: &Step, of_image: bool, findings: &mut Findings) -> Option<Turn> {
        if let Event::Start { exception_level } = step.event {
            self.at_el3 = exception_level == 3;
        }
        if matches!(step.event, Event::Start { .. } | Event::Found { .. } | Event::Fetch { .. }) {
            self.found(step);
            return None;
        }
        if self.at_el3 {
            self.step_at_el3(step, findings);
            return None;
        }
        self.isb_is_due(step, findings);
        if of_image {
            self.vectors_are_live(step, findings);
        }
        match step.event {
            Event::Msr { register, value } => {
                return self.write(step, register.name().unwrap_or_default(), value, findings);
            }
            Event::Mrs { register }
                if register.name() == Some("hcr_el2") && self.hypervisor == Hypervisor::Synchronised =>
            {
                self.hypervisor = Hypervisor::ReadBack;
            }
            Event::Load(_) | Event::Store(_) => self.access(step, findings),
            Event::Maintain { operation, operand } => self.maintain(step, operation, operand, findings),
            Event::Dsb(barrier) => self.dsb(barrier),
            Event::Isb => self.isb(step.instruction),
            Event::Call { call: Call::Smc, .. } => {
                let left = !self.stored_off || self.on();
                findings.require(left, step, "a DSB SY comes between a store with M = 0 and a call of the firmware");
            }
            _ => {}
        }
        None
    }

    /// Nothing at EL3 is translated by EL2's regime. SCTLR_EL2 alone must make sense before EL2 runs: reset leaves it unknown.
    fn step_at_el3(&mut self, step: &Step, findings: &mut Findings) {
        match step.event {
            Event::Msr { register, value } if register.name() == Some("sctlr_el2") => {
                (self.sctlr, self.reset_at_el3) = (value, true);
            }
            Event::Eret => {
                self.at_el3 = false;
                findings.require(self.reset_at_el3, step, "EL3 writes SCTLR_EL2 before EL2 runs");
            }
            _ => {}
        }
    }

    fn found(&mut self, step: &Step) {
        let Event::Found { register, value } = step.event else { return };
        match register.name().unwrap_or_default() {
            "sctlr_el2" => self.sctlr = value,
            "ttbr0_el2" => self.ttbr0 = value,
            "tcr_el2" => self.tcr = value,
            "mair_el2" => self.mair = value,
            "hcr_el2" => self.hcr = value,
            "tcr2_el2" => self.has_tcr2 = true,
            _ => {}
        }
        self.was_on |= self.on();
    }

    fn isb_is_due(&mut self, step: &Step, findings: &mut Findings) {
        if let Some(due) = self.isb_due.take() {
            let kept = step.event == Event::Isb && step.instruction == due;
            findings.require(kept, step, "an ISB comes directly after M changes");
        }
    }

    /// Before an instruction that may fault, VBAR_EL2 is written and in force.
    fn vectors_are_live(&self, step: &Step, findings: &mut Findings) {
        let may_fault = match step.event {
            Event::Load(_) | Event::Store(_) | Event::Maintain { .. } => true,
            Event::Msr { register, .. } => register.name() != Some("vbar_el2"),
            _ => false,
        };
        // With M = 1 writes of other registers are common and harmless; accesses are not.
        let judged = may_fault && (!self.on() || !matches!(step.event, Event::Msr { .. }));
        let live = self.written & VBAR != 0 && self.unsynchronised & VBAR == 0;
        findings.require(!judged || live, step, "VBAR_EL2 is written and an ISB follows before anything may fault");
    }

    fn access(&mut self, step: &Step, findings: &mut Findings) {
        findings.require(!self.in_window(), step, "no data access while M is 0 in a root switch");
        self.settled = false;
        if matches!(step.event, Event::Store(_)) {
            self.stores_settled = false;
            self.stored_off |= !self.on();
        }
    }

    fn maintain(&mut self, step: &Step, operation: Operation, operand: u64, findings: &mut Findings) {
        if operation.zeroes() {
            findings.require(self.on(), step, "no DC ZVA with M = 0: it faults");
            self.access(step, findings);
            self.stores_settled = false;
        }
        let Some(tlbi) = Invalidation::decode(operation, operand) else { return };
        // Before an ISB the invalidation may run under the old registers, and old entries may come back.
        if tlbi.is_all() && !self.on() && self.unsynchronised & (HCR | TCR | MAIR | SCTLR) == 0 {
            self.cleared = Cleared::Issued(tlbi);
        }
    }

    fn dsb(&mut self, barrier: Barrier) {
        if is_full(barrier, Domain::Own) {
            self.settled = true;
        }
        self.stores_settled |= is_full(barrier, Domain::Inner);
        self.stored_off &= !is_full(barrier, Domain::System);
        if matches!(self.cleared, Cleared::Issued(tlbi) if tlbi.completed_by(barrier)) {
            self.cleared = Cleared::Complete;
        }
    }

    fn isb(&mut self, instruction: u64) {
        (self.unsynchronised, self.last_isb, self.vectors) = (0, instruction, self.vbar);
        if self.cleared == Cleared::Complete {
            self.cleared = Cleared::Synchronised;
        }
        if self.hypervisor == Hypervisor::Written {
            self.hypervisor = Hypervisor::Synchronised;
        }
    }

    fn write(&mut self, step: &Step, name: &str, value: u64, findings: &mut Findings) -> Option<Turn> {
        let (register, turn) = match name {
            "vbar_el2" => (VBAR, self.set_vbar(value)),
            "hcr_el2" => (HCR, self.set_hcr(step, value, findings)),
            "tcr_el2" => (TCR, self.set_attributes(step, TCR, value, findings)),
            "mair_el2" => (MAIR, self.set_attributes(step, MAIR, value, findings)),
            "ttbr0_el2" => (TTBR0, self.set_ttbr0(step, value, findings)),
            "sctlr_el2" => (SCTLR, self.set_sctlr(step, value, findings)),
            "tcr2_el2" => (TCR2, None),
            _ => return None,
        };
        self.written |= register;
        self.unsynchronised |= register;
        turn
    }

    fn set_vbar(&mut self, value: u64) -> Option<Turn> {
        self.vbar = value;
        None
    }

    fn set_hcr(&mut self, step: &Step, value: u64, findings: &mut Findings) -> Option<Turn> {
        findings.require(self.settled, step, "a DSB comes before HCR_EL2 is written (AC04_CPU_23)");
        findings.require(value & E2H == 0, step, "HCR_EL2.E2H is 0");
        if self.written & HCR == 0 || (self.hcr ^ value) & E2H != 0 {
            self.cleared = Cleared::Owed;
        }
        (self.hcr, self.hypervisor) = (value, Hypervisor::Written);
        None
    }

    fn set_attributes(&mut self, step: &Step, which: Set, value: u64, findings: &mut Findings) -> Option<Turn> {
        findings.require(!self.on(), step, "TCR_EL2 and MAIR_EL2 are written while M is 0");
        let place = if which == TCR { &mut self.tcr } else { &mut self.mair };
        if self.written & which == 0 || *place != value {
            self.cleared = Cleared::Owed; // RVNRFW
        }
        *place = value;
        None
    }

    fn set_ttbr0(&mut self, step: &Step, value: u64, findings: &mut Findings) -> Option<Turn> {
        findings.require(!self.on() || value == self.ttbr0, step, "TTBR0_EL2 is not written with the MMU on");
        findings.require(value & CNP == 0, step, "TTBR0_EL2.CnP is 0 (RQLGWZ)");
        let ready = !self.in_window() || self.cleared == Cleared::Synchronised;
        findings.require(ready, step, "root switch: ISB, TLBI ALLE2, DSB, ISB before TTBR0_EL2");
        self.ttbr0 = value;
        None
    }

    fn set_sctlr(&mut self, step: &Step, value: u64, findings: &mut Findings) -> Option<Turn> {
        let old = core::mem::replace(&mut self.sctlr, value);
        let first = self.written & SCTLR == 0;
        match (old & M != 0, value & M != 0) {
            (false, false) => {
                findings.require(!self.was_on || old == value, step, "a root switch toggles M alone");
                if first || (old ^ value) & (WXN | EE) != 0 {
                    self.cleared = Cleared::Owed; // RVNRFW
                }
                None
            }
            (false, true) => Some(self.turn_on(step, old, value, findings)),
            (true, false) => {
                self.turn_off(step, old, value, findings);
                Some(Turn::Off)
            }
            (true, true) => {
                findings.require((old ^ value) & (WXN | EE | C | I) == 0, step, "SCTLR_EL2 is kept while M is 1");
                None
            }
        }
    }

    fn turn_on(&mut self, step: &Step, old: u64, value: u64, findings: &mut Findings) -> Turn {
        let needed = HCR | TCR | MAIR | TTBR0 | VBAR | if self.has_tcr2 { TCR2 } else { 0 };
        let missing = needed & !self.written;
        let names = |set: Set| {
            let rows = [(HCR, "HCR"), (TCR, "TCR"), (MAIR, "MAIR"), (TTBR0, "TTBR0"), (VBAR, "VBAR"), (TCR2, "TCR2")];
            rows.iter().filter(|row| row.0 & set != 0).map(|row| row.1).collect::<Vec<_>>().join(" ")
        };
        if missing != 0 {
            findings.add(step, "each register of the regime is written before M", names(missing));
        }
        findings.require(old & WXN != 0, step, "WXN is set while M is still 0");
        findings.require(value & WXN != 0, step, "WXN is in force at M = 1");
        findings.require(value & (C | I) == C | I, step, "C and I are set together with M");
        findings.require(self.was_on || old & C == 0, step, "C is not set before M");
        let in_force = self.unsynchronised & (HCR | TCR | MAIR | TTBR0 | SCTLR | VBAR) == 0;
        findings.require(in_force, step, "an ISB comes between the last of the regime's registers and M");
        let cleared = self.cleared == Cleared::Synchronised;
        findings.require(cleared, step, "ISB, TLBI ALLE2, DSB, ISB come between the regime's registers and M");
        let read_back = self.hypervisor == Hypervisor::ReadBack;
        findings.require(read_back, step, "HCR_EL2 is written, ISB, read back before M");
        findings.require(!self.was_on || old | M == value, step, "a root switch toggles M alone");
        self.isb_due = Some(step.instruction + 1);
        if core::mem::replace(&mut self.was_on, true) { Turn::OnAgain } else { Turn::FirstOn }
    }

    fn turn_off(&mut self, step: &Step, old: u64, value: u64, findings: &mut Findings) {
        findings.require(old ^ value == M, step, "a root switch toggles M alone");
        let isb = self.last_isb + 1 == step.instruction;
        findings.require(isb, step, "an ISB comes directly before M = 0 (Falkor E1041)");
        let settled = self.stores_settled;
        findings.require(settled, step, "a full DSB, ISH or wider, comes between the last store and M = 0");
        self.cleared = Cleared::Owed;
        self.isb_due = Some(step.instruction + 1);
    }
}
