//! What cannot be known is not clean: each thing that a verdict would need, left out or not followed, and its twin where it is there.

use crate::{MAIR, RW, TCR, judged, machine, memory, on, remade, strange, table};

/// What the engine says that it does not know after `parts`, line by line.
fn unknowns(parts: &[&str]) -> Vec<String> {
    judged(parts).unknowns().iter().map(ToString::to_string).collect()
}

/// Nothing is broken after `parts`, and all is known that this rests on.
#[track_caller]
pub(crate) fn assert_clean(parts: &[&str]) {
    crate::assert_clean(parts);
    assert_eq!(unknowns(parts), Vec::<String>::new());
}

/// There is no verdict after `parts`, and what is said names each of `named`.
#[track_caller]
pub(crate) fn no_verdict(parts: &[&str], named: &[&str]) {
    let said = unknowns(parts);
    assert_eq!(said.len(), 1, "{said:#?}");
    for name in named {
        assert!(said[0].contains(name), "{name} is not named: {said:#?}");
    }
}

/// A change in place, which is judged as long as anything is.
const CHANGE: &str = "0 store 8 40003008 40003008 40000050001703; 0 dsb ish; 0 isb; end exit";

#[test]
fn bad_a_register_that_nobody_names_with_the_mmu_on() {
    for (register, value) in [("tcr_el2", TCR), ("mair_el2", MAIR), ("ttbr0_el2", "40000000")] {
        let found = format!("0 found {register} {value}\n");
        let on = on(0);
        assert!(on.contains(&found));
        let (name, machine) = (register.to_uppercase(), memory(&[(1, RW)]));
        let said = unknowns(&[&machine, &on.replace(&found, ""), CHANGE]);
        let named = |said: &&String| said.contains(&name) && said.contains("SCTLR_EL2 = 30cd183d");
        assert!(said.iter().any(|said| named(&said)), "{register}: {said:#?}");
    }
}

/// The level 3 table lies in one part of flash, the data that page 1 leads to in another.
const FLASH: &str = "memory 40003000 40004000 flash; memory 50000000 50001000 flash; memory 40000000 60000000 ram";

#[test]
fn bad_a_store_to_the_flash_that_holds_a_table_in_use() {
    // A command: erase, program, or a byte to be programmed. The table may hold anything afterwards.
    for marked in ["", " device"] {
        let command = format!("0 store 4 40003010 40003010 20{marked}; 0 dsb ish; 0 isb; end exit");
        no_verdict(
            &[FLASH, &machine(1, &[(1, RW)]), &command],
            &["the flash from 40003000", "the table in use at 40003000"],
        );
    }
}

#[test]
fn good_a_store_to_other_flash_and_its_contents_are_not_taken_for_known() {
    let machine = machine(1, &[(1, RW)]);
    assert_clean(&[FLASH, &machine, "0 store 4 1000 50000000 20 device; 0 dsb ish; 0 isb; end exit"]);
    assert_eq!(judged(&[FLASH, &machine]).word(0x4000_3008), Some(0x40_0000_5000_0703));
    assert_eq!(judged(&[FLASH, &machine, "0 store 4 40003f00 40003f00 20 device"]).word(0x4000_3008), None);
    // Of a new value nothing is known either: no leaf comes into force that anybody could judge.
    let made = "0 store 8 40003010 40003010 40000050001703";
    assert_eq!(judged(&[FLASH, &machine, made]).word(0x4000_3010), None);
}

/// A table that nothing leads to yet, and the store that links it.
const LINK: &str = "0 store 8 40002008 40002008 40004003; 0 dsb ish; 0 isb; end exit";

