//! Emptying the frame supply, and proving what came out of it.

use crate::{Booted, probe};
use breakwater::addr::{Frame, PhysAddr, PhysSpan};

/// Ends the chain of frames.
const NOTHING: u64 = u64::MAX;

/// How a program reaches frames: the image's through their link address, the others through the directmap.
#[derive(Clone, Copy, Debug)]
struct Reach {
    image: PhysSpan,
    link_offset: u64,
    directmap_offset: u64,
}

impl Reach {
    fn virt(self, frame: u64) -> u64 {
        let in_image = self.image.contains(PhysAddr::at(frame));
        frame.wrapping_add(if in_image { self.link_offset } else { self.directmap_offset })
    }
}

/// All frames of the supply, chained: each holds the address of the one taken before it, then its own.
#[derive(Debug)]
pub struct Drained {
    reach: Reach,
    last: u64,
    /// How many there are.
    pub count: u64,
}

/// Takes every frame of the supply, shows each to `look`, and writes to each.
pub fn drain(booted: &Booted, mut look: impl FnMut(Frame)) -> Drained {
    let reach = Reach {
        image: booted.image_without_init(),
        link_offset: booted.start.map().whole.start().raw().wrapping_sub(booted.start.image_start().raw()),
        directmap_offset: booted.directmap_offset(),
    };
    let mut drained = Drained { reach, last: NOTHING, count: 0 };
    booted.handover.edit(|mut space| {
        let mut mapper = space.mapper();
        while let Some(free) = mapper.take() {
            let frame = free.frame();
            look(frame);
            let frame = frame.start().raw();
            probe::write(reach.virt(frame), drained.last);
            probe::write(reach.virt(frame) + 8, frame);
            drained.last = frame;
            drained.count += 1;
        }
    });
    drained
}

impl Drained {
    /// Whether every frame still holds what was written to it: none was handed out twice, none is anything else's.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let (mut next, mut count) = (self.last, 0);
        while next != NOTHING && count < self.count {
            let virt = self.reach.virt(next);
            if probe::read(virt + 8) != next {
                return false;
            }
            next = probe::read(virt);
            count += 1;
        }
        next == NOTHING && count == self.count
    }
}

/// A sum over the pages of `span`, read through the directmap, that changes when any of their words does.
#[must_use]
pub fn sum(booted: &Booted, span: PhysSpan) -> u64 {
    let pages = span.page_cover();
    let first = booted.directmap(pages.start());
    (0..pages.bytes() / 8).fold(0, |sum: u64, word| sum.rotate_left(5) ^ probe::read(first + 8 * word))
}
