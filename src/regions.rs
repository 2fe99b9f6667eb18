//! The regions of the hypervisor's map: what boot maps, and the declaration that the audit later holds the tables against.
//!
//! Why it exists: whoever maps something says in the same breath what it is. The declaration is all that the audit and the report
//! know; a mapping without one is a mismatch.
//!
//! Boot makes [`image`], [`slots`], [`directmap`], [`frametable`] and [`stacks`]. After it, mappings come and go on demand: [`fixmap`],
//! [`vmap`], [`window`]; whether frames may be mapped once more, and as what, is decided by [`alias`], by physical address. Livepatching will
//! hang here too: frames that [`vmap`] or the livepatch slot shows writable, then, once no writable alias is left, executable.

#![forbid(unsafe_code)]

pub mod alias;
pub mod directmap;
pub mod fixmap;
pub mod frametable;
pub mod image;
pub mod slots;
pub mod stacks;
pub mod vmap;
pub mod window;

use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtSpan};
use crate::audit::Declared;
use crate::bbm::{Live, Protocol, State, Tables};
use crate::descriptor::Attributes;
use crate::frames::{FrameSupply, OwnedRam};
use crate::layout;
use crate::machine::Machine;
use crate::mapper::{Error, Mapper, Request};

/// Regions that the image itself has room for: those of boot on one CPU, which are the fixed ones and the directmap and
/// frametable span by span, and 128 that are mapped on demand. For more CPUs there is more: [`RegionMap::give_room`].
pub const MAX_REGIONS: usize = 192 + 128;
/// Regions that each further CPU wants room for: its two stacks.
pub const REGIONS_EACH_CPU: usize = 2;

/// A place in the list that holds no region.
pub const NO_REGION: Declared = Declared {
    name: "",
    virt: layout::NOWHERE,
    output: None,
    attributes: Attributes::Normal(crate::descriptor::Access::ReadOnly),
};

/// What is mapped, as it was declared.
#[derive(Debug)]
pub struct RegionMap {
    own: [Declared; MAX_REGIONS],
    /// What is used instead, once it is given.
    given: Option<&'static mut [Declared]>,
    count: usize,
}

impl RegionMap {
    /// No regions.
    #[must_use]
    pub const fn new() -> Self {
        Self { own: [NO_REGION; MAX_REGIONS], given: None, count: 0 }
    }

    /// Keeps the declarations in `room` from here on, which has places for more of them than the image itself. Where it
    /// has fewer than there is room for now, nothing changes.
    pub fn give_room(&mut self, room: &'static mut [Declared]) {
        if room.len() >= self.list().len() {
            room[..self.count].copy_from_slice(self.as_slice());
            self.given = Some(room);
        }
    }

    fn list(&self) -> &[Declared] {
        self.given.as_deref().unwrap_or(&self.own)
    }

    fn list_mut(&mut self) -> &mut [Declared] {
        self.given.as_deref_mut().unwrap_or(&mut self.own)
    }

    /// The regions in the order they were mapped.
    #[must_use]
    pub fn as_slice(&self) -> &[Declared] {
        &self.list()[..self.count]
    }

    fn as_mut_slice(&mut self) -> &mut [Declared] {
        let count = self.count;
        &mut self.list_mut()[..count]
    }

    /// The regions in the order they were mapped.
    pub fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.as_slice().iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Declares a region.
    ///
    /// # Errors
    /// The region itself when the map is full.
    pub fn declare(&mut self, region: Declared) -> Result<(), Declared> {
        let count = self.count;
        let place = self.list_mut().get_mut(count).ok_or(region)?;
        *place = region;
        self.count += 1;
        Ok(())
    }

    /// Takes back the declaration of the region that is exactly `virt`.
    pub fn withdraw(&mut self, virt: VirtSpan) {
        let Some(at) = self.iter().position(|region| region.virt == virt) else { return };
        self.as_mut_slice().copy_within(at + 1.., at);
        self.count -= 1;
    }

    /// Takes back the declarations of all regions that lie wholly in `virt`.
    pub fn withdraw_within(&mut self, virt: VirtSpan) {
        let mut kept = 0;
        let list = self.as_mut_slice();
        for index in 0..list.len() {
            if !virt.covers(list[index].virt) {
                list[kept] = list[index];
                kept += 1;
            }
        }
        self.count = kept;
    }

    /// How many more regions can be declared.
    #[must_use]
    pub fn left(&self) -> usize {
        self.list().len() - self.count
    }

    /// Declares the region that is exactly `virt` to map to `output` with `attributes` from here on.
    pub fn redirect(&mut self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) {
        for region in self.as_mut_slice().iter_mut().filter(|region| region.virt == virt) {
            region.output = Some(output);
            region.attributes = attributes;
        }
    }

