//! Instructions, one a function: barriers, whose encodings the crate aarch64-cpu knows, and those that no crate has.

use aarch64_cpu::asm::barrier;
use breakwater::machine::{RangeOperand, VaOperand};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Stores before are visible to table walks of the Inner Shareable domain.
#[inline(always)]
pub(super) fn dsb_ishst() {
    barrier::dsb(barrier::ISHST);
}

/// Loads, stores and broadcast TLBIs before are complete in the Inner Shareable domain.
#[inline(always)]
pub(super) fn dsb_ish() {
    barrier::dsb(barrier::ISH);
}

/// Loads, stores and local TLBIs before are complete for this PE.
#[inline(always)]
pub(super) fn dsb_nsh() {
    barrier::dsb(barrier::NSH);
}

/// Everything before is complete in the full system, cache maintenance to the point of coherency included.
#[inline(always)]
pub(super) fn dsb_sy() {
    barrier::dsb(barrier::SY);
}

/// What follows is fetched and translated anew.
#[inline(always)]
pub(super) fn isb() {
    barrier::isb(barrier::SY);
}

macro_rules! tlbi {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name() {
            // SAFETY: removes cached translations only; the tables, which say the same or less, stay as they are.
            unsafe { asm!($text, options(nostack, preserves_flags)) }
        }
    )*};
    ($($(#[$doc:meta])* $name:ident($operand:ident) = $text:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name(operand: $operand) {
            // SAFETY: removes cached translations only; the tables, which say the same or less, stay as they are.
            unsafe { asm!($text, in(reg) operand.raw(), options(nostack, preserves_flags)) }
        }
    )*};
}

tlbi! {
    /// Everything of EL2, on this PE.
    tlbi_alle2 = "tlbi alle2";
    /// Everything of EL2, on every PE of the domain.
    tlbi_alle2is = "tlbi alle2is";
}
tlbi! {
    /// The last level of the walk of one address, on this PE.
    tlbi_vale2(VaOperand) = "tlbi vale2, {}";
    /// The last level of the walk of one address, on every PE of the domain.
    tlbi_vale2is(VaOperand) = "tlbi vale2is, {}";
    /// Every level of the walk of one address, on this PE.
    tlbi_vae2(VaOperand) = "tlbi vae2, {}";
    /// Every level of the walk of one address, on every PE of the domain.
    tlbi_vae2is(VaOperand) = "tlbi vae2is, {}";
}
// By range, FEAT_TLBIRANGE, which the assembler does not know for this target: op1 4, CRn 8, CRm 6 (this PE) or 2 (the
// domain), op2 5 or 1.
tlbi! {
    /// RVALE2: the last level of the walks of a range, on this PE.
    tlbi_rvale2(RangeOperand) = "sys #4, c8, c6, #5, {}";
    /// RVALE2IS: the last level of the walks of a range, on every PE of the domain.
    tlbi_rvale2is(RangeOperand) = "sys #4, c8, c2, #5, {}";
    /// RVAE2: every level of the walks of a range, on this PE.
    tlbi_rvae2(RangeOperand) = "sys #4, c8, c6, #1, {}";
    /// RVAE2IS: every level of the walks of a range, on every PE of the domain.
    tlbi_rvae2is(RangeOperand) = "sys #4, c8, c2, #1, {}";
}

/// Cleans and invalidates the line of `address` to the point of coherency. Never CVAC alone: Cortex-A53 errata 819472,
/// 824069, 826319 and 827319 want this one, which does more than is asked elsewhere.
#[inline(always)]
pub(super) fn dc_civac(address: *const u8) {
    // SAFETY: writes back and drops a cache line; memory keeps its contents. The address is of a live reference
    // (cpu.rs).
    unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) }
}

/// What a CPU with its MMU off and the others tell each other, on a cache line of its own, where lines have up to 128
/// bytes: whoever invalidates it invalidates nothing else.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Line {
    /// Stored by the CPU with its MMU off.
    word: AtomicU32,
    /// Stored by the others, before that CPU looks.
    name: AtomicU64,
}

/// Where that CPU finds what [`Line::name`] stored, from the line's start.
pub(super) const LINE_NAME: usize = core::mem::offset_of!(Line, name);

impl Line {
    pub(super) const fn new() -> Self {
        Self { word: AtomicU32::new(0), name: AtomicU64::new(u64::MAX) }
    }

