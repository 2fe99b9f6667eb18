//! Every request on everything that a slot may hold, by every span that may cover it, on CPUs of every kind: judged at each step, its cost
//! exact, its result compared page by page with what was asked for.
//!
//! The product of requests, states and coverages is complete. Of the CPUs, each of these gets a few at random (the same in each run), so that every value of
//! every dimension meets every value of every other, which the test counts.

mod claims;
mod states;

use super::bench::{Ask, Bench, CODE, CONSTANTS, Cpus, DATA, DEVICE, NON_CACHEABLE, virt};
use super::judged::Judged;
use breakwater::addr::{Level, PhysAddr};
use breakwater::bbm::Live;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::geometry::{Geometry, Granule4K, Granule4KLpa2, Granule16K, Granule16KLpa2, Granule64K, Granule64KLva};
use breakwater::mapper::{Cost, Error, Request};
use breakwater_trace::Event;
use claims::Before;
use states::{Holds, State, high, neighbours, states};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic;
use std::sync::Once;

/// More frames than most requests here need; the others are refused for want of them.
const FRAMES: u64 = 128;

const FEATURES: [Features; 6] = [
    Features::empty(),
    Features::TTL,
    Features::TLBIRANGE,
    Features::TTL.union(Features::TLBIRANGE),
    Features::RESIZE,
    Features::RESIZE.union(Features::TTL).union(Features::TLBIRANGE),
];
const ERRATA: [Errata; 4] = [Errata::empty(), Errata::REPEAT_TLBI, Errata::BBM_ALWAYS, Errata::BBM_FOR_XN];

fn cpus() -> Vec<Cpus> {
    let with =
        |features| ERRATA.into_iter().flat_map(move |errata| [false, true].map(|two| Cpus { features, errata, two }));
    FEATURES.into_iter().flat_map(with).collect()
}

/// The requests, for `bytes` from `start` on in objects that begin at `base`.
fn requests<G: Geometry>(base: u64, start: u64, bytes: u64) -> Vec<(&'static str, Ask)> {
    let (span, ahead) = (virt(start, bytes), start - base);
    let (same, far) = (State::output::<G>() + ahead, high::<G>() + (1 << 45) + ahead);
    let map = |largest| Request::new(span, PhysAddr::at(far), DATA, largest);
    vec![
        ("map by pages", Ask::Map(map(Level::L3))),
        ("map by blocks", Ask::Map(map(G::LARGEST))),
        ("map by runs", Ask::Map(map(G::LARGEST).with_contiguous())),
        ("populate level 2", Ask::Populate(span, Level::L2)),
        ("populate level 3", Ask::Populate(span, Level::L3)),
        ("unmap", Ask::Unmap(span)),
        ("clear", Ask::Clear(span)),
        ("protect as it is", Ask::Protect(span, DATA)),
        ("protect as constants", Ask::Protect(span, CONSTANTS)),
        ("protect as code", Ask::Protect(span, CODE)),
        ("protect as device", Ask::Protect(span, DEVICE)),
        ("protect as non-cacheable", Ask::Protect(span, NON_CACHEABLE)),
        ("remap in place", Ask::Remap(span, same, DATA)),
        ("remap in place as constants", Ask::Remap(span, same, CONSTANTS)),
        ("remap far away", Ask::Remap(span, far, DATA)),
        ("remap far away as code", Ask::Remap(span, far, CODE)),
        ("remap off by a page", Ask::Remap(span, far + G::PAGE_BYTES, DATA)),
        ("remap off by a block", Ask::Remap(span, far + G::slot_bytes(Level::L2), CONSTANTS)),
        ("split to level 1", Ask::Split(span, Level::L1)),
        ("split to level 2", Ask::Split(span, Level::L2)),
        ("split to pages", Ask::Split(span, Level::L3)),
        ("merge to level 2", Ask::Merge(span, Level::L2, false)),
        ("merge to runs of level 2", Ask::Merge(span, Level::L2, true)),
        ("merge to the largest", Ask::Merge(span, G::LARGEST, true)),
        ("merge to runs of pages", Ask::Merge(span, Level::L3, true)),
    ]
}

/// A beginning that was judged once, to be made again as often as needed.
struct Beginning<G> {
    state: State,
    cpus: Cpus,
    judged: Judged<G>,
}

impl<G: Geometry> Beginning<G> {
    fn of(state: State, cpus: Cpus) -> Self {
        let mut bench = state.made::<G>(Judged::new(cpus.features, cpus.errata), cpus, FRAMES);
        bench.machine().verdict().unwrap_or_else(|complaint| panic!("{state:?} on {cpus:?}: {complaint}"));
        bench.protocol.machine_mut().forget();
        Self { state, cpus, judged: bench.machine().clone() }
    }

    fn again(&self) -> Bench<G, Live> {
        let mut bench = self.state.made::<G>(Judged::mute(), self.cpus, FRAMES);
        *bench.protocol.machine_mut() = self.judged.clone();
        bench
    }
}

/// Counts, and which values met.
#[derive(Default)]
struct Tally {
    cases: u64,
    granted: u64,
    steps: u64,
    pairs: BTreeSet<[(usize, String); 2]>,
    complaints: Vec<String>,
}

