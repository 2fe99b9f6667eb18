//! The canonical sequences, good and bad.

use breakwater_oracle::adversary::HarmKind;

use crate::*;

const MOVED: u64 = 0x5000_5000 | RW;
const A: u64 = 0x4020_0000;

#[test]
fn good_break_before_make() {
    good(&pair(""), &(broken(L3A, A) + &store(L3A, MOVED) + SETTLE));
}

#[test]
fn bad_without_break() {
    bad(&pair(""), &store(L3A, MOVED), HarmKind::Conflict);
}

#[test]
fn bad_without_dsb_before_tlbi() {
    let events = store(L3A, 0) + "0 tlbi vae2is 40200\n0 dsb ish\n" + &store(L3A, MOVED) + SETTLE;
    bad(&pair(""), &events, HarmKind::Conflict);
}

#[test]
fn bad_store_only_dsb_after_tlbi() {
    let events = store(L3A, 0) + "0 dsb ishst\n0 tlbi vae2is 40200\n0 dsb ishst\n" + &store(L3A, MOVED) + SETTLE;
    bad(&pair(""), &events, HarmKind::Conflict);
}

#[test]
fn bad_dmb_instead_of_dsb() {
    let events = store(L3A, 0) + "0 dsb ishst\n0 tlbi vae2is 40200\n0 dmb ish\n" + &store(L3A, MOVED) + SETTLE;
    bad(&pair(""), &events, HarmKind::Conflict);
    let events = store(L3A, 0) + "0 dmb ish\n0 tlbi vae2is 40200\n0 dsb ish\n" + &store(L3A, MOVED) + SETTLE;
    bad(&pair(""), &events, HarmKind::Conflict);
}

#[test]
fn bad_local_tlbi_with_two_pes() {
    let events = store(L3A, 0) + "0 dsb ishst\n0 tlbi vae2 40200\n0 dsb ish\n" + &store(L3A, MOVED) + SETTLE;
    bad(&pair(""), &events, HarmKind::Conflict);
}

#[test]
fn good_local_tlbi_with_one_pe() {
    let events = store(L3A, 0)
        + "0 dsb nshst\n0 tlbi vae2 40200\n0 dsb nsh\n"
        + &store(L3A, MOVED)
        + "0 dsb nsh\n0 isb\n0 settled\n";
    good(&(tables() + &on(0)), &events);
}

#[test]
fn bad_missing_final_dsb() {
    let events = broken(L3A, A) + &store(L3A, MOVED) + "0 isb\n0 settled";
    bad(&pair(""), &events, HarmKind::PendingStore);
}

#[test]
fn bad_missing_isb_before_a_fetch() {
    let fill = store(0x12010, 0x5000_2000 | RX) + "0 dsb ish\n";
    let fetch = "0 3 40202000 fetch 1\n";
    let mut machine = run(&pair(""), &fill);
    let record = breakwater_trace::text::parse(99, fetch).expect("a record").expect("a record");
    machine.step(99, &record);
    assert_eq!(kinds(&machine), [HarmKind::Faulting]);
    let mut machine = run(&pair(""), &(fill + "0 isb\n"));
    machine.step(99, &record);
    assert_eq!(kinds(&machine), []);
}

#[test]
fn good_unlink_of_a_table() {
    let tlbi = "0 tlbi vae2is 40200\n0 tlbi vae2is 40201\n";
    let events = store(L2, 0) + "0 dsb ishst\n" + tlbi + "0 dsb ish\n0 give 12000 4096\n" + SETTLE;
    good(&pair(""), &events);
}

#[test]
fn bad_vale_for_a_table_entry() {
    let tlbi = "0 tlbi vale2is 40200\n0 tlbi vale2is 40201\n";
    let events = store(L2, 0) + "0 dsb ishst\n" + tlbi + "0 dsb ish\n" + SETTLE;
    bad(&pair("ntlbpa"), &events, HarmKind::Stale);
    bad(&pair("ntlbpa"), &(events + "0 give 12000 4096"), HarmKind::Frame);
}

#[test]
fn bad_unlink_with_one_tlbi_for_two_leaves() {
    let events = store(L2, 0) + "0 dsb ishst\n0 tlbi vae2is 40200\n0 dsb ish\n" + SETTLE;
    bad(&pair(""), &events, HarmKind::Stale);
}

#[test]
fn bad_permission_change_without_tlbi() {
    bad(&pair(""), &(store(L3A, 0x5000_0000 | RO) + SETTLE), HarmKind::Stale);
    let world = pair("") + "word 12000 40000050000783\n";
    bad(&world, &(store(L3A, 0x5000_0000 | RW) + SETTLE), HarmKind::Stale);
}

#[test]
fn good_permission_change_with_tlbi() {
    good(&pair(""), &(store(L3A, 0x5000_0000 | RO) + "0 dsb ishst\n0 tlbi vae2is 40200\n" + SETTLE));
}

#[test]
fn good_fill_without_tlbi() {
    good(&pair(""), &(store(0x12010, 0x5000_2000 | RW) + SETTLE));
}

#[test]
fn good_the_example_of_the_trace_format() {
    let text = include_str!("../../README.md");
    let (_, rest) = text.split_once("    breakwater-trace 1\n").expect("an example");
    let (example, _) = rest.split_once("\n\n").expect("its end");
    let lines: String = example.lines().map(|line| format!("{}\n", line.trim())).collect();
    good(&lines, "");
}

#[test]
fn bad_written_and_executed_below_a_table_linked_again() {
    // The entry comes about through the former table, where it is stale; once the table is back, it is current.
    let linked = store(L2, 0) + &store(0x12010, 0x5000_2000 | RW & !(1 << 54)) + &store(L2, 0x12003);
    bad(&pair(""), &linked, HarmKind::WriteExecute);
}
