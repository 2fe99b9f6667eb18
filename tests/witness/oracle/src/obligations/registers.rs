//! Control registers: what a write owes, and what may be walked because of it.

use std::sync::Arc;

use breakwater_trace::{Event, Register};

use super::Obligations;
use super::cause::{At, Evidence, Lack, Remedy};
use super::change::Weakest;
use super::context::{Context, Regime};
use super::holder::bit;
use super::pe::{ControlCause, Last, Owed, Pe, Progress};
use super::report::UnplacedViolation;
use super::{Rule, holder::Holder};
use crate::level::{ExceptionLevel, Levels};
use crate::maintenance::Ordering;
use crate::regime::{Control, Controls};

const fn known(control: Control) -> u8 {
    1 << control as u8
}

impl Obligations {
    pub(super) fn start(&mut self, pe: u32, exception_level: u8) {
        let zeroed_block = self.pes[pe as usize].zeroed_block;
        let fresh = super::pe::Pe { exists: true, arriving: true, zeroed_block, ..super::pe::Pe::default() };
        if !self.pes[pe as usize].arriving {
            *self.pe(pe) = fresh;
        }
        self.pe(pe).levels = Levels::start(exception_level);
        self.arriving |= bit(pe);
    }

    pub(super) fn found(&mut self, pe: u32, register: Register, value: u64) {
        if !self.pes[pe as usize].exists {
            self.start(pe, 2);
        }
        self.pe(pe).levels.set(register, value);
        self.pe(pe).zeroed_block.find(register, value);
        if let Some(control) = Control::of(register) {
            self.note_found(pe, control, value);
            let pe = self.pe(pe);
            pe.next.set(control, value);
            pe.now.set(control, value);
            pe.known |= known(control);
        }
    }

    /// The PEs whose registers were being found begin: with the MMU on, knowing what memory says; with it off, knowing nothing.
    pub(super) fn arrive(&mut self) {
        self.uses.change();
        for pe in 0..self.pes.len() as u32 {
            if !self.pes[pe as usize].arriving {
                continue;
            }
            let at = self.report.at;
            self.pe(pe).arriving = false;
            if self.pe(pe).may_translate() {
                self.judge_root_bits(pe);
                self.walk_what_may_be(pe);
            } else {
                let garbage = Progress::Cached(Holder::by(bit(pe)));
                self.pe(pe).owe(ControlCause::Reset, garbage, at);
                self.pe(pe).from_reset = true;
            }
        }
        self.arriving = 0;
        // Tables that were found where an image was entered are as they are.
        self.report.is_muted = false;
    }

    /// `pe` enters what is judged: what its loader did is found, and not judged. Every PE is as its registers were
    /// written last, with no debt and nothing in its TLB but what those say; with the MMU off, anything (RXQBCL). Lines
    /// that the loader left dirty stay so; of others nothing is known. With the MMU off the boot protocol of arm64 has
    /// the `bytes` at `pa` clean to the point of coherency.
    pub(super) fn enter(&mut self, pe: u32, pa: u64, bytes: u64) {
        let before = std::mem::take(self);
        (self.report, self.trusts_addresses) = (before.report.emptied(), before.trusts_addresses);
        (self.params, self.ranges, self.memory, self.budget) =
            (before.params, before.ranges, before.memory, before.budget);
        self.pes.resize_with(before.pes.len(), Arc::default);
        for (number, found) in (0..).zip(&before.pes).filter(|(_, found)| found.exists) {
            self.start(number, 2);
            let state = self.pe(number);
            state.levels = found.levels.clone();
            (state.now, state.next, state.known) = (found.next, found.next, found.known);
            state.zeroed_block = found.zeroed_block; // of the CPU, whoever runs on it
        }
        (self.cached, self.deepest) = (before.cached, before.deepest);
        let is_promised = !self.pes[pe as usize].now.mmu_on();
        self.memory.enter(pa, bytes, is_promised);
        self.served = (!is_promised && bytes != 0).then_some((pa, pa + bytes));
        self.report.is_muted = true;
    }

