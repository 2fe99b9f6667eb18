//! Random requests on random layouts, by one to four CPUs that come when they will, judged step by step; and random machines, booted and
//! audited.

use super::booted::{Booted, IMAGE_PAGES, Setup};
use super::raw;
use super::rig::{GIB, MIB, PAGE, Rig, phys};
use super::start::features_of;
use super::step::{DSB_ISH, DSB_ISHST, is_tlbi, stored_word};
use super::wish::{Place, Wish, asked, filled, place, wish};
use super::world::{Forgets, Judged, World};
use breakwater::addr::PhysSpan;
use breakwater::bbm::{Live, Offline, Reach};
use breakwater::errata::Errata;
use breakwater_model::obligations::Obligations;
use breakwater_trace::{Access, Event, Feature, HEADER, Reader};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRunner};
use std::cell::Cell;

/// What one test run judges at least.
const JUDGED_STEPS: u64 = 10_000_000;
/// Frames for tables: few enough to run out now and then.
const FRAMES: u64 = 24;

/// A CPU that comes into the tables.
#[derive(Clone, Copy, Debug)]
struct Join {
    /// Before this one of the requests.
    before: usize,
    /// It is found running, rather than started here.
    is_found: bool,
    errata: Errata,
}

/// A history: a machine, requests on tables that nothing walks, then on the same tables in force.
#[derive(Clone, Debug)]
struct History {
    errata: Errata,
    features: Vec<(Option<u32>, Feature)>,
    before: Vec<Wish>,
    after: Vec<Wish>,
    joins: Vec<Join>,
}

fn errata() -> impl Strategy<Value = Errata> {
    (0..64_u8).prop_map(Errata::from_bits_truncate)
}

/// Features of all CPUs or of one; none of them changes what the manager does, so it must be right under all.
fn feature() -> impl Strategy<Value = (Option<u32>, Feature)> {
    let plain = [
        Feature::Ets2,
        Feature::NTlbPa,
        Feature::TlbiRange,
        Feature::Ttl,
        Feature::Hafdbs,
        Feature::Lpa2,
        Feature::NoContiguous,
    ];
    let levels = (0..4_u8).prop_map(Feature::Bbm);
    let lines = prop::sample::select(vec![16, 32, 64, 128, 2048]).prop_map(Feature::LineBytes);
    let feature = prop_oneof![4 => prop::sample::select(plain.to_vec()), 1 => levels, 1 => lines];
    (prop_oneof![Just(None), (0..4_u32).prop_map(Some)], feature)
}

fn history() -> impl Strategy<Value = History> {
    let distance = prop::sample::select(vec![0, 512 * GIB, 512 * 19 * GIB, 512 * 255 * GIB]);
    let join = (0..48_usize, any::<bool>(), errata());
    let joins = vec(join.prop_map(|(before, is_found, errata)| Join { before, is_found, errata }), 0..4);
    let wishes = (vec(wish(), 0..8), vec(wish(), 1..96));
    // Shrinking goes from left to right: a CPU that comes late would keep every request before it.
    (joins, distance, errata(), vec(feature(), 0..6), wishes).prop_map(
        |(joins, distance, errata, features, (before, after))| {
            let moved = |wishes: Vec<Wish>| wishes.into_iter().map(|wish| wish.moved(distance)).collect();
            History { errata, features, before: moved(before), after: moved(after), joins }
        },
    )
}

