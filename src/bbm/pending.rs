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

/// TLBIs that one request issues before it invalidates everything instead.
pub(super) const TLBIS_MAX: u32 = 32;
/// Runs that a request can name before it invalidates everything instead. Pages, blocks, larger blocks, blocks, pages are five. A run is an
/// option, because none of them is then one store; an array of empty runs is one memcpy each, which the target, without vector registers, does
/// in a hundred instructions.
const RUNS: usize = 6;

/// Slots of one level, side by side, whose translations must go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlotRun {
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
    /// Slots in all of them.
    slots: u64,
    /// From the first to the last.
    span: Option<VirtSpan>,
}

impl Pending {
    /// Nothing yet.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self { runs: [None; RUNS], count: 0, slots: 0, span: None }
    }

    /// `slots` leaves from `first` on, alone.
    #[inline(always)]
    pub(super) fn of(first: Slot, slots: u64) -> Self {
        let run = SlotRun { start: first.virt(), slots, level: first.level(), walk: false };
        Self { runs: [Some(run), None, None, None, None, None], count: 1, slots, span: Some(first.span_of(slots)) }
    }

    /// Notes `slots` slots from `first` on; `walk` when a table above them went.
    #[inline(always)]
    pub(crate) fn add<G: Geometry>(&mut self, first: Slot, slots: u64, walk: bool) {
        let noted = first.span_of(slots);
        let whole = self.span.and_then(|span| {
            VirtSpan::new(span.start().min(noted.start()), span.end_exclusive().max(noted.end_exclusive()))
        });
        self.span = Some(whole.unwrap_or(noted));
        self.slots += slots;
        let run = SlotRun { start: noted.start(), slots, level: first.level(), walk };
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
        self.span
    }

    /// Whether all that `wanted` spans was noted.
    #[must_use]
    pub(super) fn covers<G: Geometry>(&self, wanted: VirtSpan) -> bool {
        let Some(named) = self.runs.get(..self.count) else {
            // Too many to name: everything was invalidated, and what this request noted lies between the first and the last.
            return self.span.is_some_and(|span| span.covers(wanted));
        };
        let span = |run: &SlotRun| VirtSpan::of(run.start, run.slots * G::slot_bytes(run.level));
        named.iter().flatten().filter_map(span).any(|span| span.covers(wanted))
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
    pub(super) fn each<G: Geometry>(&self, features: Features, mut issue: impl FnMut(Scope)) -> Option<Scope> {
        let mut last = None;
        match self.runs.get(..self.count) {
            Some(runs) if self.fits::<G>(runs, features) => {
                for run in runs.iter().flatten() {
                    run.each::<G>(features, &mut |scope| {
                        issue(scope);
                        last = Some(scope);
                        true
                    });
                }
            }
            _ => {
                issue(Scope::All);
                last = Some(Scope::All);
            }
        }
        last
    }

    /// Whether `runs` take few enough TLBIs to name them.
    #[inline(always)]
    fn fits<G: Geometry>(&self, runs: &[Option<SlotRun>], features: Features) -> bool {
        // One operation a slot at most.
        self.slots <= u64::from(TLBIS_MAX)
            || (features.contains(Features::TLBIRANGE) && self.fits_by_range::<G>(runs, features))
    }

    fn fits_by_range<G: Geometry>(&self, runs: &[Option<SlotRun>], features: Features) -> bool {
        let mut left = TLBIS_MAX;
        runs.iter().flatten().all(|run| {
            run.each::<G>(features, &mut |_| match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    true
                }
                None => false,
            })
        })
    }
}

impl SlotRun {
    /// Calls `issue` with each TLBI that the run takes, as long as it says true; whether it always did.
    #[inline(always)]
    fn each<G: Geometry>(&self, features: Features, issue: &mut impl FnMut(Scope) -> bool) -> bool {
        let bytes = G::slot_bytes(self.level);
        if !features.contains(Features::TLBIRANGE) {
            let mut each = (0..self.slots).map(|slot| VirtAddr::within(self.start.raw() + slot * bytes));
            return each.all(|virt| issue(self.one::<G>(virt, features)));
        }
        let pages_a_slot = bytes >> G::PAGE_SHIFT;
        let mut done = 0;
        while done < self.slots {
            let virt = VirtAddr::within(self.start.raw() + done * bytes);
            let range = self.range::<G>(virt, (self.slots - done) * pages_a_slot, features);
            let (scope, slots) = range.unwrap_or_else(|| (self.one::<G>(virt, features), 1));
            if !issue(scope) {
                return false;
            }
            done += slots;
        }
        true
    }

    /// One operation for several slots, and how many.
    fn range<G: Geometry>(&self, virt: VirtAddr, pages: u64, features: Features) -> Option<(Scope, u64)> {
        let pages_a_slot = G::slot_bytes(self.level) >> G::PAGE_SHIFT;
        // A single leaf takes one operation by address, whatever its size.
        if !features.contains(Features::TLBIRANGE) || pages == pages_a_slot {
            return None;
        }
        let level = (!self.walk && features.contains(Features::TTL)).then_some(self.level);
        let (operand, covered) = RangeOperand::cover::<G>(virt, pages, level)?;
        let slots = covered / pages_a_slot;
        let scope = if self.walk { Scope::WalkRange(operand) } else { Scope::LeafRange(operand) };
        (slots > 0).then_some((scope, slots))
    }

    /// One operation for the slot at `virt`. Its level is a hint for leaves alone: tables above them are at others.
    #[inline(always)]
    fn one<G: Geometry>(&self, virt: VirtAddr, features: Features) -> Scope {
        match (self.walk, features.contains(Features::TTL)) {
            (true, _) => Scope::Walk(VaOperand::new(virt)),
            (false, true) => Scope::Leaf(VaOperand::at_level::<G>(virt, self.level)),
            (false, false) => Scope::Leaf(VaOperand::new(virt)),
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
        assert!(pending.covers::<Granule4K>(VirtSpan::of(VirtAddr::at(0x10_0000), 0x1000).unwrap()));
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
    fn bad_what_was_not_noted_is_not_covered() {
        let pending = noted::<Granule4K>(&[(0x1000, 2, Level::L3, false), (0x8000, 1, Level::L3, false)]);
        let covers = |start, bytes| pending.covers::<Granule4K>(VirtSpan::of(VirtAddr::at(start), bytes).unwrap());
        assert!(covers(0x1000, 0x2000) && covers(0x8000, 0x1000));
        assert!(!covers(0x3000, 0x1000) && !covers(0x2000, 0x2000) && !covers(0x9000, 0x1000));
    }
}
