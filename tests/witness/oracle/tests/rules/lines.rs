//! Cache lines of what is written or read with the caches off: first tables and mailboxes.

use breakwater_oracle::obligations::Rule;

use crate::{RW, assert_broken, assert_clean, machine, memory, on};

/// PE 0 writes page 1 of the first tables with its MMU off, and turns it on.
const BUILD: &str = "0 start 2; 0 found hcr_el2 0; 0 found sctlr_el2 30cd1838
    0 dc ivac 40003000; 0 dsb sy
    0 store 8 40003008 40003008 40000050000703
    0 dmb sy; 0 dc ivac 40003000; 0 dsb sy
    0 msr mair_el2 4404ff; 0 msr tcr_el2 80853510; 0 msr ttbr0_el2 40000000; 0 msr sctlr_el2 30cd1838; 0 isb
    0 tlbi alle2 0; 0 dsb nsh; 0 isb
    0 msr sctlr_el2 30cd183d; 0 isb; 0 settled; end exit";

#[track_caller]
fn build(from: &str, to: &str, rules: &[Rule]) {
    assert!(BUILD.contains(from));
    assert_broken(&[&memory(&[]), &BUILD.replacen(from, to, 1)], rules);
}

#[test]
fn good_first_tables_written_with_caches_off() {
    build("", "", &[]);
    build("dc ivac", "dc civac", &[]);
    // Walks that are not cached ask for nothing.
    let uncached = BUILD
        .replace("80853510", "80853010")
        .replace("0 dc ivac 40003000; 0 dsb sy", "")
        .replace("0 dc ivac 40003000;", "");
    assert_clean(&[&memory(&[]), &uncached]);
}

#[test]
fn bad_line_not_invalidated_before() {
    build("0 dc ivac 40003000; 0 dsb sy", "", &[Rule::LineBefore]);
    build("0 dsb sy", "", &[Rule::LineBefore]);
    build("0 dsb sy", "0 dsb nsh", &[Rule::LineBefore]);
    build("0 dsb sy", "0 dsb st", &[Rule::LineBefore]);
    build("0 dsb sy", "0 dsb ld", &[Rule::LineBefore]);
    build("40003000", "40003040", &[Rule::LineBefore]);
}

#[test]
fn bad_line_not_invalidated_after() {
    build("0 dmb sy; 0 dc ivac 40003000; 0 dsb sy", "0 dsb sy", &[Rule::LineAfter]);
    build("0 dmb sy;", "", &[Rule::LineAfter]);
    build("dmb sy", "dmb st", &[Rule::LineAfter]);
    build("0 dc ivac 40003000; 0 dsb sy\n    0 msr", "0 dc ivac 40003000\n    0 msr", &[Rule::LineAfter]);
}

#[test]
fn bad_line_cleaned_after() {
    let after = "0 dmb sy; 0 dc ivac";
    build(after, "0 dmb sy; 0 dc civac", &[Rule::LineCleaned]);
    build(after, "0 dmb sy; 0 dc cvac 40003000; 0 dc ivac", &[Rule::LineCleaned]);
    build(after, "0 dmb sy; 0 dc cisw 0; 0 dc ivac", &[Rule::LineCleaned]);
}

#[test]
fn good_lines_as_large_as_they_are() {
    let far = BUILD.replace("dc ivac 40003000", "dc ivac 40003080");
    assert_broken(&[&memory(&[]), &far], &[Rule::LineBefore, Rule::LineAfter]);
    assert_clean(&["feature all line=256", &memory(&[]), &far]);
}

#[test]
fn bad_tables_written_without_dsb() {
    // Uncached walks, no DSB that covers the store before M = 1: a walk may find what was there before.
    let trace = BUILD.replace("80853510", "80853010").replace("0 dmb sy; 0 dc ivac 40003000; 0 dsb sy", "");
    let trace = trace.replace("0 tlbi alle2 0; 0 dsb nsh", "0 tlbi alle2 0").replace("; 0 settled; end exit", "");
    let rules = [Rule::AttributeChange, Rule::ControlChange, Rule::FirstEnable];
    assert_broken(&[&memory(&[(1, "40000050000707")]), &trace], &rules);
}

