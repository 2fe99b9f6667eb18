//! The phases of boot from the first tables on: build the runtime tables, switch to them, map what there is, free what was only needed
//! on the way. The same code on the target and on a host: it names no CPU.
//!
//! What must hold, phase by phase: see the functions. Throughout: every store goes through [`crate::bbm`], every mapping is declared.

#![forbid(unsafe_code)]

use crate::addr::{Frame, PAGE_BYTES, PhysSpan};
use crate::audit::{self, Audit, Scratch};
use crate::bbm::{Detached, FreeRam, Live, Offline, Protocol, Tables};
use crate::errata::Errata;
use crate::features::Features;
use crate::frames::FrameSupply;
use crate::machine::Machine;
use crate::memory_map::MemoryMap;
use crate::regions::directmap::Directmap;
use crate::regions::image::{self, INIT, Image, SEALED};
use crate::regions::{Failure, RegionMap, Space};
use crate::walk::ReadTable;

/// Runs of leaves, and tables, that the audit can note.
const AUDIT_RUNS: usize = 2 * crate::regions::MAX_BOOT_REGIONS;

/// A machine that boots: the way to its tables, and its free frames.
#[derive(Debug)]
pub struct Bringup<M> {
    /// The way to the tables.
    pub protocol: Protocol<M>,
    /// Free frames.
    pub frames: FrameSupply,
    /// The image.
    pub image: Image,
}

impl<M: Machine> Bringup<M> {
    /// Builds the runtime root: image, fixmap, identity page. The first tables stay in force; nothing walks the new ones yet.
    ///
    /// # Errors
    /// [`Failure`], which would be an error in the sizing of the pool.
    pub fn build(&mut self) -> Result<Tables<Offline>, Failure> {
        self.image.build(&mut self.protocol, &mut self.frames)
    }

    /// Puts the runtime root in force, strictly (RULES.md: RootSwitch), and gives the first tables' frames, which are `first_tables`, to
    /// the supply: the switch has invalidated every trace of them.
    pub fn switch(&mut self, next: Tables<Offline>, first_tables: PhysSpan) -> Tables<Live> {
        let first = Frame::containing(first_tables.start());
        let count = first_tables.bytes() / PAGE_BYTES;
        let old = core::array::from_fn(|index| {
            let index = index as u64;
            first.checked_add(index).filter(|_| index < count)
        });
        let (tables, released) = self.protocol.switch_root(next, Detached::first_tables(old));
        self.frames.release(released);
        tables
    }

    /// Every CPU that was started has reported, and shares the tables: optional `features` are those that all of them have. Where one
    /// `may_still_arrive`, nothing is known of it: it may have none of them, and get wrong whatever any CPU does.
    pub fn all_cpus_known(&mut self, features: Features, may_still_arrive: bool) {
        if may_still_arrive {
            self.protocol.share(Errata::all());
        } else {
            self.protocol.use_features(features);
        }
    }

    /// The tables in force with all that goes with them.
    pub fn space<'a>(&'a mut self, tables: &'a mut Tables<Live>, regions: &'a mut RegionMap) -> Space<'a, M> {
        Space::new(&mut self.protocol, &mut self.frames, tables, regions)
    }
}

/// Breaks the identity page, once: after the last CPU has left it, and only when none can arrive any more.
///
/// # Errors
/// [`Failure`], with the tables as before.
pub fn drop_identity<M: Machine>(space: &mut Space<'_, M>, image: &Image) -> Result<(), Failure> {
    space.unmap("identity page", image.identity_page().virt).map(drop)
}

/// Breaks the init section, invalidates, maps its frames into the directmap instead, and gives them to the supply.
///
/// The machine must reach those frames through the directmap from here on, no CPU may execute init code any more, and this function is
/// not init itself.
///
/// # Errors
/// [`Failure`], with what was done so far in force.
pub fn free_init<M: Machine>(space: &mut Space<'_, M>, image: &Image, directmap: Directmap) -> Result<(), Failure> {
    let init = image.parts[INIT];
    space.unmap(init.name, init.virt)?;
    let frames = PhysSpan::of(image.physical(init.virt.start()), init.virt.bytes())
        .ok_or(Failure::TooMany { name: init.name })?;
    directmap.map_span(space, frames)?;
    // Init's frames were the image's, and are nobody's from here on.
    space.give_back(FreeRam::new(frames)).map_err(|(failure, _)| failure)
}

/// Makes read-only what is not written after boot.
///
/// # Errors
/// [`Failure`], with the tables as before.
pub fn seal<M: Machine>(space: &mut Space<'_, M>, image: &Image) -> Result<(), Failure> {
    let sealed = image.parts[SEALED];
    space.protect(sealed.name, sealed.virt, image::CONSTANTS)
}

/// Holds the tables in force against the declarations.
#[must_use]
pub fn audit(root: Frame, reader: &impl ReadTable, regions: &RegionMap, memory: &MemoryMap) -> Audit {
    let mut runs = [Scratch::EMPTY; AUDIT_RUNS];
    audit::audit(root, reader, regions.as_slice(), memory.banks.as_slice(), memory.no_map.as_slice(), &mut runs)
}
