//! TLBIs and their completion, and the end of a boot.

use breakwater_oracle::obligations::{Obligations, Rule};

use crate::{RO, RW, after, assert_broken, assert_clean, judged, machine, page, records, remade};

#[test]
fn bad_unfinished_tlbi() {
    let end = |dsb: &str| format!("0 tlbi vae2is 1; 0 {dsb}; 0 isb; end exit");
    assert_clean(&[&machine(1, &[]), &end("dsb ish")]);
    for dsb in ["dsb nsh", "dsb ishst", "dsb ishld", "dmb ish"] {
        assert_broken(&[&machine(1, &[]), &end(dsb)], &[Rule::UnfinishedTlbi]);
    }
    assert_clean(&[&machine(1, &[]), "0 tlbi vae2 1; 0 dsb nsh; end exit"]);
}

#[test]
fn bad_local_tlbi_and_its_dsb_complete_no_broadcast() {
    for (first, second) in [("alle2is", "alle2"), ("alle2", "alle2is"), ("vae2is", "vae2")] {
        let end = |dsb: &str| format!("0 tlbi {first} 1; 0 tlbi {second} 1; 0 {dsb}; 0 isb; end exit");
        assert_broken(&[&machine(2, &[]), &end("dsb nsh")], &[Rule::UnfinishedTlbi]);
        assert_clean(&[&machine(2, &[]), &end("dsb ish")]);
    }
}

#[test]
fn bad_inner_dsb_for_an_outer_tlbi() {
    let end = |tlbi: &str, dsb: &str| format!("0 tlbi {tlbi} 1; 0 dsb {dsb}; 0 isb; end exit");
    for tlbi in ["vae2os", "alle2os"] {
        for dsb in ["nsh", "ish"] {
            assert_broken(&[&machine(2, &[]), &end(tlbi, dsb)], &[Rule::UnfinishedTlbi]);
        }
    }
    let (machine, outer) = (machine(2, &[(1, RW)]), after(1).replace("vae2is", "vae2os"));
    assert_broken(&[&machine, &page(1, RO), &outer], &[Rule::StaleLeaf, Rule::UnfinishedTlbi]);
    assert_clean(&[&machine, &page(1, RO), &outer.replace("1; 0 dsb ish", "1; 0 dsb osh")]);
    // Twice, one of them farther: the DSB has to cover both.
    let erratum = format!("feature 1 repeat-tlbi\n{machine}");
    let twice =
        |dsb: &str| after(1).replace("0 dsb ish; 0 isb", &format!("0 dsb ish; 0 tlbi alle2os 0; 0 dsb {dsb}; 0 isb"));
    assert_broken(&[&erratum, &page(1, RO), &twice("ish")], &[Rule::RepeatTlbi, Rule::UnfinishedTlbi]);
    assert_clean(&[&erratum, &page(1, RO), &twice("osh")]);
}

#[test]
fn bad_nxs_dsb_for_a_tlbi_without() {
    let change = |tlbi: &str, dsb: &str| after(1).replace("vae2is", tlbi).replace("dsb ish;", &format!("dsb {dsb};"));
    let store = page(1, RO);
    let machine = machine(2, &[(1, RW)]);
    assert_clean(&[&machine, &store, &change("vae2isnxs", "ishnxs")]);
    assert_clean(&[&machine, &store, &change("vae2isnxs", "ish")]);
    let mixed = change("vae2is", "ishnxs");
    assert_broken(&[&machine, &store, &mixed], &[Rule::StaleLeaf, Rule::UnfinishedTlbi]);
}

#[test]
fn good_repeat_errata_twice() {
    let erratum = format!("feature 1 repeat-tlbi\n{}", machine(2, &[(1, RW)]));
    let twice = after(1).replace("0 dsb ish;", "0 dsb ish; 0 tlbi vale2is 7; 0 dsb ish;");
    assert_clean(&[&erratum, &page(1, RO), &twice]);
    // Local operations are not concerned.
    let local = format!("feature 0 repeat-tlbi\n{}", machine(1, &[(1, RW)]));
    assert_clean(&[&local, &page(1, RO), &after(1).replace("vae2is", "vae2")]);
}

