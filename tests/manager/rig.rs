//! A manager on the host machine, with everything that each request is held against.

use super::raw;
use super::reference::Reference;
use super::step::{is_tlbi, stored_word, zeroed_pair};
use super::world::World;
use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::bbm::{Detached, Live, Offline, Protocol, Reach, State, Tables};
use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::geometry::Slot;
use breakwater::geometry::{Geometry, Granule4K};
use breakwater::mapper::{ChangePlan, Cost, Error, FillPlan, Mapper, Request};
use breakwater_trace::Event;
use std::process::Command;

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
    Request::new(virt(start, bytes), PhysAddr::at(output), attributes, largest)
}

/// What a request said it would cost and did cost, and the answer to one that was refused.
pub(crate) type Answer = Result<Cost, Error>;

pub(crate) struct Rig<S, G: Geometry = Granule4K> {
    pub(crate) protocol: Protocol<World<G>>,
    pub(crate) frames: FrameSupply<World<G>>,
    pub(crate) tables: Tables<World<G>, S>,
    pub(crate) reference: Reference,
    /// Whether [`Rig::check`] is left to the caller, who wants a complaint as a value.
    pub(crate) is_quiet: bool,
    /// Whether the last request was made at once, rather than as a plan.
    is_at_once: bool,
}

impl Rig<Offline> {
    /// Empty tables that nothing walks, and `frames` more frames.
    pub(crate) fn offline(frames: u64) -> Self {
        Self::offline_with(Errata::empty(), frames)
    }

    pub(crate) fn offline_with(errata: Errata, frames: u64) -> Self {
        Self::offline_on(World::new(errata), errata, frames)
    }
}

impl<G: Geometry> Rig<Offline, G> {
    /// The same on a machine of the caller's, whose boot CPU has `errata`.
    pub(crate) fn offline_on(world: World<G>, errata: Errata, frames: u64) -> Self {
        let mut protocol = Protocol::simulated(world, errata);
        let pool = phys(POOL, (frames + 1) * G::PAGE_BYTES);
        let mut frames = FrameSupply::new(OwnedRam::simulated(pool));
        let root = frames.take().unwrap();
        let tables = protocol.new_root(root);
        Self { protocol, frames, tables, reference: Reference::default(), is_quiet: false, is_at_once: false }
    }

    /// The same tables, in force.
    pub(crate) fn switch(self) -> Rig<Live, G> {
        let Self { mut protocol, frames, tables, reference, is_quiet, is_at_once } = self;
        let (tables, _released) = protocol.switch_root(tables, Detached::none());
        let mut rig = Rig { protocol, frames, tables, reference, is_quiet, is_at_once };
        rig.world_mut().settle();
        rig.check();
        rig
    }
}

impl Rig<Live> {
    /// Empty tables in force, on CPUs without errata and without any feature.
    pub(crate) fn live(reach: Reach, frames: u64) -> Self {
        Self::live_with(reach, Errata::empty(), frames)
    }

    pub(crate) fn live_with(reach: Reach, errata: Errata, frames: u64) -> Self {
        Self::live_on(reach, errata, Features::empty(), frames)
    }
}