#[test]
fn bad_a_load_finds_what_nobody_stored_in_a_table_in_use() {
    let machine = machine(2, &[(1, RW)]);
    let all = "0 load 8 40003008 40003008 40000050001703; 0 isb; end exit";
    no_verdict(&[&machine, all], &["40003008", "40003000", "40000050001703", "40000050000703"]);
    // Bytes alone, and of another PE.
    no_verdict(&[&machine, "1 load 1 40003009 40003009 17; 0 isb"], &["40003008", "finds", "1700"]);
    // One's own store is seen at once, and another's after its DSB.
    for load in ["0 dmb ish; 0 load", "0 dsb ish; 1 load"] {
        let stored = format!("0 store 8 40003010 40003010 40000050001703; {load} 8 40003010 40003010 0; 0 dsb ish");
        no_verdict(&[&machine, &stored, "0 isb; end exit"], &["40003010", "finds 0"]);
    }
}

#[test]
fn bad_a_word_that_a_load_contradicts_becomes_part_of_a_table() {
    let table = table(0x4000_4000, &[]);
    let machine = machine(1, &[(1, RW)]);
    let found = "0 load 4 40004010 40004010 50001703";
    assert_eq!(judged(&[&table, &machine, found]).word(0x4000_4010), None);
    no_verdict(&[&table, &machine, found, LINK], &["40004010", "40004000", "50001703"]);
    // What is not declared but stored, or cleared.
    let filled: String = (0..512).map(|word| format!("0 store 8 {0:x} {0:x} 0\n", 0x4000_4000 + 8 * word)).collect();
    no_verdict(&[&machine, &filled, "0 dsb ish", found, LINK], &["40004010", "40004000", "50001703"]);
}

#[test]
fn good_a_load_that_a_store_explains_or_that_is_not_memory() {
    let machine = machine(2, &[(1, RW)]);
    let store = |pe: u32, word: &str| format!("{pe} store 8 40003010 40003010 {word}; ");
    let found =
        |pe: u32, word: &str| format!("{pe} load 8 40003010 40003010 {word}; 0 dsb ish; 1 dsb ish; 0 isb; 1 isb");
    // Another PE's store without DSB is seen, or not; of two, in either order.
    let made = "40000050000703";
    for seen in ["0", made] {
        assert_clean(&[&machine, &store(0, made), &found(1, seen), "end exit"]);
    }
    let both = store(0, "2") + &store(1, "4");
    for (pe, seen) in [(0, "2"), (0, "4"), (1, "2"), (1, "4")] {
        assert_clean(&[&machine, &both, &found(pe, seen), "end exit"]);
    }
    // What is known, byte by byte; and a device.
    assert_clean(&[&machine, "0 load 2 40003009 40003009 7; 0 load 16 40003008 40003008 40000050000703 0", "end exit"]);
    assert_clean(&[&machine, "0 load 8 40003010 40003010 ff device; 0 isb; end exit"]);
}

/// A store's line follows its access: another PE may have loaded from it before.
#[test]
fn good_a_load_from_the_store_that_another_pe_writes_down_next() {
    let (machine, table) = (machine(3, &[(1, RW)]), table(0x4000_4000, &[]));
    let load = "1 load 8 40003010 40003010 40000050000703; 1 isb";
    let store = "0 store 8 40003010 40003010 40000050000703; 0 dsb ish; 0 isb; 1 isb; 2 isb";
    assert_clean(&[&machine, load, "2 isb", store, "end exit"]);
    // Bytes of it, by the load and the store of one atomic instruction, and seen by two.
    let bytes = "1 load 2 40003010 40003010 703; 2 load 1 40003011 40003011 7; 1 isb; 2 isb";
    assert_clean(&[&machine, bytes, "0 load 8 40003010 40003010 0", store, "end exit"]);
    let half = "1 load 8 40003008 40003008 40000050001703; 1 isb; 2 isb; 0 store 2 40003008 40003008 1703; 0 dsb ish";
    assert_eq!(unknowns(&[&machine, half, "0 isb; 1 isb; end exit"]), Vec::<String>::new());
    // What it held before is known again: the store changes a live leaf.
    let change = ["1 load 8 40003008 40003008 40000050001703; 1 isb", "0 store 8 40003008 40003008 40000050001703"];
    assert!(!judged(&[&machine, change[0], change[1], "0 dsb ish; end exit"]).violations().is_empty());
    // What becomes a table meanwhile.
    let other = "1 load 8 40004010 40004010 1; 2 store 8 40002008 40002008 40004003; 2 dsb ish; 2 isb; 1 isb";
    let late = "0 store 8 40004010 40004010 1; 0 dsb ish; 0 isb; end exit";
    assert_eq!(unknowns(&[&table, &machine, other, late]), Vec::<String>::new());
}

