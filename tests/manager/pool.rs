//! The link-time pool is enough, whatever the machine: its stated worst case is reached, and never passed.

use super::booted::{Booted, FIRST_TABLES, Setup};
use super::rig::{GIB, MIB, PAGE, phys};
use breakwater::layout::{POOL_FRAMES, POOL_FRAMES_WORST_CASE};
use breakwater::mapper::Error;
use breakwater::memory_map::KnownRam;
use breakwater::regions::Failure;

const TIB: u64 = 1 << 40;

/// Ten level 0 slots of RAM with two ragged ends, the greatest device tree at the worst offset, an identity page with tables of its own.
fn worst() -> Setup {
    let start = GIB + PAGE;
    let bank = phys(start, 5 * TIB - 2 * PAGE);
    let mut setup = Setup::new(&[bank], 4 * GIB + PAGE, phys(5 * TIB - 4 * MIB + PAGE - 8, 2 * MIB));
    // Up to the image, so that what is left is one span with two ragged ends.
    setup.memory.add_no_map(phys(start, 3 * GIB)).unwrap();
    setup
}

/// Boots up to the directmap with a pool of so many frames.
fn bootstrap(mut setup: Setup, pool_frames: u64) -> Result<Booted, Failure> {
    setup.pool_frames = pool_frames;
    let mut booted = Booted::switched(&setup)?;
    booted.map_fixed()?;
    let (directmap, memory, image) = (booted.directmap, setup.memory.clone(), booted.image);
    directmap.map(&mut booted.space(), KnownRam::simulated(&memory, image))?;
    booted.settled("directmap");
    Ok(booted)
}

/// Frames of the first tables, which come back at the root switch.
const RETURNED: u64 = FIRST_TABLES;

#[test]
fn good_pool_is_enough_for_the_worst_machine() {
    let booted = bootstrap(worst(), POOL_FRAMES as u64).unwrap();
    let audit = booted.audit();
    assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
}

#[test]
fn good_stated_worst_case_without_counting_on_returned_frames() {
    const { assert!(POOL_FRAMES >= POOL_FRAMES_WORST_CASE) };
    assert!(bootstrap(worst(), POOL_FRAMES_WORST_CASE as u64).is_ok());
    let least = (8..).find(|&frames| bootstrap(worst(), frames).is_ok()).unwrap();
    assert_eq!(least + RETURNED, POOL_FRAMES_WORST_CASE as u64, "the stated worst case is met, frame by frame");
}

#[test]
fn bad_pool_that_is_too_small_is_refused_by_name() {
    for frames in 8..20 {
        match bootstrap(worst(), frames) {
            Err(Failure::Mapping { error: Error::OutOfFrames { needed, available }, .. }) => {
                assert!(needed > available)
            }
            other => {
                assert!(other.is_ok(), "nothing but frames can run out");
                return;
            }
        }
    }
}

#[test]
fn good_first_span_takes_its_tables_from_the_pool_alone() {
    let booted = bootstrap(worst(), POOL_FRAMES as u64).unwrap();
    assert_eq!(
        booted.bringup.frames().taken(),
        POOL_FRAMES_WORST_CASE as u64,
        "there is one span, and RAM gave nothing"
    );
}
