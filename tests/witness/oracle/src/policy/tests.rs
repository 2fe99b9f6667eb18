//! Each policy on the smallest traces that tell it from the others.

use breakwater_trace::{Record, text};

use super::{Policy, replay};

/// A PE at EL2 with the MMU on. 39-bit addresses, root at 1000, level 2 at 2000, level 3 of the first 2 MiB at 3000.
/// Pages 0 to 3 are code or data at 10000; the second 2 MiB are one block.
const START: &str = "
    word 1000 2003
    word 2000 3003
    word 2008 400705
    word 3000 10703
    word 3008 11703
    word 3010 12703
    word 3018 13703
    0 1 0 found hcr_el2 0
    0 1 0 found mair_el2 ff
    0 1 0 found tcr_el2 80803519
    0 1 0 found ttbr0_el2 1000
    0 1 0 found sctlr_el2 30cd183d
";

fn trace(body: &str) -> Vec<Record> {
    let lines = START.lines().chain(body.lines()).map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| text::parse(0, line).expect(line).expect(line)).collect()
}

/// Who crashes, and at which line of `body`, counted from 1 without empty ones.
fn crashes(body: &str) -> Vec<(&'static str, u64, String)> {
    let records = trace(body);
    let first = trace("").len() as u64 + 1;
    let run =
        |policy: &Policy| replay(*policy, 7, &records).map(|crash| (policy.name(), crash.line - first, crash.what));
    Policy::ALL.iter().filter_map(run).collect()
}

fn names(body: &str) -> Vec<&'static str> {
    crashes(body).into_iter().map(|crash| crash.0).collect()
}

const ALL: [&str; 5] = ["eager", "lazy", "hoarder", "direct-mapped", "predictive"];

#[test]
fn good_names_find_their_policy() {
    for policy in Policy::ALL {
        assert_eq!(Policy::from_name(policy.name()), Some(*policy));
        assert!(!policy.says().is_empty());
    }
    assert_eq!(Policy::from_name("sloppy"), None);
    assert!(Policy::Eager.is_random() && !Policy::Lazy.is_random());
}

/// A store of the descriptor `value` to physical `pa`, through the block at 2 MiB (to the policies it is the physical
/// address that counts).
fn table_store(pa: u64, value: u64) -> String {
    format!("0 9 40 store 8 {:x} {pa:x} {value:x}\n", 0x20_0000 + pa)
}

#[test]
fn good_break_before_make_crashes_nobody() {
    let sound = format!(
        "0 2 0 load 8 1000 11000 0\n{}0 5 c dsb ishst\n0 6 10 tlbi vae2is 1\n0 7 14 dsb ish\n{}0 9 18 dsb ish
        0 10 1c isb\n0 11 20 store 8 1000 15000 1\n0 11 20 load 8 0 10000 0",
        table_store(0x3008, 0),
        table_store(0x3008, 0x1_5703)
    );
    assert_eq!(names(&sound), [""; 0]);
}

#[test]
fn bad_a_page_moved_without_tlbi_strands_whoever_kept_it() {
    let moved = |tlbi: &str| {
        format!("0 2 0 load 8 1000 11000 0\n{}{tlbi}0 9 40 store 8 1000 15000 1", table_store(0x3008, 0x1_5703))
    };
    assert_eq!(names(&moved("")), ALL);
    assert_eq!(names(&moved("0 9 40 tlbi vae2 1\n")), [""; 0]);
    let told = &crashes(&moved(""))[1];
    assert_eq!((told.1, told.2.as_str()), (3, "stale translation to 0x11000, the tables say 0x15000"));
}

#[test]
fn good_a_stale_fetch_of_the_same_bytes_goes_unnoticed() {
    let moved = |copy: &str| {
        format!(
            "word 3008 11783\nword 11000 5\nword 15000 {copy}\n0 2 1000 fetch 2\n{}0 9 1004 fetch 1",
            table_store(0x3008, 0x1_5783)
        )
    };
    assert_eq!(names(&moved("5")), [""; 0]);
    assert_eq!(names(&moved("600000005")), ALL, "the second instruction differs");
}

#[test]
fn bad_a_block_entered_beside_a_page_conflicts() {
    // Page 2 is held; the table is replaced by a block; page 3 enters the block; page 2 matches both.
    let joined = format!(
        "0 2 2000 load 8 2000 12000 0\n{}0 3 0 load 8 3000 3000 0\n0 4 0 load 8 2000 2000 0",
        table_store(0x2000, 0x705)
    );
    let by_name = crashes(&joined);
    let what = |name| by_name.iter().find(|crash| crash.0 == name).map(|crash| crash.2.as_str());
    let conflict = Some("TLB conflict: an entry of 4 KiB to 0x12000 and one of 2 MiB to 0x0");
    assert_eq!((what("lazy"), what("direct-mapped")), (conflict, conflict));
    // A walk cache leads to the old table: the page it gives is not what the tables say.
    assert_eq!(what("hoarder"), Some("stale translation to 0x13000, the tables say 0x3000"));
}

