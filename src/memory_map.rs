//! What the machine's RAM is, what of it may be mapped, and what of it may be handed out.
//!
//! Why it exists: firmware describes memory in five tongues (UEFI's map, memory nodes, memreserve entries, reserved-memory
//! nodes, boot modules), unsorted, overlapping and not cut to pages. Every later step asks only two questions of it:
//! "may this page be mapped as Normal memory?" and "is this frame mine to hand out?". Both are answered here, once, and
//! by whole 4 KiB pages.
//!
//! What must hold: a page that [`MemoryMap::mappable`] gives lies wholly in RAM and shares no byte with a `no-map` region; a page that
//! [`MemoryMap::free`] gives is mappable and shares no byte with anything that is in use.
//!
//! What it refuses: more spans than the lists hold, an image that is not wholly in one bank or is claimed by anything else, RAM
//! that the directmap cannot reach (see [`Error`]). Banks that overlap are merged: both say "RAM", so their union is.

mod span_list;

use core::fmt;
use core::marker::PhantomData;

pub use span_list::{Full, SpanList};

use crate::addr::{ADDRESS_BITS, PhysAddr, PhysSpan};
use crate::machine::Simulated;

/// Banks of RAM that are not adjacent to each other.
pub const MAX_BANKS: usize = 64;
/// Reserved regions, after neighbours are merged; as many again with `no-map`.
pub const MAX_RESERVED: usize = 128;
/// Boot modules.
pub const MAX_MODULES: usize = 64;
/// The directmap's base is a multiple of this, so that RAM can be mapped by the largest blocks of the granule.
pub const DIRECTMAP_ALIGN: u64 = 1 << 30;
/// And of this where some bank has a contiguous run of the largest blocks, and RAM fits the directmap all the same.
pub const DIRECTMAP_ALIGN_RUNS: u64 = 16 << 30;

/// What a boot module is, by its `compatible`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleKind {
    /// The first domain's kernel.
    Kernel,
    /// An initial ramdisk; also what `linux,initrd-start` names.
    Ramdisk,
    /// A security policy.
    Xsm,
    /// A device tree for a domain.
    DeviceTree,
    /// A module that says no more than that it is one.
    Other,
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
            Self::Xsm => "XSM policy",
            Self::DeviceTree => "device tree",
            Self::Other => "other",
        })
    }
}

/// Something that the loader put into RAM for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Module {
    /// Where it is.
    pub span: PhysSpan,
    /// What it is.
    pub kind: ModuleKind,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", Claim::Module(self.kind), self.span)
    }
}

/// Who claims a span of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// A reserved-memory node with `no-map`.
    NoMap,
    /// A memreserve entry or a reserved-memory node without `no-map`.
    Reserved,
    /// A boot module.
    Module(ModuleKind),
    /// The device tree that this map was read from.
    DeviceTree,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMap => f.write_str("no-map region"),
            Self::Reserved => f.write_str("reserved region"),
            Self::Module(kind) => write!(f, "boot module ({kind})"),
            Self::DeviceTree => f.write_str("device tree"),
        }
    }
}

/// Why a memory map is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// More spans than a list holds.
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many the list holds.
        capacity: usize,
    },
    /// No RAM at all.
    NoRam,
    /// The image is not wholly in one bank.
    ImageOutsideRam {
        /// Where the image is.
        image: PhysSpan,
    },
    /// Something else claims memory of the image.
    OverlapsImage {
        /// Who claims it.
        claim: Claim,
        /// What is claimed.
        span: PhysSpan,
        /// Where the image is.
        image: PhysSpan,
    },
    /// The device tree's pages are not all RAM that may be mapped.
    TreeOutsideRam {
        /// Where the device tree is.
        tree: PhysSpan,
    },
    /// Two claims on the same memory that cannot both hold.
    Overlap {
        /// The boot module, or one of two.
        module: Module,
        /// Who claims the memory too.
        claim: Claim,
        /// What is claimed.
        span: PhysSpan,
    },
    /// A boot module is not wholly in RAM.
    ModuleOutsideRam {
        /// The module.
        module: Module,
    },
    /// RAM spreads over more than the directmap can hold.
    BeyondDirectmap {
        /// The bank that does not fit.
        bank: PhysSpan,
        /// Where the directmap would start.
        base: PhysAddr,
        /// How much it holds.
        directmap_bytes: u64,
    },
    /// RAM that the CPU cannot address.
    BeyondPhysicalSize {
        /// The bank that does not fit.
        bank: PhysSpan,
        /// Bits of a physical address on this CPU.
        phys_bits: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { what, capacity } => write!(f, "there are more than {capacity} {what}"),
            Self::NoRam => f.write_str("device tree has no memory node with RAM"),
            Self::ImageOutsideRam { image } => write!(f, "image at {image} is not wholly inside one bank of RAM"),
            Self::OverlapsImage { claim, span, image } => write!(f, "{claim} at {span} overlaps the image at {image}"),
            Self::TreeOutsideRam { tree } => write!(f, "device tree at {tree} is not wholly in RAM that may be mapped"),
            Self::Overlap { module, claim, span } => write!(f, "{module} overlaps {claim} at {span}"),
            Self::ModuleOutsideRam { module } => write!(f, "{module} is not wholly in RAM"),
            Self::BeyondDirectmap { bank, base, directmap_bytes } => {
                write!(f, "RAM bank {bank} does not fit the directmap, {} GiB from {base}", directmap_bytes >> 30)
            }
            Self::BeyondPhysicalSize { bank, phys_bits } => {
                write!(f, "RAM bank {bank} lies beyond this CPU's physical addresses of {phys_bits} bits")
            }
        }
    }
}