#[test]
fn bad_a_load_from_what_no_other_pe_stores_next() {
    let (machine, table) = (machine(3, &[(1, RW)]), table(0x4000_4000, &[]));
    let load = "1 load 8 40003010 40003010 40000050000703; 1 isb";
    let store = "0 store 8 40003010 40003010 40000050000703; 0 dsb ish; 0 isb; 1 isb; 2 isb; end exit";
    let named = ["40003010", "finds 40000050000703"];
    // Its own store is in program order, and so is what another does before.
    no_verdict(&[&machine, load, "0 isb; 2 isb", store], &named);
    no_verdict(&[&machine, load, &store.replace("0 store", "1 store")], &named);
    // Another value, another word, or nothing more at all.
    no_verdict(&[&machine, load, "2 isb; 0 store 8 40003010 40003010 4; 0 dsb ish; end exit"], &named);
    no_verdict(&[&machine, load, &store.replace("40003010 40003010", "40003018 40003018"), "2 isb"], &named);
    for end in ["exit", "limit", "cap"] {
        no_verdict(&[&machine, load, &format!("2 isb; end {end}")], &named);
    }
    let other = "1 load 8 40004010 40004010 1; 2 store 8 40002008 40002008 40004003; 2 dsb ish; 2 isb; 1 isb";
    no_verdict(&[&table, &machine, other, "0 isb; 0 store 8 40004010 40004010 1; 0 dsb ish; end exit"], &["40004010"]);
}

#[test]
fn good_a_load_that_no_walk_depends_on() {
    let (machine, table) = (machine(1, &[(1, RW)]), table(0x4000_4000, &[]));
    let found = "0 load 4 40004010 40004010 50001703";
    assert_clean(&[&table, &machine, found, "0 dsb ish; 0 isb; end exit"]);
    // What is stored over it is known again.
    assert_clean(&[&table, &machine, found, "0 store 8 40004010 40004010 0; 0 dsb ish", LINK]);
    // The lines of tables may hold something else with the MMU off, and are judged by themselves.
    let off = "0 start 2; 0 store 8 50000000 50000000 1; 0 load 8 50000000 50000000 2; 0 dsb sy; end exit";
    assert_clean(&[off]);
}

#[test]
fn good_every_register_named_or_the_mmu_off() {
    assert_clean(&[&machine(1, &[(1, RW)]), "0 isb; end exit"]);
    // No `found sctlr_el2` means M = 0, no `found hcr_el2` means E2H = 0.
    assert_clean(&["0 start 2; 0 found tcr_el2 80853531; 0 isb; end exit"]);
    assert_clean(&[&memory(&[(1, RW)]), &on(0).replace("0 found hcr_el2 0\n", ""), "0 isb; end exit"]);
}

#[test]
fn bad_a_format_that_is_reserved_or_not_followed() {
    let with = |from: &str, to: &str| [memory(&[(1, RW)]), on(0).replace(from, to)].concat();
    let size = with(TCR, "80853531");
    no_verdict(&[&size, CHANGE], &["line 3080", "TCR_EL2 = 80853531", "T0SZ is 49"]);
    no_verdict(&[&with(TCR, "8085f510"), CHANGE], &["TCR_EL2 = 8085f510", "TG0"]);
    no_verdict(&[&with("hcr_el2 0", "hcr_el2 400000000"), CHANGE], &["HCR_EL2 = 400000000", "E2H"]);
    for (bit, name) in [(1, "PIE"), (3, "POE"), (4, "AIE"), (5, "D128"), (10, "PTTWI"), (11, "HAFT")] {
        let value = format!("{:x}", 1 << bit);
        let found = with("0 found hcr_el2 0", &format!("0 found hcr_el2 0\n0 found tcr2_el2 {value}"));
        let said = unknowns(&[&found, CHANGE]);
        let named = |said: &String| said.contains(&format!("TCR2_EL2 = {value}")) && said.contains(name);
        assert!(said.iter().any(named), "{name}: {said:#?}");
    }
}

