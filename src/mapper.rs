//! Mapping requests: plan, then commit.
//!
//! Why it exists: a request that fails half-way leaves tables that nobody described. Here the plan reads everything that the request
//! touches, refuses with evidence, makes sure of every frame and says exactly what it will cost; the commit then cannot fail. A refused
//! request leaves tables, frames and counters as they were.
//!
//! | request | plan and commit in one | by |
//! |---|---|---|
//! | map what is not | [`Mapper::map`] | fills |
//! | make tables, to be kept | [`Mapper::populate`] | fills |
//! | unmap | [`Mapper::unmap`] | breaks; emptied tables are freed |
//! | unmap what is mapped, if anything | [`Mapper::clear`] | the same |
//! | other rights or memory type | [`Mapper::protect`] | in place where that is allowed, else break and make |
//! | other output address | [`Mapper::remap`] | break and make |
//! | smaller leaves | [`Mapper::split`] | break and make, or in place with evidence |
//! | larger leaves | [`Mapper::merge`] | the same |
//! | write what is executed elsewhere | [`Mapper::open_alias`], [`Mapper::close_alias`] | nothing: maps then do |
//! | look | [`Mapper::query`], [`Mapper::walk`], [`Mapper::dump`] | loads |
//!
//! Blocks and contiguous runs that a request covers in part are split on the way, in the same invalidation.
//!
//! What must hold: between plan and commit nothing else edits the tables, which `&mut` sees to on one CPU and the page-table lock
//! among several.
//!
//! What it refuses: to map over anything, to change what is not mapped, to touch descriptors that it never writes, to break what a CPU
//! or the manager itself stands on ([`Machine::footing`], [`Machine::reached`]) or to take rights from it, and to make a frame writable through
//! one address and executable through another, unless that was declared.
//!
//! What is the caller's: that no frame is mapped with two memory types at once ([`crate::regions::alias`] sees to it for what goes by way of
//! the regions); and cache maintenance where a frame's memory type changes or code was written.
//!
//! Livepatching maps by it as it is. Cache-coloured relocation takes its frames from another supply; stage 2 is another [`Geometry`] and another
//! set of attributes on the same protocol.

#![forbid(unsafe_code)]

mod alias;
mod brief;
mod change;
mod commit;
mod error;
mod fill;
mod look;
mod plan;
mod unit;
mod window;

pub use error::Error;
pub use fill::FillPlan;
pub use look::{Mapping, Visit};
pub use plan::{ChangePlan, Unmapped};

use crate::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{FreeFrame, Geo, Protocol, Tables};
use crate::descriptor::{Access, Attributes};
use crate::features::Features;
use crate::frames::{FrameSupply, Supply};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// A request to map `virt` to as many bytes from `output` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where: whole pages.
    pub virt: VirtSpan,
    /// To what: the first byte, of whole pages.
    pub output: PhysAddr,
    /// As what.
    pub attributes: Attributes,
    /// The largest leaf to use: [`Level::L3`] for pages only, [`Level::L1`] for blocks of up to 1 GiB (4 KiB granule) wherever alignment
    /// allows.
    pub largest: Level,
    /// Whether to set the contiguous hint wherever alignment allows.
    pub contiguous: bool,
}

impl Request {
    /// A request without contiguous hints.
    #[must_use]
    pub const fn new(virt: VirtSpan, output: PhysAddr, attributes: Attributes, largest: Level) -> Self {
        Self { virt, output, attributes, largest, contiguous: false }
    }

    /// The same with contiguous hints wherever alignment allows.
    #[must_use]
    pub const fn with_contiguous(self) -> Self {
        Self { contiguous: true, ..self }
    }
}

/// What a plan will cost: exactly what its commit then does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Descriptors stored.
    pub stores: u64,
    /// Frames taken from the supply.
    pub frames: u64,
    /// Frames of former tables that return to it.
    pub freed: u64,
    /// TLBI instructions.
    pub tlbis: u32,
    /// DSB instructions.
    pub dsbs: u32,
    /// ISB instructions.
    pub isbs: u32,
}

