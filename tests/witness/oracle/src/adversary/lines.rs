//! Data-cache lines, where memory is written past the cache and read through it, or the other way round.
//!
//! Out of reset a line may be in the cache, dirty, with anything in it: until it is invalidated, it may be evicted over what is stored
//! with the MMU off. After such a store a line from before may hide it until it is invalidated again.

use breakwater_trace::Operation;

use super::permission::{Permission, Permissions};
use crate::maintenance::{Ordering, Reach};

/// How an access, or a walk, goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Route {
    /// Through the data caches.
    Cached,
    /// Past them.
    Past,
}

impl Route {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Cached => Self::Past,
            Self::Past => Self::Cached,
        }
    }
}

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
    /// No cache holds the line dirty, but for these.
    is_clean: bool,
    /// Words stored past the cache, the last by this PE, that are not ordered before later maintenance.
    unordered: u64,
    storer: u32,
    /// What a DC of this PE, which waits for a DSB, cleans, and from what it takes away what hides it.
    maintainer: u32,
    cleans: u64,
    reveals: u64,
    invalidates: bool,
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
                self.lines.insert(at, Line::new(base));
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

    /// Whether no line was stored to or maintained.
    pub(super) const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a barrier changes anything.
    pub(super) const fn wait_for_barrier(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether to store the word at `pa` into the cache changes nothing.
    pub(super) fn is_dirty(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.dirty & word != 0 && !line.is_clean && !line.is_pending())
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
        (line.unordered, line.storer) = (line.unordered | word, pe);
        line.reveals &= !word;
        self.wait(base);
    }

    /// A word is stored into the cache.
    /// Returns the words over which the line, now dirty, may be written with what it held before.
    pub(super) fn store_into(&mut self, pa: u64, permissions: Permissions) -> Vec<u64> {
        if !permissions.has(Permission::MissDirtyLine) && !permissions.has(Permission::EvictDirtyLine) {
            return Vec::new();
        }
        let (base, word) = self.place(pa);
        let line = self.line(base);
        line.dirty |= word;
        // Whatever the line held of this word before is gone.
        line.hidden &= !word;
        line.lost &= !word;
        line.is_clean = false;
        line.cleans &= !word;
        let mixed = if permissions.has(Permission::EvictDirtyLine) { line.hidden } else { 0 };
        line.lost |= mixed;
        words_of(base, mixed).collect()
    }

    /// DC by address. Returns the words over which a clean may have pushed what the line held before.
    pub(super) fn maintain(
        &mut self,
        pe: u32,
        operation: Operation,
        pa: u64,
        skips_clean: bool,
        permissions: Permissions,
    ) -> Vec<u64> {
        let (cleans, invalidates) = match operation.name() {
            Some("ivac") => (false, true),
            Some("civac") => (true, true),
            Some("cvac" | "cvap" | "cvadp") => (true, false),
            _ => return Vec::new(),
        };
        let (base, _) = self.place(pa);
        let line = self.line(base);
        let pushed = if cleans && permissions.has(Permission::PushByClean) { line.hidden } else { 0 };
        line.lost |= pushed;
        // An affected core may clean or not.
        if cleans && (invalidates || !skips_clean) {
            line.cleans |= line.dirty;
        }
        if invalidates {
            line.invalidates = true;
            line.reveals |= line.hidden & !line.unordered;
        }
        line.maintainer = pe;
        self.wait(base);
        words_of(base, pushed).collect()
    }

    /// A DMB, or a DSB which also completes maintenance. Returns the words that those who go this way now see.
    pub(super) fn barrier(&mut self, pe: u32, barrier: &Ordering, is_dsb: bool) -> Vec<(u64, Route)> {
        let is_full = barrier.is_full() && barrier.reach != Reach::Own;
        let (orders, completes) = (is_full || (is_dsb && barrier.stores), is_dsb && is_full);
        let mut seen = Vec::new();
        for base in std::mem::take(&mut self.waiting) {
            let line = self.line(base);
            if orders && line.storer == pe {
                line.unordered = 0;
            }
            if completes && line.maintainer == pe {
                let (hidden, dirty) = (line.hidden, line.dirty);
                line.complete();
                seen.extend(words_of(base, hidden & !line.hidden).map(|pa| (pa, Route::Cached)));
                seen.extend(words_of(base, dirty & !line.dirty).map(|pa| (pa, Route::Past)));
            }
            if line.unordered != 0 || line.is_pending() {
                self.wait(base);
            }
        }
        seen
    }

    /// What a walk that goes this way, and reads the word at `pa`, may find.
    pub(super) fn harm_to_walk(&self, pa: u64, way: Route) -> Option<&'static str> {
        match way {
            Route::Cached => self.harm_to_read(pa),
            Route::Past => self.misses(pa).then_some("a walk past the cache misses what was stored into it"),
        }
    }

    /// Whether an older line may be written over what was stored past the cache at `pa`.
    pub(super) fn loses(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.lost & word != 0)
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

    /// Whether the line of `pa` holds anything that was stored into the cache.
    pub(super) fn is_line_dirty(&self, pa: u64) -> bool {
        self.get(self.place(pa).0).is_some_and(|line| line.dirty != 0)
    }

    /// Whether a read of the word at `pa` past the cache may miss what was stored into it.
    pub(super) fn misses(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.dirty & word != 0)
    }
}

/// The addresses of the words of a set, in the line at `base`.
fn words_of(base: u64, words: u64) -> impl Iterator<Item = u64> {
    (0..64).filter(move |word| words >> word & 1 != 0).map(move |word| base + 8 * word)
}

impl Line {
    const fn new(base: u64) -> Self {
        let (hidden, lost, dirty, is_clean, unordered, storer) = (0, 0, 0, false, 0, 0);
        let (maintainer, cleans, reveals, invalidates) = (0, 0, 0, false);
        Self { base, hidden, lost, dirty, is_clean, unordered, storer, maintainer, cleans, reveals, invalidates }
    }

    const fn is_pending(&self) -> bool {
        self.cleans | self.reveals != 0 || self.invalidates
    }

    const fn complete(&mut self) {
        self.dirty &= !self.cleans;
        self.hidden &= !self.reveals;
        // What a line holds out of reset is unknown until it is invalidated: to clean it is not enough.
        self.is_clean |= self.invalidates;
        (self.cleans, self.reveals, self.invalidates) = (0, 0, false);
    }
}
