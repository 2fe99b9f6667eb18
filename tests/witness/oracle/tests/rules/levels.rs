//! Accesses at EL3, EL1 and EL0 are not translated by EL2's tables; what they store, invalidate and clean counts.

use breakwater_oracle::obligations::Rule;

use crate::unknown::no_verdict;
use crate::{RW, RW_OTHER, assert_broken, judged, machine, page};

/// Nothing is broken after `parts`, and nothing is unknown.
#[track_caller]
fn assert_clean(parts: &[&str]) {
    crate::unknown::assert_clean(parts);
}

/// Page 1 is broken, and not invalidated.
fn broken_page() -> String {
    machine(1, &[(1, RW)]) + &page(1, "0")
}

/// Uses of page 1, each a violation at EL2.
const USES: [&str; 3] = ["0 load 8 1000 50000000 0", "0 store 8 1000 77000000 1", "0 1000: fetch 1"];

/// SCTLR_EL1 with M, C and I.
const CACHED: &str = "0 msr sctlr_el1 30d0198d";
/// ... and without.
const PAST_CACHES: &str = "0 msr sctlr_el1 30d00988";
/// M = 0 at EL2.
const OFF: &str = "0 found sctlr_el2 30c50830";

#[test]
fn good_accesses_below_el2_are_not_judged() {
    for way in ["0 eret 1", "0 eret 0", "0 msr spsr_el2 3c5; 0 eret", "0 msr spsr_el2 1d3; 0 eret", "0 eret 1; 0 eret"]
    {
        for access in USES {
            assert_clean(&[&broken_page(), way, access]);
            // What is taken to EL1 is in no trace, and changes nothing.
            assert_clean(&[&broken_page(), way, "0 svc 0 0 0 0 0", access]);
        }
    }
}

#[test]
fn bad_accesses_at_el2_after_a_return() {
    for way in [
        "0 eret 2",
        "0 msr spsr_el2 3c9; 0 eret",
        "0 exception 0 0 0; 0 eret",
        "0 msr spsr_el2 3c5; 0 eret; 0 hvc 0 0 0 0 0; 0 exception 0 0 0",
        "0 msr spsr_el2 3c5; 0 exception 0 0 0; 0 eret",
        "0 eret 1; 0 exception 0 0 0; 0 msr spsr_el2 3c9; 0 eret",
        "0 smc 0 0 0 0 0",
    ] {
        for access in USES {
            assert_broken(&[&broken_page(), way, access], &[Rule::BrokenUse]);
        }
    }
}

#[test]
fn good_accesses_at_el3_are_not_judged() {
    for access in USES {
        assert_clean(&[&broken_page(), "0 smc 0 0 0 0 0; 0 exception 0 0 0 3", access]);
        assert_clean(&[&broken_page(), "0 eret 1; 0 exception 0 0 0 3", access, "0 eret", access]);
        assert_clean(&[&broken_page(), "0 exception 0 0 0 3; 0 msr spsr_el3 3c5; 0 eret", access]);
    }
}

#[test]
fn bad_accesses_at_el2_after_el3() {
    for access in USES {
        assert_broken(&[&broken_page(), "0 smc 0 0 0 0 0; 0 exception 0 0 0 3; 0 eret", access], &[Rule::BrokenUse]);
        let written = "0 eret 1; 0 exception 0 0 0 3; 0 msr spsr_el3 3c9; 0 eret";
        assert_broken(&[&broken_page(), written, access], &[Rule::BrokenUse]);
    }
}

#[test]
fn bad_a_table_that_a_lower_level_changes_in_place() {
    let change = page(1, RW_OTHER);
    for to in ["0 eret 1", "1 eret 1; 1 exception 0 0 0"] {
        assert_broken(&[&machine(2, &[(1, RW)]), to, &change], &[Rule::OutputChange]);
    }
    let by_firmware = "0 exception 0 0 0 3";
    assert_broken(&[&machine(2, &[(1, RW)]), by_firmware, &change], &[Rule::OutputChange]);
    // Of one PE that is at EL3, only what its TLB holds already is left, and meets the new entry after the return.
    assert_broken(&[&machine(1, &[(1, RW)]), by_firmware, &change, "0 dsb ish; 0 eret"], &[Rule::OutputChange]);
}

#[test]
fn good_a_table_that_other_levels_change_step_by_step() {
    let (broken, made) = (page(1, "0"), page(1, RW_OTHER));
    let caches = format!("{CACHED}; 0 msr sctlr_el3 30c5183d");
    let machine = machine(2, &[(1, RW)]) + &caches;
    let tlbi = "0 tlbi vae2is 1; 0 dsb ish";
    let rest = "0 dsb ish; 0 isb; 1 isb; 0 settled; end exit";
    // EL1 stores and has its DSB, EL2 invalidates for it.
    let call = "0 dsb ish; 0 hvc 0 0 0 0 0; 0 exception 0 0 0";
    assert_clean(&[&machine, "0 eret 1", &broken, call, tlbi, "0 eret", &made, "0 dsb ish; 0 exception 0 0 0", rest]);
    // EL3 does it all.
    assert_clean(&[&machine, "0 exception 0 0 0 3", &broken, "0 dsb ishst", tlbi, &made, "0 dsb ish; 0 eret", rest]);
    // So does one PE at EL3 whose TLBI is its own.
    let own = "0 tlbi alle2 0; 0 dsb nsh";
    let alone = crate::machine(1, &[(1, RW)]) + &caches;
    let rest = "0 dsb ish; 0 isb; 0 settled; end exit";
    assert_clean(&[&alone, "0 exception 0 0 0 3", &broken, "0 dsb nshst", own, &made, "0 dsb nsh; 0 eret", rest]);
}

