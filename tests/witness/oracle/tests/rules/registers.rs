//! Control registers: the first enable, changes while the MMU is on or off, and what is not supported.

use breakwater_oracle::obligations::Rule;

use crate::{MAIR, RW, TCR, assert_broken, assert_clean, judged, machine, memory, on};

/// PE 0 from reset to its MMU on, barrier by barrier.
const ENABLE: &str = "0 start 2; 0 found sctlr_el2 30cd1838
    0 dsb sy; 0 msr hcr_el2 80000000; 0 isb
    0 msr mair_el2 4404ff; 0 msr tcr_el2 80853510; 0 msr ttbr0_el2 40000000; 0 msr sctlr_el2 30cd1838; 0 isb
    0 tlbi alle2 0; 0 dsb nsh; 0 isb
    0 msr sctlr_el2 30cd183d; 0 isb; 0 settled; end exit";

fn enable() -> String {
    memory(&[(1, RW)]) + ENABLE
}

/// The enable with `from` replaced by `to`.
#[track_caller]
fn with(from: &str, to: &str) -> String {
    assert!(ENABLE.contains(from));
    enable().replacen(from, to, 1).replace("; end exit", "")
}

#[test]
fn bad_root_with_reserved_bits() {
    let machine = machine(1, &[(1, RW)]);
    for root in ["1000040000000", "8000000040000000", "40000002", "40000800"] {
        let found = machine.replace("ttbr0_el2 40000000", &format!("ttbr0_el2 {root}"));
        assert_broken(&[&found, "0 isb; end exit"], &[Rule::RootBits]);
        assert_broken(&[&machine, &format!("0 msr ttbr0_el2 {root}; 0 isb; end exit")], &[Rule::RootBits]);
    }
}

#[test]
fn good_root_with_nothing_but_its_address() {
    let machine = machine(1, &[(1, RW)]);
    assert_clean(&[&machine, "0 msr ttbr0_el2 40000000; 0 isb; end exit"]);
    // With M = 0 nothing is in force.
    let off = "0 msr ttbr0_el2 40000002; 0 isb; 0 msr ttbr0_el2 40000000; 0 isb; end exit";
    assert_clean(&["0 start 2; 0 found sctlr_el2 30cd1838", off]);
}

#[test]
fn good_first_enable() {
    assert_clean(&[&enable()]);
    assert_clean(&[&with("alle2 0; 0 dsb nsh", "alle2is 0; 0 dsb ish")]);
}

#[test]
fn bad_first_enable_without_its_own_invalidation() {
    const NOTHING_INVALIDATED: [Rule; 3] = [Rule::ControlChange, Rule::FirstEnable, Rule::HostChange];
    assert_broken(&[&with("0 tlbi alle2 0;", "")], &NOTHING_INVALIDATED);
    assert_broken(&[&with("0 dsb nsh; 0 isb", "0 isb")], &NOTHING_INVALIDATED);
    assert_broken(&[&with("0 dsb nsh;", "0 dsb nshst;")], &NOTHING_INVALIDATED);
    assert_broken(&[&with("0 dsb nsh; 0 isb", "0 dsb nsh")], &NOTHING_INVALIDATED);
}

#[test]
fn bad_invalidated_by_another_pe_alone() {
    let other = with("0 tlbi alle2 0; 0 dsb nsh; 0 isb", "1 tlbi alle2is 0; 1 dsb ish; 0 isb");
    assert_broken(&[&on(1), &other], &[Rule::FirstEnable]);
    let secondary = ENABLE.replace("\n    0 ", "\n    1 ").replace("; 0 ", "; 1 ");
    let secondary = secondary.replacen("0 start", "1 start", 1);
    assert_clean(&[&memory(&[]), &on(0), &secondary]);
}

#[test]
fn good_cnp_that_does_not_exist_is_no_change() {
    let late = |features: &str| {
        let first = with("0 msr ttbr0_el2 40000000; ", "")
            .replace("0 msr sctlr_el2 30cd183d", "0 msr ttbr0_el2 40000001; 0 isb; 0 msr sctlr_el2 30cd183d");
        features.to_owned() + &first
    };
    assert_broken(&[&late("")], &[Rule::ControlChange]);
    assert_clean(&[&late("feature all no-cnp; ")]);
}

