//! Cache lines of memory that is written or read with the caches off.
//!
//! A word written with caches off is safe to read with caches on only if its line was invalidated before (a dirty line may be evicted over
//! it) and after (a stale clean line may hide it), and was not cleaned in between. A word that a PE reads with its MMU off is what was
//! written only once it is clean to the point of coherency.

use super::page::Words;

/// The lines of one page, word by word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Lines {
    /// Written with caches on, and not cleaned since.
    pub(super) dirty: Words,
    /// Of those, cleaned by DC CVAC on a part where that is not enough.
    pub(super) half_cleaned: Words,
    /// Invalidated, and not written with caches on since.
    pub(super) invalidated: Words,
    /// Written with caches off, and not invalidated since.
    pub(super) uncached: Words,
    /// Of those, no DMB or DSB followed yet.
    pub(super) unordered: Words,
    /// Written with caches off over a line that may have been dirty.
    pub(super) exposed: Words,
    /// Cleaned after it was written with caches off.
    pub(super) pushed: Words,
    /// Written at another level than EL2, nobody knows whether with caches on; taken for dirty.
    pub(super) unclear: Words,
}

/// The words of the line around word `at`.
pub(super) fn around(at: usize, line_bytes: u16) -> Words {
    let words = (usize::from(line_bytes) / 8).clamp(1, 512);
    Words::span(at & !(words - 1), words)
}

/// What a DC does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Upkeep {
    /// To the point of coherency.
    pub(super) cleans: bool,
    pub(super) invalidates: bool,
    /// CVAC on a part with the erratum.
    pub(super) in_vain: bool,
}

/// A DC that waits for its DSB.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Waiting {
    /// The line's address.
    pub(super) pa: u64,
    pub(super) upkeep: Upkeep,
    /// The line.
    line: Words,
    /// Words that it reaches.
    reached: Words,
}

impl Waiting {
    /// Whether `other` does the same to the same page.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.pa >> 12, self.upkeep) == (other.pa >> 12, other.upkeep)
    }

    /// The words of its line.
    pub(super) const fn line(&self) -> &Words {
        &self.line
    }

    /// Of these, the ones that it reaches.
    pub(super) const fn reached(&self) -> &Words {
        &self.reached
    }

    /// Both wait for one DSB.
    pub(super) fn join(&mut self, other: &Self) {
        self.line = self.line.or(&other.line);
        self.reached = self.reached.or(&other.reached);
    }

    /// `words` of the page are stored: this DC came before.
    pub(super) fn overtake(&mut self, words: &Words) {
        self.reached = self.reached.without(words);
    }
}

impl Lines {
    /// All of them.
    pub(super) const fn sets(&self) -> [&Words; 8] {
        let Self { dirty, half_cleaned, invalidated, uncached, unordered, exposed, pushed, unclear } = self;
        [dirty, half_cleaned, invalidated, uncached, unordered, exposed, pushed, unclear]
    }

    /// A word is stored with caches on or off, or nobody knows.
    pub(super) fn store(&mut self, at: usize, cached: Option<bool>, line_bytes: u16) {
        if cached.is_none() {
            self.unclear.insert(at);
        } else {
            self.unclear.remove(at);
        }
        if cached.unwrap_or(true) {
            self.store_cached(&Words::span(at, 1), line_bytes);
        } else {
            let clean = self.invalidated.has(at) && !self.dirty.has(at);
            if !clean {
                self.exposed.insert(at);
            } else {
                self.exposed.remove(at);
            }
            self.dirty.remove(at);
            self.pushed.remove(at);
            self.uncached.insert(at);
            self.unordered.insert(at);
        }
    }

    /// `words` are stored with caches on.
    pub(super) fn store_cached(&mut self, words: &Words, line_bytes: u16) {
        self.dirty = self.dirty.or(words);
        for set in
            [&mut self.half_cleaned, &mut self.uncached, &mut self.unordered, &mut self.exposed, &mut self.pushed]
        {
            *set = set.without(words);
        }
        let lines = |words: &Words| words.each().fold(Words::default(), |lines, at| lines.or(&around(at, line_bytes)));
        if !self.uncached.is_empty() {
            self.exposed = self.exposed.or(&lines(words).and(&self.uncached));
        }
        let invalidated = self.invalidated.and(words);
        if !invalidated.is_empty() {
            self.invalidated = self.invalidated.without(&lines(&invalidated));
        }
    }

    /// Words of the line around `at` that were written past the caches: a line from before holds something else for them.
    pub(super) fn mixed(&self, at: usize, line_bytes: u16) -> Words {
        if self.uncached.is_empty() { Words::default() } else { around(at, line_bytes).and(&self.uncached) }
    }

    /// A DC of the line around word `at` of the page at `pa` is issued.
    pub(super) fn maintain(&mut self, pa: u64, at: usize, upkeep: Upkeep, line_bytes: u16) -> Waiting {
        let line = around(at, line_bytes);
        if upkeep.cleans {
            self.pushed = self.pushed.or(&line.and(&self.uncached));
        }
        let reached = line.without(&self.unordered);
        Waiting { pa, upkeep, line, reached }
    }

    /// The DSB of a DC is done that named the words of `line`, and reached those of `reached`.
    pub(super) fn complete(&mut self, upkeep: Upkeep, line: &Words, reached: &Words) {
        if upkeep.cleans && upkeep.in_vain {
            self.half_cleaned = self.half_cleaned.or(&reached.and(&self.dirty));
        } else if upkeep.cleans {
            self.dirty = self.dirty.without(reached);
        }
        if upkeep.invalidates {
            // Whatever the line held is gone or, if it is cleaned as well, where it belongs.
            self.unclear = self.unclear.without(reached);
            self.uncached = self.uncached.without(reached);
            // What was stored into it since is known to be dirty.
            self.invalidated = self.invalidated.or(line);
        }
    }
}