#[test]
fn bad_such_a_format_is_written_with_the_mmu_on() {
    let machine = machine(1, &[(1, RW)]);
    for (write, named) in [("hcr_el2 400000000", "E2H"), ("tcr2_el2 2", "PIE"), ("tcr_el2 80853531", "T0SZ")] {
        let said = unknowns(&[&machine, &format!("0 msr {write}")]);
        assert!(said.iter().any(|said| said.contains(named)), "{write}: {said:#?}");
    }
}

#[test]
fn good_such_a_format_with_the_mmu_off_or_bits_without_a_meaning() {
    assert_clean(&[&machine(1, &[]), "0 msr tcr2_el2 0; 0 isb"]);
    assert_clean(&["0 start 2; 0 found hcr_el2 400000000; 0 msr hcr_el2 80000000; 0 isb; end exit"]);
}

#[test]
fn bad_the_name_of_el1_turns_on_the_mmu_of_el2_with_e2h() {
    let e2h = "0 start 2; 0 found hcr_el2 400000000; 0 found sctlr_el2 30cd0838; 0 msr sctlr_el1 30cd183d; 0 isb";
    // What is stored then goes through caches, and by a regime that is not followed.
    let used = "0 store 8 ffff000000001000 40001000 1; 0 load 8 ffff000000001000 40001000 1; end exit";
    no_verdict(&[e2h, used], &["PE 0", "E2H"]);
    // Its registers go by other names there, its TLBIs and DCs by addresses that nothing here translates: nothing is
    // alleged of it.
    let uncached =
        "0 start 2; 0 found hcr_el2 400000000; 0 store 8 40001000 40001000 1; 0 msr sctlr_el1 30cd183d; 0 isb";
    let engine = judged(&[uncached, used]);
    assert!(engine.violations().is_empty() && !engine.unknowns().is_empty(), "{:#?}", engine.violations());
    let before =
        "0 msr hcr_el2 400000000; 0 isb; 0 store 8 40003008 40003008 40000050003703; 0 dsb ish; 0 isb; end exit";
    let change = "0 store 8 40003008 40003008 40000050001703";
    let found = judged(&[&machine(1, &[(1, RW)]), change, before]);
    assert!(found.violations().iter().all(|violation| violation.new == Some(0x0040_0000_5000_1703)));
    assert!(!found.violations().is_empty(), "what was found before stands");
    let at_el1 = "0 start 2; 0 found hcr_el2 480000000; 0 msr spsr_el2 3c5; 0 eret 1; 0 msr sctlr_el1 30d0199d; 0 isb";
    assert_clean(&[at_el1, "end exit"]);
}

#[test]
fn bad_a_root_of_which_nothing_is_known() {
    no_verdict(&[&on(0), "0 isb; end exit"], &["PE 0", "root 40000000"]);
    let elsewhere = on(0).replace("ttbr0_el2 40000000", "ttbr0_el2 40100000");
    no_verdict(&[&memory(&[]), &elsewhere, "0 isb; end exit"], &["root 40100000"]);
}

#[test]
fn good_a_table_known_in_part_is_judged_by_what_is_known() {
    assert_clean(&["word 40000000 40001003", &on(0), "0 isb; end exit"]);
    assert_clean(&["word 40000ff8 0", &on(0), "0 isb; end exit"]);
}

#[test]
fn bad_declarations_that_contradict_each_other() {
    let machine = machine(2, &[(1, RW)]);
    no_verdict(&["word 40003010 1; word 40003010 3", &on(0).replace("40000000", "40003000"), "0 isb"], &["40003010"]);
    no_verdict(&["feature 1 bbm=0; feature all bbm=2", &machine, "0 isb"], &["line 3", "bbm=2", "bbm=0"]);
    no_verdict(&["feature all pa-bits=40; feature all pa-bits=44", &machine, "0 isb"], &["pa-bits=40", "pa-bits=44"]);
    let twice = machine.replace("1 found tcr_el2", "1 found tcr_el2 80853511\n1 found tcr_el2");
    no_verdict(&[&twice, "0 isb"], &["PE 1", "TCR_EL2", "80853511", TCR]);
}

