//! All of boot that is not the target's, on the host machine: from first tables to audited runtime tables.

use super::rig::{CODE, CONSTANTS, DATA, PAGE, phys, virt};
use super::world::{Mutation, Reachable, World};
use breakwater::addr::{PhysAddr, PhysSpan, VirtAddr};
use breakwater::audit::Audit;
use breakwater::bbm::{Live, Protocol, Tables};
use breakwater::bringup::{self, Bringup};
use breakwater::device_tree::HEADER_BYTES;
use breakwater::errata::Errata;
use breakwater::frames::FrameSupply;
use breakwater::layout::{self, DIRECTMAP, LINK_ADDRESS, POOL_FRAMES};
use breakwater::memory_map::{Limits, MemoryMap};
use breakwater::regions::directmap::Directmap;
use breakwater::regions::image::{INIT, Image, Part};
use breakwater::regions::{Failure, RegionMap, Space, frametable, slots, stacks};

/// Pages of the parts of the image, in order, each with the pages left out after it.
const PARTS: [(&str, u64, u64); 8] = [
    ("init", 20, 0),
    ("identity routines", 1, 0),
    ("text", 40, 0),
    ("rodata", 12, 0),
    ("sealed data", 3, 0),
    ("data", 60, 1),
    ("boot stack", 8, 1),
    ("boot exception stack", 2, 0),
];
/// Pages of the image, guards included.
pub(crate) const IMAGE_PAGES: u64 = 148;
const DATA_PAGE: u64 = 20 + 1 + 40 + 12 + 3;
const FIRST_TABLES: u64 = 6;

/// The console's registers.
pub(crate) const CONSOLE: u64 = 0x0900_0000;

/// A machine to boot on.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) image: u64,
    pub(crate) pool_frames: u64,
    pub(crate) memory: MemoryMap,
    pub(crate) errata: Errata,
    pub(crate) cpus: usize,
    /// What becomes of a step of the log on its way to the judge.
    pub(crate) mutation: Option<(usize, Mutation)>,
}

impl Setup {
    /// A machine with these banks, an image in one of them, and a device tree.
    pub(crate) fn new(banks: &[PhysSpan], image: u64, tree: PhysSpan) -> Self {
        let mut memory = MemoryMap::new();
        banks.iter().for_each(|&bank| memory.add_bank(bank).unwrap());
        memory.device_tree = Some(tree);
        Self { image, pool_frames: POOL_FRAMES as u64, memory, errata: Errata::empty(), cpus: 4, mutation: None }
    }

    pub(crate) fn image_span(&self) -> PhysSpan {
        phys(self.image, IMAGE_PAGES * PAGE)
    }

    fn page(&self, index: u64) -> u64 {
        self.image + index * PAGE
    }

    /// What nobody may write to, whatever happens: memory in use, and the parts of the image that are no data.
    fn forbidden(&self) -> Vec<PhysSpan> {
        let memory = &self.memory;
        let claimed = memory.no_map.iter().chain(memory.reserved.iter()).chain(memory.device_tree);
        let fixed = phys(self.page(20), (DATA_PAGE - 20) * PAGE);
        claimed.chain(memory.modules().map(|module| module.span)).chain([fixed]).collect()
    }

    fn image(&self) -> Image {
        let mut at = LINK_ADDRESS;
        let attributes = [CODE, CODE, CODE, CONSTANTS, DATA, DATA, DATA, DATA];
        let parts = core::array::from_fn(|index| {
            let (name, pages, guards) = PARTS[index];
            let part = Part { name, virt: virt(at, pages * PAGE), attributes: attributes[index] };
            at += (pages + guards) * PAGE;
            part
        });
        let identity = super::rig::frame(self.page(20));
        Image { start: PhysAddr::at(self.image), parts, identity }
    }
}

/// A machine with its runtime tables in force.
pub(crate) struct Booted {
    pub(crate) bringup: Bringup<World>,
    pub(crate) tables: Tables<Live>,
    pub(crate) regions: RegionMap,
    pub(crate) memory: MemoryMap,
    pub(crate) directmap: Directmap,
    pub(crate) base: PhysAddr,
    pub(crate) image: PhysSpan,
}

impl Booted {
    /// Up to the root switch.
    pub(crate) fn switched(setup: &Setup) -> Result<Self, Failure> {
        let image = setup.image_span();
        let first_tables = phys(setup.page(DATA_PAGE), FIRST_TABLES * PAGE);
        let mut world = World::with_root(setup.errata, first_tables.start().raw());
        let limits = Limits { directmap_bytes: DIRECTMAP.bytes(), phys_bits: 48 };
        let base = setup.memory.check(image, limits).expect("a machine that can boot").start();
        world.reachable = Some(Reachable { image, directmap_offset: DIRECTMAP.start().raw() - base.raw() });
        world.forbidden = setup.forbidden();
        world.mutation = setup.mutation;
        let pool = phys(first_tables.end_exclusive().raw(), setup.pool_frames * PAGE);
        let protocol = Protocol::new(world, setup.errata);
        let mut bringup = Bringup { protocol, frames: FrameSupply::new(pool), image: setup.image() };
        let next = bringup.build()?;
        let tables = bringup.switch(next, first_tables);
        let mut regions = RegionMap::new();
        bringup.image.declare(&mut regions)?;
        let memory = setup.memory.clone();
        let mut booted = Self { bringup, tables, regions, memory, directmap: Directmap::new(base), base, image };
        booted.settled("root switch");
        Ok(booted)
    }

