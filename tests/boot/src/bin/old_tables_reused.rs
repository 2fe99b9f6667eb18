//! The first tables' frames come back through the supply; when they hold rubbish, nothing notices, because nothing translates through them.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    use breakwater::addr::Level;
    use breakwater::audit::Declared;
    use breakwater::descriptor::{Access, Attributes};

    let old = booted.start.physical(booted.start.map().first_tables);
    // The table for these pages first: it is not to be one of the frames that this is about.
    let vmap = VirtSpan::of(breakwater::layout::VMAP.start(), old.bytes()).unwrap_or(breakwater::layout::VMAP);
    let populated = booted.handover.edit(|mut space| space.mapper().populate(vmap, Level::L3));
    booted.require(populated.is_ok(), format_args!("vmap cannot be populated: {populated:?}"));

    let mut reused = 0;
    loop {
        let frame = booted.handover.frames().lock().take();
        let Some(free) = frame.filter(|_| reused < old.bytes() / PAGE_BYTES) else { break };
        let frame = free.frame();
        if !old.contains(frame.start()) {
            continue;
        }
        let start = VirtAddr::at(breakwater::layout::VMAP.start().raw() + reused * PAGE_BYTES);
        let virt = VirtSpan::of(start, PAGE_BYTES).unwrap_or(breakwater::layout::VMAP);
        // Read-only: the image's own mapping stays the one through which they are written.
        let attributes = Attributes::Normal(Access::ReadOnly);
        let region = Declared { name: "reused table", virt, output: Some(frame.start()), attributes };
        let mapped = booted.handover.edit(|mut space| space.map(region, Level::L3));
        booted.require(mapped.is_ok(), format_args!("{:?} cannot be mapped: {mapped:?}", frame.start()));
        fill_with_rubbish(&booted, frame.start(), start.raw());
        reused += 1;
    }
    booted.require(reused * PAGE_BYTES == old.bytes(), format_args!("only {reused} frames of {old} came back"));
    for index in booted.handover.cpus().others() {
        booted.on_cpu(index, |_| (), 0);
    }
    let identity = booted.start.identity().start().raw();
    booted.require(probe::translate(identity).is_none(), "the identity page translates");
    booted.require_clean_audit(&[]);
    booted.holds(format_args!("{reused} frames of the first tables are reused, nothing translates through them"))
});

/// Fills the frame at `phys` with descriptors that would map the whole image's span to itself as writable code, and reads them back through
/// the page at `virt`.
#[cfg(target_os = "none")]
fn fill_with_rubbish(booted: &breakwater_boot_tests::Booted, phys: breakwater::addr::PhysAddr, virt: u64) {
    use breakwater_boot_tests::prelude::*;
    const RUBBISH: u64 = 0x0000_0000_dead_0701;
    let link = booted.start.map().whole.start().raw() + (phys.raw() - booted.start.image_start().raw());
    for offset in (0..PAGE_BYTES).step_by(8) {
        probe::write(link + offset, RUBBISH + (offset << 40));
        let read = probe::read(virt + offset);
        booted.require(read == RUBBISH + (offset << 40), format_args!("{virt:#x} is not {phys:?}: {read:#x}"));
    }
}
