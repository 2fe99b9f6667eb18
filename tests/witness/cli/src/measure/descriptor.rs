//! EL2 stage 1 descriptors of the 4 KiB granule, as far as measuring needs them.
//!
//! Deliberately not the image's own `descriptor` module: what is measured must not help to measure itself.

/// What a 64-bit descriptor is at its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Translates nothing.
    Invalid,
    /// A block or a page.
    Leaf,
    /// Points to a table of the next level.
    Table,
}

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const ACCESS_FLAG: u64 = 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const NEVER_EXECUTE: u64 = 1 << 54;
const TABLE_READ_ONLY: u64 = 1 << 62;
const TABLE_NEVER_EXECUTE: u64 = 1 << 60;
/// Memory type index, shareability, contiguous bit.
const LEAF_ATTRIBUTES: u64 = 7 << 2 | 3 << 8 | 1 << 52;
/// APTable, XNTable and the other hierarchical controls.
const TABLE_ATTRIBUTES: u64 = 0x1f << 59;

/// Bits of the address that one entry at `level` (0 to 3) leaves to the offset.
pub(crate) const fn offset_bits(level: u8) -> u32 {
    39 - 9 * level as u32
}

/// What `word` is in a table of this level.
pub(crate) const fn kind(word: u64, level: u8) -> Kind {
    match (word & 3, level) {
        (1, 1 | 2) | (3, 3) => Kind::Leaf,
        (3, 0..=2) => Kind::Table,
        _ => Kind::Invalid,
    }
}

/// The output address of a leaf, or the next table's.
pub(crate) const fn address(word: u64, level: u8) -> u64 {
    match kind(word, level) {
        Kind::Leaf => word & ADDRESS & !((1 << offset_bits(level)) - 1),
        _ => word & ADDRESS,
    }
}

/// Rights that tables above take away from a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Denied {
    /// APTable\[1\] was set on the way.
    pub(crate) write: bool,
    /// XNTable was set on the way.
    pub(crate) execute: bool,
}

impl Denied {
    /// What is denied below the table descriptor `word`.
    pub(crate) const fn below(self, word: u64) -> Self {
        Self {
            write: self.write || word & TABLE_READ_ONLY != 0,
            execute: self.execute || word & TABLE_NEVER_EXECUTE != 0,
        }
    }
}

/// True if `word` is a leaf through which memory can be both written and executed, WXN aside. Without the access flag it
/// can be neither.
pub(crate) const fn writable_executable(word: u64, level: u8, denied: Denied) -> bool {
    let writable = word & READ_ONLY == 0 && !denied.write;
    let executable = word & NEVER_EXECUTE == 0 && !denied.execute;
    matches!(kind(word, level), Kind::Leaf) && word & ACCESS_FLAG != 0 && writable && executable
}

/// True if a TLB or walk cache may hold `word`.
pub(crate) const fn cacheable(word: u64, level: u8) -> bool {
    match kind(word, level) {
        Kind::Invalid => false,
        Kind::Leaf => word & ACCESS_FLAG != 0,
        Kind::Table => true,
    }
}

/// True if going from one valid descriptor to the other needs break-before-make: address, size, type, shareability, the
/// contiguous bit, hierarchical controls. Leaf rights and software bits do not.
pub(crate) fn needs_break(old: u64, new: u64, level: u8) -> bool {
    let attributes = match kind(old, level) {
        Kind::Table => TABLE_ATTRIBUTES,
        _ => LEAF_ATTRIBUTES,
    };
    kind(old, level) != kind(new, level) || address(old, level) != address(new, level) || (old ^ new) & attributes != 0
}
