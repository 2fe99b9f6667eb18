//! Where violations come from, where they do harm, and what would mend them: a person has to find the one place that is
//! wrong.

use breakwater_oracle::obligations::{Harm, Lack, Rule, Side, Violation};

use crate::{MAIR, RO, RW, RW_OTHER, TCR, after, judged, machine, memory, on, page, table};

/// Rule, and the instructions that it comes from, and that would mend it on one side.
type Told = (Rule, u64, Lack, Side, u64);

/// What is told of `parts`, each once, in the order of [`Rule::ALL`].
fn told(parts: &[&str]) -> Vec<Told> {
    let engine = judged(parts);
    let mut told: Vec<Told> = Vec::new();
    for Violation { rule, line, pc, remedy, .. } in engine.violations() {
        assert!(*line != 0 && remedy.at.line != 0, "each comes from an event: {:?}", engine.violations());
        let one = (*rule, *pc, remedy.lack, remedy.side, remedy.at.pc);
        if !told.contains(&one) {
            told.push(one);
        }
    }
    told.sort_by_key(|told| told.0);
    told
}

/// The instructions at which harm was done; nothing for the end.
fn harms(parts: &[&str]) -> Vec<Option<u64>> {
    let harm = |harm| match harm {
        Harm::At(at) => Some(at.pc),
        Harm::End => None,
    };
    judged(parts).violations().iter().filter_map(|violation| violation.harm.map(harm)).collect()
}

/// Page 1 as `word`, by the instruction at `pc`.
fn store(pc: u64, word: &str) -> String {
    page(1, word).replace("store", &format!("{pc:x}: store"))
}

const END: &str = "end exit";

#[test]
fn bad_what_is_owed_at_the_end_comes_from_its_store() {
    let machine = machine(2, &[(1, RW)]);
    let forgotten = [machine.as_str(), &store(0x10, "0"), "0 dsb ish", END];
    assert_eq!(told(&forgotten), [(Rule::StaleLeaf, 0x10, Lack::Tlbi, Side::After, 0x10)]);
    assert_eq!(harms(&forgotten), [None]);
    let unseen = [machine.as_str(), &store(0x10, "0"), "0 14: tlbi vae2is 1; 0 dsb ish", END];
    assert_eq!(told(&unseen), [(Rule::StaleLeaf, 0x10, Lack::StoreDsb, Side::After, 0x10)]);
    let filled = page(2, RW).replace("store", "20: store");
    let unseen = [machine.as_str(), &filled, END];
    assert_eq!(told(&unseen), [(Rule::NotVisible, 0x20, Lack::StoreDsb, Side::After, 0x20)]);
    assert_eq!(
        told(&[&machine, "0 30: tlbi alle2is 0", END]),
        [(Rule::UnfinishedTlbi, 0x30, Lack::TlbiDsb, Side::After, 0x30)]
    );
    assert_eq!(
        told(&[&machine, "0 40: msr sctlr_el2 30cd983d", END])[0],
        (Rule::ControlSync, 0x40, Lack::Isb, Side::After, 0x40)
    );
}

#[test]
fn bad_one_tlbi_that_is_wrong_mends_all_that_it_left() {
    let machine = machine(2, &[(1, RW)]);
    let local = "0 dsb ish; 0 14: tlbi vae2 1; 0 dsb ish";
    let moved = [machine.as_str(), &store(0x10, "0"), local, &store(0x20, RW_OTHER), "0 dsb ish; 0 isb", END];
    let at_the_tlbi = (Lack::Tlbi, Side::At, 0x14);
    let of = |rule, (lack, side, pc)| (rule, 0x10, lack, side, pc);
    assert_eq!(told(&moved), [of(Rule::OutputChange, at_the_tlbi), of(Rule::StaleLeaf, at_the_tlbi)]);
    assert_eq!(harms(&moved), [Some(0x20), None]);
}