    /// What errata ask of the order of events.
    pub(super) fn before(&mut self, pe: u32, event: &Event) {
        if matches!(
            event,
            Event::Fetch { .. } | Event::Settled | Event::Enter { .. } | Event::Take { .. } | Event::Give { .. }
        ) {
            return;
        }
        let features = self.params.of(pe);
        if !features.isb_before_mmu_off && !features.hcr_barriers {
            return;
        }
        if self.pes[pe as usize].hcr_written {
            self.pe(pe).hcr_written = false;
            if !matches!(event, Event::Isb) {
                self.report
                    .add(UnplacedViolation::of(Rule::HcrBarriers), || "ISB directly after the write of HCR_EL2".into());
            }
        }
        let last = match event {
            Event::Isb => Last::Isb,
            Event::Dsb(barrier) if Ordering::of(*barrier).is_full() => Last::Dsb,
            Event::Msr { .. } => return,
            _ => Last::Other,
        };
        self.pe(pe).last = last;
    }

    pub(super) fn msr(&mut self, pe: u32, register: Register, value: u64) {
        let last = self.pes[pe as usize].last;
        if last != Last::Other {
            self.pe(pe).last = Last::Other;
        }
        let Pe { levels, next, .. } = &*self.pes[pe as usize];
        let reached = if levels.is_el2() { Control::written(register, next) } else { Control::of(register) };
        let Some(control) = reached else { return };
        let at = self.report.at;
        let cnp = self.params.of(pe).cnp;
        let state = self.pe(pe);
        let before = state.next;
        state.next.set(control, value);
        let Evidence(prior) = state.last_write;
        (state.writes.0[control as usize], state.last_write, state.prior_write) = (at, Evidence(at), Evidence(prior));
        let after = state.next;
        if after.mmu_on() && after.e2h() {
            self.report.leave(pe);
        }
        let state = self.pe(pe);
        // The first write after reset is a change, whatever was found: the reset value is unknown.
        let first = state.from_reset && state.written & known(control) == 0;
        let is_first = first && matches!(control, Control::Tcr | Control::Mair | Control::Ttbr0);
        let old = (state.known & known(control) != 0 && !is_first).then_some(before);
        state.known |= known(control);
        for cause in ControlCause::of_write(control, old, after) {
            // A bit that is RES0 changes nothing.
            if cnp || cause != ControlCause::Cnp {
                state.owe(cause, Progress::Written, at);
            }
        }
        state.written |= known(control);
        let turned_on = !before.mmu_on() && after.mmu_on();
        let turned_off = before.mmu_on() && !after.mmu_on();
        let tables_unsynchronised = turned_on && state.now.ttbr0 != after.ttbr0;
        state.note_write(control, value);
        if control == Control::Hcr && self.params.of(pe).hcr_barriers {
            self.pe(pe).hcr_written = true;
            if last != Last::Dsb {
                self.report.add(UnplacedViolation::of(Rule::HcrBarriers), || {
                    "DSB directly before the write of HCR_EL2".into()
                });
            }
        }
        if turned_off {
            self.judge_identity(pe);
            self.turn_off(pe, last, &before, &after);
        }
        if turned_on {
            if tables_unsynchronised {
                let root = self.pes[pe as usize].wrote(Control::Ttbr0).unwrap_or(at);
                let finding = UnplacedViolation::of(Rule::ControlSync).by(root).old(before.sctlr).now(after.sctlr);
                self.report.add(finding.mend(Remedy::after(Lack::Isb, prior)), || {
                    "ISB between the write of TTBR0_EL2 and M = 1".into()
                });
            }
            self.turn_on(pe, prior);
        }
        self.judge_root_bits(pe);
        self.walk_what_may_be(pe);
        self.judge_cached_endianness(pe);
        if turned_on {
            self.judge_identity(pe);
        }
    }

