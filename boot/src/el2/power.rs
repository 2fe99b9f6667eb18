//! Firmware, asked by PSCI to start and stop CPUs, and how a run ends.
//!
//! PSCI is called by SMC: at EL2 an HVC would come back to ourselves.

use super::instruction;
use crate::console;
use breakwater::addr::PhysAddr;
use breakwater::command_line::Exit;
use breakwater::refusal::Cause;
use breakwater::starting::psci_answer;
use core::sync::atomic::{AtomicBool, Ordering};
use smccc::Smc;
use smccc::psci::{self, AffinityState, LowestAffinityLevel};

/// Whether firmware answers SMC: set from the device tree, never after an entry at EL3.
#[unsafe(link_section = ".sealed.psci")]
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Lets [`cpu_on`] and the others issue SMCs: firmware below answers them.
pub(crate) fn allow() {
    AVAILABLE.store(true, Ordering::Relaxed);
}

/// Whether PSCI may be used.
#[must_use]
pub fn is_available() -> bool {
    AVAILABLE.load(Ordering::Relaxed)
}

/// Starts the CPU with `affinity` at `entry`, MMU off, with `context` in x0.
///
/// # Errors
/// What PSCI answered, by its name, or that there is none.
pub(super) fn cpu_on(affinity: u64, entry: PhysAddr, context: u64) -> Result<(), &'static str> {
    let answer = if is_available() {
        psci::cpu_on::<Smc>(affinity, entry.raw(), context)
    } else {
        Err(psci::error::Error::NotSupported)
    };
    answer.map_err(|error| psci_answer(error.into()))
}

/// Whether the CPU with `affinity` is off for good: it will not arrive any more.
pub(super) fn is_off(affinity: u64) -> bool {
    is_available() && matches!(psci::affinity_info::<Smc>(affinity, LowestAffinityLevel::All), Ok(AffinityState::Off))
}

/// Turns this CPU off, if PSCI can.
pub(super) fn cpu_off() {
    if is_available() {
        let _ = psci::cpu_off::<Smc>();
    }
}

/// Turns the machine off, if PSCI can.
pub fn system_off() {
    if is_available() {
        let _ = psci::system_off::<Smc>();
    }
}

unsafe extern "C" {
    /// refuse.S: leaves `cause` in x0 and at `refusal_cause`, and stops this CPU for good.
    safe fn park_refused(cause: u64) -> !;
}

/// What a debugger is told when the run ends: the process's exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Status {
    /// Booted, audited, reported.
    Success = 0,
    /// Refused, with a reason.
    Refused = 2,
    /// A promise was broken.
    Panic = 3,
    /// An exception that nobody expected.
    Exception = 4,
    /// The audit found a mismatch.
    AuditFailed = 5,
}

/// Arm semihosting: print one character.
const SYS_WRITEC: u64 = 0x03;
/// Arm semihosting: end the run with a status.
const SYS_EXIT_EXTENDED: u64 = 0x20;
/// The reason "the application ended".
const APPLICATION_EXIT: u64 = 0x20026;

/// Ends the run as `exit` asks.
pub fn leave(exit: Exit, status: Status) -> ! {
    match exit {
        Exit::Semihosting => exit_to_debugger(status),
        Exit::Psci => system_off(),
        Exit::Park => {}
    }
    park()
}

/// Ends a refused run: through the debugger where the image was built for one, and with `cause` where one can be
/// attached.
pub fn leave_refused(exit: Option<Exit>, cause: Cause) -> ! {
    match exit {
        Some(Exit::Psci) => system_off(),
        Some(Exit::Semihosting) => exit_to_debugger(Status::Refused),
        None if cfg!(feature = "earlycon-semihosting") => exit_to_debugger(Status::Refused),
        None | Some(Exit::Park) => {}
    }
    park_refused(cause as u64)
}

/// Stops this CPU for good.
pub fn park() -> ! {
    loop {
        instruction::wfe();
    }
}

/// Prints `text` on the debugger's console. Without a debugger this is an exception.
pub fn say_to_debugger(byte: u8) {
    let _ = instruction::semihost(SYS_WRITEC, (&raw const byte) as usize);
}

/// Shows what was printed before the console was known, where the image was built to say it to a debugger.
pub fn say_what_is_kept() {
    if !console::is_known() && cfg!(feature = "earlycon-semihosting") {
        console::drain_to(say_to_debugger);
    }
}

fn exit_to_debugger(status: Status) {
    let block = [APPLICATION_EXIT, status as u64];
    let _ = instruction::semihost(SYS_EXIT_EXTENDED, (&raw const block) as usize);
}
