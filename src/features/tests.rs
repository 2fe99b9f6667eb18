//! Claims about the decoder of ID registers.

use super::*;
use std::string::ToString;

/// A CPU with the 4 KiB granule and 48 bits, FEAT_E2H0, and nothing else.
const PLAIN: IdRegisters = IdRegisters {
    midr: 0x411f_d070,
    mmfr0: 5,
    mmfr1: 0,
    mmfr2: 0,
    mmfr3: 0,
    mmfr4: 0,
    isar0: 0,
    pfr0: 0,
    pfr1: 0,
    dfr0: 0,
    ctr: 0,
};

fn decode(id: IdRegisters) -> CpuFeatures {
    CpuFeatures::decode(&id).expect("a CPU that can run the image")
}

#[test]
fn good_cortex_a57() {
    // ID_AA64MMFR0_EL1, CTR_EL0 and ID_AA64DFR0_EL1 of a Cortex-A57 r1p0: 44 bits, 64-byte lines, PMUv3.
    let cpu = decode(IdRegisters { mmfr0: 0x1124, ctr: 0x8444_c004, dfr0: 0x1030_5106, ..PLAIN });
    assert_eq!((cpu.output_bits, cpu.physical_bits, cpu.bbm_level), (44, 44, 0));
    assert_eq!((cpu.data_line_bytes, cpu.instruction_line_bytes), (64, 64));
    assert_eq!(cpu.features, Features::E2H0 | Features::PMU);
    assert_eq!(cpu.errata, Errata::empty());
}

#[test]
fn good_granules() {
    for (tgran4, lpa2) in [(0, false), (1, true), (2, true), (7, true)] {
        let cpu = decode(IdRegisters { mmfr0: tgran4 << 28 | 5, ..PLAIN });
        assert_eq!(cpu.features.contains(Features::LPA2), lpa2, "TGran4 {tgran4}");
    }
}

#[test]
fn bad_unsupported_granule_is_refused_by_name() {
    for tgran4 in 8..=15 {
        let refused = CpuFeatures::decode(&IdRegisters { mmfr0: tgran4 << 28 | 5, ..PLAIN });
        assert_eq!(refused, Err(Unsupported::Granule4K { field: tgran4 as u8 }));
    }
    assert_eq!(
        Unsupported::Granule4K { field: 15 }.to_string(),
        "this CPU has no 4 KiB translation granule at stage 1 (ID_AA64MMFR0_EL1.TGran4 is 0xf)"
    );
}

#[test]
fn good_dc_zva_by_the_block_that_the_cpu_says() {
    // Cortex-A57 64 bytes, A64FX 256, the largest 2 KiB; what is RES0 may mean something one day.
    for (dczid, bytes) in [(0, 4), (4, 64), (6, 256), (7, 512), (9, 2048), (0xff00_0000_0000_0024, 64)] {
        assert_eq!(zeroed_block_bytes(dczid), Some(bytes), "DCZID_EL0 {dczid:#x}");
    }
}

#[test]
fn bad_dc_zva_where_it_is_prohibited_or_larger_than_any_is() {
    for dczid in [0x10, 0x14, 0x16, 0x19, 0xa, 0xf] {
        assert_eq!(zeroed_block_bytes(dczid), None, "DCZID_EL0 {dczid:#x}");
    }
}

#[test]
fn good_physical_sizes_are_capped_at_48_bits() {
    for (range, bits) in [32, 36, 40, 42, 44, 48, 52, 56].into_iter().enumerate() {
        let cpu = decode(IdRegisters { mmfr0: range as u64, ..PLAIN });
        assert_eq!((cpu.physical_bits, cpu.output_bits), (bits, bits.min(48)), "PARange {range}");
    }
}

#[test]
fn bad_unknown_physical_size_is_refused_by_name() {
    for range in 8..=15 {
        let refused = CpuFeatures::decode(&IdRegisters { mmfr0: range, ..PLAIN });
        assert_eq!(refused, Err(Unsupported::PaRange { field: range as u8 }));
    }
    assert_eq!(
        Unsupported::PaRange { field: 8 }.to_string(),
        "this CPU has an unknown physical address size (ID_AA64MMFR0_EL1.PARange is 0x8)"
    );
}

#[test]
fn good_e2h0_is_a_signed_field() {
    for (value, present) in [(0, true), (1, true), (0b1110, false), (0b1111, false)] {
        let cpu = decode(IdRegisters { mmfr4: value << 24, ..PLAIN });
        assert_eq!(cpu.features.contains(Features::E2H0), present, "E2H0 {value:#b}");
    }
}

/// Puts `value` into a register at a bit, and decodes the features beside those of [`PLAIN`].
fn with(register: fn(&mut IdRegisters) -> &mut u64, low: u32, value: u64) -> Features {
    let mut id = PLAIN;
    *register(&mut id) |= value << low;
    decode(id).features - Features::E2H0
}

