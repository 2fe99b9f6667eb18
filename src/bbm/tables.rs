//! Tables, and whether a walk may read them; where a store to them may go. All are values that are moved or
//! borrowed: what one holder has, no other has.

use crate::addr::{Frame, Level, VirtAddr};
use crate::geometry::Slot;
use core::marker::PhantomData;
use core::mem;

/// Tables in one of two states: never walked, or possibly walked at any moment.
pub trait State: sealed::Sealed {
    /// Whether a walk may read the tables.
    const WALKED: bool;
}

/// Tables under a root that was never in force: nothing walks them, so no store to them owes anything before the root switch.
#[derive(Debug)]
pub struct Offline(());

/// Tables under the root in force: a walk may read any slot at any moment.
#[derive(Debug)]
pub struct Live(());

impl State for Offline {
    const WALKED: bool = false;
}
impl State for Live {
    const WALKED: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Offline {}
    impl Sealed for super::Live {}
}

/// A root of the machine `M` and what hangs from it.
#[derive(Debug)]
pub struct Tables<M, S> {
    /// The root's first slot.
    root: Slot,
    of: PhantomData<fn() -> (M, S)>,
}

impl<M> Tables<M, Offline> {
    /// New tables whose root is `root`, fresh and empty.
    ///
    /// # Panics
    /// When it was made for another address than 0: a root translates everything. [`super::Protocol::switch_root`] looks at its level.
    #[must_use]
    pub fn new(root: FreshTable<M>) -> Self {
        assert!(root.virt().raw() == 0, "a root translates from address 0 on");
        Self { root: root.into_linked(), of: PhantomData }
    }

    pub(super) fn into_live(self) -> Tables<M, Live> {
        Tables { root: self.root, of: PhantomData }
    }
}

impl<M> Tables<M, Live> {
    /// Tables that are in force already, whose root's first slot is `root`.
    pub(super) fn in_force(root: Slot) -> Self {
        Self { root, of: PhantomData }
    }
}

impl<M, S> Tables<M, S> {
    /// The root's frame: what TTBR0_EL2 takes.
    #[must_use]
    pub fn root(&self) -> Frame {
        self.root.table()
    }

    /// The root's level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.root.level()
    }

    /// The root's slot for `virt`, an input address: where its walk begins.
    #[must_use]
    #[inline(always)]
    pub fn slot(&self, virt: VirtAddr) -> Slot {
        self.root.beside(virt)
    }
}

/// A slot of tables in state `S`: what a [`Slot`], which anyone can name, is not, because that says where a descriptor would stand, and not
/// that there is a table. It borrows the tables, so no table of them is taken away before its last use.
#[derive(Debug)]
pub struct Place<'t, M, S> {
    pub(super) slot: Slot,
    pub(super) tables: PhantomData<&'t Tables<M, S>>,
}

impl<M, S> Clone for Place<'_, M, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, S> Copy for Place<'_, M, S> {}

impl<M, S> Place<'_, M, S> {
    /// Which slot that is.
    #[must_use]
    pub const fn slot(self) -> Slot {
        self.slot
    }

    /// The first of `count` slots side by side.
    ///
    /// # Panics
    /// When the table ends before.
    #[inline(always)]
    pub(super) fn run_of(self, count: u64) -> Slot {
        assert!(self.slot.index() as u64 + count <= self.slot.slots(), "a run lies in one table");
        self.slot
    }
}

/// A zeroed table that nothing links to. Its slots are unused by construction.
#[derive(Debug)]
#[must_use = "a table is linked"]
pub struct FreshTable<M> {
    /// Its slot for the address that it was made for.
    slot: Slot,
    debt: Debt,
    machine: PhantomData<fn() -> M>,
}

impl<M> FreshTable<M> {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, debt: Debt("a table that nothing links to"), machine: PhantomData }
    }

    /// The table's frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.slot.table()
    }

    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.slot.level()
    }

    /// What it was made for: the first byte of one of its slots.
    #[must_use]
    pub fn virt(&self) -> VirtAddr {
        self.slot.virt()
    }

    /// Its slot for `virt`.
    #[inline(always)]
    pub(crate) fn slot(&self, virt: VirtAddr) -> Slot {
        let (slot, first) = (self.slot.beside(virt), self.slot.first());
        debug_assert!(slot.first() == first && slot.index() < slot.slots() as usize, "an address of this table's");
        slot
    }

    pub(super) fn belongs_under(&self, slot: Slot) -> bool {
        slot.level().next() == Some(self.level()) && slot.span().contains(self.virt())
    }

    /// Its slot for what it was made for: it is linked now.
    pub(super) fn into_linked(self) -> Slot {
        self.debt.settle();
        self.slot
    }
}

/// Frames that are ready to be tables: former ones, after their invalidation, and what a supply adds. It is a list
/// without a place of its own, whose links stand in the frames' first words. [`super::Protocol`] alone adds and takes.
#[derive(Debug)]
pub struct FreeTables<M> {
    pub(super) head: Option<Frame>,
    pub(super) count: u64,
    machine: PhantomData<fn() -> M>,
}

impl<M> FreeTables<M> {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self { head: None, count: 0, machine: PhantomData }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The one that is taken next.
    #[must_use]
    pub const fn next(&self) -> Option<Frame> {
        self.head
    }
}

/// A debt: dropping one instead of settling it is a broken promise.
#[derive(Debug)]
pub(super) struct Debt(pub(super) &'static str);

impl Debt {
    pub(super) fn settle(self) {
        mem::forget(self);
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        panic!("dropped instead of settled: {}", self.0);
    }
}
