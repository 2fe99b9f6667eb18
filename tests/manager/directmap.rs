//! The directmap: all RAM that may be mapped, nothing else, by the fewest leaves that the granule and alignment allow. The link-time pool is
//! enough for its tables, whatever the machine: the stated worst case is reached, and never passed.

use super::booted::{Booted, FIRST_TABLES, IMAGE_PAGES, Setup};
use super::raw;
use super::rig::{GIB, MIB, PAGE, phys};
use breakwater::addr::PhysSpan;
use breakwater::layout::{DIRECTMAP, POOL_FRAMES, POOL_FRAMES_WORST_CASE};
use breakwater::mapper::Error;
use breakwater::memory_map::KnownRam;
use breakwater::regions::{Failure, frametable};

/// The fewest leaves for a span whose addresses agree modulo 1 GiB: every whole GiB is one, what is left of whole 2 MiB is one each, the
/// rest are pages.
fn fewest(span: PhysSpan) -> u64 {
    let whole = |bytes: u64| {
        let (first, last) = (span.start().raw().div_ceil(bytes), span.end_exclusive().raw() / bytes);
        last.saturating_sub(first)
    };
    let (giants, blocks, pages) = (whole(GIB), whole(2 * MIB), whole(PAGE));
    giants + (blocks - giants * 512) + (pages - blocks * 512)
}

/// Boots, and holds the directmap against the description of the machine, before and after init is freed.
fn assert_directmap(setup: &Setup) -> (usize, usize, usize) {
    let mut booted = Booted::switched(setup).unwrap();
    booted.map_fixed().unwrap();
    booted.map_memory().unwrap();
    let leaves = compare(&booted, 0);
    booted.free().unwrap();
    compare(&booted, 20);
    let audit = booted.audit();
    assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
    leaves
}

fn compare(booted: &Booted, freed: u64) -> (usize, usize, usize) {
    let (root, offset) = (booted.root(), DIRECTMAP.start().raw() - booted.base.raw());
    let mapped: Vec<PhysSpan> = raw::extents(booted.world(), root)
        .range(DIRECTMAP.start().raw()..)
        .map(|(&virt, extent)| {
            assert_eq!(virt, extent.output + offset, "at a constant distance");
            phys(extent.output, extent.bytes)
        })
        .collect();
    let mut expected = booted.expected_directmap(freed);
    expected.sort_by_key(|span| span.start());
    assert_eq!(mapped, expected);
    let leaves = raw::leaves(booted.world(), root);
    let of = |level| leaves.iter().filter(|leaf| leaf.virt >= DIRECTMAP.start().raw() && leaf.level == level).count();
    let counts = (of(1), of(2), of(3));
    if freed == 0 {
        expected.iter().for_each(|&span| assert_runs(&leaves, span, offset));
    }
    if freed == 0 {
        let fewest: u64 = expected.iter().map(|&span| fewest(span)).sum();
        assert_eq!((counts.0 + counts.1 + counts.2) as u64, fewest, "no more leaves than needed");
    }
    counts
}

/// Of the leaves that map `span`, those are of contiguous runs that can be, and no others: sixteen side by side, aligned to all of them in
/// both addresses.
fn assert_runs(leaves: &[raw::Leaf], span: PhysSpan, offset: u64) {
    let virt = span.start().raw() + offset..span.end_exclusive().raw() + offset;
    for leaf in leaves.iter().filter(|leaf| virt.contains(&leaf.virt)) {
        let run_bytes = 16 * super::bits::slot_bytes(leaf.level);
        let start = leaf.virt / run_bytes * run_bytes;
        let can_be = offset.is_multiple_of(run_bytes) && virt.start <= start && start + run_bytes <= virt.end;
        assert_eq!(leaf.descriptor >> 52 & 1 == 1, can_be, "{leaf:x?} of {span}");
    }
}

