//! Data cannot be executed.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
static VARIABLES: breakwater_boot_tests::probe::ReturningPage<core::sync::atomic::AtomicU32> =
    breakwater_boot_tests::probe::ReturningPage(
        [const { core::sync::atomic::AtomicU32::new(breakwater_boot_tests::probe::RET) }; 1024],
    );

breakwater_boot_tests::fact!(|booted| {
    let address = core::hint::black_box(&raw const VARIABLES) as u64 + MARKED_OFFSET;
    booted.require(booted.start.map().data.contains(VirtAddr::at(address)), "the variables are not in data");
    say!("fact: call to data at {address:#x}");
    probe::call(address);
    booted.failed("data was executed");
});
