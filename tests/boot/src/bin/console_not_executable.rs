//! Device memory is never fetched from: a speculative fetch could have effects.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = breakwater::layout::FIXMAP_CONSOLE.start().raw();
    say!("fact: call to the console's registers at {address:#x}");
    probe::call(address);
    booted.failed("device memory was executed");
});
