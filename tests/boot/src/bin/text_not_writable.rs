//! Code cannot be written.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = booted.start.map().text.start().raw() + MARKED_OFFSET;
    say!("fact: write to text at {address:#x}");
    probe::write(address, 0);
    booted.failed("text was written");
});
