//! Parts of a state that its successors share until one of them changes.
//!
//! Why: an exhaustive search clones and hashes a state for every event, and most events change little of it.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

#[derive(Clone, Debug)]
struct Digested<T> {
    value: T,
    /// Of `value`, once somebody asked.
    digest: OnceLock<u64>,
}

/// A value that is copied when it is changed, and hashed once.
#[derive(Clone, Debug)]
pub(super) struct Shared<T> {
    inner: Arc<Digested<T>>,
}

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self { inner: Arc::new(Digested { value, digest: OnceLock::new() }) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        let inner = Arc::make_mut(&mut self.inner);
        inner.digest = OnceLock::new();
        &mut inner.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.value == other.inner.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let digest = self.inner.digest.get_or_init(|| {
            let mut digest = Digest(0);
            self.inner.value.hash(&mut digest);
            digest.finish()
        });
        state.write_u64(*digest);
    }
}

/// A list that states share until one of them changes it; what only looks at it must not borrow it mutably.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct List<T>(Arc<Vec<T>>);

impl<T> List<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Vec::new()))
    }
}

impl<T> Deref for List<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Clone> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        Arc::make_mut(&mut self.0)
    }
}

/// What follows from the rest of a state, or only spares work: no part of what makes two states equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hint<T>(pub(super) T);

impl<T> Deref for Hint<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> PartialEq for Hint<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Hint<T> {}

impl<T> Hash for Hint<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Multiplies and rotates; spread once more by whoever hashes the digest.
struct Digest(u64);

impl Digest {
    const fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        let bits = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        bits ^ bits >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.add(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.add(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }
}
