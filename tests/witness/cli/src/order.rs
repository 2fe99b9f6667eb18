//! What of a verdict rests on the order in which events arrived.
//!
//! Why it exists: the recorder writes events as its callbacks arrive. Within a CPU that is their order. Between CPUs it is what happened to happen this
//! time; another time the same code may run in another order, and the program knows only what it observed: a flag, a lock, a CPU that another
//! turned on. So the order between CPUs is taken from observed values alone. A violation that comes out in every order that fits them is
//! certain; one that does not rests on arrival order. What only another order shows, the boot merely got away with.
//!
//! * `observed` reads a recording as it arrives and finds what is known: which store a load's value came from, which call started a CPU.
//! * `history` is how it remembers the stores to a word.
//! * `graph` makes linear orders out of that, as different from each other as what is known allows.
//! * `weigh` has the oracle judge some of them.
//! * `recording` keeps what all of this needs while a boot is watched.
//!
//! What must hold: an edge is claimed only where nothing else can have been. One edge too few makes a verdict less certain than it is; one too
//! many would call certain what is chance.
//!
//! What it does not know: barriers, DSB after a broadcast TLBI included, order nothing between CPUs by themselves; an observed value orders
//! everything before the store with everything after the load, as code with the proper barriers may assume. Interrupts between CPUs and SEV
//! are not in a trace, nor is what devices store. DC ZVA is no store.

mod graph;
mod history;
mod observed;
mod recording;
#[cfg(test)]
mod tests;
mod weigh;

pub(crate) use self::observed::observed;
pub(crate) use self::recording::Recording;
pub use self::recording::{Lines, read};
pub(crate) use self::weigh::Effort;
pub use self::weigh::in_random_orders;

/// An event, by its line in the trace, and the CPU that it is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment {
    /// The CPU.
    pub cpu: u32,
    /// The line.
    pub line: u64,
}

/// One event was before another, as an observed value shows. It goes by lines, so that it still holds of a trace from which lines were
/// left out: what came before, with everything earlier of its CPU, was before the other and everything later of its CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Edge {
    /// The store, or the call.
    pub before: Moment,
    /// The load, or the start.
    pub after: Moment,
}
