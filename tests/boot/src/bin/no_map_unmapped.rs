//! `no-map` memory in the middle of RAM is not mapped; its neighbours are.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let hole = booted.claimed();
    for neighbour in [hole.start().raw() - PAGE_BYTES, hole.end_exclusive().raw()] {
        let address = booted.directmap(PhysAddr::at(neighbour));
        let found = probe::translate_write(address);
        booted.require(found == Some(PhysAddr::at(neighbour)), format_args!("{neighbour:#x} translates to {found:?}"));
        let _ = probe::read(address);
    }
    for page in 0..hole.bytes() / PAGE_BYTES {
        let phys = hole.start().raw() + page * PAGE_BYTES;
        let found = probe::translate(booted.directmap(PhysAddr::at(phys)));
        booted.require(found.is_none(), format_args!("{phys:#x}, which is no-map, is mapped"));
    }
    let address = booted.directmap(hole.start()) + MARKED_OFFSET;
    say!("fact: read of no-map memory at {address:#x}");
    let value = probe::read(address);
    booted.failed(format_args!("no-map memory was read: {value:#x}"));
});
