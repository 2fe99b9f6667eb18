//! Changes of one live leaf.

use breakwater_oracle::obligations::Rule;

use crate::{RO, RW, RW_OTHER, after, assert_broken, assert_clean, judged, machine, page, remade, table};

/// Break, invalidate, make, for page 1 on PE 0.
const BBM: &str = "0 store 8 40003008 40003008 0; 0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish;
    0 store 8 40003008 40003008 40000050001703; 0 dsb ish; 0 isb; 0 settled; end exit";

fn two() -> String {
    machine(2, &[(1, RW)])
}

#[test]
fn good_break_invalidate_make() {
    assert_clean(&[&two(), BBM]);
    assert_clean(&[&machine(1, &[(1, RW)]), &BBM.replace("vae2is", "vae2").replace("dsb ish;", "dsb nsh;")]);
}

#[test]
fn bad_output_address_in_place() {
    let store = format!("0 store 8 40003008 40003008 {RW_OTHER}");
    assert_broken(&[&two(), &store, "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish; 0 isb; end exit"], &[Rule::OutputChange]);
}

#[test]
fn bad_no_dsb_before_the_tlbi() {
    assert_broken(&[&two(), &BBM.replacen("0 dsb ishst;", "", 1)], &[Rule::OutputChange, Rule::StaleLeaf]);
}

#[test]
fn bad_dmb_before_the_tlbi() {
    assert_broken(&[&two(), &BBM.replacen("dsb ishst", "dmb ish", 1)], &[Rule::OutputChange, Rule::StaleLeaf]);
}

#[test]
fn bad_no_tlbi() {
    assert_broken(&[&two(), &BBM.replacen("0 tlbi vae2is 1;", "", 1)], &[Rule::OutputChange, Rule::StaleLeaf]);
}

#[test]
fn bad_store_only_dsb_after_the_tlbi() {
    assert_broken(&[&two(), &BBM.replacen("dsb ish;", "dsb ishst;", 1)], &[Rule::OutputChange]);
}

#[test]
fn bad_local_tlbi_with_two_pes() {
    assert_broken(&[&two(), &BBM.replacen("vae2is", "vae2", 1)], &[Rule::OutputChange, Rule::StaleLeaf]);
}

#[test]
fn bad_no_dsb_at_the_end() {
    let trace = BBM.replacen("0 dsb ish; 0 isb", "0 isb", 1);
    assert_broken(&[&two(), &trace], &[Rule::NotVisible]);
}

#[test]
fn good_rights_in_place() {
    for (from, to) in [(RW, RO), (RO, RW)] {
        let store = format!("0 store 8 40003008 40003008 {to}");
        let after = "0 dsb ishst; 0 tlbi vale2is 1; 0 dsb ish; 0 isb; 0 settled; end exit";
        assert_clean(&[&machine(2, &[(1, from)]), &store, after]);
        let without = "0 dsb ish; 0 isb; 0 settled; end exit";
        assert_broken(&[&machine(2, &[(1, from)]), &store, without], &[Rule::StaleLeaf]);
    }
}

/// Changes from one descriptor of page 1 to another in place, under `features`, break exactly `rules`; broken and made again, none.
#[track_caller]
fn in_place(features: &str, from: &str, to: &str, rules: &[Rule]) {
    let machine = format!("{features}\n{}", machine(2, &[(1, from)]));
    assert_broken(&[&machine, &page(1, to), &after(1)], rules);
    assert_clean(&[&machine, &remade(1, to)]);
}

#[test]
fn bad_type_cacheability_and_shareability_in_place() {
    let device = "40000050000707";
    let uncached = "4000005000070b";
    let outer = "40000050000603";
    for to in [device, uncached, outer] {
        in_place("", RW, to, &[Rule::AttributeChange]);
        in_place("feature all bbm=3", RW, to, &[Rule::AttributeChange]);
    }
}

#[test]
fn good_software_bits_and_equal_indices_owe_nothing() {
    assert_clean(&[&machine(2, &[(1, RW)]), &page(1, "7c0000050000703"), "0 settled; end exit"]);
    let other_index = "4000005000070f";
    let machine = machine(2, &[(1, RW)]).replace("4404ff", "ff4404ff");
    assert_clean(&[&machine, &page(1, other_index), "0 settled; end exit"]);
}

#[test]
fn good_read_only_remap_to_equal_contents() {
    let contents = table(0x5000_0000, &[(7, "1234")]) + &table(0x5000_1000, &[(7, "1234")]);
    let (from, to) = ("40000050000783", "40000050001783");
    assert_clean(&[&contents, &machine(2, &[(1, from)]), &page(1, to), &after(1)]);
    let stale = "0 dsb ishst; 0 isb; 0 settled";
    assert_broken(&[&contents, &machine(2, &[(1, from)]), &page(1, to), stale], &[Rule::StaleLeaf]);
}

