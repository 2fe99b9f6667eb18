//! UEFI's word on memory: what of it is RAM once boot services are gone, and what the firmware keeps. And its load
//! options as a command line.
//!
//! Why it exists: a device tree's memory nodes say what RAM a machine has. That the firmware goes on using some of it
//! (runtime services, ACPI tables) only the firmware's own map says, and a machine may have RAM that only the map names.
//!
//! What must hold: no bytes make [`Map::read`] or what it returns panic, loop or read beyond them; a page that
//! [`Map::ram`] gives lies in descriptors of RAM alone: what two descriptors say different things of is not RAM.
//!
//! What it refuses: see [`Error`]. What it leaves out: descriptors of no pages. A type that it does not know is kept by
//! the firmware.

#![forbid(unsafe_code)]

use crate::addr::{PAGE_BYTES, PhysAddr, PhysSpan};
use crate::memory_map::{self, MAX_BANKS, SpanList};
use core::fmt;

/// Bytes of a descriptor that every version has: type, padding, physical and virtual start, pages, attributes.
const DESCRIPTOR_BYTES: usize = 40;
/// EFI_MEMORY_WB: may be mapped as Normal, write-back.
const WRITE_BACK: u64 = 1 << 3;
/// EFI_MEMORY_NV: keeps its contents without power.
const PERSISTENT: u64 = 1 << 15;
/// EFI_MEMORY_SP: put aside for a purpose.
const SPECIFIC_PURPOSE: u64 = 1 << 18;
/// EFI_MEMORY_RUNTIME: runtime services use it.
const RUNTIME: u64 = 1 << 63;

/// EFI_MEMORY_TYPE, by its number (UEFI 2.10, GetMemoryMap).
const KINDS: [&str; 16] = [
    "reserved",
    "loader code",
    "loader data",
    "boot services code",
    "boot services data",
    "runtime services code",
    "runtime services data",
    "conventional memory",
    "unusable memory",
    "ACPI reclaim memory",
    "ACPI NVS memory",
    "memory-mapped IO",
    "memory-mapped IO ports",
    "PAL code",
    "persistent memory",
    "unaccepted memory",
];

/// Why a map is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Its descriptors are shorter than any version of UEFI has them, or not of whole words.
    DescriptorSize {
        /// Bytes of one.
        bytes: usize,
    },
    /// Its last descriptor is not whole.
    CutShort {
        /// Bytes of the map.
        bytes: usize,
        /// Bytes of a descriptor.
        descriptor_bytes: usize,
    },
    /// A descriptor starts inside a page, or ends beyond 2^52.
    Span {
        /// Which one.
        index: usize,
        /// Where it starts.
        start: u64,
        /// How many pages it has.
        pages: u64,
    },
    /// No descriptor is of RAM.
    NoRam,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UEFI's memory map ")?;
        match self {
            Self::DescriptorSize { bytes } => write!(f, "has descriptors of {bytes} bytes"),
            Self::CutShort { bytes, descriptor_bytes } => {
                write!(f, "has {bytes} bytes, no whole number of descriptors of {descriptor_bytes} bytes")
            }
            Self::Span { index, start, pages } => {
                write!(f, "has {pages:#x} pages at {start:#x} in descriptor {index}, where there is no memory")
            }
            Self::NoRam => f.write_str("has no RAM"),
        }
    }
}

impl core::error::Error for Error {}

/// What UEFI says of some pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The pages; not empty.
    pub span: PhysSpan,
    kind: u32,
    attributes: u64,
}

impl Descriptor {
    /// The descriptor that `bytes` begin with; `Err` with start and pages where there is no such memory.
    fn read(bytes: &[u8]) -> Result<Self, (u64, u64)> {
        let word = |index: usize| {
            let word = bytes.get(8 * index..).and_then(<[u8]>::first_chunk);
            word.copied().map_or(0, u64::from_le_bytes)
        };
        let (start, pages) = (word(1), word(3));
        let whole =
            |bytes| PhysSpan::of(PhysAddr::new(start)?, bytes).filter(|span| span.start().is_aligned(PAGE_BYTES));
        let span = if pages == 0 { Some(PhysSpan::EMPTY) } else { pages.checked_mul(PAGE_BYTES).and_then(whole) };
        // The upper half of the first word is padding.
        Ok(Self { span: span.ok_or((start, pages))?, kind: word(0) as u32, attributes: word(4) })
    }

    /// Whether these pages are RAM that nobody uses once boot services are gone.
    #[must_use]
    pub fn is_ram(&self) -> bool {
        matches!(self.kind, 1..=4 | 7)
            && self.attributes & WRITE_BACK != 0
            && self.attributes & (PERSISTENT | SPECIFIC_PURPOSE | RUNTIME) == 0
    }

    /// Whether there is memory whose contents are true while boot services run: tables may lie there.
    fn can_be_read(&self) -> bool {
        matches!(self.kind, 0..=7 | 9 | 10 | 14)
    }

    /// What is there, in the specification's words. A number that it has no word for is no name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        KINDS.get(self.kind as usize).copied().unwrap_or("unknown type")
    }
}

/// A memory map as GetMemoryMap writes it. Holding one proves that each descriptor is whole and of memory that can be,
/// and that there is some RAM.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    bytes: &'a [u8],
    descriptor_bytes: usize,
}

