//! How physical memory is reached with the MMU on.

use super::{instruction, registers};
use breakwater::addr::{Frame, PhysAddr, PhysSpan, SLOTS, VirtAddr, VirtSpan};
use breakwater::layout;
use breakwater::machine::Reached;
use breakwater::walk::ReadTable;
use core::sync::atomic::{AtomicU64, Ordering};

/// Physical to virtual: what lies in the image through its link address, the rest through the directmap once that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysToVirt {
    /// What is reached at the link address.
    image: PhysSpan,
    /// Link address - physical address.
    link_offset: u64,
    /// Directmap address - physical address, wrapping; 0 before there is one.
    directmap_offset: u64,
}

/// What the exception path uses, kept apart because that path can be given nothing.
#[unsafe(link_section = ".sealed.phys_to_virt")]
static PUBLISHED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

impl PhysToVirt {
    /// What holds before there is a directmap: it reaches the image, `image`, alone.
    #[must_use]
    pub(super) fn image_only(image: PhysSpan) -> Self {
        Self { image, link_offset: layout::LINK_ADDRESS.wrapping_sub(image.start().raw()), directmap_offset: 0 }
    }

    /// The same with a directmap whose first byte is `base`.
    ///
    /// # Panics
    /// When it has one: what is mapped there would be taken for other memory.
    #[must_use]
    pub(crate) fn with_directmap(self, base: PhysAddr) -> Self {
        assert!(self.directmap_offset == 0, "the directmap begins where it begins");
        Self { directmap_offset: layout::DIRECTMAP.start().raw().wrapping_sub(base.raw()), ..self }
    }

    /// The same after the image's first pages, up to `start`, were unmapped: they are reached through the directmap.
    #[must_use]
    pub(crate) fn without_init(self, start: PhysAddr) -> Self {
        Self { image: PhysSpan::new(start, self.image.end_exclusive()).unwrap_or(self.image), ..self }
    }

    /// Link address - physical address, wrapping.
    #[must_use]
    pub(super) fn link_offset(self) -> u64 {
        self.link_offset
    }

    /// Directmap address - physical address, wrapping.
    #[must_use]
    pub(super) fn directmap_offset(self) -> u64 {
        self.directmap_offset
    }

    /// The virtual address of `frame`.
    #[inline]
    pub(super) fn address(self, frame: Frame) -> usize {
        let start = frame.start();
        let offset = if self.image.contains(start) { self.link_offset } else { self.directmap_offset };
        start.raw().wrapping_add(offset) as usize
    }

    /// What is reached through `span`: of the image, and of the directmap, to which the image's own frames are counted, too.
    pub(super) fn reached(self, span: VirtSpan) -> impl Iterator<Item = Reached> {
        let image = VirtAddr::new(self.image.start().raw().wrapping_add(self.link_offset));
        let image = image.and_then(|image| Reached::of(image, self.image, span));
        let directmap = layout::DIRECTMAP.start();
        let base = directmap.raw().wrapping_sub(self.directmap_offset);
        let shown = PhysAddr::new(base).and_then(|base| PhysSpan::of(base, layout::DIRECTMAP.bytes()));
        let shown = shown.filter(|_| self.directmap_offset != 0);
        let directmap = shown.and_then(|shown| Reached::of(directmap, shown, span));
        image.into_iter().chain(directmap)
    }

    /// Whether `span` meets the image or the directmap, whether or not there is one yet.
    #[inline(always)]
    pub(super) fn meets(self, span: VirtSpan) -> bool {
        let (start, end_exclusive) = (span.start().raw(), span.end_exclusive().raw());
        let image = self.image.start().raw().wrapping_add(self.link_offset);
        let image_end = self.image.end_exclusive().raw().wrapping_add(self.link_offset);
        let (directmap, directmap_end) = (layout::DIRECTMAP.start().raw(), layout::DIRECTMAP.end_exclusive().raw());
        start < image_end && image < end_exclusive || start < directmap_end && directmap < end_exclusive
    }

    /// Lets the exception path use it.
    pub(super) fn publish(self) {
        let words =
            [self.image.start().raw(), self.image.end_exclusive().raw(), self.link_offset, self.directmap_offset];
        for (place, word) in PUBLISHED.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub(super) fn published() -> Option<Self> {
        let [start, end_exclusive, link_offset, directmap_offset] =
            [0, 1, 2, 3].map(|index| PUBLISHED[index].load(Ordering::Relaxed));
        let image = PhysSpan::new(PhysAddr::new(start)?, PhysAddr::new(end_exclusive)?)?;
        (!image.is_empty()).then_some(Self { image, link_offset, directmap_offset })
    }
}

/// The root in force and how its tables are reached, once something was published.
pub(crate) fn tables_in_force() -> Option<(Frame, PhysToVirt)> {
    let root = PhysAddr::new(registers::translation().ttbr0 & 0x0000_ffff_ffff_f000)?;
    Some((Frame::containing(root), PhysToVirt::published()?))
}

impl PhysToVirt {
    /// The address of a slot of `table`. What cannot be reached has none: the exception path must not fault on a corrupt
    /// table.
    #[inline(always)]
    fn slot_of(&self, table: Frame, index: usize) -> Option<usize> {
        let is_reached = self.directmap_offset != 0 || self.image.contains(table.start());
        is_reached.then(|| self.address(table) + 8 * (index % SLOTS))
    }
}

impl ReadTable for PhysToVirt {
    /// What cannot be reached reads as no descriptor.
    #[inline]
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        // SAFETY: walks start at the root in force, whose tables are all reached; 8-byte aligned within its frame.
        self.slot_of(table, index).map_or(0, |address| unsafe { instruction::load(address) })
    }

    #[inline]
    fn eight(&self, table: Frame, first: usize) -> [u64; 8] {
        // SAFETY: as above; from a multiple of eight on, eight slots lie within the frame.
        self.slot_of(table, first & !7).map_or([0; 8], |address| unsafe { instruction::load_eight(address) })
    }
}
