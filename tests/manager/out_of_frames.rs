//! A request that needs frames has all of them before its first store, or is refused as if it had never been made: with any number too few,
//! wherever the frames come from; and none is lost on the way.

use super::bench::{Ask, Bench, CODE, CONSTANTS, Cpus, DATA, virt};
use breakwater::addr::{Level, PhysAddr};
use breakwater::bbm::Live;
use breakwater::features::Features;
use breakwater::geometry::Granule4K;
use breakwater::mapper::{Error, Request};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
pub(super) const AT: u64 = 512 * GIB;
const OUT: u64 = 1 << 44;
pub(super) const FRAMES: u64 = 256;

type Desk = Bench<Granule4K, Live>;

/// Where the frames of a request come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Pool,
    FormerTables,
    /// Former tables first, then the pool.
    Both,
}

/// A request, what it finds, and how many frames it needs.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) furniture: Vec<Request>,
    pub(super) ask: Ask,
    pub(super) frames: u64,
}

pub(super) fn request(start: u64, bytes: u64, largest: Level) -> Request {
    Request::new(virt(start, bytes), PhysAddr::at(OUT + start), DATA, largest)
}

pub(super) fn fills() -> Vec<Case> {
    let case = |name, furniture, ask, frames| Case { name, furniture, ask, frames };
    let map = |start, bytes, largest| Ask::Map(request(start, bytes, largest));
    let beside = vec![request(AT + 3 * PAGE, PAGE, Level::L3)];
    vec![
        case("a page", vec![], map(AT, PAGE, Level::L3), 3),
        case("a page in a table that exists", beside.clone(), map(AT, PAGE, Level::L3), 0),
        case("pages around a boundary of level 3", beside, map(AT + 2 * MIB - PAGE, 2 * PAGE, Level::L3), 1),
        case("pages around a boundary of level 0", vec![], map(AT - PAGE, 2 * PAGE, Level::L3), 6),
        case("blocks with pages at both ends", vec![], map(AT + 2 * MIB - PAGE, 4 * MIB + 2 * PAGE, Level::L1), 4),
        case("a block of 1 GiB", vec![], map(AT, GIB, Level::L1), 1),
        case("a run of pages", vec![], Ask::Map(request(AT, 16 * PAGE, Level::L3).with_contiguous()), 3),
        case("tables of level 2", vec![], Ask::Populate(virt(AT - PAGE, 2 * PAGE), Level::L2), 4),
        case("tables of level 3", vec![], Ask::Populate(virt(AT, 8 * MIB), Level::L3), 6),
    ]
}

pub(super) fn changes() -> Vec<Case> {
    let case = |name, furniture, ask, frames| Case { name, furniture, ask, frames };
    let small = || vec![request(AT, 4 * MIB, Level::L2)];
    let large = || vec![request(AT, 2 * GIB, Level::L1)];
    let runs = || vec![request(AT, 32 * MIB, Level::L2).with_contiguous()];
    let page = virt(AT + 5 * PAGE, PAGE);
    let across = virt(AT + 2 * MIB - PAGE, 2 * PAGE);
    vec![
        case("unmap of a page of a block", small(), Ask::Unmap(page), 1),
        case("unmap of a page of 1 GiB", large(), Ask::Unmap(page), 2),
        case("unmap across two blocks", small(), Ask::Unmap(across), 2),
        case("unmap across two of 1 GiB", large(), Ask::Unmap(virt(AT + GIB - PAGE, 2 * PAGE)), 4),
        case("protect of a page of a block", small(), Ask::Protect(page, CONSTANTS), 1),
        case("protect across two blocks", small(), Ask::Protect(across, CODE), 2),
        case("protect of 1 GiB but for its ends", large(), Ask::Protect(virt(AT + PAGE, GIB - 2 * PAGE), CODE), 3),
        case("protect of a page of a run of blocks", runs(), Ask::Protect(page, CONSTANTS), 1),
        case("remap of a block off by a page", small(), Ask::Remap(virt(AT, 4 * MIB), OUT + PAGE, DATA), 2),
        case("remap of 1 GiB off by a block", large(), Ask::Remap(virt(AT, GIB), OUT + 2 * MIB, DATA), 1),
        case("remap of a page of 1 GiB", large(), Ask::Remap(page, OUT, DATA), 2),
        case("split of two blocks", small(), Ask::Split(virt(AT, 4 * MIB), Level::L3), 2),
        case("split of 2 GiB", large(), Ask::Split(virt(AT, 2 * GIB), Level::L2), 2),
        case("split of a run of blocks", runs(), Ask::Split(virt(AT, 32 * MIB), Level::L3), 16),
        case("merge", vec![request(AT, 2 * MIB, Level::L3)], Ask::Merge(virt(AT, 2 * MIB), Level::L2, true), 0),
    ]
}

