//! Whether frames may be mapped once more, and as what: decided by physical address, from what is declared.
//!
//! Why it exists: two mappings of one frame are two promises about it. With different memory types they are mismatched attributes, and
//! what is read is anyone's guess (Arm ARM B2.11); writable through one address and executable through another is W^X broken in
//! two steps; and Normal memory may be read ahead of any instruction, so it must be RAM. The audit would find each of these afterwards. Here
//! it is refused before.
//!
//! What it refuses: see [`Refusal`]. A mapping on demand never gives a right to write that nothing declared gives already: constants and
//! sealed data stay what they are through every address.

#![forbid(unsafe_code)]

use super::RegionMap;
use crate::addr::{PhysAddr, PhysSpan, VirtAddr};
use crate::audit::Declared;
use crate::descriptor::{Attributes, Rights};
use crate::memory_map::MemoryMap;
use core::fmt;

/// What says that a frame is RAM.
#[derive(Clone, Copy, Debug)]
pub enum Ram<'a> {
    /// A declared mapping of it as such: after boot, the directmap has all RAM that may be mapped, but for the image.
    Declared,
    /// The device tree: before there is a directmap.
    Known(&'a MemoryMap),
}

/// A mapping that exists, of frames that are to be mapped once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alias {
    /// The name of its region.
    pub name: &'static str,
    /// Where it shows the first of these frames.
    pub virt: VirtAddr,
    /// The frames.
    pub phys: PhysSpan,
    /// As what it shows them.
    pub attributes: Attributes,
}

/// Why frames may not be mapped once more as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// They are mapped with another memory type.
    MixedMemory {
        /// As what they were asked for.
        wanted: Attributes,
        /// As what they are mapped.
        mapped: Alias,
    },
    /// They would be writable through one address and executable through another.
    WritableExecutable {
        /// As what they were asked for.
        wanted: Attributes,
        /// As what they are mapped.
        mapped: Alias,
    },
    /// They were asked for as Device, and are RAM.
    DeviceOverRam {
        /// The first bytes that are RAM.
        phys: PhysSpan,
        /// As what they were asked for.
        wanted: Attributes,
    },
    /// They were asked for as Normal memory, and nothing says that they are RAM; or to be written, and nothing else may write them.
    NotRam {
        /// The first byte of which nothing says so.
        phys: PhysAddr,
        /// As what it was asked for.
        wanted: Attributes,
    },
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} in {} at {}", self.phys, self.attributes, self.name, self.virt)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MixedMemory { wanted, mapped } => write!(f, "{mapped}: {wanted} would be another memory type"),
            Self::WritableExecutable { wanted, mapped } => {
                write!(f, "{mapped}: {wanted} would make it writable and executable")
            }
            Self::DeviceOverRam { phys, wanted } => write!(f, "{phys} is RAM: it cannot be {wanted}"),
            Self::NotRam { phys, wanted } => write!(f, "nothing says that {phys} is RAM that can be {wanted}"),
        }
    }
}

impl core::error::Error for Refusal {}

/// Whether `phys` may be mapped as `wanted` beside everything in `regions`.
///
/// # Errors
/// [`Refusal`], with the first mapping or byte that stands against it.
pub fn check(regions: &RegionMap, ram: Ram<'_>, phys: PhysSpan, wanted: Attributes) -> Result<(), Refusal> {
    let aliases = || regions.iter().filter_map(|region| alias(region, phys));
    for mapped in aliases() {
        if !mapped.attributes.same_memory_type(wanted) {
            return Err(Refusal::MixedMemory { wanted, mapped });
        }
        let (one, other) = (mapped.attributes.rights(), wanted.rights());
        let both = |one: Rights, other: Rights| one.contains(Rights::WRITE) && other.contains(Rights::EXECUTE);
        if both(one, other) || both(other, one) {
            return Err(Refusal::WritableExecutable { wanted, mapped });
        }
    }
    match (wanted, ram) {
        (Attributes::Device(..), Ram::Declared) => Ok(()),
        (Attributes::Device(..), Ram::Known(memory)) => {
            match memory.mappable().find_map(|span| span.intersection(phys)) {
                Some(phys) => Err(Refusal::DeviceOverRam { phys, wanted }),
                None => Ok(()),
            }
        }
        // What is mapped already is not more writable than its mappings say.
        (_, Ram::Known(memory)) if aliases().next().is_none() && memory.mappable().any(|span| span.covers(phys)) => {
            Ok(())
        }
        _ => is_backed(regions, phys, wanted),
    }
}

/// Whether each byte of `phys` is declared with the memory type of `wanted`, and writable there if it is to be written.
fn is_backed(regions: &RegionMap, phys: PhysSpan, wanted: Attributes) -> Result<(), Refusal> {
    let needed = wanted.rights() & Rights::WRITE;
    let backs =
        |region: &&Declared| region.attributes.same_memory_type(wanted) && region.attributes.rights().contains(needed);
    let mut position = phys.start();
    while position < phys.end_exclusive() {
        let holder = regions.iter().filter(backs).filter_map(output_span).find(|span| span.contains(position));
        position = holder.ok_or(Refusal::NotRam { phys: position, wanted })?.end_exclusive();
    }
    Ok(())
}

/// What `region` maps to; nothing for a hole.
pub(super) fn output_span(region: &Declared) -> Option<PhysSpan> {
    PhysSpan::of(region.output?, region.virt.bytes())
}

/// The part of `phys` that `region` maps.
pub(super) fn alias(region: &Declared, phys: PhysSpan) -> Option<Alias> {
    let span = output_span(region)?;
    let shared = span.intersection(phys)?;
    let virt = region.virt.start().checked_add(shared.start().raw() - span.start().raw())?;
    Some(Alias { name: region.name, virt, phys: shared, attributes: region.attributes })
}