#[test]
fn good_declarations_that_repeat_or_except() {
    let machine = machine(2, &[(1, RW)]);
    let exception = "feature all bbm=2; feature all ets2; feature 1 bbm=0; feature 1 bbm=0";
    assert_clean(&["word 40003010 3; word 40003010 3", exception, &machine.replace("word 40003010 0\n", ""), "0 isb"]);
    assert_clean(&[&machine.replace("1 found tcr_el2", &format!("1 found tcr_el2 {TCR}\n1 found tcr_el2")), "0 isb"]);
}

#[test]
fn bad_declarations_that_come_too_late() {
    let machine = machine(1, &[(1, RW)]);
    no_verdict(&[&machine, "0 isb; word 40003018 0; 0 isb"], &["40003018", "first event"]);
    no_verdict(&[&machine, "0 isb; feature all bbm=2; 0 isb"], &["bbm=2", "first event"]);
    no_verdict(&[&machine, &format!("0 isb; 0 found tcr_el2 {TCR}; 0 isb")], &["PE 0", "TCR_EL2", TCR]);
}

#[test]
fn bad_what_is_known_is_judged_beside_what_is_not() {
    let unknown = on(1).replace("1 found mair_el2 4404ff\n", "");
    let engine = judged(&[&machine(1, &[(1, RW)]), &unknown, CHANGE]);
    assert!(!engine.violations().is_empty() && !engine.unknowns().is_empty());
}

/// `access` is the only one that nothing explains, and each of `named` is said of it.
#[track_caller]
fn not_explained(machine: &[&str], access: &str, named: &[&str]) {
    let parts = [machine, &[access]].concat();
    let (engine, said) = (judged(&parts), strange(&parts));
    assert!(engine.violations().is_empty(), "{:#?}", engine.violations());
    assert_eq!(said.len(), 1, "{said:#?}");
    for name in named {
        assert!(said[0].contains(name), "{name} is not named: {said:#?}");
    }
}

#[test]
fn bad_an_access_that_no_translation_explains() {
    let machine = machine(2, &[(1, RW)]);
    let of = |access: &str, named: &[&str]| not_explained(&[&machine], access, named);
    // Another page, not mapped, out of range, a device, a store.
    of("0 load 8 1008 50003008 0", &["line 3086", "PE 0", "50003008 at 1008", "finds 40000050000703", "50000008"]);
    of("1 load 8 7000 50000000 0", &["PE 1", "40003038, level 3: no mapping"]);
    of("0 load 8 ffff50000000 50000000 0", &["40000ff8, level 0: no mapping"]);
    of("0 load 8 ffff000050000000 50000000 0", &["no walk begins at the root 40000000"]);
    of("0 store 4 1000 9000000 0 device", &["9000000 at 1000"]);
    of("0 store 8 1ff8 50001ff8 0", &["50001ff8 at 1ff8"]);
    // The page was used before, and led where it leads.
    of("0 load 8 1000 50000000 0; 0 load 8 1008 50002008 0", &["50002008 at 1008"]);
    // A line between says of which address; further ones of the same kind are bounded.
    let many: String = (0..100).map(|page| format!("0 load 8 {:x} 50000000 0\n", 0x10000 + 0x1000 * page)).collect();
    assert_eq!(strange(&[&machine, &many]).len(), 16);
    assert_eq!(
        unknowns(&[&machine, &many, "1 isb; 0 msr tcr_el2 80853531; end limit"]).len(),
        17,
        "they hide nothing else"
    );
}

