//! A shadow of physical memory, in words of eight bytes, that follows the stores of a trace.

use rustc_hash::FxHashMap;

use breakwater_trace::Access;

use super::Loaded;

/// A word that a store has touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// Physical address, a multiple of 8.
    pub(crate) pa: u64,
    /// Before.
    pub(crate) old: u64,
    /// After.
    pub(crate) new: u64,
}

/// Words in a page.
const WORDS: usize = 512;

/// Physical memory as far as it is known; everything else reads as zero, as QEMU's RAM does. By pages, because stores come by the million and
/// most follow their neighbours.
#[derive(Default)]
pub(crate) struct Memory {
    pages: FxHashMap<u64, Box<[u64; WORDS]>>,
}

impl Memory {
    /// The word at `pa`, a multiple of 8.
    pub(crate) fn word(&self, pa: u64) -> u64 {
        self.pages.get(&(pa >> 12)).map_or(0, |page| page[index(pa)])
    }

    /// Declares contents without reporting a change.
    pub(crate) fn declare(&mut self, pa: u64, value: u64) {
        *self.slot(pa) = value;
    }

    fn slot(&mut self, pa: u64) -> &mut u64 {
        &mut self.pages.entry(pa >> 12).or_insert_with(|| Box::new([0; WORDS]))[index(pa)]
    }

    /// Declares the contents of a file.
    pub(crate) fn declare_file(&mut self, file: &Loaded) {
        file.words().for_each(|(pa, value)| self.declare(pa, value));
    }

    /// Performs a store; the words touched, lowest first (a misaligned one of 16 bytes touches three).
    pub(crate) fn store(&mut self, access: &Access) -> Vec<Change> {
        let first = access.pa & !7;
        let offset = (access.pa - first) as usize;
        let mut value = [0; 24];
        let mut touched = [0; 24];
        let [low, high] = access.value.map(u64::to_le_bytes);
        let bytes: Vec<u8> = low.into_iter().chain(high).take(usize::from(access.bytes)).collect();
        value[offset..offset + bytes.len()].copy_from_slice(&bytes);
        touched[offset..offset + bytes.len()].fill(0xff);
        let mut changes = Vec::new();
        for (index, (value, touched)) in value.as_chunks::<8>().0.iter().zip(touched.as_chunks::<8>().0).enumerate() {
            let mask = u64::from_le_bytes(*touched);
            if mask != 0 {
                changes.push(self.change(first + 8 * index as u64, mask, u64::from_le_bytes(*value)));
            }
        }
        changes
    }

    /// Zeroes `bytes` (a multiple of 8) at `pa`, as DC ZVA does.
    pub(crate) fn zero(&mut self, pa: u64, bytes: u64) -> Vec<Change> {
        (0..bytes / 8).map(|index| self.change(pa + 8 * index, u64::MAX, 0)).collect()
    }

    fn change(&mut self, pa: u64, mask: u64, value: u64) -> Change {
        let slot = self.slot(pa);
        let old = *slot;
        *slot = (old & !mask) | (value & mask);
        Change { pa, old, new: *slot }
    }
}

/// The word's place in its page.
const fn index(pa: u64) -> usize {
    (pa as usize & 0xfff) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn access(bytes: u8, pa: u64, low: u64, high: u64) -> Access {
        Access { bytes, va: pa, pa, value: [low, high], device: false }
    }

    #[test]
    fn good_a_store_changes_its_bytes_only() {
        let mut memory = Memory::default();
        memory.declare(0x1000, u64::MAX);
        assert_eq!(
            memory.store(&access(2, 0x1002, 0, 0)),
            [Change { pa: 0x1000, old: u64::MAX, new: 0xffff_ffff_0000_ffff }]
        );
        assert_eq!(memory.word(0x1008), 0);
    }

    #[test]
    fn good_a_pair_is_two_words_and_a_misaligned_one_three() {
        let mut memory = Memory::default();
        let news = |changes: Vec<Change>| changes.iter().map(|change| change.new).collect::<Vec<_>>();
        assert_eq!(news(memory.store(&access(16, 0x1000, 1, 2))), [1, 2]);
        assert_eq!(news(memory.store(&access(16, 0x2004, 0x2_0000_0001, 4))), [1 << 32, 2 | 4 << 32, 0]);
    }

    #[test]
    fn good_files_are_padded_to_words() {
        let mut memory = Memory::default();
        memory.declare_file(&Loaded { pa: 0x1000, bytes: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] });
        assert_eq!((memory.word(0x1000), memory.word(0x1008)), (0x0807_0605_0403_0201, 9));
    }
}
