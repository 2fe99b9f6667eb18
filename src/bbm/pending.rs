//! What an invalidation must reach, and the fewest TLBIs that reach it: pure, no machine in sight.
//!
//! Why it exists: one TLBI for each 4 KiB of a block is what peers do, and too few is a fault. A request notes runs of leaves as it
//! breaks them; what is issued is then a matter of arithmetic: one operation a leaf, a few by range where every CPU has FEAT_TLBIRANGE,
//! or one for everything when that is cheaper.
//!
//! What must hold: leaves that went through a table that stays owe the last level only (RVMSWQ); what was linked through a table that
//! went owes every level of its walk. Leaves of a contiguous run are noted one by one (RLQLSD, IJQPNP), as runs are.

#![forbid(unsafe_code)]

use crate::addr::{Level, VirtAddr, VirtSpan};
use crate::features::Features;
use crate::geometry::{Geometry, Slot};
use crate::machine::{RangeOperand, Reach, Scope, Tlbi, VaOperand};
use core::iter;

/// TLBIs that one request issues before it invalidates everything instead.
pub(super) const TLBIS_MAX: u32 = 32;
/// Runs that a request can name before it invalidates everything instead. Pages, blocks, larger blocks, blocks, pages are five. A run is an
/// option, because none of them is then one store; an array of empty runs is one memcpy each, which the target, without vector registers, does
/// in a hundred instructions.
const RUNS: usize = 6;

/// Slots of one level, side by side, whose translations must go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotRun {
    start: VirtAddr,
    slots: u64,
    level: Level,
    /// Whether a table above them went, too: then every level of their walks owes.
    walk: bool,
}

/// Runs whose translations must go, until there are too many to name.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    runs: [Option<SlotRun>; RUNS],
    /// Runs noted; more than [`RUNS`] are not named.
    count: usize,
    /// From the first to the last; empty when nothing was noted.
    span: VirtSpan,
}

impl Pending {
    /// Nothing yet.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self { runs: [None; RUNS], count: 0, span: VirtSpan::EMPTY }
    }

    /// Notes `slots` slots from `first` on; `walk` when a table above them went.
    #[inline(always)]
    pub(crate) fn add<G: Geometry>(&mut self, first: Slot, slots: u64, walk: bool) {
        let noted = first.span_of(slots);
        self.span = self.span.joined(noted);
        let run = SlotRun { walk, ..SlotRun::of(first, slots) };
        if let Some(Some(last)) = self.count.checked_sub(1).and_then(|last| self.runs.get_mut(last))
            && last.level == run.level
            && last.walk == walk
            && last.start.raw() + last.slots * G::slot_bytes(last.level) == run.start.raw()
        {
            last.slots += slots;
            return;
        }
        if let Some(place) = self.runs.get_mut(self.count) {
            *place = Some(run);
        }
        self.count += 1;
    }

    /// Whether nothing was noted.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// From the first to the last address noted.
    #[must_use]
    pub(crate) fn span(&self) -> Option<VirtSpan> {
        (self.count > 0).then_some(self.span)
    }

    /// How many TLBIs [`Self::each`] yields, the repeated one of an erratum not counted.
    #[must_use]
    pub(crate) fn tlbis<G: Geometry>(&self, features: Features) -> u32 {
        let mut count = 0;
        self.each::<G>(features, |_| count += 1);
        count
    }

    /// Calls `issue` with each TLBI that CPUs with `features` need, and returns the last.
    #[inline]
    fn each<G: Geometry>(&self, features: Features, issue: impl FnMut(Scope)) -> Option<Scope> {
        each::<G>(self.runs.get(..self.count).map(|runs| runs.iter().copied().flatten()), features, issue)
    }
}

/// What an invalidation is for.
pub(super) trait Owed {
    /// Whether that is nothing.
    fn is_nothing(&self) -> bool;

    /// Calls `issue` with each TLBI that CPUs with `features` need, and returns the last.
    fn each<G: Geometry>(&self, features: Features, issue: impl FnMut(Scope)) -> Option<Scope>;
}

impl Owed for &[&Pending] {
    fn is_nothing(&self) -> bool {
        self.iter().all(|pending| pending.is_empty())
    }

