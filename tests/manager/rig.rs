//! A manager on the host machine, with everything that each request is held against.

use super::raw;
use super::reference::Reference;
use super::step::{is_tlbi, stored_word, zeroed_pair};
use super::world::World;
use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::bbm::{Counts, Detached, Live, Offline, Protocol, Reach, State, Tables};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::frames::FrameSupply;
use breakwater::mapper::{Cost, Error, Mapper, Request};
use breakwater_trace::Event;

pub(crate) const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
pub(crate) const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);
pub(crate) const CODE: Attributes = Attributes::Normal(Access::ReadExecute);
pub(crate) const DEVICE: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);
pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
/// Where the pool of table frames begins; nothing else lies near.
pub(crate) const POOL: u64 = 0x20_0000;

pub(crate) fn virt(start: u64, bytes: u64) -> VirtSpan {
    VirtSpan::of(VirtAddr::at(start), bytes).unwrap()
}

pub(crate) fn phys(start: u64, bytes: u64) -> PhysSpan {
    PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
}

pub(crate) fn request(start: u64, bytes: u64, output: u64, attributes: Attributes, largest: Level) -> Request {
    Request { virt: virt(start, bytes), output: PhysAddr::at(output), attributes, largest }
}

/// A request that was granted: what it said it cost, and the maintenance that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    pub(crate) stores: u64,
    pub(crate) frames: u64,
    pub(crate) tlbis: u32,
    pub(crate) dsbs: u32,
    pub(crate) isbs: u32,
}

pub(crate) struct Rig<S> {
    pub(crate) protocol: Protocol<World>,
    pub(crate) frames: FrameSupply,
    pub(crate) tables: Tables<S>,
    pub(crate) reference: Reference,
    /// Whether [`Rig::check`] is left to the caller, who wants a complaint as a value.
    pub(crate) is_quiet: bool,
}

impl Rig<Offline> {
    /// Empty tables that nothing walks, and `frames` more frames.
    pub(crate) fn offline(frames: u64) -> Self {
        Self::offline_with(Errata::empty(), frames)
    }

    pub(crate) fn offline_with(errata: Errata, frames: u64) -> Self {
        Self::offline_on(World::new(errata), errata, frames)
    }

    /// The same on a machine of the caller's, whose boot CPU has `errata`.
    pub(crate) fn offline_on(world: World, errata: Errata, frames: u64) -> Self {
        let mut protocol = Protocol::new(world, errata);
        let mut frames = FrameSupply::new(phys(POOL, (frames + 1) * PAGE));
        let root = frames.take().unwrap();
        let tables = Tables::new(protocol.new_table(root, Level::L0, VirtAddr::at(0)));
        Self { protocol, frames, tables, reference: Reference::default(), is_quiet: false }
    }

    /// The same tables, in force.
    pub(crate) fn switch(self) -> Rig<Live> {
        let Self { mut protocol, frames, tables, reference, is_quiet } = self;
        let (tables, _released) = protocol.switch_root(tables, Detached::first_tables([None; 8]));
        let mut rig = Rig { protocol, frames, tables, reference, is_quiet };
        rig.world_mut().settle();
        rig.check();
        rig
    }
}

impl Rig<Live> {
    /// Empty tables in force, on CPUs without errata.
    pub(crate) fn live(reach: Reach, frames: u64) -> Self {
        Self::live_with(reach, Errata::empty(), frames)
    }

    pub(crate) fn live_with(reach: Reach, errata: Errata, frames: u64) -> Self {
        let mut rig = Rig::offline_with(errata, frames).switch();
        if reach == Reach::Domain {
            rig.share();
        }
        rig
    }

    /// From here on another PE uses the tables.
    pub(crate) fn share(&mut self) {
        self.protocol.share(Errata::empty());
        self.world_mut().start_pe(1);
    }

    pub(crate) fn unmap(&mut self, start: u64, bytes: u64) -> Result<Done, Error> {
        let done = self.ask(|mapper| mapper.unmap(virt(start, bytes)).map(|unmapped| unmapped.cost))?;
        self.reference.unmap(start, bytes);
        self.check();
        Ok(done)
    }

    pub(crate) fn protect(&mut self, start: u64, bytes: u64, attributes: Attributes) -> Result<Done, Error> {
        let done = self.ask(|mapper| mapper.protect(virt(start, bytes), attributes))?;
        self.reference.protect(start, bytes, attributes);
        self.check();
        Ok(done)
    }

    pub(crate) fn remap(&mut self, start: u64, bytes: u64, output: u64, attributes: Attributes) -> Result<Done, Error> {
        let done = self.ask(|mapper| mapper.remap(virt(start, bytes), PhysAddr::at(output), attributes))?;
        self.reference.unmap(start, bytes);
        self.reference.map(start, bytes, output, attributes);
        self.check();
        Ok(done)
    }
}

