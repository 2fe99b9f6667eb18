//! One run of leaves, or one table of them, in one go: broken, invalidated, and made or given back. Most requests are no more than that.
//!
//! Why it exists: tokens carry what is owed from one function to the next, and what they carry has room for any request. Here nothing is
//! carried: what is broken is settled before the function returns, in the same order and with the same maintenance, and the proof that comes out
//! is the same.

#![forbid(unsafe_code)]

use super::pending::Run;
use super::{After, FreeTables, Geo, Invalidated, Live, Place, Protocol, Tables};
use crate::addr::Frame;
use crate::descriptor::{Attributes, Waiting, leaf_bits_in};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// Tables that one walk leads through, the highest that may go and those below.
const CHAIN_MAX: usize = 5;

impl<M: Machine> Protocol<M> {
    /// Breaks `count` leaves from `first` on, side by side in one table, invalidates them, and makes what comes or gives the slots back as
    /// unused.
    ///
    /// # Panics
    /// When a slot holds nothing valid, or is no longer as the break left it afterwards; or the table ends before.
    #[inline(always)]
    pub(crate) fn cycle_run(&mut self, first: Place<'_, Live>, count: u64, after: After) -> Invalidated {
        let first = first.run_of(count);
        self.epoch += 1;
        for index in 0..count {
            let slot = first.step(index);
            let old = self.raw(slot);
            assert!(old & 1 != 0, "a slot that is broken held a leaf");
            let waiting = match after.of::<Geo<M>>(first.level(), old, index) {
                None => Waiting::going(old),
                Some(new) => Waiting::coming(new),
            };
            self.machine.store(&self.permit, slot, waiting.raw());
        }
        let run = Run::of(first, count, false);
        self.invalidate_run(&run);
        for index in 0..count {
            let slot = first.step(index);
            let raw = self.raw(slot);
            let comes = match after {
                After::Nothing => Waiting::read(raw).map(|_| 0),
                _ => Waiting::comes_by(raw),
            };
            let comes = comes.expect("only a broken, invalidated slot is used again");
            self.machine.store(&self.permit, slot, comes);
        }
        self.counts.stores += 2 * count as u32;
        if after != After::Nothing {
            self.dsb_ishst(); // the fills are visible to walks before an access relies on them
            self.isb(); // IWZCBG: ... and before a fetch does
        }
        Invalidated::covering(run.alone::<Geo<M>>(), self.epoch)
    }

    /// Changes `count` live leaves from `first` on in place, side by side in one table and none of a contiguous run, and invalidates them.
    ///
    /// # Panics
    /// In a debug build, when a slot holds nothing valid.
    #[inline(always)]
    pub(crate) fn recast_run(&mut self, first: Place<'_, Live>, count: u64, attributes: Attributes) {
        let first = first.run_of(count);
        let bits = leaf_bits_in::<Geo<M>>(attributes, first.level(), false);
        for index in 0..count {
            let slot = first.step(index);
            let old = self.raw(slot);
            debug_assert!(old & 1 != 0, "a slot that changes in place held a leaf");
            self.machine.store(&self.permit, slot, old & Geo::<M>::OUTPUT_MASK | bits);
        }
        self.counts.stores += count as u32;
        self.invalidate_run(&Run::of(first, count, false));
    }

    /// Breaks the link in `slot` to a table from which nothing hangs but `count` leaves from `first` on, through tables that hold nothing else,
    /// invalidates them at every level of their walks (RVMSWQ), and frees those tables.
    ///
    /// # Panics
    /// When the walk from `slot` does not lead to `first`.
    #[inline(always)]
    pub(crate) fn cycle_table(
        &mut self,
        tables: &mut Tables<Live>,
        slot: Slot,
        first: Slot,
        count: u64,
        free: &mut FreeTables,
    ) -> Invalidated {
        let slot = self.vouch(tables, slot).slot();
        self.epoch += 1;
        let went = self.raw(slot);
        self.store(slot, Waiting::going(went).raw());
        let run = Run::of(first, count, true);
        self.invalidate_run(&run);
        let mut chain: [Option<Frame>; CHAIN_MAX] = [None; CHAIN_MAX];
        let (mut at, mut raw) = (slot, went);
        for place in &mut chain {
            let Some((child, level)) = super::Entry::table_in::<Geo<M>>(raw, at.level()).zip(at.level().next()) else {
                break;
            };
            *place = Some(child);
            at = Geo::<M>::slot(child, level, first.virt());
            raw = if child == first.table() { 0 } else { self.raw(at) };
        }
        assert!(at.table() == first.table(), "a table goes with the leaves that hang from it");
        // From the lowest up.
        for frame in chain.into_iter().rev().flatten() {
            self.put_free(frame, free);
        }
        self.store(slot, 0);
        Invalidated::covering(run.alone::<Geo<M>>(), self.epoch)
    }

    /// The invalidation of one run: as [`Self::invalidate_all`].
    #[inline(always)]
    fn invalidate_run(&mut self, run: &Run) {
        self.dsb_ishst(); // the stores are visible to every walk before the TLBIs: nothing may be cached anew from the old ones
        let (machine, permit, reach) = (&mut self.machine, &self.permit, self.reach);
        let (last, count) = run.each_alone::<Geo<M>>(self.features, |scope| machine.tlbi(permit, scope.within(reach)));
        self.counts.maintenance.tlbis += count;
        self.finish(last);
    }
}
