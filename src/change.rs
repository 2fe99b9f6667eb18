//! What the architecture asks of a change from one descriptor to another: a pure function, no machine in sight.
//!
//! Why it exists: whether a change needs break-before-make is the one decision everything else rests on, so it stands
//! alone, is tested exhaustively on the host, and is asked before any store.
//!
//! Rests on Arm ARM DDI 0487: RDDMVT (the sequence), RWHZWS (what needs it), RJVXRH (tightening *or relaxing* rights owes a TLBI:
//! an entry that raised a permission fault may be cached), RKHRBC and RFCPSG (the contiguous bit). FEAT_BBM relaxes changes of size only,
//! and for nothing but the size: a change of more than that is by break-before-make.

#![forbid(unsafe_code)]

use crate::descriptor::{Entry, Leaf, Rights};
use crate::errata::Errata;
use core::fmt;

/// What a change needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// The slot already says this.
    Nothing,
    /// Invalid to valid: store, DSB, ISB before use. No invalidation: a faulting entry is not cached.
    Fill,
    /// Rights of a leaf only, or where that is allowed its contiguous bit only: one store over the old, then TLBI and DSB.
    InPlace,
    /// Break, DSB, TLBI, DSB, and only then make.
    Break,
    /// The manager does not do this.
    Refuse(Why),
}

/// Why a change is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The slot is broken and its invalidation is owed; until then nothing may be made there.
    InvalidationOwed,
    /// The slot holds a descriptor that the manager never writes.
    Foreign,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidationOwed => "broken, and its invalidation is owed",
            Self::Foreign => "no descriptor of the manager's",
        })
    }
}

/// Decides what the change of a slot from `old` to `new` needs on CPUs with `errata`; `resize` when sizes may change in place
/// ([`crate::bbm::Protocol::resize`]).
#[must_use]
pub fn decide(old: Entry, new: Entry, errata: Errata, resize: bool) -> Needs {
    match (old, new) {
        (Entry::Broken(_), _) | (_, Entry::Broken(_)) => Needs::Refuse(Why::InvalidationOwed),
        (Entry::Foreign(_), _) | (_, Entry::Foreign(_)) => Needs::Refuse(Why::Foreign),
        _ if old == new => Needs::Nothing,
        (Entry::Unused, _) => Needs::Fill,
        (Entry::Leaf(old), Entry::Leaf(new)) if in_place(old, new, errata, resize) => Needs::InPlace,
        _ => Needs::Break,
    }
}

