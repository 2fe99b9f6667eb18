//! The frame supply: where page-table frames come from and where they return to.
//!
//! Why it exists: boot needs frames before it knows of any RAM, and must never take one that someone else owns. So there is a pool
//! that the image brings along, then frames that the image no longer needs, then RAM that is mapped, in that order.
//!
//! What must hold: every frame in the supply can be reached through the window (it lies in the image or in the directmap), and no TLB or
//! walk cache holds anything of its past: frames of former tables come in only as [`Released`], RAM that was mapped only once nothing maps
//! it. What goes out is a value that is moved, so that nobody returns what is another's, or the same twice.

#![forbid(unsafe_code)]

use crate::addr::{Frame, PhysSpan};
pub use crate::bbm::{FreeFrame, OwnedRam};
use core::marker::PhantomData;

use crate::bbm::{FreeTables, Geo, Released};
use crate::geometry::Geometry;
use crate::machine::Machine;
use crate::memory_map::{Full, SpanList};

/// Where a mapper's frames come from, and where former tables go. [`FrameSupply`] has its own; a host that has an
/// allocator is asked when a request needs more, and gets back what is a table no longer.
///
/// ```
/// use breakwater::bbm::{FreeFrame, FreeTables};
/// use breakwater::frames::{OwnedRam, Supply};
/// use breakwater::machine::Machine;
///
/// /// A host that keeps no frame by itself.
/// struct Host<M> {
///     tables: FreeTables<M>,
///     allocate: fn() -> Option<OwnedRam<M>>,
///     free: fn(OwnedRam<M>),
/// }
///
/// impl<M: Machine> Supply<M> for Host<M> {
///     fn tables(&self) -> &FreeTables<M> {
///         &self.tables
///     }
///     fn tables_mut(&mut self) -> &mut FreeTables<M> {
///         &mut self.tables
///     }
///     fn ask(&mut self) -> Option<FreeFrame<M>> {
///         (self.allocate)()?.into_frame().ok()
///     }
///     fn take_back(&mut self, frame: FreeFrame<M>) {
///         (self.free)(frame.into_ram());
///     }
/// }
/// ```
pub trait Supply<M: Machine> {
    /// Free frames that a mapper takes first, and to which it adds former tables, after their invalidation, and what it
    /// asks for.
    fn tables(&self) -> &FreeTables<M>;

    /// The same, to take from and to add to.
    fn tables_mut(&mut self) -> &mut FreeTables<M>;

    /// One frame more, which the window reaches, if the host has one. A request asks before its first store, for as
    /// many as it lacks.
    fn ask(&mut self) -> Option<FreeFrame<M>>;

    /// Takes a frame back: one that was asked for by a request that is refused because there are not enough, or one
    /// that [`crate::mapper::Mapper::drain`] finds.
    fn take_back(&mut self, frame: FreeFrame<M>);

    /// Frames that are there without asking, those of [`Self::tables`] included.
    #[must_use]
    fn available(&self) -> u64 {
        self.tables().count()
    }

    /// Whether at least `count` frames are there: [`Self::available`], perhaps without counting further than needed.
    #[must_use]
    fn has(&self, count: u64) -> bool {
        self.available() >= count
    }

    /// Takes one frame that is there and not in [`Self::tables`]. Its contents are unknown.
    fn take(&mut self) -> Option<FreeFrame<M>> {
        None
    }

    /// All that is there but [`Self::tables`]: a request that would break the window to it is refused.
    fn spans(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        core::iter::empty()
    }
}

/// Spans of free RAM that the supply can hold.
const RAM_SPANS: usize = 192;
/// Spans of former table frames and freed image pages.
const RETURNED_SPANS: usize = 32;

/// Frames of a machine that nobody uses, each as large as its tables are. All that is in it came as [`OwnedRam`] or was
/// a table before.
#[derive(Debug)]
pub struct FrameSupply<M> {
    /// Former tables, to be tables again.
    tables: FreeTables<M>,
    pool: PhysSpan,
    lists: Option<Lists>,
    /// Frames taken one by one, and frames taken in pieces of RAM.
    taken: (u64, u64),
    machine: PhantomData<fn() -> M>,
}

/// What is free beside the pool. Absent until something is: boot builds its runtime tables before, and counts instructions.
#[derive(Debug)]
struct Lists {
    returned: SpanList<RETURNED_SPANS>,
    ram: SpanList<RAM_SPANS>,
}

const NO_LISTS: Lists = Lists { returned: SpanList::new(), ram: SpanList::new() };

impl<M: Machine> FrameSupply<M> {
    /// A supply of the whole frames of `pool`.
    #[must_use]
    pub fn new(pool: OwnedRam<M>) -> Self {
        Self { tables: FreeTables::none(), pool: pool.whole_frames(), lists: None, taken: (0, 0), machine: PhantomData }
    }