impl Case {
    /// Its tables, with `left` frames of `source` left.
    fn made(&self, cpus: Cpus, source: Source, left: u64) -> Desk {
        let mut bench = Desk::live(cpus, FRAMES, &self.furniture);
        if source != Source::Pool {
            // Sixteen tables of level 3, and two above them, that come and go.
            let elsewhere = 8 * AT;
            bench.granted(Ask::Map(request(elsewhere, 32 * MIB, Level::L3)));
            assert_eq!(bench.granted(Ask::Unmap(virt(elsewhere, 32 * MIB))).freed, 18);
        }
        let kept_in_pool = match source {
            Source::Pool => left,
            Source::FormerTables => 0,
            Source::Both => left / 2,
        };
        while bench.frames.available() > if source == Source::Pool { left } else { 18 + kept_in_pool } {
            let _kept = bench.frames.take().expect("a frame of the pool");
        }
        // Former tables are what a mapper takes first.
        while bench.frames.available() > left {
            let _kept = bench.mapper().take().expect("a former table");
        }
        bench
    }

    fn check(&self, cpus: Cpus, source: Source) {
        let Self { name, ask, frames, .. } = self;
        for left in 0..*frames {
            let mut bench = self.made(cpus, source, left);
            let error = bench.refused(*ask);
            assert_eq!(error, Error::OutOfFrames { needed: *frames, available: left }, "{name}, {source:?}");
            assert_eq!(bench.frames.available(), left);
        }
        let mut bench = self.made(cpus, source, *frames);
        let (mapped, all) = (tables(&bench), bench.frames.available());
        let cost = bench.granted(*ask);
        assert_eq!(cost.frames, *frames, "{name}, {source:?}");
        assert_eq!(tables(&bench) + cost.freed, mapped + cost.frames, "{name}: what is taken is linked");
        unmap_everything(&mut bench);
        assert_eq!(tables(&bench) + bench.frames.available(), mapped + all, "{name}, {source:?}: nothing is lost");
    }
}

/// Tables, the root included.
fn tables(bench: &Desk) -> u64 {
    bench.picture().tables.len() as u64
}

/// After that only the root is left, and tables that were asked for.
fn unmap_everything(bench: &mut Desk) {
    while let Some(leaf) = bench.picture().leaves.first().copied() {
        let bytes = 1 << (12 + 9 * (3 - leaf.level));
        bench.granted(Ask::Unmap(virt(leaf.virt, all_from(bench, leaf.virt, bytes))));
    }
    let left = bench.picture().tables;
    assert!(left.iter().all(|table| table.level == 0 || table.kept || table.used > 0), "{left:x?}");
}

/// The bytes from `start` on that are mapped without a hole.
fn all_from(bench: &Desk, start: u64, bytes: u64) -> u64 {
    bench.picture().pages::<Granule4K>().first_hole(start, 4 * GIB).map_or(bytes, |hole| hole - start)
}

fn check_all(cases: &[Case], cpus: Cpus) {
    for case in cases {
        [Source::Pool, Source::FormerTables, Source::Both].into_iter().for_each(|source| case.check(cpus, source));
    }
}

#[test]
fn bad_fills_with_too_few_frames() {
    check_all(&fills(), Cpus::PLAIN);
    check_all(&fills(), Cpus { two: true, ..Cpus::PLAIN });
}

#[test]
fn bad_changes_with_too_few_frames() {
    check_all(&changes(), Cpus::PLAIN);
    check_all(&changes(), Cpus { two: true, features: Features::TLBIRANGE, ..Cpus::PLAIN });
}

#[test]
fn bad_changes_of_size_in_place_with_too_few_frames() {
    check_all(&changes(), Cpus { two: true, features: Features::RESIZE, ..Cpus::PLAIN });
}

/// What one request frees, the next one uses: a supply that has just enough is never worn out.
#[test]
fn good_a_hundred_rounds_with_just_enough_frames() {
    let mut bench = Case { name: "", furniture: vec![], ask: Ask::Unmap(virt(AT, PAGE)), frames: 0 }.made(
        Cpus::PLAIN,
        Source::Pool,
        3,
    );
    for round in 0..100 {
        let at = AT + round * 7 * GIB;
        bench.granted(Ask::Map(request(at, 2 * PAGE, Level::L3)));
        assert!(matches!(bench.refused(Ask::Map(request(at + GIB, PAGE, Level::L3))), Error::OutOfFrames { .. }));
        bench.granted(Ask::Unmap(virt(at, 2 * PAGE)));
        assert_eq!(bench.frames.available(), 3);
    }
}
