//! What is compared, and the limit: [`Bare`].

use crate::arena::{self, Arena, FRAME};
use crate::request::{START, Step, Verb};

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

const PAGE: u64 = 0x0040_0000_0000_075f;
const READ_ONLY: u64 = 1 << 7;

/// The limit: a loop that zeroes the tables of leaves and stores their descriptors, one 64-bit store each. It knows nothing and checks
/// nothing, has no table above the leaves', and its tables stand side by side, so that a descriptor's place is an addition.
#[derive(Debug)]
pub struct Bare {
    base: u64,
    zeroed_end_exclusive: u64,
}

impl Candidate for Bare {
    const NAME: &'static str = "bare stores";
    const NOTE: &'static str =
        "the limit: zeroes the leaves' tables and stores each descriptor once; no walk, no check, no maintenance";

    fn new(arena: &Arena) -> Self {
        Self { base: arena.base(), zeroed_end_exclusive: arena.base() }
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        let first = self.base + ((step.virt - START) >> step.leaf.shift()) * 8;
        let end_exclusive = first + 8 * step.leaves();
        let stride = 1 << step.leaf.shift();
        match step.verb {
            Verb::Unmap => (first..end_exclusive).step_by(8).for_each(|at| arena::store(at, 0)),
            Verb::Map => self.map(first, end_exclusive, step.output | PAGE, stride),
            Verb::Protect => arena::store_run(first, step.leaves(), step.output | PAGE | READ_ONLY, stride),
            Verb::Remap => arena::store_run(first, step.leaves(), step.output | PAGE, stride),
        }
        Ok(())
    }

    fn root(&self) -> Option<u64> {
        None
    }
}

impl Bare {
    /// Table by table: a table is zeroed just before it is filled.
    #[inline]
    fn map(&mut self, first: u64, end_exclusive: u64, mut descriptor: u64, stride: u64) {
        let mut at = first;
        while at < end_exclusive {
            let table_end = (at & !(FRAME - 1)) + FRAME;
            if table_end > self.zeroed_end_exclusive {
                arena::zero(table_end - FRAME);
                self.zeroed_end_exclusive = table_end;
            }
            let run_end = table_end.min(end_exclusive);
            let count = (run_end - at) / 8;
            arena::store_run(at, count, descriptor, stride);
            descriptor += count * stride;
            at = run_end;
        }
    }
}
