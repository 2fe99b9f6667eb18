//! What is owed, as values that cannot be forgotten, and what is proven, as values that cannot be forged.

use super::pending::Pending;
use super::tables::{Debt, State, Tables};
use crate::addr::{Frame, PhysSpan, VirtSpan};
use crate::geometry::Slot;
use core::marker::PhantomData;

/// Slots of one table, side by side, that read as never used: nothing translates through them. It borrows the tables as [`super::Place`]
/// does, from which it comes: no table of them goes, and no root comes into force, before its use.
#[derive(Debug)]
#[must_use = "a proof is for filling the slots"]
pub struct UnusedSlots<'t, M, S> {
    first: Slot,
    count: u64,
    tables: PhantomData<&'t Tables<M, S>>,
}

impl<M, S> UnusedSlots<'_, M, S> {
    pub(super) fn run(first: Slot, count: u64) -> Self {
        Self { first, count, tables: PhantomData }
    }

    pub(super) fn into_parts(self) -> (Slot, u64) {
        (self.first, self.count)
    }
}

/// Slots that became valid: a DSB and an ISB are owed before anything relies on them.
#[derive(Debug)]
#[must_use = "a fill is completed by Protocol::complete"]
pub struct Filled<S> {
    owes: bool,
    debt: Debt,
    state: PhantomData<S>,
}

impl<S: State> Filled<S> {
    /// Nothing filled yet.
    pub fn none() -> Self {
        Self { owes: false, debt: Debt("a fill without its DSB and ISB"), state: PhantomData }
    }

    pub(super) fn note(&mut self) {
        self.owes = true;
    }

    pub(super) fn settle(self) -> bool {
        self.debt.settle();
        self.owes
    }
}

/// Tables that stand ready in slots without bit 0: a DSB is owed before they are linked.
#[derive(Debug)]
#[must_use = "tables that were laid are published and linked"]
pub struct Laid {
    count: u64,
    debt: Debt,
}

impl Laid {
    /// No table yet.
    pub fn none() -> Self {
        Self { count: 0, debt: Debt("tables laid ready, but not published") }
    }

    pub(super) fn note(&mut self) {
        self.count += 1;
    }

    pub(super) fn publish(self) -> Published {
        self.debt.settle();
        Published { count: self.count, debt: Debt("tables published, but not all linked") }
    }
}

/// The proof that what was laid is visible to walks: it may be linked, and all of it must be.
#[derive(Debug)]
#[must_use = "tables that were published are linked"]
pub struct Published {
    count: u64,
    debt: Debt,
}

impl Published {
    pub(super) fn link_one(&mut self) {
        self.count = self.count.checked_sub(1).expect("as many tables are linked as were laid");
    }

    /// All of them are linked.
    ///
    /// # Panics
    /// When some are not.
    pub fn done(self) {
        assert!(self.count == 0, "{} tables were laid and never linked", self.count);
        self.debt.settle();
    }
}

/// Slots that lost bit 0: a TLB may still translate through them until [`super::Protocol::invalidate`].
#[derive(Debug)]
#[must_use = "what is broken is invalidated"]
pub struct Broken {
    pending: Pending,
    /// How many breaks it stands for.
    breaks: u64,
    debt: Debt,
}

impl Broken {
    /// Nothing broken yet.
    pub fn none() -> Self {
        Self { pending: Pending::none(), breaks: 0, debt: Debt("a break without its TLBI") }
    }

    /// One break more: where it notes what it owes.
    #[inline(always)]
    pub(super) fn one_more(&mut self) -> &mut Pending {
        self.breaks += 1;
        &mut self.pending
    }

    #[inline(always)]
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// How many breaks are settled, and what lies between the first and the last.
    #[inline(always)]
    pub(super) fn settle(self) -> (u64, Option<VirtSpan>) {
        self.debt.settle();
        (self.breaks, self.pending.span())
    }
}

/// Leaves that changed in place, in rights or, where [`Resize`] allows it, in size: a TLB may still hold the old ones until
/// [`super::Protocol::invalidate_changed`].
#[derive(Debug)]
#[must_use = "what is changed is invalidated"]
pub struct Changed {
    pending: Pending,
    debt: Debt,
}

impl Changed {
    /// Nothing changed yet.
    pub fn none() -> Self {
        Self { pending: Pending::none(), debt: Debt("a change of rights without its TLBI") }
    }

