//! Root switches: with the MMU off, step by step; with it on, only where both roots agree.

use breakwater_oracle::obligations::Rule;

use crate::{RW, RW_OTHER, assert_broken, assert_clean, machine, table};

/// A second root at 40008000 with tables of its own, and `page` as page 1; tables are mapped as in the first.
fn second(page: &str) -> String {
    [
        table(0x4000_8000, &[(0, "40009003")]),
        table(0x4000_9000, &[(0, "4000a003"), (1, "40005003")]),
        table(0x4000_a000, &[(0, "4000b003")]),
        table(0x4000_b000, &[(1, page), (2, "40000050002703")]),
    ]
    .concat()
}

/// From the first root to the second, with the MMU off between them.
const SWITCH: &str = "0 dsb ish; 0 isb; 0 msr sctlr_el2 30cd183c; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb
    0 msr ttbr0_el2 40008000; 0 isb; 0 msr sctlr_el2 30cd183d; 0 isb; 0 store 8 2000 50002000 0; 0 settled; end exit";

fn both(page: &str) -> String {
    second(page) + &machine(1, &[(1, RW)])
}

/// The same, held to this image's own rules besides.
fn strictly(page: &str) -> String {
    format!("feature all strict-switch\n{}", both(page))
}

#[track_caller]
fn without(part: &str, rules: &[Rule]) {
    assert!(SWITCH.contains(part));
    assert_broken(&[&both(RW_OTHER), &SWITCH.replacen(part, "", 1)], rules);
}

#[test]
fn good_switch_with_the_mmu_off() {
    assert_clean(&[&both(RW_OTHER), SWITCH]);
    assert_clean(&["feature all isb-before-mmu-off", &both(RW_OTHER), SWITCH]);
}

#[test]
fn bad_walks_may_refill_before_the_isb() {
    let refilled = SWITCH.replacen("30cd183c; 0 isb;", "30cd183c;", 1);
    assert_broken(&[&both(RW_OTHER), &refilled], &[Rule::StaleTable, Rule::RootSwitch]);
}

#[test]
fn bad_no_invalidation_or_no_completion_between() {
    without("0 tlbi alle2 0; ", &[Rule::StaleTable, Rule::RootSwitch]);
    without("0 dsb nsh;", &[Rule::StaleTable, Rule::RootSwitch, Rule::UnfinishedTlbi]);
    let by_va = SWITCH.replace("alle2 0", "vae2 2");
    assert_broken(&[&both(RW_OTHER), &by_va], &[Rule::StaleTable, Rule::RootSwitch]);
    // Said to be done, or over: either shows what is left of the old root.
    for (from, to) in [("; 0 settled", ""), ("; end exit", "")] {
        assert_broken(&[&both(RW_OTHER), &by_va.replace(from, to)], &[Rule::StaleTable, Rule::RootSwitch]);
    }
}

#[test]
fn bad_root_and_m_without_isb_between() {
    let joined = SWITCH.replace("40008000; 0 isb;", "40008000;");
    assert_broken(&[&both(RW_OTHER), &joined], &[Rule::StaleTable, Rule::RootSwitch, Rule::ControlSync]);
    let at_the_end = SWITCH.replace("30cd183d; 0 isb;", "30cd183d;");
    assert_broken(&[&strictly(RW_OTHER), &at_the_end], &[Rule::WindowAccess, Rule::ControlSync]);
    assert_broken(&[&both(RW_OTHER), &at_the_end], &[Rule::ControlSync]);
}

#[test]
fn bad_data_access_in_the_window() {
    for access in ["load 8 50000000 50000000 0", "store 8 50000000 50000000 0"] {
        let pushed = SWITCH.replace("0 msr ttbr0", &format!("0 {access}; 0 msr ttbr0"));
        assert_broken(&[&strictly(RW_OTHER), &pushed], &[Rule::WindowAccess]);
    }
    // A PE that turns its MMU off for good has no window.
    assert_clean(&[
        &strictly(RW),
        "0 dsb ish; 0 msr sctlr_el2 30cd183c; 0 isb; 0 load 8 50000000 50000000 0; end exit",
    ]);
}

#[test]
fn bad_stores_unfinished_or_caches_toggled() {
    let store = "0 store 8 1000 50000000 0\n";
    assert_clean(&[&strictly(RW_OTHER), store, SWITCH]);
    let unfinished = SWITCH.replacen("0 dsb ish; 0 isb;", "0 isb;", 1);
    assert_broken(&[&strictly(RW_OTHER), store, &unfinished], &[Rule::WindowStores]);
    for narrow in ["nsh", "ishld"] {
        let narrow = SWITCH.replacen("0 dsb ish;", &format!("0 dsb {narrow};"), 1);
        assert_broken(&[&strictly(RW_OTHER), store, &narrow], &[Rule::WindowStores]);
    }
    let toggled = SWITCH.replace("30cd183c", "30cd1838");
    assert_broken(&[&strictly(RW_OTHER), &toggled], &[Rule::WindowCache]);
}