#[test]
fn good_each_field_is_read_where_it_stands() {
    let isar0: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.isar0;
    let mmfr1: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.mmfr1;
    let mmfr2: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.mmfr2;
    let mmfr3: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.mmfr3;
    let pfr1: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.pfr1;
    let dfr0: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.dfr0;
    let ctr: fn(&mut IdRegisters) -> &mut u64 = |id| &mut id.ctr;
    let none = Features::empty();
    let claims = [
        (isar0, 56, 1, Features::TLBIOS),
        (isar0, 56, 2, Features::TLBIOS | Features::TLBIRANGE),
        (mmfr1, 0, 1, Features::HAF),
        (mmfr1, 0, 3, Features::HAF | Features::HAFDBS),
        (mmfr1, 8, 1, Features::VHE),
        (mmfr1, 12, 1, Features::HPDS),
        (mmfr1, 12, 2, Features::HPDS | Features::HPDS2),
        (mmfr1, 36, 1, none),
        (mmfr1, 36, 2, Features::ETS2),
        (mmfr1, 36, 3, Features::ETS2),
        (mmfr1, 48, 1, Features::NTLBPA),
        (mmfr2, 0, 1, Features::CNP),
        (mmfr2, 48, 1, Features::TTL),
        (mmfr3, 0, 1, Features::TCR2),
        (mmfr3, 8, 1, Features::S1PIE),
        (pfr1, 0, 1, Features::BTI),
        (pfr1, 8, 1, none),
        (pfr1, 8, 3, Features::MTE),
        (dfr0, 8, 1, Features::PMU),
        (dfr0, 8, 15, none),
        (ctr, 28, 1, Features::IDC),
        (ctr, 29, 1, Features::DIC),
    ];
    for (register, low, value, expected) in claims {
        assert_eq!(with(register, low, value), expected, "bit {low} value {value}");
    }
}

#[test]
fn good_bbm_level() {
    for (value, level) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
        assert_eq!(decode(IdRegisters { mmfr2: value << 52, ..PLAIN }).bbm_level, level);
    }
}

#[test]
fn good_resize_at_level_3_or_at_level_2_on_a_listed_part() {
    let has = |midr, level: u64| {
        decode(IdRegisters { midr, mmfr2: level << 52, ..PLAIN }).features.contains(Features::RESIZE)
    };
    let (listed, revision_before, other) = (0x410f_d823, 0x410f_d822, PLAIN.midr);
    assert_eq!([0, 1, 2, 3].map(|level| has(listed, level)), [false, false, true, true]);
    for midr in [revision_before, other] {
        assert_eq!([0, 1, 2, 3].map(|level| has(midr, level)), [false, false, false, true], "{midr:#x} (RMRRPW)");
    }
    let cpu = |midr| decode(IdRegisters { midr, mmfr2: 2 << 52, ..PLAIN });
    assert!(!cpu(listed).common(cpu(other)).features.contains(Features::RESIZE), "one CPU that may abort is enough");
}

#[test]
fn good_common_is_what_both_can_do() {
    let one = decode(IdRegisters { mmfr0: 4, mmfr2: 2 << 52 | 1, ctr: 4 << 16 | 4, isar0: 2 << 56, ..PLAIN });
    let two = decode(IdRegisters { midr: 0x412f_d050, mmfr2: 1 << 52 | 1, ctr: 3 << 16 | 5, ..PLAIN });
    let both = one.common(two);
    assert_eq!(both.midr, one.midr);
    assert_eq!(both.features, Features::E2H0 | Features::CNP);
    assert_eq!((both.bbm_level, both.output_bits, both.physical_bits), (1, 44, 44));
    assert_eq!((both.data_line_bytes, both.instruction_line_bytes), (32, 64));
    assert_eq!(both.errata, Errata::REPEAT_TLBI, "one affected core obliges all");
    assert_eq!(CpuFeatures { midr: one.midr, ..two.common(one) }, both);
}

#[test]
fn good_a_larger_cpu_may_join() {
    let running = decode(IdRegisters { mmfr0: 4, ..PLAIN });
    let joining = decode(PLAIN);
    assert_eq!(joining.may_join(&running, RELIED_ON), Ok(()));
    let beyond = decode(IdRegisters { mmfr0: 6, ..PLAIN });
    assert_eq!(joining.may_join(&beyond, RELIED_ON), Ok(()), "52 bits are used as 48");
}

#[test]
fn bad_a_smaller_cpu_may_not_join() {
    let running = decode(PLAIN);
    let joining = decode(IdRegisters { mmfr0: 2, ..PLAIN });
    let refused = joining.may_join(&running, RELIED_ON).unwrap_err();
    assert_eq!(refused, Unsuited::OutputBits { has: 40, needed: 48 });
    assert_eq!(refused.to_string(), "this CPU has 40 bits of physical address, the tables use 48");
}

#[test]
fn bad_a_cpu_without_a_feature_relied_on_may_not_join() {
    let running = decode(IdRegisters { isar0: 2 << 56, ..PLAIN });
    let joining = decode(IdRegisters { mmfr4: 0xf << 24, ..PLAIN });
    let relied_on = RELIED_ON | Features::TLBIRANGE;
    let refused = joining.may_join(&running, relied_on).unwrap_err();
    assert_eq!(refused, Unsuited::Features { missing: Features::E2H0 | Features::TLBIRANGE });
    assert_eq!(refused.to_string(), "this CPU lacks what the others rely on: E2H0 TLBIRANGE");
    assert_eq!(decode(PLAIN).may_join(&running, RELIED_ON), Ok(()), "what nobody relies on may be missing");
}

#[test]
fn good_display_of_features() {
    assert_eq!(Features::empty().to_string(), "none");
    assert_eq!((Features::TTL | Features::CNP).to_string(), "TTL CNP");
}
