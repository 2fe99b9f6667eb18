//! Constants cannot be executed, not even when they are instructions.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
static CONSTANTS: breakwater_boot_tests::probe::ReturningPage<u32> =
    breakwater_boot_tests::probe::ReturningPage([breakwater_boot_tests::probe::RET; 1024]);

breakwater_boot_tests::fact!(|booted| {
    let address = core::hint::black_box(&raw const CONSTANTS) as u64 + MARKED_OFFSET;
    booted.require(booted.start.map().rodata.contains(VirtAddr::at(address)), "the constants are not in rodata");
    say!("fact: call to rodata at {address:#x}");
    probe::call(address);
    booted.failed("rodata was executed");
});
