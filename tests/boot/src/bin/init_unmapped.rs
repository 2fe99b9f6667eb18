//! Init is gone: its first page, the header, does not translate any more.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let init = booted.start.map().init;
    for page in 1..init.bytes() / PAGE_BYTES {
        let address = init.start().raw() + page * PAGE_BYTES;
        booted.require(probe::translate(address).is_none(), format_args!("init is mapped at {address:#x}"));
    }
    let address = init.start().raw();
    say!("fact: read of init at {address:#x}");
    let value = probe::read(address);
    booted.failed(format_args!("init was read: {value:#x}"));
});