impl<G: Geometry> Rig<Live, G> {
    /// Empty tables in force, on CPUs that all have these errata and features.
    pub(crate) fn live_on(reach: Reach, errata: Errata, features: Features, frames: u64) -> Self {
        let said = super::start::features_of(errata).chain(super::start::features_in(features));
        let world = World::with_features(said.map(|feature| (None, feature)));
        let mut rig = Rig::offline_on(world, errata, frames).switch();
        rig.protocol.use_features(features);
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

    pub(crate) fn unmap(&mut self, start: u64, bytes: u64) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_unmap(span).map(|plan| changed(plan, commits)),
            |mapper| mapper.unmap(span).map(|unmapped| unmapped.cost),
        )?;
        self.reference.unmap(start, bytes);
        self.check();
        Ok(done)
    }

    pub(crate) fn clear(&mut self, start: u64, bytes: u64) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_clear(span).map(|plan| changed(plan, commits)),
            |mapper| mapper.clear(span).map(|unmapped| unmapped.cost),
        )?;
        self.reference.unmap(start, bytes);
        self.check();
        Ok(done)
    }

    pub(crate) fn protect(&mut self, start: u64, bytes: u64, attributes: Attributes) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_protect(span, attributes).map(|plan| changed(plan, commits)),
            |mapper| mapper.protect(span, attributes),
        )?;
        self.reference.protect(start, bytes, attributes);
        self.check();
        Ok(done)
    }

    pub(crate) fn remap(&mut self, start: u64, bytes: u64, output: u64, attributes: Attributes) -> Answer {
        let (span, to) = (virt(start, bytes), PhysAddr::at(output));
        let done = self.ask(
            |mapper, commits| mapper.plan_remap(span, to, attributes).map(|plan| changed(plan, commits)),
            |mapper| mapper.remap(span, to, attributes),
        )?;
        self.reference.unmap(start, bytes);
        self.reference.map(start, bytes, output, attributes);
        self.check();
        Ok(done)
    }

    pub(crate) fn split(&mut self, start: u64, bytes: u64, largest: Level) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_split(span, largest).map(|plan| changed(plan, commits)),
            |mapper| mapper.split(span, largest),
        )?;
        self.check();
        Ok(done)
    }

    pub(crate) fn merge(&mut self, start: u64, bytes: u64, largest: Level, contiguous: bool) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_merge(span, largest, contiguous).map(|plan| changed(plan, commits)),
            |mapper| mapper.merge(span, largest, contiguous),
        )?;
        self.check();
        Ok(done)
    }
}

/// What a plan says; it is committed, if it is to be, and must say the same afterwards.
fn changed<G: Geometry>(plan: ChangePlan<'_, '_, World<G>>, commits: bool) -> Cost {
    let cost = plan.cost();
    if commits {
        assert_eq!(plan.commit().cost, cost, "what the plan says is what the commit says");
    }
    cost
}

/// The same of a fill.
fn filled<G: Geometry, S: State>(plan: FillPlan<'_, '_, World<G>, S>, commits: bool) -> Cost {
    let cost = plan.cost();
    if commits {
        assert_eq!(plan.commit(), cost, "what the plan says is what the commit says");
    }
    cost
}

impl<S: State, G: Geometry> Rig<S, G> {
    pub(crate) fn map(&mut self, request: Request) -> Answer {
        let done = self.ask(
            |mapper, commits| mapper.plan_map(request).map(|plan| filled(plan, commits)),
            |mapper| mapper.map(request),
        )?;
        let Request { virt, output, attributes, .. } = request;
        self.reference.map(virt.start().raw(), virt.bytes(), output.raw(), attributes);
        self.check();
        Ok(done)
    }

    pub(crate) fn populate(&mut self, start: u64, bytes: u64, deepest: Level) -> Answer {
        let span = virt(start, bytes);
        let done = self.ask(
            |mapper, commits| mapper.plan_populate(span, deepest).map(|plan| filled(plan, commits)),
            |mapper| mapper.populate(span, deepest),
        )?;
        self.check();
        Ok(done)
    }

