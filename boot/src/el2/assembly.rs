//! boot/*.S, assembled with its constants from here. The routines that Rust calls are declared where it calls them.

use super::cpu::{CPU_RECORD_BYTES, CPU_RECORD_NAME, CPU_RECORD_REFUSED};
use super::exception::EXCEPTION_FRAME_BYTES;
use super::registers::pmu::{ID_AA64DFR0, PMCR};
use super::registers::{AFFINITY_MASK, PMCNTENSET_FIRST, PMCR_START, PMEVTYPER_INSTRUCTIONS};
use super::uart::{EARLY_REGISTERS, EARLYCON};
use aarch64_cpu::registers::{HCR_EL2, SCR_EL3, SCTLR_EL2, SPSR_EL3, TCR_EL2};
use breakwater::addr::{ADDRESS_BITS, Level, PAGE_BYTES};
use breakwater::descriptor::{Access, Attributes, MAIR, TABLE_BITS, leaf_bits};
use breakwater::earlycon::Earlycon;
use breakwater::layout;
use breakwater::log;
use breakwater::refusal::Cause;
use breakwater::regions::slots;
use breakwater::uart::{LOOKS_MAX, Step};
use core::arch::global_asm;
use static_assertions::const_assert_eq;

/// HCR_EL2: EL1 is AArch64; E2H, TGE and VM clear.
const HCR: u64 = HCR_EL2::RW::EL1IsAarch64.value;
/// TCR_EL2 but for PS: 48 bits, 4 KiB granule, walks cacheable and shared as tables are written; HA, HD, TBI, HPD and
/// DS clear.
const TCR_WITHOUT_PS: u64 = bits(&TCR_RES1)
    | TCR_EL2::T0SZ.val(64 - ADDRESS_BITS as u64).value
    | TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::SH0::Inner.value
    | TCR_EL2::TG0::KiB_4.value;
/// TCR_EL2's RES1 bits with E2H=0.
const TCR_RES1: [u32; 2] = [23, 31];
/// The most that TCR_EL2.PS takes without FEAT_LPA2.
const PS_MAX: u64 = TCR_EL2::PS::Bits_48.value >> PS_SHIFT;
const PS_SHIFT: u32 = TCR_EL2::PS.shift as u32;

/// SCTLR_EL2 with nothing on: its RES1 bits with E2H=0.
const SCTLR_RESET: u64 = bits(&[4, 5, 11, 16, 18, 22, 23, 28, 29]);
/// What is in force before M: writable memory is never executable, and the stack pointer is aligned.
const SCTLR_OFF: u64 = SCTLR_RESET | SCTLR_EL2::WXN::Enable.value | SCTLR_EL2::SA::Enable.value;
/// The MMU and the caches.
const SCTLR_MMU_AND_CACHES: u64 = SCTLR_M | SCTLR_EL2::C::Cacheable.value | SCTLR_EL2::I::Cacheable.value;
const SCTLR_M: u64 = SCTLR_EL2::M::Enable.value;
/// SCTLR_EL2.EE: data is big-endian.
const SCTLR_EE: u64 = SCTLR_EL2::EE::SET.value;
/// What is in force from the first enable on.
const SCTLR_ON: u64 = SCTLR_OFF | SCTLR_MMU_AND_CACHES;

/// SCR_EL3 where no firmware is below: EL2 is AArch64 and Non-secure, HVC works, and SMC does not, for nobody would
/// answer.
const SCR: u64 = bits(&[4, 5])
    | SCR_EL3::NS::NonSecure.value
    | SCR_EL3::SMD::SmcDisabled.value
    | SCR_EL3::HCE::HvcEnabled.value
    | SCR_EL3::RW::NextELIsAarch64.value;
