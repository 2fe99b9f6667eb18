//! Debts that are dropped, and proofs that do not prove: each panics with the promise that was broken.

use super::linear::Words;
use super::rig::{DATA, GIB, PAGE, POOL, Rig, dies_saying, request};
use super::world::World;
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::bbm::{
    After, Broken, Changed, Detached, Filled, FreeFrame, FreeTables, FreshTable, Invalidated, Laid, Live, Offline,
    Place, Protocol, Reach, Settling, Tables,
};
use breakwater::descriptor::{Access, Attributes, Leaf};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::geometry::{Geometry, Granule4K, Slot};
use breakwater::mapper::Mapper;
use std::collections::HashMap;
use std::mem::ManuallyDrop;

const AT: u64 = 4 * GIB;

fn leaf(output: u64) -> Leaf {
    Leaf::new(Level::L3, PhysAddr::at(output), DATA).unwrap()
}

/// Live tables with one page at [`AT`], the page's slot, and the slot of the page after it, which is unused.
fn one_page() -> (Rig<Live>, Slot, Slot) {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, PAGE, GIB, DATA, Level::L3)).unwrap();
    let slot = rig.slot(AT, Level::L3);
    (rig, slot, slot.step(1))
}

/// A frame of a supply that has one.
fn spare() -> FreeFrame<World> {
    FrameSupply::new(OwnedRam::simulated(super::rig::phys(POOL, PAGE))).take().unwrap()
}

fn fresh(protocol: &mut Protocol<World>) -> FreshTable<World> {
    protocol.new_table(spare(), Level::L1, VirtAddr::at(0))
}

/// The place of a slot of live tables.
fn place<'t>(protocol: &Protocol<World>, tables: &'t Tables<World, Live>, slot: Slot) -> Place<'t, World, Live> {
    let place = protocol.place(tables, slot.level(), slot.virt()).unwrap();
    assert_eq!(place.slot(), slot);
    place
}

fn protocol() -> Protocol<World> {
    Protocol::simulated(World::new(Errata::empty()), Errata::empty())
}

/// Fills one slot.
fn fill(rig: &mut Rig<Live>, slot: Slot, output: u64, filled: &mut Filled<Live>) {
    let slots = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, slot), 1).unwrap();
    rig.protocol.fill(slots, leaf(output), filled);
}

/// Breaks one leaf in favour of another.
fn break_for(rig: &mut Rig<Live>, slot: Slot, output: u64, broken: &mut Broken) {
    rig.protocol.break_run(place(&rig.protocol, &rig.tables, slot), 1, After::Leaf(leaf(output)), broken);
}

/// Settles one slot, and drops what that owes.
fn settle(rig: &mut Rig<Live>, slot: Slot, proof: &Invalidated) {
    let (mut filled, mut detached) = (ManuallyDrop::new(Filled::none()), ManuallyDrop::new(Detached::none()));
    let mut free = FreeTables::none();
    let mut settling = Settling { proof, filled: &mut filled, detached: &mut detached, free: &mut free, merges: false };
    rig.protocol.settle_run(place(&rig.protocol, &rig.tables, slot), 1, &mut settling);
}

#[test]
#[should_panic(expected = "dropped instead of settled: a fill without its DSB and ISB")]
fn bad_fill_dropped() {
    let (mut rig, _, unused) = one_page();
    let mut filled = Filled::<Live>::none();
    fill(&mut rig, unused, GIB, &mut filled);
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
    break_for(&mut rig, slot, 2 * GIB, &mut broken);
}

#[test]
#[should_panic(expected = "dropped instead of settled: a change of rights without its TLBI")]
fn bad_change_dropped() {
    let (mut rig, slot, _) = one_page();
    let mut changed = Changed::none();
    rig.protocol.change_run(
        place(&rig.protocol, &rig.tables, slot),
        1,
        Attributes::Normal(Access::ReadOnly),
        false,
        &mut changed,
    );
}

#[test]
#[should_panic(expected = "dropped instead of settled: frames detached without an invalidation")]
fn bad_detached_frames_dropped() {
    drop(Detached::none());
}

#[test]
#[should_panic(expected = "dropped instead of settled: a table that nothing links to")]
fn bad_fresh_table_dropped() {
    drop(fresh(&mut protocol()));
}

#[test]
#[should_panic(expected = "dropped instead of settled: tables laid ready, but not published")]
fn bad_laid_tables_dropped() {
    drop(Laid::none());
}

#[test]
#[should_panic(expected = "dropped instead of settled: tables published, but not all linked")]
fn bad_published_tables_dropped() {
    drop(protocol().publish(Laid::none()));
}

