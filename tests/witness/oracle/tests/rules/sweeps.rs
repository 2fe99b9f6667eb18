//! DC by set and way over whole caches: it maintains those of the PE that does it, and a part of one is nothing.

use breakwater_oracle::obligations::{BySetAndWay, Rule};

use crate::{RW, assert_broken, assert_clean, judged, machine, memory, on};

/// The operands of one level: `sets`, a power of two, of 64 bytes a line, and `ways`.
fn operands(level: u32, sets: u32, ways: u32) -> Vec<u32> {
    let way_bits = ways.next_power_of_two().trailing_zeros();
    let way = |way: u32| if way_bits == 0 { 0 } else { way << (32 - way_bits) };
    let line = |index: u32| way(index % ways) | (index / ways) << 6 | (level - 1) << 1;
    (0..sets * ways).rev().map(line).collect()
}

/// DC `operation` of these operands by `pe`.
fn swept(pe: u32, operation: &str, operands: &[u32]) -> String {
    operands.iter().map(|operand| format!("{pe} dc {operation} {operand:x}\n")).collect()
}

/// Two levels: 4 sets of 2 ways, and 8 sets of 4.
fn levels() -> Vec<u32> {
    [operands(1, 4, 2), operands(2, 8, 4)].concat()
}

/// DC ISW by PE 0 over these, and its DSB.
fn isw(operands: &[u32]) -> String {
    swept(0, "isw", operands) + "0 dsb sy\n"
}

const RESET: &str = "0 start 2; 0 found hcr_el2 0; 0 found sctlr_el2 30cd1838\n";
/// Page 1 of the first tables, which nothing is known of the line of.
const FILL: &str = "0 store 8 40003008 40003008 40000050000703\n";
const AFTER: &str = "0 dmb sy; 0 dc ivac 40003000; 0 dsb sy\n";
const ON: &str =
    "0 msr mair_el2 4404ff; 0 msr tcr_el2 80853510; 0 msr ttbr0_el2 40000000; 0 msr sctlr_el2 30cd1838; 0 isb
    0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 msr sctlr_el2 30cd183d; 0 isb; 0 settled; end exit";

/// A first enable with `before` the stores, and `after` them.
#[track_caller]
fn enabled(before: &str, after: &str, rules: &[Rule]) {
    assert_broken(&[&memory(&[]), RESET, before, FILL, after, ON], rules);
}

/// What became of the sweeps of these.
fn shown(parts: &[&str]) -> Vec<String> {
    judged(parts).by_set_and_way().iter().map(BySetAndWay::to_string).collect()
}

#[test]
fn good_a_whole_sweep_invalidates_before_and_after() {
    let whole = isw(&levels());
    enabled(&whole, AFTER, &[]);
    enabled("0 dc ivac 40003000; 0 dsb sy\n", &format!("0 dmb sy\n{whole}"), &[]);
    enabled(&whole, &format!("0 dsb sy\n{whole}"), &[]);
    enabled(&whole.replace("isw", "cisw"), AFTER, &[]);
    // In whatever order sets and ways come, with a DSB behind each level too.
    let ascending: Vec<u32> = operands(1, 4, 2).into_iter().rev().collect();
    enabled(
        &(isw(&ascending) + "0 msr s3_2_c0_c0_0 2; 0 isb; 0 mrs s3_1_c0_c0_0\n" + &isw(&operands(2, 8, 4))),
        AFTER,
        &[],
    );
    enabled(&isw(&operands(1, 64, 12)), AFTER, &[]);
    // What it counted for, and what not.
    let says = shown(&[&memory(&[]), RESET, &whole, FILL, AFTER, ON]);
    let [says] = says.as_slice() else { panic!("{says:?}") };
    for words in ["DC ISW", "4 sets x 2 ways of level 1, 8 sets x 4 ways of level 2", "PE 0 alone", "system cache"] {
        assert!(says.contains(words), "{says}");
    }
}

