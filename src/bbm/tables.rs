//! Tables, and whether a walk may read them.

use super::FreshTable;
use crate::addr::{Frame, Level, VirtAddr};
use crate::geometry::Slot;
use core::marker::PhantomData;

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

/// A root and what hangs from it.
#[derive(Debug)]
pub struct Tables<S> {
    /// The root's first slot.
    root: Slot,
    state: PhantomData<S>,
}

impl Tables<Offline> {
    /// New tables whose root is `root`, fresh and empty.
    ///
    /// # Panics
    /// When it was made for another address than 0: a root translates everything. [`super::Protocol::switch_root`] looks at its level.
    #[must_use]
    pub fn new(root: FreshTable) -> Self {
        assert!(root.virt().raw() == 0, "a root translates from address 0 on");
        Self { root: root.into_linked(), state: PhantomData }
    }

    pub(super) fn into_live(self) -> Tables<Live> {
        Tables { root: self.root, state: PhantomData }
    }
}

impl<S> Tables<S> {
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