/// What the architecture does not ask is not asked of everybody: with M = 0 the lines of what is accessed decide.
#[test]
fn good_window_of_somebody_who_promises_less() {
    let in_the_window = |event: &str| SWITCH.replace("0 msr ttbr0", &format!("0 {event}; 0 msr ttbr0"));
    for access in ["load 8 50000000 50000000 0", "store 8 50000000 50000000 0", "store 4 9000000 9000000 41 device"] {
        assert_clean(&[&both(RW_OTHER), &in_the_window(access)]);
    }
    assert_clean(&[&both(RW_OTHER), &SWITCH.replace("30cd183c", "30cd0838")]);
    let dirty = "0 store 8 1000 50000000 1\n";
    assert_clean(&[&both(RW_OTHER), dirty, &SWITCH.replacen("0 dsb ish; 0 isb;", "0 isb;", 1)]);
}

#[test]
fn bad_window_over_a_dirty_line_whoever_asks() {
    let in_the_window = |event: &str| SWITCH.replace("0 msr ttbr0", &format!("0 {event}; 0 msr ttbr0"));
    let dirty = "0 store 8 1000 50000000 1\n";
    let load = in_the_window("load 8 50000000 50000000 0");
    assert_broken(&[&both(RW_OTHER), dirty, &load], &[Rule::NotCleaned]);
    let store = in_the_window("store 8 50000000 50000000 0");
    assert_broken(&[&both(RW_OTHER), dirty, &store], &[Rule::LineBefore]);
    assert_clean(&[&both(RW_OTHER), dirty, "0 dc civac 1000; 0 dsb sy", &load]);
}

#[test]
fn bad_isb_before_the_mmu_goes_off() {
    let without = SWITCH.replacen("0 dsb ish; 0 isb;", "0 dsb ish;", 1);
    assert_broken(&["feature all isb-before-mmu-off", &both(RW_OTHER), &without], &[Rule::IsbBeforeMmuOff]);
    assert_clean(&[&both(RW_OTHER), &without]);
}

#[test]
fn bad_code_of_the_window_is_not_its_own_address() {
    let identity = "50001783";
    let code = |va: &str| SWITCH.replace("0 msr sctlr", &format!("0 {va}: fetch 2; 0 {va}: msr sctlr"));
    let mapped = second(identity) + &machine(1, &[(1, RW)]);
    let own = mapped.replace("word 40003000 0", "word 40003000 40000000783");
    assert_broken(&[&own, &code("1000")], &[Rule::IdentityCode]);
    // Mapped to itself, and not executable: by its descriptor, and by WXN.
    let mapped = |word: &str| second(word) + &machine(1, &[(1, word)]);
    assert_broken(&[&mapped("40000000001783"), &code("1000")], &[Rule::IdentityCode]);
    assert_broken(&[&mapped("1703"), &code("1000")], &[Rule::IdentityCode, Rule::WriteExecute]);
}

#[test]
fn good_switch_with_the_mmu_on_between_roots_that_agree() {
    let switch =
        "0 msr ttbr0_el2 40008000; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled; 0 store 8 2000 50002000 0";
    assert_clean(&[&both(RW), switch, "0 give 40000000 16384; end exit"]);
    let early = switch.replace("0 tlbi", "0 store 8 2000 50002000 0; 0 tlbi");
    assert_broken(&[&both(RW), &early], &[Rule::RootSwitch]);
    assert_broken(&[&both(RW), &switch.replace("0 tlbi alle2 0;", "")], &[Rule::StaleTable, Rule::RootSwitch]);
    let unsynchronised = switch.replace("0 dsb nsh; 0 isb", "0 dsb nsh");
    assert_broken(&[&both(RW), &unsynchronised], &[Rule::CompletionSync, Rule::RootSwitch]);
}

#[test]
fn bad_switch_with_the_mmu_on_to_different_tables() {
    let switch = "0 msr ttbr0_el2 40008000; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled";
    // Address and rights.
    for other in [RW_OTHER, "40000050000783"] {
        assert_broken(&[&both(other), switch], &[Rule::RootSwitch]);
    }
    // Type and shareability: both roots may be in force for a while.
    for other in ["40000050000707", "40000050000603"] {
        assert_broken(&[&both(other), switch], &[Rule::RootSwitch, Rule::MismatchedAttributes]);
    }
    let block = both(RW).replace("word 4000a000 4000b003", "word 4000a000 40000050000701");
    assert_broken(&[&block, switch], &[Rule::RootSwitch]);
}

