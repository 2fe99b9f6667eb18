//! The device tree cannot be written where it is mapped for reading.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = booted.handover.device_tree().as_ptr() as u64;
    say!("fact: write to the device tree at {address:#x}");
    probe::write(address, 0);
    booted.failed("the device tree was written");
});
