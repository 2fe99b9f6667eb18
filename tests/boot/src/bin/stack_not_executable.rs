//! The stack cannot be executed.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let code = core::hint::black_box(probe::ReturningPage([probe::RET; 1024]));
    let address = &raw const code as u64 + MARKED_OFFSET;
    booted.require(booted.start.map().stack.contains(VirtAddr::at(address)), "the page is not on the boot stack");
    probe::publish_code(address);
    say!("fact: call to the stack at {address:#x}");
    probe::call(address);
    booted.failed("the stack was executed");
});
