//! Debts that are dropped, and proofs that do not prove: each panics with the promise that was broken.

use super::rig::{DATA, GIB, PAGE, POOL, Rig, frame, request};
use super::world::World;
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::bbm::{Broken, Changed, Detached, Filled, FreshTable, Live, Offline, Protocol, Reach, Tables};
use breakwater::descriptor::{Access, Attributes, Leaf};
use breakwater::errata::Errata;
use breakwater::machine::Slot;
use breakwater::mapper::Mapper;
use std::mem::ManuallyDrop;
use std::process::Command;

const AT: u64 = 4 * GIB;

fn leaf(output: u64) -> Leaf {
    Leaf::new(Level::L3, PhysAddr::at(output), DATA).unwrap()
}

/// Live tables with one page at [`AT`], the page's slot, and the slot of the page after it, which is unused.
fn one_page() -> (Rig<Live>, Slot, Slot) {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, PAGE, GIB, DATA, Level::L3)).unwrap();
    let tables: Vec<u64> = super::raw::tables(rig.world(), rig.root());
    let slot = Slot::new(frame(*tables.last().unwrap()), Level::L3, VirtAddr::at(AT));
    (rig, slot, slot.step(1))
}

fn fresh(protocol: &mut Protocol<World>) -> FreshTable {
    protocol.new_table(frame(POOL), Level::L1, VirtAddr::at(0))
}

fn protocol() -> Protocol<World> {
    Protocol::new(World::new(Errata::empty()), Errata::empty())
}

#[test]
#[should_panic(expected = "dropped instead of settled: a fill without its DSB and ISB")]
fn bad_fill_dropped() {
    let (mut rig, _, unused) = one_page();
    let mut filled = Filled::<Live>::none();
    let slots = rig.protocol.unused_run(unused, 1).unwrap();
    rig.protocol.fill(slots, leaf(GIB), &mut filled);
}

#[test]
#[should_panic(expected = "dropped instead of settled: a fill without its DSB and ISB")]
fn bad_offline_fill_dropped() {
    drop(Filled::<Offline>::none());
}

#[test]
#[should_panic(expected = "dropped instead of settled: a break without its TLBI")]
fn bad_break_dropped() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    rig.protocol.break_leaf(slot, &mut broken);
}

#[test]
#[should_panic(expected = "dropped instead of settled: a change of rights without its TLBI")]
fn bad_change_dropped() {
    let (mut rig, slot, _) = one_page();
    let mut changed = Changed::none();
    rig.protocol.change(slot, leaf(GIB).with(Attributes::Normal(Access::ReadOnly)), &mut changed);
}

#[test]
#[should_panic(expected = "dropped instead of settled: frames detached without an invalidation")]
fn bad_detached_frames_dropped() {
    drop(Detached::first_tables([None; 8]));
}

#[test]
#[should_panic(expected = "dropped instead of settled: a table that nothing links to")]
fn bad_fresh_table_dropped() {
    drop(fresh(&mut protocol()));
}

#[test]
#[should_panic(expected = "dropped instead of settled: a break without its TLBI")]
fn bad_break_dropped_by_an_early_return() {
    fn early(rig: &mut Rig<Live>, slot: Slot) -> Option<()> {
        let mut broken = Broken::none();
        rig.protocol.break_leaf(slot, &mut broken);
        None?;
        let _proof = rig.protocol.invalidate(broken);
        Some(())
    }
    let (mut rig, slot, _) = one_page();
    early(&mut rig, slot);
}

