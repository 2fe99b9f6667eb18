//! Fills: unused slots become leaves, or lead to tables. No invalidation is owed, for nothing translated through them; what is owed is that
//! walks see a table's contents before its link, and that this PE looks anew.

#![forbid(unsafe_code)]

use super::{Filled, FreshTable, Geo, Laid, Place, Protocol, Published, State, Tables, UnusedSlots};
use crate::addr::VirtAddr;
use crate::descriptor::{BrokenBits, Entry, Leaf};
use crate::geometry::{Geometry, HighBits, Slot};
use crate::machine::Machine;

impl<M: Machine> Protocol<M> {
    /// The proof that `count` slots from `first` on, all of one table, were never used.
    ///
    /// # Errors
    /// The first slot that was.
    ///
    /// # Panics
    /// When the table ends before.
    #[inline(always)]
    pub fn unused_run<'t, S: State>(&self, first: Place<'t, M, S>, count: u64) -> Result<UnusedSlots<'t, M, S>, Slot> {
        match self.machine.first_used(first.run_of(count), count) {
            Some(index) => Err(first.slot().step(index)),
            None => Ok(UnusedSlots::run(first.slot(), count)),
        }
    }

    /// The same on the word of a plan that has looked, for the mapper: between plan and commit nothing else edits the tables.
    #[inline(always)]
    pub(crate) fn seen_unused<'t, S: State>(
        &self,
        tables: &'t Tables<M, S>,
        first: Slot,
        count: u64,
    ) -> UnusedSlots<'t, M, S> {
        debug_assert!(self.machine.first_used(first, count).is_none(), "the plan saw that these slots are unused");
        UnusedSlots::run(self.vouch(tables, first).slot(), count)
    }

    /// Stores `leaf` into the first of `slots`, through which nothing translates, and what follows it in memory into the others.
    ///
    /// # Panics
    /// When the run would end beyond what the format can say, which a mapper refuses, or a slot has been filled since the proof.
    #[inline(always)]
    pub fn fill<S: State>(&mut self, slots: UnusedSlots<'_, M, S>, leaf: Leaf, filled: &mut Filled<S>) {
        let (first, count) = self.still_unused(slots);
        self.store_leaves(first, count, leaf);
        filled.note();
    }

    /// Stores `leaf` into the slot of `table`, which nothing links to, for `virt`, and what follows it in memory into `count` - 1 slots more.
    ///
    /// # Panics
    /// As for [`Self::fill`]; and when the table ends before. In a debug build, when it was made for another address.
    #[inline(always)]
    pub fn fill_fresh(&mut self, table: &FreshTable<M>, virt: VirtAddr, count: u64, leaf: Leaf) {
        let first = table.slot(virt);
        assert!(first.index() as u64 + count <= first.slots(), "the slots are this table's");
        self.store_leaves(first, count, leaf);
    }

    #[inline(always)]
    fn store_leaves(&mut self, first: Slot, count: u64, leaf: Leaf) {
        let level = first.level();
        let (step, bits) = (first.bytes(), Geo::<M>::OUTPUT_BITS);
        let last = leaf.output().raw() + (count.max(1) - 1) * step;
        assert!(last >> bits == 0, "a run of leaves ends within the format's output addresses");
        self.counts.stores += count as u32;
        if matches!(Geo::<M>::HIGH_BITS, HighBits::None) {
            return self.machine.store_run(&self.permit, first, count, leaf.encode_in::<Geo<M>>(level), step);
        }
        // The address bits of a run advance as one number but where the highest of them stand elsewhere.
        let (mut leaf, mut first, mut count) = (leaf, first, count);
        while count > 0 {
            let left = (((leaf.output().raw() >> 48) + 1) << 48) - leaf.output().raw();
            let piece = count.min((left / step).max(1));
            self.machine.store_run(&self.permit, first, piece, leaf.encode_in::<Geo<M>>(level), step);
            count -= piece;
            if count > 0 {
                first = first.step(piece);
                leaf = leaf.advanced(piece * step);
            }
        }
    }

    /// Links `table` into a slot of `tables`. In tables that a walk may read, the child's descriptors, and those of all that hangs from
    /// it, are made visible first: a walk that sees the link must not see the frames' past. `kept`: it stays when it is empty.
    ///
    /// # Panics
    /// When the table was made for another address than the slot's, which would be an error of the mapper.
    pub fn link<S: State>(
        &mut self,
        slot: UnusedSlots<'_, M, S>,
        table: FreshTable<M>,
        kept: bool,
        filled: &mut Filled<S>,
    ) {
        let slot = self.one_for(slot, &table);
        if S::WALKED {
            self.dsb_ishst(); // the child's descriptors are visible to walks before the link below
        }
        self.store_link(slot, table, kept);
        filled.note();
    }

    /// Links `table` into its slot of `parent`, a table that nothing links to. No walk can come by, so no barrier is owed here: the one
    /// before `parent` itself is linked makes the child's descriptors visible too.
    ///
    /// # Panics
    /// When the table is of another level than those that the parent leads to; in a debug build, when the parent was made for another address.
    pub fn link_fresh(&mut self, parent: &FreshTable<M>, table: FreshTable<M>, kept: bool) {
        assert!(parent.level().next() == Some(table.level()), "a table is linked where it was made for");
        let slot = parent.slot(table.virt());
        self.store_link(slot, table, kept);
    }

    fn store_link(&mut self, slot: Slot, table: FreshTable<M>, kept: bool) {
        let entry = Entry::Table { frame: table.into_linked().table(), kept };
        self.store(slot, entry.encode_in::<Geo<M>>(slot.level()));
    }

    /// Stands `table` ready in a slot, without bit 0: of several tables, so that one DSB serves the links of all.
    ///
    /// # Panics
    /// As for [`Self::link`].
    pub fn lay<S: State>(&mut self, slot: UnusedSlots<'_, M, S>, table: FreshTable<M>, kept: bool, laid: &mut Laid) {
        let slot = self.one_for(slot, &table);
        let entry = Entry::Table { frame: table.into_linked().table(), kept };
        self.store(slot, BrokenBits::laid(entry.encode_in::<Geo<M>>(slot.level())).raw());
        laid.note();
    }

    /// Makes visible to walks what hangs from tables that were laid.
    pub fn publish(&mut self, laid: Laid) -> Published {
        self.dsb_ishst(); // the tables' descriptors are visible to walks before any of the links
        laid.publish()
    }

    /// Links a table that was laid: sets bit 0.
    ///
    /// # Panics
    /// When the slot holds no such table.
    pub fn link_laid<S: State>(&mut self, place: Place<'_, M, S>, published: &mut Published, filled: &mut Filled<S>) {
        let slot = place.slot();
        let comes = BrokenBits::read(self.raw(slot)).filter(|waiting| waiting.is_laid()).and_then(BrokenBits::comes);
        published.link_one();
        self.store(slot, comes.expect("a table was laid here"));
        filled.note();
    }

    /// Marks the table that `slot` leads to as one that stays when it is empty. Hardware ignores the mark: nothing is owed.
    ///
    /// # Panics
    /// When the slot leads to no table.
    pub fn keep<S: State>(&mut self, place: Place<'_, M, S>) {
        let slot = place.slot();
        let frame = self.child(slot).expect("a table to keep");
        self.store(slot, Entry::Table { frame, kept: true }.encode_in::<Geo<M>>(slot.level()));
    }

    /// Settles what fills owe: they are visible to walks, and this PE fetches and translates anew.
    pub fn complete<S: State>(&mut self, filled: Filled<S>) {
        let owes = filled.settle();
        if S::WALKED && owes {
            self.dsb_ishst(); // the fills are visible to walks before an access relies on them
            self.isb(); // IWZCBG: ... and before a fetch does
        }
    }

    /// The slots of a proof. What walks may read is looked at once more: a proof says what was so when it was made.
    #[inline(always)]
    fn still_unused<S: State>(&self, slots: UnusedSlots<'_, M, S>) -> (Slot, u64) {
        let (first, count) = slots.into_parts();
        assert!(!S::WALKED || self.machine.first_used(first, count).is_none(), "a slot is filled once");
        (first, count)
    }

    fn one_for<S: State>(&self, slot: UnusedSlots<'_, M, S>, table: &FreshTable<M>) -> Slot {
        let (slot, count) = self.still_unused(slot);
        assert!(count == 1 && table.belongs_under(slot), "a table is linked where it was made for");
        slot
    }
}
