//! What the facts do to the machine, one instruction a function: the only `unsafe` of the on-target tests.
//!
//! The functions are safe to call on purpose, although they take any address: a fact program owns the whole machine, and either the access
//! is of memory that it has taken for itself, or it must fault, or the run ends with `FACT FAILED` right after it.

use breakwater::addr::PhysAddr;
use breakwater_boot::el2::Faulted;
use core::arch::asm;

/// `ret`: what a call to data must never reach.
pub const RET: u32 = 0xd65f_03c0;

/// A page of `ret`: a call to its marked offset comes back, should the fetch be allowed.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct ReturningPage<T>(pub [T; 1024]);

/// Loads 64 bits from `address`.
#[inline(never)]
pub fn read(address: u64) -> u64 {
    let value;
    // SAFETY: a load changes nothing; where it may not be done, it faults, which is the fact (module head).
    unsafe { asm!("ldr {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags, readonly)) }
    value
}

/// Loads 64 bits from `address`, or says that nothing translates it. Every other fault ends the run.
///
/// # Errors
/// [`Faulted`], by a translation fault.
#[inline(never)]
pub fn read_or_fault(address: u64) -> Result<u64, Faulted> {
    // SAFETY: as for `read`.
    unsafe { breakwater_boot::el2::load_or_fault(address) }
}

/// Stores 64 bits at `address`, or says that nothing translates it or nobody may write there. Every other fault ends the run.
///
/// # Errors
/// [`Faulted`], by a translation or permission fault.
#[inline(never)]
pub fn write_or_fault(address: u64, value: u64) -> Result<(), Faulted> {
    // SAFETY: as for `write`.
    unsafe { breakwater_boot::el2::store_or_fault(address, value) }
}

/// Everything before is done, on every CPU where it matters to that; what follows is accessed and translated anew.
#[inline(never)]
pub fn synchronise() {
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) }
}

/// Says to whoever watches the instructions that nothing is owed: by reading VTTBR_EL2, which nothing here uses otherwise.
#[inline(never)]
pub fn claim_settled() {
    // SAFETY: reads a register that exists at EL2.
    unsafe { asm!("mrs {}, vttbr_el2", out(reg) _, options(nomem, nostack, preserves_flags)) }
}

/// Goes to EL1, to an address that stage 2, whose table of level 1 lies at `table` and is empty, does not map.
pub fn abort_at_el1(table: PhysAddr, address: u64) -> ! {
    const VTCR: u64 = 0x8002_3559; // 39 bits from level 1, 4 KiB granule, 40-bit output, walks cacheable and shared
    const VM: u64 = 1;
    const EL1H: u64 = 0x3c5;
    // SAFETY: nothing at EL1 runs, for nothing is mapped there; what comes back is an exception.
    unsafe {
        asm!(
            "msr vtcr_el2, {vtcr}",
            "msr vttbr_el2, {table}",
            "mrs {vtcr}, hcr_el2",
            "orr {vtcr}, {vtcr}, {vm}",
            "msr hcr_el2, {vtcr}",
            "msr spsr_el2, {el1h}",
            "msr elr_el2, {address}",
            "isb",
            "tlbi vmalls12e1",
            "dsb nsh",
            "isb",
            "eret",
            vtcr = in(reg) VTCR,
            table = in(reg) table.raw(),
            vm = in(reg) VM,
            el1h = in(reg) EL1H,
            address = in(reg) address,
            options(noreturn)
        )
    }
}

/// Uses what EL3 traps unless it was told otherwise: a key of pointer authentication and one of its instructions,
/// HFGRTR_EL2, HCRX_EL2 and ICC_SRE_EL2. For a CPU that has all of it.
pub fn use_what_el3_could_trap() {
    // SAFETY: reads registers, and computes a code that nobody looks at.
    unsafe {
        asm!(
            "mrs {0}, S3_0_C2_C1_0",   // APIAKeyLo_EL1
            "mrs {0}, S3_4_C1_C1_4",   // HFGRTR_EL2
            "mrs {0}, S3_4_C1_C2_2",   // HCRX_EL2
            "mrs {0}, S3_4_C12_C9_5",  // ICC_SRE_EL2
            ".inst 0x9ac03000",        // pacga x0, x0, x0
            out(reg) _,
            out("x0") _,
            options(nomem, nostack, preserves_flags)
        )
    }
}