#[test]
fn good_every_debt_settled() {
    let (mut rig, slot, unused) = one_page();
    let mut filled = Filled::<Live>::none();
    let slots = rig.protocol.unused_run(unused, 1).unwrap();
    rig.protocol.fill(slots, leaf(GIB), &mut filled);
    rig.protocol.complete(filled);
    let mut changed = Changed::none();
    rig.protocol.change(slot, leaf(GIB).with(Attributes::Normal(Access::ReadOnly)), &mut changed);
    rig.protocol.invalidate_changed(changed);
    let mut broken = Broken::none();
    rig.protocol.break_leaf(slot, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    let mut filled = Filled::none();
    rig.protocol.make(slot, leaf(2 * GIB), &proof, &mut filled);
    rig.protocol.complete(filled);
    let spare = rig.frames.take().unwrap();
    let root = rig.protocol.new_table(spare, Level::L0, VirtAddr::at(0));
    let (_live, released) =
        rig.protocol.switch_root(Tables::new(root), Detached::first_tables([Some(frame(0x5000)); 8]));
    assert_eq!(released.frames().count(), 8);
    rig.world_mut().settle();
    rig.world().assert_clean("every debt settled");
}

#[test]
fn good_nothing_done_owes_no_maintenance() {
    let (mut rig, _, _) = one_page();
    let from = rig.world().now();
    rig.protocol.complete(Filled::<Live>::none());
    let _proof = rig.protocol.invalidate(Broken::none());
    rig.protocol.invalidate_changed(Changed::none());
    assert_eq!(rig.world().now(), from);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_with_the_proof_of_another_slot() {
    let (mut rig, slot, other) = one_page();
    rig.map(request(AT + PAGE, PAGE, GIB, DATA, Level::L3)).unwrap();
    let mut broken = Broken::none();
    rig.protocol.break_leaf(other, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    let mut late = Broken::none();
    rig.protocol.break_leaf(slot, &mut late);
    std::mem::forget(late);
    let mut filled = ManuallyDrop::new(Filled::none());
    rig.protocol.make(slot, leaf(2 * GIB), &proof, &mut filled);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_where_nothing_is_broken() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    rig.protocol.break_leaf(slot, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    rig.protocol.reclaim(slot, &proof);
    let mut filled = ManuallyDrop::new(Filled::none());
    rig.protocol.make(slot, leaf(2 * GIB), &proof, &mut filled);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_with_the_proof_of_an_earlier_break() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    rig.protocol.break_leaf(slot, &mut broken);
    let old_proof = rig.protocol.invalidate(broken);
    let mut filled = Filled::none();
    rig.protocol.make(slot, leaf(2 * GIB), &old_proof, &mut filled);
    rig.protocol.complete(filled);
    let mut broken_again = ManuallyDrop::new(Broken::none());
    rig.protocol.break_leaf(slot, &mut broken_again);
    let mut filled = ManuallyDrop::new(Filled::none());
    rig.protocol.make(slot, leaf(GIB), &old_proof, &mut filled);
}

#[test]
#[should_panic(expected = "a slot is filled once")]
fn bad_slot_filled_twice_on_two_proofs() {
    let (mut rig, _, unused) = one_page();
    let one = rig.protocol.unused_run(unused, 1).unwrap();
    let two = rig.protocol.unused_run(unused, 1).unwrap();
    let mut filled = ManuallyDrop::new(Filled::<Live>::none());
    rig.protocol.fill(one, leaf(GIB), &mut filled);
    rig.protocol.fill(two, leaf(2 * GIB), &mut filled);
}

#[test]
fn bad_root_that_was_made_as_another_table() {
    dies_saying("bad_root_that_was_made_as_another_table", "a root is a table of level 0", || {
        let _tables = Tables::new(fresh(&mut protocol()));
    });
}

#[test]
#[should_panic(expected = "a slot that is broken held a leaf")]
fn bad_break_of_what_is_no_leaf() {
    let (mut rig, _, unused) = one_page();
    let mut broken = ManuallyDrop::new(Broken::none());
    rig.protocol.break_leaf(unused, &mut broken);
}

/// Runs `doomed` in a process of its own, which must die saying `promise`: there a debt is dropped while another panic unwinds, and two
/// panics end a process. `name` is the calling test.
fn dies_saying(name: &str, promise: &str, doomed: impl FnOnce()) {
    const CHILD: &str = "BREAKWATER_DOOMED_TEST";
    if std::env::var_os(CHILD).is_some() {
        return doomed();
    }
    let full_name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &full_name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(promise), "{said}");
}

#[test]
fn bad_table_linked_at_another_address() {
    dies_saying("bad_table_linked_at_another_address", "a table is linked where it was made for", || {
        let (mut rig, ..) = one_page();
        let frame = rig.frames.take().unwrap();
        let table = rig.protocol.new_table(frame, Level::L1, VirtAddr::at(512 * GIB));
        let slot = Slot::new(rig.tables.root(), Level::L0, VirtAddr::at(1024 * GIB));
        let proof = rig.protocol.unused_run(slot, 1).unwrap();
        rig.protocol.link(proof, table, &mut Filled::<Live>::none());
    });
}

#[test]
fn bad_root_switched_among_several_pes() {
    dies_saying("bad_root_switched_among_several_pes", "a root is switched while one PE uses the tables", || {
        let mut protocol = protocol();
        let tables = Tables::new(protocol.new_table(frame(POOL), Level::L0, VirtAddr::at(0)));
        protocol.share(Errata::empty());
        let _switched = protocol.switch_root(tables, Detached::first_tables([None; 8]));
    });
}

#[test]
#[should_panic(expected = "the proof is for this table's slots")]
fn bad_fresh_proof_for_a_slot_of_another_table() {
    let table = ManuallyDrop::new(fresh(&mut protocol()));
    let _proof = table.unused_run(Slot::new(frame(POOL + PAGE), Level::L1, VirtAddr::at(0)), 1);
}

#[test]
#[should_panic(expected = "a run of leaves ends within 48 bits")]
fn bad_run_that_ends_beyond_48_bits() {
    let (mut rig, _, unused) = one_page();
    let slots = rig.protocol.unused_run(unused, 2).unwrap();
    let mut filled = ManuallyDrop::new(Filled::<Live>::none());
    rig.protocol.fill(slots, leaf((1 << 48) - PAGE), &mut filled);
}

#[test]
fn bad_used_slots_are_no_unused_run() {
    let (rig, slot, unused) = one_page();
    assert_eq!(rig.protocol.unused_run(slot, 1).map(drop), Err(slot));
    assert!(rig.protocol.unused_run(unused, 511).is_ok());
}

#[test]
fn good_a_mapper_that_is_refused_leaves_no_debt() {
    let mut rig = Rig::live(Reach::ThisPe, 0);
    let refused =
        Mapper::new(&mut rig.protocol, &mut rig.frames, &mut rig.tables).map(request(AT, PAGE, GIB, DATA, Level::L3));
    assert!(refused.is_err(), "and no token was dropped on the way");
}

#[test]
fn bad_table_linked_without_a_barrier_into_another_than_the_unreached_one() {
    dies_saying(
        "bad_table_linked_without_a_barrier_into_another_than_the_unreached_one",
        "a table is linked where it was made for",
        || {
            let (mut rig, ..) = one_page();
            let mut take = || rig.frames.take().unwrap();
            let (first, second) = (take(), take());
            let parent = rig.protocol.new_table(first, Level::L1, VirtAddr::at(0));
            let child = rig.protocol.new_table(second, Level::L1, VirtAddr::at(1024 * GIB));
            let slot = Slot::new(rig.tables.root(), Level::L0, VirtAddr::at(1024 * GIB));
            let proof = rig.protocol.unused_run(slot, 1).unwrap();
            rig.protocol.link_unreached(&parent, proof, child);
        },
    );
}
