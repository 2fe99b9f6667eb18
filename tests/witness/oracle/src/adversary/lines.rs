//! Data-cache lines, where memory is written past the cache and read through it, or the other way round.
//!
//! Out of reset a line may be in the cache, dirty, with anything in it: until it is invalidated, it may be evicted over what is stored
//! with the MMU off. After such a store a line from before may hide it until it is invalidated again.

use breakwater_trace::Operation;

use super::permission::{Permission, Permissions};
use crate::maintenance::{Ordering, Reach, SetAndWay};

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
    /// Whole caches that are being gone through by set and way.
    rounds: Vec<Round>,
    /// No cache holds any line dirty that is not among these.
    is_empty_else: bool,
    /// Levels of caches that there are, as far as anybody has shown.
    deepest: u8,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { bytes: 64, lines: Vec::new(), waiting: Vec::new(), rounds: Vec::new(), is_empty_else: false, deepest: 0 }
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
                self.lines.insert(at, Line { is_clean: self.is_empty_else, ..Line::new(base) });
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
        !self.waiting.is_empty() || !self.rounds.is_empty()
    }

    /// Whether to store the word at `pa` into the cache changes nothing.
    pub(super) fn is_dirty(&self, pa: u64) -> bool {
        let (base, word) = self.place(pa);
        self.get(base).is_some_and(|line| line.dirty & word != 0 && !line.is_clean && !line.is_pending())
    }

    /// `pe` stores a word past the cache.
    pub(super) fn store_past(&mut self, pe: u32, pa: u64, permissions: Permissions) {
        let (base, word) = self.place(pa);
        self.rounds.iter_mut().for_each(|round| round.miss(base, word));
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
        self.rounds.iter_mut().for_each(|round| round.miss(base, word));
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
        if completes {
            self.rounds.iter_mut().filter(|round| round.pe == pe).for_each(|round| round.is_over = true);
        }
        seen
    }

    /// DC by set and way. Returns the words over which a clean may have pushed what a line held before.
    pub(super) fn go_on(&mut self, pe: u32, operation: Operation, operand: u64, permissions: Permissions) -> Vec<u64> {
        let cleans = operation.name() != Some("isw");
        let mut pushed = Vec::new();
        if cleans && permissions.has(Permission::PushByClean) {
            for line in &mut self.lines {
                line.lost |= line.hidden;
                pushed.extend(words_of(line.base, line.hidden));
            }
        }
        let Some(SetAndWay { level, line }) = SetAndWay::decode(operand) else { return pushed };
        let known = self.rounds.iter().position(|round| (round.pe, round.operation) == (pe, operation));
        let mut round = known.map_or_else(|| Round::new(pe, operation), |at| self.rounds.swap_remove(at));
        // Whatever comes back to where it was, or goes up again, leaves behind it what is to be done once more.
        let again = round.steps.iter().position(|step| *step == (level, line));
        match again {
            Some(_) if round.steps.iter().all(|step| step.0 >= level) => round = Round::new(pe, operation),
            Some(_) => round.steps.retain(|step| step.0 < level),
            None => round.steps.retain(|step| step.0 <= level),
        }
        if round.steps.is_empty() || round.steps.iter().all(|step| step.0 > level) {
            round.missed = Vec::new();
            let unordered: Vec<(u64, u64)> = self.lines.iter().map(|line| (line.base, line.unordered)).collect();
            unordered.into_iter().filter(|(_, words)| *words != 0).for_each(|(base, words)| round.miss(base, words));
        }
        round.steps.push((level, line));
        round.steps.sort_unstable();
        round.is_over = false;
        self.deepest = self.deepest.max(level);
        self.rounds.push(round);
        self.rounds.sort_unstable();
        pushed
    }

    /// A PE that has its caches on moves lines about.
    pub(super) fn abandon(&mut self, pe: u32) {
        self.rounds.retain(|round| round.pe != pe);
    }

    /// Whether any PE goes through its caches.
    pub(super) const fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Whether a barrier has ended a round.
    pub(super) fn is_round_over(&self) -> bool {
        self.rounds.iter().any(|round| round.is_over)
    }

    /// The rounds that are over, and whole, count where `is_alone` says that no other PE holds lines. Returns the words
    /// that those who go this way now see.
    pub(super) fn end_rounds(
        &mut self,
        is_alone: impl Fn(u32) -> bool,
        skips_clean: impl Fn(u32) -> bool,
    ) -> Vec<(u64, Route)> {
        let mut seen = Vec::new();
        for mut round in std::mem::take(&mut self.rounds) {
            if std::mem::take(&mut round.is_over) && is_alone(round.pe) && round.is_complete(self.deepest, self.bytes) {
                let (cleans, invalidates) =
                    (round.operation.name() != Some("isw"), round.operation.name() != Some("csw"));
                let cleans = cleans && (invalidates || !skips_clean(round.pe));
                for line in &mut self.lines {
                    let reached =
                        !round.missed.iter().find(|missed| missed.0 == line.base).map_or(0, |missed| missed.1);
                    if cleans {
                        seen.extend(words_of(line.base, line.dirty & reached).map(|pa| (pa, Route::Past)));
                        line.dirty &= !reached;
                    }
                    if invalidates {
                        seen.extend(words_of(line.base, line.hidden & reached).map(|pa| (pa, Route::Cached)));
                        line.hidden &= !reached;
                        line.is_clean = true;
                    }
                }
                self.is_empty_else |= invalidates;
            }
            self.rounds.push(round);
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

/// A way through all sets and ways of the caches of a PE, as far as it has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
struct Round {
    pe: u32,
    operation: Operation,
    /// Level and line of each step, in order.
    steps: Vec<(u8, u32)>,
    /// Words, by line, that were stored meanwhile, or not in order before.
    missed: Vec<(u64, u64)>,
    /// A DSB came behind the last step.
    is_over: bool,
}

impl Round {
    const fn new(pe: u32, operation: Operation) -> Self {
        Self { pe, operation, steps: Vec::new(), missed: Vec::new(), is_over: false }
    }

    fn miss(&mut self, base: u64, words: u64) {
        match self.missed.binary_search_by_key(&base, |missed| missed.0) {
            Ok(at) => self.missed[at].1 |= words,
            Err(at) => self.missed.insert(at, (base, words)),
        }
    }

    /// Whether there are caches of so many levels of which these steps are every line.
    fn is_complete(&self, levels: u8, bytes: u64) -> bool {
        (1..=levels).all(|level| {
            let lines: Vec<u32> = self.steps.iter().filter(|step| step.0 == level).map(|step| step.1).collect();
            (1..26).any(|set_bits| is_cache(&lines, set_bits, bytes))
        })
    }
}

/// Whether these different lines are all those of a cache of so many sets, of an even number of ways, with lines of at
/// least so many bytes.
fn is_cache(lines: &[u32], set_bits: u32, bytes: u64) -> bool {
    let ways = lines.len() >> set_bits;
    if ways == 0 || !ways.is_multiple_of(2) || ways << set_bits != lines.len() {
        return false;
    }
    let way_bits = (ways as u64).next_power_of_two().trailing_zeros();
    (bytes.trailing_zeros()..=31).any(|line_bits| {
        let is_line = |line: &u32| {
            let (way, rest) = (line >> (32 - way_bits), line << way_bits >> way_bits);
            (way as usize) < ways && rest >> line_bits << line_bits == rest && rest >> line_bits >> set_bits == 0
        };
        line_bits + set_bits + way_bits <= 32 && lines.iter().all(is_line)
    })
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