    /// Makes a request, by turns as a plan that is committed and at once, which may take a shorter way: a plan that is dropped says what that
    /// will cost. Refused: nothing has changed. Granted: it cost what its plan said, to the last barrier.
    fn ask(
        &mut self,
        plan: impl Fn(&mut Mapper<'_, World<G>, S>, bool) -> Answer,
        at_once: impl Fn(&mut Mapper<'_, World<G>, S>) -> Answer,
    ) -> Answer {
        let before = self.standing();
        let memory = self.world().snapshot();
        self.is_at_once = !self.is_at_once;
        let is_at_once = self.is_at_once;
        let mut mapper = self.mapper();
        let answer = plan(&mut mapper, !is_at_once);
        if is_at_once {
            assert_eq!(at_once(&mut mapper), answer, "a plan and the request at once give the same answer");
        }
        let done = answer.inspect_err(|error| {
            assert_eq!(self.standing(), before, "a refused request ({error}) changes no counter and no frame");
            assert!(self.world().snapshot() == memory, "a refused request ({error}) leaves memory as it was");
        })?;
        self.assert_cost(before, done);
        Ok(done)
    }

    /// What a request that is refused may not change: stores, TLBIs, DSBs, ISBs, frames left and taken, and the length of the recording.
    fn standing(&self) -> Standing {
        let counts = self.protocol.counts();
        let done = counts.maintenance;
        let cost = Cost {
            stores: counts.stores.into(),
            tlbis: done.tlbis,
            dsbs: done.dsbs,
            isbs: done.isbs,
            ..Cost::default()
        };
        Standing { cost, free: self.frames.available(), taken: self.frames.taken(), now: self.world().now() }
    }

    /// What happened since `before` is what `said` says: by the protocol's counters, by the frame supply, and by the recording.
    fn assert_cost(&self, before: Standing, said: Cost) {
        let (then, now) = (before.cost, self.standing().cost);
        let counted = Cost {
            stores: now.stores - then.stores,
            tlbis: now.tlbis - then.tlbis,
            dsbs: now.dsbs - then.dsbs,
            isbs: now.isbs - then.isbs,
            ..said
        };
        assert_eq!(said, counted, "what the plan says (left) is what was counted");
        assert_eq!(before.free + said.freed, self.frames.available() + said.frames, "frames taken and freed");
        if self.world().forgets.is_some() {
            return;
        }
        let (mut recorded, mut zeroed, mut given) = (Cost::default(), 0, None);
        for event in self.world().events_since(before.now) {
            match event {
                // A free table's first word is the link of a list, and no descriptor.
                store if stored_word(store).is_some_and(|(pa, _)| Some(pa) == given) => {}
                store if stored_word(store).is_some() => recorded.stores += 1,
                pair if zeroed_pair(pair).is_some() => zeroed += 1,
                tlbi if is_tlbi(tlbi) => recorded.tlbis += 1,
                Event::Dsb(_) => recorded.dsbs += 1,
                Event::Isb => recorded.isbs += 1,
                Event::Give { .. } => recorded.freed += 1,
                _ => {}
            }
            given = if let Event::Give { pa, .. } = event { Some(*pa) } else { None };
        }
        recorded.frames = zeroed / (G::PAGE_BYTES / 16);
        assert_eq!(said, recorded, "what the plan says (left) is what was recorded");
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

    pub(crate) fn world(&self) -> &World<G> {
        self.protocol.machine()
    }

    pub(crate) fn world_mut(&mut self) -> &mut World<G> {
        self.protocol.machine_mut()
    }

    /// The manager itself, for what the rig does not ask.
    pub(crate) fn mapper(&mut self) -> Mapper<'_, World<G>, S> {
        Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables)
    }

    /// The slot of `level` that the walk for `at` goes through, or would.
    pub(crate) fn slot(&self, at: u64, level: Level) -> Slot {
        let (virt, mut table) = (VirtAddr::at(at), self.tables.root());
        let mut above = G::ROOT;
        while above < level {
            table = self.protocol.child(G::slot(table, above, virt)).expect("a walk that goes on");
            above = above.next().expect("a level below");
        }
        G::slot(table, level, virt)
    }

    /// What the manager says of an address.
    pub(crate) fn query(&mut self, at: u64) -> Option<(Level, u64, Attributes)> {
        self.mapper().query(VirtAddr::at(at)).map(|(level, leaf)| (level, leaf.output().raw(), leaf.attributes()))
    }

    /// Leaves in memory, by level: 1 GiB blocks, 2 MiB blocks, pages.
    pub(crate) fn leaves(&self) -> (usize, usize, usize) {
        let leaves = raw::leaves(self.world(), self.root());
        let of = |level| leaves.iter().filter(|leaf| leaf.level == level).count();
        (of(1), of(2), of(3))
    }
}

/// Where a request finds things, and leaves them when it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standing {
    cost: Cost,
    free: u64,
    taken: u64,
    now: usize,
}

/// The frame at a physical address.
pub(crate) fn frame(start: u64) -> Frame {
    Frame::new(PhysAddr::at(start)).unwrap()
}

/// Runs `doomed` in a process of its own, which must die saying `promise`: there a debt is dropped while another panic unwinds, and two
/// panics end a process. `module` and `name` are the calling test's.
pub(super) fn dies_saying(module: &str, name: &str, promise: &str, doomed: impl FnOnce()) {
    const CHILD: &str = "BREAKWATER_DOOMED_TEST";
    if std::env::var_os(CHILD).is_some() {
        return doomed();
    }
    let full_name = format!("{}::{name}", module.split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &full_name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(promise), "{said}");
}
