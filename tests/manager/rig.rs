//! A manager on the host machine, with everything that each request is held against.

use super::event::Event;
use super::raw;
use super::reference::Reference;
use super::world::World;
use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::bbm::{Counts, Detached, Live, Offline, Protocol, Reach, State, Tables};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::frames::FrameSupply;
use breakwater::mapper::{Cost, Error, Mapper, Request};

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
}

impl Rig<Offline> {
    /// Empty tables that nothing walks, and `frames` more frames.
    pub(crate) fn offline(frames: u64) -> Self {
        Self::offline_with(Errata::empty(), frames)
    }

    pub(crate) fn offline_with(errata: Errata, frames: u64) -> Self {
        let mut protocol = Protocol::new(World::new(errata), errata);
        let mut frames = FrameSupply::new(phys(POOL, (frames + 1) * PAGE));
        let root = frames.take().unwrap();
        let tables = Tables::new(protocol.new_table(root, Level::L0, VirtAddr::at(0)));
        Self { protocol, frames, tables, reference: Reference::default() }
    }

    /// The same tables, in force.
    pub(crate) fn switch(mut self) -> Rig<Live> {
        let (tables, _released) = self.protocol.switch_root(self.tables, Detached::first_tables([None; 8]));
        let mut rig = Rig { protocol: self.protocol, frames: self.frames, tables, reference: self.reference };
        rig.world_mut().judge.end_of_request();
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

    /// From here on other PEs use the tables.
    pub(crate) fn share(&mut self) {
        let errata = self.protocol.errata();
        self.protocol.share(errata);
        self.world_mut().judge.share();
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
        let before = (self.protocol.counts(), self.frames.available(), self.frames.taken(), self.world().log.len());
        let memory = self.world().snapshot();
        let answer = request(&mut Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables));
        let after = (self.protocol.counts(), self.frames.available(), self.frames.taken(), self.world().log.len());
        self.world_mut().judge.end_of_request();
        let cost = answer.inspect_err(|error| {
            assert_eq!(after, before, "a refused request ({error}) changes no counter and no frame");
            assert!(self.world().snapshot() == memory, "a refused request ({error}) leaves memory as it was");
        })?;
        let done = self.done(before.0, cost);
        assert_eq!(before.1 - after.1, cost.frames, "frames");
        assert_eq!(after.2 - before.2, cost.frames, "frames taken");
        self.assert_counted(before.3, done);
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
        let steps = &self.world().log[from..];
        let count = |is: fn(&Event) -> bool| steps.iter().filter(|&event| is(event)).count();
        assert_eq!(count(|event| matches!(event, Event::Store { .. })) as u64, done.stores);
        assert_eq!(count(|event| matches!(event, Event::Zero { .. })) as u64, done.frames);
        assert_eq!(count(|event| event.is_tlbi()), done.tlbis as usize);
        assert_eq!(count(|event| matches!(event, Event::Dsb(_))), done.dsbs as usize);
        assert_eq!(count(|event| *event == Event::Isb), done.isbs as usize);
    }

    /// The judge has no complaint, and memory says what the requests said.
    pub(crate) fn check(&self) {
        assert_eq!(self.world().judge.violations, Vec::<String>::new());
        assert_eq!(raw::extents(self.world(), self.root()), self.reference.merged(), "memory, and what was asked for");
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
