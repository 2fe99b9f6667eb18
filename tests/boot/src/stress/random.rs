//! Random numbers, the same for the same seed.

/// A generator of one CPU: xorshift64 (Marsaglia's triple 13, 7, 17), which never yields 0.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of `cpu`, whose numbers have nothing to do with those of another.
    pub(super) fn new(seed: u64, cpu: usize) -> Self {
        let mut random = Self((seed << 8 | cpu as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..16 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 16) % bound as u64) as usize
    }

    /// True once in `count` times.
    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
