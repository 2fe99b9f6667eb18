//! What the rules say of the story: which are broken, and at which of its events.

use std::collections::BTreeSet;

use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_oracle::policy::{Policy, replay};
use breakwater_oracle::xen::{self, PAGES, Rights, Story, XEN};
use breakwater_trace::{Access, Event, Record, Step, text};

use super::event;

/// A broken rule, and the line where it was broken.
type Found = BTreeSet<(Rule, u64)>;

fn judged(records: &[Record]) -> Found {
    let mut engine = Obligations::new();
    (2..).zip(records).for_each(|(line, record)| engine.step(line, record));
    engine.violations().iter().map(|violation| (violation.rule, violation.line)).collect()
}

/// The lines of the story's events that are to be flagged.
struct Lines {
    root_switch: u64,
    /// The last store to the new level 2 table's entry for the image.
    shatter: u64,
    /// The second page of a module in its fixmap slot.
    fixmap: u64,
}

impl Lines {
    fn of(records: &[Record]) -> Self {
        let lines = |is_meant: &dyn Fn(&Event) -> bool| -> Vec<u64> {
            let numbered = (2..).zip(records).filter(|(_, record)| event(record).is_some_and(is_meant));
            numbered.map(|(line, _)| line).collect()
        };
        let root_switch =
            lines(&|event| matches!(event, Event::Msr { register, .. } if register.name() == Some("ttbr0_el2")));
        // A level 2 entry for the image's 2 MiB has index 1; so has the fixmap slot of modules. The copy is stored by
        // 16 bytes.
        let makes = |low_bits: u64| {
            move |event: &Event| match event {
                Event::Store(access) => access.value[0] & 0xfff == low_bits && access.pa & 0xfff == 8 * (XEN >> 21),
                _ => false,
            }
        };
        let (table, uncached) = (makes(0xf7f), makes(0xe67));
        let fixmap = lines(&uncached);
        assert_eq!((root_switch.len(), fixmap.len()), (1, 2));
        let shatter = lines(&table).last().copied().expect("a table for the image");
        Self { root_switch: root_switch[0], shatter, fixmap: fixmap[1] }
    }

    fn expected(&self, story: Story) -> Found {
        let shatter = (Rule::SizeChange, self.shatter);
        let both = [(Rule::RootSwitch, self.root_switch), (Rule::OutputChange, self.fixmap)];
        let alone = (story == Story::Xen411).then_some(shatter);
        both.into_iter().chain(alone).collect()
    }
}

#[test]
fn bad_xen_411_switches_root_shatters_a_block_and_repoints_a_fixmap_slot() {
    for offset in 0..PAGES {
        let records = xen::scenario(Story::Xen411, offset);
        let expected = Lines::of(&records).expected(Story::Xen411);
        assert_eq!(expected.len(), 3);
        assert_eq!(judged(&records), expected, "page {offset}");
    }
}

#[test]
fn bad_after_00c96d77422a_root_switch_and_fixmap_are_left() {
    for offset in 0..PAGES {
        let records = xen::scenario(Story::Xen00c96d77422a, offset);
        let expected = Lines::of(&records).expected(Story::Xen00c96d77422a);
        assert_eq!(expected.len(), 2);
        assert_eq!(judged(&records), expected, "page {offset}");
    }
}

#[test]
fn bad_with_the_rights_that_xen_wrote_it_is_writable_and_executable_besides() {
    for (story, offset) in [(Story::Xen411, 0), (Story::Xen411, 300), (Story::Xen00c96d77422a, 511)] {
        let records = xen::scenario_with(story, offset, Rights::AsWritten);
        let lines = Lines::of(&records);
        let found = judged(&records);
        let (rights, rest): (Found, Found) = found.into_iter().partition(|(rule, _)| *rule == Rule::WriteExecute);
        assert_eq!(rest, lines.expected(story), "{story:?} at page {offset}");
        // The first pages from the start; in 4.11 the block too, from the switch on.
        assert_eq!(rights.len(), if story == Story::Xen411 { 2 } else { 1 }, "{rights:?}");
    }
}

/// `text` as what CPU 0 does next, before the instruction of `record`. From address 0, which says that it is not known where the code stands:
/// the story has no identity page, where code that turns the MMU off would be.
fn before(record: &Record, text: &[&str]) -> Vec<Record> {
    let Record::Step(Step { instruction, .. }) = record else { panic!("{record} is no step") };
    let line = |event: &&str| text::parse(0, &format!("0 {instruction} 0 {event}"));
    text.iter().map(|event| line(event).ok().flatten().expect(event)).collect()
}

/// The later story as the architecture asks for it: the MMU off around the switch, the fixmap slot cleared first.
fn repaired() -> Vec<Record> {
    let records = xen::scenario(Story::Xen00c96d77422a, 42);
    let lines = Lines::of(&records);
    let mut repaired = Vec::new();
    for (line, record) in (2..).zip(&records) {
        if line == lines.root_switch {
            let off = ["msr sctlr_el2 30c5183c", "isb", "tlbi alle2 0", "dsb nsh", "isb"];
            repaired.extend(before(record, &off));
        }
        if line == lines.root_switch + 2 {
            repaired.extend(before(record, &["msr sctlr_el2 30c5183d", "isb"]));
        }
        if line == lines.fixmap {
            let Some(Event::Store(Access { va, pa, .. })) = event(record) else { panic!("{record} is no store") };
            let broken = format!("store 8 {va:x} {pa:x} 0");
            repaired.extend(before(record, &[&broken, "dsb ishst", "tlbi vae2is 401", "dsb ish"]));
        }
        repaired.push(record.clone());
    }
    repaired
}

fn crashes(records: &[Record]) -> bool {
    Policy::ALL.iter().any(|policy| (0..4).any(|seed| replay(*policy, seed, records).is_some()))
}

#[test]
fn good_with_the_mmu_off_and_the_slot_cleared_first_nothing_is_left() {
    let records = repaired();
    assert_eq!(judged(&records), Found::new());
    assert!(!crashes(&records));
}

/// A part may pass where a rule is broken; none may crash where none is. One missing TLBI goes unnoticed by parts, so
/// two are taken.
#[test]
fn good_no_part_crashes_without_a_violation() {
    let records = repaired();
    let invalidates = |place: &usize| match event(&records[*place]) {
        Some(Event::Maintain { operation, .. }) => operation.invalidates_el2(),
        _ => false,
    };
    let tlbis: Vec<usize> = (0..records.len()).filter(invalidates).collect();
    // Of the 512 for the relocation area the first and the last are enough.
    let alone = |tlbi: &&usize| !(invalidates(&(**tlbi - 1)) && invalidates(&(**tlbi + 1)));
    let tlbis: Vec<usize> = tlbis.iter().filter(alone).copied().collect();
    let (mut tried, mut flagged, mut crashed) = (0, 0, 0);
    for (place, first) in tlbis.iter().enumerate() {
        for second in &tlbis[place + 1..] {
            let mut records = records.clone();
            let gone = [records.remove(*second), records.remove(*first)];
            let (is_flagged, is_crash) = (!judged(&records).is_empty(), crashes(&records));
            assert!(is_flagged || !is_crash, "without {} and {} nobody may crash", gone[1], gone[0]);
            (tried, flagged, crashed) = (tried + 1, flagged + usize::from(is_flagged), crashed + usize::from(is_crash));
        }
    }
    println!("{tried} pairs of TLBIs deleted: {flagged} boots flagged, {crashed} crash on some part");
    assert!(0 < crashed && crashed < flagged && flagged < tried);
}