    /// The word, as this PE sees it.
    pub(super) fn load(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Says whose line it is, and leaves nothing of it in a cache after a DSB.
    pub(super) fn name(&self, name: u64) {
        self.name.store(name, Ordering::Relaxed);
        dc_civac((&raw const *self).cast());
    }
}

/// Invalidates the line of `address` to the point of coherency, and cleans nothing: what another PE stored past the
/// caches is seen after a DSB, and nothing stale is pushed over it.
#[inline(always)]
pub(super) fn dc_ivac(address: *const Line) {
    // SAFETY: drops a cache line without writing it back. A `Line` has 128 bytes to itself, so that nothing else is
    // lost with it where lines are no longer; and what `name` stores there, it writes back itself.
    unsafe { asm!("dc ivac, {}", in(reg) address, options(nostack, preserves_flags)) }
}

/// Loads 64 bits in one access.
///
/// # Safety
/// `address` is mapped, readable Normal memory and 8-byte aligned.
#[inline(always)]
pub(super) unsafe fn load(address: usize) -> u64 {
    let value;
    // SAFETY: the caller vouches for the address.
    unsafe { asm!("ldr {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags, readonly)) }
    value
}

/// Loads 64 bits at `address + OFFSET`, and the 64 behind them: two accesses by one instruction, each single-copy atomic
/// where it is aligned (Arm ARM DDI 0487, Requirements for single-copy atomicity).
///
/// # Safety
/// As for [`load`], for both words.
#[inline(always)]
pub(super) unsafe fn load_pair<const OFFSET: usize>(address: usize) -> (u64, u64) {
    let (first, second);
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        asm!("ldp {}, {}, [{}, #{}]", out(reg) first, out(reg) second, in(reg) address, const OFFSET,
            options(nostack, preserves_flags, readonly));
    }
    (first, second)
}

/// Loads eight times 64 bits from `address` on.
///
/// # Safety
/// As for [`load`], for all eight.
#[inline(always)]
pub(super) unsafe fn load_eight(address: usize) -> [u64; 8] {
    // SAFETY: the caller vouches for all of it.
    let (one, two) = unsafe { load_pair::<0>(address) };
    // SAFETY: the same.
    let (three, four) = unsafe { load_pair::<16>(address) };
    // SAFETY: the same.
    let (five, six) = unsafe { load_pair::<32>(address) };
    // SAFETY: the same.
    let (seven, eight) = unsafe { load_pair::<48>(address) };
    [one, two, three, four, five, six, seven, eight]
}

/// Stores 64 bits in one access.
///
/// # Safety
/// `address` is mapped, writable Normal memory, 8-byte aligned, and no Rust object lives there.
#[inline(always)]
pub(super) unsafe fn store(address: usize, value: u64) {
    // SAFETY: the caller vouches for the address.
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack, preserves_flags)) }
}

/// Stores 64 bits at `address + OFFSET`, and 64 behind them: two accesses by one instruction.
///
/// # Safety
/// As for [`store`], for both words.
#[inline(always)]
pub(super) unsafe fn store_pair<const OFFSET: usize>(address: usize, first: u64, second: u64) {
    // SAFETY: the caller vouches for the addresses.
    unsafe {
        asm!("stp {}, {}, [{}, #{}]", in(reg) first, in(reg) second, in(reg) address, const OFFSET,
            options(nostack, preserves_flags));
    }
}

/// Stores 16 zero bytes at `address + OFFSET`.
///
/// # Safety
/// As for [`store`], for both words.
#[inline(always)]
pub(super) unsafe fn store_zero_pair<const OFFSET: usize>(address: usize) {
    // SAFETY: the caller vouches for the address.
    unsafe { asm!("stp xzr, xzr, [{}, #{}]", in(reg) address, const OFFSET, options(nostack, preserves_flags)) }
}

/// Zeroes the block of `address`: as many bytes as DCZID_EL0 says, naturally aligned. For ordering and coherency it is a
/// store to each of these bytes (Arm ARM DDI 0487, DC ZVA).
///
/// # Safety
/// As for [`store`], for the whole block. The MMU is on: with it off memory is Device memory, where this faults.
/// DCZID_EL0.DZP = 0.
#[inline(always)]
pub(super) unsafe fn dc_zva(address: usize) {
    // SAFETY: the caller vouches for the block.
    unsafe { asm!("dc zva, {}", in(reg) address, options(nostack, preserves_flags)) }
}

/// Waits for an event.
#[inline(always)]
pub(super) fn wfe() {
    aarch64_cpu::asm::wfe();
}

/// Sends an event to every PE.
#[inline(always)]
pub(super) fn sev() {
    aarch64_cpu::asm::sev();
}

/// Asks the debugger for `operation` with `parameter` (Arm semihosting). Without a debugger this is an exception: only
/// on request.
#[inline(always)]
pub(super) fn semihost(operation: u64, parameter: usize) -> u64 {
    let result;
    // SAFETY: the operations used (WRITE0, EXIT_EXTENDED) read memory of live references and write none.
    unsafe { asm!("hlt #0xf000", inout("x0") operation => result, in("x1") parameter, options(nostack)) }
    result
}
