//! Tables, and whether a walk may read them.

use super::FreshTable;
use crate::addr::{Frame, Level};
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
    root: Frame,
    level: Level,
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
        Self { level: root.level(), root: root.into_linked(), state: PhantomData }
    }

    pub(super) fn into_live(self) -> Tables<Live> {
        Tables { root: self.root, level: self.level, state: PhantomData }
    }
}

impl<S> Tables<S> {
    /// The root's frame: what TTBR0_EL2 takes.
    #[must_use]
    pub fn root(&self) -> Frame {
        self.root
    }

    /// The root's level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }
}