#[test]
fn bad_read_only_remap_to_other_or_unknown_contents() {
    let contents = table(0x5000_0000, &[(7, "1234")]) + &table(0x5000_1000, &[(7, "1235")]);
    let (from, to) = ("40000050000783", "40000050001783");
    assert_broken(&[&contents, &machine(2, &[(1, from)]), &page(1, to), &after(1)], &[Rule::OutputChange]);
    in_place("", from, to, &[Rule::OutputChange]);
    // Equal contents do not help where either side may write them.
    let equal = table(0x5000_0000, &[]) + &table(0x5000_1000, &[]);
    for (from, to) in [(RW, "40000050001783"), (RO, RW_OTHER)] {
        assert_broken(&[&equal, &machine(2, &[(1, from)]), &page(1, to), &after(1)], &[Rule::OutputChange]);
    }
}

#[test]
fn good_af_clear_is_not_cached_without_hardware_management() {
    let untouched = "40000050000303";
    let machine = machine(2, &[(1, untouched)]);
    assert_clean(&[&machine, &page(1, RW_OTHER), "0 dsb ishst; 0 isb; 0 settled; end exit"]);
}

#[test]
fn bad_af_clear_is_cached_with_hardware_management() {
    let untouched = "40000050000303";
    let machine = machine(2, &[(1, untouched)]).replace("80853510", "80a53510");
    let change = [&machine, &page(1, RW_OTHER), &after(1)];
    assert_clean(&change.map(String::as_str));
    let managed = format!("feature all hafdbs\n{machine}");
    assert_broken(&[&managed, &page(1, RW_OTHER), &after(1)], &[Rule::OutputChange]);
}

#[test]
fn bad_dirty_state_makes_a_read_only_leaf_writable() {
    let contents = table(0x5000_0000, &[]) + &table(0x5000_1000, &[]);
    let machine = machine(1, &[(1, "48000050000783")]).replace("80853510", "80e53510");
    let change = [page(1, "48000050001783"), after(1)].concat();
    assert_clean(&[&contents, &machine, &change]);
    assert_broken(&["feature all hafdbs", &contents, &machine, &change], &[Rule::OutputChange]);
}

#[test]
fn bad_af_cleared_without_tlbi() {
    let store = page(1, "40000050000303");
    assert_clean(&[&machine(2, &[(1, RW)]), &store, &after(1)]);
    assert_broken(&[&machine(2, &[(1, RW)]), &store, "0 dsb ishst; 0 isb; 0 settled"], &[Rule::StaleLeaf]);
}

#[test]
fn bad_unmapped_without_tlbi() {
    assert_clean(&[&machine(2, &[(1, RW)]), &page(1, "0"), &after(1)]);
    assert_broken(&[&machine(2, &[(1, RW)]), &page(1, "0"), "0 dsb ish; 0 isb; 0 settled"], &[Rule::StaleLeaf]);
}

#[test]
fn bad_wrong_ttl() {
    let with = |operand: &str| after(1).replace("vae2is 1", &format!("vale2is {operand}"));
    let machine = format!("feature all ttl\n{}", machine(2, &[(1, RW)]));
    assert_clean(&[&machine, &page(1, RO), &with("700000000001")]);
    // Level 2 of this granule, level 3 of another, and TTL on a PE without it.
    assert_broken(&[&machine, &page(1, RO), &with("600000000001")], &[Rule::StaleLeaf]);
    assert_broken(&[&machine, &page(1, RO), &with("f00000000001")], &[Rule::StaleLeaf]);
    let plain = machine.replace("feature all ttl", "");
    assert_broken(&[&plain, &page(1, RO), &with("700000000001")], &[Rule::StaleLeaf]);
}

#[test]
fn bad_range_that_a_pe_does_not_take_part_in() {
    let with = after(1).replace("vae2is 1", "rvae2is 400000000001");
    let machine = machine(2, &[(1, RW)]);
    assert_clean(&["feature all tlbirange", &machine, &page(1, RO), &with]);
    assert_broken(&["feature 0 tlbirange", &machine, &page(1, RO), &with], &[Rule::StaleLeaf]);
    assert_broken(&[&machine, &page(1, RO), &with], &[Rule::StaleLeaf]);
}

#[test]
fn bad_bbm_always() {
    assert_clean(&[&machine(1, &[(1, RW)]), &page(1, RO), &after(1)]);
    in_place("feature 1 bbm-always", RW, RO, &[Rule::BbmAlways]);
}

