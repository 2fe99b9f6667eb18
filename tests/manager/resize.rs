//! Leaves that change their size: split, merge, and blocks and contiguous runs that a request covers in part. Costs exact, with and without
//! the evidence that sizes may change in place.

use super::expansion;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, request};
use super::step::{is_tlbi, stored_word};
use breakwater::addr::Level;
use breakwater::bbm::{Live, Reach};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::mapper::{Cost, Error};
use breakwater_trace::Event;

const AT: u64 = 4 * GIB;
const TO: u64 = 16 * GIB;

fn rig_with(features: Features) -> Rig<Live> {
    Rig::live_on(Reach::Domain, Errata::empty(), features, 16)
}

/// A block of `bytes`, on CPUs with these features.
fn block(features: Features, bytes: u64) -> Rig<Live> {
    let mut rig = rig_with(features);
    rig.map(request(AT, bytes, TO, DATA, Level::L1)).unwrap();
    rig
}

/// A contiguous run of sixteen pages, and one page more.
fn run(features: Features) -> Rig<Live> {
    let mut rig = rig_with(features);
    rig.map(request(AT, 17 * PAGE, TO, DATA, Level::L3).with_contiguous()).unwrap();
    rig
}

/// The TLBIs since a place in the recording.
fn tlbis(rig: &Rig<Live>, from: usize) -> Vec<Event> {
    rig.world().events_since(from).filter(|event| is_tlbi(event)).copied().collect()
}

#[test]
fn good_split_by_break_before_make() {
    let mut rig = block(Features::empty(), 2 * MIB);
    let from = rig.world().now();
    let cost = Cost { stores: 512 + 2, frames: 1, freed: 0, tlbis: 1, dsbs: 3, isbs: 2 };
    assert_eq!(rig.split(AT, 2 * MIB, Level::L3), Ok(cost), "a table, the break, the make");
    assert_eq!(tlbis(&rig, from), [expansion::tlbi("vale2is", AT >> 12)]);
    assert_eq!(rig.leaves(), (0, 0, 512));
    assert_eq!(rig.split(AT, 2 * MIB, Level::L3), Ok(Cost::default()), "it is so already");
}

#[test]
fn good_split_in_place_with_evidence() {
    let mut rig = block(Features::RESIZE, 2 * MIB);
    let cost = Cost { stores: 512 + 1, frames: 1, freed: 0, tlbis: 1, dsbs: 3, isbs: 1 };
    assert_eq!(rig.split(AT, 2 * MIB, Level::L3), Ok(cost), "the table's DSB, one store, and the invalidation");
    assert_eq!(rig.leaves(), (0, 0, 512));
    let mut always: Rig<Live> = Rig::live_on(Reach::Domain, Errata::BBM_ALWAYS, Features::RESIZE, 16);
    always.map(request(AT, 2 * MIB, TO, DATA, Level::L1)).unwrap();
    let broken = always.split(AT, 2 * MIB, Level::L3).unwrap();
    assert_eq!((broken.stores, broken.isbs), (514, 2), "3683289: by break-before-make after all");
}

#[test]
fn good_split_stops_where_it_is_told() {
    let mut rig = block(Features::empty(), GIB);
    let cost = rig.split(AT, GIB, Level::L2).unwrap();
    assert_eq!((cost.frames, cost.stores, rig.leaves()), (1, 514, (0, 512, 0)));
    let one = rig.split(AT + 6 * MIB, 2 * MIB, Level::L3).unwrap();
    assert_eq!((one.frames, one.stores, rig.leaves()), (1, 514, (0, 511, 512)));
}

#[test]
fn good_split_of_a_part_splits_no_more() {
    let mut rig = block(Features::empty(), GIB);
    let cost = rig.split(AT + 6 * MIB, 2 * MIB, Level::L3).unwrap();
    assert_eq!((cost.frames, rig.leaves()), (2, (0, 511, 512)), "one table of blocks, one of pages");
}

#[test]
fn good_merge_by_break_before_make_and_in_place() {
    for (features, stores, isbs) in [(Features::empty(), 2, 2), (Features::RESIZE, 1, 1)] {
        let mut rig = rig_with(features);
        rig.map(request(AT, 2 * MIB, TO, DATA, Level::L3)).unwrap();
        let cost = rig.merge(AT, 2 * MIB, Level::L2, false).unwrap();
        assert_eq!((cost.stores, cost.frames, cost.freed, cost.isbs), (stores, 0, 1, isbs), "{features}");
        assert_eq!(cost.tlbis, 1, "512 pages that were linked through one table: everything, rather than each");
        assert_eq!(rig.leaves(), (0, 1, 0));
    }
}