    /// Frames left, former tables included.
    #[must_use]
    pub fn available(&self) -> u64 {
        let listed = self.lists.as_ref().map_or(0, |lists| lists.returned.bytes() + lists.ram.bytes());
        ((self.pool.bytes() + listed) >> Geo::<M>::PAGE_SHIFT) + self.tables.count()
    }

    /// Frames taken since the beginning, whether or not they came back.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.0 + self.taken.1
    }

    /// Those of [`Self::taken`] that were taken one by one, as every table is: there are no more tables than these.
    #[must_use]
    pub fn taken_singly(&self) -> u64 {
        self.taken.0
    }

    /// Free RAM, in ascending order.
    pub fn ram(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        self.lists.iter().flat_map(|lists| lists.ram.iter())
    }

    /// Takes one frame: of the pool, else of what was returned, else of RAM. Its contents are unknown. Former tables are for a mapper
    /// to take ([`crate::mapper::Mapper::take`]): their list stands in the frames themselves.
    #[inline]
    pub fn take(&mut self) -> Option<FreeFrame<M>> {
        let frame = if self.pool.is_empty() {
            self.take_listed()?
        } else {
            let frame = Frame::containing(self.pool.start());
            let next = self.pool.start().checked_add(Geo::<M>::PAGE_BYTES)?;
            self.pool = PhysSpan::new(next, self.pool.end_exclusive())?;
            frame
        };
        self.taken.0 += 1;
        Some(FreeFrame::new(frame))
    }

    #[inline(never)] // apart from the pool, which boot takes from, and counts
    fn take_listed(&mut self) -> Option<Frame> {
        let lists = self.lists.as_mut()?;
        let bytes = Geo::<M>::PAGE_BYTES;
        pop(&mut lists.returned, bytes).or_else(|| pop(&mut lists.ram, bytes))
    }

    /// Takes `bytes` of RAM, whole frames, in one piece that starts at a multiple of `align` (a power of two, at least
    /// a frame), or nothing: also where `bytes` or `align` is no such number, for a frame in part would be another's in
    /// its rest. Its contents are unknown.
    pub fn take_ram(&mut self, bytes: u64, align: u64) -> Option<OwnedRam<M>> {
        if !bytes.is_multiple_of(Geo::<M>::PAGE_BYTES) || !align.is_power_of_two() || align < Geo::<M>::PAGE_BYTES {
            return None;
        }
        let ram = &mut self.lists.as_mut()?.ram;
        let piece = ram.iter().find_map(|span| {
            let piece = PhysSpan::of(span.start().align_up(align), bytes)?;
            span.covers(piece).then_some(piece)
        })?;
        ram.remove(piece).ok()?;
        self.taken.1 += bytes >> Geo::<M>::PAGE_SHIFT;
        Some(OwnedRam::new(piece))
    }

    fn lists(&mut self) -> &mut Lists {
        self.lists.get_or_insert(NO_LISTS)
    }

    /// Adds free RAM that the window reaches and that nothing else maps. Only whole frames count.
    ///
    /// # Errors
    /// When there are too many separate spans; the supply is then as before, and the memory is lost.
    pub(crate) fn add_ram(&mut self, ram: OwnedRam<M>) -> Result<(), Full> {
        self.lists().ram.insert(ram.whole_frames())
    }

    /// Takes back the frames of former tables. Should the list of separate spans be full, a frame stays unused for ever rather than
    /// unsafe.
    pub fn release(&mut self, released: Released<M>) {
        for frame in released.frames() {
            // Full: the frame is lost to the supply, which harms nobody.
            let bytes = Geo::<M>::PAGE_BYTES;
            let _ = PhysSpan::of(frame.start(), bytes).map(|span| self.lists().returned.insert(span));
        }
    }

    /// Takes back RAM that nothing maps any more but the window: [`crate::regions::Space::give_back`] has looked.
    ///
    /// # Errors
    /// The RAM itself, when there are too many separate spans; the supply is then as before.
    pub(crate) fn give_back(&mut self, ram: OwnedRam<M>) -> Result<(), OwnedRam<M>> {
        self.lists().returned.insert(ram.whole_frames()).map_err(|Full| ram)
    }
}

impl<M: Machine> Supply<M> for FrameSupply<M> {
    fn tables(&self) -> &FreeTables<M> {
        &self.tables
    }

    fn tables_mut(&mut self) -> &mut FreeTables<M> {
        &mut self.tables
    }

    /// There is nobody to ask.
    #[inline(always)]
    fn ask(&mut self) -> Option<FreeFrame<M>> {
        None
    }

    /// Should the list of separate spans be full, the frame stays unused for ever.
    fn take_back(&mut self, frame: FreeFrame<M>) {
        let _lost = self.give_back(frame.into_ram());
    }

