//! The end of every unexpected exception and every panic: say what happened, and stop. Takes no lock and never returns.

use super::cpu;
use super::phys_to_virt::tables_in_force;
use super::power::{self, Status};
use crate::console;
use breakwater::addr::VirtAddr;
use breakwater::fault::Syndrome;
use breakwater::walk;
use core::panic::PanicInfo;
use static_assertions::const_assert_eq;

/// What vectors.S saves, at the top of the exception stack.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ExceptionFrame {
    /// x0 to x30.
    registers: [u64; 31],
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
    sp: u64,
}

/// Bytes of an [`ExceptionFrame`]; vectors.S stores at the offsets of its fields.
pub(super) const EXCEPTION_FRAME_BYTES: usize = size_of::<ExceptionFrame>();
const_assert_eq!(EXCEPTION_FRAME_BYTES, 288);
const_assert_eq!(core::mem::offset_of!(ExceptionFrame, elr), 248);
const_assert_eq!(core::mem::offset_of!(ExceptionFrame, spsr), 256);
const_assert_eq!(core::mem::offset_of!(ExceptionFrame, far), 272);

/// The first of the vectors for exceptions from a lower EL.
const FROM_LOWER_EL: u64 = 8;

macro_rules! say {
    ($($argument:tt)*) => {
        console::print_unlocked(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// vectors.S, vector_common: on this CPU's exception stack.
#[unsafe(no_mangle)]
extern "C" fn breakwater_exception(vector: u64, frame: &ExceptionFrame) -> ! {
    let kind = ["synchronous", "IRQ", "FIQ", "SError"][(vector & 3) as usize];
    let from = if vector < FROM_LOWER_EL { "EL2" } else { "a lower EL" };
    say!("breakwater: exception ({kind}, from {from}) on CPU {}", cpu::current_index());
    say!("  {}", Syndrome(frame.esr));
    say!("  ELR {:#x}  FAR {:#x}  SPSR {:#x}  SP {:#x}", frame.elr, frame.far, frame.spsr, frame.sp);
    if vector < FROM_LOWER_EL {
        if let Some(stack) = cpu::guarded_stack(frame.far) {
            say!("  stack guard hit: FAR lies in the guard page of {stack}");
        }
        say_walk(frame.far);
    } else {
        say!("  no walk: the address is of a lower EL's own translation");
    }
    for (first, four) in frame.registers.chunks(4).enumerate() {
        for (second, value) in four.iter().enumerate() {
            console::print_unlocked(format_args!("  x{:<2} {value:#018x}", 4 * first + second));
        }
        console::print_unlocked(format_args!("\n"));
    }
    stop(Status::Exception)
}

/// The walk of `address` through the tables in force, level by level.
fn say_walk(address: u64) {
    let (Some(virt), Some((root, phys_to_virt))) = (VirtAddr::new(address), tables_in_force()) else {
        say!("  no walk: the address has more than 48 bits, or the tables cannot be reached yet");
        return;
    };
    // One line a level.
    console::print_unlocked(format_args!("{}", walk::walk(&phys_to_virt, root, virt)));
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("breakwater: panic on CPU {}: {}", cpu::current_index(), info.message());
    if let Some(location) = info.location() {
        say!("  at {location}");
    }
    stop(Status::Panic)
}

fn stop(status: Status) -> ! {
    power::say_what_is_kept();
    power::leave(super::entry::exit(), status)
}
