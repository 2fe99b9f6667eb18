//! Each barrier, TLBI and break of the manager taken away, one at a time, and made weaker, one at a time: the judge must complain.
//!
//! The manager itself is not told: what is taken away never reaches the judge, which has its own picture of memory. What survives is
//! listed with the reason why it is not needed; anything else that survives fails the test.

use super::booted::{Booted, Setup};
use super::event::{Dsb, Event};
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, phys, request, virt};
use super::world::{Mutation, World, weakened};
use breakwater::addr::{Level, PhysAddr, VirtSpan};
use breakwater::bbm::{Detached, Live, Offline, Reach};
use breakwater::errata::Errata;
use breakwater::mapper::{Error, Mapper};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

const AT: u64 = 4 * GIB;

/// What is left of a rig once a scenario has run on it, the judge's complaints.
type Complaints = Vec<String>;

/// A scenario on prepared live tables.
struct Scenario {
    name: &'static str,
    reach: Reach,
    errata: Errata,
    run: Request,
}

/// Requests go straight to the mapper: what is checked here is the judge alone.
fn ask<R: Debug>(rig: &mut Rig<Live>, request: impl FnOnce(Mapper<'_, World, Live>) -> Result<R, Error>) {
    let answer = request(Mapper::new(&mut rig.protocol, &mut rig.frames, &mut rig.tables));
    rig.world_mut().judge.end_of_request();
    answer.expect("the request is granted, whatever the judge sees of it");
}

fn span(pages: u64) -> VirtSpan {
    virt(AT, pages * PAGE)
}

type Request = fn(&mut Rig<Live>);

const SCENARIOS: [(&str, Request); 10] = [
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
];

fn scenarios() -> impl Iterator<Item = Scenario> {
    let settings = [
        (Reach::ThisPe, Errata::empty()),
        (Reach::ThisPe, Errata::BBM_FOR_XN | Errata::REPEAT_TLBI),
        (Reach::Domain, Errata::empty()),
        (Reach::Domain, Errata::REPEAT_TLBI),
        (Reach::Domain, Errata::BBM_ALWAYS | Errata::REPEAT_TLBI),
    ];
    settings.into_iter().flat_map(|(reach, errata)| SCENARIOS.map(|(name, run)| Scenario { name, reach, errata, run }))
}

/// Forty pages of data, a page of code and a block.
fn prepared(scenario: &Scenario) -> Rig<Live> {
    let mut rig = Rig::live_with(scenario.reach, scenario.errata, 32);
    rig.map(request(AT, 40 * PAGE, GIB, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 50 * PAGE, PAGE, 8 * GIB, CODE, Level::L3)).unwrap();
    rig.map(request(AT + 2 * MIB, 2 * MIB, 2 * GIB, DATA, Level::L2)).unwrap();
    rig
}

/// The judge's complaints when step `at` of the log is mutated, and the log's part that belongs to the scenario.
fn judged(scenario: &Scenario, mutation: Option<(usize, Mutation)>) -> (Complaints, usize, Vec<Event>) {
    let mut rig = prepared(scenario);
    let from = rig.world().log.len();
    rig.world_mut().mutation = mutation;
    (scenario.run)(&mut rig);
    let steps = rig.world().log[from..].to_vec();
    (rig.world().judge.violations.clone(), from, steps)
}

/// Whether a step is a barrier, maintenance or a break.
fn is_owed(event: &Event) -> bool {
    match *event {
        Event::Store { value, .. } => value != 0 && value & 1 == 0,
        Event::Zero { .. } => false,
        _ => true,
    }
}

/// Survivors with a reason: a barrier before a link in a table that nothing links to yet. What the child holds must be visible before a walk
/// can come by, which is after the link of the table above, and that has a barrier of its own.
fn is_spare(steps: &[Event], index: usize) -> bool {
    let zeroed = |frame: u64| steps[..index].contains(&Event::Zero { frame });
    let next_is_unlinked =
        matches!(steps.get(index + 1), Some(Event::Store { address, .. }) if zeroed(address & !0xfff));
    steps[index] == Event::Dsb(Dsb::IshSt) && next_is_unlinked
}

/// Mutates each step of each kind in each scenario; returns how many the judge noticed, and a line for each that it did not.
fn mutate_all(mutation: Mutation) -> (usize, Vec<String>) {
    let (mut killed, mut survivors) = (0, Vec::new());
    for scenario in scenarios() {
        let (complaints, from, steps) = judged(&scenario, None);
        let Scenario { name, reach, errata, .. } = scenario;
        assert_eq!(complaints, Complaints::new(), "{name} as it is");
        assert!(steps.iter().any(is_owed), "{name} does something");
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| is_owed(step)) {
            if mutation == Mutation::Weaken && weakened(*step) == *step {
                continue;
            }
            if judged(&scenario, Some((from + index, mutation))).0.is_empty() && !is_spare(&steps, index) {
                survivors.push(format!("{name}, {reach:?}, {errata:?}: step {index}, {step:x?}"));
            } else if !is_spare(&steps, index) {
                killed += 1;
            }
        }
    }
    (killed, survivors)
}

