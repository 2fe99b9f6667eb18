//! Claims about oracle and house rules together, in pairs, on traces made by hand: what a recorded boot is held to.
//!
//! The machine: 39-bit addresses, so that walks begin at level 1. Roots at 0x4020_1000 and 0x4020_3000 hold one table entry each for the
//! GiB at 0x4000_0000, whose level 2 table follows a page later: code at 0x4000_0000 (R-X), tables at 0x4020_0000 and data at
//! 0x4040_0000 (RW-), and the tables once more at 0x4080_0000. All at their physical addresses but for the last.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use breakwater_trace::{Feature, Record};

use super::conduct::promise;
use super::judge_records;

const RX: u64 = 0x4000_0781;
const RW: u64 = 1 << 54 | 0x701;
/// What every core is judged by.
const FEATURES: [Feature; 2] = [Feature::HcrBarriers, Feature::IsbBeforeMmuOff];

/// Up to M = 1 and its ISB; tables are in place.
const PREPARE: [&str; 6] = ["msr vbar_el2 40000800", "isb", "dsb sy", "msr hcr_el2 80000000", "isb", "mrs hcr_el2"];
const ENABLE: [&str; 10] = [
    "msr mair_el2 ff",
    "msr tcr_el2 80803519",
    "msr ttbr0_el2 40201000",
    "msr sctlr_el2 30cd0838",
    "isb",
    "tlbi alle2 0",
    "dsb nsh",
    "isb",
    "msr sctlr_el2 30cd183d",
    "isb",
];
const SWITCH: [&str; 12] = [
    "store 8 40400000 40400000 1",
    "dsb ish",
    "isb",
    "msr sctlr_el2 30cd183c",
    "isb",
    "tlbi alle2 0",
    "dsb nsh",
    "isb",
    "msr ttbr0_el2 40203000",
    "isb",
    "msr sctlr_el2 30cd183d",
    "isb",
];
/// The data block moves: break, invalidate, make.
const MOVE: [&str; 8] = [
    "store 8 40202010 40202010 0",
    "dsb ishst",
    "tlbi vae2is 40400",
    "dsb ish",
    "isb",
    "store 8 40202010 40202010 40000040600701",
    "dsb ishst",
    "isb",
];
/// A level 2 table is filled and linked for 0x8000_0000.
const LINK: [&str; 5] =
    ["store 8 40205000 40205000 40000040400701", "dsb ishst", "store 8 40201010 40201010 40205003", "dsb ishst", "isb"];
/// What a CPU does that is on: its data, cleaned, and CPU 1 is let go.
const RELEASE: [&str; 4] =
    ["store 8 40400080 40400080 7", "dc civac 40400080", "dsb sy", "smc 0 c4000003 1 40000000 0"];

fn words() -> String {
    let mut text = String::new();
    for root in [0x4020_1000_u64, 0x4020_3000] {
        let slots = [RX, 0x4020_0000 | RW, 0x4040_0000 | RW, 0, 0x4020_0000 | RW];
        text += &format!("word {:x} {:x}\n", root + 8, (root + 0x1000) | 3);
        for (index, word) in slots.iter().enumerate() {
            text += &format!("word {:x} {word:x}\n", root + 0x1000 + 8 * index as u64);
        }
    }
    // The table of LINK, empty.
    for slot in (0x4020_5000_u64..0x4020_6000).step_by(8) {
        text += &format!("word {slot:x} 0\n");
    }
    text
}

