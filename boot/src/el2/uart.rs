//! The PL011's registers, once the fixmap maps them.

use crate::console;
use arm_pl011_uart::{PL011Registers, Uart};
use breakwater::addr::VirtAddr;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use safe_mmio::UniqueMmioPointer;

/// Where the registers are mapped.
#[unsafe(link_section = ".sealed.console")]
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Sends what is printed to the PL011 whose registers are mapped at `registers` as Device memory, for good.
pub(crate) fn use_pl011(registers: VirtAddr) {
    REGISTERS.store(registers.raw(), Ordering::Relaxed);
    console::install(send);
}

/// Sends one byte, waiting while the transmitter is full.
fn send(byte: u8) {
    let Some(pointer) = NonNull::new(REGISTERS.load(Ordering::Relaxed) as *mut PL011Registers) else { return };
    // SAFETY: `use_pl011` was given a Device mapping that stays; only this function uses it, and each use ends with the call. CPUs that
    // print at once may interleave bytes: each access is one register, which the device serialises.
    let registers = unsafe { UniqueMmioPointer::new(pointer) };
    let mut uart = Uart::new(registers);
    while uart.is_tx_fifo_full() {}
    uart.write_word(byte);
}
