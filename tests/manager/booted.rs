//! All of boot that is not the target's, on the host machine: from first tables to audited runtime tables.

use super::bits::attribute_bits;
use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, PAGE, phys, virt};
use super::start::{self, FirstTables};
use super::world::{Reachable, World};
use breakwater::addr::{PhysAddr, PhysSpan, VirtAddr};
use breakwater::audit::{Audit, Scratch};
use breakwater::bbm::{Live, Tables};
use breakwater::bringup::{self, Bringup};
use breakwater::device_tree::HEADER_BYTES;
use breakwater::errata::Errata;
use breakwater::layout::{self, DIRECTMAP, LINK_ADDRESS, POOL_FRAMES};
use breakwater::memory_map::{KnownRam, Limits, MemoryMap};
use breakwater::regions::directmap::Directmap;
use breakwater::regions::image::{INIT, Image, Part};
use breakwater::regions::{Failure, RegionMap, Space, frametable, slots, stacks};
use breakwater_trace::{Feature, MemoryKind, Record};

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
/// Pages of the first tables: boot/tables.S.
pub(crate) const FIRST_TABLES: u64 = 7;

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
}

impl Setup {
    /// A machine with these banks, an image in one of them, and a device tree.
    pub(crate) fn new(banks: &[PhysSpan], image: u64, tree: PhysSpan) -> Self {
        let mut memory = MemoryMap::new();
        banks.iter().for_each(|&bank| memory.add_bank(bank).unwrap());
        memory.device_tree = Some(tree);
        Self { image, pool_frames: POOL_FRAMES as u64, memory, errata: Errata::empty(), cpus: 4 }
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

    /// The machine as boot's assembly leaves it: the first tables in force at `tables`, the image in them as boot/tables.S maps it.
    fn world(&self, tables: PhysSpan) -> World {
        let ram = self.memory.banks.iter().map(|bank| (bank, MemoryKind::Ram));
        let no_map = self.memory.no_map.iter().map(|hole| (hole, MemoryKind::NoMap));
        let memory: Vec<Record> = ram
            .chain(no_map)
            .map(|(span, kind)| start::memory(span.start().raw(), span.end_exclusive().raw(), kind))
            .collect();
        let (image, mut first) = (self.image(), FirstTables::new(tables.start().raw()));
        for part in image.parts {
            for page in (part.virt.start().raw()..part.virt.end_exclusive().raw()).step_by(PAGE as usize) {
                let output = image.physical(VirtAddr::at(page)).raw();
                first.map(page, output | attribute_bits(part.attributes) | 3);
            }
        }
        let identity = image.identity.start().raw();
        first.map(identity, identity | attribute_bits(CODE) | 3);
        assert_eq!(first.frames().count() as u64, FIRST_TABLES);
        let features = start::features_of(self.errata).chain([Feature::StrictSwitch]);
        World::found(features.map(|feature| (None, feature)), &memory, &first)
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
        let link = |index: u64| LINK_ADDRESS + index * PAGE;
        let first_tables = virt(link(DATA_PAGE), FIRST_TABLES * PAGE);
        let pool = virt(first_tables.end_exclusive().raw(), self.pool_frames * PAGE);
        Image { start: PhysAddr::at(self.image), parts, identity, first_tables, pool }
    }
}

/// A machine with its runtime tables in force.
pub(crate) struct Booted {
    pub(crate) bringup: Bringup<World>,
    pub(crate) tables: Tables<World, Live>,
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
        let mut world = setup.world(first_tables);
        let limits = Limits { directmap_bytes: DIRECTMAP.bytes(), phys_bits: 48 };
        let base = setup.memory.check(image, limits).expect("a machine that can boot").start();
        let link_offset = LINK_ADDRESS.wrapping_sub(setup.image);
        let directmap_offset = DIRECTMAP.start().raw() - base.raw();
        world.reachable = Some(Reachable { image, link_offset, directmap_offset });
        world.forbidden = setup.forbidden();
        let mut bringup = Bringup::simulated(world, setup.errata, setup.image());
        let next = bringup.build()?;
        let tables = bringup.switch(next);
        bringup.machine_mut().give(first_tables);
        let mut regions = RegionMap::new();
        bringup.image().declare(&mut regions)?;
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
        booted.bringup.share(setup.errata);
        for index in 1..setup.cpus {
            let stacks = stacks::map(&mut booted.space(), index, stacks::STACK_BYTES)?.stacks();
            for virt in [stacks.stack, stacks.exception_stack] {
                let frames = raw::translate(booted.world(), booted.root(), virt.start().raw()).expect("it is mapped");
                booted.world_mut().take(phys(frames, virt.bytes()));
            }
            booted.settled("stacks");
            booted.world_mut().start_pe(index as u32);
        }
        booted.free()?;
        booted.world_mut().end();
        booted.settled_so_far("end of boot");
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
        directmap.map(&mut self.space(), KnownRam::simulated(&memory, image))?;
        self.settled("directmap");
        frametable::map(&mut self.space(), &memory, base)?;
        self.settled("frametable");
        slots::populate_vmap(&mut self.space(), layout::MAX_CPUS, true)?;
        self.settled("vmap");
        Ok(())
    }

    /// Identity page, init, sealed data.
    pub(crate) fn free(&mut self) -> Result<(), Failure> {
        let (image, directmap) = (*self.bringup.image(), self.directmap);
        self.bringup.drop_identity(&mut self.tables, &mut self.regions)?;
        self.settled("identity page");
        let init_end = image.physical(image.parts[INIT].virt.end_exclusive());
        let rest = PhysSpan::new(init_end, self.image.end_exclusive()).unwrap();
        self.world_mut().reachable.as_mut().unwrap().image = rest;
        self.bringup.free_init(&mut self.tables, &mut self.regions, directmap)?;
        let freed = PhysSpan::new(self.image.start(), init_end).unwrap();
        self.world_mut().give(freed);
        self.settled("init");
        self.bringup.seal(&mut self.tables, &mut self.regions)?;
        self.settled("seal");
        Ok(())
    }

    pub(crate) fn space(&mut self) -> Space<'_, World> {
        self.bringup.space(&mut self.tables, &mut self.regions)
    }

    /// Nothing is owed, nothing was done that may not be.
    pub(crate) fn settled(&mut self, phase: &str) {
        self.world_mut().settle();
        self.settled_so_far(phase);
    }

    /// Nothing was done that may not be.
    pub(crate) fn settled_so_far(&self, phase: &str) {
        self.world().assert_clean(phase);
    }

    pub(crate) fn audit(&self) -> Audit {
        let mut runs = vec![Scratch::EMPTY; self.bringup.audit_runs(&self.regions)];
        bringup::audit(self.tables.root(), self.world(), &self.regions, &self.memory, &mut runs)
    }

    pub(crate) fn root(&self) -> u64 {
        self.tables.root().start().raw()
    }

    pub(crate) fn world(&self) -> &World {
        self.bringup.protocol().machine()
    }

    pub(crate) fn world_mut(&mut self) -> &mut World {
        self.bringup.machine_mut()
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
