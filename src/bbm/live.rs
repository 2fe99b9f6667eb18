//! Changes of what walks may have cached: break and make, change in place, detach and reclaim.

#![forbid(unsafe_code)]

use super::pending::SlotRun;
use super::{
    Broken, Changed, Detached, Filled, FreeTables, FreshTable, Geo, Invalidated, Live, Pending, Place, Protocol,
    Resize, Tables,
};
use crate::addr::{Frame, Level, VirtSpan};
use crate::descriptor::{Attributes, BrokenBits, Entry, Leaf, leaf_bits_in, leaf_mark};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// What a run of leaves becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing.
    Nothing,
    /// The same outputs, as something else.
    Same {
        /// Memory type and rights.
        attributes: Attributes,
        /// Whether the run is one of contiguous leaves.
        contiguous: bool,
    },
    /// This leaf, and in the slots that follow what follows it in memory.
    Leaf(Leaf),
}

impl After {
    /// What the leaf `old` of the slot that is `index` slots from the first becomes.
    #[inline(always)]
    pub(super) fn of<G: Geometry>(self, level: Level, old: u64, index: u64) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Same { attributes, contiguous } => {
                Some(old & G::OUTPUT_MASK | leaf_bits_in::<G>(attributes, level, contiguous))
            }
            Self::Leaf(leaf) => Some(leaf.advanced(index << G::shift(level)).encode_in::<G>(level)),
        }
    }
}

impl<M: Machine> Protocol<M> {
    /// Breaks `count` valid leaves from `first` on, side by side in one table: bit 0 is cleared, the rest says what comes. The
    /// invalidation is owed by `broken`.
    ///
    /// # Panics
    /// When a slot holds no leaf: the plan has seen leaves; or the table ends before.
    #[inline(always)]
    pub fn break_run(&mut self, first: Place<'_, M, Live>, count: u64, after: After, broken: &mut Broken) {
        let first = first.run_of(count);
        self.note_break(broken).add::<Geo<M>>(first, count, false);
        let level = first.level();
        for index in 0..count {
            let slot = first.step(index);
            let old = self.leaf_to_break(slot);
            let waiting = match after.of::<Geo<M>>(level, old, index) {
                None => BrokenBits::going(old),
                Some(new) => BrokenBits::coming(new),
            };
            self.machine.store(&self.permit, slot, waiting.raw());
        }
        self.counts.stores += count as u32;
    }

    /// What `slot` holds: a leaf. A link to a table would owe more than a leaf does.
    #[inline(always)]
    fn leaf_to_break(&self, slot: Slot) -> u64 {
        let (old, (mask, leaf)) = (self.raw(slot), leaf_mark(slot.level()));
        assert!(old & mask == leaf, "a slot that is broken held a leaf");
        old
    }

