//! What a barrier waits for, and what a TLBI invalidates.

use breakwater_trace::{Barrier, Operation};

/// How far a barrier or a TLBI reaches, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Domain {
    /// This PE.
    Own,
    /// The Inner Shareable domain.
    Inner,
    /// The Outer Shareable domain.
    Outer,
    /// The full system.
    System,
}

/// The domain of a barrier; reserved kinds act as SY.
pub(super) const fn domain(barrier: Barrier) -> Domain {
    match (barrier.crm & 3, barrier.crm >> 2 & 3) {
        (0, _) if !barrier.without_xs => Domain::System,
        (_, 0) => Domain::Outer,
        (_, 1) => Domain::Own,
        (_, 2) => Domain::Inner,
        _ => Domain::System,
    }
}

/// True for a barrier of loads and stores that reaches `least`.
pub(super) fn is_full(barrier: Barrier, least: Domain) -> bool {
    barrier.orders_everything() && domain(barrier) >= least
}

/// True for a barrier of stores, or of more, that reaches `least`.
pub(super) fn covers_stores(barrier: Barrier, least: Domain) -> bool {
    (barrier.orders_everything() || barrier.crm & 3 == 2) && domain(barrier) >= least
}

/// A TLBI of EL2 stage 1, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Invalidation {
    /// How far it reaches.
    pub(super) domain: Domain,
    /// First address and the last, inclusive, that it covers; nothing for all of them.
    span: Option<(u64, u64)>,
    /// Only the last level of the walk.
    last_level_only: bool,
    /// The one level that it invalidates, if the operand names one (TTL).
    level: Option<u8>,
    /// The nXS form.
    pub(super) without_xs: bool,
}

/// Bits of an address that is an operand, sign and all: 48 are enough here.
const VA: u64 = (1 << 48) - 1;

impl Invalidation {
    /// Decodes it; nothing for a TLBI of another regime.
    pub(super) fn decode(operation: Operation, operand: u64) -> Option<Self> {
        if !operation.invalidates_el2() {
            return None;
        }
        let Operation(encoding) = operation;
        let (domain, range) = match encoding.crm() {
            7 => (Domain::Own, false),
            3 => (Domain::Inner, false),
            1 => (Domain::Outer, false),
            6 => (Domain::Own, true),
            2 => (Domain::Inner, true),
            5 => (Domain::Outer, true),
            _ => return None,
        };
        let (span, level) = match (encoding.op2(), range) {
            (0, _) => (None, None),
            (_, false) => one(operand),
            (_, true) => many(operand)?,
        };
        let (last_level_only, without_xs) = (encoding.op2() == 5, encoding.crn() == 9);
        Some(Self { domain, span, last_level_only, level, without_xs })
    }

    /// True if it invalidates everything of the regime.
    pub(super) const fn is_all(&self) -> bool {
        self.span.is_none()
    }

    /// True if it removes what may be cached of an entry at `level` that translates `bytes` from `va` on: with its whole walk if the
    /// entry led on to a table (RVMSWQ).
    pub(super) fn covers(&self, va: u64, bytes: u64, level: u8, whole_walk: bool) -> bool {
        let Some((first, last)) = self.span else { return true };
        // One TLBI by address covers a whole block; a range has to meet it.
        let meets = first <= va + (bytes - 1) && va <= last;
        meets && !(whole_walk && self.last_level_only) && self.level.is_none_or(|only| !whole_walk && only == level)
    }

    /// True if `barrier` waits for it.
    pub(super) fn completed_by(&self, barrier: Barrier) -> bool {
        is_full(barrier, if self.domain == Domain::Own { Domain::Own } else { self.domain })
            && (!barrier.without_xs || self.without_xs)
    }
}

type SpanAndLevel = (Option<(u64, u64)>, Option<u8>);

/// VA\[55:12\] in bits 43 to 0; TTL in 47 to 44, of the 4 KiB granule (RXKMMX).
fn one(operand: u64) -> SpanAndLevel {
    let va = operand << 12 & VA;
    let level = (operand >> 46 & 3 == 1 && operand >> 44 & 3 != 0).then_some((operand >> 44 & 3) as u8);
    (Some((va, va | 0xfff)), level)
}

/// Base in bits 36 to 0, TTL in 38 to 37, NUM in 43 to 39, SCALE in 45 to 44, granule in 47 to 46: nothing if that is not 4 KiB.
fn many(operand: u64) -> Option<SpanAndLevel> {
    let (num, scale, ttl) = (operand >> 39 & 31, operand >> 44 & 3, operand >> 37 & 3);
    let first = (operand & ((1 << 37) - 1)) << 12 & VA;
    let pages = (num + 1) << (5 * scale + 1);
    (operand >> 46 & 3 == 1).then_some((Some((first, first + pages * 4096 - 1)), (ttl != 0).then_some(ttl as u8)))
}
