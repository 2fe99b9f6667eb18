//! Constants cannot be executed, be they instructions or not.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
static CONSTANT_RET: u32 = breakwater_boot_tests::probe::RET;

breakwater_boot_tests::fact!(|booted| {
    let address = core::hint::black_box(&raw const CONSTANT_RET) as u64;
    booted.require(booted.start.map.rodata.contains(VirtAddr::at(address)), "the constant is not in rodata");
    say!("fact: call to rodata at {address:#x}");
    probe::call(address);
    booted.failed("rodata was executed");
});
