//! TLBI, DSB and DMB: what counts, and when it is done.

use std::sync::Arc;

use breakwater_trace::{Barrier, Operation};

use super::Obligations;
use super::cause::{At, Evidence};
use super::debt::{Debt, Key, Note};
use super::fast::Use;
use super::holder::{Pes, Shot, Walks, bit};
use super::pe::{ControlCause, Progress};
use super::report::{Doubt, UnplacedViolation};
use super::switching::Stores;
use super::{Rule, lines::Upkeep};
use crate::descriptor::{Descriptor, Format, Granule};
use crate::maintenance::{Invalidation, Ordering, Reach, TlbiTarget};

/// How operands are read on a PE whose TCR_EL2 no walk could follow.
const FALLBACK: Format = Format {
    granule: Granule::K4,
    ds: false,
    start_level: 0,
    input_bits: 48,
    output_bits: 48,
    wide: false,
    hardware_dirty: false,
    hardware_access: false,
    hierarchy_disabled: false,
    shareability: 0,
};

/// A TLBI being applied.
#[derive(Clone, Copy, Debug)]
struct Applied {
    shot: Shot,
    invalidation: Invalidation,
    /// PEs that it reaches.
    reached: Pes,
}

impl Obligations {
    pub(super) fn maintain(&mut self, pe: u32, operation: Operation, operand: u64) {
        if operation.invalidates_el2() {
            self.tlbi(pe, operation, operand);
        } else {
            self.maintain_line(pe, operation, operand);
        }
    }

    fn tlbi(&mut self, pe: u32, operation: Operation, operand: u64) {
        let features = *self.params.of(pe);
        let state = &self.pes[pe as usize];
        let format = state.now.format(&features).or_else(|_| state.next.format(&features)).unwrap_or(FALLBACK);
        let Some(invalidation) = Invalidation::decode(operation, operand, &format, &features) else { return };
        let Invalidation { reach, without_xs, .. } = invalidation;
        let broadcast = reach != Reach::Own;
        let shot =
            Shot { issuer: pe, reach, without_xs, walks: Walks::of(&invalidation), at: Evidence(self.report.at) };
        let mut reached = if broadcast { Pes::MAX } else { bit(pe) };
        if invalidation.is_range {
            for other in 0..self.pes.len() as u32 {
                if !self.params.of(other).tlbi_range {
                    reached &= !bit(other);
                }
            }
        }
        if broadcast && self.params.any(|features| features.repeat_tlbi) {
            self.second_round(pe, reach);
        }
        self.pe(pe).unfinished.issue(shot);
        let applied = Applied { shot, invalidation, reached };
        if invalidation.target == TlbiTarget::All {
            self.invalidate_everything(&applied);
        }
        for key in self.touched_by(&invalidation.target, &format) {
            self.invalidate(key, &applied);
        }
    }

    /// A broadcast TLBI is also the second one that the repeat errata ask for.
    fn second_round(&mut self, pe: u32, reach: Reach) {
        if !self.debts.is_idle(pe) {
            self.debts().repeat(pe, reach);
        }
        if self.contexts.iter().any(|context| context.reach.awaits(pe)) {
            self.contexts().iter_mut().for_each(|context| context.reach.repeat(pe, reach));
        }
        let owing = self.pes.iter_mut().filter(|state| !state.owed.is_empty());
        for owed in owing.flat_map(|state| &mut Arc::make_mut(state).owed) {
            if let Progress::Cached(holder) = &mut owed.progress {
                holder.repeat(pe, reach);
            }
        }
    }

