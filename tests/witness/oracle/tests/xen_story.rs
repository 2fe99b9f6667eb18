//! The Xen story: the scenarios are sound as traces, and the table of boots that crash is printed, whatever it says.

#[path = "xen_story/judged.rs"]
mod judged;
#[path = "xen_story/tables.rs"]
mod tables;

use breakwater_oracle::policy::{Policy, replay};
use breakwater_oracle::xen::{self, Rights, Story};
use breakwater_trace::{Event, Operation, Record, Step, text};
use tables::Tables;

const STORIES: [Story; 2] = [Story::Xen411, Story::Xen00c96d77422a];
/// Page offsets at both ends, where the image wraps at each of its parts, and some between.
const OFFSETS: [u16; 9] = [0, 1, 8, 255, 307, 316, 359, 510, 511];
/// Boots of the random policies at each page offset, in the test; the example takes more.
const SEEDS: u64 = 2;

/// The event of a step.
const fn event(record: &Record) -> Option<&Event> {
    match record {
        Record::Step(Step { event, .. }) => Some(event),
        _ => None,
    }
}

fn is_alle2(record: &Record) -> bool {
    let name = |operation: &Operation| operation.name() == Some("alle2");
    matches!(event(record), Some(Event::Maintain { operation, .. }) if name(operation))
}

#[test]
fn good_a_scenario_is_a_trace_that_reads_back() {
    for story in STORIES {
        for (line, record) in (2..).zip(&xen::scenario(story, 77)) {
            let read = text::parse(line, &record.to_string());
            assert_eq!(read.as_ref().ok().and_then(Option::as_ref), Some(record), "{record}");
        }
    }
}

#[test]
fn good_every_access_goes_where_the_tables_of_that_moment_say() {
    for story in STORIES {
        for (rights, offset) in OFFSETS.into_iter().flat_map(|o| [(Rights::Separate, o), (Rights::AsWritten, o)]) {
            let mut tables = Tables::default();
            for (line, record) in (2..).zip(&xen::scenario_with(story, offset, rights)) {
                if let Err(wrong) = tables.step(record) {
                    panic!("{story:?} {rights:?} at page {offset}, line {line}, {record}: {wrong}");
                }
            }
            assert!(tables.accesses > 1000);
        }
    }
}

#[test]
fn good_the_story_has_its_turning_points() {
    let stores_to_second = |story| {
        let records = xen::scenario(story, 0);
        let switch = records.iter().position(
            |record| matches!(event(record), Some(Event::Msr { register, .. }) if register.name() == Some("ttbr0_el2")),
        );
        let switch = switch.expect("a root switch");
        let flushed = records[switch..].iter().position(is_alle2).expect("ALLE2 after it");
        assert!(flushed <= 4, "only the ISB and its fetch stand between");
        let settled = records.iter().filter(|record| matches!(event(record), Some(Event::Settled))).count();
        assert_eq!(settled, 4, "the protection, two pages of a module, the slot cleared");
        let after = records[switch..].iter().filter_map(event);
        after.filter(|event| matches!(event, Event::Store(access) if !access.device)).count()
    };
    // 512 pages and the table in place of the block.
    assert_eq!(stores_to_second(Story::Xen411) - stores_to_second(Story::Xen00c96d77422a), 513);
}

#[test]
fn bad_without_its_invalidations_no_part_boots_xen_411() {
    for offset in OFFSETS {
        let records = xen::scenario_with(Story::Xen411, offset, Rights::AsWritten);
        let records: Vec<_> = records.into_iter().filter(|record| !is_alle2(record)).collect();
        for policy in Policy::ALL {
            assert!(replay(*policy, 1, &records).is_some(), "{} at page {offset}", policy.name());
        }
    }
}

/// Not a claim about parts: what the story looks like on those of [`Policy`]. A boot that crashes is a violation met;
/// one that does not proves nothing.
#[test]
fn good_the_table_covers_every_policy_and_page_offset() {
    for (title, story) in [("(a) Xen 4.11", STORIES[0]), ("(b) after 00c96d77422a", STORIES[1])] {
        let table = xen::table(title, SEEDS, |offset| xen::scenario_with(story, offset, Rights::AsWritten));
        println!("{table}");
        for policy in Policy::ALL {
            let boots = if policy.is_random() { 512 * SEEDS as u32 } else { 512 };
            assert_eq!(table.boots_that_crash(*policy).1, boots);
        }
        assert_eq!(table.details().lines().count(), 2 + 512);
    }
}
