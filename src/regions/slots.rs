//! The small fixed parts: console in the fixmap, device tree, vmap, livepatch slot.

#![forbid(unsafe_code)]

use super::{Failure, Space, image, window};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::audit::Declared;
use crate::descriptor::{Attributes, DataAccess, DeviceKind};
use crate::layout;
use crate::machine::Machine;

/// A console's registers.
pub const REGISTERS: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);

/// The page of the UART that the image was built to speak on, in its place in the fixmap: part of the first tables and
/// of the runtime ones.
#[must_use]
pub const fn earlycon(page: Frame) -> Declared {
    Declared { name: "early console", virt: layout::FIXMAP_EARLYCON, output: Some(page.start()), attributes: REGISTERS }
}

/// Maps the pages that hold `registers` into the console's place in the fixmap, and returns where the first register is.
///
/// # Errors
/// [`Failure`] when it has more registers than the place has pages, or the mapper refuses.
pub fn map_console<M: Machine>(space: &mut Space<'_, M>, registers: PhysSpan) -> Result<VirtAddr, Failure> {
    const NAME: &str = "console";
    let pages = registers.page_cover();
    let start = layout::FIXMAP_CONSOLE.start();
    let virt = VirtSpan::of(start, pages.bytes())
        .filter(|&virt| layout::FIXMAP_CONSOLE.covers(virt))
        .ok_or(Failure::TooMany { name: NAME })?;
    space.map(Declared { name: NAME, virt, output: Some(pages.start()), attributes: REGISTERS }, Level::L3)?;
    let offset = registers.start().raw() - pages.start().raw();
    Ok(VirtAddr::at(start.raw() + offset))
}

/// Where the device tree at `start` is mapped to: the same offset within a page, from the slot's first page on.
#[must_use]
pub fn device_tree_address(start: PhysAddr) -> VirtAddr {
    VirtAddr::at(layout::DEVICE_TREE.start().raw() + start.raw() % PAGE_BYTES)
}

/// Maps, read-only, the pages that hold `tree`, of which those that hold `mapped` are already. By pages alone: a block would reach over
/// its neighbourhood, which may be no RAM.
///
/// # Errors
/// [`Failure`] when the mapper refuses.
pub fn map_device_tree<M: Machine>(
    space: &mut Space<'_, M>,
    tree: PhysSpan,
    mapped: Option<PhysSpan>,
) -> Result<(), Failure> {
    let first = tree.page_cover().start();
    let from = mapped.map_or(first, |mapped| mapped.page_cover().end_exclusive());
    let name = if mapped.is_none() { "device tree" } else { "device tree, rest" };
    let Some(pages) = PhysSpan::new(from, tree.page_cover().end_exclusive()).filter(|pages| !pages.is_empty()) else {
        return Ok(());
    };
    let virt = VirtAddr::at(layout::DEVICE_TREE.start().raw() + (from.raw() - first.raw()));
    let virt = VirtSpan::of(virt, pages.bytes())
        .filter(|&virt| layout::DEVICE_TREE.covers(virt))
        .ok_or(Failure::TooMany { name })?;
    space.map(Declared { name, virt, output: Some(from), attributes: image::CONSTANTS }, Level::L3)
}

/// Makes the tables that mappings on demand will use, so that only fills happen there: vmap down to level 2, the window
/// of `cpus` CPUs in it down to level 3, so that showing a frame never wants another, and the livepatch slot, when
/// configured, down to level 3.
///
/// # Errors
/// [`Failure`] when the mapper refuses.
pub fn populate_vmap<M: Machine>(space: &mut Space<'_, M>, cpus: usize, livepatch: bool) -> Result<(), Failure> {
    let failure = |name| move |error| Failure::Mapping { name, error };
    space.mapper().populate(layout::VMAP, Level::L2).map_err(failure("vmap"))?;
    space.mapper().populate(window::slots_of(cpus), Level::L3).map_err(failure("window"))?;
    if livepatch {
        space.mapper().populate(layout::LIVEPATCH, Level::L3).map_err(failure("livepatch slot"))?;
    }
    Ok(())
}
