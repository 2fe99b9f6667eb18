//! Sizes that change in place, on CPUs of each level of FEAT_BBM: where the manager has the evidence that every CPU allows it, so does the
//! architecture (RKFLJB, RPVTFW, RMRRPW); where one CPU does not, the same steps are a fault that the judge names.

use super::rig::{CONSTANTS, DATA, GIB, MIB, PAGE, Rig, request};
use super::world::World;
use breakwater::addr::Level;
use breakwater::bbm::Live;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater_trace::Feature;

const AT: u64 = 4 * GIB;
const TO: u64 = 16 * GIB;

/// What says so below level 1.
const SIZE: &str = "RKFLJB, RPVTFW, RMRRPW";

/// Tables that two CPUs of these levels use, edited as if every CPU allowed changes of size.
fn rig(levels: &[(Option<u32>, u8)]) -> Rig<Live> {
    let features = levels.iter().map(|&(cpu, level)| (cpu, Feature::Bbm(level)));
    let mut rig = Rig::offline_on(World::with_features(features), Errata::empty(), 16).switch();
    rig.protocol.use_features(Features::RESIZE);
    rig.share();
    rig
}

/// What is mapped, and the change of its size: its name, and how many of its stores are no break.
type Change = (&'static str, fn(&mut Rig<Live>) -> u64);

/// Changes between blocks and tables.
const BLOCKS: [Change; 4] = [
    ("a block into pages", |rig| {
        rig.map(request(AT, 2 * MIB, TO, DATA, Level::L2)).unwrap();
        rig.split(AT, 2 * MIB, Level::L3).unwrap().stores
    }),
    ("pages into a block", |rig| {
        rig.map(request(AT, 2 * MIB, TO, DATA, Level::L3)).unwrap();
        rig.merge(AT, 2 * MIB, Level::L2, false).unwrap().stores
    }),
    ("a large block into blocks", |rig| {
        rig.map(request(AT, GIB, TO, CONSTANTS, Level::L1)).unwrap();
        rig.split(AT, GIB, Level::L2).unwrap().stores
    }),
    ("a page out of a block", |rig| {
        rig.map(request(AT, 2 * MIB, TO, DATA, Level::L2)).unwrap();
        rig.unmap(AT + 7 * PAGE, PAGE).unwrap().stores
    }),
];

/// Changes of the contiguous bit.
const RUNS: [Change; 3] = [
    ("pages into a run", |rig| {
        rig.map(request(AT, 16 * PAGE, TO, DATA, Level::L3)).unwrap();
        rig.merge(AT, 16 * PAGE, Level::L3, true).unwrap().stores
    }),
    ("a run into pages", |rig| {
        rig.map(request(AT, 16 * PAGE, TO, DATA, Level::L3).with_contiguous()).unwrap();
        rig.split(AT, 16 * PAGE, Level::L3).unwrap().stores
    }),
    ("a page out of a run", |rig| {
        rig.map(request(AT, 16 * PAGE, TO, DATA, Level::L3).with_contiguous()).unwrap();
        rig.unmap(AT + 7 * PAGE, PAGE).unwrap().stores
    }),
];

/// What the judge says of `change` on CPUs of these levels.
fn verdict(levels: &[(Option<u32>, u8)], (_, change): Change) -> Result<(), String> {
    let mut rig = rig(levels);
    rig.is_quiet = true;
    change(&mut rig);
    rig.verdict()
}

#[test]
fn good_sizes_change_in_place_at_levels_2_and_3() {
    for level in [2, 3] {
        let stores: Vec<u64> =
            BLOCKS.iter().chain(&RUNS).map(|(_, change)| change(&mut rig(&[(None, level)]))).collect();
        // A table and its link; the block; a table and its link; the same, and a page broken and reclaimed in the table before; each bit.
        assert_eq!(stores, [512 + 1, 1, 512 + 1, 511 + 1, 16, 16, 15 + 2], "level {level}");
    }
}

#[test]
fn good_levels_may_differ_between_cpus() {
    for change in BLOCKS.into_iter().chain(RUNS) {
        assert_eq!(verdict(&[(Some(0), 3), (Some(1), 2)], change), Ok(()), "{}", change.0);
    }
}

#[test]
fn bad_sizes_changed_in_place_where_one_cpu_does_not_allow_it() {
    for levels in [&[(None, 0)][..], &[(None, 1)], &[(Some(0), 2), (Some(1), 0)], &[(Some(0), 0), (Some(1), 3)]] {
        for change in BLOCKS {
            let complaint = verdict(levels, change).expect_err(change.0);
            assert!(complaint.contains(SIZE), "{} on {levels:?}: {complaint}", change.0);
        }
    }
}

#[test]
fn bad_the_contiguous_bit_changed_in_place_below_level_1() {
    for levels in [&[(None, 0)][..], &[(Some(0), 2), (Some(1), 0)]] {
        for change in RUNS {
            assert!(verdict(levels, change).is_err(), "{} on {levels:?}", change.0);
        }
    }
}

#[test]
fn good_the_contiguous_bit_changes_in_place_from_level_1_on() {
    for change in RUNS {
        assert_eq!(verdict(&[(None, 1)], change), Ok(()), "{}", change.0);
    }
}
