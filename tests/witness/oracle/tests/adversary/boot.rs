//! The first enable, roots, control registers, data-cache lines and hostile traces.

use breakwater_oracle::adversary::{Adversary, HarmKind, Permission};

use crate::*;

/// A first enable by PE 0, a line each.
const BOOT: &str = "0 start 2
0 dc ivac 10008
0 dc ivac 11000
0 dc ivac 12000
0 dsb sy
0 store 8 10008 10008 11003
0 store 8 11000 11000 40000781
0 store 8 11008 11008 12003
0 store 8 12000 12000 40000050000703
0 dmb sy
0 dc ivac 10008
0 dc ivac 11000
0 dc ivac 12000
0 dsb sy
0 msr hcr_el2 0
0 msr mair_el2 4ff
0 msr tcr_el2 80803519
0 msr ttbr0_el2 10000
0 msr sctlr_el2 30cd1838
0 isb
0 tlbi alle2 0
0 dsb nsh
0 isb
0 msr sctlr_el2 30cd183d
0 isb
0 load 8 40200000 50000000 0
0 settled
end exit
";

/// [`BOOT`] without one line.
fn without(line: &str, occurrence: usize) -> String {
    let (at, _) = BOOT.match_indices(&format!("{line}\n")).nth(occurrence).expect("a line of the boot");
    BOOT[..at].to_owned() + &BOOT[at + line.len() + 1..]
}

#[test]
fn good_first_enable() {
    good("", BOOT);
}

#[test]
fn bad_first_enable_over_reset_garbage() {
    by(Permission::ResetGarbage, "", &without("0 tlbi alle2 0", 0), HarmKind::Garbage);
    bad("", &without("0 dsb nsh", 0), HarmKind::Garbage);
    bad("", &BOOT.replace("tlbi alle2 0", "tlbi vae2 0"), HarmKind::Garbage);
    bad("", &BOOT.replace("0 tlbi alle2 0", "1 tlbi alle2is 0\n1 dsb ish"), HarmKind::Garbage);
}

#[test]
fn bad_first_enable_with_cached_controls() {
    by(Permission::CacheControls, "", &without("0 isb", 0), HarmKind::Controls);
    bad("", &without("0 isb", 1), HarmKind::Controls);
    bad(
        "",
        &BOOT
            .replace("30cd1838", "30cd1838\n0 isb\n0 tlbi alle2 0\n0 dsb nsh\n0 msr mair_el2 44ff")
            .replace("0 tlbi alle2 0\n0 dsb nsh\n0 isb", "0 isb"),
        HarmKind::Controls,
    );
    // WXN together with M: a TLB may have cached WXN = 0.
    bad("", &BOOT.replace("30cd1838", "30c51838"), HarmKind::Controls);
    bad("", &without("0 isb", 2), HarmKind::Controls);
}

#[test]
fn good_rewriting_the_same_value_owes_nothing() {
    good(&pair(""), "0 msr mair_el2 4ff\n0 msr tcr_el2 80803519\n0 isb\n0 settled\nend exit\n");
}

#[test]
fn bad_wxn_changed_without_invalidation() {
    let changed = "0 msr sctlr_el2 30c5183d\n0 isb\n";
    by(Permission::CacheControls, &pair(""), &(changed.to_owned() + "0 settled\n"), HarmKind::Controls);
    good(&pair(""), &(changed.to_owned() + "0 tlbi alle2 0\n0 dsb nsh\n0 isb\n0 settled\nend exit\n"));
    bad(&pair(""), &(changed.to_owned() + "0 tlbi alle2 0\n0 dsb nsh\n0 settled\n"), HarmKind::Controls);
    let early = "0 msr sctlr_el2 30c5183d\n0 tlbi alle2 0\n0 dsb nsh\n0 isb\n0 settled\n";
    by(Permission::OldControlsUntilIsb, &pair(""), early, HarmKind::Controls);
}

#[test]
fn bad_tables_written_past_dirty_lines() {
    by(Permission::EvictDirtyLine, "", &without("0 dc ivac 12000", 0), HarmKind::Line);
    bad("", &without("0 dsb sy", 0), HarmKind::Line);
}

#[test]
fn bad_tables_hidden_by_stale_lines() {
    by(Permission::HideBehindLine, "", &without("0 dc ivac 12000", 1), HarmKind::Line);
    bad("", &without("0 dmb sy", 0), HarmKind::Line);
    bad("", &without("0 dsb sy", 1), HarmKind::Line);
}

