//! A manager on a [`Judged`] machine, and requests as values, each of which is held against what it may do.

use super::judged::{Counted, Judged};
use super::picture::{Pages, Picture, kind};
use breakwater::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::bbm::{Counts, Detached, Live, Offline, Protocol, State, Tables};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::frames::{FrameSupply, OwnedRam, Supply};
use breakwater::geometry::Geometry;
use breakwater::mapper::{Cost, Error, Mapper, Request};

pub(crate) const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
pub(crate) const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);
pub(crate) const CODE: Attributes = Attributes::Normal(Access::ReadExecute);
pub(crate) const GUARDED: Attributes = Attributes::Normal(Access::ReadExecuteGuarded);
pub(crate) const NON_CACHEABLE: Attributes = Attributes::NonCacheable(DataAccess::ReadWrite);
pub(crate) const TAGGED: Attributes = Attributes::Tagged(DataAccess::ReadWrite);
pub(crate) const DEVICE: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);
/// Where the pool of frames begins.
pub(crate) const POOL: u64 = 0x1000_0000;

pub(crate) fn virt(start: u64, bytes: u64) -> VirtSpan {
    VirtSpan::of(VirtAddr::at(start), bytes).expect("a span")
}

/// On what CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cpus {
    pub(crate) features: Features,
    pub(crate) errata: Errata,
    /// Whether a second uses the tables.
    pub(crate) two: bool,
}

impl Cpus {
    /// One, which can do nothing and gets nothing wrong.
    pub(crate) const PLAIN: Self = Self { features: Features::empty(), errata: Errata::empty(), two: false };
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Map(Request),
    Populate(VirtSpan, Level),
    Unmap(VirtSpan),
    Clear(VirtSpan),
    Protect(VirtSpan, Attributes),
    Remap(VirtSpan, u64, Attributes),
    Split(VirtSpan, Level),
    Merge(VirtSpan, Level, bool),
}

impl Ask {
    pub(crate) fn span(&self) -> VirtSpan {
        match *self {
            Self::Map(Request { virt, .. }) | Self::Populate(virt, _) | Self::Unmap(virt) | Self::Clear(virt) => virt,
            Self::Protect(virt, _) | Self::Remap(virt, ..) | Self::Split(virt, _) | Self::Merge(virt, ..) => virt,
        }
    }

    /// What `pages` are when it is granted.
    pub(crate) fn applied<G: Geometry>(&self, mut pages: Pages) -> Pages {
        let (start, bytes) = (self.span().start().raw(), self.span().bytes());
        match *self {
            Self::Map(request) => pages.map(start, bytes, request.output.raw(), kind::<G>(request.attributes)),
            Self::Remap(_, output, attributes) => pages.map(start, bytes, output, kind::<G>(attributes)),
            Self::Unmap(_) | Self::Clear(_) => pages.unmap(start, bytes),
            Self::Protect(_, attributes) => pages.protect(start, bytes, kind::<G>(attributes)),
            Self::Populate(..) | Self::Split(..) | Self::Merge(..) => {}
        }
        pages.merged()
    }

    /// The same without a plan in between.
    fn at_once<G: Geometry>(self, mapper: &mut Mapper<'_, Judged<G>, Live>) -> Result<Cost, Error> {
        match self {
            Self::Map(request) => mapper.map(request),
            Self::Populate(virt, deepest) => mapper.populate(virt, deepest),
            Self::Unmap(virt) => mapper.unmap(virt).map(|unmapped| unmapped.cost),
            Self::Clear(virt) => mapper.clear(virt).map(|unmapped| unmapped.cost),
            Self::Protect(virt, attributes) => mapper.protect(virt, attributes),
            Self::Remap(virt, output, attributes) => mapper.remap(virt, PhysAddr::at(output), attributes),
            Self::Split(virt, largest) => mapper.split(virt, largest),
            Self::Merge(virt, largest, contiguous) => mapper.merge(virt, largest, contiguous),
        }
    }

    /// Asks a mapper of tables in force: what the plan says it costs, once it is committed.
    pub(crate) fn planned<G: Geometry, F: Supply<Judged<G>>>(
        self,
        mapper: &mut Mapper<'_, Judged<G>, Live, F>,
    ) -> Result<Cost, Error> {
        match self {
            Self::Map(request) => {
                let plan = mapper.plan_map(request)?;
                let planned = plan.cost();
                assert_eq!(plan.commit(), planned);
                return Ok(planned);
            }
            Self::Populate(virt, deepest) => return mapper.plan_populate(virt, deepest).map(|plan| plan.commit()),
            _ => {}
        }
        let plan = match self {
            Self::Protect(virt, attributes) => mapper.plan_protect(virt, attributes)?,
            Self::Remap(virt, output, attributes) => mapper.plan_remap(virt, PhysAddr::at(output), attributes)?,
            Self::Split(virt, largest) => mapper.plan_split(virt, largest)?,
            Self::Merge(virt, largest, contiguous) => mapper.plan_merge(virt, largest, contiguous)?,
            Self::Clear(virt) => mapper.plan_clear(virt)?,
            Self::Map(_) | Self::Populate(..) | Self::Unmap(_) => mapper.plan_unmap(self.span())?,
        };
        let planned = plan.cost();
        assert_eq!(plan.commit().cost, planned);
        Ok(planned)
    }
}

/// A manager and its machine.
pub(crate) struct Bench<G, S> {
    pub(crate) protocol: Protocol<Judged<G>>,
    pub(crate) frames: FrameSupply<Judged<G>>,
    pub(crate) tables: Tables<Judged<G>, S>,
}

