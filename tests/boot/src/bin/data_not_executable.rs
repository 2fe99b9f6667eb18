//! Data cannot be executed.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
static DATA_RET: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(breakwater_boot_tests::probe::RET);

breakwater_boot_tests::fact!(|booted| {
    let address = core::hint::black_box(&raw const DATA_RET) as u64;
    booted.require(booted.start.map.data.contains(VirtAddr::at(address)), "the variable is not in data");
    say!("fact: call to data at {address:#x}");
    probe::call(address);
    booted.failed("data was executed");
});