#[test]
fn bad_one_dsb_missing_behind_the_tlbi_that_two_stores_share() {
    let machine = machine(2, &[(1, RW), (2, RW)]);
    let flush = |va: u64| format!("0 dsb ishst; 0 100: tlbi vae2is {va}; 0 104: dsb ishst\n");
    let other = page(2, RO).replace("store", "20: store");
    let both = [machine.as_str(), &store(0x10, RO), &flush(1), &other, &flush(2), END];
    let of = |pc| (Rule::StaleLeaf, pc, Lack::TlbiDsb, Side::After, 0x100);
    let stale: Vec<Told> = told(&both).into_iter().filter(|told| told.0 == Rule::StaleLeaf).collect();
    assert_eq!(stale, [of(0x10), of(0x20)]);
}

#[test]
fn bad_a_change_in_place_that_nothing_invalidates_lacks_its_break() {
    let parts = [&*machine(2, &[(1, RW)]), &store(0x10, RW_OTHER), "0 dsb ish; 0 isb", END];
    let of = |rule| (rule, 0x10, Lack::Break, Side::Before, 0x10);
    assert_eq!(told(&parts), [of(Rule::OutputChange), of(Rule::StaleLeaf)]);
}

#[test]
fn bad_an_isb_of_its_own_belongs_behind_the_dsb_wherever_the_page_is_used() {
    let uses = "0 50: load 8 1000 50000000 0; 0 60: load 8 1008 50000008 0";
    let parts = [&*machine(1, &[]), &store(0x10, RW), "0 14: dsb ish", uses, END];
    assert_eq!(told(&parts), [(Rule::FillSync, 0x10, Lack::Isb, Side::After, 0x14)]);
    assert_eq!(harms(&parts), [Some(0x50), Some(0x60), None]);
}

/// What `ArmReplaceLiveTranslationEntry` of EDK2 2022.11 does, for a table that it has filled with DSBs for itself
/// alone.
#[test]
fn bad_one_isb_missing_behind_a_table_that_replaces_a_leaf() {
    let filled = "0 8: store 8 40004008 40004008 40000050001703; 0 dsb nsh\n";
    let replaced = "0 10: store 8 40002008 40002008 0; 0 dsb nshst; 0 tlbi vae2 200; 0 18: dsb nsh
        0 1c: store 8 40002008 40002008 40004003; 0 20: dsb nshst\n";
    let uses = "0 50: load 8 201000 50001000 0; 0 60: load 8 201008 50001008 0\n";
    let block = memory(&[]).replace("word 40002008 0", "word 40002008 40000050000701");
    let parts = |isb| [block.as_str(), &on(0), "0 isb", filled, replaced, isb, uses, "end limit"].map(str::to_owned);
    let told = |isb| told(&parts(isb).each_ref().map(String::as_str));
    let of = |rule, pc| (rule, pc, Lack::Isb, Side::After, 0x20);
    assert_eq!(told("0 mrs hcr_el2"), [of(Rule::CompletionSync, 0x10), of(Rule::FillSync, 0x8)]);
    assert_eq!(told("0 isb"), []);
}

#[test]
fn bad_an_isb_of_another_pe_belongs_before_its_first_use_of_each_change() {
    let machine = machine(2, &[]);
    let fill = |index: u64, pc: u64| page(index, RW).replace("store", &format!("{pc:x}: store")) + "0 dsb ish; 0 isb\n";
    let uses = "1 50: load 8 1000 50000000 0; 1 60: load 8 1008 50000008 0\n";
    let before = |pc, used| (Rule::FillSync, pc, Lack::Isb, Side::Before, used);
    assert_eq!(told(&[&machine, &fill(1, 0x10), uses, END]), [before(0x10, 0x50)]);
    let later = "1 70: load 8 2000 50000000 0\n";
    let twice = [machine.as_str(), &fill(1, 0x10), uses, &fill(2, 0x20), later, END];
    assert_eq!(told(&twice), [before(0x10, 0x50), before(0x20, 0x70)]);
}

