//! Physical memory as far as it is known, and how visible its stores are.
//!
//! Memory that is no table must cost next to nothing, so a page keeps sets of words, not histories: which words have a store that a walk
//! may not see yet, and whether what it may see instead could be a descriptor.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::cause::{At, Evidence};
use super::fast::{FastMap, fold};
use super::holder::{Pes, bit};
use crate::maintenance::{Ordering, Reach};

/// Log2 of the bytes in a page of this bookkeeping; nothing to do with the granule.
pub(super) const SHIFT: u32 = 12;

/// The index of the word at `pa` in its page.
pub(super) const fn index(pa: u64) -> usize {
    (pa >> 3 & 511) as usize
}

/// More values than this in flight to one page, and the rest counts as unknown.
const MOST_OLDER: usize = 64;

/// Words in a piece.
const PIECE: usize = 64;

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
    /// Which of the storing PE's [`Memory::epochs`] it was then.
    epoch: u32,
    /// Values that walkers may still see.
    older: Vec<(u16, Unseen)>,
    /// The state of their cache lines.
    pub(super) lines: super::lines::Lines,
    /// Who stored what is there: few stores each by itself, the many of a loop by their instruction.
    writers: Evidence<Vec<Writer>>,
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
    /// Joins those of one instruction.
    fn join(writers: &mut Vec<Self>) {
        let mut joined: Vec<Self> = Vec::with_capacity(MOST_WRITERS);
        for writer in writers.iter() {
            let of_it = |other: &&mut Self| (other.at.pe, other.at.pc) == (writer.at.pe, writer.at.pc);
            match joined.iter_mut().find(of_it) {
                Some(other) => other.words = other.words.or(&writer.words),
                None => joined.push(*writer),
            }
        }
        *writers = joined;
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
    /// Which of the storer's [`Memory::epochs`] it was.
    epoch: u32,
}

impl Unseen {
    /// In no epoch: no DMB orders it before anything.
    const UNORDERED: u32 = u32::MAX;
}

impl KnownPage {
    fn new() -> Self {
        let (words, empty) = (Arc::new([0; PIECE]), Words::default());
        Self {
            words: std::array::from_fn(|_| words.clone()),
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
            writers: Evidence(Vec::new()),
        }
    }

    /// The word at `index` is stored by the event `at`.
    fn write(&mut self, index: usize, at: At) {
        let Evidence(writers) = &mut self.writers;
        let is_of = |writer: &Writer| (writer.at.pe, writer.at.pc) == (at.pe, at.pc);
        if let [only] = writers.as_mut_slice()
            && only.words.has(index)
            && is_of(only)
            && only.words.without(&Words::span(index, 1)).is_empty()
        {
            only.at = at;
            return;
        }
        writers.iter_mut().for_each(|writer| writer.words.remove(index));
        writers.retain(|writer| !writer.words.is_empty());
        if writers.len() >= MOST_WRITERS {
            Writer::join(writers);
        }
        if writers.len() >= MOST_WRITERS {
            writers.remove(0);
        }
        writers.push(Writer { words: Words::span(index, 1), at });
    }

    /// The word at `at`; 0 if it is not known.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.words[at / PIECE % 8][at % PIECE]
    }

    fn set(&mut self, at: usize, word: u64) {
        Arc::make_mut(&mut self.words[at / PIECE % 8])[at % PIECE] = word;
    }

    /// Whether a walker may not see all of it.
    fn is_seen(&self) -> bool {
        self.fresh_elsewhere.is_empty() && self.risky.is_empty()
    }

    /// `pe` stores over `older` in this epoch; returns whether its next DSB has to look at the page where it had not to
    /// before.
    fn overwrite(&mut self, pe: u32, at: usize, older: Option<u64>, epoch: u32) -> bool {
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
    fn enter(&mut self) {
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
    fn dsb(&mut self, pe: u32, by: Pes) -> bool {
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
    fn state(&self) -> u64 {
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
    fn unseen(&self, at: usize, linker: Option<(u32, u32)>) -> impl Iterator<Item = Unseen> {
        let storer = self.storer;
        let is_ordered =
            move |unseen: &Unseen| linker.is_some_and(|(pe, now)| unseen.storer == pe && unseen.epoch < now);
        let by_lost = if self.lost.has(at) { Pes::MAX } else { !bit(self.storer) };
        let lost = Unseen { storer, by: by_lost, older: None, epoch: Unseen::UNORDERED };
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

/// What a store did to one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WordChange {
    pub(super) old: Option<u64>,
    pub(super) new: Option<u64>,
}

/// The memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pages: FastMap<u64, Arc<KnownPage>>,
    /// A hash of all words that are known, kept up to date store by store.
    digest: u64,
    /// Pages with stores of a PE since its last DSB; follows from the pages.
    touched: Arc<Vec<Vec<u64>>>,
    /// By PE: how many DMBs for stores, each behind a store, there were since its last DSB; and whether a store is in
    /// the last of these epochs.
    epochs: Arc<Vec<(u32, bool)>>,
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        let same = |(number, page): (&u64, &Arc<KnownPage>)| {
            other.pages.get(number).is_some_and(|theirs| Arc::ptr_eq(page, theirs) || page == theirs)
        };
        let alike = self.digest == other.digest && self.epochs == other.epochs && self.pages.len() == other.pages.len();
        alike && self.pages.iter().all(same)
    }
}

impl Eq for Memory {}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pages = self.pages.iter().map(|(number, page)| match page.state() {
            0 => 0,
            page => fold(page, *number),
        });
        pages.fold(self.digest, u64::wrapping_add).hash(state);
        self.epochs.hash(state);
    }
}