#[test]
fn bad_two_changes_at_one_instruction_are_two_findings() {
    let late = with("0 msr sctlr_el2 30cd1838; 0 isb\n", "0 isb\n").replace("0 msr ttbr0_el2 40000000; ", "");
    let late = late.replace("found sctlr_el2 30cd1838", "found sctlr_el2 30c51838");
    let late = late.replace("0 msr sctlr_el2 30cd183d", "0 msr ttbr0_el2 40000000; 0 isb; 0 msr sctlr_el2 30cd183d");
    let judged = judged(&[&late]);
    let missing: Vec<&str> = judged.violations().iter().map(|violation| violation.missing.as_str()).collect();
    for change in ["TTBR0_EL2.CnP", "SCTLR_EL2.WXN"] {
        assert!(missing.iter().any(|missing| missing.contains(change)), "{change}: {missing:?}");
    }
}

#[test]
fn bad_controls_not_in_force_before_the_invalidation() {
    let late = with("0 msr sctlr_el2 30cd1838; 0 isb\n", "0 msr sctlr_el2 30cd1838\n");
    assert_broken(&[&late], &[Rule::ControlChange]);
    let after =
        with("0 tlbi alle2 0; 0 dsb nsh; 0 isb", "0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 msr mair_el2 4404fe; 0 isb");
    assert_broken(&[&after], &[Rule::ControlChange]);
}

#[test]
fn bad_root_written_and_no_isb_before_m() {
    let moved = with("0 msr ttbr0_el2 40000000;", "");
    let moved = moved.replace("0 msr sctlr_el2 30cd183d", "0 msr ttbr0_el2 40000000; 0 msr sctlr_el2 30cd183d");
    assert_broken(&[&moved], &[Rule::StaleTable, Rule::ControlChange, Rule::ControlSync]);
}

#[test]
fn bad_wxn_set_with_m() {
    let late = with("30cd183d", "30cd183d").replace("msr sctlr_el2 30cd183d", "msr sctlr_el2 30c5183d");
    assert_broken(&[&late], &[Rule::ControlChange]);
}

#[test]
fn bad_wxn_changed_without_invalidation() {
    let change = "0 msr sctlr_el2 30c5183d; 0 isb";
    assert_broken(&[&machine(1, &[]), change, "0 settled"], &[Rule::ControlChange]);
    assert_broken(&[&machine(1, &[]), change, "end exit"], &[Rule::ControlChange]);
    assert_clean(&[&machine(1, &[]), change, "0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled; end exit"]);
    assert_clean(&[&machine(1, &[]), "0 msr sctlr_el2 30cd183d; 0 isb; 0 settled; end exit"]);
}

#[test]
fn bad_tcr_or_mair_changed_without_invalidation() {
    // Nor is it settled while another PE owes it.
    let other = "1 msr mair_el2 ff4404ff; 1 isb";
    assert_broken(&[&machine(2, &[]), other, "0 settled"], &[Rule::ControlChange]);
    assert_clean(&[&machine(2, &[]), other, "1 tlbi alle2 0; 1 dsb nsh; 1 isb; 0 settled"]);
    for change in ["0 msr tcr_el2 80a53510", "0 msr mair_el2 ff4404ff", "0 msr sctlr_el2 32cd183d"] {
        assert_broken(&[&machine(1, &[]), change, "0 isb; 0 settled"], &[Rule::ControlChange]);
        assert_clean(&[&machine(1, &[]), change, "0 isb; 0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled"]);
        assert_broken(
            &[&machine(1, &[]), change, "0 tlbi alle2 0; 0 dsb nsh; 0 isb; 0 settled"],
            &[Rule::ControlChange],
        );
    }
    assert_clean(&[
        &machine(1, &[]),
        &format!("0 msr tcr_el2 {TCR}; 0 msr mair_el2 {MAIR}; 0 isb; 0 settled; end exit"),
    ]);
}

#[test]
fn bad_control_never_written() {
    for register in ["mair_el2 4404ff", "tcr_el2 80853510", "ttbr0_el2 40000000"] {
        let (name, value) = register.split_once(' ').expect("two words");
        let trace = with(&format!("0 msr {register};"), "")
            .replace("0 start 2;", &format!("0 start 2; 0 found {name} {value};"));
        assert_broken(&[&trace], &[Rule::ControlUnknown]);
    }
    let left = with("0 dsb sy; 0 msr hcr_el2 80000000; 0 isb", "");
    assert_broken(&[&left], &[Rule::ControlUnknown]);
    assert_clean(&[&left.replace("0 start 2;", "0 start 2; 0 found hcr_el2 0;")]);
    let has_tcr2 = with("0 start 2;", "0 start 2; 0 found tcr2_el2 0;");
    assert_broken(&[&has_tcr2], &[Rule::ControlUnknown]);
    assert_clean(&[&has_tcr2.replace("0 msr mair_el2", "0 msr tcr2_el2 0; 0 msr mair_el2")]);
}

