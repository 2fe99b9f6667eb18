//! What a translation table walk finds, level by level: for whoever must explain a fault.
//!
//! Why it exists: the exception path prints the walk of the faulting address, from tables that may be wrong. So this walk goes where
//! the hardware would go, whatever else a descriptor says, and stops where the hardware would stop.
//!
//! What must hold: it takes no lock, allocates nothing, reads at most four descriptors and writes none.

#![forbid(unsafe_code)]

use crate::addr::{ADDRESS_BITS, Frame, Level, PhysAddr, VirtAddr};
use crate::descriptor::Entry;
use core::fmt;

/// Reads tables, for observers.
pub trait ReadTable {
    /// Descriptor `index`, 0 to 511, of the table in frame `table`, by one 64-bit access.
    fn descriptor(&self, table: Frame, index: usize) -> u64;

    /// Descriptors `first` to `first + 7` of that table, each by one 64-bit access. `first` is a multiple of eight.
    #[inline]
    fn eight(&self, table: Frame, first: usize) -> [u64; 8] {
        core::array::from_fn(|number| self.descriptor(table, (first & !7) + number))
    }
}

/// One level of a walk: a descriptor and where it stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level.
    pub level: Level,
    /// The table.
    pub table: Frame,
    /// The slot of the table, 0 to 511.
    pub index: usize,
    /// The descriptor.
    pub raw: u64,
}

/// What the hardware does with a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The walk goes on in this table.
    Table(Frame),
    /// The walk ends; the leaf maps from here.
    Leaf(PhysAddr),
    /// The walk ends in a translation fault.
    Fault,
}

const OUTPUT_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl Step {
    /// What the hardware does next. Bits 1:0: 3 is a table, at level 3 a page; 1 is a block, at levels 0 and 3 reserved.
    #[must_use]
    pub const fn next(&self) -> Next {
        // 48 bits by the mask, so the address is always in range.
        let address = PhysAddr::at(self.raw & OUTPUT_ADDRESS);
        match (self.raw & 3, self.level) {
            (3, Level::L3) => Next::Leaf(address),
            (3, _) => Next::Table(Frame::containing(address)),
            (1, Level::L1 | Level::L2) => Next::Leaf(address.align_down(self.level.slot_bytes())),
            _ => Next::Fault,
        }
    }

    /// What the descriptor says to the manager.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry::decode(self.raw, self.level)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, table, index, raw } = *self;
        write!(f, "level {} slot {index:3} of table {}: {raw:#018x} ", level as u8, table.start())?;
        match (self.entry(), self.next()) {
            (Entry::Leaf(leaf), _) => {
                let kind = if level == Level::L3 { "page" } else { "block" };
                write!(f, "{kind} {} {}", leaf.output(), leaf.attributes())
            }
            (Entry::Unused, _) => f.write_str("unused: translation fault"),
            (Entry::Broken(_), _) => f.write_str("broken: translation fault"),
            (_, Next::Fault) => f.write_str("reserved: translation fault"),
            (Entry::Table { frame, .. }, _) => write!(f, "table {}", frame.start()),
            (_, Next::Table(next)) => write!(f, "table {}, with bits that the manager never writes", next.start()),
            (_, Next::Leaf(output)) => write!(f, "leaf {output}, with bits that the manager never writes"),
        }
    }
}

/// The walk of one address. Its `Display` is one line a level, each with its end of line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    virt: VirtAddr,
    steps: [Option<Step>; 4],
}

impl Walk {
    /// The levels that the walk reached, from the root.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// The physical address that the virtual one translates to, or `None` when the walk ends in a fault. Rights are not judged.
    #[must_use]
    pub fn output(&self) -> Option<PhysAddr> {
        let last = self.steps().last()?;
        match last.next() {
            Next::Leaf(output) => output.checked_add(self.virt.raw() & (last.level.slot_bytes() - 1)),
            Next::Table(_) | Next::Fault => None,
        }
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps().next().is_none() {
            return writeln!(f, "  no walk: {} is beyond the input range of {ADDRESS_BITS} bits", self.virt);
        }
        for step in self.steps() {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

/// Walks `virt` from the level 0 table `root`.
pub fn walk(reader: &impl ReadTable, root: Frame, virt: VirtAddr) -> Walk {
    let mut steps = [None; 4];
    let mut table = root;
    for (level, place) in [Level::L0, Level::L1, Level::L2, Level::L3].into_iter().zip(&mut steps) {
        if virt.raw() >> ADDRESS_BITS != 0 {
            break;
        }
        let index = virt.slot(level);
        let step = Step { level, table, index, raw: reader.descriptor(table, index) };
        *place = Some(step);
        match step.next() {
            Next::Table(next) => table = next,
            Next::Leaf(_) | Next::Fault => break,
        }
    }
    Walk { virt, steps }
}

#[cfg(test)]
mod tests;