    /// One break more: where `broken` notes what it owes.
    #[inline(always)]
    fn note_break<'b>(&mut self, broken: &'b mut Broken) -> &'b mut Pending {
        self.epoch += 1;
        self.breaks_owed += 1;
        broken.one_more()
    }

    /// Breaks a valid leaf in favour of `table`, which is filled and stands ready in the slot meanwhile. The DSB of the invalidation makes its
    /// descriptors visible.
    ///
    /// # Panics
    /// When the slot holds no leaf, or the table was made for another address.
    pub fn break_into(&mut self, place: Place<'_, M, Live>, table: FreshTable<M>, broken: &mut Broken) {
        let slot = place.slot();
        self.leaf_to_break(slot);
        assert!(table.belongs_under(slot), "a table is linked where it was made for");
        let entry = Entry::table(table.into_linked().table()).encode_in::<Geo<M>>(slot.level());
        self.note_break(broken).add::<Geo<M>>(slot, 1, false);
        self.store(slot, BrokenBits::coming(entry).raw());
    }

    /// Breaks the link to a table. Its frame, and those of the tables below it, ride along in `detached`; every valid leaf below and every
    /// empty table owes an invalidation of all its levels (RVMSWQ), which `broken` notes.
    ///
    /// It takes the tables for itself, and a slot by name, because no [`Place`] in what goes may be left.
    ///
    /// # Panics
    /// When the slot leads to no table, or no walk to the slot.
    pub fn break_table(
        &mut self,
        tables: &mut Tables<M, Live>,
        slot: Slot,
        broken: &mut Broken,
        detached: &mut Detached,
    ) {
        let slot = self.last_place(tables, slot).slot();
        let child = self.child(slot).expect("a table to detach");
        let pending = self.note_break(broken);
        self.note_below(child, slot, pending);
        self.store(slot, BrokenBits::going(self.raw(slot)).raw());
        detached.note();
    }

    /// Notes in `pending` what hangs from `child`, the table that `slot` leads to, as what a break of that link owes; yields how many tables
    /// that are.
    pub(crate) fn note_below(&self, child: Frame, slot: Slot, pending: &mut Pending) -> u64 {
        let Some(first) = slot.below(child, slot.virt()) else { return 0 };
        let (level, slots) = (first.level(), first.slots());
        let leaves = leaf_mark(level);
        let (mut at, mut any, mut tables) = (0, false, 1);
        while let Some(used) = self.first_used(first, at, slots) {
            let slot = first.step(used);
            let raw = self.raw(slot);
            at = used + 1;
            if let Some(below) = Entry::table_in::<Geo<M>>(raw, level) {
                tables += self.note_below(below, slot, pending);
            } else if raw & 1 != 0 {
                let run = self.alike(first, used, slots, leaves).max(1);
                pending.add::<Geo<M>>(slot, run, true);
                at = used + run;
            } else {
                continue;
            }
            any = true;
        }
        if !any {
            pending.add::<Geo<M>>(first, 1, true); // an empty table: a walk may have cached the link to it
        }
        tables
    }

    /// Changes `count` live leaves from `first` on in place. The invalidation is owed by `changed`.
    ///
    /// # Panics
    /// When a slot holds no leaf, or the table ends before.
    #[inline(always)]
    pub fn change_run(
        &mut self,
        first: Place<'_, M, Live>,
        count: u64,
        attributes: Attributes,
        contiguous: bool,
        changed: &mut Changed,
    ) {
        let first = first.run_of(count);
        self.store_rights(first, count, attributes, contiguous);
        changed.more().add::<Geo<M>>(first, count, false);
    }

    /// Stores over `count` live leaves from `first` on the same outputs with other rights.
    #[inline(always)]
    fn store_rights(&mut self, first: Slot, count: u64, attributes: Attributes, contiguous: bool) {
        let bits = leaf_bits_in::<Geo<M>>(attributes, first.level(), contiguous);
        let (mask, leaf) = leaf_mark(first.level());
        for slot in (0..count).map(|index| first.step(index)) {
            let old = self.raw(slot);
            assert!(old & mask == leaf, "a slot that changes in place held a leaf");
            self.machine.store(&self.permit, slot, old & Geo::<M>::OUTPUT_MASK | bits);
        }
        self.counts.stores += count as u32;
    }

    /// Puts `table`, which maps what the live block in `slot` maps and perhaps less, in the block's place. The invalidation is owed by
    /// `changed`.
    ///
    /// # Panics
    /// When the slot holds no block, or the table was made for another address.
    pub fn replace_block(
        &mut self,
        place: Place<'_, M, Live>,
        table: FreshTable<M>,
        _evidence: Resize,
        changed: &mut Changed,
    ) {
        let slot = place.slot();
        let (mask, leaf) = leaf_mark(slot.level());
        assert!(self.raw(slot) & mask == leaf, "a slot that changes in place held a leaf");
        assert!(table.belongs_under(slot), "a table is linked where it was made for");
        self.dsb_ishst(); // the table's descriptors are visible to walks before the link below
        let entry = Entry::table(table.into_linked().table());
        self.store(slot, entry.encode_in::<Geo<M>>(slot.level()));
        changed.more().add::<Geo<M>>(slot, 1, false);
    }

    /// Settles broken slots, `count` from `first` on in one table, on the proof that their invalidation is complete: what comes is made,
    /// what went is given back as never used, detached tables' frames go to `free`. Slots that are not broken stay.
    ///
    /// # Panics
    /// When the invalidation did not cover a slot, or a break is not settled yet, or the table ends before.
    pub fn settle_run(&mut self, first: Place<'_, M, Live>, count: u64, settling: &mut Settling<'_, M>) {
        let first = first.run_of(count);
        // No break is owed, so whatever is broken between the first and the last was settled by this proof or an older one.
        let proven = self.proves(settling.proof).unwrap_or(VirtSpan::EMPTY);
        for slot in (0..count).map(|index| first.step(index)) {
            let Some(waiting) = BrokenBits::read(self.raw(slot)) else { continue };
            if waiting.comes().is_none()
                && let Some(child) = Entry::table_in::<Geo<M>>(waiting.went(), first.level())
            {
                self.reclaim_table(slot, child, settling);
                continue;
            }
            let covered = proven.covers(slot.span()) && !waiting.is_laid();
            assert!(covered, "only a broken, invalidated slot is used again");
            self.store(slot, waiting.comes().unwrap_or(0));
            if waiting.comes().is_some() {
                settling.filled.note();
            }
        }
    }

    /// What `proof` proves now: nothing, once something else was broken, or while any break is owed.
    fn proves(&self, proof: &Invalidated) -> Option<VirtSpan> {
        proof.span().filter(|_| proof.is_of(self.epoch) && self.breaks_owed == 0)
    }

    /// Breaks `count` leaves from `first` on, side by side in one table, invalidates them, and gives the slots back as unused: what
    /// [`Self::break_run`], [`Self::invalidate`] and [`Self::settle_run`] do one after the other, with nothing to carry between them.
    ///
    /// # Panics
    /// When a slot holds nothing valid, or is no longer as the break left it afterwards; or the table ends before.
    #[inline(always)]
    pub(crate) fn remove_run(&mut self, first: Place<'_, M, Live>, count: u64) -> Invalidated {
        let first = first.run_of(count);
        self.epoch += 1;
        for slot in (0..count).map(|index| first.step(index)) {
            let old = self.leaf_to_break(slot);
            self.store(slot, BrokenBits::going(old).raw());
        }
        self.invalidate_owed(SlotRun::of(first, count));
        for slot in (0..count).map(|index| first.step(index)) {
            assert!(BrokenBits::read(self.raw(slot)).is_some(), "only a broken, invalidated slot is used again");
            self.store(slot, 0);
        }
        Invalidated::of(Some(first.span_of(count)), self.epoch)
    }

    /// Changes `count` live leaves from `first` on in place, and invalidates them: what [`Self::change_run`] and
    /// [`Self::invalidate_changed`] do one after the other, with nothing to carry between them.
    ///
    /// # Panics
    /// As for [`Self::change_run`].
    #[inline(always)]
    pub(crate) fn rewrite_run(&mut self, first: Place<'_, M, Live>, count: u64, attributes: Attributes) {
        let first = first.run_of(count);
        self.store_rights(first, count, attributes, false);
        self.invalidate_owed(SlotRun::of(first, count));
    }

    /// A detached table: its frames, after an invalidation of all that hung from it, are free; in its place comes a block when
    /// [`Settling::merges`] says so.
    fn reclaim_table(&mut self, slot: Slot, child: Frame, settling: &mut Settling<'_, M>) {
        // What hung from the table was noted leaf by leaf, and holes were not: the proof covers it where it meets the slot at all.
        let met = self.proves(settling.proof).is_some_and(|span| span.intersection(slot.span()).is_some());
        assert!(met, "only a broken, invalidated slot is used again");
        let block = if settling.merges { self.merged(slot, child) } else { None };
        settling.detached.reclaim_one();
        if let Some(first) = slot.below(child, slot.virt()) {
            self.free_below(first, settling.free);
        }
        self.store(slot, block.map_or(0, |leaf| leaf.encode_in::<Geo<M>>(slot.level())));
        if block.is_some() {
            settling.filled.note();
        }
    }

    /// The block for `slot` that maps what the table `child` maps, which the plan found to be uniform.
    fn merged(&self, slot: Slot, child: Frame) -> Option<Leaf> {
        let mut first = slot.below(child, slot.virt())?;
        loop {
            match self.read(first) {
                Entry::Table { frame, .. } => first = first.below(frame, slot.virt())?,
                Entry::Leaf(leaf) => return Leaf::new_in::<Geo<M>>(slot.level(), leaf.output(), leaf.attributes()),
                _ => return None,
            }
        }
    }

    /// Frees the table of the slot `first` and those below it.
    fn free_below(&mut self, first: Slot, free: &mut FreeTables<M>) {
        let (mut at, has_tables) = (0, first.level() != Level::L3);
        while has_tables && let Some(used) = self.first_used(first, at, first.slots()) {
            let slot = first.step(used);
            if let Some(below) = self.child(slot).and_then(|child| slot.below(child, slot.virt())) {
                self.free_below(below, free);
            }
            at = used + 1;
        }
        self.put_free(first.table(), free);
    }

    /// Puts a block in the place of the table that `slot` leads to and that maps just the same, in place: then invalidates, and frees the
    /// table.
    ///
    /// It takes the tables for itself, as [`Self::break_table`] does.
    ///
    /// # Panics
    /// When the slot leads to no table, or no walk to the slot.
    pub fn replace_table(
        &mut self,
        tables: &mut Tables<M, Live>,
        slot: Slot,
        leaf: Leaf,
        _evidence: Resize,
        free: &mut FreeTables<M>,
    ) {
        let slot = self.last_place(tables, slot).slot();
        let child = self.child(slot).expect("a table to replace");
        let mut changed = Changed::none();
        self.note_below(child, slot, changed.more());
        self.store(slot, leaf.encode_in::<Geo<M>>(slot.level()));
        self.invalidate_changed(changed);
        if let Some(first) = slot.below(child, slot.virt()) {
            self.free_below(first, free);
        }
    }
}

/// What settling needs: a proof, and where what comes out of it goes.
#[derive(Debug)]
pub struct Settling<'a, M> {
    /// The invalidation that is complete.
    pub proof: &'a Invalidated,
    /// What becomes valid.
    pub filled: &'a mut Filled<Live>,
    /// Tables that were detached.
    pub detached: &'a mut Detached,
    /// Where their frames go.
    pub free: &'a mut FreeTables<M>,
    /// Whether blocks come in their places.
    pub merges: bool,
}
