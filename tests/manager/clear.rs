//! Clearing a span: what is mapped in it goes, in one plan and one invalidation, and holes are let be. Costs are exact;
//! what is refused of an unmap is refused here too, but for the holes.

use super::bench::{self, Ask, Cpus};
use super::rig::{CONSTANTS, DATA, GIB, MIB, PAGE, Rig, request, virt};
use breakwater::addr::Level;
use breakwater::bbm::{Live, Reach};
use breakwater::change::Why;
use breakwater::features::Features;
use breakwater::geometry::Granule4K;
use breakwater::machine::Footing;
use breakwater::mapper::{Cost, Error};

const AT: u64 = 4 * GIB;
const TO: u64 = 0x8000_0000;
const NOTHING: Cost = Cost { stores: 0, frames: 0, freed: 0, tlbis: 0, dsbs: 0, isbs: 0 };
const ALL: u64 = 1 << 48;

/// Every second of eight pages, with one beside them that stays; a block two blocks on.
fn holey(reach: Reach) -> Rig<Live> {
    let mut rig = Rig::live(reach, 16);
    for page in [0, 2, 4, 6, 100] {
        rig.map(request(AT + page * PAGE, PAGE, TO + page * PAGE, DATA, Level::L3)).unwrap();
    }
    rig.map(request(AT + 4 * MIB, 2 * MIB, TO, CONSTANTS, Level::L2)).unwrap();
    rig
}

#[test]
fn good_a_span_with_nothing_in_it_costs_nothing() {
    let mut rig = Rig::live(Reach::Domain, 8);
    for (start, bytes) in [(0, ALL), (AT, PAGE), (AT + PAGE, GIB), (ALL - PAGE, PAGE)] {
        let now = rig.world().now();
        assert_eq!(rig.clear(start, bytes), Ok(NOTHING));
        assert_eq!(rig.world().events_since(now).filter(|event| !super::step::is_marker(event)).count(), 0);
    }
    let mut rig = holey(Reach::ThisPe);
    assert_eq!(rig.clear(AT + PAGE, PAGE), Ok(NOTHING));
    assert_eq!(rig.clear(AT + 2 * MIB, 2 * MIB), Ok(NOTHING));
}

#[test]
fn good_holes_between_leaves_cost_nothing() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = holey(reach);
        let four = Cost { stores: 8, tlbis: 4, dsbs: 2, isbs: 1, ..NOTHING };
        assert_eq!(rig.clear(AT, 99 * PAGE), Ok(four), "four pages, one invalidation");
        assert_eq!(rig.clear(AT, 99 * PAGE), Ok(NOTHING));
        assert_eq!(rig.query(AT + 100 * PAGE).map(|(level, ..)| level), Some(Level::L3));
    }
}

#[test]
fn good_a_span_without_holes_is_unmapped() {
    let (mut cleared, mut unmapped) = (holey(Reach::Domain), holey(Reach::Domain));
    for (start, bytes) in [(AT + 2 * PAGE, PAGE), (AT + 4 * MIB, 2 * MIB)] {
        assert_eq!(cleared.clear(start, bytes), unmapped.unmap(start, bytes));
    }
    assert!(cleared.world().snapshot() == unmapped.world().snapshot());
}

/// The whole address space: three tables hang from one link of the root, and go by it.
#[test]
fn good_tables_with_holes_in_them_are_freed() {
    let mut rig = holey(Reach::Domain);
    let all = Cost { stores: 2, freed: 3, tlbis: 6, dsbs: 2, isbs: 1, ..NOTHING };
    assert_eq!(rig.clear(0, ALL), Ok(all));
    assert_eq!(rig.frames.available(), 16);
    // The table of the pages alone, through a hole before it and one behind.
    let mut rig = holey(Reach::Domain);
    let table = Cost { stores: 2, freed: 1, tlbis: 5, dsbs: 2, isbs: 1, ..NOTHING };
    assert_eq!(rig.clear(AT - GIB, GIB + 4 * MIB), Ok(table));
    assert_eq!(rig.query(AT + 4 * MIB).map(|(level, ..)| level), Some(Level::L2));
}

#[test]
fn good_tables_that_were_asked_for_stay() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.populate(AT, 4 * MIB, Level::L3).unwrap();
    assert_eq!(rig.clear(AT - GIB, 2 * GIB), Ok(NOTHING), "an empty table that is to stay is no mapping");
    rig.map(request(AT + PAGE, PAGE, TO, DATA, Level::L3)).unwrap();
    assert_eq!(rig.clear(AT - GIB, 2 * GIB), Ok(Cost { stores: 2, tlbis: 1, dsbs: 2, isbs: 1, ..NOTHING }));
    assert_eq!(rig.map(request(AT + 2 * MIB, PAGE, TO, DATA, Level::L3)).map(|cost| cost.frames), Ok(0));
}

