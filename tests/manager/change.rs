//! Requests that take away or change: unmap, protect, remap. Sequences exact, for each reach and each erratum.

use super::expansion;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, request};
use super::step::{DSB_ISH, DSB_ISHST, DSB_NSH, is_marker};
use super::world::World;
use breakwater::addr::Level;
use breakwater::bbm::{Live, Reach};
use breakwater::descriptor::{Attributes, DataAccess};
use breakwater::errata::Errata;
use breakwater::mapper::Cost;
use breakwater_trace::{Event, Feature};

const AT: u64 = 4 * GIB;
const TO: u64 = 0x8000_0000;
const NON_CACHEABLE: Attributes = Attributes::NonCacheable(DataAccess::ReadWrite);

/// Tables with `pages` pages of `attributes` at [`AT`].
fn mapped(reach: Reach, errata: Errata, pages: u64, attributes: Attributes) -> Rig<Live> {
    let mut rig = Rig::live_with(reach, errata, 16);
    rig.map(request(AT, pages * PAGE, TO, attributes, Level::L3)).unwrap();
    rig
}

fn plain(pages: u64) -> Rig<Live> {
    mapped(Reach::ThisPe, Errata::empty(), pages, DATA)
}

fn done(stores: u64, tlbis: u32, dsbs: u32, isbs: u32) -> Cost {
    Cost { stores, frames: 0, freed: 0, tlbis, dsbs, isbs }
}

/// The barriers and TLBIs of the last request, which is the last of the log.
fn last_maintenance(rig: &Rig<Live>, count: usize) -> Vec<Event> {
    let is_maintenance = |event: &&Event| !is_marker(event) && !matches!(event, Event::Store(_));
    let steps: Vec<Event> = rig.world().events_since(0).filter(is_maintenance).copied().collect();
    steps[steps.len() - count..].to_vec()
}

#[test]
fn good_unmap_breaks_invalidates_and_reclaims() {
    let mut rig = plain(4);
    assert_eq!(rig.unmap(AT + PAGE, 2 * PAGE), Ok(done(4, 2, 2, 1)));
    let tlbi = |virt: u64| expansion::tlbi("vale2", virt >> 12);
    let sequence = [DSB_ISHST, tlbi(AT + PAGE), tlbi(AT + 2 * PAGE), DSB_NSH, Event::Isb];
    assert_eq!(last_maintenance(&rig, 5), sequence);
    assert_eq!(rig.query(AT + PAGE), None);
    assert_eq!(rig.query(AT), Some((Level::L3, TO, DATA)), "the neighbours stay");
    rig.map(request(AT + PAGE, 2 * PAGE, 0, CODE, Level::L3)).unwrap();
}

#[test]
fn good_unmap_among_several_pes_is_broadcast() {
    let mut rig = mapped(Reach::Domain, Errata::empty(), 2, DATA);
    assert_eq!(rig.unmap(AT, PAGE), Ok(done(2, 1, 2, 1)));
    let tlbi = expansion::tlbi("vale2is", AT >> 12);
    let sequence = [DSB_ISHST, tlbi, DSB_ISH, Event::Isb];
    assert_eq!(last_maintenance(&rig, 4), sequence);
}

#[test]
fn good_unmap_of_blocks_needs_one_tlbi_each() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = Rig::live(reach, 16);
        rig.map(request(AT, GIB, 0, DATA, Level::L1)).unwrap();
        rig.map(request(2 * AT, 4 * MIB, GIB, DATA, Level::L1)).unwrap();
        assert_eq!(rig.unmap(AT, GIB), Ok(done(2, 1, 2, 1)));
        let last = Cost { stores: 2, frames: 0, freed: 2, tlbis: 2, dsbs: 2, isbs: 1 };
        assert_eq!(rig.unmap(2 * AT, 4 * MIB), Ok(last), "one store and its undoing, for the table above both");
        assert_eq!(rig.leaves(), (0, 0, 0));
    }
}

#[test]
fn good_unmap_across_levels_and_tables() {
    let mut rig = Rig::live(Reach::Domain, 16);
    let start = 3 * GIB - 2 * MIB - PAGE;
    rig.map(request(start, GIB + 4 * MIB + 2 * PAGE, start, DATA, Level::L1)).unwrap();
    let all = Cost { stores: 2, frames: 0, freed: 5, tlbis: 5, dsbs: 2, isbs: 1 };
    assert_eq!(rig.unmap(start, GIB + 4 * MIB + 2 * PAGE), Ok(all), "five leaves of three sizes, and their tables");
}

