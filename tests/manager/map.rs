//! Requests that fill: map, populate, query. Live and offline; leaves as few as alignment allows; costs exact.

use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, request};
use super::step::stored_word;
use breakwater::addr::Level;
use breakwater::bbm::{Offline, Reach, State};
use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
use breakwater::mapper::Cost;

const TIB: u64 = 1 << 40;

/// What a fill of live tables costs: one barrier before the `links` into tables that walks can reach, which are laid ready first when they
/// are several; one more and the ISB at the end.
fn live_fill(stores: u64, frames: u64, links: u32) -> Cost {
    let laid = if links > 1 { links } else { 0 };
    let dsbs = u32::from(links > 0) + 1;
    Cost { stores: stores + u64::from(laid), frames, freed: 0, tlbis: 0, dsbs, isbs: 1 }
}

fn offline_fill(stores: u64, frames: u64) -> Cost {
    Cost { stores, frames, freed: 0, tlbis: 0, dsbs: 0, isbs: 0 }
}

#[test]
fn good_pages_of_a_live_table() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = Rig::live(reach, 8);
        let first = rig.map(request(4 * GIB, 3 * PAGE, 0x8000_0000, DATA, Level::L3)).unwrap();
        assert_eq!(first, live_fill(3 + 3, 3, 1), "three tables and three pages");
        let second = rig.map(request(4 * GIB + 3 * PAGE, PAGE, 0x9000_0000, CODE, Level::L3)).unwrap();
        assert_eq!(second, live_fill(1, 0, 0), "the tables are there");
        assert_eq!(rig.leaves(), (0, 0, 4));
    }
}

#[test]
fn good_offline_fill_owes_nothing() {
    let mut rig = Rig::offline(8);
    assert_eq!(rig.map(request(4 * GIB, 3 * PAGE, 0x8000_0000, DATA, Level::L3)), Ok(offline_fill(6, 3)));
    assert_eq!(rig.map(request(4 * GIB + 8 * PAGE, PAGE, 0x9000_0000, CODE, Level::L3)), Ok(offline_fill(1, 0)));
    let rig = rig.switch();
    assert_eq!(rig.leaves(), (0, 0, 4), "and all of it is in force after the switch");
}

#[test]
fn good_blocks_of_two_mib_and_one_gib() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    let block = rig.map(request(2 * MIB, 2 * MIB, 4 * MIB, DATA, Level::L1)).unwrap();
    assert_eq!((block, rig.leaves()), (live_fill(2 + 1, 2, 1), (0, 1, 0)));
    let giant = rig.map(request(GIB, 2 * GIB, 4 * GIB, DATA, Level::L1)).unwrap();
    assert_eq!((giant, rig.leaves()), (live_fill(2, 0, 0), (2, 1, 0)));
}

#[test]
fn good_largest_leaf_is_obeyed() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(GIB, GIB, 0, CONSTANTS, Level::L2)).unwrap();
    assert_eq!(rig.leaves(), (0, 512, 0));
    rig.map(request(3 * GIB, 4 * MIB, 0, CONSTANTS, Level::L3)).unwrap();
    assert_eq!(rig.leaves(), (0, 512, 1024));
    rig.map(request(4 * GIB, GIB, 0, CONSTANTS, Level::L0)).unwrap();
    assert_eq!(rig.leaves(), (1, 512, 1024), "there are no leaves of level 0 to use");
}

#[test]
fn good_ragged_ends_by_pages_middle_by_blocks() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    // From one page before a GiB to one page past the next, both addresses alike within a GiB.
    let start = 3 * GIB - 2 * MIB - PAGE;
    let cost = rig.map(request(start, GIB + 4 * MIB + 2 * PAGE, start + 8 * GIB, DATA, Level::L1)).unwrap();
    assert_eq!(rig.leaves(), (1, 2, 2));
    // L1, and below it two of level 2 and two of level 3.
    assert_eq!(cost, live_fill(5 + 5, 5, 1));
}

#[test]
fn good_output_of_other_alignment_uses_smaller_leaves() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(GIB, GIB, 2 * MIB, DATA, Level::L1)).unwrap();
    assert_eq!(rig.leaves(), (0, 512, 0), "2 MiB apart: no 1 GiB block");
    rig.map(request(4 * GIB, 4 * MIB, GIB + PAGE, DATA, Level::L1)).unwrap();
    assert_eq!(rig.leaves(), (0, 512, 1024), "a page apart: no block at all");
    rig.map(request(8 * GIB + PAGE, 2 * MIB, 6 * GIB, DATA, Level::L1)).unwrap();
    assert_eq!(rig.leaves(), (0, 512, 1024 + 512), "nor where only the output is aligned");
}

/// Two pages across each boundary there is, with the links that are laid ready: those of two tables.
fn straddle<S: State>(rig: &mut Rig<S>) {
    let boundaries = [(512 * GIB, 2), (3 * GIB, 2), (5 * GIB + 6 * MIB, 0), (512 * 40 * GIB, 2)];
    for (boundary, laid) in boundaries {
        let asked = request(boundary - PAGE, 2 * PAGE, 0x8000_0000 + boundary - PAGE, DATA, Level::L1);
        let cost = rig.map(asked).unwrap();
        let laid = if S::WALKED { laid } else { 0 };
        assert_eq!(cost.stores, cost.frames + 2 + laid, "{boundary:#x}");
    }
}

