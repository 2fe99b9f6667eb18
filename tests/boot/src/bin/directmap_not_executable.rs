//! RAM cannot be executed through the directmap.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = booted.take_ram().1 + MARKED_OFFSET;
    probe::write(address, probe::RET.into());
    probe::publish_code(address);
    say!("fact: call to the directmap at {address:#x}");
    probe::call(address);
    booted.failed("the directmap was executed");
});