impl core::error::Error for Error {}

/// What this CPU and the virtual layout allow of RAM.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of virtual space that the directmap has.
    pub directmap_bytes: u64,
    /// Bits of a physical address on this CPU.
    pub phys_bits: u32,
}

/// The physical address at which the directmap starts. Holding one proves that all RAM of the map that gave it fits the
/// directmap from here, and that the image is alone in its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectmapBase(PhysAddr);

impl DirectmapBase {
    /// The address, a multiple of [`DIRECTMAP_ALIGN`].
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0
    }
}

/// The machine's memory as the device tree describes it, and UEFI where it is there.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    /// RAM, adjacent and overlapping banks merged.
    pub banks: SpanList<MAX_BANKS>,
    /// What must never be mapped.
    pub no_map: SpanList<MAX_RESERVED>,
    /// What may be mapped but is not ours to hand out; modules and the device tree apart.
    pub reserved: SpanList<MAX_RESERVED>,
    /// The device tree itself: may be mapped, not ours to hand out while it is read.
    pub device_tree: Option<PhysSpan>,
    modules: [Option<Module>; MAX_MODULES],
}

impl MemoryMap {
    /// A machine without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            banks: SpanList::new(),
            no_map: SpanList::new(),
            reserved: SpanList::new(),
            device_tree: None,
            modules: [None; MAX_MODULES],
        }
    }

    /// Adds a bank of RAM.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn add_bank(&mut self, span: PhysSpan) -> Result<(), Error> {
        self.banks.insert(span).map_err(|Full| Error::TooMany { what: "memory banks", capacity: MAX_BANKS })
    }

    /// Leaves only what lies in `usable` too of the banks.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn keep_banks(&mut self, usable: &SpanList<MAX_BANKS>) -> Result<(), Error> {
        let banks = core::mem::take(&mut self.banks);
        let both = banks.iter().flat_map(|bank| usable.iter().filter_map(move |span| span.intersection(bank)));
        both.clone().try_for_each(|span| self.add_bank(span))
    }

    /// Adds memory that must never be mapped.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn add_no_map(&mut self, span: PhysSpan) -> Result<(), Error> {
        self.no_map.insert(span).map_err(|Full| Error::TooMany { what: "no-map regions", capacity: MAX_RESERVED })
    }

    /// Adds memory that may be mapped but is not ours to hand out.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn add_reserved(&mut self, span: PhysSpan) -> Result<(), Error> {
        self.reserved.insert(span).map_err(|Full| Error::TooMany { what: "reserved regions", capacity: MAX_RESERVED })
    }

    /// Adds a boot module.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn add_module(&mut self, module: Module) -> Result<(), Error> {
        let slot = self.modules.iter_mut().find(|slot| slot.is_none());
        *slot.ok_or(Error::TooMany { what: "boot modules", capacity: MAX_MODULES })? = Some(module);
        Ok(())
    }

    /// The boot modules in the device tree's order.
    pub fn modules(&self) -> impl Iterator<Item = Module> + Clone + '_ {
        self.modules.iter().map_while(|module| *module)
    }

    /// Whole pages that may be mapped as Normal memory, ascending: RAM without the pages that `no-map` regions touch.
    pub fn mappable(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        without(self.banks.as_slice(), self.no_map.iter())
    }

    /// Whole pages that are ours to hand out, ascending: what is mappable, without the pages that reserved memory, modules, the
    /// device tree or any span of `taken` (the image) touch.
    pub fn free<'a>(&'a self, taken: &'a [PhysSpan]) -> impl Iterator<Item = PhysSpan> + 'a {
        let in_use = self.reserved.iter().chain(self.modules().map(|module| module.span));
        let in_use = in_use.chain(self.device_tree).chain(taken.iter().copied());
        without(self.banks.as_slice(), self.no_map.iter().chain(in_use))
    }

    /// Whether the image may run where it is, and whether all RAM can be mapped.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::TooMany`].
    pub fn check(&self, image: PhysSpan, limits: Limits) -> Result<DirectmapBase, Error> {
        let lowest = self.banks.iter().next().ok_or(Error::NoRam)?;
        let base = self.base(lowest, limits);
        for bank in self.banks.iter() {
            if limits.phys_bits < ADDRESS_BITS && bank.end_exclusive().raw() > 1 << limits.phys_bits {
                return Err(Error::BeyondPhysicalSize { bank, phys_bits: limits.phys_bits });
            }
            if bank.end_exclusive().raw() - base.raw() > limits.directmap_bytes {
                return Err(Error::BeyondDirectmap { bank, base, directmap_bytes: limits.directmap_bytes });
            }
        }
        self.check_image(image)?;
        self.check_tree()?;
        self.check_modules()?;
        Ok(DirectmapBase(base))
    }

    /// Where a directmap of RAM whose lowest bank is `lowest` starts.
    fn base(&self, lowest: PhysSpan, limits: Limits) -> PhysAddr {
        let for_runs = lowest.start().align_down(DIRECTMAP_ALIGN_RUNS);
        let has_run = |bank: PhysSpan| {
            let run = PhysSpan::of(bank.start().align_up(DIRECTMAP_ALIGN_RUNS), DIRECTMAP_ALIGN_RUNS);
            run.is_some_and(|run| bank.covers(run))
        };
        let fits = |bank: PhysSpan| bank.end_exclusive().raw() - for_runs.raw() <= limits.directmap_bytes;
        if self.banks.iter().any(has_run) && self.banks.iter().all(fits) {
            for_runs
        } else {
            lowest.start().align_down(DIRECTMAP_ALIGN)
        }
    }

    /// Refuses an image that is outside RAM or not alone in its pages.
    fn check_image(&self, image: PhysSpan) -> Result<(), Error> {
        let pages = image.page_cover();
        if !self.banks.covers(pages) {
            return Err(Error::ImageOutsideRam { image });
        }
        let no_map = self.no_map.iter().map(|span| (Claim::NoMap, span));
        let reserved = self.reserved.iter().map(|span| (Claim::Reserved, span));
        let modules = self.modules().map(|module| (Claim::Module(module.kind), module.span));
        let tree = self.device_tree.map(|span| (Claim::DeviceTree, span));
        // Modules and the tree first: a loader may reserve what it names elsewhere, and the narrower name helps more.
        let mut claims = modules.chain(tree).chain(no_map).chain(reserved);
        match claims.find(|(_, span)| span.page_cover().intersection(pages).is_some()) {
            Some((claim, span)) => Err(Error::OverlapsImage { claim, span, image }),
            None => Ok(()),
        }
    }

    /// Refuses a boot module that nobody can have put where it is said to be: what is not RAM or may not be mapped
    /// cannot be read, and of two things in one place one is overwritten. Reserving a module's memory is no second
    /// claim: loaders do that with what they name elsewhere.
    fn check_modules(&self) -> Result<(), Error> {
        for (index, module) in self.modules().enumerate() {
            if !self.banks.covers(module.span) {
                return Err(Error::ModuleOutsideRam { module });
            }
            let others = self.modules().take(index).map(|other| (Claim::Module(other.kind), other.span));
            let mut claims = others.chain(self.device_tree.map(|span| (Claim::DeviceTree, span)));
            let claim = claims.find(|(_, span)| span.intersection(module.span).is_some());
            // A page that holds a byte of it is not mapped.
            let shares_page = |hidden: &PhysSpan| hidden.page_cover().intersection(module.span.page_cover()).is_some();
            let hidden = self.no_map.iter().find(shares_page).map(|span| (Claim::NoMap, span));
            if let Some((claim, span)) = claim.or(hidden) {
                return Err(Error::Overlap { module, claim, span });
            }
        }
        Ok(())
    }

    /// Refuses a device tree that the runtime tables could not map as Normal memory.
    fn check_tree(&self) -> Result<(), Error> {
        let Some(tree) = self.device_tree else { return Ok(()) };
        if self.mappable().any(|span| span.covers(tree.page_cover())) {
            Ok(())
        } else {
            Err(Error::TreeOutsideRam { tree })
        }
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

/// The RAM of the machine `M`, as a memory map tells it, and with it the right to what is free there: what nobody in
/// the map claims becomes [`crate::frames::OwnedRam`] when the directmap shows it
/// ([`crate::regions::directmap::Directmap::map`]).
#[derive(Debug)]
#[must_use = "RAM that nobody maps is lost"]
pub struct KnownRam<'m, M> {
    memory: &'m MemoryMap,
    image: PhysSpan,
    machine: PhantomData<fn() -> M>,
}

