//! Tables: linked, unlinked, replaced, and their frames given back.

use breakwater_oracle::obligations::Rule;

use crate::{RW, RW_OTHER, after, assert_broken, assert_clean, broken, machine, page, table};

/// The level 2 descriptor of the level 3 table, replaced by `word`.
fn link(word: &str) -> String {
    format!("0 store 8 40002000 40002000 {word}\n")
}

/// Two pages and two PEs.
fn two() -> String {
    machine(2, &[(1, RW), (2, "40000050002703")])
}

/// A TLBI for each of the two pages.
const BOTH: &str = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vae2is 2; 0 dsb ish; 0 isb; 0 settled";
/// A block of 2 MiB with the attributes and addresses of the pages.
const BLOCK: &str = "40000050000701";
/// The same, not translated while it changes.
const BLOCK_NT: &str = "40000050010701";

#[test]
fn good_unlink_each_formerly_valid_leaf() {
    assert_clean(&[&two(), &link("0"), BOTH, "0 give 40003000 4096; 0 take 40003000 4096; end exit"]);
    let range = BOTH.replace("0 tlbi vae2is 1; 0 tlbi vae2is 2", "0 tlbi alle2is 0");
    assert_clean(&[&two(), &link("0"), &range, "0 give 40003000 4096; end exit"]);
}

#[test]
fn bad_unlink_with_one_leaf_forgotten() {
    let one = BOTH.replace("0 tlbi vae2is 2;", "");
    assert_broken(&[&two(), &link("0"), &one], &[Rule::StaleLeaf]);
}

#[test]
fn bad_last_level_tlbi_for_a_table_entry() {
    let last = BOTH.replace("vae2is", "vale2is");
    assert_broken(&[&two(), &link("0"), &last], &[Rule::StaleLeaf, Rule::StaleTable]);
    // Each leaf is gone, but the table entry is not.
    let last = "0 dsb ishst; 0 tlbi vale2is 3; 0 dsb ish; 0 isb; 0 settled";
    assert_broken(&[&machine(2, &[]), &link("0"), last], &[Rule::StaleTable]);
    assert_clean(&[&machine(2, &[]), &link("0"), &last.replace("vale", "vae")]);
}

#[test]
fn bad_ttl_in_a_tlbi_for_a_table_entry() {
    let hinted = "0 dsb ishst; 0 tlbi vae2is 700000000003; 0 dsb ish; 0 isb; 0 settled";
    let machine = format!("feature all ttl\n{}", machine(2, &[]));
    assert_broken(&[&machine, &link("0"), hinted], &[Rule::StaleTable]);
}

#[test]
fn bad_frame_given_back_or_taken_too_early() {
    for event in ["give", "take"] {
        let early = format!("0 dsb ishst; 0 {event} 40003000 4096");
        assert_broken(&[&two(), &link("0"), &early], &[Rule::FrameReuse]);
    }
    assert_broken(&[&two(), "0 give 40003000 4096"], &[Rule::FrameInUse]);
    assert_clean(&[&two(), "0 give 40004000 4096"]);
    // A page's own frame, before its translation is gone.
    assert_broken(&[&two(), &page(1, "0"), "0 dsb ishst; 0 give 50000000 4096"], &[Rule::FrameReuse]);
    assert_clean(&[&two(), &page(1, "0"), &after(1).replace("end exit", "0 give 50000000 4096")]);
}

#[test]
fn bad_frame_of_a_table_that_a_stale_leaf_was_walked_through() {
    // The entry that led to the table is gone with page 2, but not the walk that page 1 may be cached with.
    let one = "0 dsb ishst; 0 tlbi vae2is 2; 0 dsb ish; 0 isb; 0 give 40003000 4096";
    assert_broken(&[&two(), &link("0"), one], &[Rule::FrameReuse]);
}

