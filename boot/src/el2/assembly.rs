//! boot/*.S, assembled with its constants from here. The routines that Rust calls are declared where it calls them.

use super::control::{
    CODE, CONSTANT_DATA, DATA, HCR, ICC_SRE, PS_MAX, PS_SHIFT, SCR, SCR_APK_API, SCR_FGTEN, SCR_HXEN, SCR_TCR2EN,
    SCTLR_EE, SCTLR_M, SCTLR_MMU_AND_CACHES, SCTLR_OFF, SCTLR_ON, SCTLR_RESET, SPSR, TCR_WITHOUT_PS,
};
use super::cpu::{CPU_RECORD_BYTES, CPU_RECORD_NAME, CPU_RECORD_REFUSED};
use super::exception::EXCEPTION_FRAME_BYTES;
use super::registers::pmu::{ID_AA64DFR0, PMCR};
use super::registers::{AFFINITY_MASK, PMCNTENSET_FIRST, PMCR_START, PMEVTYPER_INSTRUCTIONS};
use super::uart::{EARLY_REGISTERS, EARLYCON};
use aarch64_cpu::registers::SCTLR_EL2;
use breakwater::addr::{Level, PAGE_BYTES};
use breakwater::descriptor::{MAIR, TABLE_BITS, leaf_bits};
use breakwater::earlycon::Earlycon;
use breakwater::layout;
use breakwater::log;
use breakwater::refusal::Cause;
use breakwater::regions::slots;
use breakwater::uart::{LOOKS_MAX, Step};
use core::arch::global_asm;
use static_assertions::const_assert_eq;

const_assert_eq!(PMEVTYPER_INSTRUCTIONS, 0x0800_0008);
const_assert_eq!(PMCR_START, 3);

global_asm!(
    include_str!("../../macros.S"),
    include_str!("../../head.S"),
    include_str!("../../pe.S"),
    include_str!("../../efi.S"),
    include_str!("../../start.S"),
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
