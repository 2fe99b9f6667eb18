//! Mappings on demand with guard pages: ioremap for devices, vmap for scattered frames.
//!
//! Why it exists: a driver needs its registers, and a buffer its frames side by side, at any time after boot and without a heap. Whoever
//! runs over the end of such a mapping must fault, not meet the next one.
//!
//! What must hold: between any two areas, and at both ends of [`layout::VMAP_AREAS`], lies at least one page that is never mapped. An area's
//! addresses are given out again only after its invalidation. What is mapped is declared, piece by piece, for the audit.
//!
//! The books are one sorted list of areas in use. It answers both questions that arise, where a gap is and how long the area at an address
//! is; a list of free spans or a bitmap answers the first alone. Fixed in size: with [`AREAS_MAX`] areas the list is full, and says so.
//!
//! What it refuses: see [`Error`]; a refused request leaves tables, frames, declarations and addresses as they were. In particular RAM is
//! no device ([`alias::check`]).

#![forbid(unsafe_code)]

use super::alias::{self, Ram};
use super::{Failure, Space, frame_span};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use crate::layout;
use crate::machine::Machine;
use crate::mapper::{Request, Unmapped};
use core::fmt;

/// Areas that can be in use at once.
pub const AREAS_MAX: usize = 128;

/// Never mapped, after each area and before the first.
const GUARD_BYTES: u64 = PAGE_BYTES;

/// The areas in use: ascending, no two without a guard between them.
#[derive(Debug)]
pub struct Vmap {
    areas: [VirtSpan; AREAS_MAX],
    count: usize,
}

/// Why nothing was mapped or unmapped. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No byte was asked for.
    Empty,
    /// No gap is long enough.
    NoAddresses {
        /// Bytes needed, guards apart.
        bytes: u64,
        /// Bytes of the longest gap, guards apart.
        longest: u64,
    },
    /// The list of areas is full.
    TooManyAreas {
        /// How many it holds.
        capacity: usize,
    },
    /// The frames lie in more pieces than can be declared.
    TooManyPieces {
        /// Pieces of frames that follow each other.
        pieces: usize,
        /// Regions that can still be declared.
        left: usize,
    },
    /// The address to unmap is not in the first page of an area.
    NoArea {
        /// The address.
        address: VirtAddr,
        /// The area that it lies further inside of, if it does.
        inside: Option<VirtSpan>,
    },
    /// The frames may not be mapped as asked.
    Refused(alias::Refusal),
    /// The mapper refused.
    Mapping(Failure),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("vmap: no byte to map"),
            Self::NoAddresses { bytes, longest } => {
                write!(f, "vmap: no gap of {bytes:#x} bytes, the longest has {longest:#x}")
            }
            Self::TooManyAreas { capacity } => write!(f, "vmap: all {capacity} areas are in use"),
            Self::TooManyPieces { pieces, left } => write!(f, "vmap: {pieces} pieces, {left} regions left to declare"),
            Self::NoArea { address, inside: None } => write!(f, "vmap: no area at {address}"),
            Self::NoArea { address, inside: Some(area) } => write!(f, "vmap: {address} is inside of {area}"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Mapping(failure) => write!(f, "{failure}"),
        }
    }
}

impl core::error::Error for Error {}

impl Vmap {
    /// No areas.
    #[must_use]
    pub const fn new() -> Self {
        Self { areas: [layout::NOWHERE; AREAS_MAX], count: 0 }
    }

    /// The areas in use, ascending, guards apart.
    #[must_use]
    pub fn areas(&self) -> &[VirtSpan] {
        &self.areas[..self.count]
    }

    /// Maps the pages that hold `registers` as Device memory of `kind`, and returns the address of its first byte. A span that holds
    /// a whole 2 MiB is mapped by blocks.
    ///
    /// # Errors
    /// [`Error`], with all as before.
    pub fn ioremap<M: Machine>(
        &mut self,
        space: &mut Space<'_, M>,
        registers: PhysSpan,
        kind: DeviceKind,
    ) -> Result<VirtAddr, Error> {
        if registers.is_empty() {
            return Err(Error::Empty);
        }
        let pages = registers.page_cover();
        let attributes = Attributes::Device(kind, DataAccess::ReadWrite);
        alias::check(space.regions, Ram::Declared, pages, attributes).map_err(Error::Refused)?;
        let place = self.place(pages.bytes(), Congruence::with(pages))?;
        self.map_pieces(space, "ioremap", (place, Level::L2), [pages], attributes)?;
        let offset = registers.start().raw() - pages.start().raw();
        Ok(VirtAddr::at(place.area.start().raw() + offset))
    }

    /// Maps `frames`, wherever they are, side by side in their order, and returns the address of the first byte. A frame may occur more
    /// than once. All of them are mapped, or none.
    ///
    /// # Errors
    /// [`Error`], with all as before.
    pub fn vmap<M: Machine>(
        &mut self,
        space: &mut Space<'_, M>,
        frames: &[Frame],
        attributes: Attributes,
    ) -> Result<VirtAddr, Error> {
        for &frame in frames {
            frame_span(space, "vmap", frame).map_err(Error::Mapping)?;
        }
        if frames.is_empty() {
            return Err(Error::Empty);
        }
        for piece in pieces(frames) {
            alias::check(space.regions, Ram::Declared, piece, attributes).map_err(Error::Refused)?;
        }
        let (count, left) = (pieces(frames).count(), space.regions.left());
        if count > left {
            return Err(Error::TooManyPieces { pieces: count, left });
        }
        let place = self.place(frames.len() as u64 * PAGE_BYTES, Congruence::BY_PAGES)?;
        // By pages alone, so that this plan of all of it, to wherever, is what the pieces want together: addresses that nothing is mapped at,
        // and frames for tables.
        let whole = Request::new(place.area, PhysAddr::at(0), Attributes::Normal(Access::ReadOnly), Level::L3);
        let planned = space.mapper().plan_map(whole).map(|_plan| ());
        planned.map_err(|error| Error::Mapping(Failure::Mapping { name: "vmap", error }))?;
        self.map_pieces(space, "vmap", (place, Level::L3), pieces(frames), attributes)?;
        Ok(place.area.start())
    }