#[test]
fn bad_former_table_is_reused_while_walks_may_still_go_through_it() {
    let reuse = page(1, "40000050005703");
    assert_broken(&[&two(), &link("0"), "0 dsb ishst", &reuse], &[Rule::OutputChange]);
    assert_clean(&[&two(), &link("0"), BOTH, &reuse, "0 dsb ish; end exit"]);
}

#[test]
fn bad_child_linked_before_its_contents_are_known_or_visible() {
    let linked = "0 store 8 40002008 40002008 40006003; 0 dsb ishst; 0 isb; 0 settled";
    assert_broken(&[&two(), linked], &[Rule::ChildContents]);
    let zeroed: String = (0..512).map(|word| format!("0 store 8 {0:x} {0:x} 0\n", 0x4000_6000 + 8 * word)).collect();
    assert_broken(&[&two(), &zeroed, linked], &[Rule::ChildContents]);
    assert_clean(&[&two(), &zeroed, "0 dsb ishst", linked]);
}

#[test]
fn good_an_empty_table_is_linked_and_then_filled() {
    let child = &table(0x4000_6000, &[]);
    let linked = "0 store 8 40002008 40002008 40006003; 0 store 8 40006000 40006000 40000050003703";
    assert_clean(&[child, &two(), linked, "0 dsb ishst; 0 isb; 0 settled; end exit"]);
}

#[test]
fn bad_child_filled_after_linking_without_dsb() {
    let child = &table(0x4000_6000, &[]);
    let linked = "0 store 8 40002008 40002008 40006003; 0 dsb ishst; 0 isb";
    let filled = "0 store 8 40006000 40006000 40000050003703; 0 settled";
    assert_broken(&[child, &two(), linked, filled], &[Rule::NotVisible]);
}

#[test]
fn bad_table_replaced_by_another_in_place() {
    let other = table(0x4000_6000, &[(1, RW), (2, "40000050002703")]);
    let in_place = [&two(), &other, &link("40006003"), BOTH].map(str::to_owned).concat();
    assert_eq!(
        broken(&[&in_place]),
        [Rule::TableChange],
        "its contents are equal: the frame's reuse is what is at stake"
    );
    let broken_first = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vae2is 2; 0 dsb ish";
    assert_clean(&[&two(), &other, &link("0"), broken_first, &link("40006003"), "0 dsb ish; 0 isb; 0 settled"]);
}

#[test]
fn bad_hierarchical_rights_in_place() {
    for flag in ["4000000040003003", "1000000040003003"] {
        assert_broken(&[&two(), &link(flag), BOTH], &[Rule::HierarchyChange]);
        let broken_first = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vae2is 2; 0 dsb ish";
        assert_clean(&[&two(), &link("0"), broken_first, &link(flag), "0 dsb ish; 0 isb; 0 settled; end exit"]);
    }
    // With TCR_EL2.HPD they say nothing.
    let disabled = two().replace("80853510", "81853510");
    assert_clean(&[&disabled, &link("4000000040003003"), "0 settled; end exit"]);
}

/// A machine whose 2 MiB at VA 0 are a block, and a table with the same pages.
fn block(features: &str, word: &str) -> String {
    let pages: Vec<(u64, String)> =
        (0..512).map(|page| (page, format!("{:x}", 0x0040_0000_5000_0703 + 0x1000 * page))).collect();
    let pages: Vec<(u64, &str)> = pages.iter().map(|(page, word)| (*page, word.as_str())).collect();
    let on = machine(1, &[]).replace("word 40002000 40003003", &format!("word 40002000 {word}"));
    format!("{features}\n{on}{}", table(0x4000_6000, &pages))
}

const SPLIT: &str =
    "0 store 8 40002000 40002000 40006003; 0 dsb ishst; 0 tlbi vae2is 0; 0 dsb ish; 0 isb; 0 settled; end exit";

