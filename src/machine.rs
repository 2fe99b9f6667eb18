//! The seam between the manager and the machine: memory that holds tables, barriers, TLB maintenance.
//!
//! Why it exists: everything above this file is the same code on the target, in host tests and under the model. The target's
//! implementation is `el2`, one instruction a function; a host's may be a map that remembers every step.
//!
//! What must hold: [`Machine::store`], [`Machine::zero_frame`] and [`Machine::tlbi`] take a [`Permit`], which only `bbm` can make: no
//! other module can touch a table or drop an invalidation.

#![forbid(unsafe_code)]

mod tlbi;

pub use tlbi::{RangeOperand, Reach, Scope, Tlbi, VaOperand};

use crate::addr::{Frame, PAGE_BYTES, PhysSpan, VirtAddr, VirtSpan};
use crate::geometry::{Geometry, Slot};
use core::fmt;

/// The right to store to tables and to invalidate. [`crate::bbm`] alone makes one.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// One, for [`crate::bbm::Protocol::new`] and nobody else, which a test of the source sees to.
    pub(crate) const fn for_the_protocol() -> Self {
        Self(())
    }
}

/// What the manager needs of a machine. Scopes are the Inner Shareable domain unless a name says otherwise.
pub trait Machine {
    /// Granule and address size of its tables.
    type Geometry: Geometry;

    /// Reads the descriptor at `slot`, in one 64-bit access.
    fn load(&self, slot: Slot) -> u64;

    /// The first of `count` slots from `first` on, side by side in one table, that does not read as 0, counted from `first`.
    #[inline]
    fn first_used(&self, first: Slot, count: u64) -> Option<u64> {
        (0..count).find(|&index| self.load(first.step(index)) != 0)
    }

    /// How many of `count` slots from `first` on, side by side in one table, read as `bits` where `mask` has ones, up to the first that does
    /// not.
    #[inline]
    fn alike(&self, first: Slot, count: u64, mask: u64, bits: u64) -> u64 {
        let is_other = |&index: &u64| self.load(first.step(index)) & mask != bits;
        (0..count).find(is_other).unwrap_or(count)
    }

    /// Writes the descriptor at `slot`, in one 64-bit access.
    fn store(&mut self, permit: &Permit, slot: Slot, descriptor: u64);

    /// Writes `count` descriptors from `first` on, side by side in one table, each in one 64-bit access: the first is `descriptor`, each
    /// further one greater by `step`.
    #[inline]
    fn store_run(&mut self, permit: &Permit, first: Slot, count: u64, descriptor: u64, step: u64) {
        let mut descriptor = descriptor;
        for index in 0..count {
            self.store(permit, first.step(index), descriptor);
            descriptor = descriptor.wrapping_add(step);
        }
    }

    /// Zeroes a frame, a table of [`Self::Geometry`], that no table links to.
    fn zero_frame(&mut self, permit: &Permit, frame: Frame);

    /// Zeroes `count` such frames from `first` on, side by side.
    #[inline]
    fn zero_frames(&mut self, permit: &Permit, first: Frame, count: u64) {
        let step = Self::Geometry::PAGE_BYTES / PAGE_BYTES;
        (0..count).filter_map(|index| first.checked_add(index * step)).for_each(|frame| self.zero_frame(permit, frame));
    }

    /// DSB ISHST: stores before are visible to every walk of the domain.
    fn dsb_ishst(&mut self);

    /// DSB ISH: the same for loads and stores, and broadcast TLBIs before are complete.
    fn dsb_ish(&mut self);

    /// DSB NSH: local TLBIs before are complete.
    fn dsb_nsh(&mut self);

    /// ISB: what follows is fetched and translated anew.
    fn isb(&mut self);

    /// One TLB maintenance instruction.
    fn tlbi(&mut self, permit: &Permit, operation: Tlbi);

    /// Puts `root` in force with the MMU off in between (RULES.md: RootSwitch), invalidating everything on this PE, and says what
    /// that took. Only while this PE is the only one that uses the tables.
    fn switch_root(&mut self, permit: &Permit, root: Frame) -> Maintenance;

    /// What of `span` the CPUs that run, or the manager itself, stand on: text, stacks, vectors, locks, the window to table frames. Never
    /// broken, not even for a moment. By default, as on a host, nothing.
    fn footing(&self, _span: VirtSpan) -> Option<Footing> {
        None
    }

