//! A set of the 512 words of a 4 KiB page.

/// The set.
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
        self.0.iter().fold(state, |state, word| super::fast::fold(state, *word))
    }

    /// The lowest word in it.
    pub(super) fn first(&self) -> Option<usize> {
        let group = self.0.iter().position(|word| *word != 0)?;
        Some(64 * group + self.0[group].trailing_zeros() as usize)
    }
}