#[test]
fn bad_a_part_of_a_sweep_is_nothing() {
    let all = operands(1, 4, 4);
    let without =
        |left: &dyn Fn(u32) -> bool| isw(&all.iter().copied().filter(|line| !left(*line)).collect::<Vec<_>>());
    for set in 0..4 {
        enabled(&without(&|line| line >> 6 & 3 == set), AFTER, &[Rule::LineBefore]);
    }
    for way in 0..4 {
        enabled(&without(&|line| line >> 30 == way), AFTER, &[Rule::LineBefore]);
    }
    for one in &all {
        enabled(&without(&|line| line == *one), AFTER, &[Rule::LineBefore]);
    }
    // One line twice does not stand for two, nor what was named before a sweep was begun anew.
    let mut twice = all.clone();
    twice[5] = twice[6];
    enabled(&isw(&twice), AFTER, &[Rule::LineBefore]);
    enabled(&isw(&[&all[8..], &all[..8], &all[..8]].concat()), AFTER, &[Rule::LineBefore]);
    // A level without the one above it, or above it with its own end missing.
    enabled(&isw(&operands(2, 4, 2)), AFTER, &[Rule::LineBefore]);
    enabled(&isw(&[operands(1, 4, 2), operands(3, 4, 2)].concat()), AFTER, &[Rule::LineBefore]);
    enabled(&isw(&levels()[..39]), AFTER, &[Rule::LineBefore]);
    let apart = isw(&operands(1, 4, 2)) + "0 isb\n" + &isw(&operands(2, 8, 4)[1..]);
    enabled(&apart, AFTER, &[Rule::LineBefore]);
    // Level 2 first: what is written back from level 1 comes to rest in it.
    enabled(&isw(&[operands(2, 8, 4), operands(1, 4, 2)].concat()), AFTER, &[Rule::LineBefore]);
    // Level 1 alone is enough where nothing shows that there is another one.
    enabled(&isw(&operands(1, 4, 2)), AFTER, &[]);
    enabled(&(isw(&[0x42]) + &isw(&operands(1, 4, 2))), AFTER, &[Rule::LineBefore]);
    let says = shown(&[&memory(&[]), RESET, &without(&|line| line == 0), FILL, AFTER, ON]);
    assert!(says.iter().any(|says| says.contains("15 operands of level 1")), "{says:?}");
}

#[test]
fn bad_operands_that_name_no_cache() {
    let of = |name: &dyn Fn(u32) -> u64| {
        let name = |line: &u32| format!("0 dc isw {:x}\n", name(*line));
        operands(1, 4, 4).iter().map(name).collect::<String>() + "0 dsb sy\n"
    };
    enabled(&of(&|line| line.into()), AFTER, &[]);
    let (ways, sets) = (0xc000_0000, 0xc0);
    // Ways below bit 31; sets below a line's size; sets by their number; what is RES0.
    enabled(&of(&|line| u64::from((line & ways) >> 1 | line & sets)), AFTER, &[Rule::LineBefore]);
    enabled(&of(&|line| u64::from(line & ways | (line & sets) >> 1)), AFTER, &[Rule::LineBefore]);
    enabled(&of(&|line| u64::from(line & ways | (line & sets) >> 6)), AFTER, &[Rule::LineBefore]);
    enabled(&of(&|line| u64::from(line) | 1 << 32), AFTER, &[Rule::LineBefore]);
    enabled(&of(&|line| u64::from(line) | 1), AFTER, &[Rule::LineBefore]);
    // With such a geometry one way, or one set, may have been left out.
    for (sets, ways) in [(4, 1), (1, 4), (4, 3), (4, 15)] {
        enabled(&isw(&operands(1, sets, ways)), AFTER, &[Rule::LineBefore]);
    }
    // Where no line is smaller than 128 bytes, bit 6 is of no set.
    let whole = isw(&operands(1, 4, 4));
    assert_broken(&["feature all line=128", &memory(&[]), RESET, &whole, FILL, AFTER, ON], &[Rule::LineBefore]);
}