/// The case of hv_fill_nsh: NSH is enough for the PE that filled, and another PE walks too.
#[test]
fn bad_what_another_pe_does_not_see_comes_from_the_store() {
    let uses = "1 50: load 8 1000 50000000 0; 1 isb; 1 60: load 8 1008 50000008 0\n";
    let parts = |dsb: &str| [machine(2, &[]), store(0x10, RW), format!("0 {dsb}; 0 isb; 1 isb\n"), uses.to_owned()];
    let [machine, store, nsh, uses] = parts("dsb nsh");
    assert_eq!(
        told(&[&machine, &store, &nsh, &uses, END]),
        [(Rule::NotVisible, 0x10, Lack::StoreDsb, Side::After, 0x10)]
    );
    let [.., ish, _] = parts("dsb ish");
    assert_eq!(told(&[&machine, &store, &ish, &uses, END]), []);
}

/// A PE from reset, whose tables have been in memory from the start.
fn reset(rest: &str) -> String {
    memory(&[(1, RW)]) + "0 start 2; 0 found hcr_el2 0; 0 found sctlr_el2 30cd1838\n" + rest
}

#[test]
fn bad_one_tlbi_missing_before_the_mmu_is_on() {
    let controls = format!("0 10: msr mair_el2 {MAIR}; 0 14: msr tcr_el2 {TCR}; 0 18: msr ttbr0_el2 40000000\n");
    let turn_on = "0 30: msr sctlr_el2 30cd183d; 0 isb; end exit";
    let nothing = reset(&format!("{controls}0 msr sctlr_el2 30cd1838; 0 isb\n{turn_on}"));
    let before = |rule| (rule, 0x30, Lack::Tlbi, Side::Before, 0x30);
    assert_eq!(told(&[&nothing]), [before(Rule::ControlChange), before(Rule::FirstEnable)]);
    // The TLBI came before the ISB that puts the controls into force: an ISB belongs between.
    let early = reset(&format!("{controls}0 msr sctlr_el2 30cd1838; 0 20: tlbi alle2 0; 0 dsb nsh; 0 isb\n{turn_on}"));
    assert!(told(&[&early]).iter().all(|told| told.2 == Lack::Isb && told.4 == 0x20), "{:?}", told(&[&early]));
    // Types that are written after it come from their write.
    let sequence = "0 msr sctlr_el2 30cd1838; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb";
    let late = reset(&format!("{controls}{sequence}; 0 24: msr mair_el2 ff; 0 isb\n{turn_on}"));
    assert_eq!(told(&[&late]), [(Rule::ControlChange, 0x24, Lack::Tlbi, Side::After, 0x24)]);
}

#[test]
fn bad_one_isb_missing_before_the_mmu_is_on() {
    let rest = format!(
        "0 msr sctlr_el2 30cd1838; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb
         0 10: msr mair_el2 {MAIR}; 0 14: msr tcr_el2 {TCR}; 0 18: msr ttbr0_el2 40000000
         0 30: msr sctlr_el2 30cd183d; 0 isb; end exit"
    );
    // The registers of before are walked too, and each harm of that is the same ISB's.
    let told = told(&[&reset(&rest)]);
    let isb = |told: &&Told| (told.2, told.3, told.4) == (Lack::Isb, Side::After, 0x18);
    assert!(told.iter().filter(isb).any(|told| told.0 == Rule::ControlSync), "{told:?}");
    assert!(told.iter().all(|told| isb(&told) || told.2 == Lack::Tlbi), "{told:?}");
}

/// One PE, whose tables are mapped by index 2, so that index 0 is of page 1 alone.
fn with_tables_past_the_caches() -> String {
    machine(1, &[(1, RW)]).replace("word 40005000 40000040000701", "word 40005000 40000040000709")
}

#[test]
fn bad_a_change_of_mair_with_the_mmu_on_is_not_a_root_switch() {
    // Index 0 is Normal Write-Back, and becomes Non-cacheable.
    let change = "0 10: msr mair_el2 440444; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled; end limit";
    let parts = [&*with_tables_past_the_caches(), change];
    // That the frame now has two types is the same write's.
    let of = |rule| (rule, 0x10, Lack::Break, Side::Before, 0x10);
    assert_eq!(told(&parts), [of(Rule::ControlChange), of(Rule::MismatchedAttributes)]);
    let engine = judged(&parts);
    let violation =
        engine.violations().iter().find(|violation| violation.rule == Rule::ControlChange).expect("it is one");
    assert_eq!((violation.old, violation.new, violation.va), (Some(0x4404ff), Some(0x44_0444), Some(0x1000)));
    assert!(violation.old_as.is_none() && violation.missing.contains("MAIR_EL2"), "{violation}");
}

