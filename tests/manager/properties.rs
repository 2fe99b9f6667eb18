//! Random requests on random layouts, in every geometry, by one to four CPUs that come when they will, judged step by step; and random
//! machines, booted and audited.

use super::bits::{EXECUTE_NEVER, KEPT, attribute_bits, is_valid};
use super::booted::{Booted, IMAGE_PAGES, Setup};
use super::raw;
use super::reference::{Extent, Extents};
use super::rig::{GIB, MIB, PAGE, Rig, phys, virt};
use super::start::{features_in, features_of};
use super::step::{DSB_ISH, DSB_ISHST, is_tlbi, stored_word};
use super::wish::{Distance, KINDS, Pages, Wish, asked, filled, place, queried, together, wish};
use super::world::{Forgets, Judged, World};
use breakwater::addr::PhysSpan;
use breakwater::bbm::{Live, Offline, Reach};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::geometry::{Geometry, Granule4K, Granule4KLpa2, Granule16K, Granule16KLpa2, Granule64K, Granule64KLva};
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::{Access, Event, Feature, HEADER, Reader};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRunner};
use std::cell::Cell;

/// What one test run judges at least.
const JUDGED_STEPS: u64 = 10_000_000;
/// Frames for tables: few enough to run out now and then.
const FRAMES: u64 = 24;

/// What came of histories: what was judged, and which requests were granted and did something, by whose tables and what kind.
#[derive(Clone, Copy, Debug, Default)]
struct Played {
    judged: Judged,
    done: [[u64; KINDS.len()]; 6],
}

impl Played {
    /// Both together.
    fn and(mut self, other: Self) -> Self {
        self.judged = self.judged.and(other.judged);
        self.done.iter_mut().flatten().zip(other.done.iter().flatten()).for_each(|(sum, more)| *sum += more);
        self
    }
}

/// A CPU that comes into the tables.
#[derive(Clone, Copy, Debug)]
struct Join {
    /// Before this one of the requests.
    before: usize,
    /// It is found running, rather than started here.
    is_found: bool,
    errata: Errata,
}

/// Whose tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tables {
    K4,
    K4Lpa2,
    K16,
    K16Lpa2,
    K64,
    K64Lva,
}

/// All of them.
const TABLES: [Tables; 6] = [Tables::K4, Tables::K4Lpa2, Tables::K16, Tables::K16Lpa2, Tables::K64, Tables::K64Lva];

/// A history: a machine, requests on tables that nothing walks, then on the same tables in force.
#[derive(Clone, Debug)]
struct History {
    tables: Tables,
    errata: Errata,
    /// What the manager uses, and every CPU has.
    used: Features,
    /// What CPUs have besides.
    features: Vec<(Option<u32>, Feature)>,
    distance: u64,
    before: Vec<Wish>,
    after: Vec<Wish>,
    joins: Vec<Join>,
}

fn errata() -> impl Strategy<Value = Errata> {
    (0..64_u8).prop_map(Errata::from_bits_truncate)
}

/// Features that the manager uses where all CPUs have them.
fn used() -> impl Strategy<Value = Features> {
    let optional = [Features::TLBIRANGE, Features::TTL, Features::RESIZE, Features::BTI, Features::MTE];
    prop::sample::subsequence(optional.to_vec(), 0..=5).prop_map(|some| some.into_iter().collect())
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
        Feature::NoCnp,
    ];
    let levels = (0..4_u8).prop_map(Feature::Bbm);
    let lines = prop::sample::select(vec![16, 32, 64, 128, 2048]).prop_map(Feature::LineBytes);
    let feature = prop_oneof![4 => prop::sample::select(plain.to_vec()), 1 => levels, 1 => lines];
    (prop_oneof![Just(None), (0..4_u32).prop_map(Some)], feature)
}

