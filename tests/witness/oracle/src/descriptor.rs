//! 64-bit descriptors of EL2 stage 1 (E2H = 0), decoded from the architecture's tables for every granule and address size.
//!
//! Bits, all granules: valid 0, table or page 1, AttrIndx 4:2, AP\[2\] 7, SH 9:8, AF 10, nT 16 (blocks), GP 50, DBM 51, Contiguous 52, XN 54, software
//! 58:55; in table descriptors APTable\[1\] 62 and XNTable 60.

/// A translation granule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// Bits of an offset within a page.
    #[must_use]
    pub const fn page_shift(self) -> u8 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Bits of an index into a full table.
    #[must_use]
    pub const fn stride(self) -> u8 {
        self.page_shift() - 3
    }

    /// Bytes of a page, which are those of a full table.
    #[must_use]
    pub const fn page_bytes(self) -> u64 {
        1 << self.page_shift()
    }
}

/// How descriptors are read and how input addresses are cut into indices: what TCR_EL2 and a PE's features decide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Format {
    /// TCR_EL2.TG0.
    pub granule: Granule,
    /// TCR_EL2.DS, where FEAT_LPA2 is there: 52-bit addresses with 4 KiB and 16 KiB, shareability from TCR_EL2.SH0.
    pub ds: bool,
    /// The level at which walks begin, -1 to 3.
    pub start_level: i8,
    /// Bits of an input address, 64 - T0SZ.
    pub input_bits: u8,
    /// Bits of an output address: beyond is an address size fault, which is never cached.
    pub output_bits: u8,
    /// The PE has 52 bits of physical address, whatever TCR_EL2.PS says: with 64 KiB, level 1 has blocks, and descriptors keep address bits 51:48
    /// in 15:12.
    pub wide: bool,
    /// TCR_EL2.HD and HA in force: DBM makes a read-only leaf writable; AF = 0 is set by the walker and may be cached.
    pub hardware_dirty: bool,
    /// TCR_EL2.HA in force.
    pub hardware_access: bool,
    /// TCR_EL2.HPD: table descriptors' rights are ignored.
    pub hierarchy_disabled: bool,
    /// TCR_EL2.SH0.
    pub shareability: u8,
}

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Descriptor {
    /// Translation fault or address size fault: never cached.
    Invalid,
    /// Leads to a table of the next level.
    Table(TableDescriptor),
    /// A block or a page.
    Leaf(Leaf),
}

/// A table descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TableDescriptor {
    /// Physical address of the next table.
    pub next: u64,
    /// APTable\[1\]: nothing below is writable. False where TCR_EL2.HPD disables it.
    pub no_write: bool,
    /// XNTable: nothing below is executable. False where TCR_EL2.HPD disables it.
    pub no_execute: bool,
}

/// A block or page descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Leaf {
    /// Physical address of the first byte.
    pub output: u64,
    /// Index into MAIR_EL2.
    pub attr_index: u8,
    /// Shareability as in the descriptor, or as in TCR_EL2.SH0 with DS.
    pub shareability: u8,
    /// Writable as far as this descriptor says (AP\[2\], or DBM with hardware dirty state).
    pub writable: bool,
    /// Executable as far as this descriptor says: XN clear. WXN is the regime's.
    pub executable: bool,
    /// AF: with AF = 0 and no hardware management, a use faults and nothing is cached.
    pub accessed: bool,
    /// The contiguous hint.
    pub contiguous: bool,
    /// GP.
    pub guarded: bool,
    /// nT, of blocks.
    pub no_translation: bool,
}

/// Bits `high` to `low`, in place.
const fn field(word: u64, high: u32, low: u32) -> u64 {
    let width = high - low + 1;
    word & (((1 << width) - 1) << low)
}

impl Format {
    /// Log2 of the bytes that a descriptor of `level` translates.
    #[must_use]
    pub const fn shift(&self, level: i8) -> u8 {
        self.granule.page_shift() + self.granule.stride() * (3 - level) as u8
    }

