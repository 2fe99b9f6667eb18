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