fn history() -> impl Strategy<Value = History> {
    let tables = prop_oneof![
        8 => Just(Tables::K4),
        1 => prop::sample::select(TABLES[1..].to_vec()),
    ];
    let distance = prop::sample::select(vec![0, 1, 19, 255]);
    let join = (0..48_usize, any::<bool>(), errata());
    let joins = vec(join.prop_map(|(before, is_found, errata)| Join { before, is_found, errata }), 0..4);
    let wishes = (vec(wish(), 0..8), vec(wish(), 1..96));
    // Shrinking goes from left to right: a CPU that comes late would keep every request before it.
    (joins, tables, distance, errata(), used(), vec(feature(), 0..6), wishes).prop_map(
        |(joins, tables, distance, errata, used, features, (before, after))| History {
            tables,
            errata,
            used,
            features,
            distance,
            before,
            after,
            joins,
        },
    )
}

impl History {
    /// What the machine is at first: the features of all CPUs, and the errata of the one that is there.
    fn features(&self) -> impl Iterator<Item = (Option<u32>, Feature)> + '_ {
        let errata = features_of(self.errata).map(|feature| (Some(0), feature));
        let used = features_in(self.used).map(|feature| (None, feature));
        // What the manager uses every CPU has, without exception.
        let resizes = self.used.contains(Features::RESIZE);
        let own = self.features.iter().copied().filter(move |(_, one)| !(resizes && matches!(one, Feature::Bbm(_))));
        own.chain(errata).chain(used)
    }

    /// Plays it on a machine that forgets the steps that `forgets` names; says what came of it.
    fn play(&self, forgets: Option<Forgets>) -> Result<Played, TestCaseError> {
        match self.tables {
            Tables::K4 => self.play_in::<Granule4K>(forgets),
            Tables::K4Lpa2 => self.play_in::<Granule4KLpa2>(forgets),
            Tables::K16 => self.play_in::<Granule16K>(forgets),
            Tables::K16Lpa2 => self.play_in::<Granule16KLpa2>(forgets),
            Tables::K64 => self.play_in::<Granule64K>(forgets),
            Tables::K64Lva => self.play_in::<Granule64KLva>(forgets),
        }
    }

    fn play_in<G: Geometry>(&self, forgets: Option<Forgets>) -> Result<Played, TestCaseError> {
        let mut world = World::<G>::with_features(self.features());
        world.forgets = forgets;
        let mut offline: Rig<Offline, G> = Rig::offline_on(world, self.errata, FRAMES);
        offline.protocol.use_features(self.used);
        offline.is_quiet = true;
        let (distance, mut played) = (Distance(self.distance), Played::default());
        for &wish in &self.before {
            filled(&mut offline, wish, distance)?;
        }
        let mut rig = offline.switch();
        for (index, &wish) in self.after.iter().enumerate() {
            for (join, cpu) in self.joins.iter().zip(1..).filter(|(join, _)| join.before == index) {
                join_in(&mut rig, *join, cpu);
            }
            let before = rig.world().now();
            let granted = asked(&mut rig, wish, distance)?;
            // A request that was refused has done nothing, and there is nothing to look at.
            if rig.world().now() != before {
                played.done[self.tables as usize][wish.kind()] += u64::from(granted);
                let at = wish.place().pages::<G>(distance);
                queried(&mut rig, at)?;
                use_place(&mut rig, at, &self.online(index));
                rig.verdict().map_err(TestCaseError::fail)?;
            }
        }
        dumped(&mut rig)?;
        emptied(&mut rig)?;
        rig.world_mut().end();
        rig.verdict().map_err(TestCaseError::fail)?;
        Ok(Played { judged: rig.world().judged(), ..played })
    }

    /// The CPUs that have come by the time of a request.
    fn online(&self, request: usize) -> Vec<u32> {
        let joined = self.joins.iter().zip(1..).filter(|(join, _)| join.before <= request).map(|(_, cpu)| cpu);
        [0].into_iter().chain(joined).collect()
    }
}