#[test]
fn bad_a_last_level_tlbi_leaves_the_walk_cache() {
    // Another table for the same 2 MiB, page 1 now at 15000; VALE2 drops the page but not the way to the old table.
    let replaced = |tlbi| {
        format!(
            "word 5008 15703\n0 2 0 load 8 1000 11000 0\n{}0 3 0 tlbi {tlbi} 1\n0 4 0 store 8 1000 15000 1",
            table_store(0x2000, 0x5003)
        )
    };
    assert_eq!(names(&replaced("vale2")), ["eager", "hoarder"]);
    assert_eq!(names(&replaced("vae2")), [""; 0]);
}

#[test]
fn bad_a_relaxed_right_faults_where_the_old_one_is_kept() {
    let relaxed = format!(
        "word 3020 14783\n0 2 0 load 8 4000 14000 0\n{}0 4 0 store 8 4000 14000 1",
        table_store(0x3020, 0x1_4703)
    );
    assert_eq!(names(&relaxed), ALL);
    assert_eq!(crashes(&relaxed)[1].2, "permission fault by a stale entry: the tables permit it");
}

#[test]
fn bad_a_use_through_a_broken_entry() {
    let broken = format!("{}0 3 0 tlbi vae2 1\n0 4 0 load 8 1000 11000 0", table_store(0x3008, 0));
    assert_eq!(names(&broken), ALL);
    assert_eq!(crashes(&broken)[1].2, "translation fault: the entry at 0x3008 is broken");
    let never_mapped = "0 2 0 load 8 7000 17000 0\nword 3040 0\n0 2 0 load 8 8000 17000 0";
    assert_eq!(names(never_mapped), [""; 0], "unknown or never valid: the trace does not tell");
}

#[test]
fn bad_local_tlbi_leaves_the_other_pe() {
    let other = START.lines().filter(|line| line.contains("found")).map(|line| line.trim().replacen('0', "1", 1));
    let other: Vec<_> = other.collect();
    let moved = |tlbi| {
        format!(
            "{}\n1 2 0 load 8 1000 11000 0\n{}0 3 0 tlbi {tlbi} 1\n1 4 0 store 8 1000 15000 1",
            other.join("\n"),
            table_store(0x3008, 0x1_5703)
        )
    };
    assert_eq!(names(&moved("vae2")), ALL);
    assert_eq!(names(&moved("vae2is")), [""; 0]);
}

#[test]
fn good_turning_the_mmu_off_forgets_nothing() {
    let toggled = |tlbi: &str| {
        format!(
            "0 2 0 load 8 1000 11000 0\n0 3 0 msr sctlr_el2 30cd1838\n{}{tlbi}0 4 0 msr sctlr_el2 30cd183d
            0 5 0 store 8 1000 15000 1",
            table_store(0x3008, 0x1_5703)
        )
    };
    assert_eq!(names(&toggled("")), ALL);
    assert_eq!(names(&toggled("0 3 0 tlbi alle2 0\n")), [""; 0]);
}

#[test]
fn good_one_seed_gives_one_run() {
    let many: String = (0..64)
        .map(|page| format!("0 2 0 load 8 {:x} {:x} 0\n", page % 4 * 0x1000, 0x1_0000 + page % 4 * 0x1000))
        .collect();
    let body = format!("{many}{}{many}", table_store(0x2000, 0x1_0705));
    let records = trace(&body);
    let runs = |seed| replay(Policy::Eager, seed, &records);
    assert!((0..20).all(|seed| runs(seed) == runs(seed)));
    assert_eq!(Policy::ALL.len(), ALL.len());
}

#[test]
fn bad_a_descriptor_in_the_block_of_a_dc_zva_is_gone() {
    // Page 4 is the level 3 table itself. What is zeroed there, page 1's descriptor is in the same 256 bytes, and not
    // in the same 64.
    let zeroed = |dczid: u64| {
        format!(
            "word 3020 3703\n0 1 0 found dczid_el0 {dczid}\n0 2 0 load 8 1000 11000 0\n0 3 0 dc zva 4080
            0 4 0 load 8 1000 11000 0"
        )
    };
    assert_eq!(names(&zeroed(4)), [""; 0]);
    assert_eq!(names(&zeroed(6)), ALL);
}
