//! What known CPUs get wrong that a page-table manager must make up for, as data.
//!
//! Why it exists: an erratum that lives in an `if` deep inside a sequence is forgotten when the sequence changes. Here each is a row
//! of [`TABLE`]: its name, the cores, the revisions, and the duty ([`Errata`]) that it puts on the sequences.
//!
//! What must hold: duties are united over the PEs that share tables. That is a must for the repeated invalidation: a
//! broadcast that one affected core completes too early is a broken promise to whoever issued it.
//!
//! Sources: Arm's Software Developer Errata Notices, XSA-493, Qualcomm's and Ampere's lists. Part numbers: each core's Technical
//! Reference Manual, MIDR_EL1. Where revisions are not known to be safe, all count as affected.

#![forbid(unsafe_code)]

use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// Duties that errata put on a sequence.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Errata: u8 {
        /// After the DSB that completes broadcast TLBIs, repeat one of them and its DSB: accesses may still be under way.
        const REPEAT_TLBI = 1 << 0;
        /// ISB before SCTLR_EL2.M goes from 1 to 0, or a speculative fetch may hit what it must not.
        const ISB_BEFORE_MMU_OFF = 1 << 1;
        /// DSB before and ISB after a write of HCR_EL2.
        const DSB_BEFORE_HCR = 1 << 2;
        /// A page that loses execution needs full break-before-make.
        const BBM_FOR_XN = 1 << 3;
        /// Every change of a valid descriptor needs full break-before-make.
        const BBM_ALWAYS = 1 << 4;
        /// DC CVAC does not do all of its work: use DC CIVAC.
        const CIVAC_FOR_CVAC = 1 << 5;
    }
}

impl fmt::Display for Errata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WORDS: [(Errata, &str); 6] = [
            (Errata::REPEAT_TLBI, "repeat TLBI"),
            (Errata::ISB_BEFORE_MMU_OFF, "ISB before MMU off"),
            (Errata::DSB_BEFORE_HCR, "DSB before HCR_EL2"),
            (Errata::BBM_FOR_XN, "break for execute-never"),
            (Errata::BBM_ALWAYS, "break always"),
            (Errata::CIVAC_FOR_CVAC, "CIVAC for CVAC"),
        ];
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (_, word) in WORDS.iter().filter(|(duty, _)| self.contains(*duty)) {
            write!(f, "{separator}{word}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Variant and revision of a core, "rXpY", in the order in which they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revision(u8);

impl Revision {
    /// The revision rXpY.
    #[must_use]
    pub const fn r(variant: u8, revision: u8) -> Self {
        Self(variant << 4 | revision & 0xf)
    }

    /// MIDR_EL1: Variant 23:20, Revision 3:0.
    const fn of(midr: u64) -> Self {
        Self((midr >> 16 & 0xf0 | midr & 0xf) as u8)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}p{}", self.0 >> 4, self.0 & 0xf)
    }
}

/// Cores of one implementer, as MIDR_EL1 names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cores {
    /// What people call them.
    pub name: &'static str,
    /// MIDR_EL1.Implementer, bits 31:24.
    pub implementer: u8,
    /// First and last MIDR_EL1.PartNum, bits 15:4.
    pub parts: (u16, u16),
    /// First and last revision affected.
    pub revisions: (Revision, Revision),
}

const ARM: u8 = 0x41;
const NVIDIA: u8 = 0x4e;
const QUALCOMM: u8 = 0x51;
const MICROSOFT: u8 = 0x6d;
const AMPERE: u8 = 0xc0;

const FIRST: Revision = Revision::r(0, 0);
const LAST: Revision = Revision::r(0xf, 0xf);

impl Cores {
    const fn any(name: &'static str, implementer: u8, part: u16) -> Self {
        Self::between(name, implementer, part, FIRST, LAST)
    }

    const fn between(name: &'static str, implementer: u8, part: u16, first: Revision, last: Revision) -> Self {
        Self { name, implementer, parts: (part, part), revisions: (first, last) }
    }

    /// Cores of `implementer` and `part` from revision r`variant`p`revision` on.
    #[must_use]
    pub const fn since(name: &'static str, implementer: u8, part: u16, variant: u8, revision: u8) -> Self {
        Self::between(name, implementer, part, Revision::r(variant, revision), LAST)
    }

    /// Whether `midr` is one of them.
    #[must_use]
    pub const fn includes(&self, midr: u64) -> bool {
        let implementer = (midr >> 24) as u8;
        let part = (midr >> 4) as u16 & 0xfff;
        let revision = Revision::of(midr).0;
        implementer == self.implementer
            && self.parts.0 <= part
            && part <= self.parts.1
            && self.revisions.0.0 <= revision
            && revision <= self.revisions.1.0
    }
}

/// One erratum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// What its implementer calls it.
    pub erratum: &'static str,
    /// Whom it affects.
    pub cores: &'static [Cores],
    /// What it asks for.
    pub duty: Errata,
}

impl Row {
    /// Whether a CPU with this MIDR_EL1 has the erratum.
    #[must_use]
    pub fn affects(&self, midr: u64) -> bool {
        self.cores.iter().any(|cores| cores.includes(midr))
    }
}

