//! Safe code asks for what would let it reach memory that it does not own, through the manager or through what the image stands on. Each
//! request is refused, and what the supply gives to a table is what was given to the supply.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    ask(&booted);
    booted.holds("nothing but what is owned is reached")
});

#[cfg(target_os = "none")]
#[forbid(unsafe_code)]
fn ask(booted: &breakwater_boot_tests::Booted) {
    use breakwater::addr::Level;
    use breakwater::descriptor::{Access, Attributes};
    use breakwater::frames::FrameSupply;
    use breakwater::mapper::{Error, Request};
    use breakwater::regions::stacks;
    use breakwater_boot_tests::prelude::*;
    const DATA: Attributes = Attributes::Normal(Access::ReadWrite);

    let (ram, window) = booted.take_ram();
    let page = |at: u64| VirtSpan::of(VirtAddr::at(at), PAGE_BYTES).unwrap_or_else(|| booted.failed("an address"));
    let map = |virt, output| {
        let request = Request::new(virt, output, DATA, Level::L3);
        booted.handover.edit(|mut space| space.mapper().map(request).map(drop))
    };
    let remap = |virt, output| booted.handover.edit(|mut space| space.mapper().remap(virt, output, DATA).map(drop));
    let refused = |what: &str, answer: Result<(), Error>| match answer {
        Err(error @ (Error::Misdirected { .. } | Error::Guarded { .. } | Error::WouldBreakSelf { .. })) => {
            say!("fact: {what}: {error}");
        }
        other => booted.failed(format_args!("{what}: {other:?}")),
    };

    let (own, victim) = (ram.span().start(), booted.start.physical(booted.start.map().data).start());
    let shown = page(window);
    refused("remapped window", remap(shown, victim));
    let unmapped = booted.handover.edit(|mut space| space.mapper().unmap(shown).map(drop));
    booted.require(unmapped.is_ok(), "a frame of one's own may go from the directmap");
    refused("window", map(shown, victim));
    booted.require(map(shown, own).is_ok(), "it may come back");

    refused("sealed data", remap(page(booted.start.map().sealed.start().raw()), own));
    refused("device tree", remap(page(breakwater::layout::DEVICE_TREE.start().raw()), own));
    for stack in
        [booted.start.map().stack, booted.start.map().exception_stack, stacks::stacks_of(1, stacks::STACK_BYTES).stack]
    {
        refused("guard", map(page(stack.start().raw() - PAGE_BYTES), own));
    }

    let at = VirtSpan::of(VirtAddr::at(breakwater::layout::VMAP.start().raw() + (512 << 20)), 4 << 20);
    let at = at.unwrap_or_else(|| booted.failed("no vmap"));
    booted.handover.edit(|mut space| {
        let theirs = core::mem::replace(space.frames(), FrameSupply::new(ram));
        let two = space.mapper().populate(at, Level::L3);
        booted.require(matches!(two, Err(Error::OutOfFrames { needed: 2, available: 1 })), "one frame, two tables");
        let one = space.mapper().populate(page(at.start().raw()), Level::L3);
        booted.require(one.is_ok_and(|cost| cost.frames == 1), "one frame, one table");
        let table = space.mapper().walk(at.start()).last().map(|step| step.slot.table().start());
        booted.require(table == Some(own), "the table stands in the frame that was given");
        *space.frames() = theirs;
    });
}