#[test]
fn bad_table_laid_and_never_linked() {
    dies_saying(module_path!(), "bad_table_laid_and_never_linked", "1 tables were laid and never linked", || {
        let (mut rig, ..) = one_page();
        let slot = Granule4K::slot(rig.tables.root(), Level::L0, VirtAddr::at(1024 * GIB));
        let spare = rig.frames.take().unwrap();
        let table = rig.protocol.new_table(spare, Level::L1, VirtAddr::at(1024 * GIB));
        let proof = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, slot), 1).unwrap();
        let mut laid = Laid::none();
        rig.protocol.lay(proof, table, false, &mut laid);
        rig.protocol.publish(laid).done();
    });
}

#[test]
fn bad_table_linked_that_was_never_laid() {
    dies_saying(
        module_path!(),
        "bad_table_linked_that_was_never_laid",
        "as many tables are linked as were laid",
        || {
            let (mut rig, _, unused) = one_page();
            let mut published = rig.protocol.publish(Laid::none());
            rig.protocol.link_laid(
                place(&rig.protocol, &rig.tables, unused),
                &mut published,
                &mut Filled::<Live>::none(),
            );
        },
    );
}

#[test]
fn bad_broken_slot_linked_as_if_it_had_been_laid() {
    dies_saying(module_path!(), "bad_broken_slot_linked_as_if_it_had_been_laid", "a table was laid here", || {
        let (mut rig, slot, unused) = one_page();
        let mut broken = ManuallyDrop::new(Broken::none());
        break_for(&mut rig, slot, 2 * GIB, &mut broken);
        let above = rig.slot(3 * AT, Level::L1);
        let spare = rig.frames.take().unwrap();
        let table = rig.protocol.new_table(spare, Level::L2, above.virt());
        let mut laid = Laid::none();
        let proof = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, above), 1).unwrap();
        rig.protocol.lay(proof, table, false, &mut laid);
        let _ = unused;
        let mut published = rig.protocol.publish(laid);
        rig.protocol.link_laid(place(&rig.protocol, &rig.tables, slot), &mut published, &mut Filled::<Live>::none());
    });
}

#[test]
fn bad_detached_table_taken_back_on_the_proof_of_another() {
    dies_saying(
        module_path!(),
        "bad_detached_table_taken_back_on_the_proof_of_another",
        "only a broken, invalidated slot",
        || {
            let (mut rig, ..) = one_page();
            rig.map(request(AT + 512 * GIB, PAGE, 2 * GIB, DATA, Level::L3)).unwrap();
            let (one, other) = (rig.slot(AT, Level::L0), rig.slot(AT + 512 * GIB, Level::L0));
            let (mut broken, mut owed, mut detached) = (Broken::none(), Broken::none(), Detached::none());
            rig.protocol.break_table(&mut rig.tables, one, &mut broken, &mut detached);
            rig.protocol.break_table(&mut rig.tables, other, &mut owed, &mut detached);
            let proof = rig.protocol.invalidate(broken);
            settle(&mut rig, other, &proof);
        },
    );
}

#[test]
fn bad_detached_table_that_never_came_back() {
    dies_saying(module_path!(), "bad_detached_table_that_never_came_back", "1 detached tables never came back", || {
        let (mut rig, ..) = one_page();
        let (mut broken, mut detached) = (Broken::none(), Detached::none());
        let slot = rig.slot(AT, Level::L0);
        rig.protocol.break_table(&mut rig.tables, slot, &mut broken, &mut detached);
        let _proof = rig.protocol.invalidate(broken);
        detached.done();
    });
}

