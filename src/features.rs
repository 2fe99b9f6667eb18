//! What a CPU can do, decoded from its ID registers: a pure function, so that every answer has a host test.
//!
//! Why it exists: sequences may only lean on what **every** PE that shares the tables has. One place turns the registers into a
//! [`CpuFeatures`], one intersects two of them ([`CpuFeatures::common`]), and one decides whether a late PE may join ([`CpuFeatures::may_join`]).
//!
//! What must hold: fields are read as the Arm ARM's "principles of the ID scheme" ask: unsigned ones by `>=`, so that a later
//! value keeps what an earlier one promised; signed ones (TGran4, E2H0) by the sign of their four bits.
//!
//! What it refuses: a CPU without the 4 KiB granule at stage 1, and a physical address size that no architecture names ([`Unsupported`]).

#![forbid(unsafe_code)]

use crate::addr::ADDRESS_BITS;
use crate::errata::{Cores, Errata, errata_of};
use bitflags::bitflags;
use core::fmt;

/// The ID registers that [`CpuFeatures::decode`] reads, as `mrs` gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdRegisters {
    /// MIDR_EL1.
    pub midr: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
    /// ID_AA64MMFR3_EL1.
    pub mmfr3: u64,
    /// ID_AA64MMFR4_EL1.
    pub mmfr4: u64,
    /// ID_AA64ISAR0_EL1.
    pub isar0: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64DFR0_EL1.
    pub dfr0: u64,
    /// CTR_EL0.
    pub ctr: u64,
}

bitflags! {
    /// Features that a sequence, a descriptor or the report may depend on.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u32 {
        /// FEAT_E2H0: HCR_EL2.E2H can be 0, which the EL2 regime of this image needs.
        const E2H0 = 1 << 0;
        /// FEAT_VHE: HCR_EL2.E2H can be 1.
        const VHE = 1 << 1;
        /// FEAT_TLBIOS: TLBI for the Outer Shareable domain.
        const TLBIOS = 1 << 2;
        /// FEAT_TLBIRANGE: TLBI by range of VA.
        const TLBIRANGE = 1 << 3;
        /// FEAT_TTL: the level hint of a TLBI is honoured (without it, those bits are RES0).
        const TTL = 1 << 4;
        /// FEAT_nTLBPA: no walk cache is indexed by the descriptor's physical address (RBKKRB).
        const NTLBPA = 1 << 5;
        /// FEAT_ETS2: a TLBI completes with its DSB on the issuing PE too (RBLDZX).
        const ETS2 = 1 << 6;
        /// FEAT_TTCNP: TTBR0_EL2.CnP exists. This image keeps it 0 (RQLGWZ).
        const CNP = 1 << 7;
        /// FEAT_HPDS: TCR_EL2.HPD can make walks ignore APTable and XNTable.
        const HPDS = 1 << 8;
        /// FEAT_HPDS2: bits 62:59 of a leaf may mean something to the implementation (PBHA).
        const HPDS2 = 1 << 9;
        /// FEAT_HAFDBS: hardware may set the access flag (TCR_EL2.HA; this image keeps it 0).
        const HAF = 1 << 10;
        /// FEAT_HAFDBS: hardware may also clear AP[2] of a leaf with DBM (TCR_EL2.HD; this image keeps it 0).
        const HAFDBS = 1 << 11;
        /// FEAT_LPA2 at stage 1 in the 4 KiB granule: 52-bit addresses with TCR_EL2.DS (this image keeps it 0).
        const LPA2 = 1 << 12;
        /// FEAT_TCR2: TCR2_EL2 exists and must be 0.
        const TCR2 = 1 << 13;
        /// FEAT_S1PIE: TCR2_EL2.PIE can redefine AP and XN.
        const S1PIE = 1 << 14;
        /// FEAT_BTI: bit 50 of a leaf is GP.
        const BTI = 1 << 15;
        /// FEAT_MTE2: Tagged is a memory type.
        const MTE = 1 << 16;
        /// FEAT_PMUv3: event counters exist.
        const PMU = 1 << 17;
        /// CTR_EL0.IDC: what is stored need not be cleaned for instruction fetches.
        const IDC = 1 << 18;
        /// CTR_EL0.DIC: instruction caches need not be invalidated for what is stored.
        const DIC = 1 << 19;
        /// Blocks and tables may replace each other, and the contiguous bit may change, without a break and without conflict aborts: FEAT_BBM
        /// level 3, or level 2 on a part that is known for it (RESIZING).
        const RESIZE = 1 << 20;
    }
}