impl History {
    /// What the machine is at first: the features of all CPUs, and the errata of the one that is there.
    fn features(&self) -> impl Iterator<Item = (Option<u32>, Feature)> + '_ {
        let errata = features_of(self.errata).map(|feature| (Some(0), feature));
        self.features.iter().copied().chain(errata)
    }

    /// Plays it on a machine that forgets the steps that `forgets` names; says what was judged.
    fn play(&self, forgets: Option<Forgets>) -> Result<Judged, TestCaseError> {
        let mut world = World::with_features(self.features());
        world.forgets = forgets;
        let mut offline: Rig<Offline> = Rig::offline_on(world, self.errata, FRAMES);
        offline.is_quiet = true;
        for &wish in &self.before {
            filled(&mut offline, wish)?;
        }
        let mut rig = offline.switch();
        for (index, &wish) in self.after.iter().enumerate() {
            for (join, cpu) in self.joins.iter().zip(1..).filter(|(join, _)| join.before == index) {
                join_in(&mut rig, *join, cpu);
            }
            let before = rig.world().now();
            asked(&mut rig, wish)?;
            // A request that was refused has done nothing, and there is nothing to look at.
            if rig.world().now() != before {
                use_place(&mut rig, wish.place(), &self.online(index));
                rig.verdict().map_err(TestCaseError::fail)?;
            }
        }
        rig.world_mut().end();
        rig.verdict().map_err(TestCaseError::fail)?;
        Ok(rig.world().judged())
    }

    /// The CPUs that have come by the time of a request.
    fn online(&self, request: usize) -> Vec<u32> {
        let joined = self.joins.iter().zip(1..).filter(|(join, _)| join.before <= request).map(|(_, cpu)| cpu);
        [0].into_iter().chain(joined).collect()
    }
}

fn join_in(rig: &mut Rig<Live>, join: Join, cpu: u32) {
    rig.protocol.share(join.errata);
    rig.world_mut().note_errata(cpu, join.errata);
    if join.is_found {
        rig.world_mut().find_pe(cpu);
    } else {
        rig.world_mut().start_pe(cpu);
    }
}

/// Each CPU uses the first and the last page of a place, if they are mapped: as code where they are executable. A CPU that has not made
/// the change itself synchronises its context first, as it must.
fn use_place(rig: &mut Rig<Live>, Place { start, bytes }: Place, cpus: &[u32]) {
    for page in [start, start + bytes - PAGE] {
        let Some((output, bits)) = rig.reference.translate(page) else { continue };
        let (is_code, is_device) = (bits & super::bits::EXECUTE_NEVER == 0, bits >> 2 & 7 == 4);
        for &cpu in cpus {
            let world = rig.world_mut();
            if cpu != 0 {
                world.emit(cpu, Event::Isb);
            }
            if is_code {
                world.fetch(cpu, page);
            } else {
                let access = Access { bytes: 8, va: page, pa: output, value: [0, 0], device: is_device };
                world.emit(cpu, Event::Load(access));
            }
        }
    }
}