/// The rules that a trace breaks. Each event is a line of the CPU that its prefix names, of CPU 0 without one.
fn judged<'a>(features: &[Feature], words: &str, events: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut text = format!("breakwater-trace 1\n{words}0 1 40000000 start 2\n");
    let mut counts = [1_u64, 0];
    for event in events {
        let (cpu, event) = event.strip_prefix("1: ").map_or((0, event), |event| (1, event));
        counts[cpu] += 1;
        text += &format!("{cpu} {} {:x} {event}\n", counts[cpu], 0x4000_0000 + 4 * counts[cpu]);
    }
    text += "end exit\n";
    let features = features.iter().copied().chain([Feature::StrictSwitch]);
    let features: Vec<_> = features.map(|feature| Record::Feature { cpu: None, feature }).collect();
    let verdict =
        judge_records(text.as_bytes(), &features, Some(0x4000_0000..0x4000_1000)).expect("the trace is well-formed");
    let rules: BTreeSet<_> =
        verdict.findings.iter().flat_map(|finding| &finding.symptoms).map(|symptom| symptom.rule).collect();
    let rules = rules.iter().map(|rule| format!("{rule:?}"));
    let lapses = verdict.lapses.iter().map(|lapse| lapse.promise.to_owned());
    rules.chain(lapses).chain(verdict.unknowns.iter().map(ToString::to_string)).collect()
}

fn broken<'a>(events: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    judged(&FEATURES, &words(), events)
}

/// A boot up to M = 1, then `events`, then something that is no ISB.
fn on<'a>(events: &[&'a str]) -> Vec<&'a str> {
    [&PREPARE[..], &ENABLE, events, &["mrs mpidr_el1"]].concat()
}

/// Without the step at `index`.
fn without<'a>(events: &[&'a str], index: usize) -> Vec<&'a str> {
    [&events[..index], &events[index + 1..]].concat()
}

/// Every step but those in `free` must be missed.
fn each_step_is_missed<'a>(events: &[&'a str], free: &[usize], whole: impl Fn(&[&'a str]) -> Vec<&'a str>) {
    assert_eq!(broken(whole(events)), [""; 0]);
    for index in (0..events.len()).filter(|index| !free.contains(index)) {
        assert_ne!(broken(whole(&without(events, index))), [""; 0], "without {index}: {}", events[index]);
    }
}

/// `events` with the one at `index` replaced.
fn with<'a>(events: &[&'a str], index: usize, event: &'a str) -> Vec<&'a str> {
    let mut events = events.to_vec();
    events[index] = event;
    events
}

fn breaks(events: Vec<&str>, rule: &str) {
    let found = broken(events);
    assert!(found.iter().any(|found| found.contains(rule)), "{rule:?} is not among {found:?}");
}

#[test]
fn good_a_strict_boot_keeps_every_rule() {
    let second = ["1: start 2", "1: msr vbar_el2 40000800", "1: isb", "1: load 8 40400080 40400080 7"];
    let switch = with(&SWITCH, 0, "store 8 40400000 40600000 1"); // where MOVE has led it
    let boot = on(&[&LINK[..], &RELEASE, &second, &MOVE, &switch].concat());
    assert_eq!(broken(boot), [""; 0]);
}

#[test]
fn good_stores_elsewhere_owe_nothing() {
    assert_eq!(broken(on(&["store 8 40400000 40400000 1", "store 1 9000000 9000000 41 device"])), [""; 0]);
}

#[test]
fn bad_a_first_enable_without_any_one_step() {
    let first = [&PREPARE[..], &ENABLE].concat();
    // Without M there is nothing to judge.
    each_step_is_missed(&first, &[14], |events| [events, &["mrs mpidr_el1"]].concat());
}

#[test]
fn bad_a_first_enable_in_another_order() {
    let first = [&PREPARE[..], &ENABLE, &["mrs mpidr_el1"]].concat();
    // Free: the first ISB and the DSB; which of MAIR, TCR, TTBR0 and WXN comes first, even before the read of HCR_EL2.
    for index in (0..first.len() - 2).filter(|index| ![1, 5, 6, 7, 8].contains(index)) {
        let mut events = first.clone();
        events.swap(index, index + 1);
        assert_ne!(broken(events), [""; 0], "{} after {}", first[index], first[index + 1]);
    }
}

