//! Every store up to the first root switch, by word: which slots of the runtime tables were stored how often.
//!
//! Only at the switch is it known which frames the runtime tables are, so everything has to be remembered until then.
//! That is bounded: an image that stores more than that before it switches is told so, and has no figures.

use anyhow::{Result, ensure};
use rustc_hash::FxHashMap;

use breakwater_oracle::descriptor::Descriptor;
use breakwater_oracle::tables::{Tree, Words};

/// Stores that are remembered: at most 300 MB of them, each to a word of its own. An image of ours has some thousand.
const MOST_STORES: u64 = 1 << 21;

/// A slot of the runtime tables that was written more often than it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct StoredTwice {
    /// Physical address of the slot.
    pub slot: u64,
    /// How often it was stored, zeroing of a frame not yet linked aside.
    pub stores: usize,
    /// The ordinal of the instruction that stored it last.
    pub instruction: u64,
}

/// When the tables below a root were stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableStores {
    /// How many stores went to their slots, zeroing included.
    pub stores: usize,
    /// Ordinal of the first instruction among those.
    pub first: u64,
    /// Ordinal of the last.
    pub last: u64,
}

#[derive(Clone, Copy)]
struct StoredValue {
    /// Position in the order of all stores.
    order: u64,
    instruction: u64,
    value: u64,
}

/// All stores so far.
#[derive(Default)]
pub(super) struct History {
    next: u64,
    words: FxHashMap<u64, Vec<StoredValue>>,
}

impl History {
    /// Remembers that the word at `pa` now holds `value`.
    ///
    /// # Errors
    /// There were too many stores to remember them.
    pub(super) fn add(&mut self, pa: u64, instruction: u64, value: u64) -> Result<()> {
        ensure!(
            self.next < MOST_STORES,
            "more than {MOST_STORES} stores before the first root switch: those to its tables are not counted"
        );
        self.next += 1;
        self.words.entry(pa).or_default().push(StoredValue { order: self.next, instruction, value });
        Ok(())
    }

    fn of(&self, pa: u64) -> &[StoredValue] {
        self.words.get(&pa).map_or(&[], Vec::as_slice)
    }

    /// When the slots of `tree` were stored.
    pub(super) fn stores_to(&self, tree: &Tree) -> TableStores {
        let all = tree.slots().flat_map(|(slot, _)| self.of(slot)).map(|stored| stored.instruction);
        all.fold(TableStores::default(), |so_far, instruction| TableStores {
            stores: so_far.stores + 1,
            first: if so_far.stores == 0 { instruction } else { so_far.first.min(instruction) },
            last: so_far.last.max(instruction),
        })
    }

    /// The slots of `tree` that were stored more than once. A zero does not count while nothing points to its frame.
    pub(super) fn stored_twice(&self, tree: &Tree, memory: &impl Words) -> Vec<StoredTwice> {
        let linked = self.linked_at(tree, memory);
        let mut found = Vec::new();
        for (slot, _) in tree.slots() {
            // The root itself is linked by the switch.
            let linked_at = linked.get(&(slot & !0xfff)).copied().unwrap_or(u64::MAX);
            let counts = |stored: &&StoredValue| stored.value != 0 || stored.order > linked_at;
            let stores = self.of(slot).iter().filter(counts).count();
            if stores > 1 {
                let instruction = self.of(slot).last().map_or(0, |stored| stored.instruction);
                found.push(StoredTwice { slot, stores, instruction });
            }
        }
        found.sort_unstable();
        found
    }

    /// For each frame below the root: the place in the order of stores at which the first link to it was stored.
    fn linked_at(&self, tree: &Tree, memory: &impl Words) -> FxHashMap<u64, u64> {
        let mut linked = FxHashMap::default();
        for (slot, level) in tree.slots() {
            let word = memory.word(slot);
            if let Descriptor::Table(table) = tree.format().decode(word, level) {
                let links = self.of(slot).iter().filter(|stored| stored.value == word);
                let order = links.map(|stored| stored.order).min().unwrap_or(0);
                let first = linked.entry(table.next).or_insert(order);
                *first = order.min(*first);
            }
        }
        linked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_as_many_stores_as_are_remembered() {
        let mut history = History::default();
        (1..=MOST_STORES).for_each(|instruction| history.add(0x4020_0000, instruction, 1).expect("there is room"));
        assert_eq!(history.of(0x4020_0000).len() as u64, MOST_STORES);
    }

    #[test]
    fn bad_one_store_more_than_are_remembered_is_said() {
        let mut history = History { next: MOST_STORES, ..History::default() };
        let error = history.add(0x4020_0000, 1, 1).expect_err("there is no room").to_string();
        assert!(error.contains("more than 2097152 stores before the first root switch"), "{error}");
        assert!(history.of(0x4020_0000).is_empty());
    }
}
