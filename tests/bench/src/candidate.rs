//! What is compared.

use crate::arena::Arena;
use crate::request::Step;

/// Why a candidate does not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub String);

/// A page-table manager, or what stands for one.
pub trait Candidate: Sized {
    /// Its name in tables.
    const NAME: &'static str;
    /// What it does not do that the request needs, and what it does beyond.
    const NOTE: &'static str;

    /// Empty tables in `arena`, whose frames are all free.
    fn new(arena: &Arena) -> Self;

    /// Does `step`, or refuses.
    ///
    /// # Errors
    /// [`Refused`].
    fn step(&mut self, step: &Step) -> Result<(), Refused>;

    /// Where its root table is; `None` for what has no tables above the leaves.
    fn root(&self) -> Option<u64>;
}