#[test]
fn bad_an_access_by_what_is_gone_everywhere() {
    let machine = machine(2, &[(1, RW), (2, "40000050002703")]);
    let remade = remade(1, "40000050001703").replace("; end exit", "; 1 isb\n");
    for pe in 0..2 {
        let old = format!("{pe} load 8 1000 50000000 0");
        not_explained(&[&machine, &remade], &old, &["50000000 at 1000", "50001000"]);
    }
    // Another root that is left: it explains until its TLBI is complete.
    let second = second_root("40000050003703");
    let switch = "0 dsb ish; 0 isb; 0 msr sctlr_el2 30cd183c; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb
        0 msr ttbr0_el2 40008000; 0 isb; 0 msr sctlr_el2 30cd183d; 0 isb\n";
    not_explained(&[&second, &machine, switch], "0 load 8 1000 50000000 0", &["50000000 at 1000", "40008000"]);
    assert_eq!(strange(&[&second, &machine, switch, "0 load 8 1000 50003000 0"]), [""; 0]);
    assert_eq!(strange(&[&second, &machine, switch, "1 load 8 1000 50000000 0"]), [""; 0]);
}

/// A second root at 40008000, with `page` as page 1.
fn second_root(page: &str) -> String {
    let tables = [(0x4000_8000, "40009003"), (0x4000_9000, "4000a003"), (0x4000_a000, "4000b003")];
    let upper: String = tables.into_iter().map(|(pa, next)| table(pa, &[(0, next)])).collect();
    upper + &table(0x4000_b000, &[(1, page)])
}

#[test]
fn good_an_access_by_what_a_tlb_may_still_hold_or_walks_may_still_see() {
    let machine = machine(2, &[(1, RO_CODE), (2, "40000050002703")]);
    let (old, new) = ("{pe} load 8 1000 50000000 0", "{pe} load 8 1000 50001000 0");
    let of = |access: &str, pe: u32| access.replace("{pe}", &pe.to_string());
    let explained = |parts: &[&str]| {
        assert_eq!(strange(&[&[machine.as_str()], parts].concat()), [""; 0]);
    };
    // Until a TLBI of the replaced one is complete, each PE may use either. It is read-only, and no rule is broken by
    // that.
    let store = format!("0 store 8 40003008 40003008 {RO_CODE_OTHER}\n");
    for until in ["", "0 dsb ish", "0 dsb ish; 0 tlbi vae2is 1", "0 dsb ish; 0 tlbi vae2 1; 0 dsb nsh; 0 isb"] {
        explained(&[&store, until, &of(old, 1), &of(new, 1)]);
    }
    // A broken one is used by another PE: that is another matter.
    explained(&["0 store 8 40003008 40003008 0; 0 dsb ish; 0 tlbi vae2is 1; 0 dsb ish", &of(old, 1)]);
    // A table that was unlinked, as long as its entry may be cached, and what was stored there meanwhile.
    let unlinked = "0 store 8 40002000 40002000 0; 0 dsb ish\n";
    explained(&[
        unlinked,
        &of(old, 1),
        &format!("0 store 8 40003010 40003010 {RO_CODE_OTHER}"),
        "1 load 8 2000 50001000 0",
    ]);
}

/// The line of a store follows its access.
#[test]
fn good_an_access_by_what_another_pe_has_just_stored() {
    let machine = machine(3, &[(1, RW)]);
    let (used, stored) = ("1 load 8 2000 50002000 0", "0 store 8 40003010 40003010 40000050002703");
    for between in ["", "2 isb", "0 load 8 1000 50000000 0", "1 isb"] {
        assert_eq!(strange(&[&machine, used, between, stored]), [""; 0], "{between}");
    }
    // It is not the other's next event, stores something else, or is stored by the PE itself, which sees its own at
    // once.
    not_explained(&[&machine, used, "0 isb", stored], "1 isb", &["line 3092", "50002000 at 2000"]);
    not_explained(&[&machine, used, "0 store 8 1000 50000000 0", stored], "1 isb", &["50002000 at 2000"]);
    not_explained(&[&machine, used, &stored.replace("0 store", "1 store")], "0 isb", &["50002000 at 2000"]);
    not_explained(&[&machine, used, &stored.replace("50002703", "50003703")], "1 isb", &["50002000 at 2000"]);
}

