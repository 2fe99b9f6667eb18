//! What is known of 4 KiB of memory: its words, which of its stores a walk may not see yet, and the state of its lines.

use std::sync::{Arc, LazyLock};

use super::cause::{At, Evidence};
use super::fast::fold;
use super::holder::{Pes, bit};
use super::memory::WordChange;

/// More values than this in flight to one page, and the rest counts as unknown.
const MOST_OLDER: usize = 64;

/// Words in a piece.
const PIECE: usize = 64;

/// A piece of a page that holds nothing but zeros.
static ZEROS: LazyLock<Arc<[u64; PIECE]>> = LazyLock::new(|| Arc::new([0; PIECE]));

/// What is known of 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KnownPage {
    /// In pieces that states of one history share.
    words: [Arc<[u64; PIECE]>; 512 / PIECE],
    pub(super) known: Words,
    /// A `word` line spoke of this page: what it leaves out is no table's contents.
    pub(super) declared: bool,
    /// Stored over an invalid descriptor, and no DSB since: what the storing PE's own walker may not see.
    fresh: Words,
    /// The same, and no DSB that reaches the other PEs.
    fresh_elsewhere: Words,
    /// Words of which [`KnownPage::older`] has values.
    risky: Words,
    /// Words with older values that were too many to keep, and no DSB since.
    lost: Words,
    /// The same, and no DSB that reaches the other PEs.
    lost_elsewhere: Words,
    /// Some of them are of another PE than [`KnownPage::storer`]: its own DSB settles nothing.
    lost_of_others: bool,
    /// The PE whose stores these are; a second one's are all in [`KnownPage::older`].
    storer: u32,
    /// Words of [`KnownPage::fresh_elsewhere`] whose stores a DMB stood behind when this page was stored to last.
    ordered: Words,
    /// Which of the storing PE's [`Memory::epochs`](super::memory::Memory) it was then.
    epoch: u32,
    /// Values that walkers may still see.
    older: Vec<(u16, Unseen)>,
    /// The state of their cache lines.
    pub(super) lines: super::lines::Lines,
    /// Who stored what is there: few stores each by itself, the many of a loop by their instruction.
    writers: Evidence<Writers>,
}

/// More stores to one page, and those of one instruction are told apart no more; more instructions, and the first are
/// forgotten.
const MOST_WRITERS: usize = 8;

/// A store, or the stores of one instruction.
#[derive(Clone, Copy, Debug)]
struct Writer {
    words: Words,
    /// The first of them.
    at: At,
}

impl Writer {
    /// Whether it is a store by the instruction of `at`.
    const fn is_of(&self, at: At) -> bool {
        self.at.pe == at.pe && self.at.pc == at.pc
    }
}

/// Those of one page. A word has one writer at most.
#[derive(Clone, Debug, Default)]
struct Writers {
    /// The newest store.
    newest: Option<Writer>,
    /// Those before it, in the order of their first stores.
    older: Vec<Writer>,
    /// There were too many: those of one instruction are one.
    is_joined: bool,
}

impl Writers {
    /// `words` are stored by the event `at`.
    fn write(&mut self, words: &Words, at: At) {
        if let Some(Writer { words: before, at }) = self.newest.replace(Writer { words: *words, at }) {
            let left = before.without(words);
            if !left.is_empty() {
                self.keep(Writer { words: left, at });
            }
        }
        self.older.retain_mut(|writer| {
            writer.words = writer.words.without(words);
            !writer.words.is_empty()
        });
    }

    /// The store of `writer` is the newest no longer.
    fn keep(&mut self, writer: Writer) {
        if self.older.len() >= MOST_WRITERS && !std::mem::replace(&mut self.is_joined, true) {
            std::mem::take(&mut self.older).into_iter().for_each(|writer| self.keep(writer));
        }
        if let Some(first) = self.older.iter_mut().find(|first| first.is_of(writer.at)).filter(|_| self.is_joined) {
            first.words = first.words.or(&writer.words);
            return;
        }
        if self.older.len() >= MOST_WRITERS {
            self.older.remove(0);
        }
        self.older.push(writer);
    }

