//! Claims about the walk that the exception path prints.

use super::*;
use crate::descriptor::{Access, Attributes, TABLE_BITS, leaf_bits};
use std::collections::BTreeMap;
use std::string::ToString;
use std::vec::Vec;

/// Tables as a map from (table, slot) to descriptor; what is not in it reads 0.
struct Tables(BTreeMap<(u64, usize), u64>);

impl ReadTable for Tables {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        self.0.get(&(table.start().raw(), index)).copied().unwrap_or(0)
    }
}

const ROOT: Frame = Frame::containing(PhysAddr::at(0x4000_0000));
const CODE: u64 = leaf_bits(Attributes::Normal(Access::ReadExecute), Level::L3);
const DATA_BLOCK: u64 = leaf_bits(Attributes::Normal(Access::ReadWrite), Level::L2);

fn tables() -> Tables {
    Tables(BTreeMap::from([
        ((0x4000_0000, 20), 0x4000_1000 | TABLE_BITS),
        ((0x4000_1000, 0), 0x4000_2000 | TABLE_BITS),
        ((0x4000_2000, 1), 0x4000_3000 | TABLE_BITS),
        ((0x4000_2000, 2), 0x8020_0000 | DATA_BLOCK),
        ((0x4000_3000, 0), 0x4010_0000 | CODE),
        ((0x4000_3000, 1), 0x4010_1000 | CODE & !1),
    ]))
}

fn lines(tables: &Tables, virt: u64) -> Vec<std::string::String> {
    walk(tables, ROOT, VirtAddr::at(virt)).to_string().lines().map(ToString::to_string).collect()
}

#[test]
fn good_walk_to_a_page() {
    let walk = walk(&tables(), ROOT, VirtAddr::at(0x0a00_0020_0123));
    assert_eq!(walk.output(), Some(PhysAddr::at(0x4010_0123)));
    assert_eq!(
        walk.to_string(),
        "  level 0 slot  20 of table 0x000040000000: 0x0000000040001003 table 0x000040001000\n  \
           level 1 slot   0 of table 0x000040001000: 0x0000000040002003 table 0x000040002000\n  \
           level 2 slot   1 of table 0x000040002000: 0x0000000040003003 table 0x000040003000\n  \
           level 3 slot   0 of table 0x000040003000: 0x00000000401007df page 0x000040100000 r-x normal\n"
    );
}

#[test]
fn good_walk_to_a_block() {
    let walk = walk(&tables(), ROOT, VirtAddr::at(0x0a00_0041_2345));
    assert_eq!(walk.steps().count(), 3);
    assert_eq!(walk.output(), Some(PhysAddr::at(0x8021_2345)));
    assert!(walk.to_string().ends_with("block 0x000080200000 rw- normal\n"));
}

#[test]
fn good_walk_says_where_it_ends() {
    assert_eq!(
        lines(&tables(), 0),
        ["  level 0 slot   0 of table 0x000040000000: 0x0000000000000000 unused: translation fault"]
    );
    assert!(lines(&tables(), 0x0a00_0020_1000)[3].ends_with("broken: translation fault"));
    assert_eq!(walk(&tables(), ROOT, VirtAddr::at(0x0a00_0020_1000)).output(), None);
}

#[test]
fn good_walk_goes_where_the_hardware_goes() {
    let mut tables = tables();
    tables.0.insert((0x4000_0000, 20), 1 << 60 | 0x4000_1000 | TABLE_BITS);
    tables.0.insert((0x4000_3000, 0), 1 << 51 | 0x4010_0000 | CODE);
    let lines = lines(&tables, 0x0a00_0020_0000);
    assert_eq!(lines.len(), 4);
    assert!(lines[0].ends_with("table 0x000040001000, with bits that the manager never writes"), "{}", lines[0]);
    tables.0.insert((0x4000_2000, 2), 1 << 16 | 0x8020_0000 | DATA_BLOCK);
    assert_eq!(walk(&tables, ROOT, VirtAddr::at(0x0a00_0040_0000)).output(), Some(PhysAddr::at(0x8020_0000)), "nT");
    assert!(lines[3].ends_with("leaf 0x000040100000, with bits that the manager never writes"), "{}", lines[3]);
}

#[test]
fn bad_reserved_descriptors_end_the_walk() {
    let mut tables = tables();
    tables.0.insert((0x4000_3000, 0), 0x4010_0000 | CODE & !2);
    assert!(lines(&tables, 0x0a00_0020_0000)[3].ends_with("reserved: translation fault"));
    tables.0.insert((0x4000_0000, 20), 0x4010_0000 | DATA_BLOCK);
    assert!(lines(&tables, 0x0a00_0020_0000)[0].ends_with("reserved: translation fault"));
}

#[test]
fn bad_address_beyond_the_input_range_reads_nothing() {
    struct Unreadable;
    impl ReadTable for Unreadable {
        fn descriptor(&self, _: Frame, _: usize) -> u64 {
            panic!("nothing may be read")
        }
    }
    let walk = walk(&Unreadable, ROOT, VirtAddr::at(1 << 48));
    assert_eq!(walk.to_string(), "  no walk: 0x1000000000000 is beyond the input range of 48 bits\n");
    assert_eq!(walk.output(), None);
}

#[test]
fn good_walk_of_a_cycle_ends() {
    let looped = Tables(BTreeMap::from([((0x4000_0000, 0), 0x4000_0000 | TABLE_BITS)]));
    assert_eq!(walk(&looped, ROOT, VirtAddr::at(0)).steps().count(), 4);
}