#[test]
fn bad_sweep_without_its_dsb_or_on_the_wrong_side() {
    let whole = isw(&levels());
    for weaker in ["", "0 dsb st", "0 dsb ld", "0 dsb nsh", "0 dmb sy"] {
        enabled(&whole.replace("0 dsb sy", weaker), AFTER, &[Rule::LineBefore]);
    }
    enabled("", &format!("0 dmb sy\n{whole}"), &[Rule::LineBefore]);
    enabled(&whole, "0 dsb sy\n", &[Rule::LineAfter]);
    // Nothing orders the stores before the sweep.
    enabled(&whole, &whole, &[Rule::LineAfter]);
    enabled(&whole, &format!("0 dmb st\n{whole}"), &[Rule::LineAfter]);
    // Stored in the middle of it: neither before nor after.
    let lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
    let parts = [lines[..20].concat(), format!("{FILL}0 dmb sy\n"), lines[20..].concat()];
    assert_broken(&[&memory(&[]), RESET, &parts.concat(), ON], &[Rule::LineBefore, Rule::LineAfter]);
    let says = shown(&[&memory(&[]), RESET, &whole.replace("0 dsb sy", ""), "end exit"]);
    assert!(says.iter().any(|says| says.contains("no DSB")), "{says:?}");
}

#[test]
fn bad_sweep_that_cleans_after() {
    let whole = isw(&levels());
    for operation in ["csw", "cisw"] {
        let cleaning = whole.replace("isw", operation);
        enabled(&whole, &format!("0 dmb sy\n{cleaning}{AFTER}"), &[Rule::LineCleaned]);
    }
    // One operand may be the line's.
    enabled(&whole, &format!("0 dmb sy; 0 dc csw 40\n{AFTER}"), &[Rule::LineCleaned]);
}

/// PE 0 stores through its caches, turns them off, and loads.
fn off(maintained: &str) -> String {
    let off = "0 store 8 1000 50000000 7; 0 dsb sy; 0 isb; 0 msr sctlr_el2 30cd183c; 0 isb\n";
    format!("{off}{maintained}0 load 8 50000000 50000000 7; end exit")
}

#[test]
fn good_a_whole_sweep_cleans_what_this_pe_has_stored() {
    let machine = machine(1, &[(1, RW)]);
    for operation in ["csw", "cisw"] {
        let swept = isw(&levels()).replace("isw", operation);
        assert_clean(&[&machine, &off(&swept)]);
        // So that it may be stored to past the caches.
        assert_clean(&[&machine, &off(&swept), "0 store 8 50000000 50000000 1; 0 dsb sy"]);
    }
}

#[test]
fn bad_sweep_that_does_not_clean() {
    let machine = machine(1, &[(1, RW)]);
    let whole = isw(&levels());
    assert_broken(&[&machine, &off("")], &[Rule::NotCleaned]);
    assert_broken(&[&machine, &off(&whole)], &[Rule::NotCleaned]);
    assert_broken(&[&machine, &off(&whole.replace("isw", "csw").replace("0 dsb sy", ""))], &[Rule::NotCleaned]);
    let part = whole.replace("isw", "csw").replacen("0 dc csw", "0 dc isw", 1);
    assert_broken(&[&machine, &off(&part)], &[Rule::NotCleaned]);
    let part = format!("feature 0 clean-invalidates\n{machine}");
    assert_broken(&[&part, &off(&whole.replace("isw", "csw"))], &[Rule::CleanInvalidates]);
    assert_clean(&[&part, &off(&whole.replace("isw", "cisw"))]);
}