    /// RVNRFW: until it is invalidated, a changed EE may be cached as it was, and be in force with whatever is written since.
    fn judge_cached_endianness(&mut self, pe: u32) {
        let state = &self.pes[pe as usize];
        if !state.owed.iter().any(|owed| owed.cause == ControlCause::Ee && owed.progress != Progress::Invalidated) {
            return;
        }
        for mut controls in state.candidates() {
            controls.sctlr ^= 1 << 25;
            let Some(regime) = self.regime(pe, &controls) else { continue };
            let same = |context: &Context| context.regime == regime;
            if self.contexts.iter().any(same) {
                continue;
            }
            let new = self.contexts.len();
            let (reach, at, weakest) = (Holder::default(), Evidence(self.report.at), Weakest::NONE);
            let unmeant = Evidence(None);
            self.contexts().push(Context {
                regime,
                walkers: 0,
                reach,
                latent: 0,
                done: at,
                begun: at,
                unmeant,
                weakest,
            });
            for other in 0..new {
                if self.reaches(other, pe) && self.contexts[other].regime.big_endian == regime.big_endian {
                    self.compare_roots(pe, other, new);
                }
            }
            self.contexts().pop();
        }
    }

    fn turn_off(&mut self, pe: u32, last: Last, before: &Controls, after: &Controls) {
        if last != Last::Isb && self.params.of(pe).isb_before_mmu_off {
            let missing = || "ISB directly before the write that takes M from 1 to 0".into();
            self.report.add(UnplacedViolation::of(Rule::IsbBeforeMmuOff), missing);
        }
        self.open_window(pe, before, after);
    }

    /// M goes from 0 to 1; the PE's write of a control before that was `prior`.
    fn turn_on(&mut self, pe: u32, prior: At) {
        self.close_window(pe);
        if self.pes[pe as usize].levels.is_el3() {
            return;
        }
        self.judge_unwritten(pe);
        let at = self.report.at;
        let is_held = |owed: &Owed| owed.progress != Progress::Invalidated;
        // Where nothing was invalidated since reset, one TLBI is wanting, however many controls were written before.
        let owed = &self.pes[pe as usize].owed;
        if owed.iter().any(|owed| owed.cause == ControlCause::Reset && is_held(owed)) {
            let held = self.pe(pe).owed.iter_mut().filter(|owed| is_held(owed));
            held.for_each(|owed| (owed.at, owed.is_before) = (Evidence(at), Evidence(true)));
        }
        self.judge_owed_after(pe, prior);
    }

    /// What has to be invalidated before M = 1, or before nothing is owed.
    pub(super) fn judge_owed(&mut self, pe: u32) {
        self.judge_owed_after(pe, self.pes[pe as usize].last_write.0);
    }

    fn judge_owed_after(&mut self, pe: u32, last: At) {
        // One TLBI behind the last of several writes does for all.
        let owed = &self.pes[pe as usize].owed;
        let forgotten = owed.iter().filter(|owed| owed.progress.is_forgotten()).map(|owed| owed.at.0);
        let behind = forgotten.max_by_key(|at| at.line).unwrap_or_default();
        for owed in owed {
            let missing = owed.missing(last, behind);
            self.report.add(owed.finding().mend(missing.remedy), || missing.says);
        }
    }

    /// What other PEs than `pe` may still hold because of their controls; their last ISB is their own matter.
    pub(super) fn judge_owed_elsewhere(&mut self, pe: u32) {
        for (other, state) in (0..).zip(&self.pes).filter(|(other, _)| *other != pe && self.walking & bit(*other) != 0)
        {
            for owed in state.owed.iter().filter(|owed| owed.progress != Progress::Invalidated) {
                let missing = owed.missing(state.last_write.0, owed.at.0);
                let says = || format!("{}, on PE {other}", missing.says);
                self.report.add(owed.finding().mend(missing.remedy), says);
            }
        }
    }

    /// A root in force whose address hardware may read in another way.
    fn judge_root_bits(&mut self, pe: u32) {
        let features = self.params.of(pe);
        let reserved =
            |controls: &Controls| controls.format(features).map_or(0, |format| controls.reserved_root_bits(&format));
        let candidates = self.pes[pe as usize].candidates();
        if let Some(controls) = candidates.iter().find(|controls| reserved(controls) != 0) {
            let bits = reserved(controls);
            let root = self.pes[pe as usize].wrote(Control::Ttbr0).unwrap_or(self.report.at);
            let finding = UnplacedViolation::of(Rule::RootBits).by(root).now(controls.ttbr0);
            self.report.add(finding, || format!("0 in the bits {bits:x} of TTBR0_EL2"));
        }
    }

