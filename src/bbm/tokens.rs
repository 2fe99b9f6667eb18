//! What is owed, as values that cannot be forgotten, and what is proven, as values that cannot be forged.

use super::VirtAddr;
use crate::addr::{Frame, Level, VirtSpan};
use crate::machine::Slot;
use core::marker::PhantomData;
use core::mem;

/// TLBIs by address that one request issues before it invalidates everything instead.
const ADDRESSES_MAX: usize = 32;

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
    state: PhantomData<S>,
}

impl Tables<Offline> {
    /// New tables whose root is `root`, fresh and empty.
    ///
    /// # Panics
    /// When it was not made as a root: level 0, from address 0.
    #[must_use]
    pub fn new(root: FreshTable) -> Self {
        assert!(root.level == Level::L0 && root.virt.raw() == 0, "a root is a table of level 0");
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
        self.root
    }
}

/// A debt: dropping one instead of settling it is a broken promise.
#[derive(Debug)]
struct Debt(&'static str);

impl Debt {
    fn settle(self) {
        mem::forget(self);
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        panic!("dropped instead of settled: {}", self.0);
    }
}

/// Slots of one table, side by side, through which nothing translates: they read as never used, or their table is fresh.
#[derive(Debug)]
#[must_use = "a proof is for filling the slots"]
pub struct UnusedSlots {
    first: Slot,
    count: u64,
}

impl UnusedSlots {
    pub(super) fn run(first: Slot, count: u64) -> Self {
        Self { first, count }
    }

    pub(super) fn into_parts(self) -> (Slot, u64) {
        (self.first, self.count)
    }
}

/// A zeroed table that nothing links to. Its slots are unused by construction.
#[derive(Debug)]
#[must_use = "a table is linked"]
pub struct FreshTable {
    frame: Frame,
    level: Level,
    virt: VirtAddr,
    debt: Debt,
}

impl FreshTable {
    pub(super) fn new(frame: Frame, level: Level, virt: VirtAddr) -> Self {
        Self { frame, level, virt, debt: Debt("a table that nothing links to") }
    }

    /// The table's frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// The proof for `count` slots from `first` on, which are this table's: nothing has translated through a fresh table. The mapper
    /// fills each slot once.
    ///
    /// # Panics
    /// When `first` is a slot of another table.
    pub fn unused_run(&self, first: Slot, count: u64) -> UnusedSlots {
        assert!(first.table() == self.frame, "the proof is for this table's slots");
        UnusedSlots::run(first, count)
    }

    pub(super) fn belongs_under(&self, slot: Slot) -> bool {
        slot.level().next() == Some(self.level) && self.virt.align_down(slot.level().slot_bytes()) == slot.virt()
    }

    pub(super) fn into_linked(self) -> Frame {
        self.debt.settle();
        self.frame
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

/// Addresses whose leaves changed, until there are too many to name.
#[derive(Debug)]
pub(super) struct Pending {
    addresses: [VirtAddr; ADDRESSES_MAX],
    count: usize,
    span: Option<VirtSpan>,
}

impl Pending {
    fn none() -> Self {
        Self { addresses: [VirtAddr::at(0); ADDRESSES_MAX], count: 0, span: None }
    }

    pub(super) fn add(&mut self, virt: VirtAddr) {
        if let Some(place) = self.addresses.get_mut(self.count) {
            *place = virt;
        }
        self.count += 1;
        let low = self.span.map_or(virt, |span| span.start().min(virt));
        let high = self.span.map_or(virt, |span| span.end_exclusive().max(virt));
        self.span = VirtSpan::new(low, high);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each address, or `None` when one invalidation of everything is cheaper.
    pub(super) fn each(&self) -> Option<&[VirtAddr]> {
        self.addresses.get(..self.count)
    }

    /// One of the addresses, when they are few enough to name.
    pub(super) fn any(&self) -> Option<VirtAddr> {
        self.each().and_then(<[VirtAddr]>::first).copied()
    }
}

/// Slots that lost bit 0: a TLB may still translate through them until [`super::Protocol::invalidate`].
#[derive(Debug)]
#[must_use = "what is broken is invalidated"]
pub struct Broken {
    pending: Pending,
    debt: Debt,
}

impl Broken {
    /// Nothing broken yet.
    pub fn none() -> Self {
        Self { pending: Pending::none(), debt: Debt("a break without its TLBI") }
    }

    pub(super) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    pub(super) fn settle(self) -> Pending {
        self.debt.settle();
        self.pending
    }
}

/// Leaves whose rights changed in place: a TLB may still grant the old ones until [`super::Protocol::invalidate_changed`].
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

    pub(super) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    pub(super) fn settle(self) -> Pending {
        self.debt.settle();
        self.pending
    }
}

/// The proof that no TLB translates through the slots that one [`Broken`] held.
#[derive(Debug)]
pub struct Invalidated {
    pending: Pending,
    epoch: u64,
}

impl Invalidated {
    pub(super) fn covering(pending: Pending, epoch: u64) -> Self {
        Self { pending, epoch }
    }

    /// Whether the slot for `virt` was among what was broken, and nothing has been broken since: `epoch` is the protocol's now.
    pub(super) fn covers(&self, virt: VirtAddr, epoch: u64) -> bool {
        self.epoch == epoch && self.names(virt)
    }

    fn names(&self, virt: VirtAddr) -> bool {
        match self.pending.each() {
            Some(addresses) => addresses.contains(&virt),
            // Everything was invalidated; what this request broke lies between the first and the last.
            None => self.pending.span.is_some_and(|span| span.start() <= virt && virt <= span.end_exclusive()),
        }
    }
}

/// Most frames that one root switch detaches.
const DETACHED_MAX: usize = 8;

/// Frames of tables that a root switch takes out of use: nobody's until its invalidation is complete.
#[derive(Debug)]
#[must_use = "detached frames return through an invalidation"]
pub struct Detached {
    frames: [Option<Frame>; DETACHED_MAX],
    debt: Debt,
}

impl Detached {
    /// The frames of the first tables, which boot/tables.S built and which are in force until the root switch.
    pub fn first_tables(frames: [Option<Frame>; DETACHED_MAX]) -> Self {
        Self { frames, debt: Debt("frames detached without an invalidation") }
    }

    pub(super) fn settle(self) -> Released {
        self.debt.settle();
        Released { frames: self.frames }
    }
}

/// Frames of former tables after a completed invalidation: fit for any use.
#[derive(Debug)]
#[must_use = "released frames return to the supply"]
pub struct Released {
    frames: [Option<Frame>; DETACHED_MAX],
}

impl Released {
    /// The frames.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().flatten().copied()
    }
}