/// All errata that the sequences know.
pub static TABLE: &[Row] = &[
    Row {
        erratum: "1286807",
        cores: &[
            Cores::between("Cortex-A76", ARM, 0xd0b, FIRST, Revision::r(3, 0)),
            Cores::between("Neoverse-N1", ARM, 0xd0c, FIRST, Revision::r(3, 0)),
            // Cortex-A76 r0p0 to r3p0 under Qualcomm's own numbering.
            Cores::between("Kryo 4xx Gold", QUALCOMM, 0x804, Revision::r(0xc, 0xe), Revision::r(0xf, 0xe)),
        ],
        duty: Errata::REPEAT_TLBI,
    },
    Row { erratum: "2441007", cores: &[Cores::any("Cortex-A55", ARM, 0xd05)], duty: Errata::REPEAT_TLBI },
    Row {
        erratum: "2441009",
        cores: &[Cores::between("Cortex-A510", ARM, 0xd46, FIRST, Revision::r(1, 1))],
        duty: Errata::REPEAT_TLBI,
    },
    Row {
        erratum: "E1009",
        cores: &[
            // Part 0x800 with a later variant is a Kryo 2xx Gold, which is not affected.
            Cores::between("Falkor v1", QUALCOMM, 0x800, FIRST, FIRST),
            Cores { parts: (0x200, 0x2ff), ..Cores::any("Kryo", QUALCOMM, 0x200) },
        ],
        duty: Errata::REPEAT_TLBI,
    },
    Row { erratum: "CVE-2025-10263 (XSA-493)", cores: EARLY_COMPLETION, duty: Errata::REPEAT_TLBI },
    Row {
        erratum: "E1041",
        cores: &[Cores::any("Falkor v1", QUALCOMM, 0x800), Cores::any("Falkor", QUALCOMM, 0xc00)],
        duty: Errata::ISB_BEFORE_MMU_OFF,
    },
    Row { erratum: "AC04_CPU_23", cores: &[Cores::any("AmpereOne AC04", AMPERE, 0xac4)], duty: Errata::DSB_BEFORE_HCR },
    Row { erratum: "2645198", cores: &[Cores::any("Cortex-A715", ARM, 0xd4d)], duty: Errata::BBM_FOR_XN },
    Row {
        erratum: "3683289",
        cores: &[
            Cores::between("C1-Ultra", ARM, 0xd8c, FIRST, Revision::r(1, 0)),
            Cores::between("C1-Premium", ARM, 0xd90, FIRST, Revision::r(1, 0)),
        ],
        duty: Errata::BBM_ALWAYS,
    },
    Row {
        erratum: "819472",
        cores: &[Cores::between("Cortex-A53", ARM, 0xd03, FIRST, Revision::r(0, 1))],
        duty: Errata::CIVAC_FOR_CVAC,
    },
    Row {
        erratum: "824069, 826319, 827319",
        cores: &[Cores::between("Cortex-A53", ARM, 0xd03, FIRST, Revision::r(0, 2))],
        duty: Errata::CIVAC_FOR_CVAC,
    },
];

/// Cores on which a broadcast TLBI and its DSB may complete before accesses that used the old translation do.
const EARLY_COMPLETION: &[Cores] = &[
    Cores::any("Cortex-A76", ARM, 0xd0b),
    Cores::any("Cortex-A76AE", ARM, 0xd0e),
    Cores::any("Cortex-A77", ARM, 0xd0d),
    Cores::any("Cortex-A78", ARM, 0xd41),
    Cores::any("Cortex-A78AE", ARM, 0xd42),
    Cores::any("Cortex-A78C", ARM, 0xd4b),
    Cores::any("Cortex-A710", ARM, 0xd47),
    Cores::any("Cortex-X1", ARM, 0xd44),
    Cores::any("Cortex-X1C", ARM, 0xd4c),
    Cores::any("Cortex-X2", ARM, 0xd48),
    Cores::any("Cortex-X3", ARM, 0xd4e),
    Cores::any("Cortex-X4", ARM, 0xd82),
    Cores::any("Cortex-X925", ARM, 0xd85),
    Cores::any("Neoverse-N1", ARM, 0xd0c),
    Cores::any("Neoverse-N2", ARM, 0xd49),
    Cores::any("Neoverse-V1", ARM, 0xd40),
    Cores::any("Neoverse-V2", ARM, 0xd4f),
    Cores::any("Neoverse-V3", ARM, 0xd84),
    Cores::any("Neoverse-V3AE", ARM, 0xd83),
    Cores::any("C1-Ultra", ARM, 0xd8c),
    Cores::any("C1-Premium", ARM, 0xd90),
    // Neoverse-N2 r0p0 under Microsoft's name, and NVIDIA's erratum T410-OLY-1029.
    Cores::any("Azure Cobalt 100", MICROSOFT, 0xd49),
    Cores::any("Olympus", NVIDIA, 0x010),
];

/// The errata of a CPU with this MIDR_EL1, by name.
pub fn rows_of(midr: u64) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.affects(midr))
}

/// The duties of whoever shares tables with a CPU with this MIDR_EL1.
#[must_use]
pub fn errata_of(midr: u64) -> Errata {
    rows_of(midr).fold(Errata::empty(), |duties, row| duties | row.duty)
}

#[cfg(test)]
mod tests;