    /// ALLE2 also removes what roots that are not walked any more have left, and what control registers ask for.
    fn invalidate_everything(&mut self, applied: &Applied) {
        let Applied { shot, reached, .. } = *applied;
        for index in 0..self.contexts.len() {
            let left = self.contexts[index].reach.held() & !self.contexts[index].walkers;
            if left & reached == 0 {
                continue;
            }
            let context = &mut self.contexts()[index];
            let walkers = context.walkers;
            context.reach.invalidate(shot, reached & !walkers);
        }
        for (index, state) in self.pes.iter_mut().enumerate().filter(|(_, state)| !state.owed.is_empty()) {
            let own = bit(index as u32) & reached;
            for owed in &mut Arc::make_mut(state).owed {
                if owed.progress == Progress::Written && own != 0 {
                    owed.early = Evidence(Some(shot.at.0));
                }
                let Progress::Cached(holder) = &mut owed.progress else { continue };
                if owed.cause != ControlCause::Reset || shot.issuer == index as u32 {
                    holder.invalidate(shot, own);
                }
            }
        }
    }

    /// The places with debts that `target` may name.
    fn touched_by(&self, target: &TlbiTarget, format: &Format) -> Vec<Key> {
        let (first, last) = match *target {
            TlbiTarget::All => return self.debts.keys(),
            TlbiTarget::Page { va, .. } => (va, va),
            TlbiTarget::Range { first, last, .. } => (first, last),
            TlbiTarget::Nothing(_) if self.debts.len() > 64 => return Vec::new(),
            TlbiTarget::Nothing(_) => return self.debts.keys(),
        };
        let mut keys = Vec::new();
        for level in (-1..=3).filter(|level| self.debts.count(*level) != 0) {
            let shift = format.shift(level);
            let (from, to) = (first >> shift, last >> shift);
            if (to - from) as usize >= self.debts.len() {
                let inside = |key: &Key| key.0 == level && (from..=to).contains(&(key.1 >> shift));
                keys.extend(self.debts.keys().into_iter().filter(inside));
            } else {
                let places = (from..=to).map(|index| (level, index << shift));
                keys.extend(places.filter(|key| !self.debts.at(*key).is_empty()));
            }
        }
        keys
    }

    /// Who may walk a context after a TLBI of these walks: whoever walks it and, unless all is removed, whoever did and holds something of it.
    fn walkers_after(&self, context: usize, walks: Walks) -> Pes {
        let Some(context) = self.contexts.get(context) else { return 0 };
        if walks == Walks::All { context.walkers } else { context.walkers | context.reach.held() }
    }

    /// PEs that may cache what is at `key` again after a TLBI of these walks, through an old table descriptor above it. Without `held`, only
    /// where its store is not visible yet.
    pub(super) fn still_linked(&self, key: Key, number: usize, walks: Walks, held: bool) -> Pes {
        let walkers = self.walkers_after(number, walks);
        let Some(context) = self.contexts.get(number) else { return 0 };
        let format = context.regime.format;
        let mut pes = 0;
        for level in (-1..key.0).filter(|level| self.debts.count(*level) != 0) {
            for debt in self.debts.at((level, key.1 & !(format.span(level) - 1))) {
                if debt.context == number && matches!(debt.said, Descriptor::Table(_)) {
                    pes |= debt.seen_by() & walkers;
                    pes |= if held { debt.holder.held() } else { 0 };
                }
            }
        }
        pes
    }

    fn invalidate(&mut self, key: Key, applied: &Applied) {
        let Applied { shot, invalidation, reached } = *applied;
        let at = self.report.at;
        self.doubt_order(key, applied);
        let ways: Vec<(Pes, Pes)> = self.debts.at(key).iter().map(|debt| self.ways(key, debt, shot.walks)).collect();
        let mut ways = ways.into_iter();
        let tables = self.debts().change(key, |debt| {
            let (linked, seen) = ways.next().unwrap_or_default();
            if let Err(note) = names(key.0, debt, &invalidation, at) {
                debt.note = Evidence(note);
                return true;
            }
            let held = debt.holder.held();
            debt.holder.invalidate(shot, reached & !seen & !linked);
            if held & !debt.holder.on_its_way() != 0 {
                debt.note = Evidence(match () {
                    () if held & reached & seen != 0 => Note::TooEarly(at),
                    () if held & reached & linked != 0 => Note::StillLinked(at),
                    () => Note::NotFarEnough(at),
                });
            }
            true
        });
        self.release(key, &tables);
        self.debts().watch(shot.issuer, key);
    }