impl<'a> Map<'a> {
    /// The map in `bytes`, whose descriptors are `descriptor_bytes` apart.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn read(bytes: &'a [u8], descriptor_bytes: usize) -> Result<Self, Error> {
        if descriptor_bytes < DESCRIPTOR_BYTES || !descriptor_bytes.is_multiple_of(8) {
            return Err(Error::DescriptorSize { bytes: descriptor_bytes });
        }
        if !bytes.len().is_multiple_of(descriptor_bytes) {
            return Err(Error::CutShort { bytes: bytes.len(), descriptor_bytes });
        }
        for (index, bytes) in bytes.chunks_exact(descriptor_bytes).enumerate() {
            Descriptor::read(bytes).map_err(|(start, pages)| Error::Span { index, start, pages })?;
        }
        let map = Self { bytes, descriptor_bytes };
        if map.ram().next().is_none() { Err(Error::NoRam) } else { Ok(map) }
    }

    /// Its descriptors, in the firmware's order, without those of no pages.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> + Clone + use<'a> {
        let all = self.bytes.chunks_exact(self.descriptor_bytes).filter_map(|bytes| Descriptor::read(bytes).ok());
        all.filter(|descriptor| !descriptor.span.is_empty())
    }

    /// Whether all of `span` is memory that can be read while boot services run.
    #[must_use]
    pub fn can_be_read(&self, span: PhysSpan) -> bool {
        let mut at = span.start();
        while at < span.end_exclusive() {
            let holding = self.descriptors().filter(|line| line.can_be_read() && line.span.contains(at));
            let Some(past) = holding.map(|line| line.span.end_exclusive()).max() else { return false };
            at = past;
        }
        true
    }

    /// What is not RAM, in the firmware's order; descriptors of one kind that touch are one.
    pub fn kept(&self) -> impl Iterator<Item = Descriptor> + Clone + use<'a> {
        let mut rest = self.descriptors().filter(|descriptor| !descriptor.is_ram()).peekable();
        core::iter::from_fn(move || {
            let mut whole = rest.next()?;
            while let Some(next) = rest.next_if(|next| next.kind == whole.kind && touches(whole.span, next.span)) {
                whole.span = PhysSpan::new(whole.span.start(), next.span.end_exclusive()).unwrap_or(whole.span);
            }
            Some(whole)
        })
    }

    /// What is RAM, ascending; pieces may touch.
    pub fn ram(&self) -> impl Iterator<Item = PhysSpan> + use<'a> {
        let map = *self;
        let mut at = PhysAddr::at(0);
        core::iter::from_fn(move || {
            let end_of = |is_ram, at| {
                let holding = map.of_ram(is_ram).filter(move |span| span.contains(at));
                holding.map(PhysSpan::end_exclusive).max()
            };
            let next_of = |is_ram, at| map.of_ram(is_ram).map(PhysSpan::start).filter(|start| *start > at).min();
            // Each step ends where a descriptor ends or begins.
            loop {
                let start = at;
                if let Some(past) = end_of(false, start) {
                    at = past;
                } else if let Some(past) = end_of(true, start) {
                    at = next_of(false, start).map_or(past, |kept| kept.min(past));
                    return PhysSpan::new(start, at);
                } else {
                    at = next_of(true, start)?;
                }
            }
        })
    }

    /// The descriptors that are of RAM, or those that are not.
    fn of_ram(&self, is_ram: bool) -> impl Iterator<Item = PhysSpan> + use<'a> {
        let those = self.descriptors().filter(move |descriptor| descriptor.is_ram() == is_ram);
        those.map(|descriptor| descriptor.span)
    }
}

fn touches(low: PhysSpan, high: PhysSpan) -> bool {
    low.end_exclusive() == high.start()
}

/// UEFI's map beside the device tree's word on RAM. UEFI's counts; where they differ is for the report.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// UEFI's map.
    pub map: Map<'a>,
    /// What the device tree's memory nodes call RAM, if there is one.
    pub tree: Option<&'a SpanList<MAX_BANKS>>,
}

impl<'a> Compared<'a> {
    /// What the firmware keeps, each with whether the device tree calls some of it RAM.
    pub fn kept(self) -> impl Iterator<Item = (Descriptor, bool)> + use<'a> {
        let in_tree = move |span| self.tree.is_some_and(|tree| tree.overlap(span).is_some());
        self.map.kept().map(move |kept| (kept, in_tree(kept.span)))
    }

    /// Pages that the device tree calls RAM and UEFI does not name at all.
    pub fn tree_alone(self) -> impl Iterator<Item = PhysSpan> + use<'a> {
        let named = self.map.descriptors().map(|descriptor| descriptor.span);
        self.tree.into_iter().flat_map(move |tree| memory_map::without(tree.as_slice(), named.clone()))
    }

    /// Pages of `ram`, which came from UEFI's map, that the device tree does not call so.
    pub fn uefi_alone(self, ram: &'a SpanList<MAX_BANKS>) -> impl Iterator<Item = PhysSpan> + use<'a> {
        self.tree.into_iter().flat_map(move |tree| memory_map::without(ram.as_slice(), tree.iter()))
    }
}

/// Load options as text, a byte for each 16-bit unit up to the first 0. What is no ASCII becomes `?`, which is in no
/// known option; half a unit at the end is left out.
pub fn load_options(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let units = bytes.chunks_exact(2).filter_map(<[u8]>::first_chunk).map(|unit| u16::from_le_bytes(*unit));
    let text = units.take_while(|&unit| unit != 0);
    text.map(|unit| u8::try_from(unit).ok().filter(u8::is_ascii).unwrap_or(b'?'))
}

#[cfg(test)]
mod tests;