#[test]
fn bad_loaded_cacheably_while_the_line_may_be_stale() {
    let mapped = memory(&[(2, "40000060000703")]) + &BUILD.replace("0 settled; end exit", "");
    let stack = "0 store 8 60000000 60000000 5; 0 dmb sy; 0 dc ivac 60000000; 0 dsb sy\n    0 msr mair";
    let with = mapped.replace("0 msr mair", &format!("0 dc ivac 60000000; 0 dsb sy; {stack}"));
    assert_clean(&[&with, "0 load 8 2000 60000000 5"]);
    let without = with.replace("0 dmb sy; 0 dc ivac 60000000; 0 dsb sy\n", "0 dsb sy\n");
    assert_broken(&[&without, "0 load 8 2000 60000000 5"], &[Rule::LineAfter]);
}

/// PE 0 leaves a word for PE 1, which comes from reset and reads it with its MMU off.
const MAILBOX: &str = "0 store 8 1000 50000000 1234; 0 dc cvac 1000; 0 dsb sy; 0 smc 0 c4000003 1 0 0
    1 start 2; 1 load 8 50000000 50000000 1234";

#[test]
fn good_mailbox_cleaned() {
    let machine = machine(1, &[(1, RW)]);
    assert_clean(&[&machine, MAILBOX]);
    assert_clean(&[&machine, &MAILBOX.replace("cvac", "civac")]);
    assert_clean(&[&machine, "word 50000000 1234; 1 start 2; 1 load 8 50000000 50000000 1234"]);
}

#[test]
fn bad_mailbox_not_cleaned() {
    let machine = machine(1, &[(1, RW)]);
    for (from, to) in
        [("0 dc cvac 1000;", ""), ("cvac", "cvau"), ("cvac", "ivac"), ("0 dsb sy;", ""), ("cvac 1000", "cvac 1040")]
    {
        assert_broken(&[&machine, &MAILBOX.replacen(from, to, 1)], &[Rule::NotCleaned]);
    }
    let early = "0 dc cvac 1000; 0 store 8 1000 50000000 1234; 0 dsb sy; 1 start 2; 1 load 8 50000000 50000000 1234";
    assert_broken(&[&machine, early], &[Rule::NotCleaned]);
}

/// PE 0 leaves an instruction for PE 1, which comes from reset and executes it with MMU and instruction cache off.
const CODE: &str = "0 store 8 1000 50000000 d5033fdf; 0 dc cvac 1000; 0 dsb sy; 0 smc 0 c4000003 1 0 0
    1 start 2; 1 found sctlr_el2 30c50830; 1 50000000: isb";

#[test]
fn good_code_cleaned() {
    let machine = machine(1, &[(1, RW)]);
    assert_clean(&[&machine, CODE]);
    assert_clean(&[&machine, &CODE.replace("cvac", "civac")]);
    let dirty = CODE.replacen("0 dc cvac 1000;", "", 1);
    assert_clean(&[&machine, &dirty.replace("30c50830", "30c51830")]); // I = 1: through the caches
    assert_clean(&[&machine, &dirty.replace("50000000: isb", "50001000: isb")]);
}

#[test]
fn bad_code_not_cleaned() {
    let machine = machine(1, &[(1, RW)]);
    for (from, to) in [("0 dc cvac 1000;", ""), ("cvac", "cvau"), ("0 dsb sy;", ""), ("cvac 1000", "cvac 1040")] {
        assert_broken(&[&machine, &CODE.replacen(from, to, 1)], &[Rule::NotCleaned]);
    }
}