#[test]
fn bad_repeat_errata_once() {
    let erratum = format!("feature 1 repeat-tlbi\n{}", machine(2, &[(1, RW)]));
    assert_broken(&[&erratum, &page(1, RO), &after(1)], &[Rule::RepeatTlbi]);
    assert_broken(&[&erratum, &remade(1, "40000050001703")], &[Rule::RepeatTlbi]);
    let without_second_dsb = after(1).replace("0 dsb ish;", "0 dsb ish; 0 tlbi vale2is 7;");
    assert_broken(&[&erratum, &page(1, RO), &without_second_dsb], &[Rule::RepeatTlbi, Rule::UnfinishedTlbi]);
    let at_once = after(1).replace("0 dsb ish;", "0 tlbi vae2is 1; 0 dsb ish;");
    assert_broken(&[&erratum, &page(1, RO), &at_once], &[Rule::RepeatTlbi]);
}

#[test]
fn bad_stale_at_the_end() {
    assert_broken(&[&machine(1, &[(1, RW)]), &page(1, "0"), "0 dsb ish; end exit"], &[Rule::StaleLeaf]);
    assert_clean(&[&machine(1, &[(1, RW)]), &page(1, "0"), "0 dsb ish; end limit"]);
    assert_broken(&[&machine(1, &[]), "0 msr sctlr_el2 30cd983d; end exit"], &[Rule::ControlSync]);
}

#[test]
fn good_another_pe_may_still_owe_its_isb_at_the_end() {
    assert_clean(&[&machine(2, &[(1, "50000783")]), &page(1, "40000050000783"), &after(1)]);
}

#[test]
fn bad_pe_that_comes_while_a_change_is_not_visible() {
    let come = "1 start 2; 1 found hcr_el2 0; 1 found sctlr_el2 30cd1838; 1 msr mair_el2 4404ff; 1 msr tcr_el2 80853510
        1 msr ttbr0_el2 40000000; 1 msr sctlr_el2 30cd1838; 1 isb; 1 tlbi alle2 0; 1 dsb nsh; 1 isb
        1 msr sctlr_el2 30cd183d; 1 isb";
    let machine = machine(1, &[(1, RW)]);
    let local = "0 dsb nsh; 0 tlbi vae2 1; 0 dsb nsh; 0 isb";
    let end = "0 settled; end exit";
    assert_broken(&[&machine, &page(1, "0"), local, come, end], &[Rule::StaleLeaf]);
    assert_clean(&[&machine, &page(1, "0"), &local.replace("nsh", "ish"), come, end]);
}

#[test]
fn good_equal_states_are_equal_whatever_was_reported() {
    let machine = machine(2, &[(1, RW)]);
    let (one, other) = (judged(&[&machine, &remade(1, RO)]), judged(&[&machine, "0 mrs hcr_el2", &remade(1, RO)]));
    assert_eq!(one, other);
    assert_ne!(one, judged(&[&machine, &page(1, RO)]));
}

#[test]
fn good_each_rule_can_be_switched_off() {
    let trace = [machine(2, &[(1, RW)]), page(1, "40000050001703")].concat();
    for rule in Rule::ALL {
        let mut engine = Obligations::without(*rule);
        records(&[&trace]).iter().for_each(|(line, record)| engine.step(*line, record));
        assert_eq!(engine.take_violations().len(), usize::from(*rule != Rule::OutputChange));
        assert!(!rule.name().is_empty() && rule.says().ends_with('.'));
    }
}

#[test]
fn good_tlbi_complete_as_far_as_it_reaches() {
    for (tlbi, dsb) in [
        ("vae2", "nsh"),
        ("vae2", "ish"),
        ("vae2is", "ish"),
        ("vae2is", "osh"),
        ("vae2is", "sy"),
        ("vae2os", "osh"),
        ("alle2os", "sy"),
    ] {
        assert_clean(&[&machine(1, &[]), &format!("0 tlbi {tlbi} 1; 0 dsb {dsb}; end exit")]);
    }
}
