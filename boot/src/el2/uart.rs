//! The console's registers, once the fixmap maps them; and those of the UART that the image was built to speak on,
//! which the first tables map already.

use crate::console;
use breakwater::addr::{PAGE_BYTES, PhysSpan, VirtAddr};
use breakwater::audit::Declared;
use breakwater::earlycon::Earlycon;
use breakwater::layout::FIXMAP_EARLYCON;
use breakwater::regions::slots;
use breakwater::uart::{Register, Registers, STEPS, Step, Uart, Width};
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::ReadWrite;
use spin::Once;
use static_assertions::const_assert;

/// The UART that this image was built to speak on: the environment variable `BREAKWATER_EARLYCON` when it was compiled.
pub(super) const EARLYCON: Option<Earlycon> = match option_env!("BREAKWATER_EARLYCON") {
    None => None,
    Some(text) => match Earlycon::parse(text) {
        Ok(earlycon) => Some(earlycon),
        Err(_) => panic!("BREAKWATER_EARLYCON is KIND@ADDRESS or KIND@ADDRESS,shift,width: breakwater::earlycon"),
    },
};
const_assert!(EARLYCON.is_none() || !cfg!(feature = "earlycon-semihosting"));

/// Where its first register is mapped.
pub(super) const EARLY_REGISTERS: VirtAddr = match EARLYCON {
    None => FIXMAP_EARLYCON.start(),
    Some(Earlycon { registers, .. }) => VirtAddr::at(FIXMAP_EARLYCON.start().raw() + registers.raw() % PAGE_BYTES),
};

/// How it sends, for refuse.S, which has neither stack nor pointers. No linker keeps it in an image without one.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.boot.earlycon_steps")]
static earlycon_steps: [Step; STEPS] = match EARLYCON {
    None => [Step { what: Step::END, offset: 0, mask: 0, value: 0 }; STEPS],
    Some(earlycon) => earlycon.uart.steps(),
};

/// Says on it what is printed, where the image has one: from the first tables on.
#[inline(always)] // nothing is left of it in an image without one
pub(super) fn use_earlycon() {
    if let Some(earlycon) = EARLYCON {
        earlycon.uart.start(&mut Mapped(EARLY_REGISTERS));
        console::install_early(send_early);
    }
}

fn send_early(byte: u8) {
    let Some(earlycon) = EARLYCON else { return };
    earlycon.uart.send(&mut Mapped(EARLY_REGISTERS), byte, &IS_STUCK);
}

/// Its page, which each root of this image maps.
pub(crate) const fn earlycon_page() -> Option<Declared> {
    match EARLYCON {
        None => None,
        Some(earlycon) => Some(slots::earlycon(earlycon.page())),
    }
}

/// Whether `uart`, whose registers are at `registers`, is the one that speaks already.
pub(crate) fn is_earlycon(uart: Uart, registers: PhysSpan) -> bool {
    EARLYCON == Some(Earlycon { uart, registers: registers.start() })
}

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

/// Registers that `use_uart` was given, or those at [`EARLY_REGISTERS`].
#[derive(Clone, Debug)]
struct Mapped(VirtAddr);

impl Mapped {
    fn register<T>(&self, register: Register) -> Option<UniqueMmioPointer<'_, ReadWrite<T>>> {
        let pointer = NonNull::new((self.0.raw() + u64::from(register.offset)) as *mut ReadWrite<T>)?;
        // SAFETY: `use_uart` was given a Device mapping that stays, of registers that this one is within and aligned
        // in (`Uart::of`); so is FIXMAP_EARLYCON, which tables.S and phases.rs map; only this module uses it, and each
        // use is one access. CPUs that print at once may
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
