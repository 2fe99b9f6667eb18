//! Fills: from invalid to valid, no TLBI, but seen and used only after a DSB and a context synchronisation.

use breakwater_oracle::obligations::Rule;

use crate::{RO, RW, assert_broken, assert_clean, machine, page};

/// Executable, read-only.
const RX: &str = "50000783";
/// PE 0 fetches from page 1, or loads or stores there.
const USES: [&str; 3] = ["0 1000: fetch 1", "0 load 8 1000 50000000 0", "0 store 8 1000 50000000 0"];

#[test]
fn good_fill_without_tlbi() {
    for word in [RW, RX] {
        assert_clean(&[&machine(2, &[]), &page(1, word), "0 dsb ishst; 0 isb; 0 settled; end exit"]);
    }
    assert_clean(&[&machine(2, &[]), &page(1, RX), "0 dsb ishst; 0 isb", USES[0], USES[1], USES[2]]);
}

#[test]
fn good_fill_from_af_clear_or_beyond_the_address_size() {
    let small = format!("feature all pa-bits=40\n{}", machine(1, &[(1, "40010050000703")]));
    assert_clean(&[&small, &page(1, RW), "0 dsb ishst; 0 isb; 0 settled; end exit"]);
    let large = machine(1, &[(1, "40010050000703")]);
    assert_broken(&[&large, &page(1, RW), "0 dsb ishst; 0 isb"], &[Rule::OutputChange]);
}

#[test]
fn bad_fill_not_visible() {
    let end = "0 dmb ish; 0 isb; 0 settled; end exit";
    assert_broken(&[&machine(2, &[]), &page(1, RW), end], &[Rule::NotVisible]);
    let own = end.replace("dmb ish", "dsb nshst");
    assert_broken(&[&machine(2, &[]), &page(1, RW), &own], &[Rule::NotVisible]);
    assert_clean(&[&machine(1, &[]), &page(1, RW), &own]);
    assert_broken(&[&machine(1, &[]), &page(1, RW), &own.replace("nshst", "ishld")], &[Rule::NotVisible]);
}

#[test]
fn bad_use_of_a_fill_without_dsb() {
    for access in USES {
        assert_broken(&[&machine(2, &[]), &page(1, RX), "0 isb", access], &[Rule::NotVisible]);
        let other = access.replacen('0', "1", 1);
        assert_broken(&[&machine(2, &[]), &page(1, RX), "1 isb", &other], &[Rule::NotVisible]);
    }
}

#[test]
fn bad_use_of_a_fill_without_isb() {
    for access in USES {
        assert_broken(&[&machine(2, &[]), &page(1, RX), "0 dsb ishst", access], &[Rule::FillSync]);
        let other = access.replacen('0', "1", 1);
        assert_broken(&[&machine(2, &[]), &page(1, RX), "0 dsb ishst; 0 isb", &other], &[Rule::FillSync]);
        assert_clean(&[&machine(2, &[]), &page(1, RX), "0 dsb ishst; 0 isb; 1 isb", &other]);
    }
}

#[test]
fn bad_use_of_a_fill_that_one_pe_alone_sees() {
    let filled = [&page(1, RX), "0 dsb nshst"].concat();
    for access in USES {
        assert_broken(&[&machine(2, &[]), &filled, access], &[Rule::FillSync]);
        assert_clean(&[&machine(2, &[]), &filled, "0 isb", access]);
    }
}

#[test]
fn good_what_was_filled_and_is_gone_again_is_used_by_nobody() {
    let gone = [&page(1, RX), "0 dsb ishst\n", &page(1, "0"), "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish"].concat();
    assert_clean(&[&machine(2, &[]), &gone, "1 load 8 1000 50000000 0"]);
    let unlinked =
        [&page(1, RX), "0 dsb ishst; 0 store 8 40002000 40002000 0; 0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish"].concat();
    assert_clean(&[&machine(2, &[]), &unlinked, "1 load 8 1000 50000000 0"]);
}

#[test]
fn good_ets2_spares_loads_and_stores_the_isb() {
    let machine = format!("feature all ets2\n{}", machine(2, &[]));
    assert_clean(&[&machine, &page(1, RX), "0 dsb ishst", USES[1], USES[2]]);
    assert_broken(&[&machine, &page(1, RX), "0 dsb ishst", USES[0]], &[Rule::FillSync]);
}

#[test]
fn bad_settled_without_isb() {
    assert_broken(&[&machine(2, &[]), &page(1, RW), "0 dsb ishst; 0 settled"], &[Rule::FillSync]);
    // The ISB came before the store was visible.
    assert_broken(&[&machine(2, &[]), &page(1, RW), "0 isb; 0 dsb ishst; 0 settled"], &[Rule::FillSync]);
}

#[test]
fn good_an_exception_is_a_context_synchronisation() {
    for event in ["exception 0 0 0", "eret 2"] {
        assert_clean(&[&machine(1, &[]), &page(1, RX), "0 dsb ishst", &format!("0 {event}"), USES[0]]);
    }
}

#[test]
fn bad_use_through_a_broken_entry() {
    let machine = machine(2, &[(1, RX)]);
    for access in USES {
        assert_broken(&[&machine, &page(1, "0"), access], &[Rule::BrokenUse]);
        assert_clean(&[&machine, access, &page(1, "0"), "0 dsb ishst"]);
    }
    assert_broken(&[&machine, &page(1, "0"), "1 1000: fetch 4"], &[Rule::BrokenUse]);
    assert_clean(&[&machine, &page(1, "0"), "1 load 8 1000 50000000 0"]);
}

