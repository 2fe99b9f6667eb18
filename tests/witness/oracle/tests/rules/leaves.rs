//! What holds for every leaf at every instruction.

use breakwater_oracle::obligations::Rule;

use crate::{RW, assert_broken, assert_clean, machine, memory, on, page};

const RX: &str = "50000783";

#[test]
fn bad_leaf_of_a_reserved_type() {
    for mair in ["4402ff", "440eff", "4480ff"] {
        let machine = machine(1, &[(1, RW)]).replace("4404ff", mair);
        // Index 1, execute-never.
        assert_broken(&[&machine, &page(2, "40000009000707"), "0 dsb ish; 0 isb; end exit"], &[Rule::TypeReserved]);
    }
}

#[test]
fn good_reserved_types_that_no_leaf_names() {
    let machine = machine(1, &[(1, RW)]).replace("4404ff", "4402ff");
    assert_clean(&[&machine, &page(2, "40000051000703"), "0 dsb ish; 0 isb; end exit"]);
    // With FEAT_MTE2 this is tagged memory.
    let tagged = machine.replace("4402ff", "f002ff");
    assert_clean(&[&tagged, &page(2, "4000005100070b"), "0 dsb ish; 0 isb; end exit"]);
}

#[test]
fn bad_writable_and_executable() {
    assert_broken(&[&machine(1, &[(1, "50000703")])], &[]);
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    assert_broken(&[&machine(1, &[(1, "50000703")]), end], &[Rule::WriteExecute]);
    assert_broken(&[&machine(1, &[]), &page(1, "50000703"), end], &[Rule::WriteExecute]);
    assert_clean(&[&machine(1, &[]), &page(1, RX), &page(2, "40000050001703"), end]);
    // SCTLR_EL2.WXN is not leant on.
    let wxn = machine(1, &[(1, "50000703")]).replace("30cd183d", "30c5183d");
    assert_broken(&[&wxn, end], &[Rule::WriteExecute]);
}

#[test]
fn good_rights_of_the_tables_above_count() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    for flag in ["4000000040003003", "1000000040003003"] {
        let limited =
            machine(1, &[(1, "50000703")]).replace("word 40002000 40003003", &format!("word 40002000 {flag}"));
        assert_clean(&[&limited, end]);
        let disabled = limited.replace("80853510", "81853510");
        assert_broken(&[&disabled, end], &[Rule::WriteExecute]);
    }
}

#[test]
fn bad_alias_writable_here_and_executable_there() {
    let alias = machine(1, &[(1, RX), (2, RW)]);
    assert_broken(&[&alias, "0 isb; 0 settled; end exit"], &[Rule::WriteExecuteAlias]);
    assert_clean(&[&alias, "0 isb; 0 settled; end limit"]);
    assert_clean(&[&machine(1, &[(1, RX), (2, "40000050000783")]), "0 isb; end exit"]);
    let block = machine(1, &[(1, RX)]).replace("word 40002008 0", "word 40002008 40000050000701");
    assert_broken(&[&block, "0 isb; end exit"], &[Rule::WriteExecuteAlias]);
}

#[test]
fn bad_device_executable() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    assert_broken(&[&machine(1, &[]), &page(1, "9000787"), end], &[Rule::DeviceExecute]);
    assert_clean(&[&machine(1, &[]), &page(1, "40000009000707"), end]);
}

#[test]
fn bad_frame_mapped_with_two_types_or_shareabilities() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    for other in ["40000050000707", "4000005000070b", "40000050000603"] {
        assert_broken(&[&machine(1, &[(1, RW)]), &page(2, other), end], &[Rule::MismatchedAttributes]);
        let block = machine(1, &[(1, other)]).replace("word 40002008 0", "word 40002008 40000050000701");
        assert_broken(&[&block, end], &[Rule::MismatchedAttributes]);
        let later = "0 store 8 40002008 40002008 40000050000701";
        assert_broken(&[&machine(1, &[(1, other)]), later, end], &[Rule::MismatchedAttributes]);
        // Gone before the other comes.
        let gone = format!("{} 0 dsb ishst; 0 tlbi vae2is 1; 0 dsb ish\n", page(1, "0"));
        assert_clean(&[&machine(1, &[(1, RW)]), &gone, &page(2, other), end]);
    }
    assert_clean(&[&machine(1, &[(1, RW)]), &page(2, RW), end]);
}

#[test]
fn bad_normal_beyond_ram_or_over_no_map() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    let ram = "memory 40000000 50001000 ram; memory 50001000 50002000 ram; memory 50000000 50001000 no-map";
    let fill = |word: &str, rules: &[Rule]| assert_broken(&[ram, &memory(&[]), &on(0), &page(1, word), end], rules);
    fill("40000050001703", &[]);
    fill("40000050000703", &[Rule::BeyondRam]);
    fill("40000050002703", &[Rule::BeyondRam]);
    fill("40000060000707", &[]);
    // A block over the neighbourhood of what may be mapped.
    let block = memory(&[]).replace("word 40002008 0", "word 40002008 40000050000701");
    assert_broken(&[ram, &block, &on(0), end], &[Rule::BeyondRam]);
    assert_clean(&[&block, &on(0), end]);
}

#[test]
fn good_flash_may_be_mapped_as_normal_and_what_nothing_backs_may_not() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    let backed = "memory 40000000 50001000 ram; memory 50001000 50002000 flash";
    let fill = |word: &str, rules: &[Rule]| assert_broken(&[backed, &memory(&[]), &on(0), &page(1, word), end], rules);
    fill("40000050001703", &[]);
    fill("40000050002703", &[Rule::BeyondRam]);
}

#[test]
fn good_aliases_of_one_kind() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    let never = "40000050000783";
    for pair in [[RX, never], [RX, RX], [RW, RW], [RW, never]] {
        assert_clean(&[&machine(1, &[(1, pair[0]), (2, pair[1])]), end]);
    }
    // Beside each other is not over each other.
    assert_clean(&[&machine(1, &[(1, RX), (2, "40000050001703")]), end]);
}

#[test]
fn good_device_never_executable_and_ram_alone_normal() {
    let end = "0 dsb ishst; 0 isb; 0 settled; end exit";
    let ram = "memory 40000000 50001000 ram; memory 50000000 50001000 no-map";
    let machine = memory(&[(1, "40000009000707"), (2, "40000040005703"), (3, "40000050000707")]);
    assert_clean(&[ram, &machine, &on(0), end]);
    assert_clean(&[ram, &memory(&[]), &on(0), &page(1, "40000009000707"), &page(2, "40000040005703"), end]);
}