/// Tables with what is needed to edit them. Its state `S` says whether a walk may read them: [`crate::bbm::Offline`] tables owe no
/// maintenance until the root switch, [`crate::bbm::Live`] ones owe it at each request.
///
/// # Example
///
/// On a host, whose memory is a map and which has no TLB:
///
/// ```
/// use breakwater::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
/// use breakwater::bbm::{Detached, Permit, Protocol};
/// use breakwater::descriptor::{Access, Attributes};
/// use breakwater::errata::Errata;
/// use breakwater::frames::{FrameSupply, OwnedRam};
/// use breakwater::geometry::{Granule4K, Slot};
/// use breakwater::machine::{Machine, Maintenance, Simulated, Tlbi};
/// use breakwater::mapper::{Mapper, Request};
/// use std::collections::HashMap;
///
/// /// Memory that holds tables, by address. There is no TLB to maintain.
/// #[derive(Default)]
/// struct Host(HashMap<u64, u64>);
///
/// impl Machine for Host {
///     type Geometry = Granule4K;
///
///     fn load(&self, slot: Slot) -> u64 {
///         self.0.get(&slot.address().raw()).copied().unwrap_or(0)
///     }
///     fn store(&mut self, _: &Permit, slot: Slot, descriptor: u64) {
///         self.0.insert(slot.address().raw(), descriptor);
///     }
///     fn zero_frame(&mut self, _: &Permit, frame: Frame) {
///         let start = frame.start().raw();
///         self.0.retain(|address, _| address & !0xfff != start);
///     }
///     fn switch_root(&mut self, _: &Permit, _root: Frame) -> Maintenance {
///         Maintenance::default()
///     }
///     fn dsb_ishst(&mut self) {}
///     fn dsb_ish(&mut self) {}
///     fn dsb_nsh(&mut self) {}
///     fn isb(&mut self) {}
///     fn tlbi(&mut self, _: &Permit, operation: Tlbi) {
///         println!("{operation:?}");
///     }
/// }
///
/// // Nothing behind it that anyone could overwrite: its memory needs no `unsafe` to be claimed.
/// impl Simulated for Host {}
///
/// let mut protocol = Protocol::simulated(Host::default(), Errata::empty());
/// let memory = PhysSpan::of(PhysAddr::at(0x10_0000), 16 * 4096).expect("a span");
/// let mut frames = FrameSupply::new(OwnedRam::simulated(memory));
/// let root = protocol.new_root(frames.take().expect("a frame"));
/// let (mut tables, _old) = protocol.switch_root(root, Detached::none());
/// let mut mapper = Mapper::new(&mut protocol, &mut frames, &mut tables);
///
/// // 4 MiB of data as two blocks.
/// let data = VirtSpan::of(VirtAddr::at(0x0a00_0000_0000), 4 << 20).expect("a span");
/// let writable = Attributes::Normal(Access::ReadWrite);
/// let cost = mapper.map(Request::new(data, PhysAddr::at(0x8000_0000), writable, Level::L2))?;
/// assert_eq!((cost.stores, cost.frames, cost.tlbis), (4, 2, 0)); // two links, two blocks; a fill owes no TLBI
///
/// // One page of the second block becomes read-only: the block is split on the way, by break-before-make.
/// let page = VirtSpan::of(VirtAddr::at(0x0a00_0020_3000), 4096).expect("a span");
/// let plan = mapper.plan_protect(page, Attributes::Normal(Access::ReadOnly))?;
/// assert_eq!((plan.cost().frames, plan.cost().tlbis), (1, 1));
/// plan.commit();
///
/// // Nobody maps over what is mapped, and a refusal changes nothing.
/// let refused = mapper.map(Request::new(page, PhysAddr::at(0x4000_0000), writable, Level::L3));
/// assert!(refused.is_err());
///
/// mapper.dump(data, |mapping| println!("{mapping}"));
/// let unmapped = mapper.unmap(data)?;
/// assert_eq!(unmapped.cost.freed, 3); // nothing is left of the tables
/// assert!(mapper.query(page.start()).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapper<'a, M, S, F = FrameSupply<M>> {
    protocol: &'a mut Protocol<M>,
    frames: &'a mut F,
    tables: &'a mut Tables<M, S>,
}

impl<'a, M: Machine, S, F: Supply<M>> Mapper<'a, M, S, F> {
    /// A mapper for `tables`, which takes table frames from `frames`.
    ///
    /// # Panics
    /// When the tables' root is of another level than the one at which walks begin.
    pub fn new(protocol: &'a mut Protocol<M>, frames: &'a mut F, tables: &'a mut Tables<M, S>) -> Self {
        assert!(tables.level() == Geo::<M>::ROOT, "a root is a table of the level at which walks begin");
        Self { protocol, frames, tables }
    }