    /// Declares the region that is exactly `virt` to have other attributes from here on.
    pub fn redeclare(&mut self, virt: VirtSpan, attributes: Attributes) {
        for region in self.as_mut_slice().iter_mut().filter(|region| region.virt == virt) {
            region.attributes = attributes;
        }
    }
}

impl Default for RegionMap {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a region could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The mapper refused.
    Mapping {
        /// The region's name.
        name: &'static str,
        /// Why.
        error: Error,
    },
    /// No free RAM in one piece of the size and alignment that the region needs.
    NoRam {
        /// The region's name.
        name: &'static str,
        /// Bytes needed.
        bytes: u64,
    },
    /// More regions, or more separate spans of free memory, than this image can note.
    TooMany {
        /// Of what.
        name: &'static str,
    },
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Mapping { name, error } => write!(f, "{name}: {error}"),
            Self::NoRam { name, bytes } => write!(f, "{name}: no {bytes:#x} bytes of free RAM in one piece"),
            Self::TooMany { name } => write!(f, "{name}: more than this image can note"),
        }
    }
}

/// The tables in force and all that goes with them: what each region is made with.
#[derive(Debug)]
pub struct Space<'a, M> {
    /// The way to the tables: for [`Self::mapper`] and the regions, which keep what callers could break.
    protocol: &'a mut Protocol<M>,
    frames: &'a mut FrameSupply<M>,
    tables: &'a mut Tables<M, Live>,
    regions: &'a mut RegionMap,
}

impl<'a, M: Machine> Space<'a, M> {
    /// These tables, which `protocol` edits, with free frames of the same machine, and the declarations of what is
    /// mapped.
    pub fn new(
        protocol: &'a mut Protocol<M>,
        frames: &'a mut FrameSupply<M>,
        tables: &'a mut Tables<M, Live>,
        regions: &'a mut RegionMap,
    ) -> Self {
        Self { protocol, frames, tables, regions }
    }

    /// Free frames.
    pub fn frames(&mut self) -> &mut FrameSupply<M> {
        self.frames
    }

    /// The declarations.
    pub fn regions(&mut self) -> &mut RegionMap {
        self.regions
    }

