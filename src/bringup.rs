//! The phases of boot from the first tables on: build the runtime tables, switch to them, map what there is, free what was only needed
//! on the way. The same code on the target and on a host: it names no CPU.
//!
//! What must hold, phase by phase: see the functions. Throughout: every store goes through [`crate::bbm`], every
//! mapping is declared, and the protocol stays in here: what comes out are requests, which ask what the CPUs and the
//! manager stand on.

use crate::addr::{Frame, Level, PAGE_BYTES};
use crate::audit::{self, Audit, Declared, Scratch};
use crate::bbm::{Counts, Detached, Live, Offline, Protocol, Tables};
use crate::errata::Errata;
use crate::features::Features;
use crate::frames::{FrameSupply, OwnedRam};
use crate::machine::{Machine, Simulated};
use crate::mapper::Mapper;
use crate::memory_map::MemoryMap;
use crate::regions::directmap::Directmap;
use crate::regions::image::{self, INIT, Image, SEALED};
use crate::regions::{Failure, RegionMap, Space, map_one};
use crate::walk::ReadTable;

/// A machine that boots: the way to its tables, its free frames, and the image that it runs.
#[derive(Debug)]
pub struct Bringup<M> {
    protocol: Protocol<M>,
    frames: FrameSupply<M>,
    image: Image,
    /// Whether init's frames are still the image's.
    has_init: bool,
}

impl<M: Machine> Bringup<M> {
    /// The machine that runs `image`, in its first tables, on one CPU with `errata`.
    ///
    /// # Safety
    /// The one CPU that runs executes `image`, which lies where it says and has those parts: mapped as it says, it goes
    /// on. Its pool is nobody's. Its first tables are those in force, and nobody but the root switch touches them.
    /// Nothing lives in init but code that has ended when [`Self::free_init`] is called, and its frames are then mapped
    /// nowhere but where the declarations say. The machine is brought up once.
    #[must_use]
    #[expect(unsafe_code, reason = "what runs, and where, is a fact of the machine, which no type can check")]
    pub unsafe fn new(machine: M, errata: Errata, image: Image) -> Self {
        Self::of(machine, errata, image)
    }

    fn of(machine: M, errata: Errata, image: Image) -> Self {
        let pool = OwnedRam::new(image.physical_span(image.pool));
        Self { protocol: Protocol::on(machine, errata), frames: FrameSupply::new(pool), image, has_init: true }
    }

    /// Builds the runtime root: image, fixmap, identity page. The first tables stay in force; nothing walks the new ones yet.
    ///
    /// # Errors
    /// [`Failure`], which would be an error in the sizing of the pool.
    pub fn build(&mut self) -> Result<Tables<M, Offline>, Failure> {
        self.image.build(&mut self.protocol, &mut self.frames)
    }