#[test]
#[should_panic(expected = "dropped instead of settled: a break without its TLBI")]
fn bad_break_dropped_by_an_early_return() {
    fn early(rig: &mut Rig<Live>, slot: Slot) -> Option<()> {
        let mut broken = Broken::none();
        break_for(rig, slot, 2 * GIB, &mut broken);
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
    fill(&mut rig, unused, GIB, &mut filled);
    rig.protocol.complete(filled);
    let mut changed = Changed::none();
    rig.protocol.change_run(
        place(&rig.protocol, &rig.tables, slot),
        1,
        Attributes::Normal(Access::ReadOnly),
        false,
        &mut changed,
    );
    rig.protocol.invalidate_changed(changed);
    let mut broken = Broken::none();
    break_for(&mut rig, slot, 2 * GIB, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    let (mut filled, mut detached, mut free) = (Filled::none(), Detached::none(), FreeTables::none());
    let mut settling =
        Settling { proof: &proof, filled: &mut filled, detached: &mut detached, free: &mut free, merges: false };
    rig.protocol.settle_run(place(&rig.protocol, &rig.tables, slot), 1, &mut settling);
    rig.protocol.complete(filled);
    detached.done();
    let spare = rig.frames.take().unwrap();
    let root = rig.protocol.new_root(spare);
    let (_live, released) = rig.protocol.switch_root(root, Detached::none());
    assert_eq!(released.frames().count(), 0, "nothing was detached");
    rig.world_mut().settle();
    rig.world().assert_clean("every debt settled");
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_with_the_proof_of_another_slot() {
    let (mut rig, slot, other) = one_page();
    rig.map(request(AT + PAGE, PAGE, 3 * GIB, DATA, Level::L3)).unwrap();
    let mut late = ManuallyDrop::new(Broken::none());
    break_for(&mut rig, slot, 2 * GIB, &mut late);
    let mut broken = Broken::none();
    break_for(&mut rig, other, 5 * GIB, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    settle(&mut rig, slot, &proof);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_with_the_proof_of_an_earlier_break() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    break_for(&mut rig, slot, 2 * GIB, &mut broken);
    let old_proof = rig.protocol.invalidate(broken);
    settle(&mut rig, slot, &old_proof);
    let mut broken_again = ManuallyDrop::new(Broken::none());
    break_for(&mut rig, slot, GIB, &mut broken_again);
    settle(&mut rig, slot, &old_proof);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_table_reclaimed_with_the_proof_of_an_earlier_break() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    break_for(&mut rig, slot, 2 * GIB, &mut broken);
    let old_proof = rig.protocol.invalidate(broken);
    settle(&mut rig, slot, &old_proof);
    let (mut late, mut detached) = (ManuallyDrop::new(Broken::none()), ManuallyDrop::new(Detached::none()));
    let top = rig.slot(AT, Level::L0);
    rig.protocol.break_table(&mut rig.tables, top, &mut late, &mut detached);
    settle(&mut rig, top, &old_proof);
}

/// Breaks the first and the last of three pages for `broken`, between which `owed` has broken the one in the middle.
fn three_pages_broken(owed: &mut Broken) -> (Rig<Live>, Slot, Broken) {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, 3 * PAGE, GIB, DATA, Level::L3)).unwrap();
    let first = rig.slot(AT, Level::L3);
    break_for(&mut rig, first.step(1), 8 * GIB, owed);
    let mut broken = Broken::none();
    break_for(&mut rig, first, 8 * GIB, &mut broken);
    break_for(&mut rig, first.step(2), 8 * GIB, &mut broken);
    (rig, first.step(1), broken)
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_make_between_what_was_invalidated_while_its_own_break_is_owed() {
    let mut owed = ManuallyDrop::new(Broken::none());
    let (mut rig, between, broken) = three_pages_broken(&mut owed);
    let proof = rig.protocol.invalidate(broken);
    settle(&mut rig, between, &proof);
}

#[test]
fn good_make_once_every_break_is_settled() {
    let mut owed = Broken::none();
    let (mut rig, between, broken) = three_pages_broken(&mut owed);
    let _first = rig.protocol.invalidate(owed);
    let proof = rig.protocol.invalidate(broken);
    settle(&mut rig, between, &proof);
    assert!(rig.protocol.read(between).is_valid());
}

#[test]
fn bad_table_reclaimed_between_what_was_invalidated_while_its_own_break_is_owed() {
    dies_saying(
        module_path!(),
        "bad_table_reclaimed_between_what_was_invalidated_while_its_own_break_is_owed",
        "only a broken, invalidated slot",
        || {
            let mut rig = Rig::live(Reach::ThisPe, 8);
            let slots: Vec<Slot> = (0..3)
                .map(|index| {
                    let at = AT + index * 512 * PAGE;
                    rig.map(request(at, PAGE, GIB + index * PAGE, DATA, Level::L3)).unwrap();
                    rig.slot(at, Level::L2)
                })
                .collect();
            let (mut owed, mut broken, mut detached) =
                (ManuallyDrop::new(Broken::none()), Broken::none(), ManuallyDrop::new(Detached::none()));
            rig.protocol.break_table(&mut rig.tables, slots[1], &mut owed, &mut detached);
            rig.protocol.break_table(&mut rig.tables, slots[0], &mut broken, &mut detached);
            rig.protocol.break_table(&mut rig.tables, slots[2], &mut broken, &mut detached);
            let proof = rig.protocol.invalidate(broken);
            settle(&mut rig, slots[1], &proof);
        },
    );
}

#[test]
#[should_panic(expected = "what is settled was broken by this protocol")]
fn bad_break_settled_by_another_protocol() {
    let (mut rig, slot, _) = one_page();
    let mut broken = Broken::none();
    break_for(&mut rig, slot, 2 * GIB, &mut broken);
    let _proof = protocol().invalidate(broken);
}

/// The slot of level 2 through which the page of [`one_page`] is mapped: a link to a table.
fn link(rig: &Rig<Live>) -> Slot {
    rig.slot(AT, Level::L2)
}

#[test]
#[should_panic(expected = "a slot that is broken held a leaf")]
fn bad_link_to_a_table_broken_as_if_it_were_a_leaf() {
    let (mut rig, ..) = one_page();
    let slot = link(&rig);
    let mut broken = ManuallyDrop::new(Broken::none());
    rig.protocol.break_run(place(&rig.protocol, &rig.tables, slot), 1, After::Nothing, &mut broken);
}

#[test]
#[should_panic(expected = "a slot that changes in place held a leaf")]
fn bad_link_to_a_table_changed_as_if_it_were_a_leaf() {
    let (mut rig, ..) = one_page();
    let slot = link(&rig);
    let mut changed = ManuallyDrop::new(Changed::none());
    let read_only = Attributes::Normal(Access::ReadOnly);
    rig.protocol.change_run(place(&rig.protocol, &rig.tables, slot), 1, read_only, false, &mut changed);
}

#[test]
fn bad_link_to_a_table_replaced_as_if_it_were_a_block() {
    let name = "bad_link_to_a_table_replaced_as_if_it_were_a_block";
    dies_saying(module_path!(), name, "a slot that changes in place held a leaf", || {
        let (mut rig, ..) = one_page();
        rig.protocol.use_features(Features::RESIZE);
        let slot = link(&rig);
        let spare = rig.frames.take().unwrap();
        let table = rig.protocol.new_table(spare, Level::L3, slot.virt());
        let evidence = rig.protocol.resize().unwrap();
        rig.protocol.replace_block(place(&rig.protocol, &rig.tables, slot), table, evidence, &mut Changed::none());
    });
}

#[test]
fn bad_link_to_a_table_broken_into_another() {
    dies_saying(module_path!(), "bad_link_to_a_table_broken_into_another", "a slot that is broken held a leaf", || {
        let (mut rig, ..) = one_page();
        let slot = link(&rig);
        let spare = rig.frames.take().unwrap();
        let table = rig.protocol.new_table(spare, Level::L3, slot.virt());
        rig.protocol.break_into(place(&rig.protocol, &rig.tables, slot), table, &mut Broken::none());
    });
}

#[test]
fn bad_laid_table_made_on_the_proof_of_a_break() {
    dies_saying(
        module_path!(),
        "bad_laid_table_made_on_the_proof_of_a_break",
        "only a broken, invalidated slot",
        || {
            // A table that is laid between two pages that are broken: it owes a DSB and its link, and no invalidation covers that.
            let (mut rig, first, _) = one_page();
            let beyond = AT + 2 * 512 * PAGE;
            rig.map(request(beyond, PAGE, 3 * GIB, DATA, Level::L3)).unwrap();
            let (above, last) = (rig.slot(AT, Level::L2).step(1), rig.slot(beyond, Level::L3));
            let spare = rig.frames.take().unwrap();
            let table = rig.protocol.new_table(spare, Level::L3, above.virt());
            let proof = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, above), 1).unwrap();
            let mut laid = ManuallyDrop::new(Laid::none());
            rig.protocol.lay(proof, table, false, &mut laid);
            let mut broken = Broken::none();
            for slot in [first, last] {
                break_for(&mut rig, slot, 8 * GIB, &mut broken);
            }
            let proof = rig.protocol.invalidate(broken);
            settle(&mut rig, above, &proof);
        },
    );
}

#[test]
fn good_a_slot_that_is_not_broken_stays_as_it_is() {
    let (mut rig, slot, other) = one_page();
    rig.map(request(AT + PAGE, PAGE, 3 * GIB, DATA, Level::L3)).unwrap();
    let mut broken = Broken::none();
    break_for(&mut rig, slot, GIB, &mut broken);
    let proof = rig.protocol.invalidate(broken);
    let before = rig.protocol.raw(other);
    settle(&mut rig, other, &proof);
    assert_eq!(rig.protocol.raw(other), before);
    settle(&mut rig, slot, &proof);
}

#[test]
#[should_panic(expected = "a slot is filled once")]
fn bad_slot_filled_twice_on_two_proofs() {
    let (mut rig, _, unused) = one_page();
    let one = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, unused), 1).unwrap();
    let two = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, unused), 1).unwrap();
    let mut filled = ManuallyDrop::new(Filled::<Live>::none());
    rig.protocol.fill(one, leaf(GIB), &mut filled);
    rig.protocol.fill(two, leaf(2 * GIB), &mut filled);
}