#[test]
fn bad_bbm_for_xn() {
    let (executable, never) = ("50000783", "40000050000783");
    in_place("feature 1 bbm-for-xn", executable, never, &[Rule::BbmForXn]);
    in_place("feature 1 bbm-for-xn", never, executable, &[]);
    in_place("", executable, never, &[]);
}

#[test]
fn bad_no_isb_after_the_completion() {
    let without = after(1).replace(" 0 isb;", "");
    assert_broken(&[&machine(2, &[(1, RW)]), &page(1, RO), &without], &[Rule::CompletionSync]);
    assert_clean(&["feature all ets2", &machine(2, &[(1, RW)]), &page(1, RO), &without]);
}

#[test]
fn good_the_report_names_what_is_missing() {
    let missing = |trace: &str| {
        let engine = judged(&[&two(), trace]);
        engine.violations()[0].missing.clone()
    };
    let (store, settled) = (page(1, "0"), "0 settled");
    assert!(
        missing(&[&store, "0 tlbi vae2is 1; 0 dsb ish\n", settled].concat()).contains("between its store and the TLBI")
    );
    assert!(missing(&[&store, "0 dsb ish; 0 tlbi vae2 1; 0 dsb ish\n", settled].concat()).contains("reaches PE 1"));
    assert!(
        missing(&[&store, "0 dsb ish; 0 tlbi vae2is 1; 0 dsb ishst\n", settled].concat()).contains("loads and stores")
    );
    let engine = judged(&[&two(), &page(1, RW_OTHER)]);
    let violation = &engine.violations()[0];
    let level = violation.old_as.map(|(level, _)| level);
    assert_eq!((violation.va, violation.pa, level), (Some(0x1000), Some(0x4000_3008), Some(3)));
    assert_eq!(violation.old, Some(0x0040_0000_5000_0703));
}

#[test]
fn good_attributes_and_errata_by_break_before_make() {
    let (executable, never) = ("50000783", "40000050000783");
    let (device, outer) = ("40000050000707", "40000050000603");
    for features in ["", "feature 1 bbm-always", "feature 1 bbm-for-xn", "feature all bbm=3"] {
        for (from, to) in [(RW, device), (RW, outer), (RW, RO), (executable, never)] {
            assert_clean(&[features, &machine(2, &[(1, from)]), &remade(1, to)]);
        }
    }
    // What no TLB caches is no change to one.
    assert_clean(&[
        "feature all bbm-always",
        &machine(2, &[(1, RW)]),
        &page(1, "7c0000050000703"),
        "0 settled; end exit",
    ]);
}

// The same with other granules and address sizes.

/// A PE with `tcr` and `features` whose root at 40000000 leads to tables at 40010000 and on, one for each level, with `leaf` in slot 1 of
/// the last, and in slot 2 one that maps this table.
fn machine_with(features: &str, tcr: &str, levels: u64, entries: u64, (leaf, own): (&str, &str)) -> String {
    let address = |level: u64| 0x4000_0000 + 0x1_0000 * level;
    let tables: String = (0..levels)
        .map(|level| {
            let next = format!("{:x}", address(level + 1) | 3);
            let slots = if level + 1 == levels { vec![(1, leaf), (2, own)] } else { vec![(0, next.as_str())] };
            (0..entries / 512).fold(table(address(level), &slots), |text, part| {
                if part == 0 { text } else { text + &table(address(level) + 4096 * part, &[]) }
            })
        })
        .collect();
    let pe =
        "start 2; 0 found hcr_el2 0; 0 found mair_el2 4404ff; 0 found ttbr0_el2 40000000; 0 found sctlr_el2 30cd183d";
    format!(
        "{features}\n{tables}0 {pe}; 0 found tcr_el2 {tcr}\n1 {}; 1 found tcr_el2 {tcr}\n",
        pe.replace("; 0 ", "; 1 ")
    )
}

/// Slot 1 of the last table, at `slot` (VA and PA): broken, invalidated by `operand`, made as `word`.
fn remake(slot: &str, operand: &str, word: &str) -> String {
    format!(
        "0 store 8 {slot} 0; 0 dsb ishst; 0 tlbi vae2is {operand}; 0 dsb ish
         0 store 8 {slot} {word}; 0 dsb ish; 0 isb; 0 settled; end exit"
    )
}

#[track_caller]
fn judge(machine: &str, slot: &str, operand: &str, wrong: &str, word: &str) {
    assert_clean(&[machine, &remake(slot, operand, word)]);
    assert_broken(&[machine, &remake(slot, wrong, word)], &[Rule::OutputChange, Rule::StaleLeaf]);
    let in_place = format!("0 store 8 {slot} {word}");
    assert_broken(&[machine, &in_place], &[Rule::OutputChange]);
}

