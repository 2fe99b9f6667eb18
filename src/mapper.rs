//! Mapping requests: plan, then commit.
//!
//! Why it exists: a request that fails half-way leaves tables that nobody described. Here the plan reads everything that the request
//! touches, refuses with evidence, and makes sure of every frame; the commit then cannot fail. A refused request leaves tables,
//! frames and counters as they were.
//!
//! What must hold: between plan and commit nothing else edits the tables, which `&mut` sees to on one CPU and the page-table lock
//! among several.
//!
//! What it refuses: to map over anything, to unmap or change what is not mapped, to cut a block in two, and to touch descriptors that
//! it never writes.

#![forbid(unsafe_code)]

mod change;
mod error;
mod fill;

pub use change::Unmapped;
pub use error::Error;

use crate::addr::{ADDRESS_BITS, Level, PhysAddr, VirtAddr, VirtSpan};
use crate::bbm::{Protocol, Tables};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::frames::FrameSupply;
use crate::machine::{Machine, Slot};

/// A request to map `virt` to as many bytes from `output` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where: whole pages.
    pub virt: VirtSpan,
    /// To what: the first byte, a multiple of 4 KiB.
    pub output: PhysAddr,
    /// As what.
    pub attributes: Attributes,
    /// The largest leaf to use: [`Level::L3`] for pages only, [`Level::L1`] for blocks of up to 1 GiB wherever alignment allows.
    pub largest: Level,
}

/// What a plan will cost: exactly what its commit then does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Descriptors stored.
    pub stores: u64,
    /// Frames taken from the supply.
    pub frames: u64,
}

/// Tables with what is needed to edit them. Its state `S` says whether a walk may read them: [`crate::bbm::Offline`] tables owe no
/// maintenance until the root switch, [`crate::bbm::Live`] ones owe it at each request.
#[derive(Debug)]
pub struct Mapper<'a, M, S> {
    protocol: &'a mut Protocol<M>,
    frames: &'a mut FrameSupply,
    tables: &'a mut Tables<S>,
}

impl<'a, M: Machine, S> Mapper<'a, M, S> {
    /// A mapper for `tables`, which takes table frames from `frames`.
    pub fn new(protocol: &'a mut Protocol<M>, frames: &'a mut FrameSupply, tables: &'a mut Tables<S>) -> Self {
        Self { protocol, frames, tables }
    }

    /// Refuses output addresses that the CPUs cannot put out.
    fn check_output(&self, virt: VirtSpan, output: PhysAddr) -> Result<(), Error> {
        let end_exclusive = output.checked_add(virt.bytes());
        let fits = end_exclusive.is_some_and(|end| end.raw() <= 1 << self.protocol.output_bits());
        if fits { Ok(()) } else { Err(Error::BeyondAddressSize { virt, output }) }
    }

    /// Frames left in the supply.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.frames.available()
    }

    /// The leaf that translates `virt` and its level, or `None` when nothing valid that the manager wrote does.
    #[must_use]
    pub fn query(&self, virt: VirtAddr) -> Option<(Level, Leaf)> {
        if virt.raw() >> ADDRESS_BITS != 0 {
            return None; // 2^48 is the end of every span, and no address
        }
        let mut slot = Slot::new(self.tables.root(), Level::L0, virt);
        loop {
            match (self.protocol.read(slot), slot.level().next()) {
                (Entry::Leaf(leaf), _) => return Some((slot.level(), leaf)),
                (Entry::Table(next), Some(level)) => slot = Slot::new(next, level, virt),
                _ => return None,
            }
        }
    }
}

/// The part of `span` that lies in the slot of `level` that holds `virt`, and whether that is the whole slot.
fn piece(span: VirtSpan, virt: VirtAddr, level: Level) -> (VirtSpan, bool) {
    let slot_start = virt.align_down(level.slot_bytes());
    let slot_end = VirtAddr::at(slot_start.raw() + level.slot_bytes());
    let end_exclusive = slot_end.min(span.end_exclusive());
    // `virt` is within the span, so the piece never runs backwards.
    let piece = VirtSpan::new(virt, end_exclusive).unwrap_or(span);
    (piece, virt == slot_start && end_exclusive == slot_end)
}

fn checked_pages(virt: VirtSpan) -> Result<VirtSpan, Error> {
    if virt.is_empty() {
        Err(Error::Empty { virt })
    } else if virt.page_cover() != virt {
        Err(Error::Misaligned { virt, output: None })
    } else {
        Ok(virt)
    }
}
