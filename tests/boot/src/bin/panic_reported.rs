//! A panic is reported with its message and place.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    panic!("a promise was broken, on purpose, with {} CPU", booted.handover.cpus().count())
});