/// What a word adds to the hash of all that is known.
fn share(pa: u64, word: Option<u64>) -> u64 {
    word.map_or(0, |word| fold(fold(0, pa), word))
}

impl Memory {
    pub(super) fn page(&self, pa: u64) -> Option<&KnownPage> {
        self.pages.get(&(pa >> SHIFT)).map(Arc::as_ref)
    }

    pub(super) fn page_mut(&mut self, pa: u64) -> &mut KnownPage {
        Arc::make_mut(self.pages.entry(pa >> SHIFT).or_insert_with(|| Arc::new(KnownPage::new())))
    }

    /// The word at `pa`, if it is known.
    pub(super) fn read(&self, pa: u64) -> Option<u64> {
        let page = self.page(pa)?;
        page.known.has(index(pa)).then(|| page.word(index(pa)))
    }

    /// A `word` line.
    pub(super) fn declare(&mut self, pa: u64, value: u64) {
        self.page_mut(pa).declared = true;
        self.set(pa, Some(value));
    }

    fn set(&mut self, pa: u64, value: Option<u64>) {
        let page = self.page_mut(pa);
        let at = index(pa);
        let old = page.known.has(at).then(|| page.word(at));
        match value {
            Some(value) => {
                page.known.insert(at);
                page.set(at, value);
            }
            None => page.known.remove(at),
        }
        self.digest ^= share(pa, old) ^ share(pa, value);
    }

    /// Whoever stored no longer matters: every walk sees every store, and dirty lines are all that is known of lines.
    /// What the `bytes` at `pa` hold is about to be said; if that `is_promised`, they are clean.
    pub(super) fn enter(&mut self, pa: u64, bytes: u64, is_promised: bool) {
        (self.touched, self.epochs) = (Arc::default(), Arc::default());
        for page in self.pages.values_mut() {
            Arc::make_mut(page).enter();
        }
        let Some(last) = bytes.checked_sub(1).map(|more| pa.saturating_add(more)) else { return };
        self.forget(pa, last);
        let inside = |page: u64| page.max(pa)..=(page | 0xfff).min(last);
        let pages = (pa >> SHIFT..=last >> SHIFT).map(|page| page << SHIFT).filter(|_| is_promised);
        for (page, words) in pages.map(|page| (page, inside(page))) {
            if let Some(known) = self.pages.get_mut(&(page >> SHIFT)) {
                let clean = Words::span(index(*words.start()), index(*words.end()) - index(*words.start()) + 1);
                let lines = &mut Arc::make_mut(known).lines;
                lines.dirty = lines.dirty.without(&clean);
            }
        }
    }

    /// What memory from `first` to `last` holds is no longer known.
    pub(super) fn forget(&mut self, first: u64, last: u64) {
        let inside = |page: &u64| (first >> SHIFT..=last >> SHIFT).contains(page);
        let pages: Vec<u64> = self.pages.keys().copied().filter(inside).collect();
        for pa in pages.into_iter().flat_map(|page| (page << SHIFT..(page + 1) << SHIFT).step_by(8)) {
            if (first..=last).contains(&pa) {
                self.set(pa, None);
            }
        }
    }

    /// The event `at` stores the bits of `mask`: what that did to the word, and, if it was `cached`, words beside it in
    /// its line that were written past the caches and not invalidated since.
    pub(super) fn store(
        &mut self,
        at: At,
        (pa, mask, bits): (u64, u64, u64),
        cached: bool,
        line_bytes: u16,
    ) -> (WordChange, Words) {
        let epoch = self.epoch(at.pe);
        let (page, word) = (self.page_mut(pa), index(pa));
        let old = page.known.has(word).then(|| page.word(word));
        let new = if mask == u64::MAX { Some(bits) } else { old.map(|known| known & !mask | bits) };
        if let Some(new) = new.filter(|_| old != new) {
            page.known.insert(word);
            page.set(word, new);
        }
        page.lines.store(word, cached, line_bytes);
        let mixed = if cached { page.lines.mixed(word, line_bytes) } else { Words::default() };
        page.write(word, at);
        let is_touched = page.overwrite(at.pe, word, old, epoch);
        self.digest ^= share(pa, old) ^ share(pa, new);
        if is_touched {
            self.touched(at.pe).push(pa >> SHIFT);
        }
        if !self.epochs.get(at.pe as usize).is_some_and(|epoch| epoch.1) {
            self.epoch_mut(at.pe).1 = true;
        }
        (WordChange { old, new }, mixed)
    }