#[test]
fn bad_clean_on_a_part_where_it_does_not() {
    let machine = format!("feature 0 clean-invalidates\n{}", machine(1, &[(1, RW)]));
    assert_broken(&[&machine, MAILBOX], &[Rule::CleanInvalidates]);
    assert_clean(&[&machine, &MAILBOX.replace("cvac", "civac")]);
}

#[test]
fn bad_store_over_a_dirty_line() {
    let store = "1 start 2; 1 store 8 50000008 50000008 1; 1 dsb sy";
    let machine = machine(1, &[(1, RW)]);
    assert_broken(&[&machine, "0 store 8 1000 50000000 1234", store], &[Rule::LineBefore]);
    assert_clean(&[&machine, "0 store 8 1000 50000000 1234; 0 dc civac 1000; 0 dsb sy", store]);
}

#[test]
fn bad_call_with_stores_on_their_way() {
    let call = "0 start 2; 0 store 8 50000000 50000000 1; 0 dsb sy; 0 smc 0 84000008 0 0 0";
    assert_clean(&[call]);
    assert_broken(&[&call.replace("0 dsb sy;", "")], &[Rule::CallStores]);
    assert_broken(&[&call.replace("dsb sy", "dsb ish")], &[Rule::CallStores]);
    assert_broken(&[&call.replace("dsb sy", "dsb nsh")], &[Rule::CallStores]);
    assert_broken(&[&call.replace("dsb sy", "dsb ld")], &[Rule::CallStores]);
}

#[test]
fn bad_dc_zva_with_the_mmu_off() {
    assert_broken(&["0 start 2; 0 dc zva 50000000"], &[Rule::ZeroMmuOff]);
    assert_clean(&[&machine(1, &[(1, RW)]), "0 dc zva 1000"]);
}

/// Page 1 is in use, and something 128 bytes behind its descriptor is zeroed.
const ZEROED_BEHIND: &str = "0 dc zva 40003080; 0 dsb ish; 0 isb; 0 settled; end exit";

#[test]
fn bad_dc_zva_of_a_block_that_reaches_a_live_descriptor() {
    let machine = machine(2, &[(1, RW)]);
    let unmapped = "0 store 8 40003008 40003008 0; 0 dsb ish; 0 isb; 0 settled; end exit";
    let rules = crate::broken(&[&machine, unmapped]);
    assert_eq!(rules, [Rule::StaleLeaf]);
    for dczid in ["6", "7", "9"] {
        assert_broken(&[&machine, &format!("0 found dczid_el0 {dczid}"), ZEROED_BEHIND], &rules);
    }
    // The word before the block, and the last one in it.
    for (va, rules) in [("400030ff", &rules[..]), ("40003100", &[])] {
        let zeroed = ZEROED_BEHIND.replace("40003080", va);
        assert_broken(&[&machine, "0 found dczid_el0 6", &zeroed], rules);
    }
    // A link as well: everything below it goes.
    let link = ZEROED_BEHIND.replace("40003080", "40002080");
    let unlinked = unmapped.replace("40003008", "40002000");
    assert_broken(&[&machine, "0 found dczid_el0 6", &link], &crate::broken(&[&machine, &unlinked]));
}

#[test]
fn good_dc_zva_of_a_block_that_reaches_no_live_descriptor() {
    let machine = machine(2, &[(1, RW)]);
    for dczid in ["1", "4", "5"] {
        assert_clean(&[&machine, &format!("0 found dczid_el0 {dczid}"), ZEROED_BEHIND]);
    }
    // What one PE has says nothing of another; and a PE that starts again is the same one.
    assert_clean(&[&machine, "0 found dczid_el0 4; 1 found dczid_el0 6", ZEROED_BEHIND]);
    let again = [on(0).as_str(), "0 found dczid_el0 6", "0 isb", &on(0), ZEROED_BEHIND].join("\n");
    assert_broken(&[&memory(&[(1, RW)]), &again], &[Rule::StaleLeaf]);
    // Broken and invalidated before, it may be zeroed with all its block.
    let broken = "0 found dczid_el0 6; 0 store 8 40003008 40003008 0; 0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish";
    assert_clean(&[&machine, broken, ZEROED_BEHIND]);
}

