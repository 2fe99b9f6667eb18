//! Claims about the choice of TLBIs.

#![forbid(unsafe_code)]

use super::*;
use crate::addr::{Frame, PhysAddr};
use crate::geometry::{Granule4K, Granule64K};

fn noted<G: Geometry>(runs: &[(u64, u64, Level, bool)]) -> Pending {
    let table = Frame::containing(PhysAddr::at(0x8000_0000));
    let mut pending = Pending::none();
    for &(start, slots, level, walk) in runs {
        pending.add::<G>(G::slot(table, level, VirtAddr::at(start)), slots, walk);
    }
    pending
}

fn issued<G: Geometry>(pending: &Pending, features: Features) -> Vec<Scope> {
    let mut all = Vec::new();
    let last = pending.each::<G>(features, |scope| all.push(scope));
    assert_eq!(all.last().copied(), last);
    assert_eq!(all.len() as u32, pending.tlbis::<G>(features));
    all
}

#[test]
fn good_one_by_address_for_a_block() {
    let pending = noted::<Granule4K>(&[(0x4000_0000, 1, Level::L1, false)]);
    for features in [Features::empty(), Features::TLBIRANGE] {
        let operand = VaOperand::new(VirtAddr::at(0x4000_0000));
        assert_eq!(issued::<Granule4K>(&pending, features), [Scope::Leaf(operand)]);
    }
}

#[test]
fn good_neighbours_are_one_run() {
    let pending = noted::<Granule4K>(&[(0x1000, 1, Level::L3, false), (0x2000, 3, Level::L3, false)]);
    assert_eq!(pending.count, 1);
    let range = issued::<Granule4K>(&pending, Features::TLBIRANGE | Features::TTL);
    let (operand, pages) = RangeOperand::cover::<Granule4K>(VirtAddr::at(0x1000), 4, Some(Level::L3)).unwrap();
    assert_eq!((range, pages), (vec![Scope::LeafRange(operand)], 4));
}

#[test]
fn good_everything_when_there_are_too_many() {
    let max = u64::from(TLBIS_MAX);
    let pending = noted::<Granule4K>(&[(0, max, Level::L3, false)]);
    assert_eq!(issued::<Granule4K>(&pending, Features::empty()).len(), max as usize);
    let pending = noted::<Granule4K>(&[(0, max + 1, Level::L3, false)]);
    assert_eq!(issued::<Granule4K>(&pending, Features::empty()), [Scope::All]);
    assert_eq!(issued::<Granule4K>(&pending, Features::TLBIRANGE).len(), 2, "a range and the odd page");
}

#[test]
fn good_everything_when_the_runs_cannot_be_named() {
    let scattered: Vec<_> = (0..RUNS as u64 + 1).map(|index| (index * 0x10_0000, 1, Level::L3, false)).collect();
    let pending = noted::<Granule4K>(&scattered);
    assert_eq!(issued::<Granule4K>(&pending, Features::TLBIRANGE), [Scope::All]);
    assert!(pending.covers::<Granule4K>(VirtSpan::of(VirtAddr::at(0x10_0000), 0x1000).unwrap()));
}

#[test]
fn good_whole_walks_below_a_table_that_went() {
    let pending = noted::<Granule64K>(&[(0x2000_0000, 1, Level::L3, true)]);
    let operand = VaOperand::new(VirtAddr::at(0x2000_0000));
    assert_eq!(
        issued::<Granule64K>(&pending, Features::TTL),
        [Scope::Walk(operand)],
        "no hint: tables are at other levels"
    );
}

#[test]
fn bad_what_was_not_noted_is_not_covered() {
    let pending = noted::<Granule4K>(&[(0x1000, 2, Level::L3, false), (0x8000, 1, Level::L3, false)]);
    let covers = |start, bytes| pending.covers::<Granule4K>(VirtSpan::of(VirtAddr::at(start), bytes).unwrap());
    assert!(covers(0x1000, 0x2000) && covers(0x8000, 0x1000));
    assert!(!covers(0x3000, 0x1000) && !covers(0x2000, 0x2000) && !covers(0x9000, 0x1000));
}