#[test]
fn good_merge_of_pages_whose_table_goes_by_range() {
    let mut rig = rig_with(Features::TLBIRANGE | Features::TTL);
    rig.map(request(AT, 2 * MIB, TO, DATA, Level::L3)).unwrap();
    let from = rig.world().now();
    rig.merge(AT, 2 * MIB, Level::L2, false).unwrap();
    // TG 4 KiB, SCALE 1, NUM 7: 8 times 64 pages, every level of their walks.
    let whole = 1 << 46 | 1 << 44 | 7 << 39 | AT >> 12;
    assert_eq!(tlbis(&rig, from), [expansion::tlbi("rvae2is", whole)]);
}

#[test]
fn good_merge_into_the_largest_that_fits() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(AT, GIB, TO, DATA, Level::L2)).unwrap();
    rig.split(AT + 2 * MIB, 2 * MIB, Level::L3).unwrap();
    let cost = rig.merge(AT, GIB, Level::L1, false).unwrap();
    assert_eq!((cost.freed, rig.leaves()), (2, (1, 0, 0)), "pages and blocks are one block of 1 GiB");
}

#[test]
fn bad_merge_leaves_what_one_leaf_cannot_say() {
    let mut rig = rig_with(Features::empty());
    rig.map(request(AT, 2 * MIB, TO + PAGE, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 2 * MIB, 2 * MIB, TO + 4 * MIB, DATA, Level::L3)).unwrap();
    rig.protect(AT + 3 * MIB, PAGE, CONSTANTS).unwrap();
    assert_eq!(rig.merge(AT, 4 * MIB, Level::L1, false), Ok(Cost::default()), "misaligned, and of two kinds");
    rig.populate(AT + 4 * MIB, 2 * MIB, Level::L3).unwrap();
    rig.map(request(AT + 4 * MIB, 2 * MIB, TO + 8 * MIB, DATA, Level::L3)).unwrap();
    assert_eq!(rig.merge(AT + 4 * MIB, 2 * MIB, Level::L1, false), Ok(Cost::default()), "a table that stays");
}

#[test]
fn good_contiguous_hint_by_break_and_in_place() {
    for (features, each, isbs) in [(Features::empty(), 2, 2), (Features::RESIZE, 1, 1)] {
        let mut rig = rig_with(features);
        rig.map(request(AT, 17 * PAGE, TO, DATA, Level::L3)).unwrap();
        let cost = rig.merge(AT, 17 * PAGE, Level::L3, true).unwrap();
        assert_eq!((cost.stores, cost.tlbis, cost.isbs), (16 * each, 16, isbs), "a TLBI for each leaf (RLQLSD)");
        let back = rig.split(AT, 16 * PAGE, Level::L3).unwrap();
        assert_eq!(back, cost, "the same back");
    }
}

#[test]
fn good_a_run_changes_as_a_whole() {
    let mut rig = run(Features::empty());
    let in_place = Cost { stores: 16, frames: 0, freed: 0, tlbis: 16, dsbs: 2, isbs: 1 };
    assert_eq!(rig.protect(AT, 16 * PAGE, CONSTANTS), Ok(in_place));
    let broken = Cost { stores: 32, frames: 0, freed: 0, tlbis: 16, dsbs: 3, isbs: 2 };
    assert_eq!(rig.remap(AT, 16 * PAGE, TO + GIB, CONSTANTS), Ok(broken));
}

#[test]
fn good_a_page_of_a_run_changes_and_the_run_unfolds() {
    let unfolded = Cost { stores: 32, frames: 0, freed: 0, tlbis: 16, dsbs: 3, isbs: 2 };
    assert_eq!(run(Features::empty()).protect(AT + PAGE, PAGE, CONSTANTS), Ok(unfolded));
    assert_eq!(run(Features::empty()).remap(AT + PAGE, PAGE, TO + GIB, DATA), Ok(unfolded));
    assert_eq!(run(Features::empty()).unmap(AT + PAGE, PAGE), Ok(unfolded), "fifteen are made, one is reclaimed");
    let in_place = run(Features::RESIZE).unmap(AT + PAGE, PAGE).unwrap();
    assert_eq!(in_place.stores, 15 + 2, "fifteen lose the bit in place, one is broken and reclaimed");
}

