//! What tables map, page for page, twice: as the architecture reads memory, and as requests say it. Neither knows the manager's code.

use super::judged::{Judged, format};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::geometry::{Geometry, HighBits};
use breakwater_oracle::descriptor::{Descriptor, Format};
use std::collections::BTreeMap;

/// Memory type and rights of a page: index into MAIR_EL2, shareability, writable, executable, guarded.
pub(crate) type Kind = (u8, u8, bool, bool, bool);

/// Bits that the manager sets in no leaf, and none but 55 in a table.
const SOFTWARE: u64 = 0xf << 55;
const KEPT: u64 = 1 << 55;

/// What attributes mean, from the architecture and MAIR_EL2.
pub(crate) fn kind<G: Geometry>(attributes: Attributes) -> Kind {
    let data = |access| access == DataAccess::ReadWrite;
    let (index, shareability, writable) = match attributes {
        Attributes::Normal(access) => (7, 3, access == Access::ReadWrite),
        Attributes::Tagged(access) => (6, 3, data(access)),
        Attributes::NonCacheable(access) => (1, 2, data(access)),
        Attributes::Device(DeviceKind::NGnRnE, access) => (0, 2, data(access)),
        Attributes::Device(DeviceKind::NGnRE, access) => (4, 2, data(access)),
        Attributes::Device(DeviceKind::Gre, access) => (5, 2, data(access)),
    };
    let guarded = attributes == Attributes::Normal(Access::ReadExecuteGuarded);
    let executable = guarded || attributes == Attributes::Normal(Access::ReadExecute);
    // With TCR_EL2.DS the shareability of all is TCR_EL2.SH0: Inner.
    let shareability = if G::HIGH_BITS == HighBits::Shareability { 3 } else { shareability };
    (index, shareability, writable, executable, guarded)
}

/// What pages map to: by first address, the bytes, the output, the kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pages(BTreeMap<u64, (u64, u64, Kind)>);

impl Pages {
    /// Makes `at` the start of an extent, if it lies within one.
    fn cut(&mut self, at: u64) {
        let Some((&start, &(bytes, output, kind))) = self.0.range(..at).next_back() else { return };
        if start + bytes > at {
            self.0.insert(start, (at - start, output, kind));
            self.0.insert(at, (start + bytes - at, output + (at - start), kind));
        }
    }

    /// Nothing is mapped in the span any more.
    pub(crate) fn unmap(&mut self, virt: u64, bytes: u64) {
        self.cut(virt);
        self.cut(virt + bytes);
        self.0.retain(|&at, _| at < virt || at >= virt + bytes);
    }

    /// The span maps to this, whatever it did before.
    pub(crate) fn map(&mut self, virt: u64, bytes: u64, output: u64, kind: Kind) {
        self.unmap(virt, bytes);
        self.0.insert(virt, (bytes, output, kind));
    }

    /// What is mapped in the span has another kind.
    pub(crate) fn protect(&mut self, virt: u64, bytes: u64, kind: Kind) {
        self.cut(virt);
        self.cut(virt + bytes);
        self.0.range_mut(virt..virt + bytes).for_each(|(_, extent)| extent.2 = kind);
    }

    /// The first address of the span that is not mapped.
    pub(crate) fn first_hole(&self, virt: u64, bytes: u64) -> Option<u64> {
        let mut at = virt;
        while at < virt + bytes {
            match self.0.range(..=at).next_back() {
                Some((&start, &(bytes, ..))) if at - start < bytes => at = start + bytes,
                _ => return Some(at),
            }
        }
        None
    }

    /// Whether nothing is mapped in the span.
    pub(crate) fn is_free(&self, virt: u64, bytes: u64) -> bool {
        let before = self.0.range(..virt).next_back().is_some_and(|(&at, &(bytes, ..))| at + bytes > virt);
        !before && self.0.range(virt..virt + bytes).next().is_none()
    }

    /// Whether one leaf could map the span as it is mapped: one kind, outputs side by side, aligned to the size.
    pub(crate) fn is_one_leaf(&self, virt: u64, size: u64) -> bool {
        self.0.range(..=virt).next_back().is_some_and(|(&at, &(bytes, output, _))| {
            at + bytes >= virt + size && (output + (virt - at)).is_multiple_of(size)
        })
    }