#[test]
fn bad_isb_is_not_broadcast() {
    let change = format!(
        "{} 0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish; 0 isb",
        page(1, "50000783").replace("50000783", "c0000050000783")
    );
    let machine = machine(2, &[(1, "50000783")]);
    let change = change.replace("c0000050000783", "4000050000783");
    assert_broken(&[&machine, &change, "1 1000: fetch 1"], &[Rule::FetchSync]);
    assert_clean(&[&machine, &change, "1 isb; 1 1000: fetch 1"]);
    assert_clean(&[&machine, &change, "0 1000: fetch 1"]);
}

#[test]
fn bad_fetch_while_a_third_pe_is_not_reached_yet() {
    // PE 2 takes no part in ranges: the debt stays, and PE 1 owes its own synchronisation all the same.
    let features = "feature 0 tlbirange\nfeature 1 tlbirange\n";
    let machine = features.to_owned() + &machine(3, &[(1, RX)]);
    let change = [&page(1, "4000050000783"), "0 dsb ishst; 0 tlbi rvae2is 400000000001; 0 dsb ish; 0 isb"].concat();
    assert_broken(&[&machine, &change, "1 1000: fetch 1"], &[Rule::FetchSync]);
    assert_clean(&[&machine, &change, "1 isb; 1 1000: fetch 1"]);
}

#[test]
fn bad_use_before_the_isb_that_completes_the_own_tlbi() {
    let change = [&page(1, "40000050000783"), "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish"].concat();
    let machine = machine(2, &[(1, RW)]);
    assert_broken(&[&machine, &change, USES[1]], &[Rule::CompletionSync]);
    assert_clean(&[&machine, &change, "0 isb", USES[1]]);
    assert_clean(&["feature all ets2", &machine, &change, USES[1]]);
    assert_clean(&[&machine, &change, "1 load 8 1000 50000000 0"]);
}

#[test]
fn good_each_pe_uses_the_change_after_its_own_synchronisation() {
    let change = [&page(1, "40000050000783"), "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish"].concat();
    for sync in ["isb", "exception 0 0 0", "eret 2"] {
        assert_clean(&[&machine(2, &[(1, RW)]), &change, &format!("0 {sync}"), USES[1]]);
        let code =
            [&machine(2, &[(1, RX)]), &page(1, "4000050000783"), "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish"].concat();
        assert_clean(&[&code, &format!("1 {sync}"), "1 1000: fetch 1"]);
    }
    // An access of another PE is after the invalidation or before it, and needs nothing.
    assert_clean(&[&machine(2, &[(1, RW)]), &change, "1 load 8 1000 50000000 0"]);
}

#[test]
fn good_nothing_uses_an_entry_between_break_and_make() {
    let remade = format!("0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish; {} 0 dsb ish; 0 isb; 1 isb", page(1, RX));
    for access in USES {
        let other = access.replacen('0', "1", 1);
        assert_clean(&[&machine(2, &[(1, RX)]), access, &other, &page(1, "0"), &remade, access, &other]);
    }
}

/// A table of 512 stores, the first of which is replaced twice, and its link; `own` completes the stores to it.
fn filled_by(own: &str) -> String {
    let stores = (0..512).map(|index| format!("0 store 8 {0:x} {0:x} 0\n", 0x4000_6000 + 8 * index));
    let first = |word: &str| format!("0 store 8 40006000 40006000 {word}\n{own}\n");
    let link = "0 store 8 40002008 40002008 40006003; 0 dsb ishst; 0 isb; 0 settled";
    stores.collect::<String>() + &first(RW) + &first(RO) + link
}

#[test]
fn good_own_barriers_suffice_for_one_pe_however_many_stores() {
    assert_clean(&[&machine(1, &[]), &filled_by("0 dsb nshst")]);
    assert_clean(&[&machine(2, &[]), &filled_by("0 dsb ishst")]);
}

#[test]
fn bad_own_barriers_of_many_stores_with_a_second_pe() {
    assert_broken(&[&machine(2, &[]), &filled_by("0 dsb nshst")], &[Rule::ChildContents]);
    assert_broken(&[&machine(1, &[]), &filled_by("0 isb")], &[Rule::ChildContents]);
    let of_two = filled_by("0 dsb nshst")
        .replace("0 store 8 40006000 40006000 40000050000783", "1 store 8 40006000 40006000 40000050000783");
    assert_broken(&[&machine(2, &[]), &of_two], &[Rule::ChildContents]);
}

/// A fill that a DSB NSH completed wants a DSB of the PE that stored; the others have their ISB.
#[test]
fn bad_fill_of_a_narrow_dsb_is_the_dsb_s_alone() {
    let used = |dsb: &str| format!("{} 0 dsb {dsb}; 0 isb; 1 isb; 1 load 8 1000 50000000 0", page(1, RW));
    assert_broken(&[&machine(2, &[]), &used("nsh")], &[Rule::NotVisible]);
    let late = used("ish").replace("1 isb; ", "");
    assert_broken(&[&machine(2, &[]), &late], &[Rule::FillSync]);
    assert_clean(&[&machine(2, &[]), &used("ish")]);
}
