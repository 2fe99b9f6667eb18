//! What an atomic instruction stores, if anything: the exclusives, compare-and-swap, and the instructions that update a word.
//!
//! A watcher that is told of the attempt alone finds here what has become of it. QEMU reports the new value of a failed compare-and-swap as if
//! it had been stored, and the operand of an LDADD in place of the sum.

/// An atomic instruction whose store follows from what it loads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Atomic {
    /// LDXR, LDXP and their acquiring forms: what a store-exclusive expects to find.
    LoadExclusive,
    /// STXR, STXP and their releasing forms.
    StoreExclusive,
    /// CAS and CASP.
    CompareAndSwap {
        /// Number of the general register with the expected value, the first of two for a pair.
        rs: u8,
        /// True for CASP.
        pair: bool,
        /// Bytes of one register that take part: 1, 2, 4 or 8.
        bytes: u8,
    },
    /// LDADD and its like, and their STADD forms.
    Update {
        /// What is done to the word.
        update: Update,
        /// Number of the general register with the operand.
        rs: u8,
    },
}

/// What an updating instruction does to a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Update {
    /// LDADD.
    Add,
    /// LDCLR: clears the operand's bits.
    Clear,
    /// LDEOR.
    ExclusiveOr,
    /// LDSET.
    Set,
    /// LDSMAX.
    SignedMaximum,
    /// LDSMIN.
    SignedMinimum,
    /// LDUMAX.
    UnsignedMaximum,
    /// LDUMIN.
    UnsignedMinimum,
}

/// By opc, bits 14 to 12.
const UPDATES: [Update; 8] = [
    Update::Add,
    Update::Clear,
    Update::ExclusiveOr,
    Update::Set,
    Update::SignedMaximum,
    Update::SignedMinimum,
    Update::UnsignedMaximum,
    Update::UnsignedMinimum,
];

impl Atomic {
    /// What `word` is; nothing for any other instruction, nor for SWP, which stores what its register holds.
    pub const fn of(word: u32) -> Option<Self> {
        let rs = ((word >> 16) & 31) as u8;
        if word & 0x3f20_8c00 == 0x3820_0000 {
            return Some(Self::Update { update: UPDATES[(word as usize >> 12) & 7], rs });
        }
        if word & 0x3f00_0000 != 0x0800_0000 {
            return None;
        }
        let size = word >> 30;
        let loads = word & (1 << 22) != 0;
        let (ordered, pair) = (word & (1 << 23) != 0, word & (1 << 21) != 0);
        match (ordered, pair, loads) {
            // Load-acquire and store-release.
            (true, false, _) => None,
            (true, true, _) => Some(Self::CompareAndSwap { rs, pair: false, bytes: 1 << size }),
            (false, true, _) if size < 2 => Some(Self::CompareAndSwap { rs, pair: true, bytes: 4 << size }),
            (false, _, true) => Some(Self::LoadExclusive),
            (false, _, false) => Some(Self::StoreExclusive),
        }
    }

    /// The value that a compare-and-swap expects, in the order in which it lies in memory, low half first, made of two general registers.
    pub const fn expected(bytes: u8, pair: bool, registers: [u64; 2]) -> [u64; 2] {
        let [first, second] = registers;
        match (bytes, pair) {
            (8, true) => [first, second],
            (8, false) => [first, 0],
            (_, true) => [first & 0xffff_ffff | second << 32, 0],
            (_, false) => [cut(first, bytes), 0],
        }
    }
}

impl Update {
    /// What becomes of `old`, a word of `bytes` (1, 2, 4 or 8).
    pub fn of(self, old: u64, operand: u64, bytes: u8) -> u64 {
        let operand = cut(operand, bytes);
        // In the upper bits, where comparison sees the sign.
        let up = 64 - 8 * u32::from(bytes.clamp(1, 8));
        let signed = |value: u64| (value << up) as i64;
        let new = match self {
            Self::Add => old.wrapping_add(operand),
            Self::Clear => old & !operand,
            Self::ExclusiveOr => old ^ operand,
            Self::Set => old | operand,
            Self::SignedMaximum => std::cmp::max_by_key(old, operand, |value| signed(*value)),
            Self::SignedMinimum => std::cmp::min_by_key(old, operand, |value| signed(*value)),
            Self::UnsignedMaximum => old.max(operand),
            Self::UnsignedMinimum => old.min(operand),
        };
        cut(new, bytes)
    }
}

