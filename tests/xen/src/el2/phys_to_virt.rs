//! How physical memory is reached under Xen: the pool at the link address, RAM through Xen's directmap, which has holes
//! where RAM has them and Xen compresses addresses.

use breakwater::addr::{Frame, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::layout;
use breakwater::machine::Reached;

/// Pieces of the directmap at different distances. Banks of RAM at the same distance share one.
const PIECES: usize = 8;

/// Physical to virtual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysToVirt {
    /// The pool, which alone of the image holds tables.
    pool: PhysSpan,
    /// Link address - physical address, wrapping.
    link_offset: u64,
    /// Spans of RAM, and directmap address - physical address, wrapping.
    directmap: [(PhysSpan, u64); PIECES],
}

impl PhysToVirt {
    /// Before there is a directmap.
    pub(crate) fn pool_only(pool: PhysSpan, link_offset: u64) -> Self {
        Self { pool, link_offset, directmap: [(PhysSpan::EMPTY, 0); PIECES] }
    }

    /// The same with RAM shown by the directmap from `virt` on; `None` where that is one distance too many.
    pub(crate) fn with_directmap(mut self, virt: VirtAddr, phys: PhysSpan) -> Option<Self> {
        let offset = virt.raw().wrapping_sub(phys.start().raw());
        let is_place = |(span, at): &&mut (PhysSpan, u64)| span.is_empty() || *at == offset;
        let piece = self.directmap.iter_mut().find(is_place)?;
        *piece = (piece.0.joined(phys), offset);
        Some(self)
    }

    /// Link address - physical address, wrapping.
    #[must_use]
    pub(crate) fn link_offset(&self) -> u64 {
        self.link_offset
    }

    /// The virtual address of `frame`.
    ///
    /// # Panics
    /// When it is neither the pool's nor the directmap's.
    #[inline(always)]
    pub(super) fn address(&self, frame: Frame) -> usize {
        let start = frame.start();
        let offset = if self.pool.contains(start) { Some(self.link_offset) } else { self.directmap_offset(start) };
        start.raw().wrapping_add(offset.expect("a table is reached")) as usize
    }

    #[inline(always)]
    fn directmap_offset(&self, phys: PhysAddr) -> Option<u64> {
        self.directmap.iter().find(|(span, _)| span.contains(phys)).map(|(_, offset)| *offset)
    }

    /// What is reached through `span`.
    pub(super) fn reached(&self, span: VirtSpan) -> impl Iterator<Item = Reached> + '_ {
        let shown = move |phys: PhysSpan, offset: u64| {
            Reached::of(VirtAddr::new(phys.start().raw().wrapping_add(offset))?, phys, span)
        };
        let pieces = self.directmap.iter().filter_map(move |&(phys, offset)| shown(phys, offset));
        shown(self.pool, self.link_offset).into_iter().chain(pieces)
    }

    /// Whether `span` meets the pool or the directmap.
    #[inline(always)]
    pub(super) fn meets(&self, span: VirtSpan) -> bool {
        layout::IMAGE.intersection(span).is_some() || layout::DIRECTMAP.intersection(span).is_some()
    }

    /// The exception path is Xen's.
    pub(super) fn publish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn phys(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    fn pool() -> PhysToVirt {
        PhysToVirt::pool_only(phys(0x4030_0000, MIB), layout::LINK_ADDRESS - 0x4020_0000)
    }

    /// Two banks with a hole of 2 GiB, which Xen squeezes out of its directmap.
    fn banks() -> PhysToVirt {
        let directmap = layout::DIRECTMAP.start();
        let first = pool().with_directmap(directmap, phys(GIB, GIB)).unwrap();
        first.with_directmap(VirtAddr::at(directmap.raw() + GIB), phys(4 * GIB, GIB)).unwrap()
    }

    fn address(window: &PhysToVirt, phys: u64) -> u64 {
        window.address(Frame::containing(PhysAddr::at(phys))) as u64
    }

    #[test]
    fn good_the_pool_by_its_link_address_and_banks_by_theirs() {
        let directmap = layout::DIRECTMAP.start().raw();
        assert_eq!(address(&banks(), 0x4030_1000), layout::LINK_ADDRESS + MIB + 0x1000);
        assert_eq!(address(&banks(), GIB + 0x5000), directmap + 0x5000);
        assert_eq!(address(&banks(), 4 * GIB + 0x5000), directmap + GIB + 0x5000);
    }

    #[test]
    #[should_panic(expected = "a table is reached")]
    fn bad_a_table_in_the_hole() {
        address(&banks(), 3 * GIB);
    }

    #[test]
    fn good_a_request_learns_what_is_reached_through_it() {
        let span = VirtSpan::of(VirtAddr::at(layout::DIRECTMAP.start().raw() + GIB - MIB), 2 * MIB).unwrap();
        let reached: Vec<_> = banks().reached(span).map(|part| part.phys).collect();
        assert_eq!(reached, [phys(2 * GIB - MIB, MIB), phys(4 * GIB, MIB)]);
        assert!(banks().meets(span));
        assert_eq!(pool().reached(span).count(), 0);
    }

    #[test]
    fn good_banks_at_one_distance_are_one_piece_and_bad_too_many_distances() {
        let at = |index: u64, distance: u64| {
            (VirtAddr::at(layout::DIRECTMAP.start().raw() + index * GIB - distance), phys(index * GIB, GIB))
        };
        let alike = (1..100).try_fold(pool(), |window, index| {
            let (virt, bank) = at(index, 0);
            window.with_directmap(virt, bank)
        });
        assert!(alike.is_some());
        let apart = |count| {
            (1..=count).try_fold(pool(), |window, index| {
                let (virt, bank) = at(index, index * MIB);
                window.with_directmap(virt, bank)
            })
        };
        assert!(apart(PIECES as u64).is_some() && apart(PIECES as u64 + 1).is_none());
    }
}
