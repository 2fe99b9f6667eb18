//! Each permission of the architecture is used: the harm that it does, and that hardware without it does not; and what is permitted to
//! software as well does no harm.

use breakwater_oracle::adversary::{HarmKind, Permission};

use crate::*;

const A: u64 = 0x4020_0000;
const MOVED: u64 = 0x5000_5000 | RW;

fn outputs(events: &str) -> Vec<u64> {
    run(&pair(""), events).holds(1, A).iter().map(|held| held.output).collect()
}

#[test]
fn good_old_and_new_value_are_held_before_the_dsb() {
    assert_eq!(outputs("0 isb"), [0x5000_0000]);
    assert_eq!(outputs(&store(L3A, MOVED)), [0x5000_0000, 0x5000_5000]);
}

#[test]
fn good_a_store_is_seen_before_its_dsb() {
    let fill = store(0x12010, 0x5000_2000 | RW);
    assert_eq!(run(&pair(""), &fill).holds(1, 0x4020_2000).len(), 1);
    let waiting = |events: &str| {
        let machine =
            run_in(breakwater_oracle::adversary::Adversary::without(Permission::SeeStoreBeforeDsb), &pair(""), events);
        machine.holds(1, 0x4020_2000).len()
    };
    assert_eq!((waiting(&fill), waiting(&(fill.clone() + "0 dsb ishst\n"))), (0, 1));
    // The new value was cached before the DSB, so a second change conflicts with it.
    let events = store(L3A, 0)
        + "0 dsb ishst\n0 tlbi vae2is 40200\n0 dsb ish\n"
        + &store(L3A, MOVED)
        + &store(L3A, 0x5000_6000 | RW);
    bad(&pair(""), &events, HarmKind::Conflict);
}

#[test]
fn good_a_leaf_stays_without_tlbi() {
    assert_eq!(outputs(&(store(L3A, 0) + "0 dsb ish\n0 isb\n1 isb\n")), [0x5000_0000]);
    by(Permission::CacheLeaf, &pair("ntlbpa"), &(store(L3A, 0) + SETTLE), HarmKind::Stale);
}

#[test]
fn good_what_a_tlbi_names_stays_until_the_dsb() {
    let issued = store(L3A, 0) + "0 dsb ish\n0 tlbi vae2is 40200\n";
    assert_eq!(outputs(&issued), [0x5000_0000]);
    assert_eq!(outputs(&(issued.clone() + "0 dsb ishst\n0 dsb nsh\n0 dmb sy\n1 dsb sy\n")), [0x5000_0000]);
    assert_eq!(outputs(&(issued.clone() + "0 dsb ish\n")), [0_u64; 0]);
    by(Permission::RetainUntilDsb, &pair(""), &(issued + &store(L3A, MOVED)), HarmKind::Conflict);
}

#[test]
fn good_what_a_walk_brings_back_survives_the_tlbi() {
    let early = store(L3A, 0) + "0 tlbi vae2is 40200\n0 dsb ish\n";
    assert_eq!(outputs(&early), [0x5000_0000]);
    by(Permission::SeeOldValueUntilDsb, &pair(""), &(early + &store(L3A, MOVED)), HarmKind::Conflict);
}

#[test]
fn good_walk_caches_survive_a_leaf_only_tlbi() {
    // With the table entry held, a store to the former table is a change of a live one.
    let unlink = store(L2, 0) + "0 dsb ish\n0 tlbi vale2is 40200\n0 tlbi vale2is 40201\n0 dsb ish\n";
    let reused = unlink + &store(L3A, MOVED);
    by(Permission::CacheTable, &pair("ntlbpa"), &reused, HarmKind::Conflict);
}

#[test]
fn good_descriptors_are_cached_by_their_address() {
    // Unlinked and invalidated on PE 1 by nothing; the frame is filled anew and linked: the old descriptor serves the new table.
    let again = |tlbi: &str| store(L3A, 0) + &store(L3B, 0) + "0 dsb ish\n" + tlbi + "0 dsb ish\n0 isb\n0 settled\n";
    let by_leaf = again("0 tlbi vae2is 40200\n0 tlbi vae2is 40201\n");
    good(&pair(""), &by_leaf);
    let nothing = store(L3A, 0x5000_0000 | RO) + "0 dsb ish\n0 isb\n";
    let machine = run(&pair(""), &nothing);
    assert_eq!(machine.holds(0, A).len(), 2, "the older rights and the newer");
}

#[test]
fn good_a_recycled_frame_is_served_by_old_descriptors() {
    // The frame leaves its place; only its leaves are invalidated, locally on PE 0. PE 1 still has the words of the frame.
    let world = pair("").replace("word 13000 0\n", "word 13000 40000050007703\n");
    let events = store(L2, 0)
        + "0 dsb ish\n0 tlbi vae2is 40200\n0 tlbi vae2is 40201\n0 dsb ish\n"
        + &store(L2, 0x13003)
        + "0 dsb ish\n0 isb\n0 settled\n0 give 12000 4096\n";
    good(&world, &events);
}