    /// A mapper for these tables.
    pub fn mapper(&mut self) -> Mapper<'_, M, Live> {
        Mapper::new(self.protocol, self.frames, self.tables)
    }

    /// Maps `region` with leaves of up to `largest`, and declares it.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn map(&mut self, region: Declared, largest: Level) -> Result<(), Failure> {
        self.map_as(region, |request| Request { largest, ..request })
    }

    /// The same with contiguous runs wherever alignment allows: for what is large and stays.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn map_contiguous(&mut self, region: Declared, largest: Level) -> Result<(), Failure> {
        self.map_as(region, |request| Request { largest, ..request.with_contiguous() })
    }

    fn map_as(&mut self, region: Declared, by: impl FnOnce(Request) -> Request) -> Result<(), Failure> {
        let name = region.name;
        if self.regions.left() == 0 {
            return Err(Failure::TooMany { name });
        }
        let request = by(request(region));
        self.mapper().map(request).map_err(|error| Failure::Mapping { name, error })?;
        self.regions.declare(region).map_err(|_| Failure::TooMany { name })
    }

    /// Unmaps the region that is exactly `virt` and was declared, and withdraws its declaration.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn unmap(&mut self, name: &'static str, virt: VirtSpan) -> Result<crate::mapper::Unmapped, Failure> {
        let unmapped = self.mapper().unmap(virt).map_err(|error| Failure::Mapping { name, error })?;
        self.regions.withdraw(virt);
        Ok(unmapped)
    }

    /// Unmaps all of `virt`, in which whole declared regions lie side by side, in one request, and withdraws their declarations.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn unmap_all(&mut self, name: &'static str, virt: VirtSpan) -> Result<crate::mapper::Unmapped, Failure> {
        let unmapped = self.mapper().unmap(virt).map_err(|error| Failure::Mapping { name, error })?;
        self.regions.withdraw_within(virt);
        Ok(unmapped)
    }

    /// Gives RAM back to the supply, when nothing but the directmap maps it any more. Each request has invalidated what it took away before it
    /// returned, so no TLB holds anything of it either.
    ///
    /// # Errors
    /// [`Failure`] and the RAM, which is still the caller's: [`Error::InUse`] when something maps it, [`Error::NotMapped`] when the directmap,
    /// through which tables are reached, does not show all of it, [`Failure::TooMany`] when the supply cannot note another span.
    pub fn give_back(&mut self, ram: OwnedRam<M>) -> Result<(), (Failure, OwnedRam<M>)> {
        let name = "free frames";
        let mapper = self.mapper();
        if let Some((slot, frames)) = mapper.maps(ram.span(), layout::DIRECTMAP) {
            let error = Error::InUse { frames, slot, descriptor: self.protocol.raw(slot) };
            return Err((Failure::Mapping { name, error }, ram));
        }
        self.give_back_unmapped(name, ram)
    }

    /// The same where the declarations say what maps the RAM, and no table is read: for boot, whose audit holds the
    /// tables against the declarations, and lets nobody have them where they differ.
    ///
    /// # Errors
    /// As for [`Self::give_back`].
    pub(crate) fn give_back_declared(&mut self, ram: OwnedRam<M>) -> Result<(), (Failure, OwnedRam<M>)> {
        let name = "free frames";
        let elsewhere = self.regions.iter().filter(|region| !layout::DIRECTMAP.covers(region.virt));
        let mapped = elsewhere.filter_map(|region| alias::alias(region, ram.span())).next();
        if let Some(mapped) = mapped {
            let (frames, last) = (mapped.phys, self.mapper().walk(mapped.virt).last());
            let beyond =
                Error::BeyondInput { virt: VirtSpan::of(mapped.virt, frames.bytes()).unwrap_or(VirtSpan::EMPTY) };
            let error = last.map_or(beyond, |end| Error::InUse { frames, slot: end.slot, descriptor: end.descriptor });
            return Err((Failure::Mapping { name, error }, ram));
        }
        self.give_back_unmapped(name, ram)
    }

    fn give_back_unmapped(&mut self, name: &'static str, ram: OwnedRam<M>) -> Result<(), (Failure, OwnedRam<M>)> {
        if let Err(error) = self.mapper().check_shown(ram.span(), layout::DIRECTMAP) {
            return Err((Failure::Mapping { name, error }, ram));
        }
        self.frames.give_back(ram).map_err(|ram| (Failure::TooMany { name }, ram))
    }

    /// Makes the region that is exactly `virt` map to `output` with `attributes` instead, by break-before-make, and declares that.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn remap(
        &mut self,
        name: &'static str,
        virt: VirtSpan,
        output: PhysAddr,
        attributes: Attributes,
    ) -> Result<(), Failure> {
        let remapped = self.mapper().remap(virt, output, attributes);
        remapped.map_err(|error| Failure::Mapping { name, error })?;
        self.regions.redirect(virt, output, attributes);
        Ok(())
    }

    /// Gives the region that is exactly `virt` other rights, and declares them.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn protect(&mut self, name: &'static str, virt: VirtSpan, attributes: Attributes) -> Result<(), Failure> {
        self.mapper().protect(virt, attributes).map_err(|error| Failure::Mapping { name, error })?;
        self.regions.redeclare(virt, attributes);
        Ok(())
    }
}

/// What is mapped on demand after boot, and where room for more is. The fixmap keeps no books: its slots are in the tables.
#[derive(Debug)]
pub struct OnDemand {
    /// Mappings of devices and of scattered frames, with guard pages.
    pub vmap: vmap::Vmap,
    /// Single frames outside the directmap, by CPU.
    pub window: window::Window,
}

impl OnDemand {
    /// Nothing mapped on demand.
    #[must_use]
    pub const fn new() -> Self {
        Self { vmap: vmap::Vmap::new(), window: window::Window::new() }
    }
}

impl Default for OnDemand {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of `frame`, if the CPUs can put its address out.
fn frame_span<M: Machine>(space: &Space<'_, M>, name: &'static str, frame: Frame) -> Result<PhysSpan, Failure> {
    let (virt, output) = (layout::NOWHERE, frame.start());
    let limit = 1 << space.protocol.output_bits();
    let span = PhysSpan::of(output, PAGE_BYTES).filter(|span| span.end_exclusive().raw() <= limit);
    span.ok_or(Failure::Mapping { name, error: Error::BeyondAddressSize { virt, output } })
}

/// Maps one region without declaring it.
pub(crate) fn map_one<M: Machine, S: State>(
    mapper: &mut Mapper<'_, M, S>,
    region: Declared,
    largest: Level,
) -> Result<(), Failure> {
    let request = Request { largest, ..request(region) };
    mapper.map(request).map(drop).map_err(|error| Failure::Mapping { name: region.name, error })
}

/// The request that maps `region` by pages.
fn request(region: Declared) -> Request {
    let Declared { virt, output, attributes, .. } = region;
    Request::new(virt, output.unwrap_or(PhysAddr::at(0)), attributes, Level::L3)
}