/// SCR_EL3.TCR2En, which exists with FEAT_TCR2: EL2 may write TCR2_EL2.
const SCR_TCR2EN: u64 = bits(&[43]);
/// SCR_EL3.APK and .API, which exist with pointer authentication: EL2 may use its keys and its instructions.
const SCR_APK_API: u64 = bits(&[16, 17]);
/// SCR_EL3.FGTEn, which exists with FEAT_FGT: EL2 may write HFGRTR_EL2 and its kin.
const SCR_FGTEN: u64 = bits(&[27]);
/// SCR_EL3.HXEn, which exists with FEAT_HCX: EL2 may write HCRX_EL2.
const SCR_HXEN: u64 = bits(&[38]);
/// ICC_SRE_EL3.SRE and .Enable: interrupts by system registers, and EL2 may write ICC_SRE_EL2.
const ICC_SRE: u64 = bits(&[0, 3]);
/// SPSR_EL3 that returns to EL2 on its own stack pointer, with all interrupts masked.
const SPSR: u64 = SPSR_EL3::M::EL2h.value
    | SPSR_EL3::D::Masked.value
    | SPSR_EL3::A::Masked.value
    | SPSR_EL3::I::Masked.value
    | SPSR_EL3::F::Masked.value;

/// A number with these bits set.
const fn bits(list: &[u32]) -> u64 {
    let (mut number, mut index) = (0, 0);
    while index < list.len() {
        number |= 1 << list[index];
        index += 1;
    }
    number
}

const_assert_eq!(TCR_WITHOUT_PS, 0x8080_3510);
const_assert_eq!(SCTLR_OFF, 0x30cd_0838);
const_assert_eq!(SCTLR_ON, 0x30cd_183d);
const_assert_eq!(SCR, 0x5b1);
const_assert_eq!(SPSR, 0x3c9);
const_assert_eq!(PMEVTYPER_INSTRUCTIONS, 0x0800_0008);
const_assert_eq!(PMCR_START, 3);

const CODE: u64 = leaf_bits(Attributes::Normal(Access::ReadExecute), Level::L3);
const CONSTANT_DATA: u64 = leaf_bits(Attributes::Normal(Access::ReadOnly), Level::L3);
const DATA: u64 = leaf_bits(Attributes::Normal(Access::ReadWrite), Level::L3);