impl<'m, M> KnownRam<'m, M> {
    /// Claims what is free in `memory`, of which `image` is the running image.
    ///
    /// # Safety
    /// `memory` is true: its banks are RAM of this machine, and whoever uses some of it is named in the map or lives in
    /// `image`. It is claimed once, and so is what is free in it.
    #[expect(unsafe_code, reason = "what a description says of a machine is true or not, which no type can check")]
    pub const unsafe fn claim(memory: &'m MemoryMap, image: PhysSpan) -> Self {
        Self { memory, image, machine: PhantomData }
    }

    /// The map.
    #[must_use]
    pub const fn memory(&self) -> &'m MemoryMap {
        self.memory
    }

    /// Where the image is.
    #[must_use]
    pub const fn image(&self) -> PhysSpan {
        self.image
    }
}

impl<'m, M: Simulated> KnownRam<'m, M> {
    /// The same of a machine whose memory is simulated.
    pub const fn simulated(memory: &'m MemoryMap, image: PhysSpan) -> Self {
        Self { memory, image, machine: PhantomData }
    }
}

/// The whole pages of `spans`, which are in order, that none of `holes` touches, ascending.
pub(crate) fn without<'a>(
    spans: &'a [PhysSpan],
    holes: impl Iterator<Item = PhysSpan> + Clone + 'a,
) -> impl Iterator<Item = PhysSpan> + 'a {
    Remainder::new(spans, holes)
}

