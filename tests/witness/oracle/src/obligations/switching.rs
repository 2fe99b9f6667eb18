//! The turns of the MMU: what has to be known, finished and mapped when SCTLR_EL2.M changes, and at a call to somebody else.

use super::cause::{At, Evidence};
use super::holder::bit;
use super::pe::Pe;
use super::report::UnplacedViolation;
use super::{Obligations, Rule};
use crate::descriptor::Descriptor;
use crate::maintenance::{Ordering, Reach};
use crate::regime::{Control, Controls};

/// What a PE did when it turned its MMU off that does harm if it turns it on again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct OffWindow {
    /// Its MMU was on and is off, or is not certainly on again.
    pub(super) open: bool,
    /// The first data access since.
    pub(super) access: Option<Evidence<(At, u64)>>,
    /// It had stores without their DSB.
    pub(super) unfinished: Option<Evidence<At>>,
    /// It changed C with M.
    pub(super) toggled: Option<Evidence<At>>,
}

/// Stores of a PE that no DSB has completed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Stores {
    /// Any.
    pub(super) any: bool,
    /// With the MMU off: to memory that firmware or another PE may read.
    pub(super) uncached: bool,
}

impl Stores {
    pub(super) const fn dsb(&mut self, ordering: &Ordering) {
        if !ordering.stores {
            return;
        }
        self.any &= matches!(ordering.reach, Reach::Own);
        self.uncached &= matches!(ordering.reach, Reach::Own | Reach::Inner);
    }
}

impl Obligations {
    /// M goes from 1 to 0.
    pub(super) fn open_window(&mut self, pe: u32, before: &Controls, after: &Controls) {
        let at = Evidence(self.report.at);
        let state = self.pe(pe);
        state.window = OffWindow {
            open: true,
            access: None,
            unfinished: state.stores.any.then_some(at),
            toggled: (before.cache_on() != after.cache_on()).then_some(at),
        };
    }

    /// M goes from 0 to 1: what the window should not have seen.
    pub(super) fn close_window(&mut self, pe: u32) {
        let window = std::mem::take(&mut self.pe(pe).window);
        self.pe(pe).window.open = window.open;
        if !self.params.of(pe).strict_switch {
            return;
        }
        if let Some(Evidence((at, va))) = window.access {
            let missing = || "M = 1 and ISB before this access".into();
            self.report.add(UnplacedViolation::of(Rule::WindowAccess).by(at).va(va), missing);
        }
        if let Some(Evidence(at)) = window.unfinished {
            let missing = || "DSB ISH or wider between the last store and M = 0".into();
            self.report.add(UnplacedViolation::of(Rule::WindowStores).by(at), missing);
        }
        if let Some(Evidence(at)) = window.toggled {
            let missing = || "the same SCTLR_EL2.C as before".into();
            self.report.add(UnplacedViolation::of(Rule::WindowCache).by(at), missing);
        }
    }

    /// Controls whose reset value is in force, because nobody wrote them, when the MMU of a PE that came from reset is turned on.
    pub(super) fn judge_unwritten(&mut self, pe: u32) {
        let state = &self.pes[pe as usize];
        if !state.from_reset {
            return;
        }
        let is_in = |set: u8, control: Control| set >> control as u8 & 1 != 0;
        let always = [(Control::Tcr, "TCR_EL2"), (Control::Mair, "MAIR_EL2"), (Control::Ttbr0, "TTBR0_EL2")];
        let unwritten = always.into_iter().find(|(control, _)| !is_in(state.written, *control));
        // HCR_EL2 as it was found is what the boot loader left: firmware runs at EL2 under it.
        let unknown = (!is_in(state.known, Control::Hcr)).then_some((Control::Hcr, "HCR_EL2"));
        let indirect = is_in(state.known, Control::Tcr2) && !is_in(state.written, Control::Tcr2);
        let indirect = indirect.then_some((Control::Tcr2, "TCR2_EL2"));
        if let Some((_, name)) = unwritten.or(unknown).or(indirect) {
            let missing = || format!("a write of {name}, whose reset value is unknown, before M = 1");
            self.report.add(UnplacedViolation::of(Rule::ControlUnknown), missing);
        }
    }

    /// A PE leaves EL3 for EL2: SCTLR_EL2 has no reset value that could be relied on.
    pub(super) fn judge_hand_over(&mut self, pe: u32) {
        let written = self.pes[pe as usize].written;
        if written >> Control::Sctlr as u8 & 1 == 0 {
            let missing = || "a write of SCTLR_EL2 before the ERET to EL2".into();
            self.report.add(UnplacedViolation::of(Rule::ControlUnknown), missing);
        }
    }

    /// The instruction that changes M, and the next, run at their physical address, whichever value is in force for them.
    pub(super) fn judge_identity(&mut self, pe: u32) {
        let Pe { fetched, walks, next, .. } = self.pes[pe as usize].as_ref();
        let Some(context) = walks.last().copied().filter(|_| *fetched) else { return };
        let (next, format, pc) = (*next, self.contexts[context].regime.format, self.report.at.pc);
        if pc == 0 {
            return;
        }
        for va in [pc, pc.wrapping_add(4)] {
            let Some(input) = next.input(va, &format) else { continue };
            let Some(slot) = self.walk(context, input) else { continue };
            let offset = input & (format.span(slot.level) - 1);
            let runs = matches!(slot.said, Descriptor::Leaf(leaf)
                if leaf.executable && !(next.wxn() && leaf.writable) && leaf.output.wrapping_add(offset) == va);
            if !runs {
                let finding = UnplacedViolation::of(Rule::IdentityCode).va(va).pa(slot.pa).old(slot.word);
                self.report.add(finding, || "an executable mapping of this address to itself".into());
                return;
            }
        }
    }

    /// A call to firmware: what was stored with the MMU off has to be there.
    pub(super) fn judge_call(&mut self, pe: u32) {
        if self.pes[pe as usize].stores.uncached {
            self.report
                .add(UnplacedViolation::of(Rule::CallStores), || "DSB SY between the last store and the call".into());
        }
    }

    /// Whether `pe` is among those that `context` reaches.
    pub(super) fn reaches(&self, context: usize, pe: u32) -> bool {
        self.contexts[context].reach.held() & bit(pe) != 0
    }
}
