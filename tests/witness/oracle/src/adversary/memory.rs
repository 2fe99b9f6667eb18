//! Memory, and what walks may still see of what it held.
//!
//! Why: a walk reads the newest value of a word, or an older one whose replacement has no DSB yet (RSPVBD, RTGRMW). What must hold:
//! cloning costs no more than what has changed since, and equal contents are equal however they came to be.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::lines::Route;
use crate::maintenance::Reach;

const PAGE: u64 = 4096;
/// With more changes they are written to the pages.
const MOST_CHANGED: usize = 256;
/// More older values of one word than this are not told apart.
const MOST_OLDER: usize = 16;

/// How the stores of a PE since its last DSB are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Epochs {
    pe: u32,
    /// Which epoch it is: each DMB and each store-release ends one.
    now: u8,
    /// Who sees a store of now sees those of epochs before this one: the last DMB began it. What follows a store-release
    /// may be seen before it.
    since: u8,
}

/// A value that was stored behind a DMB or by a store-release, and no DSB since: who sees it sees what that PE stored in earlier epochs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
struct Came {
    pa: u64,
    value: u64,
    /// By which PE, and in which of its [`Memory::epochs`].
    by: (u32, u8),
}

/// A value that a store replaced and that walks may still see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Older {
    /// Which word of its page.
    index: u16,
    /// The PE whose store replaced it, and whose DSB ends it.
    storer: u32,
    /// Which of its storer's [`Memory::epochs`] it was.
    epoch: u8,
    /// Nothing: memory that nobody wrote.
    pub(super) value: Option<u64>,
    /// The PEs whose walks may see it, for want of a DSB.
    seen_by: u128,
    /// Walks that go this way may see it, for want of the upkeep of its line.
    hidden_from: Option<Route>,
}

impl Older {
    /// Whether the walks of `pe`, which go this way, may see it.
    pub(super) fn is_seen_by(&self, (pe, way): (u32, Route)) -> bool {
        self.seen_by >> (pe & 127) & 1 != 0 || self.hidden_from == Some(way)
    }

    /// Whether who has seen these stores has seen that which replaced it.
    fn is_before(&self, stores: &[(u32, u8)]) -> bool {
        stores.iter().any(|&(storer, epoch)| storer == self.storer && self.epoch < epoch)
    }

    /// The PE whose store replaced it.
    pub(super) const fn storer(&self) -> u32 {
        self.storer
    }

    const fn is_seen(&self) -> bool {
        self.seen_by != 0 || self.hidden_from.is_some()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct KnownPage {
    base: u64,
    /// Known words by index.
    words: Vec<(u16, u64)>,
}

/// The older values of a page, by index, of one word in the order in which they were replaced.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Unsettled {
    base: u64,
    older: Vec<Older>,
}

/// Physical memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// A sum over all known words, so that hashing does not read them.
    sum: u64,
    /// As long as nobody shares them they are written; then changes are kept apart.
    pages: Arc<Vec<Arc<KnownPage>>>,
    /// Words that differ from those of the pages, by address.
    changed: Vec<(u64, u64)>,
    unsettled: Vec<Unsettled>,
    /// PEs with DMBs for stores or store-releases since their last DSB, each behind a store.
    epochs: Vec<Epochs>,
    /// Sorted.
    came: Vec<Came>,
}

impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        let words = |memory: &Self| {
            let mut words: Vec<_> = memory.words(0, u64::MAX, |_| true).collect();
            words.sort_unstable();
            words
        };
        let alike = self.sum == other.sum && self.unsettled == other.unsettled;
        let alike = alike && self.epochs == other.epochs && self.came == other.came;
        alike && words(self) == words(other)
    }
}

impl Eq for Memory {}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sum.hash(state);
        self.unsettled.hash(state);
        self.epochs.hash(state);
        self.came.hash(state);
    }
}

/// What a store did to a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordChange {
    pub(super) old: Option<u64>,
    pub(super) new: u64,
}

