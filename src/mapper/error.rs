//! Why a request was refused, with the evidence.

use crate::addr::{PhysAddr, VirtAddr, VirtSpan};
use crate::change::Why;
use crate::machine::Slot;
use core::fmt;

/// A refused request. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The span holds no page.
    Empty {
        /// The span asked for.
        virt: VirtSpan,
    },
    /// A bound is not a multiple of 4 KiB.
    Misaligned {
        /// The span asked for.
        virt: VirtSpan,
        /// The output address asked for, where there is one.
        output: Option<PhysAddr>,
    },
    /// The span or what it maps to ends beyond the addresses that the tables translate.
    BeyondAddressSize {
        /// The span asked for.
        virt: VirtSpan,
        /// The output address asked for.
        output: PhysAddr,
    },
    /// Something is mapped where the request wants to map.
    Occupied {
        /// The slot in the way.
        slot: Slot,
        /// What it holds.
        descriptor: u64,
    },
    /// Nothing is mapped where the request wants to change or unmap.
    NotMapped {
        /// The first such address.
        virt: VirtAddr,
    },
    /// The request covers part of a block, which would have to be split.
    WouldSplit {
        /// The block's slot.
        slot: Slot,
        /// The part of it that the request covers.
        part: VirtSpan,
    },
    /// A leaf of the old size cannot map to the new output address.
    OutputMisaligned {
        /// The leaf's slot.
        slot: Slot,
        /// Where it was to point.
        output: PhysAddr,
    },
    /// The manager does not change this slot.
    Refused {
        /// The slot.
        slot: Slot,
        /// Why not.
        why: Why,
    },
    /// The supply has fewer frames than the request needs.
    OutOfFrames {
        /// Frames needed.
        needed: u64,
        /// Frames left.
        available: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { virt } => write!(f, "{virt} holds no page"),
            Self::Misaligned { virt, output: None } => write!(f, "{virt} is not made of whole pages"),
            Self::Misaligned { virt, output: Some(output) } => {
                write!(f, "{virt} -> {output} is not made of whole pages")
            }
            Self::BeyondAddressSize { virt, output } => write!(f, "{virt} -> {output} ends beyond the address size"),
            Self::Occupied { slot, descriptor } => write!(f, "{slot} already holds {descriptor:#x}"),
            Self::NotMapped { virt } => write!(f, "{virt} is not mapped"),
            Self::WouldSplit { slot, part } => write!(f, "{part} is part of the block at {slot}"),
            Self::OutputMisaligned { slot, output } => write!(f, "{slot} cannot map to {output}"),
            Self::Refused { slot, why } => write!(f, "{slot} is not changed: {why:?}"),
            Self::OutOfFrames { needed, available } => write!(f, "{needed} frames needed, {available} left"),
        }
    }
}

impl core::error::Error for Error {}
