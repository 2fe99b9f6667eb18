//! The fixmap: a page of known address for each need that has a name.
//!
//! Why it exists: what maps a single page early must not have to find an address, take a frame or want a table. The tables of the fixmap
//! exist from boot on ([`super::image::Image::build`]), so that setting a slot is one fill and clearing it one break: neither
//! takes a frame.
//!
//! What must hold: a slot is set once and then cleared; the tables themselves say which, so there are no books that could be wrong. The page
//! after each slot is never mapped: nothing runs over from one into the next.
//!
//! What it refuses: to set a slot in use, to clear one that is not, and whatever [`alias::check`] does.

#![forbid(unsafe_code)]

use super::alias::{self, Ram};
use super::{Failure, Space, frame_span};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::descriptor::Attributes;
use crate::layout::{FIXMAP_CONSOLE, FIXMAP_SLOT_STRIDE, FIXMAP_SLOTS};
use crate::machine::Machine;
use crate::mapper::Unmapped;
use core::fmt;
use static_assertions::{const_assert, const_assert_eq};

/// The slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Passing needs.
    Misc,
    /// A device's page, before vmap is of use.
    EarlyIo0,
    /// Another.
    EarlyIo1,
    /// A frame that no other address reaches, for as long as it takes to read or write it.
    Pmap0,
    /// Another.
    Pmap1,
    /// Another.
    Pmap2,
    /// Another.
    Pmap3,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Misc, Self::EarlyIo0, Self::EarlyIo1, Self::Pmap0, Self::Pmap1, Self::Pmap2, Self::Pmap3];

    /// The name under which its region is declared.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Misc => "fixmap misc",
            Self::EarlyIo0 => "fixmap early I/O 0",
            Self::EarlyIo1 => "fixmap early I/O 1",
            Self::Pmap0 => "fixmap page 0",
            Self::Pmap1 => "fixmap page 1",
            Self::Pmap2 => "fixmap page 2",
            Self::Pmap3 => "fixmap page 3",
        }
    }

    /// Its page, mapped or not.
    #[must_use]
    pub const fn virt(self) -> VirtSpan {
        let start = VirtAddr::at(FIXMAP_SLOTS.start().raw() + self as u64 * FIXMAP_SLOT_STRIDE);
        match VirtSpan::of(start, PAGE_BYTES) {
            Some(span) => span,
            None => unreachable!(),
        }
    }
}

const_assert!(FIXMAP_SLOTS.covers(Purpose::Pmap3.virt()));
const_assert!(FIXMAP_CONSOLE.intersection(Purpose::Misc.virt()).is_none());
const_assert_eq!(Purpose::ALL.len(), Purpose::Pmap3 as usize + 1);

/// Why a slot was neither set nor cleared. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The slot to set shows something.
    InUse {
        /// The slot.
        slot: Purpose,
        /// What it shows.
        shows: PhysAddr,
    },
    /// The slot to clear shows nothing.
    NotSet {
        /// The slot.
        slot: Purpose,
    },
    /// The frame may not be mapped as asked.
    Refused(alias::Refusal),
    /// The mapper or the region map refused.
    Mapping(Failure),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { slot, shows } => write!(f, "{} already shows {shows}", slot.name()),
            Self::NotSet { slot } => write!(f, "{} shows nothing", slot.name()),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Mapping(failure) => write!(f, "{failure}"),
        }
    }
}

impl core::error::Error for Error {}

/// Shows `frame` in `slot` as `attributes`, and returns the address of its first byte. `ram` is what says that a frame asked for as Normal
/// memory is RAM. Takes no frame.
///
/// # Errors
/// [`Error::InUse`], [`Error::Refused`]; [`Error::Mapping`] for an address that the CPUs cannot put out, or a full region map. All is then as
/// before.
pub fn set<M: Machine>(
    space: &mut Space<'_, M>,
    ram: Ram<'_>,
    slot: Purpose,
    frame: Frame,
    attributes: Attributes,
) -> Result<VirtAddr, Error> {
    let virt = slot.virt();
    if let Some((_, leaf)) = space.mapper().query(virt.start()) {
        return Err(Error::InUse { slot, shows: leaf.output() });
    }
    let phys = frame_span(space, slot.name(), frame).map_err(Error::Mapping)?;
    alias::check(space.regions, ram, phys, attributes).map_err(Error::Refused)?;
    let region = Declared { name: slot.name(), virt, output: Some(frame.start()), attributes };
    space.map(region, Level::L3).map_err(Error::Mapping)?;
    Ok(virt.start())
}

/// Takes what `slot` shows out of it: breaks, invalidates, and gives the slot back. What is returned proves that no TLB shows the frame
/// there any more.
///
/// # Errors
/// [`Error::NotSet`]; all is then as before.
pub fn clear<M: Machine>(space: &mut Space<'_, M>, slot: Purpose) -> Result<Unmapped, Error> {
    if space.mapper().query(slot.virt().start()).is_none() {
        return Err(Error::NotSet { slot });
    }
    space.unmap(slot.name(), slot.virt()).map_err(Error::Mapping)
}
