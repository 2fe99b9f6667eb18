//! RAM at a constant distance, by the largest leaves that alignment allows, and these in contiguous runs where they can be: sixteen leaves
//! that a TLB may hold as one.
//!
//! It bootstraps itself: the first span is mapped with frames of the pool; from then on its own free frames are in the supply, and they are
//! mapped already, so each later table can be written through the directmap that exists so far.
//!
//! What it leaves out: `no-map` memory and the whole image. Frames of init come in when init is freed.

#![forbid(unsafe_code)]

use super::{Failure, Space, image};
use crate::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::frames::OwnedRam;
use crate::layout;
use crate::machine::Machine;
use crate::memory_map::{KnownRam, SpanList};

const NAME: &str = "directmap";
/// Separate spans that the directmap may have.
const SPANS: usize = 128;

/// RAM at a constant distance.
#[derive(Clone, Copy, Debug)]
pub struct Directmap {
    base: PhysAddr,
}

impl Directmap {
    /// The directmap whose first byte is `base`, a multiple of 1 GiB, so that 1 GiB blocks fit wherever RAM does.
    #[must_use]
    pub fn new(base: PhysAddr) -> Self {
        Self { base }
    }

    /// Where `span` is mapped, or `None` when the directmap cannot hold it.
    #[must_use]
    pub fn virt(self, span: PhysSpan) -> Option<VirtSpan> {
        let offset = span.start().raw().checked_sub(self.base.raw())?;
        let start = VirtAddr::new(layout::DIRECTMAP.start().raw() + offset)?;
        VirtSpan::of(start, span.bytes()).filter(|&virt| layout::DIRECTMAP.covers(virt))
    }

    /// Maps `ram` but the image, and gives what is free of it to the supply.
    ///
    /// # Errors
    /// [`Failure`] when the mapper refuses or there are too many spans.
    pub fn map<M: Machine>(self, space: &mut Space<'_, M>, ram: KnownRam<'_, M>) -> Result<(), Failure> {
        let (memory, image) = (ram.memory(), ram.image());
        let mut spans: SpanList<SPANS> = SpanList::new();
        for span in memory.mappable() {
            spans.insert(span).map_err(|_| Failure::TooMany { name: NAME })?;
        }
        spans.remove(image).map_err(|_| Failure::TooMany { name: NAME })?;
        // The one with most free memory first: from its frames come the tables of all others.
        let free_bytes = |span: PhysSpan| -> u64 {
            memory.free(&[image]).filter_map(|free| free.intersection(span)).map(PhysSpan::bytes).sum()
        };
        let first = spans.iter().max_by_key(|&span| free_bytes(span));
        for span in first.into_iter().chain(spans.iter().filter(|&span| Some(span) != first)) {
            self.map_span(space, span)?;
            for free in memory.free(&[image]).filter_map(|free| free.intersection(span)) {
                space.frames.add_ram(OwnedRam::new(free)).map_err(|_| Failure::TooMany { name: "free RAM" })?;
            }
        }
        Ok(())
    }

    /// Maps one more span, which nothing maps yet, and declares it.
    ///
    /// # Errors
    /// [`Failure`] when the mapper refuses.
    pub fn map_span<M: Machine>(self, space: &mut Space<'_, M>, span: PhysSpan) -> Result<(), Failure> {
        let virt = self.virt(span).ok_or(Failure::TooMany { name: NAME })?;
        let region = Declared { name: NAME, virt, output: Some(span.start()), attributes: image::DATA };
        space.map_contiguous(region, Level::L1)
    }
}