    /// What this machine reaches through `span` of the tables that it edits, in as many parts as its window has there:
    /// all frames whose contents it would load or store. By default, as on a host, nothing: it reaches memory by other
    /// ways. Asked once for each table where a request meets the window.
    #[inline(always)]
    fn reached(&self, _span: VirtSpan) -> impl Iterator<Item = Reached> + '_ {
        core::iter::empty()
    }

    /// Whether [`Self::reached`] or [`Self::guard`] finds something: asked by every request. It may be true of more.
    #[inline(always)]
    fn is_reached(&self, span: VirtSpan) -> bool {
        self.reached(span).next().is_some() || self.guard(span).is_some()
    }

    /// What of `span` is never mapped, because a CPU relies on the fault: the pages below stacks. By default, as on a
    /// host, nothing.
    #[inline(always)]
    fn guard(&self, _span: VirtSpan) -> Option<Footing> {
        None
    }

    /// `frame`, of a former table, is free from here on. No instruction; a machine that judges holds the manager to it.
    #[inline(always)]
    fn released(&mut self, _frame: Frame) {}

    /// A request has returned: the manager claims that nothing is owed. No instruction; a machine that judges holds it to the claim.
    #[inline(always)]
    fn settled(&mut self) {}
}

/// A machine whose memory is no memory of the program that runs: a host's map, a model, a table of words. Nothing that
/// the manager stores can overwrite anything but that, so memory may be made up: [`crate::frames::OwnedRam::simulated`]
/// and its kin claim it without `unsafe`.
///
/// A machine that stores to real memory does not implement this. Nobody else can do it for it: the trait and that
/// machine are both foreign to everyone but this crate and the machine's own.
pub trait Simulated: Machine {}

/// A part of a machine's window to physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    /// Where it begins.
    pub virt: VirtAddr,
    /// What is reached there, side by side.
    pub phys: PhysSpan,
}

impl Reached {
    /// What `window`, which shows `phys` from its first byte on, shows in `span`.
    #[must_use]
    #[inline(always)]
    pub fn of(window: VirtAddr, phys: PhysSpan, span: VirtSpan) -> Option<Self> {
        let ahead = span.start().raw().saturating_sub(window.raw());
        let end = span.end_exclusive().raw().saturating_sub(window.raw()).min(phys.bytes());
        let bytes = end.checked_sub(ahead).filter(|&bytes| bytes > 0)?;
        let phys = PhysSpan::of(phys.start().checked_add(ahead)?, bytes)?;
        Some(Self { virt: window.checked_add(ahead)?, phys })
    }

    /// Where `frames`, part of what it shows, begin in it.
    #[must_use]
    pub const fn virt_of(&self, frames: PhysSpan) -> VirtAddr {
        VirtAddr::within(self.virt.raw() + (frames.start().raw() - self.phys.start().raw()))
    }
}

/// What a CPU stands on, or the manager: it may not be broken while any of them runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footing {
    /// What it is: "text", "CPU stack", ...
    pub name: &'static str,
    /// Where.
    pub virt: VirtSpan,
}

impl fmt::Display for Footing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.virt)
    }
}

/// Maintenance that was done, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Maintenance {
    /// TLBI instructions.
    pub tlbis: u32,
    /// DSB instructions.
    pub dsbs: u32,
    /// ISB instructions.
    pub isbs: u32,
}

/// A machine for tests that need none: it has no memory.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Nowhere<G>(core::marker::PhantomData<G>);

#[cfg(test)]
impl<G: Geometry> Machine for Nowhere<G> {
    type Geometry = G;

    fn load(&self, _: Slot) -> u64 {
        unreachable!("there is no memory")
    }
    fn store(&mut self, _: &Permit, _: Slot, _: u64) {}
    fn zero_frame(&mut self, _: &Permit, _: Frame) {}
    fn dsb_ishst(&mut self) {}
    fn dsb_ish(&mut self) {}
    fn dsb_nsh(&mut self) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _: &Permit, _: Tlbi) {}
    fn switch_root(&mut self, _: &Permit, _: Frame) -> Maintenance {
        Maintenance::default()
    }
}

#[cfg(test)]
impl<G: Geometry> Simulated for Nowhere<G> {}
