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
pub use crate::bbm::{FreeFrame, FreeRam};

use crate::bbm::{FreeTables, Released};
use crate::memory_map::{Full, SpanList};

/// Spans of free RAM that the supply can hold.
const RAM_SPANS: usize = 192;
/// Spans of former table frames and freed image pages.
const RETURNED_SPANS: usize = 32;

/// Frames that nobody uses.
#[derive(Debug)]
pub struct FrameSupply {
    /// log2 of the bytes of a frame.
    shift: u32,
    /// Former tables, to be tables again.
    tables: FreeTables,
    pool: PhysSpan,
    lists: Option<Lists>,
    taken: u64,
}

/// What is free beside the pool. Absent until something is: boot builds its runtime tables before, and counts instructions.
#[derive(Debug)]
struct Lists {
    returned: SpanList<RETURNED_SPANS>,
    ram: SpanList<RAM_SPANS>,
}

const NO_LISTS: Lists = Lists { returned: SpanList::new(), ram: SpanList::new() };

impl FrameSupply {
    /// A supply of the frames of `pool`, which must be the caller's alone and hold whole frames.
    #[must_use]
    pub fn new(pool: PhysSpan) -> Self {
        Self::with_frames_of(crate::addr::PAGE_SHIFT, pool)
    }

    /// The same with frames of 2^`shift` bytes, to a multiple of which `pool` is aligned: for another granule.
    #[must_use]
    pub fn with_frames_of(shift: u32, pool: PhysSpan) -> Self {
        Self { shift, tables: FreeTables::none(), pool, lists: None, taken: 0 }
    }

    /// Frames left, former tables included.
    #[must_use]
    pub fn available(&self) -> u64 {
        let listed = self.lists.as_ref().map_or(0, |lists| lists.returned.bytes() + lists.ram.bytes());
        ((self.pool.bytes() + listed) >> self.shift) + self.tables.count()
    }

    /// Whether at least `count` frames are left: [`Self::available`] without counting further than needed.
    #[must_use]
    pub fn has(&self, count: u64) -> bool {
        self.pool.bytes() >> self.shift >= count || self.available() >= count
    }

    /// Former tables: what a mapper takes first, and returns to.
    pub(crate) fn tables_mut(&mut self) -> &mut FreeTables {
        &mut self.tables
    }

    /// The same, to look at.
    pub(crate) fn tables(&self) -> &FreeTables {
        &self.tables
    }

    /// All that is free but former tables, in the order in which it is taken.
    pub(crate) fn spans(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        let lists = self.lists.iter().flat_map(|lists| lists.returned.iter().chain(lists.ram.iter()));
        core::iter::once(self.pool).chain(lists)
    }