/// RVNRFW: what is cached of a leaf that is gone may be of either type.
#[test]
fn bad_a_change_of_mair_over_a_leaf_that_is_still_cached() {
    let machine = with_tables_past_the_caches();
    let change = "0 20: msr mair_el2 440444; 0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled; end limit";
    let stale = [machine.as_str(), &store(0x10, "0"), "0 dsb ish", change];
    assert_eq!(told(&stale), [(Rule::ControlChange, 0x20, Lack::Break, Side::Before, 0x20)]);
    let gone = [machine.as_str(), &store(0x10, "0"), "0 dsb ish; 0 tlbi vae2 1; 0 dsb nsh; 0 isb", change];
    assert_eq!(told(&gone), []);
    let other = change.replace("440444", "ff4404ff");
    assert_eq!(told(&[machine.as_str(), &store(0x10, "0"), "0 dsb ish", &other]), []);
}

#[test]
fn bad_the_descriptors_of_two_roots_are_read_where_each_stood() {
    // The second root has a block of 2 MiB where the first has a page.
    let second = table(0x4001_0000, &[(0, "40011003")]) + &table(0x4001_1000, &[(0, "40012003")]);
    let second = second + &table(0x4001_2000, &[(0, "40000060000701")]);
    let parts = [&*second, &machine(1, &[(1, RW)]), "0 10: msr ttbr0_el2 40010000; 0 isb", END];
    let engine = judged(&parts);
    let switch = engine.violations().iter().find(|violation| violation.rule == Rule::RootSwitch).expect("it is one");
    let level = |read_as: Option<(i8, _)>| read_as.map(|(level, _)| level);
    assert_eq!((switch.pc, level(switch.old_as), level(switch.new_as)), (0x10, Some(2), Some(2)));
    let broken =
        "0 20: store 8 40002000 40002000 0; 0 dsb ish; 0 24: store 8 40002000 40002000 40000060000701; 0 dsb ish";
    let engine = judged(&[&machine(1, &[(1, RW)]), broken, END]);
    let of = |level| engine.violations().iter().find(move |one| one.old_as.map(|(level, _)| level) == Some(level));
    let page = of(3).expect("the page that is cached beside the block");
    assert_eq!((page.old, level(page.new_as)), (Some(0x0040_0000_5000_0703), Some(2)));
}

#[test]
fn bad_what_a_root_left_behind_comes_from_the_write_of_the_next() {
    let same = table(0x4001_0000, &[(0, "40001003")]);
    let parts = [&*same, &machine(1, &[(1, RW)]), "0 10: msr ttbr0_el2 40010000; 0 isb", END];
    assert!(told(&parts).contains(&(Rule::StaleTable, 0x10, Lack::Tlbi, Side::After, 0x10)), "{:?}", told(&parts));
}

#[test]
fn bad_a_copy_that_is_not_cleaned_is_one_however_much_of_it_is_executed() {
    let word = |word: u64| (0x1000 + 8 * word, 0x5000_0000 + 8 * word);
    let copy: String = (0..32).map(word).map(|(va, pa)| format!("0 10: store 8 {va:x} {pa:x} d503201f\n")).collect();
    let run: String = (0..32).map(word).map(|(_, pa)| format!("1 {pa:x}: dmb ish\n")).collect();
    let second = "1 start 2; 1 found hcr_el2 0; 1 found sctlr_el2 30cd0838\n";
    let parts = [&*machine(1, &[(1, RW)]), &copy, "0 dsb ish", second, &run, "end limit"];
    let rule = Rule::NotCleaned;
    assert_eq!(told(&parts), [(rule, 0x10, Lack::Own(rule), Side::After, 0x10)]);
    assert_eq!(harms(&parts).len(), 32);
}

#[test]
fn good_no_cause_is_told_of_what_is_right() {
    assert_eq!(told(&[&machine(2, &[(1, RW)]), &page(1, RO), &after(1)]), []);
    assert_eq!(told(&[&memory(&[(1, RW)]), &on(0), "0 isb", END]), []);
}