    /// A TLBI of what another PE has stored: a load shows its PE that the store is done, and a DSB orders it behind the load. Acquire, DMB and ISB
    /// do not, but a branch on what was loaded does, and no trace shows branches.
    fn doubt_order(&mut self, key: Key, applied: &Applied) {
        let Applied { shot: Shot { issuer, .. }, invalidation, reached } = *applied;
        let (Evidence(loaded), Evidence(waited_for)) = {
            let state = &self.pes[issuer as usize];
            (state.loaded, state.waited_for)
        };
        let at = self.report.at;
        let rests = |debt: &&Debt| {
            let since = debt.since().line;
            let counts = debt.holder.held() & reached != 0 && names(key.0, debt, &invalidation, at).is_ok();
            debt.storer != issuer && !debt.is_fill() && counts && loaded > since && waited_for <= since
        };
        if loaded == waited_for {
            return;
        }
        let found = self.debts.at(key).iter().find(rests).map(|debt| (debt.storer, debt.since().line));
        if let Some((storer, store_line)) = found {
            self.report.doubt(Doubt { at, va: key.1, storer, store_line, load_line: loaded });
        }
    }

    /// Who may cache the descriptor of `debt` again after a TLBI that names it: through an old table descriptor whose table still holds
    /// it, and because its store is not visible. The TLBI removes the table descriptors of `walks` as well.
    fn ways(&self, key: Key, debt: &Debt, walks: Walks) -> (Pes, Pes) {
        let seen = debt.seen_by() & self.walkers_after(debt.context, walks);
        if self.is_live(key, debt) {
            return (0, seen);
        }
        let linked = self.still_linked(key, debt.context, walks, !walks.any());
        (if self.is_still_there(debt) { linked } else { 0 }, seen & linked)
    }

    /// Whether the descriptor of `debt` still stands where it stood, in a table that is not linked any more.
    fn is_still_there(&self, debt: &Debt) -> bool {
        let swapped = self.contexts.get(debt.context).is_some_and(|context| context.regime.big_endian);
        let word = if swapped { debt.word.swap_bytes() } else { debt.word };
        self.memory.read(debt.slot) == Some(word)
    }

    /// Whose walkers may read the descriptor of `debt`: its own store is not visible, or that which unlinked its table.
    pub(super) fn may_read(&self, key: Key, debt: &Debt) -> Pes {
        let seen = self.seen(key, debt);
        if self.is_live(key, debt) || !self.is_still_there(debt) {
            return seen;
        }
        seen | self.still_linked(key, debt.context, Walks::All, true)
    }

    pub(super) fn dsb(&mut self, pe: u32, barrier: Barrier) {
        let (at, ordering) = (self.report.at, Ordering::of(barrier));
        let repeats = self.repeats();
        let latent = !self.params.of(pe).ets2;
        let seen_by = if ordering.reach == Reach::Own { bit(pe) } else { Pes::MAX };
        self.memory.dsb(pe, &ordering);
        let Evidence(loaded) = self.pes[pe as usize].loaded;
        if ordering.loads && self.pes[pe as usize].waited_for.0 != loaded {
            self.pe(pe).waited_for = Evidence(loaded);
        }
        if self.pes[pe as usize].stores != Stores::default() {
            self.pe(pe).stores.dsb(&ordering);
        }
        self.complete_lines(pe, &ordering);
        if !self.debts.is_idle(pe) {
            self.uses.change();
            for (key, debt) in self.debts().dsb(at, &ordering, seen_by, repeats, latent) {
                self.release(key, &[debt]);
            }
        }
        if !self.pes[pe as usize].unfinished.is_empty() {
            self.pe(pe).unfinished.complete(&ordering);
        }
        for state in self.pes.iter_mut().filter(|state| !state.owed.is_empty()) {
            for owed in &mut Arc::make_mut(state).owed {
                if let Progress::Cached(holder) = &mut owed.progress
                    && holder.complete(pe, &ordering, repeats) != 0
                {
                    (owed.progress, owed.done) = (Progress::Invalidated, Evidence(at));
                }
            }
        }
        let mut left = false;
        for index in 0..self.contexts.len() {
            if !self.contexts[index].reach.awaits(pe) {
                continue;
            }
            let context = &mut self.contexts()[index];
            let gone = context.reach.complete(pe, &ordering, repeats);
            if latent {
                (context.latent, context.done) = (context.latent | gone & bit(pe), Evidence(at));
            }
            left |= gone != 0;
        }
        if left {
            self.forget_unused();
        }
    }