#[test]
fn good_up_to_32_addresses_by_name_more_by_everything() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = mapped(reach, Errata::empty(), 100, DATA);
        assert_eq!(rig.unmap(AT, 32 * PAGE), Ok(done(64, 32, 2, 1)));
        assert_eq!(rig.unmap(AT + 32 * PAGE, 33 * PAGE), Ok(done(66, 1, 2, 1)));
        let everything = expansion::tlbi(if reach == Reach::Domain { "alle2is" } else { "alle2" }, 0);
        assert!(last_maintenance(&rig, 4).contains(&everything));
        assert_eq!(rig.protect(AT + 65 * PAGE, 33 * PAGE, CONSTANTS), Ok(done(33, 1, 2, 1)));
        assert_eq!(rig.remap(AT + 65 * PAGE, 33 * PAGE, 0, DATA), Ok(done(66, 1, 3, 2)));
    }
}

#[test]
fn good_rights_change_in_place_tightening_and_relaxing() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = mapped(reach, Errata::empty(), 2, DATA);
        for attributes in [CONSTANTS, CODE, CONSTANTS, DATA, CODE, DATA] {
            assert_eq!(rig.protect(AT, 2 * PAGE, attributes), Ok(done(2, 2, 2, 1)));
        }
    }
}

#[test]
fn good_protect_to_what_it_is_costs_nothing() {
    let mut rig = plain(2);
    assert_eq!(rig.protect(AT, 2 * PAGE, DATA), Ok(done(0, 0, 0, 0)));
    let mut rig = mapped(Reach::ThisPe, Errata::BBM_ALWAYS, 2, DATA);
    assert_eq!(rig.protect(AT, 2 * PAGE, DATA), Ok(done(0, 0, 0, 0)));
}

#[test]
fn good_protect_of_which_some_is_so_already_counts_only_the_rest() {
    let mut rig = plain(3);
    rig.protect(AT + PAGE, PAGE, CONSTANTS).unwrap();
    assert_eq!(rig.protect(AT, 3 * PAGE, CONSTANTS), Ok(done(2, 2, 2, 1)));
}

#[test]
fn good_memory_type_changes_by_break_before_make() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = mapped(reach, Errata::empty(), 2, DATA);
        for attributes in [NON_CACHEABLE, DEVICE, DATA] {
            assert_eq!(rig.protect(AT, 2 * PAGE, attributes), Ok(done(4, 2, 3, 2)));
        }
    }
}

#[test]
fn good_blocks_change_rights_and_type_too() {
    let mut rig = Rig::live(Reach::Domain, 16);
    rig.map(request(AT, GIB, 0, DATA, Level::L1)).unwrap();
    rig.map(request(2 * AT, 2 * MIB, GIB, DATA, Level::L1)).unwrap();
    for at in [(AT, GIB), (2 * AT, 2 * MIB)] {
        assert_eq!(rig.protect(at.0, at.1, CONSTANTS), Ok(done(1, 1, 2, 1)));
        assert_eq!(rig.protect(at.0, at.1, DEVICE), Ok(done(2, 1, 3, 2)));
    }
    assert_eq!(rig.leaves(), (1, 1, 0), "leaves keep their size");
}

#[test]
fn good_remap_by_break_before_make() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = mapped(reach, Errata::empty(), 2, DATA);
        assert_eq!(rig.remap(AT, 2 * PAGE, TO + GIB, CONSTANTS), Ok(done(4, 2, 3, 2)));
        assert_eq!(rig.query(AT + PAGE), Some((Level::L3, TO + GIB + PAGE, CONSTANTS)));
    }
}

#[test]
fn good_remap_of_blocks_keeps_their_size() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.map(request(AT - 2 * MIB, 2 * MIB + GIB, AT - 2 * MIB, DATA, Level::L1)).unwrap();
    assert_eq!(rig.remap(AT - 2 * MIB, 2 * MIB + GIB, 7 * GIB - 2 * MIB, DATA), Ok(done(4, 2, 3, 2)));
    assert_eq!(rig.leaves(), (1, 1, 0));
}

#[test]
fn good_remap_to_the_same_is_no_break() {
    let mut rig = plain(2);
    let nothing = rig.remap(AT, 2 * PAGE, TO, DATA).unwrap();
    assert_eq!(nothing, done(0, 0, 0, 0));
    assert_eq!(rig.remap(AT, 2 * PAGE, TO, CONSTANTS), Ok(done(2, 2, 2, 1)), "only rights differ: in place");
}