    #[inline(always)]
    fn each<G: Geometry>(&self, features: Features, mut issue: impl FnMut(Scope)) -> Option<Scope> {
        let mut last = None;
        for pending in self.iter().filter(|pending| !pending.is_empty()) {
            last = pending.each::<G>(features, &mut issue).or(last);
        }
        last
    }
}

impl Owed for SlotRun {
    fn is_nothing(&self) -> bool {
        false
    }

    #[inline(always)]
    fn each<G: Geometry>(&self, features: Features, mut issue: impl FnMut(Scope)) -> Option<Scope> {
        // One leaf is what is invalidated most.
        if self.slots == 1 {
            let scope = self.one::<G>(features);
            issue(scope);
            return Some(scope);
        }
        each::<G>(Some(iter::once(*self)), features, issue)
    }
}

/// Calls `issue` with each TLBI that `runs` take on CPUs with `features`, and returns the last. None are too many to name.
#[inline(always)]
fn each<G: Geometry>(
    runs: Option<impl Iterator<Item = SlotRun> + Clone>,
    features: Features,
    mut issue: impl FnMut(Scope),
) -> Option<Scope> {
    let Some(runs) = runs.filter(|runs| fits::<G>(runs.clone(), features)) else {
        issue(Scope::All);
        return Some(Scope::All);
    };
    let mut last = None;
    for run in runs {
        for scope in run.scopes::<G>(features) {
            issue(scope);
            last = Some(scope);
        }
    }
    last
}

/// Whether `runs` take few enough TLBIs to name them.
#[inline(always)]
fn fits<G: Geometry>(runs: impl Iterator<Item = SlotRun> + Clone, features: Features) -> bool {
    // One operation a slot at most.
    runs.clone().map(|run| run.slots).sum::<u64>() <= u64::from(TLBIS_MAX)
        || (features.contains(Features::TLBIRANGE) && fits_by_range::<G>(runs, features))
}

#[inline(never)] // apart from the common case, a few slots
fn fits_by_range<G: Geometry>(runs: impl Iterator<Item = SlotRun>, features: Features) -> bool {
    runs.flat_map(|run| run.scopes::<G>(features)).nth(TLBIS_MAX as usize).is_none()
}

impl SlotRun {
    /// `slots` leaves from `first` on.
    #[inline(always)]
    pub(super) fn of(first: Slot, slots: u64) -> Self {
        Self { start: first.virt(), slots, level: first.level(), walk: false }
    }

    /// Each TLBI that the run takes.
    #[inline(always)]
    fn scopes<G: Geometry>(self, features: Features) -> impl Iterator<Item = Scope> {
        let bytes = G::slot_bytes(self.level);
        let mut left = self;
        iter::from_fn(move || {
            if left.slots == 0 {
                return None;
            }
            let (scope, slots) = left.range::<G>(features).unwrap_or_else(|| (left.one::<G>(features), 1));
            left.start = VirtAddr::within(left.start.raw() + slots * bytes);
            left.slots -= slots;
            Some(scope)
        })
    }

    /// One operation for the first slots, where several can have one, and how many.
    #[inline(always)]
    fn range<G: Geometry>(&self, features: Features) -> Option<(Scope, u64)> {
        // A single leaf takes one operation by address, whatever its size.
        if !features.contains(Features::TLBIRANGE) || self.slots == 1 {
            return None;
        }
        let pages_a_slot = G::slot_bytes(self.level) >> G::PAGE_SHIFT;
        let level = (!self.walk && features.contains(Features::TTL)).then_some(self.level);
        let (operand, covered) = RangeOperand::cover::<G>(self.start, self.slots * pages_a_slot, level)?;
        let slots = covered / pages_a_slot;
        let scope = if self.walk { Scope::WalkRange(operand) } else { Scope::LeafRange(operand) };
        (slots > 0).then_some((scope, slots))
    }