#[test]
fn bad_without_any_barrier_tlbi_or_break() {
    let (killed, survivors) = mutate_all(Mutation::Delete);
    assert_eq!(survivors, Vec::<String>::new());
    println!("{killed} deletions noticed");
    assert!(killed > 500, "{killed}");
}

#[test]
fn bad_with_any_weaker_barrier_or_tlbi() {
    let (killed, survivors) = mutate_all(Mutation::Weaken);
    assert_eq!(survivors, Vec::<String>::new());
    println!("{killed} weakenings noticed");
    assert!(killed > 100, "{killed}");
}

/// Tables with some content, switched to with step `at` of the log mutated; on the CPUs that need most.
fn switched(mutation: Option<(usize, Mutation)>) -> (Complaints, usize, Vec<Event>) {
    let mut rig: Rig<Offline> = Rig::offline_with(Errata::ISB_BEFORE_MMU_OFF, 8);
    rig.map(request(AT, 3 * PAGE, 0, DATA, Level::L3)).unwrap();
    let from = rig.world().log.len();
    rig.world_mut().mutation = mutation;
    let Rig { mut protocol, tables, .. } = rig;
    let (tables, _released) = protocol.switch_root(tables, Detached::first_tables([None; 8]));
    let steps = protocol.machine().log[from..].to_vec();
    let judge = &mut protocol.machine_mut().judge;
    judge.end_of_request();
    let root_is_in_force = judge.root() == tables.root().start().raw();
    let complaints = judge.violations.clone();
    assert!(root_is_in_force || !complaints.is_empty());
    (complaints, from, steps)
}

#[test]
fn bad_root_switch_without_any_of_its_steps() {
    let (complaints, from, steps) = switched(None);
    assert_eq!((complaints, steps.len()), (Complaints::new(), 11));
    // A survivor with a reason: the ISB before TTBR0_EL2 is written. The one after synchronises the invalidation too, before M=1.
    let spare = steps.iter().position(|step| matches!(step, Event::Ttbr { .. })).unwrap() - 1;
    for (index, step) in steps.iter().enumerate().filter(|&(index, _)| index != spare) {
        assert!(!switched(Some((from + index, Mutation::Delete))).0.is_empty(), "without step {index}, {step:?}");
    }
}

#[test]
fn bad_root_switch_with_a_store_only_barrier() {
    let (_, from, steps) = switched(None);
    let completing = steps.iter().position(|&step| step == Event::Dsb(Dsb::Nsh)).unwrap();
    assert!(!switched(Some((from + completing, Mutation::Weaken))).0.is_empty());
}

#[test]
fn bad_table_linked_without_its_zeroing_or_stores() {
    let scenario = Scenario { name: "link", reach: Reach::ThisPe, errata: Errata::empty(), run: SCENARIOS[1].1 };
    let (_, from, steps) = judged(&scenario, None);
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| matches!(step, Event::Zero { .. })) {
        let (complaints, ..) = judged(&scenario, Some((from + index, Mutation::Delete)));
        assert!(!complaints.is_empty(), "step {index}, {step:?}");
    }
}

/// A small machine with errata that ask for most, and its boot with step `at` of the log taken away, unless the judge notices.
fn booted_without(at: Option<usize>) -> Option<Booted> {
    let mut setup = Setup::new(&[phys(GIB, 64 * MIB)], GIB + 2 * MIB, phys(GIB + 8 * MIB, MIB));
    setup.errata = Errata::REPEAT_TLBI | Errata::BBM_ALWAYS | Errata::ISB_BEFORE_MMU_OFF;
    setup.cpus = 2;
    setup.mutation = at.map(|at| (at, Mutation::Delete));
    let boot = AssertUnwindSafe(|| Booted::boot(&setup).expect("a machine that can boot"));
    catch_unwind(boot).ok()
}

/// A phase of several requests is judged at its end: what ends one of them may be made up for by the next. Each request by itself is
/// judged above.
fn ends_a_request_amid_a_phase(steps: &[Event], settled_at: &[usize], index: usize) -> bool {
    let phase_end = *settled_at.iter().find(|&&end| end > index).unwrap();
    let isb = if steps[index] == Event::Isb { index } else { index + 1 };
    steps[isb] == Event::Isb && steps[isb + 1..phase_end].contains(&Event::Isb)
}

#[test]
fn bad_boot_without_any_barrier_tlbi_or_break() {
    let good = booted_without(None).expect("as it is, boot is good");
    let (steps, settled_at) = (&good.world().log, &good.world().settled_at);
    let mut killed = 0;
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| is_owed(step)) {
        if booted_without(Some(index)).is_none() {
            killed += 1;
        } else {
            let amid = ends_a_request_amid_a_phase(steps, settled_at, index);
            assert!(amid || is_spare(steps, index), "step {index}, {step:x?}");
        }
    }
    println!("{killed} deletions from boot noticed");
    assert!(killed > 60, "{killed}");
}
