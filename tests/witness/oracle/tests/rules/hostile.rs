//! Traces that nobody means well with: they end, and nothing panics.

use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_trace::Reader;

use crate::{RW, RW_OTHER, judged, machine, on, table};

#[test]
fn good_tables_that_lead_to_themselves() {
    let itself: Vec<(u64, &str)> = (0..512).map(|index| (index, "40000003")).collect();
    let machine = table(0x4000_0000, &itself) + &on(0) + &on(1);
    let unlink = "0 store 8 0 40000000 0; 0 dsb ish; 0 tlbi vae2is 0; 0 dsb ish; 0 settled; 0 store 8 0 40000000 40000003; end exit";
    judged(&[&machine, unlink]);
}

/// What is not followed is said: no violation is then no verdict.
#[test]
fn bad_tables_that_are_too_large_or_too_shared_have_no_verdict() {
    let incomplete = |parts: &[&str]| !judged(parts).unknowns().is_empty();
    let itself: Vec<(u64, &str)> = (0..512).map(|index| (index, "40000003")).collect();
    let itself = table(0x4000_0000, &itself) + &on(0);
    assert!(incomplete(&[&itself, "0 isb; end exit"]));
    assert!(!incomplete(&[&machine(2, &[(1, RW)]), "0 isb; end exit"]));
}

#[test]
fn good_addresses_and_ranges_at_the_edges() {
    let machine = machine(2, &[(1, RW), (2, "4fffffffff703")]);
    let edges = "0 store 8 0 fffffffffffffff0 1; 0 give 0 1099511627776; 0 take ffffffffffffe000 4096
        0 tlbi vae2is ffffffffffffffff; 0 tlbi rvae2is ffffffffffff; 0 dc civac ffffffffffffffff; 0 dc zva ffffffffffffffff
        0 msr tcr_el2 ffffffffffffffff; 0 msr ttbr0_el2 ffffffffffffffff; 0 isb; 0 store 8 0 40003010 0; 0 settled
        127 start 3; 127 msr sctlr_el2 1; 127 eret; 0 start 2; 0 found sctlr_el2 1; 1 found tcr_el2 0; end exit";
    judged(&[&machine, edges]);
}

#[test]
fn good_noise_of_every_kind_is_judged_without_panic() {
    let words = [
        "0",
        "1",
        "40000000",
        "40000003",
        "40003008",
        "ffffffffffff",
        "ffffffffffffffff",
        "30cd183d",
        "80853510",
        "18086350c",
    ];
    let events = [
        "store 8 A A B",
        "load 8 A A B",
        "dsb ish",
        "dsb nsh",
        "isb",
        "tlbi vae2is A",
        "tlbi alle2is 0",
        "tlbi rvale2is A",
        "msr sctlr_el2 A",
        "msr tcr_el2 A",
        "msr ttbr0_el2 A",
        "msr hcr_el2 A",
        "msr mair_el2 A",
        "dc ivac A",
        "dc zva A",
        "eret",
        "take 40003000 4096",
        "give 40000000 65536",
        "settled",
        "fetch 3",
        "start 2",
        "start 3",
        "found sctlr_el2 A",
        "found ttbr0_el2 A",
    ];
    let mut seed = 1_u64;
    let mut draw = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    for _ in 0..20 {
        let mut text = String::from("breakwater-trace 1\n");
        for number in 1..2000 {
            let aligned = if draw(2) == 0 { "40000008" } else { words[draw(words.len())] };
            let event = events[draw(events.len())].replace('A', aligned).replace('B', words[draw(words.len())]);
            text += &format!("{} {number} {:x} {event}\n", draw(4), 0x1000 * draw(4));
        }
        let mut engine = Obligations::new();
        // What the reader refuses, nobody judges.
        for (line, record) in Reader::new(text.as_bytes()).enumerate() {
            if let Ok(record) = record {
                engine.step(line as u64, &record);
            }
        }
        assert!(!engine.violations().is_empty());
        assert!(engine.clone() == engine);
    }
}

/// Of one place so many are kept; the rest is counted, and hides no other place.
#[test]
fn bad_a_flood_of_one_rule_hides_no_other() {
    const USES: u64 = 100_500;
    let machine = machine(1, &[(1, RW)]);
    // Two instructions fill in a page each, and no ISB follows.
    let fills = "0 2000: store 8 40003010 40003010 40000050002703
        0 3000: store 8 40003018 40003018 40000050003703
        0 dsb ish\n";
    let uses: String = (0..USES).map(|index| format!("0 load 1 {0:x} 5000{0:x} 0\n", 0x2000 + index % 4096)).collect();
    // As many addresses as there are bytes in a page.
    let others: String =
        (0..USES).map(|index| format!("0 load 1 {0:x} 5000{0:x} 0\n", 0x3000 + index % 4096)).collect();
    let rest = format!("0 isb; 0 store 8 40003008 40003008 {RW_OTHER}; 0 dsb ish; end exit");
    let engine = judged(&[&machine, fills, &uses, &others, &rest]);
    let kept = |rule: Rule| engine.violations().iter().filter(move |violation| violation.rule == rule);
    assert_eq!((kept(Rule::OutputChange).count(), kept(Rule::StaleLeaf).count()), (1, 1), "the last change is found");
    let not_kept = engine.not_kept();
    let places: Vec<_> = not_kept.iter().map(|counted| (counted.rule, counted.pe, counted.pc)).collect();
    assert_eq!(places, [(Rule::FillSync, 0, 0x2000), (Rule::FillSync, 0, 0x3000)]);
    for counted in &not_kept {
        let of_place = kept(Rule::FillSync).filter(|violation| violation.pc == counted.pc);
        let (distinct, times) = of_place.fold((0, 0), |(distinct, times), one| (distinct + 1, times + one.times));
        assert_eq!(times + counted.times, USES, "each is counted once");
        assert!(distinct >= 1000 && counted.to_string().contains("were counted"), "{counted}");
    }
}

#[test]
fn good_nothing_is_left_out_of_what_is_kept() {
    assert_eq!(judged(&[&machine(2, &[(1, RW)]), "0 isb; end exit"]).not_kept(), []);
}
