//! Nothing is mapped where the identity page was, on a CPU that came in through it either: its TLB, too, was told.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let address = booted.start.identity().start().raw() + MARKED_OFFSET;
    say!("fact: read of the identity page at {address:#x} on CPU 1");
    let read = |address| {
        let _ = probe::read(address as u64);
    };
    booted.on_cpu(1, read, address);
    booted.failed("CPU 1 read the identity page");
});