/// The low `bytes` of a value.
const fn cut(value: u64, bytes: u8) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * bytes as u32)) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from an assembler.
    #[test]
    fn good_words_from_an_assembler_are_told_apart() {
        let swap = |rs, pair, bytes| Some(Atomic::CompareAndSwap { rs, pair, bytes });
        let update = |update, rs| Some(Atomic::Update { update, rs });
        for (word, text, expected) in [
            (0xc85f_7c20, "ldxr x0, [x1]", Some(Atomic::LoadExclusive)),
            (0x885f_fc20, "ldaxr w0, [x1]", Some(Atomic::LoadExclusive)),
            (0xc87f_0820, "ldxp x0, x2, [x1]", Some(Atomic::LoadExclusive)),
            (0xc802_7c20, "stxr w2, x0, [x1]", Some(Atomic::StoreExclusive)),
            (0x0802_fc20, "stlxrb w2, w0, [x1]", Some(Atomic::StoreExclusive)),
            (0xc823_0820, "stxp w3, x0, x2, [x1]", Some(Atomic::StoreExclusive)),
            (0xc8a2_7c20, "cas x2, x0, [x1]", swap(2, false, 8)),
            (0x88e2_fc20, "casal w2, w0, [x1]", swap(2, false, 4)),
            (0x08e2_7c20, "casab w2, w0, [x1]", swap(2, false, 1)),
            (0x4822_7c86, "casp x2, x3, x6, x7, [x4]", swap(2, true, 8)),
            (0x0822_7c86, "casp w2, w3, w6, w7, [x4]", swap(2, true, 4)),
            (0xc89f_fc20, "stlr x0, [x1]", None),
            (0xc8df_fc20, "ldar x0, [x1]", None),
            (0xf820_0041, "ldadd x0, x1, [x2]", update(Update::Add, 0)),
            (0xb8e3_1041, "ldclral w3, w1, [x2]", update(Update::Clear, 3)),
            (0x3820_705f, "stuminb w0, [x2]", update(Update::UnsignedMinimum, 0)),
            (0xf820_8041, "swp x0, x1, [x2]", None),
            (0xf8bf_c041, "ldapr x1, [x2]", None),
            (0xa900_0861, "stp x1, x2, [x3]", None),
            (0xf860_6841, "ldr x1, [x2, x0]", None),
        ] {
            assert_eq!(Atomic::of(word), expected, "{text}");
        }
    }

    #[test]
    fn good_an_expected_value_has_the_size_of_the_access() {
        let registers = [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00];
        assert_eq!(Atomic::expected(8, true, registers), registers);
        assert_eq!(Atomic::expected(8, false, registers), [registers[0], 0]);
        assert_eq!(Atomic::expected(4, true, registers), [0xddee_ff00_5566_7788, 0]);
        assert_eq!(Atomic::expected(4, false, registers), [0x5566_7788, 0]);
        assert_eq!(Atomic::expected(1, false, registers), [0x88, 0]);
    }

    #[test]
    fn good_an_update_stays_within_its_size() {
        assert_eq!(Update::Add.of(0xff, 0x1102, 1), 1);
        assert_eq!(Update::Add.of(u64::MAX, 2, 8), 1);
        assert_eq!(Update::Clear.of(0xff, 0x0f, 4), 0xf0);
        assert_eq!(Update::ExclusiveOr.of(0xff, 0x0f, 2), 0xf0);
        assert_eq!(Update::Set.of(0xf0, 0x0f, 8), 0xff);
        assert_eq!(Update::SignedMaximum.of(0x80, 0x01, 1), 0x01);
        assert_eq!(Update::SignedMinimum.of(0x80, 0x01, 1), 0x80);
        assert_eq!(Update::UnsignedMaximum.of(0x80, 0x01, 1), 0x80);
        assert_eq!(Update::UnsignedMinimum.of(0x8000_0000, 0xffff_ffff_0000_0001, 4), 1);
    }
}
