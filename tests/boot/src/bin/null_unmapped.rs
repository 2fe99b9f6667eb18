//! Address 0 is not mapped.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    say!("fact: read of address 0");
    let value = probe::read(0);
    booted.failed(format_args!("address 0 was read: {value:#x}"));
});