global_asm!(
    include_str!("../../macros.S"),
    include_str!("../../head.S"),
    include_str!("../../pe.S"),
    include_str!("../../efi.S"),
    include_str!("../../tables.S"),
    include_str!("../../mmu.S"),
    include_str!("../../secondary.S"),
    include_str!("../../vectors.S"),
    include_str!("../../refuse.S"),
    include_str!("../../memory.S"),
    EFI_PREPARE = sym super::efi::prepare,
    CAUSE_EL1 = const Cause::EnteredAtEl1 as u64,
    CAUSE_MMU_ON = const Cause::MmuOnAtEntry as u64,
    CAUSE_E2H = const Cause::E2hStuck as u64,
    CAUSE_GRANULE = const Cause::NoGranule as u64,
    CAUSE_PARANGE = const Cause::SmallerPaRange as u64,
    CAUSE_MISALIGNED = const Cause::ImageMisaligned as u64,
    CAUSE_TOO_HIGH = const Cause::ImageTooHigh as u64,
    CAUSE_EXCEPTION_BEFORE_MMU = const Cause::ExceptionBeforeMmu as u64,
    CAUSE_EXCEPTION_IN_EXCEPTION = const Cause::ExceptionInException as u64,
    EARLYCON_SEMIHOSTING = const cfg!(feature = "earlycon-semihosting") as u64,
    EARLYCON_UART = const EARLYCON.is_some() as u64,
    EARLYCON_ADDRESS = const match EARLYCON {
        None => 0,
        Some(Earlycon { registers, .. }) => registers.raw(),
    },
    EARLYCON_VIRT = const EARLY_REGISTERS.raw(),
    EARLYCON_LOOKS = const LOOKS_MAX,
    STEP_WAIT_BIT = const Step::WAIT.trailing_zeros(),
    STEP_STORE_BIT = const Step::STORE.trailing_zeros(),
    STEP_BYTE_BIT = const Step::BYTE.trailing_zeros(),
    STEP_HALF_BIT = const Step::WIDTH_SHIFT + 1,
    STEP_OCTET_BIT = const Step::WIDTH_SHIFT,
    LEAF_REGISTERS = const leaf_bits(slots::REGISTERS, Level::L3),
    FIXMAP_L2_SLOT = const layout::FIXMAP_EARLYCON.start().slot(Level::L2),
    EARLYCON_L3_SLOT = const layout::FIXMAP_EARLYCON.start().slot(Level::L3),
    EXIT_REFUSED = const super::Status::Refused as u64,
    HCR = const HCR,
    TCR_WITHOUT_PS = const TCR_WITHOUT_PS,
    PS_MAX = const PS_MAX,
    PS_SHIFT = const PS_SHIFT,
    IDENTITY_LIMIT = const layout::IDENTITY.end_exclusive().raw(),
    IDENTITY_LIMIT_GIB = const layout::IDENTITY.end_exclusive().raw() >> 30,
    SCTLR_RESET = const SCTLR_RESET,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_ON = const SCTLR_ON,
    SCTLR_M = const SCTLR_M,
    SCTLR_M_BIT = const SCTLR_EL2::M.shift,
    SCTLR_EE = const SCTLR_EE,
    SCTLR_EE_BIT = const SCTLR_EL2::EE.shift,
    SCTLR_MMU_AND_CACHES = const SCTLR_MMU_AND_CACHES,
    SCR = const SCR,
    SCR_TCR2EN = const SCR_TCR2EN,
    SCR_APK_API = const SCR_APK_API,
    SCR_FGTEN = const SCR_FGTEN,
    SCR_HXEN = const SCR_HXEN,
    ICC_SRE = const ICC_SRE,
    SPSR = const SPSR,
    MAIR = const MAIR,
    PMUVER_SHIFT = const ID_AA64DFR0::PMUVER.shift,
    PMUVER_BITS = const ID_AA64DFR0::PMUVER.mask.count_ones(),
    PMUVER_NOT_ARCHITECTED = const ID_AA64DFR0::PMUVER::NotArchitected.value >> ID_AA64DFR0::PMUVER.shift,
    PMCR_N_SHIFT = const PMCR::N.shift,
    PMCR_N_BITS = const PMCR::N.mask.count_ones(),
    PMCR_START = const PMCR_START,
    PMEVTYPER_INSTRUCTIONS = const PMEVTYPER_INSTRUCTIONS,
    PMCNTENSET_FIRST = const PMCNTENSET_FIRST,
    LINK_ADDRESS = const layout::LINK_ADDRESS,
    IMAGE_L0_SLOT = const layout::IMAGE.start().slot(Level::L0),
    IMAGE_L1_SLOT = const layout::IMAGE.start().slot(Level::L1),
    IMAGE_L2_SLOT = const layout::IMAGE.start().slot(Level::L2),
    TABLE_BITS = const TABLE_BITS,
    LEAF_RX = const CODE,
    LEAF_RO = const CONSTANT_DATA,
    LEAF_RW = const DATA,
    FIRMWARE_MAP_BYTES = const super::firmware::MAP_ROOM,
    FIRMWARE_OPTIONS_BYTES = const super::firmware::OPTIONS_ROOM,
    LOG_TEXT_BYTES = const log::TEXT_BYTES,
    POOL_BYTES = const layout::POOL_FRAMES * PAGE_BYTES as usize,
    EXCEPTION_FRAME_BYTES = const EXCEPTION_FRAME_BYTES,
    CPU_RECORD_REFUSED = const CPU_RECORD_REFUSED,
    CPU_RECORD_NAME = const CPU_RECORD_NAME,
    CPU_RECORD_BYTES = const CPU_RECORD_BYTES,
    AFFINITY_MASK = const AFFINITY_MASK,
    PSCI_CPU_OFF = const 0x8400_0002_u64,
);
