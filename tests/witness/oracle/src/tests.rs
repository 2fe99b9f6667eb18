//! The decoders against the architecture's tables.

use breakwater_trace::{Access, Operation, Register};

use crate::descriptor::{Descriptor, Format, Granule};
use crate::maintenance::{Invalidation, Reach, TlbiTarget, ZeroedBlock, stored_words};
use crate::params::Features;
use crate::regime::{Controls, MemoryType};

/// 4 KiB, 48-bit input and output.
const TCR_4K: u64 = 0x8085_3510;

fn format(tcr: u64, features: &Features) -> Format {
    Controls { tcr, ..Controls::default() }.format(features).expect("a regime that walks can follow")
}

#[test]
fn good_formats_of_every_granule() {
    let weakest = Features::default();
    let of = |tcr: u64| {
        let format = format(tcr, &weakest);
        (format.granule, format.start_level, format.entries(format.start_level), format.output_bits)
    };
    assert_eq!(of(TCR_4K), (Granule::K4, 0, 512, 48));
    assert_eq!(of(0x8085_3519), (Granule::K4, 1, 512, 48), "39 bits");
    assert_eq!(of(0x8085_b510), (Granule::K16, 0, 2, 48));
    assert_eq!(of(0x8085_7510), (Granule::K64, 1, 64, 48));
    let large = Features { lpa2: true, physical_bits: 52, ..weakest };
    let lpa2 = format(1 << 32 | 0x8086_350c, &large);
    assert_eq!((lpa2.start_level, lpa2.entries(-1), lpa2.output_bits, lpa2.ds), (-1, 16, 52, true));
}

#[test]
fn good_descriptors_of_wide_addresses() {
    let large = Features { lpa2: true, physical_bits: 52, ..Features::default() };
    let output = |format: &Format, word, level| match format.decode(word, level) {
        Descriptor::Leaf(leaf) => leaf.output,
        other => panic!("{other:?}"),
    };
    let lpa2 = format(1 << 32 | 0x8086_350c, &large);
    assert_eq!(output(&lpa2, 0x0003_8000_1234_5703, 3), 0x000f_8000_1234_5000);
    let k64 = format(0x8086_750c, &large);
    assert_eq!(output(&k64, 0x8000_1234_f703, 3), 0x000f_8000_1234_0000);
    assert!(lpa2.has_blocks(0) && k64.has_blocks(1) && !format(TCR_4K, &large).has_blocks(0));
}

#[test]
fn good_the_size_of_the_pe_decides_how_64_kib_descriptors_are_read() {
    let large = Features { physical_bits: 52, ..Features::default() };
    // TCR_EL2.PS says 48 bits: a PE with 52 has blocks at level 1 all the same, and bits 15:12 are address bits, beyond what PS allows.
    let (of_large, of_small) = (format(0x8085_7510, &large), format(0x8085_7510, &Features::default()));
    assert_eq!((of_large.output_bits, of_small.output_bits), (48, 48));
    assert!(of_large.has_blocks(1) && !of_small.has_blocks(1));
    let block = 0x0400_0000_0701;
    assert!(matches!(of_large.decode(block, 1), Descriptor::Leaf(leaf) if leaf.output == 0x0400_0000_0000));
    assert_eq!(of_small.decode(block, 1), Descriptor::Invalid);
    for (word, level) in [(0x4000_1703, 3), (0x4000_1003, 2)] {
        assert_eq!(of_large.decode(word, level), Descriptor::Invalid, "an address size fault");
        assert_ne!(of_small.decode(word, level), Descriptor::Invalid, "bit 12 is RES0");
        assert_ne!(format(0x8086_750c, &large).decode(word, level), Descriptor::Invalid);
    }
    // The address of the root has its bits 51:48 in 5:2 only where PS says 52.
    let root = |tcr| Controls { tcr, ttbr0: 0x4000_0004, ..Controls::default() }.root(&format(tcr, &large));
    assert_eq!((root(0x8085_7510), root(0x8086_7510)), (0x4000_0000, 0x0001_0000_4000_0000));
}

