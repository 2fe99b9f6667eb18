//! What the claims about mappings on demand share: a booted machine, and what must not have changed when a request was refused.

use super::booted::{Booted, Setup};
use super::raw;
use super::rig::{GIB, MIB, PAGE, phys};
use super::world::World;
use breakwater::addr::{Frame, PhysAddr};
use breakwater::audit::Declared;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::layout;
use breakwater::regions::window::CpuSlots;
use breakwater::regions::{OnDemand, Space};

/// A device that boot does not know.
pub(crate) const RTC: u64 = 0x0901_0000;

/// RAM from 1 GiB on, and `no-map` memory at its end; boot is over.
pub(crate) fn booted() -> Booted {
    let mut setup = Setup::new(&[phys(GIB, GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    setup.memory.add_no_map(NO_MAP).unwrap();
    setup.cpus = 2;
    let mut booted = Booted::switched(&setup).unwrap();
    booted.map_fixed().unwrap();
    booted.map_memory().unwrap();
    booted.bringup.share(setup.errata);
    booted.world_mut().start_pe(1);
    booted.free().unwrap();
    booted
}

/// Memory that nobody may map as Normal.
pub(crate) const NO_MAP: breakwater::addr::PhysSpan =
    match breakwater::addr::PhysSpan::of(PhysAddr::at(2 * GIB - MIB), MIB) {
        Some(span) => span,
        None => panic!("it lies below 2^48"),
    };

/// A machine and what is mapped on demand on it.
pub(crate) struct Demand {
    pub(crate) booted: Booted,
    pub(crate) on_demand: OnDemand,
}

/// Everything that a refusal leaves as it was.
#[derive(PartialEq, Debug)]
struct State {
    steps: usize,
    frames: (u64, u64),
    declared: Vec<Declared>,
    on_demand: String,
}

impl Demand {
    pub(crate) fn new() -> Self {
        let mut on_demand = OnDemand::new();
        on_demand.window.give(vec![CpuSlots::EMPTY; layout::MAX_CPUS - 1].leak());
        Self { booted: booted(), on_demand }
    }

    /// A request that is granted; the model has no complaint.
    pub(crate) fn granted<T, E: std::fmt::Display>(
        &mut self,
        request: impl FnOnce(&mut OnDemand, &mut Space<'_, World>) -> Result<T, E>,
    ) -> T {
        let answer = request(&mut self.on_demand, &mut self.booted.space());
        self.booted.settled("request");
        answer.unwrap_or_else(|error| panic!("refused: {error}"))
    }

    /// A request that is refused: no store, no frame taken, no declaration and no book is other than before.
    pub(crate) fn refused<T: std::fmt::Debug, E>(
        &mut self,
        request: impl FnOnce(&mut OnDemand, &mut Space<'_, World>) -> Result<T, E>,
    ) -> E {
        let before = self.state();
        let answer = request(&mut self.on_demand, &mut self.booted.space());
        assert_eq!(self.state(), before, "a refusal changes nothing");
        self.booted.settled("refusal");
        answer.expect_err("it is refused")
    }

    fn state(&self) -> State {
        let frames = self.booted.bringup.frames();
        State {
            // Every store is a record: where none was added, memory is as it was.
            steps: self.booted.world().now(),
            frames: (frames.available(), frames.taken()),
            declared: self.booted.regions.as_slice().to_vec(),
            on_demand: format!("{:?}", self.on_demand),
        }
    }

    /// The audit finds what is declared, and nothing else.
    pub(crate) fn assert_audit(&self) {
        let audit = self.booted.audit();
        assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
    }

    /// Where the hardware would find `virt`.
    pub(crate) fn translate(&self, virt: u64) -> Option<u64> {
        raw::translate(self.booted.world(), self.booted.root(), virt)
    }

    /// Leaves in vmap below the stacks.
    pub(crate) fn leaves(&self) -> Vec<raw::Leaf> {
        let span = layout::VMAP.start().raw()..layout::STACKS.start().raw();
        let all = raw::leaves(self.booted.world(), self.booted.root());
        all.into_iter().filter(|leaf| span.contains(&leaf.virt)).collect()
    }

    /// A free frame of RAM, taken for good.
    pub(crate) fn take(&mut self) -> Frame {
        Frame::containing(self.borrow().span().start())
    }

    /// A free frame of RAM, to be given back.
    pub(crate) fn borrow(&mut self) -> OwnedRam<World> {
        let piece = self.booted.bringup.frames_mut().take_ram(PAGE, PAGE).unwrap();
        self.booted.world_mut().take(piece.span());
        piece
    }

    /// Frames of RAM of which no two follow each other, ascending.
    pub(crate) fn scattered(&mut self, count: usize) -> Vec<Frame> {
        let all: Vec<Frame> = (0..2 * count).map(|_| self.take()).collect();
        all.into_iter().step_by(2).collect()
    }

    /// Leaves the supply with `count` frames, which lie in RAM.
    pub(crate) fn leave_frames(&mut self, count: u64) {
        let piece = self.booted.bringup.frames_mut().take_ram(64 * PAGE, PAGE).unwrap();
        let (few, _rest) = piece.split_at(count * PAGE).unwrap();
        *self.booted.bringup.frames_mut() = FrameSupply::new(few);
    }
}
