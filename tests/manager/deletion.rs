//! Each barrier, TLBI and break of the manager and of boot's routines taken away, one at a time, made weaker, one at a time, and each two
//! neighbours swapped: the model must complain every time.
//!
//! What it does not complain of has a reason that `mutation` states and checks; anything else fails the test.

use super::booted::{Booted, Setup};
use super::mutation::{Edit, Outcome, Recording, are_neighbours, weakened};
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, phys, request, virt};
use super::start;
use super::step::zeroed_pair;
use super::world::World;
use breakwater::addr::{Level, PhysAddr, VirtSpan};
use breakwater::bbm::{Live, Offline, Reach};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::mapper::{Error, Mapper};
use breakwater_trace::Event;
use std::collections::BTreeMap;
use std::fmt::Debug;

const AT: u64 = 4 * GIB;

/// Requests go straight to the mapper: what is checked here is the model alone.
fn ask<R: Debug>(rig: &mut Rig<Live>, request: impl FnOnce(Mapper<'_, World, Live>) -> Result<R, Error>) {
    request(Mapper::new(&mut rig.protocol, &mut rig.frames, &mut rig.tables)).expect("the request is granted");
}

fn span(pages: u64) -> VirtSpan {
    virt(AT, pages * PAGE)
}

type Request = fn(&mut Rig<Live>);

const REQUESTS: [(&str, Request); 31] = [
    ("fill", |rig| ask(rig, |mut mapper| mapper.map(request(AT + 64 * PAGE, 3 * PAGE, 0, DATA, Level::L3)))),
    ("link", |rig| ask(rig, |mut mapper| mapper.map(request(GIB - PAGE, 2 * PAGE, 0, DATA, Level::L3)))),
    ("populate", |rig| ask(rig, |mut mapper| mapper.populate(virt(GIB, 4 * MIB), Level::L3))),
    ("unmap", |rig| ask(rig, |mut mapper| mapper.unmap(span(3)))),
    ("unmap much", |rig| ask(rig, |mut mapper| mapper.unmap(span(40)))),
    ("protect in place", |rig| ask(rig, |mut mapper| mapper.protect(span(3), CONSTANTS))),
    ("protect by a break", |rig| ask(rig, |mut mapper| mapper.protect(span(3), DEVICE))),
    ("protect code", |rig| ask(rig, |mut mapper| mapper.protect(virt(AT + 50 * PAGE, PAGE), CONSTANTS))),
    ("remap", |rig| ask(rig, |mut mapper| mapper.remap(span(3), PhysAddr::at(16 * GIB), DATA))),
    ("remap a block", |rig| {
        ask(rig, |mut mapper| mapper.remap(virt(AT + 2 * MIB, 2 * MIB), PhysAddr::at(16 * GIB), CODE));
    }),
    ("fill by every size", |rig| {
        let ragged = request(6 * GIB - PAGE, GIB + 2 * MIB + PAGE, 22 * GIB - PAGE, DATA, Level::L1);
        ask(rig, |mut mapper| mapper.map(ragged));
    }),
    ("unmap a block and pages", |rig| ask(rig, |mut mapper| mapper.unmap(virt(AT + 2 * MIB, 2 * MIB + PAGE)))),
    ("protect a block in place", |rig| ask(rig, |mut mapper| mapper.protect(virt(AT + 2 * MIB, 2 * MIB), CONSTANTS))),
    ("protect a block by a break", |rig| ask(rig, |mut mapper| mapper.protect(virt(AT + 2 * MIB, 2 * MIB), DEVICE))),
    ("protect what is half so", |rig| {
        ask(rig, |mut mapper| mapper.protect(virt(AT, PAGE), CONSTANTS));
        ask(rig, |mut mapper| mapper.protect(span(2), CONSTANTS));
    }),
    ("clear with holes on both sides", |rig| ask(rig, |mut mapper| mapper.clear(virt(LONE - GIB, 2 * GIB)))),
    ("unmap a table", |rig| ask(rig, |mut mapper| mapper.unmap(virt(LONE, 2 * PAGE)))),
    ("unmap a page of a block", |rig| ask(rig, |mut mapper| mapper.unmap(virt(BLOCK + 5 * PAGE, PAGE)))),
    ("protect pages of a block in place", |rig| {
        ask(rig, |mut mapper| mapper.protect(virt(BLOCK + 5 * PAGE, 2 * PAGE), CONSTANTS));
    }),
    ("remap a page of a block and a page", |rig| {
        ask(rig, |mut mapper| mapper.remap(virt(BLOCK + 511 * PAGE, 2 * PAGE), PhysAddr::at(16 * GIB), DATA));
    }),
    ("split a block", |rig| ask(rig, |mut mapper| mapper.split(virt(BLOCK, 2 * MIB), Level::L3))),
    ("split a run", |rig| ask(rig, |mut mapper| mapper.split(virt(RUN, 16 * PAGE), Level::L3))),
    ("unmap a page of a run", |rig| ask(rig, |mut mapper| mapper.unmap(virt(RUN + 3 * PAGE, PAGE)))),
    ("protect a page of a run", |rig| {
        ask(rig, |mut mapper| mapper.protect(virt(RUN + 3 * PAGE, PAGE), CONSTANTS));
    }),
    ("protect a run in place", |rig| ask(rig, |mut mapper| mapper.protect(virt(RUN, 16 * PAGE), CONSTANTS))),
    ("remap a run", |rig| {
        ask(rig, |mut mapper| mapper.remap(virt(RUN, 16 * PAGE), PhysAddr::at(16 * GIB), DATA));
    }),
    ("unmap a run", |rig| ask(rig, |mut mapper| mapper.unmap(virt(RUN, 16 * PAGE)))),
    ("merge into a run", |rig| ask(rig, |mut mapper| mapper.merge(span(16), Level::L3, true))),
    ("merge into a block", |rig| ask(rig, |mut mapper| mapper.merge(virt(ALIKE, 2 * MIB), Level::L2, false))),
    ("merge into a giant", |rig| ask(rig, |mut mapper| mapper.merge(virt(GIANT, GIB), Level::L1, false))),
    ("fill a run", |rig| {
        let run = request(AT + 256 * PAGE, 16 * PAGE, 24 * GIB, CONSTANTS, Level::L3).with_contiguous();
        ask(rig, |mut mapper| mapper.map(run));
    }),
];

/// A block of 2 MiB.
const BLOCK: u64 = AT + 2 * MIB;
/// A contiguous run of pages.
const RUN: u64 = AT + 128 * PAGE;
/// Pages that one block could say.
const ALIKE: u64 = AT + 6 * MIB;
/// Blocks that a block of 1 GiB could say.
const GIANT: u64 = 8 * GIB;
/// Two pages with tables of their own.
const LONE: u64 = 520 * GIB;

/// How far invalidations reach, and what CPUs get wrong and can do.
#[derive(Clone, Copy, Debug)]
struct Setting {
    reach: Reach,
    errata: Errata,
    features: Features,
}

/// Every set of the errata that decide what the mapper does, on this PE alone and among several; and what features change, with and without
/// the erratum that counts TLBIs.
fn settings() -> impl Iterator<Item = Setting> {
    let relevant = Errata::REPEAT_TLBI | Errata::BBM_FOR_XN | Errata::BBM_ALWAYS;
    let sets = (0..=relevant.bits()).filter_map(Errata::from_bits).filter(move |&errata| relevant.contains(errata));
    let plain = sets.map(|errata| (errata, Features::empty()));
    let operands = Features::TLBIRANGE | Features::TTL;
    let able = [operands, Features::TTL, Features::RESIZE, operands | Features::RESIZE].into_iter();
    let able = able.flat_map(|features| [Errata::empty(), Errata::REPEAT_TLBI].map(|errata| (errata, features)));
    plain
        .chain(able)
        .flat_map(|(errata, features)| [Reach::ThisPe, Reach::Domain].map(|reach| Setting { reach, errata, features }))
}

/// Something that the manager did, recorded.
struct Scenario {
    name: String,
    errata: Errata,
    recording: Recording,
}

/// Every request in every setting.
fn requests() -> impl Iterator<Item = Scenario> {
    settings().flat_map(|setting| {
        REQUESTS.into_iter().map(move |(name, run)| {
            let Setting { reach, errata, features } = setting;
            let name = format!("{name}, {reach:?}, {errata}, {features}");
            Scenario { name, errata, recording: requested(setting, run) }
        })
    })
}

/// A request on tables with forty pages of data, a page of code, a block and a page after it, and what the constants above name.
fn requested(Setting { reach, errata, features }: Setting, run: Request) -> Recording {
    let mut rig: Rig<Offline> = Rig::offline_on(world_with(errata, features), errata, 32);
    rig.map(request(AT, 40 * PAGE, GIB, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 50 * PAGE, PAGE, 64 * GIB, CODE, Level::L3)).unwrap();
    rig.map(request(BLOCK, 2 * MIB, 2 * GIB, DATA, Level::L2)).unwrap();
    rig.map(request(AT + 4 * MIB, PAGE, 3 * GIB, DATA, Level::L3)).unwrap();
    rig.map(request(RUN, 16 * PAGE, 5 * GIB, DATA, Level::L3).with_contiguous()).unwrap();
    rig.map(request(ALIKE, 2 * MIB, 6 * GIB, DATA, Level::L3)).unwrap();
    rig.map(request(GIANT, GIB, 8 * GIB, DATA, Level::L2)).unwrap();
    rig.map(request(LONE, 2 * PAGE, 7 * GIB, DATA, Level::L3)).unwrap();
    let mut rig = rig.switch();
    rig.protocol.use_features(features);
    if reach == Reach::Domain {
        rig.share();
    }
    let from = rig.world().now();
    run(&mut rig);
    rig.world_mut().end();
    Recording::of(rig.world(), from)
}

/// A machine whose CPUs have all of these.
fn world_with(errata: Errata, features: Features) -> World {
    let said = start::features_of(errata).chain(start::features_in(features));
    World::with_features(said.map(|feature| (None, feature)))
}

/// Tables with some content, switched to; then a second CPU that comes into them.
fn assembly(errata: Errata) -> Scenario {
    let mut rig: Rig<Offline> = Rig::offline_with(errata, 8);
    rig.map(request(AT, 3 * PAGE, 0, DATA, Level::L3)).unwrap();
    let from = rig.world().now();
    let mut rig = rig.switch();
    rig.share();
    rig.world_mut().settle();
    rig.world_mut().end();
    Scenario { name: format!("switch, secondary, {errata}"), errata, recording: Recording::of(rig.world(), from) }
}

/// A small machine's boot, from the first tables to sealed data, with a second CPU.
fn boot(errata: Errata) -> Scenario {
    let mut setup = Setup::new(&[phys(GIB, 64 * MIB)], GIB + 2 * MIB, phys(GIB + 8 * MIB, MIB));
    setup.errata = errata;
    setup.cpus = 2;
    let booted = Booted::boot(&setup).expect("a machine that can boot");
    Scenario { name: format!("boot, {errata}"), errata, recording: Recording::of(booted.world(), 0) }
}

/// What became of all edits of some scenarios.
#[derive(Default)]
struct Tally {
    flagged: usize,
    reasons: BTreeMap<String, usize>,
    survivors: Vec<String>,
}

impl Tally {
    fn add(&mut self, scenario: &Scenario, edits: impl Fn(&Recording, usize) -> Option<Edit>) {
        let Scenario { name, errata, recording } = scenario;
        recording.each(edits, |edit, outcome| {
            let mut count = |reason: String| *self.reasons.entry(reason).or_default() += 1;
            match outcome {
                Outcome::Flagged => self.flagged += 1,
                Outcome::OtherMemory => count("leave other memory, which the map of pages notices".into()),
                Outcome::Commutes(rule) => count(format!("commute: {rule}")),
                Outcome::Covered(rule) => count(format!("covered by {rule}")),
                // On a CPU that has the erratum the step must be missed.
                Outcome::Erratum(which) if !errata.contains(Errata::ISB_BEFORE_MMU_OFF | Errata::DSB_BEFORE_HCR) => {
                    count(format!("for {which}"));
                }
                Outcome::Erratum(_) | Outcome::Survives => {
                    let (Edit::Delete(at) | Edit::Weaken(at) | Edit::Swap(at)) = edit;
                    let (step, next) = (recording.record(at), recording.record(at + 1));
                    self.survivors.push(format!("{name}: {edit:?}, {step}, before {next}"));
                }
            }
        });
    }

    /// Everything had a reason, and at least `least` mutants were rejected.
    fn assert(self, what: &str, least: usize) {
        println!("{what}: {} rejected by the model", self.flagged);
        self.reasons.iter().for_each(|(reason, count)| println!("{what}: {count} {reason}"));
        assert_eq!(self.survivors, Vec::<String>::new());
        assert!(self.flagged >= least, "{} of at least {least}", self.flagged);
    }
}

fn delete(recording: &Recording, index: usize) -> Option<Edit> {
    recording.owes(index).then_some(Edit::Delete(index))
}

fn weaken(recording: &Recording, index: usize) -> Option<Edit> {
    let is_weaker = recording.event(index).is_some_and(|event| weakened(*event) != *event);
    // AC04_CPU_23 asks for a DSB before HCR_EL2 is written, of whatever kind.
    let before_hcr = matches!(recording.event(index + 1), Some(event) if event.to_string().starts_with("msr hcr_el2"));
    (is_weaker && !before_hcr).then_some(Edit::Weaken(index))
}

fn swap(recording: &Recording, index: usize) -> Option<Edit> {
    are_neighbours(recording, index).then_some(Edit::Swap(index))
}

/// The errata that ask most of assembly.
const FOR_ASSEMBLY: Errata = Errata::ISB_BEFORE_MMU_OFF.union(Errata::DSB_BEFORE_HCR);
/// ... and of a whole boot.
const FOR_BOOT: Errata = FOR_ASSEMBLY.union(Errata::REPEAT_TLBI).union(Errata::BBM_ALWAYS);

#[test]
fn bad_requests_without_any_barrier_tlbi_or_break() {
    let mut tally = Tally::default();
    requests().for_each(|scenario| tally.add(&scenario, delete));
    tally.assert("deleted", 12_000);
}

#[test]
fn bad_requests_with_any_weaker_barrier_or_tlbi() {
    let mut tally = Tally::default();
    requests().for_each(|scenario| tally.add(&scenario, weaken));
    tally.assert("weakened", 6000);
}

#[test]
fn bad_requests_with_any_two_neighbours_swapped() {
    let mut tally = Tally::default();
    requests().for_each(|scenario| tally.add(&scenario, swap));
    tally.assert("swapped", 4500);
}

#[test]
fn bad_assembly_without_or_with_weaker_or_swapped_steps() {
    for (name, edits, least) in [
        ("deleted from assembly", delete as fn(&Recording, usize) -> Option<Edit>, 12),
        ("weakened in assembly", weaken, 2),
        ("swapped in assembly", swap, 12),
    ] {
        let mut tally = Tally::default();
        [Errata::empty(), FOR_ASSEMBLY].map(assembly).iter().for_each(|scenario| tally.add(scenario, edits));
        tally.assert(name, least);
    }
}

#[test]
fn bad_boot_without_any_barrier_tlbi_or_break() {
    boots("deleted from boot", delete, 180);
}

#[test]
fn bad_boot_with_any_weaker_barrier_or_tlbi() {
    boots("weakened in boot", weaken, 20);
}

#[test]
fn bad_boot_with_any_two_neighbours_swapped() {
    boots("swapped in boot", swap, 110);
}

/// Edits of the boot of CPUs without errata, and of those with the most.
fn boots(what: &str, edits: fn(&Recording, usize) -> Option<Edit>, least: usize) {
    let mut tally = Tally::default();
    [Errata::empty(), FOR_BOOT].map(boot).iter().for_each(|scenario| tally.add(scenario, edits));
    tally.assert(what, least);
}

const ALONE: Setting = Setting { reach: Reach::ThisPe, errata: Errata::empty(), features: Features::empty() };

#[test]
fn bad_table_linked_without_its_zeroing() {
    let recording = requested(ALONE, REQUESTS[1].1);
    let zeroed = recording.zeroed_frames();
    assert!(zeroed.len() > 1, "the scenario makes tables");
    for frame in zeroed {
        let is_gone = |event: &Event| zeroed_pair(event).is_some_and(|pair| pair & !0xfff == frame);
        assert!(recording.is_flagged_without(is_gone), "{frame:#x} is linked and was never zeroed");
    }
}