fn in_place(old: Leaf, new: Leaf, errata: Errata, resize: bool) -> bool {
    if old.contiguous() != new.contiguous() {
        return resize && old.with_contiguous(new.contiguous()) == new && !errata.contains(Errata::BBM_ALWAYS);
    }
    let loses_execution =
        old.attributes().rights().contains(Rights::EXECUTE) && !new.attributes().rights().contains(Rights::EXECUTE);
    old.output() == new.output()
        && old.attributes().same_memory_type(new.attributes())
        && !errata.contains(Errata::BBM_ALWAYS)
        && !(errata.contains(Errata::BBM_FOR_XN) && loses_execution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Frame, Level, PhysAddr};
    use crate::descriptor::{Access, Attributes, DataAccess, DeviceKind};

    const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
    const RODATA: Attributes = Attributes::Normal(Access::ReadOnly);
    const CODE: Attributes = Attributes::Normal(Access::ReadExecute);

    fn leaf(output: u64, attributes: Attributes) -> Entry {
        Entry::Leaf(Leaf::new(Level::L3, PhysAddr::at(output), attributes).unwrap())
    }

    fn table() -> Entry {
        Entry::table(Frame::containing(PhysAddr::at(0x5000)))
    }

    fn plain(old: Entry, new: Entry) -> Needs {
        decide(old, new, Errata::empty(), false)
    }

    #[test]
    fn good_fill_needs_no_invalidation() {
        assert_eq!(plain(Entry::Unused, leaf(0x1000, DATA)), Needs::Fill);
        assert_eq!(plain(Entry::Unused, table()), Needs::Fill);
    }

    #[test]
    fn good_same_entry_is_nothing() {
        assert_eq!(plain(leaf(0x1000, DATA), leaf(0x1000, DATA)), Needs::Nothing);
        assert_eq!(plain(Entry::Unused, Entry::Unused), Needs::Nothing);
    }

    #[test]
    fn good_rights_change_in_place_either_way() {
        assert_eq!(plain(leaf(0x1000, DATA), leaf(0x1000, RODATA)), Needs::InPlace);
        assert_eq!(plain(leaf(0x1000, RODATA), leaf(0x1000, DATA)), Needs::InPlace);
        assert_eq!(plain(leaf(0x1000, CODE), leaf(0x1000, RODATA)), Needs::InPlace);
    }

    #[test]
    fn bad_address_type_size_and_removal_need_a_break() {
        assert_eq!(plain(leaf(0x1000, DATA), leaf(0x2000, DATA)), Needs::Break);
        assert_eq!(plain(leaf(0x1000, RODATA), leaf(0x2000, RODATA)), Needs::Break);
        let non_cacheable = Attributes::NonCacheable(DataAccess::ReadWrite);
        let device = |kind| leaf(0x1000, Attributes::Device(kind, DataAccess::ReadWrite));
        assert_eq!(plain(leaf(0x1000, DATA), leaf(0x1000, non_cacheable)), Needs::Break);
        assert_eq!(plain(leaf(0x1000, non_cacheable), device(DeviceKind::NGnRE)), Needs::Break);
        assert_eq!(plain(device(DeviceKind::NGnRE), device(DeviceKind::NGnRnE)), Needs::Break);
        assert_eq!(plain(leaf(0x1000, DATA), table()), Needs::Break);
        assert_eq!(plain(table(), leaf(0x1000, DATA)), Needs::Break);
        assert_eq!(plain(table(), Entry::table(Frame::containing(PhysAddr::at(0x6000)))), Needs::Break);
        assert_eq!(plain(leaf(0x1000, DATA), Entry::Unused), Needs::Break);
        assert_eq!(plain(table(), Entry::Unused), Needs::Break);
    }

    #[test]
    fn bad_making_over_a_broken_or_foreign_slot_is_refused() {
        assert_eq!(plain(Entry::Broken(2), leaf(0x1000, DATA)), Needs::Refuse(Why::InvalidationOwed));
        assert_eq!(plain(Entry::Foreign(1), leaf(0x1000, DATA)), Needs::Refuse(Why::Foreign));
        assert_eq!(plain(Entry::Foreign(1), Entry::Unused), Needs::Refuse(Why::Foreign));
    }

    #[test]
    fn good_errata_turn_in_place_into_a_break() {
        let (code, rodata, data) = (leaf(0x1000, CODE), leaf(0x1000, RODATA), leaf(0x1000, DATA));
        assert_eq!(decide(code, rodata, Errata::BBM_FOR_XN, false), Needs::Break);
        assert_eq!(decide(data, rodata, Errata::BBM_FOR_XN, false), Needs::InPlace);
        assert_eq!(decide(data, rodata, Errata::BBM_ALWAYS, false), Needs::Break);
        assert_eq!(decide(data, data, Errata::BBM_ALWAYS, false), Needs::Nothing);
    }

    #[test]
    fn good_contiguous_bit_alone_in_place_with_evidence() {
        let plain = leaf(0x10000, DATA);
        let Entry::Leaf(run) = plain else { unreachable!("a leaf") };
        let run = Entry::Leaf(run.with_contiguous(true));
        assert_eq!(decide(plain, run, Errata::empty(), false), Needs::Break);
        assert_eq!(decide(plain, run, Errata::empty(), true), Needs::InPlace);
        assert_eq!(decide(plain, run, Errata::BBM_ALWAYS, true), Needs::Break);
        assert_eq!(
            decide(run, leaf(0x10000, RODATA), Errata::empty(), true),
            Needs::Break,
            "the bit and rights at once"
        );
    }
}
