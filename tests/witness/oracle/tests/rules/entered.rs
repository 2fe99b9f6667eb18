//! An image that a loader started: what the loader did is found, what the image does is judged.

use breakwater_oracle::obligations::Rule;

use crate::{RW, RW_OTHER, after, assert_broken, assert_clean, broken, judged, machine, memory, page};

/// The image is entered at its first byte; 4 KiB at 48000000.
const ENTER: &str = "0 48000000: enter 48000000 4096\n";
/// The same, by an address alone.
const ENTER_AT: &str = "0 48000000: enter 0 0\n";

/// The PE turns its MMU and caches off.
const OFF: &str = "0 msr sctlr_el2 30cd1838; 0 isb\n";
/// It turns them on, with tables that are all there.
const ON: &str =
    "0 msr mair_el2 4404ff; 0 msr tcr_el2 80853510; 0 msr ttbr0_el2 40000000; 0 msr sctlr_el2 30cd1838; 0 isb
    0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 msr sctlr_el2 30cd183d; 0 isb; 0 settled; end exit";

#[test]
fn good_what_a_loader_broke_or_owed_is_found() {
    let machine = machine(2, &[(1, RW), (2, RW)]);
    let change = page(1, RW_OTHER);
    assert_broken(&[&machine, &change, "0 isb"], &[Rule::OutputChange]);
    for enter in [ENTER, ENTER_AT] {
        assert_clean(&[&machine, &change, enter, "0 isb; end exit"]);
        // An unmap without its TLBI, a fill without its DSB, a TLBI that is not finished.
        assert_clean(&[&machine, &page(1, "0"), enter, "0 isb; 0 settled; end exit"]);
        assert_clean(&[&machine, &page(3, RW), enter, "0 load 8 3000 50000000 0; 0 settled; end exit"]);
        assert_clean(&[&machine, "0 tlbi vae2is 1", enter, "0 isb; 0 settled; end exit"]);
    }
}

#[test]
fn bad_what_the_image_does_after_its_entry() {
    let machine = machine(2, &[(1, RW)]);
    let own = |event: &str| format!("0 48000010: {}", event.split_once(' ').expect("a PE and an event").1);
    for enter in [ENTER, ENTER_AT] {
        assert_broken(&[&machine, enter, &own(&page(1, RW_OTHER)), "0 isb"], &[Rule::OutputChange]);
        assert_broken(&[&machine, enter, &own(&page(1, "0")), "0 48000014: settled"], &[Rule::StaleLeaf]);
    }
    // Its own PE's TLB holds what the tables say, and every other PE's too.
    let local = after(1).replace("vae2is", "vae2");
    assert!(broken(&[&machine, ENTER_AT, &page(1, "0"), &local]).contains(&Rule::StaleLeaf));
    assert_clean(&[&machine, ENTER_AT, &page(1, "0"), &after(1)]);
}

#[test]
fn bad_an_image_that_trusts_tlbs_after_a_loader_that_left_its_mmu_off() {
    let machine = machine(1, &[(1, RW)]);
    assert_clean(&[&machine, OFF, ENTER, ON]);
    let trusting = ON.replace("0 tlbi alle2 0; 0 dsb nsh; 0 isb;", "");
    assert!(broken(&[&machine, OFF, ENTER, &trusting]).contains(&Rule::FirstEnable));
}

/// The loader stores through its caches into the image, and beside it.
const LOADS: &str = "0 store 8 48000100 48000100 1; 0 store 8 49000000 49000000 1; 0 dsb sy\n";

#[test]
fn good_the_image_is_clean_where_the_boot_protocol_has_the_mmu_off() {
    let read = "0 48000004: load 8 48000100 48000100 1; 0 48000100: isb; end exit";
    assert_clean(&[&machine(1, &[]), LOADS, OFF, ENTER, read]);
    assert_broken(&[&machine(1, &[]), LOADS, OFF, ENTER_AT, read], &[Rule::NotCleaned]);
    // UEFI leaves the MMU on and promises nothing: who turns it off cleans what it reads then.
    let off = OFF.replace("0 msr", "0 48000000: msr");
    assert_broken(&[&machine(1, &[]), LOADS, ENTER, &off, read], &[Rule::NotCleaned]);
    let clean = "0 48000000: dc cvac 48000100; 0 48000004: dsb sy\n";
    let mapped = machine(1, &[]).replace("word 40005200 0", "word 40005200 40000048000701");
    assert_clean(&[&mapped, LOADS, ENTER, clean, &off, read]);
}

