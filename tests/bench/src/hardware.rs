//! Barriers and TLB maintenance on a host: each is counted, and costs every candidate the same.
//!
//! A DSB waits for the stores before it; the host's instruction that does most nearly that is a full fence, and so a DSB is one here. It
//! costs some tens of cycles and lets no request overlap the next one. TLBI and ISB have no counterpart, and cost next to nothing.
//!
//! The counts are static because a peer's hooks are functions without a receiver. One thread counts at a time: whoever holds the arena.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};

static TLBIS: AtomicU64 = AtomicU64::new(0);
static DSBS: AtomicU64 = AtomicU64::new(0);
static ISBS: AtomicU64 = AtomicU64::new(0);

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Maintenance {
    /// TLBI instructions.
    pub tlbis: u64,
    /// DSB instructions.
    pub dsbs: u64,
    /// ISB instructions.
    pub isbs: u64,
}

/// Load and store, not one atomic operation: the cost of an instruction that the host does not have should be small.
#[inline(always)]
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A TLBI with this operand.
#[inline(always)]
pub fn tlbi(operand: u64) {
    black_box(operand);
    count(&TLBIS);
}

/// A DSB of any kind: the host's full fence.
#[inline(always)]
pub fn dsb() {
    fence(Ordering::SeqCst);
    count(&DSBS);
}

/// An ISB.
#[inline(always)]
pub fn isb() {
    count(&ISBS);
}

/// What was done since the process began.
#[must_use]
pub fn done() -> Maintenance {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Maintenance { tlbis: read(&TLBIS), dsbs: read(&DSBS), isbs: read(&ISBS) }
}

impl std::ops::Sub for Maintenance {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { tlbis: self.tlbis - before.tlbis, dsbs: self.dsbs - before.dsbs, isbs: self.isbs - before.isbs }
    }
}