    /// Frames taken since the beginning, whether or not they came back.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Free RAM, in ascending order.
    pub fn ram(&self) -> impl Iterator<Item = PhysSpan> + '_ {
        self.lists.iter().flat_map(|lists| lists.ram.iter())
    }

    /// Takes one frame: of the pool, else of what was returned, else of RAM. Its contents are unknown. Former tables are for a mapper
    /// to take ([`crate::mapper::Mapper::take`]): their list stands in the frames themselves.
    pub fn take(&mut self) -> Option<FreeFrame> {
        let frame = if self.pool.is_empty() {
            let lists = self.lists.as_mut()?;
            let bytes = 1 << self.shift;
            pop(&mut lists.returned, bytes).or_else(|| pop(&mut lists.ram, bytes))?
        } else {
            let frame = Frame::containing(self.pool.start());
            let next = self.pool.start().checked_add(1 << self.shift)?;
            self.pool = PhysSpan::new(next, self.pool.end_exclusive())?;
            frame
        };
        self.taken += 1;
        Some(FreeFrame::new(frame))
    }

    /// Takes `bytes` of RAM, whole frames, in one piece that starts at a multiple of `align` (a power of two, at least a frame), or nothing.
    /// Its contents are unknown.
    pub fn take_ram(&mut self, bytes: u64, align: u64) -> Option<FreeRam> {
        let ram = &mut self.lists.as_mut()?.ram;
        let piece = ram.iter().find_map(|span| {
            let piece = PhysSpan::of(span.start().align_up(align), bytes)?;
            span.covers(piece).then_some(piece)
        })?;
        ram.remove(piece).ok()?;
        self.taken += bytes >> self.shift;
        Some(FreeRam::new(piece))
    }

    /// The whole frames of `span`.
    fn whole_frames(&self, span: PhysSpan) -> PhysSpan {
        let bytes = 1 << self.shift;
        let (start, end_exclusive) = (span.start().align_up(bytes), span.end_exclusive().align_down(bytes));
        PhysSpan::new(start, end_exclusive).unwrap_or(PhysSpan::EMPTY)
    }

    fn lists(&mut self) -> &mut Lists {
        self.lists.get_or_insert(NO_LISTS)
    }

    /// Adds free RAM that the window reaches. Only whole frames count.
    ///
    /// # Errors
    /// When there are too many separate spans; the supply is then as before.
    pub fn add_ram(&mut self, span: PhysSpan) -> Result<(), Full> {
        let whole = self.whole_frames(span);
        self.lists().ram.insert(whole)
    }

    /// Takes back the frames of former tables. Should the list of separate spans be full, a frame stays unused for ever rather than
    /// unsafe.
    pub fn release(&mut self, released: Released) {
        for frame in released.frames() {
            // Full: the frame is lost to the supply, which harms nobody.
            let bytes = 1 << self.shift;
            let _ = PhysSpan::of(frame.start(), bytes).map(|span| self.lists().returned.insert(span));
        }
    }

    /// Takes back RAM that nothing maps any more but the window: [`crate::regions::Space::give_back`] has looked.
    ///
    /// # Errors
    /// The RAM itself, when there are too many separate spans; the supply is then as before.
    pub(crate) fn give_back(&mut self, ram: FreeRam) -> Result<(), FreeRam> {
        let whole = self.whole_frames(ram.span());
        self.lists().returned.insert(whole).map_err(|Full| ram)
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

    fn span(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    #[test]
    fn good_pool_first_then_ram() {
        let mut supply = FrameSupply::new(span(0x10_0000, 2 * PAGE_BYTES));
        supply.add_ram(span(0x4000_0800, 3 * PAGE_BYTES)).unwrap();
        let taken: Vec<u64> = core::iter::from_fn(|| supply.take()).map(|frame| frame.frame().start().raw()).collect();
        assert_eq!(taken, [0x10_0000, 0x10_1000, 0x4000_1000, 0x4000_2000]);
        assert_eq!((supply.available(), supply.taken()), (0, 4));
    }

    #[test]
    fn good_aligned_piece_leaves_the_rest() {
        let mut supply = FrameSupply::new(span(0, 0));
        supply.add_ram(span(0x1000, 0x40_0000)).unwrap();
        let piece = supply.take_ram(0x20_0000, 0x20_0000);
        assert_eq!(piece.map(|piece| piece.span()), Some(span(0x20_0000, 0x20_0000)));
        assert_eq!(supply.available(), 0x200);
        assert_eq!(supply.take_ram(0x20_0000, 0x20_0000), None);
        assert_eq!(supply.available(), 0x200, "a refusal takes nothing");
    }

    #[test]
    fn good_frames_of_another_granule_do_not_overlap() {
        const BYTES: u64 = 16 << 10;
        let mut supply = FrameSupply::with_frames_of(14, span(0x10_0000, 2 * BYTES));
        supply.add_ram(span(0x4000_1000, 4 * BYTES)).unwrap();
        let spans: Vec<PhysSpan> = supply.spans().collect();
        assert_eq!(spans, [span(0x10_0000, 2 * BYTES), span(0x4000_4000, 3 * BYTES)]);
        assert_eq!(supply.available(), 5, "the first and last piece of the RAM are no whole frames");
        let taken: Vec<u64> = core::iter::from_fn(|| supply.take()).map(|frame| frame.frame().start().raw()).collect();
        assert_eq!(taken, [0x10_0000, 0x10_4000, 0x4000_4000, 0x4000_8000, 0x4000_c000]);
        assert_eq!(supply.available(), 0);
    }
}