#[test]
fn good_maintenance_below_el2_counts() {
    let stored = "0 store 8 ffff000070000000 50000000 7; 0 dc civac ffff000070000000; 0 dsb sy; 0 exception 0 0 0";
    assert_clean(&["0 start 2", OFF, CACHED, "0 eret 1", stored, "0 load 8 50000000 50000000 7"]);
    // A neighbouring page, where all of the GiB lies alike.
    let beside = "0 store 8 ffff000070000000 50000000 7; 0 load 8 ffff000070002000 50002000 7";
    let cleaned = "0 store 8 ffff000070001000 50001000 7; 0 dc cvac ffff000070001000; 0 dsb sy; 0 exception 0 0 0";
    let kept = ["0 start 2", OFF, CACHED, "0 eret 1", beside, cleaned, "0 load 8 50001000 50001000 7"];
    assert_clean(&kept);
    // With M = 0 there, nothing is left in a cache.
    let past = "0 store 8 50000000 50000000 7; 0 dsb sy; 0 exception 0 0 0";
    assert_clean(&["0 start 2", OFF, PAST_CACHES, "0 eret 1", past, "0 load 8 50000000 50000000 7"]);
    assert_clean(&[
        "0 start 2",
        OFF,
        CACHED,
        "0 eret 1",
        past,
        "0 dc civac 50000000; 0 dsb sy; 0 load 8 50000000 50000000 7",
    ]);
}

#[test]
fn bad_what_is_stored_below_el2_is_not_cleaned() {
    let (entry, load) = ("0 dsb sy; 0 exception 0 0 0", "0 load 8 50000000 50000000 7");
    for stored in [
        "0 store 8 ffff000070000000 50000000 7",
        // Of another page.
        "0 store 8 ffff000070000000 50000000 7; 0 dc civac ffff000070001000",
        // Before the store.
        "0 load 8 ffff000070000000 50000000 0; 0 dc civac ffff000070000000; 0 store 8 ffff000070000000 50000000 7",
    ] {
        assert_broken(&["0 start 2", OFF, CACHED, "0 eret 1", stored, entry, load], &[Rule::NotCleaned]);
    }
    // HCR_EL2.DC: with M = 0 below, what is stored is cached.
    let (stored, hcr) = ("0 store 8 50000000 50000000 7", "0 msr hcr_el2 80001000; 0 isb");
    assert_broken(&["0 start 2", OFF, hcr, PAST_CACHES, "0 eret 1", stored, entry, load], &[Rule::NotCleaned]);
}

#[test]
fn good_zeroed_below_el2() {
    // Garbage of EL1's, then a page that it zeroes, then a table.
    let stored = "0 found dczid_el0 4; 0 store 8 ffff000070004010 40004010 40000055555703
        0 dc zva ffff000070004000; 0 dsb ish";
    let linked = "0 exception 0 0 0; 0 store 8 40002008 40002008 40004003; 0 dsb ish; 0 isb; 0 settled; end exit";
    let tree = machine(1, &[]);
    assert_clean(&[&tree, CACHED, "0 eret 1", stored, linked]);
    let memory = "memory 40000000 50000000 ram";
    let garbage = stored.replace("0 dc zva ffff000070004000; ", "");
    assert_clean(&[memory, &tree, CACHED, "0 eret 1", stored, linked]);
    assert_broken(&[memory, &tree, CACHED, "0 eret 1", &garbage, linked], &[Rule::BeyondRam]);
}

#[test]
fn bad_nothing_says_where_an_eret_led() {
    for access in USES {
        no_verdict(&[&broken_page(), "0 eret", access], &["PE 0", "ERET", "exception level"]);
        assert_broken(&[&broken_page(), "0 eret", access], &[]);
    }
    // With the MMU off there is nothing to translate.
    assert_clean(&["0 start 2; 0 eret; 0 load 8 50000000 50000000 0"]);
}

#[test]
fn good_what_follows_says_where_an_eret_led() {
    for shown in ["0 msr vbar_el2 0", "0 tlbi vae2 5; 0 dsb nsh", "0 at s1e2r 0", "0 exception 0 0 0"] {
        for access in USES {
            let parts = [&broken_page(), "0 eret", shown, access];
            assert_broken(&parts, &[Rule::BrokenUse]);
            assert!(judged(&parts).unknowns().is_empty());
        }
    }
    // The half of the vectors says from where an exception came, and so where the next ERET leads.
    for access in USES {
        assert_clean(&[&broken_page(), "0 eret", "0 800600: exception 0 0 0", "0 eret", access]);
        assert_broken(&[&broken_page(), "0 eret", "0 800200: exception 0 0 0", "0 eret", access], &[Rule::BrokenUse]);
    }
}

#[test]
fn bad_nothing_says_whether_a_lower_level_stores_into_caches() {
    let stored = "0 eret 1; 0 store 8 50000000 50000000 7; 0 dsb sy; 0 exception 0 0 0";
    let load = "0 load 8 50000000 50000000 7";
    no_verdict(&["0 start 2", OFF, stored, load], &["50000000", "SCTLR"]);
    // A table that is walked: its line may hide it.
    let tree = machine(1, &[(1, RW)]);
    let made = page(2, RW_OTHER);
    no_verdict(
        &[&tree, "0 eret 1", &made, "0 dsb ish; 0 exception 0 0 0", "0 load 8 40003010 40003010 0"],
        &["40003010"],
    );
    // Cleaned and invalidated, it is the same either way; so it is where nobody looks.
    let cleaned = stored.replace("0 dsb sy", "0 dc civac 50000000; 0 dsb sy");
    assert_clean(&["0 start 2", OFF, &cleaned, load]);
    assert_clean(&["0 start 2", OFF, stored, "0 load 8 50000040 50000040 7"]);
}
