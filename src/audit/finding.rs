//! What can be wrong with a map, each with its evidence and its line.

use super::Seen;
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use core::fmt;

/// A descriptor: where it stands and what it translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The table.
    pub table: Frame,
    /// The table's level.
    pub level: Level,
    /// The slot, 0 to 511.
    pub index: usize,
    /// The first byte that it translates.
    pub virt: VirtAddr,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, level, index, virt } = self;
        write!(f, "level {} slot {index} of table {} (va {virt})", *level as u8, table.start())
    }
}

/// A way in which the tables differ from what they must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The audit ran out of scratch space: the rest is not judged.
    ScratchFull {
        /// What it had.
        capacity: usize,
    },
    /// A table that is no RAM, or in a no-map region. It was not read.
    TableOutsideRam {
        /// The table.
        table: Frame,
        /// The first byte that it translates.
        virt: VirtAddr,
    },
    /// A table that two ways lead to, or a cycle.
    TableTwice {
        /// The table.
        table: Frame,
        /// The first byte that it translates the second time.
        virt: VirtAddr,
    },
    /// A table that can be executed.
    TableExecutable {
        /// The table.
        table: Frame,
        /// Where.
        virt: VirtAddr,
    },
    /// A table that is mapped with another memory type than the walker's.
    TableMixedMemory {
        /// The table.
        table: Frame,
        /// Where.
        virt: VirtAddr,
        /// How.
        found: Seen,
    },
    /// A valid descriptor with bits that are not as this image writes them.
    WrongBits {
        /// Which.
        place: Position,
        /// The descriptor.
        raw: u64,
        /// Those bits, set or missing.
        wrong: u64,
    },
    /// A leaf that says it is one of a contiguous run, which is none: a TLB may hold the run as one entry, and then translates what
    /// no leaf says.
    TornRun {
        /// Which.
        place: Position,
        /// The descriptor.
        raw: u64,
        /// A slot of the run that does not go with it; its own when the run is not aligned.
        slot: usize,
        /// What that slot holds.
        holds: u64,
    },
    /// A descriptor that is not 0 and translates nothing: broken and never reclaimed, or a reserved encoding.
    Dead {
        /// Which.
        place: Position,
        /// The descriptor.
        raw: u64,
    },
    /// Declared, but not mapped.
    Unmapped {
        /// The declaration's name.
        name: &'static str,
        /// What is missing.
        virt: VirtSpan,
    },
    /// Mapped, but not declared.
    Undeclared {
        /// Where.
        virt: VirtSpan,
        /// To what.
        phys: PhysAddr,
        /// How.
        found: Seen,
    },
    /// Declared to be a hole, but mapped.
    HoleMapped {
        /// The declaration's name.
        name: &'static str,
        /// Where.
        virt: VirtSpan,
        /// To what.
        phys: PhysAddr,
        /// How.
        found: Seen,
    },
    /// Mapped to another address than declared.
    WrongOutput {
        /// The declaration's name.
        name: &'static str,
        /// Where.
        virt: VirtSpan,
        /// The address declared, if it is one.
        declared: Option<PhysAddr>,
        /// The address found.
        found: PhysAddr,
    },
    /// Mapped with other attributes than declared.
    WrongAttributes {
        /// The declaration's name.
        name: &'static str,
        /// Where.
        virt: VirtSpan,
        /// The attributes declared.
        declared: Seen,
        /// The attributes found.
        found: Seen,
    },
    /// Writable and executable through one address.
    WritableExecutable {
        /// Where.
        virt: VirtSpan,
        /// What.
        phys: PhysAddr,
    },
    /// Device memory that can be executed.
    ExecutableDevice {
        /// Where.
        virt: VirtSpan,
        /// What.
        phys: PhysAddr,
    },
    /// Normal memory where there is no RAM.
    OutsideRam {
        /// Where it begins.
        virt: VirtAddr,
        /// What is no RAM.
        phys: PhysSpan,
    },
    /// Normal memory in a no-map region.
    InNoMap {
        /// Where it begins.
        virt: VirtAddr,
        /// What must not be mapped.
        phys: PhysSpan,
    },
    /// Frames that are writable through one address and executable through another.
    WritableExecutableAlias {
        /// The frames.
        phys: PhysSpan,
        /// Where they begin to be writable.
        writable: VirtAddr,
        /// Where they begin to be executable.
        executable: VirtAddr,
    },
    /// Frames that are mapped with two memory types, cacheabilities or shareabilities.
    MixedMemory {
        /// The frames.
        phys: PhysSpan,
        /// Where they begin in one mapping, and how.
        one: (VirtAddr, Seen),
        /// The same for the other.
        other: (VirtAddr, Seen),
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScratchFull { .. }
            | Self::TableOutsideRam { .. }
            | Self::TableTwice { .. }
            | Self::TableExecutable { .. }
            | Self::TableMixedMemory { .. }
            | Self::WrongBits { .. }
            | Self::TornRun { .. }
            | Self::Dead { .. } => self.fmt_structure(f),
            _ => self.fmt_map(f),
        }
    }
}

