//! Requests that only look: the leaf at an address, the walk to it, everything in a span.

#![forbid(unsafe_code)]

use super::{Mapper, piece};
use crate::addr::{Level, PhysAddr, VirtAddr, VirtSpan};
use crate::bbm::Geo;
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::frames::Supply;
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;
use core::fmt;

/// One step of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visit {
    /// Where the walk looked.
    pub slot: Slot,
    /// What stands there.
    pub descriptor: u64,
    /// What that means.
    pub entry: Entry,
}

/// Leaves of one level and kind side by side, which map memory that lies side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where.
    pub virt: VirtSpan,
    /// To what: the first byte.
    pub output: PhysAddr,
    /// As what.
    pub attributes: Attributes,
    /// Their level.
    pub level: Level,
    /// Whether they have the contiguous hint.
    pub contiguous: bool,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = if self.contiguous { ", contiguous" } else { "" };
        write!(f, "{} -> {} {} {:?}{run}", self.virt, self.output, self.attributes, self.level)
    }
}

impl<M: Machine, S, F: Supply<M>> Mapper<'_, M, S, F> {
    /// The leaf that translates `virt` and its level, or `None` when nothing valid that the manager wrote does. Its output is the leaf's
    /// first byte.
    #[must_use]
    pub fn query(&self, virt: VirtAddr) -> Option<(Level, Leaf)> {
        let mut slot = self.walk_begin(virt)?;
        loop {
            match self.protocol.read(slot) {
                Entry::Leaf(leaf) => return Some((slot.level(), leaf)),
                Entry::Table { frame, .. } => slot = slot.below(frame, virt)?,
                _ => return None,
            }
        }
    }

    /// The walk for `virt`, from the root to where it ends; at most five steps, none for what is no input address.
    pub fn walk(&self, virt: VirtAddr) -> impl Iterator<Item = Visit> + '_ {
        let mut next = self.walk_begin(virt);
        core::iter::from_fn(move || {
            let slot = next.take()?;
            let step = Visit { slot, descriptor: self.protocol.raw(slot), entry: self.protocol.read(slot) };
            if let Entry::Table { frame, .. } = step.entry {
                next = slot.below(frame, virt);
            }
            Some(step)
        })
    }

    /// Calls `each` with everything that is mapped in `span`, in ascending order, as few mappings as there are: leaves that follow each other
    /// in every respect are one.
    pub fn dump(&self, span: VirtSpan, mut each: impl FnMut(Mapping)) {
        let mut pending: Option<Mapping> = None;
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            let Some(last) = self.walk(virt).last() else { break };
            let part = piece(span, virt, last.slot);
            if let Entry::Leaf(leaf) = last.entry {
                let next = Mapping::of(part, last.slot, leaf);
                match &mut pending {
                    Some(mapping) if mapping.goes_on_with(&next) => mapping.append(part),
                    _ => pending.replace(next).into_iter().for_each(&mut each),
                }
            }
            virt = part.end_exclusive();
        }
        pending.into_iter().for_each(each);
    }

    /// [`Self::root_slot`] of an input address, which the end of a span need not be.
    #[inline(always)]
    fn walk_begin(&self, virt: VirtAddr) -> Option<Slot> {
        (virt.raw() >> Geo::<M>::INPUT_BITS == 0).then(|| self.root_slot(virt))
    }

    /// Calls `each` with every run of slots of `span` where walks end, side by side in one table, as they end when the call comes.
    pub(super) fn each_run_of_slots(&mut self, span: VirtSpan, mut each: impl FnMut(&mut Self, Slot, u64)) {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            let Some(first) = self.walk_end(virt) else { break };
            let in_table = first.slots() - first.index() as u64;
            let in_span = (span.end_exclusive().raw() - first.virt().raw()).div_ceil(first.bytes());
            let most = in_table.min(in_span);
            let ends = |index: &u64| self.protocol.child(first.step(*index)).is_none();
            let count = match first.level() {
                Level::L3 => most,
                _ => 1 + (1..most).take_while(ends).count() as u64,
            };
            each(self, first, count);
            virt = first.span_of(count).end_exclusive();
        }
    }

    /// Where the walk for `virt` ends.
    #[inline(always)]
    pub(super) fn walk_end(&self, virt: VirtAddr) -> Option<Slot> {
        let mut slot = self.walk_begin(virt)?;
        while let Some(child) = self.protocol.child(slot) {
            slot = slot.below(child, virt)?;
        }
        Some(slot)
    }
}

impl Mapping {
    fn of(virt: VirtSpan, slot: Slot, leaf: Leaf) -> Self {
        let ahead = virt.start().raw() - slot.virt().raw();
        let output = PhysAddr::at(leaf.output().raw() + ahead);
        let (attributes, contiguous) = (leaf.attributes(), leaf.contiguous());
        Self { virt, output, attributes, level: slot.level(), contiguous }
    }

    fn goes_on_with(&self, next: &Self) -> bool {
        let output = self.output.checked_add(self.virt.bytes());
        self.virt.end_exclusive() == next.virt.start()
            && output == Some(next.output)
            && (self.attributes, self.level, self.contiguous) == (next.attributes, next.level, next.contiguous)
    }

    fn append(&mut self, part: VirtSpan) {
        self.virt = VirtSpan::new(self.virt.start(), part.end_exclusive()).unwrap_or(self.virt);
    }
}