#[test]
fn good_two_gib_of_virt() {
    let setup = Setup::new(&[phys(GIB, 2 * GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    let pages = 512 - IMAGE_PAGES as usize;
    assert_eq!(assert_directmap(&setup), (1, 511, pages), "one GiB, 511 blocks, and what is beside the image");
}

#[test]
fn good_runs_of_sixteen_gib() {
    let setup = Setup::new(&[phys(GIB, 40 * GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    let mut booted = Booted::switched(&setup).unwrap();
    assert_eq!(booted.base.raw(), 0, "RAM keeps its place within 16 GiB");
    booted.map_fixed().unwrap();
    let (directmap, memory, image) = (booted.directmap, setup.memory.clone(), booted.image);
    directmap.map(&mut booted.space(), KnownRam::simulated(&memory, image)).unwrap();
    booted.settled("directmap");
    compare(&booted, 0);
    let leaves = raw::leaves(booted.world(), booted.root());
    let in_runs = |level| leaves.iter().filter(|leaf| leaf.level == level && leaf.descriptor >> 52 & 1 == 1).count();
    assert_eq!(
        (in_runs(1), in_runs(2)),
        (16, 512 - 16),
        "16 to 32 GiB, and all of the first GiB after the image's 32 MiB"
    );
}

#[test]
fn good_image_that_straddles_two_mib_and_one_gib() {
    for at in [GIB + 2 * MIB - 3 * PAGE, 2 * GIB - 40 * PAGE, 2 * GIB - PAGE, 3 * GIB - IMAGE_PAGES * PAGE, GIB] {
        assert_directmap(&Setup::new(&[phys(GIB, 2 * GIB)], at, phys(GIB + 128 * MIB, MIB)));
    }
}

#[test]
fn good_several_banks_unsorted_with_odd_edges() {
    let banks = [
        phys(64 * GIB + 0x800, 3 * GIB + 0x1234),
        phys(GIB, 256 * MIB),
        phys(10 * GIB + 5 * PAGE, 4 * MIB),
        phys(20 * GIB, 0x800),
        phys(600 * GIB, GIB),
    ];
    assert_directmap(&Setup::new(&banks, GIB + 0x8_1000, phys(64 * GIB + 5 * MIB, 0x4000)));
}

#[test]
fn good_no_map_left_out_whole_pages_of_it() {
    let mut setup = Setup::new(&[phys(GIB, 4 * GIB)], 4 * GIB, phys(GIB + 8 * MIB, MIB));
    for (start, bytes) in
        [(0, 1), (GIB - 1, 2), (2 * GIB + 0x800, 2 * MIB), (3 * GIB + 512 * MIB, 4 * MIB), (4 * GIB - PAGE, PAGE)]
    {
        setup.memory.add_no_map(phys(GIB + start, bytes)).unwrap();
    }
    assert_directmap(&setup);
}

#[test]
fn good_no_map_up_to_the_image() {
    let mut setup = Setup::new(&[phys(GIB, GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    setup.memory.add_no_map(phys(GIB, 2 * MIB)).unwrap();
    setup.memory.add_no_map(phys(GIB + 2 * MIB + IMAGE_PAGES * PAGE, PAGE)).unwrap();
    assert_directmap(&setup);
}

#[test]
fn good_image_in_the_smaller_bank() {
    let banks = [phys(0, 64 * MIB), phys(0x100_0000_0000, GIB)];
    assert_directmap(&Setup::new(&banks, 32 * MIB, phys(MIB, 0x2000)));
}

#[test]
fn good_memory_of_256_mib() {
    let setup = Setup::new(&[phys(GIB, 256 * MIB)], GIB + 0x1000, phys(GIB + 240 * MIB, MIB));
    let (giants, ..) = assert_directmap(&setup);
    assert_eq!(giants, 0);
}

#[test]
fn good_frames_in_use_are_mapped_but_not_handed_out() {
    let mut setup = Setup::new(&[phys(GIB, GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    setup.memory.add_reserved(phys(GIB + 256 * MIB + 1, 1)).unwrap();
    let mut booted = Booted::switched(&setup).unwrap();
    booted.map_fixed().unwrap();
    let (directmap, memory, image) = (booted.directmap, setup.memory.clone(), booted.image);
    directmap.map(&mut booted.space(), KnownRam::simulated(&memory, image)).unwrap();
    booted.settled("directmap");
    let in_use = [phys(GIB + 128 * MIB, MIB), phys(GIB + 256 * MIB, PAGE), image];
    let free: Vec<PhysSpan> = booted.bringup.frames().ram().collect();
    let expected = in_use.iter().fold(vec![phys(GIB, GIB)], |spans, &hole| super::booted::without(&spans, hole));
    assert_eq!(free, expected);
    compare(&booted, 0);
}

#[test]
fn good_span_with_most_free_memory_comes_first() {
    // Forty banks of one page want two tables each and bring one frame each: more than the pool can lend.
    let image = GIB;
    let tree = phys(image + IMAGE_PAGES * PAGE, PAGE);
    let first = phys(image, (IMAGE_PAGES + 1) * PAGE);
    let tiny = (0..40).map(|index| phys((8 + index) * GIB + 64 * MIB, PAGE));
    let banks: Vec<PhysSpan> = [first].into_iter().chain(tiny).chain([phys(100 * GIB, 256 * MIB)]).collect();
    assert_directmap(&Setup::new(&banks, image, tree));
}

const TIB: u64 = 1 << 40;

/// As many leaves as there are GiB, and a frametable of 16 GiB, of whose zeroing each 512th frame is told.
#[test]
fn good_four_tib_are_mapped_and_described() {
    let bank = phys(GIB, 4 * TIB);
    let setup = Setup::new(&[bank], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    let frames = bank.bytes() / PAGE;
    let with_directmap = || {
        let mut booted = Booted::switched(&setup).unwrap();
        booted.map_fixed().unwrap();
        let (ram, directmap) = (KnownRam::simulated(&setup.memory, setup.image_span()), booted.directmap);
        directmap.map(&mut booted.space(), ram).unwrap();
        booted.settled("directmap");
        booted
    };
    // Where the frametable comes to lie is seen on a machine like this one.
    let piece = with_directmap().bringup.frames_mut().take_ram(16 * frames, 32 * MIB).unwrap().span();
    let mut booted = with_directmap();
    booted.world_mut().vast = Some(piece);
    let before = booted.world().judged.zeroing;
    let base = booted.base;
    frametable::map(&mut booted.space(), &setup.memory, base).unwrap();
    booted.settled("frametable");
    let tables = 1 + 16; // of level 1, and of level 2
    assert_eq!(booted.world().judged.zeroing - before, (16 * frames / PAGE + tables) * (PAGE / 16));
    let (giants, blocks, _) = compare(&booted, 0);
    assert_eq!((giants, blocks), (4095, 511), "the image takes one GiB apart");
    booted.free().unwrap();
    compare(&booted, 20);
    let audit = booted.audit();
    assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
    assert!(audit.pages >= frames - IMAGE_PAGES + 16 * frames / PAGE);
    assert!(booted.world().memory.len() < 20_000, "zeros and the rest of memory keep no frame");
}

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