#[test]
fn bad_a_first_enable_with_a_weaker_step() {
    let enable = |index, event| [&PREPARE[..], &with(&ENABLE, index, event), &["mrs mpidr_el1"]].concat();
    const CLEARED: &str = "FirstEnable";
    breaks(enable(6, "dsb nshst"), CLEARED);
    breaks(enable(6, "dmb sy"), CLEARED);
    breaks(enable(5, "tlbi alle1 0"), CLEARED);
    breaks(enable(5, "tlbi vae2 40000"), CLEARED);
    breaks(enable(5, "tlbi alle2is 0"), CLEARED); // a broadcast is not complete after DSB NSH
    breaks(enable(3, "msr sctlr_el2 30c50838"), "WXN is set while M is still 0");
    breaks(enable(8, "msr sctlr_el2 30c5183d"), "ControlChange");
    breaks(enable(8, "msr sctlr_el2 30cd0839"), "C and I are set together");
    breaks(enable(3, "msr sctlr_el2 30cd083c"), "C is not set before M");
    breaks([&["fetch 24"], &enable(2, "msr ttbr0_el2 40205000")[..]].concat(), "IdentityCode");
    breaks([&with(&PREPARE, 3, "msr hcr_el2 480000000")[..], &ENABLE].concat(), "E2H is 1");
    assert_eq!(broken(enable(6, "dsb ish")), [""; 0]);
}

#[test]
fn bad_vectors_that_nothing_maps() {
    let store = "store 8 40800100 40200100 1";
    assert_eq!(broken(on(&[store])), [""; 0]);
    breaks(on(&["msr vbar_el2 40c00800", "isb", store]), "VBAR_EL2 leads to executable memory");
    breaks(on(&["msr vbar_el2 40000000", store]), "VBAR_EL2 is written and an ISB follows");
}

#[test]
fn bad_each_promise_by_itself() {
    let enable = |index, event| [&PREPARE[..], &with(&ENABLE, index, event), &["mrs mpidr_el1"]].concat();
    let store = "store 8 40800100 40200100 1";
    let cases = [
        (promise::VECTORS, on(&["msr vbar_el2 40000000", store])),
        (promise::VECTORS_MAPPED, on(&["msr vbar_el2 40c00800", "isb", store])),
        (promise::HCR_READ_BACK, [&PREPARE[..5], &ENABLE, &["mrs mpidr_el1"]].concat()),
        (promise::TCR2_WRITTEN, [&["found tcr2_el2 0"], &on(&[])[..]].concat()),
        (promise::WXN_BEFORE_M, enable(3, "msr sctlr_el2 30c50838")),
        (promise::CACHES_WITH_M, enable(8, "msr sctlr_el2 30cd0839")),
        (promise::C_NOT_BEFORE_M, enable(3, "msr sctlr_el2 30cd083c")),
        (promise::ISB_AFTER_M, [&PREPARE[..], &ENABLE[..9], &["mrs mpidr_el1", "isb"]].concat()),
        (promise::SCTLR_KEPT, on(&["msr sctlr_el2 30c5183d"])),
        (promise::ROOT_WITH_M_OFF, on(&["msr ttbr0_el2 40203000"])),
        (promise::STORES_COMPLETE, on(&with(&SWITCH, 1, "dsb ishst"))),
        (promise::M_ALONE, on(&with(&SWITCH, 3, "msr sctlr_el2 30cd1838"))),
        (promise::CLEARED_BEFORE_ROOT, on(&with(&SWITCH, 5, "tlbi vae2 40000"))),
    ];
    assert_eq!(cases.each_ref().map(|(promise, _)| *promise), promise::ALL);
    for (promise, events) in cases {
        breaks(events, promise);
    }
}

#[test]
fn good_the_page_of_rules_lists_the_promises() {
    let page =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|above| above.join("tests/witness/oracle/RULES.md"));
    let page = page.filter_map(|page| fs::read_to_string(page).ok()).next().expect("the page is there");
    let (_, section) = page.split_once("\n## What this image promises besides\n").expect("so is the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    assert_eq!(rows.skip(1).collect::<Vec<_>>(), promise::ALL);
}

#[test]
fn bad_a_root_switch_without_any_one_step() {
    // The store only makes the DSB necessary; the same root again is allowed; without M there is nothing to judge.
    each_step_is_missed(&SWITCH, &[0, 8, 10], on);
}