    /// One operation for the first slot. Its level is a hint for leaves alone: tables above them are at others.
    #[inline(always)]
    fn one<G: Geometry>(&self, features: Features) -> Scope {
        match (self.walk, features.contains(Features::TTL)) {
            (true, _) => Scope::Walk(VaOperand::new(self.start)),
            (false, true) => Scope::Leaf(VaOperand::at_level::<G>(self.start, self.level)),
            (false, false) => Scope::Leaf(VaOperand::new(self.start)),
        }
    }
}

impl Scope {
    /// This scope within `reach`.
    #[must_use]
    pub(super) const fn within(self, reach: Reach) -> Tlbi {
        Tlbi { scope: self, reach }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Frame, PhysAddr};
    use crate::geometry::{Granule4K, Granule64K};

    fn noted<G: Geometry>(runs: &[(u64, u64, Level, bool)]) -> Pending {
        let table = Frame::containing(PhysAddr::at(0x8000_0000));
        let mut pending = Pending::none();
        for &(start, slots, level, walk) in runs {
            pending.add::<G>(G::slot(table, level, VirtAddr::at(start)), slots, walk);
        }
        pending
    }

    fn issued<G: Geometry>(pending: &Pending, features: Features) -> Vec<Scope> {
        let mut all = Vec::new();
        let last = pending.each::<G>(features, |scope| all.push(scope));
        assert_eq!(all.last().copied(), last);
        assert_eq!(all.len() as u32, pending.tlbis::<G>(features));
        all
    }

    #[test]
    fn good_one_by_address_for_a_block() {
        let pending = noted::<Granule4K>(&[(0x4000_0000, 1, Level::L1, false)]);
        for features in [Features::empty(), Features::TLBIRANGE] {
            let operand = VaOperand::new(VirtAddr::at(0x4000_0000));
            assert_eq!(issued::<Granule4K>(&pending, features), [Scope::Leaf(operand)]);
        }
    }

    #[test]
    fn good_neighbours_are_one_run() {
        let pending = noted::<Granule4K>(&[(0x1000, 1, Level::L3, false), (0x2000, 3, Level::L3, false)]);
        assert_eq!(pending.count, 1);
        let range = issued::<Granule4K>(&pending, Features::TLBIRANGE | Features::TTL);
        let (operand, pages) = RangeOperand::cover::<Granule4K>(VirtAddr::at(0x1000), 4, Some(Level::L3)).unwrap();
        assert_eq!((range, pages), (vec![Scope::LeafRange(operand)], 4));
    }

    #[test]
    fn good_everything_when_there_are_too_many() {
        let max = u64::from(TLBIS_MAX);
        let pending = noted::<Granule4K>(&[(0, max, Level::L3, false)]);
        assert_eq!(issued::<Granule4K>(&pending, Features::empty()).len(), max as usize);
        let pending = noted::<Granule4K>(&[(0, max + 1, Level::L3, false)]);
        assert_eq!(issued::<Granule4K>(&pending, Features::empty()), [Scope::All]);
        assert_eq!(issued::<Granule4K>(&pending, Features::TLBIRANGE).len(), 2, "a range and the odd page");
    }

    #[test]
    fn good_everything_when_the_runs_cannot_be_named() {
        let scattered: Vec<_> = (0..RUNS as u64 + 1).map(|index| (index * 0x10_0000, 1, Level::L3, false)).collect();
        let pending = noted::<Granule4K>(&scattered);
        assert_eq!(issued::<Granule4K>(&pending, Features::TLBIRANGE), [Scope::All]);
    }

    #[test]
    fn good_whole_walks_below_a_table_that_went() {
        let pending = noted::<Granule64K>(&[(0x2000_0000, 1, Level::L3, true)]);
        let operand = VaOperand::new(VirtAddr::at(0x2000_0000));
        assert_eq!(
            issued::<Granule64K>(&pending, Features::TTL),
            [Scope::Walk(operand)],
            "no hint: tables are at other levels"
        );
    }

    #[test]
    fn good_the_span_is_from_the_first_to_the_last() {
        assert_eq!(Pending::none().span(), None);
        let pending = noted::<Granule4K>(&[(0x8000, 1, Level::L3, false), (0x1000, 2, Level::L3, false)]);
        assert_eq!(pending.span(), VirtSpan::of(VirtAddr::at(0x1000), 0x8000));
    }
}