#[test]
fn good_repeated_tlbi_where_an_erratum_asks_and_only_by_broadcast() {
    let mut rig = mapped(Reach::Domain, Errata::REPEAT_TLBI, 80, DATA);
    assert_eq!(rig.unmap(AT, 2 * PAGE), Ok(done(4, 3, 3, 1)));
    let tlbi = |virt: u64| expansion::tlbi("vale2is", virt >> 12);
    let tail = [DSB_ISH, tlbi(AT + PAGE), DSB_ISH, Event::Isb];
    assert_eq!(last_maintenance(&rig, 4), tail);
    assert_eq!(rig.unmap(AT + 2 * PAGE, 40 * PAGE), Ok(done(80, 2, 3, 1)), "everything, twice");
    assert_eq!(rig.protect(AT + 42 * PAGE, PAGE, CONSTANTS), Ok(done(1, 2, 3, 1)));
    assert_eq!(rig.remap(AT + 43 * PAGE, PAGE, 0, CONSTANTS), Ok(done(2, 2, 4, 2)));
    let mut alone = mapped(Reach::ThisPe, Errata::REPEAT_TLBI, 3, DATA);
    assert_eq!(alone.unmap(AT, 2 * PAGE), Ok(done(4, 2, 2, 1)), "no broadcast, no repetition");
}

#[test]
fn good_errata_that_ask_for_a_break_get_one() {
    let mut always = mapped(Reach::Domain, Errata::BBM_ALWAYS, 1, DATA);
    assert_eq!(always.protect(AT, PAGE, CONSTANTS), Ok(done(2, 1, 3, 2)));
    let mut on_loss = mapped(Reach::Domain, Errata::BBM_FOR_XN, 1, CODE);
    assert_eq!(on_loss.protect(AT, PAGE, CONSTANTS), Ok(done(2, 1, 3, 2)), "loses execution");
    assert_eq!(on_loss.protect(AT, PAGE, DATA), Ok(done(1, 1, 2, 1)), "does not");
    assert_eq!(on_loss.protect(AT, PAGE, CODE), Ok(done(1, 1, 2, 1)), "gains it");
}

#[test]
fn good_errata_of_a_pe_that_joins_later_count() {
    let features = [Feature::RepeatTlbi, Feature::BbmAlways].map(|feature| (Some(1), feature));
    let world: World = World::with_features(features.into_iter());
    let mut rig = Rig::offline_on(world, Errata::empty(), 16).switch();
    rig.map(request(AT, PAGE, TO, DATA, Level::L3)).unwrap();
    rig.protocol.share(Errata::REPEAT_TLBI | Errata::BBM_ALWAYS);
    rig.world_mut().start_pe(1);
    assert_eq!(rig.protect(AT, PAGE, CONSTANTS), Ok(done(2, 2, 4, 2)));
}

#[test]
fn good_tables_that_become_empty_are_freed() {
    for reach in [Reach::ThisPe, Reach::Domain] {
        let mut rig = mapped(reach, Errata::empty(), 1, DATA);
        let free = rig.frames.available();
        let freed = Cost { stores: 2, frames: 0, freed: 3, tlbis: 1, dsbs: 2, isbs: 1 };
        assert_eq!(rig.unmap(AT, PAGE), Ok(freed), "the highest table that becomes empty is broken, once");
        let walk = expansion::tlbi(if reach == Reach::Domain { "vae2is" } else { "vae2" }, AT >> 12);
        assert!(last_maintenance(&rig, 4).contains(&walk), "every level of the walk (RVMSWQ)");
        assert_eq!(rig.frames.available(), free + 3);
        let taken = rig.frames.taken();
        let again = rig.map(request(AT, PAGE, TO, DATA, Level::L3)).unwrap();
        assert_eq!((again.frames, rig.frames.taken()), (3, taken), "former tables are tables again");
    }
}

#[test]
fn good_tables_that_were_asked_for_stay_when_they_become_empty() {
    let mut rig = Rig::live(Reach::ThisPe, 16);
    rig.populate(AT, 2 * MIB, Level::L3).unwrap();
    rig.map(request(AT, PAGE, TO, DATA, Level::L3)).unwrap();
    assert_eq!(rig.unmap(AT, PAGE), Ok(done(2, 1, 2, 1)));
    assert_eq!(rig.map(request(AT, PAGE, TO, DATA, Level::L3)), Ok(done(1, 0, 1, 1)), "one fill, no new table");
}

#[test]
fn good_a_break_for_some_leaves_spares_those_that_are_so_already() {
    let mut rig = mapped(Reach::Domain, Errata::BBM_ALWAYS, 3, DATA);
    rig.protect(AT + PAGE, PAGE, CONSTANTS).unwrap();
    assert_eq!(rig.protect(AT, 3 * PAGE, CONSTANTS), Ok(done(4, 2, 3, 2)), "two of three are broken and made");
    assert_eq!(rig.remap(AT, 3 * PAGE, TO, CONSTANTS), Ok(done(0, 0, 0, 0)));
}