/// What came of many histories: what was judged, or the smallest history that went wrong.
fn play_many(cases: u32, forgets: Option<Forgets>) -> Result<Judged, Box<TestError<History>>> {
    let judged = Cell::new(Judged::default());
    // The cheap generator: the default one's rounds, without optimisation, take as long as the manager's work.
    let rng_algorithm = RngAlgorithm::XorShift;
    let config =
        Config { cases, rng_algorithm, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let outcome = TestRunner::new(config).run(&history(), |history| {
        judged.set(judged.get().and(history.play(forgets)?));
        Ok(())
    });
    outcome.map_err(Box::new)?;
    Ok(judged.get())
}

#[test]
fn good_ten_million_steps_of_random_requests() {
    let (mut judged, mut histories) = (Judged::default(), 0);
    while judged.steps < JUDGED_STEPS {
        judged = judged.and(play_many(100, None).unwrap_or_else(|failure| panic!("{failure}")));
        histories += 100;
    }
    let Judged { steps, zeroing } = judged;
    println!("{steps} steps of {histories} random histories judged, {zeroing} of which zero a new table");
    assert!(steps >= JUDGED_STEPS);
}

#[test]
fn bad_a_shrunk_counterexample_is_a_trace_to_judge() {
    let forgotten: [(&str, Forgets); 5] = [
        ("TLBIs by address", |event| is_tlbi(event) && event.to_string().contains("vale2")),
        ("breaks", |event| stored_word(event).is_some_and(|(_, value)| value != 0 && value & 1 == 0)),
        ("barriers before TLBIs, links and ISBs", |event| *event == DSB_ISHST),
        ("barriers after broadcast TLBIs", |event| *event == DSB_ISH),
        ("context synchronisations", |event| *event == Event::Isb),
    ];
    for (what, forgets) in forgotten {
        println!("a manager without its {what}:");
        assert_shrinks(forgets);
    }
}

/// A manager that forgets something is caught, by a short history whose trace says by itself what is wrong.
fn assert_shrinks(forgets: Forgets) {
    let Err(TestError::Fail(reason, history)) = play_many(1000, Some(forgets)).map_err(|failure| *failure) else {
        panic!("a manager that forgets is noticed");
    };
    println!("{}", reason.to_string().lines().next().unwrap_or_default());
    assert!(history.before.len() + history.after.len() <= 3, "a fill and a change are enough: {history:?}");
    let text = reason.to_string();
    let trace = &text[text.find(HEADER).expect("the reason holds a trace")..];
    let mut judge = Obligations::new();
    let mut reader = Reader::new(trace.as_bytes());
    while let Some(record) = reader.next_record().expect("the trace is well-formed") {
        judge.step(reader.line(), &record);
    }
    assert!(!judge.violations().is_empty(), "the trace says by itself what is wrong");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn good_query_agrees_with_what_was_asked(wishes in vec(wish(), 1..10), places in vec(place(), 8)) {
        let mut rig = Rig::live(Reach::ThisPe, FRAMES);
        for wish in wishes {
            asked(&mut rig, wish)?;
        }
        for place in places {
            let found = rig.query(place.start + 8).map(|(level, output, _)| {
                output + (place.start + 8) % level.slot_bytes()
            });
            prop_assert_eq!(found, rig.reference.translate(place.start + 8).map(|(output, _)| output));
        }
    }
}

/// A machine with up to four banks, holes in them, and an image somewhere in the first.
fn setup() -> impl Strategy<Value = Setup> {
    let bank = (0..40_u64, 0..3 * 512_u64, 1..512_u64 * 512, 0..PAGE);
    let hole = (any::<prop::sample::Index>(), 0..64 * MIB, 1..8 * MIB, any::<bool>());
    (0..1024_u64, 300..2048_u64, vec(bank, 0..3), vec(hole, 0..5), errata()).prop_map(
        |(at, slack, banks, holes, errata)| {
            let first = phys(GIB, (at + IMAGE_PAGES + slack) * PAGE + 64 * MIB);
            let others = banks
                .iter()
                .map(|&(slot, offset, pages, odd)| phys((4 + slot) * GIB + offset * PAGE + odd, pages * PAGE));
            let all: Vec<PhysSpan> = [first].into_iter().chain(others).collect();
            let image = GIB + at * PAGE;
            let tree = phys(image + (IMAGE_PAGES + 1) * PAGE + 24, 0x1_0000);
            let mut setup = Setup::new(&all, image, tree);
            setup.errata = errata;
            for (index, offset, bytes, is_no_map) in holes {
                let bank = all[index.index(all.len())];
                // Above the image and the tree, which must keep their memory to themselves.
                let start = if bank == first { tree.end_exclusive().raw() + PAGE } else { bank.start().raw() };
                let hole = phys(start + offset, bytes);
                let added = if is_no_map { setup.memory.add_no_map(hole) } else { setup.memory.add_reserved(hole) };
                added.unwrap();
            }
            setup
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn good_random_machines_boot_to_a_clean_audit(setup in setup()) {
        let booted = Booted::boot(&setup).unwrap();
        let audit = booted.audit();
        prop_assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
        let offset = breakwater::layout::DIRECTMAP.start().raw() - booted.base.raw();
        let mapped: u64 = raw::leaves(booted.world(), booted.root())
            .iter()
            .filter(|leaf| leaf.virt >= offset + booted.base.raw())
            .map(|leaf| super::bits::slot_bytes(leaf.level))
            .sum();
        let expected: u64 = booted.expected_directmap(20).iter().map(|span| span.bytes()).sum();
        prop_assert_eq!(mapped, expected);
    }
}
