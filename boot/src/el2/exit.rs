//! How a run ends.

use super::{assembly, instruction, power};
use crate::console;
use breakwater::command_line::Exit;
use breakwater::refusal::Cause;

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
        Exit::Psci => power::system_off(),
        Exit::Park => {}
    }
    park()
}

/// Ends a refused run: through the debugger where the image was built for one, and with `cause` where one can be attached.
pub fn leave_refused(exit: Option<Exit>, cause: Cause) -> ! {
    match exit {
        Some(Exit::Psci) => power::system_off(),
        Some(Exit::Semihosting) => exit_to_debugger(Status::Refused),
        None if cfg!(feature = "earlycon-semihosting") => exit_to_debugger(Status::Refused),
        None | Some(Exit::Park) => {}
    }
    assembly::park_refused(cause as u64)
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