#[test]
fn good_a_former_root_is_walked_until_all_is_invalidated() {
    // The other root leads to the same tables, so nothing that is held differs.
    let world = pair("ntlbpa") + "word 20008 11003\n";
    let switched = "0 msr ttbr0_el2 20000\n0 isb\n1 msr ttbr0_el2 20000\n1 isb\n";
    let given = |between: &str| switched.to_owned() + between + "0 give 10000 4096\n";
    good(&world, switched);
    by(Permission::CacheTable, &world, &given(""), HarmKind::Frame);
    bad(&world, &given("0 tlbi vae2is 40200\n0 dsb ish\n0 isb\n"), HarmKind::Frame);
    bad(&world, &given("0 tlbi alle2is 0\n0 dsb ish\n"), HarmKind::Frame);
    good(&world, &given("0 tlbi alle2is 0\n0 dsb ish\n0 isb\n0 settled\n"));
    bad(&world, &(switched.to_owned() + "0 settled\n"), HarmKind::Stale);
}

#[test]
fn good_issuer_without_ets2_uses_it_until_its_isb() {
    let events = store(L3A, 0) + "0 dsb ish\n0 tlbi vae2is 40200\n0 dsb ish\n0 settled\n";
    by(Permission::RetainUntilIsb, &pair(""), &events, HarmKind::Latent);
    good(&pair("ets2"), &events);
}

#[test]
fn good_fetched_instructions_run_until_an_isb() {
    let code = 0x5000_0000 | RX;
    let world = pair("ets2").replace("word 12000 40000050000703", &format!("word 12000 {code:x}"));
    let events = broken(L3A, A) + &store(L3A, 0x5000_5000 | RX) + "0 dsb ish\n0 isb\n";
    let fetched = |synchronise: &str| {
        world.clone() + &events_as_records(&(events.clone() + synchronise)) + "1 3 40200000 fetch 1\n"
    };
    by(Permission::PrefetchedFetch, &fetched(""), "", HarmKind::Latent);
    good(&fetched("1 isb\n"), "");
}

#[test]
fn good_a_fault_is_taken_until_context_synchronisation() {
    let fill = store(0x12010, 0x5000_2000 | RW) + "0 dsb ish\n";
    let use_it = "0 load 8 40202000 50002000 0\n";
    by(Permission::SeeFaultUntilIsb, &pair(""), &(fill.clone() + use_it), HarmKind::Faulting);
    by(Permission::SeeFaultUntilIsb, &pair("ets2"), &(fill.clone() + "0 settled\n"), HarmKind::Faulting);
    good(&pair("ets2"), &(fill.clone() + use_it));
    good(&pair(""), &(fill + "0 isb\n" + use_it));
}

#[test]
fn good_a_permission_faulting_entry_is_cached() {
    let world = pair("").replace("word 12000 40000050000703", "word 12000 40000050000783");
    let relaxed = store(L3A, 0x5000_0000 | RW) + "0 dsb ish\n0 isb\n";
    let rights: Vec<bool> = run(&world, &relaxed).holds(1, A).iter().map(|held| held.writable).collect();
    assert_eq!(rights, [false, true]);
    by(Permission::CacheLeaf, &pair("ntlbpa"), &(store(L3A, 0x5000_0000 | RO) + SETTLE), HarmKind::Stale);
}

#[test]
fn good_without_af_nothing_is_cached_unless_hardware_sets_it() {
    let world = |features: &str, tcr: &str| {
        pair(features).replace("word 12000 40000050000703", "word 12000 40000050000303").replace("80803519", tcr)
    };
    assert_eq!(run(&world("", "80803519"), "0 isb").holds(0, A), []);
    assert_eq!(run(&world("", "80a03519"), "0 isb").holds(0, A), [], "HA without the feature");
    assert_eq!(run(&world("hafdbs", "80a03519"), "0 isb").holds(0, A).len(), 1);
    good(&world("", "80803519"), &(store(L3A, 0x5000_5000 | RW) + SETTLE));
    bad(&world("hafdbs", "80a03519"), &store(L3A, 0x5000_5000 | RW), HarmKind::Conflict);
}

#[test]
fn good_what_faults_by_its_address_is_not_cached() {
    let world = pair("pa-bits=40").replace("word 12000 40000050000703", "word 12000 40010050000703");
    assert_eq!(run(&world, "0 isb").holds(0, A), []);
    good(&world, &(store(L3A, MOVED) + SETTLE));
}

#[test]
fn good_software_bits_are_free() {
    good(&pair(""), &(store(L3A, 0x5000_0000 | RW | 1 << 55) + SETTLE));
}