#[test]
fn bad_a_root_switch_with_a_weaker_step() {
    breaks(on(&with(&SWITCH, 1, "dsb ishst")), "a full DSB, ISH or wider");
    breaks(on(&with(&SWITCH, 1, "dsb nsh")), "a full DSB, ISH or wider");
    breaks(on(&with(&SWITCH, 6, "dsb nshst")), "before TTBR0_EL2");
    breaks(on(&with(&SWITCH, 5, "tlbi vae2 40000")), "before TTBR0_EL2");
    breaks(on(&with(&SWITCH, 3, "msr sctlr_el2 30cd1838")), "toggles M alone");
    breaks(on(&with(&SWITCH, 10, "msr sctlr_el2 30c5183d")), "WXN is set while M is still 0, and kept");
    breaks(on(&[&["fetch 9"], &with(&SWITCH, 8, "msr ttbr0_el2 40205000")[..]].concat()), "IdentityCode");
    let accesses = ["load 8 40400000 40400000 0", "store 8 40400000 40400000 0"];
    for access in accesses {
        breaks(on(&[&SWITCH[..9], &[access], &SWITCH[9..]].concat()), "WindowAccess");
    }
    breaks(on(&["msr tcr_el2 80803518", "isb"]), "ControlChange");
    breaks(on(&["msr sctlr_el2 30c5183d"]), "is kept while M is 1");
}

#[test]
fn bad_break_before_make_without_any_one_step() {
    // The last ISB covers for the first; the slot may also stay broken.
    each_step_is_missed(&MOVE, &[4, 5], on);
}

#[test]
fn bad_an_invalidation_that_does_not_cover() {
    const MAKE: &str = "OutputChange";
    // Another address; another regime; a level that is not the entry's (RSQXYZ); a range without a granule.
    for tlbi in ["tlbi vae2is 40600", "tlbi vmalls12e1is 0", "tlbi vae2is 500000040400", "tlbi rvae2is 40400"] {
        breaks(on(&with(&MOVE, 2, tlbi)), MAKE);
    }
    for tlbi in ["tlbi vale2is 405ff", "tlbi alle2 0", "tlbi vae2is 600000040400", "tlbi rvae2is 400000040400"] {
        let able = [&FEATURES[..], &[Feature::Ttl, Feature::TlbiRange]].concat();
        assert_eq!(judged(&able, &words(), on(&with(&MOVE, 2, tlbi))), [""; 0], "{tlbi}");
    }
    // One CPU alone walks these tables: a barrier of its own would do, but not one of loads.
    breaks(on(&with(&MOVE, 1, "dsb ld")), MAKE);
    breaks(on(&with(&MOVE, 3, "dsb ishst")), MAKE);
    breaks(on(&with(&MOVE, 3, "dsb nsh")), MAKE);
    breaks(on(&[MOVE[0], MOVE[1], MOVE[2], "store 8 40202010 40202010 2"]), "UnfinishedTlbi");
    breaks(on(&with(&MOVE, 0, "isb")), MAKE);
}

#[test]
fn bad_a_table_unlinked_by_its_last_level_only() {
    let unlink =
        |tlbi| on(&[&LINK[..], &["store 8 40201010 40201010 0", "dsb ishst", tlbi, "dsb ish", "isb"]].concat());
    assert_eq!(broken(unlink("tlbi vae2is 80000")), [""; 0]);
    breaks(unlink("tlbi vale2is 80000"), "StaleTable");
}

#[test]
fn bad_rights_changed_without_invalidation() {
    let change = "store 8 40202010 40202010 40000040400781";
    let tail = ["dsb ishst", "tlbi vale2 40400", "dsb nsh", "isb"];
    each_step_is_missed(&tail, &[], |tail| on(&[&[change], tail].concat()));
}