    /// The store that left what the word at `index` holds, if it is remembered.
    fn of(&self, index: usize) -> Option<At> {
        let mut all = self.newest.iter().chain(&self.older);
        all.find(|writer| writer.words.has(index)).map(|writer| writer.at)
    }
}

/// A store that a walker may not see yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unseen {
    /// Who stored.
    pub(super) storer: u32,
    /// Whose walkers may still see what was there before.
    pub(super) by: Pes,
    /// That, if it is known.
    pub(super) older: Option<u64>,
    /// Which of the storer's [`Memory::epochs`](super::memory::Memory) it was.
    epoch: u32,
}

impl KnownPage {
    pub(super) fn new() -> Self {
        let empty = Words::default();
        Self {
            words: std::array::from_fn(|_| ZEROS.clone()),
            known: empty,
            declared: false,
            fresh: empty,
            fresh_elsewhere: empty,
            risky: empty,
            lost: empty,
            lost_elsewhere: empty,
            lost_of_others: false,
            storer: 0,
            ordered: empty,
            epoch: 0,
            older: Vec::new(),
            lines: super::lines::Lines::default(),
            writers: Evidence(Writers::default()),
        }
    }

    /// Whether both are known, and hold the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.words == other.words && Words::span(0, 512).without(&self.known.and(&other.known)).is_empty()
    }

    /// The store that left what the word at `index` holds, if there was one and it is remembered.
    pub(super) fn writer(&self, index: usize) -> Option<At> {
        self.writers.0.of(index)
    }

    /// `words` are stored by the event `at`.
    pub(super) fn write(&mut self, words: &Words, at: At) {
        self.writers.0.write(words, at);
    }

    /// The bits `mask` of the word at `at` change.
    pub(super) fn change(&mut self, at: usize, mask: u64, bits: u64) -> WordChange {
        let old = self.known.has(at).then(|| self.word(at));
        let new = if mask == u64::MAX { Some(bits) } else { old.map(|known| known & !mask | bits) };
        if let Some(new) = new.filter(|_| old != new) {
            self.known.insert(at);
            self.set(at, new);
        }
        WordChange { old, new }
    }

    /// The word at `at`; 0 if it is not known.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.words[at / PIECE % 8][at % PIECE]
    }

    pub(super) fn set(&mut self, at: usize, word: u64) {
        // Memory that is zeroed takes none.
        if self.word(at) != word {
            Arc::make_mut(&mut self.words[at / PIECE % 8])[at % PIECE] = word;
        }
    }

    /// Whether a walker may not see all of it.
    pub(super) fn is_seen(&self) -> bool {
        self.fresh_elsewhere.is_empty() && self.risky.is_empty()
    }

    /// `pe` stores over `older` in this epoch; returns whether its next DSB has to look at the page where it had not to
    /// before.
    pub(super) fn overwrite(&mut self, pe: u32, at: usize, older: Option<u64>, epoch: u32) -> bool {
        let first = self.is_seen();
        if first {
            (self.storer, self.epoch) = (pe, epoch);
        }
        let benign = older.is_some_and(|word| word & 1 == 0);
        if benign && self.storer == pe && !self.is_stored_by_another(pe, at) {
            if self.epoch < epoch {
                self.ordered = self.fresh_elsewhere;
                self.epoch = epoch;
            }
            self.ordered.remove(at);
            self.fresh.insert(at);
            self.fresh_elsewhere.insert(at);
            return first;
        }
        if self.storer != pe && self.fresh_elsewhere.has(at) {
            // Of a word that two PEs have stored to, the order of the stores counts.
            self.older.extend(self.fresh_at(at).map(|unseen| (at as u16, unseen)));
            for words in [&mut self.fresh, &mut self.fresh_elsewhere, &mut self.ordered] {
                words.remove(at);
            }
        }
        let new = Unseen { storer: pe, by: Pes::MAX, older, epoch };
        let of_several = self.is_stored_by_another(pe, at);
        let same = |(word, other): &(u16, Unseen)| {
            let again = usize::from(*word) == at && (other.storer, other.older) == (pe, older);
            again && (other.epoch == epoch || !of_several)
        };
        let known = if self.risky.has(at) { self.older.iter().position(same) } else { None };
        let first = first || !self.older.iter().any(|(_, unseen)| unseen.storer == pe);
        if let Some(index) = known {
            self.older.remove(index);
        }
        if self.older.len() < MOST_OLDER || !self.risky.has(at) || known.is_some() {
            self.older.push((at as u16, new));
        } else {
            self.lost.insert(at);
            self.lost_elsewhere.insert(at);
            self.lost_of_others |= self.storer != pe;
        }
        self.risky.insert(at);
        first
    }

    /// What is found here: the words, and which lines are dirty.
    pub(super) fn enter(&mut self) {
        let (mut found, lines) = (Self::new(), self.lines);
        found.words.clone_from(&self.words);
        (found.known, found.declared) = (self.known, self.declared);
        found.lines =
            super::lines::Lines { dirty: lines.dirty, half_cleaned: lines.half_cleaned, ..Default::default() };
        *self = found;
    }

    /// Whether a walker may not see a store of another PE to the word at `at`.
    fn is_stored_by_another(&self, pe: u32, at: usize) -> bool {
        let is_other = |(word, unseen): &(u16, Unseen)| usize::from(*word) == at && unseen.storer != pe;
        self.risky.has(at) && self.older.iter().any(is_other)
    }

    /// `pe` executes a DSB for stores, seen by `by`; returns whether its stores are still not seen by all.
    pub(super) fn dsb(&mut self, pe: u32, by: Pes) -> bool {
        let everywhere = by == Pes::MAX;
        if self.storer == pe {
            self.fresh = Words::default();
            if everywhere {
                self.fresh_elsewhere = Words::default();
                self.lost_elsewhere = Words::default();
            }
            if everywhere || !self.lost_of_others {
                self.lost = Words::default();
            }
            self.lost_of_others &= !everywhere;
        }
        if !self.older.is_empty() {
            self.complete(pe, by);
            self.older.retain(|(_, unseen)| unseen.by != 0);
        }
        if everywhere {
            self.ordered = self.ordered.and(&self.fresh_elsewhere);
            self.epoch = if self.storer == pe { 0 } else { self.epoch };
        }
        self.risky = self.lost_elsewhere;
        self.older.iter().for_each(|(at, _)| self.risky.insert((*at).into()));
        if self.is_seen() {
            self.storer = 0;
        }
        !everywhere
    }

    /// What `pe` has stored is seen by `by`, and what others had stored there before is gone for them.
    fn complete(&mut self, pe: u32, by: Pes) {
        let mut covered = Words::default();
        for (at, unseen) in self.older.iter_mut().rev() {
            if unseen.storer == pe {
                covered.insert((*at).into());
            }
            if covered.has((*at).into()) {
                unseen.by &= !by;
            }
        }
    }

    /// A hash of all but the words themselves; 0 for a page that was never stored to and whose lines were left alone.
    pub(super) fn state(&self) -> u64 {
        let Self { fresh, fresh_elsewhere, risky, lost, lost_elsewhere, ordered, .. } = self;
        let sets = [fresh, fresh_elsewhere, risky, lost, lost_elsewhere, ordered].into_iter().chain(self.lines.sets());
        let folded = (1..).zip(sets).filter(|(_, set)| !set.is_empty());
        let mut state = folded.fold(0, |state, (number, set)| set.fold_into(fold(state, number)));
        if state != 0 {
            state = fold(fold(state, self.storer.into()), self.epoch.into());
        }
        // Values in flight are a set.
        let one = |(at, Unseen { storer, by, older, epoch }): &(u16, Unseen)| {
            let place = fold(fold(fold(0, (*at).into()), (*storer).into()), (*epoch).into());
            let whom = fold(fold(place, *by as u64), (*by >> 64) as u64);
            fold(fold(whom, older.is_some().into()), older.unwrap_or(0))
        };
        self.older.iter().map(one).fold(state, u64::wrapping_add)
    }

    /// What was no descriptor, and walkers may still see of the word at `at` instead of its value.
    fn fresh_at(&self, at: usize) -> Option<Unseen> {
        let (storer, by) = (self.storer, if self.fresh.has(at) { Pes::MAX } else { !bit(self.storer) });
        let epoch = if self.ordered.has(at) { 0 } else { self.epoch };
        self.fresh_elsewhere.has(at).then_some(Unseen { storer, by, older: Some(0), epoch })
    }

    /// What walkers may still see of the word at `at` instead of its value; those that have seen the stores of `linker`
    /// before its `epoch`, if one is named.
    pub(super) fn unseen(&self, at: usize, linker: Option<(u32, u32)>) -> impl Iterator<Item = Unseen> {
        let storer = self.storer;
        let is_ordered =
            move |unseen: &Unseen| linker.is_some_and(|(pe, now)| unseen.storer == pe && unseen.epoch < now);
        let by_lost = if self.lost.has(at) { Pes::MAX } else { !bit(self.storer) };
        // Which of many stores these are is not known: no order settles them.
        let lost = Unseen { storer, by: by_lost, older: None, epoch: self.epoch };
        let lost = self.lost_elsewhere.has(at).then_some(lost);
        let risky = self.risky.has(at);
        let of_word = move |entry: &&(u16, Unseen)| risky && usize::from(entry.0) == at;
        // Who sees a store sees none that is older.
        let seen =
            self.older.iter().rposition(|entry| of_word(&entry) && is_ordered(&entry.1)).map_or(0, |seen| seen + 1);
        let older = self.older[seen..].iter().filter(of_word).map(|(_, unseen)| *unseen);
        self.fresh_at(at).filter(|unseen| !is_ordered(unseen)).into_iter().chain(lost).chain(older)
    }
}