#[test]
fn good_an_access_of_which_not_everything_is_known() {
    let of = |machine: &str, access: &str| assert_eq!(strange(&[machine, access]), [""; 0]);
    let machine = machine(1, &[(1, RW)]);
    // An unknown word anywhere on the way may be anything.
    for (word, access) in [("40003038", "0 load 8 7000 60000000 0"), ("40002008", "0 load 8 200000 60000000 0")] {
        of(&machine.replace(&format!("word {word} 0\n"), ""), access);
        not_explained(&[&machine], access, &["60000000"]);
    }
    // With the MMU off, at another level, or behind nobody knows which ERET.
    let off = "0 msr sctlr_el2 30cd183c; 0 isb; 0 load 8 60000000 60000000 0";
    of(&machine, off);
    of(&machine, "0 eret 1; 0 load 8 7000 60000000 0");
    // Two known words of a page, and one that a load has found to be another.
    let spare = "0 load 8 40004000 40004000 40000050000703\n";
    let linked = "0 store 8 40002008 40002008 40004003; 0 dsb ish; 0 isb; 0 load 8 200000 60000000 0";
    of(&machine, &[spare, linked].concat());
    // What a TLB holds from reset may be anything; that it is not invalidated is a finding of its own.
    let reset = memory(&[(1, RW)])
        + &format!("0 start 2; 0 msr mair_el2 {MAIR}; 0 msr tcr_el2 {TCR}; 0 msr ttbr0_el2 40000000; 0 isb\n");
    let garbage = "0 msr sctlr_el2 30cd183d; 0 isb; 0 load 8 7000 60000000 0";
    assert!(judged(&[&reset, garbage]).unknowns().is_empty());
    let cleared = "0 tlbi alle2 0; 0 dsb nsh; 0 isb\n".to_owned() + garbage;
    assert_eq!(judged(&[&reset, &cleared]).unknowns().len(), 1);
}

#[test]
fn bad_violations_stand_beside_an_access_that_nothing_explains() {
    let engine = judged(&[&machine(1, &[(1, RW)]), "0 load 8 7000 60000000 0", CHANGE]);
    assert!(!engine.violations().is_empty() && !engine.unknowns().is_empty());
}

/// Page 1: read-only and executable, at 50000000, and at 50001000.
const RO_CODE: &str = "50000783";
const RO_CODE_OTHER: &str = "50001783";

#[test]
fn bad_dc_zva_of_a_block_that_nobody_names() {
    let (machine, zeroed) = (machine(2, &[(1, RW)]), "0 dc zva 1040; 0 dsb ish; end exit");
    no_verdict(&[&machine, zeroed], &["PE 0", "DC ZVA at 1040", "DCZID_EL0"]);
    // Another PE may be another part.
    no_verdict(&[&machine, "1 found dczid_el0 4", zeroed], &["PE 0"]);
    no_verdict(&[&machine, "0 found dczid_el0 14", zeroed], &["DCZID_EL0 = 14", "DZP"]);
    no_verdict(&[&machine, "0 found dczid_el0 b", zeroed], &["DCZID_EL0 = b", "reserved"]);
    no_verdict(&[&machine, "0 found dczid_el0 0", zeroed], &["DCZID_EL0 = 0", "4 bytes"]);
    // DC GZVA writes the same zeros, and tags.
    no_verdict(&[&machine, &zeroed.replace("zva", "gzva")], &["PE 0"]);
}

#[test]
fn good_dc_zva_of_a_block_that_is_known() {
    let (machine, zeroed) = (machine(2, &[(1, RW)]), "0 dc zva 1040; 0 dsb ish; end exit");
    assert_clean(&[&machine, "0 found dczid_el0 6", zeroed]);
    // It may become known while the program runs: when it asks.
    assert_clean(&[&machine, "0 isb; 0 mrs dczid_el0; 0 found dczid_el0 6", zeroed]);
    // What is not mapped is not zeroed.
    assert_clean(&[&machine, &zeroed.replace("1040", "3040")]);
}