#[test]
fn bad_root_that_was_made_as_another_table() {
    dies_saying(
        module_path!(),
        "bad_root_that_was_made_as_another_table",
        "a root is a table of the level at which walks begin",
        || {
            let mut protocol = protocol();
            let tables = Tables::new(fresh(&mut protocol));
            let _switched = protocol.switch_root(tables, Detached::none());
        },
    );
}

#[test]
#[should_panic(expected = "a slot that is broken held a leaf")]
fn bad_break_of_what_is_no_leaf() {
    let (mut rig, _, unused) = one_page();
    let mut broken = ManuallyDrop::new(Broken::none());
    rig.protocol.break_run(place(&rig.protocol, &rig.tables, unused), 1, After::Nothing, &mut broken);
}

#[test]
fn bad_root_switched_among_several_pes() {
    dies_saying(
        module_path!(),
        "bad_root_switched_among_several_pes",
        "a root is switched while one PE uses the tables",
        || {
            let mut protocol = protocol();
            let tables = protocol.new_root(spare());
            protocol.share(Errata::empty());
            let _switched = protocol.switch_root(tables, Detached::none());
        },
    );
}

#[test]
#[should_panic(expected = "a run of leaves ends within the format's output addresses")]
fn bad_run_that_ends_beyond_the_output_addresses() {
    let (mut rig, _, unused) = one_page();
    let slots = rig.protocol.unused_run(place(&rig.protocol, &rig.tables, unused), 2).unwrap();
    let mut filled = ManuallyDrop::new(Filled::<Live>::none());
    rig.protocol.fill(slots, leaf((1 << 48) - PAGE), &mut filled);
}

