//! What is read-only after boot is.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let sealed = booted.start.map().sealed;
    let address = sealed.start().raw();
    booted.require(!sealed.is_empty() && probe::translate(address).is_some(), "sealed data is not mapped");
    // Read first: the TLB then holds the page.
    let value = probe::read(address);
    say!("fact: write to sealed data at {address:#x}");
    probe::write(address, value);
    booted.failed("sealed data was written");
});