/// A set of the 512 words of a 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Words([u64; 8]);

impl Words {
    /// `count` words from `first` on, cut to the page.
    pub(super) fn span(first: usize, count: usize) -> Self {
        let mut words = Self::default();
        if count == 1 && first < 512 {
            words.insert(first);
            return words;
        }
        let end = first.saturating_add(count).min(512);
        if first.is_multiple_of(64) && end == first + 64 {
            words.0[first / 64] = u64::MAX;
            return words;
        }
        (first.min(512)..end).for_each(|index| words.insert(index));
        words
    }

    pub(super) const fn insert(&mut self, index: usize) {
        self.0[(index / 64) & 7] |= 1 << (index % 64);
    }

    pub(super) const fn remove(&mut self, index: usize) {
        self.0[(index / 64) & 7] &= !(1 << (index % 64));
    }

    pub(super) const fn has(&self, index: usize) -> bool {
        self.0[(index / 64) & 7] >> (index % 64) & 1 != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|index| self.0[index] & other.0[index]))
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|index| self.0[index] | other.0[index]))
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|index| self.0[index] & !other.0[index]))
    }

    /// Mixes the set into `state`.
    pub(super) fn fold_into(&self, state: u64) -> u64 {
        self.0.iter().fold(state, |state, word| fold(state, *word))
    }

    /// Each word in it, lowest first.
    pub(super) fn each(&self) -> impl Iterator<Item = usize> {
        let of_group = |(number, mut group): (usize, u64)| {
            std::iter::from_fn(move || {
                let at = (group != 0).then(|| 64 * number + group.trailing_zeros() as usize);
                group &= group.wrapping_sub(1);
                at
            })
        };
        self.0.into_iter().enumerate().flat_map(of_group)
    }

    /// The lowest word in it.
    pub(super) fn first(&self) -> Option<usize> {
        let group = self.0.iter().position(|word| *word != 0)?;
        Some(64 * group + self.0[group].trailing_zeros() as usize)
    }
}
