//! A page below and a page above every stack is not mapped, on every CPU; the stacks themselves are, in whole.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
fn check(booted: &breakwater_boot_tests::Booted, what: &str, index: usize, stack: breakwater::addr::VirtSpan) {
    use breakwater_boot_tests::prelude::*;
    for page in 0..stack.bytes() / PAGE_BYTES {
        let address = stack.start().raw() + page * PAGE_BYTES;
        booted.require(
            probe::translate_write(address).is_some(),
            format_args!("{what} of CPU {index}: hole at {address:#x}"),
        );
    }
    for address in [stack.start().raw() - PAGE_BYTES, stack.start().raw() - 8, stack.end_exclusive().raw()] {
        let hit = probe::translate(address);
        booted.require(hit.is_none(), format_args!("{what} of CPU {index}: {address:#x} is mapped to {hit:?}"));
    }
    say!("fact: {what} of CPU {index} at {stack} is guarded");
}

breakwater_boot_tests::fact!(|booted| {
    check(&booted, "stack", 0, booted.start.map().stack);
    check(&booted, "exception stack", 0, booted.start.map().exception_stack);
    for index in booted.handover.cpus().others() {
        let stacks = breakwater::regions::stacks::stacks_of(index, breakwater::regions::stacks::STACK_BYTES);
        check(&booted, "stack", index, stacks.stack);
        check(&booted, "exception stack", index, stacks.exception_stack);
    }
    booted.holds("every stack has its guards")
});