impl<S: State> Rig<S> {
    pub(crate) fn map(&mut self, request: Request) -> Result<Done, Error> {
        let done = self.ask(|mapper| mapper.map(request))?;
        let Request { virt, output, attributes, .. } = request;
        self.reference.map(virt.start().raw(), virt.bytes(), output.raw(), attributes);
        self.check();
        Ok(done)
    }

    pub(crate) fn populate(&mut self, start: u64, bytes: u64, deepest: Level) -> Result<Done, Error> {
        let done = self.ask(|mapper| mapper.populate(virt(start, bytes), deepest))?;
        self.check();
        Ok(done)
    }

    /// Makes a request. Refused: nothing has changed. Granted: it cost what it says, and what happened is what was counted.
    fn ask(&mut self, request: impl FnOnce(&mut Mapper<'_, World, S>) -> Result<Cost, Error>) -> Result<Done, Error> {
        let before = (self.protocol.counts(), self.frames.available(), self.frames.taken(), self.world().now());
        let answer = request(&mut Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables));
        let after = (self.protocol.counts(), self.frames.available(), self.frames.taken(), self.world().now());
        let cost = answer.inspect_err(|error| {
            // Every store is recorded: where nothing was, memory is as it was.
            assert_eq!(after, before, "a refused request ({error}) changes no counter, no frame and no memory");
        })?;
        let done = self.done(before.0, cost);
        assert_eq!(before.1 - after.1, cost.frames, "frames");
        assert_eq!(after.2 - before.2, cost.frames, "frames taken");
        if self.world().forgets.is_none() {
            self.assert_counted(before.3, done);
        }
        Ok(done)
    }

    fn done(&self, before: Counts, cost: Cost) -> Done {
        let (now, then) = (self.protocol.counts(), before);
        assert_eq!(u64::from(now.stores - then.stores), cost.stores, "the plan's stores are those that happened");
        Done {
            stores: cost.stores,
            frames: cost.frames,
            tlbis: now.maintenance.tlbis - then.maintenance.tlbis,
            dsbs: now.maintenance.dsbs - then.maintenance.dsbs,
            isbs: now.maintenance.isbs - then.maintenance.isbs,
        }
    }

    /// The log since `from` has exactly what `done` says.
    fn assert_counted(&self, from: usize, done: Done) {
        let count = |is: fn(&Event) -> bool| self.world().events_since(from).filter(|&event| is(event)).count();
        assert_eq!(count(|event| stored_word(event).is_some()) as u64, done.stores);
        assert_eq!(count(|event| zeroed_pair(event).is_some()) as u64, 256 * done.frames);
        assert_eq!(count(is_tlbi), done.tlbis as usize);
        assert_eq!(count(|event| matches!(event, Event::Dsb(_))), done.dsbs as usize);
        assert_eq!(count(|event| *event == Event::Isb), done.isbs as usize);
    }

    /// The model has no complaint, and memory says what the requests said.
    pub(crate) fn check(&self) {
        if !self.is_quiet {
            self.verdict().unwrap_or_else(|complaint| panic!("{complaint}"));
        }
    }

    /// The same as a value: what is wrong, and the recording as a trace.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.world().verdict()?;
        let (memory, asked) = (raw::extents(self.world(), self.root()), self.reference.merged());
        if memory == asked {
            return Ok(());
        }
        Err(format!("memory is not what was asked for:\n{memory:x?}\n{asked:x?}\n{}", self.world().trace()))
    }

    pub(crate) fn root(&self) -> u64 {
        self.tables.root().start().raw()
    }

    pub(crate) fn world(&self) -> &World {
        self.protocol.machine()
    }

    pub(crate) fn world_mut(&mut self) -> &mut World {
        self.protocol.machine_mut()
    }

    /// What the manager says of an address.
    pub(crate) fn query(&mut self, at: u64) -> Option<(Level, u64, Attributes)> {
        let mapper = Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables);
        mapper.query(VirtAddr::at(at)).map(|(level, leaf)| (level, leaf.output().raw(), leaf.attributes()))
    }

    /// Leaves in memory, by level: 1 GiB blocks, 2 MiB blocks, pages.
    pub(crate) fn leaves(&self) -> (usize, usize, usize) {
        let leaves = raw::leaves(self.world(), self.root());
        let of = |level| leaves.iter().filter(|leaf| leaf.level == level).count();
        (of(1), of(2), of(3))
    }
}

/// The frame at a physical address.
pub(crate) fn frame(start: u64) -> Frame {
    Frame::new(PhysAddr::at(start)).unwrap()
}
