//! Every page of every bank can be read and written through the directmap, at its place; what lies beyond the last bank cannot.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let first = booted.argument("ram");
    let end_exclusive = first + booted.argument("ram-bytes");
    let image = booted.image_without_init();
    let mut pages = 0;
    for phys in (first..end_exclusive).step_by(PAGE_BYTES as usize).map(PhysAddr::at) {
        let expected = Some(phys).filter(|&phys| !image.contains(phys));
        let found = probe::translate_write(booted.directmap(phys));
        booted.require(found == expected, format_args!("{phys:?} translates to {found:?}, not {expected:?}"));
        pages += 1;
    }
    let beyond = PhysAddr::at(end_exclusive);
    booted.require(probe::translate(booted.directmap(beyond)).is_none(), format_args!("{beyond:?}, no RAM, is mapped"));
    booted.holds(format_args!("{pages} pages of RAM are where they should be"))
});
