//! The protocol as types: break, invalidate, make, in that order, or it does not compile.
//!
//! Why it exists: Xen 4.11 broke boards because a live descriptor was replaced without break-before-make. Here a store to a table goes
//! through [`Protocol`] alone, and each kind of store leaves the caller holding what is still owed:
//!
//! | token | what was done | what is owed |
//! |---|---|---|
//! | [`Filled`] | unused slots became valid | DSB, ISB |
//! | [`Changed`] | rights changed in place | DSB, TLBI, DSB, ISB |
//! | [`Broken`] | valid slots lost bit 0 | DSB, TLBI, DSB, ISB; only then make or reclaim |
//! | [`Detached`] | tables no longer linked | the same, before their frames are anyone's |
//!
//! A token that is dropped panics, naming the promise: nothing is forgotten by returning early.
//!
//! What must hold: a slot is made only on a proof that nothing translates through it: it reads as never used ([`UnusedSlots`]), or a
//! completed invalidation covered it ([`Invalidated`]). Breaking clears bit 0 only, so the slots remember what was there.

#![forbid(unsafe_code)]

mod tokens;

pub use tokens::{
    Broken, Changed, Detached, Filled, FreshTable, Invalidated, Live, Offline, Released, State, Tables, UnusedSlots,
};

use crate::addr::{ADDRESS_BITS, Frame, Level, PAGE_BYTES, PhysSpan, VirtAddr};
use crate::descriptor::{Entry, Leaf};
use crate::errata::Errata;
use crate::machine::{Machine, Maintenance, Slot, Tlbi, VaOperand};
use tokens::Pending;

/// The right to store to tables and to invalidate. Only this module can make one.
#[derive(Debug)]
pub struct Permit(());

/// Which PEs have used the tables: how far an invalidation must reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Only the one that edits them: local maintenance is sound.
    ThisPe,
    /// Others too: broadcast within the Inner Shareable domain.
    Domain,
}

/// What the protocol did to a machine, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Descriptors stored; zeroing a frame that nothing links to is not one.
    pub stores: u32,
    /// Barriers and TLB maintenance.
    pub maintenance: Maintenance,
}

/// The only way to a table: a machine, how far its TLBs must be told, and what its CPUs get wrong.
#[derive(Debug)]
pub struct Protocol<M> {
    machine: M,
    permit: Permit,
    reach: Reach,
    errata: Errata,
    output_bits: u8,
    /// Grows with each break: what an earlier invalidation proved, it does not prove of a later break.
    epoch: u64,
    counts: Counts,
}

impl<M: Machine> Protocol<M> {
    /// The protocol on `machine`, for tables that only this PE has used, on CPUs with `errata`.
    ///
    /// One machine has one protocol: whoever makes a second can break what the first relies on.
    #[must_use]
    pub fn new(machine: M, errata: Errata) -> Self {
        let counts = Counts::default();
        let output_bits = ADDRESS_BITS as u8;
        Self { machine, permit: Permit(()), reach: Reach::ThisPe, errata, output_bits, epoch: 0, counts }
    }

    /// From here on other PEs may use the tables: invalidations are broadcast. `errata` are those of every PE that may.
    pub fn share(&mut self, errata: Errata) {
        self.reach = Reach::Domain;
        self.errata |= errata;
    }

    /// Notes what this PE gets wrong, once that is known.
    pub fn note_errata(&mut self, errata: Errata) {
        self.errata |= errata;
    }

    /// Notes how many bits of an output address the CPUs have; 48 until then.
    pub fn limit_output(&mut self, bits: u8) {
        self.output_bits = self.output_bits.min(bits);
    }

    /// Bits of an output address that every CPU has.
    #[must_use]
    pub fn output_bits(&self) -> u8 {
        self.output_bits
    }

    /// How far invalidations reach.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Errata of the CPUs that share the tables.
    #[must_use]
    pub fn errata(&self) -> Errata {
        self.errata
    }

    /// What was done since the protocol began.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The machine, to read.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for what is no table: it cannot store or invalidate without a [`Permit`].
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Reads a slot.
    #[must_use]
    pub fn read(&self, slot: Slot) -> Entry {
        Entry::decode(self.machine.load(slot), slot.level())
    }

    /// The table that a slot leads to, if it holds a table descriptor as the manager writes them.
    #[must_use]
    #[inline]
    pub fn child(&self, slot: Slot) -> Option<Frame> {
        Entry::table_of(self.machine.load(slot), slot.level())
    }

    /// The proof that `count` slots from `first` on, all of one table, were never used.
    ///
    /// # Errors
    /// The first slot that was.
    pub fn unused_run(&self, first: Slot, count: u64) -> Result<UnusedSlots, Slot> {
        for index in 0..count {
            let slot = first.step(index);
            if self.machine.load(slot) != 0 {
                return Err(slot);
            }
        }
        Ok(UnusedSlots::run(first, count))
    }

