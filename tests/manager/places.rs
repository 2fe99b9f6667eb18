//! Where a store may go: what a walk of the tables leads to, and nothing else that has the form of a slot.

use super::rig::{DATA, GIB, PAGE, Rig, dies_saying, frame, request};
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::bbm::{After, Broken, Detached, Filled, Live, Reach};
use breakwater::descriptor::Leaf;
use breakwater::geometry::{Geometry, Granule4K};
use std::mem::ManuallyDrop;

const AT: u64 = 4 * GIB;

/// Live tables with one page at [`AT`].
fn one_page() -> Rig<Live> {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, PAGE, GIB, DATA, Level::L3)).unwrap();
    rig
}

#[test]
fn good_a_place_is_where_the_walk_leads() {
    let rig = one_page();
    for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
        let place = rig.protocol.place(&rig.tables, level, VirtAddr::at(AT + 8)).unwrap();
        assert_eq!(place.slot(), rig.slot(AT, level));
    }
}

#[test]
fn bad_no_place_where_the_walk_ends_above() {
    let rig = one_page();
    let place = |level, virt| rig.protocol.place(&rig.tables, level, VirtAddr::at(virt));
    assert!(place(Level::L2, 512 * GIB).is_none(), "the root has no table there");
    assert!(place(Level::L3, AT + GIB).is_none());
    assert!(place(Level::Minus1, AT).is_none(), "the root is of level 0");
    assert!(place(Level::L0, 1 << 48).is_none(), "no input address");
}

#[test]
#[should_panic(expected = "a run lies in one table")]
fn bad_run_of_unused_slots_into_the_next_frame() {
    let rig = one_page();
    let last = rig.protocol.place(&rig.tables, Level::L3, VirtAddr::at(AT + 511 * PAGE)).unwrap();
    let _proof = rig.protocol.unused_run(last, 2);
}

#[test]
#[should_panic(expected = "a run lies in one table")]
fn bad_break_into_the_next_frame() {
    let mut rig = one_page();
    let mut broken = ManuallyDrop::new(Broken::none());
    let place = rig.protocol.place(&rig.tables, Level::L3, VirtAddr::at(AT)).unwrap();
    rig.protocol.break_run(place, 513, After::Nothing, &mut broken);
}

#[test]
#[should_panic(expected = "is none of these tables")]
fn bad_table_detached_that_no_walk_leads_to() {
    let mut rig = one_page();
    let elsewhere = Granule4K::slot(frame(0x7000_0000), Level::L1, VirtAddr::at(AT));
    let (mut broken, mut detached) = (ManuallyDrop::new(Broken::none()), ManuallyDrop::new(Detached::none()));
    rig.protocol.break_table(&mut rig.tables, elsewhere, &mut broken, &mut detached);
}

#[test]
fn bad_two_tables_linked_in_one_slot() {
    dies_saying(module_path!(), "bad_two_tables_linked_in_one_slot", "a slot is filled once", || {
        let mut rig = one_page();
        let virt = VirtAddr::at(1024 * GIB);
        let mut filled = ManuallyDrop::new(Filled::none());
        let place = rig.protocol.place(&rig.tables, Level::L0, virt).unwrap();
        let [one, two] = [1, 1].map(|count| rig.protocol.unused_run(place, count).unwrap());
        for proof in [one, two] {
            let spare = rig.frames.take().unwrap();
            let table = rig.protocol.new_table(spare, Level::L1, virt);
            rig.protocol.link(proof, table, false, &mut filled);
        }
    });
}

#[test]
#[should_panic(expected = "an address of this table's")]
fn bad_fresh_table_filled_for_an_address_of_another() {
    let mut rig = one_page();
    let spare = rig.frames.take().unwrap();
    let table = ManuallyDrop::new(rig.protocol.new_table(spare, Level::L3, VirtAddr::at(AT)));
    let leaf = Leaf::new(Level::L3, PhysAddr::at(GIB), DATA).unwrap();
    rig.protocol.fill_fresh(&table, VirtAddr::at(AT + GIB), 1, leaf);
}

#[test]
fn bad_table_linked_at_another_address() {
    dies_saying(
        module_path!(),
        "bad_table_linked_at_another_address",
        "a table is linked where it was made for",
        || {
            let mut rig = one_page();
            let frame = rig.frames.take().unwrap();
            let table = rig.protocol.new_table(frame, Level::L1, VirtAddr::at(512 * GIB));
            let place = rig.protocol.place(&rig.tables, Level::L0, VirtAddr::at(1024 * GIB)).unwrap();
            let proof = rig.protocol.unused_run(place, 1).unwrap();
            rig.protocol.link(proof, table, false, &mut Filled::<Live>::none());
        },
    );
}

#[test]
#[should_panic(expected = "the slots are this table's")]
fn bad_fresh_table_filled_into_another() {
    let mut rig = one_page();
    let spare = rig.frames.take().unwrap();
    let table = ManuallyDrop::new(rig.protocol.new_table(spare, Level::L1, VirtAddr::at(0)));
    let leaf = Leaf::new(Level::L1, PhysAddr::at(GIB), DATA).unwrap();
    rig.protocol.fill_fresh(&table, VirtAddr::at(511 * GIB), 2, leaf);
}

#[test]
fn bad_table_linked_without_a_barrier_into_another_than_the_unreached_one() {
    dies_saying(
        module_path!(),
        "bad_table_linked_without_a_barrier_into_another_than_the_unreached_one",
        "a table is linked where it was made for",
        || {
            let mut rig = one_page();
            let mut take = || rig.frames.take().unwrap();
            let (first, second) = (take(), take());
            let parent = rig.protocol.new_table(first, Level::L1, VirtAddr::at(0));
            let child = rig.protocol.new_table(second, Level::L1, VirtAddr::at(1024 * GIB));
            rig.protocol.link_fresh(&parent, child, false);
        },
    );
}
