//! No bit of any descriptor is exempt, neither of those in use nor of those that are 0; but for one: bit 55 of a table, which the manager may
//! set and hardware ignores.

use super::*;
use world::TABLES;

/// The bit of a table descriptor that may be either.
const KEPT: u32 = 55;

fn flips(slots: impl Fn(u64, usize) -> bool, bits: impl Iterator<Item = u32> + Clone) {
    let mut world = World::good();
    for table in 0..TABLES {
        for index in 0..SLOTS {
            let good = world.get(table, index);
            if !slots(good, index) {
                continue;
            }
            let is_table = good & 3 == 3 && ![world::IMAGE_L3, world::FIXMAP_L3, world::IDENTITY_L3].contains(&table);
            for bit in bits.clone().filter(|&bit| !(is_table && bit == KEPT)) {
                world.set(table, index, good ^ 1 << bit);
                assert_ne!(world.audit().mismatches, 0, "table {table} slot {index} bit {bit} of {good:#x}");
            }
            world.set(table, index, good);
        }
    }
    assert_eq!(world.audit().mismatches, 0);
}

#[test]
fn bad_every_bit_of_every_descriptor_counts() {
    // Of the directmap's 511 blocks, the first few, of which some are of a contiguous run, and the last.
    flips(|raw, index| raw != 0 && (raw & 3 == 3 || !(24..=508).contains(&index)), 0..64);
}

#[test]
fn good_tables_may_be_marked_as_kept() {
    let mut world = World::good();
    for (table, index) in [(world::ROOT, layout::XEN_SLOT), (world::XEN_L1, 0), (world::XEN_L2, 5)] {
        world.set(table, index, world.get(table, index) | 1 << KEPT);
    }
    assert_eq!(world.audit().first, None);
}

#[test]
fn bad_every_bit_of_an_unused_slot_counts() {
    flips(|raw, index| raw == 0 && [0, 1, 2, 5, 255, 511].contains(&index), 0..64);
}

#[test]
fn bad_a_descriptor_in_any_unused_slot_counts() {
    flips(|raw, _| raw == 0, [0].into_iter());
}

#[test]
fn bad_no_declaration_is_dispensable() {
    let world = World::good();
    for number in 0..world.declared.len() {
        let mut world = World::good();
        let Declared { name, output, .. } = world.declared.remove(number);
        assert_eq!(world.audit().mismatches == 0, output.is_none(), "{name}");
    }
}
