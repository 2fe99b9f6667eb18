//! Memory that nobody uses, as values that are moved: what one holder has, no other has.

use crate::addr::{Frame, PhysSpan};

/// A frame that nobody uses: the only thing that becomes a table. It comes from a supply ([`crate::frames::FrameSupply::take`],
/// [`crate::mapper::Mapper::take`]); one that is dropped is lost, which harms nobody.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a frame that is dropped is lost to the supply"]
pub struct FreeFrame(Frame);

impl FreeFrame {
    /// `frame`, which the caller takes out of what is free.
    #[inline(always)]
    pub(crate) const fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// Which frame that is.
    #[must_use]
    pub const fn frame(&self) -> Frame {
        self.0
    }
}

/// Whole frames in one piece that nobody uses but their holder, who may map them: from [`crate::frames::FrameSupply::take_ram`]. They return by
/// [`crate::regions::Space::give_back`], which sees to it that nothing maps them any more.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "RAM that is dropped is lost to the supply"]
pub struct FreeRam(PhysSpan);

impl FreeRam {
    /// `span`, which the caller takes out of what is free.
    pub(crate) const fn new(span: PhysSpan) -> Self {
        Self(span)
    }

    /// Its bytes.
    #[must_use]
    pub const fn span(&self) -> PhysSpan {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Detached;
    use super::*;
    use crate::addr::PhysAddr;

    #[test]
    fn good_first_tables_come_back_as_many_as_they_are() {
        let frame = |index: usize| Frame::containing(PhysAddr::at(0x5000 + 0x1000 * index as u64));
        let released = Detached::first_tables(core::array::from_fn(|index| Some(frame(index)))).settle();
        let frames: Vec<Frame> = released.frames().collect();
        assert_eq!(frames, (0..8).map(frame).collect::<Vec<_>>());
    }
}