#[test]
fn bad_lines_beside_the_image_are_trusted() {
    let loaded = [&machine(1, &[]), LOADS, OFF, ENTER].concat();
    // What the loader left in its caches is not what memory holds.
    assert_broken(&[&loaded, "0 load 8 49000000 49000000 1; end exit"], &[Rule::NotCleaned]);
    // Of any other line nobody knows whether it is dirty.
    let table = "0 store 8 40003008 40003008 40000050000703; 0 dmb sy; 0 dc ivac 40003000; 0 dsb sy\n";
    assert_broken(&[&loaded, table, ON], &[Rule::LineBefore]);
    assert_clean(&[&loaded, "0 dc ivac 40003000; 0 dsb sy\n", table, ON]);
}

#[test]
fn good_what_the_image_finds_in_memory_is_said_where_it_is_entered() {
    // A device wrote it over what the loader had stored there.
    let found = "word 48000100 40000050000703\nword 48000108 7\n";
    let engine = judged(&[&machine(1, &[]), LOADS, OFF, ENTER, found, "0 isb; end exit"]);
    assert_eq!((engine.word(0x4800_0100), engine.word(0x4800_0108)), (Some(0x40_0000_5000_0703), Some(7)));
    assert_eq!(engine.word(0x4900_0000), Some(1), "beside it stays what the loader stored");
    assert_eq!(engine.unknowns(), []);
    // Where nothing is said nothing is known.
    assert_eq!(judged(&[&machine(1, &[]), LOADS, OFF, ENTER, "0 isb"]).word(0x4800_0100), None);
    let late = judged(&[&machine(1, &[]), OFF, ENTER, "0 isb", found]);
    assert_eq!(late.unknowns().len(), 2, "declarations after an event");
}

/// A CPU zeroes as much after the entry as before: who has asked is of no matter.
#[test]
fn good_a_block_that_the_loader_has_asked_for_is_known() {
    let found = "0 found dczid_el0 6\n";
    let zeroes = [ENTER, "0 dc zva 1000; 0 isb"].concat();
    assert_eq!(judged(&[&machine(1, &[(1, RW)]), found, &zeroes]).unknowns(), []);
}

#[test]
fn good_services_of_the_firmware_are_its_own_until_the_image_takes_over() {
    let machine = machine(1, &[(1, RW)]);
    let change = page(1, RW_OTHER);
    // ffff0000 is no part of the image.
    assert_clean(&[&machine, ENTER, &change, "0 48000010: isb; 0 48000014: settled; end exit"]);
    let takes_over = format!("0 48000010: msr mair_el2 {}; 0 48000014: isb\n", crate::MAIR);
    assert_broken(&[&machine, ENTER, &takes_over, &change, "0 isb"], &[Rule::OutputChange]);
    assert_broken(&[&machine, ENTER_AT, &change, "0 isb"], &[Rule::OutputChange]);
}

#[test]
fn good_tables_in_force_at_the_entry_are_as_they_are() {
    // Page 1 is writable and executable.
    let machine = machine(1, &[(1, "50000703")]);
    assert_broken(&[&machine, "0 isb"], &[Rule::WriteExecute]);
    assert_clean(&[&machine, ENTER, "0 48000010: isb; end exit"]);
    assert_broken(
        &[&machine, ENTER, "0 48000010: isb", &page(2, "50001703").replace("0 store", "0 48000014: store")],
        &[Rule::WriteExecute],
    );
}

#[test]
fn good_what_nobody_knows_of_the_loader_s_registers_stays_unknown() {
    let found = crate::on(0).replace(&format!("0 found tcr_el2 {}\n", crate::TCR), "");
    let engine = judged(&[&memory(&[(1, RW)]), &found, ENTER, "0 isb; end exit"]);
    assert!(engine.unknowns().iter().any(|unknown| unknown.what.contains("TCR_EL2")), "{:?}", engine.unknowns());
}
