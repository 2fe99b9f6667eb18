//! Pending TLBIs: what each names, and which DSB will complete it.

use crate::maintenance::{Invalidation, Ordering, Reach, TlbiTarget};

use super::element::Element;
use super::entry::{TableEntry, Translation};

/// Dooms are 32 bits wide; the last bits are [`ISSUED`] and [`FORGOTTEN`].
pub(super) const MOST_CLASSES: usize = 30;

/// What the TLBI dooms that is being issued.
pub(super) const ISSUED: u32 = 1 << 30;

/// Entries that the hardware under exploration may not retain.
pub(super) const FORGOTTEN: u32 = 1 << 31;

/// What a TLBI names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Scope {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) level: Option<i8>,
    pub(super) leaves_only: bool,
}

impl Scope {
    pub(super) fn of(invalidation: &Invalidation, page_bytes: u64) -> Option<Self> {
        let leaves_only = invalidation.last_level_only;
        Some(match invalidation.target {
            TlbiTarget::All => Self { first: 0, last: u64::MAX, level: None, leaves_only: false },
            TlbiTarget::Page { va, level } => Self { first: va, last: va | (page_bytes - 1), level, leaves_only },
            TlbiTarget::Range { first, last, level } => Self { first, last, level, leaves_only },
            TlbiTarget::Nothing(_) => return None,
        })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.first == 0 && self.last == u64::MAX
    }

    pub(super) fn names_leaf(&self, leaf: &Translation) -> bool {
        leaf.va <= self.last && self.first <= leaf.last() && self.level.is_none_or(|level| level == leaf.level)
    }

    pub(super) fn names_table(&self, table: &TableEntry) -> bool {
        let reaches = table.va <= self.last && self.first <= table.last();
        reaches && !self.leaves_only && self.level.is_none()
    }
}

/// A TLBI that a DSB is to complete; one of several that all name the same. The order of the fields is that of the classes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) issuer: u32,
    pub(super) reach: Reach,
    pub(super) without_xs: bool,
    pub(super) is_range: bool,
    /// Where an affected core may lose a broadcast TLBI: 0 issued, 1 its DSB is done, 2 another one is issued.
    pub(super) phase: u8,
    /// Nothing once it matters no more what was named: only dooms that nothing is derived from remain.
    pub(super) scopes: Vec<Scope>,
}

impl Class {
    pub(super) fn names_leaf(&self, leaf: &Translation) -> bool {
        self.scopes.iter().any(|scope| scope.names_leaf(leaf))
    }

    pub(super) fn names_table(&self, table: &TableEntry) -> bool {
        self.scopes.iter().any(|scope| scope.names_table(table))
    }

    /// Bits of the TLBIs that each DSB will complete, a mask for each.
    pub(super) fn groups(classes: &[Self]) -> impl Iterator<Item = u32> {
        classes.chunk_by(|one, other| one.key() == other.key()).scan(0, |first, group| {
            let bits = ((1 << group.len()) - 1) << *first;
            *first += group.len();
            Some(bits)
        })
    }

    pub(super) const fn key(&self) -> (u32, Reach, bool, bool, u8) {
        (self.issuer, self.reach, self.without_xs, self.is_range, self.phase)
    }

    pub(super) const fn is_broadcast(&self) -> bool {
        !matches!(self.reach, Reach::Own)
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        self.scopes.extend(&other.scopes);
        self.scopes.sort_unstable();
        self.scopes.dedup();
    }

    pub(super) fn reaches(&self, element: &Element) -> bool {
        let takes_part = !self.is_range || element.features.tlbi_range;
        takes_part && (self.is_broadcast() || element.pe == self.issuer)
    }

    pub(super) fn is_completed_by(&self, issuer: u32, barrier: &Ordering) -> bool {
        self.issuer == issuer && self.reach <= barrier.reach && (self.without_xs || !barrier.without_xs)
    }
}
