//! Physical memory as far as a trace tells it. A word that the trace neither declares nor stores whole is unknown.

use rustc_hash::FxHashMap;

const WORDS: usize = 512;

/// 4 KiB: which bits of each word are known, and their values.
struct KnownPage {
    known: [u64; WORDS],
    value: [u64; WORDS],
    /// Words that once had bit 0 set and lost it: broken, if they are descriptors.
    broken: [u64; WORDS / 64],
}

/// Memory, all PEs' stores in it at once: a concrete part need not be as slow as the architecture allows.
#[derive(Default)]
pub(super) struct Memory {
    frames: FxHashMap<u64, Box<KnownPage>>,
}

const fn place(pa: u64) -> (u64, usize) {
    (pa >> 12, (pa as usize & 0xfff) / 8)
}

impl Memory {
    /// The bits of `mask` in the word at `pa` become those of `value`.
    pub(super) fn set(&mut self, pa: u64, mask: u64, value: u64) {
        let (number, word) = place(pa);
        let unknown = || Box::new(KnownPage { known: [0; WORDS], value: [0; WORDS], broken: [0; WORDS / 64] });
        let frame = self.frames.entry(number).or_insert_with(unknown);
        let old = frame.value[word];
        let new = (old & !mask) | (value & mask);
        frame.known[word] |= mask;
        frame.value[word] = new;
        let (index, bit) = (word / 64, 1 << (word % 64));
        match (old & 1, new & 1) {
            (1, 0) => frame.broken[index] |= bit,
            (_, 1) => frame.broken[index] &= !bit,
            _ => {}
        }
    }

    /// The word at `pa`, if all of it is known.
    pub(super) fn word(&self, pa: u64) -> Option<u64> {
        let (number, word) = place(pa);
        let frame = self.frames.get(&number)?;
        (frame.known[word] == u64::MAX).then_some(frame.value[word])
    }

    /// Whether the word at `pa` had bit 0 set before, and has it no longer.
    pub(super) fn is_broken(&self, pa: u64) -> bool {
        let (number, word) = place(pa);
        self.frames.get(&number).is_some_and(|frame| frame.broken[word / 64] >> (word % 64) & 1 != 0)
    }

    fn byte(&self, pa: u64) -> Option<u8> {
        let (number, word) = place(pa);
        let (frame, shift) = (self.frames.get(&number)?, 8 * (pa & 7));
        let is_known = frame.known[word] >> shift & 0xff == 0xff;
        is_known.then_some((frame.value[word] >> shift) as u8)
    }

    /// Whether both stretches of `bytes` are known and alike.
    pub(super) fn is_same(&self, one: u64, other: u64, bytes: u64) -> bool {
        (0..bytes).all(|offset| self.byte(one + offset).is_some_and(|byte| self.byte(other + offset) == Some(byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_half_a_word_is_no_word() {
        let mut memory = Memory::default();
        memory.set(0x1000, 0xffff_ffff, 7);
        assert_eq!(memory.word(0x1000), None);
        memory.set(0x1000, !0xffff_ffff, 3 << 32);
        assert_eq!((memory.word(0x1000), memory.word(0x1008)), (Some(3 << 32 | 7), None));
        memory.set(0x5000, u64::MAX, 9 << 32 | 7);
        assert!(memory.is_same(0x1000, 0x5000, 4) && !memory.is_same(0x1000, 0x5000, 8));
        assert!(!memory.is_same(0x1008, 0x5008, 1), "unknown is not alike");
    }

    #[test]
    fn good_a_cleared_valid_bit_is_remembered_until_it_is_set() {
        let mut memory = Memory::default();
        memory.set(0x1000, u64::MAX, 0x703);
        assert!(!memory.is_broken(0x1000));
        memory.set(0x1000, u64::MAX, 0);
        assert!(memory.is_broken(0x1000));
        memory.set(0x1000, u64::MAX, 0x1703);
        assert!(!memory.is_broken(0x1000));
    }
}