/// Parts with FEAT_BBM level 2 that never raise a conflict abort for it. The architecture lets others abort (RMRRPW), so the level alone
/// is not enough.
pub static RESIZING: &[Cores] = &[
    Cores::since("Cortex-X4", 0x41, 0xd82, 0, 3),
    Cores::since("Neoverse-V3", 0x41, 0xd84, 0, 2),
    Cores::since("Neoverse-V3AE", 0x41, 0xd83, 0, 2),
    Cores::since("Olympus", 0x4e, 0x010, 0, 0),
    Cores::since("AmpereOne", 0xc0, 0xac3, 0, 0),
    Cores::since("AmpereOneA", 0xc0, 0xac4, 0, 0),
];

/// Features that the sequences of [`crate::bbm`] use where every CPU that shares the tables has them. A CPU that comes later must have those
/// that are in use.
pub const OPTIONAL: Features =
    Features::TLBIRANGE.union(Features::TTL).union(Features::RESIZE).union(Features::BTI).union(Features::MTE);

/// What every sequence of this image takes for granted; the rest it works without.
pub const RELIED_ON: Features = Features::E2H0;

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (name, _) in self.iter_names() {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        Ok(())
    }
}

/// What a CPU, or several together, can do. Holding one proves that each has the 4 KiB granule at stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuFeatures {
    /// MIDR_EL1; of several CPUs, that of the first.
    pub midr: u64,
    /// Features.
    pub features: Features,
    /// FEAT_BBM level, 0 to 3; 3 (no conflict aborts) is newer than DDI 0487 M.
    pub bbm_level: u8,
    /// Bits of an output address that tables may use: [`CpuFeatures::physical_bits`], at most 48 (no FEAT_LPA2 here).
    pub output_bits: u8,
    /// Bits of a physical address, as ID_AA64MMFR0_EL1.PARange says: 32 to 56.
    pub physical_bits: u8,
    /// Bytes in the smallest data-cache line.
    pub data_line_bytes: u16,
    /// Bytes in the smallest instruction-cache line.
    pub instruction_line_bytes: u16,
    /// Errata.
    pub errata: Errata,
}

/// Why a CPU cannot run this image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsupported {
    /// No 4 KiB granule at stage 1.
    Granule4K {
        /// ID_AA64MMFR0_EL1.TGran4.
        field: u8,
    },
    /// A physical address size that no architecture names.
    PaRange {
        /// ID_AA64MMFR0_EL1.PARange.
        field: u8,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granule4K { field } => {
                write!(
                    f,
                    "this CPU has no 4 KiB translation granule at stage 1 (ID_AA64MMFR0_EL1.TGran4 is {field:#x})"
                )
            }
            Self::PaRange { field } => {
                write!(f, "this CPU has an unknown physical address size (ID_AA64MMFR0_EL1.PARange is {field:#x})")
            }
        }
    }
}

/// Why a CPU may not share the tables of those that run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsuited {
    /// It cannot output all addresses of the tables.
    OutputBits {
        /// Bits that it has.
        has: u8,
        /// Bits that the tables use.
        needed: u8,
    },
    /// It lacks features that the others rely on.
    Features {
        /// Those.
        missing: Features,
    },
}

impl fmt::Display for Unsuited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputBits { has, needed } => {
                write!(f, "this CPU has {has} bits of physical address, the tables use {needed}")
            }
            Self::Features { missing } => write!(f, "this CPU lacks what the others rely on: {missing}"),
        }
    }
}

/// The bytes that one DC ZVA zeroes where DCZID_EL0 reads as `dczid`, or `None` where none may be used: DZP (bit 4)
/// prohibits it, or BS (bits 3:0, log2 of words) says more than the 2 KiB that the architecture knows. So a block always
/// divides a frame.
#[must_use]
pub const fn zeroed_block_bytes(dczid: u64) -> Option<usize> {
    const DZP: u64 = 1 << 4;
    match field(dczid, 0) {
        words @ 0..=9 if dczid & DZP == 0 => Some(4 << words),
        _ => None,
    }
}

/// Four bits of an ID register, from bit `low`.
const fn field(register: u64, low: u32) -> u8 {
    (register >> low & 0xf) as u8
}

/// Whether a signed field is negative, which means "not implemented".
const fn negative(field: u8) -> bool {
    field & 8 != 0
}