#[test]
fn bad_16k_pages() {
    let machine = machine_with("", "8085b511", 3, 2048, ("40000050004703", "40000040020703"));
    judge(&machine, "8008 40020008", "4", "8", "40000050008703");
}

#[test]
fn bad_64k_pages_with_52_bits() {
    let machine = machine_with("feature all pa-bits=52", "80867516", 2, 8192, ("4000005001f703", "40000040010703"));
    judge(&machine, "20008 40010008", "10", "20", "4000005002f703");
    judge(&machine, "20008 40010008", "10", "20", "4000005001e703");
}

#[test]
fn bad_lpa2_pages() {
    let features = "feature all lpa2\nfeature all pa-bits=52";
    let machine = machine_with(features, "18086350c", 5, 512, ("40000050001403", "40000040040403"));
    judge(&machine, "2008 40040008", "1", "2", "40000050001603");
}

#[test]
fn bad_39_bits_with_4k() {
    let machine = machine_with("", "80853519", 3, 512, ("40000050001703", "40000040020703"));
    judge(&machine, "2008 40020008", "1", "2", "40000050002703");
}

#[test]
fn bad_blocks() {
    let machine = machine_with("", "80853519", 2, 512, ("40000050000701", "40000040000701"));
    judge(&machine, "410008 40010008", "3ff", "400", "40000060000701");
}

/// PE 0 breaks page 1 and says so by a flag; PE 1 sees the flag, invalidates, and makes the page anew. `between` stands after PE 1's load.
fn handed_over(between: &str) -> Vec<String> {
    let broken = page(1, "0") + "0 dsb ish; 0 store 8 8000 50008000 1; 1 load 8 8000 50008000 1\n";
    let made = page(1, RW_OTHER).replace("0 store", "1 store");
    let rest = format!("1 tlbi vae2is 1; 1 dsb ish\n{made} 1 dsb ish; 1 isb; 0 isb; 1 settled; end exit");
    vec![machine(2, &[(1, RW), (8, "40000050008703")]), broken, between.to_owned(), rest]
}

fn doubts(between: &str) -> usize {
    let parts = handed_over(between);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    assert_clean(&parts);
    judged(&parts).doubts().len()
}

#[test]
fn good_flag_load_and_a_dsb_order_a_tlbi() {
    for dsb in ["dsb ish", "dsb ishld", "dsb sy", "dsb ld"] {
        assert_eq!(doubts(&format!("1 {dsb}")), 0, "{dsb}");
    }
    // Nobody waits for anybody: the trace is all that is known of the order.
    let alone: Vec<String> = handed_over("").iter().map(|part| part.replace("1 load 8 8000 50008000 1", "")).collect();
    let alone: Vec<&str> = alone.iter().map(String::as_str).collect();
    assert_eq!(judged(&alone).doubts().len(), 0);
}

#[test]
fn bad_flag_load_that_nothing_seen_orders_before_a_tlbi() {
    // Acquire is a load like others here; a DSB of stores waits for no load.
    for between in ["", "1 dmb ish", "1 dmb sy", "1 isb", "1 dsb ishst", "1 dmb ishld; 1 isb"] {
        assert_eq!(doubts(between), 1, "{between}");
    }
    let parts = handed_over("1 isb");
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let engine = judged(&parts);
    let said = engine.doubts()[0].to_string();
    assert!(said.contains("PE 0 replaced") && said.contains("no trace shows"), "{said}");
    assert_eq!((engine.doubts()[0].pe(), engine.violations().len()), (1, 0), "it fails nothing");
}

#[test]
fn good_store_that_another_pe_has_superseded() {
    let filled = format!("1 store 8 40003008 40003008 {RW}\n");
    let broken = page(1, "0");
    assert_clean(&[&machine(2, &[]), &filled, &broken, "0 dsb ish; 0 tlbi vae2is 1; 0 dsb ish; 0 isb; end exit"]);
}

#[test]
fn bad_store_that_comes_after_another_pe_s() {
    // The last store is PE 1's, and no DSB of PE 0 waits for that.
    let broken = "1 store 8 40003008 40003008 0\n";
    let rest = "0 dsb ish; 0 tlbi vae2is 1; 0 dsb ish; 0 isb; end exit";
    assert_broken(&[&machine(2, &[]), &page(1, RW), broken, rest], &[Rule::StaleLeaf]);
    assert_clean(&[&machine(2, &[]), &page(1, RW), broken, &format!("1 dsb ish; {rest}")]);
}