#[test]
fn good_blocks_are_cut_at_both_ends() {
    for features in [Features::empty(), Features::RESIZE] {
        let mut rig: Rig<Live> = Rig::live_on(Reach::Domain, breakwater::errata::Errata::empty(), features, 16);
        for block in [0, 4] {
            rig.map(request(AT + block * MIB, 2 * MIB, TO + block * MIB, DATA, Level::L2)).unwrap();
        }
        // From the middle of one block over a hole to the middle of another.
        assert_eq!(rig.clear(AT + MIB, 4 * MIB).map(|cost| (cost.frames, cost.freed)), Ok((2, 0)));
        assert_eq!(rig.leaves(), (0, 0, 512));
    }
}

#[test]
fn bad_what_the_manager_never_writes_among_holes() {
    for (planted, why) in
        [(0x40_0000_0000_0703 | 1 << 55, Why::Foreign), (TO | 0x40_0000_0000_0702, Why::InvalidationOwed)]
    {
        for level in [Level::L2, Level::L3] {
            let mut rig = holey(Reach::ThisPe);
            // Beyond every leaf, with holes on both sides.
            let slot = rig.slot(AT + if level == Level::L3 { 50 * PAGE } else { 8 * MIB }, level);
            let descriptor = if level == Level::L3 { planted } else { planted & !2 };
            rig.world_mut().plant(slot, descriptor);
            let refused = Err(Error::Refused { slot, descriptor, why });
            for (start, bytes) in [(0, ALL), (AT, 16 * MIB), (slot.virt().raw(), PAGE)] {
                assert_eq!(rig.clear(start, bytes), refused, "{level:?}");
            }
        }
    }
}

#[test]
fn bad_what_is_no_span_of_pages() {
    let mut rig = holey(Reach::ThisPe);
    assert!(matches!(rig.clear(AT, 0), Err(Error::Empty { .. })));
    assert!(matches!(rig.clear(AT + 8, PAGE), Err(Error::Misaligned { .. })));
    assert!(matches!(rig.clear(ALL - PAGE, 2 * PAGE), Err(Error::BeyondInput { .. })));
}

#[test]
fn bad_a_block_in_part_without_a_frame() {
    let mut rig = holey(Reach::ThisPe);
    while rig.frames.take().is_some() {}
    let refused = rig.clear(AT + 3 * MIB, 2 * MIB);
    assert_eq!(refused, Err(Error::OutOfFrames { needed: 1, available: 0 }));
    assert_eq!(rig.clear(AT + 3 * MIB, 3 * MIB).map(|cost| cost.frames), Ok(0), "all of it needs none");
}

type Desk = bench::Bench<Granule4K, Live>;

fn desk(maps: &[(u64, u64)]) -> Desk {
    let requests: Vec<_> = maps.iter().map(|&(at, to)| request(at, PAGE, to, DATA, Level::L3)).collect();
    Desk::live(Cpus::PLAIN, 64, &requests)
}

#[test]
fn bad_what_a_cpu_stands_on_among_holes() {
    let mut desk = desk(&[(AT, TO), (AT + 9 * PAGE, TO + PAGE)]);
    let stack = Footing { name: "stack", virt: virt(AT + 9 * PAGE, PAGE) };
    desk.protocol.machine_mut().footings = vec![stack, Footing { name: "idle", virt: virt(AT + 4 * PAGE, PAGE) }];
    for span in [virt(0, ALL), virt(AT + PAGE, 16 * PAGE)] {
        let refused = desk.refused(Ask::Clear(span));
        assert!(matches!(refused, Error::WouldBreakSelf { footing, .. } if footing == stack), "{refused}");
    }
    desk.granted(Ask::Clear(virt(AT, 9 * PAGE)));
}

#[test]
fn bad_the_window_to_a_table_among_holes() {
    const WINDOW: u64 = 512 * GIB;
    let window = breakwater::mapper::Request::new(
        virt(WINDOW + bench::POOL, MIB),
        breakwater::addr::PhysAddr::at(bench::POOL),
        DATA,
        Level::L3,
    );
    let mut desk = Desk::live(Cpus::PLAIN, 64, &[window]);
    desk.protocol.machine_mut().window = Some(WINDOW);
    let refused = desk.refused(Ask::Clear(virt(0, ALL)));
    assert!(matches!(refused, Error::WouldBreakSelf { .. }), "{refused}");
    assert_eq!(desk.granted(Ask::Clear(virt(WINDOW + GIB, GIB))), NOTHING, "a part of the window that shows nothing");
}