    /// An access to data while the MMU is off between two roots.
    pub(super) fn note_access(&mut self, pe: u32, va: u64) {
        let at: At = self.report.at;
        let state = &self.pes[pe as usize];
        if !state.levels.is_el2() {
            return;
        }
        if state.is_uncertain() {
            let rule = if state.window.open && self.params.of(pe).strict_switch {
                Rule::WindowAccess
            } else {
                Rule::ControlSync
            };
            let missing = || "ISB after the write of SCTLR_EL2.M, before this access".into();
            let finding = self.unsynchronised(pe, rule);
            self.report.add(finding.va(va), missing);
        } else if state.window.open {
            self.pe(pe).window.access.get_or_insert(Evidence((at, va)));
        }
    }

    /// A finding that `pe`'s last write of SCTLR_EL2 makes, because no ISB follows.
    pub(super) fn unsynchronised(&self, pe: u32, rule: Rule) -> UnplacedViolation {
        let write = self.pes[pe as usize].wrote(Control::Sctlr).unwrap_or(self.report.at);
        UnplacedViolation::of(rule).by(write).mend(Remedy::after(Lack::Isb, write))
    }

    /// The exception level changes, or what decides where the next ERET leads.
    pub(super) fn follow_level(&mut self, pe: u32, pc: u64, event: &Event) {
        if self.pes[pe as usize].levels.heeds(event) {
            self.pe(pe).levels.follow(pc, event);
        }
    }

    /// Whether EL2's tables translate what `pe` does; says so where that matters and is not known.
    pub(super) fn translates_at_el2(&mut self, pe: u32) -> bool {
        let level = self.pes[pe as usize].levels.now();
        if level == ExceptionLevel::Unknown && self.walking & bit(pe) != 0 {
            self.not_known(format!(
                "PE {pe} has its MMU on and returned by an ERET of which nothing tells the exception level"
            ));
        }
        level == ExceptionLevel::El2
    }

    /// Exception entry or exception return: the level changes with it.
    pub(super) fn change_level(&mut self, pe: u32, pc: u64, event: &Event) {
        let (was_el3, has_left) = {
            let levels = &self.pes[pe as usize].levels;
            (levels.is_el3(), levels.has_left_el3())
        };
        self.follow_level(pe, pc, event);
        self.synchronise(pe);
        if self.pes[pe as usize].levels.is_el3() != was_el3 {
            if was_el3 && !has_left && self.pes[pe as usize].levels.now() != ExceptionLevel::Lower {
                self.judge_hand_over(pe);
            }
            self.walk_what_may_be(pe);
            self.forget_unused();
        }
    }

    /// A context synchronisation: ISB, exception entry or exception return.
    pub(super) fn synchronise(&mut self, pe: u32) {
        if self.pes[pe as usize].used.0.is_some() {
            self.pe(pe).used = Evidence(None);
        }
        let state = &self.pes[pe as usize];
        let at_rest = state.between.is_empty() && state.owed.is_empty() && !state.window.open;
        if at_rest && state.now == state.next {
            return self.synchronise_walks(pe);
        }
        let state = self.pe(pe);
        state.now = state.next;
        state.between.clear();
        if state.now.mmu_on() {
            state.window.open = false;
        }
        state.owed.retain(|owed| owed.progress != Progress::Invalidated);
        for owed in &mut state.owed {
            if owed.progress == Progress::Written {
                owed.progress = Progress::Cached(Holder::by(bit(pe)));
            }
        }
        self.walk_what_may_be(pe);
        self.synchronise_walks(pe);
        self.forget_unused();
    }

    fn synchronise_walks(&mut self, pe: u32) {
        if !self.debts.is_idle(pe) {
            for (key, debt) in self.debts().synchronise(pe) {
                self.release(key, &[debt]);
            }
        }
        if self.contexts.iter().any(|context| context.latent & bit(pe) != 0) {
            self.contexts().iter_mut().for_each(|context| context.latent &= !bit(pe));
            self.forget_unused();
        }
    }