    /// Unmaps the area whose first page holds `address`: breaks, invalidates, and then gives its addresses back. What is returned proves
    /// that no TLB shows its frames there any more; the frames stay whose they are.
    ///
    /// # Errors
    /// [`Error::NoArea`]; [`Error::Mapping`] when someone else has unmapped part of it. All is then as before.
    pub fn unmap<M: Machine>(&mut self, space: &mut Space<'_, M>, address: VirtAddr) -> Result<Unmapped, Error> {
        let index = self.areas().iter().position(|area| area.contains(address));
        let area = |index: usize| self.areas[index];
        let found = index.filter(|&index| area(index).start() == address.page().start());
        let found = found.ok_or(Error::NoArea { address, inside: index.map(area) })?;
        let unmapped = space.unmap_all("vmap", area(found)).map_err(Error::Mapping)?;
        self.areas[..self.count].copy_within(found + 1.., found);
        self.count -= 1;
        Ok(unmapped)
    }

    /// Maps the pieces side by side from the place's first byte on, and notes the area; or maps nothing.
    fn map_pieces<M: Machine>(
        &mut self,
        space: &mut Space<'_, M>,
        name: &'static str,
        (place, largest): (Opening, Level),
        pieces: impl IntoIterator<Item = PhysSpan>,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let mut next = place.area.start();
        for piece in pieces {
            let virt = VirtSpan::of(next, piece.bytes()).unwrap_or_else(|| unreachable!("vmap ends within 48 bits"));
            let region = Declared { name, virt, output: Some(piece.start()), attributes };
            if let Err(failure) = space.map(region, largest) {
                take_back(space, name, place.area.start(), next);
                return Err(Error::Mapping(failure));
            }
            next = virt.end_exclusive();
        }
        self.areas.copy_within(place.index..self.count, place.index + 1);
        self.areas[place.index] = place.area;
        self.count += 1;
        Ok(())
    }

    /// The first gap that takes `bytes`, with a guard on either side, at a start that suits `congruence`.
    fn place(&self, bytes: u64, congruence: Congruence) -> Result<Opening, Error> {
        if self.count == AREAS_MAX {
            return Err(Error::TooManyAreas { capacity: AREAS_MAX });
        }
        let starts = self.areas().iter().map(|area| area.start());
        let mut gap_start = layout::VMAP_AREAS.start().raw();
        let mut longest = 0;
        for (index, gap_end) in starts.chain([layout::VMAP_AREAS.end_exclusive()]).enumerate() {
            let start = congruence.at_or_above(gap_start + GUARD_BYTES);
            let room = (gap_end.raw() - GUARD_BYTES).saturating_sub(start);
            if bytes <= room
                && let Some(area) = VirtSpan::of(VirtAddr::at(start), bytes)
            {
                return Ok(Opening { index, area });
            }
            longest = longest.max(room);
            gap_start = self.areas().get(index).map_or(gap_start, |area| area.end_exclusive().raw());
        }
        Err(Error::NoAddresses { bytes, longest })
    }
}

impl Default for Vmap {
    fn default() -> Self {
        Self::new()
    }
}

/// Where an area will be: its addresses, and its place in the list.
#[derive(Clone, Copy)]
struct Opening {
    index: usize,
    area: VirtSpan,
}

/// What virtual and physical addresses have to have in common, so that larger leaves fit: their remainder by `unit`.
#[derive(Clone, Copy)]
struct Congruence {
    unit: u64,
    remainder: u64,
}

impl Congruence {
    /// For pages no more than that both are page addresses.
    const BY_PAGES: Self = Self { unit: PAGE_BYTES, remainder: 0 };

    /// That of a mapping to `pages`: modulo 2 MiB if a block fits, else none.
    fn with(pages: PhysSpan) -> Self {
        let block = Level::L2.slot_bytes();
        let first = pages.start().align_up(block).raw();
        let unit = if first + block <= pages.end_exclusive().raw() { block } else { PAGE_BYTES };
        Self { unit, remainder: pages.start().raw() % unit }
    }

    /// The least address that suits and is not below `address`.
    fn at_or_above(self, address: u64) -> u64 {
        address + (self.remainder + self.unit - address % self.unit) % self.unit
    }
}

/// The frames as spans of frames that follow each other, in their order.
fn pieces(frames: &[Frame]) -> impl Iterator<Item = PhysSpan> + '_ {
    frames.chunk_by(|one, next| one.checked_add(1) == Some(*next)).filter_map(|run| {
        let first = run.first()?;
        PhysSpan::of(first.start(), run.len() as u64 * PAGE_BYTES)
    })
}

/// Unmaps what a request has mapped that cannot be finished: the mapper knew of an alias that nobody declared.
///
/// # Panics
/// When it cannot be unmapped: nobody else has edited the tables since it was mapped.
fn take_back<M: Machine>(space: &mut Space<'_, M>, name: &'static str, start: VirtAddr, end_exclusive: VirtAddr) {
    let Some(virt) = VirtSpan::new(start, end_exclusive).filter(|virt| !virt.is_empty()) else { return };
    if let Err(failure) = space.unmap_all(name, virt) {
        panic!("what was mapped a moment ago can be unmapped: {failure}");
    }
}