#[test]
fn good_read_only_remap_to_equal_contents() {
    let contents = |pa: u64| (0..512).map(|word| format!("word {:x} {word:x}\n", pa + 8 * word)).collect::<String>();
    let world = pair("").replace("word 12000 40000050000703", "word 12000 40000050000783");
    let remap = store(L3A, 0x5000_5000 | RO) + "0 dsb ish\n0 tlbi vae2is 40200\n" + SETTLE;
    good(&(contents(0x5000_0000) + &contents(0x5000_5000) + &world), &remap);
    bad(&(contents(0x5000_0000) + &world), &remap, HarmKind::Conflict);
    let writable = store(L3A, 0x5000_5000 | RW) + "0 dsb ish\n0 tlbi vae2is 40200\n" + SETTLE;
    bad(&(contents(0x5000_0000) + &contents(0x5000_5000) + &world), &writable, HarmKind::Conflict);
}

/// Splits the block at 0x4000_0000 into pages of the table at 0x13000.
fn split() -> (String, String) {
    let pages = (0..512).map(|page| format!("word {:x} {:x}\n", 0x13000 + 8 * page, (0x4000_0000 + 4096 * page) | RX));
    (pages.collect(), store(0x11000, 0x13003) + "0 dsb ish\n0 tlbi vae2is 40000\n" + SETTLE)
}

#[test]
fn good_block_and_pages_mix_at_bbm_level_2() {
    let (pages, events) = split();
    let mixed = run(&(pair("bbm=2") + &pages), &store(0x11000, 0x13003));
    assert_eq!(mixed.holds(0, 0x4000_3000).iter().map(|held| held.level).collect::<Vec<_>>(), [3, 2]);
    good(&(pair("bbm=2") + &pages), &events);
    good(&(pair("bbm=3") + &pages), &events);
    bad(&(pair("bbm=1") + &pages), &events, HarmKind::Conflict);
    bad(&(pair("") + &pages), &events, HarmKind::Conflict);
}

#[test]
fn good_nt_permits_a_split_at_level_1() {
    let (pages, events) = split();
    let marked =
        store(0x11000, 0x4000_0000 | (RX & !BLOCK) | 1 << 16) + "0 dsb ish\n0 tlbi vae2is 40000\n0 dsb ish\n0 isb\n";
    good(&(pair("bbm=1") + &pages), &(marked.clone() + &events));
    bad(&(pair("") + &pages), &(marked + &events), HarmKind::Conflict);
}

#[test]
fn good_a_contiguous_run_may_hold_invalid_entries() {
    let set = |page: u64| (0x5001_0000 + 4096 * page) | RW | 1 << 52;
    let slot = |page: u64| 0x12080 + 8 * page;
    let invalid: String = (16..32).map(|page| format!("word {:x} 0\n", 0x12000 + 8 * page)).collect();
    let world = pair("") + &invalid;
    good(&world, &(store(slot(3), set(3)) + &store(slot(0), set(0)) + SETTLE));
    by(
        Permission::CacheContiguousRun,
        &world,
        &(store(slot(3), set(3)) + &store(slot(0), set(0) & !(1 << 52))),
        HarmKind::Contiguous,
    );
    bad(&world, &(store(slot(3), set(3)) + &store(slot(0), set(1))), HarmKind::Contiguous);
    good(
        &(invalid.clone() + &pair("no-contiguous")),
        &(store(slot(3), set(3)) + &store(slot(0), set(0) & !(1 << 52)) + SETTLE),
    );
}

#[test]
fn good_pes_without_range_operations_take_no_part() {
    let range = 1_u64 << 46 | 0x40200;
    let events = store(L3A, 0) + "0 dsb ish\n" + &format!("0 tlbi rvae2is {range:x}\n") + SETTLE;
    good(&pair("tlbirange"), &events);
    let half = "feature 0 tlbirange\n".to_owned() + &pair("");
    bad(&half, &events, HarmKind::Stale);
}

#[test]
fn good_a_tlbi_with_a_wrong_ttl_invalidates_nothing() {
    let with =
        |ttl: u64| store(L3A, 0) + "0 dsb ish\n" + &format!("0 tlbi vale2is {:x}\n", ttl << 44 | 0x40200) + SETTLE;
    good(&pair("ttl"), &with(0x7));
    bad(&pair("ttl"), &with(0x6), HarmKind::Stale);
    bad(&pair("ttl"), &with(0xb), HarmKind::Stale);
    bad(&pair(""), &with(0x7), HarmKind::Stale);
}

