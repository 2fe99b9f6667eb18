//! The console's registers, once the fixmap maps them.

use crate::console;
use breakwater::addr::VirtAddr;
use breakwater::uart::{Register, Registers, Uart, Width};
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::ReadWrite;
use spin::Once;

/// How the console sends, and where its registers are mapped.
#[unsafe(link_section = ".sealed.console")]
static CONSOLE: Once<(Uart, Mapped)> = Once::new();

static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Sends what is printed to `uart`, whose registers are mapped at `registers` as Device memory, for good.
pub(crate) fn use_uart(uart: Uart, registers: VirtAddr) {
    let (uart, registers) = CONSOLE.call_once(|| (uart, Mapped(registers)));
    uart.start(&mut registers.clone());
    console::install(send);
}

/// Sends one byte, waiting while the transmitter is full, though not for ever.
fn send(byte: u8) {
    let Some((uart, registers)) = CONSOLE.get() else { return };
    uart.send(&mut registers.clone(), byte, &IS_STUCK);
}

/// Registers that `use_uart` was given.
#[derive(Clone, Debug)]
struct Mapped(VirtAddr);

impl Mapped {
    fn register<T>(&self, register: Register) -> Option<UniqueMmioPointer<'_, ReadWrite<T>>> {
        let pointer = NonNull::new((self.0.raw() + u64::from(register.offset)) as *mut ReadWrite<T>)?;
        // SAFETY: `use_uart` was given a Device mapping that stays, of registers that this one is within and aligned
        // in (`Uart::of`); only this module uses it, and each use is one access. CPUs that print at once may
        // interleave theirs: the device serialises them.
        Some(unsafe { UniqueMmioPointer::new(pointer) })
    }
}

impl Registers for Mapped {
    fn load(&mut self, register: Register) -> u32 {
        match register.width {
            Width::Byte => self.register::<u8>(register).map_or(0, |mut at| at.read().into()),
            Width::Half => self.register::<u16>(register).map_or(0, |mut at| at.read().into()),
            Width::Word => self.register::<u32>(register).map_or(0, |mut at| at.read()),
        }
    }

    fn store(&mut self, register: Register, value: u32) {
        match register.width {
            Width::Byte => self.register(register).into_iter().for_each(|mut at| at.write(value as u8)),
            Width::Half => self.register(register).into_iter().for_each(|mut at| at.write(value as u16)),
            Width::Word => self.register(register).into_iter().for_each(|mut at| at.write(value)),
        }
    }
}