    /// Bytes that a descriptor of `level` translates. Level -1 of a root translates as much as the input addresses allow.
    #[must_use]
    pub const fn span(&self, level: i8) -> u64 {
        1 << self.shift(level)
    }

    /// Descriptors in a table of `level`; the root may have fewer than others.
    #[must_use]
    pub const fn entries(&self, level: i8) -> u64 {
        if level == self.start_level {
            let bits = self.input_bits - self.shift(level);
            1 << bits
        } else {
            1 << self.granule.stride()
        }
    }

    /// Where the descriptor for `va` stands in its table of `level`.
    #[must_use]
    pub const fn index(&self, va: u64, level: i8) -> u64 {
        (va >> self.shift(level)) & (self.entries(level) - 1)
    }

    /// Descriptors in a contiguous run at `level`: 16 for 4 KiB; 128 pages or 32 blocks for 16 KiB; 32 for 64 KiB.
    #[must_use]
    pub const fn run_entries(&self, level: i8) -> u64 {
        match (self.granule, level) {
            (Granule::K4, _) => 16,
            (Granule::K16, 3) => 128,
            (Granule::K16 | Granule::K64, _) => 32,
        }
    }

    /// Whether blocks exist at `level`.
    #[must_use]
    pub const fn has_blocks(&self, level: i8) -> bool {
        match self.granule {
            Granule::K4 => matches!(level, 1 | 2) || (level == 0 && self.ds),
            Granule::K16 => level == 2 || (level == 1 && self.ds),
            Granule::K64 => level == 2 || (level == 1 && self.wide),
        }
    }

    /// The address in bits 47 to `low`, and where the format keeps bits 51 to 48.
    const fn address(&self, word: u64, low: u32) -> u64 {
        match self.granule {
            Granule::K4 | Granule::K16 if self.ds => {
                let top = if low > 49 { 0 } else { field(word, 49, low) };
                top | (field(word, 9, 8) << 42)
            }
            Granule::K64 if self.wide => field(word, 47, low) | (field(word, 15, 12) << 36),
            _ => field(word, 47, low),
        }
    }

    /// Decodes the descriptor `word` of a table of `level`.
    #[must_use]
    pub fn decode(&self, word: u64, level: i8) -> Descriptor {
        if word & 1 == 0 {
            return Descriptor::Invalid;
        }
        let is_table = word & 2 != 0 && level < 3;
        if is_table {
            let next = self.address(word, self.granule.page_shift().into());
            if next >> self.output_bits != 0 {
                return Descriptor::Invalid;
            }
            let obeyed = !self.hierarchy_disabled;
            let (no_write, no_execute) = (obeyed && word >> 62 & 1 != 0, obeyed && word >> 60 & 1 != 0);
            return Descriptor::Table(TableDescriptor { next, no_write, no_execute });
        }
        let is_page = level == 3 && word & 2 != 0;
        if !is_page && (level >= 3 || !self.has_blocks(level)) {
            return Descriptor::Invalid;
        }
        let output = self.address(word, self.shift(level).into());
        if output >> self.output_bits != 0 {
            return Descriptor::Invalid;
        }
        let shareability = if self.ds { self.shareability } else { (word >> 8 & 3) as u8 };
        Descriptor::Leaf(Leaf {
            output,
            attr_index: (word >> 2 & 7) as u8,
            shareability,
            writable: word >> 7 & 1 == 0 || (self.hardware_dirty && word >> 51 & 1 != 0),
            executable: word >> 54 & 1 == 0,
            accessed: word >> 10 & 1 != 0,
            contiguous: word >> 52 & 1 != 0,
            guarded: word >> 50 & 1 != 0,
            no_translation: level < 3 && word >> 16 & 1 != 0,
        })
    }

    /// Whether a TLB may hold what `descriptor` says: valid, and AF = 1 or managed by hardware.
    #[must_use]
    pub fn may_be_cached(&self, descriptor: Descriptor) -> bool {
        match descriptor {
            Descriptor::Invalid => false,
            Descriptor::Table(_) => true,
            Descriptor::Leaf(leaf) => leaf.accessed || self.hardware_access,
        }
    }
}
