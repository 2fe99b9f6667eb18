//! boot/, assembled with its constants from here, and the routines of it that Rust calls.

use super::cpu::CPU_RECORD_REFUSED;
use super::exception::EXCEPTION_FRAME_BYTES;
use breakwater::addr::{Level, PAGE_BYTES};
use breakwater::descriptor::{Access, Attributes, MAIR, TABLE_BITS, leaf_bits};
use breakwater::layout;
use breakwater::refusal::Cause;
use core::arch::global_asm;

/// TCR_EL2 but for PS: T0SZ 16 (48 bits), walks Write-Back Write-Allocate Inner Shareable, 4 KiB granule, RES1 bits 23 and 31; HA, HD, TBI,
/// HPD and DS clear.
const TCR_WITHOUT_PS: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1 << 31;
/// SCTLR_EL2's RES1 bits with E2H=0: 4, 5, 11, 16, 18, 22, 23, 28, 29.
const SCTLR_RESET: u64 = 0x30c5_0830;
/// The same with WXN (19) and SA (3): what is in force before M.
const SCTLR_OFF: u64 = SCTLR_RESET | 1 << 19 | 1 << 3;
/// The same with M, C and I.
const SCTLR_ON: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 12;

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
    EXIT_REFUSED = const super::Status::Refused as u64,
    TCR_WITHOUT_PS = const TCR_WITHOUT_PS,
    IDENTITY_LIMIT = const layout::IDENTITY.end_exclusive().raw(),
    SCTLR_RESET = const SCTLR_RESET,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_ON = const SCTLR_ON,
    MAIR = const MAIR,
    LINK_ADDRESS = const layout::LINK_ADDRESS,
    IMAGE_L0_SLOT = const layout::IMAGE.start().slot(Level::L0),
    IMAGE_L1_SLOT = const layout::IMAGE.start().slot(Level::L1),
    IMAGE_L2_SLOT = const layout::IMAGE.start().slot(Level::L2),
    TABLE_BITS = const TABLE_BITS,
    LEAF_RX = const CODE,
    LEAF_RO = const CONSTANT_DATA,
    LEAF_RW = const DATA,
    POOL_BYTES = const layout::POOL_FRAMES * PAGE_BYTES as usize,
    EXCEPTION_FRAME_BYTES = const EXCEPTION_FRAME_BYTES,
    CPU_RECORD_REFUSED = const CPU_RECORD_REFUSED,
    PSCI_CPU_OFF = const 0x8400_0002_u64,
);

unsafe extern "C" {
    /// boot/mmu.S. In: physical address of the root, link address - physical address. Out: maintenance counts.
    ///
    /// # Safety
    /// Both roots map the identity page, the image and the stack alike, and no other PE uses the old one.
    pub(super) fn switch_root(root: u64, link_offset: u64) -> u64;

    /// boot/refuse.S: leaves `cause` in x0 and at `refusal_cause`, and stops this CPU for good.
    pub(super) safe fn park_refused(cause: u64) -> !;
}