    pub(super) fn regime(&self, pe: u32, controls: &Controls) -> Option<Regime> {
        if controls.e2h() {
            return None;
        }
        let format = controls.format(self.params.of(pe)).ok()?;
        // Where SCTLR_EL2.C is 0, walks go past the caches, whatever TCR_EL2 says.
        let (root, walks_cacheable) = (controls.root(&format), controls.cache_on() && controls.walks_cacheable());
        let big_endian = controls.big_endian();
        Some(Regime { format, mair: controls.mair, root, walks_cacheable, big_endian })
    }

    /// Brings the contexts that `pe` may walk up to date with its registers.
    pub(super) fn walk_what_may_be(&mut self, pe: u32) {
        let candidates = self.pes[pe as usize].candidates();
        let mut wanted = Vec::new();
        for controls in &candidates {
            self.note_controls(pe, controls);
            let Some(regime) = self.regime(pe, controls) else { continue };
            let index = self.context(regime);
            let Pe { now, next, prior_write: Evidence(unmeant), .. } = *self.pes[pe as usize];
            let mut meant = [now, next].into_iter().filter(|meant| meant.mmu_on());
            let is_meant = meant.any(|meant| self.regime(pe, &meant) == Some(regime));
            let context = &mut self.contexts()[index];
            if is_meant {
                context.unmeant = Evidence(None);
            } else if !context.in_use() {
                context.unmeant = Evidence(Some(unmeant));
            }
            if !wanted.contains(&index) {
                wanted.push(index);
                self.begin_walk(pe, index);
            }
            if controls.common_not_private() && self.params.of(pe).cnp {
                self.judge_common(pe, index);
            }
        }
        let before = self.pes[pe as usize].walks.clone();
        for index in before.iter().filter(|index| !wanted.contains(index)) {
            self.contexts()[*index].walkers &= !bit(pe);
        }
        if *before != *wanted {
            self.pe(pe).walks = wanted.as_slice().into();
        }
        self.walking = if wanted.is_empty() { self.walking & !bit(pe) } else { self.walking | bit(pe) };
    }

    /// `pe` may walk context `index` from now on.
    fn begin_walk(&mut self, pe: u32, index: usize) {
        if self.contexts[index].walkers & bit(pe) != 0 {
            return;
        }
        let context = &mut self.contexts()[index];
        let (is_new, is_first) = (!context.in_use(), context.walkers == 0);
        context.walkers |= bit(pe);
        context.reach.hold(bit(pe));
        self.walking |= bit(pe);
        self.weigh_features();
        if is_new {
            let regime = self.contexts[index].regime;
            self.note_root(pe, &regime);
            self.build(index);
        } else if is_first {
            self.judge_lines_of(index);
        }
        for other in 0..self.contexts.len() {
            if other != index && self.reaches(other, pe) {
                self.compare_roots(pe, other, index);
            }
        }
        self.see_old_values(pe, index);
    }

    /// RQLGWZ: whoever has CnP = 1 has the same tables.
    fn judge_common(&mut self, pe: u32, index: usize) {
        let root = self.contexts[index].regime.root;
        for other in 0..self.pes.len() as u32 {
            let shares = |controls: &Controls| controls.common_not_private();
            let state = &self.pes[other as usize];
            if other == pe || !self.params.of(other).cnp || !state.candidates().iter().any(shares) {
                continue;
            }
            if state.walks.iter().any(|walked| self.contexts[*walked].regime.root != root) {
                let write = self.pes[pe as usize].wrote(Control::Ttbr0).unwrap_or(self.report.at);
                let finding = UnplacedViolation::of(Rule::CommonNotPrivate).by(write).pa(root);
                self.report.add(finding, || format!("CnP = 0, here or on PE {other}, which uses other tables"));
            }
        }
    }

    /// The weakest features of the PEs that use each context.
    pub(super) fn weigh_features(&mut self) {
        for context in Arc::make_mut(&mut self.contexts) {
            let users = context.reach.held() | context.walkers;
            let mut weakest = Weakest::NONE;
            for pe in (0..self.pes.len() as u32).filter(|pe| users & bit(*pe) != 0) {
                let features = self.params.of(pe);
                weakest.bbm = weakest.bbm.min(features.bbm);
                weakest.bbm_always |= features.bbm_always;
                weakest.bbm_for_xn |= features.bbm_for_xn;
                weakest.contiguous |= features.contiguous;
            }
            context.weakest = weakest;
        }
    }
}