#[test]
fn good_a_ttl_names_the_levels_that_the_granule_has() {
    let level = |name, tcr: u64, features: &Features, operand: u64| {
        let features = Features { ttl: true, tlbi_range: true, ..*features };
        let operation = Operation::from_text(name).expect(name);
        match Invalidation::decode(operation, operand, &format(tcr, &features), &features).expect(name).target {
            TlbiTarget::Page { level, .. } | TlbiTarget::Range { level, .. } => level,
            other => panic!("{other:?}"),
        }
    };
    let (weakest, lpa2) = (Features::default(), Features { lpa2: true, ..Features::default() });
    for (tcr, granule, features, expected) in [
        (0x8085_3510, 1, &weakest, [None, Some(1), Some(2), Some(3)]),
        (0x8085_3510, 1, &lpa2, [Some(0), Some(1), Some(2), Some(3)]),
        (0x8085_b510, 2, &weakest, [None, None, Some(2), Some(3)]),
        (0x8085_b510, 2, &lpa2, [None, Some(1), Some(2), Some(3)]),
        // Level 1 of 64 KiB has tables always, and blocks with 52 bits of physical address alone: the hint names it.
        (0x8085_7510, 3, &weakest, [None, Some(1), Some(2), Some(3)]),
    ] {
        for (at, named) in (0..).zip(expected) {
            assert_eq!(level("vae2is", tcr, features, (granule << 2 | at) << 44), named, "{tcr:x} {at}");
        }
        // By range 0 is no hint with any granule.
        for (ttl, named) in (1..).zip(&expected[1..]) {
            assert_eq!(level("rvae2is", tcr, features, granule << 46 | ttl << 37), *named, "{tcr:x} range {ttl}");
        }
    }
}

#[test]
fn good_an_address_beyond_the_size_is_a_fault() {
    let small = Features { physical_bits: 40, ..Features::default() };
    assert_eq!(format(TCR_4K, &small).decode(0x0100_0000_0703, 3), Descriptor::Invalid);
    assert!(matches!(format(TCR_4K, &Features::default()).decode(0x0100_0000_0703, 3), Descriptor::Leaf(_)));
}

#[test]
fn good_operands_are_applied_as_they_are() {
    let (weakest, full) = (Features::default(), Features { ttl: true, tlbi_range: true, ..Features::default() });
    let format = format(TCR_4K, &full);
    let target = |name, operand, features: &Features| {
        let operation = Operation::from_text(name).expect(name);
        Invalidation::decode(operation, operand, &format, features).expect(name).target
    };
    assert_eq!(target("vae2is", 0x402, &weakest), TlbiTarget::Page { va: 0x40_2000, level: None });
    assert_eq!(target("vale2is", 0x7 << 44 | 0x402, &full), TlbiTarget::Page { va: 0x40_2000, level: Some(3) });
    assert!(matches!(target("vale2is", 0x7 << 44 | 0x402, &weakest), TlbiTarget::Nothing(_)));
    assert!(matches!(target("vale2is", 0xb << 44 | 0x402, &full), TlbiTarget::Nothing(_)), "16 KiB");
    assert!(matches!(target("vae2", 1 << 48, &full), TlbiTarget::Nothing(_)));
    let range = target("rvae2is", 1 << 46 | 3 << 39 | 0x400, &full);
    assert_eq!(range, TlbiTarget::Range { first: 0x40_0000, last: 0x40_7fff, level: None });
    assert!(
        matches!(target("rvale2is", 1 << 46 | 2 << 37 | 0x401, &full), TlbiTarget::Nothing(_)),
        "misaligned for level 2"
    );
    assert!(matches!(target("rvale2is", 1 << 46 | 0x400, &weakest), TlbiTarget::Nothing(_)));
    assert_eq!(target("alle2is", 0, &weakest), TlbiTarget::All);
    let alle1 = Operation::from_text("vmalle1is").expect("a name");
    assert_eq!(Invalidation::decode(alle1, 0, &format, &full), None);
}

#[test]
fn good_barriers_reach_what_they_say() {
    use breakwater_trace::Barrier;
    let of = |crm, without_xs| crate::maintenance::Ordering::of(Barrier { crm, without_xs });
    assert_eq!((of(11, false).reach, of(11, false).is_full()), (Reach::Inner, true));
    assert_eq!((of(10, false).reach, of(10, false).loads, of(10, false).stores), (Reach::Inner, false, true));
    assert_eq!((of(7, false).reach, of(9, false).stores), (Reach::Own, false));
    assert_eq!((of(12, false).reach, of(12, false).is_full()), (Reach::System, true));
    assert_eq!((of(10, true).reach, of(10, true).is_full()), (Reach::Inner, true));
}

#[test]
fn good_memory_types() {
    assert_eq!(MemoryType::of(0x44_04ff, 0), MemoryType::Normal { outer: 15, inner: 15 });
    assert_eq!(MemoryType::of(0x44_04ff, 1), MemoryType::Device(1));
    assert_eq!(MemoryType::of(0x44_04ff, 2), MemoryType::Normal { outer: 4, inner: 4 });
}

