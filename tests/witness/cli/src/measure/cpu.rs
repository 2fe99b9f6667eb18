//! What is known of one CPU while a trace is replayed.

use anyhow::{Result, bail};
use breakwater_oracle::level::Levels;
use breakwater_oracle::maintenance::ZeroedBlock;
use breakwater_oracle::regime::Controls;
use breakwater_oracle::tables::{Exposed, Root};

use super::result::{CpuFigures, Enable, RootSwitch};

/// A root switch that has begun: the MMU is off, or the new root is not yet synchronised.
#[derive(Clone, Copy)]
struct StartedSwitch {
    switch: RootSwitch,
    /// Ordinal of the instruction that cleared M, if one did.
    off_at: Option<u64>,
}

/// One CPU.
#[derive(Default)]
pub(super) struct MeasuredCpu {
    /// Ordinal of the instruction up to which everything is accounted for.
    accounted: u64,
    pub(super) regime: Controls,
    /// Below EL2 and at EL3 nothing is exposed that EL2's tables map.
    pub(super) levels: Levels,
    /// Where the registers point while M = 1.
    pub(super) root: Option<Root>,
    /// A leaf that was writable and executable at some point since `accounted`.
    exposed: Option<Exposed>,
    /// The same, by what is known now.
    exposed_now: Option<Exposed>,
    pending: Option<StartedSwitch>,
    /// What its DC ZVA zeroes.
    pub(super) zeroed_block: ZeroedBlock,
    pub(super) figures: CpuFigures,
}

impl MeasuredCpu {
    /// A CPU of which nothing is known yet.
    pub(super) fn new(cpu: u32) -> Self {
        Self { figures: CpuFigures { cpu, ..CpuFigures::default() }, ..Self::default() }
    }

    /// Accounts for the instructions up to `instruction`: they executed under what was in force since the last event.
    pub(super) fn account(&mut self, instruction: u64) -> Result<()> {
        let Some(executed) = instruction.checked_sub(self.accounted) else {
            bail!("CPU {} goes back from instruction {} to {instruction}", self.figures.cpu, self.accounted);
        };
        self.accounted = instruction;
        let figures = &mut self.figures;
        figures.instructions = instruction;
        if self.regime.mmu_on() && self.levels.is_el2() && executed > 0 {
            figures.mmu_on += executed;
            if let Some(leaf) = self.exposed {
                figures.writable_executable_leaf = Some(leaf);
                figures.writable_executable_leaves += executed;
                if !self.regime.wxn() {
                    figures.writable_executable += executed;
                    figures.writable_executable_until = instruction;
                }
            }
        }
        self.exposed = self.exposed_now;
        Ok(())
    }

    /// Notes whether the tables in force hold a writable and executable leaf now. Between two events of this CPU it is not known when
    /// another one changed them, so there the worst counts.
    pub(super) fn expose(&mut self, leaf: Option<Exposed>, own_event: bool) {
        self.exposed_now = leaf;
        self.exposed = if own_event { leaf } else { self.exposed.or(leaf) };
    }

    /// True while M = 0 between two times with M = 1.
    fn in_window(&self) -> bool {
        let is_off = self.pending.is_some_and(|pending| pending.off_at.is_some()) && !self.regime.mmu_on();
        is_off && self.levels.is_el2()
    }

    /// A data access; those of the window count.
    pub(super) fn accessed(&mut self, store: bool) {
        if self.in_window()
            && let Some(pending) = &mut self.pending
        {
            *(if store { &mut pending.switch.stores } else { &mut pending.switch.loads }) += 1;
        }
    }

    /// SCTLR_EL2 is written.
    pub(super) fn set_sctlr(&mut self, instruction: u64, pc: u64, value: u64) {
        let before = self.regime;
        self.regime.sctlr = value;
        match (before.mmu_on(), self.regime.mmu_on()) {
            (true, false) => {
                let switch = RootSwitch { from: before.ttbr0, began: instruction, pc, ..RootSwitch::default() };
                self.pending = Some(StartedSwitch { switch, off_at: Some(instruction) });
            }
            (false, true) => {
                let Controls { sctlr, ttbr0, tcr, mair, .. } = self.regime;
                let wxn_before = before.wxn();
                self.figures.enables.push(Enable { instruction, pc, sctlr, ttbr0, tcr, mair, wxn_before });
                if let Some(StartedSwitch { switch, off_at: Some(off_at) }) = &mut self.pending {
                    switch.mmu_off = instruction - *off_at;
                    switch.to = ttbr0;
                }
            }
            _ => {}
        }
    }

    /// TTBR0_EL2 is written.
    pub(super) fn set_ttbr0(&mut self, instruction: u64, pc: u64, value: u64) {
        let from = self.regime.ttbr0;
        self.regime.ttbr0 = value;
        if self.regime.mmu_on() && from != value {
            let switch = RootSwitch { from, to: value, began: instruction, pc, mmu_on: true, ..RootSwitch::default() };
            self.pending = Some(StartedSwitch { switch, off_at: None });
        }
    }

    /// An ISB: a switch whose root is set and whose MMU is on is in force. The switch, if it was to another root.
    pub(super) fn synchronised(&mut self, instruction: u64) -> Option<RootSwitch> {
        if !self.regime.mmu_on() {
            return None;
        }
        let mut switch = self.pending.take()?.switch;
        switch.in_force = instruction;
        self.figures.switches.push(switch);
        (switch.from != switch.to).then_some(switch)
    }
}