    /// The same with neighbours that follow each other as one.
    pub(crate) fn merged(&self) -> Self {
        let mut merged: BTreeMap<u64, (u64, u64, Kind)> = BTreeMap::new();
        for (&virt, &(bytes, output, kind)) in &self.0 {
            if let Some(mut last) = merged.last_entry() {
                let (at, extent) = (*last.key(), last.get_mut());
                if at + extent.0 == virt && extent.1 + extent.0 == output && extent.2 == kind {
                    extent.0 += bytes;
                    continue;
                }
            }
            merged.insert(virt, (bytes, output, kind));
        }
        Self(merged)
    }
}

/// A leaf where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) virt: u64,
    pub(crate) level: i8,
    pub(crate) output: u64,
    pub(crate) kind: Kind,
    pub(crate) contiguous: bool,
}

/// A table where it hangs: how many of its slots are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hanging {
    pub(crate) virt: u64,
    /// The level of the table itself.
    pub(crate) level: i8,
    pub(crate) used: usize,
    pub(crate) kept: bool,
}

/// A slot that is not the manager's to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Odd {
    pub(crate) virt: u64,
    pub(crate) level: i8,
    /// Bit 0 is clear and others are not; else bits are set that the manager never sets.
    pub(crate) broken: bool,
}

/// What tables in memory say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Picture {
    /// In ascending order.
    pub(crate) leaves: Vec<Standing>,
    pub(crate) tables: Vec<Hanging>,
    pub(crate) odd: Vec<Odd>,
    frames: Vec<u64>,
}

impl Picture {
    /// Reads what `root` leads to.
    pub(crate) fn of<G: Geometry>(machine: &Judged<G>, root: u64) -> Self {
        let mut picture = Self::default();
        let format = format::<G>();
        picture.read(machine, &format, root, (G::ROOT as i8, 0), true);
        let mut frames = picture.frames.clone();
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), picture.frames.len(), "a table is linked twice");
        picture
    }

    /// The leaves that begin in the span.
    pub(crate) fn leaves_in(&self, virt: u64, bytes: u64) -> &[Standing] {
        let first = |at| self.leaves.partition_point(|leaf| leaf.virt < at);
        &self.leaves[first(virt)..first(virt + bytes)]
    }

    /// The leaf that begins there.
    pub(crate) fn leaf_at(&self, virt: u64) -> Option<Standing> {
        self.leaves_in(virt, 1).first().copied()
    }

    fn read<G: Geometry>(&mut self, machine: &Judged<G>, format: &Format, frame: u64, at: (i8, u64), kept: bool) {
        let (level, base) = at;
        let words = machine.memory().get(&frame).expect("a table was written before it was linked");
        let used = words.iter().filter(|&&word| word != 0).count();
        self.tables.push(Hanging { virt: base, level, used, kept });
        self.frames.push(frame);
        for (index, &word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let virt = base + index as u64 * format.span(level);
            let odd = Odd { virt, level, broken: word & 1 == 0 };
            match format.decode(word, level) {
                _ if word & 1 == 0 => self.odd.push(odd),
                Descriptor::Invalid => panic!("{word:#x} at {virt:#x}, level {level}: no such descriptor"),
                Descriptor::Table(_) if word & (SOFTWARE & !KEPT) != 0 => self.odd.push(odd),
                Descriptor::Table(table) => {
                    self.read(machine, format, table.next, (level + 1, virt), word & KEPT != 0);
                }
                Descriptor::Leaf(leaf) => {
                    if word & SOFTWARE != 0 {
                        self.odd.push(odd);
                    }
                    let kind = (leaf.attr_index, leaf.shareability, leaf.writable, leaf.executable, leaf.guarded);
                    assert!(leaf.accessed && !leaf.no_translation && word >> 6 & 1 == 1 && word >> 11 & 1 == 0);
                    let contiguous = leaf.contiguous;
                    self.leaves.push(Standing { virt, level, output: leaf.output, kind, contiguous });
                }
            }
        }
    }

    /// What it maps, page for page.
    pub(crate) fn pages<G: Geometry>(&self) -> Pages {
        let format = format::<G>();
        let extents = self.leaves.iter().map(|leaf| (leaf.virt, (format.span(leaf.level), leaf.output, leaf.kind)));
        Pages(extents.collect()).merged()
    }
}