#[test]
fn good_reserved_types_and_root_bits() {
    let reserved = |byte: u64| MemoryType::is_reserved(byte << 8, 1);
    for byte in [0x00, 0x04, 0x08, 0x0c, 0x44, 0xff, 0xbb, 0x4f, 0xf4, 0x11, 0x01, 0x40, 0xa0, 0xf0] {
        assert!(!reserved(byte), "{byte:x}");
    }
    for byte in [0x02, 0x03, 0x06, 0x0e, 0x0f, 0x10, 0x30, 0x50, 0x80, 0xb0, 0xe0] {
        assert!(reserved(byte), "{byte:x}");
    }
    let large = Features { physical_bits: 52, ..Features::default() };
    let of = |tcr, features: &Features, ttbr0| {
        let controls = Controls { tcr, ttbr0, ..Controls::default() };
        let format = format(tcr, features);
        (controls.root(&format), controls.reserved_root_bits(&format))
    };
    let weakest = Features::default();
    assert_eq!(of(TCR_4K, &weakest, 0x4000_1001), (0x4000_1000, 0), "CnP");
    assert_eq!(of(TCR_4K, &weakest, 0x0001_0000_4000_1ffe), (0x4000_1000, 0x0001_0000_0000_0ffe));
    // Two descriptors in the root: it is aligned to 16 bytes.
    assert_eq!(of(0x8085_b510, &weakest, 0x4000_1018), (0x4000_1010, 8));
    assert_eq!(of(0x8086_7510, &large, 0x4000_103e), (0x000f_0000_4000_1000 & !0x1ff, 2));
}

#[test]
fn good_stores_of_every_size_become_words() {
    let words = |bytes, pa, value| {
        stored_words(&Access { bytes, va: pa, pa, value, device: false, release: false }).collect::<Vec<_>>()
    };
    assert_eq!(words(8, 0x1000, [7, 0]), [(0x1000, u64::MAX, 7)]);
    assert_eq!(words(4, 0x1004, [0xaabb_ccdd, 0]), [(0x1000, 0xffff_ffff << 32, 0xaabb_ccdd << 32)]);
    assert_eq!(words(16, 0x1000, [1, 2]), [(0x1000, u64::MAX, 1), (0x1008, u64::MAX, 2)]);
    assert_eq!(words(2, 0x1007, [0xbbaa, 0]), [(0x1000, 0xff << 56, 0xaa << 56), (0x1008, 0xff, 0xbb)]);
    assert_eq!(words(8, 0x1004, [0x1122_3344_5566_7788, 0]).len(), 2);
}

/// What DC ZVA zeroes on a PE whose DCZID_EL0 was found to hold `dczid`, if it was.
fn block(dczid: Option<u64>) -> ZeroedBlock {
    let mut block = ZeroedBlock::default();
    let register = |name| Register::from_text(name).expect("a register with a name");
    block.find(register("ctr_el0"), 0x8444_c00f);
    dczid.into_iter().for_each(|value| block.find(register("dczid_el0"), value));
    block
}

#[test]
fn good_the_block_of_dc_zva_is_what_the_register_says() {
    for (dczid, bytes) in [(1, 8), (4, 64), (6, 256), (7, 512), (9, 2048), (0x26, 256)] {
        let block = block(Some(dczid));
        assert_eq!((block.bytes(), block.doubt()), (bytes, None), "DCZID_EL0 {dczid:x}");
        assert_eq!(block.start(0x12_3456_7fff), 0x12_3456_8000 - bytes);
    }
    let words: Vec<u64> = block(Some(6)).words(0x4000_3000).map(|(pa, ..)| pa).collect();
    assert_eq!((words.len(), words[0], words[31]), (32, 0x4000_3000, 0x4000_30f8));
}

#[test]
fn bad_a_block_that_nobody_knows_is_in_doubt() {
    assert!(block(None).doubt().is_some_and(|doubt| doubt.contains("nothing says what DCZID_EL0 holds")));
    for (dczid, why) in [(0x14, "DZP is 1"), (0, "BS is 0"), (0xa, "BS is reserved"), (0xf, "BS is reserved")] {
        assert!(block(Some(dczid)).doubt().is_some_and(|doubt| doubt.contains(why)), "DCZID_EL0 {dczid:x}");
    }
}