    /// All of boot.
    pub(crate) fn boot(setup: &Setup) -> Result<Self, Failure> {
        let mut booted = Self::switched(setup)?;
        booted.map_fixed()?;
        booted.map_memory()?;
        booted.bringup.protocol.share(setup.errata);
        booted.world_mut().judge.share();
        for index in 1..setup.cpus {
            stacks::map(&mut booted.space(), index)?;
            booted.settled("stacks");
        }
        booted.free()?;
        Ok(booted)
    }

    /// Device tree, header first, and console.
    pub(crate) fn map_fixed(&mut self) -> Result<(), Failure> {
        let tree = self.memory.device_tree.unwrap();
        let header = PhysSpan::of(tree.start(), HEADER_BYTES as u64).unwrap();
        slots::map_device_tree(&mut self.space(), header, None)?;
        self.settled("device tree's header, which is read at once");
        slots::map_device_tree(&mut self.space(), tree, Some(header))?;
        self.settled("device tree");
        let registers = slots::map_console(&mut self.space(), phys(CONSOLE + 0x10, 0x1000))?;
        assert_eq!(registers, VirtAddr::at(layout::FIXMAP_CONSOLE.start().raw() + 0x10));
        self.settled("console");
        Ok(())
    }

    /// Directmap, frametable, tables of vmap and livepatch slot.
    pub(crate) fn map_memory(&mut self) -> Result<(), Failure> {
        let (directmap, image, base, memory) = (self.directmap, self.image, self.base, self.memory.clone());
        directmap.map(&mut self.space(), &memory, image)?;
        self.settled("directmap");
        frametable::map(&mut self.space(), &memory, base)?;
        self.settled("frametable");
        slots::populate_vmap(&mut self.space(), true)?;
        self.settled("vmap");
        Ok(())
    }

    /// Identity page, init, sealed data.
    pub(crate) fn free(&mut self) -> Result<(), Failure> {
        let (image, directmap) = (self.bringup.image, self.directmap);
        bringup::drop_identity(&mut self.space(), &image)?;
        self.settled("identity page");
        let init_end = image.physical(image.parts[INIT].virt.end_exclusive());
        let rest = PhysSpan::new(init_end, self.image.end_exclusive()).unwrap();
        self.world_mut().reachable.as_mut().unwrap().image = rest;
        bringup::free_init(&mut self.space(), &image, directmap)?;
        self.settled("init");
        bringup::seal(&mut self.space(), &image)?;
        self.settled("seal");
        Ok(())
    }

    pub(crate) fn space(&mut self) -> Space<'_, World> {
        self.bringup.space(&mut self.tables, &mut self.regions)
    }

    /// Nothing is owed, nothing was done that may not be.
    pub(crate) fn settled(&mut self, phase: &str) {
        self.world_mut().settle();
        let world = self.bringup.protocol.machine();
        assert_eq!(world.judge.violations, Vec::<String>::new(), "{phase}");
        assert_eq!(world.trespasses, Vec::<String>::new(), "{phase}");
    }

    pub(crate) fn audit(&self) -> Audit {
        bringup::audit(self.tables.root(), self.world(), &self.regions, &self.memory)
    }

    pub(crate) fn root(&self) -> u64 {
        self.tables.root().start().raw()
    }

    pub(crate) fn world(&self) -> &World {
        self.bringup.protocol.machine()
    }

    pub(crate) fn world_mut(&mut self) -> &mut World {
        self.bringup.protocol.machine_mut()
    }

    /// RAM that the directmap has to hold, from the description of the machine: pages of banks that no no-map region touches, the image
    /// left out but for its first `freed` pages.
    pub(crate) fn expected_directmap(&self, freed: u64) -> Vec<PhysSpan> {
        let kept =
            PhysSpan::new(PhysAddr::at(self.image.start().raw() + freed * PAGE), self.image.end_exclusive()).unwrap();
        let holes = self.memory.no_map.iter().map(PhysSpan::page_cover).chain([kept]);
        holes.fold(self.memory.banks.iter().map(PhysSpan::page_core).collect(), |spans, hole| without(&spans, hole))
    }
}

/// `spans` without the bytes of `hole`.
pub(crate) fn without(spans: &[PhysSpan], hole: PhysSpan) -> Vec<PhysSpan> {
    let pieces = spans.iter().flat_map(|span| {
        let below = PhysSpan::new(span.start(), span.end_exclusive().min(hole.start()));
        let above = PhysSpan::new(span.start().max(hole.end_exclusive()), span.end_exclusive());
        [below, above]
    });
    pieces.flatten().filter(|piece| !piece.is_empty()).collect()
}