    /// What it owes, to note more.
    #[inline(always)]
    pub(super) fn more(&mut self) -> &mut Pending {
        &mut self.pending
    }

    #[inline(always)]
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    #[inline(always)]
    pub(super) fn settle(self) {
        self.debt.settle();
    }
}

/// The proof that no TLB translates through the slots that one [`Broken`] held, for as long as nothing else is broken,
/// and once no other break is owed.
#[derive(Debug)]
pub struct Invalidated {
    span: Option<VirtSpan>,
    epoch: u64,
}

impl Invalidated {
    #[inline(always)]
    pub(super) fn of(span: Option<VirtSpan>, epoch: u64) -> Self {
        Self { span, epoch }
    }

    /// Whether nothing has been broken since: `epoch` is the protocol's now.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// From the first to the last address that was broken.
    #[must_use]
    pub fn span(&self) -> Option<VirtSpan> {
        self.span
    }
}

/// Evidence that every CPU lets blocks and tables replace each other, and the contiguous bit change, in place: FEAT_BBM level 2 on a listed
/// part, or level 3, and no erratum against it ([`super::Protocol::resize`]).
#[derive(Clone, Copy, Debug)]
pub struct Resize(pub(super) ());

/// Permission to write, within a span, frames that are executed elsewhere: until
/// [`crate::mapper::Mapper::close_alias`], which is owed.
#[derive(Debug)]
#[must_use = "a declared alias is closed"]
pub struct OpenAlias<M> {
    virt: VirtSpan,
    frames: PhysSpan,
    debt: Debt,
    machine: PhantomData<fn() -> M>,
}

impl<M> OpenAlias<M> {
    pub(crate) fn of(virt: VirtSpan, frames: PhysSpan) -> Self {
        Self { virt, frames, debt: Debt("a declared alias that is not closed"), machine: PhantomData }
    }

    /// Where.
    #[must_use]
    pub fn virt(&self) -> VirtSpan {
        self.virt
    }

    /// Of what.
    #[must_use]
    pub fn frames(&self) -> PhysSpan {
        self.frames
    }

    pub(crate) fn settle(self) {
        self.debt.settle();
    }
}

/// Most frames that one root switch detaches.
const DETACHED_MAX: usize = 8;

/// Tables taken out of use, whose frames are nobody's until the invalidation is complete: those under slots that were broken, which
/// remember them, or those of a root that is switched away from.
#[derive(Debug)]
#[must_use = "detached frames return through an invalidation"]
pub struct Detached {
    frames: [Option<Frame>; DETACHED_MAX],
    slots: u64,
    debt: Debt,
}

impl Detached {
    /// None yet.
    pub fn none() -> Self {
        Self::first_tables([None; DETACHED_MAX])
    }

    /// The frames of the first tables, which boot/tables.S built and which are in force until the root switch.
    pub(crate) fn first_tables(frames: [Option<Frame>; DETACHED_MAX]) -> Self {
        Self { frames, slots: 0, debt: Debt("frames detached without an invalidation") }
    }

    pub(super) fn note(&mut self) {
        self.slots += 1;
    }

    pub(super) fn reclaim_one(&mut self) {
        self.slots = self.slots.checked_sub(1).expect("as many tables come back as were detached");
    }

    pub(super) fn settle<M>(self) -> Released<M> {
        self.debt.settle();
        Released { frames: self.frames, machine: PhantomData }
    }

    /// All of them came back.
    ///
    /// # Panics
    /// When some did not.
    #[inline(always)]
    pub fn done(self) {
        assert!(self.slots == 0, "{} detached tables never came back", self.slots);
        self.debt.settle();
    }
}

/// Frames of former tables after a completed invalidation: fit for any use.
#[derive(Debug)]
#[must_use = "released frames return to the supply"]
pub struct Released<M> {
    frames: [Option<Frame>; DETACHED_MAX],
    machine: PhantomData<fn() -> M>,
}

impl<M> Released<M> {
    /// The frames.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;

    #[test]
    fn good_first_tables_come_back_as_many_as_they_are() {
        let frame = |index: usize| Frame::containing(PhysAddr::at(0x5000 + 0x1000 * index as u64));
        let released = Detached::first_tables(core::array::from_fn(|index| Some(frame(index)))).settle::<()>();
        let frames: Vec<Frame> = released.frames().collect();
        assert_eq!(frames, (0..8).map(frame).collect::<Vec<_>>());
    }
}