#[test]
fn bad_split_and_merge_below_level_1() {
    assert_broken(&[&block("", BLOCK), SPLIT], &[Rule::SizeChange]);
    assert_broken(&[&block("feature all bbm=1", BLOCK), SPLIT], &[Rule::SizeChange]);
    let merge = [&SPLIT.replace("40006003", BLOCK), ""].concat();
    let small = block("", "40006003").replace("tlbi vae2is 0", "tlbi alle2is 0");
    assert_broken(&[&small, &merge.replace("vae2is 0", "alle2is 0")], &[Rule::SizeChange]);
}

#[test]
fn bad_split_with_level_2_on_a_part_that_wants_every_change_broken() {
    let block = block("feature all bbm=2\nfeature all bbm-always", BLOCK);
    assert_broken(&[&block, SPLIT], &[Rule::BbmAlways]);
}

#[test]
fn good_split_with_level_1_and_2() {
    assert_clean(&[&block("feature all bbm=1", BLOCK_NT), SPLIT]);
    assert_clean(&[&block("feature all bbm=2", BLOCK), SPLIT]);
    assert_clean(&[&block("feature all bbm=3", BLOCK), SPLIT]);
    let merge = SPLIT.replace("40006003", BLOCK).replace("vae2is 0", "alle2is 0");
    assert_clean(&[&block("feature all bbm=2", "40006003"), &merge]);
}

#[test]
fn bad_split_without_tlbi_or_with_other_attributes() {
    let without = SPLIT.replace("0 tlbi vae2is 0;", "");
    assert_broken(&[&block("feature all bbm=2", BLOCK), &without], &[Rule::StaleLeaf]);
    let moved = block("feature all bbm=2", "40000050200701");
    assert_broken(&[&moved, SPLIT], &[Rule::OutputChange]);
}

#[test]
fn bad_block_made_over_a_table_whose_leaf_is_still_cached() {
    let one = "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish";
    let made = [&link(BLOCK), "0 dsb ish; 0 isb; 0 settled"].concat();
    assert_broken(&[&two(), &link("0"), one, &made], &[Rule::SizeChange, Rule::StaleLeaf]);
    let both = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vae2is 2; 0 dsb ish";
    assert_clean(&[&two(), &link("0"), both, &made]);
}

#[test]
fn bad_last_level_tlbi_for_a_leaf_of_an_unlinked_table() {
    // The second TLBI may be done first: the leaf is cached again through the table entry.
    let lazy = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vale2is 2; 0 dsb ish; 0 isb; 0 settled";
    assert_broken(&[&two(), &link("0"), lazy], &[Rule::StaleLeaf]);
    let ordered = lazy.replace("0 tlbi vale2is 2", "0 dsb ish; 0 tlbi vale2is 2");
    assert_clean(&[&two(), &link("0"), &ordered]);
}

#[test]
fn good_table_replaced_or_limited_by_break_before_make() {
    let other = table(0x4000_6000, &[(1, RW), (2, "40000050002703")]);
    let broken = "0 dsb ishst; 0 tlbi vae2is 1; 0 tlbi vae2is 2; 0 dsb ish";
    let made = "0 dsb ish; 0 isb; 0 settled";
    for word in ["40006003", "4000000040003003", "1000000040003003"] {
        assert_clean(&[&other, &two(), &link("0"), broken, &link(word), made, "end exit"]);
    }
    // The former table's frame is free then.
    assert_clean(&[&other, &two(), &link("0"), broken, &link("40006003"), made, "0 give 40003000 4096; end exit"]);
}

#[test]
fn good_frame_leaves_when_nothing_leads_to_it() {
    assert_clean(&[&two(), &link("0"), BOTH, "0 give 40003000 4096; 1 take 40003000 4096"]);
    assert_clean(&[&two(), &page(1, "0"), "0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish; 0 isb", "0 give 50000000 4096"]);
    // Neighbours of a table and of a page that changes are free all along.
    assert_clean(&[&two(), &page(1, "0"), "0 dsb ishst; 0 give 40004000 4096; 0 give 50001000 4096"]);
}

/// A store of `word` to entry 0 of the table that is linked nowhere.
fn child(word: &str) -> String {
    format!("0 store 8 40004000 40004000 {word}\n")
}

