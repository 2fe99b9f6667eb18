//! The trace format: what an EL2 image did to its translation regime, one event a line.
//!
//! A trace is the meeting point of whoever watches a boot (the QEMU plugin of `tests/witness/recorder`, a debugger, a
//! person with an editor) and whoever judges it. So the format says *what happened* and never what it means: no
//! event says that something is a table, a break or a fault. `tests/witness/oracle/README.md` documents the text form with
//! examples.
//!
//! * [`Record`] is one line, [`Step`] the ones that belong to an instruction, [`Event`] what that instruction did.
//! * [`names`] knows registers and maintenance operations by encoding and by name, [`decode()`] finds them in an
//!   instruction word.
//! * [`atomic`] knows what atomic instructions store.
//! * [`text`] parses a line or a whole file. Hostile input ends in a [`text::Malformed`] that carries line and column, never in a
//!   panic.

#![forbid(unsafe_code)]

pub mod atomic;
pub mod decode;
pub mod event;
pub mod names;
pub mod text;

pub use atomic::Atomic;
pub use decode::{Decoded, decode, releases};
pub use event::{Access, Barrier, Call, End, Event, Feature, MemoryKind, Record, Step};
pub use names::{Family, Operation, Register};
pub use text::{HEADER, MOST_CPUS, Malformed, Reader};

#[cfg(test)]
mod tests;