fn join_in<G: Geometry>(rig: &mut Rig<Live, G>, join: Join, cpu: u32) {
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
fn use_place<G: Geometry>(rig: &mut Rig<Live, G>, Pages { start, bytes }: Pages, cpus: &[u32]) {
    for page in [start, start + bytes - G::PAGE_BYTES] {
        let Some((output, bits)) = rig.reference.translate(page) else { continue };
        let (is_code, is_device) = (bits & EXECUTE_NEVER == 0, matches!(bits >> 2 & 7, 0 | 4 | 5));
        for &cpu in cpus {
            let world = rig.world_mut();
            if cpu != 0 {
                world.emit(cpu, Event::Isb);
            }
            if is_code {
                world.fetch(cpu, page);
            } else {
                let access =
                    Access { bytes: 8, va: page, pa: output, value: [0, 0], device: is_device, release: false };
                world.emit(cpu, Event::Load(access));
            }
        }
    }
}

/// The manager's own account of everything is what was asked for.
fn dumped<G: Geometry>(rig: &mut Rig<Live, G>) -> Result<(), TestCaseError> {
    let mut found = Extents::new();
    rig.mapper().dump(virt(0, 1 << G::INPUT_BITS), |mapping| {
        let bits = attribute_bits(mapping.attributes);
        let extent = Extent { bytes: mapping.virt.bytes(), output: mapping.output.raw(), bits };
        found.insert(mapping.virt.start().raw(), extent);
    });
    prop_assert_eq!(raw::merged(found.into_iter()), rig.reference.merged());
    Ok(())
}

/// Unmaps everything: every frame comes back, but for the root's, and for those of tables that were asked for and of tables on the way there.
fn emptied<G: Geometry>(rig: &mut Rig<Live, G>) -> Result<(), TestCaseError> {
    for (virt, extent) in rig.reference.merged() {
        let cost = rig.unmap(virt, extent.bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(cost.frames, 0);
    }
    let kept = raw::tables(rig.world(), rig.root()).len() as u64 - 1;
    prop_assert_eq!(rig.frames.available(), FRAMES - kept, "{} tables stay", kept);
    prop_assert!(is_all_kept(rig.world(), rig.root(), World::<G>::SHAPE.root_level()));
    Ok(())
}

/// Whether every table below `table` was asked for, or is on the way to one that was.
fn is_all_kept<G: Geometry>(world: &World<G>, table: u64, level: i8) -> bool {
    let words = world.table(table).unwrap_or_default().iter().filter(|&&word| is_valid(word));
    words.copied().all(|word| {
        let below = World::<G>::SHAPE.output(word);
        let is_empty = world.table(below).unwrap_or_default().iter().all(|&word| word == 0);
        (!is_empty || word & KEPT != 0) && (level == 2 || is_all_kept(world, below, level + 1))
    })
}

/// What came of many histories, or the smallest history that went wrong.
fn play_many(cases: u32, forgets: Option<Forgets>) -> Result<Played, Box<TestError<History>>> {
    let played = Cell::new(Played::default());
    // The cheap generator: the default one's rounds, without optimisation, take as long as the manager's work.
    let rng_algorithm = RngAlgorithm::XorShift;
    let config =
        Config { cases, rng_algorithm, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let outcome = TestRunner::new(config).run(&history(), |history| {
        played.set(played.get().and(history.play(forgets)?));
        Ok(())
    });
    outcome.map_err(Box::new)?;
    Ok(played.get())
}

#[test]
fn good_ten_million_steps_of_random_requests() {
    let (mut played, mut histories) = (Played::default(), 0);
    while played.judged.steps < JUDGED_STEPS {
        played = played.and(play_many(100, None).unwrap_or_else(|failure| panic!("{failure}")));
        histories += 100;
    }
    let Judged { steps, zeroing } = played.judged;
    println!("{steps} steps of {histories} random histories judged, {zeroing} of which zero a new table");
    for (tables, done) in TABLES.iter().zip(played.done) {
        let counts: Vec<String> = KINDS.iter().zip(done).map(|(kind, count)| format!("{count} {kind}")).collect();
        println!("{tables:?}: {}", counts.join(", "));
        assert!(done.iter().all(|&count| count > 0), "{tables:?}: every kind of request is granted now and then");
    }
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
            asked(&mut rig, wish, Distance(0))?;
        }
        for place in places {
            queried(&mut rig, place.pages::<Granule4K>(Distance(0)))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn good_one_manager_for_many_requests(wishes in vec(wish(), 2..24), used in used()) {
        let mut rig: Rig<Live> = Rig::live_on(Reach::Domain, Errata::empty(), used, FRAMES);
        together(&mut rig, &wishes);
        rig.verdict().map_err(TestCaseError::fail)?;
        dumped(&mut rig)?;
        emptied(&mut rig)?;
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
