//! Data-cache lines, where memory is written past the cache and read through it, or the other way round.
//!
//! Out of reset a line may be in the cache, dirty, with anything in it: until it is invalidated, it may be evicted over what is stored
//! with the MMU off. After such a store a line from before may hide it until it is invalidated again.

use breakwater_trace::Operation;

use crate::maintenance::{Ordering, Reach};
use crate::regime::Controls;

use super::permission::{Permission, Permissions};

/// A DC is issued and waits for a DSB.
const INVALIDATE: u8 = 1;
const CLEAN: u8 = 2;
/// The invalidation comes after every store past the cache.
const REVEAL: u8 = 4;

/// A line that was stored to or maintained.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Line {
    base: u64,
    /// Words stored past the cache that a line from before may hide.
    hidden: u64,
    /// Words stored past the cache that a line from before may have been written over.
    lost: u64,
    /// Words stored into the cache and not cleaned to the point of coherency.
    dirty: u64,
    /// No cache holds the line dirty from before.
    is_clean: bool,
    /// The PE whose store past the cache is not ordered before later maintenance.
    unordered: Option<u32>,
    /// What waits for a DSB, and of which PE.
    pending: u8,
    maintainer: u32,
}

/// Every such line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lines {
    bytes: u64,
    lines: Vec<Line>,
    /// Bases of lines that wait for a barrier.
    waiting: Vec<u64>,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { bytes: 64, lines: Vec::new(), waiting: Vec::new() }
    }

    /// Lines are as small as the smallest of any PE.
    pub(super) fn set_bytes(&mut self, bytes: u16) {
        self.bytes = u64::from(bytes).max(16);
    }

    fn place(&self, pa: u64) -> (u64, u64) {
        (pa & !(self.bytes - 1), 1 << (pa % self.bytes / 8 % 64))
    }

    fn line(&mut self, base: u64) -> &mut Line {
        let at = match self.lines.binary_search_by_key(&base, |line| line.base) {
            Ok(at) => at,
            Err(at) => {
                let (is_clean, unordered) = (false, None);
                let line = Line { base, hidden: 0, lost: 0, dirty: 0, is_clean, unordered, pending: 0, maintainer: 0 };
                self.lines.insert(at, line);
                at
            }
        };
        &mut self.lines[at]
    }

    fn get(&self, base: u64) -> Option<&Line> {
        let at = self.lines.binary_search_by_key(&base, |line| line.base).ok()?;
        Some(&self.lines[at])
    }

    fn wait(&mut self, base: u64) {
        if let Err(at) = self.waiting.binary_search(&base) {
            self.waiting.insert(at, base);
        }
    }

    /// Whether a barrier changes anything.
    pub(super) const fn wait_for_barrier(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the word at `pa` is dirty already, and nothing waits.
    pub(super) fn is_dirty(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.dirty & word != 0 && line.pending == 0)
    }

    /// `pe` stores a word past the cache.
    pub(super) fn store_past(&mut self, pe: u32, pa: u64, permissions: Permissions) {
        let (base, word) = self.place(pa);
        let line = self.line(base);
        if (!line.is_clean || line.dirty != 0) && permissions.has(Permission::EvictDirtyLine) {
            line.lost |= word;
        } else {
            line.lost &= !word;
        }
        if permissions.has(Permission::HideBehindLine) {
            line.hidden |= word;
        }
        line.unordered = Some(pe);
        line.pending &= !REVEAL;
        self.wait(base);
    }

    /// A word is stored into the cache.
    pub(super) fn store_into(&mut self, pa: u64, permissions: Permissions) {
        if !permissions.has(Permission::MissDirtyLine) && !permissions.has(Permission::EvictDirtyLine) {
            return;
        }
        let (base, word) = self.place(pa);
        let line = self.line(base);
        line.dirty |= word;
        line.is_clean = false;
        line.pending &= !CLEAN;
    }

    /// DC by address.
    pub(super) fn maintain(
        &mut self,
        pe: u32,
        operation: Operation,
        pa: u64,
        skips_clean: bool,
        permissions: Permissions,
    ) {
        let (cleans, invalidates) = match operation.name() {
            Some("ivac") => (false, true),
            Some("civac") => (true, true),
            Some("cvac" | "cvap" | "cvadp") => (true, false),
            _ => return,
        };
        let (base, _) = self.place(pa);
        let line = self.line(base);
        if cleans && permissions.has(Permission::PushByClean) {
            line.lost |= line.hidden;
        }
        // An affected core may clean or not.
        if cleans && (invalidates || !skips_clean) {
            line.pending |= CLEAN;
        }
        if invalidates {
            line.pending |= if line.unordered.is_none() { INVALIDATE | REVEAL } else { INVALIDATE };
        }
        line.maintainer = pe;
        self.wait(base);
    }

    /// A DMB, or a DSB which also completes maintenance.
    pub(super) fn barrier(&mut self, pe: u32, barrier: &Ordering, is_dsb: bool) {
        let completes = is_dsb && barrier.is_full() && barrier.reach != Reach::Own;
        for base in std::mem::take(&mut self.waiting) {
            let line = self.line(base);
            if barrier.stores && line.unordered == Some(pe) {
                line.unordered = None;
            }
            if completes && line.maintainer == pe {
                line.complete();
            }
            if line.unordered.is_some() || line.pending != 0 {
                self.wait(base);
            }
        }
    }

    /// Whether a walk may come to harm by any line.
    pub(super) fn may_harm_walks(&self, controls: &Controls) -> bool {
        let is_cacheable = controls.cache_on() && controls.walks_cacheable();
        self.lines.iter().any(|line| !is_cacheable || line.lost | line.hidden != 0)
    }

    /// What a walk that reads the word at `pa` may find. Walks go through the cache if SCTLR_EL2.C and TCR_EL2 both say so.
    pub(super) fn harm_to_walk(&self, pa: u64, controls: &Controls) -> Option<&'static str> {
        if self.lines.is_empty() {
            return None;
        }
        if controls.cache_on() && controls.walks_cacheable() {
            return self.harm_to_read(pa);
        }
        self.misses(pa).then_some("a walk past the cache misses what was stored into it")
    }

    /// What a cacheable read of the word at `pa` may find.
    pub(super) fn harm_to_read(&self, pa: u64) -> Option<&'static str> {
        let (base, word) = self.place(pa);
        let line = self.get(base)?;
        match (line.lost & word != 0, line.hidden & word != 0) {
            (true, _) => Some("an older line may be written over what was stored past the cache"),
            (_, true) => Some("an older line may hide what was stored past the cache"),
            _ => None,
        }
    }

    /// Whether a read of the word at `pa` past the cache may miss what was stored into it.
    pub(super) fn misses(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.dirty & word != 0)
    }
}

impl Line {
    const fn complete(&mut self) {
        if self.pending & CLEAN != 0 {
            self.dirty = 0;
        }
        if self.pending & REVEAL != 0 {
            self.hidden = 0;
        }
        // What a line holds out of reset is unknown until it is invalidated: to clean it is not enough.
        self.is_clean |= self.pending & INVALIDATE != 0 && self.dirty == 0;
        self.pending = 0;
    }
}
