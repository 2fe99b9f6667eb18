//! Policies: a trace replayed as one kind of core would live through it.
//!
//! The oracle's two engines say what the architecture forbids. This says who would have noticed: real cores cache more
//! or less, and a broken update crashes some and passes on others. A violation that no policy turns into a crash is
//! still a violation; a crash is always the consequence of one (or of a trace that does not tell all of the tables).
//!
//! A part is concrete: it holds exact entries, not sets of what may be held. Its TLB starts empty; stores reach walks,
//! register writes and TLBIs act at once. Accesses are `load`, `store`, DC ZVA and `fetch` with the MMU on; some parts
//! guess besides, and a guess enters what it translates but never crashes. Memory is what the trace declares and
//! stores; where a walk of the present tables meets unknown memory, the access is not judged.
//!
//! A crash is
//! * a TLB conflict: two entries of one PE match the address of an access. Entries of one span replace each other, so
//!   the two differ in size at least;
//! * a translation used that the tables no longer give, where it leads elsewhere: for loads and fetches, to bytes that
//!   are not known to be the same; or where the tables give none;
//! * a fault where the tables permit the access, or at an entry that the trace broke, though the recorded access went
//!   through.

mod cache;
mod memory;
mod part;
mod pe;
mod replay;
#[cfg(test)]
mod tests;

pub use part::Policy;
pub use replay::{Crash, Replay, replay, replay_lines};
