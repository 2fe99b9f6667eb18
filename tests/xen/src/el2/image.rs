//! Xen's image, as its linker script bounds it, and what Xen's CPUs stand on: the image, and the directmap, where their
//! stacks and the tables are.

use breakwater::addr::{PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::descriptor::{Access, Attributes};
use breakwater::layout;
use breakwater::machine::Footing;

/// A part of Xen's image with rights of its own: whole pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub(crate) virt: VirtSpan,
    pub(crate) attributes: Attributes,
}

/// What of the image somebody asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// All of it, in ascending order.
    pub(crate) sections: [Section; 5],
    /// From the first byte to the last.
    pub(crate) image: VirtSpan,
    /// The pool of table frames.
    pub(crate) pool: VirtSpan,
    /// Sealed when Xen's boot is over.
    pub(crate) sealed: VirtSpan,
    /// Freed then.
    pub(crate) init: VirtSpan,
}

impl Bounds {
    /// Where `span` of the image lies, `offset` being physical address - link address.
    pub(crate) fn physical(&self, span: VirtSpan, offset: u64) -> PhysSpan {
        let start = PhysAddr::at(span.start().raw().wrapping_add(offset));
        PhysSpan::of(start, span.bytes()).unwrap_or(PhysSpan::EMPTY)
    }
}

macro_rules! symbols {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(static $name: u8;)*
        }
    };
}

symbols! {
    _start bw_text_end_exclusive __ro_after_init_start __ro_after_init_end __init_begin bw_init_text_end_exclusive
    __init_end bw_image_end_exclusive bw_pool_start bw_pool_end_exclusive
}

macro_rules! span {
    ($start:ident .. $end:ident) => {
        VirtSpan::new(VirtAddr::at((&raw const $start) as u64), VirtAddr::at((&raw const $end) as u64))
            .expect("the linker script's bounds ascend")
    };
}

/// The bounds, at the link address.
pub(crate) fn bounds() -> Bounds {
    let part = |virt, access| Section { virt, attributes: Attributes::Normal(access) };
    Bounds {
        sections: [
            part(span!(_start..bw_text_end_exclusive), Access::ReadExecute),
            part(span!(bw_text_end_exclusive..__ro_after_init_start), Access::ReadOnly),
            part(span!(__ro_after_init_start..__init_begin), Access::ReadWrite),
            part(span!(__init_begin..bw_init_text_end_exclusive), Access::ReadExecute),
            part(span!(bw_init_text_end_exclusive..bw_image_end_exclusive), Access::ReadWrite),
        ],
        image: span!(_start..bw_image_end_exclusive),
        pool: span!(bw_pool_start..bw_pool_end_exclusive),
        sealed: span!(__ro_after_init_start..__ro_after_init_end),
        init: span!(__init_begin..__init_end),
    }
}

/// What of `span` may not be broken. Init and sealed data are nobody's footing: Xen edits them once no CPU is there.
pub(super) fn of(span: VirtSpan) -> Option<Footing> {
    let met = |virt: VirtSpan| virt.intersection(span).is_some();
    if met(layout::DIRECTMAP) {
        return Some(Footing { name: "directmap", virt: layout::DIRECTMAP });
    }
    let bounds = bounds();
    if !met(bounds.image) || bounds.sealed.covers(span) || bounds.init.covers(span) {
        return None;
    }
    Some(Footing { name: "image", virt: bounds.image })
}

/// Whether `span` meets stacks that have an area of their own: Xen's have none.
#[inline(always)]
pub(super) fn meets_stacks(_span: VirtSpan) -> bool {
    false
}

/// What is never mapped: Xen has no guard pages.
pub(super) fn guard_in(_span: VirtSpan) -> Option<Footing> {
    None
}
