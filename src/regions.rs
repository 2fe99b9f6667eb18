//! The regions of the hypervisor's map: what boot maps, and the declaration that the audit later holds the tables against.
//!
//! Why it exists: whoever maps something says in the same breath what it is. The declaration is all that the audit and the report
//! know; a mapping without one is a mismatch.

#![forbid(unsafe_code)]

pub mod directmap;
pub mod frametable;
pub mod image;
pub mod slots;
pub mod stacks;

use crate::addr::{Level, PhysAddr, VirtSpan};
use crate::audit::Declared;
use crate::bbm::{Live, Protocol, State, Tables};
use crate::descriptor::Attributes;
use crate::frames::FrameSupply;
use crate::layout::{self, MAX_CPUS};
use crate::machine::Machine;
use crate::mapper::{Error, Mapper, Request};

/// Regions that one map can declare: two stacks for each CPU, the directmap and frametable span by span, and the fixed ones.
pub const MAX_REGIONS: usize = 2 * MAX_CPUS + 192;

/// A place in the list that holds no region.
const NONE: Declared = Declared {
    name: "",
    virt: layout::NOWHERE,
    output: None,
    attributes: Attributes::Normal(crate::descriptor::Access::ReadOnly),
};

/// What is mapped, as it was declared.
#[derive(Debug)]
pub struct RegionMap {
    list: [Declared; MAX_REGIONS],
    count: usize,
}

impl RegionMap {
    /// No regions.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: [NONE; MAX_REGIONS], count: 0 }
    }

    /// The regions in the order they were mapped.
    #[must_use]
    pub fn as_slice(&self) -> &[Declared] {
        &self.list[..self.count]
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
        let place = self.list.get_mut(self.count).ok_or(region)?;
        *place = region;
        self.count += 1;
        Ok(())
    }

    /// Takes back the declaration of the region that is exactly `virt`.
    pub fn withdraw(&mut self, virt: VirtSpan) {
        let Some(at) = self.iter().position(|region| region.virt == virt) else { return };
        self.list[..self.count].copy_within(at + 1.., at);
        self.count -= 1;
    }

    /// Declares the region that is exactly `virt` to have other attributes from here on.
    pub fn redeclare(&mut self, virt: VirtSpan, attributes: Attributes) {
        for region in self.list[..self.count].iter_mut().filter(|region| region.virt == virt) {
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
    /// The way to the tables.
    pub protocol: &'a mut Protocol<M>,
    /// Free frames.
    pub frames: &'a mut FrameSupply,
    /// The tables.
    pub tables: &'a mut Tables<Live>,
    /// The declarations.
    pub regions: &'a mut RegionMap,
}

impl<M: Machine> Space<'_, M> {
    /// A mapper for these tables.
    pub fn mapper(&mut self) -> Mapper<'_, M, Live> {
        Mapper::new(self.protocol, self.frames, self.tables)
    }

    /// Maps `region` with leaves of up to `largest`, and declares it.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn map(&mut self, region: Declared, largest: Level) -> Result<(), Failure> {
        let name = region.name;
        if self.regions.count() == MAX_REGIONS {
            return Err(Failure::TooMany { name });
        }
        map_one(&mut self.mapper(), region, largest)?;
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

/// Maps one region without declaring it.
pub(crate) fn map_one<M: Machine, S: State>(
    mapper: &mut Mapper<'_, M, S>,
    region: Declared,
    largest: Level,
) -> Result<(), Failure> {
    let Declared { name, virt, output, attributes } = region;
    let request = Request { virt, output: output.unwrap_or(PhysAddr::at(0)), attributes, largest };
    mapper.map(request).map(drop).map_err(|error| Failure::Mapping { name, error })
}
