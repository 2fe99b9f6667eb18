//! What control registers hold, and the leaves of an image's first tables: numbers for assembly.

use aarch64_cpu::registers::{HCR_EL2, SCR_EL3, SCTLR_EL2, SPSR_EL3, TCR_EL2};
use breakwater::addr::{ADDRESS_BITS, Level};
use breakwater::descriptor::{Access, Attributes, leaf_bits};
use static_assertions::const_assert_eq;

/// HCR_EL2: EL1 is AArch64; E2H, TGE and VM clear.
pub(super) const HCR: u64 = HCR_EL2::RW::EL1IsAarch64.value;
/// TCR_EL2 but for PS: 48 bits, 4 KiB granule, walks cacheable and shared as tables are written; HA, HD, TBI, HPD and
/// DS clear.
pub(super) const TCR_WITHOUT_PS: u64 = bits(&TCR_RES1)
    | TCR_EL2::T0SZ.val(64 - ADDRESS_BITS as u64).value
    | TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::SH0::Inner.value
    | TCR_EL2::TG0::KiB_4.value;
/// TCR_EL2's RES1 bits with E2H=0.
const TCR_RES1: [u32; 2] = [23, 31];
/// The most that TCR_EL2.PS takes without FEAT_LPA2.
pub(super) const PS_MAX: u64 = TCR_EL2::PS::Bits_48.value >> PS_SHIFT;
/// Where PS is in it.
pub(super) const PS_SHIFT: u32 = TCR_EL2::PS.shift as u32;

/// SCTLR_EL2 with nothing on: its RES1 bits with E2H=0.
pub(super) const SCTLR_RESET: u64 = bits(&[4, 5, 11, 16, 18, 22, 23, 28, 29]);
/// What is in force before M: writable memory is never executable, and the stack pointer is aligned.
pub(super) const SCTLR_OFF: u64 = SCTLR_RESET | SCTLR_EL2::WXN::Enable.value | SCTLR_EL2::SA::Enable.value;
/// The MMU and the caches.
pub(super) const SCTLR_MMU_AND_CACHES: u64 = SCTLR_M | SCTLR_EL2::C::Cacheable.value | SCTLR_EL2::I::Cacheable.value;
/// SCTLR_EL2.M: the MMU.
pub(super) const SCTLR_M: u64 = SCTLR_EL2::M::Enable.value;
/// SCTLR_EL2.EE: data is big-endian.
pub(super) const SCTLR_EE: u64 = SCTLR_EL2::EE::SET.value;
/// What is in force from the first enable on.
pub(super) const SCTLR_ON: u64 = SCTLR_OFF | SCTLR_MMU_AND_CACHES;

/// SCR_EL3 where no firmware is below: EL2 is AArch64 and Non-secure, HVC works, and SMC does not, for nobody would
/// answer.
pub(super) const SCR: u64 = bits(&[4, 5])
    | SCR_EL3::NS::NonSecure.value
    | SCR_EL3::SMD::SmcDisabled.value
    | SCR_EL3::HCE::HvcEnabled.value
    | SCR_EL3::RW::NextELIsAarch64.value;
/// SCR_EL3.TCR2En, which exists with FEAT_TCR2: EL2 may write TCR2_EL2.
pub(super) const SCR_TCR2EN: u64 = bits(&[43]);
/// SCR_EL3.APK and .API, which exist with pointer authentication: EL2 may use its keys and its instructions.
pub(super) const SCR_APK_API: u64 = bits(&[16, 17]);
/// SCR_EL3.FGTEn, which exists with FEAT_FGT: EL2 may write HFGRTR_EL2 and its kin.
pub(super) const SCR_FGTEN: u64 = bits(&[27]);
/// SCR_EL3.HXEn, which exists with FEAT_HCX: EL2 may write HCRX_EL2.
pub(super) const SCR_HXEN: u64 = bits(&[38]);
/// ICC_SRE_EL3.SRE and .Enable: interrupts by system registers, and EL2 may write ICC_SRE_EL2.
pub(super) const ICC_SRE: u64 = bits(&[0, 3]);
/// SPSR_EL3 that returns to EL2 on its own stack pointer, with all interrupts masked.
pub(super) const SPSR: u64 = SPSR_EL3::M::EL2h.value
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

/// Code.
pub(super) const CODE: u64 = leaf_bits(Attributes::Normal(Access::ReadExecute), Level::L3);
/// Constants.
pub(super) const CONSTANT_DATA: u64 = leaf_bits(Attributes::Normal(Access::ReadOnly), Level::L3);
/// Data.
pub(super) const DATA: u64 = leaf_bits(Attributes::Normal(Access::ReadWrite), Level::L3);