    /// Zeroes `frame` and makes it a table of `level` for what `virt` lies in; nothing links to it yet.
    pub fn new_table(&mut self, frame: Frame, level: Level, virt: VirtAddr) -> FreshTable {
        self.machine.zero_frame(&self.permit, frame);
        FreshTable::new(frame, level, virt)
    }

    /// Zeroes frames that nobody uses: for data, not for tables.
    pub fn zero_frames(&mut self, span: PhysSpan) {
        let first = Frame::containing(span.start());
        let count = span.page_core().bytes() / PAGE_BYTES;
        for frame in (0..count).filter_map(|index| first.checked_add(index)) {
            self.machine.zero_frame(&self.permit, frame);
        }
    }

    /// Stores `leaf` into the first of `slots`, through which nothing translates, and what follows it in memory into the others.
    ///
    /// # Panics
    /// When the run would end beyond 2^48, which a mapper refuses, or a slot has been filled since the proof.
    pub fn fill<S: State>(&mut self, slots: UnusedSlots, leaf: Leaf, filled: &mut Filled<S>) {
        let (first, count) = slots.into_parts();
        let step = first.level().slot_bytes();
        assert!(leaf.output().checked_add(count * step).is_some(), "a run of leaves ends within 48 bits");
        let mut descriptor = Entry::Leaf(leaf).encode(first.level());
        for index in 0..count {
            // What walks may read is looked at once more: a proof says what was so when it was made.
            assert!(!S::WALKED || self.machine.load(first.step(index)) == 0, "a slot is filled once");
            self.machine.store(&self.permit, first.step(index), descriptor);
            descriptor += step;
        }
        self.counts.stores += count as u32;
        filled.note();
    }

    /// Links `table` into a slot of a table that is linked itself. In tables that a walk may read, the child's descriptors, and those of
    /// all that hangs from it, are made visible first: a walk that sees the link must not see the frames' past.
    ///
    /// # Panics
    /// When the table was made for another address than the slot's, which would be an error of the mapper.
    pub fn link<S: State>(&mut self, slot: UnusedSlots, table: FreshTable, filled: &mut Filled<S>) {
        let (slot, count) = slot.into_parts();
        assert!(count == 1 && table.belongs_under(slot), "a table is linked where it was made for");
        if S::WALKED {
            self.dsb_ishst(); // the child's descriptors are visible to walks before the link below
        }
        self.store(slot, Entry::Table(table.into_linked()));
        filled.note();
    }

    /// Links `table` into a slot of `parent`, a table that nothing links to. No walk can come by, so no barrier is owed here: the one
    /// before `parent` itself is linked ([`Self::link`]) makes the child's descriptors visible too.
    ///
    /// # Panics
    /// When the table was made for another address than the slot's, or the slot is not the parent's.
    pub fn link_unreached(&mut self, parent: &FreshTable, slot: UnusedSlots, table: FreshTable) {
        let (slot, count) = slot.into_parts();
        assert!(
            count == 1 && slot.table() == parent.frame() && table.belongs_under(slot),
            "a table is linked where it was made for"
        );
        self.store(slot, Entry::Table(table.into_linked()));
    }

    /// Settles what fills owe: they are visible to walks, and this PE fetches and translates anew.
    pub fn complete<S: State>(&mut self, filled: Filled<S>) {
        let owes = filled.settle();
        if S::WALKED && owes {
            self.dsb_ishst(); // the fills are visible to walks before an access relies on them
            self.isb(); // IWZCBG: ... and before a fetch does
        }
    }

    /// Breaks a valid leaf: clears bit 0, keeps the rest. The invalidation is owed by `broken`.
    ///
    /// # Panics
    /// When the slot holds no leaf: the plan has seen one.
    pub fn break_leaf(&mut self, slot: Slot, broken: &mut Broken) {
        let entry = self.read(slot);
        assert!(matches!(entry, Entry::Leaf(_)), "a slot that is broken held a leaf");
        self.epoch += 1;
        self.store(slot, Entry::Broken(entry.encode(slot.level())));
        broken.pending().add(slot.virt());
    }

    /// Changes the rights of a live leaf in place. The invalidation is owed by `changed`.
    pub fn change(&mut self, slot: Slot, leaf: Leaf, changed: &mut Changed) {
        self.store(slot, Entry::Leaf(leaf));
        changed.pending().add(slot.virt());
    }

    /// Settles what breaks owe. What comes back proves that no TLB translates through any slot that was broken.
    pub fn invalidate(&mut self, broken: Broken) -> Invalidated {
        let pending = broken.settle();
        self.invalidate_pending(&pending);
        Invalidated::covering(pending, self.epoch)
    }

