//! Claims about the table of errata: for each row a CPU inside it and its neighbours outside.

use super::*;
use std::string::ToString;
use std::vec::Vec;

/// MIDR_EL1 of a core, with Architecture (19:16) 15 as every CPU has it.
fn midr(implementer: u8, part: u16, variant: u64, revision: u64) -> u64 {
    u64::from(implementer) << 24 | variant << 20 | 0xf << 16 | u64::from(part) << 4 | revision
}

fn arm(part: u16, variant: u64, revision: u64) -> Errata {
    errata_of(midr(ARM, part, variant, revision))
}

fn names(midr: u64) -> Vec<&'static str> {
    rows_of(midr).map(|row| row.erratum).collect()
}

#[test]
fn good_rows_name_what_a_cpu_has() {
    assert_eq!(names(midr(ARM, 0xd0b, 3, 0)), ["1286807", "CVE-2025-10263 (XSA-493)"]);
    assert_eq!(names(midr(ARM, 0xd0b, 3, 1)), ["CVE-2025-10263 (XSA-493)"]);
    assert_eq!(names(midr(ARM, 0xd0c, 3, 0)), ["1286807", "CVE-2025-10263 (XSA-493)"]);
    assert_eq!(names(midr(ARM, 0xd0c, 4, 1)), ["CVE-2025-10263 (XSA-493)"]);
    assert!(names(midr(ARM, 0xd07, 1, 0)).is_empty(), "Cortex-A57");
    assert!(names(midr(ARM, 0xd08, 0, 3)).is_empty(), "Cortex-A72");
}

#[test]
fn good_1286807_under_qualcomms_numbering() {
    assert_eq!(errata_of(midr(QUALCOMM, 0x804, 0xc, 0xe)), Errata::REPEAT_TLBI);
    assert_eq!(errata_of(midr(QUALCOMM, 0x804, 0xf, 0xe)), Errata::REPEAT_TLBI);
    assert_eq!(errata_of(midr(QUALCOMM, 0x804, 0xc, 0xd)), Errata::empty());
    assert_eq!(errata_of(midr(QUALCOMM, 0x804, 0xf, 0xf)), Errata::empty());
}

#[test]
fn good_2441007_every_a55() {
    assert_eq!(arm(0xd05, 0, 0), Errata::REPEAT_TLBI);
    assert_eq!(arm(0xd05, 2, 0), Errata::REPEAT_TLBI);
    assert_eq!(arm(0xd04, 0, 0), Errata::empty(), "Cortex-A35");
}

#[test]
fn good_2441009_up_to_r1p1() {
    assert_eq!(arm(0xd46, 0, 0), Errata::REPEAT_TLBI);
    assert_eq!(arm(0xd46, 0, 3), Errata::REPEAT_TLBI);
    assert_eq!(arm(0xd46, 1, 1), Errata::REPEAT_TLBI);
    assert_eq!(arm(0xd46, 1, 2), Errata::empty());
}

#[test]
fn good_e1009_and_e1041_tell_falkor_from_kryo() {
    let both = Errata::REPEAT_TLBI | Errata::ISB_BEFORE_MMU_OFF;
    assert_eq!(errata_of(midr(QUALCOMM, 0x800, 0, 0)), both);
    assert_eq!(errata_of(midr(QUALCOMM, 0x800, 0, 1)), Errata::ISB_BEFORE_MMU_OFF);
    assert_eq!(errata_of(midr(QUALCOMM, 0xc00, 0, 0)), Errata::ISB_BEFORE_MMU_OFF);
    for part in [0x200, 0x205, 0x211, 0x2ff] {
        assert_eq!(errata_of(midr(QUALCOMM, part, 1, 2)), Errata::REPEAT_TLBI, "{part:#x}");
    }
    for part in [0x1ff, 0x300, 0x801, 0xbff, 0xc01] {
        assert_eq!(errata_of(midr(QUALCOMM, part, 0, 0)), Errata::empty(), "{part:#x}");
    }
}

#[test]
fn good_xsa_493_every_core_of_the_list() {
    let list = [
        0xd0b, 0xd0e, 0xd0d, 0xd41, 0xd42, 0xd4b, 0xd47, 0xd44, 0xd4c, 0xd48, 0xd4e, 0xd82, 0xd85, 0xd0c, 0xd49, 0xd40,
        0xd4f, 0xd84, 0xd83, 0xd8c, 0xd90,
    ];
    for part in list {
        for revision in [(0, 0), (0xf, 0xf)] {
            assert!(arm(part, revision.0, revision.1).contains(Errata::REPEAT_TLBI), "{part:#x}");
        }
        assert_eq!(errata_of(midr(QUALCOMM, part, 0, 0)) & Errata::REPEAT_TLBI, Errata::empty(), "{part:#x}");
    }
    assert_eq!(EARLY_COMPLETION.len(), list.len() + 2);
    assert_eq!(errata_of(midr(MICROSOFT, 0xd49, 0, 0)), Errata::REPEAT_TLBI);
    assert_eq!(errata_of(midr(NVIDIA, 0x010, 0, 0)), Errata::REPEAT_TLBI);
    // Their neighbours: A75, A715 (another erratum), A720, A725, N3, C1-Pro.
    for part in [0xd0a, 0xd4d, 0xd81, 0xd87, 0xd8e, 0xd8b] {
        assert!(!arm(part, 0, 0).contains(Errata::REPEAT_TLBI), "{part:#x}");
    }
}

#[test]
fn good_ac04_cpu_23() {
    assert_eq!(errata_of(midr(AMPERE, 0xac4, 0, 0)), Errata::DSB_BEFORE_HCR);
    assert_eq!(errata_of(midr(AMPERE, 0xac3, 0, 0)), Errata::empty());
}

#[test]
fn good_2645198() {
    assert_eq!(arm(0xd4d, 0, 0), Errata::BBM_FOR_XN);
    assert_eq!(arm(0xd4d, 1, 3), Errata::BBM_FOR_XN);
    assert_eq!(arm(0xd81, 0, 0), Errata::empty());
}

#[test]
fn good_3683289_before_r1p1() {
    for part in [0xd8c, 0xd90] {
        assert_eq!(arm(part, 1, 0), Errata::BBM_ALWAYS | Errata::REPEAT_TLBI);
        assert_eq!(arm(part, 1, 1), Errata::REPEAT_TLBI);
    }
}

#[test]
fn good_cortex_a53_cleans() {
    assert_eq!(names(midr(ARM, 0xd03, 0, 1)), ["819472", "824069, 826319, 827319"]);
    assert_eq!(names(midr(ARM, 0xd03, 0, 2)), ["824069, 826319, 827319"]);
    assert_eq!(arm(0xd03, 0, 2), Errata::CIVAC_FOR_CVAC);
    assert_eq!(arm(0xd03, 0, 3), Errata::empty());
    assert_eq!(arm(0xd03, 0, 4), Errata::empty());
}

#[test]
fn good_upper_half_of_midr_does_not_matter() {
    assert_eq!(errata_of(0xdead_beef << 32 | midr(ARM, 0xd05, 0, 0)), Errata::REPEAT_TLBI);
}

#[test]
fn good_display() {
    assert_eq!(Errata::empty().to_string(), "none");
    assert_eq!((Errata::REPEAT_TLBI | Errata::BBM_ALWAYS).to_string(), "repeat TLBI, break always");
    for duty in Errata::all().iter() {
        assert_ne!(duty.to_string(), "", "{duty:?} has a word");
    }
    assert_eq!(Revision::r(1, 12).to_string(), "r1p12");
}