impl Tally {
    fn meet(&mut self, values: [String; 6]) {
        for (one, first) in values.iter().enumerate() {
            for (two, second) in values.iter().enumerate().skip(one + 1) {
                self.pairs.insert([(one, first.clone()), (two, second.clone())]);
            }
        }
    }
}

/// How much of the product is explored.
struct Extent {
    kinds: Vec<Cpus>,
    /// Kinds of CPUs for each request, state and coverage.
    rounds: usize,
    /// One in so many requests, states and coverages.
    thin: usize,
}

/// Makes every request on every one of `states`.
fn explore<G: Geometry>(name: &str, states: &[State], extent: &Extent) -> Tally {
    name_panics();
    let Extent { kinds, rounds, thin } = extent;
    let (mut tally, mut dice) = (Tally::default(), 1_u64);
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1); // the same ones in each run
        (dice >> 33) as usize % sides
    };
    for &state in states {
        let mut beginnings: Vec<Option<Beginning<G>>> = kinds.iter().map(|_| None).collect();
        for (coverage, start, bytes) in state.coverages::<G>() {
            for (request, ask) in requests::<G>(state.base::<G>(), start, bytes) {
                for _ in 0..if roll(*thin) == 0 { *rounds } else { 0 } {
                    let kind = roll(kinds.len());
                    let cpus = kinds[kind];
                    let beginning = beginnings[kind].get_or_insert_with(|| Beginning::of(state, cpus));
                    let name = format!("{request}, {coverage} of {state:?} on {cpus:?}: {ask:x?}");
                    AT_WORK.with_borrow_mut(|at_work| at_work.clone_from(&name));
                    if let Err(complaint) = one(beginning, &ask, &mut tally) {
                        tally.complaints.push(format!("{name}: {complaint}"));
                    }
                    let Cpus { features, errata, two } = cpus;
                    let (features, errata) = (format!("{features}"), format!("{errata:?}"));
                    tally.meet([
                        request.into(),
                        coverage.into(),
                        format!("{state:?}"),
                        features,
                        errata,
                        two.to_string(),
                    ]);
                }
            }
        }
    }
    tally.report(name);
    tally
}

impl Tally {
    /// Prints the counts; there is no complaint.
    fn report(&self, name: &str) {
        let Tally { cases, granted, steps, pairs, complaints } = self;
        println!(
            "{name}: {cases} requests, {granted} granted, {steps} steps judged, {} pairs of values met",
            pairs.len()
        );
        let first = complaints[..complaints.len().min(12)].join("\n");
        assert!(complaints.is_empty(), "{} complaints; the first:\n{first}", complaints.len());
    }

    /// Every value of every dimension met every value of every other, where they exist together.
    fn assert_all_met<G: Geometry>(&self, states: &[State]) {
        let coverages = |state: &State| state.coverages::<G>().len();
        let most = states.iter().map(coverages).max().unwrap_or(0);
        let (requests, features, errata) = (requests::<G>(0, 0, G::PAGE_BYTES).len(), FEATURES.len(), ERRATA.len());
        let among_cpus = features * errata + 2 * features + 2 * errata;
        let with_cpus = (requests + most + states.len()) * (features + errata + 2);
        let complete = requests * (most + states.len()) + states.iter().map(coverages).sum::<usize>();
        assert_eq!(self.pairs.len(), among_cpus + with_cpus + complete);
    }
}

thread_local! {
    /// What is at work, for whoever reads of a panic: one in a commit drops debts on its way out, and ends the process.
    static AT_WORK: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Names the request of a panic.
fn name_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            AT_WORK.with_borrow(|name| eprintln!("{name}"));
            previous(info);
        }));
    });
}

fn one<G: Geometry>(beginning: &Beginning<G>, ask: &Ask, tally: &mut Tally) -> Result<(), String> {
    let mut bench = beginning.again();
    let before = Before::of(&bench);
    let steps = bench.machine().counted.steps;
    let answer = bench.ask(*ask)?;
    tally.cases += 1;
    tally.granted += u64::from(answer.is_ok());
    tally.steps += bench.machine().counted.steps - steps;
    before.check(&bench, ask, answer)?;
    if matches!(ask, Ask::Unmap(_) | Ask::Clear(_) | Ask::Protect(..) | Ask::Remap(..)) {
        let mut brief = beginning.again();
        let answered = brief.ask_at_once(*ask)?;
        if answered != answer || brief.machine().memory() != bench.machine().memory() {
            return Err(format!("{answered:x?} without a plan is not {answer:x?} with one, or memory differs"));
        }
    }
    Ok(())
}

/// All of the product, on `rounds` kinds of CPUs out of all that go round.
fn explore_all(name: &str, level: Level, rounds: usize) {
    let all = Extent { kinds: cpus(), rounds, thin: 1 };
    let states = states::<Granule4K>(level);
    explore::<Granule4K>(name, &states, &all).assert_all_met::<Granule4K>(&states);
}