#[test]
fn good_call_zero_and_clean_that_do_what_they_should() {
    // Stores through the caches are the caches' affair.
    let on = machine(1, &[(1, RW)]);
    assert_clean(&[&on, "0 store 8 1000 50000000 1; 0 smc 0 84000008 0 0 0"]);
    assert_clean(&["0 start 2; 0 store 8 50000000 50000000 1; 0 dsb st; 0 smc 0 84000008 0 0 0"]);
    assert_clean(&["0 start 2; 0 store 16 50000000 50000000 0 0; 0 dsb sy"]);
    assert_clean(&[&on, "0 dc zva 1000; 0 dsb sy"]);
    assert_clean(&["0 start 3; 0 dc zva 50000000; 0 dsb sy"]);
    let part = format!("feature 0 clean-invalidates\n{on}");
    assert_clean(&[&part, &MAILBOX.replace("cvac", "civac")]);
}

/// PE 0 has its MMU off; PE 1 walks the tables.
fn in_use() -> String {
    memory(&[(1, RW)]) + &on(1) + "0 start 2; 0 found hcr_el2 0; 0 found sctlr_el2 30cd1838\n"
}

/// PE 0 fills page 2 of these tables, and PE 1 uses it.
const FILL: &str = "0 dc ivac 40003010; 0 dsb sy; 0 store 8 40003010 40003010 40000050002703
    0 dmb sy; 0 dc ivac 40003010; 0 dsb sy; 1 isb; 1 load 8 2000 50002000 0; 1 settled; end exit";

/// PE 0 takes page 1 out of them and maps it anew.
const REMAP: &str =
    "0 dc ivac 40003008; 0 dsb sy; 0 store 8 40003008 40003008 0; 0 dmb sy; 0 dc ivac 40003008; 0 dsb sy
    0 tlbi vae2is 1; 0 dsb ish; 0 store 8 40003008 40003008 40000050001703; 0 dmb sy; 0 dc ivac 40003008; 0 dsb sy
    0 isb; 1 isb; 1 settled; end exit";

#[test]
fn good_tables_in_use_written_with_caches_off() {
    assert_clean(&[&in_use(), FILL]);
    assert_clean(&[
        &in_use(),
        &FILL.replace("0 dc ivac 40003010; 0 dsb sy; 0 store", "0 dc civac 40003010; 0 dsb sy; 0 store"),
    ]);
    assert_clean(&[&in_use(), REMAP]);
    // Where SCTLR_EL2.C of PE 1 is 0, or TCR_EL2 says so, its walks go past the caches.
    for (from, to) in [("30cd183d", "30cd1839"), ("80853510", "80853010")] {
        let uncached =
            FILL.replacen("0 dc ivac 40003010; 0 dsb sy;", "", 1).replace("0 dmb sy; 0 dc ivac 40003010; ", "");
        assert_clean(&[&in_use().replace(from, to), &uncached]);
    }
}

#[test]
fn bad_table_in_use_whose_line_is_not_invalidated_before() {
    assert_broken(&[&in_use(), &FILL.replacen("0 dc ivac 40003010; 0 dsb sy;", "", 1)], &[Rule::LineBefore]);
    assert_broken(&[&in_use(), &FILL.replacen("0 dsb sy;", "", 1)], &[Rule::LineBefore]);
}