#[test]
fn good_a_page_of_a_block_changes_and_the_block_splits() {
    let split = Cost { stores: 512 + 2, frames: 1, freed: 0, tlbis: 1, dsbs: 3, isbs: 2 };
    for attributes in [CONSTANTS, DEVICE, CODE] {
        let mut rig = block(Features::empty(), 2 * MIB);
        assert_eq!(rig.protect(AT + 5 * PAGE, 2 * PAGE, attributes), Ok(split), "in the same invalidation");
        assert_eq!(rig.leaves(), (0, 0, 512));
    }
    let mut rig = block(Features::empty(), 2 * MIB);
    assert_eq!(rig.remap(AT, PAGE, TO + GIB, DATA), Ok(split));
    let mut rig = block(Features::empty(), 2 * MIB);
    assert_eq!(rig.unmap(AT + 2 * MIB - PAGE, PAGE), Ok(Cost { stores: 511 + 2, ..split }));
    assert_eq!(rig.leaves(), (0, 0, 511));
}

#[test]
fn good_protecting_part_of_a_block_to_what_it_is_costs_nothing() {
    let mut rig = block(Features::empty(), 2 * MIB);
    assert_eq!(rig.protect(AT + PAGE, PAGE, DATA), Ok(Cost::default()));
    assert_eq!(rig.remap(AT + PAGE, PAGE, TO + PAGE, DATA), Ok(Cost::default()));
    assert_eq!(rig.leaves(), (0, 1, 0));
}

#[test]
fn good_remap_to_a_misaligned_output_by_smaller_leaves() {
    let mut rig = block(Features::empty(), 2 * MIB);
    let cost = rig.remap(AT, 2 * MIB, TO + MIB, DATA).unwrap();
    assert_eq!((cost.frames, cost.tlbis, rig.leaves()), (1, 1, (0, 0, 512)));
    let mut rig = block(Features::empty(), GIB);
    let cost = rig.remap(AT, GIB, TO + 2 * MIB, DATA).unwrap();
    assert_eq!((cost.frames, cost.tlbis, rig.leaves()), (1, 1, (0, 512, 0)));
}

#[test]
fn good_a_block_stays_whole_until_its_table_is_full() {
    let mut rig = block(Features::empty(), 2 * MIB);
    let from = rig.world().now();
    rig.unmap(AT + 5 * PAGE, PAGE).unwrap();
    let events: Vec<&Event> = rig.world().events_since(from).collect();
    let breaks = |event: &&Event| stored_word(event).is_some_and(|(_, value)| value & 1 == 0);
    let first = events.iter().position(breaks).unwrap();
    let filled = events[..first].iter().filter(|event| stored_word(event).is_some()).count();
    assert_eq!(filled, 511, "all pages that stay, before the break");
}

#[test]
fn good_range_operations_and_hints_where_every_cpu_has_them() {
    let mut rig = rig_with(Features::TLBIRANGE | Features::TTL);
    rig.map(request(AT, 100 * PAGE, TO, DATA, Level::L3)).unwrap();
    let from = rig.world().now();
    rig.unmap(AT, 64 * PAGE).unwrap();
    let range = 1 << 46 | 1 << 44 | 3 << 37 | AT >> 12;
    assert_eq!(tlbis(&rig, from), [expansion::tlbi("rvale2is", range)], "64 pages at once, of level 3");
    let from = rig.world().now();
    rig.protect(AT + 70 * PAGE, PAGE, CONSTANTS).unwrap();
    assert_eq!(tlbis(&rig, from), [expansion::tlbi("vale2is", (7 << 44) | ((AT >> 12) + 70))], "TTL: 4 KiB, level 3");
}

#[test]
fn bad_split_without_frames_for_its_tables() {
    let mut rig = Rig::live(Reach::ThisPe, 1);
    rig.map(request(0, GIB, TO, DATA, Level::L1)).unwrap();
    assert_eq!(rig.split(0, GIB, Level::L2), Err(Error::OutOfFrames { needed: 1, available: 0 }));
    assert_eq!(rig.unmap(PAGE, PAGE), Err(Error::OutOfFrames { needed: 2, available: 0 }));
    assert_eq!(rig.leaves(), (1, 0, 0));
}
