//! Physical memory as far as it is known, and how visible its stores are.
//!
//! Memory that is no table must cost next to nothing, so a page keeps sets of words, not histories: which words have a store that a walk
//! may not see yet, and whether what it may see instead could be a descriptor.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::cause::{At, Evidence};
use super::fast::{FastMap, digest, fold};
use super::holder::{Pes, bit};
use super::lines::{Lines, Upkeep};
use super::page::{KnownPage, Unseen, Words};
use crate::maintenance::{Ordering, Reach, StoredWord};

/// Log2 of the bytes in a page of this bookkeeping; nothing to do with the granule.
pub(super) const SHIFT: u32 = 12;

/// The index of the word at `pa` in its page.
pub(super) const fn index(pa: u64) -> usize {
    (pa >> 3 & 511) as usize
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
    /// All lines were invalidated: those of pages that are touched for the first time as well.
    is_swept: bool,
    /// Words were stored with caches off since [`Memory::push_all`]; follows from the pages.
    is_unpushed: bool,
    /// The PE whose store-release is being done: who sees that sees all that it has stored before, as behind a DMB. What it
    /// stores later may be seen before either, so that no epoch begins.
    pub(super) releasing: Option<u32>,
    /// Words that were known until a load found something else there; who knows what they hold.
    contradicted: FastMap<u64, Evidence<Contradiction>>,
}