#[test]
fn bad_el3_leaves_sctlr_el2_unwritten() {
    let at_el3 = enable().replace("0 start 2", "0 start 3; 0 msr sctlr_el2 30c50838; 0 eret");
    assert_clean(&[&at_el3]);
    assert_broken(&[&at_el3.replace("0 msr sctlr_el2 30c50838; 0 eret", "0 eret")], &[Rule::ControlUnknown]);
}

#[test]
fn bad_use_between_m_and_its_isb() {
    let early = "30cd183d; 0 load 8 1000 50000000 0; 0 isb";
    assert_broken(&[&with("30cd183d; 0 isb", early)], &[Rule::ControlSync]);
    assert_broken(&[&with("30cd183d; 0 isb", "30cd183d; 0 1000: fetch 1; 0 isb")], &[Rule::ControlSync]);
    assert_clean(&[&with("30cd183d; 0 isb", "30cd183d; 0 isb; 0 load 8 1000 50000000 0")]);
    assert_broken(&[&with("30cd183d; 0 isb", "30cd183d")], &[Rule::ControlSync]);
}

#[test]
fn bad_e2h_changes_after_the_invalidation() {
    let off = with("hcr_el2 80000000", "hcr_el2 400000000; 0 msr hcr_el2 80000000");
    assert_clean(&[&off]);
    let late =
        with("0 dsb nsh; 0 isb", "0 dsb nsh; 0 isb; 0 msr hcr_el2 480000000; 0 isb; 0 msr hcr_el2 80000000; 0 isb");
    assert_broken(&[&late], &[Rule::HostChange]);
}

#[test]
fn bad_common_not_private_with_other_tables() {
    let common = |root: &str| on(0).replace("ttbr0_el2 40000000", &format!("ttbr0_el2 {root}"));
    let second = common("40007001").replace("0 start", "1 start").replace("\n0 ", "\n1 ");
    assert_broken(&[&memory(&[]), &common("40000001"), &second, "0 isb"], &[Rule::CommonNotPrivate]);
    let second = second.replace("40007001", "40000001");
    assert_clean(&[&memory(&[]), &common("40000001"), &second, "0 isb"]);
    assert_clean(&[&memory(&[]), &common("40000001"), &second.replace("40000001", "40007000"), "0 isb"]);
}

#[test]
fn bad_barriers_around_hcr() {
    let machine = format!("feature all hcr-barriers\n{}", machine(1, &[]));
    let write = "0 dsb sy; 0 msr hcr_el2 80000000; 0 isb; 0 settled; end exit";
    assert_clean(&[&machine, write]);
    for (from, to) in [("0 dsb sy;", ""), ("dsb sy", "dsb st"), ("0 dsb sy;", "0 dsb sy; 0 mrs hcr_el2;")] {
        assert_broken(&[&machine, &write.replacen(from, to, 1)], &[Rule::HcrBarriers]);
    }
    assert_broken(&[&machine, &write.replace("0 isb;", "0 mrs hcr_el2; 0 isb;")], &[Rule::HcrBarriers]);
    assert_clean(&[&machine, &write.replace("0 isb;", "0 take 60000000 4096; 0 isb;")]);
}

#[test]
fn good_common_with_the_same_tables() {
    let common = |pe: u32| on(pe).replace("ttbr0_el2 40000000", "ttbr0_el2 40000001");
    assert_clean(&[&memory(&[(1, RW)]), &common(0), &common(1), "0 isb; 1 isb; end exit"]);
    // Who says nothing shares nothing.
    let other = on(1).replace("ttbr0_el2 40000000", "ttbr0_el2 40007000");
    assert_clean(&[&memory(&[(1, RW)]), &common(0), &other, "0 isb; 1 isb"]);
}

#[test]
fn good_host_and_indirection_left_alone_and_hcr_between_its_barriers() {
    let part = format!("feature all hcr-barriers\n{}", enable());
    assert_clean(&[&part]);
    // E2H is tried before the invalidation; TCR2_EL2 is written with zero.
    assert_clean(&[&with(
        "0 msr hcr_el2 80000000; 0 isb",
        "0 msr hcr_el2 480000000; 0 isb; 0 msr hcr_el2 80000000; 0 isb",
    )]);
    assert_clean(&[&with("0 msr mair_el2", "0 msr tcr2_el2 0; 0 msr mair_el2")]);
    // With the MMU on, the same value again.
    let again = "0 dsb sy; 0 msr hcr_el2 0; 0 isb; 0 msr tcr2_el2 0; 0 isb; 0 settled; end exit";
    assert_clean(&["feature all hcr-barriers", &machine(1, &[(1, RW)]), again]);
}
