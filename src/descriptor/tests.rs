//! Claims about descriptors.

#![forbid(unsafe_code)]

use super::*;
use crate::geometry::{Granule4KLpa2, Granule16K, Granule16KLpa2, Granule64K, Granule64KLva};

/// Written down here once more: what the source forgets, a test finds.
const ALL: [Attributes; 14] = [
    Attributes::Normal(Access::ReadOnly),
    Attributes::Normal(Access::ReadWrite),
    Attributes::Normal(Access::ReadExecute),
    Attributes::Normal(Access::ReadExecuteGuarded),
    Attributes::Tagged(DataAccess::ReadOnly),
    Attributes::Tagged(DataAccess::ReadWrite),
    Attributes::NonCacheable(DataAccess::ReadOnly),
    Attributes::NonCacheable(DataAccess::ReadWrite),
    Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadOnly),
    Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadWrite),
    Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadOnly),
    Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite),
    Attributes::Device(DeviceKind::Gre, DataAccess::ReadOnly),
    Attributes::Device(DeviceKind::Gre, DataAccess::ReadWrite),
];

#[test]
fn good_every_leaf_reads_back_as_written() {
    for level in [Level::L1, Level::L2, Level::L3] {
        for attributes in ALL {
            let entry = Entry::Leaf(Leaf::new(level, PhysAddr::at(0x40_0000_0000), attributes).unwrap());
            assert_eq!(Entry::decode(entry.encode(level), level), entry);
        }
    }
}

#[test]
fn good_no_attributes_write_and_execute() {
    for attributes in ALL {
        let rights = effective_rights(attributes.bits(), 0);
        assert_eq!(rights, attributes.rights());
        assert!(!rights.contains(Rights::WRITE | Rights::EXECUTE));
    }
}

#[test]
fn good_bits_of_a_page_of_code() {
    let bits = leaf_bits(Attributes::Normal(Access::ReadExecute), Level::L3);
    assert_eq!(bits, 0x7df, "valid, page, AttrIndx 7, AP[1], read-only, Inner Shareable, AF");
}

#[test]
fn bad_leaves_are_refused() {
    assert_eq!(Leaf::new(Level::L0, PhysAddr::at(0), ALL[0]), None);
    assert_eq!(Leaf::new(Level::L2, PhysAddr::at(0x1000), ALL[0]), None);
}

#[test]
fn bad_bits_the_manager_never_writes_are_foreign() {
    let good = leaf_bits(ALL[1], Level::L3);
    for bit in [5, 11, 50, 51, 53, 55, 59, 63] {
        let raw = good | 1 << bit;
        assert_eq!(Entry::decode(raw, Level::L3), Entry::Foreign(raw), "bit {bit}");
    }
    for cleared in [6, 10, 8] {
        let raw = good & !(1 << cleared);
        assert_eq!(Entry::decode(raw, Level::L3), Entry::Foreign(raw), "bit {cleared}");
    }
    let table = TABLE_BITS | 1 << 60;
    assert_eq!(Entry::decode(table, Level::L1), Entry::Foreign(table));
    let writable_executable = good & !DESCRIPTOR::XN::SET.value;
    assert_eq!(Entry::decode(writable_executable, Level::L3), Entry::Foreign(writable_executable));
}

#[test]
fn good_what_is_read_says_every_bit_in_every_geometry() {
    fn holds<G: Geometry>() {
        for level in [Level::L1, Level::L2, Level::L3].into_iter().filter(|&level| G::allows_leaf(level)) {
            for leaf in ALL.iter().filter_map(|&attributes| Leaf::new_in::<G>(level, PhysAddr::at(1 << 42), attributes))
            {
                let raw = leaf.encode_in::<G>(level);
                assert_eq!(Entry::decode_in::<G>(raw, level), Entry::Leaf(leaf));
                for bit in 0..64 {
                    let other = raw ^ 1 << bit;
                    assert_eq!(
                        Entry::decode_in::<G>(other, level).encode_in::<G>(level),
                        other,
                        "{level:?}, bit {bit}"
                    );
                }
            }
        }
    }
    holds::<Granule4K>();
    holds::<Granule4KLpa2>();
    holds::<Granule16K>();
    holds::<Granule16KLpa2>();
    holds::<Granule64K>();
    holds::<Granule64KLva>();
}

#[test]
fn good_broken_remembers_what_was_there() {
    let raw = leaf_bits(ALL[1], Level::L3) | 0x1234_5000;
    let broken = Entry::Broken(raw).encode(Level::L3);
    assert_eq!(Entry::decode(broken, Level::L3), Entry::Broken(raw & !1));
}

#[test]
fn good_hierarchy_restricts() {
    let code = leaf_bits(ALL[2], Level::L3);
    assert_eq!(effective_rights(code, 1 << 60), Rights::READ);
    let data = leaf_bits(ALL[1], Level::L3);
    assert_eq!(effective_rights(data, 1 << 62), Rights::READ);
}

#[test]
fn good_waiting_says_what_comes_or_went() {
    let raw = leaf_bits(ALL[1], Level::L3) | 0x1234_5000;
    assert_eq!(BrokenBits::read(raw), None, "valid");
    assert_eq!(BrokenBits::read(0), None, "unused");
    for (waiting, comes) in [(BrokenBits::going(raw), None), (BrokenBits::coming(raw), Some(raw))] {
        assert_eq!(waiting.raw() & 1, 0, "no walk goes through it");
        assert_eq!(BrokenBits::read(waiting.raw()), Some(waiting));
        assert_eq!((waiting.comes(), waiting.went()), (comes, raw));
    }
}

#[test]
fn good_every_geometry_reads_back_as_written() {
    fn holds<G: Geometry>(has_shareability: bool) {
        for level in [Level::L0, Level::L1, Level::L2, Level::L3].into_iter().filter(|&level| level >= G::LARGEST) {
            let output = PhysAddr::at(((1 << G::OUTPUT_BITS) - 1) & !(G::slot_bytes(level) - 1));
            for attributes in ALL {
                let plain = Leaf::new_in::<G>(level, output, attributes).unwrap();
                for leaf in [plain, plain.with_contiguous(G::run_slots(level) > 1)] {
                    let raw = leaf.encode_in::<G>(level);
                    assert_eq!(Entry::decode_in::<G>(raw, level), Entry::Leaf(leaf), "{raw:#x}");
                }
            }
        }
        let device = leaf_bits_in::<G>(Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite), Level::L3, false);
        assert_eq!(device & 0x300 != 0, has_shareability);
        let table = Entry::Table { frame: Frame::containing(PhysAddr::at(1 << G::PAGE_SHIFT)), kept: true };
        assert_eq!(Entry::decode_in::<G>(table.encode_in::<G>(Level::L2), Level::L2), table);
    }
    holds::<crate::geometry::Granule4K>(true);
    holds::<crate::geometry::Granule4KLpa2>(false);
    holds::<crate::geometry::Granule16K>(true);
    holds::<crate::geometry::Granule16KLpa2>(false);
    holds::<crate::geometry::Granule64K>(true);
    holds::<crate::geometry::Granule64KLva>(true);
}
