//! What a change of a descriptor is: nothing, in place, or by break-before-make, and by which rule.

use super::Rule;
use super::memory::Memory;
use crate::descriptor::{Descriptor, Leaf};
use crate::regime::MemoryType;

/// The weakest features of the PEs that use some tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Weakest {
    pub(super) bbm: u8,
    pub(super) bbm_always: bool,
    pub(super) bbm_for_xn: bool,
    /// Any of them may use the contiguous hint.
    pub(super) contiguous: bool,
}

impl Weakest {
    /// Of no PE at all.
    pub(super) const NONE: Self = Self { bbm: 3, bbm_always: false, bbm_for_xn: false, contiguous: false };
}

/// What decides whether one descriptor may replace another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) memory: &'a Memory,
    pub(super) mair: u64,
    /// MAIR_EL2 as the old one was read.
    pub(super) old_mair: u64,
    pub(super) weakest: Weakest,
    /// Bytes that the smaller of the two translates.
    pub(super) bytes: u64,
}

/// Whether two leaves translate alike; MAIR indices of one type are one.
pub(super) fn same_leaf(one: Leaf, other: Leaf, mair: u64) -> bool {
    let type_of = |leaf: Leaf| MemoryType::of(mair, leaf.attr_index);
    type_of(one) == type_of(other) && Leaf { attr_index: 0, ..one } == Leaf { attr_index: 0, ..other }
}

/// Whether two descriptors of one place say the same.
pub(super) fn same(one: Descriptor, other: Descriptor, mair: u64) -> bool {
    match (one, other) {
        (Descriptor::Leaf(one), Descriptor::Leaf(other)) => same_leaf(one, other, mair),
        _ => one == other,
    }
}

impl Terms<'_> {
    /// The rule by which `old` and `new`, both of which may be cached for one place, may not be cached together; nothing if they may.
    pub(super) fn conflict(&self, old: Descriptor, new: Descriptor) -> Option<Rule> {
        match (old, new) {
            (Descriptor::Invalid, _) | (_, Descriptor::Invalid) => None,
            (Descriptor::Table(old), Descriptor::Table(new)) if old.next != new.next => Some(Rule::TableChange),
            (Descriptor::Table(old), Descriptor::Table(new)) if old != new => Some(Rule::HierarchyChange),
            (Descriptor::Table(_), Descriptor::Table(_)) => None,
            (Descriptor::Leaf(old), Descriptor::Leaf(new)) => self.leaves(old, new),
            (Descriptor::Leaf(leaf), Descriptor::Table(_)) | (Descriptor::Table(_), Descriptor::Leaf(leaf)) => {
                self.size(leaf)
            }
        }
    }

    /// A block and a table in one place. Level 1 asks for nT in the block while both may be cached.
    pub(super) fn size(&self, block: Leaf) -> Option<Rule> {
        let relaxed = match self.weakest.bbm {
            0 => false,
            1 => block.no_translation,
            _ => true,
        };
        if self.weakest.bbm_always {
            return Some(Rule::BbmAlways);
        }
        (!relaxed).then_some(Rule::SizeChange)
    }

    /// Two leaves for one address, of one size; `output` of both is that of this address.
    pub(super) fn leaves(&self, old: Leaf, new: Leaf) -> Option<Rule> {
        let Weakest { bbm, bbm_always, bbm_for_xn, contiguous } = self.weakest;
        let types = (MemoryType::of(self.old_mair, old.attr_index), MemoryType::of(self.mair, new.attr_index));
        if types.0 != types.1 || old.shareability != new.shareability {
            return Some(Rule::AttributeChange);
        }
        let read_only = !old.writable && !new.writable;
        if old.output != new.output && !(read_only && self.memory.same(old.output, new.output, self.bytes)) {
            return Some(Rule::OutputChange);
        }
        if old.contiguous != new.contiguous && bbm == 0 && contiguous {
            return Some(Rule::ContiguousChange);
        }
        if bbm_always && !same_leaf(old, new, self.mair) {
            return Some(Rule::BbmAlways);
        }
        (bbm_for_xn && old.executable && !new.executable).then_some(Rule::BbmForXn)
    }
}
