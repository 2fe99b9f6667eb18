//! Fills: unused slots become leaves, or lead to tables. No invalidation is owed, for nothing translated through them; what is owed is that
//! walks see a table's contents before its link, and that this PE looks anew.

#![forbid(unsafe_code)]

use super::{Filled, FreshTable, Geo, Laid, Protocol, Published, State, Tables, UnusedSlots};
use crate::descriptor::{Entry, Leaf, Waiting};
use crate::geometry::{Geometry, HighBits};
use crate::machine::{Machine, Slot};

impl<M: Machine> Protocol<M> {
    /// The proof that `count` slots of `tables` from `first` on, all of one table, were never used.
    ///
    /// # Errors
    /// The first slot that was.
    #[inline(always)]
    pub fn unused_run<S: State>(&self, _tables: &Tables<S>, first: Slot, count: u64) -> Result<UnusedSlots<S>, Slot> {
        match self.machine.first_used(first, count) {
            Some(index) => Err(Geo::<M>::step(first, index)),
            None => Ok(UnusedSlots::run(first, count)),
        }
    }

    /// Stores `leaf` into the first of `slots`, through which nothing translates, and what follows it in memory into the others.
    ///
    /// # Panics
    /// When the run would end beyond what the format can say, which a mapper refuses, or a slot has been filled since the proof.
    pub fn fill<S: State>(&mut self, slots: UnusedSlots<S>, leaf: Leaf, filled: &mut Filled<S>) {
        let (first, count) = slots.into_parts();
        if S::WALKED {
            // What walks may read is looked at once more: a proof says what was so when it was made.
            assert!(self.machine.first_used(first, count).is_none(), "a slot is filled once");
        }
        self.store_leaves(first, count, leaf);
        filled.note();
    }

    /// Stores `leaf` into slot `first` of `table`, which nothing links to, and what follows it in memory into `count` - 1 slots more.
    ///
    /// # Panics
    /// As for [`Self::fill`]; and when the slots are another table's.
    pub fn fill_fresh(&mut self, table: &FreshTable, first: Slot, count: u64, leaf: Leaf) {
        assert!(first.table() == table.frame(), "the slots are this table's");
        self.store_leaves(first, count, leaf);
    }

    fn store_leaves(&mut self, first: Slot, count: u64, leaf: Leaf) {
        let level = first.level();
        let (step, bits) = (Geo::<M>::slot_bytes(level), Geo::<M>::OUTPUT_BITS);
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
                first = Geo::<M>::step(first, piece);
                leaf = leaf.advanced(piece * step);
            }
        }
    }

    /// Links `table` into a slot of `tables`. In tables that a walk may read, the child's descriptors, and those of all that hangs from
    /// it, are made visible first: a walk that sees the link must not see the frames' past. `kept`: it stays when it is empty.
    ///
    /// # Panics
    /// When the table was made for another address than the slot's, which would be an error of the mapper.
    pub fn link<S: State>(&mut self, slot: UnusedSlots<S>, table: FreshTable, kept: bool, filled: &mut Filled<S>) {
        let slot = one_for::<M, S>(slot, &table);
        if S::WALKED {
            self.dsb_ishst(); // the child's descriptors are visible to walks before the link below
        }
        self.store_link(slot, table, kept);
        filled.note();
    }

    /// Links `table` into a slot of `parent`, a table that nothing links to. No walk can come by, so no barrier is owed here: the one
    /// before `parent` itself is linked makes the child's descriptors visible too.
    ///
    /// # Panics
    /// When the table was made for another address than the slot's, or the slot is not the parent's.
    pub fn link_fresh(&mut self, parent: &FreshTable, slot: Slot, table: FreshTable, kept: bool) {
        let fits = slot.table() == parent.frame() && table.belongs_under::<Geo<M>>(slot);
        assert!(fits, "a table is linked where it was made for");
        self.store_link(slot, table, kept);
    }

    fn store_link(&mut self, slot: Slot, table: FreshTable, kept: bool) {
        let entry = Entry::Table { frame: table.into_linked(), kept };
        self.store(slot, entry.encode_in::<Geo<M>>(slot.level()));
    }

    /// Stands `table` ready in a slot, without bit 0: of several tables, so that one DSB serves the links of all.
    ///
    /// # Panics
    /// As for [`Self::link`].
    pub fn lay<S: State>(&mut self, slot: UnusedSlots<S>, table: FreshTable, kept: bool, laid: &mut Laid) {
        let slot = one_for::<M, S>(slot, &table);
        let entry = Entry::Table { frame: table.into_linked(), kept };
        self.store(slot, Waiting::laid(entry.encode_in::<Geo<M>>(slot.level())).raw());
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
    pub fn link_laid<S: State>(&mut self, slot: Slot, published: &mut Published, filled: &mut Filled<S>) {
        let comes = Waiting::read(self.raw(slot)).filter(|waiting| waiting.is_laid()).and_then(Waiting::comes);
        published.link_one();
        self.store(slot, comes.expect("a table was laid here"));
        filled.note();
    }

    /// Marks the table that `slot` leads to as one that stays when it is empty. Hardware ignores the mark: nothing is owed.
    ///
    /// # Panics
    /// When the slot leads to no table.
    pub fn keep(&mut self, slot: Slot) {
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
}

fn one_for<M: Machine, S: State>(slot: UnusedSlots<S>, table: &FreshTable) -> Slot {
    let (slot, count) = slot.into_parts();
    assert!(count == 1 && table.belongs_under::<Geo<M>>(slot), "a table is linked where it was made for");
    slot
}