/// [`BOOT`] in which whole caches of 2 sets and 2 ways are invalidated by set and way, before the stores or after them.
fn by_set_and_way(occurrence: usize, steps: &[&str]) -> String {
    let by_address = "0 dc ivac 10008\n0 dc ivac 11000\n0 dc ivac 12000\n";
    let (at, _) = BOOT.match_indices(by_address).nth(occurrence).expect("before and after");
    let steps: String = steps.iter().map(|step| format!("0 dc {step}\n")).collect();
    BOOT[..at].to_owned() + &steps + &BOOT[at + by_address.len()..]
}

const EVERY_LINE: [&str; 4] = ["isw 80000040", "isw 40", "isw 80000000", "isw 0"];

#[test]
fn good_whole_caches_invalidated_by_set_and_way() {
    good("", &by_set_and_way(0, &EVERY_LINE));
    good("", &by_set_and_way(1, &EVERY_LINE));
}

#[test]
fn bad_part_of_a_cache_invalidated_by_set_and_way() {
    for left_out in 0..EVERY_LINE.len() {
        let rest = [&EVERY_LINE[..left_out], &EVERY_LINE[left_out + 1..]].concat();
        bad("", &by_set_and_way(0, &rest), HarmKind::Line);
        bad("", &by_set_and_way(1, &rest), HarmKind::Line);
    }
    // Level 2 is there, and was not gone through behind level 1.
    bad("", &by_set_and_way(0, &[&["isw 2"], &EVERY_LINE[..]].concat()), HarmKind::Line);
    let cleaned = EVERY_LINE.map(|step| step.replace("isw", "cisw"));
    bad("", &by_set_and_way(1, &cleaned.each_ref().map(String::as_str)), HarmKind::Line);
}

#[test]
fn bad_clean_over_tables_written_past_the_cache() {
    let cleaned = BOOT.replace("0 dmb sy\n", "0 dmb sy\n0 dc civac 12000\n0 dsb sy\n");
    by(Permission::PushByClean, "", &cleaned, HarmKind::Line);
}

#[test]
fn bad_mailbox_not_cleaned_for_a_reader_past_the_cache() {
    let world = pair("") + "2 1 0 start 2\n";
    let (posted, read) = ("0 store 8 50000000 50000000 7\n", "2 load 8 50000000 50000000 7\n");
    by(Permission::MissDirtyLine, &world, &(posted.to_owned() + "0 dsb sy\n" + read), HarmKind::Line);
    by(
        Permission::MissDirtyLine,
        &world,
        &(posted.to_owned() + "0 dc cvau 50000000\n0 dsb sy\n" + read),
        HarmKind::Line,
    );
    bad(&world, &(posted.to_owned() + "0 dc cvac 50000000\n" + read), HarmKind::Line);
    good(&world, &(posted.to_owned() + "0 dc cvac 50000000\n0 dsb sy\n" + read));
    let affected = "feature all clean-invalidates\n".to_owned() + &world;
    by(
        Permission::SkipClean,
        &affected,
        &(posted.to_owned() + "0 dc cvac 50000000\n0 dsb sy\n" + read),
        HarmKind::Line,
    );
    good(&affected, &(posted.to_owned() + "0 dc civac 50000000\n0 dsb sy\n" + read));
}

/// Another root at 0x20000 for the same addresses; the page at 0x4020_0000 is `page`.
fn other_root(page: u64) -> String {
    format!("word 20008 21003\nword 21000 40000781\nword 21008 22003\nword 22000 {page:x}\nword 22008 40000050001703\n")
}

const SWITCH: &str = "0 dsb sy
0 isb
0 msr sctlr_el2 30cd183c
0 isb
0 tlbi alle2 0
0 dsb nsh
0 isb
0 msr ttbr0_el2 20000
0 isb
0 msr sctlr_el2 30cd183d
0 isb
0 settled
";

#[test]
fn good_root_switch_with_the_mmu_off() {
    good(&(tables() + &other_root(0x5000_5000 | RW) + &on(0)), SWITCH);
}

#[test]
fn good_entries_survive_the_mmu_off() {
    let world = tables() + &other_root(0x5000_5000 | RW) + &on(0);
    let kept = SWITCH.replace("0 tlbi alle2 0\n", "");
    by(Permission::KeepWithMmuOff, &world, &kept, HarmKind::Conflict);
    assert_eq!(run(&world, "0 msr sctlr_el2 30cd183c\n0 isb\n").holds(0, 0x4020_0000).len(), 1);
}

#[test]
fn bad_invalidation_before_walks_have_ended() {
    let world = tables() + &other_root(0x5000_5000 | RW) + &on(0);
    let early = SWITCH.replace("0 msr sctlr_el2 30cd183c\n0 isb\n", "0 msr sctlr_el2 30cd183c\n");
    by(Permission::OldControlsUntilIsb, &world, &early, HarmKind::Conflict);
}

