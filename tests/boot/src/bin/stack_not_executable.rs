//! The stack cannot be executed.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let code = core::hint::black_box([probe::RET; 2]);
    let address = code.as_ptr() as u64;
    booted.require(booted.start.map.stack.contains(VirtAddr::at(address)), "the variable is not on the boot stack");
    probe::publish_code(address);
    say!("fact: call to the stack at {address:#x}");
    probe::call(address);
    booted.failed("the stack was executed");
});