/// A load of a word that was known to hold something else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contradiction {
    /// The line of the load.
    pub(super) line: u64,
    /// What it found, in the bytes that it read.
    pub(super) found: u64,
    /// What was known.
    pub(super) known: u64,
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        let same = |(number, page): (&u64, &Arc<KnownPage>)| {
            other.pages.get(number).is_some_and(|theirs| Arc::ptr_eq(page, theirs) || page == theirs)
        };
        let alike = self.digest == other.digest && self.epochs == other.epochs && self.pages.len() == other.pages.len();
        let alike = alike && self.is_swept == other.is_swept;
        alike && self.contradicted == other.contradicted && self.pages.iter().all(same)
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
        self.is_swept.hash(state);
        digest(&self.contradicted).hash(state);
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
        let is_swept = self.is_swept;
        let new = || {
            let mut page = KnownPage::new();
            if is_swept {
                page.lines.invalidated = Words::span(0, 512);
            }
            Arc::new(page)
        };
        Arc::make_mut(self.pages.entry(pa >> SHIFT).or_insert_with(new))
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
        self.contradicted.remove(&pa);
        self.digest ^= share(pa, old) ^ share(pa, value);
    }

    /// A load found something else in the word at `pa` than what is known: that is known no more.
    pub(super) fn contradict(&mut self, pa: u64, contradiction: Contradiction) {
        self.set(pa, None);
        self.contradicted.insert(pa, Evidence(contradiction));
    }

    /// No load has contradicted that the word at `pa` holds `value`.
    pub(super) fn restore(&mut self, pa: u64, value: u64) {
        self.set(pa, Some(value));
    }

    /// The load that contradicted what was known of the word at `pa`, if nothing was stored there since.
    pub(super) fn contradicted(&self, pa: u64) -> Option<Contradiction> {
        if self.contradicted.is_empty() { None } else { self.contradicted.get(&pa).map(|found| found.0) }
    }

    /// Whoever stored no longer matters: every walk sees every store, and dirty lines are all that is known of lines.
    /// What the `bytes` at `pa` hold is about to be said; if that `is_promised`, they are clean.
    pub(super) fn enter(&mut self, pa: u64, bytes: u64, is_promised: bool) {
        (self.touched, self.epochs, self.is_swept) = (Arc::default(), Arc::default(), false);
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
        cached: Option<bool>,
        line_bytes: u16,
    ) -> (WordChange, Words) {
        let epoch = self.epoch(at.pe);
        self.is_unpushed |= cached == Some(false);
        let (page, word) = (self.page_mut(pa), index(pa));
        let WordChange { old, new } = page.change(word, mask, bits);
        page.lines.store(word, cached, line_bytes);
        let mixed = if cached == Some(true) { page.lines.mixed(word, line_bytes) } else { Words::default() };
        page.write(&Words::span(word, 1), at);
        let is_touched = page.overwrite(at.pe, word, old, epoch);
        if old != new {
            self.digest ^= share(pa, old) ^ share(pa, new);
        }
        if new.is_some() && !self.contradicted.is_empty() {
            self.contradicted.remove(&pa);
        }
        self.note_store(at.pe, pa, is_touched);
        (WordChange { old, new }, mixed)
    }

    /// The event `at` stores `words` of the page at `pa` through the caches.
    pub(super) fn store_cached(
        &mut self,
        at: At,
        pa: u64,
        words: impl Iterator<Item = StoredWord> + Clone,
        line_bytes: u16,
    ) {
        let epoch = self.epoch(at.pe);
        let page = self.page_mut(pa);
        let (mut stored, mut digest, mut is_touched) = (Words::default(), 0, false);
        for (pa, mask, bits) in words.clone() {
            let (word, WordChange { old, new }) = (index(pa), page.change(index(pa), mask, bits));
            stored.insert(word);
            is_touched |= page.overwrite(at.pe, word, old, epoch);
            if old != new {
                digest ^= share(pa, old) ^ share(pa, new);
            }
        }
        page.lines.unclear = page.lines.unclear.without(&stored);
        page.lines.store_cached(&stored, line_bytes);
        page.write(&stored, at);
        self.digest ^= digest;
        if !self.contradicted.is_empty() {
            for (pa, ..) in words {
                if self.read(pa).is_some() {
                    self.contradicted.remove(&pa);
                }
            }
        }
        self.note_store(at.pe, pa, is_touched);
    }

    /// `pe` stored to the page at `pa`; whether its next DSB has to look there now.
    fn note_store(&mut self, pe: u32, pa: u64, is_touched: bool) {
        if is_touched {
            self.touched(pe).push(pa >> SHIFT);
        }
        if !self.epochs.get(pe as usize).is_some_and(|epoch| epoch.1) {
            self.epoch_mut(pe).1 = true;
        }
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

    /// The epochs before this one are seen by who sees the store that `pe` does now.
    fn ordered_before(&self, pe: u32) -> u32 {
        self.epoch(pe) + u32::from(self.releasing == Some(pe))
    }

    /// Whether there may be a store of `pe` that who sees the one it does now sees as well.
    pub(super) fn has_ordered(&self, pe: u32) -> bool {
        self.ordered_before(pe) != 0
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
        // A page that is named twice is found done the second time. Nearly every DSB leaves none to be sorted.
        pages.retain(|number| self.page_mut(number << SHIFT).dsb(pe, by));
        if pages.len() > 1 {
            pages.sort_unstable();
            pages.dedup();
        }
        *self.touched(pe) = pages;
    }

    /// What walkers may still see of the word at `pa` instead of its value; those that go by a link which `linker`
    /// stores now, if one is named.
    pub(super) fn unseen(&self, pa: u64, linker: Option<u32>) -> Vec<Unseen> {
        let linker = linker.map(|pe| (pe, self.ordered_before(pe)));
        self.page(pa).map(|page| page.unseen(index(pa), linker).collect()).unwrap_or_default()
    }

    /// The store that left what the word at `pa` holds, if there was one and it is remembered.
    pub(super) fn writer(&self, pa: u64) -> Option<At> {
        self.page(pa)?.writer(index(pa))
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

    /// Any line may be cleaned: stale ones over what was written with caches off. Returns pages of which that is new.
    pub(super) fn push_all(&mut self) -> Vec<u64> {
        let mut pushed = Vec::new();
        if !std::mem::take(&mut self.is_unpushed) {
            return pushed;
        }
        for (number, page) in self.pages.iter_mut() {
            let Lines { uncached, pushed: before, .. } = page.lines;
            if !uncached.without(&before).is_empty() {
                Arc::make_mut(page).lines.pushed = before.or(&uncached);
                pushed.push(number << SHIFT);
            }
        }
        pushed.sort_unstable();
        pushed
    }

    /// Every line of every cache that may hold one is maintained, but for words that were `overtaken`, by page.
    pub(super) fn sweep(&mut self, upkeep: Upkeep, overtaken: &BTreeMap<u64, Words>) {
        let all = Words::span(0, 512);
        for (number, page) in self.pages.iter_mut() {
            let reached = overtaken.get(number).map_or(all, |overtaken| all.without(overtaken));
            Arc::make_mut(page).lines.complete(upkeep, &all, &reached);
        }
        self.is_swept |= upkeep.invalidates;
    }

    /// Whether both stretches of memory are known and hold the same.
    pub(super) fn same(&self, one: u64, other: u64, bytes: u64) -> bool {
        let step = 1 << SHIFT;
        (0..bytes.div_ceil(step)).all(|number| {
            let offset = number * step;
            match (self.page(one.wrapping_add(offset)), self.page(other.wrapping_add(offset))) {
                (Some(one), Some(other)) => one.is_same(other),
                _ => false,
            }
        })
    }
}