#[test]
fn bad_data_access_in_the_window() {
    let world = tables() + &other_root(0x5000_5000 | RW) + &on(0);
    let strict = format!("feature all strict-switch\n{world}");
    let in_the_window = SWITCH.replace("0 dsb nsh\n", "0 store 8 60000000 60000000 1\n0 dsb nsh\n");
    bad(&strict, &in_the_window, HarmKind::Window);
}

#[test]
fn bad_root_switch_with_the_mmu_on() {
    let switch = "0 dsb sy\n0 msr ttbr0_el2 20000\n0 isb\n0 tlbi alle2 0\n0 dsb nsh\n0 isb\n0 settled\n";
    bad(&(tables() + &other_root(0x5000_5000 | RW) + &on(0)), switch, HarmKind::Conflict);
    good(&(tables() + &other_root(0x5000_0000 | RW) + &on(0)), switch);
    let unfinished = "0 dsb sy\n0 msr ttbr0_el2 20000\n0 isb\n0 settled\n";
    bad(&(tables() + &other_root(0x5000_0000 | RW) + &on(0)), unfinished, HarmKind::Stale);
}

#[test]
fn bad_shared_entries_of_two_roots() {
    let world = pair("") + &other_root(0x5000_0000 | RW);
    let shared = "0 msr ttbr0_el2 10001\n0 isb\n1 msr ttbr0_el2 20001\n1 isb\n";
    by(Permission::ShareCnp, &world, shared, HarmKind::Sharing);
}

#[test]
fn bad_regimes_that_nobody_programs() {
    bad(&pair(""), "0 msr hcr_el2 400000000\n", HarmKind::Unsupported);
    bad(&pair(""), "0 msr tcr2_el2 2\n", HarmKind::Unsupported);
}

#[test]
fn good_nothing_is_translated_at_el3() {
    let world = tables() + "0 1 0 start 3\n";
    let set = "0 msr hcr_el2 0\n0 msr mair_el2 4ff\n0 msr tcr_el2 80803519\n0 msr ttbr0_el2 10000\n0 msr sctlr_el2 30cd183c\n0 isb\n0 tlbi alle2 0\n0 dsb nsh\n0 isb\n0 msr sctlr_el2 30cd183d\n";
    assert_eq!(run(&world, set).holds(0, 0x4020_0000), []);
    assert_eq!(run(&world, &(set.to_owned() + "0 eret\n")).holds(0, 0x4020_0000).len(), 1);
    good(&world, &(set.to_owned() + "0 eret\n0 settled\nend exit\n"));
}

#[test]
fn good_hostile_tables_end() {
    // Every descriptor of the root leads to the root.
    let looped: String = (0..512).map(|index| format!("word {:x} 10703\n", 0x10000 + 8 * index)).collect();
    let machine = run(&(looped + &on(0)), "0 store 8 10000 10000 0\n0 tlbi alle2 0\n0 dsb sy\n0 settled\nend exit\n");
    assert!(!machine.harms().is_empty());
    let ends = format!("word {:x} {:x}\n", u64::MAX - 7, u64::MAX)
        + &on(0).replace("ttbr0_el2 10000", "ttbr0_el2 ffffffffffffffff");
    run(&ends, &format!("0 store 16 {0:x} {0:x} 1 1\n0 give {1:x} 4096\nend exit\n", u64::MAX - 16, u64::MAX - 4096));
    run(
        "",
        "127 settled\n127 tlbi alle2 0\n0 msr tcr_el2 ffffffffffffffff\n0 msr sctlr_el2 ffffffffffffffff\n0 fetch 1\nend exit\n",
    );
}

#[test]
fn good_equal_states_merge() {
    let events = broken(L3A, 0x4020_0000) + &store(L3A, 0x5000_0000 | RW) + SETTLE;
    let (once, twice) = (run(&pair(""), &events), run(&pair(""), &(events.clone() + &events)));
    assert_eq!(once, twice);
    assert_ne!(once, run(&pair(""), &store(L3A, 0)));
    assert_ne!(Adversary::new(), Adversary::without(Permission::CacheLeaf));
}

#[test]
fn bad_dc_zva_of_a_block_that_reaches_a_live_descriptor() {
    // Page 2 is the level 3 table itself: 128 bytes behind the first of its descriptors.
    let zeros: String = (0x12018..0x12100).step_by(8).map(|pa| format!("word {pa:x} 0\n")).collect();
    let itself = format!("word 12010 {:x}\n{zeros}", 0x12000 | RW);
    let world = |dczid| format!("{itself}{}0 1 0 found dczid_el0 {dczid}\n", pair("").replace("word 12010 0\n", ""));
    let zeroed = "0 dc zva 40202080\n0 dsb ish\n0 isb\n0 settled\nend exit\n";
    good(&world(4), zeroed);
    bad(&world(6), zeroed, HarmKind::Stale);
}
