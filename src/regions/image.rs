//! The image: its parts, each with its final rights, in 4 KiB pages; and the identity page.

#![forbid(unsafe_code)]

use super::{Failure, RegionMap, map_one};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::bbm::{Offline, Protocol, Tables};
use crate::descriptor::{Access, Attributes};
use crate::frames::FrameSupply;
use crate::layout;
use crate::machine::Machine;
use crate::mapper::{Error, Mapper};

/// Code.
pub const CODE: Attributes = Attributes::Normal(Access::ReadExecute);
/// Constants.
pub const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);
/// Data.
pub const DATA: Attributes = Attributes::Normal(Access::ReadWrite);

/// One part of the image.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name in the report.
    pub name: &'static str,
    /// Where it is linked: whole pages.
    pub virt: VirtSpan,
    /// Its final rights; for sealed data, those until it is sealed.
    pub attributes: Attributes,
}

/// Number of parts.
pub const PARTS: usize = 8;
/// Where init stands in the list of parts.
pub const INIT: usize = 0;
/// Where sealed data stands in the list of parts.
pub const SEALED: usize = 4;

/// The image as boot knows it: where it is and what it is made of. A description, which by itself allows nothing: that
/// it is true of a machine is vouched for in [`crate::bringup::Bringup::new`].
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Where its first byte is, physically.
    pub start: PhysAddr,
    /// Its parts, in ascending order; between stacks lie guard pages.
    pub parts: [Part; PARTS],
    /// The frame of the identity page.
    pub identity: Frame,
    /// The tables in force at first, part of its data: they are free after the root switch.
    pub first_tables: VirtSpan,
    /// The frames that it brings along for tables, part of its data.
    pub pool: VirtSpan,
}

impl Image {
    /// The physical address of what is linked at `virt`.
    #[must_use]
    pub fn physical(&self, virt: VirtAddr) -> PhysAddr {
        // The image lies in IDENTITY: head.S refuses it otherwise.
        PhysAddr::at(self.start.raw() + (virt.raw() - layout::LINK_ADDRESS))
    }

    /// Where `part` of it is, physically.
    #[must_use]
    pub fn physical_span(&self, part: VirtSpan) -> PhysSpan {
        PhysSpan::of(self.physical(part.start()), part.bytes())
            .unwrap_or_else(|| unreachable!("the image lies in IDENTITY"))
    }

    /// Declares each part.
    fn declared(&self) -> impl Iterator<Item = Declared> + '_ {
        self.parts.iter().filter(|part| !part.virt.is_empty()).map(|part| Declared {
            name: part.name,
            virt: part.virt,
            output: Some(self.physical(part.virt.start())),
            attributes: part.attributes,
        })
    }

    /// The parts as few requests: neighbours with the same attributes together.
    fn runs(&self) -> impl Iterator<Item = Declared> + '_ {
        let follows = |part: &Part, next: &Part| {
            part.virt.end_exclusive() == next.virt.start() && part.attributes == next.attributes
        };
        self.parts.chunk_by(follows).filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let virt = VirtSpan::new(first.virt.start(), last.virt.end_exclusive())?;
            let output = Some(self.physical(virt.start()));
            (!virt.is_empty()).then_some(Declared { name: first.name, virt, output, attributes: first.attributes })
        })
    }

    /// The identity page: its virtual address is its physical one.
    #[must_use]
    pub fn identity_page(&self) -> Declared {
        let output = self.identity.start();
        let virt = VirtSpan::of(VirtAddr::at(output.raw()), PAGE_BYTES)
            .unwrap_or_else(|| unreachable!("the identity page lies in IDENTITY"));
        Declared { name: "identity page", virt, output: Some(output), attributes: CODE }
    }

    /// Builds the runtime root: image, fixmap (no page in it yet) and identity page. Nothing walks it before the root switch.
    ///
    /// # Errors
    /// [`Failure`], which would be an error in the sizing of the pool.
    pub fn build<M: Machine>(
        &self,
        protocol: &mut Protocol<M>,
        frames: &mut FrameSupply<M>,
    ) -> Result<Tables<M, Offline>, Failure> {
        let out_of_frames = Error::OutOfFrames { needed: 1, available: 0 };
        let root = frames.take().ok_or(Failure::Mapping { name: "root", error: out_of_frames })?;
        let root = protocol.new_table(root, Level::L0, VirtAddr::at(0));
        let mut tables = Tables::new(root);
        let mut mapper = Mapper::new(protocol, frames, &mut tables);
        for run in self.runs() {
            map_one(&mut mapper, run, Level::L3)?;
        }
        map_one(&mut mapper, self.identity_page(), Level::L3)?;
        mapper.populate(layout::FIXMAP, Level::L3).map_err(|error| Failure::Mapping { name: "fixmap", error })?;
        Ok(tables)
    }

    /// Declares what [`Self::build`] mapped.
    ///
    /// # Errors
    /// [`Failure::TooMany`].
    pub fn declare(&self, regions: &mut RegionMap) -> Result<(), Failure> {
        for region in self.declared().chain([self.identity_page()]) {
            regions.declare(region).map_err(|region| Failure::TooMany { name: region.name })?;
        }
        Ok(())
    }
}
