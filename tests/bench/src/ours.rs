//! The manager of this repository, unchanged, on a machine that is host memory.

use crate::arena::{self, Arena, FRAME, FRAMES};
use crate::candidate::{Candidate, Refused};
use crate::request::{Leaf, Step, Verb};
use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::bbm::{Detached, Live, Permit, Protocol, Tables};
use breakwater::descriptor::{Access, Attributes};
use breakwater::errata::Errata;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::geometry::{Granule4K, Slot};
use breakwater::machine::{Machine, Maintenance, Scope, Tlbi};
use breakwater::mapper::{Error, Mapper, Request};

const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
const CONSTANTS: Attributes = Attributes::Normal(Access::ReadOnly);

/// Host memory as a machine: it counts what it is told, and judges nothing.
#[derive(Debug)]
struct Host;

impl Machine for Host {
    type Geometry = Granule4K;

    #[inline(always)]
    fn load(&self, slot: Slot) -> u64 {
        arena::load(slot.address().raw())
    }

    #[inline(always)]
    fn alike(&self, first: Slot, count: u64, mask: u64, bits: u64) -> u64 {
        let start = first.address().raw();
        (0..count).find(|index| arena::load(start + 8 * index) & mask != bits).unwrap_or(count)
    }

    #[inline(always)]
    fn first_used(&self, first: Slot, count: u64) -> Option<u64> {
        let start = first.address().raw();
        (0..count).find(|index| arena::load(start + 8 * index) != 0)
    }

    #[inline(always)]
    fn store(&mut self, _permit: &Permit, slot: Slot, descriptor: u64) {
        arena::store(slot.address().raw(), descriptor);
    }

    #[inline(always)]
    fn store_run(&mut self, _permit: &Permit, first: Slot, count: u64, descriptor: u64, step: u64) {
        arena::store_run(first.address().raw(), count, descriptor, step);
    }

    #[inline(always)]
    fn zero_frame(&mut self, _permit: &Permit, frame: Frame) {
        arena::zero(frame.start().raw());
    }

    #[inline(always)]
    fn dsb_ishst(&mut self) {
        arena::dsb();
    }

    #[inline(always)]
    fn dsb_ish(&mut self) {
        arena::dsb();
    }

    #[inline(always)]
    fn dsb_nsh(&mut self) {
        arena::dsb();
    }

    #[inline(always)]
    fn isb(&mut self) {
        arena::isb();
    }

    #[inline(always)]
    fn tlbi(&mut self, _permit: &Permit, operation: Tlbi) {
        arena::tlbi(match operation.scope {
            Scope::All => 0,
            Scope::Leaf(operand) | Scope::Walk(operand) => operand.raw(),
            Scope::LeafRange(operand) | Scope::WalkRange(operand) => operand.raw(),
        });
    }

    fn switch_root(&mut self, _permit: &Permit, _root: Frame) -> Maintenance {
        Maintenance::default()
    }
}

/// Our manager on tables in force that several CPUs use: everything is validated, and every invalidation is broadcast.
#[derive(Debug)]
pub struct Ours {
    protocol: Protocol<Host>,
    frames: FrameSupply<Host>,
    tables: Tables<Host, Live>,
}

impl Candidate for Ours {
    const NAME: &'static str = "breakwater";
    const NOTE: &'static str =
        "live tables: all of the request is validated before any of it is done; DSB before and after the TLBIs, ISB";

    fn new(arena: &Arena) -> Self {
        let pool =
            PhysSpan::of(PhysAddr::at(arena.base()), FRAMES * FRAME).expect("host addresses have less than 48 bits");
        // SAFETY: an arena's memory is for the tables of one candidate alone, which goes before the arena does.
        let pool = unsafe { OwnedRam::claim(pool) };
        // SAFETY: nothing stands on these tables, and no other protocol's tokens are here.
        let (mut protocol, mut frames) = (unsafe { Protocol::new(Host, Errata::empty()) }, FrameSupply::new(pool));
        let root = frames.take().expect("a fresh arena has frames");
        let tables = Tables::new(protocol.new_table(root, Level::L0, VirtAddr::at(0)));
        let (tables, _released) = protocol.switch_root(tables, Detached::none());
        protocol.share(Errata::empty());
        Self { protocol, frames, tables }
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), Refused> {
        let virt = span(step);
        let mut mapper = Mapper::new(&mut self.protocol, &mut self.frames, &mut self.tables);
        let done = match step.verb {
            Verb::Map => mapper.map(request(step, virt)).map(drop),
            Verb::Unmap => mapper.unmap(virt).map(drop),
            Verb::Protect => mapper.protect(virt, CONSTANTS).map(drop),
            Verb::Remap => mapper.remap(virt, PhysAddr::at(step.output), DATA).map(drop),
        };
        done.map_err(refused)
    }

    fn root(&self) -> Option<u64> {
        Some(self.tables.root().start().raw())
    }
}

fn span(step: &Step) -> VirtSpan {
    VirtSpan::of(VirtAddr::at(step.virt), step.bytes).expect("a request within 48 bits")
}

fn request(step: &Step, virt: VirtSpan) -> Request {
    let largest = match step.leaf {
        Leaf::Page => Level::L3,
        Leaf::Block => Level::L2,
        Leaf::Large => Level::L1,
    };
    Request::new(virt, PhysAddr::at(step.output), DATA, largest)
}

#[cold]
fn refused(error: Error) -> Refused {
    Refused(error.to_string())
}
