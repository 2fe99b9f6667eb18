//! What a CPU can do and gets wrong, in the oracle's words, from the ID registers that the recorder finds.
//!
//! Nothing is taken from the image under watch or from the name of a CPU model: the fields are those of the Arm ARM (DDI 0487), the errata
//! those of the implementers' notices. A register that QEMU does not show leaves the CPU in its weakest form, without the erratum.

use std::collections::HashMap;

use breakwater_trace::Feature;

/// Arm Limited, in MIDR_EL1.Implementer.
const ARM: u64 = 0x41;
const QUALCOMM: u64 = 0x51;
const AMPERE: u64 = 0xc0;

/// Part numbers of Arm's cores whose broadcast TLBIs are repeated in every revision: CVE-2025-10263 (A76, A76AE, A77, A78, A78AE, A78C, A710, X1,
/// X1C, X2, X3, X4, X925, N1, N2, V1, V2, V3, V3AE, C1-Ultra, C1-Premium) and 2441007 (A55).
const REPEATED: [u64; 22] = [
    0xd0b, 0xd0e, 0xd0d, 0xd41, 0xd42, 0xd4b, 0xd47, 0xd44, 0xd4c, 0xd48, 0xd4e, 0xd82, 0xd85, 0xd0c, 0xd49, 0xd40,
    0xd4f, 0xd84, 0xd83, 0xd8c, 0xd90, 0xd05,
];
const A53: u64 = 0xd03;
const A510: u64 = 0xd46;
const A715: u64 = 0xd4d;
const C1_ULTRA: u64 = 0xd8c;
const C1_PREMIUM: u64 = 0xd90;
const FALKOR: u64 = 0xc00;
const KRYO: u64 = 0x200;
const AMPERE_ONE: u64 = 0xac4;

/// Bits of a physical address by ID_AA64MMFR0_EL1.PARange.
const PHYSICAL_BITS: [u8; 8] = [32, 36, 40, 42, 44, 48, 52, 56];

/// The registers that were found before a CPU's first instruction, by name.
pub(super) type Found = HashMap<String, u64>;

/// Features and errata that they declare.
pub(super) fn features(found: &Found) -> Vec<Feature> {
    let field = |register: &str, low: u32| found.get(register).map_or(0, |value| value >> low & 0xf);
    let mut features = Vec::new();
    let mut add = |there: bool, feature: Feature| {
        if there {
            features.push(feature);
        }
    };
    let (mmfr0, mmfr1, mmfr2) = ("id_aa64mmfr0_el1", "id_aa64mmfr1_el1", "id_aa64mmfr2_el1");
    if found.contains_key(mmfr0) {
        let bits = PHYSICAL_BITS.get(field(mmfr0, 0) as usize).copied().unwrap_or(48);
        add(true, Feature::PhysicalBits(bits.min(52)));
        add(field(mmfr0, 28) == 1 || field(mmfr0, 20) == 2, Feature::Lpa2);
    }
    add(field(mmfr1, 0) >= 1, Feature::Hafdbs);
    add(field(mmfr1, 36) >= 2, Feature::Ets2);
    add(field(mmfr1, 48) >= 1, Feature::NTlbPa);
    add(field(mmfr2, 48) >= 1, Feature::Ttl);
    add(found.contains_key(mmfr2) && field(mmfr2, 0) == 0, Feature::NoCnp);
    let bbm = field(mmfr2, 52) as u8;
    add((1..=2).contains(&bbm), Feature::Bbm(bbm));
    add(field("id_aa64isar0_el1", 56) >= 2, Feature::TlbiRange);
    if found.contains_key("ctr_el0") {
        add(true, Feature::LineBytes((4 << field("ctr_el0", 16)).clamp(16, 2048)));
    }
    // QEMU does not show MIDR_EL1; VPIDR_EL2 resets to its value.
    let midr = found.get("midr_el1").or_else(|| found.get("vpidr_el2"));
    features.extend(midr.into_iter().flat_map(|midr| errata(*midr)));
    features
}

/// The errata of the part that `midr` names, as far as they change what is owed.
fn errata(midr: u64) -> Vec<Feature> {
    let (implementer, variant, part, revision) = (midr >> 24 & 0xff, midr >> 20 & 0xf, midr >> 4 & 0xfff, midr & 0xf);
    let version = (variant, revision);
    let of = |implementer_of: u64, parts: &[u64]| implementer == implementer_of && parts.contains(&part);
    let kryo = implementer == QUALCOMM && part & 0xf00 == KRYO;
    let repeated = of(ARM, &REPEATED) || of(ARM, &[A510]) && version <= (1, 1) || of(QUALCOMM, &[FALKOR]) || kryo;
    let listed = [
        (repeated, Feature::RepeatTlbi),
        (of(ARM, &[A53]) && version <= (0, 2), Feature::CleanInvalidates),
        (of(ARM, &[A715]), Feature::BbmForXn),
        (of(ARM, &[C1_ULTRA, C1_PREMIUM]) && version < (1, 1), Feature::BbmAlways),
        (of(QUALCOMM, &[FALKOR]), Feature::IsbBeforeMmuOff),
        (of(AMPERE, &[AMPERE_ONE]), Feature::HcrBarriers),
    ];
    listed.into_iter().filter(|(there, _)| *there).map(|(_, feature)| feature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(registers: &[(&str, u64)]) -> Vec<Feature> {
        features(&registers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn good_fields_are_read_where_the_architecture_has_them() {
        let found = of(&[
            ("id_aa64mmfr0_el1", 0x1000_0006),
            ("id_aa64mmfr1_el1", 0x1_0020_0000_0002),
            ("id_aa64mmfr2_el1", 0x21_0000_0000_0000),
            ("id_aa64isar0_el1", 0x0200_0000_0000_0000),
            ("ctr_el0", 0x8444_c004),
        ]);
        let expected = [
            Feature::PhysicalBits(52),
            Feature::Lpa2,
            Feature::Hafdbs,
            Feature::NTlbPa,
            Feature::Ttl,
            Feature::Bbm(2),
            Feature::TlbiRange,
            Feature::LineBytes(64),
        ];
        assert!(expected.iter().all(|feature| found.contains(feature)), "{found:?}");
        assert!(found.contains(&Feature::Ets2), "{found:?}");
    }

    #[test]
    fn good_what_is_not_shown_is_not_there() {
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn good_errata_go_by_part_and_revision() {
        let of = |midr| errata(midr);
        assert_eq!(of(0x411f_d070), [], "cortex-a57");
        assert_eq!(of(0x414f_d0b1), [Feature::RepeatTlbi], "cortex-a76 r4p1");
        assert_eq!(of(0x410f_d034), [], "cortex-a53 r0p4");
        assert_eq!(of(0x410f_d032), [Feature::CleanInvalidates], "cortex-a53 r0p2");
        assert_eq!(of(0x510f_c000), [Feature::RepeatTlbi, Feature::IsbBeforeMmuOff], "Falkor");
        assert_eq!(of(0xc00f_ac40), [Feature::HcrBarriers], "AmpereOne");
    }
}