/// Requests on every two things side by side, with a leaf as a third, one in `thin`.
fn explore_neighbours(name: &str, level: Level, thin: usize) {
    explore::<Granule4K>(name, &neighbours::<Granule4K>(level), &Extent { kinds: cpus(), rounds: 1, thin });
}

#[test]
fn good_requests_on_neighbours_of_every_two_kinds_at_level_3() {
    explore_neighbours("4 KiB, neighbours at level 3", Level::L3, 1);
}

#[test]
fn good_requests_on_neighbours_of_every_two_kinds_at_level_2() {
    explore_neighbours("4 KiB, neighbours at level 2", Level::L2, 2);
}

#[test]
fn good_requests_on_neighbours_of_every_two_kinds_at_level_1() {
    explore_neighbours("4 KiB, neighbours at level 1", Level::L1, 4);
}

#[test]
fn good_every_request_on_pages() {
    explore_all("4 KiB, level 3", Level::L3, 4);
}

#[test]
fn good_every_request_at_level_2() {
    explore_all("4 KiB, level 2", Level::L2, 2);
}

#[test]
fn good_every_request_at_level_1() {
    explore_all("4 KiB, level 1", Level::L1, 2);
}

/// A part of the product, on five kinds of CPUs: of each feature and erratum one at least.
fn explore_some<G: Geometry>(name: &str, thin: usize) {
    let levels: Vec<Level> = [Level::L0, Level::L1, Level::L2, Level::L3]
        .into_iter()
        .filter(|&level| level >= G::LARGEST.min(Level::L1))
        .collect();
    let kinds = [(0, 0, false), (1, 1, true), (3, 2, true), (4, 0, true), (5, 3, false)];
    let kinds = kinds.map(|(features, errata, two)| Cpus { features: FEATURES[features], errata: ERRATA[errata], two });
    let states: Vec<State> = levels.into_iter().flat_map(states::<G>).collect();
    explore::<G>(name, &states, &Extent { kinds: kinds.to_vec(), rounds: 1, thin });
}

#[test]
fn good_requests_in_the_16_kib_granule() {
    explore_some::<Granule16K>("16 KiB", 7);
}

#[test]
fn good_requests_in_the_64_kib_granule() {
    explore_some::<Granule64K>("64 KiB", 19);
}

#[test]
fn good_requests_with_52_bits_in_the_4_kib_granule() {
    explore_some::<Granule4KLpa2>("4 KiB, 52 bits", 5);
}

#[test]
fn good_requests_with_52_bits_in_the_16_kib_granule() {
    explore_some::<Granule16KLpa2>("16 KiB, 52 bits", 13);
}

#[test]
fn good_requests_with_52_bits_in_the_64_kib_granule() {
    explore_some::<Granule64KLva>("64 KiB, 52 bits", 29);
}

/// What a request that was granted is judged to be when the steps that `forgets` names never happen.
fn judged_without(state: State, ask: Ask, forgets: fn(&Event) -> bool) -> Result<Result<Cost, Error>, String> {
    let mut bench = Beginning::<Granule4K>::of(state, Cpus { two: true, ..Cpus::PLAIN }).again();
    bench.protocol.machine_mut().forgets = Some(forgets);
    bench.ask(ask)
}

#[test]
fn bad_requests_without_their_tlbis_or_barriers() {
    let (mut forgotten, mut noticed) = (0, 0);
    for state in [Level::L2, Level::L3].into_iter().flat_map(states::<Granule4K>).filter(|state| !state.at_edge) {
        for (coverage, start, bytes) in state.coverages::<Granule4K>().into_iter().step_by(3) {
            for (request, ask) in requests::<Granule4K>(state.base::<Granule4K>(), start, bytes) {
                let owes = |cost: Cost| cost.tlbis > 0;
                if !judged_without(state, ask, |_| false).is_ok_and(|answer| answer.is_ok_and(owes)) {
                    continue;
                }
                let steps: [fn(&Event) -> bool; 2] =
                    [|event| matches!(event, Event::Maintain { .. }), |event| matches!(event, Event::Dsb(_))];
                for forgets in steps {
                    forgotten += 1;
                    noticed += u32::from(judged_without(state, ask, forgets).is_err());
                }
                assert_eq!(noticed, forgotten, "{request}, {coverage} of {state:?} goes unpunished");
            }
        }
    }
    println!("{forgotten} requests without TLBI, or without DSB, all noticed");
    assert!(forgotten > 500, "{forgotten}");
}

#[test]
fn bad_tables_that_are_not_what_was_asked_for() {
    let state = State::of(Level::L2, Holds::Uniform);
    let base = state.base::<Granule4K>();
    let (asked, done) = (virt(base, 4096), [virt(base, 8192), virt(base + 4096, 4096)]);
    for done in done {
        let mut bench = Beginning::<Granule4K>::of(state, Cpus::PLAIN).again();
        let before = Before::of(&bench);
        let answer = bench.ask(Ask::Unmap(done)).expect("no complaint of the judge");
        let complaint = before.check(&bench, &Ask::Unmap(asked), answer).expect_err("another page is gone");
        assert!(complaint.starts_with("the tables map"), "{complaint}");
        before.check(&bench, &Ask::Unmap(done), answer).expect("this is what was asked for");
    }
}