#[test]
fn good_straddling_level_0_1_and_2_boundaries() {
    straddle(&mut Rig::live(Reach::Domain, 64));
    let mut offline = Rig::offline(64);
    straddle(&mut offline);
    offline.switch();
}

#[test]
fn good_first_and_last_page_of_the_address_space() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(0, PAGE, 0, CONSTANTS, Level::L1)).unwrap();
    rig.map(request((1 << 48) - PAGE, PAGE, (1 << 48) - PAGE, CONSTANTS, Level::L1)).unwrap();
    assert_eq!(rig.query((1 << 48) - 1), Some((Level::L3, (1 << 48) - PAGE, CONSTANTS)));
    rig.map(request((1 << 48) - GIB, GIB - 2 * MIB, (1 << 48) - GIB, CONSTANTS, Level::L1)).unwrap();
}

#[test]
fn good_whole_slots_of_level_0_by_one_gib_blocks() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    let cost = rig.map(request(10 * TIB, TIB + GIB, 0, DATA, Level::L1)).unwrap();
    assert_eq!(cost, live_fill(1025 + 3, 3, 3));
    assert_eq!(rig.leaves(), (1025, 0, 0));
}

#[test]
fn good_every_kind_of_memory() {
    let mut rig = Rig::live(Reach::ThisPe, 64);
    let mut at = GIB;
    let data = [DataAccess::ReadOnly, DataAccess::ReadWrite];
    let devices = [DeviceKind::NGnRnE, DeviceKind::NGnRE, DeviceKind::Gre];
    let kinds = [DATA, CONSTANTS, CODE].into_iter().chain(data.map(Attributes::NonCacheable));
    for attributes in kinds.chain(devices.iter().flat_map(|&kind| data.map(|access| Attributes::Device(kind, access))))
    {
        for (level, bytes) in [(Level::L3, PAGE), (Level::L2, 2 * MIB), (Level::L1, GIB)] {
            rig.map(request(at, bytes, 2 * at, attributes, Level::L1)).unwrap();
            assert_eq!(rig.query(at + bytes - 1), Some((level, 2 * at, attributes)));
            at += GIB;
        }
    }
}

#[test]
fn good_populate_makes_tables_and_no_leaves() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    assert_eq!(rig.populate(GIB, GIB, Level::L2), Ok(live_fill(2, 2, 1)));
    assert_eq!(rig.populate(GIB, 4 * MIB, Level::L3), Ok(live_fill(2, 2, 2)));
    let nothing = rig.populate(GIB, 4 * MIB, Level::L3).unwrap();
    assert_eq!(
        nothing,
        Cost { stores: 0, frames: 0, freed: 0, tlbis: 0, dsbs: 0, isbs: 0 },
        "a fill of nothing owes nothing"
    );
    assert_eq!(rig.leaves(), (0, 0, 0));
    let fill = rig.map(request(GIB + 2 * MIB - PAGE, 2 * PAGE, 0, DEVICE, Level::L3)).unwrap();
    assert_eq!(fill, live_fill(2, 0, 0), "only fills happen where tables are");
}

#[test]
fn good_populate_beside_what_is_mapped() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(GIB, PAGE, 0, DATA, Level::L3)).unwrap();
    assert_eq!(
        rig.populate(GIB, 4 * MIB, Level::L3),
        Ok(live_fill(1 + 1, 1, 1)),
        "the table of the second 2 MiB was missing, and that of the first stays from here on"
    );
}

#[test]
fn good_query_finds_what_is_mapped_and_nothing_else() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(GIB + PAGE, PAGE, 0x8000_0000, CODE, Level::L3)).unwrap();
    rig.map(request(4 * GIB, 2 * MIB, 0x4000_0000, DEVICE, Level::L2)).unwrap();
    assert_eq!(rig.query(GIB + PAGE + 8), Some((Level::L3, 0x8000_0000, CODE)));
    assert_eq!(rig.query(4 * GIB + MIB), Some((Level::L2, 0x4000_0000, DEVICE)));
    for unmapped in [0, GIB, GIB + 2 * PAGE, 4 * GIB - 1, 4 * GIB + 2 * MIB, (1 << 48) - 1] {
        assert_eq!(rig.query(unmapped), None, "{unmapped:#x}");
    }
}

#[test]
fn bad_query_beyond_the_address_space_finds_nothing() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(0, PAGE, 0x8000_0000, CODE, Level::L3)).unwrap();
    assert_eq!(rig.query(1 << 48), None, "the exclusive end of the address space is not address 0");
}

#[test]
fn good_a_table_is_full_before_a_walk_can_see_it() {
    let mut rig: Rig<Offline> = Rig::offline(4);
    rig.map(request(GIB, PAGE, 0, DATA, Level::L3)).unwrap();
    let mut rig = rig.switch();
    let from = rig.world().now();
    rig.map(request(GIB + 2 * MIB, 512 * PAGE, PAGE, DATA, Level::L3)).unwrap();
    let stores: Vec<u64> = rig.world().events_since(from).filter_map(stored_word).map(|(address, _)| address).collect();
    let linking = stores.iter().position(|&address| address & !0xfff != stores[0] & !0xfff).unwrap();
    assert_eq!((linking, stores.len()), (512, 513), "512 pages, then the link");
}