/// The whole pages of `banks` that no hole touches, ascending. Needs no storage: each step looks at every hole.
struct Remainder<'a, H> {
    banks: core::slice::Iter<'a, PhysSpan>,
    rest: PhysSpan,
    holes: H,
}

impl<'a, H: Iterator<Item = PhysSpan> + Clone> Remainder<'a, H> {
    fn new(banks: &'a [PhysSpan], holes: H) -> Self {
        Self { banks: banks.iter(), rest: span_list::EMPTY, holes }
    }

    /// The holes, grown to the pages they touch.
    fn hole_pages(&self) -> impl Iterator<Item = PhysSpan> + use<'a, H> {
        self.holes.clone().filter(|hole| !hole.is_empty()).map(PhysSpan::page_cover)
    }
}

impl<H: Iterator<Item = PhysSpan> + Clone> Iterator for Remainder<'_, H> {
    type Item = PhysSpan;

    fn next(&mut self) -> Option<PhysSpan> {
        loop {
            while self.rest.is_empty() {
                self.rest = self.banks.next()?.page_core();
            }
            let (start, end) = (self.rest.start(), self.rest.end_exclusive());
            let past_hole = self.hole_pages().filter(|hole| hole.contains(start)).map(PhysSpan::end_exclusive).max();
            if let Some(past) = past_hole {
                self.rest = PhysSpan::new(past, end).unwrap_or(span_list::EMPTY);
                continue;
            }
            let next_hole = self.hole_pages().map(PhysSpan::start).filter(|hole| *hole > start).min();
            let stop = next_hole.unwrap_or(end).min(end);
            self.rest = PhysSpan::new(stop, end).unwrap_or(span_list::EMPTY);
            return PhysSpan::new(start, stop);
        }
    }
}

#[cfg(test)]
mod tests;