/// Links it for the 2 MiB behind the pages.
const LINK: &str = "0 store 8 40002008 40002008 40004003\n";
/// What makes the link usable.
const USABLE: &str = "0 dsb ish; 0 isb; 0 settled; end exit";
/// What a walk breaks that may read what stood in entry 0 before, and what stands there now.
const BOTH_LEAVES: [Rule; 2] = [Rule::OutputChange, Rule::StaleLeaf];
/// Its entry 0 holds a leaf that no walk may find there any more.
const OLD_LEAF: &str = "word 40004000 40000050008703\n";

#[test]
fn good_dmb_orders_a_table_before_its_link() {
    // RTGRMW asks that a walk which reads the link reads the table as filled: a walk reads in that order, and the DMB
    // has the stores in it.
    for barrier in ["ish", "ishst", "sy", "st", "osh", "oshst"] {
        let dmb = format!("0 dmb {barrier}\n");
        assert_clean(&[&two(), OLD_LEAF, &child(RW), &dmb, LINK, USABLE]);
        assert_clean(&[&two(), OLD_LEAF, &child("0"), &dmb, LINK, USABLE]);
    }
}

#[test]
fn bad_dmb_that_orders_no_stores_or_stands_elsewhere() {
    for barrier in ["dmb ishld", "dmb ld", "dmb nshst", "dsb ishld", "isb"] {
        let barrier = format!("0 {barrier}\n");
        assert_broken(&[&two(), OLD_LEAF, &child(RW), &barrier, LINK, USABLE], &BOTH_LEAVES);
    }
    let dmb = "0 dmb ishst\n";
    assert_broken(&[&two(), OLD_LEAF, dmb, &child(RW), LINK, USABLE], &BOTH_LEAVES);
    assert_broken(&[&two(), OLD_LEAF, &child(RW), LINK, dmb, USABLE], &BOTH_LEAVES);
    assert_broken(&[&two(), OLD_LEAF, &child(RW), "1 dmb ishst", LINK, USABLE], &BOTH_LEAVES);
    // The second store is not behind it, and a walk may read what the first has put there.
    let twice = [child(RW), dmb.to_owned(), child("40000050009703")].concat();
    assert_broken(&[&two(), OLD_LEAF, &twice, LINK, USABLE], &BOTH_LEAVES);
    assert_clean(&[&two(), OLD_LEAF, &twice, dmb, LINK, USABLE]);
}

/// The same store as a store-release.
fn released(store: &str) -> String {
    format!("{} release\n", store.trim_end())
}

#[test]
fn good_store_release_orders_a_table_before_its_link() {
    let link = released(LINK);
    assert_clean(&[&two(), OLD_LEAF, &child(RW), &link, USABLE]);
    assert_clean(&[&two(), OLD_LEAF, &child("0"), "0 dmb ishst\n", &child(RW), &link, USABLE]);
    // It may stand elsewhere too, if a DMB follows.
    let flag = released("0 store 8 40006000 40006000 1");
    assert_clean(&[&two(), OLD_LEAF, &child(RW), &flag, "0 dmb ish\n", LINK, USABLE]);
    assert_clean(&[&two(), OLD_LEAF, &released(&child(RW)), &link, USABLE]);
}

#[test]
fn bad_store_release_that_is_not_the_link_s() {
    // What follows a store-release may be seen before it, and before what it orders.
    let flag = released("0 store 8 40006000 40006000 1");
    assert_broken(&[&two(), OLD_LEAF, &child(RW), &flag, LINK, USABLE], &BOTH_LEAVES);
    assert_broken(&[&two(), OLD_LEAF, &released(&child(RW)), LINK, USABLE], &BOTH_LEAVES);
    // It orders what its own PE has stored, and makes nothing visible.
    let link = released(LINK);
    assert_broken(
        &[&two(), OLD_LEAF, &child(RW), &link.replace("0 store", "1 store"), "0 dsb ish", &USABLE.replace("0 ", "1 ")],
        &BOTH_LEAVES,
    );
    assert_broken(&[&two(), &child(RW), &link, "0 isb; 0 settled"], &[Rule::NotVisible]);
}

