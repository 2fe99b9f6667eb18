//! Contiguous runs: all set or all clear, invalidated entry by entry.

use breakwater_oracle::obligations::Rule;

use crate::{assert_broken, assert_clean, machine, page};

/// Entry `index` of a run of 16 pages from 50000000 on, with or without the bit.
fn entry(index: u64, contiguous: bool) -> String {
    let base = if contiguous { 0x0050_0000_5000_0703_u64 } else { 0x0040_0000_5000_0703 };
    format!("{:x}", base + 0x1000 * index)
}

fn run(features: &str, contiguous: bool) -> String {
    let words: Vec<String> = (0..16).map(|index| entry(index, contiguous)).collect();
    let pages: Vec<(u64, &str)> = (0..16).zip(words.iter().map(String::as_str)).collect();
    format!("{features}\n{}", machine(2, &pages))
}

/// Every entry, in turn, becomes what `word` says.
fn all(word: impl Fn(u64) -> String) -> String {
    (0..16).map(|index| page(index, &word(index))).collect()
}

fn tlbi(count: u64) -> String {
    let each: String = (0..count).map(|index| format!("0 tlbi vae2is {index:x}\n")).collect();
    format!("0 dsb ishst\n{each}0 dsb ish\n")
}

const END: &str = "0 dsb ish; 0 isb; 0 settled; end exit";

#[test]
fn good_run_broken_invalidated_and_made_entry_by_entry() {
    let make = all(|index| entry(index, false));
    assert_clean(&[&run("", true), &all(|_| "0".into()), &tlbi(16), &make, END]);
    let make = all(|index| entry(index, true));
    assert_clean(&[&run("", false), &all(|_| "0".into()), &tlbi(16), &make, END]);
    assert_clean(&[&run("", false).replace("word 40003000 40000050000703", "word 40003000 0"), END]);
}

#[test]
fn bad_one_tlbi_for_the_run() {
    let broken = all(|_| "0".into());
    assert_broken(&[&run("", true), &broken, &tlbi(1), END], &[Rule::StaleLeaf]);
    // The new entry stands where the run may still be cached from one of its other entries.
    let make = page(0, "40000060000703");
    assert_broken(&[&run("", true), &broken, &tlbi(1), &make, END], &[Rule::RunInvalidation, Rule::StaleLeaf]);
    assert_clean(&[&run("", true), &broken, &tlbi(16), &make, END]);
}

#[test]
fn bad_bit_changed_in_place() {
    let clear = [&page(3, &entry(3, false)), &tlbi(16), END].map(str::to_owned).concat();
    assert_broken(&[&run("", true), &clear], &[Rule::ContiguousChange, Rule::RunMisprogrammed]);
    let all_clear = [&all(|index| entry(index, false)), &tlbi(16), END].map(str::to_owned).concat();
    assert_broken(&[&run("", true), &all_clear], &[Rule::ContiguousChange, Rule::RunMisprogrammed]);
    assert_clean(&[&run("feature all bbm=1", true), &all_clear]);
    assert_clean(&[&run("feature all no-contiguous", true), &all_clear]);
}

#[test]
fn bad_mixture_at_rest() {
    let clear = [&page(3, &entry(3, false)), &tlbi(16), END].map(str::to_owned).concat();
    assert_broken(&[&run("feature all bbm=2", true), &clear], &[Rule::RunMisprogrammed]);
    for end in ["0 settled", "end exit"] {
        let clear = clear.replace("0 settled; end exit", end);
        assert_broken(&[&run("feature all bbm=2", true), &clear], &[Rule::RunMisprogrammed]);
    }
}

#[test]
fn good_run_write_protected_entry_by_entry() {
    let protect =
        |count: u64| (0..count).map(|index| page(index, &entry(index, true).replace("703", "783"))).collect::<String>();
    assert_clean(&[&run("", true), &protect(16), &tlbi(16), END]);
    assert_broken(&[&run("", true), &protect(15), &tlbi(16), END], &[Rule::RunMisprogrammed]);
}

#[test]
fn bad_entry_that_does_not_belong_to_its_run() {
    let broken = page(5, "0");
    let elsewhere = page(5, "50000060005703");
    let without = page(5, &entry(5, false));
    for word in [elsewhere, without] {
        let made = [&broken, &tlbi(16), &word, END].map(str::to_owned).concat();
        assert_broken(&[&run("", true), &made], &[Rule::RunMisprogrammed]);
    }
}

#[test]
fn bad_run_that_is_not_aligned() {
    let moved = |index| format!("{:x}", 0x0050_0000_5000_1703_u64 + 0x1000 * index);
    let made = [&all(moved), END].map(str::to_owned).concat();
    assert_broken(&[&machine(1, &[]), &made], &[Rule::RunMisprogrammed]);
}