impl<G: Geometry> Bench<G, Offline> {
    /// Empty tables that nothing walks yet, and `frames` more frames.
    pub(crate) fn offline(machine: Judged<G>, cpus: Cpus, frames: u64) -> Self {
        let mut protocol = Protocol::simulated(machine, cpus.errata);
        protocol.use_features(cpus.features);
        let pool = PhysSpan::of(PhysAddr::at(POOL), (frames + 1) * G::PAGE_BYTES).expect("a span");
        let mut frames = FrameSupply::new(OwnedRam::simulated(pool));
        let tables = protocol.new_root(frames.take().expect("a frame"));
        Self { protocol, frames, tables }
    }

    /// The same tables, in force.
    pub(crate) fn switch(self, cpus: Cpus) -> Bench<G, Live> {
        let Self { mut protocol, frames, tables } = self;
        let (tables, _) = protocol.switch_root(tables, Detached::none());
        if cpus.two {
            protocol.share(cpus.errata);
            protocol.machine_mut().start_second(tables.root().start().raw());
        }
        Bench { protocol, frames, tables }
    }
}

impl<G: Geometry, S: State> Bench<G, S> {
    pub(crate) fn mapper(&mut self) -> Mapper<'_, Judged<G>, S> {
        Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables)
    }

    pub(crate) fn root(&self) -> u64 {
        self.tables.root().start().raw()
    }

    pub(crate) fn machine(&self) -> &Judged<G> {
        self.protocol.machine()
    }

    pub(crate) fn picture(&self) -> Picture {
        Picture::of(self.machine(), self.root())
    }

    fn state(&self) -> Standing {
        let (counts, counted) = (self.protocol.counts(), self.machine().counted);
        Standing { counts, counted, available: self.frames.available(), taken: self.frames.taken() }
    }
}

/// What a refused request leaves as it was, memory aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standing {
    counts: Counts,
    counted: Counted,
    available: u64,
    taken: u64,
}

impl<G: Geometry> Bench<G, Live> {
    /// Live tables that mapped these before they came into force, and `frames` frames for them and for what follows.
    pub(crate) fn live(cpus: Cpus, frames: u64, furniture: &[Request]) -> Self {
        let mut bench = Bench::offline(Judged::new(cpus.features, cpus.errata), cpus, frames);
        for &request in furniture {
            bench.mapper().map(request).expect("furniture");
        }
        bench.switch(cpus)
    }

    /// Makes a request by its plan. Granted: the plan said exactly what it cost, and nothing was done that the architecture forbids. Refused: nothing
    /// was done at all.
    pub(crate) fn ask(&mut self, ask: Ask) -> Result<Result<Cost, Error>, String> {
        self.hold(|mapper| ask.planned(mapper))
    }

    /// The same without looking at the plan, for which there are shorter ways.
    pub(crate) fn ask_at_once(&mut self, ask: Ask) -> Result<Result<Cost, Error>, String> {
        self.hold(|mapper| ask.at_once(mapper))
    }

    fn hold(
        &mut self,
        ask: impl FnOnce(&mut Mapper<'_, Judged<G>, Live>) -> Result<Cost, Error>,
    ) -> Result<Result<Cost, Error>, String> {
        let before = self.state();
        self.protocol.machine_mut().forget();
        let answer = ask(&mut self.mapper());
        let after = self.state();
        match answer {
            Err(error) if after != before => Err(format!("refused ({error}), yet {before:?}\nbecame {after:?}")),
            Err(_) => Ok(answer),
            Ok(cost) => {
                let done = after.since(&before);
                if done != [cost, cost] {
                    return Err(format!("the plan said {cost:?}; counted and seen: {done:?}"));
                }
                if before.available + cost.freed != after.available + cost.frames {
                    return Err(format!("{cost:?}, yet {} frames became {}", before.available, after.available));
                }
                self.machine().verdict().map(|()| answer)
            }
        }
    }

    /// The same where it must be granted.
    pub(crate) fn granted(&mut self, ask: Ask) -> Cost {
        let answer = self.ask(ask).unwrap_or_else(|complaint| panic!("{ask:x?}: {complaint}"));
        answer.unwrap_or_else(|error| panic!("{ask:x?}: {error}"))
    }

    /// The same where it must be refused.
    pub(crate) fn refused(&mut self, ask: Ask) -> Error {
        let memory = self.machine().memory().clone();
        let answer = self.ask(ask).unwrap_or_else(|complaint| panic!("{ask:x?}: {complaint}"));
        assert!(*self.machine().memory() == memory, "a refusal leaves memory as it was");
        answer.expect_err("this is refused")
    }
}

impl Standing {
    /// What happened since `before`: as the protocol counts it, and as the machine saw it.
    fn since(&self, before: &Self) -> [Cost; 2] {
        let (now, then) = (self.counts.maintenance, before.counts.maintenance);
        let (saw, had) = (&self.counted, &before.counted);
        let (frames, freed) = (saw.zeroed - had.zeroed, saw.released - had.released);
        let counted = Cost {
            stores: u64::from(self.counts.stores - before.counts.stores),
            frames,
            freed,
            tlbis: now.tlbis - then.tlbis,
            dsbs: now.dsbs - then.dsbs,
            isbs: now.isbs - then.isbs,
        };
        let (stores, tlbis) = (saw.stores - had.stores, saw.tlbis - had.tlbis);
        let seen = Cost { stores, frames, freed, tlbis, dsbs: saw.dsbs - had.dsbs, isbs: saw.isbs - had.isbs };
        [counted, seen]
    }
}
