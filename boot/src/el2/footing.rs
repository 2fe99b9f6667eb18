//! What this image's CPUs stand on, and the manager with them; and the pages on whose faults they rely.

use super::image::image_map;
use breakwater::addr::{Frame, PAGE_BYTES, VirtAddr, VirtSpan};
use breakwater::layout;
use breakwater::machine::Footing;
use breakwater::regions::stacks;
use core::sync::atomic::{AtomicU64, Ordering};

/// The identity page while a CPU may still arrive through it; else no address.
#[unsafe(link_section = ".sealed.identity")]
static IDENTITY: AtomicU64 = AtomicU64::new(u64::MAX);

/// What of `span` may not be broken: code, constants, data and stacks of the image, the console, the device tree, the
/// stacks of the CPUs. Init, an identity page that no CPU needs, and sealed data are nobody's footing: no CPU is there
/// when they are edited ([`breakwater::bringup`]); what sealed data shows is the window's to keep.
pub(super) fn of(span: VirtSpan) -> Option<Footing> {
    // All but the stacks lie in one piece of the map, and most requests lie beyond.
    if span.start() >= layout::DEVICE_TREE.end_exclusive() && !meets_stacks(span) {
        return None;
    }
    let map = image_map();
    let parts = [
        ("text", map.text),
        ("rodata", map.rodata),
        ("data", map.data),
        ("boot stack", map.stack),
        ("boot exception stack", map.exception_stack),
        ("console", layout::FIXMAP_CONSOLE),
        ("early console", super::uart::earlycon_page().map_or(layout::NOWHERE, |page| page.virt)),
        ("device tree", layout::DEVICE_TREE),
        ("CPU stacks", layout::STACKS),
        ("identity page", kept_identity()),
    ];
    parts.into_iter().find(|(_, virt)| virt.intersection(span).is_some()).map(|(name, virt)| Footing { name, virt })
}

/// Whether `span` meets the stacks of the CPUs, or what lies between them.
#[inline(always)]
pub(super) fn meets_stacks(span: VirtSpan) -> bool {
    let (start, end_exclusive) = (layout::STACKS.start().raw(), layout::STACKS.end_exclusive().raw());
    span.start().raw() < end_exclusive && start < span.end_exclusive().raw()
}

/// The first page of `span` that lies below a stack and is never mapped: who runs over the end of a stack must fault.
pub(super) fn guard_in(span: VirtSpan) -> Option<Footing> {
    let map = image_map();
    let below = |stack: VirtSpan| {
        let start = VirtAddr::new(stack.start().raw().checked_sub(PAGE_BYTES)?)?;
        VirtSpan::new(start, stack.start()).filter(|guard| guard.intersection(span).is_some())
    };
    let guard = below(map.stack).or_else(|| below(map.exception_stack)).or_else(|| stacks::guard_in(span));
    guard.map(|virt| Footing { name: "guard page of a stack", virt })
}

/// From here on the identity page, in `frame`, is footing: a CPU that did not report may still arrive through it.
pub(crate) fn keep_identity(frame: Frame) {
    IDENTITY.store(frame.start().raw(), Ordering::Relaxed);
}

fn kept_identity() -> VirtSpan {
    let page = VirtAddr::new(IDENTITY.load(Ordering::Relaxed));
    page.and_then(|page| VirtSpan::of(page, PAGE_BYTES)).unwrap_or(layout::NOWHERE)
}
