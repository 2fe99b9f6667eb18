//! Hash maps keyed by addresses: one multiplication a word, folded so that the low bits of aligned addresses do not matter.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The words of `bytes`, the last filled up with zeros.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = bytes.as_chunks::<8>();
    let last = (!rest.is_empty()).then(|| rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    whole.iter().map(|bytes| u64::from_le_bytes(*bytes)).chain(last)
}

/// Everything that a hasher is told, as words of 64 bits.
macro_rules! in_words {
    () => {
        fn write(&mut self, bytes: &[u8]) {
            words_of(bytes).for_each(|word| self.write_u64(word));
        }

        fn write_u8(&mut self, value: u8) {
            self.write_u64(value.into());
        }

        fn write_u32(&mut self, value: u32) {
            self.write_u64(value.into());
        }

        fn write_u128(&mut self, value: u128) {
            self.write_u64(value as u64);
            self.write_u64((value >> 64) as u64);
        }

        fn write_usize(&mut self, value: usize) {
            self.write_u64(value as u64);
        }

        fn write_isize(&mut self, value: isize) {
            self.write_u64(value as u64);
        }
    };
}

/// Folds each word in by a full multiplication.
#[derive(Clone, Copy, Default)]
pub(super) struct Fold(u64);

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes `word` into `state`.
pub(super) const fn fold(state: u64, word: u64) -> u64 {
    let product = (state ^ word ^ FACTOR) as u128 * 0xa076_1d64_78bd_642f_u128;
    (product as u64) ^ (product >> 64) as u64 ^ state.rotate_left(29)
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    in_words!();

    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0, value);
    }
}

/// Two lanes: 128 bits of a state, for less than the standard hasher's price.
#[derive(Clone, Copy)]
pub(super) struct Wide(u64, u64);

impl Default for Wide {
    fn default() -> Self {
        Self(0, FACTOR)
    }
}

impl Wide {
    pub(super) const fn lanes(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl Hasher for Wide {
    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }

    in_words!();

    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0, value);
        self.1 = fold(self.1, value.rotate_left(32) ^ FACTOR);
    }
}

/// A map with that hasher.
pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// A hash of a map's entries that does not depend on their order.
pub(super) fn digest<K: Hash, V: Hash>(map: &FastMap<K, V>) -> u64 {
    let one = |(key, value): (&K, &V)| {
        let mut hasher = Fold::default();
        key.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    };
    map.iter().map(one).fold(0, u64::wrapping_add)
}

/// How an address is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Code is fetched there.
    Fetch,
    /// A load or store, which reached the byte at `pa`.
    Access { pa: u64 },
    /// DC ZVA, which does not tell what it reached.
    Zeroing,
}

/// Uses of pages that found nothing wrong. A use changes nothing: until something happens that it could tell apart,
/// another one of the same page by the same PE finds nothing either. Nearly all events of a boot are such.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// What happened so far that a use could tell apart.
    changes: u64,
    /// By a hash of the page: PE, page and kind of the use, how far from there it led, and after how many changes it
    /// was.
    known: Vec<(u64, u64, u64)>,
}

/// No part of a state, and soon learned again.
impl Clone for Uses {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Uses {
    /// Log2 of the uses that are remembered.
    const BITS: u32 = 10;

    /// What tells a use apart, and how far from its address it led, where it tells.
    const fn key(pe: u32, va: u64, kind: Use) -> (u64, u64) {
        let page = va >> 12 | (pe as u64) << 53 | 1 << 63;
        match kind {
            Use::Access { pa } => (page, pa.wrapping_sub(va)),
            Use::Fetch => (page | 1 << 52, 0),
            // No distance between pages.
            Use::Zeroing => (page, 1),
        }
    }

    const fn place(key: u64) -> usize {
        (key.wrapping_mul(FACTOR) >> (64 - Self::BITS)) as usize
    }

    /// Something happens that a use may tell apart.
    pub(super) const fn change(&mut self) {
        self.changes += 1;
    }

    /// Whether such a use found nothing, and nothing changed since.
    pub(super) fn found_nothing(&self, pe: u32, va: u64, kind: Use) -> bool {
        let (key, offset) = Self::key(pe, va, kind);
        self.known.get(Self::place(key)) == Some(&(key, offset, self.changes))
    }

    /// Such a use found nothing.
    pub(super) fn note(&mut self, pe: u32, va: u64, kind: Use) {
        if self.known.is_empty() {
            self.known.resize(1 << Self::BITS, (0, 0, 0));
        }
        let (key, offset) = Self::key(pe, va, kind);
        self.known[Self::place(key)] = (key, offset, self.changes);
    }
}
