//! What the programs of tests/boot share: facts about the booted image, each in a run of its own under QEMU.
//!
//! A program has one fact or several, of which the debugger names one. It boots, says what it is about to do, and does it. Where a fault is the fact, the image's own exception path says so and ends
//! the run with status 4: facts.toml holds the lines that must appear. A fault that does not come is a line `FACT FAILED: ...` and
//! status 3. A fact that needs no fault ends in a line `fact holds: ...` and status 0.
//!
//! What must hold: a program judges by what the hardware does (a load, a store, a fetch, a translation by AT), not by what the manager
//! believes. All `unsafe` is in probe.rs.

#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
mod booted;
#[cfg(target_os = "none")]
pub mod probe;
pub mod stress;

#[cfg(target_os = "none")]
pub use booted::{Booted, overflow_stack};
#[cfg(target_os = "none")]
use breakwater_boot::el2::Start;

/// An offset within a page that no other access of a program uses: a FAR that ends in it is the fact's own.
pub const MARKED_OFFSET: u64 = 0x5a8;

/// What every program needs.
#[cfg(target_os = "none")]
pub mod prelude {
    pub use crate::{Booted, MARKED_OFFSET, overflow_stack, probe};
    pub use breakwater::addr::{PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
    pub use breakwater_boot::el2::Start;
    pub use breakwater_boot::line as say;
}

/// A program that boots and then runs a block, which has the machine under the name it gives and does not return. On a host the program
/// only says what it is.
#[macro_export]
macro_rules! fact {
    (|$booted:ident| $body:block) => {
        breakwater_boot::entry!(fact);

        #[cfg(target_os = "none")]
        fn fact(start: breakwater_boot::el2::Start) -> ! {
            #[allow(unused_imports, reason = "not every fact needs all of it")]
            use $crate::prelude::*;
            let $booted = Booted::after_boot(start);
            $body
        }
    };
}

/// A program of several facts: functions of its module `facts` that have the machine as assembly leaves it, and do not return.
#[macro_export]
macro_rules! facts {
    ($($fact:ident),+ $(,)?) => {
        breakwater_boot::entry!(fact);

        #[cfg(target_os = "none")]
        fn fact(start: breakwater_boot::el2::Start) -> ! {
            $crate::run(&[$((stringify!($fact), facts::$fact)),+], start)
        }
    };
}

/// A fact: its name, and the function that shows it.
#[cfg(target_os = "none")]
pub type Fact = (&'static str, fn(Start) -> !);

/// Runs the one of `facts` that the debugger names: it is there before boot, as some facts are.
///
/// # Panics
/// It names none of them: no fact is shown.
#[cfg(target_os = "none")]
pub fn run(facts: &[Fact], start: Start) -> ! {
    let mut name = [0; 64];
    let name = probe::command_line(&mut name);
    match facts.iter().find(|(fact, _)| fact.as_bytes() == name) {
        Some((_, show)) => show(start),
        None => panic!("FACT FAILED: no fact of this program is `{}`", breakwater::command_line::Lossy(name)),
    }
}