#[test]
fn bad_used_slots_are_no_unused_run() {
    let (rig, slot, unused) = one_page();
    assert_eq!(rig.protocol.unused_run(place(&rig.protocol, &rig.tables, slot), 1).map(drop), Err(slot));
    assert!(rig.protocol.unused_run(place(&rig.protocol, &rig.tables, unused), 511).is_ok());
}

#[test]
fn good_a_mapper_that_is_refused_leaves_no_debt() {
    let mut rig = Rig::live(Reach::ThisPe, 0);
    let refused = rig.mapper().map(request(AT, PAGE, GIB, DATA, Level::L3));
    assert!(refused.is_err(), "and no token was dropped on the way");
}

#[test]
fn good_a_plan_that_is_dropped_does_nothing() {
    let (mut rig, ..) = one_page();
    let memory = rig.world().snapshot();
    let (frames, now) = (rig.frames.available(), rig.world().now());
    let mut mapper = rig.mapper();
    drop(mapper.plan_unmap(super::rig::virt(AT, PAGE)).unwrap());
    drop(mapper.plan_map(request(8 * GIB, PAGE, 2 * GIB, DATA, Level::L3)).unwrap());
    assert!(rig.world().snapshot() == memory);
    assert_eq!((rig.frames.available(), rig.world().now()), (frames, now));
}

/// Somebody else takes back every break: what no manager can prevent, and one can notice.
fn take_back(memory: &mut HashMap<u64, u64>) {
    memory.values_mut().filter(|descriptor| **descriptor != 0).for_each(|descriptor| *descriptor |= 1);
}

#[test]
#[should_panic(expected = "only a broken, invalidated slot is used again")]
fn bad_slot_that_somebody_else_wrote_while_it_was_broken() {
    let mut protocol = Protocol::simulated(Words::written_by(take_back), Errata::empty());
    let mut frames = FrameSupply::new(OwnedRam::simulated(super::rig::phys(POOL, 16 * PAGE)));
    let root = protocol.new_root(frames.take().unwrap());
    let (mut tables, _old) = protocol.switch_root(root, Detached::none());
    let mut mapper = Mapper::new(&mut protocol, &mut frames, &mut tables);
    // Two pages, so that the table stays when one goes.
    mapper.map(request(AT, 2 * PAGE, GIB, DATA, Level::L3)).unwrap();
    let _unmapped = mapper.unmap(super::rig::virt(AT, PAGE));
}