impl CpuFeatures {
    /// Decodes the registers of one CPU.
    ///
    /// # Errors
    /// See [`Unsupported`].
    pub fn decode(id: &IdRegisters) -> Result<Self, Unsupported> {
        // TGran4, bits 31:28, signed: 0 yes, 1 yes and with 52 bits, 15 no.
        let granule = field(id.mmfr0, 28);
        if negative(granule) {
            return Err(Unsupported::Granule4K { field: granule });
        }
        // PARange, bits 3:0.
        let range = field(id.mmfr0, 0);
        let physical_bits = physical_bits(range).ok_or(Unsupported::PaRange { field: range })?;
        Ok(Self {
            midr: id.midr,
            features: features(id),
            bbm_level: field(id.mmfr2, 52).min(3), // BBM, bits 55:52
            output_bits: physical_bits.min(ADDRESS_BITS as u8),
            physical_bits,
            data_line_bytes: 4 << field(id.ctr, 16), // DminLine, bits 19:16: log2 of words
            instruction_line_bytes: 4 << field(id.ctr, 0), // IminLine, bits 3:0
            errata: errata_of(id.midr),
        })
    }

    /// What both can do: features intersected, sizes the smaller, errata united.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            midr: self.midr,
            features: self.features & other.features,
            bbm_level: self.bbm_level.min(other.bbm_level),
            output_bits: self.output_bits.min(other.output_bits),
            physical_bits: self.physical_bits.min(other.physical_bits),
            data_line_bytes: self.data_line_bytes.min(other.data_line_bytes),
            instruction_line_bytes: self.instruction_line_bytes.min(other.instruction_line_bytes),
            errata: self.errata | other.errata,
        }
    }

    /// Whether this CPU may use the tables that `running` has in force, whose sequences rely on the features `relied_on`
    /// ([`RELIED_ON`] for this image). `running.output_bits` is what TCR_EL2.PS was set to.
    ///
    /// # Errors
    /// See [`Unsuited`].
    pub fn may_join(&self, running: &Self, relied_on: Features) -> Result<(), Unsuited> {
        if self.output_bits < running.output_bits {
            return Err(Unsuited::OutputBits { has: self.output_bits, needed: running.output_bits });
        }
        let missing = relied_on - self.features;
        if missing.is_empty() { Ok(()) } else { Err(Unsuited::Features { missing }) }
    }
}

/// ID_AA64MMFR0_EL1.PARange in bits; 8 and above are reserved.
const fn physical_bits(range: u8) -> Option<u8> {
    Some(match range {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        6 => 52,
        7 => 56,
        _ => return None,
    })
}

fn features(id: &IdRegisters) -> Features {
    let pmu = field(id.dfr0, 8); // PMUVer, bits 11:8: 15 is a PMU of the implementation's own
    let bbm = field(id.mmfr2, 52); // BBM, bits 55:52
    let facts = [
        (Features::E2H0, !negative(field(id.mmfr4, 24))), // E2H0, bits 27:24, signed
        (Features::VHE, field(id.mmfr1, 8) >= 1),         // VH, bits 11:8
        (Features::TLBIOS, field(id.isar0, 56) >= 1),     // TLB, bits 59:56
        (Features::TLBIRANGE, field(id.isar0, 56) >= 2),  // the same
        (Features::TTL, field(id.mmfr2, 48) >= 1),        // TTL, bits 51:48
        (Features::NTLBPA, field(id.mmfr1, 48) >= 1),     // nTLBPA, bits 51:48
        (Features::ETS2, field(id.mmfr1, 36) >= 2),       // ETS, bits 39:36
        (Features::CNP, field(id.mmfr2, 0) >= 1),         // CnP, bits 3:0
        (Features::HPDS, field(id.mmfr1, 12) >= 1),       // HPDS, bits 15:12
        (Features::HPDS2, field(id.mmfr1, 12) >= 2),      // the same
        (Features::HAF, field(id.mmfr1, 0) >= 1),         // HAFDBS, bits 3:0
        (Features::HAFDBS, field(id.mmfr1, 0) >= 2),      // the same
        (Features::LPA2, matches!(field(id.mmfr0, 28), 1..=7)), // TGran4, bits 31:28, signed
        (Features::TCR2, field(id.mmfr3, 0) >= 1),        // TCRX, bits 3:0
        (Features::S1PIE, field(id.mmfr3, 8) >= 1),       // S1PIE, bits 11:8
        (Features::BTI, field(id.pfr1, 0) >= 1),          // BT, bits 3:0
        (Features::MTE, field(id.pfr1, 8) >= 2),          // MTE, bits 11:8: 1 is only the instructions
        (Features::PMU, pmu != 0 && pmu != 15),
        (Features::IDC, id.ctr >> 28 & 1 == 1), // IDC, bit 28
        (Features::DIC, id.ctr >> 29 & 1 == 1), // DIC, bit 29
        (Features::RESIZE, bbm >= 3 || bbm == 2 && RESIZING.iter().any(|cores| cores.includes(id.midr))),
    ];
    facts.iter().filter(|(_, present)| *present).map(|(feature, _)| *feature).collect()
}

#[cfg(test)]
mod tests;