#[test]
fn good_errata() {
    let rights = store(L3A, 0x5000_0000 | RO) + "0 dsb ish\n0 tlbi vae2is 40200\n" + SETTLE;
    by(Permission::MixRights, &pair("bbm-always"), &rights, HarmKind::Conflict);
    good(&pair("bbm-for-xn"), &rights);
    let once = broken(L3A, A) + SETTLE;
    by(Permission::LoseBroadcast, &pair("repeat-tlbi"), &once, HarmKind::Stale);
    good(&pair("repeat-tlbi"), &(broken(L3A, A) + "0 tlbi vae2is 0\n" + SETTLE));
    let off = "0 msr sctlr_el2 30cd183c\n";
    by(Permission::FetchPastMmuOff, &pair("isb-before-mmu-off"), off, HarmKind::Erratum);
    good(&pair("isb-before-mmu-off"), &("0 isb\n".to_owned() + off));
    by(Permission::OverlapHcrWrite, &pair("hcr-barriers"), "0 msr hcr_el2 1\n0 isb\n", HarmKind::Erratum);
    bad(&pair("hcr-barriers"), "0 dsb sy\n0 msr hcr_el2 1\n0 dsb sy\n", HarmKind::Erratum);
    good(&pair("hcr-barriers"), "0 dsb sy\n0 msr hcr_el2 1\n0 isb\n");
}

#[test]
fn good_what_hardware_does_by_itself() {
    by(Permission::ExecuteWritten, &pair(""), &store(0x12010, 0x5000_2000 | RW & !(1 << 54)), HarmKind::WriteExecute);
    by(Permission::SpeculateFetch, &pair(""), &store(0x12010, 0x0900_0000 | RX | 4), HarmKind::DeviceFetch);
    let ram = pair("") + "memory 40000000 60000000 ram\n";
    by(Permission::SpeculateRead, &ram, &store(0x12010, 0x6000_0000 | RW), HarmKind::BeyondRam);
    good(&ram, &(store(0x12010, 0x5fff_f000 | RW) + SETTLE));
    bad(&(ram + "memory 50002000 50003000 no-map\n"), &store(0x12010, 0x5000_2000 | RW), HarmKind::BeyondRam);
    by(Permission::MixAliases, &pair(""), &store(0x12010, 0x5000_1000 | DEVICE), HarmKind::Alias);
    by(Permission::ReadUnknown, &pair(""), &store(0x11010, 0x77003), HarmKind::Unknown);
}

#[test]
fn good_aliases_of_rights_are_judged_at_the_end() {
    let events = store(0x12010, 0x5000_1000 | RX) + "0 dsb ish\n0 isb\n";
    good(&pair(""), &(events.clone() + "0 settled\n"));
    bad(&pair(""), &(events + "end exit\n"), HarmKind::WriteExecute);
}

#[test]
fn bad_unfinished_at_the_end() {
    bad(&pair(""), "0 tlbi vae2is 40200\nend exit\n", HarmKind::Unfinished);
    bad(&pair(""), "0 tlbi vae2is 40200\n0 dsb nsh\nend exit\n", HarmKind::Unfinished);
    bad(&pair(""), "0 tlbi vae2is 40200\n0 dsb ishnxs\nend exit\n", HarmKind::Unfinished);
    good(&pair(""), "0 tlbi vae2isnxs 40200\n0 dsb ishnxs\nend exit\n");
    good(&pair(""), "0 tlbi vae2 40200\n0 dsb nsh\nend exit\n");
    good(&pair(""), "0 tlbi vae2is 40200\nend limit\n");
}

#[test]
fn bad_use_through_a_broken_entry() {
    bad(&pair(""), &(store(L3A, 0) + "0 load 8 40200000 50000000 0\n"), HarmKind::Broken);
    good(&pair(""), &(store(L3A, 0) + "1 load 8 40200000 50000000 0\n"));
    let fetched = pair("") + &events_as_records(&store(0x11000, 0)) + "1 3 40000000 fetch 1\n";
    bad(&fetched, "", HarmKind::Broken);
}

#[test]
fn bad_table_rights_changed_in_place() {
    bad(&pair("bbm=3"), &store(L2, 0x12003 | 1 << 62), HarmKind::Conflict);
    bad(&pair("bbm=3"), &store(L2, 0x12003 | 1 << 60), HarmKind::Conflict);
}

#[test]
fn bad_another_table_in_place() {
    let world =
        pair("bbm=3").replace("word 13000 0\nword 13008 0", "word 13000 40000050000703\nword 13008 40000050001703");
    bad(&world, &store(L2, 0x13003), HarmKind::Conflict);
}

#[test]
fn bad_leaf_to_leaf_changes_with_af() {
    bad(&pair(""), &store(L3A, 0x5000_0000 | DEVICE), HarmKind::Conflict);
    bad(&pair(""), &store(L3A, 0x5000_0000 | RW ^ 0x100), HarmKind::Conflict);
    bad(&pair(""), &store(L3A, 0x5000_0000 | RW | 1 << 52), HarmKind::Conflict);
}