/// PE 0 takes page 1 out of the first root, which PE 1 uses as well.
const UNMAPPED: &str = "0 store 8 40003008 40003008 0; 0 dsb ish";
/// PE 0 leaves for the second root, and invalidates its own TLBs alone.
const ALONE: &str = "0 msr ttbr0_el2 40008000; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb";
/// PE 0 maps page 1 in the second root.
const MAPPED_THERE: &str = "0 store 8 4000b008 4000b008 40000050000703; 0 dsb ish; 0 isb";

#[test]
fn bad_another_root_that_says_the_same_settles_nothing() {
    let machine = machine(2, &[(1, RW)]);
    // It said so all the time, or says so only now.
    assert_broken(&[&second(RW), &machine, UNMAPPED, ALONE, "end exit"], &[Rule::StaleLeaf]);
    let mapped = [&second("0"), &machine, UNMAPPED, ALONE, MAPPED_THERE];
    assert_broken(&[&mapped[..], &["0 settled"]].concat(), &[Rule::StaleLeaf]);
    let remade = format!("0 store 8 40003008 40003008 {RW_OTHER}; 0 dsb ish; 0 isb; end exit");
    assert_broken(&[&mapped[..], &[&remade]].concat(), &[Rule::OutputChange, Rule::StaleLeaf]);
}

#[test]
fn good_each_root_is_settled_by_itself() {
    let machine = machine(2, &[(1, RW)]);
    let broadcast = "0 tlbi vae2is 1; 0 dsb ish; 0 isb";
    assert_clean(&[&second(RW), &machine, UNMAPPED, broadcast, ALONE, "end exit"]);
    let remade = format!("0 store 8 40003008 40003008 {RW_OTHER}; 0 dsb ish; 0 isb; end exit");
    assert_clean(&[&second("0"), &machine, UNMAPPED, broadcast, ALONE, MAPPED_THERE, &remade]);
}

#[test]
fn bad_use_of_what_is_broken_in_the_own_root() {
    // PE 1 stays with the first root, where page 1 is gone; that PE 0 makes it in the second does not help.
    let machine = machine(2, &[(1, "50000783")]);
    let there = MAPPED_THERE.replace("40000050000703", "50000783");
    let events = [&second("0"), &machine, UNMAPPED, "0 tlbi vae2is 1; 0 dsb ish; 0 isb", ALONE, &there];
    assert_broken(&[&events[..], &["1 isb; 1 1000: fetch 1"]].concat(), &[Rule::BrokenUse]);
    assert_clean(&[&events[..], &["0 isb; 0 1000: fetch 1"]].concat());
}

#[test]
fn bad_a_root_changes_while_another_may_be_in_force() {
    // Until its ISB PE 0 may walk either.
    let change = format!("0 store 8 4000b008 4000b008 {RW_OTHER}");
    let between = format!("0 msr ttbr0_el2 40008000; {change}; 0 isb");
    assert_broken(&[&second("0"), &machine(1, &[(1, RW)]), &between], &[Rule::RootSwitch]);
    let same = format!("0 msr ttbr0_el2 40008000; 0 store 8 4000b008 4000b008 {RW}; 0 isb");
    assert_clean(&[&second("0"), &machine(1, &[(1, RW)]), &same]);
    // What the second root said before may still be seen, until that store's DSB.
    let unseen = format!("0 store 8 4000b008 4000b008 {RW}; 0 msr ttbr0_el2 40008000; 0 isb");
    assert_broken(&[&second(RW_OTHER), &machine(1, &[(1, RW)]), &unseen], &[Rule::OutputChange, Rule::RootSwitch]);
    let seen = unseen.replace("; 0 msr", "; 0 dsb ish; 0 msr");
    assert_clean(&[&second(RW_OTHER), &machine(1, &[(1, RW)]), &seen]);
}

#[test]
fn good_code_of_the_window_is_its_own_address() {
    let code = SWITCH.replace("0 msr sctlr", "0 1000: fetch 2; 0 1000: msr sctlr");
    let own = second("1783") + &machine(1, &[(1, "1783")]);
    assert_clean(&[&own, &code]);
    // Where the page ends, the next instruction is elsewhere.
    let last = code.replace("0 1000: msr", "0 1ffc: msr");
    assert_broken(&[&own, &last], &[Rule::IdentityCode]);
}
