//! The record of requests: held against a map of pages, and the audit against it. What is asked for is noted twice, by
//! the manager in tables and by the record; the audit finds whatever one knows and the other does not.

use super::rig::{CODE, CONSTANTS, DATA, GIB, MIB, PAGE, Rig, phys, request, virt};
use super::wish::{Distance, asked, wish};
use breakwater::addr::{Level, PhysAddr, VirtAddr, VirtSpan};
use breakwater::audit::{Audit, Declared, Finding, Scratch, audit};
use breakwater::bbm::{Live, Reach};
use breakwater::descriptor::Attributes;
use breakwater::features::Features;
use breakwater::geometry::Granule4K;
use breakwater::record::{Full, Record};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a record is asked to note: pages by number.
#[derive(Clone, Copy, Debug)]
enum Note {
    Map { page: u64, count: u64, output: u64, attributes: Attributes },
    Unmap { page: u64, count: u64 },
    Protect { page: u64, count: u64, attributes: Attributes },
}

/// Where the pages of notes begin.
const BASE: u64 = 0x0a00_0000_0000;

fn note() -> impl Strategy<Value = Note> {
    let attributes = || prop::sample::select(vec![DATA, CONSTANTS]);
    let place = || (0..24_u64, 0..9_u64);
    prop_oneof![
        // Outputs that continue each other now and then.
        4 => (place(), 0..3_u64, attributes()).prop_map(|((page, count), bank, attributes)| {
            Note::Map { page, count, output: page + 100 * bank, attributes }
        }),
        2 => place().prop_map(|(page, count)| Note::Unmap { page, count }),
        3 => (place(), attributes())
            .prop_map(|((page, count), attributes)| Note::Protect { page, count, attributes }),
    ]
}

/// By page: its frame, and as what.
type Pages = BTreeMap<u64, (u64, Attributes)>;

fn span(page: u64, count: u64) -> VirtSpan {
    virt(BASE + page * PAGE, count * PAGE)
}

fn noted<const N: usize>(record: &mut Record<N>, pages: &mut Pages, note: Note) {
    match note {
        Note::Map { page, count, output, attributes } => {
            record.map(span(page, count), PhysAddr::at(output * PAGE), attributes);
            pages.extend((0..count).map(|index| (page + index, (output + index, attributes))));
        }
        Note::Unmap { page, count } => {
            record.unmap(span(page, count));
            pages.retain(|at, _| !(page..page + count).contains(at));
        }
        Note::Protect { page, count, attributes } => {
            record.protect(span(page, count), attributes);
            pages.range_mut(page..page + count).for_each(|(_, mapped)| mapped.1 = attributes);
        }
    }
}

/// The fewest parts that say it.
fn parts(pages: &Pages) -> Vec<(u64, u64, u64, Attributes)> {
    let mut parts: Vec<(u64, u64, u64, Attributes)> = Vec::new();
    for (&page, &(frame, attributes)) in pages {
        match parts.last_mut() {
            Some((at, count, output, kind))
                if *at + *count == page && *output + *count == frame && *kind == attributes =>
            {
                *count += 1;
            }
            _ => parts.push((page, 1, frame, attributes)),
        }
    }
    parts
}

fn told(declared: &[Declared]) -> Vec<(u64, u64, u64, Attributes)> {
    let told = |part: &Declared| {
        let output = part.output.expect("no hole is told");
        let page = (part.virt.start().raw() - BASE) / PAGE;
        (page, part.virt.bytes() / PAGE, output.raw() / PAGE, part.attributes)
    };
    declared.iter().map(told).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn good_what_is_noted_is_told_in_as_few_parts_as_there_can_be(notes in vec(note(), 1..40)) {
        let (mut record, mut pages) = (Record::<64>::new("noted"), Pages::new());
        for note in notes {
            noted(&mut record, &mut pages, note);
            let declared = record.as_declared().expect("room for all");
            prop_assert_eq!(told(declared), parts(&pages));
            prop_assert!(declared.iter().all(|part| part.name == "noted"));
        }
    }

    #[test]
    fn bad_more_parts_than_there_is_room_for(notes in vec(note(), 1..40)) {
        let (mut record, mut pages) = (Record::<4>::new("noted"), Pages::new());
        let mut lost = None;
        for note in notes {
            noted(&mut record, &mut pages, note);
            if parts(&pages).len() > 4 && lost.is_none() {
                lost = Some(record.as_declared().expect_err("five parts"));
            }
            match (lost, record.as_declared()) {
                (None, Ok(declared)) => prop_assert_eq!(told(declared), parts(&pages)),
                // For ever, and of the first.
                (Some(full), Err(again)) => prop_assert_eq!(full, again),
                (lost, told) => prop_assert!(false, "{lost:?}, but {told:?}"),
            }
        }
    }
}

#[test]
fn bad_the_request_without_room_is_named() {
    let mut record = Record::<2>::new("noted");
    let page = |at| virt(at, PAGE);
    for at in [0, 2 * PAGE] {
        record.map(page(at), PhysAddr::at(GIB), DATA);
    }
    assert_eq!(record.as_declared().map(<[Declared]>::len), Ok(2));
    record.map(page(4 * PAGE), PhysAddr::at(GIB), DATA);
    let full = Full { virt: page(4 * PAGE), capacity: 2 };
    record.unmap(virt(0, GIB));
    assert_eq!(record.as_declared(), Err(full));
    assert_eq!(full.to_string(), format!("no room in 2 parts for what was asked for at {}", page(4 * PAGE)));
}