#[test]
fn bad_sweep_with_the_caches_on() {
    let machine = machine(1, &[(1, RW)]);
    let cisw = isw(&levels()).replace("isw", "cisw");
    // Lines move while the cache is on: before, or for a moment between.
    let early = off("").replacen("0 isb", &format!("{cisw}0 isb"), 1);
    assert_broken(&[&machine, &early], &[Rule::NotCleaned]);
    let says = shown(&[&machine, &early]);
    assert!(says.iter().any(|says| says.contains("were on")), "{says:?}");
    let lines: Vec<&str> = cisw.lines().collect();
    let between = "\n0 msr sctlr_el2 30cd183d; 0 isb; 0 isb; 0 msr sctlr_el2 30cd183c; 0 isb\n";
    let halves = [lines[..20].join("\n"), between.to_owned(), lines[20..].join("\n"), "\n".to_owned()].concat();
    assert_broken(&[&machine, &off(&halves)], &[Rule::NotCleaned]);
}

/// PE 1 stores to a line, and PE 0, with its MMU off, into the same past the caches.
const OVER: &str = "0 store 8 50000008 50000008 1; 0 dsb sy";

#[test]
fn bad_sweep_for_what_another_pe_holds() {
    let others = memory(&[(1, RW)]) + &on(1) + RESET;
    let dirty = "1 store 8 1000 50000000 1234; 1 dsb sy\n";
    let cisw = isw(&levels()).replace("isw", "cisw");
    assert_broken(&[&others, dirty, &cisw, OVER], &[Rule::LineBefore]);
    assert_clean(&[&others, dirty, "0 dc civac 50000000; 0 dsb sy\n", OVER]);
    let says = shown(&[&others, dirty, &cisw, OVER]);
    assert!(says.iter().any(|says| says.contains("PE 1 has had its caches on")), "{says:?}");
    // It had them on, and has turned them off since, or was started anew.
    for gone in ["1 isb; 1 msr sctlr_el2 30cd183c; 1 isb\n", "1 start 2; 1 found sctlr_el2 30cd1838; 1 isb\n"] {
        assert_broken(&[&others, dirty, gone, &cisw, OVER], &[Rule::LineBefore]);
    }
    // A table that it walks.
    let fill = "0 store 8 40003010 40003010 40000050002703\n0 dmb sy; 0 dc ivac 40003010; 0 dsb sy; 1 isb; 1 settled";
    assert_broken(&[&others, &isw(&levels()), fill], &[Rule::LineBefore]);
}

#[test]
fn good_sweep_beside_a_pe_whose_caches_were_never_on() {
    let others = memory(&[]) + "1 start 2; 1 found sctlr_el2 30cd1838; 1 isb\n" + RESET;
    assert_clean(&[&others, &isw(&levels()), FILL, AFTER, ON]);
}

#[test]
fn bad_sweep_of_the_loader() {
    // What it did is found; of lines nothing is known from there on.
    let enter = "0 48000000: enter 48000000 4096\n";
    let swept = isw(&levels());
    assert_clean(&[&memory(&[]), RESET, "0 isb\n", enter, &swept, FILL, AFTER, ON]);
    assert_broken(&[&memory(&[]), RESET, "0 isb\n", &swept, enter, FILL, AFTER, ON], &[Rule::LineBefore]);
}

#[test]
fn good_lines_of_pages_that_come_later_are_swept_too() {
    let table = "0 store 8 60000000 60000000 5; 0 dmb sy; 0 dc ivac 60000000; 0 dsb sy\n";
    let load = "0 load 8 1000 60000000 5";
    let on = ON.replace("; 0 settled; end exit", "\n");
    let fill = FILL.replace("40000050000703", "40000060000703");
    assert_clean(&[&memory(&[]), RESET, &isw(&levels()), &fill, AFTER, table, &on, load]);
    assert_broken(
        &[&memory(&[]), RESET, "0 dc ivac 40003000; 0 dsb sy\n", &fill, AFTER, table, &on, load],
        &[Rule::LineBefore],
    );
}
