//! Memory as values that are moved: what one holder has, no other has.

use super::Geo;
use crate::addr::{Frame, PhysSpan};
use crate::geometry::Geometry;
use crate::machine::{Machine, Simulated};
use core::fmt;
use core::marker::PhantomData;

/// A frame that nobody uses: the only thing that becomes a table. It comes from a supply of its machine
/// ([`crate::frames::FrameSupply::take`], [`crate::mapper::Mapper::take`]) or is memory that somebody claimed
/// ([`OwnedRam::into_frame`]); one that is dropped is lost, which harms nobody.
#[must_use = "a frame that is dropped is lost to the supply"]
pub struct FreeFrame<M> {
    frame: Frame,
    machine: PhantomData<fn() -> M>,
}

impl<M> FreeFrame<M> {
    /// `frame`, which the caller takes out of what is free.
    #[inline(always)]
    pub(crate) const fn new(frame: Frame) -> Self {
        Self { frame, machine: PhantomData }
    }

    /// Which frame that is.
    #[must_use]
    pub const fn frame(&self) -> Frame {
        self.frame
    }
}

impl<M: Machine> FreeFrame<M> {
    /// The same as memory, for any use.
    pub fn into_ram(self) -> OwnedRam<M> {
        // The span of a frame ends within the physical addresses.
        OwnedRam::new(PhysSpan::of(self.frame.start(), Geo::<M>::PAGE_BYTES).unwrap_or(PhysSpan::EMPTY))
    }
}

impl<M> fmt::Debug for FreeFrame<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FreeFrame").field(&self.frame).finish()
    }
}

/// Memory in one piece that belongs to the holder of this value: nobody else loads, stores or gives it away. The
/// manager stores only to what came to it as this, so that no request of safe code can overwrite anything else.
///
/// All of it begins with a claim: [`Self::claim`], for a machine whose memory is real. From there it is split and given
/// on by moves: to a supply, out of it again by [`crate::frames::FrameSupply::take_ram`], back by
/// [`crate::regions::Space::give_back`]; one frame of it by [`Self::into_frame`] and [`FreeFrame::into_ram`]. Its
/// holder may map it.
#[must_use = "memory that is dropped is lost"]
pub struct OwnedRam<M> {
    span: PhysSpan,
    machine: PhantomData<fn() -> M>,
}

impl<M> OwnedRam<M> {
    /// `span`, which the caller takes out of what is free.
    pub(crate) const fn new(span: PhysSpan) -> Self {
        Self { span, machine: PhantomData }
    }

    /// Claims `span` of the memory of the machine `M`.
    ///
    /// # Safety
    /// From here on nothing uses `span` but the holders of what is returned: no Rust object lives there, no device, no
    /// firmware and no other program writes there, no translation table in force stands there, and none of it is
    /// claimed again. That ends for what its holder gives up: memory that is dropped as this, or as a [`FreeFrame`],
    /// may be claimed again by whoever knows that nothing else uses it.
    #[expect(unsafe_code, reason = "who uses memory is a fact of the machine, which no type can check")]
    pub const unsafe fn claim(span: PhysSpan) -> Self {
        Self::new(span)
    }

    /// No memory at all.
    pub const fn none() -> Self {
        Self::new(PhysSpan::EMPTY)
    }

    /// Its bytes.
    #[must_use]
    pub const fn span(&self) -> PhysSpan {
        self.span
    }
}

impl<M: Machine> OwnedRam<M> {
    /// What of it is whole frames of the machine: a frame in part is not the holder's to zero or to link.
    pub(crate) fn whole_frames(&self) -> PhysSpan {
        let bytes = Geo::<M>::PAGE_BYTES;
        let (start, end_exclusive) = (self.span.start().align_up(bytes), self.span.end_exclusive().align_down(bytes));
        PhysSpan::new(start, end_exclusive).unwrap_or(PhysSpan::EMPTY)
    }

    /// The same as a frame.
    ///
    /// # Errors
    /// The memory itself, when it is not exactly one whole frame.
    pub fn into_frame(self) -> Result<FreeFrame<M>, Self> {
        let is_frame = self.span.bytes() == Geo::<M>::PAGE_BYTES && self.whole_frames() == self.span;
        if is_frame { Ok(FreeFrame::new(Frame::containing(self.span.start()))) } else { Err(self) }
    }
}

impl<M: Simulated> OwnedRam<M> {
    /// `span` of a memory that is simulated: there is nothing behind it that anyone could overwrite.
    pub const fn simulated(span: PhysSpan) -> Self {
        Self::new(span)
    }
}

impl<M> OwnedRam<M> {
    /// The first `bytes` bytes, and the rest.
    ///
    /// # Errors
    /// All of it, when it has fewer bytes.
    pub fn split_at(self, bytes: u64) -> Result<(Self, Self), Self> {
        let cut = self.span.start().checked_add(bytes);
        let first = cut.and_then(|cut| PhysSpan::new(self.span.start(), cut));
        let rest = cut.and_then(|cut| PhysSpan::new(cut, self.span.end_exclusive()));
        first.zip(rest).map(|(first, rest)| (Self::new(first), Self::new(rest))).ok_or(self)
    }
}

impl<M> fmt::Debug for OwnedRam<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedRam").field(&self.span).finish()
    }
}