#[test]
fn bad_link_by_another_pe_than_the_dmb_is_of() {
    let link = LINK.replace("0 store", "1 store");
    let usable = USABLE.replace("0 ", "1 ");
    assert_broken(&[&two(), OLD_LEAF, &child(RW), "0 dmb ish", &link, "0 dsb ish", &usable], &BOTH_LEAVES);
    assert_clean(&[&two(), OLD_LEAF, &child(RW), "0 dsb ish", &link, &usable]);
}

#[test]
fn good_one_dmb_for_tables_in_a_row() {
    // 40007000, a table of level 2, leads to 40004000; one DMB stands before the link to both.
    let middle = "0 store 8 40007000 40007000 40004003\n";
    let top = "0 store 8 40001010 40001010 40007003\n";
    let spare = table(0x4000_7000, &[]);
    assert_clean(&[&spare, &two(), OLD_LEAF, &child(RW), middle, "0 dmb ishst", top, USABLE]);
    let late = [middle, "0 dmb ishst\n", top].concat();
    assert_clean(&[&spare, &two(), OLD_LEAF, &child(RW), "0 dmb ishst", &late, USABLE]);
    assert_broken(&[&spare, &two(), OLD_LEAF, "0 dmb ishst", &child(RW), middle, top, USABLE], &BOTH_LEAVES);
}

#[test]
fn bad_dmb_where_another_way_leads_to_the_table() {
    // The table that is unlinked and filled anew is still walked through its old link: the DMB says nothing of that
    // way.
    let again = [link("0"), page(1, RW_OTHER), "0 dmb ishst\n".to_owned(), link("40003003")].concat();
    assert!(broken(&[&two(), &again, USABLE]).contains(&Rule::OutputChange));
}

#[test]
fn good_store_that_another_pe_has_overwritten_and_completed() {
    // PE 0's own store has no DSB: what it replaced is gone all the same, since PE 1's came later, and is complete.
    let over = |word: &str| format!("1 store 8 40004000 40004000 {word}; 1 dsb ishst");
    assert_clean(&[&two(), OLD_LEAF, &child("0"), &over(RW), LINK, USABLE]);
    let local = over(RW).replace("dsb ishst", "dsb nshst");
    let found = [Rule::OutputChange, Rule::StaleLeaf, Rule::NotVisible];
    assert_broken(&[&two(), OLD_LEAF, &child("0"), &local, LINK, USABLE], &found);
    // PE 0 stores once more: of that one, nothing is complete.
    assert_broken(&[&two(), OLD_LEAF, &child("0"), &over(RW), &child(RW_OTHER), LINK, USABLE], &BOTH_LEAVES);
    assert_clean(&[&two(), OLD_LEAF, &child("0"), &over(RW), &child(RW_OTHER), "0 dsb ishst", LINK, USABLE]);
}

#[test]
fn bad_dmb_after_more_stores_than_are_told_apart() {
    // Each of 70 leaves is replaced twice: of the last ones the values between are not kept, so no order is known of
    // them.
    let entry = |index: u64| 0x4000_4000 + 8 * index;
    let old: String = (0..70).map(|index| format!("word {:x} 40000050008703\n", entry(index))).collect();
    let stored = |word: &str| -> String {
        (0..70).map(|index| format!("0 store 8 {0:x} {0:x} {word}\n", entry(index))).collect()
    };
    let twice = stored(RW) + &stored(RW_OTHER);
    assert!(broken(&[&two(), &old, &twice, "0 dmb ishst", LINK, USABLE]).contains(&Rule::ChildContents));
    assert_clean(&[&two(), &old, &stored(RW), "0 dmb ishst", LINK, USABLE]);
    assert_clean(&[&two(), &old, &twice, "0 dsb ishst", LINK, USABLE]);
}