    /// Settles what changes in place owe: the old rights are gone from every TLB.
    pub fn invalidate_changed(&mut self, changed: Changed) {
        let pending = changed.settle();
        self.invalidate_pending(&pending);
    }

    /// Makes a broken slot valid again, on the proof that its invalidation is complete.
    ///
    /// # Panics
    /// When the slot is not broken or the invalidation did not cover it.
    pub fn make(&mut self, slot: Slot, leaf: Leaf, proof: &Invalidated, filled: &mut Filled<Live>) {
        self.assert_reclaimable(slot, proof);
        self.store(slot, Entry::Leaf(leaf));
        filled.note();
    }

    /// Gives a broken slot back as never used, on the proof that its invalidation is complete.
    ///
    /// # Panics
    /// When the slot is not broken or the invalidation did not cover it.
    pub fn reclaim(&mut self, slot: Slot, proof: &Invalidated) {
        self.assert_reclaimable(slot, proof);
        self.store(slot, Entry::Unused);
    }

    /// A request has returned: nothing is owed.
    #[inline(always)]
    pub(crate) fn claim_settled(&mut self) {
        self.machine.settled();
    }

    /// Puts `next` in force instead of the tables whose frames `old` holds, with the MMU off in between. The frames come back released: the
    /// switch invalidates everything, on the only PE that has used them.
    ///
    /// # Panics
    /// When other PEs use the old tables.
    pub fn switch_root(&mut self, next: Tables<Offline>, old: Detached) -> (Tables<Live>, Released) {
        assert!(self.reach == Reach::ThisPe, "a root is switched while one PE uses the tables");
        let done = self.machine.switch_root(&self.permit, next.root());
        let sum = &mut self.counts.maintenance;
        sum.tlbis += done.tlbis;
        sum.dsbs += done.dsbs;
        sum.isbs += done.isbs;
        (next.into_live(), old.settle())
    }

    fn assert_reclaimable(&self, slot: Slot, proof: &Invalidated) {
        let broken = matches!(self.read(slot), Entry::Broken(_));
        assert!(broken && proof.covers(slot.virt(), self.epoch), "only a broken, invalidated slot is used again");
    }

    fn invalidate_pending(&mut self, pending: &Pending) {
        if pending.is_empty() {
            return;
        }
        self.dsb_ishst(); // the stores are visible to every walk before the TLBIs: nothing may be cached anew from the old ones
        self.tlbi_pending(pending);
        self.dsb_complete(); // the TLBIs are complete before anything relies on them
        if self.reach == Reach::Domain && self.errata.contains(Errata::REPEAT_TLBI) {
            self.tlbi(pending.operation(self.reach, pending.any()));
            self.dsb_complete(); // the repeated TLBI is complete too
        }
        self.isb(); // RBLDZX: without FEAT_ETS2 this PE needs it for completion
    }

    fn tlbi_pending(&mut self, pending: &Pending) {
        match pending.each() {
            None => self.tlbi(pending.operation(self.reach, None)),
            Some(addresses) => {
                for &virt in addresses {
                    self.tlbi(pending.operation(self.reach, Some(virt)));
                }
            }
        }
    }

    #[inline]
    fn store(&mut self, slot: Slot, entry: Entry) {
        self.counts.stores += 1;
        self.machine.store(&self.permit, slot, entry.encode(slot.level()));
    }

    fn tlbi(&mut self, operation: Tlbi) {
        self.counts.maintenance.tlbis += 1;
        self.machine.tlbi(&self.permit, operation);
    }

    fn dsb_ishst(&mut self) {
        self.counts.maintenance.dsbs += 1;
        self.machine.dsb_ishst();
    }

    fn dsb_complete(&mut self) {
        self.counts.maintenance.dsbs += 1;
        match self.reach {
            Reach::ThisPe => self.machine.dsb_nsh(),
            Reach::Domain => self.machine.dsb_ish(),
        }
    }

    fn isb(&mut self) {
        self.counts.maintenance.isbs += 1;
        self.machine.isb();
    }
}

impl Pending {
    /// The TLBI for `virt`, or for everything when there is no one address. Only leaves are pending: the last level is enough (RVMSWQ).
    fn operation(&self, reach: Reach, virt: Option<VirtAddr>) -> Tlbi {
        match (reach, virt.map(VaOperand::new)) {
            (Reach::ThisPe, None) => Tlbi::All,
            (Reach::Domain, None) => Tlbi::AllBroadcast,
            (Reach::ThisPe, Some(operand)) => Tlbi::LeafVa(operand),
            (Reach::Domain, Some(operand)) => Tlbi::LeafVaBroadcast(operand),
        }
    }
}