#[test]
fn bad_a_local_invalidation_while_two_cpus_share() {
    let second: Vec<String> = PREPARE.iter().chain(&ENABLE).map(|event| format!("1: {event}")).collect();
    let second: Vec<&str> = ["1: start 2"].into_iter().chain(second.iter().map(String::as_str)).collect();
    let both = |events: &[&'static str]| {
        let first = [&PREPARE[..], &ENABLE].concat();
        broken(first.into_iter().chain(second.iter().copied()).chain(events.iter().copied()))
    };
    assert_eq!(both(&MOVE), [""; 0]);
    assert_ne!(both(&with(&MOVE, 2, "tlbi vae2 40400")), [""; 0]);
}

#[test]
fn bad_a_broadcast_that_is_not_repeated_where_the_erratum_wants_it() {
    let demands = [&FEATURES[..], &[Feature::RepeatTlbi]].concat();
    assert_ne!(judged(&demands, &words(), on(&MOVE)), [""; 0]);
    let repeated = [&MOVE[..4], &["tlbi vae2is 0", "dsb ish"], &MOVE[4..]].concat();
    assert_eq!(judged(&demands, &words(), on(&repeated)), [""; 0]);
    assert_eq!(judged(&demands, &words(), on(&with(&MOVE, 2, "tlbi vae2 40400"))), [""; 0], "local: not affected");
}

#[test]
fn bad_a_frame_given_back_too_early() {
    let give = "give 40400000 2097152";
    breaks(on(&[&MOVE[..3], &[give], &MOVE[3..]].concat()), "FrameReuse");
    assert_eq!(broken(on(&[&MOVE[..5], &[give], &MOVE[5..]].concat())), [""; 0]);
}

#[test]
fn bad_a_link_without_any_one_step() {
    each_step_is_missed(&LINK, &[0, 1, 2], on);
    // An empty table may be filled late. One that held something else may not be linked before that is gone for every walker.
    let held = ["store 8 40205008 40205008 40000040600781", "store 8 40205008 40205008 0"];
    assert_eq!(broken(on(&[&held[..], &LINK].concat())), [""; 0]);
    breaks(on(&[&held[..], &without(&LINK, 1)].concat()), "StaleLeaf");
    breaks(on(&[&held[..], &with(&LINK, 1, "dsb ld")].concat()), "StaleLeaf");
    breaks(on(&with(&LINK, 3, "dmb sy")), "NotVisible");
}

#[test]
fn bad_a_mapping_used_before_its_isb() {
    let used = "store 8 80000000 40400000 1";
    assert_eq!(broken(on(&[&LINK[..], &[used]].concat())), [""; 0]);
    breaks(on(&[&LINK[..4], &[used], &LINK[4..]].concat()), "FillSync");
}

#[test]
fn bad_a_release_without_any_one_step() {
    let load = ["1: start 2", "1: msr vbar_el2 40000800", "1: isb", "1: load 8 40400080 40400080 7"];
    // What is never stored needs no cleaning; how the CPU is let go is the firmware's affair.
    each_step_is_missed(&RELEASE, &[0, 3], |release| on(&[release, &load].concat()));
    const RULE: &str = "NotCleaned";
    breaks(on(&[&with(&RELEASE, 2, "dsb nsh")[..], &load].concat()), RULE);
    breaks(on(&[&with(&RELEASE, 1, "dc cvau 40400080")[..], &load].concat()), RULE);
    breaks(on(&[&with(&RELEASE, 1, "dc civac 404000c0")[..], &load].concat()), RULE);
    breaks(on(&["store 8 40400080 40400080 7", "1: start 2", "1: store 4 40400084 40400084 1"]), "LineBefore");
}

#[test]
fn bad_a_refusal_that_may_not_have_left_the_cpu() {
    let refused = |barrier| {
        let stop = ["store 4 40400000 40400000 3", barrier, "smc 0 84000002 0 0 0"];
        broken([&PREPARE[..], &stop].concat())
    };
    assert_eq!(refused("dsb sy"), [""; 0]);
    for weaker in ["dsb ld", "dsb nsh", "isb"] {
        assert!(refused(weaker).iter().any(|rule| rule == "CallStores"), "{weaker}");
    }
}

