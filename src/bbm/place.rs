//! Where a store may go: a slot that a walk from the root of tables leads to, for as long as those tables stay.

use super::{Geo, Live, Protocol, State, Tables};
use crate::addr::{Level, VirtAddr};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;
use core::marker::PhantomData;

/// A slot of tables in state `S`: what a [`Slot`], which anyone can name, is not, because that says where a descriptor would stand, and not
/// that there is a table. It borrows the tables, so no table of them is taken away before its last use.
#[derive(Debug)]
pub struct Place<'t, S> {
    slot: Slot,
    tables: PhantomData<&'t Tables<S>>,
}

impl<S> Clone for Place<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Place<'_, S> {}

impl<S> Place<'_, S> {
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

impl<M: Machine> Protocol<M> {
    /// The slot of the table of `level` that a walk of `tables` for `virt` leads to, or none when the walk ends above.
    #[must_use]
    pub fn place<'t, S: State>(&self, tables: &'t Tables<S>, level: Level, virt: VirtAddr) -> Option<Place<'t, S>> {
        let slot = self.slot_at(tables, level, virt)?;
        Some(Place { slot, tables: PhantomData })
    }

    /// The same for a slot that a walk of `tables` has led to before: for the mapper, which has walked. A debug build walks again.
    #[must_use]
    #[inline(always)]
    pub(crate) fn vouch<'t, S>(&self, tables: &'t Tables<S>, slot: Slot) -> Place<'t, S> {
        debug_assert!(self.leads_to(tables, slot), "{slot} is none of these tables");
        Place { slot, tables: PhantomData }
    }

    /// The slot, which is about to lead nowhere, of live tables that the caller has for itself: no [`Place`] below it is left.
    ///
    /// # Panics
    /// When no walk of `tables` leads to it.
    pub(super) fn last_place<'t>(&self, tables: &'t mut Tables<Live>, slot: Slot) -> Place<'t, Live> {
        assert!(self.leads_to(tables, slot), "{slot} is none of these tables");
        Place { slot, tables: PhantomData }
    }

    fn leads_to<S>(&self, tables: &Tables<S>, slot: Slot) -> bool {
        self.slot_at(tables, slot.level(), slot.virt()) == Some(slot)
    }

    /// The slot of the table of `level` on the walk for `virt`.
    fn slot_at<S>(&self, tables: &Tables<S>, level: Level, virt: VirtAddr) -> Option<Slot> {
        let mut slot = tables.slot(virt);
        while slot.level() < level {
            slot = slot.below(self.child(slot)?, virt)?;
        }
        (slot.level() == level && virt.raw() >> Geo::<M>::INPUT_BITS == 0).then_some(slot)
    }
}
