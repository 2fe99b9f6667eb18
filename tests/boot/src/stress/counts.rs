//! What one CPU did.

use super::shadow::Seen;
use breakwater::mapper::Cost;
use core::fmt;
use core::ops::AddAssign;

/// Kinds of requests, as the counts name them.
pub(super) const KINDS: [&str; 6] = ["map", "unmap", "protect", "remap", "split", "merge"];

/// What one CPU did, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Requests that were done, by kind.
    pub(super) requests: [u64; KINDS.len()],
    /// Audits between two requests.
    pub(super) audits: u64,
    /// Requests that had to be refused, and were.
    pub(super) refused: u64,
    /// Pages of all requests that were done.
    pub(super) pages: u64,
    /// Requests that covered a block or a contiguous run in part.
    pub(super) cuts: u64,
    /// Frames that became tables.
    pub(super) tables: u64,
    /// Tables that were freed.
    pub(super) freed: u64,
    /// Writes through a page under the lock, each read back by way of the directmap.
    pub(super) stamps: u64,
    /// Reads that showed the right value.
    pub(super) reads: u64,
    /// Writes without a lock, to pages that may be written.
    pub(super) writes: u64,
    /// Permission faults of such writes, to pages that may not.
    pub(super) denied: u64,
    /// Faults where nothing was mapped before, or nothing was after.
    pub(super) nothing_there: u64,
    /// Faults inside a span being broken, on a page that is mapped before and after: each was tried again.
    pub(super) retried: u64,
    /// Accesses that more than one edge of a request passed by: each was tried again.
    pub(super) unknown: u64,
}

impl Counts {
    /// Nothing done.
    pub(super) const NONE: Self = Self {
        requests: [0; KINDS.len()],
        audits: 0,
        refused: 0,
        pages: 0,
        cuts: 0,
        tables: 0,
        freed: 0,
        stamps: 0,
        reads: 0,
        writes: 0,
        denied: 0,
        nothing_there: 0,
        retried: 0,
        unknown: 0,
    };

    /// Counts an access that was right.
    pub(super) fn right(&mut self, seen: Seen) {
        match seen {
            Seen::Written => self.writes += 1,
            Seen::Denied => self.denied += 1,
            _ => self.reads += 1,
        }
    }

    /// Counts a request that was done, of so many pages.
    pub(super) fn done(&mut self, kind: usize, pages: usize, cuts: bool, cost: &Cost) {
        self.requests[kind] += 1;
        self.pages += pages as u64;
        self.cuts += u64::from(cuts);
        self.tables += cost.frames;
        self.freed += cost.freed;
    }

    /// Requests that were done.
    pub(super) fn all_requests(&self) -> u64 {
        self.requests.iter().sum()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests.iter_mut().zip(other.requests).for_each(|(mine, more)| *mine += more);
        self.audits += other.audits;
        self.refused += other.refused;
        self.pages += other.pages;
        self.cuts += other.cuts;
        self.tables += other.tables;
        self.freed += other.freed;
        self.stamps += other.stamps;
        self.reads += other.reads;
        self.writes += other.writes;
        self.denied += other.denied;
        self.nothing_there += other.nothing_there;
        self.retried += other.retried;
        self.unknown += other.unknown;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests (", self.all_requests())?;
        for (kind, count) in KINDS.iter().zip(self.requests) {
            write!(f, "{count} {kind}, ")?;
        }
        write!(f, "{} pages, {} cut a block or run, ", self.pages, self.cuts)?;
        write!(f, "{} tables made, {} freed), ", self.tables, self.freed)?;
        write!(f, "{} audits, ", self.audits)?;
        write!(f, "{} refused, {} written and read back", self.refused, self.stamps)?;
        write!(f, "; {} reads, {} writes, {} writes denied", self.reads, self.writes, self.denied)?;
        write!(f, ", {} faults where nothing is mapped", self.nothing_there)?;
        write!(f, ", {} faults in a break retried, {} accesses not judged", self.retried, self.unknown)
    }
}