impl Finding {
    fn fmt_structure(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScratchFull { capacity } => {
                write!(f, "the audit has room for {capacity} runs and tables, and needs more")
            }
            Self::TableOutsideRam { table, virt } => {
                write!(f, "table {} for va {virt} is not in RAM that may be mapped", table.start())
            }
            Self::TableTwice { table, virt } => write!(f, "table {} is reached again, for va {virt}", table.start()),
            Self::TableExecutable { table, virt } => {
                write!(f, "table {} is executable at va {virt}", table.start())
            }
            Self::TableMixedMemory { table, virt, found } => {
                write!(f, "table {} is mapped at va {virt} as {found}, the walker uses it as normal", table.start())
            }
            Self::WrongBits { place, raw, wrong } => {
                write!(f, "{place} is {raw:#018x}: bits {wrong:#x} are not as this image writes them")
            }
            Self::TornRun { place, raw, slot, holds } => {
                write!(f, "{place} is {raw:#018x}, of a contiguous run: its slot {slot} holds {holds:#018x}")
            }
            Self::Dead { place, raw } => {
                write!(f, "{place} is {raw:#018x}: translates nothing, yet is not 0")
            }
            _ => Ok(()),
        }
    }

    fn fmt_map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped { name, virt } => write!(f, "{name}: va {virt} is declared, but not mapped"),
            Self::Undeclared { virt, phys, found } => {
                write!(f, "va {virt} is mapped to pa {phys} as {found}, but not declared")
            }
            Self::HoleMapped { name, virt, phys, found } => {
                write!(f, "{name}: va {virt} is declared to be a hole, but mapped to pa {phys} as {found}")
            }
            Self::WrongOutput { name, virt, declared: Some(declared), found } => {
                write!(f, "{name}: va {virt} is declared to map pa {declared}, but maps pa {found}")
            }
            Self::WrongOutput { name, virt, declared: None, found } => {
                write!(f, "{name}: va {virt} is declared to map more than 48 bits, but maps pa {found}")
            }
            Self::WrongAttributes { name, virt, declared, found } => {
                write!(f, "{name}: va {virt} is declared {declared}, but mapped {found}")
            }
            Self::WritableExecutable { virt, phys } => {
                write!(f, "va {virt} (pa {phys}) is writable and executable")
            }
            Self::ExecutableDevice { virt, phys } => write!(f, "va {virt} (pa {phys}) is executable Device memory"),
            Self::OutsideRam { virt, phys } => write!(f, "va {virt} maps pa {phys} as Normal memory, which is no RAM"),
            Self::InNoMap { virt, phys } => {
                write!(f, "va {virt} maps pa {phys} as Normal memory, which is a no-map region")
            }
            Self::WritableExecutableAlias { phys, writable, executable } => {
                write!(f, "pa {phys} is writable at va {writable} and executable at va {executable}")
            }
            Self::MixedMemory { phys, one, other } => {
                write!(f, "pa {phys} is {} at va {} and {} at va {}", one.1, one.0, other.1, other.0)
            }
            _ => Ok(()),
        }
    }
}