    fn epoch(&self, pe: u32) -> u32 {
        self.epochs.get(pe as usize).map_or(0, |epoch| epoch.0)
    }

    fn epoch_mut(&mut self, pe: u32) -> &mut (u32, bool) {
        let epochs = Arc::make_mut(&mut self.epochs);
        if epochs.len() <= pe as usize {
            epochs.resize_with(pe as usize + 1, Default::default);
        }
        &mut epochs[pe as usize]
    }

    /// `pe` executes a DMB: whoever sees a store of it after this one sees those before.
    pub(super) fn dmb(&mut self, pe: u32, ordering: &Ordering) {
        let stores = ordering.stores && ordering.reach >= Reach::Inner;
        if stores && self.epochs.get(pe as usize).is_some_and(|epoch| epoch.1) {
            let epoch = self.epoch_mut(pe);
            *epoch = (epoch.0 + 1, false);
        }
    }

    /// Whether there is a store of `pe` that who sees its next one sees as well.
    pub(super) fn has_ordered(&self, pe: u32) -> bool {
        self.epoch(pe) != 0
    }

    fn touched(&mut self, pe: u32) -> &mut Vec<u64> {
        let pe = pe as usize;
        let touched = Arc::make_mut(&mut self.touched);
        if touched.len() <= pe {
            touched.resize_with(pe + 1, Vec::new);
        }
        &mut touched[pe]
    }

    /// `pe` executes a DSB.
    pub(super) fn dsb(&mut self, pe: u32, ordering: &Ordering) {
        let everywhere = ordering.reach >= Reach::Inner;
        if ordering.stores && everywhere && self.epochs.get(pe as usize).is_some_and(|epoch| *epoch != (0, false)) {
            *self.epoch_mut(pe) = (0, false);
        }
        if !ordering.stores || self.touched.get(pe as usize).is_none_or(Vec::is_empty) {
            return;
        }
        let by = if everywhere { Pes::MAX } else { bit(pe) };
        let mut pages = std::mem::take(self.touched(pe));
        if pages.len() > 1 {
            pages.sort_unstable();
            pages.dedup();
        }
        pages.retain(|number| self.page_mut(number << SHIFT).dsb(pe, by));
        *self.touched(pe) = pages;
    }

    /// What walkers may still see of the word at `pa` instead of its value; those that go by a link which `linker`
    /// stores now, if one is named.
    pub(super) fn unseen(&self, pa: u64, linker: Option<u32>) -> Vec<Unseen> {
        let linker = linker.map(|pe| (pe, self.epoch(pe)));
        self.page(pa).map(|page| page.unseen(index(pa), linker).collect()).unwrap_or_default()
    }

    /// The store that left what the word at `pa` holds, if there was one and it is remembered.
    pub(super) fn writer(&self, pa: u64) -> Option<At> {
        let Evidence(writers) = &self.page(pa)?.writers;
        writers.iter().find(|writer| writer.words.has(index(pa))).map(|writer| writer.at)
    }

    /// Whether every store to the page of `pa` is seen by all.
    pub(super) fn is_seen(&self, pa: u64) -> bool {
        self.page(pa).is_none_or(KnownPage::is_seen)
    }

    /// Whether the line of `pa` holds words written with caches on and not cleaned.
    pub(super) fn is_dirty(&self, pa: u64, line_bytes: u16) -> bool {
        let line = super::lines::around(index(pa), line_bytes);
        self.page(pa).is_some_and(|page| !page.lines.dirty.and(&line).is_empty())
    }

    /// Every line is cleaned: stale ones over what was written with caches off.
    pub(super) fn push_all(&mut self) {
        for page in self.pages.values_mut().filter(|page| !page.lines.uncached.is_empty()) {
            let lines = &mut Arc::make_mut(page).lines;
            lines.pushed = lines.pushed.or(&lines.uncached);
        }
    }

    /// Whether both stretches of memory are known and hold the same.
    pub(super) fn same(&self, one: u64, other: u64, bytes: u64) -> bool {
        let step = 1 << SHIFT;
        (0..bytes.div_ceil(step)).all(|number| {
            let offset = number * step;
            match (self.page(one.wrapping_add(offset)), self.page(other.wrapping_add(offset))) {
                (Some(one), Some(other)) => {
                    one.words == other.words && Words::span(0, 512).without(&one.known.and(&other.known)).is_empty()
                }
                _ => false,
            }
        })
    }
}

/// A set of the 512 words of a 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Words([u64; 8]);

impl Words {
    /// `count` words from `first` on, cut to the page.
    pub(super) fn span(first: usize, count: usize) -> Self {
        let mut words = Self::default();
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

    /// The lowest word in it.
    pub(super) fn first(&self) -> Option<usize> {
        let group = self.0.iter().position(|word| *word != 0)?;
        Some(64 * group + self.0[group].trailing_zeros() as usize)
    }
}