#[test]
fn bad_table_in_use_whose_line_is_not_invalidated_after() {
    let without = |part: &str| FILL.replace(part, "0 dsb sy");
    // The use shows it, and so does the claim.
    for part in
        ["0 dmb sy; 0 dc ivac 40003010; 0 dsb sy", "0 dc ivac 40003010; 0 dsb sy; 1 isb; 1 load 8 2000 50002000 0"]
    {
        assert_broken(&[&in_use(), &without(part)], &[Rule::LineAfter]);
    }
    assert_broken(&[&in_use(), &FILL.replace("0 dmb sy; ", "")], &[Rule::LineAfter]);
    // A TLBI does not help where the walk that follows it finds the old line.
    let hidden = REMAP.replacen("0 dmb sy; 0 dc ivac 40003008; 0 dsb sy", "0 dsb sy", 1);
    assert_broken(&[&in_use(), &hidden], &[Rule::OutputChange, Rule::StaleLeaf]);
    let unmapped = hidden.split("; 0 store 8 40003008 40003008 40000050001703").next().unwrap_or_default();
    assert_broken(&[&in_use(), unmapped, "1 settled"], &[Rule::LineAfter]);
    // A line from before that becomes dirty by another word takes the old one with it.
    let dirtied = FILL.replace("0 dmb sy; 0 dc ivac 40003010; 0 dsb sy", "0 dsb sy; 1 store 8 40003018 40003018 0");
    assert_broken(&[&in_use(), &dirtied], &[Rule::LineAfter]);
}

#[test]
fn bad_table_in_use_whose_line_is_cleaned() {
    let cleaned = FILL.replace("0 dmb sy; 0 dc ivac", "0 dmb sy; 0 dc civac");
    assert_broken(&[&in_use(), &cleaned], &[Rule::LineCleaned]);
}

#[test]
fn bad_lines_of_a_table_that_its_only_user_left_alone() {
    // One PE: off, store, on.
    let alone = "0 isb; 0 msr sctlr_el2 30cd183c; 0 isb; 0 store 8 40003010 40003010 40000050002703; 0 dsb sy; 0 msr sctlr_el2 30cd183d; 0 isb";
    assert_broken(&[&machine(1, &[(1, RW)]), alone], &[Rule::LineBefore, Rule::LineAfter]);
    let kept = alone
        .replace("0 isb; 0 msr sctlr_el2 30cd183c", "0 dc civac 3010; 0 dsb sy; 0 msr sctlr_el2 30cd183c")
        .replace(
            "0 dsb sy; 0 msr sctlr_el2 30cd183d",
            "0 dmb sy; 0 dc ivac 40003010; 0 dsb sy; 0 msr sctlr_el2 30cd183d",
        );
    assert_clean(&[&machine(1, &[(1, RW), (3, "40000040003703")]), &kept]);
}

#[test]
fn bad_walks_past_the_caches_to_what_is_not_cleaned() {
    // Page 3 is the level 3 table itself.
    let machine = machine_past(&[(1, RW), (3, "40000040003703")]);
    let fill = "1 store 8 3010 40003010 40000050002703; 1 dc cvac 3010; 1 dsb sy; 0 isb; 0 load 8 2000 50002000 0; 0 settled; 1 isb; end exit";
    assert_clean(&[&machine, fill]);
    assert_broken(&[&machine, &fill.replace("1 dc cvac 3010; ", "")], &[Rule::NotCleaned]);
    // A table is cleaned before it is linked, too.
    let link = "1 store 8 4010 40004010 40000050002703; 1 dc cvac 4010; 1 dsb sy; 1 store 8 5008 40002008 40004003; 1 dc cvac 5008; 1 dsb sy; 1 isb";
    let tables = [(1, RW), (3, "40000040003703"), (4, "40000040004703"), (5, "40000040002703")];
    let machine = machine_past(&tables);
    assert_clean(&[&machine, link]);
    assert_broken(&[&machine, &link.replace("1 dc cvac 4010; ", "")], &[Rule::NotCleaned]);
}

/// Two PEs, the first of which walks past the caches.
fn machine_past(pages: &[(u64, &str)]) -> String {
    machine(2, pages).replacen("80853510", "80853010", 1)
}