/// The system counter, in ticks.
#[must_use]
pub fn counter() -> u64 {
    let ticks;
    // SAFETY: reads a register that exists at EL2, once what is before is done.
    unsafe { asm!("isb", "mrs {}, cntpct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) }
    ticks
}

/// Ticks of the system counter in a second, as firmware says.
#[must_use]
pub fn counter_frequency() -> u64 {
    let ticks;
    // SAFETY: reads a register that exists at EL2.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) }
    ticks
}

/// Stores 64 bits at `address`.
#[inline(never)]
pub fn write(address: u64, value: u64) {
    // SAFETY: memory that the program took, or a fault (module head).
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack, preserves_flags)) }
}

/// Calls `address`, where a `ret` must stand in case the fetch is allowed after all.
#[inline(never)]
pub fn call(address: u64) {
    // SAFETY: a fault, or a `ret` that comes straight back (module head).
    unsafe { asm!("blr {}", in(reg) address, clobber_abi("C")) }
}

/// Makes what was stored at `address` visible to fetches, so that only rights can stop them.
#[inline(never)]
pub fn publish_code(address: u64) {
    // SAFETY: cache maintenance by address; memory keeps its contents.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) address, options(nostack, preserves_flags))
    }
}

/// Where the hardware translates a read of `address` to, or `None` when it would fault: AT S1E2R, not our own walk.
#[inline(never)]
#[must_use]
pub fn translate(address: u64) -> Option<PhysAddr> {
    translated(address, || {
        // SAFETY: AT writes PAR_EL1 alone, and never faults on what it translates.
        unsafe { asm!("at s1e2r, {}", "isb", in(reg) address, options(nostack, preserves_flags)) }
    })
}

/// Where the hardware translates a write of `address` to, or `None` when it would fault: AT S1E2W.
#[inline(never)]
#[must_use]
pub fn translate_write(address: u64) -> Option<PhysAddr> {
    translated(address, || {
        // SAFETY: AT writes PAR_EL1 alone, and never faults on what it translates.
        unsafe { asm!("at s1e2w, {}", "isb", in(reg) address, options(nostack, preserves_flags)) }
    })
}

fn translated(address: u64, at: impl Fn()) -> Option<PhysAddr> {
    const FAILED: u64 = 1;
    const OUTPUT: u64 = 0x0000_ffff_ffff_f000;
    at();
    let result: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, par_el1", out(reg) result, options(nomem, nostack, preserves_flags)) }
    (result & FAILED == 0).then(|| PhysAddr::at(result & OUTPUT | address & 0xfff))
}

/// Points this CPU's exception stack, SP_EL0, at `address`.
pub fn set_exception_stack(address: u64) {
    // SAFETY: Rust runs on SP_EL2; SP_EL0 is used by the exception path alone, which is what the fact breaks.
    unsafe { asm!("msr sp_el0, {}", in(reg) address, options(nomem, nostack, preserves_flags)) }
}

/// Executes BRK with every register that a program may set holding its own number in each half: `0x000000NN_000000NN`.
pub fn break_with_known_registers() -> ! {
    // SAFETY: BRK is an exception that the image reports and that never returns, so no register needs to survive.
    unsafe {
        asm!(
            ".irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
            "movz x\\number, #\\number",
            "movk x\\number, #\\number, lsl #32",
            ".endr",
            "brk #0x2b2b",
            options(noreturn)
        )
    }
}

/// What the debugger gives as the program's command line (Arm semihosting), in `into`: empty where it gives none, or more than fits.
pub fn command_line(into: &mut [u8]) -> &[u8] {
    const SYS_GET_CMDLINE: u64 = 0x15;
    let mut block = [into.as_mut_ptr() as u64, into.len() as u64];
    let failed: u64;
    // SAFETY: the debugger writes no more than `into` holds, and how much that is to the block; both are borrowed for it.
    unsafe { asm!("hlt #0xf000", inout("x0") SYS_GET_CMDLINE => failed, in("x1") block.as_mut_ptr(), options(nostack)) }
    let bytes = if failed == 0 { block[1] as usize } else { 0 };
    into.get(..bytes).unwrap_or_default()
}