    /// Frames left in the supply.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.frames.available()
    }

    /// Where the walk for `virt` begins.
    #[inline(always)]
    fn root_slot(&self, virt: VirtAddr) -> Slot {
        // The level is a constant here, which the tables' own is not.
        Geo::<M>::slot(self.tables.root(), Geo::<M>::ROOT, virt)
    }

    /// Makes sure of the frames that a request takes. What is asked for comes to the list of former tables, or goes
    /// back.
    #[inline(always)]
    fn check_frames(&mut self, cost: &Cost) -> Result<(), Error> {
        let before = self.frames.tables().count();
        while !self.frames.has(cost.frames) {
            let Some(frame) = self.frames.ask() else { return self.too_few(cost, before) };
            self.protocol.add_free(frame, self.frames.tables_mut());
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn too_few(&mut self, cost: &Cost, before: u64) -> Result<(), Error> {
        let available = self.frames.available();
        self.drain_to(before);
        Err(Error::OutOfFrames { needed: cost.frames, available })
    }

    /// Takes one frame that is there, for any use: a former table before anything else. Its contents are unknown.
    /// [`Supply::take`] knows no former tables.
    pub fn take(&mut self) -> Option<FreeFrame<M>> {
        let free = self.protocol.take_free(self.frames.tables_mut());
        free.or_else(|| self.frames.take())
    }

    /// Gives the supply its former tables back ([`Supply::take_back`]): a host's allocator, which has other uses for
    /// them. What a request asked for that is refused for another reason, or a plan that was dropped, is among them.
    pub fn drain(&mut self) {
        self.drain_to(0);
    }

    /// The same down to `count` of them; those that came last go first.
    fn drain_to(&mut self, count: u64) {
        while self.frames.tables().count() > count
            && let Some(frame) = self.protocol.take_free(self.frames.tables_mut())
        {
            self.frames.take_back(frame);
        }
    }

    /// A frame for a table: the plan has made sure of it.
    fn take_frame(&mut self) -> FreeFrame<M> {
        self.take().expect("the plan made sure of every frame")
    }

    /// Refuses what is no request for whole pages within the input addresses.
    fn check_span(&self, virt: VirtSpan) -> Result<(), Error> {
        if virt.is_empty() {
            Err(Error::Empty { virt })
        } else if !virt.start().is_aligned(Geo::<M>::PAGE_BYTES)
            || !virt.end_exclusive().is_aligned(Geo::<M>::PAGE_BYTES)
        {
            Err(Error::Misaligned { virt, output: None })
        } else if virt.end_exclusive().raw() > 1 << Geo::<M>::INPUT_BITS {
            Err(Error::BeyondInput { virt })
        } else {
            Ok(())
        }
    }

    /// Refuses output addresses that are misaligned, or that the CPUs cannot put out; yields what `virt` would map to.
    fn check_output(&self, virt: VirtSpan, output: PhysAddr) -> Result<PhysSpan, Error> {
        if !output.is_aligned(Geo::<M>::PAGE_BYTES) {
            return Err(Error::Misaligned { virt, output: Some(output) });
        }
        PhysSpan::of(output, virt.bytes())
            .filter(|span| span.end_exclusive().raw() <= 1 << self.protocol.output_bits())
            .ok_or(Error::BeyondAddressSize { virt, output })
    }

    /// Refuses attributes that not every CPU has.
    fn check_attributes(&self, virt: VirtSpan, attributes: Attributes) -> Result<(), Error> {
        let feature = match attributes {
            Attributes::Tagged(_) => Features::MTE,
            Attributes::Normal(Access::ReadExecuteGuarded) => Features::BTI,
            _ => return Ok(()),
        };
        let has = self.protocol.features().contains(feature);
        if has { Ok(()) } else { Err(Error::Unsupported { virt, attributes, feature }) }
    }
}

/// The part of `span` from `virt` on that lies in `slot`, which translates `virt`.
fn piece(span: VirtSpan, virt: VirtAddr, slot: Slot) -> VirtSpan {
    // `virt` is within the span, so the piece never runs backwards.
    VirtSpan::new(virt, slot.span().end_exclusive().min(span.end_exclusive())).unwrap_or(span)
}
