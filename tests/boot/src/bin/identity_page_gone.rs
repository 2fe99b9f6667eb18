//! Nothing is mapped where the identity page was.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = booted.start.identity().start().raw() + MARKED_OFFSET;
    say!("fact: call to the identity page at {address:#x}");
    probe::call(address);
    booted.failed("the identity page was executed");
});