    fn available(&self) -> u64 {
        Self::available(self)
    }

    #[inline(always)]
    fn has(&self, count: u64) -> bool {
        self.pool.bytes() >> Geo::<M>::PAGE_SHIFT >= count || self.available() >= count
    }

    fn take(&mut self) -> Option<FreeFrame<M>> {
        Self::take(self)
    }

    /// In the order in which it is taken.
    fn spans(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        let lists = self.lists.iter().flat_map(|lists| lists.returned.iter().chain(lists.ram.iter()));
        core::iter::once(self.pool).chain(lists)
    }
}

fn pop<const N: usize>(list: &mut SpanList<N>, bytes: u64) -> Option<Frame> {
    let first = list.iter().next()?;
    let frame = Frame::containing(first.start());
    list.remove(PhysSpan::of(frame.start(), bytes)?).ok()?;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PAGE_BYTES, PhysAddr};
    use crate::geometry::{Granule4K, Granule16K};
    use crate::machine::Nowhere;

    type Pool<G = Granule4K> = FrameSupply<Nowhere<G>>;

    fn span(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    fn ram<G: Geometry>(start: u64, bytes: u64) -> OwnedRam<Nowhere<G>> {
        OwnedRam::simulated(span(start, bytes))
    }

    fn taken<G: Geometry>(supply: &mut Pool<G>) -> Vec<u64> {
        core::iter::from_fn(|| supply.take()).map(|frame| frame.frame().start().raw()).collect()
    }

    #[test]
    fn good_pool_first_then_ram() {
        let mut supply = Pool::<Granule4K>::new(ram(0x10_0000, 2 * PAGE_BYTES));
        supply.add_ram(ram(0x4000_0800, 3 * PAGE_BYTES)).unwrap();
        assert_eq!(taken(&mut supply), [0x10_0000, 0x10_1000, 0x4000_1000, 0x4000_2000]);
        assert_eq!((supply.available(), supply.taken(), supply.taken_singly()), (0, 4, 4));
    }

    #[test]
    fn good_aligned_piece_leaves_the_rest() {
        let mut supply = Pool::<Granule4K>::new(OwnedRam::none());
        supply.add_ram(ram(0x1000, 0x40_0000)).unwrap();
        let piece = supply.take_ram(0x20_0000, 0x20_0000);
        assert_eq!(piece.map(|piece| piece.span()), Some(span(0x20_0000, 0x20_0000)));
        assert_eq!((supply.available(), supply.taken(), supply.taken_singly()), (0x200, 0x200, 0));
        assert!(supply.take_ram(0x20_0000, 0x20_0000).is_none());
        assert_eq!(supply.available(), 0x200, "a refusal takes nothing");
    }

    #[test]
    fn bad_a_frame_in_part() {
        let mut supply = Pool::<Granule4K>::new(OwnedRam::none());
        supply.add_ram(ram(0x1000, 0x1000)).unwrap();
        for (bytes, align) in [(8, 0x1000), (0x1000, 8), (0x1000, 0), (0x1000, 0x3000), (0x1800, 0x1000)] {
            assert!(supply.take_ram(bytes, align).is_none(), "{bytes:#x} bytes at a multiple of {align:#x}");
        }
        assert_eq!(taken(&mut supply), [0x1000]);
    }

    #[test]
    fn good_pieces_of_a_frame_are_no_frame() {
        let (low, high) = ram::<Granule4K>(0x1000, 0x3000).split_at(0x1800).unwrap();
        assert_eq!((low.span(), high.span()), (span(0x1000, 0x1800), span(0x2800, 0x1800)));
        let mut supply = Pool::new(low);
        supply.give_back(high).unwrap();
        assert_eq!(taken(&mut supply), [0x1000, 0x3000], "the frame of both is neither's");
        assert!(ram::<Granule4K>(0x1000, 0x1000).split_at(0x1001).is_err());
    }

    #[test]
    fn good_frames_of_another_granule_do_not_overlap() {
        const BYTES: u64 = 16 << 10;
        let mut supply = Pool::<Granule16K>::new(ram(0x10_0000, 2 * BYTES));
        supply.add_ram(ram(0x4000_1000, 4 * BYTES)).unwrap();
        let spans: Vec<PhysSpan> = supply.spans().collect();
        assert_eq!(spans, [span(0x10_0000, 2 * BYTES), span(0x4000_4000, 3 * BYTES)]);
        assert_eq!(supply.available(), 5, "the first and last piece of the RAM are no whole frames");
        assert_eq!(taken(&mut supply), [0x10_0000, 0x10_4000, 0x4000_4000, 0x4000_8000, 0x4000_c000]);
        assert_eq!(supply.available(), 0);
    }
}