const fn mixed(pa: u64, value: u64) -> u64 {
    let mut bits = value ^ pa.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

const fn index_of(pa: u64) -> u16 {
    (pa % PAGE / 8) as u16
}

impl Memory {
    /// What the pages say of the word at `pa`.
    fn in_pages(&self, pa: u64) -> Option<u64> {
        let base = pa & !(PAGE - 1);
        let page = &self.pages[self.pages.binary_search_by_key(&base, |page| page.base).ok()?];
        let at = page.words.binary_search_by_key(&index_of(pa), |word| word.0).ok()?;
        Some(page.words[at].1)
    }

    /// The newest value of the word at `pa`, if anybody wrote it.
    pub(super) fn get(&self, pa: u64) -> Option<u64> {
        match self.changed.binary_search_by_key(&pa, |word| word.0) {
            Ok(at) => Some(self.changed[at].1),
            Err(_) => self.in_pages(pa),
        }
    }

    /// Declares a word.
    pub(super) fn set(&mut self, pa: u64, value: u64) {
        let replaced = self.get(pa).map_or(0, |old| mixed(pa, old));
        self.sum = self.sum.wrapping_sub(replaced).wrapping_add(mixed(pa, value));
        if self.changed.len() >= MOST_CHANGED {
            for (pa, value) in std::mem::take(&mut self.changed) {
                set_in(Arc::make_mut(&mut self.pages), pa, value);
            }
        }
        if self.changed.is_empty()
            && let Some(pages) = Arc::get_mut(&mut self.pages)
        {
            set_in(pages, pa, value);
            return;
        }
        let is_back = self.in_pages(pa) == Some(value);
        match self.changed.binary_search_by_key(&pa, |word| word.0) {
            Ok(at) if is_back => {
                self.changed.remove(at);
            }
            Ok(at) => self.changed[at].1 = value,
            Err(at) if !is_back => self.changed.insert(at, (pa, value)),
            Err(_) => {}
        }
    }

    /// The bits `mask` of a word become those of `value`. With `remember`, walks may see what it held until a DSB of `storer`, and those that
    /// go the way that it is `hidden_from` until the upkeep of its line. Nothing if it held that before, or if a part of it stays unknown.
    pub(super) fn store(
        &mut self,
        (storer, is_release): (u32, bool),
        word: (u64, u64, u64),
        remember: bool,
        hidden_from: Option<Route>,
    ) -> Option<WordChange> {
        let (pa, mask, value) = word;
        let old = self.get(pa);
        if old.is_none() && mask != u64::MAX {
            return None;
        }
        let new = old.unwrap_or(0) & !mask | value;
        if old == Some(new) {
            return None;
        }
        self.set(pa, new);
        if remember || hidden_from.is_some() {
            let seen_by = if remember { u128::MAX } else { 0 };
            let Epochs { now: epoch, since, .. } = self.epochs_of(storer);
            let is_release = is_release && epoch != u8::MAX && self.has_unseen(storer, 0);
            self.note_order(pa, new, (storer, if is_release { epoch + 1 } else { since }));
            self.remember(pa, new, Older { index: index_of(pa), storer, epoch, value: old, seen_by, hidden_from });
            if is_release {
                self.set_epochs(Epochs { pe: storer, now: epoch + 1, since });
            }
        }
        Some(WordChange { old, new })
    }

    fn epochs_of(&self, pe: u32) -> Epochs {
        let known = self.epochs.iter().find(|of| of.pe == pe).copied();
        known.unwrap_or(Epochs { pe, now: 0, since: 0 })
    }

    fn set_epochs(&mut self, epochs: Epochs) {
        match self.epochs.binary_search_by_key(&epochs.pe, |of| of.pe) {
            Ok(at) => self.epochs[at] = epochs,
            Err(at) => self.epochs.insert(at, epochs),
        }
    }

    /// Whether walks may not see a store of `storer` in this epoch or a later one.
    fn has_unseen(&self, storer: u32, since: u8) -> bool {
        let stores = |older: &Older| older.storer == storer && older.epoch >= since;
        self.unsettled.iter().any(|page| page.older.iter().any(stores))
    }

    /// A DMB for stores: who sees a store of `storer` after it sees those before, since a walk reads a table after what
    /// leads to it.
    pub(super) fn order_stores(&mut self, storer: u32) {
        let Epochs { now, since, .. } = self.epochs_of(storer);
        if now == u8::MAX || !self.has_unseen(storer, since) {
            return;
        }
        let now = if self.has_unseen(storer, now) { now + 1 } else { now };
        self.set_epochs(Epochs { pe: storer, now, since: now });
    }

    /// Whether the order of stores says anything.
    pub(super) const fn has_ordered(&self) -> bool {
        !self.epochs.is_empty()
    }

    /// `value` is stored at `pa`. Where it may be seen of another store as well, its order says nothing.
    fn note_order(&mut self, pa: u64, value: u64, by: (u32, u8)) {
        let known = self.came.iter().position(|came| (came.pa, came.value) == (pa, value));
        match known {
            Some(at) if self.came[at].by.0 != by.0 || by.1 == 0 => {
                self.came.remove(at);
            }
            None if by.1 != 0 && !self.older(pa, 8).any(|(_, older)| older.value == Some(value)) => {
                let came = Came { pa, value, by };
                self.came.insert(self.came.partition_point(|other| *other < came), came);
            }
            _ => {}
        }
    }

    /// What stands at `pa` may be seen without what was stored before it.
    pub(super) fn forget_order(&mut self, pa: u64) {
        let value = self.get(pa);
        self.came.retain(|came| came.pa != pa || Some(came.value) != value);
    }

    /// By which store a value came to the word at `pa` that `is` so, if it is only one.
    pub(super) fn came(&self, pa: u64, is: impl Fn(u64) -> bool) -> Option<(u32, u8)> {
        let of_word = |came: &&Came| came.pa == pa && is(came.value);
        let mut known = self.came.iter().filter(of_word);
        let one = known.next().filter(|_| known.next().is_none())?;
        let older = self.older(pa, 8).filter_map(|(_, older)| older.value);
        let mut visible = older.chain(self.get(pa)).filter(|value| is(*value));
        visible.all(|value| value == one.value).then_some(one.by)
    }

    fn remember(&mut self, pa: u64, new: u64, replaced: Older) {
        let (base, index) = (pa & !(PAGE - 1), replaced.index);
        let at = match self.unsettled.binary_search_by_key(&base, |page| page.base) {
            Ok(at) => at,
            Err(at) => {
                self.unsettled.insert(at, Unsettled { base, older: Vec::new() });
                at
            }
        };
        let older = &mut self.unsettled[at].older;
        older.retain(|entry| {
            let redundant = entry.value == replaced.value || entry.value == Some(new);
            let by_same = (entry.storer, entry.epoch) == (replaced.storer, replaced.epoch);
            entry.index != index || !by_same || !redundant
        });
        let end = older.partition_point(|entry| entry.index <= index);
        let start = older.partition_point(|entry| entry.index < index);
        older.insert(end, replaced);
        if end - start >= MOST_OLDER {
            older.remove(start);
        }
    }

    /// A DSB that covers the stores of `storer`: what they replaced, and whatever that had replaced, is no longer seen by walks within
    /// `reach`. Returns the words whose newest value has become certain for somebody.
    pub(super) fn complete_stores(&mut self, storer: u32, reach: Reach) -> Vec<u64> {
        let gone = if reach == Reach::Own { 1 << (storer & 127) } else { u128::MAX };
        let mut certain = Vec::new();
        for page in &mut self.unsettled {
            complete_page(page, storer, gone, &mut certain);
        }
        if reach != Reach::Own && self.epochs.iter().any(|of| of.pe == storer) {
            self.epochs.retain(|of| of.pe != storer);
            self.came.retain(|came| came.by.0 != storer);
            let older = self.unsettled.iter_mut().flat_map(|page| &mut page.older);
            older.filter(|older| older.storer == storer).for_each(|older| older.epoch = 0);
        }
        self.unsettled.retain(|page| !page.older.is_empty());
        certain
    }

    /// Walks that go this way see the newest value of the word at `pa`, if they wait for nothing but its line.
    pub(super) fn reveal(&mut self, pa: u64, way: Route) {
        let Ok(at) = self.unsettled.binary_search_by_key(&(pa & !(PAGE - 1)), |page| page.base) else { return };
        let older = &mut self.unsettled[at].older;
        for entry in older.iter_mut().filter(|entry| entry.index == index_of(pa) && entry.hidden_from == Some(way)) {
            entry.hidden_from = None;
        }
        older.retain(Older::is_seen);
        if older.is_empty() {
            self.unsettled.remove(at);
        }
    }

    /// Whether a walk of any PE may see an older value anywhere.
    pub(super) const fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Known words in `first..first + bytes` whose values `matter`.
    pub(super) fn words(
        &self,
        first: u64,
        bytes: u64,
        matter: impl Fn(u64) -> bool + Copy,
    ) -> impl Iterator<Item = (u64, u64)> {
        let end = first.saturating_add(bytes);
        let from = self.pages.partition_point(|page| page.base + (PAGE - 1) < first);
        let pages = self.pages[from..].iter().take_while(move |page| page.base < end);
        let kept = pages.flat_map(move |page| {
            let from = page.words.partition_point(|word| page.base + 8 * u64::from(word.0) < first);
            let words = page.words[from..].iter().map(|word| (page.base + 8 * u64::from(word.0), word.1));
            words.take_while(move |word| word.0 < end).filter(move |word| matter(word.1))
        });
        let is_changed = |word: &(u64, u64)| self.changed.binary_search_by_key(&word.0, |word| word.0).is_ok();
        let kept = kept.filter(move |word| !is_changed(word));
        let from = self.changed.partition_point(|word| word.0 < first);
        let changed = self.changed[from..].iter().copied().take_while(move |word| word.0 < end);
        kept.chain(changed.filter(move |word| matter(word.1)))
    }

    /// Older values in `first..first + bytes`, with their addresses.
    pub(super) fn older(&self, first: u64, bytes: u64) -> impl Iterator<Item = (u64, &Older)> {
        let end = first.saturating_add(bytes);
        let from = self.unsettled.partition_point(|page| page.base + (PAGE - 1) < first);
        let pages = self.unsettled[from..].iter().take_while(move |page| page.base < end);
        pages.flat_map(move |page| {
            let all = page.older.iter().map(|entry| (page.base + 8 * u64::from(entry.index), entry));
            all.filter(move |entry| (first..end).contains(&entry.0))
        })
    }

    /// Those that the walks of `pe` may see which go this way and have come there by these stores. Who sees a store
    /// sees none that is older.
    pub(super) fn older_after(
        &self,
        (first, bytes): (u64, u64),
        (pe, way): (u32, Route),
        stores: &[(u32, u8)],
    ) -> impl Iterator<Item = (u64, &Older)> {
        let is_over = move |pa: u64, older: &Older| {
            !stores.is_empty()
                && self.older(pa, 8).skip_while(|(_, other)| *other != older).any(|(_, later)| later.is_before(stores))
        };
        self.older(first, bytes).filter(move |(pa, older)| {
            let seen_by = if is_over(*pa, older) { 0 } else { older.seen_by };
            Older { seen_by, ..**older }.is_seen_by((pe, way))
        })
    }

    /// Whether `bytes` at `first` and at `second` are known and equal.
    pub(super) fn same(&self, first: u64, second: u64, bytes: u64) -> bool {
        // Beyond 2 MiB nobody proves it word by word.
        let small = bytes <= 1 << 21;
        let word =
            |index: u64| self.get(first + 8 * index).is_some_and(|value| self.get(second + 8 * index) == Some(value));
        small && (0..bytes / 8).all(word)
    }
}

fn complete_page(page: &mut Unsettled, storer: u32, gone: u128, certain: &mut Vec<u64>) {
    let mut at = page.older.len();
    let mut covered = None;
    while at > 0 {
        at -= 1;
        let entry = &mut page.older[at];
        if entry.storer == storer {
            covered = Some(entry.index);
        }
        if covered == Some(entry.index) {
            entry.seen_by &= !gone;
            certain.push(page.base + 8 * u64::from(entry.index));
        }
    }
    page.older.retain(Older::is_seen);
}

fn set_in(pages: &mut Vec<Arc<KnownPage>>, pa: u64, value: u64) {
    let base = pa & !(PAGE - 1);
    let at = match pages.binary_search_by_key(&base, |page| page.base) {
        Ok(at) => at,
        Err(at) => {
            pages.insert(at, Arc::new(KnownPage { base, words: Vec::new() }));
            at
        }
    };
    let words = &mut Arc::make_mut(&mut pages[at]).words;
    match words.binary_search_by_key(&index_of(pa), |word| word.0) {
        Ok(at) => words[at].1 = value,
        Err(at) => words.insert(at, (index_of(pa), value)),
    }
}
