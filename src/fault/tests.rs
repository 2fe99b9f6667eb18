//! Claims about the words for ESR_EL2.

use super::*;
use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};

fn line(esr: u64) -> String {
    Syndrome(esr).to_string()
}

/// A data abort from EL2 with this ISS, IL set.
fn data(iss: u64) -> String {
    line(0x25 << 26 | 1 << 25 | iss)
}

#[test]
fn good_data_aborts() {
    assert_eq!(line(0x9600_004f), "data abort, write, permission fault at level 3 (ESR 0x9600004f)");
    assert_eq!(line(0x9600_0007), "data abort, read, translation fault at level 3 (ESR 0x96000007)");
    assert_eq!(line(0x9600_0004), "data abort, read, translation fault at level 0 (ESR 0x96000004)");
    assert_eq!(line(0x9600_0021), "data abort, read, alignment fault (ESR 0x96000021)");
    assert_eq!(line(0x9600_0070), "data abort, write, TLB conflict (ESR 0x96000070)");
    assert_eq!(line(0x9600_0147), "data abort, cache maintenance, translation fault at level 3 (ESR 0x96000147)");
    assert_eq!(line(0x9200_0006), "data abort from a lower EL, read, translation fault at level 2 (ESR 0x92000006)");
    assert!(data(0x87).contains("translation fault at level 3, on the walk of stage 1"));
}

#[test]
fn good_instruction_aborts_have_no_direction() {
    assert_eq!(line(0x8600_000f), "instruction abort, permission fault at level 3 (ESR 0x8600000f)");
    assert_eq!(line(0x8200_0005), "instruction abort from a lower EL, translation fault at level 1 (ESR 0x82000005)");
}

#[test]
fn good_external_aborts_say_when_the_address_is_unknown() {
    assert_eq!(line(0x9600_0010), "data abort, read, synchronous external abort (ESR 0x96000010)");
    assert_eq!(line(0x9600_0410), "data abort, read, synchronous external abort, FAR not valid (ESR 0x96000410)");
    assert!(Syndrome(0x9600_0010).has_address());
    assert!(!Syndrome(0x9600_0410).has_address());
    assert!(Syndrome(0x9600_0417).has_address(), "bit 10 means nothing on a walk");
    assert_eq!(
        line(0x9600_0016),
        "data abort, read, synchronous external abort on the walk at level 2 (ESR 0x96000016)"
    );
}

#[test]
fn good_other_classes() {
    assert_eq!(line(0x0200_0000), "unknown reason (an undefined instruction?) (ESR 0x2000000)");
    assert_eq!(line(0xf200_0001), "BRK 0x1 (ESR 0xf2000001)");
    assert_eq!(line(0x5a00_0000), "HVC 0x0 (ESR 0x5a000000)");
    assert_eq!(line(0x5e00_1234), "SMC 0x1234 (ESR 0x5e001234)");
    assert_eq!(line(0x3600_0000), "branch target exception (BTI) (ESR 0x36000000)");
    assert_eq!(line(0x3a00_0000), "illegal execution state (ESR 0x3a000000)");
    assert_eq!(line(0x8a00_0000), "PC alignment fault (ESR 0x8a000000)");
    assert_eq!(line(0x9a00_0000), "SP alignment fault (ESR 0x9a000000)");
    assert_eq!(line(0x7200_0000), "pointer authentication failure (ESR 0x72000000)");
    assert_eq!(line(0x0600_0000), "trapped WFI or WFE (ESR 0x6000000)");
    for (esr, has) in [(0x8a00_0000, true), (0xd600_0000, true), (0x9a00_0000, false), (0xf200_0000, false)] {
        assert_eq!(Syndrome(esr).has_address(), has, "{esr:#x}");
    }
}

#[test]
fn good_trapped_register_by_its_encoding() {
    // MRS x0, CPACR_EL1 = S3_0_C1_C0_2: op0 3, op2 2, op1 0, CRn 1, CRm 0, read.
    let esr = 0x18 << 26 | 1 << 25 | 3 << 20 | 2 << 17 | 1 << 10 | 1;
    assert_eq!(line(esr), format!("trapped MSR, MRS or system instruction, read of S3_0_C1_C0_2 (ESR {esr:#x})"));
    let esr = 0x18 << 26 | 1 << 25 | 3 << 20 | 3 << 17 | 4 << 14 | 2 << 10 | 5 << 1;
    assert_eq!(line(esr), format!("trapped MSR, MRS or system instruction, write of S3_4_C2_C5_3 (ESR {esr:#x})"));
}

#[test]
fn good_serror_severities() {
    assert_eq!(line(0xbf00_0002), "SError, implementation-defined syndrome (ESR 0xbf000002)");
    assert_eq!(line(0xbe00_0000), "SError, uncategorised (ESR 0xbe000000)");
    assert_eq!(line(0xbe00_0011), "SError, uncontainable (ESR 0xbe000011)");
    assert_eq!(line(0xbe00_0411), "SError, unrecoverable (ESR 0xbe000411)");
    assert_eq!(line(0xbe00_1811), "SError, corrected (ESR 0xbe001811)");
}

#[test]
fn good_every_fault_status_has_words_of_its_own() {
    let words: BTreeSet<String> = (0..64).map(|code| Fault::decode(code).to_string()).collect();
    assert_eq!(words.len(), 64);
    assert_eq!(Fault::decode(0x2b), Fault { kind: FaultKind::Translation, level: Some(-1) });
    assert_eq!(Fault::decode(0x3f).to_string(), "reserved fault status 0x3f");
    assert_eq!(Fault::decode(0xffff_ffc0).kind, FaultKind::AddressSize, "only bits 5:0 count");
}

#[test]
fn good_every_class_has_a_line_with_the_number() {
    let lines: BTreeSet<String> = (0..64u64).map(|class| line(class << 26)).collect();
    assert_eq!(lines.len(), 64);
    assert_eq!(line(0x3f << 26), "reserved exception class 0x3f (ESR 0xfc000000)");
    // ISS2 (bits 55:32) is shown in the number.
    assert!(line(0x12_0000_0000 | 0x9600_0007).ends_with("(ESR 0x1296000007)"));
}
