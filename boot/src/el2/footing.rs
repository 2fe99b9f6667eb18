//! What this image's CPUs stand on, and the manager with them.

use super::image::image_map;
use breakwater::addr::VirtSpan;
use breakwater::layout;
use breakwater::machine::Footing;

/// What of `span` may not be broken: code, constants, data and stacks of the image, the console, the stacks of the CPUs. Init, the identity
/// page and sealed data are nobody's footing: no CPU is there when they are edited ([`breakwater::bringup`]).
pub(super) fn of(span: VirtSpan) -> Option<Footing> {
    let map = image_map();
    let parts = [
        ("text", map.text),
        ("rodata", map.rodata),
        ("data", map.data),
        ("boot stack", map.stack),
        ("boot exception stack", map.exception_stack),
        ("console", layout::FIXMAP_CONSOLE),
        ("CPU stacks", layout::STACKS),
    ];
    parts.into_iter().find(|(_, virt)| virt.intersection(span).is_some()).map(|(name, virt)| Footing { name, virt })
}
