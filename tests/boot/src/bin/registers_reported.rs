//! An exception is reported with the registers as they were.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    say!("fact: BRK with known registers; {} CPU", booted.handover.cpus().count());
    probe::break_with_known_registers()
});
