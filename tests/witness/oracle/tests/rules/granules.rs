//! The same rules with other granules and address sizes.

use breakwater_oracle::obligations::Rule;

use crate::{assert_broken, assert_clean, table};

/// A PE with `tcr` and `features` whose root at 40000000 leads to tables at 40010000 and on, one for each level, with `leaf` in slot 1 of
/// the last.
fn machine(features: &str, tcr: &str, levels: u64, entries: u64, leaf: &str) -> String {
    let address = |level: u64| 0x4000_0000 + 0x1_0000 * level;
    let tables: String = (0..levels)
        .map(|level| {
            let next = format!("{:x}", address(level + 1) | 3);
            let slots = if level + 1 == levels { [(1, leaf)] } else { [(0, next.as_str())] };
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

/// Slot 1 of the table at `slot`'s page: broken, invalidated by `operand`, made as `word`.
fn remake(slot: &str, operand: &str, word: &str) -> String {
    format!(
        "0 store 8 0 {slot} 0; 0 dsb ishst; 0 tlbi vae2is {operand}; 0 dsb ish
         0 store 8 0 {slot} {word}; 0 dsb ish; 0 isb; 0 settled; end exit"
    )
}

#[track_caller]
fn judge(machine: &str, slot: &str, operand: &str, wrong: &str, word: &str) {
    assert_clean(&[machine, &remake(slot, operand, word)]);
    assert_broken(&[machine, &remake(slot, wrong, word)], &[Rule::OutputChange, Rule::StaleLeaf]);
    let in_place = format!("0 store 8 0 {slot} {word}");
    assert_broken(&[machine, &in_place], &[Rule::OutputChange]);
}

#[test]
fn bad_16k_pages() {
    let machine = machine("", "8085b511", 3, 2048, "40000050004703");
    judge(&machine, "40020008", "4", "8", "40000050008703");
}

#[test]
fn bad_64k_pages_with_52_bits() {
    let machine = machine("feature all pa-bits=52", "80867516", 2, 8192, "4000005001f703");
    judge(&machine, "40010008", "10", "20", "4000005002f703");
    judge(&machine, "40010008", "10", "20", "4000005001e703");
}

#[test]
fn bad_lpa2_pages() {
    let features = "feature all lpa2\nfeature all pa-bits=52";
    let machine = machine(features, "18086350c", 5, 512, "40000050001403");
    judge(&machine, "40040008", "1", "2", "40000050001603");
}

#[test]
fn bad_39_bits_with_4k() {
    let machine = machine("", "80853519", 3, 512, "40000050001703");
    judge(&machine, "40020008", "1", "2", "40000050002703");
}

#[test]
fn bad_blocks() {
    let machine = machine("", "80853519", 2, 512, "40000050000701");
    judge(&machine, "40010008", "3ff", "400", "40000060000701");
}