    /// Maps one region more into the runtime root, whose tables are there: a page of the fixmap that is always used.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn add(&mut self, next: &mut Tables<M, Offline>, region: Declared) -> Result<(), Failure> {
        map_one(&mut Mapper::new(&mut self.protocol, &mut self.frames, next), region, Level::L3)
    }

    /// Puts the runtime root in force, strictly (RULES.md: RootSwitch), and gives the first tables' frames to the
    /// supply: the switch has invalidated every trace of them.
    ///
    /// # Panics
    /// When it has been done before, or other CPUs use the tables.
    pub fn switch(&mut self, next: Tables<M, Offline>) -> Tables<M, Live> {
        let first_tables = core::mem::replace(&mut self.image.first_tables, crate::layout::NOWHERE);
        assert!(!first_tables.is_empty(), "the root is switched once");
        let first = Frame::containing(self.image.physical(first_tables.start()));
        let count = first_tables.bytes() / PAGE_BYTES;
        let old = core::array::from_fn(|index| {
            let index = index as u64;
            first.checked_add(index).filter(|_| index < count)
        });
        let (tables, released) = self.protocol.switch_root(next, Detached::first_tables(old));
        self.frames.release(released);
        tables
    }

    /// Notes what the CPU that runs gets wrong, and how many bits of an output address it has.
    pub fn note_cpu(&mut self, errata: Errata, output_bits: u8) {
        self.protocol.note_errata(errata);
        self.protocol.limit_output(output_bits);
    }

    /// From here on other CPUs may use the tables; `errata` are those of every one that may.
    pub fn share(&mut self, errata: Errata) {
        self.protocol.share(errata);
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

    /// The image that runs.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The protocol, to read: what was done, how far invalidations reach.
    #[must_use]
    pub fn protocol(&self) -> &Protocol<M> {
        &self.protocol
    }

    /// The machine, for what is no table.
    pub fn machine_mut(&mut self) -> &mut M {
        self.protocol.machine_mut()
    }

    /// Free frames.
    #[must_use]
    pub fn frames(&self) -> &FrameSupply<M> {
        &self.frames
    }

    /// Free frames, to take from.
    pub fn frames_mut(&mut self) -> &mut FrameSupply<M> {
        &mut self.frames
    }

    /// Runs of leaves, and tables, that an audit has to note where `regions` are declared, with some to spare for what is
    /// not.
    #[must_use]
    pub fn audit_runs(&self, regions: &RegionMap) -> usize {
        2 * regions.count() + self.frames.taken_singly() as usize + 64
    }

    /// A mapper for the tables in force.
    pub fn mapper<'a>(&'a mut self, tables: &'a mut Tables<M, Live>) -> Mapper<'a, M, Live> {
        Mapper::new(&mut self.protocol, &mut self.frames, tables)
    }

    /// The tables in force with all that goes with them.
    pub fn space<'a>(&'a mut self, tables: &'a mut Tables<M, Live>, regions: &'a mut RegionMap) -> Space<'a, M> {
        Space::new(&mut self.protocol, &mut self.frames, tables, regions)
    }

    /// Breaks the identity page, once: after the last CPU has left it, and only when none can arrive any more.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn drop_identity(&mut self, tables: &mut Tables<M, Live>, regions: &mut RegionMap) -> Result<(), Failure> {
        let identity = self.image.identity_page();
        self.space(tables, regions).unmap(identity.name, identity.virt).map(drop)
    }

    /// Breaks the init section, invalidates, maps its frames into the directmap instead, and gives them to the supply.
    /// Once: from here on they are no longer the image's.
    ///
    /// The machine must reach those frames through the directmap from here on, no CPU may execute init code any more,
    /// and this function is not init itself.
    ///
    /// # Errors
    /// [`Failure`], with what was done so far in force.
    ///
    /// # Panics
    /// When it has been done before.
    pub fn free_init(
        &mut self,
        tables: &mut Tables<M, Live>,
        regions: &mut RegionMap,
        directmap: Directmap,
    ) -> Result<(), Failure> {
        assert!(self.has_init, "init is freed once");
        let init = self.image.parts[INIT];
        let frames = self.image.physical_span(init.virt);
        let mut space = self.space(tables, regions);
        space.unmap(init.name, init.virt)?;
        directmap.map_span(&mut space, frames)?;
        let given = space.give_back_declared(OwnedRam::new(frames));
        self.has_init = false;
        given.map_err(|(failure, _)| failure)
    }

    /// Makes read-only what is not written after boot.
    ///
    /// # Errors
    /// [`Failure`], with the tables as before.
    pub fn seal(&mut self, tables: &mut Tables<M, Live>, regions: &mut RegionMap) -> Result<(), Failure> {
        let sealed = self.image.parts[SEALED];
        self.space(tables, regions).protect(sealed.name, sealed.virt, image::CONSTANTS)
    }

    /// What is left when boot is over: the way to the tables in force, and free frames.
    #[must_use]
    pub fn finish(self, tables: Tables<M, Live>) -> (Editor<M>, FrameSupply<M>) {
        (Editor { protocol: self.protocol, tables }, self.frames)
    }
}

impl<M: Simulated> Bringup<M> {
    /// The same of a machine whose memory is simulated.
    #[must_use]
    pub fn simulated(machine: M, errata: Errata, image: Image) -> Self {
        Self::of(machine, errata, image)
    }
}

/// The way to the tables in force after boot. Whoever holds it edits alone, and by requests alone.
#[derive(Debug)]
pub struct Editor<M> {
    protocol: Protocol<M>,
    tables: Tables<M, Live>,
}

impl<M: Machine> Editor<M> {
    /// A mapper that takes table frames from `frames`.
    pub fn mapper<'a>(&'a mut self, frames: &'a mut FrameSupply<M>) -> Mapper<'a, M, Live> {
        Mapper::new(&mut self.protocol, frames, &mut self.tables)
    }

    /// The tables in force with all that goes with them.
    pub fn space<'a>(&'a mut self, frames: &'a mut FrameSupply<M>, regions: &'a mut RegionMap) -> Space<'a, M> {
        Space::new(&mut self.protocol, frames, &mut self.tables, regions)
    }

    /// Descriptor stores, barriers and TLB maintenance since the first instruction of Rust: they only grow.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.protocol.counts()
    }
}

/// Holds the tables in force against the declarations, with `runs` to note leaves and tables in
/// ([`Bringup::audit_runs`]).
#[must_use]
pub fn audit(
    root: Frame,
    reader: &impl ReadTable,
    regions: &RegionMap,
    memory: &MemoryMap,
    runs: &mut [Scratch],
) -> Audit {
    audit::audit(root, reader, regions.as_slice(), memory.banks.as_slice(), memory.no_map.as_slice(), runs)
}
