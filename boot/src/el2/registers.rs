//! System registers as values.

use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTPCT_EL0, ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1,
    ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, MAIR_EL2, MIDR_EL1, MPIDR_EL1, Readable, SCTLR_EL2, TCR_EL2, TTBR0_EL2,
};
use breakwater::features::IdRegisters;
use core::arch::asm;
use pmu::{ID_AA64DFR0, PMCEID0, PMCNTENSET, PMCR, PMEVTYPER};

/// The fields of the PMU's registers. The macro's items are documented where they are declared, but rustc does not see that.
#[allow(missing_docs, unreachable_pub)]
pub(super) mod pmu {
    use tock_registers::register_bitfields;

    register_bitfields! [u64,
        /// ID_AA64DFR0_EL1, of which only this is asked.
        pub ID_AA64DFR0 [
            /// PMUVer.
            PMUVER OFFSET(8) NUMBITS(4) [
                None = 0,
                NotArchitected = 15
            ]
        ],
        /// PMCR_EL0.
        pub PMCR [
            /// The counters count.
            E OFFSET(0) NUMBITS(1) [],
            /// Event counters begin at 0.
            P OFFSET(1) NUMBITS(1) [],
            /// How many event counters there are.
            N OFFSET(11) NUMBITS(5) []
        ],
        /// PMEVTYPER0_EL0.
        pub PMEVTYPER [
            /// What is counted.
            EVENT OFFSET(0) NUMBITS(16) [
                InstRetired = 8
            ],
            /// At EL2 too.
            NSH OFFSET(27) NUMBITS(1) []
        ],
        /// PMCNTENSET_EL0.
        pub PMCNTENSET [
            /// Event counter 0.
            P0 OFFSET(0) NUMBITS(1) []
        ],
        /// PMCEID0_EL0: which common events can be counted.
        pub PMCEID0 [
            INST_RETIRED OFFSET(8) NUMBITS(1) []
        ]
    ];
}

/// PMEVTYPER0_EL0 that counts instructions.
pub(super) const PMEVTYPER_INSTRUCTIONS: u64 = PMEVTYPER::EVENT::InstRetired.value | PMEVTYPER::NSH::SET.value;
/// PMCNTENSET_EL0 that enables that counter.
pub(super) const PMCNTENSET_FIRST: u64 = PMCNTENSET::P0::SET.value;
/// Bits of PMCR_EL0 that start the counters from 0.
pub(super) const PMCR_START: u64 = PMCR::E::SET.value | PMCR::P::SET.value;

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident = $register:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name() -> u64 {
            let value;
            // SAFETY: reads a register that exists at EL2 (ID space reads 0 where nothing is defined) and changes
            // nothing.
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }
    )*};
}

read! {
    /// ID_AA64MMFR3_EL1, which the assembler may not know by name.
    id_aa64mmfr3 = "S3_0_C0_C7_3";
    /// ID_AA64MMFR4_EL1, which the assembler may not know by name.
    id_aa64mmfr4 = "S3_0_C0_C7_4";
    /// CTR_EL0.
    ctr = "ctr_el0";
    /// DCZID_EL0.
    dczid = "dczid_el0";
    /// Which common events the PMU can count, 0 to 31 in bits 31:0.
    pmceid0 = "pmceid0_el0";
    /// Event counter 0, which head.S set to INST_RETIRED.
    pmevcntr0 = "pmevcntr0_el0";
}

/// The translation registers of the EL2 regime on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// SCTLR_EL2.
    pub sctlr: u64,
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
}

/// This CPU's translation registers.
#[must_use]
pub fn translation() -> Translation {
    Translation { sctlr: SCTLR_EL2.get(), ttbr0: TTBR0_EL2.get(), tcr: TCR_EL2.get(), mair: MAIR_EL2.get() }
}

/// This CPU's ID registers.
#[must_use]
pub fn id_registers() -> IdRegisters {
    IdRegisters {
        midr: MIDR_EL1.get(),
        mmfr0: ID_AA64MMFR0_EL1.get(),
        mmfr1: ID_AA64MMFR1_EL1.get(),
        mmfr2: ID_AA64MMFR2_EL1.get(),
        mmfr3: id_aa64mmfr3(),
        mmfr4: id_aa64mmfr4(),
        isar0: ID_AA64ISAR0_EL1.get(),
        pfr0: ID_AA64PFR0_EL1.get(),
        pfr1: ID_AA64PFR1_EL1.get(),
        dfr0: ID_AA64DFR0_EL1.get(),
        ctr: ctr(),
    }
}

/// The bits of MPIDR_EL1 that name a CPU: Aff3 in 39:32, Aff2 to Aff0 in 23:0.
pub(super) const AFFINITY_MASK: u64 = 0x00ff_00ff_ffff;

/// This CPU's affinity, as PSCI and the device tree name it.
#[must_use]
pub fn own_affinity() -> u64 {
    MPIDR_EL1.get() & AFFINITY_MASK
}

/// Instructions retired since head.S started the counter, modulo 2^32, or `None` where the PMU cannot count them (QEMU
/// can under -icount).
#[must_use]
pub fn instructions_retired() -> Option<u32> {
    let dfr0 = ID_AA64DFR0_EL1.get();
    let is_absent =
        ID_AA64DFR0::PMUVER::None.matches_all(dfr0) || ID_AA64DFR0::PMUVER::NotArchitected.matches_all(dfr0);
    if is_absent || !PMCEID0::INST_RETIRED::SET.matches_all(pmceid0()) {
        return None;
    }
    Some(pmevcntr0() as u32)
}

/// A moment of the system counter, to wait by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(u64);

impl Deadline {
    /// `milliseconds` from now. Where CNTFRQ_EL0 was never set, 1 GHz is assumed.
    pub(super) fn after(milliseconds: u64) -> Self {
        let frequency = match CNTFRQ_EL0.get() {
            0 => 1_000_000_000,
            frequency => frequency,
        };
        Self(CNTPCT_EL0.get().saturating_add(frequency / 1000 * milliseconds))
    }

    /// Whether the moment has passed.
    pub(super) fn has_passed(self) -> bool {
        CNTPCT_EL0.get() >= self.0
    }
}
