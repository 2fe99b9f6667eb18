//! An exception inside the exception path ends there, with a message of its own: no loop, no silence.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    say!("fact: read of address 0 without an exception stack");
    // The first store of the exception frame faults at this address less 0x110.
    probe::set_exception_stack(0x1000);
    let value = probe::read(0);
    booted.failed(format_args!("address 0 was read: {value:#x}"));
});