fn audited(rig: &Rig<Live>, declared: &[Declared]) -> Audit {
    let mut scratch = vec![Scratch::EMPTY; 4096];
    audit(rig.tables.root(), rig.world(), declared, &[phys(0, 1 << 48)], &[], &mut scratch)
}

/// The independent map of the tests, noted as it is.
fn record_of(rig: &mut Rig<Live>, record: &mut Record<512>, wish: super::wish::Wish) -> Result<(), TestCaseError> {
    use super::wish::Wish;
    let at = wish.place().pages::<Granule4K>(Distance(0));
    let span = virt(at.start, at.bytes);
    if !asked(rig, wish, Distance(0))? {
        return Ok(());
    }
    match wish {
        Wish::Map { at, output, attributes, .. } | Wish::Remap { at, output, attributes } => {
            record.map(span, PhysAddr::at(at.output::<Granule4K>(output)), attributes);
        }
        Wish::Unmap(_) | Wish::Clear(_) => record.unmap(span),
        Wish::Protect(_, attributes) => record.protect(span, attributes),
        Wish::Populate { .. } | Wish::Split(..) | Wish::Merge { .. } => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn good_the_audit_finds_what_was_granted(wishes in vec(wish(), 1..48), resizes in any::<bool>()) {
        let used = if resizes { Features::RESIZE } else { Features::empty() };
        let mut rig: Rig<Live> = Rig::live_on(Reach::Domain, breakwater::errata::Errata::empty(), used, 48);
        let mut record = Record::<512>::new("asked for");
        for wish in wishes {
            record_of(&mut rig, &mut record, wish)?;
            let declared = record.as_declared().expect("room for all");
            let audit = audited(&rig, declared);
            prop_assert_eq!(audit.mismatches, 0, "{:?}", audit.first);
        }
    }
}

/// A table of pages, a block, and a record of both.
fn furnished() -> (Rig<Live>, Record<8>) {
    let (mut rig, mut record) = (Rig::live(Reach::ThisPe, 16), Record::new("asked for"));
    for (at, bytes, output, attributes, level) in [
        (BASE, 8 * PAGE, GIB, DATA, Level::L3),
        (BASE + 8 * PAGE, 4 * PAGE, 2 * GIB, CODE, Level::L3),
        (BASE + 4 * MIB, 2 * MIB, 4 * GIB, CONSTANTS, Level::L2),
    ] {
        rig.map(request(at, bytes, output, attributes, level)).unwrap();
        record.map(virt(at, bytes), PhysAddr::at(output), attributes);
    }
    assert_eq!(audited(&rig, record.as_declared().unwrap()).mismatches, 0);
    (rig, record)
}

/// Tables that somebody else has changed are not what the record says, whatever the change is.
#[test]
fn bad_tables_changed_behind_its_back() {
    /// What is changed, which page, at which level, how, and what the audit finds.
    type Change = (&'static str, u64, Level, fn(u64) -> u64, fn(&Finding) -> bool);
    let changes: [Change; 6] = [
        ("a page is gone", 2, Level::L3, |_| 0, |found| matches!(found, Finding::Unmapped { .. })),
        ("another frame", 2, Level::L3, |word| word ^ 1 << 40, |found| matches!(found, Finding::WrongOutput { .. })),
        ("read-only", 2, Level::L3, |word| word | 1 << 7, |found| matches!(found, Finding::WrongAttributes { .. })),
        ("writable", 9, Level::L3, |word| word & !(1 << 7), |found| matches!(found, Finding::WrongAttributes { .. })),
        ("broken", 2, Level::L3, |word| word & !1, |found| matches!(found, Finding::Dead { .. })),
        (
            "a block elsewhere",
            1024,
            Level::L2,
            |word| word ^ 1 << 40,
            |found| matches!(found, Finding::WrongOutput { .. }),
        ),
    ];
    for (what, page, level, change, is_it) in changes {
        let (mut rig, record) = furnished();
        let slot = rig.slot(BASE + page * PAGE, level);
        let word = rig.world().word(slot.address().raw());
        rig.world_mut().plant(slot, change(word));
        let audit = audited(&rig, record.as_declared().unwrap());
        assert!(audit.mismatches > 0 && audit.first.as_ref().is_some_and(is_it), "{what}: {:?}", audit.first);
    }
}

/// A mapping that nobody noted, and one that was noted and never granted.
#[test]
fn bad_a_record_that_is_not_what_was_asked_for() {
    let (mut rig, record) = furnished();
    rig.map(request(BASE + 16 * PAGE, PAGE, 8 * GIB, DATA, Level::L3)).unwrap();
    let audit = audited(&rig, record.as_declared().unwrap());
    assert!(matches!(audit.first, Some(Finding::Undeclared { .. })), "{:?}", audit.first);
    let (rig, mut record) = furnished();
    record.map(virt(BASE + 16 * PAGE, PAGE), PhysAddr::at(8 * GIB), DATA);
    let audit = audited(&rig, record.as_declared().unwrap());
    assert_eq!(
        VirtAddr::at(BASE + 16 * PAGE),
        match audit.first {
            Some(Finding::Unmapped { virt, .. }) => virt.start(),
            other => panic!("{other:?}"),
        }
    );
}
