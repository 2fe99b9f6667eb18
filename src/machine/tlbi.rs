//! TLB maintenance of the EL2 regime: which translations, at which levels, on which PEs; and the operands, bit by bit.

#![forbid(unsafe_code)]

use crate::addr::{Level, VirtAddr};
use crate::geometry::{Geometry, HighBits};

/// Which PEs have used the tables: how far an invalidation must reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Only the one that edits them: local maintenance is sound.
    ThisPe,
    /// Others too: broadcast within the Inner Shareable domain.
    Domain,
}

/// Which translations a TLBI removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// ALLE2: everything of EL2.
    All,
    /// VALE2: the last level of the walk of one address. For leaves that changed or went.
    Leaf(VaOperand),
    /// VAE2: every level of the walk of one address (RVMSWQ). For what was linked through a table that went.
    Walk(VaOperand),
    /// RVALE2: the last level of the walks of a range. Only where every PE that shares the tables has FEAT_TLBIRANGE.
    LeafRange(RangeOperand),
    /// RVAE2: every level of the walks of a range. The same holds.
    WalkRange(RangeOperand),
}

/// A TLB maintenance instruction of the EL2 regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tlbi {
    /// What it removes.
    pub scope: Scope,
    /// On which PEs.
    pub reach: Reach,
}

/// TTL of a granule and a level, where the architecture has it for that level in every format (Arm ARM: RSQXYZ).
fn hint<G: Geometry>(level: Level) -> Option<u64> {
    let known = matches!((G::TLBI_GRANULE, level), (_, Level::L2 | Level::L3) | (1, Level::L1));
    known.then_some(level as u64)
}

/// The operand of a TLBI by VA: VA\[55:12\] in bits 43:0, TTL in 47:44, 63:48 RES0 (Arm ARM: RSQXYZ, RXKMMX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VaOperand(u64);

impl VaOperand {
    /// The operand for the page that holds `virt`, at any level. At most 40 bits of it are set, so nothing can land in TTL.
    #[must_use]
    pub const fn new(virt: VirtAddr) -> Self {
        Self(virt.raw() >> 12)
    }

    /// The same for a leaf that is known to stand at `level`. Only for PEs with FEAT_TTL; to others these bits are RES0.
    #[must_use]
    pub fn at_level<G: Geometry>(virt: VirtAddr, level: Level) -> Self {
        let ttl = hint::<G>(level).map_or(0, |level| G::TLBI_GRANULE << 2 | level);
        Self(Self::new(virt).0 | ttl << 44)
    }

    /// The register's value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// The operand of a TLBI by range: TG in bits 47:46, SCALE 45:44, NUM 43:39, TTL 38:37, BaseADDR 36:0, ASID RES0 (Arm ARM: RXMZFH).
/// (NUM + 1) * 2^(5 * SCALE + 1) pages from the base on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeOperand(u64);

impl RangeOperand {
    /// The most pages that one operation takes.
    pub const PAGES_MAX: u64 = 32 << 16;

    /// The operand for as many of `pages` from `virt` on as one operation can take, and how many those are; `None` where a range cannot
    /// begin here, or one page is all there is. With `level`, for leaves that all stand there (which puts a base of that level's
    /// alignment at `virt`).
    #[must_use]
    pub fn cover<G: Geometry>(virt: VirtAddr, pages: u64, level: Option<Level>) -> Option<(Self, u64)> {
        // With TCR_EL2.DS = 1 a base is a multiple of 64 KiB, whatever the granule.
        let base_shift = if matches!(G::HIGH_BITS, HighBits::Shareability) { 16 } else { G::PAGE_SHIFT };
        if pages < 2 || !virt.is_aligned(1 << base_shift) {
            return None;
        }
        // The greatest unit of which there is at least one: the fewest operations, and none beyond the range.
        let scale = (0..4).rev().find(|scale| pages >> (5 * scale + 1) != 0)?;
        let number = (pages >> (5 * scale + 1)).min(32);
        let ttl = level.and_then(hint::<G>).unwrap_or(0);
        let base = virt.raw() >> base_shift & ((1 << 37) - 1);
        let raw = G::TLBI_GRANULE << 46 | scale << 44 | (number - 1) << 39 | ttl << 37 | base;
        Some((Self(raw), number << (5 * scale + 1)))
    }

    /// The register's value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Granule4K, Granule4KLpa2, Granule16K, Granule64K};

    #[test]
    fn good_operand_of_the_highest_address_leaves_ttl_clear() {
        let operand = VaOperand::new(VirtAddr::at((1 << 52) - 1));
        assert_eq!(operand.raw(), (1 << 40) - 1);
    }

    #[test]
    fn good_level_hints() {
        let ttl = |operand: VaOperand| operand.raw() >> 44;
        assert_eq!(ttl(VaOperand::at_level::<Granule4K>(VirtAddr::at(0x1000), Level::L3)), 0b0111);
        assert_eq!(ttl(VaOperand::at_level::<Granule4K>(VirtAddr::at(0), Level::L1)), 0b0101);
        assert_eq!(ttl(VaOperand::at_level::<Granule16K>(VirtAddr::at(0), Level::L2)), 0b1010);
        assert_eq!(ttl(VaOperand::at_level::<Granule64K>(VirtAddr::at(0), Level::L3)), 0b1111);
        assert_eq!(ttl(VaOperand::at_level::<Granule4KLpa2>(VirtAddr::at(0), Level::L0)), 0, "no hint for level 0");
    }

    #[test]
    fn good_ranges() {
        let virt = VirtAddr::at(0x0a00_0020_0000);
        let (operand, covered) = RangeOperand::cover::<Granule4K>(virt, 512, Some(Level::L3)).unwrap();
        assert_eq!(covered, 512);
        assert_eq!(operand.raw(), 1 << 46 | 1 << 44 | 7 << 39 | 3 << 37 | 0xa000_0200, "8 units of 64 pages");
        let (_, covered) = RangeOperand::cover::<Granule4K>(virt, 63, None).unwrap();
        assert_eq!(covered, 62, "an odd page is left");
        let (_, covered) = RangeOperand::cover::<Granule4K>(virt, u64::MAX >> 12, None).unwrap();
        assert_eq!(covered, RangeOperand::PAGES_MAX);
    }

    #[test]
    fn bad_ranges_are_none() {
        assert_eq!(RangeOperand::cover::<Granule4K>(VirtAddr::at(0x1000), 1, None), None);
        assert_eq!(RangeOperand::cover::<Granule4KLpa2>(VirtAddr::at(0x1000), 16, None), None, "not on 64 KiB");
    }
}
