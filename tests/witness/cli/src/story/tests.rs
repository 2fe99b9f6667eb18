//! Claims about rows and how they are told, on traces made by hand.

use breakwater_oracle::policy::Policy;
use breakwater_oracle::xen::{self, Story};
use breakwater_trace::Record;
use breakwater_trace::text::parse;

use super::row::stretches;
use super::{Extent, Judged, Program, Row, Watch, print, xen_row};

const EXTENT: Extent = Extent { offsets: 2, boots: 3, at_once: 2 };

/// A block of code and one of data, under a level 1 root; CPU 0 has its MMU on.
const ON: [&str; 8] = [
    "word 80001008 40000781",
    "word 80001010 40000080000701",
    "word 80001018 400000c0000701",
    "0 1 40000000 start 2",
    "0 1 40000000 found mair_el2 ff",
    "0 1 40000000 found tcr_el2 80803519",
    "0 1 40000000 found ttbr0_el2 80001000",
    "0 1 40000000 found sctlr_el2 30cd183d",
];
/// The data is used, and moves without break or invalidation.
const MOVED: [&str; 4] = [
    "0 2 40000004 load 8 c0000000 c0000000 0",
    "0 3 40000008 store 8 80001018 80001018 40000080000701",
    "0 4 4000000c dsb ish",
    "0 5 40000010 load 8 c0000000 80000000 0",
];

fn judged(lines: &[&str]) -> Judged {
    let mut watch = Watch::new(0, EXTENT.boots);
    for (line, text) in (2..).zip(lines) {
        let record: Record = parse(line, text).ok().flatten().expect(text);
        watch.step(line, &record);
    }
    watch.judged()
}

fn clean() -> Judged {
    judged(&[&ON[..], &["end exit"]].concat())
}

fn broken() -> Judged {
    judged(&[&ON[..], &MOVED, &["end exit"]].concat())
}

#[test]
fn good_a_row_of_clean_boots_is_as_it_should_be() {
    let row = Row::new(Program::ours("Breakwater", 1), &[(0, clean()), (256, clean())]);
    assert_eq!((row.flags().as_str(), row.wrong()), ("nothing", None));
    let text = print::text(std::slice::from_ref(&row), EXTENT.boots);
    assert!(text.contains("none of 18 boots on any kind of core crashes"), "{text}");
    let line = text.lines().find(|line| line.starts_with("(c) Breakwater, 1 CPU ")).expect("its line");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells, ["(c)", "Breakwater,", "1", "CPU", "nothing", "0/2", "0/2", "0/2", "0/2", "0/2"]);
}

#[test]
fn bad_a_violation_in_ours_is_told_with_its_evidence() {
    let row = Row::new(Program::ours("Breakwater", 4), &[(0, clean()), (256, broken())]);
    let wrong = row.wrong().expect("a violation");
    assert!(wrong.starts_with("(c) Breakwater, 4 CPUs: nothing should be flagged; at 1 page offsets"), "{wrong}");
    assert!(wrong.contains("OutputChange") && wrong.contains("256"), "{wrong}");
    let text = print::text(std::slice::from_ref(&row), EXTENT.boots);
    assert!(
        text.contains("hoarder: 1 of 2 boots crash, at page 256\n    the first: page 256, line 13: CPU 0"),
        "{text}"
    );
}

#[test]
fn bad_a_crash_in_ours_is_wrong_even_if_nothing_is_flagged() {
    let mut crashed = broken();
    crashed.flagged.clear();
    let wrong = Row::new(Program::ours("Breakwater", 1), &[(7, crashed)]).wrong().expect("a crash");
    assert!(wrong.contains("(c) Breakwater, 1 CPU, hoarder, page 7: line 13"), "{wrong}");
}

#[test]
fn good_xens_rows_are_flagged_for_the_storys_turning_points() {
    let rows = [Story::Xen411, Story::Xen00c96d77422a].map(|story| xen_row(story, EXTENT, None).expect("a row"));
    assert_eq!(rows.each_ref().map(Row::flags), ["root switch, shatter, fixmap", "root switch, fixmap"]);
    assert_eq!(rows.each_ref().map(Row::wrong), [None, None]);
}

#[test]
fn bad_xens_row_with_the_other_storys_boots() {
    let mut watch = Watch::new(0, 1);
    (2..).zip(&xen::scenario(Story::Xen411, 0)).for_each(|(line, record)| watch.step(line, record));
    let row = Row::new(Program::of_xen(Story::Xen00c96d77422a), &[(0, watch.judged())]);
    let wrong = row.wrong().expect("a shatter too many");
    assert!(wrong.contains("root switch, fixmap should be flagged") && wrong.contains("shatter"), "{wrong}");
}

#[test]
fn good_json_has_every_row_policy_and_stretch() {
    let row = Row::new(Program::ours("Breakwater", 1), &[(0, broken()), (1, broken()), (9, clean())]);
    let json = print::json(&[row], EXTENT.boots);
    let row = &json["rows"][0];
    assert_eq!((&json["boots"], &row["offsets"]), (&3.into(), &3.into()));
    assert_eq!((&row["row"], &row["cpus"], &row["as_expected"]), (&"c".into(), &1.into(), &false.into()));
    assert_eq!((&row["flagged"][0]["rule"], &row["flagged"][0]["offsets"]), (&"OutputChange".into(), &2.into()));
    let policies = row["policies"].as_array().expect("policies");
    assert_eq!(policies.len(), Policy::ALL.len());
    let hoarder = policies.iter().find(|policy| policy["name"] == "hoarder").expect("hoarder");
    assert_eq!((&hoarder["offsets"], &hoarder["boots"], &hoarder["crashed"]), (&2.into(), &3.into(), &2.into()));
    assert_eq!(hoarder["pages"], serde_json::json!([[0, 1]]));
    assert_eq!((&hoarder["first"]["page"], &hoarder["first"]["va"]), (&0.into(), &"0xc0000000".into()));
}

#[test]
fn good_offsets_are_evenly_spaced_and_stretches_join_neighbours() {
    let pages = |offsets| Extent { offsets, ..EXTENT }.pages().collect::<Vec<u16>>();
    assert_eq!(pages(4), [0, 128, 256, 384]);
    assert_eq!(pages(3), [0, 170, 341]);
    assert_eq!(pages(512), (0..512).collect::<Vec<u16>>());
    assert_eq!(stretches(&[1, 2, 3, 7, 510, 511].into()), [(1, 3), (7, 7), (510, 511)]);
}