    /// Whether a PE that is there has one of the repeat errata: it obliges every PE.
    fn repeats(&self) -> bool {
        let there = |(pe, state): (usize, &Arc<super::pe::Pe>)| state.exists && self.params.of(pe as u32).repeat_tlbi;
        self.pes.iter().enumerate().any(there)
    }

    pub(super) fn dmb(&mut self, pe: u32, barrier: Barrier) {
        // DC is ordered after stores only by a DMB of loads and stores.
        let ordering = Ordering::of(barrier);
        self.memory.dmb(pe, &ordering);
        if ordering.is_full() && ordering.reach != Reach::Own {
            self.order_lines(pe);
        }
    }

    /// DC, with the line's address as the PE translates it.
    fn maintain_line(&mut self, pe: u32, operation: Operation, operand: u64) {
        if operation.zeroes() {
            return self.zero_line(pe, operand);
        }
        let in_vain = self.params.of(pe).clean_invalidates;
        let upkeep = match operation.name() {
            Some("ivac" | "isw") => Upkeep { cleans: false, invalidates: true, in_vain: false },
            Some("civac" | "cisw") => Upkeep { cleans: true, invalidates: true, in_vain: false },
            Some("cvac" | "cvap" | "cvadp" | "csw") => Upkeep { cleans: true, invalidates: false, in_vain },
            _ => return,
        };
        if matches!(operation.name(), Some("isw" | "csw" | "cisw")) {
            return self.sweep(pe, operand, upkeep);
        }
        if self.translates_at_el2(pe) && self.pes[pe as usize].is_uncertain() {
            let missing = || "ISB after the write of SCTLR_EL2.M, before this DC".into();
            let finding = self.unsynchronised(pe, Rule::ControlSync);
            self.report.add(finding.va(operand), missing);
        }
        if let Some(pa) = self.translate(pe, operand) {
            self.issue_line(pe, pa, upkeep);
        }
    }

    fn zero_line(&mut self, pe: u32, operand: u64) {
        if self.translates_at_el2(pe) {
            if !self.pes[pe as usize].may_translate() {
                self.report.add(UnplacedViolation::of(Rule::ZeroMmuOff).va(operand), || "plain stores of zero".into());
                return;
            }
            self.note_access(pe, operand);
            self.use_address(pe, operand, Use::Zeroing);
        }
        let block = self.pes[pe as usize].zeroed_block;
        if let Some(pa) = self.translate(pe, block.start(operand)) {
            if let Some(doubt) = block.doubt() {
                self.not_known(format!("PE {pe} zeroes memory by DC ZVA at {operand:x}, and {doubt}"));
            }
            self.store_words(pe, block.words(pa));
        }
    }
}

/// Whether `invalidation`, of whose addresses `debt` is, names its descriptor of `level`.
fn names(level: i8, debt: &Debt, invalidation: &Invalidation, at: At) -> Result<(), Note> {
    let hint = match invalidation.target {
        TlbiTarget::All => return Ok(()),
        TlbiTarget::Nothing(why) => return Err(Note::Void(at, why)),
        TlbiTarget::Page { level, .. } | TlbiTarget::Range { level, .. } => level,
    };
    match debt.said {
        Descriptor::Table(_) if invalidation.last_level_only => Err(Note::LastLevelOnly(at)),
        Descriptor::Table(_) if hint.is_some() => Err(Note::OtherLevel(at)),
        Descriptor::Leaf(_) if hint.is_some_and(|hint| hint != level) => Err(Note::OtherLevel(at)),
        _ => Ok(()),
    }
}