#[test]
fn bad_el2_entered_from_el3_with_unknown_controls() {
    let first = [&PREPARE[..], &ENABLE].concat();
    let from_el3 = |reset: &[&'static str]| {
        // A second `start` stands for the first one's exception level.
        broken(["start 3"].into_iter().chain(reset.iter().copied()).chain(["eret"]).chain(first.iter().copied()))
    };
    assert_eq!(from_el3(&["msr sctlr_el2 30c50830"]), [""; 0]);
    assert!(from_el3(&[]).iter().any(|rule| rule == "ControlUnknown"));
}

/// The tables of the first root, zeroed and stored with the MMU off: maintenance of two pages, line by line.
fn built() -> Vec<String> {
    let lines = || (0x4020_1000..0x4020_3000).step_by(64).map(|line: u64| format!("dc ivac {line:x}"));
    let zeros = (0x4020_1000_u64..0x4020_3000).step_by(16).map(|pa| format!("store 16 {pa:x} {pa:x} 0 0"));
    let words = words();
    let words = words.lines().take(6).filter_map(|line| line.strip_prefix("word ")?.split_once(' '));
    let stores: Vec<String> = words.map(|(pa, word)| format!("store 8 {pa} {pa} {word}")).collect();
    let before = lines().chain(["dsb sy".to_owned()]).chain(zeros);
    before.chain(stores).chain(["dmb sy".to_owned()]).chain(lines()).chain(["dsb sy".to_owned()]).collect()
}

fn judged_build(built: &[String]) -> Vec<String> {
    let built = built.iter().map(String::as_str);
    let events: Vec<&str> = PREPARE.into_iter().chain(built).chain(ENABLE).collect();
    judged(&FEATURES, "", events)
}

#[test]
fn bad_tables_built_without_any_one_step_of_maintenance() {
    let whole = built();
    assert_eq!(judged_build(&whole), [""; 0]);
    for index in (0..whole.len()).filter(|index| !whole[*index].starts_with("store")) {
        let mut built = whole.clone();
        let step = built.remove(index);
        assert_ne!(judged_build(&built), [""; 0], "without {index}: {step}");
    }
}

#[test]
fn bad_tables_built_with_weaker_or_harmful_maintenance() {
    let replaced = |from: &str, to: &str| {
        let built: Vec<String> =
            built().iter().map(|event| if event.as_str() == from { to.to_owned() } else { event.clone() }).collect();
        judged_build(&built)
    };
    for weaker in ["dsb st", "dsb nsh", "dsb ld", "dmb sy"] {
        assert_ne!(replaced("dsb sy", weaker), [""; 0], "{weaker}");
    }
    assert_ne!(replaced("dmb sy", "dmb st"), [""; 0]);
    assert_ne!(replaced("dc ivac 40201040", "dc civac 40201040"), [""; 0]);
    for harmful in ["dc cvac 40202f40", "dc cisw 0"] {
        let mut built = built();
        let ordered = built.iter().position(|event| event == "dmb sy").expect("the stores are ordered");
        built.splice(ordered + 1..ordered + 1, [harmful.to_owned(), "dsb sy".to_owned()]);
        assert!(judged_build(&built).iter().any(|rule| rule == "LineCleaned"), "{harmful}");
    }
    let zeroed: Vec<String> = ["dc zva 40201000".to_owned()].into_iter().chain(built()).collect();
    assert!(judged_build(&zeroed).iter().any(|rule| rule == "ZeroMmuOff"));
}

#[test]
fn bad_traces_end_in_an_error() {
    let error = |text: &str| judge_records(text.as_bytes(), &[], Some(0..0)).err().map(|error| format!("{error:#}"));
    assert!(error("").is_some_and(|error| error.contains("line 1")));
    assert!(error("breakwater-trace 1\n0 1 0 isb\n").is_some_and(|error| error.contains("breaks off")));
    assert!(
        error("breakwater-trace 1\n9999999 1 0 isb\nend exit\n")
            .is_some_and(|error| error.contains("at most 128 CPUs"))
    );
}
